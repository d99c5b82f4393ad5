//! Collects the states of several queries by window date, merges them where a window reaches over the edge of a query, and
//! emits the rows of a date once no more events can change it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, UInt32Array};
use arrow::compute::take_record_batch;
use shared::date_partition::DatePartition;
use shared::partial::block::Part;
use shared::partial::bucket::Bucket;
use shared::partial::codec::{WINDOW_END, decode, encode};
use shared::partial::keys::KeyLayout;
use shared::partial::merge::{Layers, MergeSpec, merge};
use shared::time::Day;
use shared::view::{Precision, View};
use shared::window::Window;

use crate::failure::RunFailure;
use crate::plan::window_date;
use crate::recompute::fold::slices::{Emit, FinishedDate};
use crate::recompute::reduce::group_by::windows_of;

/// Number of pieces of a date at which they are merged before the last has arrived.
const PIECES_MAX: usize = 8;

/// Collects states until the rows of their window dates are complete.
#[derive(Debug)]
pub struct PartialRows {
    view: Arc<View>,
    layout: Arc<KeyLayout>,
    /// The window dates to keep; `None`: all.
    requested: Option<BTreeSet<DatePartition>>,
    pending: BTreeMap<DatePartition, Vec<StatePiece>>,
}

/// The states of one query for one date.
#[derive(Debug)]
struct StatePiece {
    part: Part,
    dimensions: Vec<ArrayRef>,
}

impl PartialRows {
    /// Returns a collection without states.
    pub fn new(view: Arc<View>, layout: Arc<KeyLayout>, requested: Option<BTreeSet<DatePartition>>) -> PartialRows {
        PartialRows { view, layout, requested, pending: BTreeMap::new() }
    }

    /// Adds the states of one query, sorted by window.
    pub fn add(&mut self, states: &RecordBatch) -> Result<(), RunFailure> {
        let windows = windows_of(states);
        let date_of = |row: usize| window_date(self.view.window, windows[row]);
        let mut from = 0;
        while from < windows.len() {
            let date = date_of(from);
            let to = (from + 1..windows.len()).find(|row| date_of(*row) != date).unwrap_or(windows.len());
            if self.requested.as_ref().is_none_or(|requested| requested.contains(&date)) {
                let slice = states.slice(from, to - from);
                let mut pieces = self.pending.remove(&date).unwrap_or_default();
                pieces.push(self.piece(&slice)?);
                if pieces.len() >= PIECES_MAX {
                    let merged = merge_pieces(&self.view, &pieces)?;
                    pieces = vec![self.piece(&merged)?];
                }
                self.pending.insert(date, pieces);
            }
            from = to;
        }
        Ok(())
    }

    /// Returns the memory held, in bytes.
    pub fn bytes(&self) -> usize {
        let of_piece = |piece: &StatePiece| {
            piece.part.bytes() + piece.dimensions.iter().map(|column| column.get_array_memory_size()).sum::<usize>()
        };
        self.pending.values().flatten().map(of_piece).sum()
    }

    /// Emits the dates that no event of a later day can change, and returns them. `through` is the last event day that has
    /// been read completely.
    pub fn finish_through(&mut self, through: Day, emit: Emit<'_>) -> Result<Vec<DatePartition>, RunFailure> {
        let window = self.view.window;
        let ends = |day: Day| window.event_days_of(day).is_some_and(|days| *days.end() <= through.0);
        let done = |date: &DatePartition| date.day().is_some_and(ends);
        let dates: Vec<DatePartition> = self.pending.keys().copied().filter(done).collect();
        self.finish(dates, emit)
    }

    /// Emits all dates that are left: everything has been read.
    pub fn finish_all(&mut self, emit: Emit<'_>) -> Result<Vec<DatePartition>, RunFailure> {
        let dates = self.pending.keys().copied().collect();
        self.finish(dates, emit)
    }

    fn finish(&mut self, dates: Vec<DatePartition>, emit: Emit<'_>) -> Result<Vec<DatePartition>, RunFailure> {
        for date in dates.iter().copied() {
            let mut pieces = self.pending.remove(&date).unwrap_or_default();
            emit(match pieces.pop() {
                Some(StatePiece { part, dimensions }) if pieces.is_empty() && part.blocks.len() == 1 => {
                    let block = &part.blocks[0];
                    FinishedDate {
                        date,
                        bucket: Bucket::ALL,
                        rows: encode(&self.view, &block.windows, &[], dimensions, &block.states)?,
                        part,
                    }
                }
                last => {
                    pieces.extend(last);
                    let rows = merge_pieces(&self.view, &pieces)?;
                    let part = decode(&self.view, &self.layout, std::slice::from_ref(&rows))?;
                    FinishedDate { date, bucket: Bucket::ALL, rows, part }
                }
            })?;
        }
        Ok(dates)
    }

    fn piece(&self, states: &RecordBatch) -> Result<StatePiece, RunFailure> {
        // States from a query have the start of the window before the dimensions; merged rows its end as well.
        let windows = match self.view.window {
            Window::All => 0,
            _ => 1 + usize::from(states.column_by_name(WINDOW_END).is_some()),
        };
        let dimensions = states.columns()[windows..windows + self.view.dimensions.len()].to_vec();
        let part = decode(&self.view, &self.layout, std::slice::from_ref(states))?;
        Ok(StatePiece { part, dimensions })
    }
}

/// Merges pieces into one row per window and group, sorted, as the view's table has them.
fn merge_pieces(view: &View, pieces: &[StatePiece]) -> Result<RecordBatch, RunFailure> {
    let dimensions: Vec<usize> = (0..view.dimensions.len()).collect();
    let spec = MergeSpec::whole(view, &dimensions, Precision::Exact);
    let parts: Vec<(&Part, Layers)> = pieces.iter().map(|piece| (&piece.part, Layers::BATCH)).collect();
    let merged = merge(&spec, &parts)?;
    let rows = encode(view, &merged.windows, &merged.lasts, merged.dimension_columns()?, &merged.states)?;
    Ok(take_record_batch(&rows, &UInt32Array::from(merged.sorted_rows()))?)
}
