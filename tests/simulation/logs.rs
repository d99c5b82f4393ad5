//! Opens the logs of a stream on a simulated disk, without threads, and provides them to the archivers.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use intake::log::{LogDisk, LogError, LogSettings};
use intake::partition::{KeyClaims, KeyRetention, PartitionLog, PartitionSettings};
use shared::clock::ManualClock;
use shared::handoff::{Cutter, HandoffError, LogBatch, LogReplay, LogRetention};
use shared::ids::{Offset, Partition, StreamName, ViewName};
use shared::seam::Cut;
use shared::sink::Sink;
use shared::sql::Definitions;
use shared::stream::Stream;
use shared::stream_watermark::PartitionProgress;
use shared::view::View;
use shared::vital::Vitals;

use crate::clients::Clients;
use crate::disk::Disk;
use crate::model::HORIZON;

/// Bytes of a segment: a few frames.
const SEGMENT_BYTES: u64 = 2_500;

/// The open partitions of a process, and the keys of its requests.
pub struct Logs {
    /// Has the trace.
    disk: Disk,
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
        (disk, of_process): (&Disk, &Arc<dyn LogDisk>),
    ) -> Result<Logs, LogError> {
        let claims = Arc::new(KeyClaims::default());
        let mut partitions = Vec::new();
        for model in &mut clients.partitions {
            let dir = PathBuf::from(format!("/data/log/events/{}", model.partition));
            let (settings, clock) = (settings(Arc::clone(of_process)), Arc::new(clock.clone()));
            let (stream, vitals) = (Arc::clone(stream), Vitals::default());
            let log = PartitionLog::open(&dir, stream, model.partition, settings, clock, &vitals, &claims)?;
            model.check_recovered(&log)?;
            partitions.push(log);
        }
        Ok(Logs { disk: disk.clone(), partitions, claims })
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

impl Cutter for Logs {
    /// Lets every writer step until its cut is in the log, on the thread of the caller.
    fn cut(&self, _: &StreamName, view: &ViewName) -> BoxFuture<'_, Result<Cut, HandoffError>> {
        let view = view.clone();
        let cut = move || {
            let mut points = BTreeMap::new();
            for (partition, log) in (0..).map(Partition).zip(&self.partitions) {
                let mut point = log.cut(&view).ok_or_else(|| HandoffError("the log is closed".to_owned()))?;
                let stepped = log.step();
                self.disk.note(format!("cut of {partition}: {stepped:?}"));
                stepped.map_err(HandoffError)?;
                points.insert(partition, point.try_recv().expect("a position"));
            }
            Ok(Cut(points))
        };
        async move { cut() }.boxed()
    }
}

impl LogRetention for Logs {
    fn release(&self, _: &StreamName, partition: Partition, reader: &str, offset: Offset) {
        self.partitions[partition.0 as usize].release(reader, offset);
    }
}

/// The stream that `sql` declares.
pub fn stream(sql: &str) -> Arc<Stream> {
    Arc::new(definitions(&[sql]).streams.remove(0))
}

/// The stream and the view that two texts declare.
pub fn stream_and_view(stream: &str, view: &str) -> (Arc<Stream>, Arc<View>) {
    let mut definitions = definitions(&[stream, view]);
    (Arc::new(definitions.streams.remove(0)), Arc::new(definitions.views.remove(0)))
}

/// The sinks that two texts declare.
pub fn declared_sinks(stream: &str, view_and_sinks: &str) -> Vec<Sink> {
    definitions(&[stream, view_and_sinks]).sinks
}

fn definitions(texts: &[&str]) -> Definitions {
    let files: Vec<_> = texts.iter().zip(0..).map(|(text, file)| (format!("{file}.sql"), (*text).to_owned())).collect();
    shared::sql::parse_definitions(&files).unwrap_or_else(|errors| panic!("{}", errors[0]))
}

fn settings(disk: Arc<dyn LogDisk>) -> PartitionSettings {
    let log = LogSettings { segment_bytes: SEGMENT_BYTES, keep_events: HORIZON, disk, ..LogSettings::default() };
    let idempotency = KeyRetention { keep: Duration::ZERO, keys_min: 1_000, bytes_max: usize::MAX };
    PartitionSettings { log, dedup_horizon_events: HORIZON, idempotency, ..PartitionSettings::default() }
}
