//! Which aggregates are there, and what do they take?

use super::coerce::settle;
use super::error::SqlError;
use super::functions::Call;
use super::lower::Lowering;
use super::scope::Place;
use crate::scalar::{Literal, Node, Scalar};
use crate::types::DataType;
use crate::view::{Aggregate, AggregateFunction};

/// Names of aggregates.
pub(super) const NAMES: &[&str] = &["count", "sum", "avg", "min", "max"];

const LATER: &[&str] = &[
    "percentile_cont",
    "percentile_disc",
    "median",
    "mode",
    "top_k",
    "first_value",
    "last_value",
    "any_value",
    "approx_count_distinct",
    "approx_distinct",
    "string_agg",
    "array_agg",
    "listagg",
    "corr",
    "row_number",
    "rank",
    "lag",
    "lead",
];

pub(super) fn is_aggregate(name: &str) -> bool {
    NAMES.contains(&name)
}

/// The name in capitals, if it is a function to come.
pub(super) fn later(name: &str) -> Option<String> {
    let is_later = LATER.contains(&name)
        || ["var_", "stddev", "covar_", "regr_"].iter().any(|prefix| name.starts_with(prefix))
        || name == "variance";
    is_later.then(|| name.to_uppercase())
}

impl Lowering<'_, '_, '_> {
    /// Lowers an aggregate's call to a column of the view's aggregates.
    pub(super) fn aggregate(&mut self, call: &Call) -> Result<Scalar, SqlError> {
        let name = call.name.to_uppercase();
        match self.scope.place {
            Place::Select => {}
            Place::Argument => {
                return Err(self.source.error(call.span, "an aggregate cannot stand inside an aggregate"));
            }
            Place::Rows(clause) => {
                let error = self.source.error(call.span, format!("the aggregate {name} cannot stand in {clause}"));
                return Err(error.help("aggregates are the measures of SELECT"));
            }
        }
        self.scope.place = Place::Argument;
        let aggregate = self.aggregate_parts(call, &name);
        self.scope.place = Place::Select;
        let aggregate = aggregate?;
        let data_type = aggregate.data_type();
        Ok(Scalar::column(self.scope.aggregate(aggregate), data_type))
    }

    fn aggregate_parts(&mut self, call: &Call, name: &str) -> Result<Aggregate, SqlError> {
        let function = match call.name.as_str() {
            "count" => AggregateFunction::Count,
            "sum" => AggregateFunction::Sum,
            "avg" => AggregateFunction::Avg,
            "min" => AggregateFunction::Min,
            _ => AggregateFunction::Max,
        };
        let filter = call.filter.map(|filter| self.condition(filter, "FILTER")).transpose()?;
        if call.star {
            return match function {
                AggregateFunction::Count => Ok(Aggregate { function, argument: None, filter }),
                _ => Err(self.source.error(call.span, format!("{name}(*) means nothing")).help("only COUNT takes `*`")),
            };
        }
        self.count_arguments(call, 1, 1)?;
        let argument = settle(self.expr(call.arguments[0])?);
        let argument = match (function, &argument.node) {
            // A constant that is not NULL counts every row.
            (AggregateFunction::Count, Node::Literal(literal)) if *literal != Literal::Null => None,
            (AggregateFunction::Sum | AggregateFunction::Avg, _) => {
                self.need_number(&argument, call.arguments[0], name)?;
                Some(match argument.data_type {
                    DataType::String => self.bring(argument, DataType::BigInt, call.arguments[0])?,
                    _ => argument,
                })
            }
            _ => Some(argument),
        };
        Ok(Aggregate { function, argument, filter })
    }
}
