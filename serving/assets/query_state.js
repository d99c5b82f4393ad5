// Converts between the URL of a view's page, its state, and the parameters of the rows endpoint.

const DAY_MS = 86_400_000;
const RANGES = { "6h": DAY_MS / 4, "24h": DAY_MS, "7d": 7 * DAY_MS, "30d": 30 * DAY_MS, all: Infinity };
const GRAINS = [
  ["1m", 60_000], ["5m", 300_000], ["15m", 900_000], ["1h", 3_600_000], ["3h", 10_800_000], ["6h", 21_600_000], ["12h", 43_200_000],
  ["1d", DAY_MS], ["1w", 7 * DAY_MS], ["1mo", 30.44 * DAY_MS], ["1q", 91.3 * DAY_MS], ["1y", 365.25 * DAY_MS],
];
const WEEK = 7;
// The number of windows that a chart shows by default, at least and at most.
const WINDOWS_MIN = 24;
const WINDOWS_MAX = 200;
const TOP = 5;
const ROWS = 50;
/** Largest number of rows that a chart draws. */
export const CHARTED_MAX = 5000;

/** Reads what the rendered page knows about its view. */
export function viewContext(section) {
  const options = [...document.querySelectorAll("#measure option")];
  return {
    view: section.dataset.view,
    kind: section.dataset.kind,
    windowMs: Number(section.dataset.windowMs),
    dimensions: [...document.querySelectorAll("#groups input")].map((box) => box.value),
    measures: section.dataset.measures.split(",").filter(Boolean),
    measure: options.find((option) => option.defaultSelected)?.value ?? "",
    additive: new Set(options.filter((option) => option.dataset.additive === "true").map((option) => option.value)),
  };
}

export const hasTimeGrid = (context) => context.windowMs > 0;
export const hasTimeRange = (context) => hasTimeGrid(context) || context.kind === "session";

/** Returns the state of a page without parameters: a range that fits the window size, one series, bars. */
function defaults(context) {
  const fits = Object.entries(RANGES).find(([, ms]) => ms >= WINDOWS_MIN * context.windowMs);
  return {
    range: context.kind === "session" ? "24h" : fits?.[0] ?? "all", from: "", to: "", grain: "auto", measure: context.measure, measures: "",
    group_by: hasTimeGrid(context) ? "" : context.dimensions.join(","), where: "", top: hasTimeRange(context) ? TOP : 12,
    chart: context.measure === "" ? "table" : context.kind === "session" ? "line" : "bar", as_of: "", rows: ROWS,
  };
}

/** Returns whether a chart draws one series per group. Sessions grouped like the view itself are drawn one by one. */
export const isGrouped = (state, context) => state.group_by !== "" && !(context.kind === "session" && state.group_by === context.dimensions.join(","));

/** Parses the query string of the page; missing parameters get their defaults. */
export function parseState(search, context) {
  const parameters = new URLSearchParams(search);
  const state = defaults(context);
  for (const name of Object.keys(state)) if (parameters.has(name)) state[name] = parameters.get(name);
  state.top = Math.max(1, Number.parseInt(state.top, 10) || TOP);
  state.rows = Math.max(1, Number.parseInt(state.rows, 10) || ROWS);
  if (state.from || state.to) state.range = "";
  else if (!(state.range in RANGES)) state.range = defaults(context).range;
  if (!["bar", "line", "table"].includes(state.chart) || context.measure === "") state.chart = defaults(context).chart;
  return state;
}

/** Formats a state as the query string of the page; omits defaults. */
export function formatState(state, context) {
  const usual = defaults(context);
  const changed = Object.entries(state).filter(([name, value]) => String(value) !== String(usual[name]) && !(name === "range" && value === ""));
  const text = new URLSearchParams(changed).toString();
  return text ? `?${text}` : location.pathname;
}

