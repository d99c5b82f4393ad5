// What has to be said before any figure? An alarm of drift, another definition being computed, a ledger that does not balance.

import { element } from "./dom.js";
import { count } from "./text.js";

function shadowNotice(shadow) {
  const changed = ({ part, name, before, after }) => {
    const what = [part.replace("_", " "), name].filter(Boolean).join(" ");
    return before === null ? `${what} added` : after === null ? `${what} removed` : `${what} changed`;
  };
  const { dates = 0, dates_done: done = 0 } = shadow.progress ?? {};
  const states = { failed: `its last run failed: ${shadow.error}`, cancelled: "its last run was cancelled", running: `${count(done)} of ${count(dates)} dates are done` };
  return element("div", { class: "shadow banner", role: "status" },
    element("p", {}, element("b", { text: "A new definition is being computed. " }), `Until it is complete, these are the answers of the old one: ${states[shadow.state] ?? shadow.state}.`),
    element("p", { text: shadow.changes.map(changed).join(", "), title: shadow.sql }));
}

/** Fills a place with the notices of a view, as `/v1/views` tells of it; hides it if there are none. */
export function showNotices(place, view) {
  const { alarm, shadow, complete, ledger } = view;
  const shown = JSON.stringify([alarm, shadow, complete, complete === false && ledger]);
  if (place.dataset.shown === shown) return;
  place.dataset.shown = shown;
  const told = [];
  if (alarm) told.push(element("p", { class: "alarm banner", role: "alert" }, element("b", { text: "Alarm:" }), `${alarm}. `, element("a", { href: `/compare/${view.name}`, text: "Compare" })));
  if (complete === false) told.push(element("p", { class: "alarm banner", role: "alert" }, element("b", { text: "The ledger does not balance:" }), `accepted ${count(ledger.accepted)}, batch ${count(ledger.batch)}, speed ${count(ledger.speed)}, late ${count(ledger.late)}.`));
  if (shadow) told.push(shadowNotice(shadow));
  place.replaceChildren(...told);
  place.hidden = told.length === 0;
}

/** Which share of a view's events is in exact figures; null while nothing is known. */
export function exactShare({ ledger }) {
  if (!ledger || !ledger.accepted) return null;
  return Math.min(1, ledger.batch / ledger.accepted);
}
