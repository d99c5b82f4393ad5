//! Implements functions that choose among values: IN over constants, GREATEST, LEAST and NULLIF.

use std::collections::HashSet;

use polars::prelude::{BooleanChunked, ChunkCompareEq, ChunkCompareIneq, Expr, IntoSeries, PolarsResult, Series};

use super::kernel::apply;
use crate::double::canonical;
use crate::scalar::{Function, Literal};
use crate::types::DataType;

/// `a IN (constants)`, where `a` is of type `data_type`: NULL if it is not among them and NULL is.
pub(super) fn is_in(a: Expr, list: &[Literal], data_type: DataType) -> Expr {
    let has_null = list.contains(&Literal::Null);
    let missing = if has_null { None } else { Some(false) };
    if data_type == DataType::String {
        let texts: HashSet<String> =
            list.iter().filter_map(|item| if let Literal::String(t) = item { Some(t.clone()) } else { None }).collect();
        return apply(vec![a], DataType::Boolean, move |series| {
            let found = |text: Option<&str>| if texts.contains(text?) { Some(true) } else { missing };
            let result: BooleanChunked = series[0].str()?.iter().map(found).collect();
            Ok(result.into_series())
        });
    }
    let keys: HashSet<i128> = list.iter().filter_map(key_of_literal).collect();
    apply(vec![a], DataType::Boolean, move |series| {
        let found = |key: Option<i128>| if keys.contains(&key?) { Some(true) } else { missing };
        let physical = series[0].to_physical_repr();
        let result: BooleanChunked = match data_type {
            DataType::Boolean => physical.bool()?.iter().map(|x| found(x.map(i128::from))).collect(),
            DataType::Double => physical.f64()?.iter().map(|x| found(x.map(key_of_double))).collect(),
            DataType::Int | DataType::Date => physical.i32()?.iter().map(|x| found(x.map(i128::from))).collect(),
            DataType::Decimal { .. } => physical.i128()?.iter().map(found).collect(),
            _ => physical.i64()?.iter().map(|x| found(x.map(i128::from))).collect(),
        };
        Ok(result.into_series())
    })
}

fn key_of_literal(literal: &Literal) -> Option<i128> {
    match literal {
        Literal::Null | Literal::String(_) => None,
        Literal::Boolean(value) => Some(i128::from(*value)),
        Literal::BigInt(value) | Literal::Timestamp(value) => Some(i128::from(*value)),
        Literal::Double(value) => Some(key_of_double(*value)),
        Literal::Decimal(value) => Some(*value),
        Literal::Date(value) => Some(i128::from(*value)),
    }
}

/// Equal for equal numbers: there is one NaN and one zero.
fn key_of_double(value: f64) -> i128 {
    i128::from(canonical(value).to_bits())
}

/// GREATEST or LEAST: NULLs are ignored; NaN is greater than every number.
pub(super) fn extreme(function: Function, arguments: Vec<Expr>, data_type: DataType) -> Expr {
    apply(arguments, data_type, move |series| {
        let mut best = series[0].clone();
        for other in &series[1..] {
            // NULL in the mask chooses `other`.
            let better = match function {
                Function::Greatest => compare(&best, other, |a, b| a.gt_eq(b))?,
                _ => compare(&best, other, |a, b| a.lt_eq(b))?,
            };
            let keep = better | other.is_null();
            best = best.zip_with(&keep, other)?;
        }
        Ok(best)
    })
}

/// NULLIF: NULL where both are equal.
pub(super) fn null_if(a: Expr, b: Expr, data_type: DataType) -> Expr {
    apply(vec![a, b], data_type, |series| {
        let equal = compare(&series[0], &series[1], |a, b| a.equal(b))?;
        let nulls = Series::full_null(series[0].name().clone(), series[0].len(), series[0].dtype());
        nulls.zip_with(&equal, &series[0])
    })
}

fn compare(
    a: &Series,
    b: &Series,
    compare: impl Fn(&Series, &Series) -> PolarsResult<BooleanChunked>,
) -> PolarsResult<BooleanChunked> {
    compare(&a.to_physical_repr(), &b.to_physical_repr())
}
