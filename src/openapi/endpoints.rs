//! Lists every endpoint with its parameters, bodies and responses. Computes nothing; [`super`] makes the document of it.

/// An endpoint: a path and a method.
pub struct Endpoint {
    pub path: &'static str,
    pub method: &'static str,
    /// The operation id, unique among all endpoints.
    pub id: &'static str,
    pub tag: &'static str,
    pub summary: &'static str,
    /// Names in [`super::parameters::PARAMETERS`].
    pub parameters: &'static [&'static str],
    /// Request headers: name and description.
    pub headers: &'static [(&'static str, &'static str)],
    pub body: Option<RequestBody>,
    pub responses: &'static [Response],
}

/// A request body.
pub struct RequestBody {
    /// Media types.
    pub types: &'static [&'static str],
    pub text: &'static str,
}

/// A response with one status.
pub struct Response {
    pub status: u16,
    pub text: &'static str,
    pub types: &'static [&'static str],
    /// The name of the schema of a JSON body; empty for other types.
    pub schema: &'static str,
}

const JSON: &[&str] = &["application/json"];
const PROBLEM: &[&str] = &["application/problem+json"];
const NOTHING: &[&str] = &[];

const fn json(text: &'static str, schema: &'static str) -> Response {
    Response { status: 200, text, types: JSON, schema }
}

const fn problem(status: u16, text: &'static str) -> Response {
    Response { status, text, types: PROBLEM, schema: "Problem" }
}

const ROWS: &[&str] = &[
    "from", "to", "where", "group_by", "grain", "measures", "order_by", "limit", "cursor", "layer", "as_of", "version",
];
const ROWS_JSON: &[&str] = &[
    "from", "to", "where", "group_by", "grain", "measures", "order_by", "limit", "cursor", "layer", "shape", "as_of",
    "version",
];
const LIVE: &[&str] =
    &["from", "to", "where", "group_by", "grain", "measures", "order_by", "limit", "layer", "as_of", "every"];
const UNCHANGED: Response = Response {
    status: 304,
    text: "the response has not changed since the one with this entity tag",
    types: NOTHING,
    schema: "",
};
const GONE: Response = problem(410, "the version, or the version of the cursor, is no longer kept");
const IF_NONE_MATCH: (&str, &str) = ("If-None-Match", "the ETag of a previous response");

const fn rows(
    path: &'static str,
    id: &'static str,
    parameters: &'static [&'static str],
    responses: &'static [Response],
) -> Endpoint {
    let summary = "Query the rows of a view";
    Endpoint {
        path,
        method: "get",
        id,
        tag: "queries",
        summary,
        parameters,
        headers: &[IF_NONE_MATCH],
        body: None,
        responses,
    }
}

const fn get(
    path: &'static str,
    id: &'static str,
    tag: &'static str,
    summary: &'static str,
    parameters: &'static [&'static str],
    responses: &'static [Response],
) -> Endpoint {
    Endpoint { path, method: "get", id, tag, summary, parameters, headers: &[], body: None, responses }
}

const fn send(
    path: &'static str,
    id: &'static str,
    tag: &'static str,
    summary: &'static str,
    text: &'static str,
    responses: &'static [Response],
) -> Endpoint {
    let body = Some(RequestBody { types: JSON, text });
    Endpoint { path, method: "post", id, tag, summary, parameters: &[], headers: &[], body, responses }
}

const fn remove(
    path: &'static str,
    id: &'static str,
    tag: &'static str,
    summary: &'static str,
    responses: &'static [Response],
) -> Endpoint {
    Endpoint { path, method: "delete", id, tag, summary, parameters: &[], headers: &[], body: None, responses }
}

