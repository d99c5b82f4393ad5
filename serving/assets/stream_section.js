// What has come in? The counters of one stream, and how to send a first event.

import { define, element } from "./dom.js";
import { count, length, percent, time, value } from "./text.js";

const sum = (partitions, name) => partitions.reduce((total, p) => total + p[name], 0);

/** Shows the state of a stream in its section. */
export function showStream(section, stream) {
  const { partitions } = stream;
  const events = sum(partitions, "head");
  define(section.querySelector(".counters"), [
    ["events", count(events), "accepted and durable in the log"],
    ["per second", value(Math.round(stream.events_per_second * 10) / 10), "over the last ten seconds"],
    ["late", count(sum(partitions, "late")), "came after allowed lateness: left to the batch layer"],
    ...(sum(partitions, "ahead") ? [["ahead", count(sum(partitions, "ahead")), "too far in the future to move the watermark"]] : []),
    ["duplicates", count(sum(partitions, "duplicates")), "sent again and not counted again"],
    ["rejected", count(stream.rejected), "lines that were not events of this stream"],
    ["watermark", time(stream.watermark), "event time up to which everything is expected to have come"],
  ]);
  showLateness(section.querySelector(".lateness"), stream);
  const hint = section.querySelector(".hint");
  hint.hidden = events > 0;
  if (!hint.hidden && !hint.hasChildNodes()) hint.append(...firstEvent(stream));
  section.dataset.updated = Number(section.dataset.updated) + 1;
}

/** How far behind the latest event time events come, in one line, with the lists behind it. */
function showLateness(line, { name, lateness, partitions, quarantine }) {
  line.hidden = !lateness;
  if (!lateness) return;
  const { quantiles_ms: q, max_ms, late_share, suggested } = lateness;
  const far = `Events come behind the latest one by ${length(q.p50)} in the median, ${length(q.p99)} (p99), at most ${length(max_ms)}; ${percent(late_share)} late. `;
  const fit = `Fits 99.9 %: watermark_delay '${suggested.watermark_delay}', allowed_lateness '${suggested.allowed_lateness}'.`;
  const lists = [["late", sum(partitions, "late")], ["ahead", sum(partitions, "ahead")], ["quarantine", quarantine.kept]].filter(([, n]) => n > 0);
  const shown = JSON.stringify([far, fit, lists.map(([list]) => list)]);
  if (line.dataset.shown === shown) return;
  line.dataset.shown = shown;
  const links = lists.flatMap(([list]) => [" ", element("a", { href: `/v1/streams/${name}/${list}`, text: list })]);
  line.replaceChildren(far, fit, ...links);
}

const example = (column) => {
  if (column.type === "TIMESTAMP") return new Date().toISOString().slice(0, 19) + "Z";
  if (column.type === "DATE") return new Date().toISOString().slice(0, 10);
  if (column.type === "BOOLEAN") return true;
  if (column.type === "STRING") return column.role === "primary key" ? "first" : "a";
  return 1;
};

function firstEvent(stream) {
  const event = Object.fromEntries(stream.columns.map((c) => [c.name, example(c)]));
  const command = `curl -X POST ${location.origin}/v1/events/${stream.name} \\\n  -H 'Content-Type: application/json' \\\n  -d '${JSON.stringify(event)}'`;
  return [element("p", { text: "No events yet. Send the first one:" }), element("pre", {}, element("code", { text: command }))];
}
