//! Runs the one thread of a partition: it sequences what waits, makes it durable, replies, and then pushes it to the
//! readers of the log. No reader can delay a reply, and none can hold up the writer.

use std::sync::Arc;
use std::time::Duration;

use arrow::datatypes::SchemaRef;
use parking_lot::Mutex;
use shared::clock::Clock;
use shared::handoff::{CutMark, LogBatch, LogItem, LogSink};
use shared::ids::{Offset, Partition};
use shared::seam::CutPoint;
use shared::time::Micros;
use shared::vital;
use tokio::sync::oneshot;

use super::group::{GroupBuilder, GroupPart, PendingCut};
use super::key_files::KeyFiles;
use super::partition_log::LiveFigures;
use super::queue::{QueueItem, WriterQueue, WriterWork};
use super::sequence::Sequencer;
use super::settings::PartitionSettings;
use super::submission::{Erasure, PartitionReceipt, SubmitError};
use crate::fail_points::IntakePoint;
use crate::log::{Appender, CommitError, Exhausted, SegmentStore, Tombstone, Totals};

/// Everything the thread owns.
pub(crate) struct Writer {
    pub partition: Partition,
    pub schema: SchemaRef,
    pub settings: PartitionSettings,
    pub queue: Arc<WriterQueue>,
    pub sequencer: Sequencer,
    pub appender: Appender,
    pub store: Arc<SegmentStore>,
    pub key_files: KeyFiles,
    /// Sinks whose figures a client must find up to date after the reply.
    pub figures: Vec<Arc<dyn LogSink>>,
    /// Readers of the log.
    pub sinks: Vec<Arc<dyn LogSink>>,
    pub clock: Arc<dyn Clock>,
    pub live: Arc<Mutex<LiveFigures>>,
    /// Name of the thread.
    pub name: String,
}

/// Why the thread ends before its queue is closed.
enum WriterExit {
    /// The log cannot be written.
    Fatal(String),
    /// A reader of the log has stopped, so the process is stopping.
    Stopped,
}

/// Closes the queue however the thread ends, and refuses what waits: no client may wait for a thread that has ended.
struct RefuseOnEnd(Arc<WriterQueue>);

impl Drop for RefuseOnEnd {
    fn drop(&mut self) {
        self.0.close();
        loop {
            match self.0.take(usize::MAX, None) {
                WriterWork::Group(items) => {
                    for item in items {
                        if let QueueItem::Submission { submission, .. } = item {
                            let _ = submission.reply.send(Err(SubmitError::Stopped));
                        }
                    }
                }
                WriterWork::Erasure(erasure) => _ = erasure.reply.send(Err(SubmitError::Stopped)),
                WriterWork::Idle | WriterWork::Closed => return,
            }
        }
    }
}

type Reply = (oneshot::Sender<Result<PartitionReceipt, SubmitError>>, Result<PartitionReceipt, SubmitError>);

impl Writer {
    /// Works until the queue is closed and empty.
    ///
    /// # Errors
    /// The log can no longer be written safely: the process has to stop.
    pub fn run(mut self) -> Result<(), String> {
        let _refuse = RefuseOnEnd(Arc::clone(&self.queue));
        match self.work() {
            Ok(()) => Ok(()),
            Err(WriterExit::Fatal(reason)) => Err(format!("cannot write the log: {reason}")),
            Err(WriterExit::Stopped) => {
                tracing::warn!(partition = %self.partition, "a reader of the log has stopped; the log writer stops too");
                Ok(())
            }
        }
    }

    /// Does once what the thread would do next: writes a group of what waits, or if nothing waits, marks the log as durable
    /// to its end. Returns whether anything waited.
    ///
    /// # Errors
    /// The log can no longer be written safely: the process has to stop.
    #[cfg(feature = "fail-points")]
    pub fn step(&mut self) -> Result<bool, String> {
        let stepped = match self.queue.take(self.settings.group_bytes_max, Some(Duration::ZERO)) {
            WriterWork::Group(items) => self.group(items).map(|()| true),
            WriterWork::Erasure(erasure) => self.erase(*erasure).map(|()| true),
            WriterWork::Idle | WriterWork::Closed => self.mark().map(|_| false),
        };
        stepped.map_err(|exit| match exit {
            WriterExit::Fatal(reason) => reason,
            WriterExit::Stopped => "a reader of the log has stopped".to_owned(),
        })
    }

