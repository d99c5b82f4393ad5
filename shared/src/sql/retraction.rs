//! Lowers aggregates over a table, whose events assert rows and retract them, to sums over the events.
//!
//! With the sign s = -1 of a retraction and s = 1 of an assertion, over the events of a group:
//! COUNT(*) = Σ s; COUNT(x) = Σ s where x is not NULL; SUM(x) = Σ s·x, NULL if COUNT(x) = 0; AVG(x) = SUM(x) / COUNT(x).
//! A retraction holds the values of the row that it retracts, so its terms cancel those of the row's assertion, in both layers
//! and across the seam. Aggregates that are not such sums count the values of the rows ([`Aggregate::signed`]), FIRST_VALUE and
//! LAST_VALUE with their event times; nothing else in the layers knows of tables.

use super::error::SqlError;
use super::functions::FunctionCall;
use super::lower::{Lowering, boolean, not};
use crate::scalar::{ArithmeticOp, CompareOp, Literal, Node, Scalar};
use crate::types::DataType;
use crate::view::{Aggregate, AggregateFunction};

/// Digits of a sum of BIGINT that an average divides.
const BIGINT_DIGITS: u8 = 19;

impl Lowering<'_, '_, '_> {
    /// The value of `aggregate` over the rows of a table. `retracted` is the index of its column `_retracted`.
    pub(super) fn over_rows(
        &mut self,
        call: &FunctionCall,
        aggregate: Aggregate,
        retracted: usize,
    ) -> Result<Scalar, SqlError> {
        let Aggregate { function, argument, filter, .. } = aggregate;
        match (function, argument) {
            (AggregateFunction::Count, argument) => {
                Ok(self.scope.net_count(retracted, with(filter, argument.map(is_not_null))))
            }
            (AggregateFunction::Sum, Some(x)) => Ok(self.net_sum(widened(x), retracted, filter)),
            (AggregateFunction::Avg, Some(x)) => {
                let x = match x.data_type {
                    DataType::Double | DataType::Decimal { .. } => x,
                    // Without the least BIGINT, as in a sum.
                    _ => cast(negated(negated(widened(x))), DataType::Decimal { precision: BIGINT_DIGITS, scale: 0 }),
                };
                let count =
                    self.scope.net_count(retracted, with(filter.clone(), Some(is_not_null(negated(x.clone())))));
                let sum = self.net_sum(x, retracted, filter);
                Ok(arithmetic(ArithmeticOp::Divide, as_double(sum), as_double(count)))
            }
            (function, argument) => {
                let counted = Aggregate { function, argument, filter: Some(sign(retracted, filter)), signed: true };
                let data_type = counted.data_type();
                if data_type == DataType::Json {
                    self.scope.json.get_or_insert(call.span);
                }
                Ok(Scalar::column(self.scope.aggregate(counted), data_type))
            }
        }
    }

    /// The sum of `x` over the rows; NULL of no values. A DOUBLE that is not finite cannot be taken out of a sum again: while a
    /// row has one, the sum is NULL.
    fn net_sum(&mut self, x: Scalar, retracted: usize, filter: Option<Scalar>) -> Scalar {
        let opposite = negated(x.clone());
        let counted = with(filter.clone(), Some(is_not_null(opposite.clone())));
        let count = self.scope.net_count(retracted, counted.clone());
        let mut shown = is_not_zero(count);
        let mut summed = filter;
        if x.data_type == DataType::Double {
            let difference = arithmetic(ArithmeticOp::Subtract, x.clone(), x);
            let zero = Scalar { node: Node::Literal(Literal::Double(0.0)), data_type: DataType::Double };
            let is_finite = boolean(Node::Compare(CompareOp::Equal, Box::new(difference), Box::new(zero)));
            let infinite = self.scope.net_count(retracted, with(counted, Some(not(is_finite.clone()))));
            shown = boolean(Node::And(Box::new(shown), Box::new(not(is_not_zero(infinite)))));
            summed = with(summed, Some(is_finite));
        }
        // The least BIGINT has no opposite: it is NULL in both, and not in one of them.
        let signed = case(retracted, opposite.clone(), negated(opposite));
        let sum = Aggregate { function: AggregateFunction::Sum, argument: Some(signed), filter: summed, signed: false };
        let data_type = sum.data_type();
        let sum = Scalar::column(self.scope.aggregate(sum), data_type);
        Scalar { node: Node::Case(vec![(shown, sum)], None), data_type }
    }
}

