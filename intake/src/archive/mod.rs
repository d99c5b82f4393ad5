//! Copies accepted events to the lake. Each partition has an archiver: a thread that follows the log, collects rows and
//! commits them as Parquet files, each offset exactly once, also across crashes.
//!
//! Events arrive through [`queue`], wait in [`pending`] and are divided into files by [`flush`]; [`worker`] is the
//! thread. If the lake fails, events stay in the log and the archiver retries.

mod flush;
mod pending;
mod queue;
mod retry;
#[cfg(feature = "fail-points")]
mod stepwise;
#[cfg(test)]
mod tests;
mod worker;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use lake::Lake;
use parking_lot::Mutex;
use shared::handoff::{Archive, HandoffError, LogReplay, LogRetention, LogSink};
use shared::ids::{Offset, Partition, StreamName};
use shared::limits;
use shared::seam::Cut;
use shared::stream::Stream;
use shared::vital::Vitals;
use tokio::runtime::Handle;
use tokio::sync::watch;

#[cfg(feature = "fail-points")]
pub use stepwise::StepwiseArchiver;

use queue::ArchiveQueue;
use worker::ArchiverThread;

/// The reader name under which the archiver releases the log.
pub const READER: &str = "archive";

/// Settings of an archiver: when it writes files, and how it retries.
#[derive(Debug, Clone, Copy)]
pub struct ArchiverSettings {
    /// Rows after which a file is written without waiting for more.
    pub file_rows: usize,
    /// Longest time an event waits for its file.
    pub wait: Duration,
    /// Memory of pending rows, in bytes, after which a file is written without waiting for more.
    pub file_bytes: usize,
    /// Memory of the batches that wait for the archiver, in bytes; further ones are read from the log again.
    pub queue_bytes_max: usize,
    /// Bytes of a partition's log that may wait for the archive before events are refused.
    pub backlog_bytes_max: u64,
    /// Pause after the first failure; it doubles up to `retry_max`.
    pub retry_first: Duration,
    /// Longest pause between two attempts.
    pub retry_max: Duration,
}

impl Default for ArchiverSettings {
    fn default() -> Self {
        ArchiverSettings {
            file_rows: limits::ARCHIVE_FILE_ROWS,
            wait: Duration::from_millis(limits::ARCHIVE_WAIT_MS),
            file_bytes: limits::ARCHIVE_FILE_BYTES,
            queue_bytes_max: limits::HANDOFF_QUEUE_BYTES_MAX,
            backlog_bytes_max: limits::ARCHIVE_BACKLOG_BYTES_MAX,
            retry_first: Duration::from_millis(100),
            retry_max: Duration::from_secs(10),
        }
    }
}

/// The progress of a partition's archiver.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ArchiveStatus {
    /// Every event before this offset is in the lake.
    pub archived: Offset,
    /// Rows in memory that are not in the lake yet.
    pub pending_rows: usize,
    /// Files committed since the start of the process.
    pub files: u64,
    /// Bytes of these files.
    pub bytes: u64,
    /// The error of the last attempt, until one succeeds.
    pub last_error: Option<String>,
}

/// Handles of an archiver to the lake, the log and the runtime.
#[derive(Clone)]
pub struct ArchiverContext {
    pub lake: Lake,
    pub log: Arc<dyn LogReplay>,
    pub retention: Arc<dyn LogRetention>,
    /// The runtime for reads and writes of the lake; it must be multi-threaded.
    pub runtime: Handle,
    /// Receives the failure of an archiver.
    pub vitals: Vitals,
}

/// The archivers of one stream, one thread per partition. Dropping it stops them; the next start replays uncommitted
/// events from the log.
pub struct StreamArchiver {
    stream: StreamName,
    partitions: BTreeMap<Partition, PartitionArchiver>,
}

struct PartitionArchiver {
    queue: Arc<ArchiveQueue>,
    status: Arc<Mutex<ArchiveStatus>>,
    /// `None` until the archive is open.
    archived: watch::Receiver<Option<Offset>>,
    thread: Option<JoinHandle<()>>,
}

