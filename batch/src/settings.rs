//! How does the batch layer behave where it has a choice? Its settings, with their units and defaults.

use std::path::PathBuf;
use std::time::Duration;

use shared::limits::{
    self, BATCH_CACHE_BYTES, BATCH_MEMORY_BYTES, DEDUP_HORIZON_EVENTS, RUNS_KEPT, VACUUM_AGE_MS, VACUUM_EVERY_MS,
};

use crate::runs::retry::RetrySettings;
use crate::step::FailPoints;

/// Settings of the batch layer.
#[derive(Debug, Clone)]
pub struct BatchSettings {
    /// Events of a partition among which intake has already removed duplicates.
    pub dedup_horizon_events: u64,
    /// Batch rows held in memory, in bytes over all views.
    pub cache_bytes: usize,
    /// Memory that a run may take, in bytes, beside the rows that are kept for queries.
    pub memory_limit_bytes: u64,
    /// Rows read with one query, unless a single event date has more and needs to be read in one go.
    pub query_rows: u64,
    /// Rows of a reconciliation held in memory at once.
    pub reconcile_rows: u64,
    /// Files written at the same time.
    pub writes: usize,
    /// Longest time to wait for the speed layer to come to the cut once the archive has.
    pub speed_wait: Duration,
    /// How often the clock is looked at for schedules.
    pub tick: Duration,
    /// Age at which a file that nobody needs is deleted, and the shortest time between two looks for such files.
    pub vacuum_age: Duration,
    pub vacuum_every: Duration,
    pub compaction: CompactionSettings,
    /// Runs remembered per view.
    pub runs_kept: usize,
    /// Where they are remembered across restarts; `None`: nowhere.
    pub runs_file: Option<PathBuf>,
    /// When failed runs are tried again.
    pub retry: RetrySettings,
    pub fail_points: FailPoints,
}

/// How archives are kept in few files.
#[derive(Debug, Clone, Copy)]
pub struct CompactionSettings {
    /// How large a file shall be.
    pub file_rows: u64,
    pub file_bytes: u64,
    /// Neighbouring small files from which on they are rewritten without being asked.
    pub files_min: usize,
    /// Pause between two looks for small files; zero: only when somebody asks.
    pub every: Duration,
    /// Age at which a file that nobody needs is deleted, and the shortest time between two looks for such files.
    pub vacuum_age: Duration,
    pub vacuum_every: Duration,
}

impl Default for CompactionSettings {
    fn default() -> CompactionSettings {
        CompactionSettings {
            file_rows: limits::COMPACTION_FILE_ROWS,
            file_bytes: limits::COMPACTION_FILE_BYTES,
            files_min: limits::COMPACTION_FILES_MIN,
            every: Duration::from_millis(limits::COMPACTION_EVERY_MS),
            vacuum_age: Duration::from_millis(VACUUM_AGE_MS),
            vacuum_every: Duration::from_millis(VACUUM_EVERY_MS),
        }
    }
}

impl Default for BatchSettings {
    fn default() -> BatchSettings {
        BatchSettings {
            dedup_horizon_events: DEDUP_HORIZON_EVENTS,
            cache_bytes: BATCH_CACHE_BYTES,
            memory_limit_bytes: BATCH_MEMORY_BYTES,
            query_rows: 4_000_000,
            reconcile_rows: 1_000_000,
            writes: 8,
            speed_wait: Duration::from_secs(60),
            tick: Duration::from_millis(100),
            vacuum_age: Duration::from_millis(VACUUM_AGE_MS),
            vacuum_every: Duration::from_millis(VACUUM_EVERY_MS),
            compaction: CompactionSettings::default(),
            runs_kept: RUNS_KEPT,
            runs_file: None,
            retry: RetrySettings::default(),
            fail_points: FailPoints::from_environment(),
        }
    }
}
