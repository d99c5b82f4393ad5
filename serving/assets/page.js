// What keeps the page current? One round a second while it is looked at; every round asks the server anew.

import { showStream } from "./streams.js";
import { showView } from "./card.js";

const EVERY_MS = 1000;
const connection = document.getElementById("connection");

function tell(state, text) {
  if (connection.dataset.state === state && connection.textContent === text) return;
  connection.dataset.state = state;
  connection.textContent = text;
}

async function ask(path) {
  const response = await fetch(path);
  if (!response.ok) throw new Error(`${path}: ${response.status}`);
  return { body: await response.json(), date: Date.parse(response.headers.get("date")) };
}

async function round() {
  const [streams, views] = await Promise.all([ask("/v1/streams"), ask("/v1/views")]);
  const now = Number.isNaN(views.date) ? Date.now() : views.date;
  for (const stream of streams.body.streams) {
    const section = document.getElementById(`stream-${stream.name}`);
    if (section) showStream(section, stream);
  }
  const cards = views.body.views.map((view) => [document.getElementById(`view-${view.name}`), view]);
  const shown = await Promise.allSettled(cards.filter(([card]) => card).map(([card, view]) => showView(card, view, now)));
  const failed = shown.find((result) => result.status === "rejected");
  if (failed) throw failed.reason;
}

let timer = null;
let running = false;

async function tick() {
  if (running || document.hidden) return;
  running = true;
  clearTimeout(timer);
  try {
    await round();
    tell("live", "live");
  } catch (error) {
    tell("away", error instanceof TypeError ? "the server cannot be reached" : error.message);
  }
  running = false;
  if (!document.hidden) timer = setTimeout(tick, EVERY_MS);
}

document.addEventListener("visibilitychange", () => {
  if (document.hidden) tell("paused", "paused");
  else tick();
});
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", tick);
tick();
