//! Renders the login page, and opens and ends sessions of browsers.

use std::sync::Arc;

use askama::Template;
use auth::Guard;
use auth::guard::SessionCookies;
use axum::Extension;
use axum::http::{HeaderMap, StatusCode, Uri};
use axum::response::{AppendHeaders, IntoResponse, Redirect, Response};
use problem::Problem;

use super::base::{Base, NavigationEntry, html};
use crate::http::parameters;

#[derive(Template)]
#[template(path = "login.html")]
struct LoginPage {
    base: Base,
    /// Why the last attempt failed.
    error: Option<String>,
}

/// `GET /login`. Without keys there is nothing to log in to.
pub async fn page(Extension(guard): Extension<Arc<Guard>>) -> Response {
    match guard.is_required() {
        true => render(None),
        false => Redirect::to("/").into_response(),
    }
}

/// `POST /login`: the form with the key.
pub async fn log_in(Extension(guard): Extension<Arc<Guard>>, form: String) -> Response {
    match key(&form).and_then(|key| guard.log_in(&key)) {
        Ok(cookies) => (with(&cookies), Redirect::to("/")).into_response(),
        Err(problem) => (StatusCode::UNAUTHORIZED, render(Some(problem.detail().to_owned()))).into_response(),
    }
}

/// `POST /logout`.
pub async fn log_out(Extension(guard): Extension<Arc<Guard>>, headers: HeaderMap) -> Response {
    (with(&guard.log_out(&headers)), StatusCode::NO_CONTENT).into_response()
}

fn with(cookies: &SessionCookies) -> AppendHeaders<Vec<(axum::http::HeaderName, axum::http::HeaderValue)>> {
    AppendHeaders(cookies.headers().collect())
}

/// Returns the field `key` of a form, which is encoded like a query string.
fn key(form: &str) -> Result<String, Problem> {
    let uri: Uri = format!("/?{}", form.trim()).parse().unwrap_or_default();
    let fields = parameters::all(&uri)?;
    Ok(fields.into_iter().find(|(name, _)| name == "key").map(|(_, value)| value).unwrap_or_default())
}

fn render(error: Option<String>) -> Response {
    html(&LoginPage { base: Base::new(NavigationEntry::View, "Log in"), error })
}
