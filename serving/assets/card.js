// What does a view show? Its chart by part, its latest rows, its seam, and how far live figures were from exact ones.

import { overGroups, overTime } from "./chart.js";
import { define, element } from "./dom.js";
import { ago, bytes, count, percent, relative, time, value } from "./text.js";

const WINDOWS = 48;
const GROUPS = 10;
const ROWS = 8;
const ROWS_PER_WINDOW = 2;
const ROWS_ASKED = 400;
const HEADINGS = { window_start: "window", window_end: "to" };
const LONGEST_CUMULATED_MS = 366 * 86_400_000;

async function get(path) {
  const response = await fetch(path, { headers: { accept: "application/json" } });
  const body = await response.json();
  if (!response.ok) throw new Error(body.detail ?? response.statusText);
  return body;
}

const rows = (card, parameters) => get(`/v1/views/${card.dataset.view}/rows.json?${new URLSearchParams(parameters)}`);

/** Brings a card up to date with what /v1/views tells of its view. */
export async function showView(card, view, now) {
  // Another definition answers: the card was made for the one before it.
  if (card.dataset.definition !== view.definition_hash) return location.reload();
  showFacts(card, view, now);
  showShadow(card, view);
  showDrift(card, view);
  if (!card.dataset.measure) return showTable(card, await rows(card, { ...latest(card), limit: ROWS }));
  const drawn = Number(card.dataset.windowMs) > 0 ? await showWindows(card, view) : await showGroups(card);
  if (!drawn) return;
  for (const part of [card, card.querySelector(".chart")]) part.dataset.updated = Number(part.dataset.updated) + 1;
}

/** What to ask first where windows have no places on a grid: the newest sessions, the window up to the latest event. */
function latest(card) {
  if (card.dataset.kind === "slide") return { as_of: "latest" };
  return card.dataset.kind === "session" ? { order_by: "-window_start" } : {};
}

/** Where a window is drawn. Those of CUMULATE share their starts: each at its last step. */
function placed(card, row) {
  if (card.dataset.kind !== "cumulate") return row.window_start;
  return new Date(Date.parse(row.window_end) - Number(card.dataset.windowMs)).toISOString();
}

async function showWindows(card, view) {
  const { measure, additive } = card.dataset;
  const windowMs = Number(card.dataset.windowMs);
  // Asking only for what is shown keeps this cheap however long the history is, and one date in a far future out of sight.
  const near = Date.parse(view.watermark ?? view.newest_window);
  // Windows of CUMULATE begin as much earlier as they can grow.
  const grown = card.dataset.kind === "cumulate" ? view.window.size_ms ?? LONGEST_CUMULATED_MS : 0;
  const at = (ms) => new Date(near + ms).toISOString();
  const within = (before, after) => (Number.isNaN(near) ? {} : { from: at(-before * windowMs - grown), to: at(after * windowMs) });
  const summed = { ...within(WINDOWS, WINDOWS), group_by: "", measures: measure, order_by: "-window_end", limit: WINDOWS };
  const [merged, batch, speed, latest] = await Promise.all([
    rows(card, summed), rows(card, { ...summed, layer: "batch" }), rows(card, { ...summed, layer: "speed" }),
    rows(card, { ...within(ROWS, WINDOWS), order_by: `-window_end,-${measure}`, limit: ROWS_ASKED }),
  ]);
  // A run was published between the answers: batch and speed would overlap. The next round is a second away.
  if (new Set([merged, batch, speed].map((d) => d.seam.version)).size > 1) return false;
  showTable(card, { ...latest, rows: largestOfEachWindow(latest.rows) });
  if (!showOrHint(card, merged)) return true;
  const by = (document) => new Map(document.rows.map((r) => [placed(card, r), r]));
  const number = (row) => (row && row[measure] !== null ? Number(row[measure]) : 0);
  const [exact, live] = [by(batch), by(speed)];
  const bars = merged.rows.map((row) => {
    const start = placed(card, row);
    if (additive === "true") return { start, exact: number(exact.get(start)), live: number(live.get(start)) };
    if (row._layer === "batch") return { start, exact: number(row), live: 0 };
    return { start, exact: 0, live: number(row), bounds: row._bounds?.[measure]?.map(Number) };
  }).reverse();
  await overTime(card.querySelector(".chart"), { bars, windowMs, measure, seam: seamMark(card, batch, bars) });
  card.querySelector(".range").textContent = `${time(bars[0].start)} to ${time(merged.rows[0].window_end)}`;
  return true;
}

/** The first rows of each window, so that several windows fit the table; more of the newest if there are few windows. */
function largestOfEachWindow(sorted) {
  const seen = new Map();
  const rank = sorted.map((row) => {
    seen.set(row.window_end, (seen.get(row.window_end) ?? 0) + 1);
    return seen.get(row.window_end);
  });
  const wanted = sorted.filter((_, i) => rank[i] <= ROWS_PER_WINDOW).slice(0, ROWS);
  return sorted.filter((row, i) => wanted.includes(row) || (wanted.length < ROWS && i < ROWS)).slice(0, ROWS);
}

