//! Decides which request body each idempotency key of a stream stands for, over all its partitions.
//!
//! A key is decided once per request, before any partition receives an event: the first request claims the key for its
//! body, a retry with the same body shares the claim, and a request with another body is refused. A claim lives as long
//! as a submission with the key is under way or any partition remembers the key, so a key means the same for one
//! partition and for many.
//!
//! After a restart the claims are rebuilt from the keys in the log's frames. If a crash let only some partitions write
//! their part of a request, those parts restore the claim: a retry with the same body completes the others, and no
//! other body is accepted.

use std::collections::HashMap;
use std::sync::{Arc, Weak};

use parking_lot::Mutex;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use shared::entity::EntityId;
use xxhash_rust::xxh3::{Xxh3, xxh3_128};

use crate::event_id::hash_entity;

/// XXH3-128 of a request's decompressed body: equal for the same body, however it was encoded. It is not cryptographic:
/// it detects mistakes, not forgeries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BodyFingerprint(u128);

impl BodyFingerprint {
    /// The fingerprint of a decompressed body.
    pub fn of(body: &[u8]) -> BodyFingerprint {
        BodyFingerprint(xxh3_128(body))
    }

    /// Returns the fingerprint of the `parts` of a body that is appended to an entity: the same events for another
    /// entity are another request.
    pub fn of_append<'a>(id: &EntityId, parts: impl IntoIterator<Item = &'a [u8]>) -> BodyFingerprint {
        let mut hasher = Xxh3::new();
        hasher.update(&hash_entity(id).to_le_bytes());
        parts.into_iter().for_each(|part| hasher.update(part));
        BodyFingerprint(hasher.digest128())
    }
}

impl Serialize for BodyFingerprint {
    /// 32 hexadecimal digits.
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&format_args!("{:032x}", self.0))
    }
}

impl<'de> Deserialize<'de> for BodyFingerprint {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let digits = String::deserialize(deserializer)?;
        u128::from_str_radix(&digits, 16).map(BodyFingerprint).map_err(serde::de::Error::custom)
    }
}

/// An `Idempotency-Key` and the body it was sent with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IdempotencyKey {
    /// The header as the client sent it.
    pub key: String,
    pub body: BodyFingerprint,
}

/// A key that stands for one body until the last reference to the claim is dropped.
#[derive(Debug)]
pub struct KeyClaim {
    key: Arc<str>,
    /// `None` for a key recorded before fingerprints were: it stands for any body.
    body: Option<BodyFingerprint>,
    claims: Arc<KeyClaims>,
}

/// The claimed keys of one stream.
#[derive(Debug, Default)]
pub struct KeyClaims {
    by_key: Mutex<HashMap<Arc<str>, Weak<KeyClaim>>>,
}

impl KeyClaims {
    /// Claims `key` for its body; `None` if it stands for another one.
    pub fn claim(self: &Arc<Self>, key: &IdempotencyKey) -> Option<Arc<KeyClaim>> {
        let mut by_key = self.by_key.lock();
        if let Some(claim) = by_key.get(key.key.as_str()).and_then(Weak::upgrade) {
            // Dropping the last reference to a claim locks the map again.
            drop(by_key);
            return claim.allows(Some(key.body)).then_some(claim);
        }
        let claim = self.new_claim(key.key.as_str().into(), Some(key.body));
        by_key.insert(Arc::clone(&claim.key), Arc::downgrade(&claim));
        Some(claim)
    }

    /// Claims a key that was read from a log. If two records disagree, the one read later counts.
    pub(crate) fn restore(self: &Arc<Self>, key: Arc<str>, body: Option<BodyFingerprint>) -> Arc<KeyClaim> {
        let mut by_key = self.by_key.lock();
        let known = by_key.get(&key).and_then(Weak::upgrade);
        if let Some(claim) = known.as_ref().filter(|claim| claim.allows(body)) {
            return Arc::clone(claim);
        }
        let claim = self.new_claim(key, body);
        by_key.insert(Arc::clone(&claim.key), Arc::downgrade(&claim));
        drop(by_key);
        claim
    }

    fn new_claim(self: &Arc<Self>, key: Arc<str>, body: Option<BodyFingerprint>) -> Arc<KeyClaim> {
        Arc::new(KeyClaim { key, body, claims: Arc::clone(self) })
    }
}

impl KeyClaim {
    pub(crate) fn key(&self) -> &Arc<str> {
        &self.key
    }

    pub(crate) fn body(&self) -> Option<BodyFingerprint> {
        self.body
    }

    /// Whether the key may be used with `body`.
    pub(crate) fn allows(&self, body: Option<BodyFingerprint>) -> bool {
        self.body.is_none() || body.is_none() || self.body == body
    }
}

impl Drop for KeyClaim {
    fn drop(&mut self) {
        let mut by_key = self.claims.by_key.lock();
        // The key may have been claimed again since the last reference was dropped.
        if by_key.get(&self.key).is_some_and(|claim| claim.strong_count() == 0) {
            by_key.remove(&self.key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(key: &str, body: &str) -> IdempotencyKey {
        IdempotencyKey { key: key.to_owned(), body: BodyFingerprint::of(body.as_bytes()) }
    }

    #[test]
    fn a_claim_holds_until_its_last_reference_is_dropped() {
        let claims = Arc::new(KeyClaims::default());
        let first = claims.claim(&key("k", "a")).expect("a new key");
        let retry = claims.claim(&key("k", "a")).expect("the same body");
        assert!(claims.claim(&key("k", "b")).is_none());
        assert!(claims.claim(&key("other", "b")).is_some());
        drop(first);
        assert!(claims.claim(&key("k", "b")).is_none(), "the retry still holds the key");
        drop(retry);
        let second = claims.claim(&key("k", "b")).expect("the key is free");
        assert!(claims.claim(&key("k", "a")).is_none());
        drop(second);
        assert!(claims.by_key.lock().is_empty());
    }

    #[test]
    fn a_key_recorded_without_a_fingerprint_stands_for_any_body() {
        let claims = Arc::new(KeyClaims::default());
        let _old = claims.restore("k".into(), None);
        assert!(claims.claim(&key("k", "a")).is_some() && claims.claim(&key("k", "b")).is_some());
    }

    #[test]
    fn a_fingerprint_is_written_as_hexadecimal_digits_and_read_back() {
        for body in ["", "a", "{\"id\":1}\n"] {
            let fingerprint = BodyFingerprint::of(body.as_bytes());
            let text = serde_json::to_string(&fingerprint).expect("a string");
            assert_eq!(text.len(), 34);
            assert_eq!(serde_json::from_str::<BodyFingerprint>(&text).expect("reads back"), fingerprint);
        }
        assert!(serde_json::from_str::<BodyFingerprint>("\"x\"").is_err());
    }
}
