//! Defines a sink of a stream: its events, filtered and mapped, written to a topic or sent to a webhook in the order of the log.
//! It writes nothing.
//!
//! Every event of the log that passes the condition is one record, late events too. Events that intake drops as duplicates are
//! not in the log, and historical events, which were never in a log, are not written.

use std::time::Duration;

use xxhash_rust::xxh3::xxh3_128;

use crate::ids::{SinkName, StreamName};
use crate::lookup::definition::{LookupJoin, joined_column, joined_index};
use crate::scalar::Scalar;
use crate::sink::{SinkTarget, every_text};
use crate::sql::{print, print_name};
use crate::stream::Stream;

/// A declared sink of a stream, checked against its stream.
#[derive(Debug, Clone, PartialEq)]
pub struct EventSink {
    pub name: SinkName,
    pub stream: StreamName,
    pub target: SinkTarget,
    /// Shortest time between two epochs.
    pub every: Duration,
    /// The tables whose rows its events are joined with, in order.
    pub joins: Vec<LookupJoin>,
    /// WHERE, over the columns of the stream and of joined tables; `None`: all events.
    pub filter: Option<Scalar>,
    /// The columns of a record's value, at least one.
    pub columns: Vec<SelectedColumn>,
    /// Indexes of the columns that are the key of a record; none: records have no key.
    pub key: Vec<usize>,
    /// The statement that declared the sink.
    pub sql: String,
}

/// A column of the records.
#[derive(Debug, Clone, PartialEq)]
pub struct SelectedColumn {
    pub name: String,
    /// Over the columns of the stream and of joined tables.
    pub expression: Scalar,
}

impl EventSink {
    /// Returns the names of the columns of the key.
    pub fn key_names(&self) -> impl Iterator<Item = &str> {
        self.key.iter().map(|index| self.columns[*index].name.as_str())
    }

    /// Returns the identity of the stream and of the keys of the target: where it differs, another sink has written the target.
    /// Other columns and another condition hold for the events that come next.
    pub fn key_hash(&self) -> String {
        let types: Vec<String> =
            self.key.iter().map(|index| self.columns[*index].expression.data_type.to_string()).collect();
        let names: Vec<&str> = self.key_names().collect();
        let target = self.target.topic().map(|topic| topic.topic.as_str());
        let text = (self.stream.as_str(), target, self.target.format(), names, types);
        format!("{:032x}", xxh3_128(&serde_json::to_vec(&text).expect("a definition is plain data")))
    }

    /// Returns the name of the column at an index of its expressions, as SQL.
    fn column_sql(&self, stream: &Stream, index: usize) -> String {
        match joined_column(index) {
            None => print_name(&stream.columns[index].name),
            Some((join, column)) => {
                let LookupJoin { table, alias, .. } = &self.joins[join];
                format!("{}.{}", print_name(alias), print_name(&table.columns[column].0))
            }
        }
    }

    fn sql(&self, scalar: &Scalar, stream: &Stream) -> String {
        print(scalar, &|index| self.column_sql(stream, index))
    }

    /// Returns each join as SQL.
    pub fn joins_sql(&self, stream: &Stream) -> Vec<String> {
        let join = |(number, join): (usize, &LookupJoin)| {
            let LookupJoin { table, alias, kind, on } = join;
            let name = if table.name.as_str() == alias { alias.clone() } else { format!("{} AS {alias}", table.name) };
            let key = self.column_sql(stream, joined_index(number, table.key));
            format!("{kind} {name} ON {} = {key}", self.column_sql(stream, *on))
        };
        self.joins.iter().enumerate().map(join).collect()
    }

    /// Returns the condition as SQL.
    pub fn filter_sql(&self, stream: &Stream) -> Option<String> {
        self.filter.as_ref().map(|filter| self.sql(filter, stream))
    }

    /// Returns each column as SQL, with its type.
    pub fn columns_sql(&self, stream: &Stream) -> Vec<String> {
        let column = |SelectedColumn { name, expression }: &SelectedColumn| {
            let (name, text) = (print_name(name), self.sql(expression, stream));
            let text = if text == name { text } else { format!("{text} AS {name}") };
            format!("{text} ({})", expression.data_type)
        };
        self.columns.iter().map(column).collect()
    }

    /// Describes the sink in lines, for `trueup check`.
    pub fn describe(&self, stream: &Stream) -> String {
        let filter = self.filter_sql(stream).unwrap_or_else(|| "all events".to_owned());
        let key: Vec<&str> = self.key_names().collect();
        let key = if key.is_empty() { "none".to_owned() } else { key.join(", ") };
        let once = if self.target.topic().is_some() { "exactly once" } else { "at least once" };
        let mut text = format!(
            "sink {} from stream {}\n  {}\n  {:<16} each event {once}, in the order of the log, every {}\n  {:<16} {filter}\n",
            self.name,
            self.stream,
            self.target.describe(),
            "emit",
            every_text(self.every),
            "filter",
        );
        for join in self.joins_sql(stream) {
            text.push_str(&format!(
                "  {:<16} {join}; as of the event time, from the changes accepted so far\n",
                "join"
            ));
        }
        for column in self.columns_sql(stream) {
            text.push_str(&format!("  {:<16} {column}\n", "column"));
        }
        text.push_str(&format!("  {:<16} {key}\n", "key"));
        text
    }
}
