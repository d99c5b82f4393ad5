//! Was this event accepted before? Exact over the ids of the last so many accepted events, in log order.
//!
//! The ids lie in a ring in the order of their offsets; a hash table of 32-bit offsets finds them: some 25 bytes per event.
//! Changes are provisional until [`DedupWindow::commit`], so that a group that could not be written leaves no trace.

use std::collections::VecDeque;

use hashbrown::HashTable;
use hashbrown::hash_table::Entry;
use shared::ids::Offset;

use crate::event_id::NULL_ID;

/// The ids of the newest accepted events.
pub(crate) struct DedupWindow {
    /// Accepted events that are looked back upon.
    horizon: u64,
    /// One id per event, the oldest first.
    ids: VecDeque<u128>,
    /// Low half of the offset of `ids[0]`.
    first: u32,
    /// Low halves of offsets, by the low half of their id. Older ones than the horizon may still be in it.
    table: HashTable<u32>,
    /// Ids at the end of the ring that are not committed.
    staged: usize,
}

impl DedupWindow {
    /// A window over `horizon` events, the next of which will have the offset `head`.
    pub fn new(horizon: u64, head: Offset) -> Self {
        let horizon = horizon.min(u64::from(u32::MAX / 2));
        DedupWindow { horizon, ids: VecDeque::new(), first: head.0 as u32, table: HashTable::new(), staged: 0 }
    }

    /// Accepts the next event unless its id is among the last `horizon` accepted ones.
    pub fn admit(&mut self, id: u128) -> bool {
        let (ids, first, horizon) = (&self.ids, self.first, self.horizon);
        let next = first.wrapping_add(ids.len() as u32);
        if id != NULL_ID {
            let id_at = |at: &u32| ids[at.wrapping_sub(first) as usize];
            let is_recent = |at: &u32| id_at(at) == id && u64::from(next.wrapping_sub(*at)) <= horizon;
            match self.table.entry(id as u64, is_recent, |at| id_at(at) as u64) {
                Entry::Occupied(_) => return false,
                Entry::Vacant(slot) => slot.insert(next),
            };
        }
        self.ids.push_back(id);
        self.staged += 1;
        true
    }

    /// Accepts an event that is in the log already. It may be a duplicate if the horizon was shorter when it came.
    pub fn restore(&mut self, id: u128) {
        let (ids, first) = (&self.ids, self.first);
        let next = first.wrapping_add(ids.len() as u32);
        if id != NULL_ID {
            self.table.insert_unique(id as u64, next, |at| ids[at.wrapping_sub(first) as usize] as u64);
        }
        self.ids.push_back(id);
        self.staged += 1;
    }

    /// Keeps what was accepted and forgets what has left the horizon.
    pub fn commit(&mut self) {
        self.staged = 0;
        while self.ids.len() as u64 > self.horizon {
            let oldest = self.ids.pop_front();
            let at = self.first;
            self.first = self.first.wrapping_add(1);
            self.forget(oldest.unwrap_or(NULL_ID), at);
        }
    }

    /// Forgets what was accepted since the last commit.
    pub fn rollback(&mut self) {
        for _ in 0..self.staged {
            let newest = self.ids.pop_back();
            let at = self.first.wrapping_add(self.ids.len() as u32);
            self.forget(newest.unwrap_or(NULL_ID), at);
        }
        self.staged = 0;
    }

    fn forget(&mut self, id: u128, at: u32) {
        if id == NULL_ID {
            return;
        }
        if let Ok(entry) = self.table.find_entry(id as u64, |found| *found == at) {
            entry.remove();
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn agrees_with_a_list(
            horizon in 0u64..20,
            head in prop_oneof![Just(0u64), Just(u64::from(u32::MAX) - 10)],
            groups in prop::collection::vec((prop::collection::vec(0u128..30, 0..12), any::<bool>()), 0..30),
        ) {
            let mut window = DedupWindow::new(horizon, Offset(head));
            let mut accepted: Vec<u128> = Vec::new();
            for (ids, kept) in groups {
                let before = accepted.len();
                for id in ids {
                    let recent = accepted.len().saturating_sub(horizon as usize);
                    let is_new = id == NULL_ID || !accepted[recent..].contains(&id);
                    prop_assert_eq!(window.admit(id), is_new);
                    if is_new {
                        accepted.push(id);
                    }
                }
                if kept {
                    window.commit();
                    prop_assert!(window.ids.len() as u64 <= horizon);
                    prop_assert!(window.table.len() <= window.ids.len());
                } else {
                    window.rollback();
                    accepted.truncate(before);
                }
            }
        }
    }
}
