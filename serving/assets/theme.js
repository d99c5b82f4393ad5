// Which colours did the reader choose? Runs before anything is painted; without a choice, the system's.
try {
  const chosen = localStorage.getItem("trueup-theme");
  if (chosen === "light" || chosen === "dark") document.documentElement.dataset.theme = chosen;
} catch { /* Storage may be forbidden: then the system's. */ }
