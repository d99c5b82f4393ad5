//! Holds the settings of compaction, with their units and defaults.

use std::time::Duration;

use shared::limits::{
    COMPACTION_EVERY_MS, COMPACTION_FILE_BYTES, COMPACTION_FILE_ROWS, COMPACTION_FILES_MIN, VACUUM_AGE_MS,
    VACUUM_EVERY_MS,
};

/// Settings that keep archives in few files.
#[derive(Debug, Clone, Copy)]
pub struct CompactionSettings {
    /// Target size of a file, in rows.
    pub file_rows: u64,
    /// Target size of a file, in bytes.
    pub file_bytes: u64,
    /// Neighbouring small files that scheduled compaction rewrites, at least.
    pub files_min: usize,
    /// Pause between two scheduled compactions; zero: compact on request only.
    pub every: Duration,
    /// Age at which an unused file is deleted.
    pub vacuum_age: Duration,
    /// Shortest time between two searches for unused files.
    pub vacuum_every: Duration,
}

impl Default for CompactionSettings {
    fn default() -> CompactionSettings {
        CompactionSettings {
            file_rows: COMPACTION_FILE_ROWS,
            file_bytes: COMPACTION_FILE_BYTES,
            files_min: COMPACTION_FILES_MIN,
            every: Duration::from_millis(COMPACTION_EVERY_MS),
            vacuum_age: Duration::from_millis(VACUUM_AGE_MS),
            vacuum_every: Duration::from_millis(VACUUM_EVERY_MS),
        }
    }
}
