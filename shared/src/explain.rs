//! Describes the plans of both layers for a view, for `trueup check`. It plans nothing itself.

mod states;
mod windows;

use std::collections::BTreeSet;
use std::fmt::Write;
use std::time::Duration;

use crate::lookup::definition::{JoinKind, LookupJoin, joined_column, joined_index};
use crate::scalar::Scalar;
use crate::sql::{interval, print, print_name, window_text};
use crate::stream::{Column, EventSource, KafkaTopic, OutboxSlot, RowTable, Stream, Transactions, UnknownFields};
use crate::time::micros_of;
use crate::types::DataType;
use crate::view::{Aggregate, AggregateFunction, Measure, OutputColumn, View};
use crate::window::Window;

/// The stream's times and both physical plans of a view, in lines. `stream` is the view's stream.
pub fn describe(view: &View, stream: &Stream) -> String {
    let reader = ViewText { view, stream };
    let mut text = format!("view {} on stream {}\n", view.name, stream.name);
    reader.stream_lines(&mut text);
    reader.output_lines(&mut text);
    reader.speed_lines(&mut text);
    reader.batch_lines(&mut text);
    reader.note_lines(&mut text);
    text
}

/// Describes the parts of a view in words.
pub(crate) struct ViewText<'a> {
    pub view: &'a View,
    pub stream: &'a Stream,
}

/// One line of a plan. Writing to a text cannot fail.
fn line(text: &mut String, label: &str, value: impl std::fmt::Display) {
    writeln!(text, "  {label:<16} {value}").expect("a String takes any text");
}

fn heading(text: &mut String, value: &str) {
    writeln!(text, "{value}").expect("a String takes any text");
}

