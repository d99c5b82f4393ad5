//! Merges parts into one table by window and group, at any coarser grain and over any subset of dimensions.
//!
//! A query over parts P(1) .. P(n) is, for each window w of the grain and each group g of the chosen dimensions,
//!
//! ```text
//! result(w, g) = ⊕ { s : (v, k, s) in P(1) ∪ .. ∪ P(n), v within w, k projects to g }
//! ```
//!
//! with the merge ⊕ of states, which is associative and commutative. So the result does not depend on the order of parts, on
//! how events were split over them, or on whether some of them were merged before ([`merge_onto`]). Keys are translated once
//! per key, not once per row; rows are merged by column. Rows of tables are joined to sessions after merging (`table_sessions`).

mod table_sessions;
mod targets;

use std::ops::Range;
use std::sync::Arc;

use crate::evaluate::EvaluateError;
use crate::evaluate::pieces::{evaluate_or_null, evaluate_within};
use crate::horizon::Horizon;
use crate::partial::block::{Block, Part};
use crate::partial::bucket::Bucket;
use crate::partial::keys::{KeyIndex, KeyLayout, Keys};
pub use crate::partial::layers::Layers;
use crate::partial::query_budget::{Exceeded, QueryBudget};
use crate::partial::rows::{RowIndex, Spacing, WindowSpan};
use crate::partial::sessions::{SessionPiece, stitch};
use crate::partial::states::{NO_GROUP, States};
use crate::scalar::Scalar;
use crate::time::Micros;
use crate::view::{Precision, View};
use crate::window::{Grid, Window, WindowId};
use arrow::array::{Array, ArrayRef, BooleanArray, RecordBatch, RecordBatchOptions};
use arrow::compute::filter_record_batch;
use arrow::datatypes::{Field, Schema};
use arrow::error::ArrowError;
use targets::Targets;

/// The windows of a result.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Grain {
    /// The windows of the view; of sessions over a table their panes, the event times.
    Window,
    /// The sessions over a table.
    Sessions,
    /// Coarser windows, each of which consists of whole windows of the view.
    Every(Grid),
    /// One window over all time.
    All,
}

impl<'a> MergeSpec<'a> {
    /// Returns the spec of all windows of `view` with the given dimensions, as they are.
    pub fn whole(view: &'a View, dimensions: &'a [usize], precision: Precision) -> MergeSpec<'a> {
        let (windows, grain) = (WindowId::EVERY, Grain::Window);
        MergeSpec { view, windows, grain, precision, dimensions, horizon: Horizon::NONE, permitted: None, filter: None }
    }

    /// Returns the spec of the rows that sessions over a table are joined from: any of them may belong to one in the range.
    fn of_rows(&self) -> MergeSpec<'a> {
        MergeSpec { windows: WindowId::EVERY, grain: Grain::Window, ..*self }
    }

    /// Returns the id of the first window that the speed layer contributes to; `None`: it contributes to all.
    fn first_speed_id(&self) -> Option<WindowId> {
        self.horizon.first_speed_id(self.view.window)
    }

    /// The first window that rows of `layer` may go to.
    fn first_of(&self, layer: Layers) -> WindowId {
        match self.first_speed_id().filter(|_| layer == Layers::SPEED) {
            Some(first) => self.windows.start.max(first),
            None => self.windows.start,
        }
    }
}

impl Grain {
    /// The window of this grain that a window of the view belongs to.
    #[inline]
    fn start_of(self, window: WindowId) -> WindowId {
        match self {
            Grain::Window | Grain::Sessions => window,
            Grain::Every(grid) => WindowId(grid.start_of(window.0)),
            Grain::All => WindowId::ALL_TIME,
        }
    }

    /// Returns whether the view's window with this id reaches over the edge of a window of this grain.
    fn is_crossed(self, view: &View, window: WindowId) -> bool {
        match (self, view.window.bounds(window).1) {
            (Grain::Every(grid), Some(end)) => grid.end_of(window.0) < end.0,
            _ => false,
        }
    }
}

/// The rows to merge, and the windows and groups to merge them into.
#[derive(Debug)]
pub struct MergeSpec<'a> {
    pub view: &'a View,
    /// The windows to merge; of SLIDE the panes.
    pub windows: Range<WindowId>,
    pub grain: Grain,
    /// Precision of the merged states.
    pub precision: Precision,
    /// Dimensions to keep, as indices into the view's.
    pub dimensions: &'a [usize],
    /// For frozen windows the rows of the speed layer are excluded.
    pub horizon: Horizon,
    /// Over the view's dimensions: the groups that the client may read. Other groups have no effect on the result, and none
    /// on whether `filter` can be evaluated.
    pub permitted: Option<&'a Scalar>,
    /// Over the view's dimensions; groups for which it is not true are excluded.
    pub filter: Option<&'a Scalar>,
}

