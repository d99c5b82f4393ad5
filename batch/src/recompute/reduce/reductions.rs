//! Which sums, counts and extremes does Polars compute for a view's aggregates? Each once, and no wider than needed.
//!
//! Integers and decimals are exact: sums run in 64 bits where the archive's statistics prove that they fit, otherwise in
//! 128, and DECIMALs that might not fit those in two halves. Counts come as 32 bits from Polars, which is enough because
//! no query reads more rows.

use polars::prelude::{DataType as PolarsType, Expr, LiteralValue, NULL, col, len, lit, when};
use shared::evaluate::to_polars;
use shared::scalar::Scalar;
use shared::types::DataType;
use shared::view::{Aggregate, AggregateFunction, View};
use shared::window::Window;

use crate::recompute::reduce::column_stats::ColumnFacts;

/// Where the halves of a DECIMAL are split.
pub const HALF: i128 = 1_000_000_000_000_000_000;

/// Is an aggregate's state made of counts, extremes and sums that come out the same in any order? Those of DOUBLE do not.
pub fn is_reduced(aggregate: &Aggregate) -> bool {
    use AggregateFunction::{Avg, Count, Max, Min, Sum};
    match aggregate.function {
        Count | Max | Min => true,
        Sum | Avg => aggregate.argument.as_ref().is_some_and(|argument| argument.data_type != DataType::Double),
        _ => false,
    }
}

/// One number per group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    Rows,
    /// Rows whose input is not null.
    Values(usize),
    /// Rows whose input is true.
    Trues(usize),
    Sum64(usize),
    Sum128(usize),
    SumUpperHalf(usize),
    SumLowerHalf(usize),
    Smallest(usize),
    Largest(usize),
    HasNan(usize),
}

/// Where a sum of integers is found; numbers are those of [`Reductions::name`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IntegerSum {
    Whole(usize),
    Halves { upper: usize, lower: usize },
}

/// Where the parts of an aggregate's state are found; numbers are those of [`Reductions::name`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StateSource {
    Count(usize),
    Integers {
        sum: IntegerSum,
        count: usize,
    },
    Extreme {
        value: usize,
        data_type: DataType,
    },
    /// The largest number, unless a NaN is there.
    LargestDouble {
        value: usize,
        has_nan: usize,
    },
}

/// What Polars computes for a view over some files.
#[derive(Debug)]
pub struct Reductions<'v> {
    inputs: Vec<(Option<&'v Scalar>, Option<&'v Scalar>)>,
    steps: Vec<Step>,
    rows: Option<usize>,
    /// One per aggregate of the view.
    pub sources: Vec<StateSource>,
}

