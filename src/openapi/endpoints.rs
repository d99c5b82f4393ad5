//! Which doors are there, with which parameters, and how do they answer? One entry for each; nothing is computed here.

/// A door: a path and a method.
pub struct Door {
    pub path: &'static str,
    pub method: &'static str,
    pub id: &'static str,
    pub tag: &'static str,
    pub summary: &'static str,
    /// Names in [`PARAMETERS`].
    pub parameters: &'static [&'static str],
    pub headers: &'static [(&'static str, &'static str)],
    pub body: Option<Body>,
    pub answers: &'static [Answer],
}

/// What is sent.
pub struct Body {
    pub types: &'static [&'static str],
    pub text: &'static str,
}

/// What comes back.
pub struct Answer {
    pub status: u16,
    pub text: &'static str,
    pub types: &'static [&'static str],
    /// What JSON is like: a name among the schemas; empty for other types.
    pub schema: &'static str,
}

const JSON: &[&str] = &["application/json"];
const PROBLEM: &[&str] = &["application/problem+json"];
const NOTHING: &[&str] = &[];

const fn json(text: &'static str, schema: &'static str) -> Answer {
    Answer { status: 200, text, types: JSON, schema }
}

const fn problem(status: u16, text: &'static str) -> Answer {
    Answer { status, text, types: PROBLEM, schema: "Problem" }
}

