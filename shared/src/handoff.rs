//! Defines the messages and traits through which intake, speed, batch and serving work together.
//!
//! `src/wiring.rs` connects them; no layer names another.

use std::sync::Arc;

use arrow::array::{BooleanArray, RecordBatch};
use futures::future::BoxFuture;

use crate::ids::{Offset, Partition, StreamName, ViewName};
use crate::ledger::Ledger;
use crate::seam::Cut;
use crate::stream_watermark::PartitionProgress;
use crate::time::Micros;

/// Accepted events of one partition, in log order. They are durable before any reader gets them (I1).
#[derive(Debug, Clone)]
pub struct LogBatch {
    pub partition: Partition,
    /// Offset of the first row; the others follow without gaps.
    pub first_offset: Offset,
    /// Time at which the events were accepted.
    pub arrived_at: Micros,
    /// Columns of [`crate::stream::Stream::log_schema`]: the stream's own, then `_watermark`.
    pub rows: RecordBatch,
    /// Ledger of every accepted event of the partition up to and including this batch.
    pub accepted: Ledger,
    /// The partition's watermark after this batch.
    pub watermark: Micros,
}

impl LogBatch {
    /// Returns the offset after the last row.
    pub fn end_offset(&self) -> Offset {
        Offset(self.first_offset.0 + self.rows.num_rows() as u64)
    }
}

/// A cut of `view`, passed on in log order: it lies exactly between the batch before it and the batch after it.
#[derive(Debug, Clone)]
pub struct CutMark {
    pub view: ViewName,
    pub partition: Partition,
    pub offset: Offset,
    pub accepted: Ledger,
}

/// An item that a partition's log writer passes to the live readers of the log.
#[derive(Debug, Clone)]
pub enum LogItem {
    Batch(Arc<LogBatch>),
    Cut(Arc<CutMark>),
}

impl LogItem {
    /// Returns the number of rows.
    pub fn rows(&self) -> usize {
        match self {
            LogItem::Batch(batch) => batch.rows.num_rows(),
            LogItem::Cut(_) => 0,
        }
    }
}

/// The receiver has stopped, because the process is stopping.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the receiver of the log has stopped")]
pub struct Stopped;

/// A live reader of one partition, to which the log writer passes batches and cuts.
///
/// ```text
/// log writer ── push ──> LogSink of the speed layer      batch | batch | cut | batch ..
///            └─ push ──> LogSink of the archiver         batch | batch | cut | batch ..
/// ```
///
/// ```
/// use std::sync::atomic::{AtomicU64, Ordering};
///
/// use shared::handoff::{LogItem, LogSink, Stopped};
///
/// /// Counts the events of a partition.
/// #[derive(Default)]
/// struct Count(AtomicU64);
///
/// impl LogSink for Count {
///     fn push(&self, item: LogItem) -> Result<(), Stopped> {
///         self.0.fetch_add(item.rows() as u64, Ordering::Relaxed);
///         Ok(())
///     }
/// }
/// ```
pub trait LogSink: Send + Sync {
    /// Passes on the next item, in log order. Never waits for the reader: one that is behind keeps positions and reads the
    /// log again (see [`crate::log_queue`]).
    ///
    /// Errors: the reader has stopped.
    fn push(&self, item: LogItem) -> Result<(), Stopped>;
}

/// An error between layers, with its cause as text.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct HandoffError(pub String);

/// The durable log, which readers replay after a restart.
pub trait LogReplay: Send + Sync {
    /// Returns the oldest offset in the log, and the next offset to write.
    fn range(&self, partition: Partition) -> (Offset, Offset);

    /// Returns the watermark and last arrival of the partition, and whether its live readers have received every accepted
    /// event. If so, a query that starts after this call sees all of them.
    fn progress(&self, partition: Partition) -> PartitionProgress;

    /// Calls `each` with all batches that hold offsets in `from..to`, in order; the first and the last are sliced to fit.
    /// Blocking: call it from a thread of its own.
    ///
    /// Errors: `from` is before the start of the log, or the log cannot be read.
    fn replay(
        &self,
        partition: Partition,
        from: Offset,
        to: Offset,
        each: &mut dyn FnMut(LogBatch),
    ) -> Result<(), HandoffError>;

    /// Returns which rows of a partition, with the stream's columns first, are of erased entities: those that were read before
    /// the erasure are whole, others are blank. `None`: none is.
    fn erased(&self, _partition: Partition, _rows: &RecordBatch) -> Option<BooleanArray> {
        None
    }
}

/// Cuts a stream's log for a run.
///
/// A cut passes through each partition in log order like an event. Readers change to the next generation when they reach it,
/// so the generation before it holds exactly the events before the cut.
///
/// ```
/// use shared::handoff::{Archive, Cutter, HandoffError};
/// use shared::ids::{StreamName, ViewName};
/// use shared::seam::Cut;
///
/// /// The start of a batch run: cut the log, then wait until the archive covers the cut.
/// async fn start(
///     cutter: &dyn Cutter,
///     archive: &dyn Archive,
///     stream: &StreamName,
///     view: &ViewName,
/// ) -> Result<Cut, HandoffError> {
///     let cut = cutter.cut(stream, view).await?;
///     archive.archived(stream, &cut).await?;
///     Ok(cut)
/// }
/// ```
pub trait Cutter: Send + Sync {
    /// Puts a cut of `view` into every partition and returns its positions.
    fn cut(&self, stream: &StreamName, view: &ViewName) -> BoxFuture<'_, Result<Cut, HandoffError>>;
}

/// The archive of events, for which runs wait.
pub trait Archive: Send + Sync {
    /// Returns once every event before `cut` is committed to the archive.
    fn archived(&self, stream: &StreamName, cut: &Cut) -> BoxFuture<'_, Result<(), HandoffError>>;
}

/// Removes log segments that no reader needs.
pub trait LogRetention: Send + Sync {
    /// Notes that `reader` does not need offsets of `partition` before `offset` any more.
    fn release(&self, stream: &StreamName, partition: Partition, reader: &str, offset: Offset);
}
