//! Finds candidate offsets of an id: a hash table from a part of the id to offsets, one cache line per lookup.
//!
//! Open addressing with linear probing; a slot is a tag of the id and the low half of an offset. The table does not hold
//! ids: the caller compares them. A general-purpose table keeps control bytes apart and so misses the cache twice.

/// Set in every tag, so that no slot in use is empty.
const USED: u32 = 1 << 31;
/// A slot without an offset. It is not 0, so a new table is written when it is made: a page of zeros that is read before it is written
/// is mapped twice, and the second time interrupts all cores.
const EMPTY: u64 = 1;
/// Slots of the first table.
const SLOTS_MIN: usize = 64;

/// Offsets by tag; several offsets may share a tag.
pub(crate) struct OffsetTable {
    /// Tag in the high half, offset in the low half, or `EMPTY`. The length is a power of two of at most 2^31.
    slots: Vec<u64>,
    used: usize,
}

/// The tag of an id: its upper half, because the lower half may have chosen the partition.
fn tag(id: u128) -> u32 {
    (id >> 64) as u32 | USED
}

impl OffsetTable {
    pub fn new() -> Self {
        OffsetTable { slots: vec![EMPTY; SLOTS_MIN], used: 0 }
    }

    /// Number of offsets in the table.
    #[cfg(test)]
    pub fn len(&self) -> usize {
        self.used
    }

    /// Brings the slots of `ids` into the cache, all misses at once.
    pub fn touch(&self, ids: impl Iterator<Item = u128>) {
        let mask = self.slots.len() - 1;
        std::hint::black_box(ids.fold(0, |sum, id| sum ^ self.slots[tag(id) as usize & mask]));
    }

    /// Adds `offset` for `id` unless `is_it` holds for a candidate offset. Returns whether it was added.
    pub fn insert_unless(&mut self, id: u128, offset: u32, is_it: impl Fn(u32) -> bool) -> bool {
        if (self.used + 1) * 4 > self.slots.len() * 3 {
            self.grow();
        }
        let (tag, mask) = (tag(id), self.slots.len() - 1);
        let mut at = tag as usize & mask;
        while self.slots[at] != EMPTY {
            if (self.slots[at] >> 32) as u32 == tag && is_it(self.slots[at] as u32) {
                return false;
            }
            at = (at + 1) & mask;
        }
        self.slots[at] = slot(tag, offset);
        self.used += 1;
        true
    }

    /// Removes `offset` of `id`, if it is there, and closes the gap.
    pub fn remove(&mut self, id: u128, offset: u32) {
        let (wanted, mask) = (slot(tag(id), offset), self.slots.len() - 1);
        let mut gap = tag(id) as usize & mask;
        while self.slots[gap] != wanted {
            if self.slots[gap] == EMPTY {
                return;
            }
            gap = (gap + 1) & mask;
        }
        let mut at = gap;
        loop {
            at = (at + 1) & mask;
            let next = self.slots[at];
            if next == EMPTY {
                break;
            }
            let home = (next >> 32) as usize & mask;
            // It may move into the gap unless the gap lies before its home.
            if at.wrapping_sub(home) & mask >= at.wrapping_sub(gap) & mask {
                self.slots[gap] = next;
                gap = at;
            }
        }
        self.slots[gap] = EMPTY;
        self.used -= 1;
    }

    fn grow(&mut self) {
        let old = std::mem::take(&mut self.slots);
        self.slots = vec![EMPTY; old.len() * 2];
        let mask = self.slots.len() - 1;
        for slot in old.into_iter().filter(|slot| *slot != EMPTY) {
            let mut at = (slot >> 32) as usize & mask;
            while self.slots[at] != EMPTY {
                at = (at + 1) & mask;
            }
            self.slots[at] = slot;
        }
    }
}

fn slot(tag: u32, offset: u32) -> u64 {
    u64::from(tag) << 32 | u64::from(offset)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn lookups_agree_with_a_set_even_if_all_ids_collide(
            spread in prop_oneof![Just(1u128 << 64), Just(61u128 << 64), Just((1u128 << 94) + (1 << 70))],
            steps in prop::collection::vec((0u128..6, 0u32..50, any::<bool>()), 0..400),
        ) {
            let mut table = OffsetTable::new();
            let mut set = BTreeSet::new();
            for (id, offset, add) in steps {
                let id = id * spread + 63;
                if add {
                    let known = set.contains(&(id, offset));
                    prop_assert_eq!(table.insert_unless(id, offset, |at| set.contains(&(id, at)) && at == offset), !known);
                    set.insert((id, offset));
                } else {
                    table.remove(id, offset);
                    set.remove(&(id, offset));
                }
                prop_assert_eq!(table.len(), set.len());
            }
            for (id, offset) in &set {
                prop_assert!(!table.insert_unless(*id, *offset, |at| at == *offset));
            }
        }
    }
}
