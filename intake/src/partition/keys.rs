//! Remembers the receipts of the idempotency keys of one partition, in log order, for some time and within some bytes.
//!
//! Changes are provisional until [`KeyMemory::commit`], as in the dedup window. Keys are stored in the meta of the
//! frames, and in [`super::key_files`] once their segments may be deleted.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use shared::limits;
use shared::time::{Micros, micros_of};

use super::key_claims::{BodyFingerprint, KeyClaim, KeyClaims};
use super::submission::PartitionReceipt;
use crate::log::{EntityHash, SourcePosition};

/// A key with its body and receipt, as the meta of a frame stores them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct KeyRecord {
    pub key: Arc<str>,
    /// Absent from frames written before fingerprints were. Programs of that time skip the field, so the segments kept
    /// their format version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub body: Option<BodyFingerprint>,
    /// The entity that the request appended to; absent from other requests, and from frames of earlier programs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub entity: Option<EntityHash>,
    /// Counts the keys of the partition; absent from frames of earlier programs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub number: Option<u64>,
    #[serde(rename = "answer")]
    pub receipt: PartitionReceipt,
}

/// A key as a key file stores it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct StoredKey {
    #[serde(flatten)]
    pub record: KeyRecord,
    /// When its request arrived.
    pub arrived_at: Micros,
}

/// The meta of a frame; a frame without keys and position has none.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct FrameMeta {
    pub keys: Vec<KeyRecord>,
    /// The position in the topic that the stream reads, after the frame's events.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<SourcePosition>,
}

/// How long idempotency keys are remembered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeyRetention {
    /// Time since the request of a key.
    pub keep: Duration,
    /// Newest keys that are remembered for longer than that.
    pub keys_min: usize,
    /// Memory of the keys of one partition, in bytes. Beyond it the oldest are forgotten, whatever their age.
    pub bytes_max: usize,
}

impl Default for KeyRetention {
    fn default() -> Self {
        KeyRetention {
            keep: Duration::from_millis(limits::IDEMPOTENCY_KEEP_MS),
            keys_min: limits::IDEMPOTENCY_KEYS_MIN,
            bytes_max: limits::IDEMPOTENCY_BYTES_MAX,
        }
    }
}

/// Memory of a key besides its text, in bytes: entries of three tables and the claim.
const KEY_BYTES: usize = 320;

struct KeyEntry {
    /// Counts the keys of the partition.
    number: u64,
    /// When its request arrived.
    arrived_at: Micros,
    receipt: PartitionReceipt,
    /// The entity that the request appended to.
    entity: Option<EntityHash>,
    /// Keeps the key for its body, in all partitions.
    claim: Arc<KeyClaim>,
}

/// The newest idempotency keys.
pub(crate) struct KeyMemory {
    retention: KeyRetention,
    /// Number of the next key.
    next: u64,
    by_key: HashMap<Arc<str>, KeyEntry>,
    /// Keys and their numbers, the oldest first.
    order: VecDeque<(Arc<str>, u64)>,
    /// Estimated memory.
    bytes: usize,
    /// Number of the first key that is in no key file.
    saved: u64,
    /// What each key of the current group replaced.
    staged: Vec<(Arc<str>, Option<KeyEntry>)>,
}

impl KeyMemory {
    /// Creates an empty memory.
    pub fn new(retention: KeyRetention) -> Self {
        let (by_key, order, staged) = (HashMap::new(), VecDeque::new(), Vec::new());
        KeyMemory { retention, next: 0, by_key, order, bytes: 0, saved: 0, staged }
    }

    /// Remembers the keys recorded in a frame of the log, and claims them. Frames are restored in order. Keys that a key file
    /// had are not remembered twice.
    pub fn restore(&mut self, records: Vec<KeyRecord>, arrived_at: Micros, claims: &Arc<KeyClaims>) {
        for KeyRecord { key, body, entity, number, receipt } in records {
            let is_same = |entry: &KeyEntry| entry.arrived_at == arrived_at && entry.receipt == receipt;
            let is_saved = match number {
                Some(number) => number < self.saved,
                None => self.by_key.get(&key).is_some_and(is_same),
            };
            if !is_saved {
                self.next = self.next.max(number.unwrap_or(0));
                self.remember(claims.restore(key, body), receipt, entity, arrived_at);
            }
        }
        self.commit(arrived_at);
    }

    /// The receipt that the key got with this body, if it is still remembered at `now`.
    pub fn receipt(&self, claim: &KeyClaim, now: Micros) -> Option<PartitionReceipt> {
        let known = self.by_key.get(claim.key()).filter(|entry| !self.is_expired(entry, now));
        known.filter(|entry| entry.claim.allows(claim.body())).map(|entry| entry.receipt)
    }

