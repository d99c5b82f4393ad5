// The comparison page of a view: how far its live values were from the exact ones, by version and measure. Both are in the URL.

import { errorText, getJson, queryString } from "./fetch_json.js";
import { badge, element, fillFacts, fillTable, setError, setText } from "./dom.js";
import { showNotices } from "./notices.js";
import { axis, colours, draw, layout } from "./chart_style.js";
import { pollWhileVisible } from "./shell.js";
import { ago, count, percent, time, value } from "./format.js";

const VERSIONS = 200;
const WORST = 100;
const CAUSES = {
  late: ["late", "arrived after allowed lateness, so only batch includes it"],
  duplicate: ["duplicate", "an event id seen before, beyond the dedup horizon of intake"],
  historical: ["historical", "ingested straight into the archive"],
  sketch: ["estimate", "speed estimated the value with a sketch"],
  rounding: ["rounding", "floating-point numbers added in a different order"],
  definition: ["definition", "the definition of the view changed"],
  retention: ["retention", "retention deleted the events"],
  failed: ["failed", "an expression of the view failed for an event in one layer"],
  erased: ["erased", "events of erased entities"],
  lookup: ["lookup", "a joined table changed after the event was folded"],
  unexplained: ["unexplained", "no known cause; please report it as a bug"],
};

const find = (id) => document.getElementById(id);
const section = find("compare");
const { view } = section.dataset;
let history = [];

const urlParameters = () => new URLSearchParams(location.search);

/** Writes a choice to the URL; omits defaults. */
function choose(changes, { replace = false } = {}) {
  const parameters = urlParameters();
  for (const [name, chosen] of Object.entries(changes)) {
    if (chosen === null || chosen === "") parameters.delete(name);
    else parameters.set(name, chosen);
  }
  const text = parameters.toString();
  window.history[replace ? "replaceState" : "pushState"](null, "", text ? `?${text}` : location.pathname);
  again();
}

const chosenVersion = () => (/^\d+$/.test(urlParameters().get("version") ?? "") ? Number(urlParameters().get("version")) : null);

function chosenMeasure(measures) {
  const chosen = urlParameters().get("measure");
  return measures.includes(chosen) ? chosen : measures[0] ?? "";
}

function showControls(current, measures, measure) {
  const versions = history.map((r) => r.version).toReversed();
  const slider = find("version");
  const at = versions.indexOf(current);
  slider.max = String(Math.max(0, versions.length - 1));
  slider.disabled = versions.length < 2;
  if (document.activeElement !== slider || Number(slider.value) !== at) slider.value = String(Math.max(0, at));
  slider.setAttribute("aria-valuetext", `version ${current}`);
  find("version-shown").textContent = current === null ? "–" : String(current);
  find("older").disabled = at <= 0;
  find("newer").disabled = at < 0 || at === versions.length - 1;
  find("latest").setAttribute("aria-pressed", String(chosenVersion() === null));
  const select = find("measure");
  if (select.dataset.shown !== measures.join()) {
    select.dataset.shown = measures.join();
    select.replaceChildren(...measures.map((name) => element("option", { text: name })));
  }
  select.value = measure;
  select.disabled = measures.length < 2;
}

function showFacts(comparison, measure, now) {
  const { version, compared_at: at, rows_compared: compared, rows_equal: equal, causes } = comparison;
  const drift = comparison.measures[measure];
  const differing = Object.values(causes).reduce((sum, n) => sum + n, 0);
  fillFacts(find("facts"), [
    ["version", String(version), ""],
    ["compared", ago(at, now), at],
    ["rows compared", count(compared), "rows of the recomputed windows"],
    ["served exactly", compared ? percent(equal / compared) : "–", `${count(equal)} rows were already correct`],
    ["values that differed", count(differing), "across all measures; each has a cause"],
    ...(drift ? [
      [`drift of ${measure}`, percent(drift.drift), "mean relative error of all compared rows"],
      ["largest error", value(drift.max_abs_error), `relative: ${percent(drift.max_rel_error)}`],
      ...(drift.inside_bounds === undefined || drift.inside_bounds === null ? [] : [["inside bounds", percent(drift.inside_bounds), "estimates whose interval contained the exact value"]]),
    ] : []),
  ]);
}

function showChanged({ definition }) {
  const box = find("changed");
  box.hidden = !definition;
  if (!definition) return;
  const changes = definition.changes.map(({ part, name, before, after }) =>
    `${part.replace("_", " ")}${name ? ` ${name}` : ""} ${before === null ? "added" : after === null ? "removed" : "changed"}`);
  const note = definition.not_comparable ? `The definitions cannot be compared: ${definition.not_comparable}.` : `Compared by ${definition.compared_by.join(", ") || "window"}.`;
  box.replaceChildren(element("p", {}, element("b", { text: "This version changed the definition. " }), changes.join(", ")), element("p", { text: note }));
}

