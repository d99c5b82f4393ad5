//! Renders the pages: views, runs and streams, live, served by this process alone.
//!
//! A page is a skeleton; its script uses the same endpoints as every client. Nothing is loaded from elsewhere, and the
//! headers forbid it. [`base`] holds what all pages share, [`assets`] their files; [`overview`], [`view`], [`compare`],
//! [`batch`], [`streams`], [`alerts`], [`sinks`], [`entity`] and [`login`] are one page each.

mod alerts;
mod assets;
mod base;
mod batch;
mod charted;
mod compare;
mod entity;
pub mod login;
mod overview;
mod sinks;
mod streams;
mod view;
mod view_head;

use axum::Router;
use axum::routing::get;

pub use self::base::not_found;
use crate::state::ServingState;

/// Returns the routes of the pages and of their files.
pub fn routes() -> Router<ServingState> {
    Router::new()
        .route("/", get(overview::render))
        .route("/view/{view}", get(view::render))
        .route("/compare/{view}", get(compare::render))
        .route("/batch", get(batch::render))
        .route("/streams", get(streams::render))
        .route("/entity/{stream}/{id}", get(entity::render))
        .route("/alerts", get(alerts::render))
        .route("/sinks", get(sinks::render))
        .merge(assets::routes())
}
