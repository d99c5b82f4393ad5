//! Describes the state that each layer keeps for an aggregate.

use crate::types::DataType;
use crate::view::{Aggregate, AggregateFunction};

/// The aggregate as SQL; `argument` and `filter` are its parts as SQL.
pub(super) fn name(aggregate: &Aggregate, argument: &str, filter: Option<&str>) -> String {
    let call = match aggregate.function {
        AggregateFunction::Count => format!("COUNT({argument})"),
        AggregateFunction::Sum => format!("SUM({argument})"),
        AggregateFunction::Avg => format!("AVG({argument})"),
        AggregateFunction::Min => format!("MIN({argument})"),
        AggregateFunction::Max => format!("MAX({argument})"),
        AggregateFunction::Spread { sample, root } => {
            let name = if root { "STDDEV" } else { "VAR" };
            format!("{name}_{}({argument})", if sample { "SAMP" } else { "POP" })
        }
        AggregateFunction::CountDistinct => format!("COUNT(DISTINCT {argument})"),
        AggregateFunction::Percentile { fraction, continuous, descending } => {
            let kind = if continuous { "CONT" } else { "DISC" };
            let order = if descending { " DESC" } else { "" };
            format!("PERCENTILE_{kind}({fraction}) WITHIN GROUP (ORDER BY {argument}{order})")
        }
        AggregateFunction::TopK { k } => format!("TOP_K({argument}, {k})"),
        AggregateFunction::First => format!("FIRST_VALUE({argument})"),
        AggregateFunction::Last => format!("LAST_VALUE({argument})"),
    };
    match filter {
        Some(sign) if aggregate.signed => format!("{call} over the current rows (counted if {sign})"),
        Some(filter) => format!("{call} FILTER (WHERE {filter})"),
        None => call,
    }
}

/// The state that speed keeps in memory.
pub(super) fn speed(aggregate: &Aggregate) -> String {
    let argument = aggregate.argument.as_ref().map_or(DataType::BigInt, |argument| argument.data_type);
    match aggregate.function {
        AggregateFunction::First | AggregateFunction::Last if aggregate.signed => {
            format!("each value, {argument}, and event time with their number of rows: exact")
        }
        _ if aggregate.signed => format!("each value, {argument}, with its number of rows: exact"),
        AggregateFunction::Count => "64-bit count".to_owned(),
        AggregateFunction::Sum | AggregateFunction::Avg => match argument {
            DataType::Double => "compensated DOUBLE sum and count".to_owned(),
            _ => "128-bit sum and count".to_owned(),
        },
        AggregateFunction::Min | AggregateFunction::Max => format!("the value, {argument}"),
        AggregateFunction::Spread { .. } => "count, mean and squared deviations, DOUBLE".to_owned(),
        AggregateFunction::First | AggregateFunction::Last => {
            format!("the value, {argument}, its event time and its position in the log")
        }
        _ => match sketch(aggregate.function) {
            Some(sketch) => format!("the values while they are few, then {sketch}: approximate"),
            None => format!("the value, {argument}"),
        },
    }
}

/// The result of batch, and the state that it keeps for merging.
pub(super) fn batch(aggregate: &Aggregate) -> String {
    match sketch(aggregate.function) {
        _ if aggregate.signed => "exact, and for merging the state of speed".to_owned(),
        Some(sketch) => format!("exact, and for merging the values while they are few, then {sketch}"),
        None => "exact".to_owned(),
    }
}

/// The sketch of many values in bounded memory; `None`: the state is as exact as the value.
fn sketch(function: AggregateFunction) -> Option<&'static str> {
    match function {
        AggregateFunction::CountDistinct => Some("an HLL sketch (lgK 12)"),
        AggregateFunction::Percentile { .. } => Some("a KLL sketch (k 200)"),
        AggregateFunction::TopK { .. } => Some("a sketch of frequent items"),
        _ => None,
    }
}