impl<'v> Reductions<'v> {
    /// For all aggregates of `view`, over `rows` rows of whose columns `facts` (by index of the stream's columns) are known.
    pub fn new(view: &'v View, rows: u64, facts: &dyn Fn(usize) -> ColumnFacts) -> Reductions<'v> {
        let mut reductions = Reductions { inputs: Vec::new(), steps: Vec::new(), rows: None, sources: Vec::new() };
        for aggregate in &view.aggregates {
            let source = reductions.add(aggregate, rows, facts);
            reductions.sources.push(source);
        }
        // Polars wants something to compute, and a result without groups says only by this that there were no rows.
        if reductions.steps.is_empty() || (view.window == Window::All && view.dimensions.is_empty()) {
            reductions.rows = Some(reductions.step(Step::Rows));
        }
        reductions
    }

    /// The number of rows, if it is computed: it is for a view with neither windows nor dimensions.
    pub fn rows(&self) -> Option<usize> {
        self.rows
    }

    /// The name of a reduction's column.
    pub fn name(number: usize) -> String {
        format!("__r{number}")
    }

    /// The columns the reductions read, over the stream's columns, which are called `names`.
    pub fn inputs(&self, names: &[String]) -> Vec<Expr> {
        let input = |(number, (argument, filter)): (usize, &(Option<&Scalar>, Option<&Scalar>))| {
            let filter = filter.map(|f| to_polars(f, names));
            let expression = match (argument.map(|a| to_polars(a, names)), filter) {
                (Some(argument), None) => argument,
                (Some(argument), Some(filter)) => when(filter).then(argument).otherwise(lit(NULL)),
                (None, Some(filter)) => filter,
                (None, None) => lit(LiteralValue::untyped_null()),
            };
            expression.alias(input_name(number))
        };
        self.inputs.iter().enumerate().map(input).collect()
    }

    /// The reductions, over the columns of [`Reductions::inputs`].
    pub fn expressions(&self) -> Vec<Expr> {
        let step = |(number, step): (usize, &Step)| {
            let input = |number: usize| col(input_name(number));
            let wide = |number: usize| input(number).to_physical().cast(PolarsType::Int128);
            let expression = match *step {
                Step::Rows => len(),
                Step::Values(a) => input(a).count(),
                Step::Trues(a) => input(a).sum(),
                Step::Sum64(a) => input(a).cast(PolarsType::Int64).sum(),
                Step::Sum128(a) => wide(a).sum(),
                Step::SumUpperHalf(a) => wide(a).floor_div(lit(HALF)).sum(),
                Step::SumLowerHalf(a) => (wide(a) - wide(a).floor_div(lit(HALF)) * lit(HALF)).sum(),
                Step::Smallest(a) => input(a).min(),
                Step::Largest(a) => input(a).max(),
                Step::HasNan(a) => input(a).is_nan().any(true),
            };
            expression.alias(Reductions::name(number))
        };
        self.steps.iter().enumerate().map(step).collect()
    }

    fn add(&mut self, aggregate: &'v Aggregate, rows: u64, facts: &dyn Fn(usize) -> ColumnFacts) -> StateSource {
        let filter = aggregate.filter.as_ref();
        let Some(argument) = aggregate.argument.as_ref() else {
            let step = if filter.is_some() { Step::Trues(self.input(None, filter)) } else { Step::Rows };
            return StateSource::Count(self.step(step));
        };
        let known = argument.as_column().map(facts).filter(|_| filter.is_none());
        let input = self.input(Some(argument), filter);
        let is_full = known.is_some_and(|facts| facts.no_nulls);
        let count = |all: &mut Self| all.step(if is_full { Step::Rows } else { Step::Values(input) });
        match aggregate.function {
            AggregateFunction::Count => StateSource::Count(count(self)),
            AggregateFunction::Sum | AggregateFunction::Avg => {
                let count = count(self);
                let magnitude = argument.as_column().and_then(|column| facts(column).magnitude);
                let sum = match sum_width(argument.data_type, rows, magnitude) {
                    Width::Bits64 => IntegerSum::Whole(self.step(Step::Sum64(input))),
                    Width::Bits128 => IntegerSum::Whole(self.step(Step::Sum128(input))),
                    Width::Halves => {
                        let upper = self.step(Step::SumUpperHalf(input));
                        IntegerSum::Halves { upper, lower: self.step(Step::SumLowerHalf(input)) }
                    }
                };
                StateSource::Integers { sum, count }
            }
            AggregateFunction::Min => {
                StateSource::Extreme { value: self.step(Step::Smallest(input)), data_type: argument.data_type }
            }
            AggregateFunction::Max => {
                let value = self.step(Step::Largest(input));
                match argument.data_type {
                    DataType::Double => StateSource::LargestDouble { value, has_nan: self.step(Step::HasNan(input)) },
                    data_type => StateSource::Extreme { value, data_type },
                }
            }
            other => unreachable!("{other:?} is folded, not reduced"),
        }
    }

    fn input(&mut self, argument: Option<&'v Scalar>, filter: Option<&'v Scalar>) -> usize {
        number_of(&mut self.inputs, (argument, filter))
    }

    fn step(&mut self, step: Step) -> usize {
        number_of(&mut self.steps, step)
    }
}

fn number_of<T: PartialEq>(list: &mut Vec<T>, item: T) -> usize {
    list.iter().position(|other| *other == item).unwrap_or_else(|| {
        list.push(item);
        list.len() - 1
    })
}

fn input_name(number: usize) -> String {
    format!("__a{number}")
}

#[derive(Debug, PartialEq, Eq)]
enum Width {
    Bits64,
    Bits128,
    Halves,
}

/// How wide a sum of `rows` values has to be so that it cannot wrap, wherever it is begun.
fn sum_width(data_type: DataType, rows: u64, magnitude: Option<u64>) -> Width {
    let fits_64 = |magnitude: u64| u128::from(rows) * u128::from(magnitude) <= i64::MAX as u128;
    match data_type {
        DataType::Decimal { precision, .. } => {
            let fits = 10u128.pow(u32::from(precision)).checked_mul(u128::from(rows.max(1)));
            if fits.is_some_and(|sum| sum < 10u128.pow(38)) { Width::Bits128 } else { Width::Halves }
        }
        DataType::Int if fits_64(1 << 31) => Width::Bits64,
        _ if magnitude.is_some_and(fits_64) => Width::Bits64,
        _ => Width::Bits128,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_are_as_wide_as_they_have_to_be() {
        let decimal = |precision| DataType::Decimal { precision, scale: 2 };
        let table = [
            (DataType::Int, 1 << 31, None, Width::Bits64),
            (DataType::Int, 1 << 33, None, Width::Bits128),
            (DataType::BigInt, 10, None, Width::Bits128),
            (DataType::BigInt, 1_000, Some(1 << 40), Width::Bits64),
            (DataType::BigInt, 2, Some(1 << 62), Width::Bits128),
            (DataType::BigInt, 1, Some(1 << 63), Width::Bits128),
            (decimal(18), 1 << 32, None, Width::Bits128),
            (decimal(38), 1, None, Width::Halves),
            (decimal(30), 1 << 32, None, Width::Halves),
        ];
        for (data_type, rows, magnitude, width) in table {
            assert_eq!(sum_width(data_type, rows, magnitude), width, "{data_type} x {rows}, {magnitude:?}");
        }
    }
}
