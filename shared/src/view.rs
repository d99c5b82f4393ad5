//! Defines what a view computes; speed, batch and serving follow the same definition.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_128;

use crate::calendar::Zone;
use crate::column_name::same;
use crate::engine::EngineChoice;
use crate::ids::{Name, StreamName, ViewName};
use crate::lookup::definition::{LookupJoin, joined_column};
use crate::retention::Retention;
use crate::scalar::Scalar;
use crate::stream::Stream;
use crate::types::DataType;
use crate::window::Window;

/// The index of the aggregate that counts the rows of a group, in a view with [`Window::TableSession`]: assertions minus
/// retractions.
pub const ROW_COUNT: usize = 0;

/// A declared view, checked against its stream.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct View {
    pub name: ViewName,
    pub stream: StreamName,
    /// The tables whose rows its events are joined with, in order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub joins: Vec<LookupJoin>,
    pub window: Window,
    /// The time zone of calendar windows and of coarser grains; part of the definition only as far as the window has
    /// it.
    pub zone: Zone,
    /// The rows to fold, as a condition over the stream's columns. NULL counts as false.
    pub filter: Option<Scalar>,
    pub dimensions: Vec<Dimension>,
    /// Aggregates per window and group; equal ones appear once.
    pub aggregates: Vec<Aggregate>,
    /// Measures, as expressions over the aggregates.
    pub measures: Vec<Measure>,
    /// Names and order of the output columns as the SELECT gave them.
    pub output: Vec<OutputColumn>,
    /// `HAVING`, over the aggregates like a measure: rows where it is not true are not shown.
    pub having: Option<Scalar>,
    /// Whether batch runs compute it. Not part of the definition.
    pub layers: ViewLayers,
    /// What computes its batch runs; `None`: as the settings say. Not part of the definition.
    #[serde(default)]
    pub engine: Option<EngineChoice>,
    /// The connection of the settings to Spark; `None`: as the settings say.
    #[serde(default)]
    pub connection: Option<Name>,
    /// Five-field cron line of batch runs; `None`: runs only on request.
    pub schedule: Option<String>,
    /// The same for the checkpoints of a view of the speed layer alone.
    pub checkpoint_schedule: Option<String>,
    /// The drift above which a reconciliation raises an alarm, as a share; `None`: never.
    pub max_drift: Option<f64>,
    /// Names of the columns that its expressions and joins read, by index: those of the stream, and behind the number of its join and a
    /// point those of a table.
    pub reads: BTreeMap<usize, String>,
    /// Number of versions that can be queried, the newest included; at least 1. Not part of the definition.
    pub versions_kept: u32,
    /// Window dates further back are dropped; `None`: none are. Not part of the definition.
    pub retention: Option<Retention>,
    /// The zone of the schedule's wall clock. The view's own, if none was declared.
    pub schedule_zone: Zone,
    /// The statement that declared the view.
    pub sql: String,
}

/// The layers that compute a view.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ViewLayers {
    /// Speed since the seam, and batch runs before it.
    #[default]
    Both,
    /// Speed alone: checkpoints publish its state as versions.
    Speed,
}

impl ViewLayers {
    /// Returns the value of the option.
    pub fn name(self) -> &'static str {
        match self {
            ViewLayers::Both => "both",
            ViewLayers::Speed => "speed",
        }
    }
}

/// One output column.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum OutputColumn {
    WindowStart,
    WindowEnd,
    /// Index into [`View::dimensions`].
    Dimension(usize),
    /// Index into [`View::measures`].
    Measure(usize),
}

fn hash(what: &impl Serialize) -> String {
    let text = serde_json::to_vec(what).expect("a definition is plain data");
    format!("{:032x}", xxh3_128(&text))
}

/// A column to group by.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Dimension {
    pub name: String,
    /// Over the stream's columns.
    pub expression: Scalar,
}