    fn work(&mut self) -> Result<(), WriterExit> {
        let mut idle_after = Some(self.settings.mark_after);
        loop {
            match self.queue.take(self.settings.group_bytes_max, idle_after) {
                WriterWork::Group(items) => {
                    self.group(items)?;
                    idle_after = Some(self.settings.mark_after);
                }
                WriterWork::Erasure(erasure) => {
                    self.erase(*erasure)?;
                    idle_after = Some(self.settings.mark_after);
                }
                WriterWork::Idle if self.mark()? => idle_after = None,
                WriterWork::Idle => {}
                WriterWork::Closed => {
                    self.mark()?;
                    return Ok(());
                }
            }
        }
    }

    /// Records in the log that it is durable to its end. Returns `false` while there is no room.
    fn mark(&mut self) -> Result<bool, WriterExit> {
        match self.appender.mark(self.sequencer.totals()) {
            Ok(()) => Ok(true),
            Err(CommitError::Exhausted(_)) => Ok(false),
            Err(CommitError::Fatal(reason)) => Err(WriterExit::Fatal(reason)),
        }
    }

    fn group(&mut self, items: Vec<QueueItem>) -> Result<(), WriterExit> {
        vital::reach(&self.name);
        let arrived_at = self.clock.now();
        let mut group = GroupBuilder::new(self.settings.batch_rows_max);
        let mut replies: Vec<Reply> = Vec::with_capacity(items.len());
        for item in items {
            match item {
                QueueItem::Erasure(_) => unreachable!("the queue hands them over alone"),
                QueueItem::Cut { view, reply } => group.cut(PendingCut { view, reply, at: self.sequencer.totals() }),
                QueueItem::Submission { submission: mut s, .. } => {
                    let sequenced = self.sequencer.sequence(&mut s, arrived_at);
                    match sequenced.map_err(|e| WriterExit::Fatal(format!("cannot sequence events: {e}")))? {
                        Ok(sequenced) => {
                            replies.push((s.reply, Ok(sequenced.receipt)));
                            group.add(sequenced, self.sequencer.totals());
                        }
                        // It may have met a sequence that is not durable yet, so it waits for the group, too.
                        Err(refusal) => replies.push((s.reply, Err(refusal))),
                    }
                }
            }
        }
        let mut parts = group.finish();
        match self.write(&mut parts, arrived_at) {
            Ok(batches) => {
                IntakePoint::Acknowledge.reach();
                // I1: the group is durable; only now are its events acknowledged.
                for (reply, verdict) in replies {
                    // The client may have disconnected; the events are in the log all the same.
                    let _ = reply.send(verdict);
                }
                IntakePoint::HandOver.reach();
                self.push_all(parts, batches)
            }
            Err(CommitError::Exhausted(exhausted)) => {
                tracing::warn!(partition = %self.partition, reason = %exhausted, "a group of events was refused");
                refuse(replies, &SubmitError::Exhausted(exhausted));
                self.push_all(self.cuts_at_the_end(parts), Vec::new())
            }
            Err(CommitError::Fatal(reason)) => {
                // I8: after a failed sync nothing is acknowledged, and the process stops.
                refuse(replies, &SubmitError::Stopped);
                Err(WriterExit::Fatal(reason))
            }
        }
    }

    /// Erases an entity: from the moment its tombstone is durable, its events are neither read nor accepted. The segment ends
    /// before, so that every event of it is in a finished one, from which it can be taken out.
    fn erase(&mut self, Erasure { entity, id, by, reference, reply }: Erasure) -> Result<(), WriterExit> {
        let tombstones = Arc::clone(self.sequencer.tombstones());
        let outcome = match tombstones.get(entity.0) {
            Some(tombstone) => Ok(tombstone),
            None => {
                let events = self.sequencer.entity_table().map_or(0, |table| table.last(entity.0));
                let (erased_at, head) = (self.clock.now(), self.sequencer.totals().head());
                let (id, completed_at) = (Some(id), None);
                let tombstone = Tombstone { entity, id, erased_at, by, reference, events, head, completed_at };
                self.appender.roll().and_then(|()| match tombstones.add(tombstone.clone()) {
                    Ok(()) => Ok(tombstone),
                    Err(error) => Err(match Exhausted::of(&error) {
                        Some(exhausted) => exhausted.into(),
                        None => CommitError::Fatal(format!("cannot write a tombstone: {error}")),
                    }),
                })
            }
        };
        let tombstone = match outcome {
            Ok(tombstone) => tombstone,
            Err(CommitError::Exhausted(exhausted)) => {
                let _ = reply.send(Err(SubmitError::Exhausted(exhausted)));
                return Ok(());
            }
            Err(CommitError::Fatal(reason)) => {
                let _ = reply.send(Err(SubmitError::Stopped));
                return Err(WriterExit::Fatal(reason));
            }
        };
        if let Some(table) = self.sequencer.entity_table() {
            table.notify();
        }
        let keys = self.sequencer.keys();
        keys.forget(|entity| tombstones.contains(entity.0));
        let replaced = self.key_files.replace(keys);
        let _ = reply.send(match replaced {
            Ok(()) => Ok(tombstone),
            // The entity is erased; its keys are forgotten by the next attempt.
            Err(error) => Err(SubmitError::Rows(format!("cannot write the remaining idempotency keys: {error}"))),
        });
        Ok(())
    }