impl super::scope::Scope<'_> {
    /// The assertions minus the retractions among the events for which `filter` holds.
    pub(super) fn net_count(&mut self, retracted: usize, filter: Option<Scalar>) -> Scalar {
        let sign = case(retracted, whole(-1), whole(1));
        let sum = Aggregate { function: AggregateFunction::Sum, argument: Some(sign), filter, signed: false };
        let sum = Scalar::column(self.aggregate(sum), DataType::BigInt);
        Scalar { node: Node::Coalesce(vec![sum, whole(0)]), data_type: DataType::BigInt }
    }
}

/// Adds to the condition of a view's rows that the group has rows of the table.
pub(super) fn with_rows(having: Option<Scalar>, count: Scalar) -> Scalar {
    match having {
        None => is_not_zero(count),
        Some(having) => boolean(Node::And(Box::new(is_not_zero(count)), Box::new(having))),
    }
}

fn whole(value: i64) -> Scalar {
    Scalar { node: Node::Literal(Literal::BigInt(value)), data_type: DataType::BigInt }
}

/// `CASE WHEN _retracted THEN of_retraction ELSE of_assertion END`.
fn case(retracted: usize, of_retraction: Scalar, of_assertion: Scalar) -> Scalar {
    let data_type = of_assertion.data_type;
    let is_retraction = Scalar::column(retracted, DataType::Boolean);
    Scalar { node: Node::Case(vec![(is_retraction, of_retraction)], Some(Box::new(of_assertion))), data_type }
}

/// True of an assertion, false of a retraction, NULL of an event for which `filter` does not hold.
fn sign(retracted: usize, filter: Option<Scalar>) -> Scalar {
    let constant = |value: bool| boolean(Node::Literal(Literal::Boolean(value)));
    let sign = case(retracted, constant(false), constant(true));
    match filter {
        None => sign,
        Some(filter) => boolean(Node::Case(vec![(filter, sign)], None)),
    }
}

fn negated(x: Scalar) -> Scalar {
    let data_type = x.data_type;
    Scalar { node: Node::Negate(Box::new(x)), data_type }
}

/// INT as BIGINT, which its sum is.
fn widened(x: Scalar) -> Scalar {
    match x.data_type {
        DataType::Int => cast(x, DataType::BigInt),
        _ => x,
    }
}

fn cast(x: Scalar, data_type: DataType) -> Scalar {
    Scalar { node: Node::Cast(Box::new(x)), data_type }
}

fn as_double(x: Scalar) -> Scalar {
    match x.data_type {
        DataType::Double => x,
        _ => cast(x, DataType::Double),
    }
}

fn arithmetic(op: ArithmeticOp, left: Scalar, right: Scalar) -> Scalar {
    let data_type = left.data_type;
    Scalar { node: Node::Arithmetic(op, Box::new(left), Box::new(right)), data_type }
}

fn is_not_null(x: Scalar) -> Scalar {
    not(boolean(Node::IsNull(Box::new(x))))
}

fn is_not_zero(count: Scalar) -> Scalar {
    boolean(Node::Compare(CompareOp::NotEqual, Box::new(count), Box::new(whole(0))))
}

/// Both conditions, as far as given.
fn with(first: Option<Scalar>, second: Option<Scalar>) -> Option<Scalar> {
    match (first, second) {
        (Some(first), Some(second)) => Some(boolean(Node::And(Box::new(first), Box::new(second)))),
        (first, second) => first.or(second),
    }
}
