//! Holds what all pages share: the navigation, the version of their files, and headers that forbid content from elsewhere.

use askama::Template;
use auth::Access;
use axum::http::{HeaderName, StatusCode, header};
use axum::response::{IntoResponse, Response};

use super::assets;
use crate::state::ServingState;

/// Only this server's own files; styles inline because the charts set them.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; \
                      connect-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'self'";
const SECURITY: [(HeaderName, &str); 7] = [
    (header::X_FRAME_OPTIONS, "SAMEORIGIN"),
    (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
    (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
    (HeaderName::from_static("permissions-policy"), "camera=(), geolocation=(), microphone=(), payment=(), usb=()"),
    (header::CONTENT_SECURITY_POLICY, POLICY),
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (header::REFERRER_POLICY, "no-referrer"),
];

/// The entry of the navigation that a page belongs to.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum NavigationEntry {
    Overview,
    Batch,
    Streams,
    Alerts,
    Sinks,
    /// None: a page of one view, reached from the overview.
    View,
}

/// The fields of the base template.
pub struct Base {
    pub title: String,
    pub here: NavigationEntry,
    /// The version of the pages' files.
    pub version: &'static str,
}

impl Base {
    pub const NAVIGATION: [(NavigationEntry, &'static str, &'static str); 5] = [
        (NavigationEntry::Overview, "/", "Overview"),
        (NavigationEntry::Batch, "/batch", "Batch"),
        (NavigationEntry::Streams, "/streams", "Streams"),
        (NavigationEntry::Alerts, "/alerts", "Alerts"),
        (NavigationEntry::Sinks, "/sinks", "Sinks"),
    ];

    pub fn new(here: NavigationEntry, title: &str) -> Base {
        Base { title: format!("{title} – Trueup"), here, version: assets::version() }
    }
}

#[derive(Template)]
#[template(path = "not_found.html")]
struct NotFoundPage {
    base: Base,
    heading: &'static str,
    detail: String,
    views: Vec<String>,
}

/// Renders a page into a response.
pub fn html(page: &impl Template) -> Response {
    match page.render() {
        Ok(html) => {
            let kind = [(header::CONTENT_TYPE, "text/html; charset=utf-8"), (header::CACHE_CONTROL, "no-cache")];
            (kind, SECURITY, html).into_response()
        }
        Err(error) => {
            tracing::error!(%error, "cannot render page");
            StatusCode::INTERNAL_SERVER_ERROR.into_response()
        }
    }
}

/// Returns a 404 page with links to the other pages; `detail` is a sentence without a full stop.
pub fn not_found(state: &ServingState, access: &Access, detail: String) -> Response {
    missing(state, access, (StatusCode::NOT_FOUND, "Page not found"), detail)
}

/// Returns the same as a 410 page.
pub fn gone(state: &ServingState, access: &Access, detail: String) -> Response {
    missing(state, access, (StatusCode::GONE, "Gone"), detail)
}

fn missing(
    state: &ServingState,
    access: &Access,
    (status, heading): (StatusCode, &'static str),
    detail: String,
) -> Response {
    let views = state.visible_views(access).iter().map(|published| published.view.name.to_string()).collect();
    let page = NotFoundPage { base: Base::new(NavigationEntry::View, "Not found"), heading, detail, views };
    (status, html(&page)).into_response()
}
