//! Evaluates the conditions of alerts over fetched rows, and describes the rows that satisfy one.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, TimestampMicrosecondArray, UInt32Array, new_null_array};
use arrow::compute::kernels::zip::zip;
use arrow::compute::{is_not_null, take};
use serde_json::{Map, Value};
use shared::alert::{AlertColumn, KeyColumn, key_columns};
use shared::control::AlertFigure;
use shared::evaluate::pieces::evaluate_or_null;
use shared::json_cell::json_cell;
use shared::partial::finish::MeasureColumn;
use shared::partial::query_budget::QueryBudget;
use shared::scalar::Scalar;
use shared::time::Micros;
use shared::view::View;
use shared::window::{Window, WindowId};
use xxhash_rust::xxh3::xxh3_128;

use crate::affected::{AffectedRows, previous};
use crate::fetch::FetchedRows;
use crate::finished::{FinishError, FinishedRows, is_true, table};
use crate::rule::Rule;

/// A row that satisfies the condition of an alert.
#[derive(Debug, Clone)]
pub struct Match {
    /// The id of the record.
    pub id: String,
    pub key: Map<String, Value>,
    pub row: Map<String, Value>,
    pub figures: std::collections::BTreeMap<String, AlertFigure>,
    pub finality: &'static str,
    pub place: RowPlace,
}

/// Where a row is found again.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct RowPlace {
    /// The encoded dimensions, in hexadecimal.
    pub key: String,
    /// The id of the window; of a trailing window 0.
    pub window: i64,
    /// The end of the trailing window.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instant: Option<i64>,
}

/// The table that conditions read, and the rows that may raise.
pub struct ConditionTable<'a> {
    view: &'a View,
    rows: &'a FetchedRows,
    measures: Vec<MeasureColumn>,
    columns: Vec<AlertColumn>,
    bounds: Vec<(Option<i64>, Option<i64>)>,
    dimensions: Vec<ArrayRef>,
    /// The row of the same group in the window before.
    previous: Option<UInt32Array>,
    /// Rows that are affected and that a query would show.
    candidates: Vec<u32>,
}