/// Parameters of queries: name, schema, meaning.
pub const PARAMETERS: &[(&str, &str, &str)] = &[
    ("from", r#"{"type": "string", "format": "date-time"}"#, "rows whose window starts then or later"),
    ("to", r#"{"type": "string", "format": "date-time"}"#, "rows whose window starts before"),
    ("where", r#"{"type": "string"}"#, "SQL over dimensions and measures"),
    ("group_by", r#"{"type": "string"}"#, "dimensions, separated by commas; empty: none"),
    ("grain", r#"{"type": "string"}"#, "a multiple of the window: 1h, 1d, 1mo, all"),
    ("measures", r#"{"type": "string"}"#, "measures, separated by commas"),
    ("order_by", r#"{"type": "string"}"#, "columns, separated by commas; a minus before one turns it round"),
    ("limit", r#"{"type": "integer", "minimum": 1}"#, "most entries of the answer"),
    ("cursor", r#"{"type": "string"}"#, "where the answer before ended: its next"),
    ("layer", r#"{"type": "string", "enum": ["merged", "batch", "speed"]}"#, "which layers answer"),
    (
        "shape",
        r#"{"type": "string", "enum": ["document", "rows"]}"#,
        "JSON with everything about the rows, or the bare array",
    ),
    ("as_of", r#"{"type": "string"}"#, "a state of the past: a version or a time"),
    ("version", r#"{"type": "integer"}"#, "the number of a batch version"),
    ("every", r#"{"type": "string"}"#, "how often the answer is looked at: 100ms to 60m"),
    ("measure", r#"{"type": "string"}"#, "one measure only"),
    ("view", r#"{"type": "string"}"#, "only those of this view"),
    (
        "state",
        r#"{"type": "string", "enum": ["queued", "running", "published", "failed", "cancelled"]}"#,
        "only those in this state",
    ),
    ("before", r#"{"type": "string"}"#, "only those older than this run"),
    ("strict", r#"{"type": "boolean"}"#, "take all events or none"),
];

const ROWS: &[&str] = &[
    "from", "to", "where", "group_by", "grain", "measures", "order_by", "limit", "cursor", "layer", "as_of", "version",
];
const ROWS_JSON: &[&str] = &[
    "from", "to", "where", "group_by", "grain", "measures", "order_by", "limit", "cursor", "layer", "shape", "as_of",
    "version",
];
const LIVE: &[&str] =
    &["from", "to", "where", "group_by", "grain", "measures", "order_by", "limit", "layer", "as_of", "every"];
const UNCHANGED: Answer =
    Answer { status: 304, text: "the answer is still the one with that entity tag", types: NOTHING, schema: "" };
const GONE: Answer = problem(410, "the version, or the cursor's, is not kept any more");
const IF_NONE_MATCH: (&str, &str) = ("If-None-Match", "the ETag of the answer there is");

const fn rows(
    path: &'static str,
    id: &'static str,
    parameters: &'static [&'static str],
    answers: &'static [Answer],
) -> Door {
    let summary = "The figures of a view";
    Door {
        path,
        method: "get",
        id,
        tag: "figures",
        summary,
        parameters,
        headers: &[IF_NONE_MATCH],
        body: None,
        answers,
    }
}

const fn get(
    path: &'static str,
    id: &'static str,
    tag: &'static str,
    summary: &'static str,
    parameters: &'static [&'static str],
    answers: &'static [Answer],
) -> Door {
    Door { path, method: "get", id, tag, summary, parameters, headers: &[], body: None, answers }
}

const fn send(
    path: &'static str,
    id: &'static str,
    summary: &'static str,
    text: &'static str,
    answers: &'static [Answer],
) -> Door {
    let body = Some(Body { types: JSON, text });
    Door { path, method: "post", id, tag: "batch", summary, parameters: &[], headers: &[], body, answers }
}

const fn remove(
    path: &'static str,
    id: &'static str,
    tag: &'static str,
    summary: &'static str,
    answers: &'static [Answer],
) -> Door {
    Door { path, method: "delete", id, tag, summary, parameters: &[], headers: &[], body: None, answers }
}

/// Every door, by path.
pub const DOORS: &[Door] = &[
    rows(
        "/v1/views/{view}/rows",
        "rows",
        ROWS_JSON,
        &[
            Answer {
                status: 200,
                text: "rows in the format of Accept",
                types: &[
                    "application/json",
                    "application/x-ndjson",
                    "text/csv",
                    "application/vnd.apache.parquet",
                    "application/vnd.apache.arrow.stream",
                ],
                schema: "Rows",
            },
            UNCHANGED,
            problem(406, "no such format"),
            problem(409, "the version's definition is not understood any more"),
            GONE,
        ],
    ),
    rows(
        "/v1/views/{view}/rows.json",
        "rows_json",
        ROWS_JSON,
        &[
            json("rows, and what they were read from", "Rows"),
            UNCHANGED,
            problem(409, "the version's definition is not understood any more"),
            GONE,
        ],
    ),
    rows(
        "/v1/views/{view}/rows.ndjson",
        "rows_ndjson",
        ROWS,
        &[Answer { status: 200, text: "a row a line", types: &["application/x-ndjson"], schema: "" }, UNCHANGED, GONE],
    ),
    rows(
        "/v1/views/{view}/rows.csv",
        "rows_csv",
        ROWS,
        &[Answer { status: 200, text: "rows", types: &["text/csv"], schema: "" }, UNCHANGED, GONE],
    ),
    rows(
        "/v1/views/{view}/rows.parquet",
        "rows_parquet",
        ROWS,
        &[
            Answer {
                status: 200,
                text: "a Parquet file; HEAD and Range work",
                types: &["application/vnd.apache.parquet"],
                schema: "",
            },
            Answer { status: 206, text: "a piece of it", types: &["application/vnd.apache.parquet"], schema: "" },
            UNCHANGED,
            GONE,
            problem(416, "the file has no such piece"),
        ],
    ),
    rows(
        "/v1/views/{view}/rows.arrow",
        "rows_arrow",
        ROWS,
        &[
            Answer {
                status: 200,
                text: "an Arrow IPC stream",
                types: &["application/vnd.apache.arrow.stream"],
                schema: "",
            },
            UNCHANGED,
            GONE,
        ],
    ),
    Door {
        path: "/v1/views/{view}/live",
        method: "get",
        id: "live",
        tag: "figures",
        summary: "The rows that change, as server-sent events",
        parameters: LIVE,
        headers: &[("Last-Event-ID", "the id of the last event heard")],
        body: None,
        answers: &[Answer {
            status: 200,
            text: "events called snapshot and change",
            types: &["text/event-stream"],
            schema: "",
        }],
    },
    get(
        "/v1/views",
        "views",
        "views",
        "All views",
        &[],
        &[json("views with seam, watermark, state, next run and last reconciliation", "Views")],
    ),
    get("/v1/views/{view}", "view", "views", "One view", &[], &[json("the view", "ViewStatus")]),
    get(
        "/v1/views/{view}/compare",
        "compare",
        "views",
        "What had been served against what is exact",
        &["from", "to", "version"],
        &[json("a reconciliation", "Comparison")],
    ),
    get(
        "/v1/views/{view}/drift",
        "drift",
        "views",
        "Reconciliations, newest first",
        &["limit", "measure"],
        &[json("reconciliations without their rows", "Drift")],
    ),
    get(
        "/v1/views/{view}/versions",
        "versions",
        "batch",
        "Batch versions, newest first",
        &[],
        &[json("versions with run, cut, rows and drift", "Versions")],
    ),
    send(
        "/v1/views/{view}/runs",
        "start_run",
        "Start a batch run",
        "{\"full\": true}, {\"from\": date, \"to\": date} or nothing",
        &[
            Answer { status: 202, text: "the run, which waits its turn", types: JSON, schema: "Run" },
            problem(403, "a page of another origin"),
        ],
    ),
    send(
        "/v1/views/{view}/vacuum",
        "vacuum",
        "Delete files that no kept version needs",
        "{\"older_than_ms\": number} or nothing",
        &[json("what was deleted", "Cleaned"), problem(403, "a page of another origin")],
    ),
    get(
        "/v1/runs",
        "runs",
        "batch",
        "Runs, newest first",
        &["view", "state", "limit", "before"],
        &[json("runs, and the one to go on from", "RunPage")],
    ),
    get("/v1/runs/{run}", "run", "batch", "One run", &[], &[json("the run", "Run")]),
    remove(
        "/v1/runs/{run}",
        "cancel_run",
        "batch",
        "Cancel a run, or the retry that it waits for",
        &[json("the run", "Run"), problem(403, "a page of another origin")],
    ),
    Door {
        path: "/v1/events/{stream}",
        method: "post",
        id: "send_events",
        tag: "events",
        summary: "Send events; answered when they are durable",
        parameters: &["strict"],
        headers: &[
            ("Idempotency-Key", "the same key gives the first answer again"),
            ("Content-Encoding", "gzip or zstd"),
        ],
        body: Some(Body {
            types: &["application/x-ndjson", "application/json"],
            text: "an object a line, an array, or one object",
        }),
        answers: &[
            json("how many were accepted, late, repeated and rejected, and why", "IngestResult"),
            problem(403, "a page of another origin"),
            problem(408, "the body came too slowly"),
            problem(413, "the body is too large"),
            problem(415, "such a type or encoding is not taken"),
            problem(422, "strict, and a line was no event"),
            problem(429, "too fast; Retry-After says when to come back"),
            problem(507, "the disk of the log is full"),
        ],
    },
    get(
        "/v1/streams",
        "streams",
        "events",
        "All streams",
        &[],
        &[json("streams with offsets, rate, watermark and lateness", "Streams")],
    ),
    get("/v1/streams/{stream}", "stream", "events", "One stream", &[], &[json("the stream", "StreamStatus")]),
    get(
        "/v1/streams/{stream}/late",
        "late",
        "events",
        "Events that came after allowed lateness",
        &["limit", "cursor"],
        &[json("events, newest first", "Events")],
    ),
    get(
        "/v1/streams/{stream}/ahead",
        "ahead",
        "events",
        "Events too far ahead of their arrival",
        &["limit", "cursor"],
        &[json("events, newest first", "Events")],
    ),
    get(
        "/v1/streams/{stream}/quarantine",
        "quarantine",
        "events",
        "Lines that were no events",
        &["limit", "cursor"],
        &[json("lines with their reasons, newest first", "QuarantinePage")],
    ),
    remove(
        "/v1/streams/{stream}/quarantine",
        "empty_quarantine",
        "events",
        "Forget all lines that were no events",
        &[json("how many", "Emptied"), problem(403, "a page of another origin")],
    ),
    send(
        "/v1/streams/{stream}/compact",
        "compact",
        "Rewrite small files of the archive into few",
        "{\"vacuum_older_than_ms\": number} or nothing",
        &[json("what was done", "Compacted"), problem(403, "a page of another origin")],
    ),
    get("/livez", "livez", "server", "Does the process answer?", &[], &[json("yes", "Health")]),
    get(
        "/readyz",
        "readyz",
        "server",
        "Does it take events and answer queries?",
        &[],
        &[json("yes", "Health"), Answer { status: 503, text: "not yet, or no more", types: JSON, schema: "Health" }],
    ),
    get(
        "/metrics",
        "metrics",
        "server",
        "Metrics for Prometheus",
        &[],
        &[Answer { status: 200, text: "the text format", types: &["text/plain"], schema: "" }],
    ),
];
