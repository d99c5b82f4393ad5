//! Holds the rows of windows that the watermark has not passed yet, for sinks with `emit = 'final'`.
//!
//! Rows are held by the end of their window, within a bound in bytes. Beyond it those of the latest windows are dropped, and it
//! is noted from which end on: when the watermark gets there, every row has to be visited again. So many open rows cost work,
//! never memory or a missed row.
//!
//! The end of a session moves with its events. Its row stays where it is held if that is earlier: it is due then, found to be
//! open, and added again. So a session is held once, however many events extend it.

use std::collections::{BTreeMap, HashMap, HashSet};

use shared::changed_rows::ChangedRow;
use shared::time::Micros;

/// Bytes of a row besides its key.
const ROW_BYTES: usize = 48;

/// Rows of open windows.
#[derive(Debug)]
pub struct WaitingRows {
    by_end: BTreeMap<Micros, HashSet<ChangedRow>>,
    /// Of sessions: the end by which each row is held.
    ends: HashMap<ChangedRow, Micros>,
    bytes: usize,
    bytes_max: usize,
    /// Rows of windows that end at this time or later were dropped; `None`: no row was.
    dropped_from: Option<Micros>,
}

fn bytes_of(row: &ChangedRow) -> usize {
    row.1.len() + ROW_BYTES
}

impl WaitingRows {
    /// Returns no rows; at most `bytes_max` bytes of them will be held.
    pub fn new(bytes_max: usize) -> WaitingRows {
        WaitingRows { by_end: BTreeMap::new(), ends: HashMap::new(), bytes: 0, bytes_max, dropped_from: None }
    }

    /// Adds the row of a session that ends at `end` at present.
    pub fn add_session(&mut self, end: Micros, row: ChangedRow) {
        if self.dropped_from.is_some_and(|from| end >= from) {
            return;
        }
        if let Some(held) = self.ends.get(&row).copied() {
            if held <= end {
                return;
            }
            if let Some(rows) = self.by_end.get_mut(&held) {
                rows.remove(&row);
                if rows.is_empty() {
                    self.by_end.remove(&held);
                }
            }
            self.release(&row);
        }
        self.bytes += bytes_of(&row);
        self.ends.insert(row.clone(), end);
        self.add(end, row);
    }

    /// Adds a row of a window that ends at `end`.
    pub fn add(&mut self, end: Micros, row: ChangedRow) {
        if self.dropped_from.is_some_and(|from| end >= from) {
            return;
        }
        let bytes = bytes_of(&row);
        if self.by_end.entry(end).or_default().insert(row) {
            self.bytes += bytes;
        }
        while self.bytes > self.bytes_max {
            let Some((end, rows)) = self.by_end.pop_last() else { break };
            rows.iter().for_each(|row| self.release(row));
            self.dropped_from = Some(end);
        }
    }

    /// Forgets a row that is not held by its end any more.
    fn release(&mut self, row: &ChangedRow) {
        let held_twice = self.ends.remove(row).is_some();
        self.bytes -= bytes_of(row) * (1 + usize::from(held_twice));
    }

    /// Returns whether the watermark has passed the window of a row, held or dropped.
    pub fn has_due(&self, watermark: Micros) -> bool {
        let held = self.by_end.first_key_value().map(|(end, _)| *end);
        held.into_iter().chain(self.dropped_from).any(|end| end <= watermark)
    }

    /// Takes the rows of windows that the watermark has passed.
    pub fn take_due(&mut self, watermark: Micros) -> Vec<ChangedRow> {
        let mut due = Vec::new();
        while let Some(entry) = self.by_end.first_entry().filter(|entry| *entry.key() <= watermark) {
            due.extend(entry.remove());
        }
        due.iter().for_each(|row| self.release(row));
        due
    }

    /// Returns whether the watermark has passed the window of a dropped row. Every row then has to be added again.
    pub fn take_lost(&mut self, watermark: Micros) -> bool {
        let is_lost = self.dropped_from.is_some_and(|from| from <= watermark);
        if is_lost {
            self.dropped_from = None;
        }
        is_lost
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;
    use shared::window::WindowId;

    use super::*;

    fn row(end: i64, key: u8) -> ChangedRow {
        (WindowId(end - 10), [key].into())
    }

    proptest! {
        #[test]
        fn a_session_is_due_when_its_present_end_is_passed_and_held_once(
            steps in prop::collection::vec((0..4u8, 0..20i64, prop::option::of(0..20i64)), 0..80),
            rows_max in 1..6usize,
        ) {
            let mut waiting = WaitingRows::new(rows_max * 2 * (ROW_BYTES + 1));
            let (mut plain, mut watermark): (BTreeMap<u8, i64>, i64) = (BTreeMap::new(), -1);
            for (key, end, moves_to) in steps {
                if end > watermark {
                    plain.insert(key, end);
                    waiting.add_session(Micros(end), row(10, key));
                    prop_assert!(waiting.bytes <= waiting.bytes_max);
                }
                watermark = watermark.max(moves_to.unwrap_or(-1));
                let has_due = waiting.has_due(Micros(watermark));
                let is_lost = waiting.take_lost(Micros(watermark));
                let taken: BTreeSet<u8> =
                    waiting.take_due(Micros(watermark)).iter().map(|(_, key)| key[0]).collect();
                prop_assert_eq!(has_due, is_lost || !taken.is_empty());
                let due: BTreeSet<u8> = plain.iter().filter(|(_, end)| **end <= watermark).map(|(key, _)| *key).collect();
                prop_assert!(is_lost || due.is_subset(&taken), "{:?} of {:?}", taken, due);
                plain.retain(|key, _| !due.contains(key));
                // Those that are open are added again, as after an evaluation.
                let again = plain.iter().filter(|(key, _)| is_lost || taken.contains(key));
                again.for_each(|(key, end)| waiting.add_session(Micros(*end), row(10, *key)));
                let held: usize = waiting.by_end.values().map(HashSet::len).sum();
                prop_assert_eq!((held, waiting.bytes), (waiting.ends.len(), 2 * held * (ROW_BYTES + 1)));
            }
        }
    }

    proptest! {
        #[test]
        fn every_added_row_is_due_once_unless_it_is_reported_as_lost(
            steps in prop::collection::vec((0..20i64, 0..4u8, prop::option::of(0..20i64)), 0..80),
            rows_max in 1..12usize,
        ) {
            let mut waiting = WaitingRows::new(rows_max * (ROW_BYTES + 1));
            let (mut plain, mut watermark) = (BTreeSet::new(), -1);
            for (end, key, moves_to) in steps {
                if end > watermark {
                    plain.insert((end, key));
                    waiting.add(Micros(end), row(end, key));
                    prop_assert!(waiting.bytes <= waiting.bytes_max);
                }
                watermark = watermark.max(moves_to.unwrap_or(-1));
                let due: BTreeSet<(i64, u8)> = plain.iter().filter(|(end, _)| *end <= watermark).copied().collect();
                prop_assert_eq!(waiting.has_due(Micros(watermark)), !due.is_empty());
                let is_lost = waiting.take_lost(Micros(watermark));
                let taken: BTreeSet<(i64, u8)> =
                    waiting.take_due(Micros(watermark)).iter().map(|(id, key)| (id.0 + 10, key[0])).collect();
                prop_assert!(taken.is_subset(&due));
                prop_assert!(is_lost || taken == due, "{:?} of {:?}", taken, due);
                plain.retain(|row| !due.contains(row));
                if is_lost {
                    plain.iter().for_each(|(end, key)| waiting.add(Micros(*end), row(*end, *key)));
                }
            }
        }
    }
}
