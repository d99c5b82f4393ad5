// The page of a view. Keeps controls, URL and figures in sync: every change of a control becomes a URL.

import { errorText, getJson, queryString } from "./fetch_json.js";
import { CHARTED_MAX, chooseGrain, coarserGrains, hasTimeRange, isGrouped, whereAnyGroup, hasTimeGrid, timeRange, parseState, rowsQuery, viewContext, formatState } from "./query_state.js";
import { badge, element, fillFacts, fillTable, setError, setText } from "./dom.js";
import { showLegend, chartItems, drawOverGroups, drawOverTime } from "./view_chart.js";
import { liveUpdates } from "./live_updates.js";
import { exactShare, showNotices } from "./notices.js";
import { pollWhileVisible } from "./shell.js";
import { showExports } from "./export_panel.js";
import { ago, count, percent, relative, rowCount, time, unit, value } from "./format.js";

const ERRORS = ["range", "grain", "group_by", "as_of", "where"];
const CONTROL_OF = { from: "range", to: "range" };
const GRAIN_NAMES = { "1m": "minute", "1h": "hour", "1d": "day", "1w": "week", "1mo": "month", "1q": "quarter", "1y": "year" };

const find = (id) => document.getElementById(id);
const section = find("view");
const context = viewContext(section);
const chart = find("chart");
let state = parseState(location.search, context);
let oldest = null;
// Each change of the controls is a numbered request: the current one, the last one that the server refused (not sent
// again), and the one on the page, with the colour scheme it was drawn in.
let current = 0;
let refused = -1;
let displayed = -1;
let drawnScheme = "";
const live = liveUpdates(() => again());
const scheme = () => getComputedStyle(document.body).backgroundColor;

const rows = (query) => `/v1/views/${encodeURIComponent(context.view)}/rows.json${queryString(query)}`;

/** Returns which control an error belongs to: the API starts messages with the name of the parameter. */
function controlOf(error) {
  const named = /^([a-z_]+):/.exec(error.problem?.detail ?? "")?.[1];
  const name = CONTROL_OF[named] ?? named;
  return ERRORS.includes(name) && find(`error-${name}`) ? name : "";
}

function showError(error) {
  const at = error ? controlOf(error) : null;
  for (const name of ["", ...ERRORS]) {
    const target = find(name ? `error-${name}` : "error");
    if (!target) continue;
    const text = error && name === at ? errorText(error) : "";
    if (target.textContent !== text || !text) setError(target, text);
    for (const control of document.querySelectorAll(`[aria-describedby="${target.id}"]`)) {
      if (text) control.setAttribute("aria-invalid", "true");
      else control.removeAttribute("aria-invalid");
    }
  }
}

function showFacts(status, now) {
  const { seam } = status;
  const share = exactShare(status);
  fillFacts(find("facts"), [
    ["exact", share === null ? "–" : `${percent(share)} of events`, status.ledger ? `exact figures include ${count(status.ledger.batch)} of ${count(status.ledger.accepted)} events` : ""],
    ["seam", seam.version === null ? "nothing published yet" : `version ${seam.version}`, Object.entries(seam.offsets).map(([p, o]) => `partition ${p}: offset ${o}`).join(", ")],
    ["published", seam.published_at ? ago(seam.published_at, now) : "never", seam.published_at ?? ""],
    ["next run", status.next_run ? relative(status.next_run, now) : status.schedule ? "–" : "on request", status.schedule ? `schedule: ${status.schedule}` : ""],
    ["watermark", time(status.watermark), "no event older than this is expected"],
    ["last comparison", rowsCorrect(status.reconciliation), "share of rows whose live values equalled the exact ones when the last version was published"],
  ]);
}

const rowsCorrect = (r) => (r ? `${percent(r.rows_compared ? r.rows_equal / r.rows_compared : 1)} of rows correct` : "not compared yet");

/** Returns the length of the requested range in milliseconds. For an unbounded range, looks up the oldest window once. */
async function spanOf({ from, to }, status, signal) {
  const near = Date.parse(status.newest_window ?? status.watermark);
  if (from === null && oldest === null && hasTimeGrid(context)) {
    const { body } = await getJson(rows({ order_by: "window_start", limit: 1, group_by: "", measures: context.measure || null }), { signal });
    oldest = body.rows.length > 0 ? Date.parse(body.rows[0].window_start) : null;
  }
  const begin = from ?? oldest ?? near;
  return Math.max(0, Math.min(to ?? near, near) - begin) || 0;
}

