//! Measures the lateness of a stream's events and lists those that came late or too far ahead.
//!
//! [`disorder`] measures, [`suggestion`] derives settings that fit the measurements, and [`recent_events`] keeps the newest
//! events. All of it is a function of the log: after a restart, the end of the log is read again.

mod disorder;
mod histogram;
mod recent_events;
mod stream_lateness;
mod suggestion;

#[cfg(test)]
mod tests;

pub use stream_lateness::{LatenessSettings, StreamLateness};
