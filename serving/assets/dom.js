// Writes text, fact lists and tables into the page; touches only what changed.

import { value } from "./format.js";

/** Creates an element with attributes, text and children; text is never parsed as HTML. */
export function element(tag, { text, ...attributes } = {}, ...children) {
  const created = document.createElement(tag);
  for (const [name, content] of Object.entries(attributes)) created.setAttribute(name, content);
  if (text !== undefined) created.textContent = text;
  created.append(...children);
  return created;
}

/** Fills a <dl> with `[term, text, tooltip]` triples if any of them changed. */
export function fillFacts(list, entries) {
  const shown = JSON.stringify(entries);
  if (list.dataset.shown === shown) return;
  list.dataset.shown = shown;
  list.replaceChildren(...entries.map(([term, text, title]) =>
    element("div", title ? { title } : {}, element("dt", { text: term }), element("dd", { text }))));
}

/** Sets the text if it differs, so that screen readers announce it once; hides `target` if the text is empty. */
export function setText(target, text) {
  if (target.textContent !== text) target.textContent = text;
  target.hidden = text === "";
}

/** Shows an error message next to its control; removes it if `text` is null or empty. */
export function setError(target, text) {
  target.classList.add("error");
  target.setAttribute("role", "alert");
  setText(target, text ?? "");
}

const isNumber = (column) => column.number ?? (column.role === "measure" && !["STRING", "JSON", "BOOLEAN", "TIMESTAMP", "DATE"].includes(column.type));

/**
 * Fills a <table> if its content changed. `columns`: [{ name, heading?, type?, role?, number?, cell? }]; `cell(row)` returns
 * text or an element, by default `row[name]` formatted by its type. The first column holds the row headers. `caption` is
 * for screen readers only.
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

/** A badge that shows a finality or a state; its style follows the text. */
export const badge = (text, title = "") => element("span", { text, class: `badge ${text}`, ...(title ? { title } : {}) });
