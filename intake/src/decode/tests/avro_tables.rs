//! Checks changes of tables in Avro: the same changes in JSON are the oracle, in every form that keys and decimals have.

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, RecordBatch};
use arrow::compute::nullif;
use arrow::datatypes::FieldRef;
use kafka::TopicRecord;
use proptest::prelude::*;
use serde_json::{Value, json};
use shared::stream::Stream;

use crate::decode::avro::{WriterSchemas, decode_avro};
use crate::decode::{DecodeError, Decoded, Options, TextFormat, decode_records};
use crate::testing::stream;

const UNAVAILABLE: &str = "__debezium_unavailable_value";
/// Ids of schemas: of values with each form of decimals, and of keys.
const PRECISE: u32 = 10;
const AS_STRING: u32 = 11;
const AS_DOUBLE: u32 = 12;
const RECORD_KEY: u32 = 20;
const TEXT_KEY: u32 = 21;
const KEY_OF_TWO: u32 = 22;
const GONE: u32 = 99;

const DECIMALS: [(u32, &str); 3] = [
    (PRECISE, r#"{"type":"bytes","logicalType":"decimal","precision":12,"scale":2}"#),
    (AS_STRING, r#""string""#),
    (AS_DOUBLE, r#""double""#),
];

fn row_schema(decimal: &str) -> String {
    format!(
        r#"{{"type":"record","name":"Value","fields":[
            {{"name":"id","type":"string"}},
            {{"name":"amount","type":["null",{decimal}]}},
            {{"name":"note","type":["null","string"]}},
            {{"name":"at","type":["null","long"]}},
            {{"name":"_deleted","type":["null","boolean"]}}]}}"#
    )
}

fn envelope_schema(decimal: &str) -> String {
    format!(
        r#"{{"type":"record","name":"Envelope","fields":[
            {{"name":"before","type":["null",{}]}},
            {{"name":"after","type":["null","Value"]}},
            {{"name":"op","type":"string"}}]}}"#,
        row_schema(decimal)
    )
}

