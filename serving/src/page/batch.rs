//! What does the batch layer do, and what has it done? Runs, versions, what comes next.

use askama::Template;
use axum::response::Response;

use super::base::{Base, Place, html};

#[derive(Template)]
#[template(path = "batch.html")]
struct Page {
    base: Base,
}

/// `GET /batch`.
pub async fn render() -> Response {
    html(&Page { base: Base::new(Place::Batch, "Batch") })
}
