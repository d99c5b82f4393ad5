//! Compares definitions, in words, and says which changes are refused.
//!
//! [`stream`] compares a declaration with the stored events, [`view`] two definitions of a view. This module reads nothing.

pub mod stream;
pub mod view;

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::sql::options_of;

/// A part of a definition.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum DefinitionPart {
    Column,
    EventTime,
    PrimaryKey,
    Entity,
    /// Whether it is a table, and by which column.
    RowKey,
    Source,
    Partitions,
    /// The tables that events are joined with.
    Join,
    Filter,
    Window,
    Dimension,
    Measure,
    Having,
    /// The order of a view's columns.
    Order,
    /// An option of `WITH (..)`; does not change computed results.
    Option,
}

/// One difference. Without `before` the part is new, without `after` it is removed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Change {
    pub part: DefinitionPart,
    /// The name of a column, a dimension, a measure or an option.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    pub before: Option<String>,
    pub after: Option<String>,
    /// The consequence, where it is not obvious.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
    /// Why the change is refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refused: Option<Refusal>,
}

/// Why a change is refused, and what to do instead.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Refusal {
    pub reason: String,
    pub next_step: String,
}

impl DefinitionPart {
    /// The part in words.
    pub fn name(self) -> &'static str {
        match self {
            DefinitionPart::Column => "column",
            DefinitionPart::EventTime => "event time",
            DefinitionPart::PrimaryKey => "primary key",
            DefinitionPart::Entity => "entity",
            DefinitionPart::RowKey => "key of rows",
            DefinitionPart::Source => "source",
            DefinitionPart::Partitions => "partitions",
            DefinitionPart::Join => "join",
            DefinitionPart::Filter => "filter",
            DefinitionPart::Window => "window",
            DefinitionPart::Dimension => "dimension",
            DefinitionPart::Measure => "measure",
            DefinitionPart::Having => "HAVING",
            DefinitionPart::Order => "order of columns",
            DefinitionPart::Option => "option",
        }
    }
}

impl Change {
    fn new(part: DefinitionPart, name: Option<&str>, before: Option<String>, after: Option<String>) -> Change {
        Change { part, name: name.map(str::to_owned), before, after, note: None, refused: None }
    }

    fn note(self, note: impl Into<String>) -> Change {
        Change { note: Some(note.into()), ..self }
    }

    /// `measure late_flights`.
    pub fn subject(&self) -> String {
        match &self.name {
            Some(name) => format!("{} {name}", self.part.name()),
            None => self.part.name().to_owned(),
        }
    }
}

/// `measure n added: COUNT(*)`, `column tail STRING removed`, `filter changed: a > 0 → a > 1`.
impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let subject = self.subject();
        match (&self.before, &self.after) {
            (None, Some(after)) => write!(f, "{subject} added: {after}"),
            (Some(_), None) => write!(f, "{subject} removed"),
            (Some(before), Some(after)) => write!(f, "{subject} changed: {before} → {after}"),
            (None, None) => write!(f, "{subject} changed"),
        }
    }
}

/// The options that differ.
fn options(before: &str, after: &str) -> Vec<Change> {
    let (before, after) = (options_of(before), options_of(after));
    let both: BTreeMap<&String, (Option<&String>, Option<&String>)> =
        before.keys().chain(after.keys()).map(|name| (name, (before.get(name), after.get(name)))).collect();
    let quoted = |value: Option<&String>| value.map(|value| format!("'{value}'"));
    let differ = both.into_iter().filter(|(_, (before, after))| before != after);
    differ.map(|(name, (a, b))| Change::new(DefinitionPart::Option, Some(name), quoted(a), quoted(b))).collect()
}
