// What do all pages share? The state of the connection, rounds that keep a page current, and the switch of colours.

import { told } from "./ask.js";

const connection = document.getElementById("connection");

/** Says how the page stands to the server: `waiting`, `live`, `paused` or `away`. */
export function tell(state, text) {
  if (connection.dataset.state === state && connection.textContent === text) return;
  connection.dataset.state = state;
  connection.textContent = text;
}

/**
 * Calls `round` now and then every `everyMs` while the page is looked at, one at a time. What it throws is shown as the
 * state of the connection. Gives a function that asks for a round at once, also in the middle of one.
 */
export function keepCurrent(round, everyMs = 1000) {
  let timer = null;
  let running = false;
  let again = false;
  async function tick() {
    clearTimeout(timer);
    if (running) { again = true; return; }
    if (document.hidden) return;
    running = true;
    again = false;
    try {
      await round();
      tell("live", "live");
    } catch (error) {
      tell("away", told(error));
    }
    running = false;
    if (again) return void tick();
    if (!document.hidden) timer = setTimeout(tick, everyMs);
  }
  document.addEventListener("visibilitychange", () => {
    if (document.hidden) tell("paused", "paused");
    else tick();
  });
  onTheme(tick);
  tick();
  return tick;
}

const THEMES = [
  { name: "system", sign: "◐", words: "as the system" },
  { name: "light", sign: "☀", words: "light" },
  { name: "dark", sign: "☾", words: "dark" },
];
const listeners = [];

/** Calls `listener` whenever the colours have changed, so that charts can be drawn anew. */
export function onTheme(listener) {
  listeners.push(listener);
}

const changed = () => listeners.forEach((listener) => listener());
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", changed);

const root = document.documentElement;
const button = document.getElementById("theme");
const current = () => THEMES.find((theme) => theme.name === (root.dataset.theme ?? "system")) ?? THEMES[0];

function showTheme() {
  const { sign, words } = current();
  button.textContent = sign;
  button.title = `Colours: ${words}`;
  button.setAttribute("aria-label", button.title);
}

button.addEventListener("click", () => {
  const next = THEMES[(THEMES.indexOf(current()) + 1) % THEMES.length].name;
  if (next === "system") delete root.dataset.theme;
  else root.dataset.theme = next;
  try {
    if (next === "system") localStorage.removeItem("trueup-theme");
    else localStorage.setItem("trueup-theme", next);
  } catch { /* Storage may be forbidden: then only this page keeps the choice. */ }
  showTheme();
  changed();
});
showTheme();
