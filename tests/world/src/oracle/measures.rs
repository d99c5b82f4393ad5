//! Computes the value of a measure over some events.
//!
//! A value depends on its inputs alone, not on their order or on other measures. Whether it fits its type is
//! decided once, at the end.

use std::cmp::Ordering;
use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::events::{Event, date, decimal, rfc3339};

/// An event and its position in the log.
#[derive(Debug, Clone, Copy)]
pub struct Row<'a> {
    pub offset: usize,
    pub event: &'a Event,
}

/// A value, and the tolerance of a float whose additions may have another order.
#[derive(Debug, Clone, PartialEq)]
pub struct Truth {
    pub value: Value,
    pub slack: f64,
}

/// A column of the events, or another expression over them.
pub type Column = fn(&Event) -> Cell;

/// A typed value; `Null` is NULL.
#[derive(Debug, Clone, PartialEq)]
pub enum Cell {
    Null,
    Flag(bool),
    Int(i64),
    Double(f64),
    /// Hundredths.
    Decimal(i128),
    Text(String),
    /// Days since 1970.
    Date(i32),
    /// Microseconds since 1970.
    Time(i64),
}

impl Cell {
    /// The value as JSON in responses.
    pub fn json(&self) -> Value {
        match self {
            Cell::Null => Value::Null,
            Cell::Flag(b) => json!(b),
            Cell::Int(n) => json!(n),
            Cell::Double(x) => json!(x),
            Cell::Decimal(cents) => json!(decimal(*cents)),
            Cell::Text(text) => json!(text),
            Cell::Date(days) => json!(date(*days)),
            Cell::Time(at) => json!(rfc3339(*at)),
        }
    }

    fn is_null(&self) -> bool {
        matches!(self, Cell::Null)
    }

    /// `false < true`, numbers by size with NaN last and both zeros equal, texts by bytes.
    pub fn order(&self, other: &Cell) -> Ordering {
        match (self, other) {
            (Cell::Flag(a), Cell::Flag(b)) => a.cmp(b),
            (Cell::Int(a), Cell::Int(b)) | (Cell::Time(a), Cell::Time(b)) => a.cmp(b),
            (Cell::Double(a), Cell::Double(b)) => a.partial_cmp(b).unwrap_or_else(|| a.is_nan().cmp(&b.is_nan())),
            (Cell::Decimal(a), Cell::Decimal(b)) => a.cmp(b),
            (Cell::Text(a), Cell::Text(b)) => a.as_bytes().cmp(b.as_bytes()),
            (Cell::Date(a), Cell::Date(b)) => a.cmp(b),
            _ => panic!("{self:?} and {other:?} are of different types"),
        }
    }

    /// As a DOUBLE.
    fn number(&self) -> f64 {
        match self {
            Cell::Int(n) => *n as f64,
            Cell::Double(x) => *x,
            Cell::Decimal(cents) => *cents as f64 / 100.0,
            other => panic!("{other:?} is no number"),
        }
    }
}

/// The columns of the test stream.
pub const REGION: Column = |e| e.region.clone().map_or(Cell::Null, Cell::Text);
pub const AMOUNT: Column = |e| e.amount.map_or(Cell::Null, Cell::Int);
pub const PRICE: Column = |e| e.price.map_or(Cell::Null, Cell::Double);
pub const COST: Column = |e| e.cost_cents.map_or(Cell::Null, |c| Cell::Decimal(c.into()));
pub const CODE: Column = |e| e.code.map_or(Cell::Null, |c| Cell::Int(c.into()));
pub const FLAG: Column = |e| e.flag.map_or(Cell::Null, Cell::Flag);
pub const DATE: Column = |e| e.day.map_or(Cell::Null, Cell::Date);
pub const AT: Column = |e| Cell::Time(e.at);

