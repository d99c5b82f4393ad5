//! Where are all the logs? Every stream's partitions on disk, behind the traits by which the other layers use them.
//!
//! Layout: `DIR/log/STREAM/PARTITION/`.

mod intake;
mod stream_log;

#[cfg(test)]
mod tests;

pub use intake::Intake;
pub use stream_log::StreamLog;
