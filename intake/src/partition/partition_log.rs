//! What is one partition, from outside? Opened and recovered, then started, fed, cut, read again and closed.

use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;

use parking_lot::Mutex;
use shared::clock::Clock;
use shared::handoff::{LogBatch, LogSink};
use shared::ids::{Offset, Partition, ViewName};
use shared::seam::CutPoint;
use shared::stream::Stream;
use shared::stream_watermark::PartitionProgress;
use shared::time::Micros;
use tokio::sync::oneshot;

use super::keys::{FrameMeta, KeyMemory};
use super::queue::{Item, Queue};
use super::sequence::Sequencer;
use super::settings::PartitionSettings;
use super::status::{Live, PartitionStatus};
use super::submission::{Submission, SubmitError};
use super::writer::{OnFatal, Writer};
use crate::log::{self, LogError, Store};

/// One partition's log and its writer.
pub struct PartitionLog {
    stream: Arc<Stream>,
    partition: Partition,
    store: Arc<Store>,
    queue: Arc<Queue>,
    live: Arc<Mutex<Live>>,
    stage: Mutex<Stage>,
}

enum Stage {
    /// Recovered; sinks may still be attached.
    Idle(Box<Writer>),
    Running(JoinHandle<()>),
    Closed,
}

/// Room for one submission in a partition's queue; given back when dropped.
pub(crate) struct Room<'a> {
    queue: &'a Queue,
    bytes: usize,
}

impl Drop for Room<'_> {
    fn drop(&mut self) {
        self.queue.unreserve(self.bytes);
    }
}

impl PartitionLog {
    /// Opens or creates the log in `dir` and rebuilds from it what the writer has to know: one scan of everything, then the
    /// ids of the dedup horizon. Blocking.
    pub fn open(
        dir: &Path,
        stream: Arc<Stream>,
        partition: Partition,
        settings: PartitionSettings,
        clock: Arc<dyn Clock>,
        on_fatal: OnFatal,
    ) -> Result<Self, LogError> {
        let mut keys = KeyMemory::new(settings.idempotency_keys_max);
        let opened = log::open(dir, partition, stream.clone(), settings.log.clone(), &mut |frame| {
            if frame.meta().is_empty() {
                return Ok(());
            }
            let meta: FrameMeta = serde_json::from_slice(frame.meta()).map_err(|_| "a frame's meta is not readable")?;
            meta.keys.into_iter().for_each(|record| keys.remember(record));
            keys.commit();
            Ok(())
        })?;
        let (store, totals) = (opened.store, opened.totals);
        let head = totals.head();
        let ids_from = Offset(head.0.saturating_sub(settings.dedup_horizon_events)).max(store.start());
        let mut sequencer = Sequencer::new(partition, &stream, &settings, keys, totals, ids_from);
        if let Some(primary_key) = stream.primary_key {
            log::column(&store, primary_key, ids_from, head, &mut |ids| sequencer.restore(&ids))?;
        }
        let last_arrived_at = opened.last_arrived_at;
        let live = Arc::new(Mutex::new(Live { totals, head, last_arrived_at, last_sync_ms: None }));
        let queue = Arc::new(Queue::new(settings.queue_bytes_max));
        let writer = Writer {
            partition,
            schema: stream.log_schema(),
            settings,
            queue: queue.clone(),
            sequencer,
            appender: opened.appender,
            sinks: Vec::new(),
            clock,
            live: live.clone(),
            on_fatal,
        };
        let stage = Mutex::new(Stage::Idle(Box::new(writer)));
        Ok(PartitionLog { stream, partition, store, queue, live, stage })
    }

    /// Lets `sink` see everything from the present head on. Has no effect once the partition was started: the sink would
    /// miss what came in between.
    pub fn attach(&self, sink: Arc<dyn LogSink>) {
        match &mut *self.stage.lock() {
            Stage::Idle(writer) => writer.sinks.push(sink),
            _ => tracing::error!(partition = %self.partition, "a sink was attached after the start and sees nothing"),
        }
    }

