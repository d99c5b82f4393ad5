//! How do several parts become one table? By window and group, at any coarser grain and over any subset of dimensions.
//!
//! Keys are translated once per key, not once per row; rows are merged by column. The result depends neither on the
//! order of the parts nor on how events were split over them.

use std::sync::Arc;

use crate::evaluate::{EvaluateError, evaluate};
use crate::partial::block::{Block, Part};
use crate::partial::keys::{KeyIndex, KeyLayout, Keys};
use crate::partial::rows::{Place, Rows, Windows};
use crate::partial::states::{NO_GROUP, States};
use crate::scalar::Scalar;
use crate::view::{Precision, View};
use crate::window::ALL_TIME;
use arrow::array::{Array, ArrayRef, BooleanArray, RecordBatch, RecordBatchOptions};
use arrow::datatypes::{Field, Schema};
use arrow::error::ArrowError;

/// Which layers a merged row came from, as bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Layers(pub u8);

impl Layers {
    pub const BATCH: Layers = Layers(1);
    pub const SPEED: Layers = Layers(2);

    /// `batch`, `speed` or `merged`.
    pub fn name(self) -> &'static str {
        match self.0 {
            1 => "batch",
            2 => "speed",
            _ => "merged",
        }
    }
}

/// The windows of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Grain {
    /// Those of the view.
    Window,
    /// Coarser ones: `[k * size + offset, ..)`, in microseconds; a multiple of the view's windows.
    Every { size: i64, offset: i64 },
    /// One for all.
    All,
}

impl Grain {
    #[inline]
    fn start_of(self, window: i64) -> i64 {
        match self {
            Grain::Window => window,
            Grain::Every { size, offset } => window - (window - offset).rem_euclid(size),
            Grain::All => ALL_TIME.0,
        }
    }
}

/// What to merge.
#[derive(Debug)]
pub struct Spec<'a> {
    pub view: &'a View,
    /// Window starts in `from..to`, in microseconds.
    pub from: i64,
    pub to: i64,
    pub grain: Grain,
    /// Dimensions to keep, as indices into the view's.
    pub dimensions: &'a [usize],
    /// Over the view's dimensions; groups where it is not true are left out.
    pub filter: Option<&'a Scalar>,
}

/// One row per window and group.
#[derive(Debug)]
pub struct Merged {
    pub windows: Vec<i64>,
    /// Numbers into `keys`.
    pub groups: Vec<u32>,
    pub layout: Arc<KeyLayout>,
    pub keys: Keys,
    pub states: Vec<States>,
    pub layers: Vec<Layers>,
}

