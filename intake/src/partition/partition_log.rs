//! Provides the interface of one partition: open and recover, start, submit, cut, replay and close.

use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;

use arrow::array::{ArrayRef, BooleanArray};
use parking_lot::Mutex;
use shared::clock::Clock;
use shared::control::PartitionStatus;
use shared::handoff::{LogBatch, LogSink};
use shared::ids::{Offset, Partition, ViewName};
use shared::seam::CutPoint;
use shared::stream::Stream;
use shared::stream_watermark::PartitionProgress;
use shared::time::Micros;
use shared::vital::Vitals;
use tokio::sync::oneshot;

use super::current_rows::CurrentRows;
use super::entities::{EntityTable, stored_sequences};
use super::key_claims::KeyClaims;
use super::key_files::KeyFiles;
use super::keys::{FrameMeta, KeyMemory};
use super::queue::{QueueItem, WriterQueue};
use super::sequence::Sequencer;
use super::settings::PartitionSettings;
use super::submission::{Erasure, Submission, SubmitError};
use super::writer::Writer;
use crate::event_id::{event_hashes, hash_ids};
use crate::log::{self, LogError, MatchingRows, SegmentStore, SourcePosition, Tombstones, Totals};

/// One partition's log and its writer.
pub struct PartitionLog {
    stream: Arc<Stream>,
    partition: Partition,
    store: Arc<SegmentStore>,
    queue: Arc<WriterQueue>,
    live: Arc<Mutex<LiveFigures>>,
    /// `None` without an entity.
    entities: Option<Arc<EntityTable>>,
    /// `None` unless it is a table.
    rows: Option<Arc<CurrentRows>>,
    state: Mutex<WriterState>,
    vitals: Vitals,
}

/// The figures that the writer updates.
#[derive(Debug, Clone)]
pub(crate) struct LiveFigures {
    /// Totals after the last durable group.
    pub totals: Totals,
    pub last_arrived_at: Option<Micros>,
    /// The position in the topic that the stream reads.
    pub source: Option<SourcePosition>,
}

enum WriterState {
    /// Recovered; sinks may still be attached.
    Idle(Box<Writer>),
    Running(JoinHandle<()>),
    /// Without a thread: the caller makes each step.
    #[cfg(feature = "fail-points")]
    Stepwise(Box<Writer>),
    Closed,
}

/// Room for one submission in a partition's queue; returned when dropped.
pub(crate) struct Reservation<'a> {
    queue: &'a WriterQueue,
    bytes: usize,
}

impl Drop for Reservation<'_> {
    fn drop(&mut self) {
        self.queue.unreserve(self.bytes);
    }
}