/** Behind the newest window that batch has rows of. */
function seamMark(card, batch, bars) {
  if (batch.rows.length === 0) return null;
  // Windows of HOP reach over the next ones, so that their ends are not where they are drawn.
  const last = batch.rows[0];
  const end = card.dataset.kind === "hop" ? new Date(Date.parse(last.window_start) + Number(card.dataset.windowMs)).toISOString() : last.window_end;
  const at = end.replace("Z", "");
  const label = `seam: version ${batch.seam.version}`;
  const toTheLeft = bars.filter((b) => b.start < end).length > bars.length / 2;
  return toTheLeft ? { at, label: `${label} `, anchor: "right" } : { at, label: ` ${label}`, anchor: "left" };
}

async function showGroups(card) {
  const { measure, additive } = card.dataset;
  const dimensions = card.dataset.dimensions.split(",").filter(Boolean);
  const asked = { ...latest(card), order_by: `-${measure}`, limit: GROUPS };
  const [merged, batch] = await Promise.all([rows(card, asked), rows(card, { ...asked, measures: measure, limit: 1000, layer: "batch" })]);
  if (merged.seam.version !== batch.seam.version) return false;
  // Events came between the two answers as of the latest one.
  if (card.dataset.kind === "slide" && merged.as_of !== batch.as_of) return false;
  showTable(card, merged);
  if (!showOrHint(card, merged)) return true;
  const key = (row) => JSON.stringify(dimensions.map((d) => row[d]));
  const exact = new Map(batch.rows.map((r) => [key(r), Number(r[measure])]));
  const bars = merged.rows.map((row) => {
    const [whole, known] = [Number(row[measure]), exact.get(key(row)) ?? 0];
    const group = dimensions.map((d) => row[d] ?? "–").join(" · ") || "all";
    if (row._layer === "batch") return { group, exact: whole, live: 0 };
    return additive === "true" ? { group, exact: known, live: whole - known } : { group, exact: 0, live: whole };
  });
  await overGroups(card.querySelector(".chart"), { bars });
  const upTo = card.dataset.kind === "slide" ? `as of ${time(merged.as_of)}` : "";
  card.querySelector(".range").textContent = [merged.next ? `the largest ${bars.length}` : "", upTo].filter(Boolean).join(", ");
  return true;
}

function showOrHint(card, merged) {
  const empty = card.querySelector(".empty");
  empty.hidden = merged.rows.length > 0;
  card.querySelector(".chart").hidden = !empty.hidden;
  if (!empty.hidden) empty.textContent = "Nothing yet: figures appear with the first event, long before the first batch run.";
  return empty.hidden;
}

function showTable(card, document) {
  // Ends follow from starts, but for sessions and for windows that share their starts.
  const ends = ["session", "cumulate"].includes(card.dataset.kind);
  const columns = document.columns.filter((c) => ends || c.name !== "window_end");
  const shown = JSON.stringify(document.rows);
  const table = card.querySelector("table");
  if (table.dataset.shown === shown) return;
  table.dataset.shown = shown;
  const numeric = (column) => column.role === "measure" && !["STRING", "JSON"].includes(column.type);
  const head = columns.map((c) => element("th", { scope: "col", text: HEADINGS[c.name] ?? c.name, class: numeric(c) ? "number" : "" }));
  const cell = (row) => (c) => element("td", { text: value(row[c.name], c.type), class: numeric(c) ? "number" : "" });
  const badge = (row) => element("td", {}, element("span", {
    text: row._finality, class: `badge ${row._finality}`, title: `${row._finality}, from ${row._layer === "merged" ? "batch and speed" : row._layer}`,
  }));
  // Right after the first column, so that it is in sight on narrow screens too.
  const withSecond = (cells, second) => [...cells.slice(0, 1), second, ...cells.slice(1)];
  table.replaceChildren(
    element("thead", {}, element("tr", {}, ...withSecond(head, element("th", { scope: "col", text: "finality" })))),
    element("tbody", {}, ...document.rows.map((row) => element("tr", { class: row._layer }, ...withSecond(columns.map(cell(row)), badge(row))))),
  );
}

function showFacts(card, view, now) {
  const { seam, batch, state } = view;
  const offsets = Object.entries(seam.offsets);
  const where = offsets.length === 1 ? `offset ${offsets[0][1]}` : `offsets ${offsets.map(([p, o]) => `${p}:${o}`).join(", ")}`;
  card.querySelector(".seam").textContent = seam.version === null ? "seam: nothing published yet, all figures are live" : `seam: version ${seam.version}, ${where}`;
  card.dataset.version = seam.version ?? "";
  const next = view.next_run ? relative(view.next_run, now) : view.schedule ? "–" : "on request";
  define(card.querySelector(".facts"), [
    ["next run", next, view.schedule ? `schedule: ${view.schedule}` : "POST /v1/views/…/runs starts one"],
    ["published", seam.published_at ? ago(seam.published_at, now) : "never", seam.published_at ?? ""],
    ["watermark", time(view.watermark), "event time up to which everything is expected to have come"],
    ["exact", batch ? `${count(batch.rows)} rows` : "–", batch ? `${batch.full ? "full" : "incremental"} run ${batch.run}` : ""],
    ["live", state ? `${count(state.rows)} rows, ${bytes(state.bytes)}` : "–", "held in memory since the seam"],
    ["ledger", ledger(view), view.ledger ? `accepted ${view.ledger.accepted} = batch ${view.ledger.batch} + speed ${view.ledger.speed} + late ${view.ledger.late}` : ""],
  ]);
  card.classList.toggle("incomplete", view.complete === false);
}

