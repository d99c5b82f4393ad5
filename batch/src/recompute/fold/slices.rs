//! Turns states into the rows of a window date: merged, finished and sorted, in slices where all at once would use too much
//! memory. A slice is a bucket of the groups and becomes a file of its own.

use std::borrow::Borrow;
use std::ops::Range;
use std::sync::Arc;

use arrow::array::{RecordBatch, UInt32Array};
use arrow::compute::take_record_batch;
use shared::date_partition::DatePartition;
use shared::horizon::Horizon;
use shared::partial::block::{Block, Part};
use shared::partial::bucket::Bucket;
use shared::partial::codec::{decode, encode};
use shared::partial::keys::KeyLayout;
use shared::partial::merge::{Grain, Layers, MergeSpec, merge_within};
use shared::time::Day;
use shared::view::{Precision, ROW_COUNT, View};
use shared::window::{Window, WindowId};

use crate::failure::RunFailure;
use crate::plan::window_date;

/// Finished rows of one window date.
#[derive(Debug)]
pub struct FinishedDate {
    pub date: DatePartition,
    /// The groups that are in it.
    pub bucket: Bucket,
    /// The rows as the view's table has them, sorted by window, then group.
    pub rows: RecordBatch,
    /// The same rows as partial aggregates.
    pub part: Part,
}

impl FinishedDate {
    /// Returns the memory held, in bytes.
    pub fn bytes(&self) -> usize {
        self.rows.get_array_memory_size() + self.part.bytes()
    }
}

/// Receives finished rows; blocks while too many wait to be written.
pub type Emit<'a> = &'a mut dyn FnMut(FinishedDate) -> Result<(), RunFailure>;

/// Returns the ids of the windows of a date. Windows without a date may have any.
pub fn windows_of_date(window: Window, date: DatePartition) -> Range<WindowId> {
    match date {
        DatePartition::Day(day) => window.ids_starting_in(day.start(), Day(day.0 + 1).start()),
        DatePartition::Undated | DatePartition::AllTime => WindowId::EVERY,
    }
}

/// Cuts the rows of a view into slices.
#[derive(Debug, Clone, Copy)]
pub struct Slices<'a> {
    pub view: &'a View,
    pub layout: &'a Arc<KeyLayout>,
    pub precision: Precision,
    /// Largest size of the states of one slice, in bytes.
    pub slice_bytes: usize,
}

impl Slices<'_> {
    /// Emits the rows of a window date that `parts` make, of the groups in `bucket`.
    pub fn finish<P: Borrow<Part>>(
        &self,
        date: DatePartition,
        parts: &[P],
        bucket: Bucket,
        emit: Emit<'_>,
    ) -> Result<(), RunFailure> {
        let ids = windows_of_date(self.view.window, date);
        let slices = self.bytes(parts, &ids).div_ceil(self.slice_bytes).max(1);
        for slice in bucket.split(slices as u64) {
            let finished = self.slice(date, parts, ids.clone(), slice)?;
            if finished.rows.num_rows() > 0 {
                emit(finished)?;
            }
        }
        Ok(())
    }

    /// Estimates the memory of the states of the windows in `ids`; too much where groups are in several parts.
    fn bytes<P: Borrow<Part>>(&self, parts: &[P], ids: &Range<WindowId>) -> usize {
        let window = self.view.window;
        let mut bytes = 0;
        for part in parts.iter().map(Borrow::borrow) {
            let rows = |block: &Block| -> usize {
                if !part.panes {
                    return block.windows.iter().filter(|id| ids.contains(id)).count();
                }
                let mut before = (WindowId::MIN, 0);
                let covering = |row: &WindowId| {
                    if before.0 != *row {
                        before = (*row, 0);
                        window.for_each_window(row.pane(), |id| before.1 += usize::from(ids.contains(&id)));
                    }
                    before.1
                };
                block.windows.iter().map(covering).sum()
            };
            let wanted: usize = part.blocks.iter().map(|block| rows(block)).sum();
            bytes += part.bytes() / part.rows().max(1) * wanted;
        }
        bytes
    }

    fn slice<P: Borrow<Part>>(
        &self,
        date: DatePartition,
        parts: &[P],
        windows: Range<WindowId>,
        bucket: Bucket,
    ) -> Result<FinishedDate, RunFailure> {
        let view = self.view;
        let dimensions: Vec<usize> = (0..view.dimensions.len()).collect();
        let (grain, precision) = (Grain::Window, self.precision);
        let spec = MergeSpec {
            view,
            windows,
            grain,
            precision,
            dimensions: &dimensions,
            horizon: Horizon::NONE,
            permitted: None,
            filter: None,
        };
        let parts: Vec<(&Part, Layers)> = parts.iter().map(|part| (part.borrow(), Layers::BATCH)).collect();
        let merged = merge_within(&spec, &parts, bucket)?;
        let mut order = merged.sorted_rows();
        if date == DatePartition::Undated {
            order.retain(|row| window_date(view.window, merged.windows[*row as usize]) == date);
        }
        if let Window::TableSession { .. } = view.window {
            // A time without rows takes part in nothing; each update of an event time leaves one.
            order.retain(|row| !merged.states[ROW_COUNT].is_zero(*row as usize));
        }
        let rows = encode(view, &merged.windows, &merged.lasts, merged.dimension_columns()?, &merged.states)?;
        drop(merged);
        let rows = take_record_batch(&rows, &UInt32Array::from(order))?;
        let part = decode(view, self.layout, std::slice::from_ref(&rows))?;
        Ok(FinishedDate { date, bucket, rows, part })
    }
}
