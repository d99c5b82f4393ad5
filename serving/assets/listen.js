// When has something changed? Server-sent events of a view's rows; where they do not come, the page asks every round.

/** How long a page relies on events alone, in milliseconds: what changes without a row is seen then. */
const TRUSTED_MS = 5000;

/** Follows one question at a time: `follow(path)`, and `isDue()` tells whether figures are to be asked for anew. */
export function listener(heard) {
  let source = null;
  let path = "";
  let due = true;
  let askedAt = 0;
  const stop = () => { source?.close(); source = null; path = ""; };
  document.addEventListener("visibilitychange", () => { if (document.hidden) stop(); });
  return {
    follow(wanted) {
      // One that the server refused is not asked for again; the rounds go on without.
      if (wanted === path) return;
      stop();
      path = wanted;
      source = new EventSource(path);
      for (const kind of ["snapshot", "change"]) source.addEventListener(kind, () => { due = true; heard(); });
    },
    isDue() {
      const isOpen = source?.readyState === EventSource.OPEN;
      if (isOpen && !due && performance.now() - askedAt < TRUSTED_MS) return false;
      due = false;
      askedAt = performance.now();
      return true;
    },
  };
}
