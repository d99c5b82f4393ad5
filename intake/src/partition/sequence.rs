//! Decides the order and the verdict of events: idempotency, expected sequence, dedup, sequence, watermark and offset, one
//! submission at a time.
//!
//! The result is a pure function of the submissions, their arrival times and the events accepted before: a replay gives
//! the same verdicts.

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, BooleanArray, RecordBatch};
use arrow::compute::filter_record_batch;
use arrow::datatypes::{SchemaRef, TimestampMicrosecondType};
use arrow::error::ArrowError;
use shared::ids::{Offset, Partition};
use shared::ledger::Ledger;
use shared::stream::Stream;
use shared::time::Micros;

use super::current_rows::{CurrentRows, RowChanges};
use super::dedup::DedupWindow;
use super::entities::{EntitySequences, EntityTable};
use super::key_claims::KeyClaim;
use super::keys::{KeyMemory, KeyRecord};
use super::settings::PartitionSettings;
use super::submission::{PartitionReceipt, SourceStep, Submission, SubmitError, SubmittedEntities};
use super::watermark::WatermarkRules;
use crate::log::{EntityHash, SourcePosition, Tombstones, Totals};

/// A submission with its receipt, ready to be written.
#[derive(Debug, Default)]
pub(crate) struct SequencedSubmission {
    pub receipt: PartitionReceipt,
    /// Accepted rows with the columns of the log; `None` if there are none.
    pub rows: Option<RecordBatch>,
    /// The key to store with them.
    pub key: Option<KeyRecord>,
    /// The position in the topic to store with them.
    pub source: Option<SourcePosition>,
}

/// Assigns offsets and verdicts to the events of one partition.
pub(crate) struct Sequencer {
    partition: Partition,
    schema: SchemaRef,
    event_time: usize,
    /// The rows of a table; `None` of a stream.
    rows: Option<RowChanges>,
    /// Index of the column `_sequence`, and the last sequences; `None` without an entity.
    entities: Option<(usize, EntitySequences)>,
    rules: WatermarkRules,
    /// `None` without a primary key.
    dedup: Option<DedupWindow>,
    keys: KeyMemory,
    /// The erased entities, whose events are not accepted.
    tombstones: Arc<Tombstones>,
    totals: Totals,
    /// Totals at the last commit.
    committed: Totals,
    /// The position in the topic that the stream reads.
    source: Option<SourcePosition>,
    /// The same at the last commit, if it has moved since.
    committed_source: Option<Option<SourcePosition>>,
}

impl Sequencer {
    /// Continues after `totals`. `ids_from` is the offset of the first id that [`Sequencer::restore`] will receive.
    pub fn new(
        partition: Partition,
        stream: &Stream,
        settings: &PartitionSettings,
        (keys, tombstones): (KeyMemory, Arc<Tombstones>),
        totals: Totals,
        ids_from: Offset,
    ) -> Self {
        Sequencer {
            partition,
            schema: stream.log_schema(),
            event_time: stream.event_time,
            rows: None,
            entities: stream.sequence().map(|column| (column, EntitySequences::new(settings.entities_max))),
            rules: WatermarkRules::of(stream),
            dedup: stream.primary_key.map(|_| DedupWindow::new(settings.dedup_horizon_events, ids_from)),
            keys,
            tombstones,
            totals,
            committed: totals,
            source: None,
            committed_source: None,
        }
    }

    /// Continues from `source`, the recovered position in the topic.
    pub fn at(self, source: Option<SourcePosition>) -> Self {
        Sequencer { source, ..self }
    }

    /// Applies changes to these rows, which may take so many bytes.
    pub fn over(self, rows: Option<CurrentRows>, bytes_max: usize) -> Self {
        Sequencer { rows: rows.map(|rows| RowChanges::new(rows, bytes_max)), ..self }
    }

    /// The durable rows of a table.
    pub fn current_rows(&self) -> Option<&Arc<CurrentRows>> {
        self.rows.as_ref().map(RowChanges::current)
    }

    /// The position in the topic after what was sequenced last.
    pub fn source(&self) -> Option<&SourcePosition> {
        self.source.as_ref()
    }

    /// Remembers the ids of events that are in the log already, by [`crate::event_id::event_hashes`].
    pub fn restore(&mut self, ids: &[u128]) {
        if let Some(dedup) = &mut self.dedup {
            dedup.restore_all(ids);
        }
    }

    /// The last sequences of the entities, over durable events; `None` without an entity.
    pub fn entity_table(&self) -> Option<&Arc<EntityTable>> {
        self.entities.as_ref().map(|(_, entities)| entities.table())
    }

