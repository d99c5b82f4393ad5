//! Chooses the sums, counts and extremes that Polars computes for a view's aggregates: each once, and no wider than needed.
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

/// The value at which the halves of a DECIMAL are split.
pub const HALF: i128 = 1_000_000_000_000_000_000;

/// Returns whether an aggregate's state consists of counts, extremes and sums that do not depend on the order of the events.
/// Sums of DOUBLE do.
pub fn is_reduced(aggregate: &Aggregate) -> bool {
    use AggregateFunction::{Avg, Count, Max, Min, Sum};
    match aggregate.function {
        _ if aggregate.signed => false,
        Count | Max | Min => true,
        Sum | Avg => aggregate.argument.as_ref().is_some_and(|argument| argument.data_type != DataType::Double),
        _ => false,
    }
}

/// A number that Polars computes per group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reduction {
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

/// The columns of a sum of integers; numbers are those of [`Reductions::name`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IntegerSum {
    Whole(usize),
    Halves { upper: usize, lower: usize },
}

/// The columns of an aggregate's state; numbers are those of [`Reductions::name`].
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

/// The numbers that Polars computes for a view over some files.
#[derive(Debug)]
pub struct Reductions<'v> {
    inputs: Vec<(Option<&'v Scalar>, Option<&'v Scalar>)>,
    steps: Vec<Reduction>,
    rows: Option<usize>,
    /// One per aggregate of the view.
    pub sources: Vec<StateSource>,
}

impl<'v> Reductions<'v> {
    /// Returns the reductions for all aggregates of `view`, over `rows` rows. `facts` are by index of the stream's columns.
    pub fn new(view: &'v View, rows: u64, facts: &dyn Fn(usize) -> ColumnFacts) -> Reductions<'v> {
        let mut reductions = Reductions { inputs: Vec::new(), steps: Vec::new(), rows: None, sources: Vec::new() };
        for aggregate in &view.aggregates {
            let source = reductions.add(aggregate, rows, facts);
            reductions.sources.push(source);
        }
        // Polars needs something to compute, and without groups only this count shows that there were no rows.
        if reductions.steps.is_empty() || (view.window == Window::All && view.dimensions.is_empty()) {
            reductions.rows = Some(reductions.step(Reduction::Rows));
        }
        reductions
    }

    /// Returns the reduction that counts rows, if there is one: a view with neither windows nor dimensions has it.
    pub fn rows(&self) -> Option<usize> {
        self.rows
    }

    /// Returns the name of a reduction's column.
    pub fn name(number: usize) -> String {
        format!("__r{number}")
    }

    /// Returns the columns that the reductions read, over the stream's columns `names`.
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
        let step = |(number, step): (usize, &Reduction)| {
            let input = |number: usize| col(input_name(number));
            let wide = |number: usize| input(number).to_physical().cast(PolarsType::Int128);
            let expression = match *step {
                Reduction::Rows => len(),
                Reduction::Values(a) => input(a).count(),
                Reduction::Trues(a) => input(a).sum(),
                Reduction::Sum64(a) => input(a).cast(PolarsType::Int64).sum(),
                Reduction::Sum128(a) => wide(a).sum(),
                Reduction::SumUpperHalf(a) => wide(a).floor_div(lit(HALF)).sum(),
                Reduction::SumLowerHalf(a) => (wide(a) - wide(a).floor_div(lit(HALF)) * lit(HALF)).sum(),
                Reduction::Smallest(a) => input(a).min(),
                Reduction::Largest(a) => input(a).max(),
                Reduction::HasNan(a) => input(a).is_nan().any(true),
            };
            expression.alias(Reductions::name(number))
        };
        self.steps.iter().enumerate().map(step).collect()
    }

    fn add(&mut self, aggregate: &'v Aggregate, rows: u64, facts: &dyn Fn(usize) -> ColumnFacts) -> StateSource {
        let filter = aggregate.filter.as_ref();
        let Some(argument) = aggregate.argument.as_ref() else {
            let step = if filter.is_some() { Reduction::Trues(self.input(None, filter)) } else { Reduction::Rows };
            return StateSource::Count(self.step(step));
        };
        let known = argument.as_column().map(facts).filter(|_| filter.is_none());
        let input = self.input(Some(argument), filter);
        let is_full = known.is_some_and(|facts| facts.no_nulls);
        let count = |all: &mut Self| all.step(if is_full { Reduction::Rows } else { Reduction::Values(input) });
        match aggregate.function {
            AggregateFunction::Count => StateSource::Count(count(self)),
            AggregateFunction::Sum | AggregateFunction::Avg => {
                let count = count(self);
                let magnitude = argument.as_column().and_then(|column| facts(column).magnitude);
                let sum = match sum_width(argument.data_type, rows, magnitude) {
                    Width::Bits64 => IntegerSum::Whole(self.step(Reduction::Sum64(input))),
                    Width::Bits128 => IntegerSum::Whole(self.step(Reduction::Sum128(input))),
                    Width::Halves => {
                        let upper = self.step(Reduction::SumUpperHalf(input));
                        IntegerSum::Halves { upper, lower: self.step(Reduction::SumLowerHalf(input)) }
                    }
                };
                StateSource::Integers { sum, count }
            }
            AggregateFunction::Min => {
                StateSource::Extreme { value: self.step(Reduction::Smallest(input)), data_type: argument.data_type }
            }
            AggregateFunction::Max => {
                let value = self.step(Reduction::Largest(input));
                match argument.data_type {
                    DataType::Double => {
                        StateSource::LargestDouble { value, has_nan: self.step(Reduction::HasNan(input)) }
                    }
                    data_type => StateSource::Extreme { value, data_type },
                }
            }
            other => unreachable!("{other:?} is folded, not reduced"),
        }
    }

    fn input(&mut self, argument: Option<&'v Scalar>, filter: Option<&'v Scalar>) -> usize {
        number_of(&mut self.inputs, (argument, filter))
    }

    fn step(&mut self, step: Reduction) -> usize {
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

/// Returns how wide a sum of `rows` values must be so that no partial sum can wrap.
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
    fn sums_are_as_wide_as_their_values_require() {
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