    /// Makes the parts durable and updates the figures of the partition. Returns the batches for its readers.
    fn write(&mut self, parts: &mut [GroupPart], arrived_at: Micros) -> Result<Vec<Arc<LogBatch>>, CommitError> {
        let after = self.sequencer.totals();
        if self.sequencer.keys().has_unsaved() {
            self.key_files.hold(&self.store, self.store.head());
        }
        let staged = self.stage(parts, arrived_at);
        match staged.and_then(|batches| Ok((self.appender.commit(after, self.sequencer.source())?, batches))) {
            Ok((sync_time, batches)) => {
                self.sequencer.commit(arrived_at);
                self.key_files.settle(self.sequencer.keys(), &self.store);
                self.report(after, (!batches.is_empty()).then_some(arrived_at), sync_time);
                for (sink, batch) in self.figures.iter().flat_map(|sink| batches.iter().map(move |batch| (sink, batch)))
                {
                    // A sink of figures never stops.
                    let _ = sink.push(LogItem::Batch(Arc::clone(batch)));
                }
                Ok(batches)
            }
            Err(CommitError::Exhausted(exhausted)) => {
                self.appender.abandon();
                self.sequencer.rollback();
                self.key_files.settle(self.sequencer.keys(), &self.store);
                Err(exhausted.into())
            }
            Err(fatal) => Err(fatal),
        }
    }

    /// The cuts of a group that was refused. A cut needs no disk space: its position is the present end of the log.
    fn cuts_at_the_end(&self, parts: Vec<GroupPart>) -> Vec<GroupPart> {
        let at = self.sequencer.totals();
        let cut = |part| match part {
            GroupPart::Cut(cut) => Some(GroupPart::Cut(PendingCut { at, ..cut })),
            GroupPart::Frame(_) => None,
        };
        parts.into_iter().filter_map(cut).collect()
    }

    /// Encodes the frames; returns a batch for the sinks for each frame with rows, in order.
    fn stage(&mut self, parts: &mut [GroupPart], arrived_at: Micros) -> Result<Vec<Arc<LogBatch>>, CommitError> {
        let mut batches = Vec::new();
        for part in parts {
            let GroupPart::Frame(draft) = part else { continue };
            let rows = draft
                .rows(&self.schema)
                .map_err(|e| CommitError::Fatal(format!("cannot combine the rows of a frame: {e}")))?;
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

    fn report(&self, totals: Totals, arrived_at: Option<Micros>, sync_time: Option<Duration>) {
        let mut live = self.live.lock();
        live.totals = totals;
        live.last_arrived_at = arrived_at.or(live.last_arrived_at);
        if live.source.as_ref() != self.sequencer.source() {
            live.source = self.sequencer.source().cloned();
        }
        drop(live);
        if let Some(sync_time) = sync_time {
            metrics::histogram!("trueup_log_sync_duration_seconds").record(sync_time.as_secs_f64());
        }
    }

    /// Pushes batches and cuts to the sinks, in log order, and replies to each cut with its position.
    fn push_all(&self, parts: Vec<GroupPart>, batches: Vec<Arc<LogBatch>>) -> Result<(), WriterExit> {
        let mut batches = batches.into_iter().peekable();
        for part in parts {
            match part {
                GroupPart::Frame(draft) => {
                    if let Some(batch) = batches.next_if(|batch| batch.end_offset() == draft.after.head()) {
                        self.push(LogItem::Batch(batch))?;
                    }
                }
                GroupPart::Cut(cut) => {
                    let (offset, accepted) = (cut.at.head(), cut.at.accepted);
                    let mark = CutMark { view: cut.view, partition: self.partition, offset, accepted };
                    self.push(LogItem::Cut(Arc::new(mark)))?;
                    // A run cancelled meanwhile leaves one more generation, which the next run closes.
                    let _ = cut.reply.send(CutPoint { offset, accepted });
                }
            }
        }
        Ok(())
    }

    fn push(&self, item: LogItem) -> Result<(), WriterExit> {
        for sink in &self.sinks {
            sink.push(item.clone()).map_err(|_| WriterExit::Stopped)?;
        }
        Ok(())
    }
}

fn refuse(replies: Vec<Reply>, error: &SubmitError) {
    for (reply, _) in replies {
        let _ = reply.send(Err(error.clone()));
    }
}