/// Why parts could not be merged.
#[derive(Debug, thiserror::Error)]
pub enum MergeError {
    #[error("the groups could not be decoded: {0}")]
    Keys(#[from] ArrowError),
    #[error("the filter could not be evaluated: {0}")]
    Filter(#[from] EvaluateError),
}

/// Merges parts of one view.
pub fn merge(spec: &Spec<'_>, parts: &[(&Part, Layers)]) -> Result<Merged, MergeError> {
    let whole_key = spec.dimensions.iter().copied().eq(0..spec.view.dimensions.len());
    let types = spec.dimensions.iter().map(|d| spec.view.dimensions[*d].expression.data_type).collect();
    let layout = Arc::new(KeyLayout::new(types)?);
    let mut index = KeyIndex::default();
    let mut extent = Extent::default();
    let mut touched = Vec::with_capacity(parts.len());
    for (part, layer) in parts {
        let candidates = extent.add(spec, part);
        if candidates > 0 {
            let ids = keys_in_use(spec, part, candidates);
            touched.push((part, *layer, translate(spec, part, &ids, whole_key, &layout, &mut index)?));
        }
    }
    let mut rows = Rows::new(extent.windows(spec), index.keys().len(), extent.rows);
    let mut states: Vec<States> = spec.view.aggregates.iter().map(|a| States::new(a, Precision::Sketch)).collect();
    let mut layers: Vec<Layers> = Vec::new();
    let mut targets: Vec<u32> = Vec::new();
    for (part, layer, translation) in touched {
        for block in &part.blocks {
            let candidates = block.candidates(spec.from, spec.to);
            number_rows(spec, block, candidates.clone(), &translation, &mut rows, &mut targets);
            let new_rows = rows.windows.len() - layers.len();
            layers.resize(rows.windows.len(), Layers::default());
            for target in targets.iter().filter(|t| **t != NO_GROUP) {
                layers[*target as usize].0 |= layer.0;
            }
            for (state, theirs) in states.iter_mut().zip(&block.states) {
                state.grow(new_rows);
                state.merge(&targets, theirs, candidates.start);
            }
        }
    }
    let Rows { windows, groups, .. } = rows;
    Ok(Merged { windows, groups, layout, keys: index.keys().clone(), states, layers })
}

/// Fills `targets` with the row of every candidate, or [`NO_GROUP`] where it is left out.
fn number_rows(
    spec: &Spec<'_>,
    block: &Block,
    candidates: std::ops::Range<usize>,
    translation: &[u32],
    rows: &mut Rows,
    targets: &mut Vec<u32>,
) {
    targets.clear();
    targets.reserve(candidates.len());
    // Neighbours mostly share their window; outside the range it has no place.
    let mut before: Option<(i64, Option<Place>)> = None;
    for (&window, &key) in block.windows[candidates.clone()].iter().zip(&block.keys[candidates]) {
        let place = match before {
            Some((same, place)) if same == window => place,
            _ => {
                let inside = window >= spec.from && window < spec.to;
                let place = inside.then(|| rows.place(spec.grain.start_of(window)));
                before = Some((window, place));
                place
            }
        };
        let key = translation[key as usize];
        targets.push(match place {
            Some(place) if key != NO_GROUP => rows.row_of(place, key),
            _ => NO_GROUP,
        });
    }
}

impl Merged {
    /// Number of rows.
    pub fn len(&self) -> usize {
        self.windows.len()
    }

    /// Are there no rows?
    pub fn is_empty(&self) -> bool {
        self.windows.is_empty()
    }

    /// Row numbers in the order of window, then dimensions (NULL first).
    pub fn sorted_rows(&self) -> Vec<u32> {
        let mut order: Vec<u32> = (0..self.len() as u32).collect();
        let by = |row: &u32| (self.windows[*row as usize], self.keys.get(self.groups[*row as usize]));
        order.sort_unstable_by(|a, b| by(a).cmp(&by(b)));
        order
    }

    /// The kept dimensions, one column each, in row order.
    pub fn dimension_columns(&self) -> Result<Vec<ArrayRef>, ArrowError> {
        self.layout.decode(self.groups.iter().map(|key| self.keys.get(*key)))
    }
}

/// The rows to look at: how many, and between which windows.
struct Extent {
    rows: usize,
    first: i64,
    last: i64,
}

impl Default for Extent {
    fn default() -> Extent {
        Extent { rows: 0, first: i64::MAX, last: i64::MIN }
    }
}

impl Extent {
    /// Takes in the rows of `part` that may be in the range, and says how many they are.
    fn add(&mut self, spec: &Spec<'_>, part: &Part) -> usize {
        let before = self.rows;
        for block in &part.blocks {
            let candidates = block.candidates(spec.from, spec.to).len();
            if candidates > 0 {
                self.rows += candidates;
                self.first = self.first.min(block.window_range.0.max(spec.from));
                self.last = self.last.max(block.window_range.1.min(spec.to.saturating_sub(1)));
            }
        }
        self.rows - before
    }

    fn windows(&self, spec: &Spec<'_>) -> Windows {
        let size = match spec.grain {
            Grain::Window => spec.view.window.size(),
            Grain::Every { size, .. } => Some(size),
            Grain::All => None,
        };
        if self.rows == 0 || size.is_none() {
            return Windows { first: ALL_TIME.0, last: ALL_TIME.0, size: None };
        }
        Windows { first: spec.grain.start_of(self.first), last: spec.grain.start_of(self.last), size }
    }
}

/// The keys that candidates have: all of them, unless the candidates are fewer than the keys.
fn keys_in_use(spec: &Spec<'_>, part: &Part, candidates: usize) -> Vec<u32> {
    let all = 0..part.keys.len() as u32;
    if candidates >= part.keys.len() {
        return all.collect();
    }
    let mut used = vec![false; part.keys.len()];
    for block in &part.blocks {
        block.keys[block.candidates(spec.from, spec.to)].iter().for_each(|key| used[*key as usize] = true);
    }
    all.filter(|key| used[*key as usize]).collect()
}

/// For every key of `part` its number in `index`; [`NO_GROUP`] where the filter is not true, and for keys not in `ids`.
fn translate(
    spec: &Spec<'_>,
    part: &Part,
    ids: &[u32],
    whole_key: bool,
    layout: &KeyLayout,
    index: &mut KeyIndex,
) -> Result<Vec<u32>, MergeError> {
    let mut translation = vec![NO_GROUP; part.keys.len()];
    let mut keep: Option<BooleanArray> = None;
    let mut encoded: Option<arrow::row::Rows> = None;
    let subset = !whole_key && !spec.dimensions.is_empty();
    if subset || spec.filter.is_some() {
        let columns = part.layout.decode(ids.iter().map(|id| part.keys.get(*id)))?;
        keep = spec.filter.map(|filter| mask(spec.view, &columns, filter, ids.len())).transpose()?;
        let kept: Vec<ArrayRef> = spec.dimensions.iter().map(|d| Arc::clone(&columns[*d])).collect();
        encoded = subset.then(|| layout.encode(&kept)).transpose()?;
    }
    for (at, id) in ids.iter().enumerate() {
        if keep.as_ref().is_some_and(|mask| !(mask.is_valid(at) && mask.value(at))) {
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

fn mask(view: &View, columns: &[ArrayRef], filter: &Scalar, rows: usize) -> Result<BooleanArray, MergeError> {
    let fields: Vec<Field> =
        view.dimensions.iter().map(|d| Field::new(&d.name, d.expression.data_type.arrow(), true)).collect();
    let options = RecordBatchOptions::new().with_row_count(Some(rows));
    let batch = RecordBatch::try_new_with_options(Arc::new(Schema::new(fields)), columns.to_vec(), &options)?;
    let column = evaluate(&[filter], &batch)?.remove(0);
    Ok(BooleanArray::from(column.to_data()))
}

#[cfg(test)]
mod tests;
