//! How late do a stream's events come, and which of them came late or too far ahead?
//!
//! [`disorder`] measures, [`suggestion`] says which settings would fit what was measured, and [`listed`] keeps the newest
//! events to be shown. All of it is a function of what is in the log: after a restart the log's tail is looked at again.

mod disorder;
mod histogram;
mod recent_events;
mod stream_lateness;
mod suggestion;

#[cfg(test)]
mod tests;

pub use stream_lateness::{LatenessSettings, StreamLateness};
