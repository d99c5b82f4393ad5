//! Combines the partitions of one stream: requests are written to all of their partitions or to none, one cut covers all
//! partitions, and each partition is replayed by itself.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock, Weak};

use arrow::array::{BooleanArray, RecordBatch};
use shared::clock::Clock;
use shared::control::PartitionStatus;
use shared::handoff::{HandoffError, LogBatch, LogReplay, LogSink};
use shared::ids::{Offset, Partition, ViewName};
use shared::live_state::LiveState;
use shared::seam::Cut;
use shared::stream::Stream;
use shared::stream_watermark::{PartitionProgress, StreamWatermark};
use shared::time::Micros;
use shared::vital::Vitals;

use crate::archive::ArchiveStatus;
use crate::lateness::StreamLateness;
use crate::log::{self, LogError, Totals};
use crate::partition::{IdempotencyKey, KeyClaim, KeyClaims, PartitionLog, PartitionSettings, Submission, SubmitError};

/// Knows which partitions have records in their source that are not in the log yet.
pub trait Backlog: Send + Sync {
    /// Returns whether records of the partition wait.
    fn waits(&self, partition: Partition) -> bool;
}

/// The log of one stream.
pub struct StreamLog {
    stream: Arc<Stream>,
    /// Holds a folder for each partition.
    dir: PathBuf,
    partitions: Vec<PartitionLog>,
    claims: Arc<KeyClaims>,
    lateness: Arc<StreamLateness>,
    watermark: StreamWatermark,
    /// The live state that the stream's events add to, if it is bounded.
    live_state: OnceLock<Arc<LiveState>>,
    /// Of a stream that reads a topic. Weak: it looks at the log.
    backlog: OnceLock<Weak<dyn Backlog>>,
}

