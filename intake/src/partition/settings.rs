//! Holds the limits of one partition's writer, as values that tests may lower.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use shared::ids::{Partition, StreamName};
use shared::limits;

use super::keys::KeyRetention;
use crate::lateness::LatenessSettings;
use crate::log::{LogSettings, Totals};

/// Settings of one partition's writer.
#[derive(Clone)]
pub struct PartitionSettings {
    pub log: LogSettings,
    /// Totals at which partitions without a log start; offset 0 for those not named.
    pub begins: Arc<BTreeMap<(StreamName, Partition), Totals>>,
    /// What the stream remembers of late events, all partitions together.
    pub lateness: LatenessSettings,
    /// Accepted events whose ids are remembered, counted back from the newest. Less than 2^31.
    pub dedup_horizon_events: u64,
    /// Entities that a partition may have.
    pub entities_max: usize,
    /// Bytes of the current rows of a partition of a table.
    pub table_bytes_max: usize,
    /// How long idempotency keys are remembered.
    pub idempotency: KeyRetention,
    /// Event bytes that may wait for the writer.
    pub queue_bytes_max: usize,
    /// Event bytes that are written with one sync.
    pub group_bytes_max: usize,
    /// Rows up to which waiting submissions are combined into one batch.
    pub batch_rows_max: usize,
    /// Idle time after which the log is marked as durable to its end.
    pub mark_after: Duration,
}

impl Default for PartitionSettings {
    fn default() -> Self {
        PartitionSettings {
            log: LogSettings::default(),
            begins: Arc::default(),
            lateness: LatenessSettings::default(),
            dedup_horizon_events: limits::DEDUP_HORIZON_EVENTS,
            entities_max: limits::ENTITIES_MAX,
            table_bytes_max: limits::TABLE_ROWS_BYTES_MAX,
            idempotency: KeyRetention::default(),
            queue_bytes_max: limits::WRITER_QUEUE_BYTES_MAX,
            group_bytes_max: limits::GROUP_COMMIT_BYTES_MAX,
            batch_rows_max: limits::FOLD_ROWS_MAX,
            mark_after: Duration::from_millis(500),
        }
    }
}
