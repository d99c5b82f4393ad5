//! Compares the rows of a response with those of the oracle: exact values exactly, estimates by their bounds.

use std::collections::BTreeMap;

use serde_json::Value;

use super::measures::{Fold, frequencies};
use super::views::{Group, Groups, Meaning, Measure, View};

/// States of so few values are not sketches.
const SMALL_ROWS: usize = 64;

/// Counts how often the interval of an estimate held the exact value, by measure. Over many values, 95 % must.
#[derive(Debug, Default)]
pub struct Coverage {
    of: BTreeMap<String, (u64, u64)>,
}

impl Coverage {
    fn note(&mut self, measure: &str, inside: bool) {
        let (held, all) = self.of.entry(measure.to_owned()).or_default();
        *held += u64::from(inside);
        *all += 1;
    }

    /// Number of estimates compared.
    pub fn values(&self) -> u64 {
        self.of.values().map(|(_, all)| all).sum()
    }

    /// Fails if fewer intervals than 95 % minus four standard deviations held the exact value.
    pub fn assert_holds(&self, context: &str) {
        for (measure, (held, all)) in &self.of {
            let n = *all as f64;
            let least = 0.95 * n - 4.0 * (n * 0.95 * 0.05).sqrt();
            assert!(*held as f64 >= least, "{context}: {measure}: {held} of {all} intervals hold the truth");
        }
    }
}

/// Compares the rows of `answer` with `expected`: keys and every measure.
pub fn compare(
    answer: &Value,
    view: &View,
    by: &[usize],
    expected: &Groups,
    coverage: &mut Coverage,
) -> Result<(), String> {
    let names = view.key_names(by);
    let mut found: BTreeMap<String, &Value> = BTreeMap::new();
    for row in answer["rows"].as_array().ok_or("no rows")? {
        let key = Value::Array(names.iter().map(|name| row[*name].clone()).collect()).to_string();
        if found.insert(key.clone(), row).is_some() {
            return Err(format!("{key} is there twice"));
        }
    }
    if let Some(missing) = expected.keys().find(|key| !found.contains_key(*key)) {
        return Err(format!("{missing} is missing, of {} rows", expected.len()));
    }
    if let Some(other) = found.keys().find(|key| !expected.contains_key(*key)) {
        return Err(format!("{other} is too much: {}", found[other]));
    }
    for (key, group) in expected {
        for measure in &view.measures {
            let row = found[key];
            let bounds = &row["_bounds"][measure.name];
            check(measure, group, &row[measure.name], bounds, coverage).map_err(|e| {
                format!("{key}: {}: {e}; of {} events, in {}", measure.sql, group.rows.len(), row["_layer"])
            })?;
        }
    }
    Ok(())
}

fn check(
    measure: &Measure,
    group: &Group,
    value: &Value,
    bounds: &Value,
    coverage: &mut Coverage,
) -> Result<(), String> {
    let truth = measure.truth(&group.rows);
    if !bounds.is_null() && group.rows.len() <= SMALL_ROWS {
        return Err(format!("{value} of a small group has the bounds {bounds}"));
    }
    if bounds.is_null() {
        if equal(value, &truth.value, truth.slack) {
            return Ok(());
        }
        return Err(format!("{value} where {} is true", truth.value));
    }
    if let Meaning::Fold(Fold::TopK(k), column) = measure.meaning {
        return check_top(k, &frequencies(column, &measure.kept(&group.rows)), value, bounds);
    }
    let (low, high) = interval(bounds).ok_or_else(|| format!("{bounds} is no interval"))?;
    let shown = number(value).ok_or_else(|| format!("{value} has bounds but is no number"))?;
    if !(low <= shown && shown <= high) {
        return Err(format!("{value} is outside its own bounds {bounds}"));
    }
    let truth = number(&truth.value).ok_or_else(|| format!("{value} where {} is true", truth.value))?;
    coverage.note(measure.name, low <= truth && truth <= high);
    // An interval may miss the exact value, but not by far.
    let width = (high - low).max(truth.abs() * 0.02).max(1.0);
    if truth < low - 3.0 * width || truth > high + 3.0 * width {
        return Err(format!("{value} in {bounds} where {truth} is true"));
    }
    Ok(())
}

/// The count of every listed item lies in its bounds, and no item that is certainly more frequent is missing.
fn check_top(k: usize, truth: &BTreeMap<String, u64>, value: &Value, bounds: &Value) -> Result<(), String> {
    let items = value.as_array().ok_or_else(|| format!("{value} is no list"))?;
    // Two lists: the lowest and the highest count of every item.
    let ends = |at: usize| bounds[at].as_array().ok_or_else(|| format!("{bounds} is no pair of lists"));
    let (lows, highs) = (ends(0)?, ends(1)?);
    if items.len() != lows.len() || items.len() != highs.len() || items.len() > k {
        return Err(format!("{} items of {k} with the bounds {bounds}", items.len()));
    }
    // A sketch of 512 entries has an error of at most 3.5 / 512 of all values.
    let mut widest = truth.values().sum::<u64>() as f64 * 3.5 / 512.0;
    for (item, (low, high)) in items.iter().zip(lows.iter().zip(highs)) {
        let (low, high) = number(low).zip(number(high)).ok_or_else(|| format!("{bounds} has no numbers"))?;
        let count = *truth.get(&item["value"].to_string()).unwrap_or(&0) as f64;
        if !(low <= count && count <= high) {
            return Err(format!("{} occurs {count} times, not in {low} to {high}", item["value"]));
        }
        widest = widest.max(high - low);
    }
    let shown: Vec<String> = items.iter().map(|item| item["value"].to_string()).collect();
    let least = items.iter().filter_map(|item| item["count"].as_f64()).fold(f64::INFINITY, f64::min);
    for (value, count) in truth {
        let known = if items.len() < k { 0.0 } else { least };
        if !shown.contains(value) && *count as f64 > known + widest {
            return Err(format!("{value} occurs {count} times and is not listed, the last with {least}"));
        }
    }
    Ok(())
}

fn interval(bounds: &Value) -> Option<(f64, f64)> {
    let [low, high] = bounds.as_array()?.as_slice() else { return None };
    Some((number(low)?, number(high)?))
}

/// A number, a decimal's text, or the microseconds of a time.
fn number(value: &Value) -> Option<f64> {
    match value {
        Value::Number(n) => n.as_f64(),
        Value::String(text) => text.parse().ok().or_else(|| {
            let midnight = if text.contains('T') { text.clone() } else { format!("{text}T00:00:00Z") };
            Some(chrono::DateTime::parse_from_rfc3339(&midnight).ok()?.timestamp_micros() as f64)
        }),
        _ => None,
    }
}

/// Integers, texts and NULLs must be equal; floats to `slack` or the last bits.
pub fn equal(value: &Value, truth: &Value, slack: f64) -> bool {
    match (value.as_f64(), truth.as_f64()) {
        (Some(a), Some(b)) if value.is_f64() || truth.is_f64() => (a - b).abs() <= slack + 1e-12 * b.abs(),
        _ => match (value.as_array(), truth.as_array()) {
            (Some(a), Some(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| equal(a, b, slack)),
            _ => match (value.as_object(), truth.as_object()) {
                (Some(a), Some(b)) => {
                    a.len() == b.len() && b.iter().all(|(k, b)| a.get(k).is_some_and(|a| equal(a, b, slack)))
                }
                _ => value == truth,
            },
        },
    }
}
