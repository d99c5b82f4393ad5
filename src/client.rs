//! Sends requests to a running server and turns its errors into messages for people. Does not retry; see
//! [`crate::sender`].

use std::fmt;
use std::time::Duration;

use reqwest::{Method, RequestBuilder, Response, StatusCode};
use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::exit::{Failure, NO, REFUSED, USAGE};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Longest time without data, before a response and within it.
const READ_TIMEOUT: Duration = Duration::from_secs(120);

/// An HTTP client of one server.
#[derive(Debug, Clone)]
pub struct Client {
    http: reqwest::Client,
    /// The server URL, without a trailing slash.
    base: String,
}

/// An error response: RFC 9457, with the fields that Trueup adds.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(default)]
pub struct Problem {
    pub status: u16,
    pub title: String,
    pub detail: Option<String>,
    pub code: Option<String>,
    /// Position of a SQL error, from 1.
    pub line: Option<usize>,
    pub column: Option<usize>,
    /// Seconds to wait before a retry, from `Retry-After`.
    #[serde(skip)]
    pub retry_after_s: Option<u64>,
}

/// Why a request has no usable response.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    #[error("\"{0}\" is not an http:// URL")]
    BadUrl(String),
    #[error("cannot reach {base}: {cause}")]
    Unreachable { base: String, cause: String },
    #[error("{0}")]
    Refused(Box<Problem>),
    #[error("cannot read the response of {base}: {cause}")]
    Unreadable { base: String, cause: String },
}

impl Client {
    /// Creates a client of the server at `url`, such as `http://127.0.0.1:8080`. Sends nothing yet.
    pub fn new(url: &str) -> Result<Client, ClientError> {
        let base = url.trim_end_matches('/').to_owned();
        let valid = reqwest::Url::parse(&base).is_ok_and(|parsed| parsed.scheme() == "http" && parsed.has_host());
        if !valid {
            return Err(ClientError::BadUrl(url.to_owned()));
        }
        // A proxy from the environment would intercept requests to 127.0.0.1 too.
        let http = reqwest::Client::builder()
            .no_proxy()
            .connect_timeout(CONNECT_TIMEOUT)
            .read_timeout(READ_TIMEOUT)
            .user_agent(concat!("trueup/", env!("CARGO_PKG_VERSION")))
            .build()
            .map_err(|error| ClientError::Unreachable { base: base.clone(), cause: innermost_cause(&error) })?;
        Ok(Client { http, base })
    }

    /// Builds a request to `path`, which starts with a slash.
    pub fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.http.request(method, format!("{}{path}", self.base))
    }

    /// Sends a request. An error status becomes [`ClientError::Refused`].
    pub async fn send(&self, request: RequestBuilder) -> Result<Response, ClientError> {
        let response = request.send().await.map_err(|error| self.unreachable(&error))?;
        let status = response.status();
        if status.is_success() {
            return Ok(response);
        }
        let retry_after_s = response.headers().get("retry-after").and_then(|value| value.to_str().ok()?.parse().ok());
        let body = response.bytes().await.unwrap_or_default();
        Err(ClientError::Refused(Box::new(Problem { retry_after_s, ..problem(status, &body) })))
    }

    /// Sends a request and parses the response as JSON.
    pub async fn json<T: DeserializeOwned>(&self, request: RequestBuilder) -> Result<T, ClientError> {
        let body = self.send(request).await?.bytes().await.map_err(|error| self.unreachable(&error))?;
        serde_json::from_slice(&body).map_err(|cause| self.unreadable(&cause))
    }

    /// Sends a GET request to `path` and parses the response as JSON.
    pub async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, ClientError> {
        self.json(self.request(Method::GET, path)).await
    }

    /// Makes the error for a response that cannot be parsed.
    pub fn unreadable(&self, cause: &dyn fmt::Display) -> ClientError {
        ClientError::Unreadable { base: self.base.clone(), cause: cause.to_string() }
    }

    /// Makes the error for a broken connection.
    pub fn unreachable(&self, error: &reqwest::Error) -> ClientError {
        ClientError::Unreachable { base: self.base.clone(), cause: innermost_cause(error) }
    }
}

/// Parses an error response, even if it does not come from Trueup (but from a proxy, say).
fn problem(status: StatusCode, body: &[u8]) -> Problem {
    let mut problem: Problem = serde_json::from_slice(body).unwrap_or_default();
    problem.status = status.as_u16();
    if problem.title.is_empty() {
        problem.title = status.canonical_reason().unwrap_or("error").to_lowercase();
    }
    problem
}

/// Returns the innermost cause, which is the most specific: "connection refused", not "error sending request".
fn innermost_cause(error: &reqwest::Error) -> String {
    if error.is_timeout() {
        return "timed out".to_owned();
    }
    let mut cause: &dyn std::error::Error = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    cause.to_string()
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.detail {
            Some(detail) if *detail != self.title => write!(f, "{}: {detail}", self.title)?,
            _ => f.write_str(&self.title)?,
        }
        write!(f, " (HTTP {})", self.status)
    }
}

impl ClientError {
    /// Returns whether the response is 404 Not Found.
    pub fn is_not_found(&self) -> bool {
        matches!(self, ClientError::Refused(problem) if problem.status == StatusCode::NOT_FOUND)
    }
}

impl From<ClientError> for Failure {
    fn from(error: ClientError) -> Failure {
        match &error {
            ClientError::BadUrl(_) => Failure::new(USAGE, &error).next_step("use --url http://HOST:PORT"),
            ClientError::Unreachable { base, .. } => Failure::new(REFUSED, &error)
                .next_step(format!("check that `trueup serve` is running at {base}, or set --url or TRUEUP_URL")),
            ClientError::Refused(problem) => match problem.status {
                400 | 404 | 422 => Failure::new(USAGE, &error),
                _ => Failure::new(REFUSED, &error),
            },
            ClientError::Unreadable { .. } => {
                Failure::new(NO, &error).next_step("check that it is a Trueup server of this version")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_http_urls_are_accepted() {
        for (url, base) in [
            ("http://127.0.0.1:8080", Some("http://127.0.0.1:8080")),
            ("http://host/prefix/", Some("http://host/prefix")),
            ("https://host", None),
            ("127.0.0.1:8080", None),
            ("", None),
        ] {
            assert_eq!(Client::new(url).ok().map(|client| client.base).as_deref(), base, "{url}");
        }
    }

    #[test]
    fn problems_have_a_message_and_an_exit_code() {
        for (status, body, words, code) in [
            (
                404,
                r#"{"title": "unknown view", "detail": "no view `x`"}"#,
                "unknown view: no view `x` (HTTP 404)",
                USAGE,
            ),
            (400, r#"{"title": "bad where", "line": 1, "column": 3}"#, "bad where (HTTP 400)", USAGE),
            (429, "", "too many requests (HTTP 429)", REFUSED),
            (503, "<html>", "service unavailable (HTTP 503)", REFUSED),
            (507, r#"{"title": "disk full"}"#, "disk full (HTTP 507)", REFUSED),
        ] {
            let status = StatusCode::from_u16(status).expect("a status");
            let problem = problem(status, body.as_bytes());
            assert_eq!(problem.to_string(), words);
            assert_eq!(Failure::from(ClientError::Refused(Box::new(problem))).code, code, "{words}");
        }
    }
}
