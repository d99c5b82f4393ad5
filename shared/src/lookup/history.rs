//! Orders the versions of one row by their times, and finds the one that an event sees.
//!
//! A version has a time: a row that is written has that of its event time column, a row that is deleted the time at which the deletion
//! was accepted, but never one before the versions that it ends. An event sees the version with the latest time that is not after its own;
//! of equal times, the later change. A deletion counts until the row is written again: if that has an earlier time, the deletion counts
//! for nothing, and neither does the one that an update begins with.

use smallvec::SmallVec;

use super::values::NO_ROW;

/// A version of a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Version {
    /// Microseconds.
    pub time: i64,
    /// Place of the change in the log: see [`position`].
    pub position: u64,
    /// Number of its values, or [`NO_ROW`] if it deletes the row.
    pub row: u32,
}

/// A deletion that a later change made void.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct VoidDeletion {
    /// The change that deleted the row, and the one that wrote it again.
    pub deleted: u64,
    pub written: u64,
    /// Events from this time on may have seen the deletion.
    pub time: i64,
}

/// The event times at which a version that writes a row is seen, in microseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct SeenSpan {
    pub first: i64,
    /// Inclusive.
    pub last: i64,
    pub row: u32,
}

/// Returns the versions of a row that write it and that some event time sees, of all its versions in their order. No two spans have a
/// time in common.
pub(super) fn seen_spans(versions: &[Version]) -> impl Iterator<Item = SeenSpan> {
    versions.iter().enumerate().filter_map(|(at, version)| {
        let last = match versions.get(at + 1) {
            Some(next) => next.time.checked_sub(1)?,
            None => i64::MAX,
        };
        let is_seen = version.row != NO_ROW && version.time <= last;
        is_seen.then_some(SeenSpan { first: version.time, last, row: version.row })
    })
}

/// The versions of a row, in the order of their times, of equal times in that of their changes. A deletion can only be the last change:
/// so it is last here too, or void.
#[derive(Debug, Clone)]
pub(super) struct History(pub SmallVec<[Version; 2]>);

/// Returns the place of a change among all changes of a table; those of a partition are in the order of the log.
pub(super) fn position(partition: u32, offset: u64) -> u64 {
    (u64::from(partition) << 44) | offset
}

impl History {
    /// Adds the row that a change writes. Changes are added in their order.
    pub fn write(&mut self, version: Version) -> Option<VoidDeletion> {
        let Version { time, position, .. } = version;
        let is_void = |last: &mut Version| last.row == NO_ROW && (last.position + 1 == position || time <= last.time);
        let void = self.0.last_mut().is_some_and(is_void).then(|| self.0.pop()).flatten();
        let before = self.0.partition_point(|other| (other.time, other.position) < (time, position));
        self.0.insert(before, version);
        void.map(|deletion| VoidDeletion {
            deleted: deletion.position,
            written: position,
            time: deletion.time.min(time),
        })
    }

    /// Adds a deletion that was accepted at `accepted_at`.
    pub fn delete(&mut self, accepted_at: i64, position: u64) {
        let Some(last) = self.0.last().filter(|last| last.row != NO_ROW) else { return };
        self.0.push(Version { time: accepted_at.max(last.time), position, row: NO_ROW });
    }

    /// Returns the number of the values that an event at `time` sees.
    pub fn as_of(&self, time: i64) -> u32 {
        self.version_at(time).map_or(NO_ROW, |version| version.row)
    }

    /// Returns the version that an event at `time` sees, which may be a deletion.
    pub fn version_at(&self, time: i64) -> Option<&Version> {
        let after = self.0.partition_point(|version| version.time <= time);
        self.0.get(after.checked_sub(1)?)
    }

    /// Forgets versions that an event at `time` does not see, whatever changes follow.
    pub fn forget_unseen(&mut self, time: i64) {
        // A deletion that becomes void uncovers the version before it, and a later one is not before the last.
        let after = self.0.partition_point(|version| version.time <= time);
        let (seen, last) = (after.saturating_sub(2)..after, self.0.len().saturating_sub(2)..);
        if self.0.len() > seen.len() + 2 {
            let mut at = 0..;
            self.0.retain(|_| at.next().is_some_and(|at| seen.contains(&at) || last.contains(&at)));
        }
    }

    /// Memory beside the history itself, in bytes.
    pub fn heap_bytes(&self) -> usize {
        if self.0.spilled() { self.0.capacity() * size_of::<Version>() } else { 0 }
    }
}
