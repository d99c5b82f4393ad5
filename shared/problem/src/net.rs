//! Turns refusals that libraries make (routing, extractors, body limits) into problems.
//!
//! axum answers an unknown method with an empty 405 and a broken path or body with a line of plain text. Handlers need
//! not repeat those checks: [`catch`] stands outside all routers and rewrites every error response that is neither a
//! problem nor a document of its own (HTML, JSON). Headers such as `Allow` stay.

use axum::body::to_bytes;
use axum::extract::Request;
use axum::http::{Method, StatusCode, header};
use axum::response::{IntoResponse, Response};

use crate::{Code, Problem};

/// Bytes read of the text of a library's refusal.
const TEXT_BYTES_MAX: usize = 4 * 1024;

/// The limit of axum on bodies that a handler reads as a whole, in MiB. Endpoints with another limit refuse by themselves.
const BODY_MIB_MAX: usize = 2;

/// Returns the response of `respond`, or the problem that says the same.
pub async fn catch<F: Future<Output = Response>>(request: Request, respond: impl FnOnce(Request) -> F) -> Response {
    let (method, uri) = (request.method().clone(), request.uri().clone());
    let response = respond(request).await;
    let is_refusal = response.status().is_client_error() || response.status().is_server_error();
    let kind = response.headers().get(header::CONTENT_TYPE).map_or(&b""[..], |kind| kind.as_bytes());
    if !is_refusal || !(kind.is_empty() || kind.starts_with(b"text/plain")) {
        return response;
    }
    rewritten(response, &method, uri.path()).await
}

async fn rewritten(response: Response, method: &Method, path: &str) -> Response {
    let (mut head, body) = response.into_parts();
    let text = to_bytes(body, TEXT_BYTES_MAX).await.unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let problem = Problem::new(code_of(head.status), detail(head.status, method, path, text.trim()));
    for name in [header::CONTENT_TYPE, header::CONTENT_LENGTH, header::CONTENT_ENCODING, header::TRANSFER_ENCODING] {
        head.headers.remove(name);
    }
    let mut response = problem.into_response();
    response.headers_mut().extend(head.headers);
    response
}

/// The code of a status for which no handler chose one.
fn code_of(status: StatusCode) -> Code {
    match status {
        StatusCode::NOT_FOUND => Code::UnknownPath,
        StatusCode::METHOD_NOT_ALLOWED => Code::MethodNotAllowed,
        StatusCode::NOT_ACCEPTABLE => Code::NotAcceptable,
        StatusCode::REQUEST_TIMEOUT => Code::Stalled,
        StatusCode::PAYLOAD_TOO_LARGE => Code::TooLarge,
        StatusCode::URI_TOO_LONG => Code::UriTooLong,
        StatusCode::UNSUPPORTED_MEDIA_TYPE => Code::UnsupportedType,
        StatusCode::RANGE_NOT_SATISFIABLE => Code::RangeNotSatisfiable,
        StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE => Code::HeadersTooLarge,
        status if status.is_server_error() => Code::Internal,
        _ => Code::BadRequest,
    }
}

fn detail(status: StatusCode, method: &Method, path: &str, text: &str) -> String {
    match status {
        StatusCode::NOT_FOUND if text.is_empty() => format!("no such path: {path}"),
        StatusCode::METHOD_NOT_ALLOWED => format!("method not allowed: {method} {path}; Allow lists the methods"),
        StatusCode::PAYLOAD_TOO_LARGE => format!("the body is larger than {BODY_MIB_MAX} MiB"),
        _ if text.is_empty() => status.canonical_reason().unwrap_or("the request was refused").to_lowercase(),
        _ => in_our_words(text),
    }
}

/// Rewrites the texts of axum: lower case, and what failed first.
fn in_our_words(text: &str) -> String {
    if let Some(reason) = text.strip_prefix("Failed to buffer the request body: ") {
        return format!("cannot read the body: {reason}");
    }
    let mut rest = text.chars();
    rest.next().map_or_else(String::new, |first| first.to_lowercase().chain(rest).collect())
}

#[cfg(test)]
mod tests {
    use axum::body::Body;
    use axum::middleware::{self, Next};
    use axum::routing::{get, post};
    use axum::{Json, Router};
    use serde_json::{Value, json};

    use super::*;

    async fn refused(method: Method, path: &str) -> (StatusCode, Value) {
        let routes = Router::new()
            .route("/thing/{name}", get(async |_: axum::extract::Path<String>| "here"))
            .route("/number/{n}", get(async |_: axum::extract::Path<u8>| "here"))
            .route("/body", post(async |_: axum::body::Bytes| "here"))
            .route("/own", get(async || (StatusCode::SERVICE_UNAVAILABLE, Json(json!({"status": "not ready"})))))
            .layer(middleware::from_fn(async |request: Request, next: Next| {
                catch(request, |request| next.run(request)).await
            }));
        let request = Request::builder().method(method).uri(path).body(Body::from(vec![b' '; 3 << 20])).expect("valid");
        let response = tower::ServiceExt::oneshot(routes, request).await.expect("infallible");
        if response.status() == StatusCode::METHOD_NOT_ALLOWED {
            assert!(response.headers().contains_key(header::ALLOW));
        }
        let status = response.status();
        let bytes = to_bytes(response.into_body(), usize::MAX).await.expect("a body");
        (status, serde_json::from_slice(&bytes).unwrap_or(Value::Null))
    }

    #[tokio::test]
    async fn refusals_of_the_router_and_of_extractors_become_problems() {
        for (method, path, status, code, words) in [
            (Method::GET, "/nothing", 404, "unknown_path", "no such path: /nothing"),
            (Method::DELETE, "/thing/x", 405, "method_not_allowed", "DELETE /thing/x"),
            (Method::GET, "/thing/%ff", 400, "bad_request", "UTF-8"),
            (Method::GET, "/number/x", 400, "bad_request", "u8"),
            (Method::POST, "/body", 413, "too_large", "2 MiB"),
        ] {
            let (got, json) = refused(method, path).await;
            assert_eq!(
                (got.as_u16(), &json["status"], &json["code"]),
                (status, &json!(status), &json!(code)),
                "{json}"
            );
            assert!(json["detail"].as_str().is_some_and(|detail| detail.contains(words)), "{json}");
        }
        let (status, json) = refused(Method::GET, "/own").await;
        assert_eq!((status, json), (StatusCode::SERVICE_UNAVAILABLE, json!({"status": "not ready"})));
    }
}
