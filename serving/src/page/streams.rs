//! Renders the page of the streams: ingested, late and rejected events.

use askama::Template;
use auth::Access;
use axum::extract::State;
use axum::response::Response;

use super::base::{Base, NavigationEntry, html};
use crate::state::ServingState;

#[derive(Template)]
#[template(path = "streams.html")]
struct StreamsPage {
    base: Base,
    streams: Vec<String>,
}

/// `GET /streams`.
pub async fn render(State(state): State<ServingState>, access: Access) -> Response {
    let streams = state.visible_streams(&access).into_iter().map(|stream| stream.name.to_string()).collect();
    html(&StreamsPage { base: Base::new(NavigationEntry::Streams, "Streams"), streams })
}
