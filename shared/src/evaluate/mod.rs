//! placeholder until the sql branch lands
use crate::scalar::Scalar;
use arrow::array::{ArrayRef, RecordBatch};
#[derive(Debug, thiserror::Error)]
pub enum EvaluateError {
    #[error(transparent)]
    Arrow(#[from] arrow::error::ArrowError),
}
pub fn evaluate(scalars: &[&Scalar], rows: &RecordBatch) -> Result<Vec<ArrayRef>, EvaluateError> {
    Ok(scalars.iter().map(|s| rows.column(s.as_column().expect("plain")).clone()).collect())
}
