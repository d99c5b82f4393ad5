//! Checks values of Protobuf: schemas that change from record to record, nested messages, imports, and what cannot be read.

use std::collections::HashMap;
use std::sync::Arc;

use kafka::{RegisteredSchema, TopicRecord};

use super::super::protobuf::{MessageSchema, MessageSchemas, decode_protobuf};
use super::super::{DecodeError, Decoded, Options, json_lines};
use crate::testing::stream;

const FIRST: &str = r#"syntax = "proto3"; package shop;
    import "money.proto"; import "google/protobuf/timestamp.proto";
    message Order {
        string order_id = 1; int64 cents = 2; optional int32 pieces = 3; State state = 4;
        google.protobuf.Timestamp placedAt = 5; Money total = 6;
        message Line { string order_id = 1; int64 cents = 2; }
        enum State { OPEN = 0; PAID = 1; }
    }
    message Other { string order_id = 1; }"#;
const MONEY: &str = r#"syntax = "proto3"; message Money { string currency = 1; }"#;
const SECOND: &str = r#"syntax = "proto3"; message Order { int64 cents = 1; string order_id = 2; bool gift = 3; }"#;

fn compiled(text: &str) -> Result<MessageSchema, String> {
    let references = HashMap::from([("money.proto".to_owned(), MONEY.to_owned())]);
    MessageSchema::compile(&Arc::new(RegisteredSchema { text: text.to_owned(), references }))
}

fn schemas() -> MessageSchemas {
    [(1, compiled(FIRST)), (2, compiled(SECOND)), (3, Err("schema 3: gone".to_owned()))].into()
}

/// A value: schema, place of the message, message.
fn value(id: u32, place: &[u8], message: &[&[u8]]) -> Option<Vec<u8>> {
    Some([&[0], &id.to_be_bytes()[..], place, &message.concat()].concat())
}

fn decode(values: &[Option<Vec<u8>>]) -> (Vec<String>, Decoded) {
    let declared = stream(
        "CREATE STREAM s (at TIMESTAMP METADATA FROM 'timestamp', order_id STRING, cents BIGINT, pieces BIGINT, state STRING,
             placedAt TIMESTAMP, currency STRING FROM '/total/currency')
         WITH (event_time = 'at', source = 'kafka', connection = 'main', topic = 't', format = 'protobuf')",
    );
    let record = |(offset, value): (i64, &Option<Vec<u8>>)| TopicRecord {
        partition: 0,
        offset,
        timestamp_ms: offset,
        key: None,
        value: value.clone().map(Into::into),
        headers: Vec::new(),
    };
    let records: Vec<TopicRecord> = (10..).zip(values).map(record).collect();
    let decoded = decode_protobuf(&declared, &schemas(), &records, Options::default()).expect("decodes");
    let mut text = Vec::new();
    json_lines::append(&mut text, &decoded.rows).expect("JSON");
    (String::from_utf8(text).expect("UTF-8").lines().map(str::to_owned).collect(), decoded)
}

/// Field 1, a string.
const ID: &[u8] = &[0x0a, 1, b'a'];

#[test]
fn messages_of_changing_schemas_are_read_with_defaults_enums_times_and_nested_fields() {
    let (lines, decoded) = decode(&[
        value(1, &[0], &[ID, &[0x10, 7, 0x18, 2, 0x20, 1], &[0x2a, 2, 0x08, 60], &[0x32, 3, 0x0a, 1, b'E']]),
        value(2, &[0], &[&[0x08, 9], &[0x12, 1, b'b'], &[0x18, 1]]),
        value(1, &[0], &[]),
        // The second message of the file, and the first message inside the first.
        value(1, &[2, 2], &[ID]),
        value(1, &[4, 0, 0], &[ID, &[0x10, 3]]),
    ]);
    assert_eq!(decoded.rejected(), 0, "{:?}", decoded.rejections);
    let expected = [
        r#""order_id":"a","cents":7,"pieces":2,"state":"PAID","placedAt":"1970-01-01T00:01:00Z","currency":"E""#,
        r#""order_id":"b","cents":9,"_source_offset""#,
        // Fields without presence have their default; those with it are absent.
        r#""order_id":"","cents":0,"state":"OPEN","_source_offset""#,
        r#""order_id":"a","_source_offset""#,
        r#""order_id":"a","cents":3"#,
    ];
    for (line, expected) in lines.iter().zip(expected) {
        assert!(line.contains(expected), "{line} has not {expected}");
    }
    assert_eq!(decoded.unknown_fields, 1, "gift");
}