/** Formats the view's own window size. The size of calendar windows is approximate, so months are counted. */
function ownGrain() {
  const months = Math.round(context.windowMs / 2_629_746_000);
  return months >= 1 && context.windowMs % 604_800_000 !== 0 ? `${months}mo` : unit(context.windowMs);
}

function showGrains(status, grain) {
  const select = find("grain");
  if (!select || !status.window) return;
  const own = ownGrain();
  const offered = [["auto", `auto (${grain || own})`], ["own", `own (${own})`], ...coarserGrains(status.window, context.windowMs).map(([name]) => [name, name]), ["all", "all time"]];
  if (!offered.some(([name]) => name === state.grain)) offered.push([state.grain, state.grain]);
  const shown = JSON.stringify([offered, state.grain]);
  if (select.dataset.shown === shown) return;
  select.dataset.shown = shown;
  select.replaceChildren(...offered.map(([name, text]) => element("option", { value: name, text })));
  select.value = state.grain;
}

/** Returns whether a condition names a measure. Then merged rows and rows of batch may not match one to one. */
const namesMeasure = (where) => context.measures.some((name) => {
  const text = name.replace(/[.*+?^${}()|[\]\\]/g, "\\$&");
  return new RegExp(/^\w+$/.test(name) ? `\\b${text}\\b` : text, "i").test(where);
});

/** Requests the rows to draw, and those of batch alone if the chart shows both parts. Returns null if they do not match. */
async function chartData(base, grain, columns, signal) {
  const { measure } = state;
  const shared = { ...base, measures: measure };
  let groups = [];
  let cut = false;
  let where = base.where;
  const overAll = !hasTimeRange(context) || grain === "all";
  const dimensions = columns.filter((c) => c.role === "dimension");
  if (!overAll && dimensions.length > 0 && context.kind === "tumble") {
    const { body } = await getJson(rows({ ...shared, grain: "all", order_by: `-${measure}`, limit: state.top }), { signal });
    groups = body.rows;
    cut = body.next !== null;
    if (groups.length > 0) where = whereAnyGroup(base.where, groups, dimensions);
  }
  const order = overAll ? `-${measure}` : base.order_by;
  const query = { ...shared, where, order_by: order, limit: overAll ? state.top : CHARTED_MAX };
  const isAdditive = context.additive.has(measure) && !namesMeasure(state.where);
  const merged = await getJson(rows(query), { signal });
  // Without a limit on groups: the largest groups of batch alone may be different ones.
  const batch = isAdditive && merged.body.rows.some((row) => row._layer !== "batch")
    ? await getJson(rows({ ...query, layer: "batch", limit: CHARTED_MAX }), { signal }) : null;
  if (batch && (batch.body.seam.version !== merged.body.seam.version || (context.kind === "slide" && batch.body.as_of !== merged.body.as_of))) return null;
  const list = chartItems(merged.body, { kind: context.kind, windowMs: context.windowMs, measure, columns: dimensions, additive: isAdditive, batch: batch?.body, coarse: grain !== "" });
  return { merged: merged.body, list: list.filter((item) => item.value !== null), cut: cut || (overAll && merged.body.next !== null), full: !overAll && merged.body.next !== null, overAll, grouped: isGrouped(state, context) };
}

/** Returns the names of all groups by their sums, largest first. */
function largestGroups(list) {
  const sums = new Map();
  for (const item of list) sums.set(item.group, (sums.get(item.group) ?? 0) + Math.abs(item.value));
  return [...sums].toSorted((a, b) => b[1] - a[1]).map(([name]) => name);
}

