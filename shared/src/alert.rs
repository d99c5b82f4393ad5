//! Defines what an alert watches: a condition over the rows of a view. It evaluates nothing.
//!
//! The condition is a [`Scalar`] over a table with these columns, in this order: `window_start` and `window_end` (if the view
//! has windows), the dimensions, the measures, their lower bounds, their upper bounds, and their values in the same group's
//! previous window. [`AlertColumn`] maps the index of a column to its meaning and back.

use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_128;

use crate::ids::{AlertName, Name, ViewName};
use crate::scalar::Scalar;
use crate::stream::event_source::is_topic_name;
use crate::types::DataType;
use crate::view::View;
use crate::window::Window;

/// A declared alert, checked against its view.
#[derive(Debug, Clone, PartialEq)]
pub struct Alert {
    pub name: AlertName,
    pub view: ViewName,
    /// Over the columns of [`AlertColumn`]. NULL counts as false.
    pub condition: Scalar,
    /// The text of the condition.
    pub condition_sql: String,
    /// The columns whose values name one record of the alert, in the order of the view's key.
    pub once_per: Vec<KeyColumn>,
    /// The receiver of notices; `None`: the alert is only listed.
    pub target: Option<AlertTarget>,
    /// Most notices in a minute; `None`: any number.
    pub notices_per_minute: Option<u32>,
    /// The statement that declared the alert.
    pub sql: String,
}

/// A column that identifies a row of a view.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum KeyColumn {
    WindowStart,
    WindowEnd,
    /// Index into [`View::dimensions`].
    Dimension(usize),
}

/// The receiver of the notices of an alert.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AlertTarget {
    /// The `[connections.NAME]` of the settings with `kind = "webhook"`.
    Webhook(Name),
    /// A topic of the `[connections.NAME]` with `kind = "kafka"`.
    Topic { connection: Name, topic: String },
}

/// Why a text does not name a receiver.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidTarget {
    #[error("`{0}` is not a target")]
    NoKind(String),
    #[error("unknown kind of target `{0}`")]
    Kind(String),
    #[error("{0}")]
    Name(String),
    #[error("`{0}` does not name a topic")]
    NoTopic(String),
    #[error("'{0}' is not the name of a topic: 1 to 249 of a-z, A-Z, 0-9, `.`, `_` and `-`")]
    Topic(String),
}

impl std::str::FromStr for AlertTarget {
    type Err = InvalidTarget;

    fn from_str(text: &str) -> Result<AlertTarget, InvalidTarget> {
        let (kind, place) = text.split_once(':').ok_or_else(|| InvalidTarget::NoKind(text.to_owned()))?;
        let name = |name: &str| name.parse::<Name>().map_err(|error| InvalidTarget::Name(error.to_string()));
        match kind {
            "webhook" => Ok(AlertTarget::Webhook(name(place)?)),
            "kafka" => {
                let (connection, topic) =
                    place.split_once('/').ok_or_else(|| InvalidTarget::NoTopic(place.to_owned()))?;
                let connection = name(connection)?;
                match is_topic_name(topic) {
                    true => Ok(AlertTarget::Topic { connection, topic: topic.to_owned() }),
                    false => Err(InvalidTarget::Topic(topic.to_owned())),
                }
            }
            kind => Err(InvalidTarget::Kind(kind.to_owned())),
        }
    }
}

impl std::fmt::Display for AlertTarget {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            AlertTarget::Webhook(name) => write!(f, "webhook:{name}"),
            AlertTarget::Topic { connection, topic } => write!(f, "kafka:{connection}/{topic}"),
        }
    }
}

/// The meaning of a column that a condition reads. Measures are indices into [`View::measures`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AlertColumn {
    Key(KeyColumn),
    Measure(usize),
    /// The lower end of the 95 % interval of an estimate; the value itself where it is exact.
    Lower(usize),
    /// The upper end.
    Upper(usize),
    /// The value in the window before, of the same group; NULL if the group has no row there.
    Previous(usize),
}

