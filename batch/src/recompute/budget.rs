//! Divides the memory limit of a run among its parts. The shares add up to less than the limit: the rest is for memory that
//! cannot be counted (buffers of readers, what the allocator keeps).

/// The shares of one run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Budget {
    /// The limit that the operator set, in bytes.
    pub limit_bytes: u64,
}

/// Bytes that no share counts: buffers of readers and writers, and memory that the allocator keeps between passes. Of a small
/// limit a third is set aside. Measured with 50 million groups (docs/performance.md).
const UNCOUNTED_BYTES: u64 = 320 << 20;
/// Bytes that a row read by Polars costs at most while it is grouped: its columns, and a group of its own.
const GROUPED_ROW_BYTES: u64 = 512;
/// Bytes that an event costs at most while causes are looked up: time, position and key.
const EXPLAINED_ROW_BYTES: u64 = 128;
/// Bytes that a row costs at most while it is compared, on both sides together.
const COMPARED_ROW_BYTES: u64 = 512;

impl Budget {
    /// Returns the limit less what no share counts.
    fn shared_out(self) -> u64 {
        self.limit_bytes - self.limit_bytes.min(UNCOUNTED_BYTES * 3) / 3
    }

    /// Returns the share of states that grow while events are folded. They may exceed it by a quarter before that is noticed.
    pub fn states_bytes(self) -> usize {
        usize::try_from(self.shared_out() / 4).unwrap_or(usize::MAX)
    }

    /// Returns the share of states that Polars has reduced and that wait to be merged, which needs several copies.
    pub fn pieces_bytes(self) -> usize {
        usize::try_from(self.shared_out() / 8).unwrap_or(usize::MAX)
    }

    /// Returns the share of states that are finished at once. Merging, finishing, sorting and encoding each hold a copy.
    pub fn slice_bytes(self) -> usize {
        usize::try_from(self.shared_out() / 32).unwrap_or(usize::MAX).max(1)
    }

    /// Returns the share of finished rows that wait to be written.
    pub fn writes_bytes(self) -> usize {
        usize::try_from(self.shared_out() / 16).unwrap_or(usize::MAX).max(1)
    }

    /// Returns the share of ids that are searched for duplicates at once.
    pub fn ids_bytes(self) -> usize {
        usize::try_from(self.shared_out() / 4).unwrap_or(usize::MAX).max(1)
    }

    /// Returns the number of rows that Polars may group at once.
    pub fn grouped_rows(self) -> u64 {
        self.shared_out() / GROUPED_ROW_BYTES
    }

    /// Returns the number of rows that may be compared at once.
    pub fn compared_rows(self) -> u64 {
        (self.shared_out() / 4 / COMPARED_ROW_BYTES).max(1)
    }

    /// Returns the number of events that causes may be looked up in at once.
    pub fn explained_rows(self) -> u64 {
        (self.shared_out() / 4 / EXPLAINED_ROW_BYTES).max(1)
    }
}
