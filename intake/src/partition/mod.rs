//! How do events become log? One thread per partition decides order, duplicates and lateness, and makes the result durable.
//!
//! Reading order: [`submission`] comes in through [`queue`]; [`sequence`] decides, with [`dedup`], [`keys`] and
//! [`watermark`]; [`group`] forms frames; [`writer`] is the thread; [`PartitionLog`] is the whole from outside.

mod dedup;
mod group;
mod keys;
mod offset_table;
mod partition_log;
mod queue;
mod sequence;
mod settings;
mod status;
mod submission;
mod watermark;
mod writer;

#[cfg(test)]
mod tests;

pub use partition_log::PartitionLog;
pub use settings::PartitionSettings;
pub use status::PartitionStatus;
pub use submission::{PartAnswer, Submission, SubmitError, WriteError};
pub use writer::OnFatal;
