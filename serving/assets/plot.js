// How does every chart look? Colours from the styles, so that light and dark are one; sizes, axes and what the mouse may do.

const FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, sans-serif";

/** What all charts are drawn with: nothing moves by accident, and no tool bar. */
export const config = { displayModeBar: false, responsive: true, doubleClick: false, scrollZoom: false };

const NAMES = ["exact", "live", "live-edge", "text", "muted", "line", "seam", "watermark", "card", "good", "wait", "bad"];
const SERIES = 8;

/** The colours of the page as they are now, by the names of the style's properties; `series` are those of groups. */
export function colours() {
  const probe = document.createElement("span");
  probe.hidden = true;
  document.body.append(probe);
  const of = (name) => {
    probe.style.color = `var(--${name})`;
    return getComputedStyle(probe).color;
  };
  const named = Object.fromEntries(NAMES.map((name) => [name, of(name)]));
  const series = Array.from({ length: SERIES }, (_, i) => of(`series-${i + 1}`));
  probe.remove();
  return { ...named, series };
}

/** A layout with the page's type and colours; `more` adds to it. */
export function layout(colour, more) {
  return {
    barmode: "relative", bargap: 0.15, dragmode: false, showlegend: false, hovermode: "closest",
    margin: { l: 8, r: 8, t: 26, b: 8 }, paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)",
    font: { family: FONT, size: 12, color: colour.muted },
    hoverlabel: { bgcolor: colour.card, bordercolor: colour.line, align: "left", font: { family: FONT, size: 12, color: colour.text } },
    ...more,
  };
}

/** An axis that does not zoom, with quiet lines; `more` adds to it. */
export const axis = (colour, more) => ({
  automargin: true, fixedrange: true, zeroline: false, gridcolor: colour.line, linecolor: colour.line, tickcolor: colour.line, ...more,
});

/** Instants of the axis of time: plotly.js takes local ones as they are, so the zone goes. */
export const instant = (text) => text.replace("Z", "");

/** Draws, or draws anew. */
export const draw = (chart, traces, drawn) => Plotly.react(chart, traces, drawn, config);