impl<'a> ConditionTable<'a> {
    /// Finishes the measures of `rows`. `reads_previous`: whether a condition needs the previous window.
    pub fn new(
        view: &'a View,
        rows: &'a FetchedRows,
        affected: &AffectedRows,
        reads_previous: bool,
    ) -> Result<ConditionTable<'a>, FinishError> {
        let merged = &rows.merged;
        let key = |row: u32| merged.keys.get(merged.groups[row as usize]);
        let mut candidates: Vec<u32> =
            (0..merged.len() as u32).filter(|row| affected.has(merged.windows[*row as usize], key(*row))).collect();
        let FinishedRows { measures, bounds, dimensions, shown } = FinishedRows::new(view, rows)?;
        if let Some(shown) = shown {
            candidates.retain(|row| is_true(&shown, *row as usize));
        }
        Ok(ConditionTable {
            view,
            rows,
            measures,
            columns: AlertColumn::all(view),
            bounds,
            dimensions,
            previous: reads_previous.then(|| previous_rows(view, rows)).flatten(),
            candidates,
        })
    }

    /// Returns the rows that satisfy the condition of `rule`.
    pub fn matches(&self, rule: &Rule) -> Result<Vec<Match>, FinishError> {
        let satisfied = self.satisfied(&rule.alert.condition)?;
        let rows = self.candidates.iter().filter(|row| is_true(&satisfied, **row as usize));
        rows.map(|row| self.describe(rule, *row as usize)).collect()
    }

    fn satisfied(&self, condition: &Scalar) -> Result<ArrayRef, FinishError> {
        let mut reads = vec![false; self.columns.len()];
        condition.for_each_column(&mut |index| reads[index] = true);
        let columns = self.columns.iter().zip(&reads).map(|(column, read)| match read {
            true => self.column(*column),
            false => Ok(new_null_array(&column.data_type(self.view).arrow(), self.rows.merged.len())),
        });
        let columns = columns.collect::<Result<Vec<_>, _>>()?;
        let table = table(columns, self.rows.merged.len())?;
        // A row for which the condition fails does not satisfy it.
        Ok(evaluate_or_null(&[condition], &table, &QueryBudget::unlimited(), 0)?.remove(0).column)
    }

    fn column(&self, column: AlertColumn) -> Result<ArrayRef, FinishError> {
        let bound = |measure: usize, upper: bool| match &self.measures[measure].bounds {
            Some(bounds) => {
                let bound = if upper { &bounds.high } else { &bounds.low };
                // NULL where the value is exact: then it is its own bound.
                Ok(zip(&is_not_null(bound)?, bound, &self.measures[measure].column)?)
            }
            None => Ok(Arc::clone(&self.measures[measure].column)),
        };
        match column {
            AlertColumn::Key(KeyColumn::WindowStart) => Ok(times(self.bounds.iter().map(|(start, _)| *start))),
            AlertColumn::Key(KeyColumn::WindowEnd) => Ok(times(self.bounds.iter().map(|(_, end)| *end))),
            AlertColumn::Key(KeyColumn::Dimension(index)) => Ok(Arc::clone(&self.dimensions[index])),
            AlertColumn::Measure(measure) => Ok(Arc::clone(&self.measures[measure].column)),
            AlertColumn::Lower(measure) => bound(measure, false),
            AlertColumn::Upper(measure) => bound(measure, true),
            AlertColumn::Previous(measure) => match &self.previous {
                Some(previous) => Ok(take(&self.measures[measure].column, previous, None)?),
                None => Ok(new_null_array(self.measures[measure].column.data_type(), self.rows.merged.len())),
            },
        }
    }

    fn describe(&self, rule: &Rule, row: usize) -> Result<Match, FinishError> {
        let merged = &self.rows.merged;
        let value = |column: KeyColumn| match column {
            KeyColumn::WindowStart => self.bounds[row].0.map_or(Value::Null, |at| Micros(at).to_string().into()),
            KeyColumn::WindowEnd => self.bounds[row].1.map_or(Value::Null, |at| Micros(at).to_string().into()),
            KeyColumn::Dimension(index) => json_cell(&self.dimensions[index], row),
        };
        let named = |columns: &[KeyColumn]| -> Map<String, Value> {
            columns.iter().map(|column| (column.name(self.view).to_owned(), value(*column))).collect()
        };
        let key = named(&rule.alert.once_per);
        let mut figures = std::collections::BTreeMap::new();
        let mut read = Vec::new();
        rule.alert.condition.for_each_column(&mut |index| read.push(self.columns[index]));
        for column in read {
            let (AlertColumn::Measure(measure)
            | AlertColumn::Lower(measure)
            | AlertColumn::Upper(measure)
            | AlertColumn::Previous(measure)) = column
            else {
                continue;
            };
            let figure: &mut AlertFigure = figures.entry(self.view.measures[measure].name.clone()).or_default();
            figure.served = json_cell(&self.measures[measure].column, row);
            let bounds = self.measures[measure].bounds.as_ref().filter(|bounds| bounds.low.is_valid(row));
            figure.bounds = bounds.map(|bounds| [json_cell(&bounds.low, row), json_cell(&bounds.high, row)]);
            if let (AlertColumn::Previous(_), Some(previous)) = (column, &self.previous) {
                let of_previous = |at: u32| json_cell(&self.measures[measure].column, at as usize);
                figure.previous =
                    Some(if previous.is_valid(row) { of_previous(previous.value(row)) } else { Value::Null });
            }
        }
        let has_ended = self.bounds[row].1.zip(self.rows.watermark).is_some_and(|(end, watermark)| end <= watermark.0);
        Ok(Match {
            id: record_id(rule, &key),
            key,
            row: named(&key_columns(self.view)),
            figures,
            finality: if has_ended { "closed" } else { "open" },
            place: RowPlace {
                key: to_hex(merged.keys.get(merged.groups[row])),
                window: if self.rows.instant.is_some() { 0 } else { merged.windows[row].0 },
                instant: self.rows.instant,
            },
        })
    }

    /// Returns the exact values of the measures called `names` in the row with this place, and whether the condition holds there;
    /// `None`: there is no such row.
    pub fn at(&self, rule: &Rule, place: &RowPlace, names: &[&str]) -> Result<Option<(bool, Vec<Value>)>, FinishError> {
        let merged = &self.rows.merged;
        let is_there = |row: &u32| {
            let row = *row as usize;
            let window = merged.windows[row].0;
            let same_window = match self.view.window {
                Window::Slide { .. } => true,
                // The exact session may have started earlier.
                Window::Session { .. } | Window::TableSession { .. } => {
                    window <= place.window && self.bounds[row].1.is_some_and(|end| place.window < end)
                }
                _ => window == place.window,
            };
            same_window && to_hex(merged.keys.get(merged.groups[row])) == place.key
        };
        let Some(row) = (0..merged.len() as u32).find(|row| is_there(row)) else { return Ok(None) };
        let holds = self.candidates.contains(&row) && is_true(&self.satisfied(&rule.alert.condition)?, row as usize);
        let value = |name: &&str| {
            let measure = self.view.measure(name);
            measure.map_or(Value::Null, |measure| json_cell(&self.measures[measure].column, row as usize))
        };
        Ok(Some((holds, names.iter().map(value).collect())))
    }
}

/// Returns the id of the record of `key`: it names alert, definition and key.
fn record_id(rule: &Rule, key: &Map<String, Value>) -> String {
    let text = serde_json::to_vec(&(&rule.alert.name, &*rule.hash, key)).expect("a key is plain data");
    format!("{:032x}", xxh3_128(&text))
}

fn times(values: impl Iterator<Item = Option<i64>>) -> ArrayRef {
    let values: TimestampMicrosecondArray = values.collect();
    Arc::new(values.with_timezone("UTC"))
}

/// Returns for each row that of the same group in the window before; `None`: the view has no such windows.
fn previous_rows(view: &View, rows: &FetchedRows) -> Option<UInt32Array> {
    let Window::Tumble(grid) = view.window else { return None };
    let merged = &rows.merged;
    let place = |row: usize| (merged.windows[row], merged.groups[row]);
    let by_place: HashMap<(WindowId, u32), u32> = (0..merged.len()).map(|row| (place(row), row as u32)).collect();
    let of = |row: usize| by_place.get(&(previous(grid, merged.windows[row]), merged.groups[row])).copied();
    Some((0..merged.len()).map(of).collect())
}

/// Returns bytes in hexadecimal.
pub fn to_hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Reads what [`to_hex`] wrote.
pub fn from_hex(text: &str) -> Option<Box<[u8]>> {
    let pair = |at: usize| u8::from_str_radix(text.get(at..at + 2)?, 16).ok();
    (0..text.len()).step_by(2).map(pair).collect()
}
