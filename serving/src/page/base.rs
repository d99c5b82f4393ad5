//! What do all pages have in common? A place in the navigation, the version of their files, and headers that forbid
//! everything from elsewhere.

use askama::Template;
use axum::http::{HeaderName, StatusCode, header};
use axum::response::{IntoResponse, Response};

use super::assets;

/// Only this server's own files; styles inline because the charts set them.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; \
                      connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'self'";
const SECURITY: [(HeaderName, &str); 3] = [
    (header::CONTENT_SECURITY_POLICY, POLICY),
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (header::REFERRER_POLICY, "no-referrer"),
];

/// Which entry of the navigation a page stands under.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Place {
    Overview,
    Batch,
    Streams,
    /// Under none: a page of one view, reached from the overview.
    View,
}

/// What the base template asks of every page.
pub struct Base {
    pub title: String,
    pub here: Place,
    /// Tells the versions of the pages' files apart.
    pub version: &'static str,
}

impl Base {
    pub const NAVIGATION: [(Place, &'static str, &'static str); 3] = [
        (Place::Overview, "/", "Overview"),
        (Place::Batch, "/batch", "Batch"),
        (Place::Streams, "/streams", "Streams"),
    ];

    pub fn new(here: Place, title: &str) -> Base {
        Base { title: format!("{title} – Trueup"), here, version: assets::version() }
    }
}

#[derive(Template)]
#[template(path = "missing.html")]
struct Missing {
    base: Base,
    detail: String,
}

/// A page as an answer.
pub fn html(page: &impl Template) -> Response {
    match page.render() {
        Ok(html) => {
            let kind = [(header::CONTENT_TYPE, "text/html; charset=utf-8"), (header::CACHE_CONTROL, "no-cache")];
            (kind, SECURITY, html).into_response()
        }
        Err(error) => {
            tracing::error!(%error, "a page could not be rendered");
            StatusCode::INTERNAL_SERVER_ERROR.into_response()
        }
    }
}

/// A page that says what is not there; `detail` without a full stop.
pub fn not_found(detail: String) -> Response {
    let page = Missing { base: Base::new(Place::View, "Not found"), detail };
    (StatusCode::NOT_FOUND, html(&page)).into_response()
}
