// Draws the chart of a view: bars, lines or points over time, or bars per group. Exact parts are solid, live parts lighter.

import { element } from "./dom.js";
import { axis, colours, draw, instant, layout } from "./chart_style.js";
import { count, time, value } from "./format.js";

const ms = Date.parse;
const at = (time) => instant(new Date(time).toISOString());
const group = (row, columns) => columns.map((c) => value(row[c.name], c.type)).join(" · ");
const number = (raw) => (raw === null || raw === undefined ? null : Number(raw));

/** Returns an `rgb(..)` colour with an opacity. */
const faint = (rgb, opacity) => rgb.replace(/^rgb\((.*)\)$/, `rgba($1, ${opacity})`);

/**
 * Converts result rows into chart items, one per row: `{ row, group, start, end, value, exact, live, isExact, bounds }`.
 * `exact` and `live` are the parts of `value` that come from batch and speed. `columns` are the dimensions, `batch` the
 * rows of the batch layer alone (for additive measures), `coarse` is true if windows were merged into a coarser grain.
 */
export function chartItems(document, { kind, windowMs, measure, columns, additive, batch, coarse }) {
  const key = (row) => JSON.stringify([row.window_start, row.window_end, ...columns.map((c) => row[c.name])]);
  const exactParts = new Map((batch?.rows ?? []).map((row) => [key(row), number(row[measure])]));
  return document.rows.map((row) => {
    const whole = number(row[measure]);
    const isExact = row._layer === "batch";
    const part = isExact ? whole : additive ? exactParts.get(key(row)) ?? 0 : null;
    let [start, end] = row.window_start ? [ms(row.window_start), ms(row.window_end)] : [null, null];
    // Windows of HOP overlap and those of CUMULATE share their starts: draw each within its own step.
    if (!coarse && kind === "hop") end = start + windowMs;
    if (!coarse && kind === "cumulate") start = end - windowMs;
    return {
      row, group: group(row, columns), start, end, value: whole, exact: part, live: isExact || whole === null ? null : whole - (part ?? 0),
      isExact, bounds: row._bounds?.[measure]?.map(Number) ?? null,
    };
  });
}

function hoverText(item, measure) {
  const { row, value: whole, exact, live, bounds } = item;
  const lines = [item.group && `<b>${escape(item.group)}</b>`, row.window_start && `${time(row.window_start)} to ${time(row.window_end)}`,
    `${escape(measure)}: <b>${value(whole)}</b>`];
  if (bounds) lines.push(`95 % interval: ${value(bounds[0])} to ${value(bounds[1])}`);
  if (!item.isExact && exact !== null && exact !== 0) lines.push(`${value(exact)} exact, ${value(live)} live`);
  lines.push(item.isExact ? `exact, ${row._finality}` : `live, ${row._finality}`);
  return lines.filter(Boolean).join("<br>");
}

const escape = (text) => text.replaceAll("&", "&amp;").replaceAll("<", "&lt;");

const hover = (list, measure) => ({ hovertext: list.map((item) => hoverText(item, measure)), hoverinfo: "text", hoverlabel: { namelength: 0 } });

const errors = (list, colour) => (list.some((i) => i.bounds) ? { error_y: {
  type: "data", symmetric: false, thickness: 1.5, width: 3, color: colour,
  array: list.map((i) => (i.bounds ? i.bounds[1] - i.value : null)), arrayminus: list.map((i) => (i.bounds ? i.value - i.bounds[0] : null)),
} } : {});

function barTraces(list, measure, name, paint, colour) {
  const position = (chosen) => ({ x: chosen.map((i) => at(i.start)), offset: chosen.map((i) => (i.end - i.start) * 0.08), width: chosen.map((i) => (i.end - i.start) * 0.84) });
  const one = (part, fill, edge) => {
    const chosen = list.filter((item) => item[part] !== null && (part === "live" || item.exact !== 0 || item.isExact));
    return { type: "bar", name: name ? `${name} ${part}` : part, ...position(chosen), y: chosen.map((i) => i[part]),
      marker: { color: fill, line: { color: edge, width: part === "live" ? 1 : 0 } }, ...hover(chosen, measure), ...(part === "live" ? errors(chosen, colour.text) : {}) };
  };
  return [one("exact", paint.exact, paint.exact), one("live", paint.live, paint.edge)];
}

