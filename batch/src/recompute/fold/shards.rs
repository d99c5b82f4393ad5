//! Folds a batch of events on several cores: each shard has the groups of its part of the hashes, so no group is in two shards
//! and nothing is merged.

use std::collections::HashSet;
use std::sync::Arc;

use shared::partial::accumulate::{Accumulator, EvaluatedBatch};
use shared::partial::block::Part;
use shared::partial::bucket::Bucket;
use shared::partial::keys::KeyLayout;
use shared::view::{Precision, View};
use shared::window::Window;

/// Events below which a batch is folded by one thread: starting others would take longer.
const PARALLEL_EVENTS_MIN: usize = 8_192;
/// Shards at most: each holds keys and tables of its own.
const SHARDS_MAX: usize = 16;

/// The growing states of the groups of a view, divided among the cores.
#[derive(Debug)]
pub struct ShardedFold {
    view: Arc<View>,
    layout: Arc<KeyLayout>,
    precision: Precision,
    shards: Vec<Accumulator>,
    /// The rows of a batch that each shard folds; kept between batches.
    rows: Vec<Vec<u32>>,
}

impl ShardedFold {
    /// Returns a fold without events, of a shard for each core.
    pub fn new(view: Arc<View>, layout: Arc<KeyLayout>, precision: Precision) -> ShardedFold {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        ShardedFold::with_shards(view, layout, precision, cores.min(SHARDS_MAX))
    }

    fn with_shards(view: Arc<View>, layout: Arc<KeyLayout>, precision: Precision, shards: usize) -> ShardedFold {
        let empty = || Accumulator::new(Arc::clone(&view), Arc::clone(&layout), precision);
        let shards = (0..shards).map(|_| empty()).collect::<Vec<_>>();
        ShardedFold { rows: vec![Vec::new(); shards.len()], view, layout, precision, shards }
    }

    /// Folds the rows of a batch.
    pub fn fold(&mut self, batch: &EvaluatedBatch<'_>) {
        let of_sessions = matches!(self.view.window, Window::Session { .. });
        let shards = self.shards.len() as u64;
        self.rows.iter_mut().for_each(Vec::clear);
        for &row in batch.rows {
            // The windows of a group may be in several shards, its sessions may not: they can join.
            let window = if of_sessions { 0 } else { batch.panes[row as usize].0 as u64 };
            let mixed = batch.keys.key(row).hash.wrapping_add(window.wrapping_mul(0x9e37_79b9_7f4a_7c15));
            // Of other bits than tables and buckets use.
            let shard = (((mixed >> 8) & u64::from(u32::MAX)) * shards) >> 32;
            self.rows[shard as usize].push(row);
        }
        let work = self.shards.iter_mut().zip(&self.rows);
        let work =
            work.map(|(shard, rows)| (shard, EvaluatedBatch { rows, ..*batch })).filter(|(_, b)| !b.rows.is_empty());
        if batch.rows.len() < PARALLEL_EVENTS_MIN {
            return work.for_each(|(shard, batch)| shard.fold(&batch));
        }
        std::thread::scope(|scope| {
            let mut work = work.collect::<Vec<_>>();
            let own = work.pop();
            work.into_iter().for_each(|(shard, batch)| _ = scope.spawn(move || shard.fold(&batch)));
            if let Some((shard, batch)) = own {
                shard.fold(&batch);
            }
        });
    }

    /// Drops all groups but those in `bucket`.
    pub fn retain(&mut self, bucket: Bucket) {
        self.shards.iter_mut().for_each(|shard| shard.retain(bucket));
    }

    /// Returns the number of rows.
    pub fn rows(&self) -> usize {
        self.shards.iter().map(Accumulator::rows).sum()
    }

    /// Returns whether there are several groups, windows aside.
    pub fn has_several_groups(&self) -> bool {
        // One group may be in every shard, by its windows.
        self.shards.iter().map(Accumulator::keys).sum::<usize>() > self.shards.len()
            || self.parts().iter().flat_map(|part| part.keys.iter()).collect::<HashSet<_>>().len() > 1
    }

    /// Returns the memory held, in bytes.
    pub fn bytes(&self) -> usize {
        self.shards.iter().map(Accumulator::bytes).sum()
    }

    /// Returns the states so far, a part for each shard.
    pub fn parts(&self) -> Vec<Part> {
        self.shards.iter().map(Accumulator::part).collect()
    }

    /// Returns the states so far and starts again without any.
    pub fn take(&mut self) -> Vec<Part> {
        let (view, layout) = (Arc::clone(&self.view), Arc::clone(&self.layout));
        let empty = ShardedFold::with_shards(view, layout, self.precision, self.shards.len());
        std::mem::replace(self, empty).parts()
    }

