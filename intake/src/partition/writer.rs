//! What does a partition's one thread do? Takes what waits, sequences it, makes it durable, shows it, and only then answers.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use arrow::datatypes::SchemaRef;
use parking_lot::Mutex;
use shared::clock::Clock;
use shared::handoff::{CutMark, LogBatch, LogItem, LogSink};
use shared::ids::{Offset, Partition};
use shared::seam::CutPoint;
use shared::time::Micros;
use tokio::sync::oneshot;

use super::group::{Group, Part, PendingCut};
use super::queue::{Item, Queue, Taken};
use super::sequence::Sequencer;
use super::settings::PartitionSettings;
use super::status::Live;
use super::submission::{PartAnswer, WriteError};
use crate::log::{Appender, CommitError, Totals};

/// Called once, with the reason, when a partition's log can no longer be trusted to be written: the process has to stop.
pub type OnFatal = Arc<dyn Fn(&str) + Send + Sync>;

/// Everything the thread owns.
pub(crate) struct Writer {
    pub partition: Partition,
    pub schema: SchemaRef,
    pub settings: PartitionSettings,
    pub queue: Arc<Queue>,
    pub sequencer: Sequencer,
    pub appender: Appender,
    pub sinks: Vec<Arc<dyn LogSink>>,
    pub clock: Arc<dyn Clock>,
    pub live: Arc<Mutex<Live>>,
    pub on_fatal: OnFatal,
}

/// Why the thread ends before it is told to.
enum End {
    /// The log cannot be written.
    Fatal(String),
    /// A reader of the log has stopped, so the process is stopping.
    Stopped,
}

type Reply = (oneshot::Sender<Result<PartAnswer, WriteError>>, PartAnswer);

impl Writer {
    /// Works until the queue is closed and empty.
    pub fn run(mut self) {
        let ended = catch_unwind(AssertUnwindSafe(|| self.work()));
        let end = ended.unwrap_or_else(|_| Err(End::Fatal("the log's writer panicked".to_owned())));
        let Err(end) = end else { return };
        self.queue.close();
        // What still waits is dropped with its replies told; nobody may be left waiting.
        while let Taken::Group(items) = self.queue.take(usize::MAX, None) {
            for item in items {
                if let Item::Submission { submission, .. } = item {
                    let _ = submission.reply.send(Err(WriteError::Stopped));
                }
            }
        }
        match end {
            End::Fatal(reason) => (self.on_fatal)(&reason),
            End::Stopped => {
                tracing::warn!(partition = %self.partition, "a reader of the log has stopped; so does its writer")
            }
        }
    }

    fn work(&mut self) -> Result<(), End> {
        let mut quiet = Some(self.settings.mark_after);
        loop {
            match self.queue.take(self.settings.group_bytes_max, quiet) {
                Taken::Group(items) => {
                    self.group(items)?;
                    quiet = Some(self.settings.mark_after);
                }
                Taken::Quiet if self.mark()? => quiet = None,
                Taken::Quiet => {}
                Taken::Closed => {
                    self.mark()?;
                    return Ok(());
                }
            }
        }
    }

    /// Whether the log now says that it is durable to its end.
    fn mark(&mut self) -> Result<bool, End> {
        match self.appender.mark(self.sequencer.totals()) {
            Ok(()) => Ok(true),
            Err(CommitError::DiskFull) => Ok(false),
            Err(CommitError::Fatal(reason)) => Err(End::Fatal(reason)),
        }
    }

    fn group(&mut self, items: Vec<Item>) -> Result<(), End> {
        let arrived_at = self.clock.now();
        let mut group = Group::new(self.settings.batch_rows_max);
        let mut replies: Vec<Reply> = Vec::with_capacity(items.len());
        for item in items {
            match item {
                Item::Cut { view, reply } => group.cut(PendingCut { view, reply, at: self.sequencer.totals() }),
                Item::Submission { submission: s, .. } => {
                    let (ids, key) = (s.id_hashes.as_deref(), s.idempotency_key.as_deref());
                    let sequenced = self.sequencer.sequence(s.rows, ids, key, arrived_at);
                    let sequenced = sequenced.map_err(|e| End::Fatal(format!("events could not be sequenced: {e}")))?;
                    replies.push((s.reply, sequenced.answer));
                    group.add(sequenced, self.sequencer.totals());
                }
            }
        }
        let parts = group.finish();
        match self.write(parts, arrived_at) {
            Ok(shown) => {
                for (reply, answer) in replies {
                    // Who asked may have gone; the events are in the log all the same.
                    let _ = reply.send(Ok(answer));
                }
                shown
            }
            Err(CommitError::DiskFull) => {
                tracing::warn!(partition = %self.partition, "disk full: a group of events was refused");
                refuse(replies, WriteError::DiskFull);
                Ok(())
            }
            Err(CommitError::Fatal(reason)) => {
                refuse(replies, WriteError::Stopped);
                Err(End::Fatal(reason))
            }
        }
    }

