//! Holds the records of a topic until the transactions of their changes are complete. It reads nothing.
//!
//! ```text
//! a transaction is complete = its END says n changes of this table, and the change with the number n was read
//! records may become visible up to a place behind which no transaction that has changes before it has others
//! ```
//!
//! A connector that was killed writes again what it had written since it last noted its place: older transactions, up to the last one. So
//! when a transaction comes again that has become visible, records wait until the last one of these has come again, too.
//!
//! Records without a transaction, such as rows of a snapshot and tombstones, wait only for those before them.

use std::collections::{HashMap, HashSet};

use kafka::TopicRecord;
use shared::limits::{TABLE_BATCH_RECORDS, TRANSACTIONS_REMEMBERED};

use super::clear::held_bytes;
use crate::decode::transactions::{ChangeOrigin, TransactionBoundary, TransactionPart, origin_of};

/// Bytes of an end that waits for its changes, about.
const END_BYTES: usize = 256;

/// Records that wait, in their order.
#[derive(Default)]
pub(super) struct HeldRecords {
    records: Vec<(TopicRecord, ChangeOrigin)>,
    bytes: usize,
    ends: HashMap<String, End>,
    started: HashSet<String>,
    /// Transactions of which the transaction topic has nothing any more.
    forgotten: HashSet<String>,
    /// The first offset of the transaction topic that records which have not been released may need.
    needed: Option<i64>,
    /// Transactions that have become visible, and the last of them.
    released: HashSet<String>,
    last: Option<String>,
}

/// The end of a transaction.
struct End {
    /// The first record that says so behind what is needed, and the last one: a connector may write it again.
    first: i64,
    last: i64,
    counts: Vec<(String, u64)>,
}

/// Whole transactions.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct WholeRecords {
    /// Those behind the last one that deletes all rows.
    pub records: Vec<TopicRecord>,
    /// Whether all rows are deleted before them.
    pub clears: bool,
    /// The offset after the last record.
    pub next: i64,
    /// The first offset of the transaction topic that later ones may need; `None`: none is known.
    pub needed: Option<i64>,
}

/// What the first transaction that is not complete lacks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Lacking {
    End {
        id: String,
        offset: i64,
    },
    Changes {
        id: String,
        count: u64,
    },
    /// The last transaction that has become visible, again.
    Repetition {
        id: String,
    },
}

impl HeldRecords {
    /// Holds nothing yet; ends are needed from this offset of the transaction topic on.
    pub fn new(needed: Option<i64>) -> HeldRecords {
        HeldRecords { needed, ..HeldRecords::default() }
    }

    /// Whether no record is held.
    pub fn is_empty(&self) -> bool {
        self.records.is_empty()
    }

    /// Memory of what is held.
    pub fn bytes(&self) -> usize {
        self.bytes + self.ends.len() * END_BYTES
    }

    /// Adds the next record of the topic.
    pub fn add(&mut self, record: TopicRecord) {
        let origin = origin_of(record.value.as_deref());
        self.bytes += held_bytes(&record);
        self.records.push((record, origin));
    }

    /// Notes a record of the transaction topic.
    pub fn note(&mut self, offset: i64, boundary: TransactionBoundary) {
        match boundary {
            TransactionBoundary::Begin { id } => _ = self.started.insert(id),
            TransactionBoundary::End { id, counts } => {
                self.started.remove(&id);
                let first = self.ends.get(&id).map_or(offset, |known| known.first);
                self.ends.insert(id, End { first, last: offset, counts });
            }
        }
    }

    /// Whether the transaction topic has a part of this transaction.
    pub fn knows(&self, id: &str) -> bool {
        self.started.contains(id) || self.ends.contains_key(id)
    }

    /// Gives up on a transaction: its changes are applied like those that have none.
    pub fn forget(&mut self, id: String) {
        self.forgotten.insert(id);
    }

