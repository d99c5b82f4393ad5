//! Compares the declaration of a stream with its stored events: which changes are possible, and what becomes of the columns.

use super::{Change, DefinitionPart, Refusal, options};
use crate::column_name::same;
use crate::stream::{Column, EventSource, Stream};

/// The stored part of a stream, in the archive and in the log.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct StoredStream {
    /// The declaration that was served last; `None` if an earlier program wrote the lake.
    pub declaration: Option<Stream>,
    /// The columns that stored events may have, without those of the system.
    pub columns: Vec<Column>,
    /// The column whose dates partition the archive, if there is an archive.
    pub event_time: Option<String>,
    /// Partitions up to the last that has an event; 0: no events, so every change is possible.
    pub partitions: u32,
}

impl StoredStream {
    /// `stream` as it is served over the stored events: with the stored spelling of its columns, and the columns that only
    /// stored events have.
    pub fn adopted(&self, stream: &Stream) -> Stream {
        let spelling = if self.partitions > 0 { self.columns.as_slice() } else { &[] };
        let mut stream = stream.clone().with_stored_spelling(spelling).with_removed(self.removed(stream));
        if stream.topic().is_some() {
            stream.partitions = stream.partitions.max(self.partitions);
        }
        stream
    }

    /// The stored columns that `stream` does not declare.
    pub fn removed(&self, stream: &Stream) -> Vec<Column> {
        // Without events they are only a declaration.
        let bound = self.partitions > 0;
        self.columns.iter().filter(|column| bound && stream.column(&column.name).is_none()).cloned().collect()
    }

    /// How `stream` differs from the stored part. A refused change says why.
    pub fn changes(&self, stream: &Stream) -> Vec<Change> {
        let bound = self.partitions > 0;
        let mut changes = self.columns(stream, bound);
        let name = |column: &Column| column.name.clone();
        let event_time = Some(name(&stream.columns[stream.event_time]));
        let other = |before: &String| event_time.as_ref().is_none_or(|event_time| !same(before, event_time));
        if let Some(before) = self.event_time.clone().filter(other) {
            let why = "the archive is kept by the date of the event time, and every window was cut by it";
            let change = Change::new(DefinitionPart::EventTime, None, Some(before), event_time);
            changes.push(refuse_if(bound, change, why, another_stream(stream)));
        }
        let Some(declared) = &self.declaration else {
            changes.extend(self.too_few_partitions(stream));
            return changes;
        };
        let key = |stream: &Stream| stream.primary_key.map(|key| name(&stream.columns[key]));
        let folded = |key: Option<String>| key.map(|key| key.to_lowercase());
        if folded(key(declared)) != folded(key(stream)) {
            let why =
                "the primary key decides which events are duplicates, and that is decided for those that are stored";
            let text = |key: Option<String>| Some(key.unwrap_or_else(|| "none".to_owned()));
            let change = Change::new(DefinitionPart::PrimaryKey, None, text(key(declared)), text(key(stream)));
            changes.push(refuse_if(bound, change, why, another_stream(stream)));
        }
        let entity = |stream: &Stream| stream.entity.map(|entity| name(&stream.columns[entity]));
        if folded(entity(declared)) != folded(entity(stream)) {
            let why = "the entity decides the partition of an event and its sequence, and both are decided for those that \
                       are stored";
            let text = |entity: Option<String>| Some(entity.unwrap_or_else(|| "none".to_owned()));
            let change = Change::new(DefinitionPart::Entity, None, text(entity(declared)), text(entity(stream)));
            changes.push(refuse_if(bound, change, why, another_stream(stream)));
        }
        let row_key = |stream: &Stream| stream.table.map(|_| stream.row_key().map(name).collect::<Vec<_>>().join(", "));
        if folded(row_key(declared)) != folded(row_key(stream)) {
            let why = "the stored events are changes of the rows that the key names, or none";
            let text = |key: Option<String>| Some(key.unwrap_or_else(|| "none, it is not a table".to_owned()));
            let change = Change::new(DefinitionPart::RowKey, None, text(row_key(declared)), text(row_key(stream)));
            changes.push(refuse_if(bound, change, why, another_stream(stream)));
        }
        if declared.partitions != stream.partitions {
            changes.push(self.partitions(declared.partitions, stream));
        }
        changes.extend(self.source(declared, stream));
        let plain = options(&declared.sql, &stream.sql).into_iter();
        // These have been looked at.
        let is_other =
            |name: Option<&str>| !matches!(name, Some("event_time" | "entity" | "partitions" | "source" | "topic"));
        changes.extend(plain.filter(|option| is_other(option.name.as_deref())));
        changes
    }

