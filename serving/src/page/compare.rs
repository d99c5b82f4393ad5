//! How far were the live figures of a view from the exact ones, version by version?

use askama::Template;
use axum::extract::{Path, State};
use axum::response::Response;

use super::base::{Base, Place, html};
use super::view_head::{ViewHead, unknown};
use crate::state::ServingState;

#[derive(Template)]
#[template(path = "compare.html")]
struct Page {
    base: Base,
    head: ViewHead,
}

/// `GET /compare/{view}`.
pub async fn render(State(state): State<ServingState>, Path(name): Path<String>) -> Response {
    let Some(published) = state.views.get(&name) else { return unknown(&state, &name) };
    html(&Page { base: Base::new(Place::View, &format!("{name}, compared")), head: ViewHead::of(&published, true) })
}
