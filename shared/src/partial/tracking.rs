//! Keeps track of the rows of an accumulator for alerts and sinks: which rows each key has, and which have changed.
//!
//! Costs 8 bytes per row and a little per key, and one comparison per folded event. Only views with alerts or sinks pay it.

use smallvec::SmallVec;

/// The rows of each key, and those that have changed since that was last forgotten.
#[derive(Debug, Default)]
pub struct RowTracking {
    /// By number of the key. Most keys of a view without windows have one row.
    by_key: Vec<SmallVec<[u32; 2]>>,
    /// By row: the epoch in which it changed last.
    changed_in: Vec<u32>,
    /// Changes when the changed rows are forgotten.
    epoch: u32,
    changed: Vec<u32>,
}

impl RowTracking {
    /// Notes that `slot` is the number of a new row of `key`.
    pub fn note_new(&mut self, slot: u32, key: u32) {
        if self.by_key.len() <= key as usize {
            self.by_key.resize_with(key as usize + 1, SmallVec::new);
        }
        self.by_key[key as usize].push(slot);
    }

    /// Notes that rows have changed.
    pub fn note_changed(&mut self, slots: &[u32]) {
        for &slot in slots {
            if self.changed_in.len() <= slot as usize {
                self.changed_in.resize(slot as usize + 1, self.epoch);
            } else if self.changed_in[slot as usize] == self.epoch.wrapping_add(1) {
                continue;
            }
            self.changed_in[slot as usize] = self.epoch.wrapping_add(1);
            self.changed.push(slot);
        }
    }

    /// Returns every changed row once.
    pub fn changed(&self) -> &[u32] {
        &self.changed
    }

    /// Forgets that rows have changed.
    pub fn clear_changed(&mut self) {
        self.changed.clear();
        self.epoch = self.epoch.wrapping_add(1);
    }

    /// Returns the rows of a key, oldest first. Sessions that have become part of others may be among them.
    pub fn rows_of(&self, key: u32) -> impl Iterator<Item = u32> + '_ {
        self.by_key.get(key as usize).into_iter().flatten().copied()
    }

    /// Returns the memory held, in bytes.
    pub fn bytes(&self) -> usize {
        let spilled: usize = self.by_key.iter().filter(|rows| rows.spilled()).map(|rows| rows.capacity() * 4).sum();
        self.by_key.capacity() * size_of::<SmallVec<[u32; 2]>>()
            + spilled
            + (self.changed_in.capacity() + self.changed.capacity()) * 4
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn taken(tracking: &mut RowTracking) -> Vec<u32> {
        let rows = tracking.changed().to_vec();
        tracking.clear_changed();
        rows
    }

    #[test]
    fn a_changed_row_is_taken_once_and_again_after_its_next_change() {
        let mut tracking = RowTracking::default();
        tracking.note_new(0, 0);
        tracking.note_new(1, 1);
        tracking.note_new(2, 0);
        tracking.note_changed(&[2, 0, 2, 0]);
        tracking.note_changed(&[0, 1]);
        assert_eq!(taken(&mut tracking), [2, 0, 1]);
        assert!(taken(&mut tracking).is_empty());
        tracking.note_changed(&[1, 5]);
        assert_eq!(taken(&mut tracking), [1, 5]);
        assert_eq!(tracking.rows_of(0).collect::<Vec<_>>(), [0, 2]);
        assert_eq!(tracking.rows_of(7).count(), 0);
    }
}
