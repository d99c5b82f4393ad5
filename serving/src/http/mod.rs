//! Implements the HTTP endpoints: reading views, steering runs, watching streams, health. Handlers only translate.
//!
//! [`rows`] returns the rows of a view, [`ranges`] a byte range of them, [`response_cache`] responses that are reused,
//! [`live`] changes as events, [`alerts`] raised alerts, [`sinks`] what is written to topics, [`event_response`] any stream of events. [`entities`] returns states of entities, [`entity_events`] their
//! events, and [`erasures`] erases them. [`tables`] returns rows of tables. [`views`] describes views, [`drift`] their comparisons, [`runs`] and [`streams`] the batch layer and intake.
//! [`hosts`] admits requests by the name of this server, [`origins`] pages of other origins, [`roles`] the side that it
//! serves; [`perimeter`] asks them all. [`health`]
//! serves probes and metrics, [`refusal`] chooses the problem for each error.

pub(crate) mod alerts;
pub(crate) mod drift;
pub(crate) mod entities;
pub(crate) mod entity_events;
pub(crate) mod erasures;
pub(crate) mod event_response;
pub(crate) mod health;
pub(crate) mod hosts;
pub(crate) mod live;
pub(crate) mod origins;
pub(crate) mod parameters;
pub(crate) mod perimeter;
pub(crate) mod ranges;
pub(crate) mod refusal;
pub(crate) mod response_cache;
pub(crate) mod roles;
pub(crate) mod rows;
pub(crate) mod runs;
pub mod schemas;
pub(crate) mod sinks;
pub(crate) mod streams;
pub(crate) mod tables;
pub(crate) mod views;

use axum::http::header;
use axum::response::{IntoResponse, Response};
use serde::Serialize;

pub use self::hosts::{Hosts, WrongHost};
pub use self::origins::{Origins, WrongOrigin};
pub use self::perimeter::Perimeter;
pub use self::roles::{InvalidRoles, Roles};

fn json(value: &impl Serialize) -> Response {
    let body = serde_json::to_vec(value).expect("plain data has a JSON form");
    ([(header::CONTENT_TYPE, "application/json")], body).into_response()
}
