//! Tests records with changes of rows, and columns of single headers.

use arrow::array::AsArray;
use arrow::datatypes::{Int64Type, TimestampMicrosecondType};
use bytes::Bytes;
use kafka::TopicRecord;

use crate::decode::{Options, TextFormat, decode_records};

fn record(offset: i64, value: Option<&str>, headers: &[(&str, Option<&[u8]>)]) -> TopicRecord {
    let headers = headers.iter().map(|(name, value)| ((*name).to_owned(), value.map(Bytes::copy_from_slice)));
    TopicRecord {
        partition: 0,
        offset,
        timestamp_ms: 5,
        key: None,
        value: value.map(|value| Bytes::copy_from_slice(value.as_bytes())),
        headers: headers.collect(),
    }
}

#[test]
fn changes_are_rows_with_their_operation_and_tombstones_are_nothing() {
    let stream = crate::testing::stream(
        "CREATE STREAM s (at TIMESTAMP METADATA FROM 'source.timestamp', op STRING METADATA FROM 'op', id BIGINT, v STRING)
             WITH (event_time = 'at', source = 'kafka', connection = 'main', topic = 't', format = 'debezium-json')",
    );
    let records = [
        record(0, Some(r#"{"op":"c","after":{"id":1,"v":"new"},"source":{"ts_ms":10}}"#), &[]),
        record(
            3,
            Some(r#"{"op":"u","before":{"id":1,"v":"new"},"after":{"id":1,"v":"paid"},"source":{"ts_ms":11}}"#),
            &[],
        ),
        record(
            4,
            Some(
                r#"{"schema":{},"payload":{"op":"d","before":{"id":1,"v":"paid"},"after":null,"source":{"ts_ms":12}}}"#,
            ),
            &[],
        ),
        record(5, None, &[]),
        record(6, Some(r#"{"op":"t","source":{"ts_ms":13}}"#), &[]),
        record(7, Some(r#"{"op":"c","after":{"id":2,"v":"new"}}"#), &[]),
    ];
    let decoded = decode_records(&stream, TextFormat::Change, &records, Options::default()).unwrap();
    let rows = &decoded.rows;
    let texts = |name: &str| {
        let column = rows.column_by_name(name).unwrap().as_string_view();
        column.iter().map(|text| text.unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(
        (texts("op").join(""), texts("v")),
        ("cud".to_owned(), vec!["new".into(), "paid".into(), "paid".into()])
    );
    let at = rows.column_by_name("at").unwrap().as_primitive::<TimestampMicrosecondType>();
    assert_eq!(at.values().as_ref(), [10_000, 11_000, 12_000]);
    let offsets = rows.column_by_name("_source_offset").unwrap().as_primitive::<Int64Type>();
    assert_eq!(offsets.values().as_ref(), [0, 3, 4]);
    let reasons: Vec<_> = decoded.rejections.iter().map(|one| (one.line, one.reason.as_str())).collect();
    assert_eq!(
        reasons,
        [(4, "the value is not a row change: a TRUNCATE names no rows"), (5, "at: the event time may not be null")]
    );
}

#[test]
fn a_header_is_a_column() {
    let stream = crate::testing::stream(
        "CREATE STREAM s (id STRING PRIMARY KEY METADATA FROM 'header:id', n BIGINT METADATA FROM 'header:n', at TIMESTAMP)
             WITH (event_time = 'at', source = 'kafka', connection = 'main', topic = 't')",
    );
    let event = Some("{\"at\":0}");
    let records = [
        record(0, event, &[("n", Some(b"7")), ("id", Some(b"a")), ("id", Some(b"b"))]),
        record(1, event, &[("id", Some(b"c")), ("n", None)]),
        record(2, event, &[("n", Some(b"8"))]),
        record(3, event, &[("id", Some(b"d")), ("n", Some(b"many"))]),
        record(4, event, &[("id", Some(b"\xff"))]),
    ];
    let decoded = decode_records(&stream, TextFormat::Json, &records, Options::default()).unwrap();
    let ids = decoded.rows.column_by_name("id").unwrap().as_string_view();
    assert_eq!(ids.iter().flatten().collect::<Vec<_>>(), ["b", "c"]);
    let numbers = decoded.rows.column_by_name("n").unwrap().as_primitive::<Int64Type>();
    assert_eq!(numbers.iter().collect::<Vec<_>>(), [Some(7), None]);
    let reasons: Vec<_> = decoded.rejections.iter().map(|one| one.reason.as_str()).collect();
    assert_eq!(
        reasons,
        [
            "id: the primary key may not be null",
            "n: expected BIGINT, found \"many\"",
            "id: the header:id of the record is not UTF-8"
        ]
    );
}
