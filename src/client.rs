//! Sends requests to a running server and turns its errors into messages for people. Does not retry; see
//! [`crate::sender`].

use std::fmt;
use std::path::Path;
use std::time::Duration;

use problem::Problem;
use reqwest::{Method, RequestBuilder, Response, StatusCode};
use serde::de::DeserializeOwned;

use crate::exit::{Failure, NO, REFUSED, USAGE};
use crate::secret_files::is_readable_by_others;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Longest time without data, before a response and within it.
const READ_TIMEOUT: Duration = Duration::from_secs(120);

/// An HTTP client of one server.
#[derive(Debug, Clone)]
pub struct Client {
    http: reqwest::Client,
    /// The server URL, without a trailing slash.
    base: String,
    /// The key to send, if there is one.
    key: Option<Key>,
}

/// A key. It is never printed.
#[derive(Clone)]
struct Key(String);

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Key(..)")
    }
}

/// An error response.
#[derive(Debug, Clone, PartialEq)]
pub struct Refusal {
    pub status: StatusCode,
    /// The problem, unless the response comes from another server (a proxy, say) or a later version.
    pub problem: Option<Problem>,
    /// Seconds to wait before a retry, from `Retry-After`.
    pub retry_after_s: Option<u64>,
}

/// Why a request has no usable response.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    #[error("\"{0}\" is not an http:// or https:// URL")]
    BadUrl(String),
    #[error("cannot read {variable}: {cause}")]
    Secret { variable: &'static str, cause: String },
    #[error("cannot reach {base}: {cause}")]
    Unreachable { base: String, cause: String },
    #[error("{0}")]
    Refused(Box<Refusal>),
    #[error("cannot read the response of {base}: {cause}")]
    Unreadable { base: String, cause: String },
}

impl Client {
    /// Creates a client of the server at `url`, such as `http://127.0.0.1:8080`. Sends nothing yet.
    pub fn new(url: &str) -> Result<Client, ClientError> {
        let base = url.trim_end_matches('/').to_owned();
        let valid = reqwest::Url::parse(&base)
            .is_ok_and(|parsed| ["http", "https"].contains(&parsed.scheme()) && parsed.has_host());
        if !valid {
            return Err(ClientError::BadUrl(url.to_owned()));
        }
        // A proxy from the environment would intercept requests to 127.0.0.1 too.
        let http = reqwest::Client::builder()
            .no_proxy()
            .tls_certs_merge(trusted_certificates()?)
            .connect_timeout(CONNECT_TIMEOUT)
            .read_timeout(READ_TIMEOUT)
            .user_agent(concat!("trueup/", env!("CARGO_PKG_VERSION")))
            .build()
            .map_err(|error| ClientError::Unreachable { base: base.clone(), cause: innermost_cause(&error) })?;
        Ok(Client { http, base, key: key_of_environment()? })
    }

    /// Builds a request to `path`, which starts with a slash.
    pub fn request(&self, method: Method, path: &str) -> RequestBuilder {
        let request = self.http.request(method, format!("{}{path}", self.base));
        match &self.key {
            Some(Key(key)) => request.bearer_auth(key),
            None => request,
        }
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
        let problem = Problem::from_json(&body);
        Err(ClientError::Refused(Box::new(Refusal { status, problem, retry_after_s })))
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

/// Reads the key from `TRUEUP_KEY`, or from the file that `TRUEUP_KEY_FILE` names.
fn key_of_environment() -> Result<Option<Key>, ClientError> {
    if let Some(key) = std::env::var_os("TRUEUP_KEY") {
        return Ok(Some(Key(key.to_string_lossy().trim().to_owned())));
    }
    let text = file_of_environment("TRUEUP_KEY_FILE")?;
    if let Some(path) = std::env::var_os("TRUEUP_KEY_FILE").filter(|path| is_readable_by_others(Path::new(path))) {
        eprintln!("warning: other users of this machine can read {}; chmod 600 it", path.display());
    }
    Ok(text.map(|text| Key(String::from_utf8_lossy(&text).trim().to_owned())))
}

/// Reads the certificates to trust, beside those of the system, from the file that `TRUEUP_CA_FILE` names.
fn trusted_certificates() -> Result<Vec<reqwest::Certificate>, ClientError> {
    let Some(text) = file_of_environment("TRUEUP_CA_FILE")? else { return Ok(Vec::new()) };
    let wrong = |error: reqwest::Error| ClientError::Secret { variable: "TRUEUP_CA_FILE", cause: error.to_string() };
    reqwest::Certificate::from_pem_bundle(&text).map_err(wrong)
}

fn file_of_environment(variable: &'static str) -> Result<Option<Vec<u8>>, ClientError> {
    let Some(path) = std::env::var_os(variable) else { return Ok(None) };
    let failed =
        |cause: std::io::Error| ClientError::Secret { variable, cause: format!("{}: {cause}", path.display()) };
    std::fs::read(&path).map(Some).map_err(failed)
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

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.problem {
            Some(problem) => problem.fmt(f)?,
            None => f.write_str(self.status.canonical_reason().unwrap_or("unknown error"))?,
        }
        write!(f, " (HTTP {})", self.status.as_u16())
    }
}

impl ClientError {
    /// Returns whether the response is 404 Not Found.
    pub fn is_not_found(&self) -> bool {
        matches!(self, ClientError::Refused(refusal) if refusal.status == StatusCode::NOT_FOUND)
    }
}

impl From<ClientError> for Failure {
    fn from(error: ClientError) -> Failure {
        match &error {
            ClientError::BadUrl(_) => Failure::new(USAGE, &error).next_step("use --url http://HOST:PORT"),
            ClientError::Secret { .. } => Failure::new(USAGE, &error),
            ClientError::Unreachable { base, .. } => Failure::new(REFUSED, &error)
                .next_step(format!("check that `trueup serve` is running at {base}, or set --url or TRUEUP_URL")),
            ClientError::Refused(refusal) => match refusal.status.as_u16() {
                400 | 404 | 422 => Failure::new(USAGE, &error),
                401 => Failure::new(REFUSED, &error)
                    .next_step("set TRUEUP_KEY to a key, or TRUEUP_KEY_FILE to a file that holds one"),
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
    use problem::Code;

    use super::*;

    #[test]
    fn only_http_urls_are_accepted() {
        for (url, base) in [
            ("http://127.0.0.1:8080", Some("http://127.0.0.1:8080")),
            ("http://host/prefix/", Some("http://host/prefix")),
            ("https://host", Some("https://host")),
            ("ftp://host", None),
            ("127.0.0.1:8080", None),
            ("", None),
        ] {
            assert_eq!(Client::new(url).ok().map(|client| client.base).as_deref(), base, "{url}");
        }
    }

    #[test]
    fn refusals_have_a_message_and_an_exit_code() {
        let unknown_view = Problem::new(Code::UnknownView, "no such view: `x`");
        for (status, problem, words, code) in [
            (404, Some(unknown_view), "Not found: no such view: `x` (HTTP 404)", USAGE),
            (400, None, "Bad Request (HTTP 400)", USAGE),
            (429, None, "Too Many Requests (HTTP 429)", REFUSED),
            (507, Some(Problem::new(Code::DiskFull, "no space")), "Disk full: no space (HTTP 507)", REFUSED),
        ] {
            let status = StatusCode::from_u16(status).expect("a status");
            let refusal = Refusal { status, problem, retry_after_s: None };
            assert_eq!(refusal.to_string(), words);
            assert_eq!(Failure::from(ClientError::Refused(Box::new(refusal))).code, code, "{words}");
        }
    }
}
