//! Finds hashes of identities that more than one event has, so that the exact search for duplicates reads few events: an
//! event whose hash is its own has no duplicate. It does not decide: different identities may have the same hash.

use std::sync::Arc;

use parking_lot::Mutex;
use polars::prelude::{
    AllowedOptimizations, BooleanChunked, Column, DataFrame, DataType, Engine, IntoColumn, LazyFrame, NamedFrom,
    PlHashSet, PlanCallback, PolarsResult, Schema, Series,
};
use xxhash_rust::xxh3::xxh3_64_with_seed;

/// Bytes that a hash costs at most during the search: itself, and an entry in a set.
const HASH_BYTES: u64 = 24;
const HASH: &str = "__hash";
/// Hashes are sorted in this many buckets, one after the other: a bucket fits in the cache of a processor.
const BUCKETS: usize = 256;

/// One of several shares of all hashes.
#[derive(Debug, Clone, Copy)]
pub struct Share {
    number: u64,
    of: u64,
}

/// Hashes that more than one event has, in sets whose events may be searched at once.
pub type RepeatedHashes = Vec<PlHashSet<u64>>;

impl Share {
    /// Returns shares of `rows` hashes, each of which takes `bytes` at most.
    pub fn all(rows: u64, bytes: usize) -> impl Iterator<Item = Share> {
        let of = rows.saturating_mul(HASH_BYTES).div_ceil(bytes as u64).max(1);
        (0..of).map(move |number| Share { number, of })
    }

    fn has(self, hash: u64) -> bool {
        // The upper bits of the product: as even as the hash is.
        (u128::from(hash) * u128::from(self.of)) >> 64 == u128::from(self.number)
    }
}

/// Returns the hashes of this share that several of the `rows` rows in `identities` have. Their events are divided into
/// sets of `events_max`, unless those of one hash are more. Blocking.
pub fn repeated(identities: LazyFrame, rows: u64, share: Share, events_max: u64) -> PolarsResult<RepeatedHashes> {
    let mut repeated = Vec::new();
    let (mut set, mut events) = (PlHashSet::default(), 0);
    for mut bucket in buckets(identities, rows, share)? {
        bucket.sort_unstable();
        for equal in bucket.chunk_by(|a, b| a == b).filter(|equal| equal.len() > 1) {
            let more = equal.len() as u64;
            if events > 0 && events + more > events_max {
                repeated.push(std::mem::take(&mut set));
                events = 0;
            }
            set.insert(equal[0]);
            events += more;
        }
    }
    repeated.extend((!set.is_empty()).then_some(set));
    Ok(repeated)
}

/// Returns the hashes of this share by their lowest bits.
fn buckets(identities: LazyFrame, rows: u64, share: Share) -> PolarsResult<Vec<Vec<u64>>> {
    let schema = Schema::from_iter([(HASH.into(), DataType::UInt64)]);
    let hash = move |frame: DataFrame| {
        let mut hashes = hashes(frame.columns(), frame.height())?;
        hashes.retain(|hash| share.has(*hash));
        DataFrame::new(hashes.len(), vec![Series::new(HASH.into(), hashes).into_column()])
    };
    let schema = Arc::new(move |_: &Schema| Ok(Arc::new(schema.clone())));
    let frame = identities.map(hash, AllowedOptimizations::STREAMING, Some(schema), Some("hashes of identities"));

    let expected = usize::try_from(rows / share.of).unwrap_or(usize::MAX) / BUCKETS;
    // A little more than expected, so that hardly any bucket has to grow.
    let empty = || Vec::with_capacity(expected + expected / 16 + 64);
    let buckets: Arc<Mutex<Vec<Vec<u64>>>> = Arc::new(Mutex::new((0..BUCKETS).map(|_| empty()).collect()));
    let filled = Arc::clone(&buckets);
    let add = move |frame: DataFrame| {
        let mut buckets = filled.lock();
        for hash in frame.column(HASH)?.as_materialized_series().u64()?.iter().flatten() {
            buckets[hash as usize % BUCKETS].push(hash);
        }
        Ok(false)
    };
    frame.sink_batches(PlanCallback::new(add), false, None)?.collect_with_engine(Engine::Streaming)?;
    let buckets = std::mem::take(&mut *buckets.lock());
    Ok(buckets)
}

