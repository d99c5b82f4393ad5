//! Implements the HTTP endpoints: reading views, steering runs, watching streams, health. Handlers only translate.
//!
//! [`rows`] returns the rows of a view, [`ranges`] a byte range of them, [`response_cache`] responses that are reused,
//! [`live`] changes as events. [`views`] describes views, [`drift`] their comparisons, [`runs`] and [`streams`] the batch
//! layer and intake. [`origins`] admits pages of other origins, [`health`] serves probes and metrics, [`refusal`] chooses
//! the problem for each error.

pub(crate) mod drift;
pub(crate) mod health;
pub(crate) mod live;
pub(crate) mod origins;
pub(crate) mod parameters;
pub(crate) mod ranges;
mod refusal;
pub(crate) mod response_cache;
pub(crate) mod rows;
pub(crate) mod runs;
pub mod schemas;
pub(crate) mod streams;
pub(crate) mod views;

use axum::http::header;
use axum::response::{IntoResponse, Response};
use serde::Serialize;

pub use self::origins::{Origins, WrongOrigin};

fn json(value: &impl Serialize) -> Response {
    let body = serde_json::to_vec(value).expect("plain data has a JSON form");
    ([(header::CONTENT_TYPE, "application/json")], body).into_response()
}
