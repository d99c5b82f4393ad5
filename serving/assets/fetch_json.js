// Sends requests to the API and returns JSON. Responses are cached by ETag: an unchanged one is neither sent nor parsed again.

/** A refusal by the server: the message is its `detail`, `problem` the whole response body (RFC 9457). */
export class ApiError extends Error {
  constructor(status, problem) {
    super(problem.detail ?? problem.title ?? `the server responded with status ${status}`);
    this.status = status;
    this.problem = problem;
  }
}

/** The token of the browser's session, which the server expects with every change; undefined without a session. */
export const sessionToken = () => document.cookie.match(/(?:^|; )trueup-csrf=([0-9a-f]+)/)?.[1];

/** Leads to the login page if the server asks for credentials. */
function requireLogin(response) {
  if (response.status === 401) location.assign("/login");
}

/** The message to show for an error; `fetch` throws a TypeError when there is no connection. */
export const errorText = (error) => (error instanceof TypeError ? "cannot reach the server" : error.message);

// Cached responses by path. Pages poll few paths, so a small cache is enough; the least recently used entry is evicted first.
const CACHED_MAX = 64;
const cache = new Map();

function remember(path, response) {
  cache.delete(path);
  cache.set(path, response);
  if (cache.size > CACHED_MAX) cache.delete(cache.keys().next().value);
}

/**
 * Sends a GET request. Returns `{ body, changed, now }`: `changed` is false if the server confirmed the cached response,
 * `now` is the server's clock in milliseconds, to the second. Throws an ApiError, or a TypeError without a connection.
 */
export async function getJson(path, { signal } = {}) {
  const cached = cache.get(path);
  const headers = { accept: "application/json" };
  if (cached?.etag) headers["if-none-match"] = cached.etag;
  const response = await fetch(path, { headers, signal, cache: "no-store" });
  const date = Date.parse(response.headers.get("date"));
  const now = Number.isNaN(date) ? Date.now() : date;
  if (response.status === 304 && cached) {
    remember(path, cached);
    return { body: cached.body, changed: false, now };
  }
  requireLogin(response);
  const body = await response.json().catch(() => ({}));
  if (!response.ok) throw new ApiError(response.status, body);
  const etag = response.headers.get("etag");
  if (etag) remember(path, { etag, body });
  return { body, changed: true, now };
}

/** Sends a POST or DELETE request. Returns the JSON of the response, or null if it has none. Throws like `getJson`. */
export async function sendJson(method, path, body) {
  const headers = {};
  const token = sessionToken();
  if (token) headers["x-trueup-csrf"] = token;
  if (body !== undefined) headers["content-type"] = "application/json";
  const response = await fetch(path, { method, headers, body: body === undefined ? undefined : JSON.stringify(body) });
  requireLogin(response);
  const result = await response.json().catch(() => null);
  if (!response.ok) throw new ApiError(response.status, result ?? {});
  return result;
}

/** Formats a query string, with its `?`; omits parameters that are null or undefined. */
export function queryString(parameters) {
  const present = Object.entries(parameters).filter(([, value]) => value !== null && value !== undefined);
  const text = new URLSearchParams(present).toString();
  return text ? `?${text}` : "";
}
