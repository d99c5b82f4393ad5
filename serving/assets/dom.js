// How do figures get onto a page? Elements, lists of facts and tables, touched only where something changed.

import { value } from "./text.js";

/** An element with text and children; text is never read as HTML. */
export function element(tag, { text, ...attributes } = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, content] of Object.entries(attributes)) made.setAttribute(name, content);
  if (text !== undefined) made.textContent = text;
  made.append(...children);
  return made;
}

/** Fills a <dl> with [term, definition, title] triples, touching only what changed. */
export function define(list, entries) {
  const shown = JSON.stringify(entries);
  if (list.dataset.shown === shown) return;
  list.dataset.shown = shown;
  list.replaceChildren(...entries.map(([term, text, title]) =>
    element("div", title ? { title } : {}, element("dt", { text: term }), element("dd", { text }))));
}

/** Writes text only if it differs, so that readers of the screen are not told twice. */
export function say(place, text) {
  if (place.textContent !== text) place.textContent = text;
  place.hidden = text === "";
}

/** Shows an error next to its control, or takes it away: `error` is null or what was thrown. */
export function complain(place, text) {
  place.classList.add("error");
  place.setAttribute("role", "alert");
  say(place, text ?? "");
}

const isNumber = (column) => column.number ?? (column.role === "measure" && !["STRING", "JSON", "BOOLEAN", "TIMESTAMP", "DATE"].includes(column.type));

/**
 * Fills a <table>. `columns`: [{ name, heading?, type?, role?, number?, cell? }], `cell(row)` gives text or an element, or
 * else `row[name]` is written by its type. The first column is the head of its row. `caption` is read to those who do not see.
 */
export function fillTable(table, columns, rows, { caption, rowClass } = {}) {
  const shown = JSON.stringify([columns.map((c) => c.name), rows, caption]);
  if (table.dataset.shown === shown) return;
  table.dataset.shown = shown;
  const side = (column) => (isNumber(column) ? { class: "number" } : {});
  const head = columns.map((c) => element("th", { scope: "col", text: c.heading ?? c.name, ...side(c) }));
  const cell = (row) => (c, i) => {
    const content = c.cell ? c.cell(row) : value(row[c.name], c.type);
    return element(i === 0 ? "th" : "td", i === 0 ? { scope: "row", ...side(c) } : side(c), content ?? "–");
  };
  const body = rows.map((row) => element("tr", rowClass ? { class: rowClass(row) } : {}, ...columns.map(cell(row))));
  table.replaceChildren(
    ...(caption ? [element("caption", { class: "unseen", text: caption })] : []),
    element("thead", {}, element("tr", {}, ...head)),
    element("tbody", {}, ...body),
  );
}

/** A finality, or the state of something, as a badge. */
export const badge = (text, title = "") => element("span", { text, class: `badge ${text}`, ...(title ? { title } : {}) });
