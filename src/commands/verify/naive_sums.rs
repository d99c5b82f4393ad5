//! Accumulates values one after the other, in the simplest way: COUNT, SUM, AVG, MIN and MAX. It shares no state with the
//! layers, so that it shows when they are wrong.

use std::cmp::Ordering;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, Date32Array, Decimal128Array, Float64Array, Int32Array, Int64Array,
    TimestampMicrosecondArray, new_null_array,
};
use arrow::datatypes::{
    DataType as ArrowType, Date32Type, Decimal128Type, Float64Type, Int32Type, Int64Type, TimestampMicrosecondType,
    i256,
};
use arrow::error::ArrowError;
use shared::double::canonical;
use shared::types::DataType;
use shared::view::{Aggregate, AggregateFunction};

/// The largest unscaled DECIMAL(38, _).
const DECIMAL_MAX: i128 = 10i128.pow(38) - 1;

/// A value: of DOUBLE, or the integer that carries any other type.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Number {
    Integer(i128),
    Double(f64),
}

/// The values of one aggregate so far.
#[derive(Debug, Clone, Copy, Default)]
pub struct Accumulated {
    count: i64,
    integers: i256,
    /// The sum of DOUBLE values, and what it lost by rounding.
    doubles: f64,
    lost: f64,
    best: Option<Number>,
}

/// Returns whether [`Accumulated`] computes the aggregate; otherwise its name.
pub fn is_simple(aggregate: &Aggregate) -> Result<(), &'static str> {
    let is_number =
        aggregate.argument.as_ref().is_none_or(|a| !matches!(a.data_type, DataType::String | DataType::Boolean));
    match aggregate.function {
        _ if aggregate.signed => Err("a measure of a table that is not a sum"),
        AggregateFunction::Count => Ok(()),
        AggregateFunction::Sum | AggregateFunction::Avg | AggregateFunction::Min | AggregateFunction::Max
            if is_number =>
        {
            Ok(())
        }
        AggregateFunction::Sum | AggregateFunction::Avg => Err("a sum"),
        AggregateFunction::Min | AggregateFunction::Max => Err("MIN or MAX of text"),
        AggregateFunction::Spread { .. } => Err("a deviation"),
        AggregateFunction::CountDistinct => Err("COUNT(DISTINCT)"),
        AggregateFunction::Percentile { .. } => Err("a percentile"),
        AggregateFunction::TopK { .. } => Err("TOP_K"),
        AggregateFunction::First | AggregateFunction::Last => Err("FIRST_VALUE or LAST_VALUE"),
    }
}

/// Returns the value in `row`; `None`: NULL. A text stands for 0.
pub fn number(column: &ArrayRef, row: usize) -> Option<Number> {
    if column.is_null(row) {
        return None;
    }
    Some(match column.data_type() {
        ArrowType::Int32 => Number::Integer(column.as_primitive::<Int32Type>().value(row).into()),
        ArrowType::Int64 => Number::Integer(column.as_primitive::<Int64Type>().value(row).into()),
        ArrowType::Date32 => Number::Integer(column.as_primitive::<Date32Type>().value(row).into()),
        ArrowType::Timestamp(..) => {
            Number::Integer(column.as_primitive::<TimestampMicrosecondType>().value(row).into())
        }
        ArrowType::Decimal128(..) => Number::Integer(column.as_primitive::<Decimal128Type>().value(row)),
        ArrowType::Float64 => Number::Double(canonical(column.as_primitive::<Float64Type>().value(row))),
        _ => Number::Integer(0),
    })
}

/// Returns a column of `values`. Values that are not of a number's type are NULL.
pub fn column(data_type: DataType, values: &[Option<Number>]) -> Result<ArrayRef, ArrowError> {
    let integers = || values.iter().map(|value| value.and_then(Number::integer));
    Ok(match data_type {
        DataType::Int => Arc::new(integers().map(|v| v.and_then(|v| i32::try_from(v).ok())).collect::<Int32Array>()),
        DataType::BigInt => Arc::new(integers().map(|v| v.and_then(|v| i64::try_from(v).ok())).collect::<Int64Array>()),
        DataType::Date => Arc::new(integers().map(|v| v.and_then(|v| i32::try_from(v).ok())).collect::<Date32Array>()),
        DataType::Timestamp => {
            let times: TimestampMicrosecondArray = integers().map(|v| v.and_then(|v| i64::try_from(v).ok())).collect();
            Arc::new(times.with_timezone("UTC"))
        }
        DataType::Decimal { precision, scale } => {
            Arc::new(integers().collect::<Decimal128Array>().with_precision_and_scale(precision, scale)?)
        }
        DataType::Double => {
            let double = |value: &Option<Number>| value.map(|value| canonical(value.double()));
            Arc::new(values.iter().map(double).collect::<Float64Array>())
        }
        other => new_null_array(&other.arrow(), values.len()),
    })
}

