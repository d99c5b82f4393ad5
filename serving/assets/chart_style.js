// The look of all charts: colours from the style sheet (so that they follow the colour scheme), fonts, axes and interaction.

const FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, sans-serif";

/** Plotly options of all charts: no zooming by accident and no toolbar. */
export const config = { displayModeBar: false, responsive: true, doubleClick: false, scrollZoom: false };

const NAMES = ["exact", "live", "live-edge", "text", "muted", "line", "seam", "watermark", "card", "good", "wait", "bad"];
const SERIES = 8;

/** Returns the current colours of the page by the names of the CSS properties; `series` holds those of groups. */
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

/** Returns a Plotly layout with the fonts and colours of the page; `more` extends it. */
export function layout(colour, more) {
  return {
    barmode: "relative", bargap: 0.15, dragmode: false, showlegend: false, hovermode: "closest",
    margin: { l: 8, r: 8, t: 26, b: 8 }, paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)",
    font: { family: FONT, size: 12, color: colour.muted },
    hoverlabel: { bgcolor: colour.card, bordercolor: colour.line, align: "left", font: { family: FONT, size: 12, color: colour.text } },
    ...more,
  };
}

/** Returns an axis without zoom and with faint lines; `more` extends it. */
export const axis = (colour, more) => ({
  automargin: true, fixedrange: true, zeroline: false, gridcolor: colour.line, linecolor: colour.line, tickcolor: colour.line, ...more,
});

/** Formats an instant for a time axis: without its zone, because plotly.js would convert it to local time. */
export const instant = (text) => text.replace("Z", "");

/** Draws a chart, or updates it. */
export const draw = (chart, traces, drawn) => Plotly.react(chart, traces, drawn, config);