/** Returns the grains that consist of whole windows and are coarser than the view's own: [[name, ms]]. */
export function coarserGrains(window, windowMs) {
  if (window.kind !== "tumble") return [];
  const fixed = window.size_ms;
  if (fixed) return GRAINS.filter(([, ms]) => ms > fixed && (ms <= WEEK * DAY_MS ? ms % fixed === 0 : DAY_MS % fixed === 0));
  const days = Math.round(windowMs / DAY_MS);
  if (days === WEEK) return [["2w", 2 * WEEK * DAY_MS], ["4w", 4 * WEEK * DAY_MS]];
  return GRAINS.filter(([, ms]) => ms > 1.2 * windowMs && (days === 1 || ms > 31 * DAY_MS));
}

/** Returns the range of window starts to request, `{ from, to }` in milliseconds; null means unbounded. */
export function timeRange(state, context, status) {
  if (!hasTimeRange(context)) return { from: null, to: null };
  if (state.range === "") {
    const at = (text) => (text ? Date.parse(`${text}${/Z|[+-]\d\d:?\d\d$/.test(text) ? "" : "Z"}`) : null);
    return { from: at(state.from), to: at(state.to) };
  }
  const newest = Date.parse(status.watermark ?? status.newest_window);
  const span = RANGES[state.range];
  if (span === Infinity || Number.isNaN(newest)) return { from: null, to: null };
  // Aligned to windows, so that the request (and its cached response) stays the same until the next window starts.
  const step = context.windowMs || 60_000;
  const down = (ms) => Math.floor(ms / step) * step;
  // The range extends past the watermark to include open windows, but not to events far in the future.
  return { from: down(newest - span), to: down(newest + Math.max(span, 2 * context.windowMs)) + step };
}

/** Returns the grain to request: the chosen one, or the finest that fits the chart; "" is the view's own. */
export function chooseGrain(state, context, status, span) {
  if (context.kind !== "tumble" || !status.window) return "";
  if (state.grain !== "auto") return state.grain === "own" ? "" : state.grain;
  if (span / context.windowMs <= WINDOWS_MAX) return "";
  const offered = coarserGrains(status.window, context.windowMs);
  return (offered.find(([, ms]) => span / ms <= WINDOWS_MAX) ?? offered.at(-1) ?? [""])[0];
}

const iso = (ms) => (ms === null ? null : Number.isNaN(ms) ? "" : new Date(ms).toISOString().replace(".000Z", "Z"));

/** Returns the parameters of the rows endpoint for the table; exports use the same. */
export function rowsQuery(state, context, { from, to }, grain) {
  const time = hasTimeRange(context);
  const order = [time && (context.kind === "cumulate" ? "-window_end" : "-window_start"), state.measure && `-${state.measure}`].filter(Boolean);
  const shown = state.measures ? state.measures.split(",") : [];
  // The API requires the measure that orders the rows to be among those requested.
  const measures = shown.length > 0 && state.measure && !shown.includes(state.measure) ? [...shown, state.measure] : shown;
  return {
    from: iso(from), to: iso(to), grain: grain || null,
    group_by: state.group_by === context.dimensions.join(",") ? null : state.group_by,
    where: state.where || null, measures: measures.length > 0 ? measures.join(",") : null,
    as_of: context.kind === "slide" ? state.as_of || "latest" : null,
    order_by: order.join(",") || null,
  };
}

/** Formats a value as an SQL literal of the dialect. */
function literal(value, type) {
  if (typeof value === "number" || typeof value === "boolean" || type.startsWith("DECIMAL")) return String(value);
  const text = `'${String(value).replaceAll("'", "''")}'`;
  return type === "TIMESTAMP" || type === "DATE" ? `${type} ${text}` : text;
}

/** Extends a condition to match only the given groups. */
export function whereAnyGroup(where, groups, columns) {
  const quoted = (name) => `"${name.replaceAll('"', '""')}"`;
  const one = (row) => columns.map((c) => (row[c.name] === null ? `${quoted(c.name)} IS NULL` : `${quoted(c.name)} = ${literal(row[c.name], c.type)}`)).join(" AND ");
  const any = groups.map((row) => `(${one(row)})`).join(" OR ");
  return where ? `(${where}) AND (${any})` : `(${any})`;
}
