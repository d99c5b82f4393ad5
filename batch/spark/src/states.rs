//! Writes the query of a batch run: per window and group the states of all aggregates, from which Trueup makes the rows of a
//! version, and which merge with those of the speed layer.
//!
//! | columns | contents |
//! |---|---|
//! | `__date` | the UTC day on which the window starts, in days since 1970; 0 for a window over all time |
//! | `__s`, `__e` | start and end of the window in microseconds; not for a window over all time |
//! | `__d<i>` | the dimensions |
//! | `_state_<i>_<part>` | the states, as `shared::partial::codec::gathered` reads them |

use shared::partial::sketch::distinct::SMALL_MAX;
use shared::partial::sketch::top_k::SKETCH_ITEMS_MAX;
use shared::stream::Stream;
use shared::time::MICROS_PER_DAY;
use shared::types::DataType;
use shared::view::{Aggregate, AggregateFunction, View};
use shared::window::Window;

use crate::aggregates::sum;
use crate::events::{self, Inputs, part_of};
use crate::percentiles::{Percentile, array};
use crate::quote;
use crate::refusal::{Refusal, Unsupported};
use crate::spread::{self, Spreads};
use crate::statement::{Statement, check, finish, group_columns, groups_stage, join, placed_stages};
use crate::windows::START;

/// The column of the day on which windows start; files are divided by it.
pub const DATE: &str = "__date";

/// The settings that a run needs besides those of the query: how its result is written, and that no file may be missing.
pub const RUN_SETTINGS: &[(&str, &str)] = &[
    ("spark.sql.parquet.outputTimestampType", "TIMESTAMP_MICROS"),
    ("spark.sql.parquet.datetimeRebaseModeInWrite", "CORRECTED"),
    ("spark.sql.parquet.writeLegacyFormat", "false"),
    ("spark.sql.files.ignoreMissingFiles", "false"),
    ("spark.sql.files.ignoreCorruptFiles", "false"),
];

/// What a run computes.
#[derive(Debug, Clone, Default)]
pub struct Scope {
    /// Some events may be copies of others.
    pub dedup: bool,
    /// The starts of the windows to compute, half-open, in microseconds; `None`: all.
    pub starts: Option<Vec<(i64, i64)>>,
}

/// Writes the query of `view`, whose stream is `stream`.
pub fn states(view: &View, stream: &Stream, scope: &Scope) -> Result<Statement, Refusal> {
    check(view, stream)?;
    let groups = group_columns(view);
    let mut inputs = Inputs::default();
    let mut written = Written::default();
    for (index, aggregate) in view.aggregates.iter().enumerate() {
        written.add(view, index, aggregate, &mut inputs, &groups)?;
    }
    let mut stages = placed_stages(view, stream, &inputs, scope.dedup)?;
    let chosen = match scope.starts.as_ref().filter(|_| view.window != Window::All) {
        Some(starts) => {
            let between = |(from, to): &(i64, i64)| {
                format!("({START} >= {} AND {START} < {})", quote::long(*from), quote::long(*to))
            };
            let any = starts.iter().map(between).collect::<Vec<_>>().join(" OR ");
            format!("SELECT * FROM __placed WHERE {}", if any.is_empty() { "false" } else { &any })
        }
        None => "SELECT * FROM __placed".to_owned(),
    };
    stages.push((CHOSEN.to_owned(), chosen));
    stages.push(("__groups".to_owned(), groups_stage(&groups, &written.columns, CHOSEN)));
    let mut source = "__groups";
    if !written.places.is_empty() {
        stages.push(("__places".to_owned(), format!("SELECT *, {} FROM __groups", written.places.join(", "))));
        source = "__places";
    }
    stages.extend(written.stages.iter().chain(&written.spreads.stages).cloned());
    let date = match view.window {
        Window::All => "0L".to_owned(),
        _ => format!("(g.{START} - pmod(g.{START}, {MICROS_PER_DAY}L)) div {MICROS_PER_DAY}L"),
    };
    let columns = std::iter::once(format!("{date} AS {DATE}"));
    let columns = columns.chain(groups.iter().map(|column| format!("g.{column}"))).chain(written.states);
    let joined = written.stages.iter().map(|(name, _)| name).chain(&written.spreads.joined);
    let joins: String = joined.map(|name| join(&groups, name)).collect();
    let last = format!(
        "SELECT\n  {}\nFROM {source} g{joins}\nDISTRIBUTE BY {DATE}",
        columns.collect::<Vec<_>>().join(",\n  ")
    );
    finish(view, &stages, &last)
}