impl StreamArchiver {
    /// Starts archiving `stream`: first the events that the log has and the archive does not, then those pushed to the
    /// sinks. The log may grow only after this has returned, and every item from then on must be pushed to the sinks.
    pub fn start(
        stream: Arc<Stream>,
        context: ArchiverContext,
        settings: ArchiverSettings,
    ) -> std::io::Result<StreamArchiver> {
        let mut partitions = BTreeMap::new();
        for partition in (0..stream.partitions).map(Partition) {
            let queue = Arc::new(ArchiveQueue::new(settings.queue_bytes_max));
            let status = Arc::new(Mutex::new(ArchiveStatus::default()));
            let (sender, archived) = watch::channel(None);
            let (_, head) = context.log.range(partition);
            let worker = ArchiverThread::new(
                stream.clone(),
                partition,
                context.clone(),
                settings,
                queue.clone(),
                status.clone(),
                sender,
            );
            let thread = context.vitals.spawn_thread(worker.name.clone(), move || worker.run(head))?;
            partitions.insert(partition, PartitionArchiver { queue, status, archived, thread: Some(thread) });
        }
        Ok(StreamArchiver { stream: stream.name.clone(), partitions })
    }

    /// The sink for the log writer of `partition`; `None` if the stream does not have it.
    pub fn sink(&self, partition: Partition) -> Option<Arc<dyn LogSink>> {
        self.partitions.get(&partition).map(|archiver| archiver.queue.clone() as Arc<dyn LogSink>)
    }

    /// The progress of each partition.
    pub fn status(&self) -> BTreeMap<Partition, ArchiveStatus> {
        let status = |archiver: &PartitionArchiver| {
            let mut status = archiver.status.lock().clone();
            status.pending_rows += archiver.queue.rows();
            status
        };
        self.partitions.iter().map(|(partition, archiver)| (*partition, status(archiver))).collect()
    }

    /// Every event of `partition` before this offset is in the lake; `None` until the archive is open.
    pub fn progress(&self, partition: Partition) -> Option<Offset> {
        self.partitions.get(&partition).and_then(|archiver| *archiver.archived.borrow())
    }

    fn archived(&self, cut: &Cut) -> BoxFuture<'static, Result<(), HandoffError>> {
        let mut waits = Vec::with_capacity(cut.0.len());
        for (partition, point) in &cut.0 {
            let Some(archiver) = self.partitions.get(partition) else {
                let error = HandoffError(format!("stream {} does not have a partition {partition}", self.stream));
                return async move { Err(error) }.boxed();
            };
            waits.push((archiver.archived.clone(), archiver.status.clone(), point.offset));
        }
        let stream = self.stream.clone();
        async move {
            for (mut archived, status, offset) in waits {
                if archived.wait_for(|present| present.is_some_and(|present| present >= offset)).await.is_err() {
                    let cause =
                        status.lock().last_error.clone().unwrap_or_else(|| "the process is stopping".to_owned());
                    return Err(HandoffError(format!("the archiver of {stream} has stopped: {cause}")));
                }
            }
            Ok(())
        }
        .boxed()
    }
}

impl Drop for StreamArchiver {
    fn drop(&mut self) {
        for archiver in self.partitions.values() {
            archiver.queue.close();
        }
        for thread in self.partitions.values_mut().filter_map(|archiver| archiver.thread.take()) {
            // A panic is recorded in the status when it happens.
            let _ = thread.join();
        }
    }
}

/// The archivers of all streams.
#[derive(Default)]
pub struct Archives {
    streams: BTreeMap<StreamName, StreamArchiver>,
}

impl Archives {
    /// Collects the archivers.
    pub fn new(archivers: impl IntoIterator<Item = StreamArchiver>) -> Archives {
        Archives { streams: archivers.into_iter().map(|archiver| (archiver.stream.clone(), archiver)).collect() }
    }

    /// The archiver of `stream`.
    pub fn stream(&self, stream: &StreamName) -> Option<&StreamArchiver> {
        self.streams.get(stream)
    }
}

impl Archive for Archives {
    fn archived(&self, stream: &StreamName, cut: &Cut) -> BoxFuture<'_, Result<(), HandoffError>> {
        match self.streams.get(stream) {
            Some(archiver) => archiver.archived(cut),
            None => {
                let error = HandoffError(format!("stream {stream} has no archiver"));
                async move { Err(error) }.boxed()
            }
        }
    }
}