/// An aggregate function.
#[derive(Debug, Clone, Copy)]
pub enum Fold {
    /// `COUNT(x)`.
    Count,
    Sum,
    Avg,
    Min,
    Max,
    /// Variance; its square root if `root`; divided by n - 1 if `sample`.
    Spread {
        sample: bool,
        root: bool,
    },
    Distinct,
    /// A fraction in thousandths, so that ranks are exact.
    Percentile {
        thousandths: u32,
        continuous: bool,
        descending: bool,
    },
    TopK(usize),
    First,
    Last,
}

/// The value of `fold` over a column's values in `rows`, without NULLs.
pub fn fold(fold: Fold, column: Column, rows: &[Row]) -> Truth {
    let rows: Vec<(&Row, Cell)> =
        rows.iter().map(|r| (r, column(r.event))).filter(|(_, cell)| !cell.is_null()).collect();
    let cells: Vec<Cell> = rows.iter().map(|(_, cell)| cell.clone()).collect();
    let by_time = |(row, _): &(&Row, Cell)| (row.event.at, row.offset);
    let shown = |cell: Option<&Cell>| exact(cell.map_or(Value::Null, Cell::json));
    match fold {
        Fold::Count => exact(json!(cells.len())),
        Fold::Sum => sum(&cells),
        Fold::Avg => average(&cells),
        Fold::Min => shown(cells.iter().min_by(|a, b| a.order(b))),
        Fold::Max => shown(cells.iter().max_by(|a, b| a.order(b))),
        Fold::Spread { sample, root } => spread(&cells, sample, root),
        Fold::Distinct => exact(json!(counted(&cells).len())),
        Fold::Percentile { thousandths, continuous, descending } => {
            percentile(cells, thousandths as usize, continuous, descending)
        }
        Fold::TopK(k) => top(&cells, k),
        Fold::First => shown(rows.iter().min_by_key(|r| by_time(r)).map(|(_, cell)| cell)),
        Fold::Last => shown(rows.iter().max_by_key(|r| by_time(r)).map(|(_, cell)| cell)),
    }
}

pub fn exact(value: Value) -> Truth {
    Truth { value, slack: 0.0 }
}

/// Integers and decimals exactly, NULL where an integer does not fit 64 bits.
fn sum(cells: &[Cell]) -> Truth {
    match cells.first() {
        None => exact(Value::Null),
        Some(Cell::Int(_)) => exact(i64::try_from(whole(cells)).map_or(Value::Null, |sum| json!(sum))),
        Some(Cell::Decimal(_)) => exact(json!(decimal(whole(cells)))),
        Some(_) => Truth { value: json!(float_sum(cells)), slack: 1e-12 * weight(cells) },
    }
}

fn average(cells: &[Cell]) -> Truth {
    let n = cells.len() as f64;
    match cells.first() {
        None => exact(Value::Null),
        Some(Cell::Int(_)) => Truth { value: json!(whole(cells) as f64 / n), slack: 1e-12 * weight(cells) / n },
        Some(Cell::Decimal(_)) => {
            Truth { value: json!(whole(cells) as f64 / 100.0 / n), slack: 1e-12 * weight(cells) / n }
        }
        Some(_) => Truth { value: json!(float_sum(cells) / n), slack: 1e-12 * weight(cells) / n },
    }
}

fn whole(cells: &[Cell]) -> i128 {
    let whole = |cell: &Cell| match cell {
        Cell::Int(n) => i128::from(*n),
        Cell::Decimal(cents) => *cents,
        other => panic!("{other:?} is no whole number"),
    };
    cells.iter().map(whole).sum()
}

/// Added up from the smallest to the largest.
fn float_sum(cells: &[Cell]) -> f64 {
    let mut numbers: Vec<f64> = cells.iter().map(Cell::number).collect();
    numbers.sort_by(|a, b| a.abs().total_cmp(&b.abs()));
    numbers.iter().sum()
}

/// The sum of the sizes.
fn weight(cells: &[Cell]) -> f64 {
    cells.iter().map(|cell| cell.number().abs()).sum()
}