function showDrift(current, measures, maxDrift) {
  const colour = colours();
  const rows = history.toReversed();
  const x = rows.map((r) => r.version);
  const traces = measures.map((name, i) => ({
    type: "scatter", mode: "lines+markers", name, cliponaxis: false, x, y: rows.map((r) => (r.measures[name] ? 100 * r.measures[name].drift : null)),
    line: { color: colour.series[i % colour.series.length], width: 1.5 }, marker: { size: x.map((v) => (v === current ? 10 : 6)), color: colour.series[i % colour.series.length] },
    hovertemplate: `version %{x}: ${name} %{y:.4f} %<extra></extra>`,
  }));
  const limit = maxDrift === null || maxDrift === undefined ? [] : [{ name: "max_drift", type: "line", xref: "paper", x0: 0, x1: 1, y0: 100 * maxDrift, y1: 100 * maxDrift, line: { color: colour.bad, width: 1.5, dash: "dash" } }];
  const notes = limit.length ? [{ xref: "paper", x: 1, y: 100 * maxDrift, text: "max_drift", showarrow: false, xanchor: "right", yanchor: "bottom", font: { color: colour.bad, size: 11 } }] : [];
  draw(find("drift"), traces, layout(colour, {
    shapes: limit, annotations: notes, showlegend: true, legend, xaxis: versions(colour, x), yaxis: axis(colour, { ticksuffix: " %", rangemode: "tozero" }),
  }));
  const last = rows.at(-1);
  find("drift").setAttribute("aria-label", `Drift of ${measures.join(", ")} over ${count(rows.length)} versions; of version ${last.version}: ${measures.map((name) => `${name} ${percent(last.measures[name]?.drift ?? 0)}`).join(", ")}`);
}

/** Returns the colour of each cause. */
const causeColours = (colour) => ({
  unexplained: colour.bad, late: colour.series[0], sketch: colour.series[2], duplicate: colour.series[1], historical: colour.series[3],
  rounding: colour.series[7], definition: colour.series[4], retention: colour.series[6], failed: colour.series[5], erased: colour.series[8] ?? colour.series[6],
});

function showCauses(current) {
  const colour = colours();
  const rows = history.toReversed();
  const tints = causeColours(colour);
  const present = Object.keys(CAUSES).filter((cause) => rows.some((r) => r.causes[cause]));
  const traces = present.map((cause) => ({
    type: "bar", name: CAUSES[cause][0], x: rows.map((r) => r.version), y: rows.map((r) => r.causes[cause] ?? 0), marker: { color: tints[cause], opacity: rows.map((r) => (r.version === current ? 1 : 0.6)) },
    hovertemplate: `version %{x}: %{y:,} ${CAUSES[cause][0]}<br>${CAUSES[cause][1]}<extra></extra>`,
  }));
  draw(find("causes"), traces, layout(colour, {
    barmode: "stack", showlegend: true, legend, xaxis: versions(colour, rows.map((r) => r.version)), yaxis: axis(colour, { rangemode: "tozero" }),
    annotations: present.length ? [] : [{ text: "No differences", showarrow: false, xref: "paper", yref: "paper", x: 0.5, y: 0.5, font: { color: colour.muted } }],
  }));
  const last = rows.find((r) => r.version === current);
  const parts = present.filter((cause) => last?.causes[cause]).map((cause) => `${count(last.causes[cause])} ${CAUSES[cause][0]}`);
  find("causes").setAttribute("aria-label", `Differing values of version ${current}: ${parts.join(", ") || "none"}`);
}

/** Returns an axis with ticks at whole versions, at most a dozen. */
const versions = (colour, x) => axis(colour, { tickformat: "d", dtick: Math.max(1, Math.ceil((Math.max(...x) - Math.min(...x)) / 12)), tick0: Math.min(...x), title: { text: "version", standoff: 6 } });
const legend = { orientation: "h", x: 0, y: 1.1, yanchor: "bottom", font: { size: 11 } };

const number = (raw) => (raw === null || raw === undefined || Array.isArray(raw) ? null : Number(raw));

const groupOf = (row) => Object.entries(row).filter(([name]) => !["measure", "served", "exact", "cause", "window_start", "window_end"].includes(name)).map(([, v]) => value(v)).join(", ");

function showServed(comparison, measure) {
  const rows = comparison.rows.filter((row) => row.measure === measure);
  const pairs = rows.map((row) => [number(row.served), number(row.exact), row]).filter(([s, e]) => s !== null && e !== null && !Number.isNaN(s) && !Number.isNaN(e));
  const equal = comparison.measures[measure]?.equal ?? 0;
  setText(find("served-about"), `${measure} of version ${comparison.version}: ${count(equal)} values were correct. On the dotted line, served and exact are equal.`);
  find("equal").hidden = rows.length > 0;
  find("scatter").hidden = pairs.length === 0;
  if (pairs.length) {
    const colour = colours();
    const all = pairs.flatMap(([s, e]) => [s, e]);
    const [low, high] = [Math.min(...all), Math.max(...all)];
    const tints = causeColours(colour);
    const causes = [...new Set(pairs.map(([, , row]) => row.cause))];
    const traces = causes.map((cause) => {
      const own = pairs.filter(([, , row]) => row.cause === cause);
      return {
        type: "scatter", mode: "markers", name: CAUSES[cause]?.[0] ?? cause, x: own.map(([, e]) => e), y: own.map(([s]) => s), hoverinfo: "text",
        hovertext: own.map(([s, e, row]) => `${row.window_start ? `${time(row.window_start)} ` : ""}${groupOf(row)}<br>served ${value(s)}, exact ${value(e)}`),
        marker: { size: 8, color: tints[cause] ?? colour.muted, opacity: 0.8 },
      };
    });
    draw(find("scatter"), traces, layout(colour, {
      showlegend: true, legend,
      shapes: [{ type: "line", x0: low, x1: high, y0: low, y1: high, line: { color: colour.muted, width: 1, dash: "dot" } }],
      xaxis: axis(colour, { title: { text: "exact" } }), yaxis: axis(colour, { title: { text: "served" } }),
    }));
    find("scatter").setAttribute("aria-label", `${count(pairs.length)} values of ${measure} that differed: served against exact`);
  }
  showWorst(comparison, measure, rows);
}

