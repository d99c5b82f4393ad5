//! What has come in, how late, and what was not taken?

use askama::Template;
use axum::extract::State;
use axum::response::Response;

use super::base::{Base, Place, html};
use crate::state::ServingState;

#[derive(Template)]
#[template(path = "streams.html")]
struct Page {
    base: Base,
    streams: Vec<String>,
}

/// `GET /streams`.
pub async fn render(State(state): State<ServingState>) -> Response {
    let streams = state.streams.list().into_iter().map(|stream| stream.name.to_string()).collect();
    html(&Page { base: Base::new(Place::Streams, "Streams"), streams })
}
