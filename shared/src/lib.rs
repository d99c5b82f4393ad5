//! Contains everything that all layers agree on: definitions, windows, partial aggregates, the seam and the ledger.
//!
//! Reading order: [`types`], [`time`] and [`ids`] are the vocabulary; [`stream`] is what a user declares;
//! [`seam`] and [`ledger`] say which events are whose; [`handoff`] is how the layers meet.
//! Nothing here speaks HTTP, and nothing here starts a thread of its own.

#![cfg_attr(not(test), deny(clippy::disallowed_methods))]

pub mod alert;
pub mod calendar;
pub mod changed_rows;
pub mod changes;
pub mod clock;
pub mod column_name;
pub mod compare;
pub mod control;
pub mod data_file;
pub mod date_partition;
pub mod decimal;
pub mod double;
pub mod engine;
pub mod entity;
pub mod entity_reader;
pub mod evaluate;
pub mod event_pages;
pub mod event_sink;
pub mod explain;
pub mod fail_points;
pub mod failed_events;
pub mod handoff;
pub mod horizon;
pub mod ids;
pub mod json_cell;
pub mod ledger;
pub mod limits;
pub mod live_state;
pub mod log_queue;
pub mod lookup;
pub mod partial;
pub mod published;
pub mod readers;
pub mod retained_bytes;
pub mod retention;
pub mod scalar;
pub mod schedule;
pub mod seam;
pub mod sink;
pub mod sql;
pub mod stream;
pub mod stream_watermark;
pub mod table_key;
pub mod table_reader;
pub mod time;
pub mod time_range;
pub mod types;
pub mod version;
pub mod view;
pub mod vital;
pub mod window;
