//! Turns a function over whole columns into a step of a Polars plan.

use std::sync::Arc;

use polars::prelude::{
    Column, DataType as PolarsType, Expr, Field, IntoColumn, PolarsResult, Series, TimeUnit, TimeZone,
};

use super::meter::Meter;
use crate::types::DataType;

/// The Polars type that carries `data_type`.
pub fn polars_type(data_type: DataType) -> PolarsType {
    match data_type {
        DataType::Boolean => PolarsType::Boolean,
        DataType::Int => PolarsType::Int32,
        DataType::BigInt => PolarsType::Int64,
        DataType::Double => PolarsType::Float64,
        DataType::Decimal { precision, scale } => {
            PolarsType::Decimal(usize::from(precision), usize::from(scale.unsigned_abs()))
        }
        DataType::String | DataType::Json => PolarsType::String,
        DataType::Date => PolarsType::Date,
        DataType::Timestamp => PolarsType::Datetime(TimeUnit::Microseconds, Some(TimeZone::UTC)),
    }
}

/// A step that computes `function`, row by row, over `inputs` (at least one). Constants arrive as long as the columns.
pub(super) fn apply<F>(inputs: Vec<Expr>, output: DataType, function: F) -> Expr
where
    F: Fn(&[Series]) -> PolarsResult<Series> + Send + Sync + 'static,
{
    let mut inputs = inputs.into_iter();
    let first = inputs.next().expect("a function has an argument");
    let rest: Vec<Expr> = inputs.collect();
    let run = move |columns: &mut [Column]| {
        let name = columns[0].name().clone();
        let lengths = columns.iter().map(Column::len);
        let rows = lengths.clone().find(|length| *length != 1).unwrap_or(1);
        let series: Vec<Series> = columns
            .iter()
            .map(|column| match column.len() == rows {
                true => column.as_materialized_series().rechunk(),
                false => column.new_from_index(0, rows).take_materialized_series(),
            })
            .collect();
        let result = function(&series)?;
        debug_assert_eq!(*result.dtype(), polars_type(output));
        Ok(result.with_name(name).into_column())
    };
    first.map_many(run, &rest, move |_, fields| Ok(Field::new(fields[0].name().clone(), polars_type(output))))
}

/// A step as [`apply`] makes it that `meter` can stop: for functions whose cost or result grows with the lengths of texts.
pub(super) fn metered<F>(meter: &Arc<Meter>, inputs: Vec<Expr>, output: DataType, function: F) -> Expr
where
    F: Fn(&Meter, &[Series]) -> PolarsResult<Series> + Send + Sync + 'static,
{
    let meter = Arc::clone(meter);
    apply(inputs, output, move |series| {
        meter.check()?;
        function(&meter, series)
    })
}
