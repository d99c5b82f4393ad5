//! Evaluates expressions over rows piece by piece, so that memory and the time between two checks are bounded.
//!
//! A piece whose texts are too large, or that fails otherwise, is divided until the rows are found that fail by themselves.
//! Whether a row fails depends on the row alone, never on its neighbours: a piece holds at least the texts of each of its rows,
//! so every row of a piece that fits would fit alone. Rows fail by any part of an expression, also by a branch that a CASE does
//! not choose.

use std::ops::Range;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, RecordBatch, new_null_array};
use arrow::buffer::BooleanBuffer;
use arrow::compute::{concat, nullif};
use arrow::datatypes::{DataType as ArrowType, UInt16Type};

use super::meter::TextBounds;
use super::{EvaluateError, attempt};
use crate::limits::EVALUATION_BYTES_MAX;
use crate::partial::query_budget::{Exceeded, QueryBudget};
use crate::scalar::Scalar;

/// Largest cost of a piece of more than one row: nodes of the expressions, times rows and 32 bytes of their texts. That is
/// some 10 ms of work between two checks, and as many intermediate values at most.
const PIECE_COST_MAX: usize = 4 << 20;
/// Bytes of text that cost as much as a row.
const BYTES_PER_COST: usize = 32;

/// The bounds of an evaluation.
#[derive(Debug, Clone, Copy)]
pub struct EvaluationLimits<'a> {
    pub texts: TextBounds,
    /// Stops the evaluation.
    pub query: &'a QueryBudget,
}

/// A row for which an expression cannot be evaluated.
#[derive(Debug)]
pub struct FailedRow {
    /// Counted from the first row of the batch.
    pub row: usize,
    pub reason: EvaluateError,
}

/// Some neighbouring rows of a batch, evaluated.
#[derive(Debug)]
pub struct Piece {
    /// The rows of the batch.
    pub rows: Range<usize>,
    /// One per expression. The values of failed rows mean nothing.
    pub columns: Vec<ArrayRef>,
    /// Ascending.
    pub failed: Vec<FailedRow>,
}

/// Evaluates `scalars` over `rows` in order, piece by piece; an empty batch is one piece.
///
/// Errors: the query is over, the expressions do not fit the batch, or `each` fails.
pub fn evaluate_pieces<E: From<EvaluateError>>(
    scalars: &[&Scalar],
    rows: &RecordBatch,
    limits: EvaluationLimits<'_>,
    each: &mut dyn FnMut(Piece) -> Result<(), E>,
) -> Result<(), E> {
    let mut waiting = ranges(scalars, rows);
    waiting.reverse();
    while let Some(range) = waiting.pop() {
        limits.query.check(0).map_err(EvaluateError::from)?;
        let is_whole = range.len() == rows.num_rows();
        let piece = if is_whole { rows.clone() } else { rows.slice(range.start, range.len()) };
        let mut result = evaluated(scalars, &piece, limits);
        if matches!(result, Err(EvaluateError::TooLarge { .. })) && range.len() <= 1 && limits.texts.may_not_fail() {
            result = evaluated(scalars, &piece, EvaluationLimits { texts: TextBounds::NONE, ..limits });
        }
        match result {
            Ok((columns, failed)) => {
                let failed = failed.into_iter().map(|row| FailedRow {
                    row: range.start + row as usize,
                    reason: EvaluateError::TextTooLong { bytes_max: limits.texts.value_bytes_max },
                });
                each(Piece { failed: failed.collect(), rows: range, columns })?;
            }
            Err(error) if !error.is_of_rows() => return Err(error.into()),
            Err(reason) if range.len() <= 1 => {
                let columns = scalars.iter().map(|scalar| new_null_array(&scalar.data_type.arrow(), range.len()));
                let (columns, failed) = (columns.collect(), vec![FailedRow { row: range.start, reason }]);
                each(Piece { rows: range, columns, failed })?;
            }
            Err(_) => {
                let middle = range.start + range.len() / 2;
                waiting.push(middle..range.end);
                waiting.push(range.start..middle);
            }
        }
    }
    Ok(())
}

