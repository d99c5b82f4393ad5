//! Caches the last complete response to each question. Its entity tag covers everything it depends on, so a response is used as
//! long as the tag is the same, and the next one takes its place.

use quick_cache::sync::{Cache, DefaultLifecycle};
use quick_cache::{OptionsBuilder, Weighter};
use shared::limits::{CACHED_RESPONSE_BYTES_MAX, RESPONSE_CACHE_BYTES};

use super::ranges::CompleteResponse;
use crate::entity_tag::EntityTag;

/// Bytes per entry beside the body: headers, tag, table entry.
const OVERHEAD_BYTES: usize = 1024;

#[derive(Debug, Clone)]
struct Bytes;

impl Weighter<u128, (EntityTag, CompleteResponse)> for Bytes {
    fn weight(&self, _: &u128, (_, response): &(EntityTag, CompleteResponse)) -> u64 {
        (response.body.len() + OVERHEAD_BYTES) as u64
    }
}

/// Responses by question; the least recently used make room.
pub struct ResponseCache(Cache<u128, (EntityTag, CompleteResponse), Bytes>);

impl Default for ResponseCache {
    fn default() -> ResponseCache {
        let options = OptionsBuilder::new()
            .estimated_items_capacity(RESPONSE_CACHE_BYTES / CACHED_RESPONSE_BYTES_MAX)
            .weight_capacity(RESPONSE_CACHE_BYTES as u64)
            .build()
            .expect("both capacities are given");
        ResponseCache(Cache::with_options(options, Bytes, Default::default(), DefaultLifecycle::default()))
    }
}

impl ResponseCache {
    /// Returns the response cached under `tag`.
    pub fn get(&self, tag: &EntityTag) -> Option<CompleteResponse> {
        self.0.get(&tag.question()).filter(|(known, _)| known == tag).map(|(_, response)| response)
    }

    /// Caches a response in place of an earlier one to the same question, unless it is too large.
    pub fn insert(&self, tag: &EntityTag, response: &CompleteResponse) {
        if response.body.len() > CACHED_RESPONSE_BYTES_MAX {
            return;
        }
        self.0.insert(tag.question(), (tag.clone(), response.clone()));
        metrics::gauge!("trueup_query_cache_bytes").set(self.0.weight() as f64);
    }
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderMap;

    use super::*;

    fn response(bytes: usize) -> CompleteResponse {
        CompleteResponse { headers: HeaderMap::new(), body: vec![b'x'; bytes].into() }
    }

    #[test]
    fn bytes_are_bounded_and_large_responses_are_not_cached() {
        let cache = ResponseCache::default();
        let tag = |n: usize| EntityTag::named(&n.to_string());
        cache.insert(&tag(0), &response(CACHED_RESPONSE_BYTES_MAX + 1));
        assert!(cache.get(&tag(0)).is_none());
        cache.insert(&tag(1), &response(10));
        assert_eq!(cache.get(&tag(1)).map(|response| response.body.len()), Some(10));
        let later = tag(1).later();
        cache.insert(&later, &response(20));
        assert_eq!(cache.get(&later).map(|response| response.body.len()), Some(20));
        assert!(cache.get(&tag(1)).is_none() && cache.0.len() == 1, "one response per question");
        for n in 2..1_000 {
            cache.insert(&tag(n), &response(CACHED_RESPONSE_BYTES_MAX));
        }
        assert!(cache.0.weight() <= RESPONSE_CACHE_BYTES as u64);
        assert!(cache.0.len() > RESPONSE_CACHE_BYTES / CACHED_RESPONSE_BYTES_MAX / 2, "the capacity is used");
    }
}
