//! Describes an endpoint, with short constructors for the usual ones.

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

pub const JSON: &[&str] = &["application/json"];
const PROBLEM: &[&str] = &["application/problem+json"];
pub const NOTHING: &[&str] = &[];

pub const fn json(text: &'static str, schema: &'static str) -> Response {
    Response { status: 200, text, types: JSON, schema }
}

pub const fn problem(status: u16, text: &'static str) -> Response {
    Response { status, text, types: PROBLEM, schema: "Problem" }
}

pub const fn get(
    path: &'static str,
    id: &'static str,
    tag: &'static str,
    summary: &'static str,
    parameters: &'static [&'static str],
    responses: &'static [Response],
) -> Endpoint {
    Endpoint { path, method: "get", id, tag, summary, parameters, headers: &[], body: None, responses }
}

pub const fn send(
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

pub const fn remove(
    path: &'static str,
    id: &'static str,
    tag: &'static str,
    summary: &'static str,
    responses: &'static [Response],
) -> Endpoint {
    Endpoint { path, method: "delete", id, tag, summary, parameters: &[], headers: &[], body: None, responses }
}
