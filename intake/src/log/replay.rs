//! Replays a range of the log from the segment files, with its own file descriptors, while the writer continues.

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, RecordBatch};
use arrow::compute::filter_record_batch;
use arrow::datatypes::TimestampMicrosecondType;
use shared::handoff::LogBatch;
use shared::ids::{Offset, Partition};
use shared::ledger::Ledger;
use shared::time::Micros;

use super::blank::blank;
use super::columns::ColumnReader;
use super::cursor::{CursorStep, Frame, FrameCursor};
use super::error::LogError;
use super::segment;
use super::store::SegmentStore;

/// Calls `each` with the durable batches of the offsets `from..to`, in order, the first and the last sliced to fit.
/// Each carries the ledger and the watermark just after its own last row. Events of erased entities are blank.
pub(crate) fn batches(
    store: &SegmentStore,
    from: Offset,
    to: Offset,
    each: &mut dyn FnMut(LogBatch),
) -> Result<(), LogError> {
    frames(store, from, to, &mut |frame, columns| {
        let first = frame.header.first_offset();
        let (skip, take) = overlap(frame, from, to);
        let mut rows = columns.decode(frame.rows(), frame.message(), &frame.body())?;
        rows = without_erased(store, rows, frame.header.arrived_at)?;
        let mut watermark = frame.header.after.watermark;
        if skip + take < frame.rows() {
            let before_each = rows.column(rows.num_columns() - 1).as_primitive::<TimestampMicrosecondType>();
            let next = skip + take;
            watermark = if before_each.is_null(next) { Micros::MIN } else { Micros(before_each.value(next)) };
        }
        if take < frame.rows() {
            rows = rows.slice(skip, take);
        }
        let first_offset = Offset(first.0 + skip as u64);
        let (end, frame_end) = (Offset(first_offset.0 + take as u64), frame.header.after.head());
        each(LogBatch {
            partition: store.partition,
            first_offset,
            arrived_at: frame.header.arrived_at,
            rows,
            accepted: frame.header.after.accepted - Ledger::of_range(store.partition, end, frame_end),
            watermark,
        });
        Ok(())
    })
}

/// The rows with those of erased entities blank.
fn without_erased(store: &SegmentStore, rows: RecordBatch, accepted_at: Micros) -> Result<RecordBatch, LogError> {
    let Some((entity, sequence)) = store.stream.entity.zip(store.stream.sequence()) else { return Ok(rows) };
    match store.tombstones.rows(rows.column(entity), rows.column(sequence)) {
        Some(erased) => Ok(blank(&rows, &store.stream, &erased, accepted_at)?),
        None => Ok(rows),
    }
}

/// Calls `each` with only the columns at `indexes`, for the offsets `from..to`.
pub(crate) fn columns(
    store: &SegmentStore,
    indexes: &[usize],
    from: Offset,
    to: Offset,
    each: &mut dyn FnMut(&[ArrayRef]),
) -> Result<(), LogError> {
    frames(store, from, to, &mut |frame, reader| {
        let (skip, take) = overlap(frame, from, to);
        let column = |index: &usize| -> Result<ArrayRef, LogError> {
            let column = reader.decode_column(*index, frame.rows(), frame.message(), &frame.body())?;
            Ok(column.slice(skip, take))
        };
        each(&indexes.iter().map(column).collect::<Result<Vec<_>, _>>()?);
        Ok(())
    })
}

/// Rows of one frame that were looked for.
#[derive(Debug)]
pub struct MatchingRows {
    pub partition: Partition,
    /// When they were accepted.
    pub arrived_at: Micros,
    /// With the log schema.
    pub rows: RecordBatch,
    /// The offset of each.
    pub offsets: Vec<Offset>,
}

/// Calls `each` with the rows of the offsets `from..to` for which the predicate holds of the column at its index. Other
/// columns are decoded only of frames with such rows.
pub(crate) fn matching(
    store: &SegmentStore,
    from: Offset,
    to: Offset,
    (index, is_match): (usize, &dyn Fn(&ArrayRef) -> BooleanArray),
    each: &mut dyn FnMut(MatchingRows),
) -> Result<(), LogError> {
    frames(store, from, to, &mut |frame, columns| {
        let (skip, take) = overlap(frame, from, to);
        let column = columns.decode_column(index, frame.rows(), frame.message(), &frame.body())?;
        let mask = is_match(&column.slice(skip, take));
        if mask.true_count() == 0 {
            return Ok(());
        }
        let rows = columns.decode(frame.rows(), frame.message(), &frame.body())?;
        let first = frame.header.first_offset().0 + skip as u64;
        each(MatchingRows {
            partition: store.partition,
            arrived_at: frame.header.arrived_at,
            rows: filter_record_batch(&rows.slice(skip, take), &mask)?,
            offsets: mask.values().set_indices().map(|row| Offset(first + row as u64)).collect(),
        });
        Ok(())
    })
}

/// The number of rows of the frame before `from`, and in `from..to`.
fn overlap(frame: &Frame, from: Offset, to: Offset) -> (usize, usize) {
    let (first, end) = (frame.header.first_offset().0, frame.header.after.head().0);
    let start = first.max(from.0);
    ((start - first) as usize, (end.min(to.0) - start) as usize)
}

fn frames(
    store: &SegmentStore,
    from: Offset,
    to: Offset,
    each: &mut dyn FnMut(&Frame, &ColumnReader) -> Result<(), LogError>,
) -> Result<(), LogError> {
    let to = to.min(store.head());
    let start = store.start();
    if from < start {
        return Err(LogError::BeforeStart { from: from.0, start: start.0 });
    }
    if from >= to {
        return Ok(());
    }
    for segment in store.segments(from, to) {
        let path = &segment.path;
        let file = store.disk.open(path).map_err(LogError::io(path))?;
        let (header, position) = segment::read_header(&segment, store.partition, file.as_ref())?;
        let columns = ColumnReader::new(path, &header.columns, &store.stream)?;
        let mut cursor = FrameCursor::new(file, header.salt, position, segment.bytes);
        loop {
            match cursor.step().map_err(LogError::io(path))? {
                CursorStep::Frame(frame) if frame.header.after.head() <= from || frame.rows() == 0 => {}
                CursorStep::Frame(frame) if frame.header.first_offset() >= to => return Ok(()),
                CursorStep::Frame(frame) => each(&frame, &columns)?,
                CursorStep::End => break,
                CursorStep::Broken(reason) => return Err(LogError::corrupt(path, cursor.position(), reason)),
            }
        }
    }
    Ok(())
}
