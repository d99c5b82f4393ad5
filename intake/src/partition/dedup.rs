//! Recognises duplicates exactly, over the ids of the last accepted events, in log order.
//!
//! The ids are kept in a ring in the order of their offsets; a table of offsets finds them: some 32 bytes per event.
//! Changes are provisional until [`DedupWindow::commit`], so a group that could not be written leaves no trace.

use std::collections::VecDeque;

use arrow::buffer::BooleanBuffer;
use shared::ids::Offset;

use super::offset_table::OffsetTable;
use crate::event_id::NULL_ID;

/// Ids looked up together, so that their cache misses overlap.
const BLOCK: usize = 32;

/// The ids of the newest accepted events.
pub struct DedupWindow {
    /// Number of accepted events whose ids count.
    horizon: u64,
    /// One id per event, the oldest first.
    ids: VecDeque<u128>,
    /// Low half of the offset of `ids[0]`.
    first: u32,
    /// Low halves of the offsets of `ids`. Those that have left the horizon stay until the next commit.
    table: OffsetTable,
    /// Ids at the end of the ring that are not committed.
    staged: usize,
}

impl DedupWindow {
    /// Creates a window over `horizon` events; the next event has the offset `head`.
    pub fn new(horizon: u64, head: Offset) -> Self {
        let horizon = horizon.min(u64::from(u32::MAX / 2));
        DedupWindow { horizon, ids: VecDeque::new(), first: head.0 as u32, table: OffsetTable::new(), staged: 0 }
    }

    /// Accepts each event, in order, unless its id is among the last `horizon` accepted ones. One bit per id.
    pub fn admit_all(&mut self, ids: &[u128]) -> BooleanBuffer {
        BooleanBuffer::collect_bool(ids.len(), |i| {
            if i % BLOCK == 0 {
                self.table.touch(ids[i..].iter().take(BLOCK).copied());
            }
            self.admit(ids[i])
        })
    }

    fn admit(&mut self, id: u128) -> bool {
        let (ids, first, horizon) = (&self.ids, self.first, self.horizon);
        let next = first.wrapping_add(ids.len() as u32);
        let is_recent =
            |at: u32| ids[at.wrapping_sub(first) as usize] == id && u64::from(next.wrapping_sub(at)) <= horizon;
        if id != NULL_ID && !self.table.insert_unless(id, next, is_recent) {
            return false;
        }
        self.ids.push_back(id);
        self.staged += 1;
        true
    }

    /// Adds events that are in the log already. They may contain duplicates if the horizon was shorter when they arrived.
    pub fn restore_all(&mut self, ids: &[u128]) {
        for (i, id) in ids.iter().enumerate() {
            if i % BLOCK == 0 {
                self.table.touch(ids[i..].iter().take(BLOCK).copied());
            }
            if *id != NULL_ID {
                let next = self.first.wrapping_add(self.ids.len() as u32);
                self.table.insert_unless(*id, next, |_| false);
            }
            self.ids.push_back(*id);
        }
        self.commit();
    }

    /// Keeps the accepted ids and forgets those beyond the horizon.
    pub fn commit(&mut self) {
        self.staged = 0;
        while self.ids.len() as u64 > self.horizon {
            let block = (self.ids.len() as u64 - self.horizon).min(BLOCK as u64) as usize;
            self.table.touch(self.ids.range(..block).copied());
            for id in self.ids.drain(..block) {
                if id != NULL_ID {
                    self.table.remove(id, self.first);
                }
                self.first = self.first.wrapping_add(1);
            }
        }
    }

    /// Forgets the ids accepted since the last commit.
    pub fn rollback(&mut self) {
        let kept = self.ids.len() - self.staged;
        for (i, id) in self.ids.drain(kept..).enumerate() {
            if id != NULL_ID {
                self.table.remove(id, self.first.wrapping_add((kept + i) as u32));
            }
        }
        self.staged = 0;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn verdicts_agree_with_a_list(
            horizon in 0u64..100,
            head in prop_oneof![Just(0u64), Just(u64::from(u32::MAX) - 10)],
            groups in prop::collection::vec((prop::collection::vec(prop_oneof![0u128..30, (0u128..5).prop_map(|id| id << 64)], 0..70), any::<bool>()), 0..30),
        ) {
            let mut window = DedupWindow::new(horizon, Offset(head));
            let mut accepted: Vec<u128> = Vec::new();
            for (ids, kept) in groups {
                let before = accepted.len();
                let verdicts = window.admit_all(&ids);
                for (id, verdict) in ids.into_iter().zip(&verdicts) {
                    let recent = accepted.len().saturating_sub(horizon as usize);
                    let is_new = id == NULL_ID || !accepted[recent..].contains(&id);
                    prop_assert_eq!(verdict, is_new);
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
