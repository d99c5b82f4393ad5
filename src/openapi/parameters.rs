//! Lists the query parameters of the endpoints.

/// Query parameters: name, schema, description.
pub const PARAMETERS: &[(&str, &str, &str)] = &[
    ("from", r#"{"type": "string", "format": "date-time"}"#, "return rows whose window starts at or after this time"),
    ("to", r#"{"type": "string", "format": "date-time"}"#, "return rows whose window starts before this time"),
    ("where", r#"{"type": "string"}"#, "SQL condition over dimensions and measures"),
    ("group_by", r#"{"type": "string"}"#, "dimensions to group by, comma-separated; empty for none; default: all"),
    ("grain", r#"{"type": "string"}"#, "coarser windows: a multiple of the view's window, such as 1h, 1d, 1mo or all"),
    ("measures", r#"{"type": "string"}"#, "measures to return, comma-separated; default: all"),
    ("order_by", r#"{"type": "string"}"#, "columns to sort by, comma-separated; prefix with - for descending order"),
    ("limit", r#"{"type": "integer", "minimum": 1}"#, "maximum number of entries"),
    ("cursor", r#"{"type": "string"}"#, "the `next` value of the previous page"),
    ("layer", r#"{"type": "string", "enum": ["merged", "batch", "speed"]}"#, "layer to query; default: merged"),
    (
        "shape",
        r#"{"type": "string", "enum": ["document", "rows"]}"#,
        "`document`: rows with their provenance; `rows`: the bare array",
    ),
    ("as_of", r#"{"type": "string"}"#, "query a past state: a time or the number of a batch version"),
    (
        "tables.as_of",
        r#"{"type": "string", "format": "date-time"}"#,
        "the rows that events of this time are joined with",
    ),
    ("version", r#"{"type": "integer"}"#, "number of a batch version"),
    ("every", r#"{"type": "string"}"#, "interval between updates: 100ms to 60m; default: 1s"),
    ("measure", r#"{"type": "string"}"#, "return only this measure"),
    ("view", r#"{"type": "string"}"#, "return only runs of this view"),
    (
        "state",
        r#"{"type": "string", "enum": ["queued", "running", "published", "failed", "cancelled"]}"#,
        "return only runs in this state",
    ),
    (
        "alerts.state",
        r#"{"type": "string", "enum": ["raised", "confirmed", "withdrawn", "corrected"]}"#,
        "return only alerts in this state",
    ),
    ("alert", r#"{"type": "string"}"#, "return only this alert"),
    ("before", r#"{"type": "string"}"#, "return only runs older than this run"),
    ("sequence", r#"{"type": "integer", "minimum": 1}"#, "the state after the event with this sequence"),
    ("from_sequence", r#"{"type": "integer", "minimum": 1}"#, "return events from this sequence on"),
    ("after", r#"{"type": "string"}"#, "return rows behind the one with this key"),
    ("reference", r#"{"type": "string"}"#, "a name for the request, kept with the erasure"),
    ("strict", r#"{"type": "boolean"}"#, "accept either all events or none"),
];
