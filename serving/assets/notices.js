// Shows the notices of a view above its figures: a drift alarm, a new definition that is being computed, failed events, an unbalanced ledger.

import { element } from "./dom.js";
import { count } from "./format.js";

function shadowNotice(shadow) {
  const describe = ({ part, name, before, after }) => {
    const what = [part.replace("_", " "), name].filter(Boolean).join(" ");
    return before === null ? `${what} added` : after === null ? `${what} removed` : `${what} changed`;
  };
  const { dates = 0, dates_done: done = 0 } = shadow.progress ?? {};
  const states = {
    waiting: "its first run has not started yet", failed: `its last run failed: ${shadow.error}`, cancelled: "its last run was cancelled",
    running: `${count(done)} of ${count(dates)} dates are done`,
  };
  return element("div", { class: "shadow banner", role: "status" },
    element("p", {}, element("b", { text: "A new definition is being computed. " }), `Until it is complete, results come from the old definition: ${states[shadow.state] ?? shadow.state}.`),
    element("p", { text: shadow.changes.map(describe).join(", "), title: shadow.sql }));
}

function incomplete({ ledger, stream }) {
  const { accepted, batch, speed, late, failed } = ledger;
  if (accepted !== batch + speed + late + failed) return [element("b", { text: "The ledger does not balance:" }), `accepted ${count(accepted)}, batch ${count(batch)}, speed ${count(speed)}, late ${count(late)}, failed ${count(failed)}.`];
  return [element("b", { text: `${count(failed)} excluded:` }), "an expression of the view failed for these events. ", element("a", { href: `/v1/streams/${stream}/failed`, text: "Show the events" })];
}

/** Shows the notices of a view, as `/v1/views` returns it; hides `target` if there are none. */
export function showNotices(target, view) {
  const { alarm, shadow, complete, ledger } = view;
  const shown = JSON.stringify([alarm, shadow, complete, complete === false && ledger]);
  if (target.dataset.shown === shown) return;
  target.dataset.shown = shown;
  const notices = [];
  if (alarm) notices.push(element("p", { class: "alarm banner", role: "alert" }, element("b", { text: "Alarm:" }), `${alarm}. `, element("a", { href: `/compare/${view.name}`, text: "Show the comparison" })));
  if (complete === false) notices.push(element("p", { class: "alarm banner", role: "alert" }, ...incomplete(view)));
  if (shadow) notices.push(shadowNotice(shadow));
  target.replaceChildren(...notices);
  target.hidden = notices.length === 0;
}

/** The share of a view's events that exact figures include, from 0 to 1; null before the first event. */
export function exactShare({ ledger }) {
  if (!ledger || !ledger.accepted) return null;
  return Math.min(1, ledger.batch / ledger.accepted);
}
