//! Writes changes of rows in the envelopes of Debezium: `before`, `after`, `source`, `op`, `ts_ms`.
//!
//! A sink remembers the hash of a row, not its values, so `before` is what a database without full row images logs: nothing for
//! an update, and the key for a deletion.

use bytes::Bytes;
use serde_json::Value;
use shared::sink::Sink;
use shared::time::Micros;

use crate::record::JsonObject;
use crate::sent::ValueHash;

/// What happened to a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Operation {
    Created,
    Updated,
    Deleted,
    /// It is written again on request, as in a snapshot.
    Read,
}

impl Operation {
    /// Returns the operation that gives a row a value, which the topic has as `sent`.
    pub(crate) fn of_row(sent: Option<ValueHash>) -> Operation {
        match sent {
            None => Operation::Created,
            Some(ValueHash::STALE) => Operation::Read,
            Some(_) => Operation::Updated,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Operation::Created => "c",
            Operation::Updated => "u",
            Operation::Deleted => "d",
            Operation::Read => "r",
        }
    }
}

/// The change of one row.
#[derive(Debug)]
pub(crate) struct RowChange<'a> {
    pub(crate) operation: Operation,
    /// The key of the row, as JSON.
    pub(crate) key: &'a Bytes,
    /// The row, as JSON; `None`: it is deleted.
    pub(crate) value: Option<&'a Bytes>,
    /// The layer of its figures.
    pub(crate) layer: Option<&'static str>,
}

/// Returns the envelope of a change that `sink` writes at `now` under a batch version.
pub(crate) fn envelope(sink: &Sink, change: &RowChange<'_>, version: Option<i64>, now: Micros) -> Bytes {
    let ms = Value::from(now.0.div_euclid(1_000));
    let before = change.value.is_none().then_some(change.key);
    let mut source = JsonObject::default();
    source.add("connector", &"trueup".into());
    source.add("name", &sink.name.as_str().into());
    source.add("ts_ms", &ms);
    source.add("table", &sink.view.as_str().into());
    source.add("layer", &change.layer.into());
    source.add("batch_version", &version.into());
    let mut json = JsonObject::default();
    json.add_json("before", before);
    json.add_json("after", change.value);
    json.add_json("source", Some(&source.finish()));
    json.add("op", &change.operation.name().into());
    json.add("ts_ms", &ms);
    json.finish()
}
