//! Holds the settings of the batch layer, with their units and defaults.

use std::path::PathBuf;
use std::time::Duration;

use shared::limits::{
    BATCH_CACHE_BYTES, BATCH_MEMORY_BYTES, DEDUP_HORIZON_EVENTS, LOOKUP_BYTES_MAX, RUNS_KEPT, VACUUM_AGE_MS,
    VACUUM_EVERY_MS,
};

use crate::archive::settings::CompactionSettings;
use crate::engines::Engines;
use crate::fail_points::FailPoints;
use crate::runs::retry::RetrySettings;

/// Settings of the batch layer.
#[derive(Debug, Clone)]
pub struct BatchSettings {
    /// Events of a partition among which intake has already removed duplicates.
    pub dedup_horizon_events: u64,
    /// Decoded batch rows kept in memory, in bytes over all views.
    pub cache_bytes: usize,
    /// Memory that a run may use, in bytes, in addition to the cached rows.
    pub memory_limit_bytes: u64,
    /// Memory that the versions of the rows of a joined table may take during a run, in bytes.
    pub lookup_bytes_max: usize,
    /// Rows read with one query, unless a single event date has more and must be read at once.
    pub query_rows: u64,
    /// Rows of a reconciliation held in memory at once.
    pub reconcile_rows: u64,
    /// Files written at the same time.
    pub writes: usize,
    /// Longest wait for the speed layer to reach the cut after the archive has.
    pub speed_wait: Duration,
    /// Pause between two checks of the clock for schedules and retries.
    pub tick: Duration,
    /// Age at which an unused file is deleted.
    pub vacuum_age: Duration,
    /// Shortest time between two searches for unused files.
    pub vacuum_every: Duration,
    pub compaction: CompactionSettings,
    /// Runs kept in the run history, per view.
    pub runs_kept: usize,
    /// The file that keeps runs across restarts; `None`: runs are not kept.
    pub runs_file: Option<PathBuf>,
    /// The file that keeps the time of the last plausible clock; `None`: it is not kept.
    pub clock_note: Option<PathBuf>,
    /// When failed runs are retried.
    pub retry: RetrySettings,
    /// The views whose runs Spark may compute.
    pub engines: Engines,
    pub fail_points: FailPoints,
}

impl Default for BatchSettings {
    fn default() -> BatchSettings {
        BatchSettings {
            dedup_horizon_events: DEDUP_HORIZON_EVENTS,
            cache_bytes: BATCH_CACHE_BYTES,
            memory_limit_bytes: BATCH_MEMORY_BYTES,
            lookup_bytes_max: LOOKUP_BYTES_MAX,
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
            clock_note: None,
            retry: RetrySettings::default(),
            engines: Engines::default(),
            fail_points: FailPoints::from_environment(),
        }
    }
}
