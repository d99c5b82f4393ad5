//! Writes the values of TOP_K as a JSON array, each value as responses write its type.

use std::cmp::Ordering;
use std::fmt::Write;
use std::sync::Arc;

use super::hash::canonical_bits;
use super::top_k::{Item, Ranked, Top, TopK};
use crate::time::{Day, Micros};
use crate::types::DataType;

/// The number and the type of listed values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Listing {
    pub data_type: DataType,
    pub k: usize,
}

/// The values as JSON, and the ranges of their counts where these are not exact.
#[derive(Debug, Clone, PartialEq)]
pub struct Listed {
    /// `[{"value": .., "count": ..}, ..]`, most frequent first.
    pub text: Arc<str>,
    /// Two arrays of numbers, one per listed value: the least and the greatest count it may have.
    pub range: Option<(String, String)>,
}

/// Returns the bits by which a DOUBLE is counted, with one NaN and one zero.
#[inline]
pub fn counted_double(value: f64) -> i64 {
    canonical_bits(value)
}

impl Listing {
    /// The list of values that are kept as integers. `None`: of nothing.
    pub fn of_longs(&self, counts: &TopK<i64>) -> Option<Listed> {
        let compare = |a: &i64, b: &i64| match self.data_type {
            DataType::Double => f64::from_bits(*a as u64).total_cmp(&f64::from_bits(*b as u64)),
            _ => a.cmp(b),
        };
        self.listed(counts, compare, |value, out| write_long(self.data_type, *value, out))
    }

    /// The list of values that are kept as texts. `None`: of nothing.
    pub fn of_texts(&self, counts: &TopK<String>) -> Option<Listed> {
        let compare = |a: &String, b: &String| match self.data_type {
            DataType::Decimal { .. } => unscaled(a).cmp(&unscaled(b)),
            _ => a.cmp(b),
        };
        self.listed(counts, compare, |value, out| out.push_str(&json_text(value)))
    }

    fn listed<T: Item>(
        &self,
        counts: &TopK<T>,
        compare: impl Fn(&T, &T) -> Ordering,
        write_value: impl Fn(&T, &mut String),
    ) -> Option<Listed> {
        let (items, is_exact) = match counts.top(self.k, compare)? {
            Top::Known(text) => return Some(Listed { text, range: None }),
            Top::Items { items, is_exact } => (items, is_exact),
        };
        let text = array(&items, |item, out| {
            out.push_str("{\"value\":");
            write_value(&item.value, out);
            write!(out, ",\"count\":{}}}", item.count).expect("writing into memory does not fail");
        });
        let bound = |of: fn(&Ranked<T>) -> u64| {
            array(&items, |item, out| write!(out, "{}", of(item)).expect("writing into memory does not fail"))
        };
        let range = (!is_exact).then(|| (bound(|item| item.range.0), bound(|item| item.range.1)));
        Some(Listed { text: Arc::from(text), range })
    }
}

fn array<T>(items: &[T], mut write_item: impl FnMut(&T, &mut String)) -> String {
    let mut out = String::from("[");
    for (at, item) in items.iter().enumerate() {
        if at > 0 {
            out.push(',');
        }
        write_item(item, &mut out);
    }
    out.push(']');
    out
}

fn write_long(data_type: DataType, value: i64, out: &mut String) {
    let written = match data_type {
        DataType::Boolean => write!(out, "{}", value != 0),
        DataType::Date => write!(out, "\"{}\"", Day(value as i32)),
        DataType::Timestamp => write!(out, "\"{}\"", Micros(value)),
        DataType::Double => match f64::from_bits(value as u64) {
            finite if finite.is_finite() => {
                write!(out, "{}", serde_json::Number::from_f64(finite).expect("finite numbers are JSON"))
            }
            _ => write!(out, "null"),
        },
        _ => write!(out, "{value}"),
    };
    written.expect("writing into memory does not fail");
}

fn json_text(text: &str) -> String {
    serde_json::to_string(text).expect("every text is JSON")
}

/// The digits of a DECIMAL's text: texts of one scale compare like them.
fn unscaled(text: &str) -> i128 {
    let digits: String = text.chars().filter(|c| *c != '.').collect();
    digits.parse().unwrap_or(0)
}
