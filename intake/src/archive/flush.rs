//! Divides pending rows into files: one per event date, each in order of event time and with its ledger.

use arrow::array::{AsArray, RecordBatch, UInt32Array};
use arrow::compute::take_record_batch;
use arrow::datatypes::TimestampMicrosecondType;
use arrow::error::ArrowError;
use lake::ArchiveTags;
use shared::date_partition::DatePartition;
use shared::ids::{Offset, Partition};
use shared::ledger::Ledger;
use shared::time::Micros;

/// The rows `from..to` of one partition, in order of their offsets, with the columns of the archive.
pub(super) struct Flush {
    pub partition: Partition,
    pub from: Offset,
    pub to: Offset,
    pub latest_watermark: Micros,
    /// Index of the event time column.
    pub event_time: usize,
    pub rows: RecordBatch,
}

/// The rows of one file, and its tags.
pub(super) struct ArchiveFileRows {
    pub date: DatePartition,
    pub rows: RecordBatch,
    pub tags: ArchiveTags,
}

impl Flush {
    /// The rows after `offset`, inclusive.
    pub fn after(&self, offset: Offset) -> Flush {
        let known = offset.0.saturating_sub(self.from.0).min(self.to.0 - self.from.0) as usize;
        let rows = self.rows.slice(known, self.rows.num_rows() - known);
        Flush { from: Offset(self.from.0 + known as u64), rows, ..*self }
    }

    /// Divides the rows into files, by date.
    pub fn parts(&self) -> Result<Vec<ArchiveFileRows>, ArrowError> {
        let times = self.rows.column(self.event_time).as_primitive::<TimestampMicrosecondType>().values();
        let mut order: Vec<u32> = (0..times.len() as u32).collect();
        // Stable, so that equal times stay in log order; and fast where events arrived nearly in order.
        order.sort_by_key(|row| times[*row as usize]);
        let date = |row: &u32| DatePartition::of_day(Micros(times[*row as usize]).day());
        order.chunk_by(|a, b| date(a) == date(b)).map(|rows| self.part(date(&rows[0]), rows)).collect()
    }

    fn part(&self, date: DatePartition, rows: &[u32]) -> Result<ArchiveFileRows, ArrowError> {
        let ledger = rows.iter().map(|row| Ledger::of(self.partition, Offset(self.from.0 + u64::from(*row)))).sum();
        let tags = ArchiveTags {
            partition: self.partition,
            from: self.from,
            to: self.to,
            rows: rows.len() as u64,
            ledger,
            latest_watermark: self.latest_watermark,
        };
        let rows = take_record_batch(&self.rows, &UInt32Array::from_iter_values(rows.iter().copied()))?;
        Ok(ArchiveFileRows { date, rows, tags })
    }
}
