//! Folds events within a memory budget, batch by batch. When the states have grown too large, the caller either narrows the
//! fold to fewer groups or stops it.

use std::ops::{ControlFlow, Range};
use std::sync::Arc;

use shared::partial::accumulate::EvaluatedBatch;
use shared::partial::batch_keys::BatchKeys;
use shared::partial::block::Part;
use shared::partial::bucket::Bucket;
use shared::partial::keys::KeyLayout;
use shared::partial::states::{EventPositions, Offsets};
use shared::time::Micros;
use shared::view::{Precision, View};
use shared::window::{PaneStart, Window};

use crate::failure::RunFailure;
use crate::plan::ArchiveFile;
use crate::recompute::events::EventBatch;
use crate::recompute::fold::shards::ShardedFold;
use crate::recompute::reduce::group_by::{ArchiveQuery, RowSelection};
use crate::watch::Watch;

/// Events after which states are measured again, at least: measuring visits every group.
const MEASURE_EVENTS_MIN: usize = 65_536;
/// In small budgets, one event per so many bytes of the budget.
const MEASURE_BYTES: usize = 1_024;

/// Whether states fit into the budget.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Capacity {
    Fits,
    Full,
}

/// The growing states of the groups of a bucket.
#[derive(Debug)]
pub struct BoundedFold {
    view: Arc<View>,
    layout: Arc<KeyLayout>,
    pub bucket: Bucket,
    /// The panes to fold, in microseconds.
    pub panes: Range<PaneStart>,
    states: ShardedFold,
    /// Events to fold before the states are measured again.
    measure_in: usize,
}

impl BoundedFold {
    /// Returns a fold without events.
    pub fn new(view: Arc<View>, layout: Arc<KeyLayout>, precision: Precision, bucket: Bucket) -> BoundedFold {
        let states = ShardedFold::new(Arc::clone(&view), Arc::clone(&layout), precision);
        BoundedFold { view, layout, bucket, panes: PaneStart::EVERY, states, measure_in: 0 }
    }

    /// Folds the events of `files`. When the states exceed `limit_bytes`, `narrow` may make room and let the fold continue.
    pub fn read(
        &mut self,
        query: &ArchiveQuery,
        files: &[ArchiveFile],
        rows: RowSelection<'_>,
        watch: &Watch,
        limit_bytes: usize,
        narrow: &mut dyn FnMut(&mut BoundedFold) -> Result<Capacity, RunFailure>,
    ) -> Result<Capacity, RunFailure> {
        let read = query.for_each_batch(files, rows, watch, true, &mut |batch| {
            self.fold(&batch, query)?;
            while self.is_above(limit_bytes) {
                if narrow(self)? == Capacity::Full {
                    return Ok(ControlFlow::Break(()));
                }
                self.measure_in = 0;
            }
            Ok(ControlFlow::Continue(()))
        })?;
        Ok(if read.is_break() { Capacity::Full } else { Capacity::Fits })
    }

    /// Continues with the groups in `bucket` alone.
    pub fn narrow(&mut self, bucket: Bucket) {
        self.states.retain(bucket);
        self.bucket = bucket;
    }

    /// Returns the number of rows.
    pub fn rows(&self) -> usize {
        self.states.rows()
    }

    /// Returns whether there are several groups, windows aside.
    pub fn has_several_groups(&self) -> bool {
        self.states.has_several_groups()
    }

    /// Returns the states so far; each group is in one part.
    pub fn parts(&self) -> Vec<Part> {
        self.states.parts()
    }

    /// Returns the states so far and starts again without any.
    pub fn take(&mut self) -> Vec<Part> {
        self.states.take()
    }

    /// Continues with the states of `parts`, which [`BoundedFold::take`] returned.
    pub fn put(&mut self, parts: &[Part]) {
        self.states.absorb(parts);
    }

    fn is_above(&mut self, limit_bytes: usize) -> bool {
        if self.measure_in > 0 {
            return false;
        }
        let bytes = self.states.bytes();
        self.measure_in = (self.states.rows() / 4).max(MEASURE_EVENTS_MIN.min(limit_bytes / MEASURE_BYTES));
        bytes > limit_bytes
    }

    fn fold(&mut self, batch: &EventBatch, query: &ArchiveQuery) -> Result<(), RunFailure> {
        let (frozen, verdicts) = (query.frozen.as_deref(), query.verdicts.as_deref());
        let panes: Vec<PaneStart> = match self.view.window {
            Window::Session { .. } => Vec::new(),
            window => {
                let mut current = (PaneStart::MAX, i64::MIN);
                let pane = |time: &i64| {
                    if *time < current.0.0 || *time >= current.1 {
                        let pane = window.pane_of(Micros(*time));
                        current = (pane, window.pane_end(pane).map_or(i64::MAX, |end| end.0));
                    }
                    current.0
                };
                batch.times.iter().map(pane).collect()
            }
        };
        let keys = BatchKeys::new(&self.layout, &batch.dimensions)?;
        let wanted = &self.panes;
        let in_panes = |row: &u32| panes.get(*row as usize).is_none_or(|pane| wanted.contains(pane));
        let bucket = self.bucket;
        let in_bucket = |row: &u32| bucket.holds_hashed(keys.key(*row));
        let is_free =
            |row: &u32| frozen.is_none_or(|frozen| !frozen.holds(keys.key(*row).bytes, batch.times[*row as usize]));
        let all = 0..batch.times.len() as u32;
        let in_time = |row: &u32| verdicts.is_none_or(|verdicts| !verdicts.exclude(batch, *row as usize));
        let rows: Vec<u32> =
            all.filter(|row| in_panes(row) && in_bucket(row) && is_free(row) && in_time(row)).collect();
        self.measure_in = self.measure_in.saturating_sub(rows.len());
        self.states.fold(&EvaluatedBatch {
            panes: &panes,
            places: EventPositions {
                times: &batch.times,
                offsets: Offsets::Listed { partitions: &batch.partitions, offsets: &batch.offsets },
            },
            keys: &keys,
            arguments: &batch.arguments,
            masks: &batch.masks,
            rows: &rows,
        });
        Ok(())
    }
}
