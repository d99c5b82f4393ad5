//! Reads what Debezium writes with `provide.transaction.metadata = true`: the transaction of a change, and in the transaction topic how
//! many changes each transaction has.
//!
//! ```text
//! change   {.., "transaction": {"id": "571:53195829", "total_order": 1, "data_collection_order": 1}}
//! topic    {"status": "BEGIN", "id": "571:53195829", ..}
//!          {"status": "END", "id": "571:53195832", "event_count": 2, "data_collections": [{"data_collection": "s1.a", "event_count": 2}]}
//! ```
//!
//! PostgreSQL's ids end with the place of the change, which differs from part to part of a transaction, so it is removed.

use serde::Deserialize;
use serde_json::value::RawValue;

use super::debezium::Operation;
use super::records::without_schema_id;

/// What a change says about its transaction.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct ChangeOrigin {
    /// `None`: a row of a snapshot, a tombstone, or a change without metadata.
    pub transaction: Option<TransactionPart>,
    /// Whether it deletes all rows.
    pub truncates: bool,
}

/// The place of a change in its transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TransactionPart {
    pub id: String,
    /// Its number among the changes of its table, from 1.
    pub order: u64,
    /// The names that connectors may have for the table.
    pub collections: [String; 3],
}

/// A record of the transaction topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum TransactionBoundary {
    Begin {
        id: String,
    },
    /// With the number of changes of each table.
    End {
        id: String,
        counts: Vec<(String, u64)>,
    },
}

/// A number, which Debezium's documentation shows as a text.
#[derive(Deserialize)]
#[serde(untagged)]
enum Count {
    Number(u64),
    Text(String),
}

#[derive(Deserialize)]
struct Change<'a> {
    #[serde(borrow, default)]
    payload: Option<&'a RawValue>,
    #[serde(default)]
    op: Option<Operation>,
    #[serde(default)]
    source: Option<Source>,
    #[serde(default)]
    transaction: Option<Block>,
}

#[derive(Deserialize, Default)]
struct Source {
    #[serde(default)]
    db: Option<String>,
    #[serde(default)]
    schema: Option<String>,
    #[serde(default)]
    table: Option<String>,
}

#[derive(Deserialize)]
struct Block {
    id: String,
    data_collection_order: Count,
}

#[derive(Deserialize)]
struct Boundary<'a> {
    #[serde(borrow, default)]
    payload: Option<&'a RawValue>,
    #[serde(default)]
    status: Option<String>,
    #[serde(default)]
    id: Option<String>,
    #[serde(default)]
    data_collections: Option<Vec<Collection>>,
}

#[derive(Deserialize)]
struct Collection {
    data_collection: String,
    event_count: Count,
}

impl Count {
    fn number(&self) -> Option<u64> {
        match self {
            Count::Number(number) => Some(*number),
            Count::Text(text) => text.parse().ok(),
        }
    }
}

/// An id without the place that PostgreSQL's have.
fn of_whole_transaction(id: String) -> String {
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    match id.split_once(':') {
        Some((transaction, place)) if is_number(transaction) && is_number(place) => transaction.to_owned(),
        _ => id,
    }
}

fn envelope(value: &[u8]) -> Option<Change<'_>> {
    let change: Change<'_> = serde_json::from_slice(without_schema_id(value)).ok()?;
    match (change.op, change.payload) {
        (None, Some(payload)) => serde_json::from_str(payload.get()).ok(),
        _ => Some(change),
    }
}

/// What the value of a record says about its transaction. One that is not readable says nothing.
pub(crate) fn origin_of(value: Option<&[u8]>) -> ChangeOrigin {
    let Some(change) = value.and_then(envelope) else { return ChangeOrigin::default() };
    let Source { db, schema, table } = change.source.unwrap_or_default();
    let joined =
        |parts: &[&Option<String>]| parts.iter().filter_map(|part| part.as_deref()).collect::<Vec<_>>().join(".");
    let collections = || [joined(&[&schema, &table]), joined(&[&db, &table]), joined(&[&db, &schema, &table])];
    let part = |block: Block| {
        let order = block.data_collection_order.number()?;
        Some(TransactionPart { id: of_whole_transaction(block.id), order, collections: collections() })
    };
    let truncates = matches!(change.op, Some(Operation::Truncate));
    ChangeOrigin { transaction: change.transaction.and_then(part), truncates }
}

