// What is asked of a view? The address of the page holds it all; from it come the parameters of the rows' door.

const DAY_MS = 86_400_000;
const RANGES = { "6h": DAY_MS / 4, "24h": DAY_MS, "7d": 7 * DAY_MS, "30d": 30 * DAY_MS, all: Infinity };
const GRAINS = [
  ["1m", 60_000], ["5m", 300_000], ["15m", 900_000], ["1h", 3_600_000], ["3h", 10_800_000], ["6h", 21_600_000], ["12h", 43_200_000],
  ["1d", DAY_MS], ["1w", 7 * DAY_MS], ["1mo", 30.44 * DAY_MS], ["1q", 91.3 * DAY_MS], ["1y", 365.25 * DAY_MS],
];
const WEEK = 7;
// Fewer windows than this make a poor chart, more than that a crowded one.
const WINDOWS_MIN = 24;
const WINDOWS_MAX = 200;
const TOP = 5;
const ROWS = 50;
/** Rows that a chart is drawn of, at most. */
export const CHARTED_MAX = 5000;

/** What the page knows of its view from its own skeleton. */
export function subject(section) {
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

export const onGrid = (of) => of.windowMs > 0;
export const inTime = (of) => onGrid(of) || of.kind === "session";

/** What a page shows that says nothing: a range of a fitting number of windows, one series, bars. */
function standard(of) {
  const fits = Object.entries(RANGES).find(([, ms]) => ms >= WINDOWS_MIN * of.windowMs);
  return {
    range: of.kind === "session" ? "24h" : fits?.[0] ?? "all", from: "", to: "", grain: "auto", measure: of.measure, measures: "",
    group_by: onGrid(of) ? "" : of.dimensions.join(","), where: "", top: inTime(of) ? TOP : 12,
    chart: of.measure === "" ? "table" : of.kind === "session" ? "line" : "bar", as_of: "", rows: ROWS,
  };
}

/** Does a chart tell groups apart? Sessions are drawn one by one while they are those of the view itself. */
export const isGrouped = (state, of) => state.group_by !== "" && !(of.kind === "session" && state.group_by === of.dimensions.join(","));

/** The state that an address tells; what it does not say is standard. */
export function read(search, of) {
  const given = new URLSearchParams(search);
  const state = standard(of);
  for (const name of Object.keys(state)) if (given.has(name)) state[name] = given.get(name);
  state.top = Math.max(1, Number.parseInt(state.top, 10) || TOP);
  state.rows = Math.max(1, Number.parseInt(state.rows, 10) || ROWS);
  if (state.from || state.to) state.range = "";
  else if (!(state.range in RANGES)) state.range = standard(of).range;
  if (!["bar", "line", "table"].includes(state.chart) || of.measure === "") state.chart = standard(of).chart;
  return state;
}

/** The address of a state: what is standard stays away. */
export function write(state, of) {
  const usual = standard(of);
  const told = Object.entries(state).filter(([name, value]) => String(value) !== String(usual[name]) && !(name === "range" && value === ""));
  const text = new URLSearchParams(told).toString();
  return text ? `?${text}` : location.pathname;
}

/** Grains that whole windows fill, coarser than the view's own: [[name, ms]]. */
export function grains(window, windowMs) {
  if (window.kind !== "tumble") return [];
  const fixed = window.size_ms;
  if (fixed) return GRAINS.filter(([, ms]) => ms > fixed && (ms <= WEEK * DAY_MS ? ms % fixed === 0 : DAY_MS % fixed === 0));
  const days = Math.round(windowMs / DAY_MS);
  if (days === WEEK) return [["2w", 2 * WEEK * DAY_MS], ["4w", 4 * WEEK * DAY_MS]];
  return GRAINS.filter(([, ms]) => ms > 1.2 * windowMs && (days === 1 || ms > 31 * DAY_MS));
}

/** From when to when: instants in milliseconds, or null where nothing bounds it; of windows' starts, as the API takes them. */
export function reach(state, of, status) {
  if (!inTime(of)) return { from: null, to: null };
  if (state.range === "") {
    const at = (text) => (text ? Date.parse(`${text}${/Z|[+-]\d\d:?\d\d$/.test(text) ? "" : "Z"}`) : null);
    return { from: at(state.from), to: at(state.to) };
  }
  const near = Date.parse(status.watermark ?? status.newest_window);
  const long = RANGES[state.range];
  if (long === Infinity || Number.isNaN(near)) return { from: null, to: null };
  // On whole windows, so that an address, and the answer behind it, stays the same until the next one begins.
  const step = of.windowMs || 60_000;
  const down = (ms) => Math.floor(ms / step) * step;
  // What is newer than the watermark shows, an instant in a far future does not.
  return { from: down(near - long), to: down(near + Math.max(long, 2 * of.windowMs)) + step };
}

/** The grain to ask for: the chosen one, or the finest that is not crowded; "" is the view's own. */
export function grainOf(state, of, status, span) {
  if (of.kind !== "tumble" || !status.window) return "";
  if (state.grain !== "auto") return state.grain === "own" ? "" : state.grain;
  if (span / of.windowMs <= WINDOWS_MAX) return "";
  const offered = grains(status.window, of.windowMs);
  return (offered.find(([, ms]) => span / ms <= WINDOWS_MAX) ?? offered.at(-1) ?? [""])[0];
}

const iso = (ms) => (ms === null ? null : Number.isNaN(ms) ? "" : new Date(ms).toISOString().replace(".000Z", "Z"));

/** Parameters of the rows' door for the table, which code and downloads share. */
export function rowsAsked(state, of, { from, to }, grain) {
  const time = inTime(of);
  const order = [time && (of.kind === "cumulate" ? "-window_end" : "-window_start"), state.measure && `-${state.measure}`].filter(Boolean);
  const shown = state.measures ? state.measures.split(",") : [];
  // What rows are ordered by has to be among them.
  const measures = shown.length > 0 && state.measure && !shown.includes(state.measure) ? [...shown, state.measure] : shown;
  return {
    from: iso(from), to: iso(to), grain: grain || null,
    group_by: state.group_by === of.dimensions.join(",") ? null : state.group_by,
    where: state.where || null, measures: measures.length > 0 ? measures.join(",") : null,
    as_of: of.kind === "slide" ? state.as_of || "latest" : null,
    order_by: order.join(",") || null,
  };
}

/** A value as SQL of the dialect writes it. */
function literal(value, type) {
  if (typeof value === "number" || typeof value === "boolean" || type.startsWith("DECIMAL")) return String(value);
  const text = `'${String(value).replaceAll("'", "''")}'`;
  return type === "TIMESTAMP" || type === "DATE" ? `${type} ${text}` : text;
}

/** Rows of these groups only, on top of what is asked anyway. */
export function ofGroups(where, groups, columns) {
  const quoted = (name) => `"${name.replaceAll('"', '""')}"`;
  const one = (row) => columns.map((c) => (row[c.name] === null ? `${quoted(c.name)} IS NULL` : `${quoted(c.name)} = ${literal(row[c.name], c.type)}`)).join(" AND ");
  const any = groups.map((row) => `(${one(row)})`).join(" OR ");
  return where ? `(${where}) AND (${any})` : `(${any})`;
}
