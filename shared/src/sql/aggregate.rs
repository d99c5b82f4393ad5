//! Reads calls of aggregates: their names, arguments, DISTINCT, FILTER and WITHIN GROUP.

use sqlparser::ast::{Expr, OrderByExpr};

use super::coerce::{is_null, settle};
use super::error::SqlError;
use super::functions::FunctionCall;
use super::lower::Lowering;
use super::scope::Clause;
use crate::limits::TOP_K_MAX;
use crate::scalar::{Literal, Node, Scalar};
use crate::types::DataType;
use crate::view::{Aggregate, AggregateFunction};

/// Names of aggregates.
pub(super) const NAMES: &[&str] = &[
    "count",
    "sum",
    "avg",
    "min",
    "max",
    "var_pop",
    "var_samp",
    "variance",
    "stddev_pop",
    "stddev_samp",
    "stddev",
    "approx_count_distinct",
    "percentile_cont",
    "percentile_disc",
    "median",
    "top_k",
    "first_value",
    "last_value",
];

const LATER: &[&str] =
    &["mode", "any_value", "string_agg", "array_agg", "listagg", "corr", "row_number", "rank", "lag", "lead"];

pub(super) fn is_aggregate(name: &str) -> bool {
    NAMES.contains(&name)
}

/// The name in capitals, if it is a function to come.
pub(super) fn later(name: &str) -> Option<String> {
    let is_later = LATER.contains(&name) || ["covar_", "regr_"].iter().any(|prefix| name.starts_with(prefix));
    is_later.then(|| name.to_uppercase())
}