/// Evaluates `scalars` over `rows` for a query that holds `held_bytes` already.
///
/// Errors: a text or all of them are too large, the query is over, or Polars fails.
pub fn evaluate_within(
    scalars: &[&Scalar],
    rows: &RecordBatch,
    query: &QueryBudget,
    held_bytes: usize,
) -> Result<Vec<ArrayRef>, EvaluateError> {
    let rest = query.bytes_max.saturating_sub(held_bytes);
    let texts = TextBounds { piece_bytes_max: rest.min(EVALUATION_BYTES_MAX), ..TextBounds::DEFAULT };
    let mut pieces = vec![Vec::new(); scalars.len()];
    let mut bytes = held_bytes;
    evaluate_pieces(scalars, rows, EvaluationLimits { texts, query }, &mut |piece| {
        if let Some(failed) = piece.failed.into_iter().next() {
            return Err(failed.reason);
        }
        for (pieces, column) in pieces.iter_mut().zip(piece.columns) {
            bytes += text_bytes(&column);
            pieces.push(column);
        }
        Ok(query.check(bytes)?)
    })?;
    pieces.iter().map(|pieces| joined(pieces)).collect()
}

/// A column in which the values that cannot be computed are NULL.
#[derive(Debug)]
pub struct NullableColumn {
    pub column: ArrayRef,
    /// `None`: no row failed.
    pub failed: Option<FailedRows>,
}

/// The rows of a column for which its expression fails.
#[derive(Debug, Clone)]
pub struct FailedRows {
    pub rows: BooleanBuffer,
    /// The error of the first of them.
    pub reason: String,
}

/// Evaluates `scalars` over `rows` for a query that holds `held_bytes` already. Where one fails for a row its value is NULL, as
/// other values that do not fit: which rows fail depends on each row alone, so every layer gets the same.
///
/// Errors: the results exceed the query's memory, or the query is over.
pub fn evaluate_or_null(
    scalars: &[&Scalar],
    rows: &RecordBatch,
    query: &QueryBudget,
    held_bytes: usize,
) -> Result<Vec<NullableColumn>, EvaluateError> {
    match evaluate_within(scalars, rows, query, held_bytes) {
        Ok(columns) => Ok(columns.into_iter().map(|column| NullableColumn { column, failed: None }).collect()),
        // Most expressions never fail, so they are evaluated one by one only if one has.
        Err(error) if error.is_of_rows() => {
            scalars.iter().map(|scalar| one_or_null(scalar, rows, query, held_bytes)).collect()
        }
        Err(error) => Err(error),
    }
}

fn one_or_null(
    scalar: &Scalar,
    rows: &RecordBatch,
    query: &QueryBudget,
    held_bytes: usize,
) -> Result<NullableColumn, EvaluateError> {
    let mut failed = vec![false; rows.num_rows()];
    let mut first = None;
    let (mut pieces, mut bytes) = (Vec::new(), held_bytes);
    let piece_bytes_max = query.bytes_max.saturating_sub(held_bytes).min(EVALUATION_BYTES_MAX);
    let texts = TextBounds { piece_bytes_max, ..TextBounds::DEFAULT };
    evaluate_pieces::<EvaluateError>(&[scalar], rows, EvaluationLimits { texts, query }, &mut |piece| {
        for FailedRow { row, reason } in piece.failed {
            // The row may fit the memory of a larger query: then it is the query that is too large, and not the row.
            if matches!(reason, EvaluateError::TooLarge { bytes_max } if bytes_max < EVALUATION_BYTES_MAX) {
                return Err(Exceeded::Bytes { bytes_max: query.bytes_max }.into());
            }
            failed[row] = true;
            first.get_or_insert_with(|| reason.to_string());
        }
        bytes += piece.columns.iter().map(text_bytes).sum::<usize>();
        pieces.extend(piece.columns);
        Ok(query.check(bytes)?)
    })?;
    let column = joined(&pieces)?;
    let Some(reason) = first else { return Ok(NullableColumn { column, failed: None }) };
    let rows = BooleanBuffer::from(failed);
    let column = nullif(&column, &BooleanArray::new(rows.clone(), None))?;
    Ok(NullableColumn { column, failed: Some(FailedRows { rows, reason }) })
}

