//! Queues what a log writer hands to a live reader, in log order, within a bound in bytes. Beyond the bound it keeps
//! positions instead of rows, and the reader reads those events from the log: a reader that is behind costs disk, not
//! memory, and never holds up the writer.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::handoff::{CutMark, LogBatch, LogItem};
use crate::ids::Offset;
use crate::retained_bytes::retained_bytes;

/// An element of a [`LogQueue`].
#[derive(Debug, Clone)]
pub enum QueuedItem {
    /// The next events.
    Batch(Arc<LogBatch>),
    /// A cut directly after the events before it.
    Cut(Arc<CutMark>),
    /// The log holds further events before this offset, which did not fit the queue.
    Unqueued(Offset),
}

impl QueuedItem {
    /// Returns the number of rows in memory.
    pub fn rows(&self) -> usize {
        match self {
            QueuedItem::Batch(batch) => batch.rows.num_rows(),
            QueuedItem::Cut(_) | QueuedItem::Unqueued(_) => 0,
        }
    }

    /// Returns the offset that a reader must have reached before it processes this item: the log holds what is missing.
    pub fn start(&self) -> Offset {
        match self {
            QueuedItem::Batch(batch) => batch.first_offset,
            QueuedItem::Cut(cut) => cut.offset,
            QueuedItem::Unqueued(end) => *end,
        }
    }

    /// Returns the offset that a reader has reached after this item.
    pub fn end(&self) -> Offset {
        match self {
            QueuedItem::Batch(batch) => batch.end_offset(),
            QueuedItem::Cut(_) | QueuedItem::Unqueued(_) => self.start(),
        }
    }
}

/// The queue between a log writer and one reader. It has no lock of its own.
#[derive(Debug)]
pub struct LogQueue {
    /// With the bytes of each item.
    items: VecDeque<(QueuedItem, usize)>,
    bytes: usize,
    bytes_max: usize,
    rows: usize,
}

impl LogQueue {
    /// Creates an empty queue that holds batches of at most `bytes_max` bytes, or a single larger one.
    pub fn new(bytes_max: usize) -> LogQueue {
        LogQueue { items: VecDeque::new(), bytes: 0, bytes_max, rows: 0 }
    }

    /// Adds the next item of the log. A batch that does not fit is replaced with its position.
    pub fn push(&mut self, item: LogItem) {
        match item {
            LogItem::Cut(cut) => self.items.push_back((QueuedItem::Cut(cut), 0)),
            LogItem::Batch(batch) => {
                let bytes = retained_bytes(&batch.rows);
                if self.bytes == 0 || self.bytes.saturating_add(bytes) <= self.bytes_max {
                    self.bytes += bytes;
                    self.rows += batch.rows.num_rows();
                    self.items.push_back((QueuedItem::Batch(batch), bytes));
                } else if let Some((QueuedItem::Unqueued(end), _)) = self.items.back_mut() {
                    *end = batch.end_offset();
                } else {
                    self.items.push_back((QueuedItem::Unqueued(batch.end_offset()), 0));
                }
            }
        }
    }

    /// Returns the oldest item.
    pub fn front(&self) -> Option<&QueuedItem> {
        self.items.front().map(|(item, _)| item)
    }

    /// Removes the oldest item.
    pub fn pop(&mut self) -> Option<QueuedItem> {
        let (item, bytes) = self.items.pop_front()?;
        self.bytes -= bytes;
        self.rows -= item.rows();
        Some(item)
    }

    /// Number of items.
    pub fn len(&self) -> usize {
        self.items.len()
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// Bytes of the batches that wait.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Rows of the batches that wait.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Drops everything that waits.
    pub fn clear(&mut self) {
        *self = LogQueue::new(self.bytes_max);
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::{ArrayRef, Int64Array, RecordBatch};

    use super::*;
    use crate::ids::Partition;
    use crate::ledger::Ledger;
    use crate::time::Micros;

    fn batch(first: u64, rows: usize) -> LogItem {
        let column: ArrayRef = Arc::new(Int64Array::from_iter_values((first as i64..).take(rows)));
        LogItem::Batch(Arc::new(LogBatch {
            partition: Partition(0),
            first_offset: Offset(first),
            arrived_at: Micros(0),
            rows: RecordBatch::try_from_iter([("n", column)]).expect("a column"),
            accepted: Ledger::EMPTY,
            watermark: Micros::MIN,
        }))
    }

    fn cut(offset: u64) -> LogItem {
        let view = "v".parse().expect("a name");
        LogItem::Cut(Arc::new(CutMark {
            view,
            partition: Partition(0),
            offset: Offset(offset),
            accepted: Ledger::EMPTY,
        }))
    }

    #[test]
    fn beyond_the_bound_positions_are_kept_in_order_and_no_offset_is_skipped() {
        let mut queue = LogQueue::new(2_000);
        let mut pushed = 0;
        for rows in [100, 100, 100, 1, 50] {
            queue.push(batch(pushed, rows));
            pushed += rows as u64;
        }
        queue.push(cut(pushed));
        queue.push(batch(pushed, 100));
        pushed += 100;
        queue.push(batch(pushed, 100));
        pushed += 100;
        assert!(queue.bytes() <= 2_000 && queue.rows() >= 200, "{queue:?}");
        // What a reader does: it reads from the log what lies before an item.
        let (mut reached, mut cuts) = (Offset(0), Vec::new());
        while let Some(item) = queue.pop() {
            assert!(item.start() >= reached, "{item:?}");
            if matches!(item, QueuedItem::Cut(_)) {
                cuts.push(item.start());
            }
            reached = item.end();
        }
        assert_eq!((reached, cuts), (Offset(pushed), vec![Offset(351)]));
        assert_eq!((queue.bytes(), queue.rows()), (0, 0));
        // A batch larger than the bound is queued alone.
        queue.push(batch(pushed, 10_000));
        assert_eq!(queue.rows(), 10_000);
        queue.push(batch(pushed + 10_000, 1));
        assert_eq!((queue.rows(), queue.len()), (10_000, 2));
    }
}
