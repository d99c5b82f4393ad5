// What comes in? Rate, lag and watermark of one stream, and how to send a first event.

import { define, element } from "./dom.js";
import { count, length, time, value } from "./text.js";

const SAMPLES = 60;
const sum = (partitions, name) => partitions.reduce((total, p) => total + p[name], 0);
const rates = new Map();

/** Shows the state of a stream in its section; `now` is the server's clock. */
export function showStream(section, stream, now) {
  const { partitions, watermark } = stream;
  const events = sum(partitions, "head");
  define(section.querySelector(".counters"), [
    ["events", count(events), "accepted and durable in the log"],
    ["per second", value(Math.round(stream.events_per_second * 10) / 10), "over the last ten seconds"],
    ["watermark", time(watermark), "event time up to which everything is expected to have come"],
    ["lag", watermark ? length(Math.max(0, now - Date.parse(watermark))) : "–", "how far the watermark is behind the clock"],
    ["late", count(sum(partitions, "late")), "came after allowed lateness: left to the batch layer"],
    ...(sum(partitions, "ahead") ? [["ahead", count(sum(partitions, "ahead")), "too far in the future to move the watermark"]] : []),
    ["duplicates", count(sum(partitions, "duplicates")), "sent again and not counted again"],
    ["rejected", count(stream.rejected), "lines that were not events of this stream"],
  ]);
  showRate(section, stream);
  const hint = section.querySelector(".hint");
  hint.hidden = events > 0;
  if (!hint.hidden && !hint.hasChildNodes()) hint.append(...firstEvent(stream));
  section.dataset.updated = Number(section.dataset.updated) + 1;
}

/** The rate since the page was opened, as a small line. */
function showRate(section, { name, events_per_second: rate }) {
  const seen = rates.get(name) ?? [];
  seen.push(rate);
  if (seen.length > SAMPLES) seen.shift();
  rates.set(name, seen);
  const most = Math.max(...seen, 1e-9);
  // The newest on the right.
  const place = (i) => ((120 * (SAMPLES - seen.length + i)) / (SAMPLES - 1)).toFixed(1);
  const points = seen.map((r, i) => `${place(i)},${(27 - (25 * r) / most).toFixed(1)}`);
  const svg = section.querySelector(".rates");
  svg.querySelector(".line").setAttribute("d", seen.length > 1 ? `M${points.join("L")}` : "");
  svg.querySelector(".area").setAttribute("d", seen.length > 1 ? `M${place(0)},28L${points.join("L")}L120,28Z` : "");
}

const example = (column) => {
  if (column.type === "TIMESTAMP") return new Date().toISOString().slice(0, 19) + "Z";
  if (column.type === "DATE") return new Date().toISOString().slice(0, 10);
  if (column.type === "BOOLEAN") return true;
  if (column.type === "STRING") return column.role === "primary key" ? "first" : "a";
  return 1;
};

/** A command that sends an event with every declared column. */
export function exampleCommand(stream) {
  const declared = stream.columns.filter((c) => c.role !== "removed");
  const event = Object.fromEntries(declared.map((c) => [c.name, example(c)]));
  return `curl -X POST ${location.origin}/v1/events/${stream.name} \\\n  -H 'Content-Type: application/json' \\\n  -d '${JSON.stringify(event)}'`;
}

function firstEvent(stream) {
  const command = exampleCommand(stream);
  return [element("p", { text: "No events yet. Send the first one:" }), element("pre", { tabindex: "0", role: "region", "aria-label": "Command that sends an event" }, element("code", { text: command }))];
}
