//! What has come in, how late, and what was not taken?

use askama::Template;
use axum::response::Response;

use super::base::{Base, Place, html};

#[derive(Template)]
#[template(path = "streams.html")]
struct Page {
    base: Base,
}

/// `GET /streams`.
pub async fn render() -> Response {
    html(&Page { base: Base::new(Place::Streams, "Streams") })
}
