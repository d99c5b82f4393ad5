// How are figures drawn? Bars over time or over groups, solid for what batch made exact, lighter for what is live.

import { axis, colours, draw, layout } from "./plot.js";
import { time } from "./text.js";

const part = (name, colour, edge, rest) => ({
  type: "bar", name, hoverlabel: { namelength: 0 }, marker: { color: colour, line: { color: edge, width: edge ? 1 : 0 } }, ...rest,
});

/** Thin lines over the 95 % intervals of estimated values. */
function intervals(colour, bars) {
  if (!bars.some((b) => b.bounds)) return {};
  const array = bars.map((b) => (b.bounds ? b.bounds[1] - b.live : null));
  const arrayminus = bars.map((b) => (b.bounds ? b.live - b.bounds[0] : null));
  return { error_y: { type: "data", symmetric: false, array, arrayminus, thickness: 1, width: 2, color: colour.muted } };
}

/**
 * Bars over windows. `bars`: [{start, exact, live, bounds}], oldest first, with the interval of an estimated live value;
 * `seam`: where batch ends, {at, label}.
 */
export function overTime(chart, { bars, windowMs, seam, measure }) {
  const colour = colours();
  const x = bars.map((b) => b.start.replace("Z", ""));
  const shared = { x, offset: windowMs * 0.08, width: windowMs * 0.84 };
  const hover = (kind) => bars.map((b) => `${time(b.start)}<br>${measure}: ${(b.exact ?? 0) + (b.live ?? 0)}<br>${kind}: ${kind === "exact" ? b.exact ?? 0 : b.live ?? 0}`);
  const bar = (kind, fill, edge) => part(kind, fill, edge, { ...shared, y: bars.map((b) => b[kind]), hovertext: hover(kind), hoverinfo: "text" });
  const marks = seam ? {
    shapes: [{ type: "line", x0: seam.at, x1: seam.at, yref: "paper", y0: 0, y1: 1, line: { color: colour.seam, width: 2, dash: "dot" } }],
    annotations: [{ x: seam.at, yref: "paper", y: 1, yanchor: "bottom", xanchor: seam.anchor, text: seam.label, showarrow: false, font: { color: colour.seam, size: 12 } }],
  } : {};
  const end = new Date(Date.parse(bars[bars.length - 1].start) + windowMs).toISOString().replace("Z", "");
  const drawn = layout(colour, {
    xaxis: axis(colour, { type: "date", showgrid: false, range: [x[0], end], nticks: chart.clientWidth < 500 ? 4 : 8 }),
    yaxis: axis(colour, { rangemode: "tozero", nticks: 6 }), ...marks,
  });
  const live = { ...bar("live", colour.live, colour["live-edge"]), ...intervals(colour, bars) };
  return draw(chart, [bar("exact", colour.exact, ""), live], drawn);
}

/** Horizontal bars over groups, largest on top. `bars`: [{group, exact, live}]. */
export function overGroups(chart, { bars }) {
  const colour = colours();
  const from = [...bars].reverse();
  // Names may repeat as text; places do not.
  const y = from.map((_, i) => i);
  const bar = (kind, fill, edge) => part(kind, fill, edge, { orientation: "h", y, x: from.map((b) => b[kind]), hoverinfo: "x+name" });
  const drawn = layout(colour, {
    margin: { l: 8, r: 12, t: 8, b: 8 },
    xaxis: axis(colour, { rangemode: "tozero", nticks: 6 }),
    yaxis: axis(colour, { showgrid: false, tickvals: y, ticktext: from.map((b) => b.group) }),
  });
  return draw(chart, [bar("exact", colour.exact, ""), bar("live", colour.live, colour["live-edge"])], drawn);
}
