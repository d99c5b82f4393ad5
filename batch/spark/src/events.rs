//! Writes the stage `__events`: the events of the archive without duplicates, joined with rows of tables, that pass WHERE, with the
//! columns that the query reads: `__t`, `__p` and `__o`, time in microseconds, partition and offset; `__d<i>`, the dimensions;
//! `__x<i>`, other values.

use shared::scalar::Scalar;
use shared::stream::{Stream, system_columns};
use shared::types::DataType;
use shared::view::{AggregateFunction, View};

use crate::lookups;
use crate::numbers::canonical;
use crate::quote;
use crate::refusal::{Refusal, Unsupported};
use crate::scalar::{is_inexact, is_unstable, write};
use crate::statement::EVENTS;
use crate::states::DATE;

/// The values that aggregates read, each once.
#[derive(Debug, Default)]
pub struct Inputs<'v> {
    scalars: Vec<(&'v Scalar, bool)>,
}

impl<'v> Inputs<'v> {
    /// Returns the column of a value; `canonical`: with one NaN and one zero.
    pub fn column(&mut self, scalar: &'v Scalar, canonical: bool) -> String {
        let entry = (scalar, canonical && scalar.data_type == DataType::Double);
        let at = self.scalars.iter().position(|known| *known == entry).unwrap_or_else(|| {
            self.scalars.push(entry);
            self.scalars.len() - 1
        });
        format!("__x{at}")
    }
}

/// Returns the names of the dimensions' columns.
pub fn keys(view: &View) -> Vec<String> {
    (0..view.dimensions.len()).map(|index| format!("__d{index}")).collect()
}

/// Writes the stage. Without `dedup`, no event is a copy of another.
pub fn stage(view: &View, stream: &Stream, inputs: &Inputs<'_>, dedup: bool) -> Result<String, Refusal> {
    let own = |name: &str| lookups::of_event(view, name);
    let column = |index: usize| lookups::of_table(view, index).unwrap_or_else(|| own(&stream.columns[index].name));
    let time = format!("unix_micros({})", column(stream.event_time));
    let mut columns = vec![
        format!("{time} AS __t"),
        format!("{} AS __p", own(system_columns::PARTITION)),
        format!("{} AS __o", own(system_columns::OFFSET)),
    ];
    for (index, dimension) in view.dimensions.iter().enumerate() {
        let part = || format!("dimension {}", dimension.name);
        let value = of_part(&dimension.expression, &column, &part)?;
        let value = if dimension.expression.data_type == DataType::Double { canonical(&value) } else { value };
        columns.push(format!("{value} AS __d{index}"));
    }
    for (index, (scalar, is_canonical)) in inputs.scalars.iter().enumerate() {
        let value = write(scalar, &column).map_err(|reason| Refusal { part: part_of(view, scalar), reason })?;
        let value = if *is_canonical { canonical(&value) } else { value };
        columns.push(format!("{value} AS __x{index}"));
    }
    let mut conditions = Vec::new();
    let mut source = EVENTS.to_owned();
    if let Some(key) = stream.primary_key.filter(|_| dedup) {
        source = format!("({})", numbered_copies(stream, key));
        conditions.push(format!("(__copy = 1 OR {} IS NULL)", column(key)));
    }
    if let Some(filter) = &view.filter {
        conditions.push(of_part(filter, &column, &|| "WHERE".to_owned())?);
    }
    let source = lookups::joined(view, source, &time, &column);
    let conditions = if conditions.is_empty() { String::new() } else { format!(" WHERE {}", conditions.join(" AND ")) };
    Ok(format!("SELECT {} FROM {source}{conditions}", columns.join(", ")))
}

/// Writes the events with the number of each among those with its id and its date. Of these the first counts; those that came
/// through the log are before historical ones.
fn numbered_copies(stream: &Stream, key: usize) -> String {
    let column = |index: usize| quote::name(&stream.columns[index].name);
    let entity = stream.entity.map_or_else(String::new, |entity| format!(", {}", column(entity)));
    let (partition, offset) = (quote::name(system_columns::PARTITION), quote::name(system_columns::OFFSET));
    format!(
        "SELECT *, row_number() OVER (PARTITION BY CAST({} AS DATE), {}{entity} ORDER BY {partition}, {offset}) AS __copy \
         FROM {EVENTS}",
        column(stream.event_time),
        column(key)
    )
}

/// Writes the partitions and offsets of the events that are copies of others, as `__p` and `__o`; `None`: the stream has no ids.
pub fn copies(stream: &Stream) -> Option<String> {
    let key = stream.primary_key?;
    let name = |index: usize| quote::name(&stream.columns[index].name);
    let (partition, offset) = (quote::name(system_columns::PARTITION), quote::name(system_columns::OFFSET));
    Some(format!(
        "SELECT CAST({partition} AS BIGINT) AS __p, {offset} AS __o, 0L AS {DATE} FROM ({}) WHERE __copy > 1 AND {} IS NOT NULL",
        numbered_copies(stream, key),
        name(key)
    ))
}

/// Writes an expression that decides about rows: it must be exact.
fn of_part(scalar: &Scalar, column: &dyn Fn(usize) -> String, part: &dyn Fn() -> String) -> Result<String, Refusal> {
    let refusal = |reason| Refusal { part: part(), reason };
    if is_inexact(scalar) {
        return Err(refusal(Unsupported::LastDigits));
    }
    write(scalar, column).map_err(refusal)
}

/// Returns the measure that an argument or a FILTER belongs to.
pub fn part_of(view: &View, scalar: &Scalar) -> String {
    let is_of = |index: usize| {
        let aggregate = &view.aggregates[index];
        aggregate.argument.as_ref() == Some(scalar) || aggregate.filter.as_ref() == Some(scalar)
    };
    let measure = view.measures.iter().find(|measure| {
        let mut found = false;
        measure.expression.for_each_column(&mut |index| found |= is_of(index));
        found
    });
    measure.map_or_else(|| "HAVING".to_owned(), |measure| format!("measure {}", measure.name))
}

/// Checks that values which may differ in the last digit stay within functions that pass it through.
pub fn check_exactness(view: &View) -> Result<(), Refusal> {
    for aggregate in &view.aggregates {
        let passes_through = matches!(
            aggregate.function,
            AggregateFunction::Sum
                | AggregateFunction::Avg
                | AggregateFunction::Min
                | AggregateFunction::Max
                | AggregateFunction::Spread { .. }
                | AggregateFunction::Percentile { .. }
        );
        let argument = aggregate.argument.iter().filter(|a| is_unstable(a) || (!passes_through && is_inexact(a)));
        let filter = aggregate.filter.iter().filter(|filter| is_inexact(filter));
        if let Some(scalar) = argument.chain(filter).next() {
            return Err(Refusal { part: part_of(view, scalar), reason: Unsupported::LastDigits });
        }
    }
    Ok(())
}
