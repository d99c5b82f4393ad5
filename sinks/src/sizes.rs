//! Bounds what a sink reads, holds and writes at once.

use shared::limits::{
    SINK_EPOCH_ROWS_MAX, SINK_EVENT_BYTES_AT_ONCE, SINK_EVENTS_AT_ONCE, SINK_PAGE_BYTES_MAX, SINK_ROWS_AT_ONCE,
    SINK_TRANSACTION_BYTES_MAX, SINK_WAITING_BYTES_MAX,
};

/// The sizes of the pieces in which a sink works. They decide how many transactions it needs, and nothing else.
#[derive(Debug, Clone, Copy)]
pub struct EpochSizes {
    /// Rows of an epoch that is one transaction.
    pub epoch_rows: usize,
    /// Rows of a page of a walk.
    pub page_rows: usize,
    /// Bytes of the keys of a page.
    pub page_bytes: usize,
    /// Bytes of the keys and values of a transaction.
    pub transaction_bytes: usize,
    /// Bytes of the rows that wait for the end of their windows.
    pub waiting_bytes: usize,
}

impl Default for EpochSizes {
    fn default() -> EpochSizes {
        EpochSizes {
            epoch_rows: SINK_EPOCH_ROWS_MAX,
            page_rows: SINK_ROWS_AT_ONCE,
            page_bytes: SINK_PAGE_BYTES_MAX,
            transaction_bytes: SINK_TRANSACTION_BYTES_MAX,
            waiting_bytes: SINK_WAITING_BYTES_MAX,
        }
    }
}

/// The sizes of the pieces in which a sink of a stream works.
#[derive(Debug, Clone, Copy)]
pub struct EventSizes {
    /// Events of a page of a partition.
    pub page_rows: usize,
    /// Bytes of the pages of all partitions.
    pub page_bytes: usize,
    /// Bytes of the keys and values of a transaction.
    pub transaction_bytes: usize,
}

impl Default for EventSizes {
    fn default() -> EventSizes {
        EventSizes {
            page_rows: SINK_EVENTS_AT_ONCE,
            page_bytes: SINK_EVENT_BYTES_AT_ONCE,
            transaction_bytes: SINK_TRANSACTION_BYTES_MAX,
        }
    }
}
