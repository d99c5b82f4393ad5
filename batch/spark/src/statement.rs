//! Writes the whole query of a view, stage by stage: events, windows, groups, places of percentiles, the most
//! frequent values, rows.

use shared::evaluate::events::EventExpressions;
use shared::limits::SPARK_QUERY_CHARS_MAX;
use shared::scalar::Scalar;
use shared::stream::{Stream, system_columns};
use shared::types::DataType;
use shared::view::{OutputColumn, View, ViewLayers};
use shared::window::Window;

use crate::aggregates::{self, Aggregates};
use crate::calendar::CalendarTables;
use crate::events::{self, Inputs};
use crate::lookups::{VersionTable, version_tables};
use crate::quote;
use crate::refusal::{Refusal, Unsupported};
use crate::scalar;
use crate::windows::{self, END, START};

/// The name under which the query reads the events: the columns of the archive's files.
pub const EVENTS: &str = "trueup_events";

/// The settings of the session that give the query its meaning.
pub const SETTINGS: &[(&str, &str)] = &[
    ("spark.sql.session.timeZone", "UTC"),
    ("spark.sql.ansi.enabled", "true"),
    ("spark.sql.caseSensitive", "false"),
    ("spark.sql.decimalOperations.allowPrecisionLoss", "false"),
    // It moves the constants of a sum together, so that the sums on the way no longer overflow, or others do.
    ("spark.sql.optimizer.excludedRules", "org.apache.spark.sql.catalyst.optimizer.ReorderAssociativeOperator"),
    ("spark.sql.parquet.datetimeRebaseModeInRead", "CORRECTED"),
    ("spark.sql.parser.escapedStringLiterals", "false"),
];

/// Returns the columns of the archive's files, as Spark declares a schema.
pub fn schema(stream: &Stream) -> String {
    let system = [
        (system_columns::PARTITION, DataType::Int),
        (system_columns::OFFSET, DataType::BigInt),
        (system_columns::ARRIVED_AT, DataType::Timestamp),
        (system_columns::WATERMARK, DataType::Timestamp),
    ];
    let own = stream.columns.iter().map(|column| (column.name.as_str(), column.data_type));
    let column = |(name, data_type)| format!("{} {}", quote::name(name), quote::data_type(data_type));
    own.chain(system).map(column).collect::<Vec<_>>().join(", ")
}

/// What Spark is asked for.
#[derive(Debug, Clone)]
pub struct Statement {
    /// The query, over the table [`EVENTS`], the tables of versions and those of the calendar.
    pub query: String,
    /// The tables of versions of the rows that events are joined with.
    pub versions: Vec<VersionTable>,
    /// The tables of the calendar; `None`: the view needs none.
    pub calendar: Option<CalendarTables>,
}

/// Writes the query of `view`, whose stream is `stream`. HAVING is its last condition.
pub fn statement(view: &View, stream: &Stream) -> Result<Statement, Refusal> {
    check(view, stream)?;
    let groups = group_columns(view);
    let mut inputs = Inputs::default();
    let aggregates = aggregates::write(view, &mut inputs, &groups)?;

    let mut stages = placed_stages(view, stream, &inputs, true)?;
    stages.push(("__groups".to_owned(), groups_stage(&groups, &aggregates.columns, "__placed")));
    if !aggregates.places.is_empty() {
        let stage = format!("SELECT *, {} FROM __groups", aggregates.places.join(", "));
        stages.push(("__places".to_owned(), stage));
    }
    stages.extend(aggregates.spreads.stages.iter().chain(&aggregates.tops).cloned());
    stages.push(("__rows".to_owned(), rows_stage(&groups, &aggregates)));
    finish(view, &stages, &last_stage(view)?)
}

/// Refuses views that no query of Spark computes with the same result.
pub(crate) fn check(view: &View, stream: &Stream) -> Result<(), Refusal> {
    let of_view = |reason| Refusal { part: format!("view {}", view.name), reason };
    if stream.table.is_some() {
        return Err(of_view(Unsupported::Table));
    }
    if view.layers == ViewLayers::Speed {
        return Err(of_view(Unsupported::SpeedAlone));
    }
    if EventExpressions::new(view).may_outgrow() {
        return Err(of_view(Unsupported::LongTexts));
    }
    events::check_exactness(view)
}

/// Returns the columns that identify a group: the bounds of its window, and the dimensions.
pub(crate) fn group_columns(view: &View) -> Vec<String> {
    let bounds = (view.window != Window::All).then(|| [START.to_owned(), END.to_owned()]);
    bounds.into_iter().flatten().chain(events::keys(view)).collect()
}

