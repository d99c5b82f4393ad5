//! In which order, and as what, do events enter the log? Idempotency, dedup, watermark, offset: one submission at a time.
//!
//! A pure function of the submissions, their arrival times and what was accepted before: replay gives the same verdicts.

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
use super::keys::{KeyMemory, KeyRecord};
use super::settings::PartitionSettings;
use super::submission::PartAnswer;
use super::watermark::WatermarkRules;
use crate::event_id::hash_ids;
use crate::log::Totals;

/// What has to be written for a submission.
#[derive(Debug, Default)]
pub(crate) struct Sequenced {
    pub answer: PartAnswer,
    /// Accepted rows with the columns of the log; `None` if there are none.
    pub rows: Option<RecordBatch>,
    /// The key that has to be durable with them.
    pub key: Option<KeyRecord>,
}

/// The order of one partition.
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
    /// Continues after `totals`; ids and keys are restored one by one. `ids_from` is the offset of the first id to come.
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

    /// Remembers the ids of events that are in the log already, from a column of the primary key.
    pub fn restore(&mut self, ids: &dyn Array) {
        if let Some(dedup) = &mut self.dedup {
            dedup.restore_all(&hash_ids(ids));
        }
    }

    /// Totals after everything sequenced, durable or not.
    pub fn totals(&self) -> Totals {
        self.totals
    }

    /// Sequences one submission that arrived at `arrived_at`.
    pub fn sequence(
        &mut self,
        rows: RecordBatch,
        ids: Option<&[u128]>,
        key: Option<&str>,
        arrived_at: Micros,
    ) -> Result<Sequenced, ArrowError> {
        if let Some(answer) = key.and_then(|key| self.keys.answer(key)) {
            return Ok(Sequenced { answer, ..Sequenced::default() });
        }
        let submitted = rows.num_rows();
        let rows = self.drop_duplicates(rows, ids)?;
        let mut answer = PartAnswer { duplicates: (submitted - rows.num_rows()) as u64, ..PartAnswer::default() };
        self.totals.duplicates += answer.duplicates;
        let rows = (rows.num_rows() > 0).then(|| self.stamp(rows, arrived_at, &mut answer)).transpose()?;
        let key = key.map(|key| KeyRecord { key: Arc::from(key), answer });
        if let Some(record) = &key {
            self.keys.remember(record.clone());
        }
        Ok(Sequenced { answer, rows, key })
    }

    /// The group was written.
    pub fn commit(&mut self) {
        self.committed = self.totals;
        self.keys.commit();
        if let Some(dedup) = &mut self.dedup {
            dedup.commit();
        }
    }

    /// The group was not written: it never was.
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

    fn stamp(
        &mut self,
        rows: RecordBatch,
        arrived_at: Micros,
        answer: &mut PartAnswer,
    ) -> Result<RecordBatch, ArrowError> {
        let times = rows.column(self.event_time).as_primitive::<TimestampMicrosecondType>();
        let verdict = self.rules.pass(times.values(), arrived_at, self.totals.watermark);
        let first = self.totals.head();
        let end = Offset(first.0 + rows.num_rows() as u64);
        answer.accepted = end.0 - first.0;
        (answer.late, answer.ahead) = (verdict.late, verdict.ahead);
        (answer.first_offset, answer.end_offset) = (Some(first), Some(end));
        self.totals.accepted += Ledger::of_range(self.partition, first, end);
        self.totals.watermark = verdict.after;
        self.totals.late += verdict.late;
        self.totals.ahead += verdict.ahead;
        let mut columns: Vec<ArrayRef> = rows.columns().to_vec();
        columns.push(verdict.before_each);
        RecordBatch::try_new(self.schema.clone(), columns)
    }
}
