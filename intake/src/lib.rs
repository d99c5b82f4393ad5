//! How does an event enter?
//!
//! [`http`] is the entrance and [`decode`] turns a body into Arrow columns; [`event_id`] says which events are the same.
//! Behind the [`door`], [`streams`] hold the [`partition`]s, whose writers decide order, duplicates and lateness and make
//! the result durable in the [`log`]. [`archive`] carries it to the lake; [`history`] puts old events there directly. [`lateness`] says how late events come, and
//! [`quarantine`] keeps the lines that were none.

pub mod archive;
pub mod decode;
pub mod event_id;
pub mod history;
pub mod http;
pub mod lateness;
pub mod log;
pub mod partition;
pub mod quarantine;
pub mod rate;
pub mod status;
pub mod streams;
pub mod submit;
