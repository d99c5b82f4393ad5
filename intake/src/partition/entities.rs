//! Numbers the events of each entity: 1, 2, 3 and so on, without gaps, in log order.
//!
//! ```text
//! sequence of an accepted event = 1 + events of its entity that the partition accepted before it
//! ```
//!
//! All events of an entity are in one partition, so its writer alone decides. The number is stored with the event, in the
//! log and in the archive; the table of last numbers is rebuilt from both at a start. Changes are provisional until
//! [`EntitySequences::commit`], as in the dedup window. Readers see committed numbers only.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Int64Array};
use arrow::datatypes::Int64Type;
use hashbrown::HashTable;
use parking_lot::RwLock;
use tokio::sync::watch;

use super::submission::{ExpectedSequence, SubmitError};
use crate::event_id::hash_ids;

/// The number of commits that stands for the end of the writer.
const ENDED: u64 = u64::MAX;

/// The last sequence of an entity, found by the hash of its id. Two words, so that an entry has 24 bytes.
#[derive(Debug, Clone, Copy)]
struct LastSequence {
    entity: [u64; 2],
    sequence: u64,
}

/// The last sequences of the entities of one partition, over its durable events.
#[derive(Debug)]
pub struct EntityTable {
    last: RwLock<HashTable<LastSequence>>,
    /// Counts the commits; dropped with the writer's side.
    commits: watch::Sender<u64>,
}

impl Default for EntityTable {
    fn default() -> EntityTable {
        EntityTable { last: RwLock::default(), commits: watch::channel(0).0 }
    }
}

impl EntityTable {
    /// The last sequence of the entity with this hash; 0 if it has no events.
    pub fn last(&self, entity: u128) -> u64 {
        find(&self.last.read(), entity)
    }

    /// The last sequence of the entity, as soon as it is beyond `after`; `None` if the writer ends first, or as soon as
    /// `is_over`.
    pub async fn beyond(&self, entity: u128, after: u64, is_over: impl Fn() -> bool) -> Option<u64> {
        let mut commits = self.commits.subscribe();
        loop {
            let is_ended = *commits.borrow_and_update() == ENDED;
            let last = self.last(entity);
            if is_over() {
                return None;
            }
            if last > after {
                return Some(last);
            }
            if is_ended || commits.changed().await.is_err() {
                return None;
            }
        }
    }

    /// Wakes those who wait for events: the entity may have been erased.
    pub(crate) fn notify(&self) {
        self.commits.send_modify(|commits| *commits += 1);
    }

    /// Number of entities.
    pub fn entities(&self) -> usize {
        self.last.read().len()
    }

    /// Adds events that are stored already, in any order.
    pub(crate) fn restore(&self, events: impl Iterator<Item = (u128, u64)>) {
        let mut table = self.last.write();
        for (entity, sequence) in events {
            let known = entry(&mut table, entity);
            *known = sequence.max(*known);
        }
    }
}

/// Returns the entities and sequences of stored events, from their two columns. Blank rows, of erased entities, have none.
pub(crate) fn stored_sequences(entities: &ArrayRef, sequences: &ArrayRef) -> impl Iterator<Item = (u128, u64)> {
    let sequences = sequences.as_primitive::<Int64Type>().clone();
    let number = move |row: usize| if sequences.is_valid(row) { sequences.value(row).max(0) as u64 } else { 0 };
    hash_ids(entities)
        .into_iter()
        .enumerate()
        .map(move |(row, entity)| (entity, number(row)))
        .filter(|(_, sequence)| *sequence > 0)
}

fn words(entity: u128) -> [u64; 2] {
    [entity as u64, (entity >> 64) as u64]
}

fn find(table: &HashTable<LastSequence>, entity: u128) -> u64 {
    let words = words(entity);
    table.find(words[0], |known| known.entity == words).map_or(0, |known| known.sequence)
}

fn entry(table: &mut HashTable<LastSequence>, entity: u128) -> &mut u64 {
    let words = words(entity);
    let found = table.entry(words[0], |known| known.entity == words, |known| known.entity[0]);
    &mut found.or_insert(LastSequence { entity: words, sequence: 0 }).into_mut().sequence
}

/// The writer's side: the table, and the changes of the current group.
#[derive(Debug)]
pub(crate) struct EntitySequences {
    committed: Arc<EntityTable>,
    /// Last sequences that the group changed.
    staged: HashMap<u128, u64>,
    /// Staged entities that the table does not have.
    new: usize,
    entities_max: usize,
}

impl EntitySequences {
    /// Creates an empty table for at most `entities_max` entities.
    pub fn new(entities_max: usize) -> EntitySequences {
        EntitySequences { committed: Arc::default(), staged: HashMap::new(), new: 0, entities_max }
    }

    /// The table as readers see it.
    pub fn table(&self) -> &Arc<EntityTable> {
        &self.committed
    }

    /// The last sequence of an entity, with the changes of the group.
    pub fn last(&self, entity: u128) -> u64 {
        self.staged.get(&entity).copied().unwrap_or_else(|| self.committed.last(entity))
    }

    /// Checks that an append to `entity` finds what it expects.
    pub fn expect(&self, entity: u128, expected: ExpectedSequence) -> Result<(), SubmitError> {
        let current = self.last(entity);
        let is_met = match expected {
            ExpectedSequence::Exactly(sequence) => sequence == current,
            ExpectedSequence::Any => current > 0,
        };
        if is_met { Ok(()) } else { Err(SubmitError::SequenceConflict { expected, current }) }
    }

