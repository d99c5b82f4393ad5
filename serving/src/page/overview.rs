//! Renders the overview: every stream and every view at a glance.

use askama::Template;
use auth::Access;
use axum::extract::State;
use axum::response::Response;
use shared::published::PublishedView;

use super::base::{Base, NavigationEntry, html};
use super::charted::charted_measure;
use super::view_head::about;
use crate::state::ServingState;
use crate::window_text::{kind, spacing};

#[derive(Template)]
#[template(path = "overview.html")]
struct OverviewPage {
    base: Base,
    streams: Vec<String>,
    cards: Vec<Card>,
}

/// A view on the overview.
struct Card {
    name: String,
    /// Hash of the definition that the card shows.
    definition: String,
    /// For example `of flights, in windows of 1 hour, by origin`.
    about: String,
    /// The kind of windows, by its dialect name in lower case.
    kind: String,
    /// Distance between windows in milliseconds; 0 if they are not on a grid.
    window_ms: i64,
    /// The measure to chart; empty if none is numeric.
    measure: String,
    /// True if the parts of batch and speed add up to the merged value.
    additive: bool,
    dimensions: String,
}

/// `GET /`.
pub async fn render(State(state): State<ServingState>, access: Access) -> Response {
    let published = state.visible_views(&access);
    let mut streams: Vec<String> = published.iter().map(|p| p.stream.name.to_string()).collect();
    streams.sort();
    streams.dedup();
    let cards = published.iter().map(|p| card(p)).collect();
    html(&OverviewPage { base: Base::new(NavigationEntry::Overview, "Overview"), streams, cards })
}

fn card(published: &PublishedView) -> Card {
    let view = published.view.as_ref();
    let (measure, additive) = charted_measure(view).unwrap_or_default();
    let dimensions: Vec<&str> = view.dimensions.iter().map(|d| d.name.as_str()).collect();
    Card {
        name: view.name.to_string(),
        definition: published.definition_hash.to_string(),
        about: format!("of {}, {}", view.stream, about(view)),
        kind: kind(view.window).to_lowercase(),
        window_ms: spacing(view.window).map_or(0, |micros| micros / 1000),
        measure,
        additive,
        dimensions: dimensions.join(","),
    }
}
