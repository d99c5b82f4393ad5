//! Finds the version of one row that events at one instant see, from changes that come in any order: what `as_of` of a table's rows asks.
//!
//! The values of one version are kept, and a few bytes of each change: a later deletion, or one that became void, decides whether they are seen.

use smallvec::SmallVec;

use super::history::{History, Version, position};
use super::values::NO_ROW;
use crate::ids::{Offset, Partition};
use crate::time::Micros;

/// The changes of one row so far.
#[derive(Debug)]
pub struct RowAtInstant<V> {
    instant: i64,
    changes: Vec<Change>,
    /// Of the versions that are not after the instant, the last: its time and place, and its values.
    last: Option<((i64, u64), V)>,
}

#[derive(Debug, Clone, Copy)]
struct Change {
    position: u64,
    /// The time of the row that it writes, or when the deletion was accepted.
    time: i64,
    deletes: bool,
}

/// What an event sees of a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SeenRow<V> {
    Row(V),
    /// It was deleted at this time.
    Deleted(Micros),
    /// Its first version has this time.
    NotYet(Micros),
    /// No change has written it.
    Unknown,
}

impl<V> RowAtInstant<V> {
    /// Returns a row without changes, of which the version at `instant` is asked.
    pub fn new(instant: Micros) -> RowAtInstant<V> {
        RowAtInstant { instant: instant.0, changes: Vec::new(), last: None }
    }

    /// Adds the change at a place in the log that writes a row with the event time `time`.
    pub fn write(&mut self, partition: Partition, Offset(offset): Offset, time: Micros, values: impl FnOnce() -> V) {
        let position = position(partition.0, offset);
        self.changes.push(Change { position, time: time.0, deletes: false });
        let at = (time.0, position);
        if time.0 <= self.instant && self.last.as_ref().is_none_or(|(last, _)| *last < at) {
            self.last = Some((at, values()));
        }
    }

    /// Adds the change at a place in the log that deletes the row, accepted at `accepted_at`.
    pub fn delete(&mut self, partition: Partition, Offset(offset): Offset, accepted_at: Micros) {
        self.changes.push(Change { position: position(partition.0, offset), time: accepted_at.0, deletes: true });
    }

    /// Memory, in bytes, with that of the values.
    pub fn bytes(&self, values: impl Fn(&V) -> usize) -> usize {
        let last = self.last.as_ref().map_or(0, |(_, last)| values(last));
        size_of::<RowAtInstant<V>>() + self.changes.capacity() * size_of::<Change>() + last
    }

    /// Returns what an event at the instant sees.
    pub fn seen(mut self) -> SeenRow<V> {
        self.changes.sort_unstable_by_key(|change| change.position);
        let mut history = History(SmallVec::new());
        for Change { position, time, deletes } in &self.changes {
            match deletes {
                true => history.delete(*time, *position),
                false => _ = history.write(Version { time: *time, position: *position, row: 0 }),
            }
            history.forget_unseen(self.instant);
        }
        match (history.version_at(self.instant), self.last) {
            (Some(Version { row: NO_ROW, time, .. }), _) => SeenRow::Deleted(Micros(*time)),
            (_, Some((_, values))) => SeenRow::Row(values),
            (_, None) => {
                let written = self.changes.iter().filter(|change| !change.deletes).map(|change| change.time);
                written.min().map_or(SeenRow::Unknown, |first| SeenRow::NotYet(Micros(first)))
            }
        }
    }
}
