// The parts that all pages share: connection status, polling, and the colour scheme switch.

import { errorText, sendJson, sessionToken } from "./fetch_json.js";

const connection = document.getElementById("connection");

/** Shows the connection status; `state` is `waiting`, `live`, `paused` or `away`. */
export function showConnection(state, text) {
  if (connection.dataset.state === state && connection.textContent === text) return;
  connection.dataset.state = state;
  connection.textContent = text;
}

/**
 * Calls `round` at once and then every `everyMs` milliseconds while the page is visible, one call at a time. Errors are
 * shown as the connection status, which is hidden on pages that do not poll. Returns a function that requests another
 * round at once, even during one.
 */
export function pollWhileVisible(round, everyMs = 1000) {
  let timer = null;
  let running = false;
  let again = false;
  connection.hidden = false;
  async function tick() {
    clearTimeout(timer);
    if (running) { again = true; return; }
    if (document.hidden) return;
    running = true;
    again = false;
    try {
      await round();
      showConnection("live", "live");
    } catch (error) {
      showConnection("away", errorText(error));
    }
    running = false;
    if (again) return void tick();
    if (!document.hidden) timer = setTimeout(tick, everyMs);
  }
  document.addEventListener("visibilitychange", () => {
    if (document.hidden) showConnection("paused", "paused");
    else tick();
  });
  onTheme(tick);
  tick();
  return tick;
}

const logout = document.getElementById("logout");
logout.hidden = !sessionToken();
logout.addEventListener("click", async () => {
  await sendJson("POST", "/logout").catch(() => null);
  location.assign("/login");
});

const THEMES = [
  { name: "system", sign: "◐", label: "system" },
  { name: "light", sign: "☀", label: "light" },
  { name: "dark", sign: "☾", label: "dark" },
];
const listeners = [];

/** Calls `listener` after the colours changed, so that charts can be redrawn. */
export function onTheme(listener) {
  listeners.push(listener);
}

const notify = () => listeners.forEach((listener) => listener());
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", notify);

const root = document.documentElement;
const button = document.getElementById("theme");
const current = () => THEMES.find((theme) => theme.name === (root.dataset.theme ?? "system")) ?? THEMES[0];

function showTheme() {
  const { sign, label } = current();
  button.textContent = sign;
  button.title = `Colour scheme: ${label}`;
  button.setAttribute("aria-label", button.title);
}

button.addEventListener("click", () => {
  const next = THEMES[(THEMES.indexOf(current()) + 1) % THEMES.length].name;
  if (next === "system") delete root.dataset.theme;
  else root.dataset.theme = next;
  try {
    if (next === "system") localStorage.removeItem("trueup-theme");
    else localStorage.setItem("trueup-theme", next);
  } catch { /* Storage may be blocked: the choice lasts for this page only. */ }
  showTheme();
  notify();
});
showTheme();
