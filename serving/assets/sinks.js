// The sinks page: a panel per sink with its state, its last epoch, its lag and its last error, and buttons to pause and resume it.

import { errorText, getJson, sendJson } from "./fetch_json.js";
import { badge, element, fillFacts, setError, setText } from "./dom.js";
import { pollWhileVisible } from "./shell.js";
import { ago, count, rowCount, time } from "./format.js";
import { confirmBeforeAction } from "./confirm_button.js";

const EMITS = { changes: "every change", final: "final rows" };
const byKey = (key) => (key.length ? key.join(", ") : "one key");
const find = (id) => document.getElementById(id);
const panels = new Map();

async function control(name, verb, problem) {
  try {
    await sendJson("POST", `/v1/sinks/${encodeURIComponent(name)}/${verb}`);
    setError(problem, null);
  } catch (error) {
    setError(problem, errorText(error));
  }
  again();
}

/** Creates the panel of a sink; `show` fills in what changes. */
function createPanel({ name, view, stream, connection, topic, emit, key }) {
  const state = element("div", { class: "now" });
  const facts = element("dl", { class: "facts" });
  const reason = element("p", { class: "reason", role: "status", hidden: "" });
  const problem = element("p", { hidden: "" });
  const pause = element("button", { type: "button", text: "Pause" });
  const resume = element("button", { type: "button", text: "Resume", hidden: "" });
  confirmBeforeAction(pause, "Click again to pause", () => control(name, "pause", problem));
  resume.addEventListener("click", () => control(name, "resume", problem));
  const source = view === null ? element("a", { href: "/streams", text: stream }) : element("a", { href: `/view/${encodeURIComponent(view)}`, text: view });
  const what = emit === null ? `every event ${key.length ? `by ${key.join(", ")}` : "without a key"}` : `${EMITS[emit] ?? emit} by ${byKey(key)}`;
  const path = element("p", { class: "path" }, source,
    ` → ${topic === null ? `webhook ${connection}` : `${topic} (connection ${connection})`}: ${what}`);
  const panel = element("section", { class: "panel sink", "aria-label": `Sink ${name}`, "data-sink": name },
    element("header", {}, element("h2", { text: name }), state), path, facts, reason, problem,
    element("div", { class: "controls" }, pause, resume));
  return { panel, state, facts, reason, pause, resume };
}

function show({ state, facts, reason, pause, resume }, sink, now) {
  if (state.textContent !== sink.state) state.replaceChildren(badge(sink.state));
  fillFacts(facts, [
    ["epoch", count(sink.epoch), "the last committed transaction"],
    ["committed", sink.committed_at ? ago(sink.committed_at, now) : "–", sink.committed_at ?? "nothing since this process started"],
    ["lag", sink.lag === 1 ? "1 event" : `${count(sink.lag)} events`, "events of the log after the last epoch"],
    ...(sink.emit === null ? [] : [[sink.topic === null ? "sent" : "topic has", rowCount(sink.rows), ""]]),
    ["written", `${count(sink.records)} ${sink.records === 1 ? "record" : "records"}`, "since this process started"],
    ...(sink.emit === null ? [] : [["version", sink.version === null ? "–" : String(sink.version), "the batch version whose figures the topic has"]]),
    ...(sink.emit === "final" ? [["final until", time(sink.watermark), "every window that ends before it is in the topic"]] : []),
  ]);
  setText(reason, sink.error ?? "");
  pause.hidden = sink.state === "paused" || sink.state === "stopped";
  resume.hidden = !pause.hidden;
}

async function round() {
  try {
    const { body, now } = await getJson("/v1/sinks");
    find("undeclared").hidden = body.sinks.length > 0;
    for (const [name, { panel }] of panels) {
      if (body.sinks.every((sink) => sink.name !== name) && panels.delete(name)) panel.remove();
    }
    for (const sink of body.sinks) {
      if (!panels.has(sink.name)) {
        panels.set(sink.name, createPanel(sink));
        find("sinks").append(panels.get(sink.name).panel);
      }
      show(panels.get(sink.name), sink, now);
    }
    setError(find("error"), null);
  } catch (error) {
    setError(find("error"), errorText(error));
    throw error;
  }
}

const again = pollWhileVisible(round, 2000);