const CHOSEN: &str = "__chosen";

/// The written states of a view.
#[derive(Debug, Default)]
struct Written {
    /// Columns of the stage `__groups`.
    columns: Vec<String>,
    /// Columns of the stage `__places`, which reads those.
    places: Vec<String>,
    /// Stages that are joined with the groups, by name.
    stages: Vec<(String, String)>,
    /// The columns of the result.
    states: Vec<String>,
    /// The sorted arrays of percentiles, each once.
    arrays: Vec<String>,
    /// The stages of variances and deviations of DOUBLEs.
    spreads: Spreads,
}

impl Written {
    /// Adds a column of the groups that is a part of a state.
    fn part(&mut self, index: usize, part: &str, value: &str) {
        let name = format!("_state_{index}_{part}");
        self.columns.push(format!("{value} AS {name}"));
        self.states.push(format!("g.{name}"));
    }

    fn add<'v>(
        &mut self,
        view: &'v View,
        index: usize,
        aggregate: &'v Aggregate,
        inputs: &mut Inputs<'v>,
        groups: &[String],
    ) -> Result<(), Refusal> {
        let filter = aggregate.filter.as_ref().map(|filter| inputs.column(filter, false));
        let clause = filter.as_ref().map_or_else(String::new, |filter| format!(" FILTER (WHERE {filter})"));
        let Some(argument) = aggregate.argument.as_ref() else {
            self.part(index, "count", &format!("count(*){clause}"));
            return Ok(());
        };
        let of = argument.data_type;
        let is_set = matches!(aggregate.function, AggregateFunction::CountDistinct | AggregateFunction::TopK { .. });
        let input = inputs.column(argument, is_set);
        let count = format!("count({input}){clause}");
        let refusal = |reason: Unsupported| Refusal { part: part_of(view, argument), reason };
        match aggregate.function {
            AggregateFunction::Count => self.part(index, "count", &count),
            AggregateFunction::Sum | AggregateFunction::Avg if of == DataType::Double => {
                let DoubleSum { sum, beyond } = DoubleSum::of(&input, &clause);
                self.part(index, "sum", &sum);
                self.part(index, "correction", &beyond);
                self.part(index, "count", &count);
            }
            AggregateFunction::Sum | AggregateFunction::Avg => {
                let sum = sum(of, &input, &clause).map_err(refusal)?;
                self.part(index, "sum", &format!("coalesce({sum}, 0)"));
                self.part(index, "count", &count);
            }
            AggregateFunction::Min => self.part(index, "value", &format!("min({input}){clause}")),
            AggregateFunction::Max => self.part(index, "value", &format!("max({input}){clause}")),
            AggregateFunction::Spread { .. } if of == DataType::Double => {
                let stage = self.spreads.of(of, &input, filter.as_deref(), groups, CHOSEN).map_err(refusal)?;
                for (part, column) in
                    [("count", "n"), ("center", "center"), ("sum", "sum"), ("squares", "squares"), ("power", "power")]
                {
                    self.states.push(format!("{stage}.__{column} AS _state_{index}_{part}"));
                }
            }
            AggregateFunction::Spread { .. } => {
                self.part(index, "count", &count);
                for (part, sum) in spread::halves(of, &input, &clause).map_err(refusal)? {
                    self.part(index, part, &sum);
                }
            }
            AggregateFunction::First | AggregateFunction::Last => {
                let is_first = aggregate.function == AggregateFunction::First;
                self.edge(index, is_first, &input, filter.as_deref());
            }
            AggregateFunction::CountDistinct => {
                let stage = distinct_stage(&input, of, filter.as_deref(), groups);
                self.joined(index, "distinct", stage, &["hll", "few", "exact"]);
            }
            AggregateFunction::TopK { .. } => {
                let stage = top_stage(&input, filter.as_deref(), groups);
                self.joined(index, "items", stage, &["top", "total"]);
            }
            AggregateFunction::Percentile { fraction, continuous, descending } => {
                let wanted = (fraction, continuous, descending);
                self.percentile(index, of, &input, &clause, wanted);
            }
        }
        Ok(())
    }

    fn joined(&mut self, index: usize, name: &str, stage: String, parts: &[&str]) {
        let name = format!("__{name}{index}");
        self.states.extend(parts.iter().map(|part| format!("{name}.__{part} AS _state_{index}_{part}")));
        self.stages.push((name, stage));
    }

    fn edge(&mut self, index: usize, is_first: bool, input: &str, filter: Option<&str>) {
        let wanted = filter.map_or_else(String::new, |filter| format!(" AND {filter}"));
        let clause = format!("FILTER (WHERE {input} IS NOT NULL{wanted})");
        let (extreme, by) = if is_first { ("min", "min_by") } else { ("max", "max_by") };
        self.columns.push(format!("{extreme}(struct(__t, __o, __p)) {clause} AS __place{index}"));
        for (part, field) in [("time", "__t"), ("offset", "__o"), ("partition", "__p")] {
            self.states.push(format!("g.__place{index}.{field} AS _state_{index}_{part}"));
        }
        self.part(index, "value", &format!("{by}({input}, struct(__t, __o, __p)) {clause}"));
    }

    fn percentile(
        &mut self,
        index: usize,
        of: DataType,
        input: &str,
        clause: &str,
        (fraction, continuous, descending): (f64, bool, bool),
    ) {
        // The percentile of decimals is one of DOUBLEs.
        let is_double = matches!(of, DataType::Double | DataType::Decimal { .. });
        let input = if is_double { format!("CAST({input} AS DOUBLE)") } else { input.to_owned() };
        let kept = if is_double {
            let number = format!("CASE WHEN NOT isnan({input}) THEN {input} + 0D END");
            format!("kll_sketch_agg_double({number}, 200){clause}")
        } else {
            format!("kll_sketch_agg_bigint({}, 200){clause}", whole(&input, of))
        };
        self.columns.push(format!("{kept} AS __kll{index}"));
        let array = array(&input, is_double, clause);
        let known = self.arrays.iter().position(|known| *known == array);
        let at = known.unwrap_or_else(|| {
            self.columns.push(format!("{array} AS __l{}", self.arrays.len()));
            self.arrays.push(array);
            self.arrays.len() - 1
        });
        let values = format!("__l{at}");
        let percentile = Percentile { number: index, values: &values, fraction, continuous, descending };
        self.places.extend(percentile.columns());
        self.states.push(format!("CASE WHEN size(g.{values}) > 0 THEN g.__kll{index} END AS _state_{index}_kll"));
        self.states.push(format!("{} AS _state_{index}_exact", percentile.value()));
    }
}

