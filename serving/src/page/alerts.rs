//! Renders the page of the alerts: a timeline, the raised alerts, the declared ones and silences.

use askama::Template;
use axum::response::Response;

use super::base::{Base, NavigationEntry, html};

#[derive(Template)]
#[template(path = "alerts.html")]
struct AlertsPage {
    base: Base,
}

/// `GET /alerts`.
pub async fn render() -> Response {
    html(&AlertsPage { base: Base::new(NavigationEntry::Alerts, "Alerts") })
}
