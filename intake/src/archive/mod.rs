//! How do accepted events reach the lake? Each partition has an archiver: a thread that follows the log, gathers rows
//! and commits them as Parquet files, each offset exactly once, whatever crashes when.
//!
//! [`queue`] is how events arrive, [`pending`] where they gather, [`flush`] how they are cut into files, [`worker`] the
//! thread. When the lake fails, events stay in the log and the archiver tries again.

mod flush;
mod pending;
mod queue;
mod retry;
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
use tokio::runtime::Handle;
use tokio::sync::watch;

use queue::Queue;
use worker::Worker;

/// The name under which the archiver releases the log.
pub const READER: &str = "archive";

/// When files are written, and how patient the archiver is.
#[derive(Debug, Clone, Copy)]
pub struct ArchiverSettings {
    /// Rows after which a file is written without waiting for more.
    pub file_rows: usize,
    /// Longest time an event waits for its file.
    pub wait: Duration,
    /// Rows waiting for the archiver before the log writer has to wait.
    pub queue_rows_max: usize,
    /// Pause after a first failure; it doubles up to `retry_max`.
    pub retry_first: Duration,
    pub retry_max: Duration,
}

impl Default for ArchiverSettings {
    fn default() -> Self {
        ArchiverSettings {
            file_rows: limits::ARCHIVE_FILE_ROWS,
            wait: Duration::from_millis(limits::ARCHIVE_WAIT_MS),
            queue_rows_max: limits::HANDOFF_QUEUE_ROWS_MAX,
            retry_first: Duration::from_millis(100),
            retry_max: Duration::from_secs(10),
        }
    }
}

/// How far a partition's archiver is.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ArchiveStatus {
    /// Every event before this offset is in the lake.
    pub archived: Offset,
    /// Rows in memory that are not.
    pub pending_rows: usize,
    /// Files committed since the start of the process, and their bytes.
    pub files: u64,
    pub bytes: u64,
    /// Why the last attempt failed, until one succeeds.
    pub last_error: Option<String>,
}

/// What an archiver needs of its surroundings.
#[derive(Clone)]
pub struct Surroundings {
    pub lake: Lake,
    pub log: Arc<dyn LogReplay>,
    pub retention: Arc<dyn LogRetention>,
    /// The runtime that the lake's reads and writes run on; it must be a multi-threaded one.
    pub runtime: Handle,
}

/// The archivers of one stream, one thread per partition. Dropping it stops them; what they had not committed is
/// replayed from the log at the next start.
pub struct StreamArchiver {
    stream: StreamName,
    partitions: BTreeMap<Partition, Running>,
}

struct Running {
    queue: Arc<Queue>,
    status: Arc<Mutex<ArchiveStatus>>,
    /// None until the archive is open.
    archived: watch::Receiver<Option<Offset>>,
    thread: Option<JoinHandle<()>>,
}

impl StreamArchiver {
    /// Starts archiving `stream`: first what the log holds and the archive does not, then what is pushed into the
    /// sinks. The log may grow only after this has returned, and every item from then on belongs into the sinks.
    pub fn start(
        stream: Arc<Stream>,
        surroundings: Surroundings,
        settings: ArchiverSettings,
    ) -> std::io::Result<StreamArchiver> {
        let mut partitions = BTreeMap::new();
        for partition in (0..stream.partitions).map(Partition) {
            let queue = Arc::new(Queue::new(settings.queue_rows_max));
            let status = Arc::new(Mutex::new(ArchiveStatus::default()));
            let (sender, archived) = watch::channel(None);
            let (_, head) = surroundings.log.range(partition);
            let worker = Worker::new(
                stream.clone(),
                partition,
                surroundings.clone(),
                settings,
                queue.clone(),
                status.clone(),
                sender,
            );
            let name = format!("archive-{}-{partition}", stream.name);
            let thread = std::thread::Builder::new().name(name).spawn(move || worker.run(head))?;
            partitions.insert(partition, Running { queue, status, archived, thread: Some(thread) });
        }
        Ok(StreamArchiver { stream: stream.name.clone(), partitions })
    }

    /// Where the log writer of `partition` pushes; none if the stream has no such partition.
    pub fn sink(&self, partition: Partition) -> Option<Arc<dyn LogSink>> {
        self.partitions.get(&partition).map(|running| running.queue.clone() as Arc<dyn LogSink>)
    }

    /// How far each partition is.
    pub fn status(&self) -> BTreeMap<Partition, ArchiveStatus> {
        let status = |running: &Running| {
            let mut status = running.status.lock().clone();
            status.pending_rows += running.queue.rows();
            status
        };
        self.partitions.iter().map(|(partition, running)| (*partition, status(running))).collect()
    }

    fn archived(&self, cut: &Cut) -> BoxFuture<'static, Result<(), HandoffError>> {
        let mut waits = Vec::with_capacity(cut.0.len());
        for (partition, point) in &cut.0 {
            let Some(running) = self.partitions.get(partition) else {
                let error = HandoffError(format!("stream {} has no partition {partition}", self.stream));
                return async move { Err(error) }.boxed();
            };
            waits.push((running.archived.clone(), running.status.clone(), point.offset));
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
        for running in self.partitions.values() {
            running.queue.close();
        }
        for thread in self.partitions.values_mut().filter_map(|running| running.thread.take()) {
            // A panic was noted in the status when it happened.
            let _ = thread.join();
        }
    }
}

/// The archivers of all streams, as runs see them.
#[derive(Default)]
pub struct Archives {
    streams: BTreeMap<StreamName, StreamArchiver>,
}

impl Archives {
    /// Those archivers.
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
