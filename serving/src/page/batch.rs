//! What does the batch layer do, and what has it done? Runs, versions, what comes next.

use askama::Template;
use axum::extract::State;
use axum::response::Response;

use super::base::{Base, Place, html};
use crate::state::ServingState;

#[derive(Template)]
#[template(path = "batch.html")]
struct Page {
    base: Base,
    views: Vec<String>,
}

/// `GET /batch`.
pub async fn render(State(state): State<ServingState>) -> Response {
    let views = state.views.all().iter().map(|published| published.view.name.to_string()).collect();
    html(&Page { base: Base::new(Place::Batch, "Batch"), views })
}
