//! What does a person see? One page that shows every stream and view live, served by this process alone.
//!
//! The page is a skeleton with one card per view; its script asks the same doors as everybody else. Nothing is loaded
//! from elsewhere, and the headers forbid it.

mod assets;
mod charted;

use askama::Template;
use axum::extract::State;
use axum::http::{HeaderName, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodRouter, get};
use shared::published::Published;
use shared::view::View;
use shared::window::Window;

pub use self::assets::routes as asset_routes;
use self::charted::charted_measure;
use crate::http::ServingState;
use crate::window_text::{in_a_sentence, kind, spacing};

/// Only this server's own files; styles inline because the charts set them.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; \
                      connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'self'";
const SECURITY: [(HeaderName, &str); 3] = [
    (header::CONTENT_SECURITY_POLICY, POLICY),
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (header::REFERRER_POLICY, "no-referrer"),
];

#[derive(Template)]
#[template(path = "page.html")]
struct Page {
    streams: Vec<String>,
    cards: Vec<Card>,
    version: &'static str,
}

/// What the skeleton tells of a view.
struct Card {
    name: String,
    stream: String,
    /// Hash of the definition that the card is made for.
    definition: String,
    /// For example `per hour, by origin`.
    about: String,
    /// What kind of windows, as the dialect names them, in small letters.
    kind: String,
    /// How far windows are apart, in milliseconds; 0 where they are not on a grid.
    window_ms: i64,
    /// The measure to draw; empty if none is a number, or if windows are sessions, which have no places of their own.
    measure: String,
    /// Do the parts of batch and speed add up to the merged value?
    additive: bool,
    dimensions: String,
}

/// `GET /`.
pub fn page() -> MethodRouter<ServingState> {
    get(render)
}

async fn render(State(state): State<ServingState>) -> Response {
    let published = state.views.all();
    let mut streams: Vec<String> = published.iter().map(|p| p.stream.name.to_string()).collect();
    streams.sort();
    streams.dedup();
    let page = Page { streams, cards: published.iter().map(|p| card(p)).collect(), version: assets::version() };
    match page.render() {
        Ok(html) => {
            let kind = [(header::CONTENT_TYPE, "text/html; charset=utf-8"), (header::CACHE_CONTROL, "no-cache")];
            (kind, SECURITY, html).into_response()
        }
        Err(error) => {
            tracing::error!(%error, "the page could not be rendered");
            StatusCode::INTERNAL_SERVER_ERROR.into_response()
        }
    }
}

fn card(published: &Published) -> Card {
    let view = published.view.as_ref();
    let is_sessions = matches!(view.window, Window::Session { .. });
    let (measure, additive) = charted_measure(view).filter(|_| !is_sessions).unwrap_or_default();
    let dimensions: Vec<&str> = view.dimensions.iter().map(|d| d.name.as_str()).collect();
    Card {
        name: view.name.to_string(),
        stream: view.stream.to_string(),
        definition: published.definition_hash.to_string(),
        about: about(view, &dimensions),
        kind: kind(view.window).to_lowercase(),
        window_ms: spacing(view.window).map_or(0, |micros| micros / 1000),
        measure,
        additive,
        dimensions: dimensions.join(","),
    }
}

fn about(view: &View, dimensions: &[&str]) -> String {
    let window = in_a_sentence(view.window);
    match dimensions {
        [] => window,
        [most @ .., last] if !most.is_empty() => format!("{window}, by {} and {last}", most.join(", ")),
        [one, ..] => format!("{window}, by {one}"),
    }
}
