// How does a page ask the server? JSON from its doors; what has not changed is neither sent nor read again.

/** A refusal of the server: `detail` says why, as it is; `problem` is all it said (RFC 9457). */
export class Refusal extends Error {
  constructor(status, problem) {
    super(problem.detail ?? problem.title ?? `the server answered ${status}`);
    this.status = status;
    this.problem = problem;
  }
}

/** An error in words for the reader. */
export const told = (error) => (error instanceof TypeError ? "the server cannot be reached" : error.message);

// Answers by their address, with the tag to ask again with. Few addresses are asked again; the oldest goes first.
const KEPT_MAX = 64;
const kept = new Map();

function keep(path, answer) {
  kept.delete(path);
  kept.set(path, answer);
  if (kept.size > KEPT_MAX) kept.delete(kept.keys().next().value);
}

/**
 * GET of JSON. `{ body, changed, now }`: `changed` is false where the server said that the answer is still the same one,
 * `now` is the server's clock in milliseconds, to a second. Throws a Refusal, or a TypeError without a connection.
 */
export async function ask(path, { signal } = {}) {
  const before = kept.get(path);
  const headers = { accept: "application/json" };
  if (before?.etag) headers["if-none-match"] = before.etag;
  const response = await fetch(path, { headers, signal, cache: "no-store" });
  const date = Date.parse(response.headers.get("date"));
  const now = Number.isNaN(date) ? Date.now() : date;
  if (response.status === 304 && before) {
    keep(path, before);
    return { body: before.body, changed: false, now };
  }
  const body = await response.json().catch(() => ({}));
  if (!response.ok) throw new Refusal(response.status, body);
  const etag = response.headers.get("etag");
  if (etag) keep(path, { etag, body });
  return { body, changed: true, now };
}

/** POST or DELETE; gives the answer's JSON, or null without one. Throws as `ask`. */
export async function act(method, path, body) {
  const sent = body === undefined ? {} : { headers: { "content-type": "application/json" }, body: JSON.stringify(body) };
  const response = await fetch(path, { method, ...sent });
  const answer = await response.json().catch(() => null);
  if (!response.ok) throw new Refusal(response.status, answer ?? {});
  return answer;
}

/** The parameters of an address, those that are null or undefined left out. */
export function parameters(pairs) {
  const given = Object.entries(pairs).filter(([, value]) => value !== null && value !== undefined);
  const text = new URLSearchParams(given).toString();
  return text ? `?${text}` : "";
}