impl StreamLog {
    /// Opens all partitions under `dir/log/<stream>/`, as many at once as there are cores. Blocking. Refuses a partition
    /// that is on disk but no longer declared: its events would disappear from every result.
    pub fn open(
        dir: &Path,
        stream: Arc<Stream>,
        settings: &PartitionSettings,
        clock: &Arc<dyn Clock>,
        vitals: &Vitals,
    ) -> Result<Self, LogError> {
        let dir = dir.join("log").join(stream.name.as_str());
        refuse_undeclared(&dir, stream.partitions)?;
        let lateness = StreamLateness::new(Arc::clone(&stream), settings.lateness.clone());
        let claims = Arc::new(KeyClaims::default());
        let open = |partition: u32| -> Result<PartitionLog, LogError> {
            let path = dir.join(partition.to_string());
            let (mut settings, clock) = (settings.clone(), clock.clone());
            if let Some(begin) = settings.begins.get(&(stream.name.clone(), Partition(partition))) {
                settings.log.begin = *begin;
            }
            let log =
                PartitionLog::open(&path, stream.clone(), Partition(partition), settings, clock, vitals, &claims)?;
            let (start, head) = log.range();
            let from = Offset(head.0.saturating_sub(lateness.reread_events())).max(start);
            log.replay(from, head, &mut |batch| lateness.observe(&batch))?;
            Ok(log)
        };
        let at_once = std::thread::available_parallelism().map_or(1, usize::from);
        let all: Vec<u32> = (0..stream.partitions).collect();
        let mut partitions = Vec::with_capacity(all.len());
        for some in all.chunks(at_once) {
            let opened: Vec<_> = std::thread::scope(|scope| {
                let threads: Vec<_> = some.iter().map(|p| scope.spawn(|| open(*p))).collect();
                threads.into_iter().map(|t| t.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))).collect()
            });
            for partition in opened {
                partitions.push(partition?);
            }
        }
        let lateness = Arc::new(lateness);
        Ok(StreamLog {
            stream,
            dir,
            partitions,
            claims,
            lateness,
            watermark: StreamWatermark::default(),
            live_state: OnceLock::new(),
            backlog: OnceLock::new(),
        })
    }

    /// Creates the folders of `partitions` partitions, so that the next start opens as many of a stream that reads a topic.
    pub(crate) fn make_folders(&self, partitions: u32) -> std::io::Result<()> {
        let make = |partition: u32| std::fs::create_dir_all(self.dir.join(partition.to_string()));
        (self.stream.partitions..partitions).try_for_each(make)?;
        std::fs::File::open(&self.dir)?.sync_all()
    }

    /// The stream's declaration.
    pub fn stream(&self) -> &Arc<Stream> {
        &self.stream
    }

    /// One of its partitions.
    pub fn partition(&self, partition: Partition) -> Option<&PartitionLog> {
        self.partitions.get(partition.0 as usize)
    }

    /// Pushes the events that `partition` will accept to `sink`. Call it before [`StreamLog::start`].
    pub fn attach(&self, partition: Partition, sink: Arc<dyn LogSink>) {
        match self.partition(partition) {
            Some(log) => log.attach(sink),
            None => {
                tracing::error!(stream = %self.stream.name, %partition, "cannot attach a sink to an unknown partition")
            }
        }
    }

    /// Pushes everything after the present heads to `sink` before it is acknowledged: see [`PartitionLog::attach_figures`].
    pub fn attach_figures(&self, sink: &Arc<dyn LogSink>) {
        self.partitions.iter().for_each(|partition| partition.attach_figures(Arc::clone(sink)));
    }

    /// Starts all partitions, and with it accepts events.
    pub fn start(&self) -> std::io::Result<()> {
        self.partitions.iter().for_each(|partition| partition.attach_figures(Arc::clone(&self.lateness) as _));
        self.partitions.iter().try_for_each(PartitionLog::start)
    }

    /// Claims an idempotency key for its body, over all partitions.
    ///
    /// # Errors
    /// [`SubmitError::KeyReused`] if the key was used with another body.
    pub fn claim_key(&self, key: &IdempotencyKey) -> Result<Arc<KeyClaim>, SubmitError> {
        self.claims.claim(key).ok_or(SubmitError::KeyReused)
    }

    /// Submits the parts of one request, all or none of them: a refusal leaves nothing that a retry would duplicate. A
    /// writer that ends meanwhile drops the reply of its part.
    pub fn try_submit(&self, parts: Vec<(Partition, Submission)>) -> Result<(), SubmitError> {
        if let Some(live_state) = self.live_state.get() {
            live_state.check()?;
        }
        let mut reserved = Vec::with_capacity(parts.len());
        for (partition, submission) in &parts {
            let log = self.partition(*partition).ok_or(SubmitError::NoPartition(*partition))?;
            reserved.push((log, log.reserve(submission)?));
        }
        for ((log, reservation), (_, submission)) in reserved.into_iter().zip(parts) {
            // If the writer has just ended, the part gets no reply, like one that the writer did not reach.
            let _ = log.submit(reservation, submission);
        }
        Ok(())
    }

    /// Cuts every partition for `view`, each at the end of its log when its writer processes the cut.
    pub async fn cut(&self, view: &ViewName) -> Result<Cut, HandoffError> {
        let stopped = || HandoffError(format!("cannot cut stream {}: it is stopping", self.stream.name));
        let mut points = Vec::with_capacity(self.partitions.len());
        for partition in &self.partitions {
            points.push(partition.cut(view).ok_or_else(stopped)?);
        }
        let mut cut = Cut::default();
        for (number, point) in points.into_iter().enumerate() {
            cut.0.insert(Partition(number as u32), point.await.map_err(|_| stopped())?);
        }
        Ok(cut)
    }

    /// Keeps all partitions' logs for `reader` until it releases.
    pub fn register_reader(&self, reader: &str) {
        self.partitions.iter().for_each(|partition| partition.register_reader(reader));
    }

    /// Keeps all partitions' logs for a live reader, which may be behind by `backlog_bytes_max` bytes of each.
    pub fn register_live_reader(&self, reader: &str, backlog_bytes_max: u64) {
        self.partitions.iter().for_each(|partition| partition.register_live_reader(reader, backlog_bytes_max));
    }

    /// Refuses events while the live state to which they add is too large. Only the first call counts.
    pub fn bound_live_state(&self, live_state: Arc<LiveState>) {
        let _ = self.live_state.set(live_state);
    }

    /// Lets partitions whose source has further records count as active, whenever the last event arrived. Only the first call
    /// counts.
    pub fn watch_backlog(&self, backlog: Weak<dyn Backlog>) {
        let _ = self.backlog.set(backlog);
    }

    /// Its partitions, in order.
    pub fn partitions(&self) -> &[PartitionLog] {
        &self.partitions
    }

    /// The lateness of its events.
    pub fn lateness(&self) -> &StreamLateness {
        &self.lateness
    }

    /// The watermark of the stream at `now`, over the durable events; never goes back.
    pub fn watermark(&self, now: Micros) -> Option<Micros> {
        let progress = (0..self.stream.partitions).map(|partition| self.progress(Partition(partition)));
        self.watermark.advance(progress, self.stream.idle_timeout, now)
    }

    /// The totals of the partitions, in order.
    pub fn totals(&self) -> impl Iterator<Item = Totals> {
        self.partitions.iter().map(PartitionLog::totals)
    }

    /// The figures of the partitions, in order, together with those of their archivers.
    pub fn status(&self, archives: &BTreeMap<Partition, ArchiveStatus>) -> Vec<PartitionStatus> {
        let status = |(partition, log): (u32, &PartitionLog)| {
            let archive = archives.get(&Partition(partition)).cloned().unwrap_or_default();
            log.status(archive.archived, archive.last_error)
        };
        (0..).zip(&self.partitions).map(status).collect()
    }

    /// Stops accepting events, writes those that wait and ends the writers. Blocking.
    pub fn close(&self) {
        self.partitions.iter().for_each(PartitionLog::close);
    }
}