    /// Continues with the states of `parts`, which [`ShardedFold::take`] returned.
    pub fn absorb(&mut self, parts: &[Part]) {
        self.shards.iter_mut().zip(parts).for_each(|(shard, part)| shard.absorb(part));
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use arrow::array::{ArrayRef, Int64Array};
    use shared::partial::batch_keys::BatchKeys;
    use shared::partial::finish::finish_measures;
    use shared::partial::states::{EventPositions, Offsets};
    use shared::sql::parse_definitions;
    use shared::time::Micros;
    use shared::window::PaneStart;

    use super::*;

    const EVENTS: i64 = 3 * PARALLEL_EVENTS_MIN as i64;

    /// The count of every window (its start) and key, folded by three shards. Half of the events fold in parallel, in two
    /// batches, and the other half in small ones.
    fn counted(window: &str, keys: i64) -> BTreeMap<(i64, Vec<u8>), i64> {
        let sql = format!(
            "CREATE STREAM s (at TIMESTAMP, k BIGINT) WITH (event_time = 'at');
             CREATE VIEW v AS SELECT k, COUNT(*) AS n FROM s GROUP BY {window}, k;"
        );
        let parsed = parse_definitions(&[("s.sql".to_owned(), sql)]).unwrap_or_else(|errors| panic!("{}", errors[0]));
        let view = Arc::new(parsed.views[0].clone());
        let layout = Arc::new(KeyLayout::new(vec![view.dimensions[0].expression.data_type]).expect("a layout"));
        let mut fold = ShardedFold::with_shards(Arc::clone(&view), Arc::clone(&layout), Precision::Exact, 3);
        let events: Vec<i64> = (0..EVENTS).collect();
        let (large, small) = events.split_at(EVENTS as usize / 2);
        for events in large.chunks(PARALLEL_EVENTS_MIN).chain(small.chunks(100)) {
            let times: Vec<i64> = events.iter().map(|event| event * 1_000_000).collect();
            let panes: Vec<PaneStart> = times.iter().map(|time| view.window.pane_of(Micros(*time))).collect();
            let column: ArrayRef = Arc::new(events.iter().map(|event| Some(event % keys)).collect::<Int64Array>());
            let keys = BatchKeys::new(&layout, &[column]).expect("encodes");
            let rows: Vec<u32> = (0..events.len() as u32).collect();
            fold.fold(&EvaluatedBatch {
                panes: &panes,
                places: EventPositions { times: &times, offsets: Offsets::Run { partition: 0, first: events[0] } },
                keys: &keys,
                arguments: &[None],
                masks: &[None],
                rows: &rows,
            });
        }
        assert_eq!(fold.has_several_groups(), keys > 1);
        let mut counts = BTreeMap::new();
        let parts = fold.take();
        assert!(keys == 1 || parts.iter().all(|part| part.rows() > 0), "no shard is idle");
        for part in &parts {
            for block in &part.blocks {
                let finished = finish_measures(&view, &block.states).expect("finishes").remove(0);
                let counted = finished.column.as_any().downcast_ref::<Int64Array>().expect("counts").clone();
                for (row, (window, key)) in block.windows.iter().zip(&block.keys).enumerate() {
                    let before = counts.insert((window.0, part.keys.get(*key).to_vec()), counted.value(row));
                    assert_eq!(before, None, "a group is in one shard");
                }
            }
        }
        counts
    }

    fn totals(counts: &BTreeMap<(i64, Vec<u8>), i64>) -> (usize, i64) {
        (counts.len(), counts.values().sum())
    }

    #[test]
    fn every_group_is_in_one_shard() {
        let hourly = counted("TUMBLE(at, INTERVAL '1' HOUR)", 10);
        assert_eq!(totals(&hourly), (10 * EVENTS.cast_unsigned().div_ceil(3_600) as usize, EVENTS));
        assert!(hourly.values().all(|count| *count <= 360));
    }

    #[test]
    fn the_windows_of_one_group_may_be_in_several_shards() {
        assert_eq!(counted("TUMBLE(at, INTERVAL '1' HOUR)", 1).len(), EVENTS.cast_unsigned().div_ceil(3_600) as usize);
    }

    #[test]
    fn the_sessions_of_a_group_are_in_one_shard() {
        // Every key has an event each 20,000 s, hundreds of keys between.
        let sessions = counted("SESSION(at, INTERVAL '6' HOUR)", 20_000);
        assert_eq!(totals(&sessions), (20_000, EVENTS));
        let apart = counted("SESSION(at, INTERVAL '5' HOUR)", 20_000);
        assert_eq!(totals(&apart), (EVENTS as usize, EVENTS));
    }
}
