// Formats numbers, durations, times and sizes as text. Pure functions: nothing here touches the page.

const whole = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });
const precise = new Intl.NumberFormat("en", { maximumFractionDigits: 2 });
const short = new Intl.NumberFormat("en", { maximumSignificantDigits: 3 });
const compact = new Intl.NumberFormat("en", { notation: "compact", maximumFractionDigits: 1 });

/** Formats a value of a result. Decimals arrive as strings, and lists are results of TOP_K. */
export function value(raw, type = "") {
  if (raw === null || raw === undefined) return "–";
  if (type === "TIMESTAMP") return time(raw);
  if (type.startsWith("DECIMAL")) return precise.format(Number(raw));
  if (Array.isArray(raw)) return raw.map((item) => `${value(item.value)} ×${count(item.count)}`).join(", ");
  if (typeof raw === "number") return Number.isInteger(raw) ? whole.format(raw) : precise.format(raw);
  return String(raw);
}

/** Formats a count: all digits up to ten million, then `12.3M`. */
export const count = (n) => (n >= 10_000_000 ? compact.format(n) : whole.format(n));

/** Formats a number of rows: `1 row`, `1,024 rows`. */
export const rowCount = (n) => `${count(n)} ${n === 1 ? "row" : "rows"}`;

/** Formats a number of runs: `1 run`, `1,024 runs`. */
export const runCount = (n) => `${count(n)} ${n === 1 ? "run" : "runs"}`;

/** Formats a share from 0 to 1 as a percentage. */
export const percent = (share) => `${precise.format(100 * share)} %`;

/** Formats a duration in milliseconds as `250 ms`, `12.5 s`, `31 min`, `4.25 h`, `3 d` or `25 years`. */
export function duration(ms) {
  const units = [["years", 31_557_600_000], ["d", 86_400_000], ["h", 3_600_000], ["min", 60_000], ["s", 1000]];
  const [unit, size] = units.find(([, size]) => ms >= 2 * size) ?? ["ms", 1];
  return `${short.format(ms / size)} ${unit}`;
}

/** Formats a window size in the largest unit that divides it: `1h`, `15m`, `1d`. */
export function unit(ms) {
  const [name, size] = [["d", 86_400_000], ["h", 3_600_000], ["m", 60_000], ["s", 1000]].find(([, size]) => ms % size === 0) ?? ["ms", 1];
  return `${ms / size}${name}`;
}

/** Formats an RFC 3339 time as `2001-01-01 06:00`; with seconds unless they are zero. */
export function time(text) {
  if (!text) return "–";
  const [date, clock] = text.replace("Z", "").split("T");
  const [hour, minute, second = "00"] = clock.split(":");
  return `${date} ${hour}:${minute}${Math.floor(Number(second)) > 0 ? `:${second.slice(0, 2)}` : ""}`;
}

/** Formats a time relative to the server's clock `now`: `in 12 s`, `3 min ago`. */
export function relative(text, now) {
  if (!text) return "";
  const ms = Date.parse(text) - now;
  const s = Math.abs(Math.round(ms / 1000));
  const far = s < 90 ? `${s} s` : s < 5400 ? `${Math.round(s / 60)} min` : s < 172800 ? `${Math.round(s / 3600)} h` : `${Math.round(s / 86400)} days`;
  return ms >= 0 ? `in ${far}` : `${far} ago`;
}

/** Like `relative` for a past time. The server reports its clock in whole seconds, so it may seem to be behind. */
export const ago = (text, now) => (Date.parse(text) > now - 500 ? "now" : relative(text, now));

/** Formats a size in bytes with binary units: `1.5 MiB`. */
export function bytes(n) {
  const units = ["B", "KiB", "MiB", "GiB"];
  let at = 0;
  while (n >= 1024 && at < units.length - 1) { n /= 1024; at += 1; }
  return `${at ? short.format(n) : whole.format(n)} ${units[at]}`;
}
