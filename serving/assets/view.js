// What does the page of a view do? It keeps controls, address and figures one: each change of a control is an address.

import { ask, parameters, told } from "./ask.js";
import { CHARTED_MAX, grainOf, grains, inTime, isGrouped, ofGroups, onGrid, reach, read, rowsAsked, subject, write } from "./asked.js";
import { complain, define, fillTable, badge, element, say } from "./dom.js";
import { explain, items, overGroups, overTime } from "./figure.js";
import { listener } from "./listen.js";
import { exactShare, showNotices } from "./notices.js";
import { keepCurrent } from "./shell.js";
import { takes } from "./take.js";
import { ago, count, percent, relative, rowCount, time, unit, value } from "./text.js";

const ERRORS = ["range", "grain", "group_by", "as_of", "where"];
const HINTS = { from: "range", to: "range" };

const find = (id) => document.getElementById(id);
const section = find("view");
const of = subject(section);
const chart = find("chart");
let state = read(location.search, of);
let oldest = null;
// Which of the reader's wishes is the present one, and which of them the server has refused: it is not asked that again.
let wanted = 0;
let refused = -1;
// Which wish is answered on the page, and in which colours it is drawn.
let answered = -1;
let drawnIn = "";
const live = listener(() => again());
const scheme = () => getComputedStyle(document.body).backgroundColor;

const rows = (query) => `/v1/views/${encodeURIComponent(of.view)}/rows.json${parameters(query)}`;

/** The control that a refusal is about begins what it says. */
function placeOf(error) {
  const named = /^([a-z_]+):/.exec(error.problem?.detail ?? "")?.[1];
  const name = HINTS[named] ?? named;
  return ERRORS.includes(name) && find(`error-${name}`) ? name : "";
}

function showError(error) {
  const at = error ? placeOf(error) : null;
  for (const name of ["", ...ERRORS]) {
    const place = find(name ? `error-${name}` : "error");
    if (!place) continue;
    const text = error && name === at ? told(error) : "";
    if (place.textContent !== text || !text) complain(place, text);
    for (const control of document.querySelectorAll(`[aria-describedby="${place.id}"]`)) {
      if (text) control.setAttribute("aria-invalid", "true");
      else control.removeAttribute("aria-invalid");
    }
  }
}

function showFacts(status, now) {
  const { seam } = status;
  const share = exactShare(status);
  define(find("facts"), [
    ["exact", share === null ? "–" : `${percent(share)} of events`, status.ledger ? `${count(status.ledger.batch)} of ${count(status.ledger.accepted)} events are in the exact figures` : ""],
    ["seam", seam.version === null ? "nothing published yet" : `version ${seam.version}`, Object.entries(seam.offsets).map(([p, o]) => `partition ${p}: offset ${o}`).join(", ")],
    ["published", seam.published_at ? ago(seam.published_at, now) : "never", seam.published_at ?? ""],
    ["next run", status.next_run ? relative(status.next_run, now) : status.schedule ? "–" : "on request", status.schedule ? `schedule: ${status.schedule}` : ""],
    ["watermark", time(status.watermark), "event time up to which everything is expected to have come"],
    ["last drift", drift(status.reconciliation), "rows whose live figures had been what they truly are, when the last version was published"],
  ]);
}

const drift = (r) => (r ? `${percent(r.rows_compared ? r.rows_equal / r.rows_compared : 1)} of rows right` : "not compared yet");

/** Until when rows reach back, where everything is asked for: the oldest window is looked for once. */
async function spanOf({ from, to }, status, signal) {
  const near = Date.parse(status.newest_window ?? status.watermark);
  if (from === null && oldest === null && onGrid(of)) {
    const { body } = await ask(rows({ order_by: "window_start", limit: 1, group_by: "", measures: of.measure || null }), { signal });
    oldest = body.rows.length > 0 ? Date.parse(body.rows[0].window_start) : null;
  }
  const begin = from ?? oldest ?? near;
  return Math.max(0, Math.min(to ?? near, near) - begin) || 0;
}

/** Of calendars the length is about right only: days are told as such, months by their number. */
function ownGrain() {
  const months = Math.round(of.windowMs / 2_629_746_000);
  return months >= 1 && of.windowMs % 604_800_000 !== 0 ? `${months}mo` : unit(of.windowMs);
}

function showGrains(status, grain) {
  const select = find("grain");
  if (!select || !status.window) return;
  const own = ownGrain();
  const offered = [["auto", `auto (${grain || own})`], ["own", `own (${own})`], ...grains(status.window, of.windowMs).map(([name]) => [name, name]), ["all", "all time"]];
  if (!offered.some(([name]) => name === state.grain)) offered.push([state.grain, state.grain]);
  const shown = JSON.stringify([offered, state.grain]);
  if (select.dataset.shown === shown) return;
  select.dataset.shown = shown;
  select.replaceChildren(...offered.map(([name, text]) => element("option", { value: name, text })));
  select.value = state.grain;
}