    /// Gives up on the first transaction that is not complete, so that the records behind it need not wait, and returns its id. `None`:
    /// it takes most of the memory itself.
    pub fn give_up(&mut self) -> Option<String> {
        match self.lacking()? {
            Lacking::Repetition { id } => {
                self.released.clear();
                self.last = None;
                Some(id)
            }
            Lacking::End { id, .. } | Lacking::Changes { id, .. } => {
                let is_own = |(_, origin): &&(TopicRecord, ChangeOrigin)| {
                    origin.transaction.as_ref().is_some_and(|part| part.id == id)
                };
                let own: usize = self.records.iter().filter(is_own).map(|(record, _)| held_bytes(record)).sum();
                if own > self.bytes / 2 {
                    return None;
                }
                self.forget(id.clone());
                Some(id)
            }
        }
    }

    /// The number of changes that a transaction has, if that is known.
    fn count(&self, part: &TransactionPart) -> Option<u64> {
        if self.forgotten.contains(&part.id) {
            return Some(0);
        }
        let End { counts, .. } = self.ends.get(&part.id)?;
        let of = |name: &String| counts.iter().find(|(collection, _)| collection == name).map(|(_, count)| *count);
        Some(part.collections.iter().find_map(of).unwrap_or(0))
    }

    /// What the first transaction that is not complete lacks; `None`: all are complete.
    pub fn lacking(&self) -> Option<Lacking> {
        let mut last: HashMap<&str, u64> = HashMap::new();
        for part in self.parts() {
            let order = last.entry(&part.id).or_default();
            *order = part.order.max(*order);
        }
        let repetition = || {
            let id = self.last.clone().filter(|_| !self.records.is_empty())?;
            Some(Lacking::Repetition { id })
        };
        let lacking = self.records.iter().find_map(|(record, origin)| {
            let part = origin.transaction.as_ref()?;
            match self.count(part) {
                None => Some(Lacking::End { id: part.id.clone(), offset: record.offset }),
                Some(count) if last[part.id.as_str()] < count => Some(Lacking::Changes { id: part.id.clone(), count }),
                Some(_) => None,
            }
        });
        lacking.or_else(repetition)
    }

    fn parts(&self) -> impl Iterator<Item = &TransactionPart> {
        self.records.iter().filter_map(|(_, origin)| origin.transaction.as_ref())
    }

    /// The ends of whole transactions among the records: each is the number of records before it.
    fn boundaries(&self) -> Vec<usize> {
        let mut open: HashSet<(&str, &str)> = HashSet::new();
        // Those that are complete in here, and the last of all that are.
        let (mut complete, mut last): (HashSet<&str>, Option<&str>) = (HashSet::new(), self.last.as_deref());
        let (mut boundaries, mut repeats) = (Vec::new(), false);
        for (number, (_, origin)) in self.records.iter().enumerate() {
            if let Some(part) = &origin.transaction {
                let (id, table) = (part.id.as_str(), part.collections[2].as_str());
                let has_all = self.count(part).is_some_and(|count| part.order >= count);
                if complete.contains(id) || self.released.contains(id) {
                    repeats = last != Some(id) || !has_all;
                } else if has_all {
                    open.remove(&(id, table));
                    complete.insert(id);
                    last = Some(id);
                } else {
                    open.insert((id, table));
                }
            }
            if open.is_empty() && !repeats {
                boundaries.push(number + 1);
            }
        }
        boundaries
    }

    /// Takes the records of whole transactions, small ones together.
    pub fn take_whole(&mut self) -> Vec<WholeRecords> {
        let boundaries = self.boundaries();
        let (mut all, mut taken) = (Vec::new(), 0);
        for (at, end) in boundaries.iter().enumerate() {
            let is_last = at + 1 == boundaries.len();
            let next_is_far = boundaries.get(at + 1).is_none_or(|next| next - taken > TABLE_BATCH_RECORDS);
            if is_last || next_is_far {
                let rest = self.records.split_off(end - taken);
                let whole = std::mem::replace(&mut self.records, rest);
                taken = *end;
                all.push(self.released(whole));
            }
        }
        if let Some(needed) = self.needed.filter(|_| !all.is_empty()) {
            self.ends.retain(|_, end| end.last >= needed);
            self.ends.values_mut().filter(|end| end.first < needed).for_each(|end| end.first = end.last);
        }
        if self.records.is_empty() {
            self.started.clear();
            self.forgotten.clear();
        }
        all
    }