/// Every endpoint, by path.
pub const ENDPOINTS: &[Endpoint] = &[
    rows(
        "/v1/views/{view}/rows",
        "rows",
        ROWS_JSON,
        &[
            Response {
                status: 200,
                text: "rows in the format that the Accept header asks for",
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
            problem(406, "unsupported format"),
            problem(409, "the definition of the version can no longer be read"),
            GONE,
        ],
    ),
    rows(
        "/v1/views/{view}/rows.json",
        "rows_json",
        ROWS_JSON,
        &[
            json("rows with their provenance", "Rows"),
            UNCHANGED,
            problem(409, "the definition of the version can no longer be read"),
            GONE,
        ],
    ),
    rows(
        "/v1/views/{view}/rows.ndjson",
        "rows_ndjson",
        ROWS,
        &[
            Response { status: 200, text: "one row per line", types: &["application/x-ndjson"], schema: "" },
            UNCHANGED,
            GONE,
        ],
    ),
    rows(
        "/v1/views/{view}/rows.csv",
        "rows_csv",
        ROWS,
        &[Response { status: 200, text: "rows with a header line", types: &["text/csv"], schema: "" }, UNCHANGED, GONE],
    ),
    rows(
        "/v1/views/{view}/rows.parquet",
        "rows_parquet",
        ROWS,
        &[
            Response {
                status: 200,
                text: "a Parquet file; supports HEAD and Range",
                types: &["application/vnd.apache.parquet"],
                schema: "",
            },
            Response {
                status: 206,
                text: "the requested range of the file",
                types: &["application/vnd.apache.parquet"],
                schema: "",
            },
            UNCHANGED,
            GONE,
            problem(416, "range not satisfiable"),
        ],
    ),
    rows(
        "/v1/views/{view}/rows.arrow",
        "rows_arrow",
        ROWS,
        &[
            Response {
                status: 200,
                text: "an Arrow IPC stream",
                types: &["application/vnd.apache.arrow.stream"],
                schema: "",
            },
            UNCHANGED,
            GONE,
        ],
    ),
    Endpoint {
        path: "/v1/views/{view}/live",
        method: "get",
        id: "live",
        tag: "queries",
        summary: "Subscribe to changed rows as server-sent events",
        parameters: LIVE,
        headers: &[("Last-Event-ID", "id of the last event received, to resume after it")],
        body: None,
        responses: &[Response {
            status: 200,
            text: "events of the types `snapshot` and `change`",
            types: &["text/event-stream"],
            schema: "",
        }],
    },
    get(
        "/v1/views",
        "views",
        "views",
        "List all views",
        &[],
        &[json("views with their seam, watermark, state, next run and last comparison", "Views")],
    ),
    get("/v1/views/{view}", "view", "views", "Get a view", &[], &[json("the view", "ViewStatus")]),
    get(
        "/v1/views/{view}/compare",
        "compare",
        "views",
        "Compare served figures with the exact ones",
        &["from", "to", "version"],
        &[json("the comparison", "Comparison")],
    ),
    get(
        "/v1/views/{view}/drift",
        "drift",
        "views",
        "List comparisons, newest first",
        &["limit", "measure"],
        &[json("comparisons without their rows", "Drift")],
    ),
    get(
        "/v1/views/{view}/versions",
        "versions",
        "batch",
        "List batch versions, newest first",
        &[],
        &[json("versions with run, cut, rows and drift", "Versions")],
    ),
    send(
        "/v1/views/{view}/runs",
        "start_run",
        "batch",
        "Start a batch run",
        "{\"full\": true}, {\"from\": date, \"to\": date} or an empty body",
        &[
            Response { status: 202, text: "the queued run", types: JSON, schema: "Run" },
            problem(403, "request from a page of another origin"),
            problem(409, "the speed layer alone computes the view"),
        ],
    ),
    send(
        "/v1/views/{view}/checkpoints",
        "start_checkpoint",
        "batch",
        "Publish the state of a view that the speed layer alone computes",
        "{\"full\": true} to replay the archive, or an empty body",
        &[
            Response { status: 202, text: "the queued run", types: JSON, schema: "Run" },
            problem(403, "request from a page of another origin"),
            problem(409, "batch runs compute the view"),
        ],
    ),
    send(
        "/v1/views/{view}/vacuum",
        "vacuum",
        "batch",
        "Delete files that no kept version needs",
        "{\"older_than_ms\": number} or an empty body",
        &[json("counts of the deleted files", "Cleaned"), problem(403, "request from a page of another origin")],
    ),
    get(
        "/v1/runs",
        "runs",
        "batch",
        "List runs, newest first",
        &["view", "state", "limit", "before"],
        &[json("runs, and the id to continue from", "RunPage")],
    ),
    get("/v1/runs/{run}", "run", "batch", "Get a run", &[], &[json("the run", "Run")]),
    remove(
        "/v1/runs/{run}",
        "cancel_run",
        "batch",
        "Cancel a run, or its pending retry",
        &[json("the run", "Run"), problem(403, "request from a page of another origin")],
    ),
    Endpoint {
        path: "/v1/alerts/live",
        method: "get",
        id: "live_alerts",
        tag: "alerts",
        summary: "Subscribe to changes of alerts as server-sent events",
        parameters: &[],
        headers: &[("Last-Event-ID", "id of the last event received, to resume after it; 0 for all alerts")],
        body: None,
        responses: &[Response {
            status: 200,
            text: "an event per change, named after the new state, with the alert as JSON",
            types: &["text/event-stream"],
            schema: "",
        }],
    },
    get(
        "/v1/alerts",
        "alerts",
        "alerts",
        "List raised alerts, last changed first",
        &["alerts.state", "alert", "limit"],
        &[json("alerts, and the declared ones", "AlertList")],
    ),
    get(
        "/v1/alerts/dead_letters",
        "dead_letters",
        "alerts",
        "List notices that could not be delivered, newest first",
        &[],
        &[json("notices with their last error", "DeadLetterList")],
    ),
    get(
        "/v1/alerts/silences",
        "silences",
        "alerts",
        "List the silences that are not over",
        &[],
        &[json("silences, the first to end first", "SilenceList")],
    ),
    send(
        "/v1/alerts/silences",
        "silence",
        "alerts",
        "Send no notices of some alerts for some time",
        "{\"for_seconds\": number, \"alert\": name, \"key\": {column: value}, \"reason\": text}; only the first is required",
        &[
            Response { status: 201, text: "the silence", types: JSON, schema: "Silence" },
            problem(403, "request from a page of another origin"),
        ],
    ),
    remove(
        "/v1/alerts/silences/{silence}",
        "end_silence",
        "alerts",
        "End a silence",
        &[json("the silence", "Silence"), problem(403, "request from a page of another origin")],
    ),
    get("/v1/sinks", "sinks", "sinks", "List sinks", &[], &[json("sinks, by name", "SinkList")]),
    get("/v1/sinks/{sink}", "sink", "sinks", "Describe a sink", &[], &[json("the sink", "SinkStatus")]),
    send(
        "/v1/sinks/{sink}/pause",
        "pause_sink",
        "sinks",
        "Pause a sink, also over restarts",
        "no body",
        &[json("the sink", "SinkStatus"), problem(403, "request from a page of another origin")],
    ),
    send(
        "/v1/sinks/{sink}/resume",
        "resume_sink",
        "sinks",
        "Resume a sink that is paused or stopped, and write rows again",
        "{\"from\": \"start\" or a time}; empty: write only what has changed",
        &[json("the sink", "SinkStatus"), problem(403, "request from a page of another origin")],
    ),
    Endpoint {
        path: "/v1/events/{stream}",
        method: "post",
        id: "send_events",
        tag: "events",
        summary: "Send events; the response confirms that they are durable",
        parameters: &["strict"],
        headers: &[
            ("Idempotency-Key", "a retry with the same key returns the first response again"),
            ("Content-Encoding", "gzip or zstd"),
        ],
        body: Some(RequestBody {
            types: &[
                "application/x-ndjson",
                "application/json",
                "text/csv",
                "application/vnd.apache.arrow.stream",
                "application/vnd.apache.parquet",
            ],
            text: "one JSON object per line, an array, or a single object; CSV with a header; an Arrow IPC stream; a Parquet file",
        }),
        responses: &[
            json(
                "counts of accepted, late, duplicate and rejected events, with the reasons for rejections",
                "IngestResult",
            ),
            problem(403, "request from a page of another origin"),
            problem(408, "the body arrived too slowly"),
            problem(413, "the body is too large"),
            problem(415, "unsupported content type or encoding"),
            problem(422, "strict mode: a line was rejected, so nothing was accepted"),
            problem(429, "too many events; retry after the time in Retry-After"),
            problem(507, "the disk of the log is full"),
        ],
    },
    Endpoint {
        path: "/v1/entities/{stream}",
        method: "get",
        id: "entities",
        tag: "entities",
        summary: "Query the present states of all entities: rows of a view with a row per entity",
        parameters: &["view", "where", "measures", "order_by", "limit", "cursor", "layer", "shape"],
        headers: &[IF_NONE_MATCH],
        body: None,
        responses: &[
            json("rows, as of the view", "Rows"),
            UNCHANGED,
            GONE,
            problem(406, "no format in Accept is available"),
            problem(501, "no view has a row per entity"),
        ],
    },
    Endpoint {
        path: "/v1/entities/{stream}/{id}",
        method: "get",
        id: "entity",
        tag: "entities",
        summary: "Get the state of an entity, now or of the past; ETag is its last sequence",
        parameters: &["as_of", "sequence", "view"],
        headers: &[IF_NONE_MATCH],
        body: None,
        responses: &[json("the measures of each view with a row per entity", "EntityState"), UNCHANGED],
    },
    Endpoint {
        path: "/v1/entities/{stream}/{id}",
        method: "delete",
        id: "erase_entity",
        tag: "entities",
        summary: "Erase an entity: from now on nothing of it can be read, and its events leave all files",
        parameters: &["reference"],
        headers: &[],
        body: None,
        responses: &[
            json("the erasure, which is complete", "Erasure"),
            Response { status: 202, text: "the erasure; files follow", types: JSON, schema: "Erasure" },
            problem(403, "request from a page of another origin"),
            problem(429, "too many erasures wait for their figures"),
        ],
    },
    get(
        "/v1/erasures",
        "erasures",
        "entities",
        "List erasures, newest first; they do not name the entities",
        &[],
        &[json("erasures with their states", "ErasureList")],
    ),
    get(
        "/v1/entities/{stream}/{id}/events",
        "entity_events",
        "entities",
        "Get the events of an entity, by sequence or by the time at which they were accepted",
        &["from_sequence", "limit", "from", "to"],
        &[json("events in the order of their sequences", "EntityEvents")],
    ),
    get(
        "/v1/entities/{stream}/{id}/live",
        "entity_live",
        "entities",
        "Subscribe to the events of an entity; resume with Last-Event-ID, which is a sequence",
        &["from_sequence"],
        &[Response { status: 200, text: "server-sent events", types: &["text/event-stream"], schema: "" }],
    ),
    Endpoint {
        path: "/v1/entities/{stream}/{id}/events",
        method: "post",
        id: "append",
        tag: "entities",
        summary: "Append events to an entity, all or none; the response confirms that they are durable",
        parameters: &[],
        headers: &[
            ("If-Match", "append only if this is the last sequence of the entity, such as \"7\"; * for any but none"),
            ("If-None-Match", "* to append only to an entity without events"),
            ("Idempotency-Key", "a retry with the same key returns the first response again"),
            ("Content-Encoding", "gzip or zstd"),
        ],
        body: Some(RequestBody {
            types: &["application/x-ndjson", "application/json"],
            text: "one JSON object per line, an array, or a single object",
        }),
        responses: &[
            json("the sequences of the appended events", "AppendResult"),
            problem(403, "request from a page of another origin"),
            problem(408, "the body arrived too slowly"),
            problem(412, "the entity is at another sequence; ETag and the member sequence say at which"),
            problem(413, "the body is too large, or has too many events"),
            problem(415, "unsupported content type or encoding"),
            problem(
                422,
                "an event was rejected, so nothing was appended; or the Idempotency-Key was used with another body",
            ),
            problem(429, "too many events; retry after the time in Retry-After"),
            problem(507, "the disk of the log is full, or a partition has its maximum of entities"),
        ],
    },
    get(
        "/v1/streams",
        "streams",
        "events",
        "List all streams",
        &[],
        &[json("streams with their offsets, rate, watermark and lateness", "Streams")],
    ),
    get("/v1/streams/{stream}", "stream", "events", "Get a stream", &[], &[json("the stream", "StreamStatus")]),
    get(
        "/v1/streams/{stream}/late",
        "late",
        "events",
        "List late events: those that came after allowed lateness",
        &["limit", "cursor"],
        &[json("events, newest first", "Events")],
    ),
    get(
        "/v1/streams/{stream}/ahead",
        "ahead",
        "events",
        "List events whose time is too far ahead of their arrival",
        &["limit", "cursor"],
        &[json("events, newest first", "Events")],
    ),
    get(
        "/v1/streams/{stream}/failed",
        "failed",
        "events",
        "List events that a view excludes because one of its expressions failed for them",
        &[],
        &[json("events with view, position and reason", "FailedEvents")],
    ),
    get(
        "/v1/streams/{stream}/quarantine",
        "quarantine",
        "events",
        "List rejected lines",
        &["limit", "cursor"],
        &[json("rejected lines with the reasons, newest first", "QuarantinePage")],
    ),
    remove(
        "/v1/streams/{stream}/quarantine",
        "empty_quarantine",
        "events",
        "Clear the quarantine",
        &[json("number of removed lines", "ClearedQuarantine"), problem(403, "request from a page of another origin")],
    ),
    send(
        "/v1/streams/{stream}/compact",
        "compact",
        "batch",
        "Compact the archive: merge its small files",
        "{\"vacuum_older_than_ms\": number} or an empty body",
        &[
            json("counts of the rewritten, dropped and deleted files", "Compacted"),
            problem(403, "request from a page of another origin"),
        ],
    ),
    get("/livez", "livez", "server", "Check that the process is alive", &[], &[json("alive", "Health")]),
    get(
        "/readyz",
        "readyz",
        "server",
        "Check that the server accepts events and queries",
        &[],
        &[json("ready", "Health"), Response { status: 503, text: "not ready", types: JSON, schema: "Health" }],
    ),
    get(
        "/metrics",
        "metrics",
        "server",
        "Get metrics for Prometheus",
        &[],
        &[Response { status: 200, text: "metrics in the Prometheus text format", types: &["text/plain"], schema: "" }],
    ),
];