async function showChart(drawn, grain) {
  const { merged, overAll, grouped } = drawn;
  let { list, cut } = drawn;
  let groups = [];
  if (!overAll && grouped) {
    groups = largestGroups(list);
    cut ||= groups.length > state.top;
    groups = groups.slice(0, state.top);
    const kept = new Set(groups);
    list = list.filter((item) => kept.has(item.group));
  }

  const empty = list.length === 0;
  find("figure").hidden = empty || state.chart === "table";
  if (empty || state.chart === "table") return;
  const exact = list.filter((item) => item.isExact || item.exact);
  const ends = Math.max(...exact.map((item) => item.end));
  const marked = { seam: { at: exact.length > 0 && merged.seam.version !== null ? ends : null, text: `seam: version ${merged.seam.version}` }, watermark: Date.parse(merged.watermark) };
  const { measure } = state;
  const by = state.group_by ? ` by ${state.group_by.split(",").join(", ")}` : "";
  const step = grain === "all" ? "" : hasTimeRange(context) && context.kind === "tumble" ? ` per ${GRAIN_NAMES[grain || ownGrain()] ?? (grain || ownGrain())}` : "";
  setText(find("chart-name"), `${measure}${step}${by}`);
  const notes = [cut && `Showing the ${overAll ? list.length : groups.length} largest groups.`, drawn.full && `Showing the newest ${count(CHARTED_MAX)} rows only. Choose a shorter range${find("grain") ? " or a coarser grain" : ""} to see all.`,
    context.kind === "slide" && `As of ${time(merged.as_of)}.`];
  setText(find("chart-note"), notes.filter(Boolean).join(" "));
  // Each group needs the height of its label.
  chart.style.height = overAll ? `${Math.max(140, 60 + list.length * 28)}px` : "";
  if (overAll) await drawOverGroups(chart, { list, measure });
  else await drawOverTime(chart, { list, groups, measure, chart: state.chart, kind: context.kind, marked });
  showLegend(chart, find("legend"), { list, groups: overAll ? [] : groups, measure, marked: overAll ? null : marked, shown: find("chart-name").textContent });
  chart.dataset.updated = Number(chart.dataset.updated ?? 0) + 1;
}

function cell(column) {
  return (row) => {
    const bounds = row._bounds?.[column.name];
    const text = value(row[column.name], column.type);
    if (!bounds || bounds.some(Array.isArray)) return text;
    return element("span", {}, text, element("span", { class: "bounds", title: "95 % interval", text: `${value(bounds[0])} to ${value(bounds[1])}` }));
  };
}

/** Shows how many rows of the result the `HAVING` of the view excluded because it could not be computed for them. */
function showExcluded({ failed_rows: failed }) {
  setText(find("excluded"), failed ? `${rowCount(failed.count)} excluded: the HAVING of the view cannot be computed: ${failed.reason}.` : "");
}

function showRows(document) {
  const ends = ["session", "cumulate", "hop", "slide"].includes(context.kind);
  const chosen = state.measures ? new Set(state.measures.split(",")) : null;
  const columns = document.columns
    .filter((c) => (c.name !== "window_end" || ends) && (c.role !== "measure" || !chosen || chosen.has(c.name)))
    .map((c) => ({ ...c, heading: { window_start: "window", window_end: "to" }[c.name], cell: c.role === "measure" ? cell(c) : undefined }));
  const finality = { name: "_finality", heading: "finality", cell: (row) => badge(row._finality, `from ${row._layer === "merged" ? "batch and speed" : row._layer}`) };
  columns.splice(Math.min(1, columns.length), 0, finality);
  fillTable(find("table"), columns, document.rows, { caption: `Rows of ${context.view}`, rowClass: (row) => row._layer });
  const more = document.next !== null;
  setText(find("count"), document.rows.length === 0 ? "No rows" : more ? `First ${count(document.rows.length)} rows` : document.rows.length === 1 ? "1 row" : `All ${rowCount(document.rows.length)}`);
  find("more").hidden = !more;
}

function showEmpty(document, status) {
  const empty = document.rows.length === 0;
  const hints = status.ledger?.accepted === 0 ? "No data yet. Figures appear with the first event, before any batch run."
    : state.where ? "No rows match this range and condition." : "No rows in this range. Try a longer one.";
  setText(find("empty"), empty ? hints : "");
  if (find("figure") && empty) find("figure").hidden = true;
}

/** One round of polling: requests the state of the view, then the rows. */
async function round() {
  const request = current;
  const stale = () => request !== current;
  try {
    const { body: status, now } = await getJson(`/v1/views/${encodeURIComponent(context.view)}`);
    if (section.dataset.definition !== status.definition_hash) return void location.reload();
    if (stale()) return;
    showFacts(status, now);
    showNotices(find("notices"), status);
    if (refused === request) return;
    const range = timeRange(state, context, status);
    const grain = chooseGrain(state, context, status, await spanOf(range, status));
    showGrains(status, grain);
    showRange(range);
    const query = rowsQuery(state, context, range, grain);
    showExports(context.view, query);
    live.follow(`/v1/views/${encodeURIComponent(context.view)}/live${queryString({ ...query, order_by: null, every: "1s" })}`);
    // A new query is sent at once; the same query only when rows may have changed.
    if (displayed === request && drawnScheme === scheme() && !live.isDue()) return;
    if (displayed !== request) live.isDue();
    const table = await getJson(rows({ ...query, limit: state.rows }));
    if (stale()) return;
    const drawn = context.measure && state.chart !== "table" && table.body.rows.length > 0 ? await chartData(query, grain, table.body.columns) : undefined;
    // The responses differ in version or time; the next round retries.
    if (stale() || drawn === null) return;
    showExcluded(table.body);
    showRows(table.body);
    showEmpty(table.body, status);
    if (drawn) await showChart(drawn, grain);
    else if (find("figure")) find("figure").hidden = true;
    // The controls changed while the chart was drawn.
    if (stale()) return;
    showError(null);
    [displayed, drawnScheme] = [request, scheme()];
    settled();
  } catch (error) {
    if (stale()) return;
    // An API error concerns the request; other errors concern the connection.
    if (!error.problem) throw error;
    if (error.status < 500) refused = request;
    showError(error);
    if (!chart?.dataset.updated) setText(find("empty"), "No figures: the server refused the query. See the message above.");
    settled();
  }
}