impl Number {
    fn integer(self) -> Option<i128> {
        match self {
            Number::Integer(value) => Some(value),
            Number::Double(_) => None,
        }
    }

    fn double(self) -> f64 {
        match self {
            Number::Integer(value) => value as f64,
            Number::Double(value) => value,
        }
    }

    /// NaN is greater than every number.
    fn order(self, other: Number) -> Ordering {
        match (self, other) {
            (Number::Integer(a), Number::Integer(b)) => a.cmp(&b),
            (a, b) => a.double().total_cmp(&b.double()),
        }
    }
}

impl Accumulated {
    /// Adds a value of an event; of `COUNT(*)` any.
    pub fn add(&mut self, function: AggregateFunction, value: Number) {
        self.count += 1;
        match value {
            Number::Integer(value) => self.integers = self.integers.wrapping_add(i256::from_i128(value)),
            Number::Double(value) => {
                // Neumaier 1974.
                let sum = self.doubles + value;
                let (larger, smaller) =
                    if self.doubles.abs() >= value.abs() { (self.doubles, value) } else { (value, self.doubles) };
                self.lost += (larger - sum) + smaller;
                self.doubles = sum;
            }
        }
        let replaces = match function {
            AggregateFunction::Min => Ordering::Less,
            AggregateFunction::Max => Ordering::Greater,
            _ => return,
        };
        if self.best.is_none_or(|best| value.order(best) == replaces) {
            self.best = Some(value);
        }
    }

    /// Returns the value of the aggregate; `None`: NULL.
    pub fn value(&self, aggregate: &Aggregate) -> Option<Number> {
        let argument = aggregate.argument.as_ref().map_or(DataType::BigInt, |argument| argument.data_type);
        let doubles = if self.doubles.is_finite() { self.doubles + self.lost } else { self.doubles };
        let integers = self.integers.to_i128();
        match (aggregate.function, argument) {
            (AggregateFunction::Count, _) => Some(Number::Integer(self.count.into())),
            _ if self.count == 0 => None,
            (AggregateFunction::Sum, DataType::Double) => Some(Number::Double(doubles)),
            (AggregateFunction::Sum, DataType::Decimal { .. }) => {
                integers.filter(|sum| sum.abs() <= DECIMAL_MAX).map(Number::Integer)
            }
            (AggregateFunction::Sum, _) => integers.filter(|sum| i64::try_from(*sum).is_ok()).map(Number::Integer),
            (AggregateFunction::Avg, DataType::Double) => Some(Number::Double(doubles / self.count as f64)),
            (AggregateFunction::Avg, of) => {
                let unit = if let DataType::Decimal { scale, .. } = of { 10f64.powi(scale.into()) } else { 1.0 };
                integers.map(|sum| Number::Double(sum as f64 / unit / self.count as f64))
            }
            _ => self.best,
        }
    }
}

#[cfg(test)]
mod tests {
    use shared::sql::parse_definitions;

    use super::*;

    #[test]
    fn aggregates_are_those_of_the_definitions() {
        let sql = "CREATE STREAM s (at TIMESTAMP, a DECIMAL(6,2), b DOUBLE) WITH (event_time = 'at');
            CREATE VIEW v AS SELECT COUNT(*) AS n, SUM(a) AS s, AVG(a) AS m, MIN(b) AS low, MAX(b) AS high FROM s;";
        let parsed = parse_definitions(&[("s.sql".to_owned(), sql.to_owned())]).expect("right");
        let value = |at: usize, numbers: &[Number]| {
            let aggregate = &parsed.views[0].aggregates[at];
            let mut accumulated = Accumulated::default();
            numbers.iter().for_each(|number| accumulated.add(aggregate.function, *number));
            accumulated.value(aggregate)
        };
        let (cents, doubles) =
            ([Number::Integer(150), Number::Integer(-50)], [Number::Double(f64::NAN), Number::Double(1.0)]);
        assert_eq!((value(0, &[]), value(1, &[])), (Some(Number::Integer(0)), None));
        assert_eq!((value(0, &cents), value(1, &cents)), (Some(Number::Integer(2)), Some(Number::Integer(100))));
        assert_eq!((value(2, &cents), value(3, &doubles)), (Some(Number::Double(0.5)), Some(Number::Double(1.0))));
        assert!(matches!(value(4, &doubles), Some(Number::Double(high)) if high.is_nan()));
    }
}
