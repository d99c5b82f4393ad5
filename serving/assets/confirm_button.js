// Protects a button against accidental clicks: the action runs on the second click.

const CONFIRM_WITHIN_MS = 5000;

/** Runs `action` if the button is clicked twice within five seconds; `prompt` is its label in between. */
export function confirmBeforeAction(button, prompt, action) {
  const label = button.textContent;
  let timer = null;
  const reset = () => {
    clearTimeout(timer);
    timer = null;
    button.textContent = label;
    button.removeAttribute("data-asking");
  };
  button.addEventListener("click", () => {
    if (timer !== null) {
      reset();
      action();
      return;
    }
    button.textContent = prompt;
    button.dataset.asking = "";
    timer = setTimeout(reset, CONFIRM_WITHIN_MS);
  });
  button.addEventListener("blur", reset);
}