/// One row per window and group.
#[derive(Debug)]
pub struct Merged {
    pub windows: Vec<WindowId>,
    /// Of sessions the time of the last event; empty for all other views.
    pub lasts: Vec<i64>,
    /// Numbers into `keys`.
    pub groups: Vec<u32>,
    pub layout: Arc<KeyLayout>,
    pub keys: Keys,
    pub states: Vec<States>,
    pub layers: Vec<Layers>,
}

/// The reason why parts could not be merged.
#[derive(Debug, thiserror::Error)]
pub enum MergeError {
    #[error("the groups could not be decoded: {0}")]
    Keys(#[from] ArrowError),
    #[error("the filter could not be evaluated: {0}")]
    Filter(#[from] EvaluateError),
    /// Seen only in the data: the offsets of time zones have not always been whole hours.
    #[error("the view's window that starts at {0} reaches over the edge of a window of the grain")]
    Crossed(Micros),
    #[error(transparent)]
    Exceeded(#[from] Exceeded),
}

/// A partially merged query, reused as the base for further merges.
#[derive(Debug)]
pub struct MergeBase {
    index: KeyIndex,
    table: Table,
}

impl MergeBase {
    /// RowIndex of it.
    pub fn rows(&self) -> usize {
        self.table.layers.len()
    }

    /// Memory held, in bytes.
    pub fn bytes(&self) -> usize {
        self.index.bytes() + self.table.bytes()
    }
}

/// Merges the parts that stay the same, for [`merge_onto`] with the same `spec`. Not for sessions, which can be joined only
/// when all parts are present.
pub fn merge_base(
    spec: &MergeSpec<'_>,
    parts: &[(&Part, Layers)],
    allowance: &QueryBudget,
) -> Result<MergeBase, MergeError> {
    let (table, index, _) = merged(spec, None, parts, Bucket::ALL, allowance)?;
    Ok(MergeBase { index, table })
}

/// Merges parts of one view into what has `base`.
pub fn merge_onto(
    spec: &MergeSpec<'_>,
    base: Option<&MergeBase>,
    parts: &[(&Part, Layers)],
    allowance: &QueryBudget,
) -> Result<Merged, MergeError> {
    Ok(Merged::of(merged(spec, base, parts, Bucket::ALL, allowance)?))
}

/// Merges parts of one view.
pub fn merge(spec: &MergeSpec<'_>, parts: &[(&Part, Layers)]) -> Result<Merged, MergeError> {
    merge_within(spec, parts, Bucket::ALL)
}

/// Merges those groups of parts of one view that are in `bucket` by the whole key of the view.
pub fn merge_within(spec: &MergeSpec<'_>, parts: &[(&Part, Layers)], bucket: Bucket) -> Result<Merged, MergeError> {
    Ok(Merged::of(merged(spec, None, parts, bucket, &QueryBudget::unlimited())?))
}

fn merged(
    spec: &MergeSpec<'_>,
    base: Option<&MergeBase>,
    parts: &[(&Part, Layers)],
    bucket: Bucket,
    allowance: &QueryBudget,
) -> Result<(Table, KeyIndex, Arc<KeyLayout>), MergeError> {
    if let (Grain::Sessions, Window::TableSession { gap }) = (spec.grain, spec.view.window) {
        let (rows, index, layout) = merged(&spec.of_rows(), base, parts, bucket, allowance)?;
        let sessions = rows.joined(spec, gap);
        allowance.check(index.bytes() + rows.bytes() + sessions.bytes())?;
        return Ok((sessions, index, layout));
    }
    let whole_key = spec.dimensions.iter().copied().eq(0..spec.view.dimensions.len());
    let types = spec.dimensions.iter().map(|d| spec.view.dimensions[*d].expression.data_type).collect();
    let layout = Arc::new(KeyLayout::new(types)?);
    let mut index = base.map_or_else(KeyIndex::default, |base| base.index.clone());
    let mut extent = Candidates::default();
    if let Some(base) = base {
        extent.add_base(&base.table);
    }
    let mut touched = Vec::with_capacity(parts.len());
    for (part, layer) in parts {
        let candidates = extent.add(spec, part);
        if candidates > 0 {
            let mut ids = keys_in_use(spec, part, candidates);
            ids.retain(|id| bucket.holds(part.keys.get(*id)));
            touched.push((*part, *layer, translate(spec, part, &ids, (whole_key, &layout), &mut index, allowance)?));
            allowance.check(index.bytes())?;
        }
    }
    let mut table = base.map_or_else(|| Table::empty(spec), |base| base.table.clone());
    if let Window::Session { gap } = spec.view.window {
        table.sessions(spec, gap, &touched);
        allowance.check(index.bytes() + table.bytes())?;
    } else {
        let mut rows = RowIndex::new(extent.windows(spec), index.keys().len(), extent.rows);
        for (window, group) in table.windows.iter().zip(&table.groups) {
            rows.row_of(rows.place(*window), *group);
        }
        let mut targets = Targets::default();
        let mut measured_rows = 0;
        for (part, layer, translation) in &touched {
            for block in &part.blocks {
                let candidates = candidates(spec, part, block);
                let from = spec.first_of(*layer);
                targets.fill((spec, from), part.panes, block, candidates.clone(), translation, &mut rows)?;
                table.layers.resize(rows.windows.len(), Layers::default());
                for targets in &targets.rounds {
                    table.add(targets, *layer, block, candidates.start);
                }
                // Measuring sketches visits each of them, so it is done only after notable growth.
                let has_grown = table.layers.len() > measured_rows + measured_rows / 4;
                let bytes = if has_grown { index.bytes() + table.bytes() } else { 0 };
                measured_rows = if has_grown { table.layers.len() } else { measured_rows };
                allowance.check(bytes)?;
            }
        }
        (table.windows, table.groups) = (rows.windows, rows.groups);
    }
    Ok((table, index, layout))
}

/// A merged table while it grows.
#[derive(Debug, Clone, Default)]
struct Table {
    windows: Vec<WindowId>,
    lasts: Vec<i64>,
    groups: Vec<u32>,
    states: Vec<States>,
    layers: Vec<Layers>,
}

impl Table {
    fn empty(spec: &MergeSpec<'_>) -> Table {
        let states = spec.view.aggregates.iter().map(|aggregate| States::new(aggregate, spec.precision)).collect();
        Table { states, ..Table::default() }
    }

    fn bytes(&self) -> usize {
        let states: usize = self.states.iter().map(States::bytes).sum();
        states + (self.windows.capacity() + self.lasts.capacity()) * 8 + self.groups.capacity() * 4 + self.layers.len()
    }

    /// Merges the rows of `block` from `first` on into the rows `targets`.
    fn add(&mut self, targets: &[u32], layer: Layers, block: &Block, first: usize) {
        for target in targets.iter().filter(|target| **target != NO_GROUP) {
            self.layers[*target as usize].0 |= layer.0;
        }
        for (state, theirs) in self.states.iter_mut().zip(&block.states) {
            state.grow(self.layers.len() - state.len());
            state.merge(targets, theirs, first);
        }
    }

    /// Stitches the sessions of all parts; those that start in the range are rows.
    fn sessions(&mut self, spec: &MergeSpec<'_>, gap: i64, parts: &[(&Part, Layers, Vec<u32>)]) {
        let blocks = || parts.iter().flat_map(|(part, layer, keys)| part.blocks.iter().map(move |b| (b, *layer, keys)));
        let first_speed_id = spec.first_speed_id();
        let mut pieces = Vec::new();
        let mut place = 0;
        for (block, layer, translation) in blocks() {
            let first_shown = first_speed_id.filter(|_| layer == Layers::SPEED);
            let rows = block.windows.iter().zip(&block.lasts).zip(&block.keys);
            for ((first, last), key) in rows {
                // A session that has become part of another has lost its key.
                let key = if *key == NO_GROUP { NO_GROUP } else { translation[*key as usize] };
                if key != NO_GROUP && first_shown.is_none_or(|shown| *first >= shown) {
                    pieces.push(SessionPiece { key, first: first.0, last: *last, place });
                }
                place += 1;
            }
        }
        let mut targets = vec![NO_GROUP; place as usize];
        stitch(&mut pieces, gap, |pieces, first, last| {
            let id = WindowId(first);
            if spec.windows.contains(&id) {
                let row = self.windows.len() as u32;
                self.windows.push(id);
                self.lasts.push(last);
                self.groups.push(pieces[0].key);
                pieces.iter().for_each(|piece| targets[piece.place as usize] = row);
            }
        });
        self.layers.resize(self.windows.len(), Layers::default());
        let mut begin = 0;
        for (block, layer, _) in blocks() {
            self.add(&targets[begin..begin + block.len()], layer, block, 0);
            begin += block.len();
        }
    }
}

/// Returns the ids, or the panes, that rows of `part` have whose windows are in the range.
fn rows_of(spec: &MergeSpec<'_>, part: &Part) -> Range<WindowId> {
    if !part.panes {
        return spec.windows.clone();
    }
    let panes = spec.view.window.panes_of(&spec.windows);
    panes.start.window()..panes.end.window()
}

/// The rows of `block` that may have a part in the range.
fn candidates(spec: &MergeSpec<'_>, part: &Part, block: &Block) -> Range<usize> {
    match spec.view.window {
        // A row outside the range may belong to a session that starts inside.
        Window::Session { .. } => 0..block.len(),
        _ => block.candidates(&rows_of(spec, part)),
    }
}

impl Merged {
    fn of((table, index, layout): (Table, KeyIndex, Arc<KeyLayout>)) -> Merged {
        let Table { windows, lasts, groups, states, layers } = table;
        Merged { windows, lasts, groups, layout, keys: index.into_keys(), states, layers }
    }

    /// Returns the number of rows.
    pub fn len(&self) -> usize {
        self.windows.len()
    }

    /// Returns whether there are no rows.
    pub fn is_empty(&self) -> bool {
        self.windows.is_empty()
    }

    /// Memory held, in bytes.
    pub fn bytes(&self) -> usize {
        let states: usize = self.states.iter().map(States::bytes).sum();
        let windows = (self.windows.capacity() + self.lasts.capacity()) * 8;
        states + windows + self.groups.capacity() * 4 + self.layers.len() + self.keys.bytes()
    }

    /// Returns row numbers in the order of window, then dimensions (NULL first).
    pub fn sorted_rows(&self) -> Vec<u32> {
        let mut order: Vec<u32> = (0..self.len() as u32).collect();
        let by = |row: &u32| (self.windows[*row as usize], self.keys.get(self.groups[*row as usize]));
        order.sort_unstable_by(|a, b| by(a).cmp(&by(b)));
        order
    }

    /// Returns the kept dimensions, one column each, in row order.
    pub fn dimension_columns(&self) -> Result<Vec<ArrayRef>, ArrowError> {
        self.layout.decode(self.groups.iter().map(|key| self.keys.get(*key)))
    }
}

/// The candidates for merging: their number, and their first and last window.
struct Candidates {
    rows: usize,
    first: WindowId,
    last: WindowId,
}

impl Default for Candidates {
    fn default() -> Candidates {
        Candidates { rows: 0, first: WindowId::MAX, last: WindowId::MIN }
    }
}

impl Candidates {
    /// Adds the rows of `part` that may be in the range, and returns their number.
    fn add(&mut self, spec: &MergeSpec<'_>, part: &Part) -> usize {
        let before = self.rows;
        let range = rows_of(spec, part);
        for block in &part.blocks {
            let candidates = candidates(spec, part, block).len();
            if candidates > 0 {
                self.rows += candidates;
                self.first = self.first.min(block.window_range.0.max(range.start));
                self.last = self.last.max(block.window_range.1.min(WindowId(range.end.0.saturating_sub(1))));
            }
        }
        self.rows - before
    }

    /// Adds the rows of a base.
    fn add_base(&mut self, table: &Table) {
        self.rows += table.windows.len();
        self.first = table.windows.iter().copied().fold(self.first, WindowId::min);
        self.last = table.windows.iter().copied().fold(self.last, WindowId::max);
    }

    fn windows(&self, spec: &MergeSpec<'_>) -> WindowSpan {
        let spacing = match (spec.grain, spec.view.window) {
            (Grain::All, _) | (_, Window::All) => Spacing::Single,
            (Grain::Every(grid), _) | (Grain::Window, Window::Tumble(grid)) => even(grid),
            (Grain::Window | Grain::Sessions, _) => Spacing::Uneven,
        };
        if self.rows == 0 || matches!(spacing, Spacing::Single) {
            return WindowSpan { first: WindowId::ALL_TIME, last: WindowId::ALL_TIME, spacing: Spacing::Single };
        }
        WindowSpan { first: spec.grain.start_of(self.first), last: spec.grain.start_of(self.last), spacing }
    }
}

fn even(grid: Grid) -> Spacing {
    grid.fixed_size().map_or(Spacing::Uneven, Spacing::Even)
}

/// The keys that candidates have: all of them, unless the candidates are fewer than the keys.
fn keys_in_use(spec: &MergeSpec<'_>, part: &Part, candidates: usize) -> Vec<u32> {
    let all = 0..part.keys.len() as u32;
    if candidates >= part.keys.len() {
        return all.collect();
    }
    let mut used = vec![false; part.keys.len()];
    for block in &part.blocks {
        let keys = block.keys[self::candidates(spec, part, block)].iter().filter(|key| **key != NO_GROUP);
        keys.for_each(|key| used[*key as usize] = true);
    }
    all.filter(|key| used[*key as usize]).collect()
}

/// For every key of `part` its number in `index`; [`NO_GROUP`] where the filters are not true, and for keys not in `ids`.
fn translate(
    spec: &MergeSpec<'_>,
    part: &Part,
    ids: &[u32],
    (whole_key, layout): (bool, &KeyLayout),
    index: &mut KeyIndex,
    allowance: &QueryBudget,
) -> Result<Vec<u32>, MergeError> {
    let mut translation = vec![NO_GROUP; part.keys.len()];
    let mut keep: Option<Vec<bool>> = None;
    let mut encoded: Option<arrow::row::Rows> = None;
    let subset = !whole_key && !spec.dimensions.is_empty();
    if subset || spec.filter.is_some() || spec.permitted.is_some() {
        let columns = part.layout.decode(ids.iter().map(|id| part.keys.get(*id)))?;
        let held_bytes = index.bytes();
        keep = kept_groups(spec, &columns, ids.len(), allowance, held_bytes)?;
        let kept: Vec<ArrayRef> = spec.dimensions.iter().map(|d| Arc::clone(&columns[*d])).collect();
        encoded = subset.then(|| layout.encode(&kept)).transpose()?;
    }
    for (at, id) in ids.iter().enumerate() {
        if keep.as_ref().is_some_and(|keep| !keep[at]) {
            continue;
        }
        translation[*id as usize] = match &encoded {
            Some(encoded) => index.id_of(encoded.row(at).as_ref()),
            None if whole_key => index.id_of(part.keys.get(*id)),
            None => index.id_of(&[]),
        };
    }
    Ok(translation)
}

/// Returns which of `rows` groups, whose dimensions are `columns`, pass both filters; `None`: there are no filters.
fn kept_groups(
    spec: &MergeSpec<'_>,
    columns: &[ArrayRef],
    rows: usize,
    allowance: &QueryBudget,
    held_bytes: usize,
) -> Result<Option<Vec<bool>>, MergeError> {
    if spec.permitted.is_none() && spec.filter.is_none() {
        return Ok(None);
    }
    let dimensions = spec.view.dimensions.iter();
    let fields: Vec<Field> = dimensions.map(|d| Field::new(&d.name, d.expression.data_type.arrow(), true)).collect();
    let options = RecordBatchOptions::new().with_row_count(Some(rows));
    let mut groups = RecordBatch::try_new_with_options(Arc::new(Schema::new(fields)), columns.to_vec(), &options)?;
    let mut kept: Vec<usize> = (0..rows).collect();
    let is_true = |mask: &BooleanArray, row: usize| mask.is_valid(row) && mask.value(row);
    if let Some(permitted) = spec.permitted {
        // A group for which it cannot be evaluated is not permitted; the failure must not be seen from outside.
        let column = evaluate_or_null(&[permitted], &groups, allowance, held_bytes)?.remove(0).column;
        let mask = BooleanArray::from(column.to_data());
        groups = filter_record_batch(&groups, &mask)?;
        kept.retain(|row| is_true(&mask, *row));
    }
    if let Some(filter) = spec.filter {
        let mask = BooleanArray::from(evaluate_within(&[filter], &groups, allowance, held_bytes)?.remove(0).to_data());
        let mut row = 0..;
        kept.retain(|_| row.next().is_some_and(|row| is_true(&mask, row)));
    }
    let mut keep = vec![false; rows];
    kept.into_iter().for_each(|row| keep[row] = true);
    Ok(Some(keep))
}

#[cfg(test)]
mod tests;