    /// Remembers a key that has no receipt yet, and returns its number; its request arrived at `now`.
    pub fn remember(
        &mut self,
        claim: Arc<KeyClaim>,
        receipt: PartitionReceipt,
        entity: Option<EntityHash>,
        now: Micros,
    ) -> u64 {
        let key = Arc::clone(claim.key());
        self.bytes += KEY_BYTES + key.len();
        self.order.push_back((Arc::clone(&key), self.next));
        let entry = KeyEntry { number: self.next, arrived_at: now, receipt, entity, claim };
        let replaced = self.by_key.insert(Arc::clone(&key), entry);
        self.staged.push((key, replaced));
        self.next += 1;
        self.next - 1
    }

    /// Keeps what was remembered and forgets the keys that are not to be remembered any more at `now`.
    pub fn commit(&mut self, now: Micros) {
        self.staged.clear();
        while let Some((key, number)) = self.order.front() {
            let entry = self.by_key.get(key).filter(|entry| entry.number == *number);
            // A key that was used again is in `order` once more.
            let is_kept = entry.is_some_and(|entry| !self.is_expired(entry, now));
            if is_kept && self.bytes <= self.retention.bytes_max {
                return;
            }
            let is_current = entry.is_some();
            let Some((key, _)) = self.order.pop_front() else { return };
            self.bytes -= KEY_BYTES + key.len();
            if is_current {
                self.by_key.remove(&key);
            }
        }
    }

    /// Forgets the keys of requests that appended to these entities; returns whether there were any. Nothing may be staged.
    pub fn forget(&mut self, is_erased: impl Fn(EntityHash) -> bool) -> bool {
        let before = self.by_key.len();
        self.by_key.retain(|_, entry| !entry.entity.is_some_and(&is_erased));
        let (by_key, mut freed) = (&self.by_key, 0);
        self.order.retain(|(key, number)| {
            let is_kept = by_key.get(key).is_some_and(|entry| entry.number == *number);
            freed += if is_kept { 0 } else { KEY_BYTES + key.len() };
            is_kept
        });
        self.bytes -= freed;
        self.by_key.len() < before
    }

    /// Returns whether a key is in no key file yet.
    pub fn has_unsaved(&self) -> bool {
        self.saved < self.next
    }

    /// Returns the keys that are still remembered and in no key file, oldest first.
    pub fn unsaved(&self) -> Vec<StoredKey> {
        self.since(self.saved)
    }

    /// Returns all keys that are remembered, oldest first.
    pub fn remembered(&self) -> Vec<StoredKey> {
        self.since(0)
    }

    /// Notes that all keys are in a key file; returns the number of the next key.
    pub fn mark_saved(&mut self) -> u64 {
        self.saved = self.next;
        self.next
    }

    /// Returns the number of the oldest key that is remembered.
    pub fn oldest(&self) -> u64 {
        self.order.front().map_or(self.next, |(_, number)| *number)
    }

    fn since(&self, first: u64) -> Vec<StoredKey> {
        let from = self.order.partition_point(|(_, number)| *number < first);
        let entries = self.order.iter().skip(from).filter_map(|(key, number)| {
            let entry = self.by_key.get(key).filter(|entry| entry.number == *number)?;
            let KeyEntry { claim, receipt, arrived_at, entity, .. } = entry;
            let (key, body, number) = (Arc::clone(key), claim.body(), Some(*number));
            let record = KeyRecord { key, body, entity: *entity, number, receipt: *receipt };
            Some(StoredKey { record, arrived_at: *arrived_at })
        });
        entries.collect()
    }

    /// Forgets what was remembered since the last commit.
    pub fn rollback(&mut self) {
        while let Some((key, replaced)) = self.staged.pop() {
            self.order.pop_back();
            self.bytes -= KEY_BYTES + key.len();
            self.next -= 1;
            match replaced {
                Some(before) => self.by_key.insert(key, before),
                None => self.by_key.remove(&key),
            };
        }
    }

