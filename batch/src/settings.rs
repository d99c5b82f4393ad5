//! How does the batch layer behave where it has a choice? Its settings, with their units and defaults.

use std::time::Duration;

use shared::limits::{BATCH_CACHE_BYTES, DEDUP_HORIZON_EVENTS, VACUUM_AGE_MS, VACUUM_EVERY_MS};

use crate::step::FailPoints;

/// Settings of the batch layer.
#[derive(Debug, Clone)]
pub struct BatchSettings {
    /// Events of a partition among which intake has already removed duplicates.
    pub dedup_horizon_events: u64,
    /// Batch rows held in memory, in bytes over all views.
    pub cache_bytes: usize,
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
    /// Runs remembered.
    pub runs_kept: usize,
    pub fail_points: FailPoints,
}

impl Default for BatchSettings {
    fn default() -> BatchSettings {
        BatchSettings {
            dedup_horizon_events: DEDUP_HORIZON_EVENTS,
            cache_bytes: BATCH_CACHE_BYTES,
            query_rows: 4_000_000,
            reconcile_rows: 1_000_000,
            writes: 8,
            speed_wait: Duration::from_secs(60),
            tick: Duration::from_millis(100),
            vacuum_age: Duration::from_millis(VACUUM_AGE_MS),
            vacuum_every: Duration::from_millis(VACUUM_EVERY_MS),
            runs_kept: 1_000,
            fail_points: FailPoints::from_environment(),
        }
    }
}