/// Writes the stages up to `__placed`: each event once per window that covers it.
pub(crate) fn placed_stages(
    view: &View,
    stream: &Stream,
    inputs: &Inputs<'_>,
    dedup: bool,
) -> Result<Vec<(String, String)>, Refusal> {
    let mut stages = vec![("__events".to_owned(), events::stage(view, stream, inputs, dedup)?)];
    let placed = windows::stages(view.window, &events::keys(view));
    stages.extend(placed.into_iter().map(|(name, stage)| (name.to_owned(), stage)));
    Ok(stages)
}

/// Joins stages to a query.
pub(crate) fn finish(view: &View, stages: &[(String, String)], last: &str) -> Result<Statement, Refusal> {
    let stages: Vec<String> = stages.iter().map(|(name, stage)| format!("{name} AS (\n  {stage}\n)")).collect();
    let query = format!("WITH {}\n{last}", stages.join(",\n"));
    if query.len() > SPARK_QUERY_CHARS_MAX {
        return Err(Refusal { part: format!("view {}", view.name), reason: Unsupported::TooLong });
    }
    Ok(Statement { query, versions: version_tables(view), calendar: CalendarTables::of(view.window) })
}

/// Writes one row per group of the rows of `source`.
pub(crate) fn groups_stage(groups: &[String], columns: &[String], source: &str) -> String {
    let columns: Vec<&str> = groups.iter().chain(columns).map(String::as_str).collect();
    let columns = if columns.is_empty() { "count(*) AS __all".to_owned() } else { columns.join(", ") };
    match groups.is_empty() {
        // Without groups there would be a row without events.
        true => format!("SELECT {columns} FROM {source} HAVING count(*) > 0"),
        false => format!("SELECT {columns} FROM {source} GROUP BY {}", groups.join(", ")),
    }
}

/// Writes one row per group, with every aggregate as `__a<i>`.
fn rows_stage(groups: &[String], aggregates: &Aggregates) -> String {
    let finished = aggregates.finished.iter().enumerate();
    let finished = finished.filter_map(|(index, value)| value.as_ref().map(|value| format!("{value} AS __a{index}")));
    let columns: Vec<String> = std::iter::once("g.*".to_owned()).chain(finished).collect();
    let joined = aggregates.spreads.joined.iter().chain(aggregates.tops.iter().map(|(name, _)| name));
    let joins = joined.map(|name| join(groups, name));
    let source = if aggregates.places.is_empty() { "__groups" } else { "__places" };
    format!("SELECT {} FROM {source} g{}", columns.join(", "), joins.collect::<String>())
}

/// Joins groups `g` with values of some of them.
pub(crate) fn join(groups: &[String], stage: &str) -> String {
    format!(" LEFT JOIN {stage} ON {}", join_on(groups, "g", stage))
}

/// Writes the condition that rows of two relations belong to the same group.
pub(crate) fn join_on(groups: &[String], left: &str, right: &str) -> String {
    let equal = |column: &String| format!("{left}.{column} <=> {right}.{column}");
    let on: Vec<String> = groups.iter().map(equal).collect();
    if on.is_empty() { "true".to_owned() } else { on.join(" AND ") }
}

fn last_stage(view: &View) -> Result<String, Refusal> {
    let aggregate = |index: usize| format!("__a{index}");
    let of = |scalar: &Scalar, part: &dyn Fn() -> String| {
        scalar::write(scalar, &aggregate).map_err(|reason| Refusal { part: part(), reason })
    };
    let mut columns = Vec::new();
    for column in &view.output {
        columns.push(match *column {
            OutputColumn::WindowStart => format!("timestamp_micros({START}) AS window_start"),
            OutputColumn::WindowEnd => format!("timestamp_micros({END}) AS window_end"),
            OutputColumn::Dimension(index) => {
                format!("__d{index} AS {}", quote::name(&view.dimensions[index].name))
            }
            OutputColumn::Measure(index) => {
                let measure = &view.measures[index];
                let value = of(&measure.expression, &|| format!("measure {}", measure.name))?;
                format!("{value} AS {}", quote::name(&measure.name))
            }
        });
    }
    let having = match &view.having {
        Some(having) => format!("\nWHERE {}", of(having, &|| "HAVING".to_owned())?),
        None => String::new(),
    };
    Ok(format!("SELECT\n  {}\nFROM __rows{having}", columns.join(",\n  ")))
}