    /// Whether a key is old enough to be forgotten. A clock that is set back keeps keys for longer.
    fn is_expired(&self, entry: &KeyEntry, now: Micros) -> bool {
        let is_recent = self.next - entry.number <= self.retention.keys_min as u64;
        !is_recent && now.0.saturating_sub(entry.arrived_at.0) >= micros_of(self.retention.keep)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::key_claims::IdempotencyKey;
    use super::*;

    fn key(key: u8, body: u8) -> IdempotencyKey {
        IdempotencyKey { key: key.to_string(), body: BodyFingerprint::of(&[body]) }
    }

    proptest! {
        /// A key stands for its body exactly as long as it is among the last `max`.
        #[test]
        fn receipts_agree_with_a_list(
            max in 0usize..6,
            groups in prop::collection::vec((prop::collection::vec((0u8..10, 0u8..2), 0..5), any::<bool>()), 0..30),
        ) {
            let claims = Arc::new(KeyClaims::default());
            let retention = KeyRetention { keep: Duration::ZERO, keys_min: max, bytes_max: usize::MAX };
            let (mut memory, now) = (KeyMemory::new(retention), Micros(0));
            let mut list: Vec<(u8, u8, u64)> = Vec::new();
            for (i, (keys, kept)) in groups.into_iter().enumerate() {
                let before = list.len();
                for (text, body) in keys {
                    let recent = &list[list.len().saturating_sub(max)..];
                    let known = recent.iter().rfind(|(k, ..)| *k == text).map(|(_, body, accepted)| (*body, *accepted));
                    let Some(claim) = claims.claim(&key(text, body)) else {
                        // A group still holds the keys it pushed out of the memory until it is committed.
                        prop_assert!(list[before.saturating_sub(max)..].iter().any(|(k, b, _)| *k == text && *b != body));
                        continue;
                    };
                    if let Some((first, _)) = known {
                        prop_assert_eq!(first, body, "another body must not get the key");
                    }
                    prop_assert_eq!(memory.receipt(&claim, now).map(|r| r.accepted), known.map(|(_, accepted)| accepted));
                    if known.is_none() {
                        memory.remember(claim, PartitionReceipt { accepted: i as u64, ..PartitionReceipt::default() }, None, now);
                        list.push((text, body, i as u64));
                    }
                }
                if kept {
                    memory.commit(now);
                    prop_assert!(memory.by_key.len() <= max);
                } else {
                    memory.rollback();
                    list.truncate(before);
                }
            }
        }
    }

    #[test]
    fn keys_are_forgotten_by_age_and_by_bytes_and_the_newest_are_kept_for_longer() {
        let claims = Arc::new(KeyClaims::default());
        let known = |memory: &KeyMemory, keys: std::ops::Range<u8>, now| -> Vec<u8> {
            let is_known =
                |k: &u8| claims.claim(&key(*k, 0)).is_some_and(|c| memory.receipt(&c, Micros(now)).is_some());
            keys.filter(is_known).collect()
        };
        let minute = Duration::from_secs(60);
        let mut memory = KeyMemory::new(KeyRetention { keep: minute, keys_min: 2, bytes_max: usize::MAX });
        for k in 0..5 {
            let at = Micros(i64::from(k) * 30_000_000);
            memory.remember(claims.claim(&key(k, 0)).expect("new"), PartitionReceipt::default(), None, at);
            memory.commit(at);
        }
        assert_eq!(known(&memory, 0..5, 120_000_000), [3, 4], "the request of key 2 is a minute old");
        assert_eq!(known(&memory, 0..5, i64::MAX), [3, 4], "the newest are kept whatever the clock says");
        assert_eq!(known(&memory, 0..5, 0), [3, 4]);

        let two = 2 * (KEY_BYTES + 2);
        let mut memory = KeyMemory::new(KeyRetention { keep: minute, keys_min: 100, bytes_max: two });
        for k in 10..15 {
            memory.remember(claims.claim(&key(k, 0)).expect("new"), PartitionReceipt::default(), None, Micros(0));
        }
        assert_eq!(known(&memory, 10..15, 0).len(), 5, "a group keeps its keys until it is committed");
        memory.commit(Micros(0));
        assert_eq!(known(&memory, 10..15, 0), [13, 14]);
        assert_eq!((memory.bytes, memory.by_key.len(), memory.order.len()), (two, 2, 2));
    }

    #[test]
    fn the_keys_of_an_erased_entity_are_forgotten_and_no_others() {
        let claims = Arc::new(KeyClaims::default());
        let mut memory = KeyMemory::new(KeyRetention::default());
        for (k, entity) in [(0, Some(7)), (1, Some(8)), (2, None), (3, Some(7))] {
            let claim = claims.claim(&key(k, 0)).expect("new");
            memory.remember(claim, PartitionReceipt::default(), entity.map(EntityHash), Micros(0));
        }
        memory.commit(Micros(0));
        assert!(memory.forget(|entity| entity.0 == 7) && !memory.forget(|entity| entity.0 == 7));
        let kept: Vec<_> = memory.remembered().into_iter().map(|stored| stored.record.key.to_string()).collect();
        assert_eq!((kept, memory.bytes), (vec!["1".to_owned(), "2".to_owned()], 2 * (KEY_BYTES + 1)));
    }

    #[test]
    fn records_of_earlier_programs_are_read_and_they_read_ours() {
        let old = r#"{"keys":[{"key":"k","answer":{"accepted":3,"duplicates":1,"late":0,"first_offset":7,"end_offset":10}}]}"#;
        let meta: FrameMeta = serde_json::from_str(old).expect("reads");
        assert_eq!((meta.keys[0].body, meta.keys[0].receipt.accepted), (None, 3));
        let body = Some(BodyFingerprint::of(b"body"));
        let record =
            KeyRecord { key: "k".into(), body, entity: None, number: Some(7), receipt: PartitionReceipt::default() };
        let written = serde_json::to_value(FrameMeta { keys: vec![record.clone()], source: None }).expect("JSON");
        assert_eq!(written["keys"][0]["answer"]["accepted"], 0);
        assert_eq!(serde_json::from_value::<FrameMeta>(written).expect("reads").keys, [record]);
    }
}
