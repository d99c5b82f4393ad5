//! Answers requests without valid credentials: a challenge for programs, the login page for browsers.

use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use problem::{Code, Problem};

use crate::access::Access;
use crate::rate::RateState;

/// Adds the challenge that RFC 9110 asks for.
pub fn challenge(problem: Problem) -> Problem {
    match problem.code() {
        Code::AuthenticationRequired | Code::InvalidCredentials => {
            problem.with_header(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer realm=\"trueup\""))
        }
        _ => problem,
    }
}

/// Answers a request without credentials. `next` of the redirect leads back after the login.
pub fn anonymous(method: &Method, headers: &HeaderMap) -> Response {
    if method == Method::GET && wants_html(headers) {
        return (StatusCode::SEE_OTHER, [(header::LOCATION, "/login")]).into_response();
    }
    let detail = "this server needs a key: send \"Authorization: Bearer KEY\", or log in at /login; \
                  `trueup key create` makes a key";
    challenge(Problem::new(Code::AuthenticationRequired, detail)).into_response()
}

/// Answers a request beyond a rate.
pub fn too_many_requests(access: &Access, state: &RateState) -> Problem {
    let detail = format!("{access} may send {} requests; retry in {} s", state.rate, state.reset_s);
    Problem::new(Code::RateLimited, detail).retry_after(state.reset_s)
}

fn wants_html(headers: &HeaderMap) -> bool {
    let accepted = headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok());
    accepted.flat_map(|list| list.split(',')).any(|kind| kind.trim_start().starts_with("text/html"))
}
