//! What are the figures of one view? A chart and a table of whatever is asked of them.

use askama::Template;
use axum::extract::{Path, State};
use axum::response::Response;

use super::base::{Base, Place, html};
use super::view_head::{ViewHead, unknown};
use crate::http::ServingState;

#[derive(Template)]
#[template(path = "view.html")]
struct Page {
    base: Base,
    head: ViewHead,
}

/// `GET /view/{view}`.
pub async fn render(State(state): State<ServingState>, Path(name): Path<String>) -> Response {
    let Some(published) = state.views.get(&name) else { return unknown(&state, &name) };
    html(&Page { base: Base::new(Place::View, &name), head: ViewHead::of(&published, false) })
}