/// Two passes: the mean, then the squares of the distances from it. A stable computation is off by some n epsilon times
/// the condition of the problem, the mean over the standard deviation.
fn spread(cells: &[Cell], sample: bool, root: bool) -> Truth {
    let n = cells.len() as f64;
    let divisor = if sample { n - 1.0 } else { n };
    if cells.is_empty() || divisor == 0.0 {
        return exact(Value::Null);
    }
    let numbers: Vec<f64> = cells.iter().map(Cell::number).collect();
    let mean = numbers.iter().map(|x| x / n).sum::<f64>();
    let largest = numbers.iter().fold(0.0, |largest: f64, x| largest.max(x.abs()));
    // The mean itself is rounded, so the sum of the distances is subtracted.
    let rest = numbers.iter().map(|x| x - mean).sum::<f64>();
    let squares = numbers.iter().map(|x| (x - mean) * (x - mean)).sum::<f64>() - rest * rest / n;
    let variance = (squares / divisor).max(0.0);
    let deviation = variance.sqrt();
    let slack =
        1e-9 * variance + 64.0 * n * f64::EPSILON * largest * deviation + (8.0 * f64::EPSILON * largest).powi(2);
    if !root {
        return Truth { value: json!(variance), slack };
    }
    // sqrt(v + s) - sqrt(v), even if v is tiny.
    Truth { value: json!(deviation), slack: (variance + slack).sqrt() - (variance - slack).max(0.0).sqrt() }
}

/// How often each value occurs, by value.
fn counted(cells: &[Cell]) -> Vec<(Cell, usize)> {
    let mut sorted = cells.to_vec();
    sorted.sort_by(Cell::order);
    let mut counted: Vec<(Cell, usize)> = Vec::new();
    for cell in sorted {
        match counted.last_mut() {
            Some((last, count)) if last.order(&cell) == Ordering::Equal => *count += 1,
            _ => counted.push((cell, 1)),
        }
    }
    counted
}

fn percentile(mut cells: Vec<Cell>, thousandths: usize, continuous: bool, descending: bool) -> Truth {
    cells.retain(|cell| !matches!(cell, Cell::Double(x) if x.is_nan()));
    cells.sort_by(Cell::order);
    if descending {
        cells.reverse();
    }
    if cells.is_empty() {
        return exact(Value::Null);
    }
    if !continuous {
        let rank = (thousandths * cells.len()).div_ceil(1000).max(1);
        let cell = &cells[rank - 1];
        // The percentile of decimals is a DOUBLE.
        let value = if matches!(cell, Cell::Decimal(_)) { json!(cell.number()) } else { cell.json() };
        let slack = if value.is_f64() { 1e-12 * cell.number().abs() } else { 0.0 };
        return Truth { value, slack };
    }
    let (whole, part) = (thousandths * (cells.len() - 1) / 1000, thousandths * (cells.len() - 1) % 1000);
    let low = cells[whole].number();
    let high = cells[(whole + 1).min(cells.len() - 1)].number();
    let share = part as f64 / 1000.0;
    let value = low * (1.0 - share) + high * share;
    Truth { value: json!(value), slack: 1e-12 * (low.abs() + high.abs()) }
}

fn top(cells: &[Cell], k: usize) -> Truth {
    if cells.is_empty() {
        return exact(Value::Null);
    }
    let mut counted = counted(cells);
    // Stable: equal counts stay in the order of their values.
    counted.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
    counted.truncate(k);
    exact(counted.iter().map(|(cell, count)| json!({"value": cell.json(), "count": count})).collect())
}

/// How often each value of a column occurs, by its JSON text.
pub fn frequencies(column: Column, rows: &[Row]) -> BTreeMap<String, u64> {
    let cells: Vec<Cell> = rows.iter().map(|r| column(r.event)).filter(|cell| !cell.is_null()).collect();
    counted(&cells).into_iter().map(|(cell, count)| (cell.json().to_string(), count as u64)).collect()
}
