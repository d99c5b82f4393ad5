//! How is a partition doing? The figures that `/v1/streams` shows.

use serde::Serialize;
use shared::ids::{Offset, Partition};
use shared::time::Micros;

use crate::log::Totals;

/// A partition's figures at one moment.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct PartitionStatus {
    pub partition: Partition,
    /// The oldest offset still in the log.
    pub log_start: Offset,
    /// The next offset to be given out.
    pub head: Offset,
    /// Events before this offset are durable.
    pub durable: Offset,
    /// `None` before the first event.
    pub watermark: Option<Micros>,
    /// Since the partition's first event, as are the next three.
    pub accepted: u64,
    pub duplicates: u64,
    /// Accepted events that came after allowed lateness.
    pub late: u64,
    /// Accepted events too far ahead of their arrival to move the watermark.
    pub ahead: u64,
    pub log_bytes: u64,
    /// Event bytes that wait for the writer.
    pub queued_bytes: u64,
    pub last_arrived_at: Option<Micros>,
    /// How long the disk took to make the last group durable, in milliseconds.
    pub last_sync_ms: Option<f64>,
}

/// The figures that only the writer knows.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Live {
    /// Totals after the last durable group.
    pub totals: Totals,
    /// The next offset to be given out.
    pub head: Offset,
    pub last_arrived_at: Option<Micros>,
    pub last_sync_ms: Option<f64>,
}
