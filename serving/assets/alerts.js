// The alerts page: a timeline of raised alerts, the list by state, the declared alerts, silences, and notices that were given up.
// Events of /v1/alerts/live request the lists again; without them the page polls.

import { errorText, getJson, queryString } from "./fetch_json.js";
import { badge, fillTable, setError, setText } from "./dom.js";
import { axis, colours, draw, layout } from "./chart_style.js";
import { pollWhileVisible } from "./shell.js";
import { count, time, value } from "./format.js";

const LISTED = 200;
const CHARTED = 1000;
const STATES = ["raised", "confirmed", "withdrawn", "corrected"];

const find = (id) => document.getElementById(id);
let state = "";

const values = (object) => Object.values(object).map((one) => (/^\d{4}-\d\d-\d\dT/.test(one) ? time(one) : value(one))).join(", ") || "–";

/** Returns a measure with what it was served as, and what it is exactly if that differs. */
function figure([name, { served, exact }]) {
  const differs = exact !== undefined && JSON.stringify(exact) !== JSON.stringify(served);
  return `${name} ${value(served)}${differs ? ` → ${value(exact)}` : ""}`;
}

function showTimeline(alerts) {
  const chart = find("timeline");
  chart.hidden = alerts.length === 0;
  find("nothing").hidden = alerts.length > 0;
  const colour = colours();
  const shown = JSON.stringify([alerts.map((alert) => [alert.id, alert.seq]), colour.text]);
  if (chart.hidden || chart.dataset.shown === shown) return;
  chart.dataset.shown = shown;
  const symbols = { raised: "circle-open", confirmed: "circle", withdrawn: "x", corrected: "diamond" };
  const traces = STATES.map((name) => {
    const some = alerts.filter((alert) => alert.state === name);
    return {
      type: "scatter", mode: "markers", name, x: some.map((alert) => alert.raised_at), y: some.map((alert) => alert.alert),
      marker: { symbol: symbols[name], size: 10, color: name === "withdrawn" ? colour.text : colour.exact },
      hovertext: some.map((alert) => `${alert.alert}: ${alert.state}<br>${values(alert.key)}<br>${Object.entries(alert.figures).map(figure).join("<br>")}`),
      hoverinfo: "text",
    };
  }).filter((trace) => trace.x.length > 0);
  draw(chart, traces, layout(colour, { showlegend: true, legend: { orientation: "h", x: 0, xanchor: "left", y: 1, yanchor: "bottom" }, xaxis: axis(colour, { type: "date" }), yaxis: axis(colour, { type: "category", automargin: true }) }));
  const counts = STATES.map((name) => [name, alerts.filter((alert) => alert.state === name).length]).filter(([, n]) => n > 0);
  chart.setAttribute("aria-label", `Timeline of alerts: ${counts.map(([name, n]) => `${count(n)} ${name}`).join(", ")}`);
}

function showRecords({ alerts, total }) {
  const table = find("records");
  table.hidden = alerts.length === 0;
  fillTable(table, [
    { name: "alert" },
    { name: "state", cell: (alert) => badge(alert.state) },
    { name: "key", cell: (alert) => values(alert.key) },
    { name: "figures", cell: (alert) => Object.entries(alert.figures).map(figure).join(", ") },
    { name: "raised_at", heading: "raised", cell: (alert) => time(alert.raised_at) },
    { name: "changed_at", heading: "changed", cell: (alert) => time(alert.changed_at) },
    { name: "version", number: true },
    { name: "cause" },
  ], alerts, { caption: "Raised alerts" });
  setText(find("listed"), alerts.length === 0 ? "No alerts in this state." : `${count(alerts.length)} of ${count(total)}, last changed first`);
}

async function round() {
  try {
    const all = (await getJson(`/v1/alerts${queryString({ limit: CHARTED })}`)).body;
    const chosen = state ? (await getJson(`/v1/alerts${queryString({ state, limit: LISTED })}`)).body : { ...all, alerts: all.alerts.slice(0, LISTED) };
    const { dead_letters: letters } = (await getJson("/v1/alerts/dead_letters")).body;
    const { silences } = (await getJson("/v1/alerts/silences")).body;
    showTimeline(all.alerts);
    showRecords(chosen);
    find("undeclared").hidden = all.declared.length > 0;
    find("declared").hidden = all.declared.length === 0;
    fillTable(find("declared"), [
      { name: "name", heading: "alert" },
      { name: "view" },
      { name: "condition" },
      { name: "once_per", heading: "once per", cell: (alert) => alert.once_per.join(", ") || "–" },
      { name: "to", cell: (alert) => (alert.to ? alert.to + (alert.notices_per_minute ? `, at most ${alert.notices_per_minute} per minute` : "") : "–") },
    ], all.declared, { caption: "Declared alerts" });
    find("silenced").hidden = silences.length === 0;
    fillTable(find("silences"), [
      { name: "alert", cell: (silence) => silence.alert ?? "all" },
      { name: "key", cell: (silence) => Object.entries(silence.key).map(([column, pattern]) => `${column} = ${pattern}`).join(", ") || "–" },
      { name: "until", cell: (silence) => time(silence.until) },
      { name: "by" },
      { name: "reason", cell: (silence) => silence.reason ?? "–" },
    ], silences, { caption: "Silences" });
    find("dead").hidden = letters.length === 0;
    fillTable(find("letters"), [
      { name: "alert", cell: (letter) => letter.record.alert },
      { name: "key", cell: (letter) => values(letter.record.key) },
      { name: "target" },
      { name: "attempts", number: true },
      { name: "error" },
      { name: "failed_at", heading: "given up", cell: (letter) => time(letter.failed_at) },
    ], letters, { caption: "Notices that could not be delivered" });
    setError(find("error"), null);
  } catch (error) {
    setError(find("error"), errorText(error));
    throw error;
  }
}

const again = pollWhileVisible(round, 5000);
let source = null;

function follow() {
  source?.close();
  source = document.hidden ? null : new EventSource("/v1/alerts/live");
  for (const name of STATES) source?.addEventListener(name, () => again());
}

document.addEventListener("visibilitychange", follow);
follow();

const choices = [...document.querySelectorAll("[data-state]")].filter((choice) => choice.tagName === "BUTTON");
for (const choice of choices) {
  choice.addEventListener("click", () => {
    state = choice.dataset.state;
    choices.forEach((other) => other.setAttribute("aria-pressed", String(other === choice)));
    again();
  });
}