impl LogReplay for StreamLog {
    fn range(&self, partition: Partition) -> (Offset, Offset) {
        self.partition(partition).map_or((Offset(0), Offset(0)), PartitionLog::range)
    }

    fn progress(&self, partition: Partition) -> PartitionProgress {
        let unknown = PartitionProgress { watermark: None, last_arrival: None, caught_up: true };
        // Read before the figures, as the events on their way to the writer are.
        let waits = self.backlog.get().and_then(Weak::upgrade).is_some_and(|backlog| backlog.waits(partition));
        let progress = self.partition(partition).map_or(unknown, PartitionLog::progress);
        PartitionProgress { caught_up: progress.caught_up && !waits, ..progress }
    }

    fn replay(
        &self,
        partition: Partition,
        from: Offset,
        to: Offset,
        each: &mut dyn FnMut(LogBatch),
    ) -> Result<(), HandoffError> {
        let no_partition =
            || HandoffError(format!("stream {} does not have a partition {partition}", self.stream.name));
        let log = self.partition(partition).ok_or_else(no_partition)?;
        log.replay(from, to, each).map_err(|e| HandoffError(e.to_string()))
    }

    fn erased(&self, partition: Partition, rows: &RecordBatch) -> Option<BooleanArray> {
        let (entity, sequence) = self.stream.entity.zip(self.stream.sequence())?;
        self.partition(partition)?.tombstones().rows(rows.column(entity), rows.column(sequence))
    }
}

fn refuse_undeclared(dir: &Path, partitions: u32) -> Result<(), LogError> {
    if !dir.exists() {
        return Ok(());
    }
    for entry in std::fs::read_dir(dir).map_err(LogError::io(dir))? {
        let path = entry.map_err(LogError::io(dir))?.path();
        let number = path.file_name().and_then(|name| name.to_str()).and_then(|name| name.parse::<u32>().ok());
        if number.is_some_and(|number| number >= partitions) && log::inspect(dir)?.partitions > partitions {
            let reason = format!("the partition holds events, but the stream declares only {partitions} partitions");
            return Err(LogError::Misplaced { path, reason });
        }
    }
    Ok(())
}