function settled() {
  find("loading").hidden = true;
  for (const part of [section, find("rows")]) part.setAttribute("aria-busy", "false");
  section.dataset.updated = Number(section.dataset.updated) + 1;
  section.dataset.shown = location.search;
}

const minutes = (ms) => (ms === null || Number.isNaN(ms) ? "" : new Date(ms).toISOString().slice(0, 16));

function showRange({ from, to }) {
  for (const [name, at] of [["from", from], ["to", to]]) {
    const input = find(name);
    const text = state.range === "" ? state[name].replace(/Z$/, "").slice(0, 16) : name === "from" ? minutes(at) : "";
    if (input && document.activeElement !== input && input.value !== text) input.value = text;
  }
}

/** Sets the controls to the state. */
function showState() {
  for (const button of document.querySelectorAll("#ranges button")) button.setAttribute("aria-pressed", button.dataset.range === state.range);
  for (const button of document.querySelectorAll("#charts button")) button.setAttribute("aria-pressed", button.dataset.chart === state.chart);
  for (const box of document.querySelectorAll("#groups input")) box.checked = state.group_by.split(",").includes(box.value);
  for (const box of document.querySelectorAll("#measures input")) box.checked = !state.measures || state.measures.split(",").includes(box.value);
  const set = (id, text) => { if (find(id)) find(id).value = text; };
  set("measure", state.measure);
  set("where", state.where);
  set("as-of", state.as_of.replace(/Z$/, "").slice(0, 16));
  const top = find("top");
  if (top) {
    if (![...top.options].some((option) => option.value === String(state.top))) top.add(new Option(state.top));
    top.value = state.top;
  }
}

/** Applies changes to the state, as a new history entry if the URL changes. */
function update(changes) {
  state = { ...state, ...changes };
  const address = formatState(state, context);
  if (address !== (location.search || location.pathname)) history.pushState(null, "", address);
  refresh();
}

function refresh() {
  current += 1;
  showState();
  for (const part of [section, find("rows")]) part.setAttribute("aria-busy", "true");
  again();
}

const on = (id, kind, listener) => find(id)?.addEventListener(kind, listener);
const pressed = (name) => (event) => { const chosen = event.target.closest("button")?.dataset[name]; if (chosen) update({ [name]: chosen }); };
const checked = (id) => [...document.querySelectorAll(`#${id} input:checked`)].map((box) => box.value);
const absolute = (text) => (text ? `${text}${text.length === 16 ? ":00" : ""}Z` : "");

on("ranges", "click", (event) => { const range = event.target.closest("button")?.dataset.range; if (range) update({ range, from: "", to: "" }); });
for (const id of ["from", "to"]) on(id, "change", () => {
  const [from, to] = ["from", "to"].map((name) => absolute(find(name).value));
  update({ from, to, range: from || to ? "" : "all" });
});
on("charts", "click", pressed("chart"));
on("grain", "change", (event) => update({ grain: event.target.value }));
on("measure", "change", (event) => update({ measure: event.target.value }));
on("top", "change", (event) => update({ top: Number(event.target.value) }));
on("groups", "change", () => update({ group_by: checked("groups").join(","), rows: 50 }));
on("measures", "change", () => {
  const chosen = checked("measures");
  update({ measures: chosen.length === 0 || chosen.length === context.measures.length ? "" : chosen.join(",") });
});
on("as-of", "change", (event) => update({ as_of: absolute(event.target.value) }));
on("controls", "submit", (event) => { event.preventDefault(); update({ where: find("where").value.trim() }); });
on("reset", "click", () => update(parseState("", context)));
on("more", "click", () => update({ rows: state.rows + 50 }));
addEventListener("popstate", () => { state = parseState(location.search, context); refresh(); });

showState();
const again = pollWhileVisible(round);