/// Reads the value of a record of the transaction topic; `None`: it is none of its records.
pub(crate) fn boundary_of(value: &[u8]) -> Option<TransactionBoundary> {
    let boundary: Boundary<'_> = serde_json::from_slice(without_schema_id(value)).ok()?;
    let boundary = match boundary.payload {
        Some(payload) if boundary.status.is_none() => serde_json::from_str(payload.get()).ok()?,
        _ => boundary,
    };
    let id = of_whole_transaction(boundary.id?);
    match boundary.status?.as_str() {
        "BEGIN" => Some(TransactionBoundary::Begin { id }),
        "END" => {
            let of = |of: Collection| Some((of.data_collection, of.event_count.number()?));
            let counts = boundary.data_collections.unwrap_or_default().into_iter().map(of).collect::<Option<_>>()?;
            Some(TransactionBoundary::End { id, counts })
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_name_their_transaction_and_its_table() {
        let part = |id: &str, order: u64, collections: [&str; 3]| {
            Some(TransactionPart { id: id.to_owned(), order, collections: collections.map(str::to_owned) })
        };
        for (value, transaction, truncates) in [
            (
                r#"{"op":"c","source":{"db":"shop","schema":"public","table":"a"},"transaction":{"id":"571:53","total_order":4,"data_collection_order":2}}"#,
                part("571", 2, ["public.a", "shop.a", "shop.public.a"]),
                false,
            ),
            (
                r#"{"schema":{},"payload":{"op":"t","source":{"db":"shop","table":"a"},"transaction":{"id":"file=bin.3,pos=4","total_order":"1","data_collection_order":"1"}}}"#,
                part("file=bin.3,pos=4", 1, ["a", "shop.a", "shop.a"]),
                true,
            ),
            (
                r#"{"op":"c","source":{},"transaction":{"id":"36c9-11e:23","total_order":1,"data_collection_order":1}}"#,
                part("36c9-11e:23", 1, ["", "", ""]),
                false,
            ),
            (r#"{"op":"r","transaction":null}"#, None, false),
            (r#"{"op":"t"}"#, None, true),
            ("no JSON", None, false),
        ] {
            assert_eq!(origin_of(Some(value.as_bytes())), ChangeOrigin { transaction, truncates }, "{value}");
        }
        assert_eq!(origin_of(None), ChangeOrigin::default());
    }

    #[test]
    fn ends_say_how_many_changes_each_table_has() {
        let end = r#"{"status":"END","id":"571:99","event_count":3,"data_collections":[{"data_collection":"s.a","event_count":1},{"data_collection":"s.b","event_count":"2"}]}"#;
        let counts = vec![("s.a".to_owned(), 1), ("s.b".to_owned(), 2)];
        let expected = Some(TransactionBoundary::End { id: "571".to_owned(), counts });
        assert_eq!(boundary_of(end.as_bytes()), expected);
        assert_eq!(boundary_of(format!("{{\"schema\":{{}},\"payload\":{end}}}").as_bytes()), expected);
        let begin = r#"{"status":"BEGIN","id":"571:53","event_count":null,"data_collections":null}"#;
        assert_eq!(boundary_of(begin.as_bytes()), Some(TransactionBoundary::Begin { id: "571".to_owned() }));
        for other in ["{}", "no JSON", r#"{"status":"END"}"#, r#"{"status":"OTHER","id":"1"}"#] {
            assert_eq!(boundary_of(other.as_bytes()), None, "{other}");
        }
    }
}
