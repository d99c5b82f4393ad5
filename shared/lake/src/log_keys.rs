//! Names the entries that Trueup keeps in a Delta log, for those who write and those who read them.

/// Commits after which the log gets a checkpoint, so that opening a table stays quick.
pub(super) const CHECKPOINT_COMMITS: i64 = 100;
/// Key of the caller's note in Delta's commit information.
pub(super) const INFO_KEY: &str = "trueup";
/// Key of the commit's own id in Delta's commit information.
pub(super) const ID_KEY: &str = "trueupCommit";
/// Key of the declaration in the table's properties.
pub(super) const DECLARATION_KEY: &str = "trueup.declaration";
/// Key of the dates dropped by retention in the table's properties.
pub(super) const DROPPED_KEY: &str = "trueup.dropped";
/// Key of the events whose files are lost in the table's properties.
pub(super) const LOST_KEY: &str = "trueup.lost";
/// Key of the smallest horizon of duplicates in the table's properties.
pub(super) const DEDUP_HORIZON_KEY: &str = "trueup.dedupHorizonEvents";
/// The application whose transaction in each table is the epoch of the last owner that wrote to it.
pub const OWNER_TXN: &str = "trueup/owner";
