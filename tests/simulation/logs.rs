//! Opens the logs of a stream on a simulated disk, without threads, and provides them to the archivers.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use intake::log::{LogDisk, LogError, LogSettings};
use intake::partition::{KeyClaims, KeyRetention, PartitionLog, PartitionSettings};
use shared::clock::ManualClock;
use shared::handoff::{HandoffError, LogBatch, LogReplay, LogRetention};
use shared::ids::{Offset, Partition, StreamName};
use shared::stream::Stream;
use shared::stream_watermark::PartitionProgress;
use shared::vital::Vitals;

use crate::clients::Clients;
use crate::model::HORIZON;

/// Bytes of a segment: a few frames.
const SEGMENT_BYTES: u64 = 2_500;

/// The open partitions of a process, and the keys of its requests.
pub struct Logs {
    pub partitions: Vec<PartitionLog>,
    pub claims: Arc<KeyClaims>,
}

impl Logs {
    /// Opens all partitions and compares them with what clients know. They accept nothing before `start_stepwise`.
    ///
    /// # Errors
    /// A call of the disk failed.
    pub fn open(
        clients: &mut Clients,
        stream: &Arc<Stream>,
        clock: &ManualClock,
        disk: &Arc<dyn LogDisk>,
    ) -> Result<Logs, LogError> {
        let claims = Arc::new(KeyClaims::default());
        let mut partitions = Vec::new();
        for model in &mut clients.partitions {
            let dir = PathBuf::from(format!("/data/log/events/{}", model.partition));
            let (settings, clock) = (settings(Arc::clone(disk)), Arc::new(clock.clone()));
            let (stream, vitals) = (Arc::clone(stream), Vitals::default());
            let log = PartitionLog::open(&dir, stream, model.partition, settings, clock, &vitals, &claims)?;
            model.check_recovered(&log)?;
            partitions.push(log);
        }
        Ok(Logs { partitions, claims })
    }
}

impl LogReplay for Logs {
    fn range(&self, partition: Partition) -> (Offset, Offset) {
        self.partitions[partition.0 as usize].range()
    }

    fn progress(&self, partition: Partition) -> PartitionProgress {
        self.partitions[partition.0 as usize].progress()
    }

    fn replay(
        &self,
        partition: Partition,
        from: Offset,
        to: Offset,
        each: &mut dyn FnMut(LogBatch),
    ) -> Result<(), HandoffError> {
        let log = &self.partitions[partition.0 as usize];
        log.replay(from, to, each).map_err(|error| HandoffError(error.to_string()))
    }
}

impl LogRetention for Logs {
    fn release(&self, _: &StreamName, partition: Partition, reader: &str, offset: Offset) {
        self.partitions[partition.0 as usize].release(reader, offset);
    }
}

/// The stream that `sql` declares.
pub fn stream(sql: &str) -> Arc<Stream> {
    let parsed = shared::sql::parse_definitions(&[("s.sql".to_owned(), sql.to_owned())]);
    Arc::new(parsed.unwrap_or_else(|errors| panic!("{}", errors[0])).streams.remove(0))
}

fn settings(disk: Arc<dyn LogDisk>) -> PartitionSettings {
    let log = LogSettings { segment_bytes: SEGMENT_BYTES, keep_events: HORIZON, disk, ..LogSettings::default() };
    let idempotency = KeyRetention { keep: Duration::ZERO, keys_min: 1_000, bytes_max: usize::MAX };
    PartitionSettings { log, dedup_horizon_events: HORIZON, idempotency, ..PartitionSettings::default() }
}
