//! Defines how the events of a stream are read again in the order of the log, page by page.

use arrow::array::RecordBatch;
use futures::future::BoxFuture;

use crate::handoff::HandoffError;
use crate::ids::{Offset, Partition};

/// The size of a page. A page has at least one event, and a batch of events that were accepted together is not divided by bytes.
#[derive(Debug, Clone, Copy)]
pub struct PageBounds {
    pub rows: usize,
    pub bytes: usize,
}

/// Some events of a partition, in the order of the log.
#[derive(Debug, Clone)]
pub struct EventPage {
    /// Columns of [`crate::stream::Stream::schema`].
    pub rows: RecordBatch,
    /// The offset of each row, ascending. Events that are gone (erased, or beyond the retention of the stream) are missing.
    pub offsets: Vec<Offset>,
    /// The next page starts here.
    pub end: Offset,
}

/// The accepted events of one stream: those of the log and, where the log no longer has them, those of the archive.
pub trait EventPages: Send + Sync {
    /// Returns the first offset whose event is not durable yet.
    fn head(&self, partition: Partition) -> Offset;

    /// Returns the next events of a partition from `from` on, which is before its head.
    fn page(
        &self,
        partition: Partition,
        from: Offset,
        bounds: PageBounds,
    ) -> BoxFuture<'_, Result<EventPage, HandoffError>>;
}
