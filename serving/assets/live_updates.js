// Follows a live query by server-sent events, so that rows are requested only when they changed. Without a connection, the page polls.

/** Longest time without a request while the event stream is open, in milliseconds: some changes send no row. */
const REFRESH_AFTER_MS = 5000;

/** Follows one live query at a time: `follow(path)` starts it, `isDue()` returns whether to request the rows again. */
export function liveUpdates(onChange) {
  let source = null;
  let path = "";
  let due = true;
  let requestedAt = 0;
  const stop = () => { source?.close(); source = null; path = ""; };
  document.addEventListener("visibilitychange", () => { if (document.hidden) stop(); });
  return {
    follow(newPath) {
      // A live query that the server refused is not opened again; polling continues.
      if (newPath === path) return;
      stop();
      path = newPath;
      source = new EventSource(path);
      for (const kind of ["snapshot", "change"]) source.addEventListener(kind, () => { due = true; onChange(); });
    },
    isDue() {
      const isOpen = source?.readyState === EventSource.OPEN;
      if (isOpen && !due && performance.now() - requestedAt < REFRESH_AFTER_MS) return false;
      due = false;
      requestedAt = performance.now();
      return true;
    },
  };
}
