//! Computes correct results by a naive fold over the list of events, without any of the system's code.

pub mod calendar;
pub mod dialect;
pub mod events;
pub mod histories;
pub mod lookups;
pub mod measures;
pub mod plain;
pub mod session_topic;
pub mod sessions;
pub mod table;
pub mod views;
pub mod windows;