    /// Totals after everything sequenced, durable or not.
    pub fn totals(&self) -> Totals {
        self.totals
    }

    /// The erased entities.
    pub fn tombstones(&self) -> &Arc<Tombstones> {
        &self.tombstones
    }

    /// The idempotency keys.
    pub fn keys(&mut self) -> &mut KeyMemory {
        &mut self.keys
    }

    /// Sequences one submission that arrived at `arrived_at`, whose `key` it takes. The inner error refuses this submission
    /// alone, and changes nothing.
    pub fn sequence(
        &mut self,
        submission: &mut Submission,
        arrived_at: Micros,
    ) -> Result<Result<SequencedSubmission, SubmitError>, ArrowError> {
        let claim: Option<Arc<KeyClaim>> = submission.key.take();
        if let Some(receipt) = claim.as_ref().and_then(|claim| self.keys.receipt(claim, arrived_at)) {
            return Ok(Ok(SequencedSubmission { receipt, ..SequencedSubmission::default() }));
        }
        let erased = self.remove_erased(submission)?;
        // Before anything changes: a refused append leaves no trace, and its key is free.
        if let Err(refusal) = self.check_entities(submission.entities.as_ref()) {
            return Ok(Err(refusal));
        }
        if let Err(refusal) = self.check_source(submission.source.as_ref()) {
            return Ok(Err(refusal));
        }
        let (rows, duplicates, effective) = match &mut self.rows {
            Some(table) => match table.apply(&submission.rows, &submission.kept)? {
                Ok(applied) => (applied.events, applied.unchanged, Some(applied.effective)),
                Err(refusal) => return Ok(Err(refusal)),
            },
            None => {
                let is_new = self.new_rows(submission.id_hashes.as_deref());
                let rows = self.accepted_rows(submission, is_new.as_ref())?;
                let duplicates = (submission.rows.num_rows() - rows.num_rows()) as u64;
                (rows, duplicates, None)
            }
        };
        let mut receipt = PartitionReceipt { duplicates, erased, ..PartitionReceipt::default() };
        self.totals.duplicates += duplicates;
        let rows = (rows.num_rows() > 0).then(|| self.stamp(rows, arrived_at, &mut receipt)).transpose()?;
        // A client counts its changes, not their events.
        receipt.accepted = effective.unwrap_or(receipt.accepted);
        receipt.last_sequence = self.last_sequence(submission.entities.as_ref());
        let appended = submission.entities.as_ref().filter(|submitted| submitted.append.is_some());
        let entity = appended.and_then(|submitted| submitted.hashes.first()).copied().map(EntityHash);
        let key = claim.map(|claim| {
            let (key, body) = (Arc::clone(claim.key()), claim.body());
            let number = Some(self.keys.remember(claim, receipt, entity, arrived_at));
            KeyRecord { key, body, entity, number, receipt }
        });
        let source = submission.source.take().map(|step| step.to);
        if let Some(to) = &source {
            let before = self.source.replace(to.clone());
            self.committed_source.get_or_insert(before);
        }
        Ok(Ok(SequencedSubmission { receipt, rows, key, source }))
    }

    /// Keeps the changes of the group, which arrived at `arrived_at`: it was written.
    pub fn commit(&mut self, arrived_at: Micros) {
        self.committed = self.totals;
        self.committed_source = None;
        self.keys.commit(arrived_at);
        if let Some(dedup) = &mut self.dedup {
            dedup.commit();
        }
        if let Some((_, entities)) = &mut self.entities {
            entities.commit();
        }
        if let Some(rows) = &mut self.rows {
            rows.commit();
        }
    }

    /// Reverts the changes of the group: it was not written.
    pub fn rollback(&mut self) {
        self.totals = self.committed;
        if let Some(source) = self.committed_source.take() {
            self.source = source;
        }
        self.keys.rollback();
        if let Some(dedup) = &mut self.dedup {
            dedup.rollback();
        }
        if let Some((_, entities)) = &mut self.entities {
            entities.rollback();
        }
        if let Some(rows) = &mut self.rows {
            rows.rollback();
        }
    }

    /// Refuses a step that does not start where the position is: an earlier one was not written, or another reader moved it.
    fn check_source(&self, step: Option<&SourceStep>) -> Result<(), SubmitError> {
        let Some(step) = step else { return Ok(()) };
        let current = self.source.as_ref().map(|source| source.next);
        if step.from == current { Ok(()) } else { Err(SubmitError::SourceMoved { from: step.from, current }) }
    }

