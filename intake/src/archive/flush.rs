//! Divides pending rows into commits, and each commit into files: one per event date, each in order of event time, or of the
//! entity if the stream has one, and with its ledger.

use std::collections::HashSet;
use std::hash::Hash;
use std::sync::Arc;

use arrow::array::{Array, AsArray, BooleanArray, RecordBatch, UInt32Array};
use arrow::compute::take_record_batch;
use arrow::datatypes::{Int64Type, TimestampMicrosecondType};
use arrow::error::ArrowError;
use arrow::row::{RowConverter, SortField};
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
    /// Index of the entity column: readers of one entity find its rows next to each other.
    pub entity: Option<usize>,
    /// Index of the column `_source_offset`, if the stream reads a topic.
    pub source_offset: Option<usize>,
    pub rows: RecordBatch,
}

/// Says which rows are of erased entities; `None`: none is.
pub(super) type ErasedRows<'a> = &'a dyn Fn(&RecordBatch) -> Option<BooleanArray>;

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

    /// Divides the rows into the parts of separate commits, in order of their offsets, so that many dates make progress: a
    /// commit has at most `dates_max` dates. It may have more where events jump between dates, since a date then has a file
    /// in many commits: all commits together have at most twice as many files as one commit would have.
    pub fn commits(self, dates_max: usize) -> Vec<Flush> {
        let dates: Vec<DatePartition> = self.times().iter().map(|time| date_of(*time)).collect();
        let runs = dates.chunk_by(DatePartition::eq).map(|run| run[0]);
        let files_max = 2 * runs.collect::<HashSet<_>>().len();
        let mut dates_max = dates_max.max(1);
        let ends = loop {
            let (ends, files) = commit_ends(&dates, dates_max);
            if files <= files_max {
                break ends;
            }
            dates_max *= 2;
        };
        let mut start = 0;
        let commit = |end: usize| {
            let (from, to) = (self.from.0 + start as u64, self.from.0 + end as u64);
            let rows = self.rows.slice(start, end - start);
            start = end;
            let latest_watermark = self.watermark_after(end);
            Flush { from: Offset(from), to: Offset(to), latest_watermark, rows, ..self }
        };
        ends.into_iter().map(commit).collect()
    }

    /// The partition's watermark after the first `rows` rows: each row records the watermark before it.
    fn watermark_after(&self, rows: usize) -> Micros {
        if rows == self.rows.num_rows() {
            return self.latest_watermark;
        }
        let before_each = self.rows.column(self.rows.num_columns() - 1).as_primitive::<TimestampMicrosecondType>();
        if before_each.is_null(rows) { Micros::MIN } else { Micros(before_each.value(rows)) }
    }

    /// The offset after that of the last record, if the rows are of a topic: what a log that is lost continues from.
    pub fn source_next(&self) -> Option<i64> {
        let offsets = self.rows.column(self.source_offset?).as_primitive::<Int64Type>();
        let last = offsets.len().checked_sub(1)?;
        offsets.is_valid(last).then(|| offsets.value(last) + 1)
    }

    fn times(&self) -> &[i64] {
        self.rows.column(self.event_time).as_primitive::<TimestampMicrosecondType>().values()
    }

    /// Divides the rows into files, by date. Erased ones are in none: only the ledgers of their files have them.
    pub fn parts(&self, erased: ErasedRows<'_>) -> Result<Vec<ArchiveFileRows>, ArrowError> {
        let erased = erased(&self.rows);
        let times = self.times();
        let mut order: Vec<u32> = (0..times.len() as u32).collect();
        // Stable, so that equal keys stay in log order; and fast where events arrived nearly in order.
        match self.entity {
            None => order.sort_by_key(|row| times[*row as usize]),
            Some(entity) => {
                let entities = self.rows.column(entity);
                let converter = RowConverter::new(vec![SortField::new(entities.data_type().clone())])?;
                let keys = converter.convert_columns(&[Arc::clone(entities)])?;
                let day = |row: u32| Micros(times[row as usize]).day();
                let key = |row: u32| keys.row(row as usize);
                order.sort_by(|a, b| day(*a).cmp(&day(*b)).then_with(|| key(*a).cmp(&key(*b))));
            }
        }
        let date = |row: &u32| date_of(times[*row as usize]);
        order.chunk_by(|a, b| date(a) == date(b)).map(|rows| self.part(date(&rows[0]), rows, erased.as_ref())).collect()
    }

    fn part(
        &self,
        date: DatePartition,
        rows: &[u32],
        erased: Option<&BooleanArray>,
    ) -> Result<ArchiveFileRows, ArrowError> {
        let is_kept = |row: &u32| !erased.is_some_and(|erased| erased.value(*row as usize));
        let kept: Vec<u32> = rows.iter().copied().filter(is_kept).collect();
        let ledger = rows.iter().map(|row| Ledger::of(self.partition, Offset(self.from.0 + u64::from(*row)))).sum();
        let tags = ArchiveTags {
            partition: self.partition,
            from: self.from,
            to: self.to,
            rows: kept.len() as u64,
            erased: (rows.len() - kept.len()) as u64,
            ledger,
            latest_watermark: self.latest_watermark,
        };
        let rows = take_record_batch(&self.rows, &UInt32Array::from(kept))?;
        Ok(ArchiveFileRows { date, rows, tags })
    }
}

/// The date of the file of an event.
fn date_of(time: i64) -> DatePartition {
    DatePartition::of_day(Micros(time).day())
}

/// Divides rows with these dates into commits of at most `dates_max` dates each. Returns where each ends, and the number of
/// files of all commits.
fn commit_ends<D: Copy + Eq + Hash>(dates: &[D], dates_max: usize) -> (Vec<usize>, usize) {
    let (mut ends, mut files) = (Vec::new(), 0);
    let mut of_commit = HashSet::new();
    for (row, date) in dates.iter().enumerate() {
        // Most events have the date of the one before, which is in the commit.
        if row > 0 && dates[row - 1] == *date {
            continue;
        }
        if !of_commit.contains(date) && of_commit.len() == dates_max {
            ends.push(row);
            files += of_commit.len();
            of_commit.clear();
        }
        of_commit.insert(*date);
    }
    ends.push(dates.len());
    (ends, files + of_commit.len())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn commits_cover_all_rows_with_few_files(
            dates in prop::collection::vec(0u8..80, 1..300), dates_max in 1usize..20,
        ) {
            let (ends, files) = commit_ends(&dates, dates_max);
            prop_assert!(ends.is_sorted() && ends.last() == Some(&dates.len()));
            let starts = std::iter::once(0).chain(ends.iter().copied());
            let of_commits: Vec<usize> =
                starts.zip(&ends).map(|(from, to)| dates[from..*to].iter().collect::<HashSet<_>>().len()).collect();
            prop_assert!(of_commits.iter().all(|dates| (1..=dates_max).contains(dates)), "{:?}", of_commits);
            prop_assert_eq!(of_commits.iter().sum::<usize>(), files);
        }
    }
}
