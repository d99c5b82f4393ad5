//! Defines the messages and traits by which intake, speed, batch and serving pass work to each other; `src/wiring.rs`
//! joins them. None of the layers names another.

use std::sync::Arc;

use arrow::array::RecordBatch;
use futures::future::BoxFuture;

use crate::ids::{Offset, Partition, StreamName, ViewName};
use crate::ledger::Ledger;
use crate::seam::Cut;
use crate::stream_watermark::PartitionProgress;
use crate::time::Micros;

/// Accepted events of one partition, in log order; durable once anyone but the log writer sees it.
#[derive(Debug, Clone)]
pub struct LogBatch {
    pub partition: Partition,
    /// Offset of the first row; the others follow without gaps.
    pub first_offset: Offset,
    /// When the events were accepted.
    pub arrived_at: Micros,
    /// Columns of [`crate::stream::Stream::log_schema`]: the stream's own, then `_watermark`.
    pub rows: RecordBatch,
    /// Ledger of every accepted event of the partition up to and including this batch.
    pub accepted: Ledger,
    /// The partition's watermark after this batch.
    pub watermark: Micros,
}

impl LogBatch {
    /// The offset after the last row.
    pub fn end_offset(&self) -> Offset {
        Offset(self.first_offset.0 + self.rows.num_rows() as u64)
    }
}

/// A cut of `view`, travelling in band: it lies exactly between the batch before it and the batch after it.
#[derive(Debug, Clone)]
pub struct CutMark {
    pub view: ViewName,
    pub partition: Partition,
    pub offset: Offset,
    pub accepted: Ledger,
}

/// What flows from a partition's log writer to those who read the log live.
#[derive(Debug, Clone)]
pub enum LogItem {
    Batch(Arc<LogBatch>),
    Cut(Arc<CutMark>),
}

impl LogItem {
    /// Rows the item brings: what a bounded queue counts.
    pub fn rows(&self) -> usize {
        match self {
            LogItem::Batch(batch) => batch.rows.num_rows(),
            LogItem::Cut(_) => 0,
        }
    }
}

/// The receiver is gone; the process is stopping.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the receiver of the log has stopped")]
pub struct Stopped;

/// One partition's live reader, as its log writer sees it.
pub trait LogSink: Send + Sync {
    /// Hands over the next item, in log order. Blocks while the reader is too far behind: that is the back-pressure.
    fn push(&self, item: LogItem) -> Result<(), Stopped>;
}

/// An error that ended a hand-off, with its cause in words.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{0}")]
pub struct HandoffError(pub String);

/// Reads the durable log again, after a restart.
pub trait LogReplay: Send + Sync {
    /// The oldest offset still in the log, and the first not yet written.
    fn range(&self, partition: Partition) -> (Offset, Offset);

    /// How far the partition has come, and whether everything accepted until now has been shown to its live readers.
    /// What a reader is asked after this call, it answers with all of that.
    fn progress(&self, partition: Partition) -> PartitionProgress;

    /// Calls `each` with all batches that hold offsets in `from..to`, in order; the first and the last are sliced to
    /// fit. Refuses a `from` before the log's start. Blocking: call it from a thread of its own.
    fn replay(
        &self,
        partition: Partition,
        from: Offset,
        to: Offset,
        each: &mut dyn FnMut(LogBatch),
    ) -> Result<(), HandoffError>;
}

/// Cuts a stream's log for a run.
pub trait Cutter: Send + Sync {
    /// Puts a cut of `view` in band into every partition's flow and says where it lies.
    fn cut(&self, stream: &StreamName, view: &ViewName) -> BoxFuture<'_, Result<Cut, HandoffError>>;
}

/// The archive, as a run sees it.
pub trait Archive: Send + Sync {
    /// Returns once every event before `cut` is committed to the archive.
    fn archived(&self, stream: &StreamName, cut: &Cut) -> BoxFuture<'_, Result<(), HandoffError>>;
}

/// Learns what the log is no longer needed for.
pub trait LogRetention: Send + Sync {
    /// `reader` will never again ask for offsets of `partition` before `offset`.
    fn release(&self, stream: &StreamName, partition: Partition, reader: &str, offset: Offset);
}