    /// Starts the writer's thread; from now on events are taken. Fails if the system has no more threads.
    pub fn start(&self) -> std::io::Result<()> {
        let mut stage = self.stage.lock();
        match std::mem::replace(&mut *stage, Stage::Closed) {
            Stage::Idle(writer) => {
                let name = format!("log-{}-{}", self.stream.name, self.partition);
                // First, because a writer whose queue is closed and empty ends.
                self.queue.open();
                let thread = std::thread::Builder::new().name(name).spawn(move || writer.run());
                let thread = thread.inspect_err(|_| self.queue.close())?;
                *stage = Stage::Running(thread);
            }
            other => *stage = other,
        }
        Ok(())
    }

    /// Hands a submission to the writer, which answers through `submission.reply`. Never blocks.
    pub fn try_submit(&self, submission: Submission) -> Result<(), SubmitError> {
        let room = self.reserve(&submission)?;
        self.submit(room, submission)
    }

    /// Checks a submission and reserves room for it.
    pub(crate) fn reserve(&self, submission: &Submission) -> Result<Room<'_>, SubmitError> {
        let bytes = submission.check(&self.stream)?;
        self.queue.reserve(bytes)?;
        Ok(Room { queue: &self.queue, bytes })
    }

    /// Submits into reserved room.
    pub(crate) fn submit(&self, room: Room<'_>, submission: Submission) -> Result<(), SubmitError> {
        let item = Item::Submission { submission, bytes: room.bytes };
        self.queue.push(item).map_err(|_| SubmitError::Stopped)?;
        // The room is in use now; the writer gives it back.
        std::mem::forget(room);
        Ok(())
    }

    /// Puts a cut of `view` in band, behind everything submitted so far. The receiver learns where it lies when all before
    /// it is durable and shown; it gets an error if the log stops before. `None` if the partition takes nothing now.
    pub fn cut(&self, view: &ViewName) -> Option<oneshot::Receiver<CutPoint>> {
        let (reply, point) = oneshot::channel();
        self.queue.push(Item::Cut { view: view.clone(), reply }).ok().map(|()| point)
    }

    /// The oldest offset in the log and the first that is not durable.
    pub fn range(&self) -> (Offset, Offset) {
        let head = self.store.head();
        (self.store.start(), head)
    }

    /// Calls `each` with the durable batches of `from..to`, in order, the first and the last sliced to fit. Blocking.
    pub fn replay(&self, from: Offset, to: Offset, each: &mut dyn FnMut(LogBatch)) -> Result<(), LogError> {
        log::batches(&self.store, from, to, each)
    }

    /// Keeps the log for `reader` until it releases.
    pub fn register_reader(&self, reader: &str) {
        self.store.register(reader);
    }

    /// `reader` needs nothing before `offset` any more. Registers it if need be.
    pub fn release(&self, reader: &str, offset: Offset) {
        self.store.release(reader, offset);
    }

    /// How far the partition has come; caught up if nothing waits for its writer or is being written.
    pub fn progress(&self) -> PartitionProgress {
        // Before the figures: what is no longer on its way is in them.
        let caught_up = self.queue.is_clear();
        let live = *self.live.lock();
        let watermark = (live.totals.watermark != Micros::MIN).then_some(live.totals.watermark);
        PartitionProgress { watermark, last_arrival: live.last_arrived_at, caught_up }
    }

    /// The present figures.
    pub fn status(&self) -> PartitionStatus {
        let live = *self.live.lock();
        let totals = live.totals;
        PartitionStatus {
            partition: self.partition,
            log_start: self.store.start(),
            head: live.head,
            durable: self.store.head(),
            watermark: (totals.watermark != Micros::MIN).then_some(totals.watermark),
            accepted: totals.accepted.events,
            duplicates: totals.duplicates,
            late: totals.late,
            ahead: totals.ahead,
            log_bytes: self.store.bytes(),
            queued_bytes: self.queue.bytes() as u64,
            last_arrived_at: live.last_arrived_at,
            last_sync_ms: live.last_sync_ms,
        }
    }

    /// Takes nothing more, writes what waits, and ends the thread. Blocking; done once, later calls have no effect.
    pub fn close(&self) {
        self.queue.close();
        let stage = std::mem::replace(&mut *self.stage.lock(), Stage::Closed);
        // The thread catches its own panics, so there is nothing in the result.
        if let Stage::Running(thread) = stage {
            let _ = thread.join();
        }
    }
}

impl Drop for PartitionLog {
    fn drop(&mut self) {
        self.close();
    }
}