    fn columns(&self, stream: &Stream, bound: bool) -> Vec<Change> {
        let was_declared = |name: &str| self.declaration.as_ref().is_none_or(|d| d.column(name).is_some());
        let mut changes = Vec::new();
        for (_, column) in stream.own_columns() {
            let stored = self.columns.iter().find(|stored| same(&stored.name, &column.name));
            let before = self.declaration.as_ref().and_then(|d| Some(&d.columns[d.column(&column.name)?]));
            let change = |before: Option<String>| {
                Change::new(DefinitionPart::Column, Some(&column.name), before, Some(column.to_string()))
            };
            match stored {
                None if bound => changes.push(change(None).note("NULL in the events that are stored")),
                None => changes.push(change(None)),
                Some(stored) if stored.data_type != column.data_type => {
                    let (old, name) = (stored.data_type, &column.name);
                    let why = format!("the stored events have {old} there, and values are not converted");
                    let next = format!(
                        "keep `{name} {old}` and add a column of another name for {}, or {}",
                        column.data_type,
                        another_stream(stream)
                    );
                    changes.push(refuse_if(bound, change(Some(old.to_string())), why, next));
                }
                Some(_) if !was_declared(&column.name) => {
                    let note = "declared again: stored events show the values they came with";
                    changes.push(change(None).note(note));
                }
                Some(stored) => changes.extend(reading(stored, before, column, bound)),
            }
        }
        for column in &self.columns {
            if stream.column(&column.name).is_none() && was_declared(&column.name) {
                let change =
                    Change::new(DefinitionPart::Column, Some(&column.name), Some(column.data_type.to_string()), None);
                changes.push(match bound {
                    true if stream.table.is_some() => {
                        let why = "retractions of rows that have a value there would lack it";
                        refuse_if(bound, change, why, format!("keep `{} {}`", column.name, column.data_type))
                    }
                    true => change.note("no longer read from events; the archive keeps its stored values"),
                    false => change,
                });
            }
        }
        changes
    }

    fn partitions(&self, before: u32, stream: &Stream) -> Change {
        let why = "the number says where an event's id and a request's Idempotency-Key are remembered: with another \
                   one, what is sent again would count twice";
        let (before, after) = (before.to_string(), stream.partitions.to_string());
        let change = Change::new(DefinitionPart::Partitions, None, Some(before), Some(after));
        refuse_if(self.partitions > 0, change, why, another_stream(stream))
    }

    /// The position in a topic is that of this topic, and partition k of the stream has the events of its partition k. That in
    /// an outbox is of its table and mode.
    fn source(&self, declared: &Stream, stream: &Stream) -> Option<Change> {
        let text = |stream: &Stream| match &stream.source {
            EventSource::Http => "http".to_owned(),
            EventSource::Kafka(topic) => format!("kafka topic {}", topic.topic),
            EventSource::Postgres(outbox) => format!("postgres {}", outbox.describe()),
            EventSource::PostgresTable(table) => format!("postgres {}", table.describe()),
        };
        let (before, after) = (text(declared), text(stream));
        let why = "the stored events came from another source, and the position in it would be lost";
        (before != after).then(|| {
            let change = Change::new(DefinitionPart::Source, None, Some(before), Some(after));
            refuse_if(self.partitions > 0, change, why, another_stream(stream))
        })
    }

    /// Without the old declaration only the least number of partitions is known.
    fn too_few_partitions(&self, stream: &Stream) -> Option<Change> {
        (stream.partitions < self.partitions).then(|| self.partitions(self.partitions, stream))
    }
}

/// How `column` is read from events in another way than `before`, the column of the last declaration.
fn reading(stored: &Column, before: Option<&Column>, column: &Column, bound: bool) -> Option<Change> {
    let known = before.map_or(&stored.name, |before| &before.name);
    if *known != column.name {
        let change =
            Change::new(DefinitionPart::Column, Some(&column.name), Some(known.clone()), Some(column.name.clone()));
        return Some(match bound {
            true => change.note(format!(
                "the same column: tables keep the spelling {}, events are read from the field {}",
                stored.name,
                column.field()
            )),
            false => change,
        });
    }
    let before = before.filter(|before| before.to_string() != column.to_string())?;
    let change =
        Change::new(DefinitionPart::Column, Some(&column.name), Some(before.to_string()), Some(column.to_string()));
    Some(if bound { change.note("for new events; stored ones keep their values") } else { change })
}

