//! Finds the row in a Debezium change event, with or without the schema around it.
//!
//! ```text
//! {"before": {..}, "after": {..}, "op": "u", "source": {"ts_ms": 1790000000000, ..}, ..}    or that as "payload", beside "schema"
//! ```
//!
//! The event of a stream is the row after the change or, for a deletion, the row before it. Decimals and times are read
//! as Debezium writes them: `decimal.handling.mode = 'string'` for decimals, and the column's FORMAT for times.

use serde::Deserialize;
use serde_json::value::RawValue;

use super::reject_reason::RejectReason;

/// What a record says about one row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ChangeFacts {
    /// `c`, `u`, `d` or `r`.
    pub operation: &'static str,
    /// Time at which the database changed the row, in milliseconds since 1970.
    pub source_ms: Option<i64>,
}

/// A change of one row, as the event of a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct RowChange<'a> {
    /// The row as JSON.
    pub row: &'a str,
    pub facts: ChangeFacts,
}

/// A change of one row, as a table applies it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct TableChange<'a> {
    /// The row before the change as JSON; often only its key is right.
    pub before: Option<&'a str>,
    /// The row after the change; `None`: it was deleted.
    pub after: Option<&'a str>,
    pub facts: ChangeFacts,
}

#[derive(Deserialize)]
struct Envelope<'a> {
    #[serde(borrow, default)]
    payload: Option<&'a RawValue>,
    #[serde(borrow, default)]
    before: Option<&'a RawValue>,
    #[serde(borrow, default)]
    after: Option<&'a RawValue>,
    #[serde(default)]
    op: Option<Operation>,
    #[serde(default)]
    source: Option<Source>,
}

/// What happened to a row.
#[derive(Debug, Deserialize, Clone, Copy)]
pub(super) enum Operation {
    #[serde(rename = "c")]
    Create,
    #[serde(rename = "u")]
    Update,
    #[serde(rename = "d")]
    Delete,
    #[serde(rename = "r")]
    Read,
    #[serde(rename = "t")]
    Truncate,
    #[serde(rename = "m")]
    Message,
}

#[derive(Deserialize, Clone, Copy)]
struct Source {
    #[serde(default)]
    ts_ms: Option<i64>,
}

impl<'a> Envelope<'a> {
    fn read(text: &'a str) -> Result<Envelope<'a>, RejectReason<'a>> {
        // Serde would read the elements of an array as members.
        if !text.trim_start().starts_with('{') {
            return Err(RejectReason::NoChange { reason: "expected an object" });
        }
        serde_json::from_str(text).map_err(|error| RejectReason::syntax(&error))
    }

    /// Reads an envelope that stands alone, or as `payload` beside its schema.
    fn find(text: &'a str) -> Result<Envelope<'a>, RejectReason<'a>> {
        let envelope = Envelope::read(text)?;
        match (envelope.op, envelope.payload) {
            (None, Some(payload)) => Envelope::read(payload.get()),
            _ => Ok(envelope),
        }
    }

    fn facts(&self) -> Result<ChangeFacts, RejectReason<'a>> {
        let op = self.op.ok_or(WITHOUT_OPERATION)?;
        op.facts(self.source.and_then(|source| source.ts_ms))
    }
}

impl Operation {
    /// Returns the operation that Debezium writes as `text`.
    pub fn named(text: &str) -> Option<Operation> {
        Some(match text {
            "c" => Operation::Create,
            "u" => Operation::Update,
            "d" => Operation::Delete,
            "r" => Operation::Read,
            "t" => Operation::Truncate,
            "m" => Operation::Message,
            _ => return None,
        })
    }

    /// Returns the facts of a change of one row, or why it is none.
    pub fn facts<'a>(self, source_ms: Option<i64>) -> Result<ChangeFacts, RejectReason<'a>> {
        let operation = match self {
            Operation::Create => "c",
            Operation::Update => "u",
            Operation::Read => "r",
            Operation::Delete => "d",
            Operation::Truncate => return Err(RejectReason::Truncate),
            Operation::Message => return Err(RejectReason::NoChange { reason: "it is a logical decoding message" }),
        };
        Ok(ChangeFacts { operation, source_ms })
    }
}

