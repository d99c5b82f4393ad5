//! Evaluates expressions over Arrow rows by one translation to Polars, which all layers use.
//!
//! Where Polars differs from the dialect (overflow wraps, division of integers gives floats, `%` takes the divisor's sign),
//! a function of our own replaces it: see [`kernel`] and the files beside it.

mod arithmetic;
mod cast;
mod choose;
mod frame;
mod kernel;
mod like;
#[cfg(test)]
mod tests;
mod text;
mod timestamp;
mod translate;

use std::panic::{AssertUnwindSafe, catch_unwind};

use arrow::array::ArrayRef;
use arrow::datatypes::DataType as ArrowType;
use arrow::record_batch::RecordBatch;
use polars::prelude::{Column, DataFrame, IntoColumn, IntoLazy, OptFlags, PolarsError, PolarsResult};

pub use self::frame::{from_polars, to_polars_series};
pub use self::kernel::polars_type;
pub use self::translate::{column, to_polars};
use crate::scalar::Scalar;

/// The reason why expressions could not be evaluated. A user's text cannot cause it: it is a defect here or in Polars.
#[derive(Debug, thiserror::Error)]
pub enum EvaluateError {
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

/// Evaluates expressions over a batch at once (I7); [`crate::scalar::Node::Column`] is an index into its columns. Every
/// result has as many rows as the batch and the [`crate::types::DataType::arrow`] type of its expression.
pub fn evaluate(scalars: &[&Scalar], rows: &RecordBatch) -> Result<Vec<ArrayRef>, EvaluateError> {
    // I7: both layers evaluate through this function.
    let column = |index: usize| {
        let columns = rows.num_columns();
        rows.columns().get(index).ok_or(EvaluateError::NoSuchColumn { index, columns })
    };
    let computed: Vec<&Scalar> = scalars.iter().copied().filter(|scalar| scalar.as_column().is_none()).collect();
    let mut results = if computed.is_empty() { Vec::new() } else { compute(&computed, rows)? }.into_iter();
    let result = |scalar: &&Scalar| match scalar.as_column() {
        Some(index) => column(index).cloned(),
        None => Ok(results.next().expect("one result per computed expression")),
    };
    scalars.iter().map(result).collect()
}

fn compute(scalars: &[&Scalar], rows: &RecordBatch) -> Result<Vec<ArrayRef>, EvaluateError> {
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
    // I7
    let expressions: Vec<_> =
        scalars.iter().enumerate().map(|(at, scalar)| to_polars(scalar, &names).alias(format!("r{at}"))).collect();
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
    let results = catch_unwind(AssertUnwindSafe(run)).map_err(|_| EvaluateError::Panicked)??;
    results
        .into_iter()
        .zip(scalars)
        .map(|(result, scalar)| {
            let result =
                if result.len() == rows.num_rows() { result } else { result.new_from_index(0, rows.num_rows()) };
            from_polars(result.as_materialized_series(), scalar.data_type)
        })
        .collect()
}
