//! Remembers the receipts of the last idempotency keys of one partition, in log order.
//!
//! Changes are provisional until [`KeyMemory::commit`], as in the dedup window. Keys are stored in the meta of the
//! frames; those of segments that were trimmed are forgotten at the next start.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::key_claims::{BodyFingerprint, KeyClaim, KeyClaims};
use super::submission::PartitionReceipt;

/// A key with its body and receipt, as the meta of a frame stores them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct KeyRecord {
    pub key: Arc<str>,
    /// Absent from frames written before fingerprints were. Programs of that time skip the field, so the segments kept
    /// their format version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub body: Option<BodyFingerprint>,
    #[serde(rename = "answer")]
    pub receipt: PartitionReceipt,
}

/// The meta of a frame; a frame without keys has none.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct FrameMeta {
    pub keys: Vec<KeyRecord>,
}

struct KeyEntry {
    /// Counts the keys of the partition.
    number: u64,
    receipt: PartitionReceipt,
    /// Keeps the key for its body, in all partitions.
    claim: Arc<KeyClaim>,
}

/// The newest idempotency keys.
pub(crate) struct KeyMemory {
    max: u64,
    /// Number of the next key.
    next: u64,
    by_key: HashMap<Arc<str>, KeyEntry>,
    /// Keys and their numbers, the oldest first.
    order: VecDeque<(Arc<str>, u64)>,
    /// What each key of the current group replaced.
    staged: Vec<(Arc<str>, Option<KeyEntry>)>,
}

impl KeyMemory {
    /// Remembers the last `max` keys.
    pub fn new(max: usize) -> Self {
        KeyMemory { max: max as u64, next: 0, by_key: HashMap::new(), order: VecDeque::new(), staged: Vec::new() }
    }

    /// Remembers the keys recorded in a log, the oldest first, and claims them.
    pub fn restore(max: usize, records: impl IntoIterator<Item = KeyRecord>, claims: &Arc<KeyClaims>) -> Self {
        let mut memory = KeyMemory::new(max);
        for KeyRecord { key, body, receipt } in records {
            memory.remember(claims.restore(key, body), receipt);
        }
        memory.commit();
        memory
    }

    /// The receipt that the key got with this body, if it is among the last `max`.
    pub fn receipt(&self, claim: &KeyClaim) -> Option<PartitionReceipt> {
        let known = self.by_key.get(claim.key()).filter(|entry| self.next - entry.number <= self.max);
        known.filter(|entry| entry.claim.allows(claim.body())).map(|entry| entry.receipt)
    }

    /// Remembers a key that has no receipt yet.
    pub fn remember(&mut self, claim: Arc<KeyClaim>, receipt: PartitionReceipt) {
        let key = Arc::clone(claim.key());
        self.order.push_back((Arc::clone(&key), self.next));
        let replaced = self.by_key.insert(Arc::clone(&key), KeyEntry { number: self.next, receipt, claim });
        self.staged.push((key, replaced));
        self.next += 1;
    }

    /// Keeps what was remembered and forgets keys beyond the last `max`.
    pub fn commit(&mut self) {
        self.staged.clear();
        while self.order.len() as u64 > self.max {
            let Some((key, number)) = self.order.pop_front() else { return };
            if self.by_key.get(&key).is_some_and(|entry| entry.number == number) {
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
            let mut memory = KeyMemory::new(max);
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
                    prop_assert_eq!(memory.receipt(&claim).map(|r| r.accepted), known.map(|(_, accepted)| accepted));
                    if known.is_none() {
                        memory.remember(claim, PartitionReceipt { accepted: i as u64, ..PartitionReceipt::default() });
                        list.push((text, body, i as u64));
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

    #[test]
    fn records_of_earlier_programs_are_read_and_they_read_ours() {
        let old = r#"{"keys":[{"key":"k","answer":{"accepted":3,"duplicates":1,"late":0,"first_offset":7,"end_offset":10}}]}"#;
        let meta: FrameMeta = serde_json::from_str(old).expect("reads");
        assert_eq!((meta.keys[0].body, meta.keys[0].receipt.accepted), (None, 3));
        let body = Some(BodyFingerprint::of(b"body"));
        let record = KeyRecord { key: "k".into(), body, receipt: PartitionReceipt::default() };
        let written = serde_json::to_value(FrameMeta { keys: vec![record.clone()] }).expect("JSON");
        assert_eq!(written["keys"][0]["answer"]["accepted"], 0);
        assert_eq!(serde_json::from_value::<FrameMeta>(written).expect("reads").keys, [record]);
    }
}