const INFINITY: &str = "CAST('Infinity' AS DOUBLE)";

fn scale_down() -> String {
    quote::double(2f64.powi(-600))
}

fn scale_up() -> String {
    quote::double(2f64.powi(600))
}

/// A sum of DOUBLEs. One that does not fit is infinite, and `beyond` it times 2^-1200; otherwise `beyond` is 0.
struct DoubleSum {
    sum: String,
    beyond: String,
}

impl DoubleSum {
    fn of(input: &str, clause: &str) -> DoubleSum {
        let largest = format!("max(abs({input})){clause}");
        let scaled = format!("sum({input} * {}){clause}", scale_down());
        let is_large = format!("{largest} > 1e290D AND {largest} < {INFINITY}");
        let whole = format!("{scaled} * {}", scale_up());
        DoubleSum {
            sum: format!("CASE WHEN {is_large} THEN {whole} ELSE coalesce(sum({input}){clause}, 0D) END"),
            beyond: format!(
                "CASE WHEN {is_large} AND abs({whole}) = {INFINITY} THEN {scaled} * {} ELSE 0D END",
                scale_down()
            ),
        }
    }
}

/// Writes a value as the BIGINT that sorts like it.
fn whole(input: &str, of: DataType) -> String {
    match of {
        DataType::Timestamp => format!("unix_micros({input})"),
        DataType::Date => format!("CAST(unix_date({input}) AS BIGINT)"),
        _ => format!("CAST({input} AS BIGINT)"),
    }
}

