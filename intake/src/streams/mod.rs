//! Groups the partitions of each stream and implements the traits through which the other layers use them.
//!
//! Layout: `DIR/log/STREAM/PARTITION/`.

mod intake;
mod stream_log;

#[cfg(test)]
mod tests;

pub use intake::Intake;
pub use stream_log::{Backlog, StreamLog};
