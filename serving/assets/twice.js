// What must not happen by one slip of the hand? A button that wants to be pressed twice.

const PATIENCE_MS = 5000;

/** Lets `button` act only if it is pressed again soon; `question` stands on it in between. */
export function twice(button, question, act) {
  const usual = button.textContent;
  let timer = null;
  const rest = () => {
    clearTimeout(timer);
    timer = null;
    button.textContent = usual;
    button.removeAttribute("data-asking");
  };
  button.addEventListener("click", () => {
    if (timer !== null) {
      rest();
      act();
      return;
    }
    button.textContent = question;
    button.dataset.asking = "";
    timer = setTimeout(rest, PATIENCE_MS);
  });
  button.addEventListener("blur", rest);
}