/// Returns the pieces of a column, of which there is at least one, as one.
fn joined(pieces: &[ArrayRef]) -> Result<ArrayRef, EvaluateError> {
    match pieces {
        [one] => Ok(ArrayRef::clone(one)),
        many => Ok(concat(&many.iter().map(AsRef::as_ref).collect::<Vec<_>>())?),
    }
}

/// Evaluates one piece; returns the rows with a text that is too long, ascending.
fn evaluated(
    scalars: &[&Scalar],
    rows: &RecordBatch,
    limits: EvaluationLimits<'_>,
) -> Result<(Vec<ArrayRef>, Vec<u32>), EvaluateError> {
    let (columns, failed) = attempt(scalars, rows, limits)?;
    let bytes_max = limits.texts.piece_bytes_max;
    let are_large = |bytes: &dyn Fn(&ArrayRef) -> usize| columns.iter().map(bytes).sum::<usize>() > bytes_max;
    match are_large(&text_bytes_at_most) && are_large(&text_bytes) {
        true => Err(EvaluateError::TooLarge { bytes_max }),
        false => Ok((columns, failed)),
    }
}

/// A bound of [`text_bytes`] that does not read every code.
fn text_bytes_at_most(column: &ArrayRef) -> usize {
    let Some(coded) = column.as_dictionary_opt::<UInt16Type>() else { return text_bytes(column) };
    let longest = coded.values().as_string_view().lengths().max().unwrap_or_default();
    (longest as usize).saturating_mul(column.len())
}

/// The bytes of the texts of a column, repeated ones included; 0 for columns of other types.
fn text_bytes(column: &ArrayRef) -> usize {
    match column.data_type() {
        ArrowType::Utf8View => column.as_string_view().lengths().map(|length| length as usize).sum(),
        ArrowType::Dictionary(..) => coded_text_bytes(column),
        _ => 0,
    }
}

/// The same of a joined column whose texts are a dictionary.
fn coded_text_bytes(column: &ArrayRef) -> usize {
    let Some(coded) = column.as_dictionary_opt::<UInt16Type>() else { return 0 };
    let lengths: Vec<u32> = coded.values().as_string_view().lengths().collect();
    coded.keys().iter().flatten().map(|code| lengths[usize::from(code)] as usize).sum()
}

/// Divides the rows into ranges of bounded cost.
fn ranges(scalars: &[&Scalar], rows: &RecordBatch) -> Vec<Range<usize>> {
    let nodes: usize = scalars.iter().filter(|scalar| scalar.as_column().is_none()).map(|scalar| scalar.nodes()).sum();
    let mut reads = vec![false; rows.num_columns()];
    let mut note = |index: usize| reads.get_mut(index).into_iter().for_each(|read| *read = true);
    scalars.iter().filter(|s| s.as_column().is_none()).for_each(|scalar| scalar.for_each_column(&mut note));
    let texts: Vec<_> = reads
        .iter()
        .zip(rows.columns())
        .filter_map(|(read, column)| read.then(|| column.as_string_view_opt()).flatten())
        .collect();
    let bytes: usize = texts.iter().flat_map(|texts| texts.lengths()).map(|length| length as usize).sum();
    let total = rows.num_rows();
    let cost = |rows: usize, bytes: usize| nodes.saturating_mul(rows + bytes / BYTES_PER_COST);
    if cost(total, bytes) <= PIECE_COST_MAX {
        return std::iter::once(0..total).collect();
    }
    let mut ranges = Vec::new();
    let (mut start, mut bytes) = (0, 0);
    let mut lengths: Vec<_> = texts.iter().map(|texts| texts.lengths()).collect();
    for row in 0..total {
        let more: usize = lengths.iter_mut().filter_map(Iterator::next).map(|length| length as usize).sum();
        if row > start && cost(row + 1 - start, bytes + more) > PIECE_COST_MAX {
            ranges.push(start..row);
            (start, bytes) = (row, 0);
        }
        bytes += more;
    }
    ranges.push(start..total);
    ranges
}
