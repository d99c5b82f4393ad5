//! Evaluates expressions over Arrow rows by one translation to Polars, which all layers use.
//!
//! Where Polars differs from the dialect (overflow wraps, division of integers gives floats, `%` takes the divisor's sign),
//! a function of our own replaces it: see [`kernel`] and the files beside it. Rows are evaluated in [`pieces`], within the
//! bounds of [`meter`]; [`events`] evaluates a view over the events of its stream.

mod arithmetic;
mod cast;
mod choose;
pub mod events;
mod frame;
pub mod growth;
mod kernel;
mod like;
mod meter;
pub mod pieces;
#[cfg(test)]
mod tests;
mod text;
mod timestamp;
mod translate;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, BooleanArray};
use arrow::buffer::BooleanBuffer;
use arrow::datatypes::DataType as ArrowType;
use arrow::record_batch::RecordBatch;
use polars::prelude::{Column, DataFrame, IntoColumn, IntoLazy, OptFlags, PolarsError, PolarsResult};

pub use self::frame::{from_polars, to_polars_series};
pub use self::kernel::polars_type;
use self::meter::Meter;
pub use self::meter::TextBounds;
use self::pieces::{EvaluationLimits, evaluate_within};
use self::translate::translated;
pub use self::translate::{column, to_polars};
use crate::partial::query_budget::{Exceeded, QueryBudget};
use crate::scalar::{Node, Scalar};

