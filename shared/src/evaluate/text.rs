//! Implements functions of texts. Positions count characters, from 1; a NULL argument gives NULL.
//!
//! The length of a text that may be longer than its arguments is known before it is built: see [`super::meter`].

use std::sync::Arc;

use polars::prelude::arity::unary_elementwise;
use polars::prelude::{BooleanChunked, Expr, Int64Chunked, IntoSeries, PolarsResult, Series};

use super::kernel::metered;
use super::meter::{Meter, TextColumn};
use crate::scalar::Function;
use crate::types::DataType;

/// A function whose first argument is a text.
pub(super) fn of_text(meter: &Arc<Meter>, function: Function, arguments: Vec<Expr>, output: DataType) -> Expr {
    metered(meter, arguments, output, move |meter, series| match function {
        Function::Length => {
            let length = |text: Option<&str>| text.map(|text| text.chars().count() as i64);
            let result: Int64Chunked = unary_elementwise(series[0].str()?, length);
            Ok(result.into_series())
        }
        Function::StartsWith | Function::EndsWith | Function::Contains => test(function, series),
        Function::Left | Function::Right | Function::Substring => cut(meter, function, series),
        Function::Replace => replace(meter, series),
        Function::Concat => concat(meter, series),
        Function::Upper | Function::Lower => change_case(meter, function, series),
        _ => change(meter, function, series),
    })
}

fn test(function: Function, series: &[Series]) -> PolarsResult<Series> {
    let (texts, patterns) = (series[0].str()?, series[1].str()?);
    let results = texts.iter().zip(patterns.iter()).map(|(text, pattern)| {
        let (text, pattern) = (text?, pattern?);
        Some(match function {
            Function::StartsWith => text.starts_with(pattern),
            Function::EndsWith => text.ends_with(pattern),
            _ => text.contains(pattern),
        })
    });
    let results: BooleanChunked = results.collect();
    Ok(results.into_series())
}

/// Every character becomes at most three, of as many bytes.
const CASE_GROWTH_MAX: usize = 3;

fn change_case(meter: &Meter, function: Function, series: &[Series]) -> PolarsResult<Series> {
    let upper = function == Function::Upper;
    let length = |text: &str| -> usize {
        let bytes = |c: char| match upper {
            true => c.to_uppercase().map(char::len_utf8).sum::<usize>(),
            false => c.to_lowercase().map(char::len_utf8).sum(),
        };
        text.chars().map(bytes).sum()
    };
    let mut result = TextColumn::new(meter, &series[0]);
    let longest = result.value_bytes_max();
    for text in series[0].str()?.iter() {
        match text {
            None => result.push_null(),
            Some(text) if text.len() > longest / CASE_GROWTH_MAX && length(text) > longest => result.push_outgrown(),
            Some(text) if upper => result.push(&text.to_uppercase())?,
            Some(text) => result.push(&text.to_lowercase())?,
        }
    }
    result.finish()
}

fn change(meter: &Meter, function: Function, series: &[Series]) -> PolarsResult<Series> {
    let mut result = TextColumn::new(meter, &series[0]);
    for text in series[0].str()?.iter() {
        match (text, function) {
            (None, _) => result.push_null(),
            (Some(text), Function::TrimStart) => result.push(text.trim_start_matches(' '))?,
            (Some(text), Function::TrimEnd) => result.push(text.trim_end_matches(' '))?,
            (Some(text), Function::Reverse) => result.push(&text.chars().rev().collect::<String>())?,
            (Some(text), _) => result.push(text.trim_matches(' '))?,
        }
    }
    result.finish()
}