    /// Checks that the table has room for the entities that are new.
    pub fn check_room(&self, entities: &[u128]) -> Result<(), SubmitError> {
        let known = self.committed.entities() + self.new;
        // I9: at the limit, new entities are refused.
        if known + entities.len() <= self.entities_max {
            return Ok(());
        }
        let mut unknown: Vec<u128> = entities.iter().copied().filter(|entity| self.last(*entity) == 0).collect();
        unknown.sort_unstable();
        unknown.dedup();
        match unknown.is_empty() || known + unknown.len() <= self.entities_max {
            true => Ok(()),
            false => Err(SubmitError::TooManyEntities { max: self.entities_max }),
        }
    }

    /// Numbers accepted events of these entities, in order.
    pub fn assign(&mut self, entities: &[u128]) -> Int64Array {
        let committed = self.committed.last.read();
        let (staged, new) = (&mut self.staged, &mut self.new);
        let next = |entity: &u128| {
            let last = staged.entry(*entity).or_insert_with(|| {
                let last = find(&committed, *entity);
                *new += usize::from(last == 0);
                last
            });
            *last += 1;
            *last as i64
        };
        Int64Array::from_iter_values(entities.iter().map(next))
    }

    /// Keeps the numbers of the group, and shows them to readers.
    pub fn commit(&mut self) {
        self.new = 0;
        if self.staged.is_empty() {
            return;
        }
        let mut table = self.committed.last.write();
        for (entity, sequence) in self.staged.drain() {
            *entry(&mut table, entity) = sequence;
        }
        drop(table);
        self.committed.commits.send_modify(|commits| *commits += 1);
    }

    /// Forgets the numbers assigned since the last commit.
    pub fn rollback(&mut self) {
        self.staged.clear();
        self.new = 0;
    }
}

impl Drop for EntitySequences {
    /// No further events come.
    fn drop(&mut self) {
        self.committed.commits.send_replace(ENDED);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn numbers_agree_with_a_list(
            groups in prop::collection::vec((prop::collection::vec(1u128..9, 0..20), any::<bool>()), 0..20),
        ) {
            let mut sequences = EntitySequences::new(usize::MAX);
            let mut accepted: Vec<u128> = Vec::new();
            let count = |accepted: &[u128], entity: u128| accepted.iter().filter(|e| **e == entity).count() as u64;
            for (entities, kept) in groups {
                let before = accepted.len();
                let numbers = sequences.assign(&entities);
                for (entity, number) in entities.iter().zip(numbers.values()) {
                    accepted.push(*entity);
                    prop_assert_eq!(*number as u64, count(&accepted, *entity));
                    prop_assert_eq!(sequences.table().last(*entity), count(&accepted[..before], *entity));
                }
                if kept {
                    sequences.commit();
                } else {
                    sequences.rollback();
                    accepted.truncate(before);
                }
                for entity in 1..9 {
                    prop_assert_eq!(sequences.last(entity), count(&accepted, entity));
                    prop_assert_eq!(sequences.table().last(entity), count(&accepted, entity));
                }
            }
        }
    }

    #[test]
    fn a_full_table_refuses_new_entities_only() {
        let mut sequences = EntitySequences::new(3);
        assert_eq!(sequences.check_room(&[1, 2, 1, 2, 1]), Ok(()));
        sequences.assign(&[1, 2, 1, 2, 1]);
        assert_eq!(sequences.check_room(&[1, 3, 3, 3]), Ok(()));
        assert_eq!(sequences.check_room(&[3, 4]), Err(SubmitError::TooManyEntities { max: 3 }));
        sequences.commit();
        sequences.assign(&[3]);
        assert_eq!(sequences.check_room(&[4]), Err(SubmitError::TooManyEntities { max: 3 }));
        sequences.rollback();
        assert_eq!((sequences.check_room(&[4]), sequences.check_room(&[1, 2])), (Ok(()), Ok(())));
    }

    #[test]
    fn an_append_finds_what_it_expects_or_is_refused() {
        let mut sequences = EntitySequences::new(10);
        let exactly = ExpectedSequence::Exactly;
        assert_eq!(sequences.expect(1, exactly(0)), Ok(()));
        let conflict = |expected, current| Err(SubmitError::SequenceConflict { expected, current });
        assert_eq!(sequences.expect(1, ExpectedSequence::Any), conflict(ExpectedSequence::Any, 0));
        sequences.assign(&[1, 1]);
        assert_eq!(sequences.expect(1, exactly(0)), conflict(exactly(0), 2));
        assert_eq!(sequences.expect(1, exactly(2)), Ok(()));
        assert_eq!(sequences.expect(1, ExpectedSequence::Any), Ok(()));
        sequences.rollback();
        assert_eq!(sequences.expect(1, exactly(0)), Ok(()));
        sequences.table().restore([(1, 4), (1, 3)].into_iter());
        assert_eq!(sequences.expect(1, exactly(4)), Ok(()));
    }

    #[test]
    fn blank_rows_of_erased_entities_restore_nothing() {
        let ids: ArrayRef = Arc::new(arrow::array::Int64Array::from(vec![Some(7), None]));
        let sequences: ArrayRef = Arc::new(arrow::array::Int64Array::from(vec![1, 0]));
        let table = EntityTable::default();
        table.restore(stored_sequences(&ids, &sequences));
        assert_eq!(table.entities(), 1);
    }
}