impl AlertColumn {
    /// Returns every column, in the order of their indices.
    pub fn all(view: &View) -> Vec<AlertColumn> {
        let measures = || 0..view.measures.len();
        let keys = key_columns(view).into_iter().map(AlertColumn::Key);
        keys.chain(measures().map(AlertColumn::Measure))
            .chain(measures().map(AlertColumn::Lower))
            .chain(measures().map(AlertColumn::Upper))
            .chain(measures().map(AlertColumn::Previous))
            .collect()
    }

    /// Returns the name in SQL.
    pub fn name(self, view: &View) -> String {
        let of = |measure: usize| crate::sql::print_name(&view.measures[measure].name);
        match self {
            AlertColumn::Key(key) => key.name(view).to_owned(),
            AlertColumn::Measure(measure) => of(measure),
            AlertColumn::Lower(measure) => format!("lower({})", of(measure)),
            AlertColumn::Upper(measure) => format!("upper({})", of(measure)),
            AlertColumn::Previous(measure) => format!("previous({})", of(measure)),
        }
    }

    /// Returns the type.
    pub fn data_type(self, view: &View) -> DataType {
        match self {
            AlertColumn::Key(KeyColumn::Dimension(index)) => view.dimensions[index].expression.data_type,
            AlertColumn::Key(_) => DataType::Timestamp,
            AlertColumn::Measure(measure)
            | AlertColumn::Lower(measure)
            | AlertColumn::Upper(measure)
            | AlertColumn::Previous(measure) => view.measures[measure].expression.data_type,
        }
    }
}

impl KeyColumn {
    /// Returns the name of the column.
    pub fn name(self, view: &View) -> &str {
        match self {
            KeyColumn::WindowStart => "window_start",
            KeyColumn::WindowEnd => "window_end",
            KeyColumn::Dimension(index) => &view.dimensions[index].name,
        }
    }
}

/// Returns the columns that identify the rows of a view, in the order of the table of a condition.
pub fn key_columns(view: &View) -> Vec<KeyColumn> {
    let windows: &[KeyColumn] = match view.window {
        Window::All => &[],
        _ => &[KeyColumn::WindowStart, KeyColumn::WindowEnd],
    };
    windows.iter().copied().chain((0..view.dimensions.len()).map(KeyColumn::Dimension)).collect()
}

/// Returns whether rows of a view with this window have one before them: consecutive windows of one length.
pub fn has_previous(window: Window) -> bool {
    matches!(window, Window::Tumble(_))
}

impl Alert {
    /// Returns the identity of what the alert raises: with the same definition a record stays raised, whatever else changes.
    /// The target is not part of it.
    pub fn definition_hash(&self, view: &View) -> String {
        let once_per: Vec<&str> = self.once_per.iter().map(|column| column.name(view)).collect();
        let text =
            serde_json::to_vec(&(&self.view, &self.condition_sql, once_per)).expect("a definition is plain data");
        format!("{:032x}", xxh3_128(&text))
    }

    /// Returns whether the condition reads the previous window.
    pub fn reads_previous(&self, view: &View) -> bool {
        let columns = AlertColumn::all(view);
        let mut reads = false;
        self.condition.for_each_column(&mut |index| reads |= matches!(columns[index], AlertColumn::Previous(_)));
        reads
    }

    /// Describes the alert in lines, for `trueup check`.
    pub fn describe(&self, view: &View) -> String {
        let columns = AlertColumn::all(view);
        let condition = crate::sql::print(&self.condition, &|index| columns[index].name(view));
        let names: Vec<&str> = self.once_per.iter().map(|column| column.name(view)).collect();
        let once = if names.is_empty() { "once".to_owned() } else { format!("once per {}", names.join(", ")) };
        let rate = self.notices_per_minute.map_or_else(String::new, |n| format!(", at most {n} notices per minute"));
        let target = self.target.as_ref().map_or_else(|| "none: listed only".to_owned(), |to| format!("{to}{rate}"));
        format!(
            "alert {} on view {}\n  {:<16} {condition}\n  {:<16} {once}\n  {:<16} {target}\n",
            self.name, self.view, "condition", "raised", "to"
        )
    }
}
