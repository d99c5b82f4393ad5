// The streams page: counters, measured disorder, time settings and partitions of each stream, and lists of late, ahead and
// rejected events. Requests only the list that is shown.

import { errorText, getJson, queryString, sendJson } from "./fetch_json.js";
import { element, fillTable, setError, setText } from "./dom.js";
import { axis, colours, draw, layout } from "./chart_style.js";
import { pollWhileVisible } from "./shell.js";
import { exampleCommand, showStream } from "./stream_section.js";
import { bytes, count, duration, percent, time, value } from "./format.js";
import { confirmBeforeAction } from "./confirm_button.js";

const LISTED = 20;
const sections = [...document.querySelectorAll(".stream")];
const lists = new Map(sections.map((section) => [section, { kind: "late", limit: LISTED }]));

const EMPTY = {
  late: "No late events.",
  ahead: "No events further ahead than max_ahead.",
  quarantine: "No rejected lines.",
};

function showLateness(section, { lateness, settings }) {
  const chart = section.querySelector(".lateness");
  const measured = section.querySelector(".measured");
  if (!lateness) {
    chart.hidden = true;
    return setText(measured, "No measurements yet.");
  }
  chart.hidden = false;
  const colour = colours();
  const quantiles = Object.entries(lateness.quantiles_ms).map(([name, ms]) => [Number(name.slice(1)), name, ms]).toSorted((a, b) => a[0] - b[0]);
  const all = [...quantiles, [100, "largest", lateness.max_ms]];
  const shown = JSON.stringify([all, colour.text]);
  if (chart.dataset.shown !== shown) {
    chart.dataset.shown = shown;
    const trace = {
      type: "bar", x: all.map(([, name]) => name), y: all.map(([, , ms]) => Math.max(ms, 1) / 1000), marker: { color: colour.exact },
      text: all.map(([, , ms]) => duration(ms)), textposition: "outside", textfont: { size: 11 }, cliponaxis: false,
      hovertext: all.map(([share, name, ms]) => (name === "largest" ? `largest: ${duration(ms)}` : `${share} % within ${duration(ms)}`)), hoverinfo: "text",
    };
    draw(chart, [trace], layout(colour, { xaxis: axis(colour, { type: "category" }), yaxis: axis(colour, { type: "log", showticklabels: false, showgrid: false }) }));
    chart.setAttribute("aria-label", `Disorder: ${all.map(([, name, ms]) => `${name} ${duration(ms)}`).join(", ")}`);
  }
  setText(measured, `${count(lateness.measured)} events measured; ${percent(lateness.behind_watermark_share)} arrived behind the watermark, ${percent(lateness.late_share)} late.`);
  const rows = [
    { name: "watermark_delay", now: settings.watermark_delay, suggested: lateness.suggested.watermark_delay },
    { name: "allowed_lateness", now: settings.allowed_lateness, suggested: lateness.suggested.allowed_lateness },
    { name: "max_ahead", now: settings.max_ahead, suggested: "" },
    ...(settings.max_age ? [{ name: "max_age", now: settings.max_age, suggested: "" }] : []),
    { name: "idle_timeout", now: settings.idle_timeout, suggested: "" },
  ];
  fillTable(section.querySelector(".settings"), [{ name: "name", heading: "option" }, { name: "now", heading: "current" }, { name: "suggested", heading: "suggested" }], rows, { caption: "Time settings" });
}

function showPartitions(section, { partitions }) {
  const columns = [
    { name: "partition", number: true },
    { name: "head", heading: "next offset", number: true, cell: (p) => count(p.head) },
    { name: "archived", number: true, cell: (p) => count(p.archived) },
    { name: "watermark", cell: (p) => time(p.watermark) },
    { name: "late", number: true, cell: (p) => count(p.late) },
    { name: "duplicates", number: true, cell: (p) => count(p.duplicates) },
    { name: "log_bytes", heading: "log", number: true, cell: (p) => bytes(p.log_bytes) },
  ];
  fillTable(section.querySelector(".partitions"), columns, partitions, { caption: "Partitions" });
  const failing = partitions.find((p) => p.archive_error);
  setText(section.querySelector(".reason"), failing ? `Cannot write to the archive: ${failing.archive_error}` : "");
}

async function showList(section) {
  const { kind, limit } = lists.get(section);
  const { body } = await getJson(`/v1/streams/${section.dataset.stream}/${kind}${queryString({ limit })}`);
  const isQuarantine = kind === "quarantine";
  const entries = isQuarantine ? body.lines : body.events;
  const hidden = ["_watermark", "_partition"];
  const columns = isQuarantine
    ? [
      { name: "arrived_at", heading: "arrived", cell: (line) => time(line.arrived_at) },
      { name: "line", number: true },
      { name: "reason" },
      { name: "text", cell: (line) => element("code", { text: line.text }) },
    ]
    : Object.keys(entries[0] ?? {}).filter((name) => !hidden.includes(name)).map((name) => ({
      name, heading: name.replace(/^_/, "").replace(/_ms$/, "").replaceAll("_", " "), number: typeof entries[0][name] === "number",
      cell: (event) => (/_at$/.test(name) ? time(event[name]) : /_ms$/.test(name) ? duration(event[name]) : value(event[name])),
    }));
  const table = section.querySelector(".entries");
  table.hidden = entries.length === 0;
  if (entries.length) fillTable(table, columns, entries, { caption: `${kind} of ${section.dataset.stream}` });
  const total = body.total;
  setText(section.querySelector(".listed"), entries.length === 0 ? EMPTY[kind] : `${count(entries.length)} of ${count(total)}, newest first`);
  section.querySelector(".further").hidden = !body.next || limit >= 1000;
  section.querySelector(".empty-out").hidden = !isQuarantine || entries.length === 0;
}

async function round() {
  const { body, now } = await getJson("/v1/streams");
  for (const section of sections) {
    const stream = body.streams.find((one) => one.name === section.dataset.stream);
    if (!stream) continue;
    showLateness(section, stream);
    showPartitions(section, stream);
    setText(section.querySelector(".suspicious"), stream.suspicious_times ?? "");
    setText(section.querySelector(".send code"), exampleCommand(stream));
    await showList(section);
    showStream(section, stream, now);
  }
}

const again = pollWhileVisible(round);

for (const section of sections) {
  const choices = [...section.querySelectorAll("[data-kind]")];
  for (const choice of choices) {
    choice.addEventListener("click", () => {
      lists.set(section, { kind: choice.dataset.kind, limit: LISTED });
      choices.forEach((other) => other.setAttribute("aria-pressed", String(other === choice)));
      again();
    });
  }
  section.querySelector(".further").addEventListener("click", () => {
    const list = lists.get(section);
    list.limit = Math.min(1000, list.limit + 100);
    again();
  });
  confirmBeforeAction(section.querySelector(".empty-out"), "Click again to clear the list", async () => {
    try {
      await sendJson("DELETE", `/v1/streams/${section.dataset.stream}/quarantine`);
      setError(section.querySelector(".lists .error"), null);
    } catch (error) {
      setError(section.querySelector(".lists .error"), errorText(error));
    }
    again();
  });
}
