//! Writes the values of a window and group: the stage `__groups` with a column `__a<i>` per aggregate.

use shared::types::DataType;
use shared::view::{Aggregate, AggregateFunction, View};

use crate::events::{Inputs, part_of};
use crate::percentiles::{Percentile, array};
use crate::refusal::{Refusal, Unsupported};
use crate::spread::{self, Spreads};
use crate::top;

/// Digits of a DECIMAL whose sums have at most 38.
pub(crate) const DIGITS_OF_TERMS: u8 = 28;

/// The written aggregates of a view.
#[derive(Debug, Default)]
pub struct Aggregates {
    /// Columns of the stage `__groups`.
    pub columns: Vec<String>,
    /// Columns of the stage `__places`, which reads those.
    pub places: Vec<String>,
    /// Aggregates that are computed from the columns of the group and of joined stages, as expressions; others are `None`.
    pub finished: Vec<Option<String>>,
    /// The stages of TOP_K, by name. They are joined with the groups.
    pub tops: Vec<(String, String)>,
    /// The stages of variances and deviations.
    pub spreads: Spreads,
}

/// Writes all aggregates of a view; `groups` are the columns of a group.
pub fn write<'v>(view: &'v View, inputs: &mut Inputs<'v>, groups: &[String]) -> Result<Aggregates, Refusal> {
    let mut written = Aggregates::default();
    let mut arrays: Vec<String> = Vec::new();
    for (index, aggregate) in view.aggregates.iter().enumerate() {
        let filter = aggregate.filter.as_ref().map(|filter| inputs.column(filter, false));
        let clause = filter.as_ref().map_or_else(String::new, |filter| format!(" FILTER (WHERE {filter})"));
        let Some(argument) = aggregate.argument.as_ref() else {
            written.column(index, &format!("count(*){clause}"));
            continue;
        };
        let is_double = argument.data_type == DataType::Double;
        // Values that are compared with each other have one NaN and one zero.
        let is_set = matches!(aggregate.function, AggregateFunction::CountDistinct | AggregateFunction::TopK { .. });
        let input = inputs.column(argument, is_set);
        match aggregate.function {
            AggregateFunction::Percentile { fraction, continuous, descending } => {
                // The percentile of decimals is one of DOUBLEs.
                let input = match argument.data_type {
                    DataType::Decimal { .. } => format!("CAST({input} AS DOUBLE)"),
                    _ => input,
                };
                let array = array(&input, is_double, &clause);
                let known = arrays.iter().position(|known| *known == array);
                let at = known.unwrap_or_else(|| {
                    written.columns.push(format!("{array} AS __l{}", arrays.len()));
                    arrays.push(array);
                    arrays.len() - 1
                });
                let values = format!("__l{at}");
                let percentile = Percentile { number: index, values: &values, fraction, continuous, descending };
                written.places.extend(percentile.columns());
                written.finished.push(Some(percentile.value()));
            }
            AggregateFunction::TopK { k } => {
                let name = format!("__top{index}");
                written.finished.push(Some(format!("{name}.__top")));
                written.tops.push((name, top::stage(&input, k, filter.as_deref(), groups)));
            }
            AggregateFunction::Spread { sample, root } => {
                let stage = written.spreads.of(argument.data_type, &input, filter.as_deref(), groups, "__placed");
                let stage = stage.map_err(|reason| Refusal { part: part_of(view, argument), reason })?;
                written.finished.push(Some(spread::value(&stage, sample, root)));
            }
            _ => {
                let value = value(aggregate, argument.data_type, &input, filter.as_deref())
                    .map_err(|reason| Refusal { part: part_of(view, argument), reason })?;
                written.column(index, &value);
            }
        }
    }
    Ok(written)
}

impl Aggregates {
    fn column(&mut self, index: usize, value: &str) {
        self.columns.push(format!("{value} AS __a{index}"));
        self.finished.push(None);
    }
}

fn value(aggregate: &Aggregate, of: DataType, input: &str, filter: Option<&str>) -> Result<String, Unsupported> {
    let clause = filter.map_or_else(String::new, |filter| format!(" FILTER (WHERE {filter})"));
    let call = |name: &str, argument: &str| format!("{name}({argument}){clause}");
    let count = call("count", input);
    Ok(match aggregate.function {
        AggregateFunction::Count => count,
        AggregateFunction::Sum => match of {
            DataType::Double => double_sum(input, &clause, ""),
            DataType::Decimal { scale, .. } => format!("CAST({} AS DECIMAL(38,{scale}))", sum(of, input, &clause)?),
            _ => format!("try_cast({} AS BIGINT)", sum(of, input, &clause)?),
        },
        AggregateFunction::Avg => match of {
            DataType::Double => double_sum(input, &clause, &format!(" / nullif({count}, 0L)")),
            _ => format!("(CAST({} AS DOUBLE) / nullif({count}, 0L))", sum(of, input, &clause)?),
        },
        AggregateFunction::Min => call("min", input),
        AggregateFunction::Max => call("max", input),
        AggregateFunction::CountDistinct => format!("count(DISTINCT {input}){clause}"),
        AggregateFunction::First | AggregateFunction::Last => {
            let name = if aggregate.function == AggregateFunction::First { "min_by" } else { "max_by" };
            let is_wanted = filter.map_or_else(String::new, |filter| format!(" AND {filter}"));
            format!("{name}({input}, struct(__t, __o, __p)) FILTER (WHERE {input} IS NOT NULL{is_wanted})")
        }
        AggregateFunction::Percentile { .. } | AggregateFunction::TopK { .. } | AggregateFunction::Spread { .. } => {
            unreachable!("written in stages of their own")
        }
    })
}

/// Writes a sum of whole numbers or DECIMALs that cannot overflow on the way.
pub(crate) fn sum(of: DataType, input: &str, clause: &str) -> Result<String, Unsupported> {
    Ok(match of {
        DataType::Decimal { precision, .. } if precision > DIGITS_OF_TERMS => return Err(Unsupported::WideDecimalSum),
        DataType::Decimal { .. } => format!("sum({input}){clause}"),
        DataType::Int => format!("sum(CAST({input} AS BIGINT)){clause}"),
        _ => format!("sum(CAST({input} AS DECIMAL({DIGITS_OF_TERMS},0))){clause}"),
    })
}

/// Writes a sum of DOUBLEs, followed by `then`. Large values are scaled, so that only the result may be infinite.
fn double_sum(input: &str, clause: &str, then: &str) -> String {
    let down = "7.52316384526264e-37D";
    let up = "1.329227995784916e36D";
    let largest = format!("max(abs({input})){clause}");
    format!(
        "(CASE WHEN {largest} > 1e290D AND {largest} < CAST('Infinity' AS DOUBLE) \
         THEN sum({input} * {down}){clause}{then} * {up} ELSE sum({input}){clause}{then} END)"
    )
}
