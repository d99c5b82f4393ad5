//! Was the batch part of such a query added up before? A version never changes, so what a query makes of it is kept, and
//! the next time only the live part has to be merged into it.

use std::fmt::Write;
use std::sync::Arc;

use quick_cache::Weighter;
use quick_cache::sync::{Cache, DefaultLifecycle};
use shared::limits::BATCH_SHARES_BYTES;
use shared::partial::merge::{Begun, Layers, MergeError, Spec, begin};
use shared::partial::query_budget::Allowance;
use shared::window::Window;
use xxhash_rust::xxh3::xxh3_128;

use crate::pin::{Pinned, rows_to_merge};
use crate::query::{LayerChoice, Query};

/// Rows of batch that are merged anew without a thought: less than a millisecond of work.
const ROWS_MIN: usize = 20_000;
/// Shares in the cache that its tables are laid out for; there may be more.
const SHARES_EXPECTED: usize = 1_000;

/// `None`: its rows are about as many as those it is made of, so keeping it would save nothing.
type Share = Option<Arc<Begun>>;

#[derive(Debug, Clone)]
struct Bytes;

impl Weighter<u128, Share> for Bytes {
    fn weight(&self, _: &u128, share: &Share) -> u64 {
        share.as_ref().map_or(64, |begun| begun.bytes() as u64)
    }
}

/// The shares of batch in answers, those of queries asked last.
#[derive(Debug)]
pub struct BatchShares(Cache<u128, Share, Bytes>);

impl Default for BatchShares {
    fn default() -> BatchShares {
        let options = quick_cache::OptionsBuilder::new()
            .estimated_items_capacity(SHARES_EXPECTED)
            .weight_capacity(BATCH_SHARES_BYTES as u64)
            // Large shares would not fit into a part of the bytes.
            .shards(1)
            .build()
            .expect("both capacities are given");
        BatchShares(Cache::with_options(options, Bytes, Default::default(), DefaultLifecycle::default()))
    }
}

impl BatchShares {
    /// Batch's share in the answer to `query`, added up if it is not known; whoever else needs it meanwhile waits for it.
    /// `None`: merge batch's parts with the others.
    pub fn of(
        &self,
        query: &Query,
        pinned: &Pinned,
        spec: &Spec<'_>,
        allowance: &Allowance,
    ) -> Result<Share, MergeError> {
        let view = pinned.published.view.as_ref();
        let Some(version) = pinned.published.version.as_ref() else { return Ok(None) };
        if matches!(view.window, Window::Session { .. }) || query.layer == LayerChoice::Speed {
            return Ok(None);
        }
        let rows: usize = pinned.batch.iter().map(|part| rows_to_merge(view, query, part)).sum();
        if rows < ROWS_MIN {
            return Ok(None);
        }
        let mut key = format!("{}\n{}\n{}\n", view.name, pinned.published.definition_hash, version.version);
        let Spec { from, to, grain, dimensions, filter, .. } = spec;
        write!(key, "{from} {to} {grain:?} {dimensions:?} {filter:?}").expect("a String takes everything");
        let mut is_new = false;
        let share = self.0.get_or_insert_with(&xxh3_128(key.as_bytes()), || {
            is_new = true;
            let parts: Vec<_> = pinned.batch.iter().map(|part| (part.as_ref(), Layers::BATCH)).collect();
            let begun = begin(spec, &parts, allowance)?;
            Ok::<Share, MergeError>((begun.rows() <= rows / 2).then(|| Arc::new(begun)))
        })?;
        let outcome = if is_new { "made" } else { "kept" };
        metrics::counter!("trueup_batch_shares_total", "outcome" => outcome).increment(1);
        metrics::gauge!("trueup_batch_shares_bytes").set(self.0.weight() as f64);
        Ok(share)
    }
}
