// The batch page: a panel per view with its current and next run, the chart of runs, and the lists of runs and versions.

import { errorText, getJson, queryString, sendJson } from "./fetch_json.js";
import { badge, element, fillFacts, fillTable, setError, setText } from "./dom.js";
import { axis, colours, draw, instant, layout } from "./chart_style.js";
import { pollWhileVisible } from "./shell.js";
import { ago, bytes, count, duration, percent, relative, runCount, time } from "./format.js";
import { confirmBeforeAction } from "./confirm_button.js";

const CHARTED = 300;
const LISTED = 25;

const find = (id) => document.getElementById(id);
const lanes = [...document.querySelectorAll(".lane")];
const names = lanes.map((lane) => lane.dataset.view);
const isOpen = (run) => run.state === "queued" || run.state === "running";
let limit = LISTED;

/** Formats an instant in the time zone of a schedule: `02:00`. */
function clock(text, zone) {
  const options = { hour: "2-digit", minute: "2-digit", hourCycle: "h23", timeZone: zone ?? "UTC" };
  return new Intl.DateTimeFormat("en-GB", options).format(new Date(text));
}

/** Returns the text and the tooltip of a view's next run. */
function nextRun(view, now) {
  const { next_run: next, schedule, schedule_time_zone: zone, retry_at: retry } = view;
  if (retry && (!next || Date.parse(retry) < Date.parse(next))) return [`retry ${relative(retry, now)}`, "the last run failed and will be retried"];
  if (!next) return [schedule ? "–" : "on request", schedule ? "" : "the view has no schedule"];
  const often = schedule.startsWith("@every");
  return [often ? relative(next, now) : `${relative(next, now)}, at ${clock(next, zone)} ${zone ?? "UTC"}`, `schedule: ${schedule}`];
}

function showLane(lane, view, runs, now) {
  const open = runs.filter((run) => run.view === view.name && isOpen(run));
  const running = open.find((run) => run.state === "running");
  const state = running ? "running" : open.length ? "queued" : "idle";
  const mark = lane.querySelector(".now .badge");
  if (mark.textContent !== state) lane.querySelector(".now").replaceChildren(badge(state));
  showProgress(lane, running, now);
  const { last_success: success, last_failure: failure } = view;
  const [next, why] = nextRun(view, now);
  fillFacts(lane.querySelector(".facts"), [
    ["next run", next, why],
    ["last success", success?.finished_at ? ago(success.finished_at, now) : "never", success ? `run ${success.run}` : ""],
    ["duration", success?.duration_ms === null || success === null || success === undefined ? "–" : duration(success.duration_ms), ""],
    ["version", view.seam.version === null ? "–" : String(view.seam.version), view.seam.published_at ?? ""],
  ]);
  const isNewer = failure && (!success || (failure.finished_at ?? "") > (success.finished_at ?? ""));
  setText(lane.querySelector(".reason"), isNewer ? `The last run failed${failure.finished_at ? ` ${ago(failure.finished_at, now)}` : ""}: ${failure.error}` : "");
  const cancel = lane.querySelector("[data-do=cancel]");
  cancel.hidden = open.length === 0 && !view.retry_at;
  cancel.textContent = open.length === 0 && view.retry_at ? "Cancel the retry" : "Cancel";
  lane.dataset.open = (open.length ? open.map((run) => run.id) : view.retry_at && failure ? [failure.run] : []).join(" ");
}

function showProgress(lane, run, now) {
  const working = lane.querySelector(".working");
  working.hidden = !run;
  if (!run) return;
  const { dates, dates_done: done, rows, bytes_read: read } = run.progress;
  const bar = working.querySelector("progress");
  if (dates) { bar.max = dates; bar.value = done; } else bar.removeAttribute("value");
  const seconds = Math.max(0.001, (now - Date.parse(run.started_at)) / 1000);
  const left = done > 0 && done < dates ? `, about ${duration((1000 * seconds * (dates - done)) / done)} left` : "";
  setText(working.querySelector(".far"), dates
    ? `${count(done)} of ${count(dates)} dates, ${count(rows)} rows (${count(rows / seconds)} per second), ${bytes(read)} read${left}`
    : "finding the dates that changed");
}

function showChart(runs) {
  const chart = find("chart");
  const over = runs.filter((run) => run.started_at && run.duration_ms !== null && run.duration_ms !== undefined);
  find("no-runs").hidden = over.length > 0;
  chart.hidden = over.length === 0;
  const colour = colours();
  const shown = JSON.stringify([over.map((run) => [run.id, run.state]), colour.text]);
  if (chart.hidden || chart.dataset.shown === shown) return;
  chart.dataset.shown = shown;
  const hover = (run) => `${run.view}: ${run.state}<br>${time(run.started_at)}, ${duration(run.duration_ms)}<br>${count(run.progress.dates)} dates, ${count(run.progress.rows)} rows<br>trigger: ${run.trigger}${run.error ? `<br>${run.error.slice(0, 80)}` : ""}`;
  const traces = names.map((name, i) => {
    const own = over.filter((run) => run.view === name);
    const tint = colour.series[i % colour.series.length];
    return {
      type: "scatter", mode: "markers", name, x: own.map((run) => instant(run.started_at)), y: own.map((run) => Math.max(run.duration_ms, 1) / 1000),
      hovertext: own.map(hover), hoverinfo: "text",
      marker: {
        size: 9, color: own.map((run) => (run.state === "failed" ? colour.bad : tint)), line: { width: 1, color: colour.card },
        symbol: own.map((run) => (run.state === "published" ? "circle" : run.state === "failed" ? "x" : "circle-open")),
      },
    };
  });
  draw(chart, traces, layout(colour, {
    xaxis: axis(colour, { type: "date" }),
    yaxis: axis(colour, { type: "log", title: { text: "seconds" }, exponentformat: "none" }),
  }));
  const legend = names.map((name, i) => element("li", {}, element("i", { style: `background:${colour.series[i % colour.series.length]}` }), name));
  find("legend").replaceChildren(...legend, element("li", { text: "✕ failed, ○ cancelled" }));
  const failed = over.filter((run) => run.state === "failed").length;
  chart.setAttribute("aria-label", `Durations of the latest ${count(over.length)} runs, ${count(failed)} of them failed`);
  chart.dataset.updated = Number(chart.dataset.updated) + 1;
}

