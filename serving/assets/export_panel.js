// Exports the current query: as code (curl, SQL, Python) to copy, and as CSV and Parquet downloads.

import { queryString } from "./fetch_json.js";
import { setText } from "./dom.js";

const DOWNLOADED_MAX = 1_000_000;
const shell = (text) => `'${text.replaceAll("'", "'\\''")}'`;

const CODE = {
  curl: (url) => `curl -s ${shell(url("json"))}`,
  sql: (url) => `INSTALL httpfs; LOAD httpfs;\nSELECT * FROM read_parquet('${url("parquet").replaceAll("'", "''")}');`,
  python: (url) => `import polars as pl\n\nrows = pl.read_parquet(\n    ${JSON.stringify(url("parquet"))}\n)\nprint(rows)`,
};
// An apostrophe would end the string around the URL, so it is percent-encoded.
const quoted = (text) => text.replaceAll("'", "%27");

const languages = document.getElementById("languages");
const code = document.getElementById("code");
const copied = document.getElementById("copied");
let language = "curl";
let current = null;

function show() {
  if (!current) return;
  const url = (format) => quoted(`${location.origin}/v1/views/${encodeURIComponent(current.view)}/rows.${format}${queryString({ ...current.query, limit: DOWNLOADED_MAX })}`);
  const text = CODE[language](url);
  if (code.textContent !== text) code.textContent = text;
  for (const format of ["csv", "parquet"]) {
    const link = document.getElementById(format);
    link.href = url(format);
    link.download = `${current.view}.${format}`;
  }
  for (const button of languages.children) button.setAttribute("aria-pressed", button.dataset.language === language);
}

/** Sets the view and the query to export. */
export function showExports(view, query) {
  current = { view, query };
  show();
}

languages.addEventListener("click", (event) => {
  language = event.target.closest("button")?.dataset.language ?? language;
  setText(copied, "");
  show();
});

document.getElementById("copy").addEventListener("click", async () => {
  try {
    await navigator.clipboard.writeText(code.textContent);
    setText(copied, "Copied");
  } catch {
    // Browsers allow clipboard access only over TLS or on localhost.
    getSelection().selectAllChildren(code);
    setText(copied, "Selected. Press Ctrl+C to copy.");
  }
});
