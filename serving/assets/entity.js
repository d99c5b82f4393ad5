// The page of an entity: its present state, and its events, newest first, each with what it changed in the state.

import { errorText, getJson, queryString } from "./fetch_json.js";
import { element, fillFacts, fillTable, setError, setText } from "./dom.js";
import { pollWhileVisible } from "./shell.js";
import { count, time, value } from "./format.js";

const LISTED = 20;
const page = document.getElementById("entity");
const path = `/v1/entities/${encodeURIComponent(page.dataset.stream)}/${encodeURIComponent(page.dataset.id)}`;
const part = (name) => page.querySelector(`.${name}`);
// The measures after each event, by sequence: they never change.
const states = new Map([[0, {}]]);
let listed = LISTED;
let shown = "";

/** The measures of all views as one object: `view.measure` → value. */
function measures(views, id) {
  const entries = Object.entries(views).flatMap(([view, row]) =>
    Object.entries(row ?? {}).filter(([name, cell]) => !name.startsWith("_") && cell !== id).map(([name, cell]) => [`${view}.${name}`, cell]));
  return Object.fromEntries(entries);
}

async function stateAfter(sequence) {
  if (!states.has(sequence)) {
    const { body } = await getJson(`${path}${queryString({ sequence })}`);
    states.set(sequence, measures(body.views, body.id));
  }
  return states.get(sequence);
}

/** What an event changed: a line per measure. */
function effects(before, after) {
  const names = Object.keys(after).filter((name) => JSON.stringify(before[name] ?? null) !== JSON.stringify(after[name] ?? null));
  const line = (name) => element("div", { text: `${name}: ${value(before[name] ?? null) ?? "–"} → ${value(after[name]) ?? "–"}` });
  return names.length ? element("div", {}, ...names.map(line)) : "no measure";
}

async function round() {
  let present;
  try {
    present = (await getJson(path)).body;
  } catch (error) {
    return setError(part("problem"), errorText(error));
  }
  setError(part("problem"), null);
  const { sequence } = present;
  fillFacts(part("counters"), [["sequence", count(sequence)], ["complete", present.complete ? "yes" : "no"]]);
  const rows = Object.entries(measures(present.views, present.id)).map(([name, cell]) => ({ name, cell }));
  fillTable(part("states"), [{ name: "name", heading: "measure" }, { name: "cell", heading: "value" }], rows, { caption: "State" });
  if (shown === `${sequence}/${listed}`) return;
  const from = Math.max(1, sequence - listed + 1);
  const { body } = await getJson(`${path}/events${queryString({ from_sequence: from, limit: sequence - from + 1 })}`);
  const events = [];
  for (const event of body.events) {
    const after = await stateAfter(event._sequence);
    events.push({ ...event, effect: effects(await stateAfter(event._sequence - 1), after) });
  }
  const own = Object.keys(body.events[0] ?? {}).filter((name) => !name.startsWith("_") && body.events.some((event) => event[name] !== body.id));
  const columns = [
    { name: "_sequence", heading: "sequence", number: true, cell: (event) => count(event._sequence) },
    { name: "_arrived_at", heading: "accepted", cell: (event) => time(event._arrived_at) },
    ...own.map((name) => ({ name, cell: (event) => value(event[name]) })),
    { name: "effect", heading: "changed", cell: (event) => event.effect },
  ];
  fillTable(part("history"), columns, events.reverse(), { caption: "History" });
  setText(part("shown"), `${count(events.length)} of ${count(sequence)} events, newest first`);
  part("earlier").hidden = from === 1;
  shown = `${sequence}/${listed}`;
  page.dataset.sequence = String(sequence);
}

const again = pollWhileVisible(round);

part("earlier").addEventListener("click", () => {
  listed = Math.min(1000, listed + 100);
  again();
});
