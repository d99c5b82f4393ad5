//! Ingests events: decodes requests, decides order, duplicates and lateness, and makes the events durable.
//!
//! [`http`] is the endpoint and [`decode`] turns a body into Arrow columns; [`event_id`] says which events are the same.
//! [`submit`] divides a request among the partitions of its stream. [`streams`] hold the [`partition`]s, whose writers
//! decide order, duplicates and lateness and make the result durable in the [`log`]. [`archive`] copies it to the lake;
//! [`history`] writes historical events there directly, and [`entities`] reads the events of an entity from both; [`erasure`] erases one from the log. [`event_pages`] reads all events again, in order. [`lateness`] measures how late events arrive, and
//! [`quarantine`] keeps rejected lines. [`sources`] reads topics, record by record, into the same partitions. [`fail_points`] lists where tests inject faults.

#![cfg_attr(not(test), deny(clippy::disallowed_methods))]

pub mod archive;
pub mod decode;
pub mod entities;
pub mod erasure;
pub mod event_id;
pub mod event_pages;
pub mod fail_points;
pub mod history;
pub mod http;
pub mod lateness;
pub mod log;
pub mod partition;
pub mod quarantine;
pub mod rate;
pub mod sources;
pub mod status;
pub mod streams;
pub mod submit;
pub mod tables;

#[cfg(test)]
mod testing;
