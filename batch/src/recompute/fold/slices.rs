//! How do states become the rows of a window date? Merged, finished and sorted; in slices where all at once would take too
//! much memory. A slice is a bucket of the groups, and becomes a file of its own.

use std::sync::Arc;

use arrow::array::{RecordBatch, UInt32Array};
use arrow::compute::take_record_batch;
use lake::is_readable;
use shared::partial::block::{Block, Part};
use shared::partial::bucket::Bucket;
use shared::partial::codec::{decode, encode};
use shared::partial::keys::KeyLayout;
use shared::partial::merge::{Grain, Layers, Spec, merge_within};
use shared::time::{Day, Micros};
use shared::view::{Precision, View};
use shared::window::Window;

use crate::failure::RunFailure;

/// Finished rows of one window date.
#[derive(Debug)]
pub struct FinishedDate {
    pub date: Option<Day>,
    /// The groups that are in it.
    pub bucket: Bucket,
    /// As the view's table has them, sorted by window, then group.
    pub rows: RecordBatch,
    /// The same as partial aggregates.
    pub part: Part,
}

impl FinishedDate {
    /// Memory held, in bytes.
    pub fn bytes(&self) -> usize {
        self.rows.get_array_memory_size() + self.part.bytes()
    }
}

/// Takes finished rows as they come; blocks while too many wait to be written.
pub type Emit<'a> = &'a mut dyn FnMut(FinishedDate) -> Result<(), RunFailure>;

/// What is cut into slices.
#[derive(Debug, Clone, Copy)]
pub struct Slicing<'a> {
    pub view: &'a View,
    pub layout: &'a Arc<KeyLayout>,
    /// States of one slice, in bytes.
    pub slice_bytes: usize,
}

impl Slicing<'_> {
    /// The rows that `parts` make of a window date, of the groups in `bucket`.
    pub fn finish(&self, date: Option<Day>, parts: &[Part], bucket: Bucket, emit: Emit<'_>) -> Result<(), RunFailure> {
        let (from, to) = ids_of(self.view.window, date);
        let slices = self.bytes(parts, from, to).div_ceil(self.slice_bytes).max(1);
        for slice in bucket.split(slices as u64) {
            let finished = self.slice(date, parts, (from, to), slice)?;
            if finished.rows.num_rows() > 0 {
                emit(finished)?;
            }
        }
        Ok(())
    }

    /// Memory of the states of the windows `from..to`: an estimate, from above where groups are in several parts.
    fn bytes(&self, parts: &[Part], from: i64, to: i64) -> usize {
        let window = self.view.window;
        let mut bytes = 0;
        for part in parts {
            let rows = |block: &Block| -> usize {
                if !part.panes {
                    return block.windows.iter().filter(|id| **id >= from && **id < to).count();
                }
                let mut before = (i64::MIN, 0);
                let covering = |pane: &i64| {
                    if before.0 != *pane {
                        before = (*pane, 0);
                        window.for_each_window(*pane, |id| before.1 += usize::from(id >= from && id < to));
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

    fn slice(
        &self,
        date: Option<Day>,
        parts: &[Part],
        (from, to): (i64, i64),
        bucket: Bucket,
    ) -> Result<FinishedDate, RunFailure> {
        let view = self.view;
        let dimensions: Vec<usize> = (0..view.dimensions.len()).collect();
        let (grain, precision) = (Grain::Window, Precision::Exact);
        let spec =
            Spec { view, from, to, grain, precision, dimensions: &dimensions, speed_from: i64::MIN, filter: None };
        let parts: Vec<(&Part, Layers)> = parts.iter().map(|part| (part, Layers::BATCH)).collect();
        let merged = merge_within(&spec, &parts, bucket)?;
        let mut order = merged.sorted_rows();
        if date.is_none() && view.window != Window::All {
            let is_nameless =
                |row: &u32| !is_readable(Micros(view.window.bounds(merged.windows[*row as usize]).0).day());
            order.retain(is_nameless);
        }
        let rows = encode(view, &merged.windows, &merged.lasts, merged.dimension_columns()?, &merged.states)?;
        drop(merged);
        let rows = take_record_batch(&rows, &UInt32Array::from(order))?;
        let part = decode(view, self.layout, std::slice::from_ref(&rows))?;
        Ok(FinishedDate { date, bucket, rows, part })
    }
}

/// The ids of the windows of a date, half-open. Windows of no date may have any.
pub fn ids_of(window: Window, date: Option<Day>) -> (i64, i64) {
    match date {
        Some(day) => window.ids_starting_in(day.start().0, Day(day.0 + 1).start().0),
        None => (i64::MIN, i64::MAX),
    }
}