/// One accumulated value.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Aggregate {
    pub function: AggregateFunction,
    /// Over the stream's columns; `None` for `COUNT(*)`.
    pub argument: Option<Scalar>,
    /// `FILTER (WHERE ..)`, over the stream's columns. NULL counts as false.
    pub filter: Option<Scalar>,
    /// Whether the values are those of rows that can be retracted: where `filter` is true a value is added, where it is false the
    /// value is taken back, and where it is NULL it does not count.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub signed: bool,
}

/// How values are accumulated. All but `COUNT(*)` ignore NULL arguments.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub enum AggregateFunction {
    /// `COUNT(*)` or `COUNT(x)`: BIGINT, 0 of no values.
    Count,
    /// Integers: BIGINT. DOUBLE: DOUBLE. DECIMAL(p,s): DECIMAL(38,s). NULL if the sum of all values does not fit; sums on the
    /// way do not matter. NULL of no values.
    Sum,
    /// DOUBLE: the sum divided by the count. NULL of no values.
    Avg,
    /// NaN is greater than every number; NULL of no values.
    Min,
    Max,
    /// `VAR_POP`, `VAR_SAMP`, `STDDEV_POP`, `STDDEV_SAMP`: DOUBLE. NULL of no values; of one value the sample's is NULL,
    /// the population's 0.
    Spread {
        /// Whether it is divided by n - 1 instead of n.
        sample: bool,
        /// Whether it is the square root of the variance.
        root: bool,
    },
    /// `COUNT(DISTINCT x)`: BIGINT, 0 of no values. All NaN are one value, -0.0 is 0.0.
    CountDistinct,
    /// `PERCENTILE_CONT`, `PERCENTILE_DISC`, `MEDIAN`. NULL of nothing; NaN is ignored like NULL.
    Percentile {
        /// From 0 to 1.
        fraction: f64,
        /// Whether it is interpolated between neighbours, as DOUBLE. Otherwise a value that occurred, of the argument's type.
        continuous: bool,
        /// Whether it is counted from the greatest value down. Only if not continuous: else it is another fraction.
        descending: bool,
    },
    /// `TOP_K(x, k)`: JSON, the most frequent values with their counts, most frequent first, equal counts by value.
    /// NULL of no values.
    TopK {
        k: u16,
    },
    /// `FIRST_VALUE(x)`, by event time, then offset, then partition; over a table by event time, then value. NULL of no values.
    First,
    /// `LAST_VALUE(x)`.
    Last,
}

/// How much of the values an accumulated state keeps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Precision {
    /// Small groups exactly, large ones as sketches: bounded memory per group.
    Sketch,
    /// Everything the exact value needs: for batch.
    Exact,
}

impl Aggregate {
    /// Returns whether speed estimates the value once a group has many values.
    pub fn is_estimated(&self) -> bool {
        use AggregateFunction::{CountDistinct, Percentile, TopK};
        !self.signed && matches!(self.function, CountDistinct | Percentile { .. } | TopK { .. })
    }

    /// Type of the finished value.
    pub fn data_type(&self) -> DataType {
        let argument = self.argument.as_ref().map_or(DataType::BigInt, |a| a.data_type);
        match self.function {
            AggregateFunction::Count => DataType::BigInt,
            AggregateFunction::Avg => DataType::Double,
            AggregateFunction::Sum => match argument {
                DataType::Decimal { scale, .. } => DataType::Decimal { precision: 38, scale },
                DataType::Double => DataType::Double,
                _ => DataType::BigInt,
            },
            AggregateFunction::Min | AggregateFunction::Max | AggregateFunction::First | AggregateFunction::Last => {
                argument
            }
            AggregateFunction::Spread { .. } => DataType::Double,
            AggregateFunction::CountDistinct => DataType::BigInt,
            AggregateFunction::Percentile { continuous, .. } => match argument {
                DataType::Decimal { .. } => DataType::Double,
                _ if continuous => DataType::Double,
                other => other,
            },
            AggregateFunction::TopK { .. } => DataType::Json,
        }
    }
}