/// Writes the stage of the different values of the column `input`: how many, a sketch of their hashes, and the values
/// themselves of small groups. A sketch of DOUBLEs needs bits that Spark cannot take of them, so these are all listed.
fn distinct_stage(input: &str, of: DataType, filter: Option<&str>, groups: &[String]) -> String {
    let filter = filter.map_or_else(String::new, |filter| format!(" AND {filter}"));
    let by = |more: &str| groups.iter().map(String::as_str).chain([more]).collect::<Vec<_>>().join(", ");
    let partition = if groups.is_empty() { String::new() } else { format!("PARTITION BY {} ", groups.join(", ")) };
    let group_by = if groups.is_empty() { String::new() } else { format!(" GROUP BY {}", groups.join(", ")) };
    let each = format!("SELECT {0} FROM {CHOSEN} WHERE {input} IS NOT NULL{filter} GROUP BY {0}", by(input));
    let (sketch, kept) = match of {
        DataType::Double => ("CAST(NULL AS BINARY)".to_owned(), String::new()),
        _ => (format!("hll_sketch_agg({}, 12)", hashed(input, of)), format!(" FILTER (WHERE __rank <= {SMALL_MAX})")),
    };
    let columns = format!("count(*) AS __exact, {sketch} AS __hll, collect_list({input}){kept} AS __few");
    let ranked = format!("SELECT *, row_number() OVER ({partition}ORDER BY {input}) AS __rank FROM ({each})");
    format!("SELECT {} FROM ({ranked}){group_by}", by(&columns))
}

/// Writes the bytes that are hashed, as in `shared::partial::sketch::hash`.
fn hashed(input: &str, of: DataType) -> String {
    match of {
        DataType::Boolean => format!("CAST(CAST({input} AS INT) AS BIGINT)"),
        DataType::String | DataType::Json => {
            format!("CASE {input} WHEN '' THEN X'00' WHEN '\\u0000' THEN X'FF' ELSE CAST({input} AS BINARY) END")
        }
        DataType::Decimal { .. } => format!("CAST(CAST({input} AS STRING) AS BINARY)"),
        _ => whole(input, of),
    }
}

/// Writes the stage of the most frequent values of the column `input`, one more than a sketch keeps, and the number of all.
fn top_stage(input: &str, filter: Option<&str>, groups: &[String]) -> String {
    let filter = filter.map_or_else(String::new, |filter| format!(" AND {filter}"));
    let by = |more: &str| groups.iter().map(String::as_str).chain([more]).collect::<Vec<_>>().join(", ");
    let partition = if groups.is_empty() { String::new() } else { format!("PARTITION BY {} ", groups.join(", ")) };
    let group_by = if groups.is_empty() { String::new() } else { format!(" GROUP BY {}", groups.join(", ")) };
    let counted = format!(
        "SELECT {}, count(*) AS __n FROM {CHOSEN} WHERE {input} IS NOT NULL{filter} GROUP BY {}",
        by(input),
        by(input)
    );
    let ranked =
        format!("SELECT *, row_number() OVER ({partition}ORDER BY __n DESC, {input}) AS __rank FROM ({counted})");
    let listed = format!(
        "collect_list(struct({input} AS value, __n AS count)) FILTER (WHERE __rank <= {}) AS __top, sum(__n) AS __total",
        SKETCH_ITEMS_MAX + 1
    );
    format!("SELECT {} FROM ({ranked}){group_by}", by(&listed))
}

/// Returns the query for the copies among the events: see [`events::copies`].
pub fn copies(stream: &Stream) -> Option<String> {
    events::copies(stream)
}
