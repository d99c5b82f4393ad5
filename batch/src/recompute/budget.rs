//! How much memory may each part of a run take? Shares of the limit, which add up to less than all of it: the rest is
//! for what cannot be counted (buffers of readers, what the allocator keeps).

/// The shares of one run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Budget {
    /// What the operator allowed, in bytes.
    pub limit_bytes: u64,
}

/// Bytes that no share counts: buffers of readers and writers, and what the allocator does not give back between passes. Of a
/// small limit a third is set aside. Measured with 50 million groups (docs/performance.md).
const UNCOUNTED_BYTES: u64 = 320 << 20;
/// Bytes that a row read by Polars costs at most while it is grouped: its columns, and a group of its own.
const GROUPED_ROW_BYTES: u64 = 512;
/// Bytes that an event costs at most while causes are looked up: time, place and key.
const EXPLAINED_ROW_BYTES: u64 = 128;
/// Bytes that a row costs at most while it is compared, on both sides together.
const COMPARED_ROW_BYTES: u64 = 512;

impl Budget {
    /// What can be given out: the limit less what readers, writers and the allocator take beside it.
    fn shared_out(self) -> u64 {
        self.limit_bytes - self.limit_bytes.min(UNCOUNTED_BYTES * 3) / 3
    }

    /// States that grow while events are folded. They may pass it by a quarter before that is seen.
    pub fn states_bytes(self) -> usize {
        usize::try_from(self.shared_out() / 4).unwrap_or(usize::MAX)
    }

    /// States that Polars has reduced and that wait to be put together, which takes several copies.
    pub fn pieces_bytes(self) -> usize {
        usize::try_from(self.shared_out() / 8).unwrap_or(usize::MAX)
    }

    /// States that are finished at once. Merged, finished, sorted, encoded, they are there several times.
    pub fn slice_bytes(self) -> usize {
        usize::try_from(self.shared_out() / 32).unwrap_or(usize::MAX).max(1)
    }

    /// Finished rows that wait to be written.
    pub fn writes_bytes(self) -> usize {
        usize::try_from(self.shared_out() / 16).unwrap_or(usize::MAX).max(1)
    }

    /// Ids among which duplicates are looked for at once.
    pub fn ids_bytes(self) -> usize {
        usize::try_from(self.shared_out() / 4).unwrap_or(usize::MAX).max(1)
    }

    /// Rows that Polars may group at once.
    pub fn grouped_rows(self) -> u64 {
        self.shared_out() / GROUPED_ROW_BYTES
    }

    /// Rows that may be compared at once.
    pub fn compared_rows(self) -> u64 {
        (self.shared_out() / 4 / COMPARED_ROW_BYTES).max(1)
    }

    /// Events among which causes may be looked for at once.
    pub fn explained_rows(self) -> u64 {
        (self.shared_out() / 4 / EXPLAINED_ROW_BYTES).max(1)
    }
}