/** Sorts items by time and inserts a hole where windows are missing, so that the line breaks there. */
function withHoles(list) {
  const ordered = list.toSorted((a, b) => a.start - b.start);
  return ordered.flatMap((item, i) => {
    const before = ordered[i - 1];
    const missing = before && item.start - before.end > (item.end - item.start) / 2;
    return missing ? [{ hole: true, row: before.row, group: item.group, start: before.end, end: item.start, value: null, isExact: item.isExact, bounds: null }, item] : [item];
  });
}

/** Returns the stretches of estimates, each with its neighbouring values, where the band narrows to the line. */
function estimatedRuns(ordered) {
  const runs = [];
  let run = [];
  const end = () => { if (run.some((i) => i.bounds)) runs.push(run); run = []; };
  ordered.forEach((item, i) => {
    const near = item.bounds || ordered[i - 1]?.bounds || ordered[i + 1]?.bounds;
    if (item.hole || item.value === null || !near) end();
    else run.push(item);
  });
  end();
  return runs;
}

function lineTraces(list, measure, name, paint, colour) {
  const ordered = withHoles(list);
  const middle = (i) => at((i.start + i.end) / 2);
  const traces = [];
  // The live line starts at the last exact point, so that both parts connect.
  const live = ordered.map((item, i) => !item.isExact || ordered[i + 1]?.isExact === false || ordered[i - 1]?.isExact === false);
  for (const run of estimatedRuns(ordered)) {
    const [low, high] = [0, 1].map((side) => run.map((i) => (i.bounds ? i.bounds[side] : i.value)));
    traces.push({ type: "scatter", mode: "lines", name: "bounds", x: [...run.map(middle), ...run.toReversed().map(middle)], y: [...low, ...high.toReversed()],
      fill: "toself", fillcolor: faint(paint.line, 0.22), line: { width: 0 }, hoverinfo: "skip" });
  }
  const exact = ordered.map((i) => (i.isExact ? i.value : null));
  const points = ordered.length < 80;
  traces.push(
    { type: "scatter", mode: points ? "lines+markers" : "lines", name: name ? `${name} exact` : "exact", x: ordered.map(middle), y: exact, connectgaps: false,
      line: { color: paint.line, width: 2 }, marker: { size: 5, color: paint.line }, ...hover(ordered, measure) },
    { type: "scatter", mode: "lines+markers", name: name ? `${name} live` : "live", x: ordered.map(middle), y: ordered.map((i, n) => (live[n] ? i.value : null)), connectgaps: false,
      line: { color: paint.line, width: 2, dash: "dot" },
      marker: { size: ordered.map((i) => (i.isExact ? 0 : 6)), color: colour.card, line: { color: paint.line, width: 1.5 } }, ...hover(ordered, measure) },
  );
  return traces;
}

function pointTraces(list, measure, name, paint, colour) {
  const one = (part, chosen, marker) => ({ type: "scatter", mode: "markers", name: name ? `${name} ${part}` : part, x: chosen.map((i) => at(i.start)), y: chosen.map((i) => i.value),
    marker, ...hover(chosen, measure), ...errors(chosen, colour.muted) });
  return [
    one("exact", list.filter((i) => i.isExact), { size: 7, color: paint.line, opacity: 0.85 }),
    one("live", list.filter((i) => !i.isExact), { size: 7, color: colour.card, line: { color: paint.line, width: 1.5 } }),
  ];
}

/** Returns the vertical lines of the seam (where batch ends) and of the watermark. */
function markerLines(colour, { seam, watermark }, [from, to]) {
  const drawn = { shapes: [], annotations: [] };
  const mark = (when, text, paint, dash, row) => {
    if (when === null || when < from || when > to) return;
    const right = (when - from) / (to - from) > 0.6;
    drawn.shapes.push({ type: "line", name: text, x0: at(when), x1: at(when), yref: "paper", y0: 0, y1: 1, line: { color: paint, width: 2, dash } });
    drawn.annotations.push({ x: at(when), yref: "paper", y: 1, yanchor: "bottom", yshift: row * 16, xanchor: right ? "right" : "left", text: `${right ? "" : " "}${text}${right ? " " : ""}`, showarrow: false, font: { color: paint, size: 12 } });
  };
  mark(seam.at, seam.text, colour.seam, "dot", 0);
  mark(watermark, "watermark", colour.watermark, "dash", 1);
  return drawn;
}