impl PartitionLog {
    /// Opens or creates the log in `dir` and rebuilds the writer's state from it: the key files, one scan of all frames, then
    /// the ids of the dedup horizon. Keys are claimed in `claims`, which all partitions of a stream share. Blocking.
    pub fn open(
        dir: &Path,
        stream: Arc<Stream>,
        partition: Partition,
        settings: PartitionSettings,
        clock: Arc<dyn Clock>,
        vitals: &Vitals,
        claims: &Arc<KeyClaims>,
    ) -> Result<Self, LogError> {
        let mut keys = KeyMemory::new(settings.idempotency);
        let mut key_files = KeyFiles::open(&settings.log.disk, dir, &mut keys, claims)?;
        let opened = log::open(dir, partition, stream.clone(), settings.log.clone(), &mut |frame| {
            if frame.meta().is_empty() {
                return Ok(None);
            }
            let meta: FrameMeta =
                serde_json::from_slice(frame.meta()).map_err(|_| "the meta of a frame is not readable")?;
            keys.restore(meta.keys, frame.header.arrived_at, claims);
            Ok(meta.source)
        })?;
        let tombstones = Arc::clone(&opened.store.tombstones);
        if keys.forget(|entity| tombstones.contains(entity.0)) {
            key_files.replace(&mut keys).map_err(LogError::io(dir))?;
        }
        let (store, totals) = (opened.store, opened.totals);
        if keys.has_unsaved() {
            key_files.hold(&store, store.start());
            key_files.settle(&mut keys, &store);
        }
        let head = totals.head();
        let ids_from = Offset(head.0.saturating_sub(settings.dedup_horizon_events)).max(store.start());
        let source = opened.source;
        let mut sequencer =
            Sequencer::new(partition, &stream, &settings, (keys, tombstones), totals, ids_from).at(source.clone());
        let rows = CurrentRows::new(&stream)?;
        sequencer = sequencer.over(rows, settings.table_bytes_max);
        restore(&store, &stream, (ids_from, head), &mut sequencer)?;
        let entities = sequencer.entity_table().cloned();
        let rows = sequencer.current_rows().cloned();
        let last_arrived_at = opened.last_arrived_at;
        let live = Arc::new(Mutex::new(LiveFigures { totals, last_arrived_at, source }));
        let queue = Arc::new(WriterQueue::new(settings.queue_bytes_max));
        let writer = Writer {
            partition,
            schema: stream.log_schema(),
            settings,
            queue: queue.clone(),
            sequencer,
            appender: opened.appender,
            store: store.clone(),
            key_files,
            figures: Vec::new(),
            sinks: Vec::new(),
            clock,
            live: live.clone(),
            name: format!("log-{}-{partition}", stream.name),
        };
        let state = Mutex::new(WriterState::Idle(Box::new(writer)));
        Ok(PartitionLog { stream, partition, store, queue, live, entities, rows, state, vitals: vitals.clone() })
    }

    /// Pushes everything after the present head to `sink` before it is acknowledged: the sink holds figures that a client
    /// must find up to date. It must not wait. Has no effect once the partition was started.
    pub fn attach_figures(&self, sink: Arc<dyn LogSink>) {
        if let WriterState::Idle(writer) = &mut *self.state.lock() {
            writer.figures.push(sink);
        }
    }

    /// Pushes everything after the present head to `sink`. Has no effect once the partition was started: the sink would
    /// have missed events.
    pub fn attach(&self, sink: Arc<dyn LogSink>) {
        match &mut *self.state.lock() {
            WriterState::Idle(writer) => writer.sinks.push(sink),
            _ => {
                tracing::error!(partition = %self.partition, "a sink was attached after the start; it receives nothing")
            }
        }
    }

    /// Starts the writer's thread, and with it accepts events. Fails if the system has no more threads.
    pub fn start(&self) -> std::io::Result<()> {
        self.settle_rows();
        let mut state = self.state.lock();
        match std::mem::replace(&mut *state, WriterState::Closed) {
            WriterState::Idle(writer) => {
                // Before the thread starts: a writer whose queue is closed and empty ends.
                self.queue.open();
                let thread = self.vitals.spawn_thread(writer.name.clone(), move || writer.run());
                let thread = thread.inspect_err(|_| self.queue.close())?;
                *state = WriterState::Running(thread);
            }
            other => *state = other,
        }
        Ok(())
    }

    fn settle_rows(&self) {
        if let Some(rows) = &self.rows {
            rows.settle();
        }
    }

    /// Accepts events like [`PartitionLog::start`], but without a thread: [`PartitionLog::step`] does its work.
    #[cfg(feature = "fail-points")]
    pub fn start_stepwise(&self) {
        self.settle_rows();
        let mut state = self.state.lock();
        match std::mem::replace(&mut *state, WriterState::Closed) {
            WriterState::Idle(writer) => {
                self.queue.open();
                *state = WriterState::Stepwise(writer);
            }
            other => *state = other,
        }
    }

    /// Does once what the writer's thread would do next: writes a group of what waits, or if nothing waits, marks the log as
    /// durable to its end. Returns whether anything waited. Has no effect unless started stepwise.
    ///
    /// # Errors
    /// The log can no longer be written safely: the process has to stop.
    #[cfg(feature = "fail-points")]
    pub fn step(&self) -> Result<bool, String> {
        match &mut *self.state.lock() {
            WriterState::Stepwise(writer) => writer.step(),
            _ => Ok(false),
        }
    }

