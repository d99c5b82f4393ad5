//! Implements functions of texts. Positions count characters, from 1; a NULL argument gives NULL.

use polars::prelude::arity::unary_elementwise;
use polars::prelude::{
    BooleanChunked, Expr, Int64Chunked, IntoSeries, NewChunkedArray, PolarsResult, Series, StringChunked,
};

use super::kernel::apply;
use crate::scalar::Function;
use crate::types::DataType;

/// A function whose first argument is a text.
pub(super) fn of_text(function: Function, arguments: Vec<Expr>, output: DataType) -> Expr {
    apply(arguments, output, move |series| match function {
        Function::Length => {
            let length = |text: Option<&str>| text.map(|text| text.chars().count() as i64);
            let result: Int64Chunked = unary_elementwise(series[0].str()?, length);
            Ok(result.into_series())
        }
        Function::StartsWith | Function::EndsWith | Function::Contains => test(function, series),
        Function::Left | Function::Right | Function::Substring => cut(function, series),
        Function::Replace => replace(series),
        Function::Concat => concat(series),
        _ => change(function, series),
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

fn change(function: Function, series: &[Series]) -> PolarsResult<Series> {
    let change = |text: &str| match function {
        Function::Upper => text.to_uppercase(),
        Function::Lower => text.to_lowercase(),
        Function::TrimStart => text.trim_start_matches(' ').to_owned(),
        Function::TrimEnd => text.trim_end_matches(' ').to_owned(),
        Function::Reverse => text.chars().rev().collect(),
        _ => text.trim_matches(' ').to_owned(),
    };
    Ok(strings(series, series[0].str()?.iter().map(|text| text.map(change))))
}

fn replace(series: &[Series]) -> PolarsResult<Series> {
    let (texts, from, to) = (series[0].str()?, series[1].str()?, series[2].str()?);
    let results = texts.iter().zip(from.iter()).zip(to.iter()).map(|((text, from), to)| {
        let (text, from, to) = (text?, from?, to?);
        // Nothing occurs everywhere; it is replaced nowhere.
        Some(if from.is_empty() { text.to_owned() } else { text.replace(from, to) })
    });
    Ok(strings(series, results))
}

fn concat(series: &[Series]) -> PolarsResult<Series> {
    let parts = series.iter().map(Series::str).collect::<PolarsResult<Vec<_>>>()?;
    let joined = |row: usize| {
        let mut text = String::new();
        for part in &parts {
            text.push_str(part.get(row)?);
        }
        Some(text)
    };
    Ok(strings(series, (0..series[0].len()).map(joined)))
}

fn cut(function: Function, series: &[Series]) -> PolarsResult<Series> {
    let texts = series[0].str()?;
    let numbers = series[1..].iter().map(Series::i64).collect::<PolarsResult<Vec<_>>>()?;
    let cut = |(row, text): (usize, Option<&str>)| {
        let (text, first) = (text?, numbers[0].get(row)?);
        Some(match function {
            Function::Left => slice(text, 0, usize::try_from(first).ok()?).to_owned(),
            Function::Right => {
                let length = usize::try_from(first).ok()?;
                let skipped = text.chars().count().saturating_sub(length);
                slice(text, skipped, length).to_owned()
            }
            _ => {
                let length = match numbers.get(1) {
                    Some(lengths) => Some(usize::try_from(lengths.get(row)?).ok()?),
                    None => None,
                };
                substring(text, first, length).to_owned()
            }
        })
    };
    Ok(strings(series, texts.iter().enumerate().map(cut)))
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

fn strings<T: AsRef<str>>(series: &[Series], texts: impl Iterator<Item = Option<T>>) -> Series {
    StringChunked::from_iter_options(series[0].name().clone(), texts).into_series()
}
