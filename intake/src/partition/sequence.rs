//! Decides the order and the verdict of events: idempotency, dedup, watermark and offset, one submission at a time.
//!
//! The result is a pure function of the submissions, their arrival times and the events accepted before: a replay gives
//! the same verdicts.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, RecordBatch};
use arrow::compute::filter_record_batch;
use arrow::datatypes::{SchemaRef, TimestampMicrosecondType};
use arrow::error::ArrowError;
use shared::ids::{Offset, Partition};
use shared::ledger::Ledger;
use shared::stream::Stream;
use shared::time::Micros;

use super::dedup::DedupWindow;
use super::key_claims::KeyClaim;
use super::keys::{KeyMemory, KeyRecord};
use super::settings::PartitionSettings;
use super::submission::PartitionReceipt;
use super::watermark::WatermarkRules;
use crate::event_id::hash_ids;
use crate::log::Totals;

/// A submission with its receipt, ready to be written.
#[derive(Debug, Default)]
pub(crate) struct SequencedSubmission {
    pub receipt: PartitionReceipt,
    /// Accepted rows with the columns of the log; `None` if there are none.
    pub rows: Option<RecordBatch>,
    /// The key to store with them.
    pub key: Option<KeyRecord>,
}

/// Assigns offsets and verdicts to the events of one partition.
pub(crate) struct Sequencer {
    partition: Partition,
    schema: SchemaRef,
    event_time: usize,
    rules: WatermarkRules,
    /// `None` without a primary key.
    dedup: Option<DedupWindow>,
    keys: KeyMemory,
    totals: Totals,
    /// Totals at the last commit.
    committed: Totals,
}

impl Sequencer {
    /// Continues after `totals`. `ids_from` is the offset of the first id that [`Sequencer::restore`] will receive.
    pub fn new(
        partition: Partition,
        stream: &Stream,
        settings: &PartitionSettings,
        keys: KeyMemory,
        totals: Totals,
        ids_from: Offset,
    ) -> Self {
        Sequencer {
            partition,
            schema: stream.log_schema(),
            event_time: stream.event_time,
            rules: WatermarkRules::of(stream),
            dedup: stream.primary_key.map(|_| DedupWindow::new(settings.dedup_horizon_events, ids_from)),
            keys,
            totals,
            committed: totals,
        }
    }

    /// Remembers the ids of events that are in the log already; `ids` is a column of the primary key.
    pub fn restore(&mut self, ids: &dyn Array) {
        if let Some(dedup) = &mut self.dedup {
            dedup.restore_all(&hash_ids(ids));
        }
    }

    /// Totals after everything sequenced, durable or not.
    pub fn totals(&self) -> Totals {
        self.totals
    }

    /// The idempotency keys.
    pub fn keys(&mut self) -> &mut KeyMemory {
        &mut self.keys
    }

    /// Sequences one submission that arrived at `arrived_at`.
    pub fn sequence(
        &mut self,
        rows: RecordBatch,
        ids: Option<&[u128]>,
        claim: Option<Arc<KeyClaim>>,
        arrived_at: Micros,
    ) -> Result<SequencedSubmission, ArrowError> {
        if let Some(receipt) = claim.as_ref().and_then(|claim| self.keys.receipt(claim, arrived_at)) {
            return Ok(SequencedSubmission { receipt, ..SequencedSubmission::default() });
        }
        let submitted = rows.num_rows();
        let rows = self.drop_duplicates(rows, ids)?;
        let duplicates = (submitted - rows.num_rows()) as u64;
        let mut receipt = PartitionReceipt { duplicates, ..PartitionReceipt::default() };
        self.totals.duplicates += duplicates;
        let rows = (rows.num_rows() > 0).then(|| self.stamp(rows, arrived_at, &mut receipt)).transpose()?;
        let key = claim.map(|claim| {
            let (key, body) = (Arc::clone(claim.key()), claim.body());
            let number = Some(self.keys.remember(claim, receipt, arrived_at));
            KeyRecord { key, body, number, receipt }
        });
        Ok(SequencedSubmission { receipt, rows, key })
    }

    /// Keeps the changes of the group, which arrived at `arrived_at`: it was written.
    pub fn commit(&mut self, arrived_at: Micros) {
        self.committed = self.totals;
        self.keys.commit(arrived_at);
        if let Some(dedup) = &mut self.dedup {
            dedup.commit();
        }
    }

    /// Reverts the changes of the group: it was not written.
    pub fn rollback(&mut self) {
        self.totals = self.committed;
        self.keys.rollback();
        if let Some(dedup) = &mut self.dedup {
            dedup.rollback();
        }
    }

    fn drop_duplicates(&mut self, rows: RecordBatch, ids: Option<&[u128]>) -> Result<RecordBatch, ArrowError> {
        let (Some(dedup), Some(ids)) = (&mut self.dedup, ids) else { return Ok(rows) };
        let is_new = BooleanArray::new(dedup.admit_all(ids), None);
        if is_new.true_count() == rows.num_rows() {
            return Ok(rows);
        }
        filter_record_batch(&rows, &is_new)
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