    /// Makes the parts durable and shows them. The inner result says whether everybody still looks.
    fn write(&mut self, mut parts: Vec<Part>, arrived_at: Micros) -> Result<Result<(), End>, CommitError> {
        let after = self.sequencer.totals();
        let staged = self.stage(&mut parts, arrived_at);
        self.live.lock().head = after.head();
        match staged.and_then(|batches| Ok((self.appender.commit(after)?, batches))) {
            Ok((took, batches)) => {
                self.sequencer.commit();
                self.report(after, (!batches.is_empty()).then_some(arrived_at), took);
                Ok(self.show(parts, batches))
            }
            Err(CommitError::DiskFull) => {
                self.appender.abandon();
                self.sequencer.rollback();
                let now = self.sequencer.totals();
                self.live.lock().head = now.head();
                // A cut needs no room. It lies where the log now ends.
                parts.retain(|part| matches!(part, Part::Cut(_)));
                for part in &mut parts {
                    if let Part::Cut(cut) = part {
                        cut.at = now;
                    }
                }
                match self.show(parts, Vec::new()) {
                    Ok(()) => Err(CommitError::DiskFull),
                    Err(end) => Ok(Err(end)),
                }
            }
            Err(fatal) => Err(fatal),
        }
    }

    /// Encodes the frames; gives the batches that those with rows will be for the readers, in order.
    fn stage(&mut self, parts: &mut [Part], arrived_at: Micros) -> Result<Vec<Arc<LogBatch>>, CommitError> {
        let mut batches = Vec::new();
        for part in parts {
            let Part::Frame(draft) = part else { continue };
            let rows = draft.rows(&self.schema).map_err(|e| CommitError::Fatal(format!("rows of the log: {e}")))?;
            let meta = draft.meta();
            self.appender.stage(&rows, arrived_at, &meta, draft.after)?;
            if rows.num_rows() > 0 {
                let first_offset = Offset(draft.after.head().0 - rows.num_rows() as u64);
                let (accepted, watermark) = (draft.after.accepted, draft.after.watermark);
                let partition = self.partition;
                batches.push(Arc::new(LogBatch { partition, first_offset, arrived_at, rows, accepted, watermark }));
            }
        }
        Ok(batches)
    }

    fn report(&self, totals: Totals, arrived_at: Option<Micros>, took: Option<Duration>) {
        let mut live = self.live.lock();
        live.totals = totals;
        live.last_arrived_at = arrived_at.or(live.last_arrived_at);
        if let Some(took) = took {
            live.last_sync_ms = Some(took.as_secs_f64() * 1e3);
            metrics::histogram!("trueup_wal_sync_duration_seconds").record(took.as_secs_f64());
        }
    }

    /// Pushes batches and cuts to the sinks, in log order, and tells the cuts where they lie.
    fn show(&self, parts: Vec<Part>, batches: Vec<Arc<LogBatch>>) -> Result<(), End> {
        let mut batches = batches.into_iter().peekable();
        for part in parts {
            match part {
                Part::Frame(draft) => {
                    if let Some(batch) = batches.next_if(|batch| batch.end_offset() == draft.after.head()) {
                        self.push(LogItem::Batch(batch))?;
                    }
                }
                Part::Cut(cut) => {
                    let (offset, accepted) = (cut.at.head(), cut.at.accepted);
                    let mark = CutMark { view: cut.view, partition: self.partition, offset, accepted };
                    self.push(LogItem::Cut(Arc::new(mark)))?;
                    // A run that was given up meanwhile leaves a generation more, which the next one closes.
                    let _ = cut.reply.send(CutPoint { offset, accepted });
                }
            }
        }
        Ok(())
    }

    fn push(&self, item: LogItem) -> Result<(), End> {
        for sink in &self.sinks {
            sink.push(item.clone()).map_err(|_| End::Stopped)?;
        }
        Ok(())
    }
}

fn refuse(replies: Vec<Reply>, error: WriteError) {
    for (reply, _) in replies {
        let _ = reply.send(Err(error));
    }
}
