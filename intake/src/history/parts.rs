//! Divides rows into files, one or more per event date: the rows of a date are cut in the order of their positions, and
//! sorted by event time within a file. The positions are not known yet: another process may commit first.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, Int32Array, Int64Array, RecordBatch, TimestampMicrosecondArray, UInt32Array};
use arrow::compute::take_record_batch;
use arrow::datatypes::TimestampMicrosecondType;
use arrow::error::ArrowError;
use lake::ArchiveTags;
use shared::date_partition::DatePartition;
use shared::ids::{Offset, Partition};
use shared::ledger::Ledger;
use shared::stream::Stream;
use shared::time::{Day, Micros};

/// The rows of one file.
#[derive(Debug)]
pub(super) struct HistoricalFileRows {
    pub date: DatePartition,
    /// The rows of the chunk, in the order of the file.
    rows: RowSelection,
    /// The range of the chunk that the file covers: its rows of that range that fall on the date.
    covers: (u32, u32),
}

#[derive(Debug)]
enum RowSelection {
    /// Consecutive rows, already in order.
    Range(u32, u32),
    Listed(Vec<u32>),
}

/// Divides rows into files of at most `file_rows` rows.
pub(super) fn parts(stream: &Stream, rows: &RecordBatch, file_rows: usize) -> Vec<HistoricalFileRows> {
    let times = rows.column(stream.event_time).as_primitive::<TimestampMicrosecondType>().values();
    let mut dates: BTreeMap<DatePartition, Vec<u32>> = BTreeMap::new();
    let mut row = 0;
    while row < times.len() {
        let day = Micros(times[row]).day();
        let (from, to) = (day.start().0, Day(day.0 + 1).start().0);
        let end = row + times[row..].iter().take_while(|time| from <= **time && **time < to).count();
        dates.entry(DatePartition::of_day(day)).or_default().extend(row as u32..end as u32);
        row = end;
    }
    let mut parts = Vec::new();
    for (date, listed) in dates {
        // Pieces of equal size: no file is left with only a few rows.
        let piece = listed.len().div_ceil(listed.len().div_ceil(file_rows.max(1)));
        let pieces: Vec<&[u32]> = listed.chunks(piece).collect();
        for (number, piece) in pieces.iter().enumerate() {
            let from = if number == 0 { 0 } else { piece[0] };
            let to = pieces.get(number + 1).map_or(times.len() as u32, |next| next[0]);
            let in_order = piece.is_sorted_by_key(|row| times[*row as usize]);
            let (first, last) = (piece[0], piece[piece.len() - 1]);
            let rows = if in_order && (last - first) as usize + 1 == piece.len() {
                RowSelection::Range(first, last + 1)
            } else {
                let mut listed = piece.to_vec();
                // Stable, so that equal times stay in the order of ingestion.
                listed.sort_by_key(|row| times[*row as usize]);
                RowSelection::Listed(listed)
            };
            parts.push(HistoricalFileRows { date, rows, covers: (from, to) });
        }
    }
    parts
}

impl HistoricalFileRows {
    /// Returns the rows of the file with the columns of the archive, and its tags; the first row of `chunk` has the
    /// position `from`.
    pub fn at_position(
        &self,
        stream: &Stream,
        chunk: &RecordBatch,
        from: Offset,
        arrived_at: Micros,
    ) -> Result<(RecordBatch, ArchiveTags), ArrowError> {
        let position = |row: u32| from.0 + u64::from(row);
        let (rows, positions): (RecordBatch, Vec<i64>) = match &self.rows {
            RowSelection::Range(first, end) => {
                let rows = chunk.slice(*first as usize, (end - first) as usize);
                (rows, (position(*first) as i64..position(*end) as i64).collect())
            }
            RowSelection::Listed(listed) => {
                let indices = UInt32Array::from(listed.clone());
                (take_record_batch(chunk, &indices)?, listed.iter().map(|row| position(*row) as i64).collect())
            }
        };
        let count = rows.num_rows();
        let ledger = positions.iter().map(|position| Ledger::of(Partition::HISTORY, Offset(*position as u64))).sum();
        let mut columns: Vec<ArrayRef> = rows.columns().to_vec();
        columns.push(Arc::new(Int32Array::from_value(Partition::HISTORY.0 as i32, count)));
        columns.push(Arc::new(Int64Array::from(positions)));
        columns.push(Arc::new(TimestampMicrosecondArray::from_value(arrived_at.0, count).with_timezone("UTC")));
        columns.push(Arc::new(TimestampMicrosecondArray::new_null(count).with_timezone("UTC")));
        let tags = ArchiveTags {
            partition: Partition::HISTORY,
            from: Offset(position(self.covers.0)),
            to: Offset(position(self.covers.1)),
            rows: count as u64,
            erased: 0,
            ledger,
            latest_watermark: Micros::MIN,
        };
        Ok((RecordBatch::try_new(stream.archive_schema(), columns)?, tags))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_of_a_date_follow_each_other_and_cover_all_places() {
        let sql = "CREATE STREAM s (at TIMESTAMP) WITH (event_time = 'at');";
        let stream =
            shared::sql::parse_definitions(&[("s".to_owned(), sql.to_owned())]).expect("right").streams.remove(0);
        let day = shared::time::MICROS_PER_DAY;
        let times = vec![0, 1, day, day + 1, 5, 4, day + 2, 3, -1];
        let column: ArrayRef = Arc::new(TimestampMicrosecondArray::from(times).with_timezone("UTC"));
        let chunk = RecordBatch::try_new(stream.schema(), vec![column]).expect("rows");
        let files: Vec<_> = parts(&stream, &chunk, 3)
            .iter()
            .map(|part| {
                let (rows, tags) = part.at_position(&stream, &chunk, Offset(100), Micros(7)).expect("rows");
                let offsets = rows.column(2).as_primitive::<arrow::datatypes::Int64Type>().values().to_vec();
                (part.date.day().map(|day| day.0), offsets, (tags.from.0, tags.to.0), tags.ledger.events)
            })
            .collect();
        assert_eq!(
            files,
            [
                (Some(-1), vec![108], (100, 109), 1),
                (Some(0), vec![100, 101, 104], (100, 105), 3),
                (Some(0), vec![107, 105], (105, 109), 2),
                (Some(1), vec![102, 103, 106], (100, 109), 3),
            ]
        );
    }
}
