//! Defines how Trueup refuses a request: one problem type and one table of codes for every layer (RFC 9457).
//!
//! A refusal is an `application/problem+json` document whose `type` is `urn:trueup:problem:<code>`. Status and title
//! belong to the code, so they are the same wherever it is used; only `detail` and the extra members differ. [`code`]
//! holds the table, [`net`] turns the refusals of libraries (routing, extractors) into problems.

#![cfg_attr(not(test), deny(clippy::disallowed_methods))]

pub mod code;
pub mod net;

use std::fmt;

use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use utoipa::ToSchema;

pub use self::code::Code;

/// The media type of problem documents.
pub const CONTENT_TYPE: &str = "application/problem+json";

/// A refused request, ready to be sent as a response.
#[derive(Debug, Clone, PartialEq)]
pub struct Problem {
    code: Code,
    detail: String,
    /// Line and column of an error in a text the client sent, both from 1.
    position: Option<(usize, usize)>,
    /// Boxed, so that a `Result` that may hold a problem stays small.
    extras: Option<Box<Extras>>,
}

#[derive(Debug, Clone, PartialEq, Default)]
struct Extras {
    members: Map<String, Value>,
    headers: Vec<(HeaderName, HeaderValue)>,
}

/// The JSON document of a problem; clients may find more members than these.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Problem)]
pub struct ProblemDocument<'a> {
    /// `urn:trueup:problem:<code>`.
    #[serde(rename = "type")]
    kind: String,
    title: &'static str,
    status: u16,
    /// One sentence for people.
    detail: &'a str,
    /// The name of the problem for programs.
    code: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    line: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    column: Option<usize>,
    #[serde(flatten)]
    #[schema(ignore)]
    members: Option<&'a Map<String, Value>>,
}

/// The members of a problem document that a client reads.
#[derive(Deserialize)]
struct ReceivedDocument {
    code: String,
    detail: String,
    line: Option<usize>,
    column: Option<usize>,
}

impl Problem {
    /// A problem of the kind `code`; `detail` is one sentence for people: what failed, why, and what to do.
    pub fn new(code: Code, detail: impl Into<String>) -> Problem {
        Problem { code, detail: detail.into(), position: None, extras: None }
    }

    /// Adds the line and column of an error in a text the client sent, both from 1.
    pub fn at(mut self, line: usize, column: usize) -> Problem {
        self.position = Some((line, column));
        self
    }

    /// Replaces the sentence for people.
    pub fn with_detail(mut self, detail: impl Into<String>) -> Problem {
        self.detail = detail.into();
        self
    }

    /// Adds a member to the document.
    pub fn with(mut self, name: &str, value: impl Into<Value>) -> Problem {
        self.extras.get_or_insert_default().members.insert(name.to_owned(), value.into());
        self
    }

    /// Adds a header to the response.
    pub fn with_header(mut self, name: HeaderName, value: impl Into<HeaderValue>) -> Problem {
        self.extras.get_or_insert_default().headers.push((name, value.into()));
        self
    }

    /// Adds `Retry-After`: the client may repeat the request after `seconds`.
    pub fn retry_after(self, seconds: u64) -> Problem {
        self.with_header(header::RETRY_AFTER, seconds)
    }

    /// Reads the JSON document of a problem, without its further members. Returns `None` for any other text, and for a
    /// code that this version does not know.
    pub fn from_json(document: &[u8]) -> Option<Problem> {
        let ReceivedDocument { code, detail, line, column } = serde_json::from_slice(document).ok()?;
        Some(Problem { code: Code::from_name(&code)?, detail, position: line.zip(column), extras: None })
    }

    /// Returns the code.
    pub fn code(&self) -> Code {
        self.code
    }

    /// Returns the status, which belongs to the code.
    pub fn status(&self) -> StatusCode {
        self.code.status()
    }

    /// Returns the sentence for people.
    pub fn detail(&self) -> &str {
        &self.detail
    }

    /// Returns line and column of an error in a text the client sent, both from 1.
    pub fn position(&self) -> Option<(usize, usize)> {
        self.position
    }

    /// Returns the JSON document.
    pub fn to_json(&self) -> Vec<u8> {
        let document = ProblemDocument {
            kind: self.code.urn(),
            title: self.code.title(),
            status: self.status().as_u16(),
            detail: &self.detail,
            code: self.code.name(),
            line: self.position.map(|(line, _)| line),
            column: self.position.map(|(_, column)| column),
            members: self.extras.as_ref().map(|extras| &extras.members),
        };
        serde_json::to_vec(&document).expect("plain data has a JSON form")
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.code.title(), self.detail)
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let body = self.to_json();
        let mut response = (self.status(), [(header::CONTENT_TYPE, CONTENT_TYPE)], body).into_response();
        response.extensions_mut().insert(self.code);
        for (name, value) in self.extras.into_iter().flat_map(|extras| extras.headers) {
            response.headers_mut().append(name, value);
        }
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_document_has_the_members_of_the_rfc_and_those_added() {
        let problem = Problem::new(Code::InvalidJson, "expected a value").at(2, 7).with("rejected", 3);
        let json: Value = serde_json::from_slice(&problem.to_json()).expect("JSON");
        let expected = serde_json::json!({
            "type": "urn:trueup:problem:invalid_json", "title": "Invalid JSON", "status": 400,
            "detail": "expected a value", "code": "invalid_json", "line": 2, "column": 7, "rejected": 3,
        });
        assert_eq!(json, expected);
        let plain: Value = serde_json::from_slice(&Problem::new(Code::Internal, "x").to_json()).expect("JSON");
        assert_eq!(plain.as_object().map(Map::len), Some(5), "{plain}");
    }

    #[test]
    fn a_document_is_read_back() {
        let plain = Problem::new(Code::UnknownView, "no such view: `x`");
        for problem in [plain.clone(), plain.at(2, 7)] {
            assert_eq!(Problem::from_json(&problem.to_json()), Some(problem));
        }
        for other in ["", "<html>", "{}", r#"{"code": "of_a_later_version", "detail": "x"}"#] {
            assert_eq!(Problem::from_json(other.as_bytes()), None, "{other}");
        }
    }

    #[test]
    fn the_response_has_the_status_of_the_code_and_the_headers_added() {
        let response = Problem::new(Code::Busy, "too fast").retry_after(2).into_response();
        assert_eq!(response.status(), StatusCode::TOO_MANY_REQUESTS);
        assert_eq!(response.headers()[header::CONTENT_TYPE], CONTENT_TYPE);
        assert_eq!(response.headers()[header::RETRY_AFTER], "2");
    }
}
