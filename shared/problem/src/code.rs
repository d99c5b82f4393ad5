//! Lists every code with its status and title; docs/errors.md is compared with this table.

use axum::http::StatusCode;

macro_rules! codes {
    ($($(#[$doc:meta])* $variant:ident, $name:literal, $status:ident, $title:literal;)*) => {
        /// The kind of a problem. Names and statuses do not change once released.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum Code {
            $($(#[$doc])* $variant,)*
        }

        impl Code {
            /// Every code, by name.
            pub const ALL: &'static [Code] = &[$(Code::$variant,)*];

            /// Returns the name that programs compare, for example `unknown_view`.
            pub const fn name(self) -> &'static str {
                match self { $(Code::$variant => $name,)* }
            }

            /// Returns the HTTP status of every problem with this code.
            pub const fn status(self) -> StatusCode {
                match self { $(Code::$variant => StatusCode::$status,)* }
            }

            /// Returns the title of every problem with this code.
            pub const fn title(self) -> &'static str {
                match self { $(Code::$variant => $title,)* }
            }
        }
    };
}

codes! {
    /// The request has no credentials.
    AuthenticationRequired, "authentication_required", UNAUTHORIZED, "Authentication required";
    /// The `Idempotency-Key` is empty, too long or not text.
    BadIdempotencyKey, "bad_idempotency_key", BAD_REQUEST, "Invalid idempotency key";
    /// The parameters of a POST of events are invalid.
    BadQuery, "bad_query", BAD_REQUEST, "Invalid query string";
    /// The HTTP stack could not read the request.
    BadRequest, "bad_request", BAD_REQUEST, "Bad request";
    /// The batch layer, or the store of its files, cannot respond.
    BatchUnavailable, "batch_unavailable", SERVICE_UNAVAILABLE, "Service unavailable";
    /// The body ended early or could not be decompressed.
    BrokenBody, "broken_body", BAD_REQUEST, "Unreadable body";
    /// Events arrive faster than they are made durable.
    Busy, "busy", TOO_MANY_REQUESTS, "Too many requests";
    /// A page of another origin tried to change something.
    CrossOrigin, "cross_origin", FORBIDDEN, "Origin not allowed";
    /// A newer version was published after the cursor was issued.
    CursorExpired, "cursor_expired", GONE, "Cursor expired";
    /// The definition of a version names columns that the stream no longer has.
    DefinitionNotUnderstood, "definition_not_understood", CONFLICT, "Definition no longer valid";
    /// The disk of the log is full.
    DiskFull, "disk_full", INSUFFICIENT_STORAGE, "Disk full";
    /// The entity was erased.
    EntityErased, "entity_erased", GONE, "Entity erased";
    /// The stream's retention has dropped the events of the requested range.
    EventsDropped, "events_dropped", CONFLICT, "Events dropped";
    /// The headers of the request are larger than the server reads.
    HeadersTooLarge, "headers_too_large", REQUEST_HEADER_FIELDS_TOO_LARGE, "Headers too large";
    /// An `Idempotency-Key` was used before with another body.
    IdempotencyKeyReused, "idempotency_key_reused", UNPROCESSABLE_ENTITY, "Idempotency key reused";
    /// A defect of the server.
    Internal, "internal", INTERNAL_SERVER_ERROR, "Internal error";
    /// The body is not what the endpoint expects.
    InvalidBody, "invalid_body", BAD_REQUEST, "Invalid body";
    /// The credentials are unknown or no longer valid.
    InvalidCredentials, "invalid_credentials", UNAUTHORIZED, "Invalid credentials";
    /// The body of events is not JSON.
    InvalidJson, "invalid_json", BAD_REQUEST, "Invalid JSON";
    /// A parameter cannot have the value it was given.
    InvalidParameter, "invalid_parameter", BAD_REQUEST, "Invalid parameter";
    /// The `where` parameter is not an expression of the dialect.
    InvalidPredicate, "invalid_predicate", BAD_REQUEST, "Invalid where expression";
    /// The body of events is not a table of its type, or its columns do not fit the stream.
    InvalidTable, "invalid_table", BAD_REQUEST, "Invalid table";
    /// The path does not allow the method.
    MethodNotAllowed, "method_not_allowed", METHOD_NOT_ALLOWED, "Method not allowed";
    /// A change with the cookie of a session lacks its token.
    MissingCsrfToken, "missing_csrf_token", FORBIDDEN, "CSRF token required";
    /// The principal does not have the scope.
    MissingScope, "missing_scope", FORBIDDEN, "Not permitted";
    /// The view, or the version, has no comparison.
    NoComparison, "no_comparison", NOT_FOUND, "Not found";
    /// The stream has no entity.
    NoEntity, "no_entity", NOT_FOUND, "Not found";
    /// The stream is not a table.
    NoTable, "no_table", NOT_FOUND, "Not found";
    /// `Accept` names no format that the server writes.
    NotAcceptable, "not_acceptable", NOT_ACCEPTABLE, "Not acceptable";
    /// The view cannot compute such a query.
    NotSupported, "not_supported", NOT_IMPLEMENTED, "Not supported";
    /// Other layers compute the view than the request is for.
    OtherLayers, "other_layers", CONFLICT, "View of other layers";
    /// The query took longer than its time limit.
    QueryTimeout, "query_timeout", GATEWAY_TIMEOUT, "Query timed out";
    /// The query exceeded its memory limit.
    QueryTooLarge, "query_too_large", PAYLOAD_TOO_LARGE, "Query too large";
    /// `Range` names no byte of the response.
    RangeNotSatisfiable, "range_not_satisfiable", RANGE_NOT_SATISFIABLE, "Range not satisfiable";
    /// The principal has used up its rate.
    RateLimited, "rate_limited", TOO_MANY_REQUESTS, "Too many requests";
    /// A line was rejected and the request was strict.
    Rejected, "rejected", UNPROCESSABLE_ENTITY, "Events rejected";
    /// The row filter of the principal cannot be applied.
    RowFilter, "row_filter", FORBIDDEN, "Row filter not applicable";
    /// The entity is at another sequence than the append expects.
    SequenceConflict, "sequence_conflict", PRECONDITION_FAILED, "Sequence conflict";
    /// The speed layer cannot respond.
    SpeedUnavailable, "speed_unavailable", SERVICE_UNAVAILABLE, "Service unavailable";
    /// The body arrived too slowly.
    Stalled, "stalled", REQUEST_TIMEOUT, "Request timed out";
    /// The server is stopping.
    Stopping, "stopping", SERVICE_UNAVAILABLE, "Service unavailable";
    /// The events of the stream come from a topic, not from clients.
    StreamReadsTopic, "stream_reads_topic", CONFLICT, "Stream reads a topic";
    /// The rows of a table take all the memory that they may.
    TableFull, "table_full", INSUFFICIENT_STORAGE, "Table full";
    /// The body, a line or an event is larger than its limit.
    TooLarge, "too_large", PAYLOAD_TOO_LARGE, "Too large";
    /// The limit on connections is reached.
    TooManyConnections, "too_many_connections", SERVICE_UNAVAILABLE, "Too many connections";
    /// The limit on entities of a partition is reached.
    TooManyEntities, "too_many_entities", INSUFFICIENT_STORAGE, "Too many entities";
    /// The limit on live queries or their subscribers is reached.
    TooManyLiveAnswers, "too_many_live_answers", SERVICE_UNAVAILABLE, "Too many live queries";
    /// The query queue is full.
    TooManyQueries, "too_many_queries", TOO_MANY_REQUESTS, "Too many queries";
    /// Clients do not read the responses being sent.
    TooManyResponses, "too_many_responses", SERVICE_UNAVAILABLE, "Too many responses";
    /// The entity has no events, or had none then.
    UnknownEntity, "unknown_entity", NOT_FOUND, "Not found";
    /// `Host` is not a name of this server.
    UnknownHost, "unknown_host", MISDIRECTED_REQUEST, "Unknown host";
    /// The endpoint does not have the parameter.
    UnknownParameter, "unknown_parameter", BAD_REQUEST, "Unknown parameter";
    /// No endpoint has the path.
    UnknownPath, "unknown_path", NOT_FOUND, "Not found";
    /// The table does not have the row.
    UnknownRow, "unknown_row", NOT_FOUND, "Not found";
    /// The run does not exist, or no longer.
    UnknownRun, "unknown_run", NOT_FOUND, "Not found";
    UnknownSilence, "unknown_silence", NOT_FOUND, "Not found";
    /// The sink does not exist.
    UnknownSink, "unknown_sink", NOT_FOUND, "Not found";
    /// The stream does not exist.
    UnknownStream, "unknown_stream", NOT_FOUND, "Not found";
    /// The version does not exist.
    UnknownVersion, "unknown_version", NOT_FOUND, "Not found";
    /// The view does not exist.
    UnknownView, "unknown_view", NOT_FOUND, "Not found";
    /// The server does not read bodies with this `Content-Encoding`.
    UnsupportedEncoding, "unsupported_encoding", UNSUPPORTED_MEDIA_TYPE, "Unsupported content encoding";
    /// The server does not read bodies with this `Content-Type`.
    UnsupportedType, "unsupported_type", UNSUPPORTED_MEDIA_TYPE, "Unsupported media type";
    /// The request target is longer than the server reads.
    UriTooLong, "uri_too_long", URI_TOO_LONG, "URI too long";
    /// The version is no longer kept.
    VersionGone, "version_gone", GONE, "Version no longer kept";
    /// The process serves the other side only.
    WrongRole, "wrong_role", MISDIRECTED_REQUEST, "Wrong role";
}

impl Code {
    /// Returns the code called `name`.
    pub fn from_name(name: &str) -> Option<Code> {
        Code::ALL.iter().copied().find(|code| code.name() == name)
    }

    /// Returns the `type` of every problem with this code.
    pub fn urn(self) -> String {
        format!("urn:trueup:problem:{}", self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_sorted_unique_and_name_refusals() {
        let names: Vec<&str> = Code::ALL.iter().map(|code| code.name()).collect();
        assert!(names.windows(2).all(|pair| pair[0] < pair[1]), "{names:?}");
        for code in Code::ALL {
            assert_eq!(Code::from_name(code.name()), Some(*code));
            assert!(code.status().is_client_error() || code.status().is_server_error(), "{code:?}");
            assert!(code.title().starts_with(|c: char| c.is_ascii_uppercase()), "{code:?}");
            assert!(!code.title().ends_with('.'), "{code:?}");
        }
    }
}