/** A condition over measures chooses among finished rows: those of batch alone may be others. */
const namesMeasure = (where) => of.measures.some((name) => new RegExp(`\\b${name}\\b`).test(where));

/** What the chart is drawn of: the rows, and those of batch where its part is told apart. */
async function charted(base, grain, columns, signal) {
  const { measure } = state;
  const shared = { ...base, measures: measure };
  let groups = [];
  let cut = false;
  let where = base.where;
  const overAll = !inTime(of) || grain === "all";
  const dimensions = columns.filter((c) => c.role === "dimension");
  if (!overAll && dimensions.length > 0 && of.kind === "tumble") {
    const { body } = await ask(rows({ ...shared, grain: "all", order_by: `-${measure}`, limit: state.top }), { signal });
    groups = body.rows;
    cut = body.next !== null;
    if (groups.length > 0) where = ofGroups(base.where, groups, dimensions);
  }
  const order = overAll ? `-${measure}` : base.order_by;
  const query = { ...shared, where, order_by: order, limit: overAll ? state.top : CHARTED_MAX };
  const isAdditive = of.additive.has(measure) && !namesMeasure(state.where);
  const merged = await ask(rows(query), { signal });
  // Of all groups, not of the largest of batch alone: they may be others.
  const batch = isAdditive && merged.body.rows.some((row) => row._layer !== "batch")
    ? await ask(rows({ ...query, layer: "batch", limit: CHARTED_MAX }), { signal }) : null;
  if (batch && (batch.body.seam.version !== merged.body.seam.version || (of.kind === "slide" && batch.body.as_of !== merged.body.as_of))) return null;
  const list = items(merged.body, { kind: of.kind, windowMs: of.windowMs, measure, columns: dimensions, additive: isAdditive, batch: batch?.body, coarse: grain !== "" });
  return { merged: merged.body, list: list.filter((item) => item.value !== null), cut: cut || (overAll && merged.body.next !== null), full: !overAll && merged.body.next !== null, overAll, grouped: isGrouped(state, of) };
}

/** The largest groups by what they add up to, where the server could not choose them. */
function largest(list) {
  const sums = new Map();
  for (const item of list) sums.set(item.group, (sums.get(item.group) ?? 0) + Math.abs(item.value));
  return [...sums].toSorted((a, b) => b[1] - a[1]).map(([name]) => name);
}

