// Applies the chosen colour scheme before the first paint; without a choice, that of the system.
try {
  const chosen = localStorage.getItem("trueup-theme");
  if (chosen === "light" || chosen === "dark") document.documentElement.dataset.theme = chosen;
} catch { /* Storage may be blocked: use the system's scheme. */ }