/// One shown value.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Measure {
    pub name: String,
    /// Over the view's aggregates: [`crate::scalar::Node::Column`] is an index into [`View::aggregates`].
    pub expression: Scalar,
}

impl View {
    /// Returns the identity of what the view computes: two views with equal hashes give equal results. Options, comments and spacing
    /// do not change it, nor do columns of the stream that it does not read.
    pub fn definition_hash(&self) -> String {
        // Places change when the stream gets other columns: what counts is the place among the names that are read.
        let names: BTreeSet<String> = self.reads.values().map(|name| name.to_lowercase()).collect();
        let place = |index: usize| {
            let name = self.reads.get(&index)?.to_lowercase();
            names.iter().position(|known| *known == name)
        };
        let mut by_name = self.clone();
        by_name.renumber(&mut |index| *index = place(*index).unwrap_or(usize::MAX));
        if self.joins.is_empty() {
            return hash(&(by_name.computed(), names));
        }
        let join = |join: &LookupJoin| {
            let LookupJoin { table, kind, on, .. } = join;
            (table.name.clone(), *kind, self.reads.get(on).map(|name| name.to_lowercase()))
        };
        let joins: Vec<_> = self.joins.iter().map(join).collect();
        hash(&(by_name.computed(), names, joins))
    }

    /// Returns the name of the column at an index of its expressions, behind that of its table if it is a joined one.
    pub fn column_name<'a>(&'a self, stream: &'a Stream, index: usize) -> Cow<'a, str> {
        match joined_column(index) {
            None => Cow::Borrowed(stream.columns[index].name.as_str()),
            Some((join, column)) => {
                let LookupJoin { table, alias, .. } = &self.joins[join];
                Cow::Owned(format!("{alias}.{}", table.columns[column].0))
            }
        }
    }

    /// Returns the hash that earlier programs noted in versions, in which columns are identified by position.
    pub fn positional_hash(&self) -> String {
        hash(&self.computed())
    }

    /// Returns everything that changes results.
    fn computed(&self) -> impl Serialize + '_ {
        (
            (&self.stream, &self.window, &self.filter, &self.having),
            (&self.dimensions, &self.aggregates, &self.measures, &self.output),
        )
    }

    /// Calls `each` with the index of every column that an expression over events reads, to change it.
    fn renumber(&mut self, each: &mut dyn FnMut(&mut usize)) {
        let of_aggregates = self.aggregates.iter_mut().flat_map(|a| a.argument.iter_mut().chain(&mut a.filter));
        let of_dimensions = self.dimensions.iter_mut().map(|dimension| &mut dimension.expression);
        self.filter.iter_mut().chain(of_dimensions).chain(of_aggregates).for_each(|scalar| scalar.renumber(each));
    }

    /// Calls `each` with every expression over the columns of events.
    pub fn for_each_expression(&self, each: &mut dyn FnMut(&Scalar)) {
        self.filter.iter().for_each(&mut *each);
        self.dimensions.iter().for_each(|dimension| each(&dimension.expression));
        self.aggregates
            .iter()
            .for_each(|aggregate| aggregate.argument.iter().chain(&aggregate.filter).for_each(&mut *each));
    }

    /// Returns the schedule on which versions are published: of runs, or of checkpoints.
    pub fn version_schedule(&self) -> Option<&str> {
        match self.layers {
            ViewLayers::Both => self.schedule.as_deref(),
            ViewLayers::Speed => self.checkpoint_schedule.as_deref(),
        }
    }

    /// Index of the dimension called `name`, in any case.
    pub fn dimension(&self, name: &str) -> Option<usize> {
        self.dimensions.iter().position(|d| same(&d.name, name))
    }

    /// Index of the measure called `name`, in any case.
    pub fn measure(&self, name: &str) -> Option<usize> {
        self.measures.iter().position(|m| same(&m.name, name))
    }
}