#[test]
fn what_cannot_be_read_is_rejected_alone_with_its_reason() {
    let good = || value(2, &[0], &[&[0x08, 9]]);
    let (lines, decoded) = decode(&[
        good(),
        value(2, &[0], &[&[0x12, 200, b'b']]),
        good(),
        value(2, &[4, 0, 2], &[ID]),
        value(2, &[2, 1], &[ID]),
        value(2, &[0xff], &[]),
        value(3, &[0], &[ID]),
        value(7, &[0], &[ID]),
        Some(b"{}".to_vec()),
        Some(Vec::new()),
        None,
        value(2, &[], &[]),
        good(),
    ]);
    assert_eq!(lines.len(), 3);
    let rejected: Vec<_> =
        decoded.rejections.iter().map(|rejection| (rejection.line, rejection.reason.as_str())).collect();
    assert_eq!(rejected.len(), 10, "{rejected:?}");
    assert!(rejected[0].1.starts_with("cannot read the message with schema 2: "), "{rejected:?}");
    let no_message = "schema 2 has no message at the position that the value gives";
    let no_frame = "the value does not begin with a zero byte and the id of a schema";
    let reasons: Vec<_> = rejected[1..].iter().map(|(_, reason)| *reason).collect();
    let gone = "schema 7: it was not fetched";
    let tombstone = "the record has no value (a tombstone)";
    assert_eq!(
        reasons,
        [no_message, no_message, no_message, "schema 3: gone", gone, no_frame, no_frame, tombstone, no_message]
    );
}

#[test]
fn a_schema_that_does_not_compile_says_why() {
    let missing = compiled(r#"syntax = "proto3"; import "nowhere.proto"; message A {}"#).expect_err("no import");
    assert!(missing.contains("nowhere.proto"), "{missing}");
    assert!(compiled("no schema").is_err());
    assert!(compiled(r#"syntax = "proto3";"#).is_ok(), "a schema without messages rejects every record");
}

#[test]
fn messages_that_grow_with_their_defaults_are_bounded() {
    let fields: String = (1..=1_000).map(|n| format!("int64 a_field_with_a_long_name_{n} = {n};")).collect();
    let schema = format!("syntax = \"proto3\"; message A {{ repeated B b = 1; }} message B {{ {fields} }}");
    let schemas: MessageSchemas = [(1, compiled(&schema))].into();
    let declared = stream(
        "CREATE STREAM s (at TIMESTAMP METADATA FROM 'timestamp', x STRING)
         WITH (event_time = 'at', source = 'kafka', connection = 'main', topic = 't', format = 'protobuf')",
    );
    // Each empty message has some 33 KB of defaults.
    let record = |count: usize| TopicRecord {
        partition: 0,
        offset: 0,
        timestamp_ms: 0,
        key: None,
        value: value(1, &[0], &[&[0x0a, 0].repeat(count)]).map(Into::into),
        headers: Vec::new(),
    };
    let decode = |records: &[TopicRecord]| decode_protobuf(&declared, &schemas, records, Options::default());
    let long = decode(&[record(1_000)]).expect("decodes");
    assert!(long.rejections[0].reason.contains("it is longer than"), "{:?}", long.rejections);
    let many = vec![record(20); 100];
    let max = super::super::protobuf::TEXT_BYTES_MAX;
    assert_eq!(decode(&many).expect_err("too long together"), DecodeError::EventsTooLarge { max });
    assert_eq!(decode(&many[..10]).expect("decodes").rows.num_rows(), 10);
}
