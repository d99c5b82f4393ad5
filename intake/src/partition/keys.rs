//! Which answer did this idempotency key get? The last so many keys of a partition, in log order.
//!
//! Provisional until [`KeyMemory::commit`], like the dedup window. Keys live in the frames' meta; those of segments that
//! were trimmed are forgotten at the next start.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::submission::PartAnswer;

/// A key and its answer, as a frame's meta holds them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct KeyRecord {
    pub key: Arc<str>,
    pub answer: PartAnswer,
}

/// A frame's meta; a frame without keys has none.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct FrameMeta {
    pub keys: Vec<KeyRecord>,
}

struct Remembered {
    /// The how manieth key of the partition it is.
    number: u64,
    answer: PartAnswer,
}

/// The newest idempotency keys.
pub(crate) struct KeyMemory {
    max: u64,
    /// Number of the next key.
    next: u64,
    by_key: HashMap<Arc<str>, Remembered>,
    /// Keys and their numbers, the oldest first.
    order: VecDeque<(Arc<str>, u64)>,
    /// What each key of the group under way replaced.
    staged: Vec<(Arc<str>, Option<Remembered>)>,
}

impl KeyMemory {
    /// Remembers the last `max` keys.
    pub fn new(max: usize) -> Self {
        KeyMemory { max: max as u64, next: 0, by_key: HashMap::new(), order: VecDeque::new(), staged: Vec::new() }
    }

    /// The answer that `key` got, if it is among the last `max`.
    pub fn answer(&self, key: &str) -> Option<PartAnswer> {
        self.by_key.get(key).filter(|found| self.next - found.number <= self.max).map(|found| found.answer)
    }

    /// Remembers a key that [`KeyMemory::answer`] does not know.
    pub fn remember(&mut self, record: KeyRecord) {
        let remembered = Remembered { number: self.next, answer: record.answer };
        self.order.push_back((record.key.clone(), self.next));
        let replaced = self.by_key.insert(record.key.clone(), remembered);
        self.staged.push((record.key, replaced));
        self.next += 1;
    }

    /// Keeps what was remembered and forgets what is too old.
    pub fn commit(&mut self) {
        self.staged.clear();
        while self.order.len() as u64 > self.max {
            let Some((key, number)) = self.order.pop_front() else { return };
            if self.by_key.get(&key).is_some_and(|found| found.number == number) {
                self.by_key.remove(&key);
            }
        }
    }

    /// Forgets what was remembered since the last commit.
    pub fn rollback(&mut self) {
        while let Some((key, replaced)) = self.staged.pop() {
            self.order.pop_back();
            self.next -= 1;
            match replaced {
                Some(before) => self.by_key.insert(key, before),
                None => self.by_key.remove(&key),
            };
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
            max in 0usize..6,
            groups in prop::collection::vec((prop::collection::vec(0u8..10, 0..5), any::<bool>()), 0..30),
        ) {
            let mut memory = KeyMemory::new(max);
            let mut list: Vec<(String, u64)> = Vec::new();
            for (i, (keys, kept)) in groups.into_iter().enumerate() {
                let before = list.len();
                for key in keys {
                    let key = key.to_string();
                    let recent = &list[list.len().saturating_sub(max)..];
                    let known = recent.iter().find(|(k, _)| *k == key).map(|(_, accepted)| *accepted);
                    prop_assert_eq!(memory.answer(&key).map(|a| a.accepted), known);
                    if known.is_none() {
                        let answer = PartAnswer { accepted: i as u64, ..PartAnswer::default() };
                        memory.remember(KeyRecord { key: key.as_str().into(), answer });
                        list.push((key, i as u64));
                    }
                }
                if kept {
                    memory.commit();
                    prop_assert!(memory.by_key.len() <= max);
                } else {
                    memory.rollback();
                    list.truncate(before);
                }
            }
        }
    }
}