function showWorst(comparison, measure, rows) {
  // A value that was not served is off by its full amount.
  const off = (row) => {
    const [served, exact] = [number(row.served) ?? 0, number(row.exact) ?? 0];
    return Array.isArray(row.served ?? row.exact) || Number.isNaN(served - exact) ? null : served - exact;
  };
  const distance = (row) => Math.abs(off(row) ?? 0);
  const worst = rows.toSorted((a, b) => distance(b) - distance(a)).slice(0, WORST);
  const first = rows[0] ?? {};
  const dimensions = Object.keys(first).filter((name) => !["measure", "served", "exact", "cause"].includes(name));
  const columns = [
    ...dimensions.map((name) => ({ name, cell: (row) => (name.startsWith("window_") ? time(row[name]) : value(row[name])) })),
    { name: "served", number: true, cell: (row) => (row.served === null ? "nothing" : value(row.served)) },
    { name: "exact", number: true, cell: (row) => (row.exact === null ? "nothing" : value(row.exact)) },
    { name: "off", heading: "error", number: true, cell: (row) => value(off(row)) },
    { name: "cause", cell: (row) => badge(CAUSES[row.cause]?.[0] ?? row.cause, CAUSES[row.cause]?.[1] ?? "") },
  ];
  find("worst").hidden = rows.length === 0;
  if (rows.length) fillTable(find("rows"), columns, worst, { caption: `Largest errors of ${measure} in version ${comparison.version}` });
  const more = rows.length - worst.length;
  setText(find("omitted"), [more > 0 ? `${count(more)} more rows differ` : "", comparison.rows_omitted ? `${count(comparison.rows_omitted)} differences across all measures are not listed` : ""].filter(Boolean).join("; "));
}

async function round() {
  const [described, drift] = await Promise.all([getJson(`/v1/views/${view}`), getJson(`/v1/views/${view}/drift?limit=${VERSIONS}`)]);
  showNotices(find("notices"), described.body);
  history = drift.body.reconciliations;
  const nothing = history.length === 0;
  for (const id of ["pair", "served", "worst"]) find(id).hidden = nothing;
  setText(find("nothing"), nothing ? "Not compared yet. Each run compares the values served for its windows with the exact ones when it publishes." : "");
  if (nothing) return;
  const chosen = chosenVersion();
  let comparison;
  try {
    comparison = (await getJson(`/v1/views/${view}/compare${queryString({ version: chosen })}`)).body;
    setError(find("error"), null);
  } catch (error) {
    setError(find("error"), errorText(error));
    showControls(null, Object.keys(history[0].measures), "");
    return;
  }
  const measures = Object.keys(comparison.measures);
  const measure = chosenMeasure(measures);
  showControls(comparison.version, measures, measure);
  showFacts(comparison, measure, described.now);
  showChanged(comparison);
  const shown = JSON.stringify([comparison.version, history[0].version, measure, colours().text]);
  if (section.dataset.shown !== shown) {
    showDrift(comparison.version, Object.keys(history[0].measures), drift.body.max_drift);
    showCauses(comparison.version);
    showServed(comparison, measure);
    section.dataset.shown = shown;
    find("drift").on?.("plotly_click", (event) => choose({ version: String(event.points[0].x) }));
  }
  section.dataset.updated = Number(section.dataset.updated) + 1;
}

const again = pollWhileVisible(round, 2000);

function step(by) {
  const versions = history.map((r) => r.version).toReversed();
  const current = chosenVersion() ?? versions.at(-1);
  const next = versions[versions.indexOf(current) + by];
  if (next !== undefined) choose({ version: next === versions.at(-1) ? null : String(next) });
}
find("older").addEventListener("click", () => step(-1));
find("newer").addEventListener("click", () => step(1));
find("latest").addEventListener("click", () => choose({ version: null }));
find("version").addEventListener("input", (event) => {
  const versions = history.map((r) => r.version).toReversed();
  const chosen = versions[Number(event.target.value)];
  if (chosen !== undefined) choose({ version: chosen === versions.at(-1) ? null : String(chosen) }, { replace: true });
});
find("measure").addEventListener("change", (event) => choose({ measure: event.target.value }));
window.addEventListener("popstate", again);
