//! Renders the page that compares served with exact values, version by version.

use askama::Template;
use auth::Access;
use axum::extract::{Path, State};
use axum::response::Response;

use super::base::{Base, NavigationEntry, html};
use super::view_head::{ViewHead, unknown};
use crate::state::ServingState;

#[derive(Template)]
#[template(path = "compare.html")]
struct ComparePage {
    base: Base,
    head: ViewHead,
}

/// `GET /compare/{view}`.
pub async fn render(State(state): State<ServingState>, access: Access, Path(name): Path<String>) -> Response {
    let Some(published) = state.views.get(&name) else { return unknown(&state, &access, &name) };
    html(&ComparePage {
        base: Base::new(NavigationEntry::View, &format!("{name}, compared")),
        head: ViewHead::of(&published, true),
    })
}