async function showRuns(now) {
  const filter = { view: find("of-view").value || null, state: find("of-state").value || null, limit };
  const { body } = await getJson(`/v1/runs${queryString(filter)}`);
  const columns = [
    { name: "started_at", heading: "started", cell: (run) => (run.started_at ? element("span", { text: ago(run.started_at, now), title: run.started_at }) : "–") },
    { name: "view" },
    { name: "state", cell: (run) => badge(run.state) },
    { name: "trigger", cell: (run) => (run.attempt > 1 ? `${run.trigger}, attempt ${run.attempt}` : run.trigger) },
    { name: "engine", cell: (run) => run.engine ?? "" },
    { name: "version", number: true, cell: (run) => (run.version === null ? "–" : String(run.version)) },
    { name: "duration_ms", heading: "duration", number: true, cell: (run) => (run.duration_ms === null || run.duration_ms === undefined ? "–" : duration(run.duration_ms)) },
    { name: "dates", number: true, cell: (run) => `${count(run.progress.dates_done)}/${count(run.progress.dates)}` },
    { name: "rows", number: true, cell: (run) => count(run.progress.rows) },
    { name: "read", number: true, cell: (run) => bytes(run.progress.bytes_read) },
    { name: "error", cell: (run) => run.error ?? "" },
  ];
  fillTable(find("runs"), columns, body.runs, { caption: "Latest runs" });
  setText(find("count"), body.runs.length === 0 ? "No runs match." : `Showing ${runCount(body.runs.length)}`);
  find("more").hidden = !body.next || limit >= 1000;
}

async function showVersions(now) {
  const view = find("versions-of").value;
  if (!view) return;
  const { body } = await getJson(`/v1/views/${view}/versions`);
  const worst = (drift) => Math.max(0, ...Object.values(drift.measures).map((measure) => measure.drift));
  const columns = [
    { name: "version", number: true, cell: (v) => element("a", { href: `/compare/${view}?version=${v.version}`, text: String(v.version) }) },
    { name: "published_at", heading: "published", cell: (v) => element("span", { text: ago(v.published_at, now), title: v.published_at }) },
    { name: "full", heading: "run", cell: (v) => (v.full ? "full" : "incremental") },
    { name: "events", number: true, cell: (v) => count(v.events) },
    { name: "rows", number: true, cell: (v) => count(v.rows) },
    { name: "files", number: true, cell: (v) => (v.files === null ? "–" : count(v.files)) },
    { name: "bytes", heading: "size", number: true, cell: (v) => (v.bytes === null ? "–" : bytes(v.bytes)) },
    { name: "drift", number: true, cell: (v) => (v.drift ? element("a", { href: `/compare/${view}?version=${v.version}`, text: percent(worst(v.drift)) }) : "–") },
    { name: "kept_for", heading: "download", cell: (v) => (v.kept ? element("a", { href: `/v1/views/${view}/rows.csv?version=${v.version}`, text: "CSV", title: `kept for ${count(v.kept_for)} more versions` }) : "not kept") },
  ];
  fillTable(find("versions"), columns, body.versions, { caption: `Versions of ${view}` });
  find("no-versions").hidden = body.versions.length > 0;
  find("versions").hidden = body.versions.length === 0;
}

async function round() {
  const [views, runs] = await Promise.all([getJson("/v1/views"), getJson(`/v1/runs?limit=${CHARTED}`)]);
  for (const lane of lanes) {
    const view = views.body.views.find((one) => one.name === lane.dataset.view);
    if (view) showLane(lane, view, runs.body.runs, runs.now);
  }
  if (names.length === 0) return;
  showChart(runs.body.runs);
  await Promise.all([showRuns(runs.now), showVersions(runs.now)]);
  find("lanes").dataset.updated = Number(find("lanes").dataset.updated) + 1;
}

const again = pollWhileVisible(round);

for (const lane of lanes) {
  const { view } = lane.dataset;
  const attempt = async (action) => {
    try {
      await action();
      setError(lane.querySelector(".error"), null);
    } catch (error) {
      setError(lane.querySelector(".error"), errorText(error));
    }
    again();
  };
  const start = (full) => attempt(() => sendJson("POST", `/v1/views/${view}/runs`, { full }));
  lane.querySelector("[data-do=run]").addEventListener("click", () => start(false));
  confirmBeforeAction(lane.querySelector("[data-do=full]"), "Click again to recompute all dates", () => start(true));
  lane.querySelector("[data-do=cancel]").addEventListener("click", () =>
    attempt(() => Promise.all(lane.dataset.open.split(" ").filter(Boolean).map((id) => sendJson("DELETE", `/v1/runs/${id}`)))));
}
for (const id of ["of-view", "of-state", "versions-of"]) find(id)?.addEventListener("change", () => { limit = LISTED; again(); });
find("more")?.addEventListener("click", () => { limit = Math.min(1000, limit + 100); again(); });
