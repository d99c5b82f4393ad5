// How does a reader take figures elsewhere? The same question as curl, as SQL, as Python, or as a file.

import { parameters } from "./ask.js";
import { say } from "./dom.js";

const DOWNLOADED_MAX = 1_000_000;
const shell = (text) => `'${text.replaceAll("'", "'\\''")}'`;

const CODE = {
  curl: (url) => `curl -s ${shell(url("json"))}`,
  sql: (url) => `INSTALL httpfs; LOAD httpfs;\nSELECT * FROM read_parquet('${url("parquet").replaceAll("'", "''")}');`,
  python: (url) => `import polars as pl\n\nrows = pl.read_parquet(\n    ${JSON.stringify(url("parquet"))}\n)\nprint(rows)`,
};
// Apostrophes would end the strings around an address; they may be written as a code there.
const quoted = (text) => text.replaceAll("'", "%27");

const languages = document.getElementById("languages");
const code = document.getElementById("code");
const copied = document.getElementById("copied");
let language = "curl";
let asked = null;

function show() {
  if (!asked) return;
  const url = (format) => quoted(`${location.origin}/v1/views/${encodeURIComponent(asked.view)}/rows.${format}${parameters({ ...asked.query, limit: DOWNLOADED_MAX })}`);
  const text = CODE[language](url);
  if (code.textContent !== text) code.textContent = text;
  for (const format of ["csv", "parquet"]) {
    const link = document.getElementById(format);
    link.href = url(format);
    link.download = `${asked.view}.${format}`;
  }
  for (const button of languages.children) button.setAttribute("aria-pressed", button.dataset.language === language);
}

/** Tells which view is asked what. */
export function takes(view, query) {
  asked = { view, query };
  show();
}

languages.addEventListener("click", (event) => {
  language = event.target.closest("button")?.dataset.language ?? language;
  say(copied, "");
  show();
});

document.getElementById("copy").addEventListener("click", async () => {
  try {
    await navigator.clipboard.writeText(code.textContent);
    say(copied, "Copied");
  } catch {
    // Browsers let only pages behind TLS, or of this machine, write to the clipboard.
    getSelection().selectAllChildren(code);
    say(copied, "Selected: press Ctrl+C");
  }
});
