//! How do several parts become one table? By window and group, at any coarser grain and over any subset of dimensions.
//!
//! Keys are translated once per key, not once per row; rows are merged by column. The result depends neither on the
//! order of the parts nor on how events were split over them.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, BooleanArray, RecordBatch, RecordBatchOptions};
use arrow::datatypes::{Field, Schema};
use arrow::error::ArrowError;
use hashbrown::HashTable;

use crate::evaluate::{EvaluateError, evaluate};
use crate::partial::block::Part;
use crate::partial::keys::{KeyIndex, KeyLayout, Keys};
use crate::partial::states::{NO_GROUP, States};
use crate::scalar::Scalar;
use crate::view::View;
use crate::window::ALL_TIME;

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
    let mut rows = RowIndex { table: HashTable::new(), windows: Vec::new(), groups: Vec::new() };
    let mut states: Vec<States> = spec.view.aggregates.iter().map(States::new).collect();
    let mut layers: Vec<Layers> = Vec::new();
    let mut targets: Vec<u32> = Vec::new();
    for (part, layer) in parts {
        let translation = translate(spec, part, whole_key, &layout, &mut index)?;
        for block in &part.blocks {
            let candidates = block.candidates(spec.from, spec.to);
            if candidates.is_empty() {
                continue;
            }
            targets.clear();
            for row in candidates.clone() {
                let window = block.windows[row];
                let key = translation[block.keys[row] as usize];
                let outside = window < spec.from || window >= spec.to || key == NO_GROUP;
                targets.push(if outside { NO_GROUP } else { rows.row_of(spec.grain, window, key) });
            }
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
    let RowIndex { windows, groups, .. } = rows;
    Ok(Merged { windows, groups, layout, keys: index.keys().clone(), states, layers })
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

/// Numbers the rows of the result by (window, key).
struct RowIndex {
    table: HashTable<u32>,
    windows: Vec<i64>,
    groups: Vec<u32>,
}

impl RowIndex {
    #[inline]
    fn row_of(&mut self, grain: Grain, window: i64, key: u32) -> u32 {
        let window = grain.start_of(window);
        let hash = |window: i64, key: u32| {
            let x = u128::from((window as u64) ^ (u64::from(key) << 32).rotate_left(13)) * 0x9e37_79b9_7f4a_7c15;
            (x as u64) ^ ((x >> 64) as u64)
        };
        let (windows, groups) = (&self.windows, &self.groups);
        let same = |row: &u32| windows[*row as usize] == window && groups[*row as usize] == key;
        if let Some(row) = self.table.find(hash(window, key), same) {
            return *row;
        }
        let row = self.windows.len() as u32;
        let rehash = |row: &u32| hash(windows[*row as usize], groups[*row as usize]);
        self.table.insert_unique(hash(window, key), row, rehash);
        self.windows.push(window);
        self.groups.push(key);
        row
    }
}

/// For every key of `part` its number in `index`, or [`NO_GROUP`] where the filter is not true.
fn translate(
    spec: &Spec<'_>,
    part: &Part,
    whole_key: bool,
    layout: &KeyLayout,
    index: &mut KeyIndex,
) -> Result<Vec<u32>, MergeError> {
    if whole_key && spec.filter.is_none() {
        return Ok(part.keys.iter().map(|key| index.id_of(key)).collect());
    }
    if spec.dimensions.is_empty() && spec.filter.is_none() {
        return Ok(vec![index.id_of(&[]); part.keys.len()]);
    }
    let columns = part.layout.decode(part.keys.iter())?;
    let keep = match spec.filter {
        Some(filter) => Some(mask(spec.view, &columns, filter, part.keys.len())?),
        None => None,
    };
    let kept: Vec<ArrayRef> = spec.dimensions.iter().map(|d| Arc::clone(&columns[*d])).collect();
    let encoded = if whole_key || kept.is_empty() { None } else { Some(layout.encode(&kept)?) };
    let translated = (0..part.keys.len()).map(|key| {
        let left_out = keep.as_ref().is_some_and(|mask| !(mask.is_valid(key) && mask.value(key)));
        match &encoded {
            _ if left_out => NO_GROUP,
            Some(encoded) => index.id_of(encoded.row(key).as_ref()),
            None if whole_key => index.id_of(part.keys.get(key as u32)),
            None => index.id_of(&[]),
        }
    });
    Ok(translated.collect())
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
