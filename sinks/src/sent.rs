//! Remembers which rows a topic has, each by the hash of its value, so that only changes are written. It stores nothing.

use std::collections::HashMap;
use std::ops::Range;

use serde::{Deserialize, Serialize};
use shared::window::WindowId;
use smallvec::SmallVec;
use xxhash_rust::xxh3::xxh3_64;

/// The hash of the value of a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ValueHash(u64);

impl ValueHash {
    /// Of a row that is to be written again, whatever its value.
    pub const STALE: ValueHash = ValueHash(0);

    /// Hashes a value.
    pub fn of(value: &[u8]) -> ValueHash {
        // 0 is not the hash of any value.
        ValueHash(xxh3_64(value).max(1))
    }
}

/// What a record changes: the row that the topic then has, or has no longer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SentChange {
    pub window: WindowId,
    /// The encoded dimensions.
    pub key: Box<[u8]>,
    /// `None`: the row is deleted.
    pub value: Option<ValueHash>,
}

/// A change as the book stores it: key in hexadecimal, window, hash.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct StoredChange(String, i64, Option<u64>);

impl From<&SentChange> for StoredChange {
    fn from(change: &SentChange) -> StoredChange {
        StoredChange(alerts::condition::to_hex(&change.key), change.window.0, change.value.map(|hash| hash.0))
    }
}

impl StoredChange {
    /// Returns the change; `None`: its key is not hexadecimal.
    pub fn change(&self) -> Option<SentChange> {
        let key = alerts::condition::from_hex(&self.0)?;
        Some(SentChange { window: WindowId(self.1), key, value: self.2.map(ValueHash) })
    }
}

/// The windows of a group, in order, each with the hash of its value. Groups of views without windows have one.
type GroupRows = SmallVec<[(i64, ValueHash); 1]>;

/// The rows of a topic.
#[derive(Debug, Default)]
pub struct SentRows {
    groups: HashMap<Box<[u8]>, GroupRows>,
    rows: usize,
}

impl SentRows {
    /// Returns the number of rows.
    pub fn len(&self) -> usize {
        self.rows
    }

    /// Returns whether the topic has no row.
    pub fn is_empty(&self) -> bool {
        self.rows == 0
    }

    /// Returns the value that the topic has of a row.
    pub fn get(&self, window: WindowId, key: &[u8]) -> Option<ValueHash> {
        let rows = self.groups.get(key)?;
        rows.binary_search_by_key(&window.0, |row| row.0).ok().map(|at| rows[at].1)
    }

    /// Applies a change.
    pub fn apply(&mut self, change: SentChange) {
        let SentChange { window, key, value } = change;
        let Some(value) = value else { return self.remove(window, &key) };
        let rows = self.groups.entry(key).or_default();
        match rows.binary_search_by_key(&window.0, |row| row.0) {
            Ok(at) => rows[at].1 = value,
            Err(at) => {
                rows.insert(at, (window.0, value));
                self.rows += 1;
            }
        }
    }

    fn remove(&mut self, window: WindowId, key: &[u8]) {
        let Some(rows) = self.groups.get_mut(key) else { return };
        if let Ok(at) = rows.binary_search_by_key(&window.0, |row| row.0) {
            rows.remove(at);
            self.rows -= 1;
        }
        if rows.is_empty() {
            self.groups.remove(key);
        }
    }

    /// Marks the rows of windows in `ids` as stale.
    pub fn mark_stale(&mut self, ids: &Range<WindowId>) {
        let rows = self.groups.values_mut().flatten();
        rows.filter(|row| ids.contains(&WindowId(row.0))).for_each(|row| row.1 = ValueHash::STALE);
    }

    /// Returns whether a row is stale.
    pub fn has_stale(&self) -> bool {
        self.groups.values().flatten().any(|row| row.1 == ValueHash::STALE)
    }

    /// Calls `each` with the rows whose windows satisfy `is_wanted`.
    pub fn for_each_of(&self, is_wanted: impl Fn(WindowId) -> bool, mut each: impl FnMut(WindowId, &[u8])) {
        for (key, rows) in &self.groups {
            rows.iter().map(|row| WindowId(row.0)).filter(|id| is_wanted(*id)).for_each(|id| each(id, key));
        }
    }

    /// Returns the windows of a key, in order.
    pub fn windows_of(&self, key: &[u8]) -> impl Iterator<Item = WindowId> + '_ {
        self.groups.get(key).into_iter().flatten().map(|row| WindowId(row.0))
    }

    /// Returns the encoded keys of the rows, each once.
    pub fn keys(&self) -> impl Iterator<Item = &[u8]> {
        self.groups.keys().map(|key| &**key)
    }

    /// Calls `each` with every row, as the change that made it.
    pub fn for_each(&self, mut each: impl FnMut(SentChange)) {
        for (key, rows) in &self.groups {
            for (window, value) in rows {
                each(SentChange { window: WindowId(*window), key: key.clone(), value: Some(*value) });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    fn change(key: u8, window: i64, value: Option<u8>) -> SentChange {
        SentChange { window: WindowId(window), key: [key].into(), value: value.map(|value| ValueHash::of(&[value])) }
    }

    proptest! {
        #[test]
        fn rows_are_those_of_a_plain_map(steps in prop::collection::vec((0..4u8, -3..3i64, prop::option::of(0..3u8)), 0..60)) {
            let (mut sent, mut plain) = (SentRows::default(), BTreeMap::new());
            for (key, window, value) in steps {
                let step = change(key, window, value);
                let stored: StoredChange = (&step).into();
                prop_assert_eq!(stored.change().expect("hexadecimal"), step.clone());
                sent.apply(step);
                match value {
                    Some(value) => plain.insert((key, window), ValueHash::of(&[value])),
                    None => plain.remove(&(key, window)),
                };
                prop_assert_eq!(sent.len(), plain.len());
            }
            for key in 0..4 {
                for window in -3..3 {
                    prop_assert_eq!(sent.get(WindowId(window), &[key]), plain.get(&(key, window)).copied());
                }
            }
            for key in 0..4 {
                let of_key: Vec<i64> = plain.keys().filter(|row| row.0 == key).map(|row| row.1).collect();
                prop_assert_eq!(sent.windows_of(&[key]).map(|id| id.0).collect::<Vec<_>>(), of_key);
            }
            let mut listed: Vec<(u8, i64)> = Vec::new();
            sent.for_each_of(|window| window.0 >= 0, |window, key| listed.push((key[0], window.0)));
            listed.sort_unstable();
            let expected: Vec<(u8, i64)> = plain.keys().filter(|(_, window)| *window >= 0).copied().collect();
            prop_assert_eq!(listed, expected);
            sent.mark_stale(&(WindowId(0)..WindowId::MAX));
            prop_assert_eq!(sent.has_stale(), plain.keys().any(|(_, window)| *window >= 0));
        }
    }
}