async function showChart(drawn, grain) {
  const { merged, overAll, grouped } = drawn;
  let { list, cut } = drawn;
  let groups = [];
  if (!overAll && grouped) {
    groups = largest(list);
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
  const step = grain === "all" ? "" : inTime(of) && of.kind === "tumble" ? ` per ${grain || ownGrain()}` : "";
  say(find("chart-name"), `${measure}${step}${by}`);
  const notes = [cut && `The largest ${overAll ? list.length : groups.length} groups.`, drawn.full && `Only the newest ${count(CHARTED_MAX)} rows are drawn: choose a shorter range${find("grain") ? " or a coarser grain" : ""}.`,
    of.kind === "slide" && `As of ${time(merged.as_of)}.`];
  say(find("chart-note"), notes.filter(Boolean).join(" "));
  // Bars of many groups need room for their names.
  chart.style.height = overAll ? `${Math.max(140, 60 + list.length * 28)}px` : "";
  if (overAll) await overGroups(chart, { list, measure });
  else await overTime(chart, { list, groups, measure, chart: state.chart, kind: of.kind, marked });
  explain(chart, find("legend"), { list, groups: overAll ? [] : groups, measure, marked: overAll ? null : marked, shown: find("chart-name").textContent });
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

function showRows(document) {
  const ends = ["session", "cumulate", "hop", "slide"].includes(of.kind);
  const chosen = state.measures ? new Set(state.measures.split(",")) : null;
  const columns = document.columns
    .filter((c) => (c.name !== "window_end" || ends) && (c.role !== "measure" || !chosen || chosen.has(c.name)))
    .map((c) => ({ ...c, heading: { window_start: "window", window_end: "to" }[c.name], cell: c.role === "measure" ? cell(c) : undefined }));
  const finality = { name: "_finality", heading: "finality", cell: (row) => badge(row._finality, `from ${row._layer === "merged" ? "batch and speed" : row._layer}`) };
  columns.splice(Math.min(1, columns.length), 0, finality);
  fillTable(find("table"), columns, document.rows, { caption: `Rows of ${of.view}`, rowClass: (row) => row._layer });
  const more = document.next !== null;
  say(find("count"), document.rows.length === 0 ? "No rows" : more ? `The first ${count(document.rows.length)} rows` : `${rowCount(document.rows.length)}, all there are`);
  find("more").hidden = !more;
}

function showEmpty(document, status) {
  const empty = document.rows.length === 0;
  const hints = status.ledger?.accepted === 0 ? "Nothing yet: figures appear with the first event, long before the first batch run."
    : state.where ? "No rows match this range and this condition." : "No rows in this range. A longer one may have some.";
  say(find("empty"), empty ? hints : "");
  if (find("figure") && empty) find("figure").hidden = true;
}

/** One round: how the view stands, then the figures asked for. */
async function round() {
  const turn = wanted;
  const stale = () => turn !== wanted;
  try {
    const { body: status, now } = await ask(`/v1/views/${encodeURIComponent(of.view)}`);
    if (section.dataset.definition !== status.definition_hash) return void location.reload();
    if (stale()) return;
    showFacts(status, now);
    showNotices(find("notices"), status);
    if (refused === turn) return;
    const range = reach(state, of, status);
    const grain = grainOf(state, of, status, await spanOf(range, status));
    showGrains(status, grain);
    showRange(range);
    const query = rowsAsked(state, of, range, grain);
    takes(of.view, query);
    live.follow(`/v1/views/${encodeURIComponent(of.view)}/live${parameters({ ...query, order_by: null, every: "1s" })}`);
    // A new question is asked at once; the same one when rows have changed.
    if (answered === turn && drawnIn === scheme() && !live.isDue()) return;
    if (answered !== turn) live.isDue();
    const table = await ask(rows({ ...query, limit: state.rows }));
    if (stale()) return;
    const drawn = of.measure && state.chart !== "table" && table.body.rows.length > 0 ? await charted(query, grain, table.body.columns) : undefined;
    // A version was published, or events came, between the answers: the next round is near.
    if (stale() || drawn === null) return;
    showRows(table.body);
    showEmpty(table.body, status);
    if (drawn) await showChart(drawn, grain);
    else if (find("figure")) find("figure").hidden = true;
    // The reader wished for something else while the chart was drawn.
    if (stale()) return;
    showError(null);
    [answered, drawnIn] = [turn, scheme()];
    settled();
  } catch (error) {
    if (stale()) return;
    // A refusal is about what was asked; the connection is fine.
    if (!error.problem) throw error;
    if (error.status < 500) refused = turn;
    showError(error);
    if (!chart?.dataset.updated) say(find("empty"), "No figures: the server refused the question, as is said above.");
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

/** Makes the controls say what the state is. */
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

/** Goes to another state: an entry of the history, unless the address stays what it is. */
function go(changes) {
  state = { ...state, ...changes };
  const address = write(state, of);
  if (address !== (location.search || location.pathname)) history.pushState(null, "", address);
  renew();
}

function renew() {
  wanted += 1;
  showState();
  for (const part of [section, find("rows")]) part.setAttribute("aria-busy", "true");
  again();
}

const on = (id, kind, listener) => find(id)?.addEventListener(kind, listener);
const pressed = (name) => (event) => { const chosen = event.target.closest("button")?.dataset[name]; if (chosen) go({ [name]: chosen }); };
const checked = (id) => [...document.querySelectorAll(`#${id} input:checked`)].map((box) => box.value);
const absolute = (text) => (text ? `${text}${text.length === 16 ? ":00" : ""}Z` : "");

on("ranges", "click", (event) => { const range = event.target.closest("button")?.dataset.range; if (range) go({ range, from: "", to: "" }); });
for (const id of ["from", "to"]) on(id, "change", () => {
  const [from, to] = ["from", "to"].map((name) => absolute(find(name).value));
  go({ from, to, range: from || to ? "" : "all" });
});
on("charts", "click", pressed("chart"));
on("grain", "change", (event) => go({ grain: event.target.value }));
on("measure", "change", (event) => go({ measure: event.target.value }));
on("top", "change", (event) => go({ top: Number(event.target.value) }));
on("groups", "change", () => go({ group_by: checked("groups").join(","), rows: 50 }));
on("measures", "change", () => {
  const chosen = checked("measures");
  go({ measures: chosen.length === 0 || chosen.length === of.measures.length ? "" : chosen.join(",") });
});
on("as-of", "change", (event) => go({ as_of: absolute(event.target.value) }));
on("controls", "submit", (event) => { event.preventDefault(); go({ where: find("where").value.trim() }); });
on("reset", "click", () => go(read("", of)));
on("more", "click", () => go({ rows: state.rows + 50 }));
addEventListener("popstate", () => { state = read(location.search, of); renew(); });

showState();
const again = keepCurrent(round);
