//! Caches the merged batch part of query results. A version never changes, so a later query with the same merge has to
//! merge only the live part.

use std::fmt::Write;
use std::sync::Arc;

use quick_cache::Weighter;
use quick_cache::sync::{Cache, DefaultLifecycle};
use shared::limits::BATCH_MERGE_CACHE_BYTES;
use shared::partial::merge::{MergeBase, MergeError, MergeSpec, merge_base};
use shared::partial::query_budget::QueryBudget;
use xxhash_rust::xxh3::xxh3_128;

use crate::pin::{ViewPin, rows_to_merge};
use crate::query::LayerChoice;
use crate::query::bound::BoundQuery;

/// Batch rows below which merging costs less than a millisecond and is not cached.
const ROWS_MIN: usize = 20_000;
/// Entries that the cache allocates room for; there may be more.
const ENTRIES_EXPECTED: usize = 1_000;

/// `None`: the merge has about as many rows as its input, so caching it would save nothing.
type CachedMerge = Option<Arc<MergeBase>>;

#[derive(Debug, Clone)]
struct Bytes;

impl Weighter<u128, CachedMerge> for Bytes {
    fn weight(&self, _: &u128, merge: &CachedMerge) -> u64 {
        merge.as_ref().map_or(64, |base| base.bytes() as u64)
    }
}

/// Merged batch parts by query and version; the least recently used make room.
#[derive(Debug)]
pub struct BatchMergeCache(Cache<u128, CachedMerge, Bytes>);

impl Default for BatchMergeCache {
    fn default() -> BatchMergeCache {
        let options = quick_cache::OptionsBuilder::new()
            .estimated_items_capacity(ENTRIES_EXPECTED)
            .weight_capacity(BATCH_MERGE_CACHE_BYTES as u64)
            // One shard: a large entry would not fit into a fraction of the capacity.
            .shards(1)
            .build()
            .expect("both capacities are given");
        BatchMergeCache(Cache::with_options(options, Bytes, Default::default(), DefaultLifecycle::default()))
    }
}

impl BatchMergeCache {
    /// Returns the merged batch part of `query`, computed if it is not cached; concurrent callers wait for one computation.
    /// `None` if the batch parts are to be merged together with the others.
    pub fn of(
        &self,
        query: &BoundQuery,
        pinned: &ViewPin,
        spec: &MergeSpec<'_>,
        allowance: &QueryBudget,
    ) -> Result<CachedMerge, MergeError> {
        let view = pinned.published.view.as_ref();
        let Some(version) = pinned.published.version.as_ref() else { return Ok(None) };
        if view.window.gap().is_some() || query.layer == LayerChoice::Speed {
            return Ok(None);
        }
        let rows: usize = pinned.batch.iter().map(|of| rows_to_merge(view, query, &of.part)).sum();
        if rows < ROWS_MIN {
            return Ok(None);
        }
        let mut key = format!("{}\n{}\n{}\n", view.name, pinned.published.definition_hash, version.version);
        let MergeSpec { windows, grain, dimensions, permitted, filter, .. } = spec;
        write!(key, "{windows:?} {grain:?} {dimensions:?} {permitted:?} {filter:?}")
            .expect("a String takes everything");
        let mut is_new = false;
        let merge = self.0.get_or_insert_with(&xxh3_128(key.as_bytes()), || {
            is_new = true;
            let parts: Vec<_> = pinned.batch.iter().map(|of| (of.part.as_ref(), of.layers)).collect();
            let base = merge_base(spec, &parts, allowance)?;
            Ok::<CachedMerge, MergeError>((base.rows() <= rows / 2).then(|| Arc::new(base)))
        })?;
        let outcome = if is_new { "miss" } else { "hit" };
        metrics::counter!("trueup_batch_merge_cache_lookups_total", "outcome" => outcome).increment(1);
        metrics::gauge!("trueup_batch_merge_cache_bytes").set(self.0.weight() as f64);
        Ok(merge)
    }
}