impl Lowering<'_, '_, '_> {
    /// Lowers an aggregate's call to a column of the view's aggregates.
    pub(super) fn aggregate(&mut self, call: &FunctionCall) -> Result<Scalar, SqlError> {
        let name = call.name.to_uppercase();
        let clause = self.scope.clause;
        match clause {
            Clause::Select | Clause::Having => {}
            Clause::Argument => {
                return Err(self.source.error(call.span, "an aggregate cannot stand inside an aggregate"));
            }
            Clause::Alert => {
                let error =
                    self.source.error(call.span, format!("the condition of an alert has no aggregates ({name})"));
                return Err(error.help("name a measure of the view"));
            }
            Clause::Rows(name_of_clause) => {
                let error =
                    self.source.error(call.span, format!("the aggregate {name} cannot stand in {name_of_clause}"));
                return Err(error.help(match name_of_clause {
                    "WHERE" => "a condition on aggregates belongs in HAVING, behind GROUP BY",
                    _ => "aggregates are the measures of SELECT",
                }));
            }
        }
        self.scope.clause = Clause::Argument;
        let aggregate = self.aggregate_parts(call, &name);
        self.scope.clause = clause;
        let aggregate = aggregate?;
        if let Some(retracted) = self.scope.retracted {
            return self.over_rows(call, aggregate, retracted);
        }
        let data_type = aggregate.data_type();
        if data_type == DataType::Json {
            self.scope.json.get_or_insert(call.span);
        }
        Ok(Scalar::column(self.scope.aggregate(aggregate), data_type))
    }

    fn aggregate_parts(&mut self, call: &FunctionCall, name: &str) -> Result<Aggregate, SqlError> {
        let filter = call.filter.map(|filter| self.condition(filter, "FILTER")).transpose()?;
        if call.star {
            return match call.name.as_str() {
                "count" if !call.distinct => {
                    Ok(Aggregate { function: AggregateFunction::Count, argument: None, filter, signed: false })
                }
                "count" => {
                    let error = self.source.error(call.span, "COUNT(DISTINCT *) means nothing");
                    Err(error.help("name one column, such as COUNT(DISTINCT x)"))
                }
                _ => Err(self.source.error(call.span, format!("{name}(*) means nothing")).help("only COUNT takes `*`")),
            };
        }
        self.check_distinct(call, name)?;
        let (function, at) = self.aggregate_function(call, name)?;
        let argument = settle(self.expr(at)?);
        use AggregateFunction::{Avg, Count, Percentile, Spread, Sum};
        let argument = match (function, &argument.node) {
            // A constant that is not NULL counts every row.
            (Count, Node::Literal(literal)) if *literal != Literal::Null => None,
            (Sum | Avg | Spread { .. } | Percentile { continuous: true, .. }, _) => {
                self.need_number(&argument, at, name)?;
                Some(self.typed_null(argument, at)?)
            }
            (Percentile { .. }, _) => {
                let fits = argument.data_type.is_numeric()
                    || matches!(argument.data_type, DataType::Date | DataType::Timestamp)
                    || is_null(&argument);
                if !fits {
                    let message = format!("{name} needs a number, DATE or TIMESTAMP, this is {}", argument.data_type);
                    return Err(self.error(at, message));
                }
                Some(self.typed_null(argument, at)?)
            }
            _ => Some(argument),
        };
        Ok(Aggregate { function, argument, filter, signed: false })
    }

    /// A bare NULL where a number is wanted is a BIGINT.
    fn typed_null(&self, argument: Scalar, at: &Expr) -> Result<Scalar, SqlError> {
        if is_null(&argument) { self.bring(argument, DataType::BigInt, at) } else { Ok(argument) }
    }

    /// Checks DISTINCT: COUNT gives it a meaning, MIN and MAX ignore it, other aggregates refuse it.
    fn check_distinct(&self, call: &FunctionCall, name: &str) -> Result<(), SqlError> {
        if !call.distinct || ["count", "min", "max"].contains(&call.name.as_str()) {
            return Ok(());
        }
        let error = self.source.error(call.span, format!("{name}(DISTINCT ..) is not supported"));
        Err(match call.name.as_str() {
            "sum" | "avg" => error.help("its states could not be merged; COUNT(DISTINCT ..) is possible"),
            _ => error.help("only COUNT, MIN and MAX take DISTINCT"),
        })
    }

    /// The aggregate function, and the expression that it accumulates.
    fn aggregate_function<'e>(
        &mut self,
        call: &FunctionCall<'e>,
        name: &str,
    ) -> Result<(AggregateFunction, &'e Expr), SqlError> {
        if let Some(fraction) = call.name.strip_prefix("percentile_") {
            return self.percentile(call, name, fraction == "cont");
        }
        if call.within.is_some() {
            return Err(self.source.error(call.span, format!("{name} takes no WITHIN GROUP")));
        }
        if call.name == "top_k" {
            self.count_arguments(call, 2, 2)?;
            return Ok((AggregateFunction::TopK { k: self.top_k(call.arguments[1])? }, call.arguments[0]));
        }
        self.count_arguments(call, 1, 1)?;
        let spread = |sample, root| AggregateFunction::Spread { sample, root };
        let function = match call.name.as_str() {
            "count" if call.distinct => AggregateFunction::CountDistinct,
            "count" => AggregateFunction::Count,
            "sum" => AggregateFunction::Sum,
            "avg" => AggregateFunction::Avg,
            "min" => AggregateFunction::Min,
            "max" => AggregateFunction::Max,
            "var_pop" => spread(false, false),
            "var_samp" | "variance" => spread(true, false),
            "stddev_pop" => spread(false, true),
            "stddev_samp" | "stddev" => spread(true, true),
            "approx_count_distinct" => AggregateFunction::CountDistinct,
            "median" => AggregateFunction::Percentile { fraction: 0.5, continuous: true, descending: false },
            "first_value" => AggregateFunction::First,
            _ => AggregateFunction::Last,
        };
        Ok((function, call.arguments[0]))
    }

    /// `PERCENTILE_CONT(fraction) WITHIN GROUP (ORDER BY x)`, or `PERCENTILE_DISC`.
    fn percentile<'e>(
        &mut self,
        call: &FunctionCall<'e>,
        name: &str,
        continuous: bool,
    ) -> Result<(AggregateFunction, &'e Expr), SqlError> {
        let form = || format!("write {name}(0.95) WITHIN GROUP (ORDER BY x)");
        let Some(order) = call.within else {
            return Err(self.source.error(call.span, format!("{name} needs WITHIN GROUP")).help(form()));
        };
        if call.arguments.len() != 1 {
            let given = call.arguments.len();
            let error = self.source.error(call.span, format!("{name} takes 1 argument, not {given}"));
            return Err(error.help(form()));
        }
        let [OrderByExpr { expr, options, with_fill: None }] = order else {
            return Err(self.source.error(call.span, format!("{name} orders by one expression")).help(form()));
        };
        if options.nulls_first.is_some() {
            return Err(self.error(expr, "this order ignores NULLs, so they have no place in it"));
        }
        let descending = options.asc == Some(false);
        let fraction = self.fraction(call.arguments[0], name, descending && continuous)?;
        Ok((AggregateFunction::Percentile { fraction, continuous, descending: descending && !continuous }, expr))
    }

    /// A constant from 0 to 1; with `from_end`, 1 minus the constant.
    fn fraction(&mut self, at: &Expr, name: &str, from_end: bool) -> Result<f64, SqlError> {
        let constant = self.expr(at)?;
        let left = |value: f64| if from_end { 1.0 - value } else { value };
        let fraction = match (constant.node, constant.data_type) {
            // Digit by digit, so that 1 - 0.95 is 0.05.
            (Node::Literal(Literal::Decimal(unscaled)), DataType::Decimal { scale, .. }) => {
                let one = 10_i128.checked_pow(scale.unsigned_abs().into());
                let unscaled = if from_end { one.and_then(|one| one.checked_sub(unscaled)) } else { Some(unscaled) };
                unscaled.and_then(|unscaled| format!("{unscaled}e-{scale}").parse().ok())
            }
            (Node::Literal(Literal::Double(value)), _) => Some(left(value)),
            (Node::Literal(Literal::BigInt(value)), _) => Some(left(value as f64)),
            _ => None,
        };
        match fraction {
            Some(value) if (0.0..=1.0).contains(&value) => Ok(value),
            _ => Err(self.error(at, format!("the fraction of {name} is a constant from 0 to 1"))),
        }
    }

    fn top_k(&mut self, at: &Expr) -> Result<u16, SqlError> {
        let k = match self.expr(at)?.node {
            Node::Literal(Literal::BigInt(k)) => u16::try_from(k).ok().filter(|k| (1..=TOP_K_MAX).contains(k)),
            _ => None,
        };
        k.ok_or_else(|| self.error(at, format!("the number of values of TOP_K is a constant from 1 to {TOP_K_MAX}")))
    }
}
