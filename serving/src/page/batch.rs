//! Renders the page of the batch layer: runs, versions, schedules.

use askama::Template;
use auth::Access;
use axum::extract::State;
use axum::response::Response;

use super::base::{Base, NavigationEntry, html};
use crate::state::ServingState;

#[derive(Template)]
#[template(path = "batch.html")]
struct BatchPage {
    base: Base,
    views: Vec<String>,
}

/// `GET /batch`.
pub async fn render(State(state): State<ServingState>, access: Access) -> Response {
    let views = state.visible_views(&access).iter().map(|published| published.view.name.to_string()).collect();
    html(&BatchPage { base: Base::new(NavigationEntry::Batch, "Batch"), views })
}