/// Returns the rows of `frame` whose values in the columns `identity` have one of `hashes`.
pub fn among(frame: LazyFrame, identity: Vec<&'static str>, hashes: PlHashSet<u64>) -> LazyFrame {
    let keep = move |rows: DataFrame| {
        let identity = identity.iter().map(|name| rows.column(name).cloned()).collect::<PolarsResult<Vec<_>>>()?;
        let of_rows = self::hashes(&identity, rows.height())?;
        let mask: BooleanChunked = of_rows.iter().map(|hash| hashes.contains(hash)).collect();
        rows.filter(&mask)
    };
    frame.map(keep, AllowedOptimizations::STREAMING, None, Some("events with repeated hashes"))
}

/// Returns the hash of each of `rows` rows of `columns`. Values that Polars considers equal have equal hashes.
fn hashes(columns: &[Column], rows: usize) -> PolarsResult<Vec<u64>> {
    let mut hashes = vec![0; rows];
    for column in columns {
        let values = column.as_materialized_series().to_physical_repr();
        match values.dtype() {
            DataType::String => mix(&mut hashes, values.str()?.iter(), |text, seed| hash(text.as_bytes(), seed)),
            DataType::Float64 => mix(&mut hashes, values.f64()?.iter(), |number, seed| {
                // Both zeros are equal, and every NaN is.
                let bits = if number.is_nan() { u64::MAX } else { (number + 0.0).to_bits() };
                hash(&bits.to_le_bytes(), seed)
            }),
            // Of a decimal beyond 64 bits this is null: such ids share a hash.
            _ => mix(&mut hashes, values.cast(&DataType::Int64)?.i64()?.iter(), |number, seed| {
                hash(&number.to_le_bytes(), seed)
            }),
        }
    }
    Ok(hashes)
}

fn hash(bytes: &[u8], seed: u64) -> u64 {
    xxh3_64_with_seed(bytes, seed)
}

/// Replaces each hash by that of itself and a value; a null leaves it as it is.
fn mix<T>(hashes: &mut [u64], values: impl Iterator<Item = Option<T>>, hash: impl Fn(T, u64) -> u64) {
    for (before, value) in hashes.iter_mut().zip(values) {
        if let Some(value) = value {
            *before = hash(value, *before);
        }
    }
}

#[cfg(test)]
mod tests {
    use polars::prelude::IntoLazy;

    use super::*;

    fn frame(ids: Series) -> LazyFrame {
        let rows = ids.len();
        DataFrame::new(rows, vec![ids.into_column()]).expect("a frame").lazy()
    }

    #[test]
    fn ids_of_any_type_that_occur_again_are_found_in_one_share_each() {
        let doubled = |i: i64| if i % 100 == 0 { 0 } else { i };
        let texts = Series::new("id".into(), (0..10_000).map(|i| format!("id-{}", doubled(i))).collect::<Vec<_>>());
        let numbers = Series::new("id".into(), (0..10_000).map(|i| doubled(i) << 20).collect::<Vec<_>>());
        let narrow = numbers.cast(&DataType::Int64).and_then(|n| (n / 1_048_576).cast(&DataType::Int32));
        let floats = Series::new("id".into(), (0..10_000).map(|i| doubled(i) as f64 / 3.0).collect::<Vec<_>>());
        for ids in [texts, numbers, narrow.expect("numbers"), floats] {
            let sets = Share::all(10_000, 10_000 * HASH_BYTES as usize / 7 + 1)
                .map(|share| repeated(frame(ids.clone()), 10_000, share, 1_000).expect("hashes"));
            let sets: Vec<RepeatedHashes> = sets.collect();
            assert_eq!(sets.len(), 7);
            let found: Vec<PlHashSet<u64>> = sets.into_iter().flatten().collect();
            assert_eq!(found.iter().map(PlHashSet::len).collect::<Vec<_>>(), [1], "of {:?}", ids.dtype());
            let rows = among(frame(ids.clone()), vec!["id"], found[0].clone()).collect().expect("rows");
            assert_eq!(rows.height(), 100);
        }
        let same = Series::new("id".into(), [0.0, -0.0, f64::NAN, -f64::NAN]);
        let hashes = hashes(&[same.into_column()], 4).expect("hashes");
        assert!(hashes[0] == hashes[1] && hashes[2] == hashes[3] && hashes[0] != hashes[2]);
    }

    #[test]
    fn sets_have_no_more_events_than_fit() {
        let ids = Series::new("id".into(), (0..10_000i64).map(|i| i / 2).collect::<Vec<_>>());
        let share = Share { number: 0, of: 1 };
        let sets = repeated(frame(ids), 10_000, share, 1_001).expect("hashes");
        assert_eq!(sets.iter().map(PlHashSet::len).collect::<Vec<_>>(), [[500; 10].as_slice()].concat());
    }
}
