//! Turns the events of one partition into log: one thread decides their order, duplicates and lateness, and makes the
//! result durable.
//!
//! Reading order: a [`submission`] enters through [`queue`]; [`key_claims`] decides first whether its idempotency key may
//! be used; [`sequence`] decides the rest, with [`dedup`], [`entities`], [`current_rows`], [`keys`] and [`watermark`]; [`group`] forms frames; [`writer`]
//! is the thread; [`key_files`] keeps keys that the log no longer has; [`PartitionLog`] is the interface.

mod current_rows;
pub mod dedup;
mod entities;
mod group;
mod key_claims;
mod key_files;
mod keys;
mod offset_table;
mod partition_log;
mod queue;
mod sequence;
mod settings;
mod submission;
mod watermark;
mod writer;

#[cfg(all(test, feature = "fail-points"))]
mod entity_tests;
#[cfg(test)]
mod source_tests;
#[cfg(test)]
mod table_tests;
#[cfg(test)]
mod tests;

pub(crate) use current_rows::RowEvent;
pub use current_rows::{CurrentRows, RowKey, RowRange, RowValues};
pub use entities::EntityTable;
pub(crate) use entities::stored_sequences;
pub use key_claims::{BodyFingerprint, IdempotencyKey, KeyClaim, KeyClaims};
pub use keys::KeyRetention;
pub use partition_log::PartitionLog;
pub use settings::PartitionSettings;
pub use submission::{
    EntityAppend, Erasure, ExpectedSequence, PartitionReceipt, SourceStep, Submission, SubmitError, SubmittedEntities,
};
