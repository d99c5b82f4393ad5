//! How are events folded within a budget? Batch by batch; when the states have grown too large, whoever reads decides
//! whether to go on with fewer groups.

use std::sync::Arc;

use shared::partial::accumulate::{Accumulator, Evaluated};
use shared::partial::block::Part;
use shared::partial::bucket::Bucket;
use shared::partial::keys::KeyLayout;
use shared::partial::states::{Offsets, Places};
use shared::view::{Precision, View};
use shared::window::Window;

use crate::failure::RunFailure;
use crate::plan::planner::ArchiveFile;
use crate::recompute::events::EventBatch;
use crate::recompute::frozen_sessions::FrozenSessions;
use crate::recompute::reduce::group_by::{Query, Rows};
use crate::recompute::scan::Watch;

/// Events after which states are measured again, at least: measuring looks at every group. In small budgets an event more
/// for each of these bytes.
const MEASURE_EVENTS_MIN: usize = 65_536;
const MEASURE_BYTES: usize = 1_024;

/// Did it fit?
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Filled {
    Fits,
    Full,
}

/// States of the groups of a bucket, while they grow.
#[derive(Debug)]
pub struct Filling {
    view: Arc<View>,
    layout: Arc<KeyLayout>,
    pub bucket: Bucket,
    /// Only panes in this half-open range, in microseconds.
    pub panes: (i64, i64),
    accumulator: Accumulator,
    /// Events to fold before the states are measured again.
    measure_in: usize,
}

impl Filling {
    /// Nothing folded yet.
    pub fn new(view: Arc<View>, layout: Arc<KeyLayout>, bucket: Bucket) -> Filling {
        let accumulator = empty(&view, &layout);
        let panes = (i64::MIN, i64::MAX);
        Filling { view, layout, bucket, panes, accumulator, measure_in: 0 }
    }

    /// Folds the events of `files`. When the states take more than `limit_bytes`, `narrow` may make room and go on.
    pub fn read(
        &mut self,
        query: &Query,
        files: &[ArchiveFile],
        rows: Rows<'_>,
        watch: &Watch,
        limit_bytes: usize,
        narrow: &mut dyn FnMut(&mut Filling) -> Result<Filled, RunFailure>,
    ) -> Result<Filled, RunFailure> {
        let mut filled = Filled::Fits;
        let read = query.for_each_batch(files, rows, watch, true, &mut |batch| {
            self.fold(&batch, query.frozen.as_deref())?;
            while self.is_above(limit_bytes) && filled == Filled::Fits {
                filled = narrow(self)?;
                self.measure_in = 0;
            }
            if filled == Filled::Full { Err(RunFailure::Full) } else { Ok(()) }
        });
        match read {
            Err(RunFailure::Full) => Ok(Filled::Full),
            read => read.map(|()| Filled::Fits),
        }
    }

    /// Goes on with the groups in `bucket` alone.
    pub fn narrow(&mut self, bucket: Bucket) {
        self.accumulator.retain(bucket);
        self.bucket = bucket;
    }

    /// Number of rows, and of groups over all windows.
    pub fn rows(&self) -> usize {
        self.accumulator.rows()
    }

    pub fn groups(&self) -> usize {
        self.accumulator.keys()
    }

    /// What has been folded.
    pub fn part(&self) -> Part {
        self.accumulator.part()
    }

    /// What has been folded; then there is nothing.
    pub fn take(&mut self) -> Part {
        std::mem::replace(&mut self.accumulator, empty(&self.view, &self.layout)).part()
    }

    /// Goes on from here.
    pub fn put(&mut self, accumulator: Accumulator) {
        self.accumulator = accumulator;
    }

    fn is_above(&mut self, limit_bytes: usize) -> bool {
        if self.measure_in > 0 {
            return false;
        }
        let bytes = self.accumulator.bytes();
        self.measure_in = (self.accumulator.rows() / 4).max(MEASURE_EVENTS_MIN.min(limit_bytes / MEASURE_BYTES));
        bytes > limit_bytes
    }

    fn fold(&mut self, batch: &EventBatch, frozen: Option<&FrozenSessions>) -> Result<(), RunFailure> {
        let panes: Vec<i64> = match self.view.window {
            Window::Session { .. } => Vec::new(),
            window => {
                let mut current = (i64::MAX, i64::MIN);
                let pane = |time: &i64| {
                    if *time < current.0 || *time >= current.1 {
                        let pane = window.pane_of(*time);
                        current = (pane, window.pane_end(pane).unwrap_or(i64::MAX));
                    }
                    current.0
                };
                batch.times.iter().map(pane).collect()
            }
        };
        let keys = match batch.dimensions.is_empty() {
            true => None,
            false => Some(self.layout.encode(&batch.dimensions)?),
        };
        let (first, end) = self.panes;
        let in_panes = |row: &u32| panes.get(*row as usize).is_none_or(|pane| *pane >= first && *pane < end);
        let bucket = self.bucket;
        let key = |row: &u32| keys.as_ref().map_or(&[][..], |keys| keys.row(*row as usize).data());
        let in_bucket = |row: &u32| bucket.holds(key(row));
        let is_free = |row: &u32| frozen.is_none_or(|frozen| !frozen.holds(key(row), batch.times[*row as usize]));
        let all = 0..batch.times.len() as u32;
        let rows: Vec<u32> = all.filter(|row| in_panes(row) && in_bucket(row) && is_free(row)).collect();
        self.measure_in = self.measure_in.saturating_sub(rows.len());
        self.accumulator.fold(&Evaluated {
            panes: &panes,
            places: Places {
                times: &batch.times,
                offsets: Offsets::Listed { partitions: &batch.partitions, offsets: &batch.offsets },
            },
            keys: keys.as_ref(),
            arguments: &batch.arguments,
            masks: &batch.masks,
            rows: &rows,
        });
        Ok(())
    }
}

fn empty(view: &Arc<View>, layout: &Arc<KeyLayout>) -> Accumulator {
    Accumulator::new(Arc::clone(view), Arc::clone(layout), Precision::Exact)
}