impl<'a> RowChange<'a> {
    /// Reads the value of a record.
    pub fn read(text: &'a str) -> Result<RowChange<'a>, RejectReason<'a>> {
        let envelope = Envelope::find(text)?;
        let facts = envelope.facts()?;
        let row = if facts.is_deletion() { envelope.before } else { envelope.after };
        match row {
            Some(row) => Ok(RowChange { row: row.get(), facts }),
            None => Err(facts.without_row()),
        }
    }
}

impl ChangeFacts {
    /// Returns whether the row of the change is the one before it.
    pub fn is_deletion(&self) -> bool {
        self.operation == "d"
    }

    /// Returns the reason against a change without its row.
    pub fn without_row(&self) -> RejectReason<'static> {
        if self.is_deletion() { WITHOUT_BEFORE } else { WITHOUT_AFTER }
    }
}

/// The reason against a value that does not say what happened.
pub(super) const WITHOUT_OPERATION: RejectReason<'static> = RejectReason::NoChange { reason: "it has no `op`" };
const WITHOUT_AFTER: RejectReason<'static> = RejectReason::NoChange { reason: "it has no `after`" };
/// The reason against a deletion that does not say of which row.
pub(super) const WITHOUT_BEFORE: RejectReason<'static> = RejectReason::NoChange {
    reason: "a deletion without `before`: give the table a primary key, or set REPLICA IDENTITY FULL",
};

impl<'a> TableChange<'a> {
    /// Reads the value of a record.
    pub fn read(text: &'a str) -> Result<TableChange<'a>, RejectReason<'a>> {
        let envelope = Envelope::find(text)?;
        let facts = envelope.facts()?;
        let (before, after) = (envelope.before.map(RawValue::get), envelope.after.map(RawValue::get));
        match (facts.operation, after) {
            ("d", _) => Ok(TableChange { before, after: None, facts }),
            (_, Some(_)) => Ok(TableChange { before, after, facts }),
            (_, None) => Err(WITHOUT_AFTER),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_row_is_after_the_change_or_before_a_deletion() {
        let row = |text: &'static str| RowChange::read(text).map_err(|reason| reason.to_string());
        let change = |row, operation, source_ms| Ok(RowChange { row, facts: ChangeFacts { operation, source_ms } });
        let update =
            r#"{"before":{"id":1,"v":2},"after":{"id":1,"v":3},"source":{"ts_ms":7,"lsn":9},"op":"u","ts_ms":8}"#;
        assert_eq!(row(update), change(r#"{"id":1,"v":3}"#, "u", Some(7)));
        let delete = r#"{"schema":{"type":"struct","fields":[]},"payload":{"before":{"id":1},"after":null,"op":"d"}}"#;
        assert_eq!(row(delete), change(r#"{"id":1}"#, "d", None));
        assert_eq!(row(r#"{"op":"r","after":{},"source":null}"#), change("{}", "r", None));
        for (text, reason) in [
            (r#"{"after":{}}"#, "it has no `op`"),
            (r#"{"schema":{},"payload":null}"#, "it has no `op`"),
            (r#"{"op":"c","after":null}"#, "it has no `after`"),
            (r#"{"op":"d","before":null}"#, "a deletion without `before`"),
            (r#"{"op":"t"}"#, "a TRUNCATE names no rows"),
            (r#"{"op":"x","after":{}}"#, "unknown variant `x`"),
            (r#"[null,null,{},"c"]"#, "expected an object"),
            (r#"{"payload":[null,null,{},"c"]}"#, "expected an object"),
            ("{", "invalid JSON"),
        ] {
            assert!(row(text).is_err_and(|error| error.contains(reason)), "{text}: {:?}", row(text));
        }
    }
}