fn refuse_if(bound: bool, change: Change, reason: impl Into<String>, next_step: impl Into<String>) -> Change {
    let refusal = || Refusal { reason: reason.into(), next_step: next_step.into() };
    Change { refused: bound.then(refusal), ..change }
}

fn another_stream(stream: &Stream) -> String {
    format!("declare a stream of another name, such as {}_2, and send the events to it", stream.name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sql::parse_definitions;

    fn stream(columns: &str, options: &str) -> Stream {
        let text = format!("CREATE STREAM s ({columns}) WITH (event_time = 'at'{options})");
        parse_definitions(&[("s.sql".to_owned(), text)]).unwrap_or_else(|e| panic!("{}", e[0])).streams.remove(0)
    }

    fn stored(declared: &Stream, partitions: u32) -> StoredStream {
        StoredStream {
            declaration: Some(declared.clone()),
            columns: declared.own_columns().map(|(_, column)| column.clone()).collect(),
            event_time: Some("at".to_owned()),
            partitions,
        }
    }

    fn texts(stored: &StoredStream, stream: &Stream) -> Vec<(String, bool)> {
        stored.changes(stream).iter().map(|c| (c.to_string(), c.refused.is_some())).collect()
    }

    #[test]
    fn each_change_is_accepted_or_refused_by_its_kind() {
        let old = stream("id STRING PRIMARY KEY, at TIMESTAMP, a BIGINT, b STRING", ", partitions = 2");
        let stored = stored(&old, 1);
        assert_eq!(stored.changes(&old), []);
        let wider = stream(
            "c DATE, id STRING PRIMARY KEY, at TIMESTAMP, a BIGINT",
            ", partitions = 2, idle_timeout = '5 seconds'",
        );
        let expected = ["column c added: DATE", "column b removed", "option idle_timeout added: '5 seconds'"];
        assert_eq!(texts(&stored, &wider), expected.map(|text| (text.to_owned(), false)));
        assert_eq!(stored.removed(&wider).iter().map(|c| c.name.as_str()).collect::<Vec<_>>(), ["b"]);
        let other = stream("id STRING, at TIMESTAMP, a DOUBLE, b STRING", ", partitions = 3");
        let expected =
            ["column a changed: BIGINT → DOUBLE", "primary key changed: id → none", "partitions changed: 2 → 3"];
        assert_eq!(texts(&stored, &other), expected.map(|text| (text.to_owned(), true)));
    }

    #[test]
    fn a_stream_without_events_accepts_any_change() {
        let old = stream("id STRING PRIMARY KEY, at TIMESTAMP, a BIGINT", ", partitions = 2");
        let stored = stored(&old, 0);
        let other = stream("id STRING, at TIMESTAMP, a DOUBLE", "");
        assert!(texts(&stored, &other).iter().all(|(_, refused)| !refused));
        assert_eq!(stored.removed(&stream("at TIMESTAMP", "")), []);
    }

    #[test]
    fn the_topic_of_stored_events_cannot_change() {
        let columns = "at TIMESTAMP METADATA FROM 'timestamp', a BIGINT";
        let topic = |topic: &str, more: &str| {
            stream(columns, &format!(", source = 'kafka', connection = 'main', topic = '{topic}'{more}"))
        };
        let (http, orders, others) = (stream("at TIMESTAMP, a BIGINT", ""), topic("orders", ""), topic("others", ""));
        for (old, new, text) in [
            (&http, &orders, "source changed: http → kafka topic orders"),
            (&orders, &others, "source changed: kafka topic orders → kafka topic others"),
            (&orders, &http, "source changed: kafka topic orders → http"),
        ] {
            assert!(texts(&stored(old, 1), new).contains(&(text.to_owned(), true)));
            assert!(texts(&stored(old, 0), new).contains(&(text.to_owned(), false)));
        }
        let later = topic("orders", ", start = 'latest'");
        assert_eq!(texts(&stored(&orders, 1), &later), [("option start added: 'latest'".to_owned(), false)]);
    }

    #[test]
    fn the_key_of_stored_rows_cannot_change() {
        let table = |key: &str| {
            let text =
                format!("CREATE TABLE s (a INT, b INT, at TIMESTAMP, PRIMARY KEY ({key})) WITH (event_time = 'at')");
            parse_definitions(&[("s.sql".to_owned(), text)]).unwrap_or_else(|e| panic!("{}", e[0])).streams.remove(0)
        };
        let (one, two, turned) = (table("a"), table("a, b"), table("b, a"));
        assert_eq!(texts(&stored(&two, 1), &two), []);
        for (old, new, text) in
            [(&one, &two, "key of rows changed: a → a, b"), (&two, &turned, "key of rows changed: a, b → b, a")]
        {
            assert_eq!(texts(&stored(old, 1), new), [(text.to_owned(), true)]);
            assert_eq!(texts(&stored(old, 0), new), [(text.to_owned(), false)]);
        }
    }

    #[test]
    fn the_entity_of_stored_events_cannot_change() {
        let columns = "id STRING, other STRING, at TIMESTAMP";
        let (plain, by_id) = (stream(columns, ""), stream(columns, ", entity = 'id'"));
        let by_other = stream(columns, ", entity = 'other'");
        for (old, new, text) in [
            (&plain, &by_id, "entity changed: none → id"),
            (&by_id, &by_other, "entity changed: id → other"),
            (&by_id, &plain, "entity changed: id → none"),
        ] {
            assert_eq!(texts(&stored(old, 1), new)[0], (text.to_owned(), true));
            assert_eq!(texts(&stored(old, 0), new)[0], (text.to_owned(), false));
        }
        assert_eq!(texts(&stored(&by_id, 1), &stream(columns, ", entity = 'ID'")), []);
    }

    #[test]
    fn a_table_keeps_its_key_and_its_columns() {
        let columns = "id BIGINT PRIMARY KEY, other BIGINT, at TIMESTAMP";
        let table = |columns: &str| {
            let text = format!("CREATE TABLE s ({columns}) WITH (event_time = 'at')");
            parse_definitions(&[("s.sql".to_owned(), text)]).unwrap_or_else(|e| panic!("{}", e[0])).streams.remove(0)
        };
        let (rows, by_other) = (table(columns), table("id BIGINT, other BIGINT PRIMARY KEY, at TIMESTAMP"));
        let narrow = table("id BIGINT PRIMARY KEY, at TIMESTAMP");
        let wide = table("id BIGINT PRIMARY KEY, other BIGINT, at TIMESTAMP, more DATE");
        for (old, new, text) in [
            (&rows, &by_other, "key of rows changed: id → other"),
            (
                &rows,
                &stream("id BIGINT, other BIGINT, at TIMESTAMP", ""),
                "key of rows changed: id → none, it is not a table",
            ),
            (&rows, &narrow, "column other removed"),
        ] {
            assert!(
                texts(&stored(old, 1), new).contains(&(text.to_owned(), true)),
                "{text}: {:?}",
                texts(&stored(old, 1), new)
            );
            assert!(texts(&stored(old, 0), new).iter().all(|(_, refused)| !refused));
        }
        assert_eq!(texts(&stored(&rows, 1), &wide), [("column more added: DATE".to_owned(), false)]);
    }

    #[test]
    fn an_old_lake_gives_columns_event_time_and_minimum_partitions() {
        let old = stream("id STRING PRIMARY KEY, at TIMESTAMP, a BIGINT", ", partitions = 3");
        let stored = StoredStream { declaration: None, ..stored(&old, 3) };
        assert_eq!(texts(&stored, &stream("id STRING, at TIMESTAMP, a BIGINT", ", partitions = 4")), []);
        let fewer = stream("id STRING, at TIMESTAMP, a BIGINT", "");
        assert_eq!(texts(&stored, &fewer), [("partitions changed: 3 → 1".to_owned(), true)]);
    }

    #[test]
    fn a_column_that_was_removed_may_come_back_with_its_type_only() {
        let first = stream("at TIMESTAMP, a BIGINT, b STRING", "");
        let second = stream("at TIMESTAMP, a BIGINT", "");
        let stored = StoredStream { declaration: Some(second), ..stored(&first, 1) };
        let back = stored.changes(&first);
        assert_eq!(back.len(), 1);
        assert!(back[0].refused.is_none() && back[0].note.as_deref().is_some_and(|n| n.starts_with("declared again")));
        let other = stored.changes(&stream("at TIMESTAMP, a BIGINT, b DATE", ""));
        assert!(other[0].refused.is_some(), "{other:?}");
    }
}