const paints = (colour, grouped) => (i) => {
  if (!grouped) return { exact: colour.exact, live: colour.live, edge: colour["live-edge"], line: colour.exact };
  const own = colour.series[i % colour.series.length];
  return { exact: own, live: faint(own, 0.3), edge: own, line: own };
};

/** Returns how many axis labels fit. */
const ticks = (container) => Math.max(3, Math.min(12, Math.floor(container.clientWidth / 95)));

/** Draws items over time. `marked`: { seam: { at, text }, watermark }; `chart` is "bar" or "line". */
export function drawOverTime(container, { list, groups, measure, chart, kind, marked }) {
  const colour = colours();
  const paint = paints(colour, groups.length > 0);
  const traces = kind === "session" && chart === "line" ? pointTraces : chart === "line" ? lineTraces : barTraces;
  const series = groups.length > 0 ? groups : [""];
  // Without groups, all items form one series.
  const of = (name) => (groups.length > 0 ? list.filter((item) => item.group === name) : list);
  const all = series.flatMap((name, i) => traces(of(name), measure, name, paint(i), colour));
  // Points mark the starts of sessions.
  const ends = kind === "session" && chart === "line" ? "start" : "end";
  const [from, last] = list.reduce(([a, b], i) => [Math.min(a, i.start), Math.max(b, i[ends])], [Infinity, -Infinity]);
  // Keep a watermark that is slightly newer than the rows in view.
  const to = marked.watermark > last && marked.watermark - last < (last - from) * 0.2 ? marked.watermark : last;
  const edge = (to - from) * 0.012;
  return draw(container, all, layout(colour, {
    margin: { l: 8, r: 10, t: 40, b: 8 },
    xaxis: axis(colour, { type: "date", showgrid: false, range: [at(from - edge), at(to + edge)], nticks: ticks(container), tickangle: 0 }),
    yaxis: axis(colour, { rangemode: "tozero", nticks: Math.round(container.clientHeight / 45) }),
    ...markerLines(colour, marked, [from - edge, to + edge]),
  }));
}

/** Draws one bar per group, the largest on top. */
export function drawOverGroups(container, { list, measure }) {
  const colour = colours();
  const from = list.toReversed();
  const y = from.map((_, i) => i);
  const bar = (part, fill, edge) => ({ type: "bar", name: part, orientation: "h", y, x: from.map((i) => i[part]), marker: { color: fill, line: { color: edge, width: part === "live" ? 1 : 0 } }, ...hover(from, measure),
    ...(part === "live" && from.some((i) => i.bounds) ? { error_x: errors(from, colour.text).error_y } : {}) });
  return draw(container, [bar("exact", colour.exact, colour.exact), bar("live", colour.live, colour["live-edge"])], layout(colour, {
    margin: { l: 8, r: 12, t: 8, b: 8 },
    xaxis: axis(colour, { rangemode: "tozero", nticks: ticks(container), tickangle: 0 }),
    yaxis: axis(colour, { showgrid: false, tickvals: y, ticktext: from.map((i) => i.group || "all") }),
  }));
}

/** Fills the legend, and describes the chart for screen readers. */
export function showLegend(container, legend, { list, groups, measure, marked, shown }) {
  const colour = colours();
  const key = (kind, text, style) => element("li", {}, element("i", { class: kind, "aria-hidden": "true", ...(style ? { style } : {}) }), text);
  const keys = groups.length > 0 ? groups.map((name, i) => key("", name, `background:${colour.series[i % colour.series.length]}`)) : [];
  if (groups.length === 0) keys.push(key("exact", "exact"));
  if (list.some((i) => !i.isExact)) keys.push(groups.length > 0 ? key("live", "lighter or dotted: live") : key("live", "live"));
  if (list.some((i) => i.bounds)) keys.push(key("bounds", "95 % interval"));
  if (marked?.seam.at) keys.push(key("seam", "seam"));
  if (marked?.watermark) keys.push(key("watermark", "watermark"));
  const text = keys.map((k) => k.textContent).join();
  if (legend.dataset.shown !== text + colour.exact) {
    legend.dataset.shown = text + colour.exact;
    legend.replaceChildren(...keys);
  }
  const exact = list.filter((i) => i.isExact).length;
  container.setAttribute("aria-label", `${shown} of ${measure}: ${count(list.length)} values, ${count(exact)} of them exact. The table below lists the values.`);
}