impl ViewText<'_> {
    fn stream_lines(&self, text: &mut String) {
        let Stream { event_time, primary_key, partitions, unknown_fields, retention, .. } = self.stream;
        line(text, "event time", &self.stream.columns[*event_time].name);
        if let Some(RowTable { key, format }) = self.stream.table {
            let names: Vec<&str> = key.iter().map(|index| self.stream.columns[*index].name.as_str()).collect();
            let names = names.join(", ");
            line(
                text,
                "table",
                format!("rows by {names}; each change ({format}) retracts a row, asserts one, or both"),
            );
        } else {
            let key = primary_key.map_or("none: duplicates are not removed", |key| &self.stream.columns[key].name);
            line(text, "event id", key);
        }
        if let Some(entity) = self.stream.entity {
            let name = &self.stream.columns[entity].name;
            line(text, "entity", format!("{name}: events of one are in one partition, numbered in _sequence"));
        }
        line(text, "watermark", format!("{} behind the latest event", duration(self.stream.watermark_delay)));
        let late = match self.stream.allowed_lateness {
            _ if self.stream.table.is_some() => "unlimited; no change of a row is late".to_owned(),
            Duration::ZERO => "none; speed excludes later events, batch includes them".to_owned(),
            lateness => format!("{}; speed excludes later events, batch includes them", duration(lateness)),
        };
        line(text, "allowed lateness", late);
        line(text, "max ahead", format!("{} of the arrival time", duration(self.stream.max_ahead)));
        if let Some(max_age) = self.stream.max_age {
            line(text, "max age", format!("{} on arrival; older events are rejected", duration(max_age)));
        }
        line(text, "idle after", duration(self.stream.idle_timeout));
        match &self.stream.source {
            EventSource::Http => line(text, "partitions", partitions),
            EventSource::Postgres(outbox) => {
                let (what, connection) = (outbox.describe(), &outbox.connection);
                line(text, "source", format!("{what} of connection {connection}, each row once"));
                line(text, "partitions", partitions);
            }
            EventSource::PostgresTable(table) => {
                let (what, connection, OutboxSlot { slot, publication }) =
                    (table.describe(), &table.connection, &table.slot);
                line(text, "source", format!("{what} of connection {connection}: its rows, then each change once"));
                line(text, "slot", format!("{slot}, of publication {publication}"));
                let transactions = match table.transactions {
                    Transactions::Parts => "parts: each change is visible by itself",
                    Transactions::Whole => "whole: the changes of one are visible together",
                };
                line(text, "transactions", transactions);
                line(text, "partitions", partitions);
            }
            EventSource::Kafka(topic) => {
                let KafkaTopic { topic, connection, format, transaction_topic, .. } = topic;
                line(text, "source", format!("topic {topic} of connection {connection}, {format}, each record once"));
                if let Some(ends) = transaction_topic {
                    line(
                        text,
                        "transactions",
                        format!("whole: the changes of one are visible together; {ends} says where one ends"),
                    );
                }
                line(text, "partitions", "those of the topic");
            }
        }
        let unknown = match unknown_fields {
            UnknownFields::Ignore => "ignored and counted",
            UnknownFields::Reject => "reject the event",
        };
        line(text, "unknown fields", unknown);
        let elsewhere = |column: &Column| {
            column.field.is_some() || column.format.is_some() || column.is_base64 || column.metadata.is_some()
        };
        for (_, column) in self.stream.own_columns().filter(|(_, column)| elsewhere(column)) {
            line(text, "field", format!("{} {column}", print_name(&column.name)));
        }
        if let Some(retention) = retention {
            let kept = format!("events are kept for {retention}; windows of older ones stay as they are");
            line(text, "retention", kept);
        }
    }

    fn output_lines(&self, text: &mut String) {
        heading(text, "output");
        for column in &self.view.output {
            match *column {
                OutputColumn::WindowStart => line(text, "window_start", DataType::Timestamp),
                OutputColumn::WindowEnd => line(text, "window_end", DataType::Timestamp),
                OutputColumn::Dimension(index) => {
                    let dimension = &self.view.dimensions[index];
                    let what =
                        format!("{} dimension {}", dimension.expression.data_type, self.sql(&dimension.expression));
                    line(text, &dimension.name, what);
                }
                OutputColumn::Measure(index) => {
                    let measure = &self.view.measures[index];
                    let expression = self.over_aggregates(&measure.expression);
                    line(text, &measure.name, format!("{} measure {expression}", measure.expression.data_type));
                }
            }
        }
        if let Some(having) = &self.view.having {
            line(text, "having", format!("{}; other rows are hidden", self.over_aggregates(having)));
        }
    }

    fn speed_lines(&self, text: &mut String) {
        heading(text, "speed plan, per micro-batch of events");
        line(text, "read", self.columns_read());
        self.join_lines(text, "the changes accepted so far");
        line(text, "filter", self.filter());
        for (label, value) in windows::lines(&self.view.window, self.view.zone, &self.event_time()) {
            line(text, label, value);
        }
        line(text, "keys", self.keys());
        for aggregate in &self.view.aggregates {
            line(text, "state", format!("{}: {}", self.aggregate(aggregate), states::speed(aggregate)));
        }
    }

    fn batch_lines(&self, text: &mut String) {
        heading(text, "batch plan, per run, by Polars");
        let schedule = match self.view.schedule.as_deref() {
            None => "on request only".to_owned(),
            Some(interval) if interval.trim_start().starts_with("@every") => interval.to_owned(),
            Some(cron) => format!("{cron} ({})", self.view.schedule_zone),
        };
        line(text, "schedule", schedule);
        line(text, "scan", format!("events/{} ({})", self.stream.name, self.columns_read()));
        self.join_lines(text, "all changes before the run");
        line(text, "filter", self.filter());
        line(text, "with column", window_text(&self.view.window, &self.event_time(), self.view.zone));
        line(text, "group by", self.keys());
        for aggregate in &self.view.aggregates {
            line(text, "aggregate", format!("{}: {}", self.aggregate(aggregate), states::batch(aggregate)));
        }
        line(text, "sort", self.keys());
        let partitioned = match self.view.window {
            Window::All => "as one partition",
            _ => "partitioned by window date",
        };
        line(text, "write", format!("views/{} {partitioned}", self.view.name));
    }

    fn note_lines(&self, text: &mut String) {
        let mut notes: Vec<String> = windows::holes(&self.view.window).map(str::to_owned).into_iter().collect();
        let approximate = |aggregate: usize| self.view.aggregates[aggregate].is_estimated();
        let reads_sketch = |measure: &&Measure| {
            let mut reads = false;
            measure.expression.for_each_column(&mut |aggregate| reads |= approximate(aggregate));
            reads
        };
        let names: Vec<&str> = self.view.measures.iter().filter(reads_sketch).map(|m| m.name.as_str()).collect();
        if !self.view.joins.is_empty() {
            notes.push(
                "a change of a table that comes after an event is in the figures from the next run on (cause `lookup`)"
                    .to_owned(),
            );
        }
        if !names.is_empty() {
            notes.push(format!("of many values approximate in speed, with a 95 % interval: {}", names.join(", ")));
        }
        if !notes.is_empty() {
            heading(text, "notes");
            notes.iter().for_each(|note| line(text, "note", note));
        }
    }

    /// An expression over the view's aggregates.
    pub(crate) fn over_aggregates(&self, scalar: &Scalar) -> String {
        print(scalar, &|index| self.aggregate(&self.view.aggregates[index]))
    }

    /// The name of a column as it stands in SQL.
    fn column(&self, index: usize) -> String {
        match joined_column(index) {
            None => print_name(&self.stream.columns[index].name),
            Some((join, column)) => {
                let LookupJoin { table, alias, .. } = &self.view.joins[join];
                format!("{}.{}", print_name(alias), print_name(&table.columns[column].0))
            }
        }
    }

    /// The joins as they stand in SQL, for both plans.
    fn join_lines(&self, text: &mut String, versions: &str) {
        for (number, LookupJoin { table, alias, kind, on }) in self.view.joins.iter().enumerate() {
            let name = if table.name.as_str() == alias { alias.clone() } else { format!("{} AS {alias}", table.name) };
            let (on, key) = (self.column(*on), self.column(joined_index(number, table.key)));
            let without = match kind {
                JoinKind::Inner => "an event without a row is in no figure",
                JoinKind::Left => "without a row its columns are NULL",
            };
            line(text, "join", format!("{kind} {name} ON {on} = {key}; {without}"));
            let of_join = self.view.joined_columns().into_iter().filter(|(join, _)| *join == number);
            let columns: Vec<&str> = of_join.map(|(_, column)| table.columns[column].0.as_str()).collect();
            let read = if columns.is_empty() { "no columns".to_owned() } else { columns.join(", ") };
            line(text, "rows", format!("{} ({read}) as of the event time, from {versions}", table.name));
        }
    }

    /// The joins, as one text for each.
    pub(crate) fn joins_sql(&self) -> Option<String> {
        let join = |(number, join): (usize, &LookupJoin)| {
            let (on, key) = (self.column(join.on), self.column(joined_index(number, join.table.key)));
            format!("{} {} ON {on} = {key}", join.kind, join.table.name)
        };
        let joins: Vec<String> = self.view.joins.iter().enumerate().map(join).collect();
        (!joins.is_empty()).then(|| joins.join(" "))
    }

    /// An expression over the columns of events.
    pub(crate) fn sql(&self, scalar: &Scalar) -> String {
        print(scalar, &|index| self.column(index))
    }

    fn columns_read(&self) -> String {
        let mut read = BTreeSet::new();
        let by_time =
            |aggregate: &Aggregate| matches!(aggregate.function, AggregateFunction::First | AggregateFunction::Last);
        if self.view.window != Window::All || self.view.aggregates.iter().any(by_time) {
            read.insert(self.stream.event_time);
        }
        let of_aggregates = self.view.aggregates.iter().flat_map(|a| [&a.argument, &a.filter]).flatten();
        let of_dimensions = self.view.dimensions.iter().map(|dimension| &dimension.expression);
        read.extend(self.view.joins.iter().map(|join| join.on));
        for scalar in of_aggregates.chain(of_dimensions).chain(&self.view.filter) {
            scalar.for_each_column(&mut |index| {
                read.insert(index);
            });
        }
        let of_stream = read.into_iter().filter(|index| joined_column(*index).is_none());
        let names: Vec<&str> = of_stream.map(|index| self.stream.columns[index].name.as_str()).collect();
        if names.is_empty() { "no columns".to_owned() } else { names.join(", ") }
    }

    fn filter(&self) -> String {
        self.filter_sql().unwrap_or_else(|| "all events".to_owned())
    }

    pub(crate) fn filter_sql(&self) -> Option<String> {
        self.view.filter.as_ref().map(|filter| self.sql(filter))
    }

    pub(crate) fn having_sql(&self) -> Option<String> {
        self.view.having.as_ref().map(|having| self.over_aggregates(having))
    }

    /// The event time's name, as it stands in SQL.
    pub(crate) fn event_time(&self) -> String {
        print_name(&self.stream.columns[self.stream.event_time].name)
    }

    fn keys(&self) -> String {
        let window = (self.view.window != Window::All).then_some("window_start");
        let names = window.into_iter().chain(self.view.dimensions.iter().map(|dimension| dimension.name.as_str()));
        let names: Vec<&str> = names.collect();
        if names.is_empty() { "none: one row".to_owned() } else { names.join(", ") }
    }

    fn aggregate(&self, aggregate: &Aggregate) -> String {
        let argument = aggregate.argument.as_ref().map_or("*".to_owned(), |argument| self.sql(argument));
        let filter = aggregate.filter.as_ref().map(|filter| self.sql(filter));
        states::name(aggregate, &argument, filter.as_deref())
    }
}

/// A length of time in words, as the options of a stream take it: `90 minutes`, `1 hour`.
pub fn duration(duration: Duration) -> String {
    let text = interval(micros_of(duration));
    let words: Vec<&str> = text.split(['\'', ' ']).filter(|word| !word.is_empty()).skip(1).collect();
    let plural = if words.first() == Some(&"1") { "" } else { "s" };
    format!("{}{plural}", words.join(" ").to_lowercase())
}
