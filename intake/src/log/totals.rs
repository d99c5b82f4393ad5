//! Defines the running totals of a partition: the counts that a recovery could not afford to recompute.

use bytes::{Buf, BufMut};
use shared::ids::Offset;
use shared::ledger::Ledger;
use shared::time::Micros;

/// Running totals of a partition since its first event. Each frame carries those after it, each segment those before it,
/// so the log may be trimmed from the front.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Totals {
    /// Every accepted event; offsets are dense, so their number is also the next offset.
    pub accepted: Ledger,
    pub watermark: Micros,
    /// Events that were dropped as duplicates.
    pub duplicates: u64,
    /// Accepted events that came after allowed lateness.
    pub late: u64,
    /// Accepted events too far ahead of their arrival to move the watermark.
    pub ahead: u64,
}

impl Totals {
    /// Before the first event.
    pub const START: Totals =
        Totals { accepted: Ledger::EMPTY, watermark: Micros::MIN, duplicates: 0, late: 0, ahead: 0 };

    /// The totals after the `accepted` events of another log, as far as the archive records them.
    pub fn after_archived(accepted: Ledger, watermark: Micros) -> Totals {
        Totals { accepted, watermark, ..Totals::START }
    }

    /// Encoded size, in bytes.
    pub(crate) const BYTES: usize = 56;

    /// The next offset.
    pub fn head(&self) -> Offset {
        Offset(self.accepted.events)
    }

    pub(crate) fn put(&self, out: &mut Vec<u8>) {
        out.put_u64_le(self.accepted.events);
        out.put_u128_le(self.accepted.positions);
        out.put_i64_le(self.watermark.0);
        out.put_u64_le(self.duplicates);
        out.put_u64_le(self.late);
        out.put_u64_le(self.ahead);
    }

    /// Reads what [`Totals::put`] wrote; `from` holds at least [`Totals::BYTES`].
    pub(crate) fn get(from: &mut &[u8]) -> Totals {
        let accepted = Ledger { events: from.get_u64_le(), positions: from.get_u128_le() };
        Totals {
            accepted,
            watermark: Micros(from.get_i64_le()),
            duplicates: from.get_u64_le(),
            late: from.get_u64_le(),
            ahead: from.get_u64_le(),
        }
    }
}