/// The reason why expressions could not be evaluated. But for the limits, a user's text cannot cause it: it is a defect here
/// or in Polars.
#[derive(Debug, thiserror::Error)]
pub enum EvaluateError {
    #[error("an expression builds a text of more than {bytes_max} bytes (EVALUATED_TEXT_BYTES_MAX)")]
    TextTooLong { bytes_max: usize },
    #[error("the texts of the expressions exceed {bytes_max} bytes for one row")]
    TooLarge { bytes_max: usize },
    #[error(transparent)]
    Exceeded(#[from] Exceeded),
    #[error("polars could not evaluate the expression")]
    Polars(#[from] PolarsError),
    #[error("polars failed while evaluating the expression")]
    Panicked,
    #[error("could not convert a column between arrow and polars")]
    Arrow(#[from] arrow::error::ArrowError),
    #[error("the expression reads column {index} of {columns}")]
    NoSuchColumn { index: usize, columns: usize },
    #[error("unsupported arrow type {0}")]
    UnknownType(ArrowType),
    #[error("the expression returned {given}, expected {wanted}")]
    WrongType { given: String, wanted: String },
}

impl EvaluateError {
    /// Returns whether some rows cause it, so that others can be evaluated without them.
    fn is_of_rows(&self) -> bool {
        match self {
            EvaluateError::TextTooLong { .. }
            | EvaluateError::TooLarge { .. }
            | EvaluateError::Polars(_)
            | EvaluateError::Panicked => true,
            EvaluateError::Exceeded(_)
            | EvaluateError::Arrow(_)
            | EvaluateError::NoSuchColumn { .. }
            | EvaluateError::UnknownType(_)
            | EvaluateError::WrongType { .. } => false,
        }
    }

    /// Returns whether the limits of texts cause it.
    pub fn is_too_large(&self) -> bool {
        matches!(self, EvaluateError::TextTooLong { .. } | EvaluateError::TooLarge { .. })
    }
}

/// Evaluates expressions over a batch (I7); [`crate::scalar::Node::Column`] is an index into its columns. Every
/// result has as many rows as the batch and the [`crate::types::DataType::arrow`] type of its expression.
pub fn evaluate(scalars: &[&Scalar], rows: &RecordBatch) -> Result<Vec<ArrayRef>, EvaluateError> {
    evaluate_within(scalars, rows, &QueryBudget::unlimited(), 0)
}

/// Evaluates expressions over a batch at once; returns the rows with a text that is too long, ascending.
fn attempt(
    scalars: &[&Scalar],
    rows: &RecordBatch,
    limits: EvaluationLimits<'_>,
) -> Result<(Vec<ArrayRef>, Vec<u32>), EvaluateError> {
    // I7: both layers evaluate through this function.
    let column = |index: usize| {
        let columns = rows.num_columns();
        rows.columns().get(index).ok_or(EvaluateError::NoSuchColumn { index, columns })
    };
    let is_direct = |scalar: &Scalar| scalar.as_column().is_some() || as_null_check(scalar).is_some();
    let computed: Vec<&Scalar> = scalars.iter().copied().filter(|scalar| !is_direct(scalar)).collect();
    let (results, failed) = if computed.is_empty() { Default::default() } else { compute(&computed, rows, limits)? };
    let mut results = results.into_iter();
    let result = |scalar: &&Scalar| match (scalar.as_column(), as_null_check(scalar)) {
        (Some(index), _) => column(index).cloned(),
        (None, Some(NullCheck { column: index, is_null })) => Ok(null_check(column(index)?, is_null)),
        (None, None) => Ok(results.next().expect("one result per computed expression")),
    };
    Ok((scalars.iter().map(result).collect::<Result<_, _>>()?, failed))
}

/// `column IS [NOT] NULL`, the condition of an inner join: it needs no more than the bits of the column.
struct NullCheck {
    column: usize,
    is_null: bool,
}

fn as_null_check(scalar: &Scalar) -> Option<NullCheck> {
    let (is_null, of) = match &scalar.node {
        Node::IsNull(of) => (true, of),
        Node::Not(not) => match &not.node {
            Node::IsNull(of) => (false, of),
            _ => return None,
        },
        _ => return None,
    };
    of.as_column().map(|column| NullCheck { column, is_null })
}

fn null_check(column: &ArrayRef, is_null: bool) -> ArrayRef {
    let bits = match column.logical_nulls() {
        None if is_null => BooleanBuffer::new_unset(column.len()),
        None => BooleanBuffer::new_set(column.len()),
        Some(nulls) if is_null => !nulls.inner(),
        Some(nulls) => nulls.into_inner(),
    };
    Arc::new(BooleanArray::new(bits, None))
}

fn compute(
    scalars: &[&Scalar],
    rows: &RecordBatch,
    limits: EvaluationLimits<'_>,
) -> Result<(Vec<ArrayRef>, Vec<u32>), EvaluateError> {
    let mut used = vec![false; rows.num_columns()];
    let mut missing = None;
    for scalar in scalars {
        scalar.for_each_column(&mut |index| match used.get_mut(index) {
            Some(used) => *used = true,
            None => missing = Some(index),
        });
    }
    if let Some(index) = missing {
        return Err(EvaluateError::NoSuchColumn { index, columns: rows.num_columns() });
    }
    let names: Vec<String> = (0..rows.num_columns()).map(|index| format!("c{index}")).collect();
    let mut columns = Vec::new();
    for (index, array) in rows.columns().iter().enumerate().filter(|(index, _)| used[*index]) {
        columns.push(to_polars_series(&names[index], array)?.into_column());
    }
    let meter = Arc::new(Meter::new(limits.texts, limits.query, rows.num_rows()));
    // I7
    let expressions: Vec<_> = scalars
        .iter()
        .enumerate()
        .map(|(at, scalar)| translated(scalar, &names, &meter).alias(format!("r{at}")))
        .collect();
    let run = || -> PolarsResult<Vec<Column>> {
        let frame = match columns.is_empty() {
            true => DataFrame::empty_with_height(rows.num_rows()),
            false => DataFrame::new(rows.num_rows(), columns)?,
        };
        // Nothing is read from anywhere: of the optimizer only the part that makes expressions run is of use.
        let optimizations = OptFlags::TYPE_COERCION | OptFlags::SIMPLIFY_EXPR;
        let frame = frame.lazy().with_optimizations(optimizations).select(expressions).collect()?;
        Ok(frame.into_columns())
    };
    let results = catch_unwind(AssertUnwindSafe(run)).map_err(|_| EvaluateError::Panicked);
    if let Some(exceeded) = meter.stopped() {
        return Err(exceeded.into());
    }
    if meter.is_full() {
        return Err(EvaluateError::TooLarge { bytes_max: limits.texts.piece_bytes_max });
    }
    let results = results??
        .into_iter()
        .zip(scalars)
        .map(|(result, scalar)| {
            let result =
                if result.len() == rows.num_rows() { result } else { result.new_from_index(0, rows.num_rows()) };
            from_polars(result.as_materialized_series(), scalar.data_type)
        })
        .collect::<Result<_, _>>()?;
    Ok((results, meter.outgrown_rows()))
}