    /// Hands a submission to the writer, which replies through `submission.reply`. Never blocks.
    pub fn try_submit(&self, submission: Submission) -> Result<(), SubmitError> {
        let reservation = self.reserve(&submission)?;
        self.submit(reservation, submission)
    }

    /// Checks a submission and reserves room for it.
    pub(crate) fn reserve(&self, submission: &Submission) -> Result<Reservation<'_>, SubmitError> {
        let bytes = submission.check(&self.stream)?;
        // I9: a reader that is behind costs disk up to its limit, then the client gets 429.
        if let Some(backlog) = self.store.exceeded_backlog() {
            return Err(SubmitError::Behind(backlog));
        }
        self.queue.reserve(bytes)?;
        Ok(Reservation { queue: &self.queue, bytes })
    }

    /// Submits into reserved room.
    pub(crate) fn submit(&self, reservation: Reservation<'_>, submission: Submission) -> Result<(), SubmitError> {
        let item = QueueItem::Submission { submission: Box::new(submission), bytes: reservation.bytes };
        self.queue.push(item)?;
        // The room is in use now; the writer returns it.
        std::mem::forget(reservation);
        Ok(())
    }

    /// Queues a cut of `view` behind everything submitted so far. The receiver gets its position once all events before it
    /// are durable and pushed to the sinks, or an error if the log stops first. `None` if the partition is closed.
    pub fn cut(&self, view: &ViewName) -> Option<oneshot::Receiver<CutPoint>> {
        let (reply, point) = oneshot::channel();
        self.queue.push(QueueItem::Cut { view: view.clone(), reply }).ok().map(|()| point)
    }

    /// Queues an erasure behind everything submitted so far.
    pub fn erase(&self, erasure: Erasure) -> Result<(), SubmitError> {
        self.queue.push(QueueItem::Erasure(Box::new(erasure)))
    }

    /// The erased entities.
    pub fn tombstones(&self) -> &Arc<Tombstones> {
        &self.store.tombstones
    }

    /// Takes the events of erased entities, and their idempotency keys, out of the segments that begin before `before`.
    /// Returns the number of events. The last segment stays: an erasure has ended the one with its events. Blocking.
    pub fn scrub(&self, before: Offset) -> Result<u64, LogError> {
        let tombstones = self.tombstones();
        log::scrub(&self.store, before, &|meta| {
            let mut parsed: FrameMeta = serde_json::from_slice(meta).ok()?;
            let count = parsed.keys.len();
            parsed.keys.retain(|key| !key.entity.is_some_and(|entity| tombstones.contains(entity.0)));
            (parsed.keys.len() < count).then(|| serde_json::to_vec(&parsed).ok()).flatten()
        })
    }

    /// The last sequences of the entities; `None` if the stream has no entity.
    pub fn entities(&self) -> Option<&Arc<EntityTable>> {
        self.entities.as_ref()
    }

    /// The current rows; `None` unless it is a table.
    pub fn rows(&self) -> Option<&Arc<CurrentRows>> {
        self.rows.as_ref()
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

    /// Calls `each` with the durable rows of `from..to` for which `is_match` holds of the column at `index`, in order.
    /// Blocking.
    pub fn replay_where(
        &self,
        from: Offset,
        to: Offset,
        index: usize,
        is_match: &dyn Fn(&ArrayRef) -> BooleanArray,
        each: &mut dyn FnMut(MatchingRows),
    ) -> Result<(), LogError> {
        log::matching(&self.store, from, to, (index, is_match), each)
    }

    /// Keeps the log for `reader` until it releases.
    pub fn register_reader(&self, reader: &str) {
        self.store.register(reader);
    }

    /// Keeps the log for a live reader until it releases. Submissions are refused while it is behind by more than
    /// `backlog_bytes_max` bytes of the log.
    pub fn register_live_reader(&self, reader: &str, backlog_bytes_max: u64) {
        self.store.register_live(reader, backlog_bytes_max);
    }

    /// Releases the log before `offset` for `reader`, which is registered if necessary.
    pub fn release(&self, reader: &str, offset: Offset) {
        self.store.release(reader, offset);
    }

    /// The watermark and the last arrival; caught up if no event waits for the writer or is being written.
    pub fn progress(&self) -> PartitionProgress {
        // Read before the figures: they contain every event that is no longer on its way.
        let caught_up = self.queue.is_clear();
        let live = self.live.lock().clone();
        let watermark = (live.totals.watermark != Micros::MIN).then_some(live.totals.watermark);
        PartitionProgress { watermark, last_arrival: live.last_arrived_at, caught_up }
    }

    /// The durable position in the topic that the stream reads; `None` before it has started to.
    pub fn source(&self) -> Option<SourcePosition> {
        self.live.lock().source.clone()
    }

    /// Totals after the last durable group.
    pub fn totals(&self) -> Totals {
        self.live.lock().totals
    }

    /// The present figures, together with those of the partition's archiver.
    pub fn status(&self, archived: Offset, archive_error: Option<String>) -> PartitionStatus {
        let LiveFigures { totals, last_arrived_at, .. } = self.live.lock().clone();
        PartitionStatus {
            partition: self.partition,
            log_start: self.store.start(),
            // Offsets of a group that is being written may be assigned again, if there is no room for it.
            head: totals.head(),
            archived,
            watermark: (totals.watermark != Micros::MIN).then_some(totals.watermark),
            accepted: totals.accepted.events,
            duplicates: totals.duplicates,
            late: totals.late,
            ahead: totals.ahead,
            log_bytes: self.store.bytes(),
            backlog_bytes: self.store.backlogs().into_iter().map(|backlog| (backlog.reader, backlog.bytes)).collect(),
            last_arrival: last_arrived_at,
            archive_error,
            rows: self.rows.as_ref().map(|rows| rows.status()),
        }
    }

    /// Event bytes that wait for the writer.
    #[cfg(test)]
    pub(crate) fn queued_bytes(&self) -> usize {
        self.queue.bytes()
    }

    /// Stops accepting events, writes those that wait, and ends the thread. Blocking; later calls have no effect.
    pub fn close(&self) {
        self.queue.close();
        let state = std::mem::replace(&mut *self.state.lock(), WriterState::Closed);
        // The thread catches its own panics, so the result holds nothing.
        if let WriterState::Running(thread) = state {
            let _ = thread.join();
        }
    }
}

