//! Writes the rows of views and the events of streams to topics of Kafka, each exactly once, and sends them to webhooks.
//!
//! [`view_changes`] finds what has changed since the last epoch, as of a cut of the log: rows that folds report, rows of a
//! [`walk`] in pages ([`mod@page`]), and rows that were [`waiting`] for their window to close. [`sizes`] bounds each piece. [`differences`] compares them with the
//! target ([`sessions`] says which sessions have replaced others), [`record`] writes them as records, [`mod@debezium`] puts them into envelopes, [`avro`] encodes those of a sink with that format, and [`publisher`] puts them into the topic in one transaction with the marker of the epoch,
//! or into requests of a [`webhook`]. Sinks of streams have no differences: [`event_changes`] reads the events after a position, and
//! [`event_record`] writes them as records. [`book`] keeps durably what the topic
//! has ([`sent`], [`stored`]), until entities are erased ([`erasure`]); [`task`] runs one sink, and [`service`] lists and controls all. The crate reads rows as alerts do and knows
//! neither the log nor HTTP.

#![cfg_attr(not(test), deny(clippy::disallowed_methods))]

pub mod avro;
pub mod book;
pub mod debezium;
pub mod differences;
pub mod erasure;
pub mod event_changes;
pub mod event_record;
pub mod fail_points;
pub mod page;
pub mod publisher;
pub mod record;
pub mod sent;
pub mod service;
pub mod sessions;
pub mod sizes;
pub mod stored;
pub mod task;
pub mod view_changes;
pub mod waiting;
pub mod walk;
pub mod webhook;