    fn released(&mut self, whole: Vec<(TopicRecord, ChangeOrigin)>) -> WholeRecords {
        let (mut records, mut clears, mut next) = (Vec::with_capacity(whole.len()), false, 0);
        for (record, origin) in whole {
            self.bytes -= held_bytes(&record);
            next = record.offset + 1;
            if let Some(TransactionPart { id, .. }) = origin.transaction {
                self.needed = self.needed.max(self.ends.get(&id).map(|end| end.first + 1));
                self.remember(id);
            }
            if origin.truncates {
                records.clear();
                clears = true;
            } else {
                records.push(record);
            }
        }
        WholeRecords { records, clears, next, needed: self.needed }
    }

    fn remember(&mut self, id: String) {
        if self.last.as_ref() == Some(&id) {
            return;
        }
        // I9: of more, those that come again become visible one after the other.
        if self.released.len() >= TRANSACTIONS_REMEMBERED {
            self.released.clear();
        }
        self.released.insert(id.clone());
        self.last = Some(id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(offset: i64, transaction: Option<(&str, u64)>) -> TopicRecord {
        let transaction = transaction.map_or("null".to_owned(), |(id, order)| {
            format!(r#"{{"id":"{id}:{offset}","total_order":9,"data_collection_order":{order}}}"#)
        });
        let value = format!(r#"{{"op":"c","source":{{"schema":"s","table":"a"}},"transaction":{transaction}}}"#);
        let value = Some(value.into_bytes().into());
        TopicRecord { partition: 0, offset, timestamp_ms: 0, key: None, value, headers: Vec::new() }
    }

    fn end(id: &str, count: u64) -> TransactionBoundary {
        TransactionBoundary::End { id: id.to_owned(), counts: vec![("s.b".to_owned(), 7), ("s.a".to_owned(), count)] }
    }

    /// The offsets of what is whole now, and the place in the transaction topic.
    fn whole(held: &mut HeldRecords) -> (Vec<i64>, Option<i64>) {
        let taken = held.take_whole();
        let needed = taken.last().and_then(|whole| whole.needed);
        (taken.iter().flat_map(|whole| whole.records.iter().map(|record| record.offset)).collect(), needed)
    }

    #[test]
    fn records_wait_for_the_ends_of_their_transactions_and_for_those_before_them() {
        let mut held = HeldRecords::new(Some(3));
        held.add(record(0, None));
        held.add(record(1, Some(("1", 1))));
        held.add(record(2, None));
        assert_eq!(whole(&mut held), (vec![0], Some(3)), "a record without a transaction does not wait");
        assert_eq!(held.lacking(), Some(Lacking::End { id: "1".to_owned(), offset: 1 }));
        held.note(5, end("1", 2));
        assert_eq!(whole(&mut held), (vec![], None), "a change is missing");
        assert_eq!(held.lacking(), Some(Lacking::Changes { id: "1".to_owned(), count: 2 }));
        held.add(record(4, Some(("1", 2))));
        held.add(record(5, Some(("2", 1))));
        assert_eq!(whole(&mut held), (vec![1, 2, 4], Some(6)));
        held.note(8, end("2", 1));
        assert_eq!((whole(&mut held), held.is_empty(), held.bytes()), ((vec![5], Some(9)), true, 0));
        // The end comes first, and a transaction that is written again by a connector that was killed.
        held.note(9, end("3", 3));
        for (offset, order) in [(6, 1), (7, 2), (8, 1), (9, 2)] {
            held.add(record(offset, Some(("3", order))));
        }
        assert_eq!(whole(&mut held), (vec![], None));
        held.add(record(10, Some(("3", 3))));
        assert_eq!(whole(&mut held), (vec![6, 7, 8, 9, 10], Some(10)));
        // Of one that the topic no longer has, nothing is waited for.
        held.add(record(11, Some(("4", 1))));
        assert!(!held.knows("4"));
        held.forget("4".to_owned());
        assert_eq!(whole(&mut held), (vec![11], Some(10)));
    }

    #[test]
    fn what_a_connector_writes_again_waits_until_it_has_caught_up() {
        let mut held = HeldRecords::new(None);
        let write = |held: &mut HeldRecords, offset: i64, id: &str| {
            held.add(record(offset, Some((id, 1))));
            held.note(offset, end(id, 1));
        };
        (0..).zip(["1", "2", "3"]).for_each(|(offset, id)| write(&mut held, offset, id));
        assert_eq!(whole(&mut held), (vec![0, 1, 2], Some(3)));
        write(&mut held, 3, "2");
        assert_eq!(
            (whole(&mut held), held.lacking()),
            ((vec![], None), Some(Lacking::Repetition { id: "3".to_owned() }))
        );
        write(&mut held, 4, "3");
        write(&mut held, 5, "4");
        assert_eq!((whole(&mut held), held.lacking()), ((vec![3, 4, 5], Some(6)), None));
        write(&mut held, 6, "4");
        assert_eq!(whole(&mut held), (vec![6], Some(7)), "the last one alone");
        // Both times before any is visible.
        (7..).zip(["5", "6", "5"]).for_each(|(offset, id)| write(&mut held, offset, id));
        assert_eq!(whole(&mut held), (vec![7, 8], Some(9)), "the second end of 5 may be needed");
        write(&mut held, 10, "6");
        assert_eq!(whole(&mut held), (vec![9, 10], Some(11)));
    }

    #[test]
    fn a_transaction_without_an_end_can_be_given_up_unless_it_is_most_of_what_waits() {
        let mut held = HeldRecords::new(None);
        let write = |held: &mut HeldRecords, offset: i64, id: &str| {
            held.add(record(offset, Some((id, 1))));
            held.note(offset, end(id, 1));
        };
        (0..).zip(["1", "2"]).for_each(|(offset, id)| write(&mut held, offset, id));
        assert_eq!(whole(&mut held).0, [0, 1]);
        // The connector was killed within transaction 3, and writes what it had written again.
        held.add(record(2, Some(("3", 1))));
        assert_eq!((whole(&mut held).0, held.give_up()), (vec![], None), "it is alone");
        (3..).zip(["1", "1", "1"]).for_each(|(offset, id)| write(&mut held, offset, id));
        assert_eq!((whole(&mut held).0, held.give_up()), (vec![], Some("3".to_owned())));
        assert_eq!(whole(&mut held).0, [2]);
        assert_eq!(held.give_up(), Some("3".to_owned()), "nor do the others wait until it has come again");
        assert_eq!((whole(&mut held).0, held.is_empty()), (vec![3, 4, 5], true));
    }

    #[test]
    fn small_transactions_are_taken_together_and_large_ones_are_not_divided() {
        let mut held = HeldRecords::new(None);
        let mut offset = 0;
        for (id, count) in (0..).zip([100, 100, 100, 600, 1, 1]) {
            let id = format!("{id}");
            held.note(id.parse().expect("a number"), end(&id, count));
            for order in 1..=count {
                held.add(record(offset, Some((&id, order))));
                offset += 1;
            }
        }
        let sizes: Vec<usize> = held.take_whole().iter().map(|whole| whole.records.len()).collect();
        assert_eq!(sizes, [200, 100, 600, 2]);
    }

    #[test]
    fn a_truncate_replaces_what_its_transaction_did_before() {
        let mut held = HeldRecords::new(None);
        let mut truncate = record(1, Some(("1", 2)));
        let text = String::from_utf8(truncate.value.unwrap_or_default().to_vec()).expect("UTF-8");
        truncate.value = Some(text.replace("\"c\"", "\"t\"").into_bytes().into());
        let records = [record(0, Some(("1", 1))), truncate, record(2, Some(("1", 3)))];
        records.into_iter().for_each(|record| held.add(record));
        held.note(0, end("1", 3));
        let taken = held.take_whole();
        let offsets: Vec<i64> = taken[0].records.iter().map(|record| record.offset).collect();
        assert_eq!((taken.len(), offsets, taken[0].clears, taken[0].next), (1, vec![2], true, 3));
    }
}
