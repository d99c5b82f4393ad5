// Shows the card of a view on the overview: a small live chart, the share of exact events, the last drift and key facts.

import { getJson, queryString } from "./fetch_json.js";
import { fillFacts, setText } from "./dom.js";
import { chartItems, drawOverGroups, drawOverTime } from "./view_chart.js";
import { exactShare, showNotices } from "./notices.js";
import { ago, bytes, count, percent, relative, rowCount, time, value } from "./format.js";

const WINDOWS = 48;
const GROUPS = 8;
const SESSIONS = 500;
const LONGEST_CUMULATED_MS = 366 * 86_400_000;

const rows = (card, query) => getJson(`/v1/views/${card.dataset.view}/rows.json${queryString(query)}`);

/** Updates a card with its view, as `/v1/views` returns it; `now` is the server's clock in milliseconds. */
export async function showView(card, view, now) {
  // The card was rendered for the previous definition.
  if (card.dataset.definition !== view.definition_hash) return location.reload();
  showNotices(card.querySelector(".notices"), view);
  showTrust(card, view);
  showFacts(card, view, now);
  if (card.dataset.measure && !(await showChart(card, view))) return;
  card.dataset.updated = Number(card.dataset.updated) + 1;
}

/** Returns the query of the chart. It requests only the windows shown, so that its cost does not grow with the data. */
function chartQuery(card, view) {
  const { kind, measure, dimensions } = card.dataset;
  const windowMs = Number(card.dataset.windowMs);
  if (kind === "session") return { measures: measure, order_by: "-window_start", limit: SESSIONS };
  if (windowMs === 0) return { measures: measure, order_by: `-${measure}`, limit: GROUPS, as_of: kind === "slide" ? "latest" : null, group_by: dimensions };
  const near = Date.parse(view.watermark ?? view.newest_window);
  // Windows of CUMULATE may start their full size earlier.
  const grown = kind === "cumulate" ? view.window.size_ms ?? LONGEST_CUMULATED_MS : 0;
  // Aligned to windows, so that the query stays the same until the next one starts. The upper bound hides events far in the future.
  const at = (ms) => (Number.isNaN(near) ? null : new Date(Math.floor((near + ms) / windowMs) * windowMs).toISOString());
  return { from: at(-WINDOWS * windowMs - grown), to: at(WINDOWS * windowMs), group_by: "", measures: measure, order_by: "-window_end", limit: WINDOWS };
}

/** Draws the chart. Returns false if the responses differ in version or time; the next round retries. */
async function showChart(card, view) {
  const { kind, measure } = card.dataset;
  const windowMs = Number(card.dataset.windowMs);
  const query = chartQuery(card, view);
  const merged = await rows(card, query);
  const isAdditive = card.dataset.additive === "true";
  const isLive = merged.body.rows.some((row) => row._layer !== "batch");
  const batch = isAdditive && isLive && kind !== "session" ? await rows(card, { ...query, layer: "batch", limit: 1000 }) : null;
  if (batch && (batch.body.seam.version !== merged.body.seam.version || (kind === "slide" && batch.body.as_of !== merged.body.as_of))) return false;
  const columns = merged.body.columns.filter((c) => c.role === "dimension");
  const list = chartItems(merged.body, { kind, windowMs, measure, columns, additive: isAdditive && kind !== "session", batch: batch?.body, coarse: false })
    .filter((item) => item.value !== null);
  const chart = card.querySelector(".chart");
  const empty = card.querySelector(".empty");
  chart.hidden = list.length === 0;
  setText(empty, list.length === 0 ? "No data yet. Figures appear with the first event, before any batch run." : "");
  if (list.length === 0) return true;
  const range = card.querySelector(".range");
  if (windowMs === 0 && kind !== "session") {
    const upTo = kind === "slide" ? `as of ${time(merged.body.as_of)}` : "";
    setText(range, [merged.body.next ? `${list.length} largest groups` : "", upTo].filter(Boolean).join(", "));
    await drawOverGroups(chart, { list, measure });
  } else {
    const exact = list.filter((item) => item.isExact || item.exact);
    const seam = { at: exact.length > 0 && merged.body.seam.version !== null ? Math.max(...exact.map((item) => item.end)) : null, text: `seam: version ${merged.body.seam.version}` };
    await drawOverTime(chart, { list, groups: [], measure, chart: kind === "session" ? "line" : "bar", kind, marked: { seam, watermark: Date.parse(merged.body.watermark) } });
    const ends = list.map((item) => item.row.window_end).toSorted();
    setText(range, kind === "session" ? `${count(list.length)} newest sessions` : `up to ${time(ends.at(-1))}`);
  }
  const [exact, first] = [list.filter((item) => item.isExact).length, list[0]];
  chart.setAttribute("aria-label", `${measure} of ${card.dataset.view}: ${count(list.length)} values, ${count(exact)} of them exact; the ${windowMs ? "latest" : "largest"} is ${value(first.value)}`);
  return true;
}

function showTrust(card, view) {
  const share = exactShare(view);
  setText(card.querySelector(".share"), share === null ? "–" : percent(share));
  const meter = card.querySelector("meter");
  meter.value = share ?? 0;
  meter.textContent = share === null ? "unknown" : percent(share);
  const link = card.querySelector(".drift a");
  const r = view.reconciliation;
  if (!r) return setText(link, "Not compared yet");
  const worst = Math.max(0, ...Object.values(r.measures).map((m) => m.drift));
  const accepted = view.max_drift === undefined ? "" : ` (limit ${percent(view.max_drift)})`;
  setText(link, `Last drift ${percent(worst)}${accepted}, ${count(r.rows_equal)} of ${count(r.rows_compared)} rows correct`);
}

function showFacts(card, view, now) {
  const { seam, batch, state } = view;
  card.dataset.version = seam.version ?? "";
  fillFacts(card.querySelector(".facts"), [
    ["seam", seam.version === null ? "nothing published" : `version ${seam.version}`, Object.entries(seam.offsets).map(([p, o]) => `partition ${p}: offset ${o}`).join(", ")],
    ["published", seam.published_at ? ago(seam.published_at, now) : "never", seam.published_at ?? ""],
    ["next run", view.next_run ? relative(view.next_run, now) : view.schedule ? "–" : "on request", view.schedule ? `schedule: ${view.schedule}` : "start a run on the Batch page, or with POST /v1/views/…/runs"],
    ["exact", batch ? rowCount(batch.rows) : "–", batch ? `${batch.full ? "full" : "incremental"} run ${batch.run}` : ""],
    ["live", state ? rowCount(state.rows) : "–", state ? `${bytes(state.bytes)} of memory: everything since the seam` : ""],
    ["ledger", ledger(view), view.ledger ? `accepted ${view.ledger.accepted} = batch ${view.ledger.batch} + speed ${view.ledger.speed} + late ${view.ledger.late} + failed ${view.ledger.failed}` : ""],
  ]);
}

const ledger = (view) => (view.complete === null ? "–" : view.complete ? "balances" : view.ledger.failed ? `${view.ledger.failed} failed` : "does not balance");