    fn check_entities(&self, submitted: Option<&SubmittedEntities>) -> Result<(), SubmitError> {
        let (Some((_, entities)), Some(submitted)) = (&self.entities, submitted) else { return Ok(()) };
        if let Some(erased) =
            submitted.append.and(submitted.hashes.first()).and_then(|entity| self.tombstones.get(*entity))
        {
            return Err(SubmitError::Erased { at: erased.erased_at });
        }
        if let Some(expected) = submitted.append.and_then(|append| append.expected) {
            entities.expect(submitted.hashes[0], expected)?;
        }
        entities.check_room(&submitted.hashes)
    }

    /// Removes the events of erased entities from a submission that is not an append, and returns their number. A batch of
    /// many entities must not fail because of one.
    fn remove_erased(&self, submission: &mut Submission) -> Result<u64, ArrowError> {
        let Some(submitted) = submission.entities.as_mut().filter(|_| !self.tombstones.is_empty()) else {
            return Ok(0);
        };
        let kept: BooleanArray =
            submitted.hashes.iter().map(|entity| Some(!self.tombstones.contains(*entity))).collect();
        let erased = kept.false_count() as u64;
        if submitted.append.is_some() || erased == 0 {
            return Ok(0);
        }
        let retain = |hashes: &mut Vec<u128>| {
            let mut rows = kept.values().iter();
            hashes.retain(|_| rows.next() == Some(true));
        };
        retain(&mut submitted.hashes);
        submission.id_hashes.iter_mut().for_each(retain);
        submission.rows = filter_record_batch(&submission.rows, &kept)?;
        Ok(erased)
    }

    fn last_sequence(&self, submitted: Option<&SubmittedEntities>) -> Option<u64> {
        let (_, entities) = self.entities.as_ref()?;
        let SubmittedEntities { hashes, append } = submitted?;
        append.and(hashes.first()).map(|entity| entities.last(*entity))
    }

    /// Which rows are not duplicates; `None`: all of them.
    fn new_rows(&mut self, ids: Option<&[u128]>) -> Option<BooleanArray> {
        let (dedup, ids) = (self.dedup.as_mut()?, ids?);
        let is_new = BooleanArray::new(dedup.admit_all(ids), None);
        (is_new.true_count() < ids.len()).then_some(is_new)
    }

    /// The rows that are not duplicates, with their sequences.
    fn accepted_rows(
        &mut self,
        submission: &Submission,
        is_new: Option<&BooleanArray>,
    ) -> Result<RecordBatch, ArrowError> {
        let rows = match is_new {
            Some(is_new) => filter_record_batch(&submission.rows, is_new)?,
            None => submission.rows.clone(),
        };
        let (Some((column, entities)), Some(submitted)) = (&mut self.entities, &submission.entities) else {
            return Ok(rows);
        };
        let sequences = match is_new {
            Some(is_new) => {
                let accepted = submitted.hashes.iter().zip(is_new.values()).filter(|(_, is_new)| *is_new);
                entities.assign(&accepted.map(|(entity, _)| *entity).collect::<Vec<_>>())
            }
            None => entities.assign(&submitted.hashes),
        };
        let mut columns: Vec<ArrayRef> = rows.columns().to_vec();
        columns[*column] = Arc::new(sequences);
        RecordBatch::try_new(rows.schema(), columns)
    }

    /// Gives the rows their offsets and the watermark before each: the record from which lateness is judged (I3).
    fn stamp(
        &mut self,
        rows: RecordBatch,
        arrived_at: Micros,
        receipt: &mut PartitionReceipt,
    ) -> Result<RecordBatch, ArrowError> {
        let times = rows.column(self.event_time).as_primitive::<TimestampMicrosecondType>();
        let verdict = self.rules.pass(times.values(), arrived_at, self.totals.watermark);
        let first = self.totals.head();
        let end = Offset(first.0 + rows.num_rows() as u64);
        receipt.accepted = end.0 - first.0;
        (receipt.late, receipt.ahead) = (verdict.late, verdict.ahead);
        (receipt.first_offset, receipt.end_offset) = (Some(first), Some(end));
        self.totals.accepted += Ledger::of_range(self.partition, first, end);
        self.totals.watermark = verdict.after;
        self.totals.late += verdict.late;
        self.totals.ahead += verdict.ahead;
        let mut columns: Vec<ArrayRef> = rows.columns().to_vec();
        columns.push(verdict.before_each);
        RecordBatch::try_new(self.schema.clone(), columns)
    }
}
