// Shows the counters of one stream: event rate, lag, watermark, late and rejected events; and how to send the first event.

import { element, fillFacts } from "./dom.js";
import { count, duration, time, value } from "./format.js";

const SAMPLES = 60;
const sum = (partitions, name) => partitions.reduce((total, p) => total + p[name], 0);
const rates = new Map();

/** Shows the counters of a stream in its section; `now` is the server's clock in milliseconds. */
export function showStream(section, stream, now) {
  const { partitions, watermark } = stream;
  const events = sum(partitions, "head");
  fillFacts(section.querySelector(".counters"), [
    ["events", count(events), "accepted and durable in the log"],
    ["per second", value(Math.round(stream.events_per_second * 10) / 10), "average of the last ten seconds"],
    ["watermark", time(watermark), "no event older than this is expected"],
    ["lag", watermark ? duration(Math.max(0, now - Date.parse(watermark))) : "–", "how far the watermark is behind the clock"],
    ["late", count(sum(partitions, "late")), "arrived after allowed lateness; only batch includes them"],
    ...(sum(partitions, "ahead") ? [["ahead", count(sum(partitions, "ahead")), "too far in the future to advance the watermark"]] : []),
    ["duplicates", count(sum(partitions, "duplicates")), "event ids that were seen before; each counts once"],
    ["rejected", count(stream.rejected), "lines that intake refused; kept in the quarantine"],
    ...(stream.source ? sourceFacts(stream.source) : []),
  ]);
  showRate(section, stream);
  const hint = section.querySelector(".hint");
  hint.hidden = events > 0;
  if (!hint.hidden && !hint.hasChildNodes()) hint.append(...firstEvent(stream));
  section.dataset.updated = Number(section.dataset.updated) + 1;
}

/** Returns the counters of the topic or outbox that a stream reads. */
function sourceFacts({ kind, topic, connection, state, error, lag, missed, retained_bytes: retained }) {
  if (kind === "postgres") {
    return [
      ["source", topic, `read from the connection ${connection}; each row counts once`],
      ["reader", error ? `${state}: ${error}` : state, "what the reader of the outbox does"],
      ["unread", lag === null ? "–" : count(lag), "rows that are known to wait in the outbox"],
      ...(retained === undefined ? [] : [["slot", `${count(retained)} B`, "log that the database keeps for the replication slot"]]),
    ];
  }
  return [
    ["topic", topic, `read from the connection ${connection}; each record counts once`],
    ["reader", error ? `${state}: ${error}` : state, "what the reader of the topic does"],
    ["unread", lag === null ? "–" : count(lag), "offsets that the topic has and the stream has not read"],
    ...(missed ? [["missed", count(missed), "offsets that the brokers deleted before they were read"]] : []),
  ];
}

/** Draws the event rate since the page was opened as a sparkline. */
function showRate(section, { name, events_per_second: rate }) {
  const samples = rates.get(name) ?? [];
  samples.push(rate);
  if (samples.length > SAMPLES) samples.shift();
  rates.set(name, samples);
  const most = Math.max(...samples, 1e-9);
  const x = (i) => ((120 * (SAMPLES - samples.length + i)) / (SAMPLES - 1)).toFixed(1);
  const points = samples.map((r, i) => `${x(i)},${(27 - (25 * r) / most).toFixed(1)}`);
  const svg = section.querySelector(".rates");
  svg.querySelector(".line").setAttribute("d", samples.length > 1 ? `M${points.join("L")}` : "");
  svg.querySelector(".area").setAttribute("d", samples.length > 1 ? `M${x(0)},28L${points.join("L")}L120,28Z` : "");
}

// Units of epoch formats per millisecond, and where the fields of a strftime pattern are in an ISO 8601 time.
const EPOCH_UNITS = { unix_s: 1e-3, unix_ms: 1, unix_us: 1e3, unix_ns: 1e6 };
const PATTERN_FIELDS = { Y: [0, 4], m: [5, 7], d: [8, 10], H: [11, 13], M: [14, 16], S: [17, 19], F: [0, 10], T: [11, 19] };

/** Formats the current time as the FORMAT of a column requires. */
function currentTime(format) {
  const now = new Date().toISOString().slice(0, 19) + "Z";
  if (EPOCH_UNITS[format]) return Math.floor(Date.now() * EPOCH_UNITS[format]);
  if (!format?.includes("%")) return now;
  return format.replaceAll("%z", "+0000").replace(/%([YmdHMSFT])/g, (_, field) => now.slice(...PATTERN_FIELDS[field]));
}

const example = (column) => {
  if (column.type === "TIMESTAMP") return currentTime(column.format);
  if (column.type === "DATE") return new Date().toISOString().slice(0, 10);
  if (column.type === "BOOLEAN") return true;
  if (column.type === "STRING") return column.role === "primary key" ? "first" : "a";
  return 1;
};

/** Returns a curl command that sends an event with every declared column. */
export function exampleCommand(stream) {
  const event = {};
  for (const column of stream.columns.filter((c) => c.role !== "removed")) {
    // `field` is a JSON Pointer (RFC 6901) to a nested field.
    const levels = column.field ? column.field.slice(1).split("/").map((level) => level.replaceAll("~1", "/").replaceAll("~0", "~")) : [column.name];
    const last = levels.pop();
    levels.reduce((object, level) => (object[level] ??= {}), event)[last] = example(column);
  }
  const json = JSON.stringify(event).replaceAll("'", "'\\''");
  return `curl -X POST ${location.origin}/v1/events/${stream.name} \\\n  -H 'Content-Type: application/json' \\\n  -d '${json}'`;
}

function firstEvent(stream) {
  if (stream.source) return [element("p", { text: `No events yet. They come from the ${stream.source.kind === "postgres" ? "" : "topic "}${stream.source.topic}.` })];
  const command = exampleCommand(stream);
  return [element("p", { text: "No events yet. Send the first one:" }), element("pre", { tabindex: "0", role: "region", "aria-label": "Command that sends an event" }, element("code", { text: command }))];
}
