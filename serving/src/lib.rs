//! Serves views to readers: queries over batch and speed as one table, in several formats, over HTTP and on pages.
//!
//! A query passes through these stages, each with a value of its own:
//! parameters → [`query::Query`] (checked against the view) → [`pin`] (one version and the generations from its seam on,
//! and the query bound to them) → [`execute`] (merge, filter, order, finish: columns of a result) → [`formats`] (bytes).
//! [`admission`] bounds what queries may use, `bounded_responses` with [`response_budget`] the responses being sent, and
//! `small_bodies` what requests bring. `batch_merge_cache` reuses the batch part of results, [`push`] sends changes to
//! subscribers. [`http`] holds the endpoints, `page` the dashboard, `routes` maps paths to both. Nothing here changes a
//! measure.

#![cfg_attr(not(test), deny(clippy::disallowed_methods))]

pub mod admission;
mod approximate;
mod batch_merge_cache;
mod bounded_responses;
mod entity_fold;
mod entity_rows;
mod entity_tag;
pub mod execute;
pub mod finality;
pub mod formats;
pub mod http;
mod lazy_measures;
mod live_windows;
mod order;
mod page;
pub mod pin;
pub mod push;
pub mod query;
pub mod response_budget;
mod route_scopes;
mod routes;
mod session_range;
mod small_bodies;
mod state;
mod window_text;

pub use route_scopes::{ROUTES, listed as route_requirement};
pub use routes::routes;
pub use state::ServingState;