/** While another definition is being computed: what it changes, and how far it is. */
function showShadow(card, view) {
  const banner = card.querySelector(".shadow");
  const { shadow } = view;
  banner.hidden = !shadow;
  if (!shadow || banner.dataset.shown === JSON.stringify(shadow)) return;
  banner.dataset.shown = JSON.stringify(shadow);
  const changed = ({ part, name, before, after }) => {
    const what = [part.replace("_", " "), name].filter(Boolean).join(" ");
    return before === null ? `${what} added` : after === null ? `${what} removed` : `${what} changed`;
  };
  const { dates = 0, dates_done: done = 0 } = shadow.progress ?? {};
  const states = { failed: `its last run failed: ${shadow.error}`, cancelled: "its last run was cancelled", running: `${count(done)} of ${count(dates)} dates are done` };
  banner.replaceChildren(
    element("p", {}, element("b", { text: "A new definition is being computed. " }), `Until it is complete, these are the answers of the old one: ${states[shadow.state] ?? shadow.state}.`),
    element("p", { text: shadow.changes.map(changed).join(", "), title: shadow.sql }),
  );
}

const ledger = (view) => (view.complete === null ? "–" : view.complete ? "balances" : "does not balance");

function showDrift(card, view) {
  const drift = view.reconciliation;
  const footer = card.querySelector(".drift");
  const shown = JSON.stringify(drift);
  if (footer.dataset.shown === shown) return;
  footer.dataset.shown = shown;
  if (!drift) {
    footer.replaceChildren(element("p", { text: "Not compared yet: when a run is published, it says how far the live figures had been from the exact ones." }));
    return;
  }
  const share = drift.rows_compared ? drift.rows_equal / drift.rows_compared : 1;
  const errors = Object.entries(drift.measures).filter(([, m]) => m.max_abs_error > 0);
  const worst = errors.map(([name, m]) => `${name} by ${value(m.max_abs_error)} (${percent(m.max_rel_error)})`);
  const causes = Object.entries(drift.causes).filter(([, n]) => n > 0).map(([cause, n]) => `${count(n)} ${cause}`);
  const parts = [
    element("p", {}, element("b", { text: `Drift at version ${drift.version}: ` }),
      `${count(drift.rows_equal)} of ${count(drift.rows_compared)} rows were served as they truly are (${percent(share)}).`),
    element("meter", { min: 0, max: 1, value: share, low: 0.5, high: 0.9, optimum: 1, "aria-label": "share of rows that were equal" }),
  ];
  if (worst.length > 0) parts.push(element("p", { text: `Largest error: ${worst.join(", ")}.` }));
  if (causes.length > 0) parts.push(element("p", { text: `Causes: ${causes.join(", ")}.`, class: drift.causes.unexplained > 0 ? "alarm" : "" }));
  if (view.alarm) parts.unshift(element("p", { text: `Alarm: ${view.alarm}.`, class: "alarm banner", role: "alert" }));
  const history = element("p", { class: "history", hidden: true });
  parts.push(history);
  footer.replaceChildren(...parts);
  showHistory(history, view);
}

/** How drift went on over the last versions, as a line of bars: that of the measure that was furthest off. */
async function showHistory(place, view) {
  const answer = await fetch(`/v1/views/${view.name}/drift?limit=30`).then((response) => (response.ok ? response.json() : null)).catch(() => null);
  if (!answer || answer.reconciliations.length < 2) return;
  const worst = (r) => Math.max(0, ...Object.values(r.measures).map((m) => m.drift));
  const past = answer.reconciliations.toReversed();
  const most = Math.max(...past.map(worst), answer.max_drift ?? 0);
  const bars = past.map((r) =>
    element("i", { style: `height:${most > 0 ? Math.max(6, (100 * worst(r)) / most) : 6}%`, class: r.causes.unexplained > 0 || (answer.max_drift !== null && worst(r) > answer.max_drift) ? "over" : "", title: `version ${r.version}: ${percent(worst(r))} drift, ${count(r.rows_equal)} of ${count(r.rows_compared)} rows equal` }),
  );
  const last = past.at(-1);
  place.replaceChildren(
    element("span", { text: "Drift by version " }),
    element("span", { class: "bars", role: "img", "aria-label": `drift of the last ${past.length} versions, the latest ${percent(worst(last))}, the largest ${percent(Math.max(...past.map(worst)))}` }, ...bars),
    element("span", { text: ` largest ${percent(Math.max(...past.map(worst)))}` }),
  );
  place.hidden = false;
}