/// Restores what the log holds of ids, from `ids_from` on, and of sequences.
fn restore(
    store: &SegmentStore,
    stream: &Stream,
    (ids_from, head): (Offset, Offset),
    sequencer: &mut Sequencer,
) -> Result<(), LogError> {
    if let Some(primary_key) = stream.primary_key {
        let columns: Vec<usize> = [primary_key].into_iter().chain(stream.entity).collect();
        log::columns(store, &columns, ids_from, head, &mut |columns| {
            let entities = columns.get(1).map(|entities| hash_ids(entities));
            sequencer.restore(&event_hashes(stream, &columns[0], entities.as_deref()));
        })?;
    }
    if let (Some(table), Some((entity, sequence))) = (sequencer.entity_table(), stream.entity.zip(stream.sequence())) {
        log::columns(store, &[entity, sequence], store.start(), head, &mut |columns| {
            table.restore(stored_sequences(&columns[0], &columns[1]));
        })?;
    }
    if let Some(rows) = sequencer.current_rows() {
        let mut failed = Ok(());
        log::batches(store, store.start(), head, &mut |batch| {
            let offset = |row: usize| (batch.first_offset.0 + row as u64) as i64;
            if failed.is_ok() {
                failed = rows.restore(batch.rows.columns(), offset);
            }
        })?;
        failed?;
    }
    Ok(())
}

impl Drop for PartitionLog {
    fn drop(&mut self) {
        self.close();
    }
}