fn replace(meter: &Meter, series: &[Series]) -> PolarsResult<Series> {
    let (texts, from, to) = (series[0].str()?, series[1].str()?, series[2].str()?);
    let mut result = TextColumn::new(meter, &series[0]);
    let longest = result.value_bytes_max();
    let mut replaced = String::new();
    for ((text, from), to) in texts.iter().zip(from.iter()).zip(to.iter()) {
        let (Some(text), Some(from), Some(to)) = (text, from, to) else {
            result.push_null();
            continue;
        };
        // Nothing occurs everywhere; it is replaced nowhere.
        if from.is_empty() {
            result.push(text)?;
            continue;
        }
        let length = |occurrences: usize| {
            let added = occurrences.saturating_mul(to.len().saturating_sub(from.len()));
            text.len().saturating_add(added)
        };
        let grows = to.len() > from.len();
        if grows && length(text.len() / from.len()) > longest && length(text.matches(from).count()) > longest {
            result.push_outgrown();
            continue;
        }
        replaced.clear();
        let mut end = 0;
        for (at, found) in text.match_indices(from) {
            replaced.push_str(&text[end..at]);
            replaced.push_str(to);
            end = at + found.len();
        }
        replaced.push_str(&text[end..]);
        result.push(&replaced)?;
    }
    result.finish()
}

fn concat(meter: &Meter, series: &[Series]) -> PolarsResult<Series> {
    let parts = series.iter().map(Series::str).collect::<PolarsResult<Vec<_>>>()?;
    let mut result = TextColumn::new(meter, &series[0]);
    let longest = result.value_bytes_max();
    let mut joined = String::new();
    'rows: for row in 0..series[0].len() {
        joined.clear();
        for part in &parts {
            let Some(text) = part.get(row) else {
                result.push_null();
                continue 'rows;
            };
            if joined.len().saturating_add(text.len()) > longest {
                match parts.iter().all(|part| part.get(row).is_some()) {
                    true => result.push_outgrown(),
                    false => result.push_null(),
                }
                continue 'rows;
            }
            joined.push_str(text);
        }
        result.push(&joined)?;
    }
    result.finish()
}

fn cut(meter: &Meter, function: Function, series: &[Series]) -> PolarsResult<Series> {
    let texts = series[0].str()?;
    let numbers = series[1..].iter().map(Series::i64).collect::<PolarsResult<Vec<_>>>()?;
    let mut result = TextColumn::new(meter, &series[0]);
    // The arguments of one row; a NULL among them gives NULL.
    let mut row_numbers = Vec::with_capacity(numbers.len());
    for (row, text) in texts.iter().enumerate() {
        row_numbers.clear();
        row_numbers.extend(numbers.iter().map_while(|numbers| numbers.get(row)));
        let text = text.filter(|_| row_numbers.len() == numbers.len());
        match text.and_then(|text| piece_of(function, text, &row_numbers)) {
            Some(piece) => result.push(piece)?,
            None => result.push_null(),
        }
    }
    result.finish()
}

/// Returns the part of `text` that LEFT, RIGHT or SUBSTRING gives for its numeric arguments; `None` for a negative length.
fn piece_of<'t>(function: Function, text: &'t str, numbers: &[i64]) -> Option<&'t str> {
    let first = *numbers.first()?;
    Some(match function {
        Function::Left => slice(text, 0, usize::try_from(first).ok()?),
        Function::Right => {
            let length = usize::try_from(first).ok()?;
            slice(text, text.chars().count().saturating_sub(length), length)
        }
        _ => {
            let length = numbers.get(1).map(|length| usize::try_from(*length)).transpose().ok()?;
            substring(text, first, length)
        }
    })
}

/// Positions before the first character count towards the length, as in the SQL standard.
fn substring(text: &str, from: i64, length: Option<usize>) -> &str {
    let start = i128::from(from) - 1;
    let end = length.map_or(i128::MAX, |length| start + length as i128).max(0);
    let start = start.max(0);
    let length = usize::try_from(end - start).unwrap_or(if end < start { 0 } else { usize::MAX });
    slice(text, usize::try_from(start).unwrap_or(usize::MAX), length)
}

/// `length` characters after the first `skip`.
fn slice(text: &str, skip: usize, length: usize) -> &str {
    let at = |text: &str, chars: usize| text.char_indices().nth(chars).map_or(text.len(), |(at, _)| at);
    let rest = &text[at(text, skip)..];
    &rest[..at(rest, length)]
}