fn schemas(of_values: fn(&str) -> String) -> WriterSchemas {
    let key = r#"{"type":"record","name":"Key","fields":[{"name":"id","type":"string"}]}"#;
    let values = DECIMALS.map(|(id, decimal)| (id, Ok(of_values(decimal).into())));
    let of_two =
        r#"{"type":"record","name":"Key","fields":[{"name":"note","type":"string"},{"name":"id","type":"string"}]}"#;
    let keys = [
        (RECORD_KEY, Ok(key.into())),
        (KEY_OF_TWO, Ok(of_two.into())),
        (TEXT_KEY, Ok(r#""string""#.into())),
        (GONE, Err("schema 99: gone".to_owned())),
    ];
    values.into_iter().chain(keys).collect()
}

fn table(format: &str, partitions: u32, key: &str) -> Arc<Stream> {
    let sql = format!(
        "CREATE TABLE t (id STRING, amount DECIMAL(12,2), note STRING, at TIMESTAMP, PRIMARY KEY ({key}))
             WITH (event_time = 'at', source = 'kafka', connection = 'main', topic = 't', format = '{format}')"
    );
    Arc::new(Stream { partitions, ..stream(&sql) })
}

#[derive(Debug, Clone)]
struct Row {
    id: &'static str,
    /// Of a hundredth.
    amount: Option<i64>,
    note: Option<&'static str>,
    /// Milliseconds.
    at: Option<i64>,
    deleted: Option<bool>,
}

#[derive(Debug, Clone)]
enum Body {
    Tombstone,
    Row(Row),
    Change { before: Option<Row>, after: Option<Row>, op: &'static str },
}

/// How a record says its key.
#[derive(Debug, Clone, Copy)]
enum Key {
    None,
    Avro(&'static str),
    /// `id` and `note`.
    AvroOfTwo(&'static str, &'static str),
    AvroAlone(&'static str),
    Json(&'static str),
    Text(&'static str),
    /// With a schema that the registry does not have.
    Unreadable,
}

fn long(value: i64) -> Vec<u8> {
    let mut rest = (value.cast_unsigned() << 1) ^ (value >> 63).cast_unsigned();
    let mut bytes = Vec::new();
    while rest >= 128 {
        bytes.push(rest as u8 | 128);
        rest >>= 7;
    }
    bytes.push(rest as u8);
    bytes
}

fn text(text: &str) -> Vec<u8> {
    [long(text.len() as i64), text.as_bytes().to_vec()].concat()
}

fn optional<T>(value: Option<T>, write: impl FnOnce(T) -> Vec<u8>) -> Vec<u8> {
    value.map_or_else(|| long(0), |value| [long(1), write(value)].concat())
}

fn decimal_text(hundredths: i64) -> String {
    let sign = if hundredths < 0 { "-" } else { "" };
    format!("{sign}{}.{:02}", hundredths.abs() / 100, hundredths.abs() % 100)
}

fn framed(id: u32, body: &[u8]) -> Vec<u8> {
    [&[0], &id.to_be_bytes()[..], body].concat()
}

impl Row {
    fn avro(&self, schema: u32) -> Vec<u8> {
        let amount = |hundredths: i64| match schema {
            PRECISE => [long(8), hundredths.to_be_bytes().to_vec()].concat(),
            AS_STRING => text(&decimal_text(hundredths)),
            _ => (hundredths as f64 / 100.0).to_le_bytes().to_vec(),
        };
        let deleted = optional(self.deleted, |deleted| vec![u8::from(deleted)]);
        [text(self.id), optional(self.amount, amount), optional(self.note, text), optional(self.at, long), deleted]
            .concat()
    }

    fn json(&self, has_mark: bool) -> Value {
        let mut row = json!({"id": self.id, "amount": self.amount.map(decimal_text), "note": self.note, "at": self.at});
        if has_mark {
            row["_deleted"] = json!(self.deleted);
        }
        row
    }
}

impl Body {
    fn avro(&self, schema: u32) -> Option<Vec<u8>> {
        let row = |row: &Row| row.avro(schema);
        let body = match self {
            Body::Tombstone => return None,
            Body::Row(of_row) => row(of_row),
            Body::Change { before, after, op } => {
                [optional(before.as_ref(), row), optional(after.as_ref(), row), text(op)].concat()
            }
        };
        Some(framed(schema, &body))
    }

    fn json(&self) -> Option<Vec<u8>> {
        let row = |row: &Option<Row>| row.as_ref().map(|row| row.json(false));
        Some(match self {
            Body::Tombstone => return None,
            Body::Row(row) => row.json(true).to_string().into_bytes(),
            Body::Change { before, after, op } => {
                json!({"before": row(before), "after": row(after), "op": op}).to_string().into_bytes()
            }
        })
    }
}

impl Key {
    fn bytes(self, is_avro: bool) -> Option<Vec<u8>> {
        let json = |id: &str| json!({"id": id}).to_string().into_bytes();
        Some(match self {
            Key::None => return None,
            Key::Avro(id) if is_avro => framed(RECORD_KEY, &text(id)),
            Key::AvroOfTwo(id, note) if is_avro => framed(KEY_OF_TWO, &[text(note), text(id)].concat()),
            Key::AvroOfTwo(id, note) => json!({"id": id, "note": note}).to_string().into_bytes(),
            Key::AvroAlone(id) if is_avro => framed(TEXT_KEY, &text(id)),
            Key::Avro(id) | Key::AvroAlone(id) | Key::Json(id) => json(id),
            Key::Text(id) => id.as_bytes().to_vec(),
            Key::Unreadable if is_avro => framed(GONE, &[]),
            Key::Unreadable => b"\xff".to_vec(),
        })
    }
}

fn records(changes: &[(Key, u32, Body)], is_avro: bool) -> Vec<TopicRecord> {
    let record = |(offset, (key, schema, body)): (i64, &(Key, u32, Body))| TopicRecord {
        partition: 0,
        offset,
        timestamp_ms: 5,
        key: key.bytes(is_avro).map(Into::into),
        value: if is_avro { body.avro(*schema) } else { body.json() }.map(Into::into),
        headers: Vec::new(),
    };
    (100..).zip(changes).map(record).collect()
}

fn rejected(decoded: &Decoded) -> Vec<u64> {
    let mut lines: Vec<u64> = decoded.malformed.iter().map(|event| event.line).collect();
    lines.sort_unstable();
    lines
}

/// The rows with what counts of them: of a deletion, the key.
fn counting(decoded: &Decoded) -> RecordBatch {
    let rows = &decoded.rows;
    let deletes = rows.column_by_name("_retracted").expect("a table").as_boolean();
    let of_row = |(field, column): (&FieldRef, &ArrayRef)| match field.name().as_str() {
        "amount" | "note" => nullif(column, deletes).expect("the same length"),
        _ => ArrayRef::clone(column),
    };
    let columns = rows.schema().fields().iter().zip(rows.columns()).map(of_row).collect();
    RecordBatch::try_new(rows.schema(), columns).expect("the same columns")
}

/// The same changes in both forms have the same rows, kept values and rejected records.
fn compare(
    formats: [&str; 2],
    of_values: fn(&str) -> String,
    (partitions, key): (u32, &str),
    changes: &[(Key, u32, Body)],
) -> Result<(), TestCaseError> {
    let (in_avro, in_json) = (table(formats[0], partitions, key), table(formats[1], partitions, key));
    let avro =
        decode_avro(&in_avro, &schemas(of_values), &records(changes, true), Options::default()).expect("decodes");
    let format = if formats[1] == "json" { TextFormat::Json } else { TextFormat::Change };
    let text = records(changes, false);
    let json = decode_records(&in_json, format, &text, Options::default()).expect("decodes");
    prop_assert_eq!(counting(&avro), counting(&json), "{:?} and {:?}", avro.malformed, json.malformed);
    prop_assert_eq!(&avro.changes, &json.changes);
    prop_assert_eq!(rejected(&avro), rejected(&json), "{:?} and {:?}", avro.malformed, json.malformed);
    prop_assert_eq!((avro.lines_read, avro.rejected()), (json.lines_read, json.rejected()));
    Ok(())
}

fn id() -> impl Strategy<Value = &'static str> {
    prop::sample::select(vec!["a", "b", "a longer key than sixteen bytes", "\"q", "17", ""])
}

fn note() -> impl Strategy<Value = &'static str> {
    prop::sample::select(vec!["n", "", UNAVAILABLE])
}

/// The columns of the key.
fn key_columns() -> impl Strategy<Value = &'static str> {
    prop::sample::select(vec!["id", "id, note", "note, id"])
}

fn row() -> impl Strategy<Value = Row> {
    (
        id(),
        prop::option::weighted(0.8, -100_000i64..100_000),
        prop::option::weighted(0.8, note()),
        prop::option::weighted(0.95, 0i64..1_000_000),
        prop::option::weighted(0.3, any::<bool>()),
    )
        .prop_map(|(id, amount, note, at, deleted)| Row { id, amount, note, at, deleted })
}

fn key() -> impl Strategy<Value = Key> {
    prop_oneof![
        4 => id().prop_map(Key::Avro),
        3 => (id(), note()).prop_map(|(id, note)| Key::AvroOfTwo(id, note)),
        2 => id().prop_map(Key::AvroAlone),
        2 => id().prop_map(Key::Json),
        1 => prop::sample::select(vec!["b", "17", "o-1"]).prop_map(Key::Text),
        1 => Just(Key::None),
        1 => Just(Key::Unreadable),
    ]
}

fn schema() -> impl Strategy<Value = u32> {
    prop::sample::select(vec![PRECISE, AS_STRING, AS_DOUBLE])
}

fn change() -> impl Strategy<Value = Body> {
    let op = prop::sample::select(vec!["c", "u", "u", "u", "r", "d", "d", "m", "x"]);
    prop_oneof![
        8 => (prop::option::of(row()), prop::option::weighted(0.9, row()), op)
            .prop_map(|(before, after, op)| Body::Change { before, after, op }),
        1 => Just(Body::Tombstone),
    ]
}

proptest! {
    #[test]
    fn changes_in_avro_are_those_in_json(
        changes in prop::collection::vec((key(), schema(), change()), 0..40), partitions in 1u32..3, of in key_columns(),
    ) {
        compare(["debezium-avro", "debezium-json"], envelope_schema, (partitions, of), &changes)?;
    }

    #[test]
    fn rows_in_avro_are_those_in_json(
        changes in prop::collection::vec(
            (key(), schema(), prop_oneof![4 => row().prop_map(Body::Row), 1 => Just(Body::Tombstone)]), 0..40,
        ),
        of in key_columns(),
    ) {
        compare(["avro", "json"], row_schema, (2, of), &changes)?;
    }
}

#[test]
fn a_truncate_ends_what_is_read_at_once_whatever_schema_it_has() {
    let row = Row { id: "a", amount: Some(1), note: None, at: Some(1), deleted: None };
    let truncate = Body::Change { before: None, after: None, op: "t" };
    let write = Body::Change { before: None, after: Some(row), op: "c" };
    let changes = [
        (Key::None, AS_DOUBLE, write.clone()),
        (Key::None, AS_DOUBLE, truncate.clone()),
        (Key::None, PRECISE, truncate),
        (Key::None, PRECISE, write),
    ];
    let decode = |stream: &Arc<Stream>| {
        decode_avro(stream, &schemas(envelope_schema), &records(&changes, true), Options::default())
    };
    assert_eq!(decode(&table("debezium-avro", 1, "id")).expect_err("a truncate"), DecodeError::Truncate { record: 1 });
    let decoded = decode(&table("debezium-avro", 2, "id")).expect("decodes");
    assert_eq!((decoded.rows.num_rows(), rejected(&decoded)), (2, vec![1, 2]));
    assert!(decoded.malformed[0].reason.starts_with("a TRUNCATE, whose place"), "{:?}", decoded.malformed);
}

#[test]
fn an_update_that_changes_the_key_deletes_a_row_and_keeps_its_values() {
    let row = |id: &'static str, note| Row { id, amount: Some(1), note, at: Some(1), deleted: None };
    let rename = Body::Change { before: Some(row("a", None)), after: Some(row("b", Some(UNAVAILABLE))), op: "u" };
    let same = Body::Change { before: Some(row("b", None)), after: Some(row("b", Some("n"))), op: "u" };
    let changes = [(Key::None, PRECISE, rename), (Key::None, PRECISE, same)];
    let decoded = decode_avro(
        &table("debezium-avro", 1, "id"),
        &schemas(envelope_schema),
        &records(&changes, true),
        Options::default(),
    );
    let decoded = decoded.expect("decodes");
    let changes = decoded.changes.expect("a table");
    assert_eq!((decoded.rows.num_rows(), changes.added), (3, 1));
    assert_eq!(changes.kept, [crate::decode::KeptValues { row: 1, columns: vec![2], is_renamed: true }]);
}
