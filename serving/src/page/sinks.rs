//! Renders the page of the sinks: their states, how far they are, and what the brokers said last.

use askama::Template;
use axum::response::Response;

use super::base::{Base, NavigationEntry, html};

#[derive(Template)]
#[template(path = "sinks.html")]
struct SinksPage {
    base: Base,
}

/// `GET /sinks`.
pub async fn render() -> Response {
    html(&SinksPage { base: Base::new(NavigationEntry::Sinks, "Sinks") })
}
