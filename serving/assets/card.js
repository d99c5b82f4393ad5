// How does a view stand? A small live chart, how much of it is exact, and how far it was off.

import { ask, parameters } from "./ask.js";
import { define, say } from "./dom.js";
import { items, overGroups, overTime } from "./figure.js";
import { exactShare, showNotices } from "./notices.js";
import { ago, bytes, count, percent, relative, rowCount, time, value } from "./text.js";

const WINDOWS = 48;
const GROUPS = 8;
const SESSIONS = 500;
const LONGEST_CUMULATED_MS = 366 * 86_400_000;

const rows = (card, query) => ask(`/v1/views/${card.dataset.view}/rows.json${parameters(query)}`);

/** Brings a card up to date with what /v1/views tells of its view. */
export async function showView(card, view, now) {
  // Another definition answers: the card was made for the one before it.
  if (card.dataset.definition !== view.definition_hash) return location.reload();
  showNotices(card.querySelector(".notices"), view);
  showTrust(card, view);
  showFacts(card, view, now);
  if (card.dataset.measure && !(await showChart(card, view))) return;
  card.dataset.updated = Number(card.dataset.updated) + 1;
}

/** What the chart asks: only what is shown, so that it stays cheap however long the history is. */
function asked(card, view) {
  const { kind, measure, dimensions } = card.dataset;
  const windowMs = Number(card.dataset.windowMs);
  if (kind === "session") return { measures: measure, order_by: "-window_start", limit: SESSIONS };
  if (windowMs === 0) return { measures: measure, order_by: `-${measure}`, limit: GROUPS, as_of: kind === "slide" ? "latest" : null, group_by: dimensions };
  const near = Date.parse(view.watermark ?? view.newest_window);
  // Windows of CUMULATE begin as much earlier as they can grow.
  const grown = kind === "cumulate" ? view.window.size_ms ?? LONGEST_CUMULATED_MS : 0;
  // On whole windows, so that the question stays the same until the next one begins; one date in a far future is out of sight.
  const at = (ms) => (Number.isNaN(near) ? null : new Date(Math.floor((near + ms) / windowMs) * windowMs).toISOString());
  return { from: at(-WINDOWS * windowMs - grown), to: at(WINDOWS * windowMs), group_by: "", measures: measure, order_by: "-window_end", limit: WINDOWS };
}

/** Draws; false if a version was published, or events came, between the answers: the next round is near. */
async function showChart(card, view) {
  const { kind, measure } = card.dataset;
  const windowMs = Number(card.dataset.windowMs);
  const query = asked(card, view);
  const merged = await rows(card, query);
  const isAdditive = card.dataset.additive === "true";
  const isLive = merged.body.rows.some((row) => row._layer !== "batch");
  const batch = isAdditive && isLive && kind !== "session" ? await rows(card, { ...query, layer: "batch", limit: 1000 }) : null;
  if (batch && (batch.body.seam.version !== merged.body.seam.version || (kind === "slide" && batch.body.as_of !== merged.body.as_of))) return false;
  const columns = merged.body.columns.filter((c) => c.role === "dimension");
  const list = items(merged.body, { kind, windowMs, measure, columns, additive: isAdditive && kind !== "session", batch: batch?.body, coarse: false })
    .filter((item) => item.value !== null);
  const chart = card.querySelector(".chart");
  const empty = card.querySelector(".empty");
  chart.hidden = list.length === 0;
  say(empty, list.length === 0 ? "Nothing yet: figures appear with the first event, long before the first batch run." : "");
  if (list.length === 0) return true;
  const range = card.querySelector(".range");
  if (windowMs === 0 && kind !== "session") {
    const upTo = kind === "slide" ? `as of ${time(merged.body.as_of)}` : "";
    say(range, [merged.body.next ? `the largest ${list.length} groups` : "", upTo].filter(Boolean).join(", "));
    await overGroups(chart, { list, measure });
  } else {
    const exact = list.filter((item) => item.isExact || item.exact);
    const seam = { at: exact.length > 0 && merged.body.seam.version !== null ? Math.max(...exact.map((item) => item.end)) : null, text: `seam: version ${merged.body.seam.version}` };
    await overTime(chart, { list, groups: [], measure, chart: kind === "session" ? "line" : "bar", kind, marked: { seam, watermark: Date.parse(merged.body.watermark) } });
    const ends = list.map((item) => item.row.window_end).toSorted();
    say(range, kind === "session" ? `the newest ${count(list.length)} sessions` : `up to ${time(ends.at(-1))}`);
  }
  const [exact, first] = [list.filter((item) => item.isExact).length, list[0]];
  chart.setAttribute("aria-label", `${measure} of ${card.dataset.view}: ${count(list.length)} values, ${count(exact)} of them exact; the ${windowMs ? "latest" : "largest"} is ${value(first.value)}`);
  return true;
}

function showTrust(card, view) {
  const share = exactShare(view);
  say(card.querySelector(".share"), share === null ? "–" : percent(share));
  const meter = card.querySelector("meter");
  meter.value = share ?? 0;
  meter.textContent = share === null ? "not known" : percent(share);
  const link = card.querySelector(".drift a");
  const r = view.reconciliation;
  if (!r) return say(link, "Not compared yet");
  const worst = Math.max(0, ...Object.values(r.measures).map((m) => m.drift));
  const accepted = view.max_drift === undefined ? "" : ` (accepted: ${percent(view.max_drift)})`;
  say(link, `Last drift ${percent(worst)}${accepted}, ${count(r.rows_equal)} of ${count(r.rows_compared)} rows right`);
}

function showFacts(card, view, now) {
  const { seam, batch, state } = view;
  card.dataset.version = seam.version ?? "";
  define(card.querySelector(".facts"), [
    ["seam", seam.version === null ? "nothing published" : `version ${seam.version}`, Object.entries(seam.offsets).map(([p, o]) => `partition ${p}: offset ${o}`).join(", ")],
    ["published", seam.published_at ? ago(seam.published_at, now) : "never", seam.published_at ?? ""],
    ["next run", view.next_run ? relative(view.next_run, now) : view.schedule ? "–" : "on request", view.schedule ? `schedule: ${view.schedule}` : "POST /v1/views/…/runs starts one"],
    ["exact", batch ? rowCount(batch.rows) : "–", batch ? `${batch.full ? "full" : "incremental"} run ${batch.run}` : ""],
    ["live", state ? rowCount(state.rows) : "–", state ? `${bytes(state.bytes)}, held in memory since the seam` : ""],
    ["ledger", ledger(view), view.ledger ? `accepted ${view.ledger.accepted} = batch ${view.ledger.batch} + speed ${view.ledger.speed} + late ${view.ledger.late}` : ""],
  ]);
}

const ledger = (view) => (view.complete === null ? "–" : view.complete ? "balances" : "does not balance");
