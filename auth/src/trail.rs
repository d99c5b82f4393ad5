//! Gives every request an id, and records who changed something, or was refused, in the audit log.
//!
//! The id comes from the client (`X-Request-Id`) if it has a simple form. Responses and log lines carry it.

use std::fmt;
use std::sync::Arc;

use axum::extract::Request;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use axum::response::Response;
use problem::Code;
use serde::Serialize;
use shared::clock::Clock;
use shared::limits::{AUDIT_PATH_BYTES_MAX, REQUEST_ID_BYTES_MAX};
use shared::time::Micros;
use tracing::Instrument;

use crate::access::{PeerAddress, Principal};
use crate::secret::random_hex;

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// Random bytes of an id.
const ID_BYTES: usize = 8;

/// An entry of the audit log: principal, action, origin and outcome.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct AuditEntry {
    pub at: Micros,
    pub principal: String,
    /// The address of the client, or of the proxy in front.
    pub peer: Option<String>,
    pub method: String,
    /// Without the query string, which may hold values of rows.
    pub path: String,
    pub status: u16,
    /// The code of the problem, if the request was refused.
    pub code: Option<&'static str>,
    pub request_id: String,
}

/// Takes entries of the audit log. Does not wait.
pub trait AuditSink: Send + Sync + fmt::Debug {
    /// Records an entry.
    fn record(&self, entry: AuditEntry);
}

/// Follows requests.
#[derive(Debug, Clone)]
pub struct Trail {
    pub clock: Arc<dyn Clock>,
    /// `None`: nothing is recorded.
    pub audit: Option<Arc<dyn AuditSink>>,
}

impl Trail {
    /// Gives the request its id, has `respond` answer it, and records both if they have to be.
    pub async fn follow<F: Future<Output = Response>>(
        &self,
        request: Request,
        respond: impl FnOnce(Request) -> F,
    ) -> Response {
        let id = id_of(request.headers());
        let span = tracing::info_span!("request", id = id.to_str().unwrap_or_default());
        let about = self.audit.as_ref().map(|_| {
            let peer = request.extensions().get::<PeerAddress>().copied();
            (request.method().clone(), request.uri().clone(), peer)
        });
        let mut response = respond(request).instrument(span).await;
        if let Some((audit, (method, uri, peer))) = self.audit.as_ref().zip(about)
            && is_recorded(&method, uri.path(), response.status())
        {
            let principal = response.extensions().get::<Principal>().unwrap_or(&Principal::Visitor);
            audit.record(AuditEntry {
                at: self.clock.now(),
                principal: principal.to_string(),
                peer: peer.map(|peer| peer.0.ip().to_string()),
                // A client may invent a method of any length.
                method: method.as_str().chars().take(AUDIT_PATH_BYTES_MAX).collect(),
                path: uri.path().chars().take(AUDIT_PATH_BYTES_MAX).collect(),
                status: response.status().as_u16(),
                code: response.extensions().get::<Code>().map(|code| code.name()),
                request_id: id.to_str().unwrap_or_default().to_owned(),
            });
        }
        response.headers_mut().insert(REQUEST_ID, id);
        response
    }
}

/// Returns the id that the client gave, or a random one.
fn id_of(headers: &HeaderMap) -> HeaderValue {
    let is_simple = |byte: &u8| byte.is_ascii_alphanumeric() || [b'-', b'_', b'.'].contains(byte);
    let given = headers.get(REQUEST_ID).filter(|id| {
        let bytes = id.as_bytes();
        (1..=REQUEST_ID_BYTES_MAX).contains(&bytes.len()) && bytes.iter().all(is_simple)
    });
    given.cloned().unwrap_or_else(|| HeaderValue::try_from(random_hex(ID_BYTES)).expect("hexadecimal digits"))
}

/// Returns true for changes and for refusals. Accepted events and appends are not recorded: they are in their streams.
fn is_recorded(method: &Method, path: &str, status: StatusCode) -> bool {
    let is_refused = [StatusCode::UNAUTHORIZED, StatusCode::FORBIDDEN, StatusCode::MISDIRECTED_REQUEST];
    let is_read = matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS);
    let is_append = *method == Method::POST && path.starts_with("/v1/entities/");
    is_refused.contains(&status) || !(is_read || is_append || path.starts_with("/v1/events/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_of_clients_are_kept_if_they_are_simple() {
        let id = |text: &str| {
            let value = HeaderValue::from_bytes(text.as_bytes()).expect("a value");
            id_of(&HeaderMap::from_iter([(REQUEST_ID, value)])).to_str().map(str::to_owned)
        };
        assert_eq!(id("a-1_B.2").expect("text"), "a-1_B.2");
        for other in ["", "a b", "a\"b", "é"] {
            assert!(id(other).is_ok_and(|id| id.len() == 2 * ID_BYTES && id != other), "{other}");
        }
        assert_ne!(id_of(&HeaderMap::new()), id_of(&HeaderMap::new()));
    }

    #[test]
    fn changes_and_refusals_are_recorded() {
        for (method, path, status, recorded) in [
            (Method::GET, "/v1/views", 200, false),
            (Method::GET, "/v1/views", 401, true),
            (Method::GET, "/v1/views/v/rows", 404, false),
            (Method::GET, "/", 421, true),
            (Method::POST, "/v1/views/v/runs", 202, true),
            (Method::POST, "/v1/views/v/runs", 404, true),
            (Method::DELETE, "/v1/streams/s/quarantine", 200, true),
            (Method::POST, "/v1/events/s", 200, false),
            (Method::POST, "/v1/events/s", 403, true),
            (Method::POST, "/v1/entities/s", 200, false),
            (Method::POST, "/v1/entities/s/1/events", 412, false),
            (Method::POST, "/v1/entities/s/1/events", 401, true),
            (Method::DELETE, "/v1/entities/s/1", 202, true),
        ] {
            let status = StatusCode::from_u16(status).expect("a status");
            assert_eq!(is_recorded(&method, path, status), recorded, "{method} {path} {status}");
        }
    }
}
