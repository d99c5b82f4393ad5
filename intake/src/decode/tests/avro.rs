//! Checks values of Avro: schemas that change from record to record, and bodies that cannot be read.

use std::sync::Arc;

use kafka::TopicRecord;
use shared::stream::Stream;

use super::super::avro::{WriterSchemas, decode_avro};
use super::super::{Decoded, Options, json_lines};
use crate::testing::stream;

const FIRST: &str =
    r#"{"type":"record","name":"r","fields":[{"name":"k","type":"string"},{"name":"v","type":"long"}]}"#;
const SECOND: &str = r#"{"type":"record","name":"r","fields":[{"name":"note","type":["null","string"]},{"name":"v","type":"int"},{"name":"k","type":"string"}]}"#;

fn declared() -> Arc<Stream> {
    let sql = "CREATE STREAM s (at TIMESTAMP METADATA FROM 'timestamp', k STRING, v BIGINT) \
               WITH (event_time = 'at', source = 'kafka', connection = 'main', topic = 't', format = 'avro')";
    Arc::new(stream(sql))
}

fn schemas() -> WriterSchemas {
    [(1, Ok(FIRST.into())), (2, Ok(SECOND.into())), (3, Err("schema 3: gone".to_owned())), (4, Ok("no schema".into()))]
        .into()
}

fn framed(id: u32, body: &[u8]) -> Vec<u8> {
    [&[0], &id.to_be_bytes()[..], body].concat()
}

fn first(k: &str, v: u8) -> Vec<u8> {
    framed(1, &[&[2 * k.len() as u8], k.as_bytes(), &[2 * v]].concat())
}

fn second(k: &str, v: u8) -> Vec<u8> {
    framed(2, &[&[0, 2 * v, 2 * k.len() as u8], k.as_bytes()].concat())
}

fn decode(values: &[Option<Vec<u8>>]) -> Decoded {
    decode_as(&declared(), &schemas(), values)
}

fn decode_as(stream: &Arc<Stream>, schemas: &WriterSchemas, values: &[Option<Vec<u8>>]) -> Decoded {
    let record = |(offset, value): (i64, &Option<Vec<u8>>)| TopicRecord {
        partition: 0,
        offset,
        timestamp_ms: offset,
        key: None,
        value: value.clone().map(Into::into),
        headers: Vec::new(),
    };
    let records: Vec<TopicRecord> = (10..).zip(values).map(record).collect();
    decode_avro(stream, schemas, &records, Options::default()).expect("decodes")
}

fn lines(decoded: &Decoded) -> Vec<String> {
    let mut text = Vec::new();
    json_lines::append(&mut text, &decoded.rows).expect("JSON");
    String::from_utf8(text).expect("UTF-8").lines().map(str::to_owned).collect()
}

#[test]
fn schemas_may_change_from_record_to_record_and_the_order_stays() {
    let values = [first("a", 1), second("b", 2), second("c", 3), first("d", 4)].map(Some);
    let decoded = decode(&values);
    assert_eq!(decoded.rejected(), 0, "{:?}", decoded.rejections);
    let expected: Vec<String> = [("a", 1), ("b", 2), ("c", 3), ("d", 4)]
        .iter()
        .enumerate()
        .map(|(i, (k, v))| {
            format!(
                "{{\"at\":\"1970-01-01T00:00:00.0{}Z\",\"k\":\"{k}\",\"v\":{v},\"_source_offset\":{}}}",
                i + 10,
                i + 10
            )
        })
        .collect();
    assert_eq!(lines(&decoded), expected);
    assert_eq!(decoded.unknown_fields, 2);
}

#[test]
fn a_text_that_is_null_is_null_and_not_empty() {
    let sql = "CREATE STREAM s (at TIMESTAMP METADATA FROM 'timestamp', k STRING, note STRING) \
               WITH (event_time = 'at', source = 'kafka', connection = 'main', topic = 't', format = 'avro')";
    let with_note = |note: &[u8]| framed(2, &[note, &[2, 2, b'k']].concat());
    let values = [with_note(&[0]), with_note(&[2, 0]), with_note(&[2, 2, b'n'])].map(Some);
    let decoded = decode_as(&Arc::new(stream(sql)), &schemas(), &values);
    let notes: Vec<String> =
        lines(&decoded).iter().map(|line| line.split("\"note\":").nth(1).unwrap_or("null")[..3].to_owned()).collect();
    assert_eq!(notes, ["nul", "\"\",", "\"n\""]);
}

#[test]
fn a_body_that_cannot_be_read_rejects_its_record_alone() {
    let truncated = first("abc", 1)[..7].to_vec();
    let twice = [first("x", 1), first("y", 2)].concat();
    let values = [
        Some(first("a", 1)),
        Some(truncated),
        Some(first("b", 2)),
        Some(framed(1, &[200, 200, 200, 200, 200, 200, 200, 200, 200, 200, 200])),
        Some(twice),
        Some(framed(3, &[])),
        Some(framed(9, &[])),
        Some(framed(4, &[])),
        Some(b"{\"k\":\"json\"}".to_vec()),
        None,
        Some([first("t", 1), vec![7]].concat()),
        Some(first("c", 3)),
    ];
    let decoded = decode(&values);
    let kept: Vec<String> =
        lines(&decoded).iter().map(|line| line.split("\"k\":").nth(1).unwrap_or("")[1..2].to_owned()).collect();
    assert_eq!(kept, ["a", "b", "c"], "{:?}", decoded.rejections);
    let mut rejected: Vec<u64> = decoded.malformed.iter().map(|event| event.line).collect();
    rejected.sort_unstable();
    assert_eq!(rejected, [1, 3, 4, 5, 6, 7, 8, 9, 10]);
    assert!(decoded.malformed.iter().any(|event| event.reason == "schema 3: gone"));
}

const ROW: &str = r#"{"type":"record","name":"Value","fields":[{"name":"id","type":"long"},{"name":"total","type":{"type":"bytes","logicalType":"decimal","precision":12,"scale":2}},{"name":"status","type":["null","string"],"default":null}]}"#;

/// The schema of change events as Debezium writes it: `after` refers to the type of `before`.
fn envelope() -> String {
    format!(
        r#"{{"type":"record","name":"Envelope","namespace":"shop.public.orders","fields":[
            {{"name":"before","type":["null",{ROW}],"default":null}},
            {{"name":"after","type":["null","Value"],"default":null}},
            {{"name":"source","type":{{"type":"record","name":"Source","fields":[{{"name":"db","type":"string"}},{{"name":"ts_ms","type":"long"}}]}}}},
            {{"name":"op","type":"string"}},
            {{"name":"ts_ms","type":["null","long"],"default":null}}]}}"#
    )
}

/// A change event; rows are an id, a total in cents below 128, and a status.
fn change(before: Option<(u8, u8, &str)>, after: Option<(u8, u8, &str)>, op: &str) -> Vec<u8> {
    let text = |text: &str| [&[2 * text.len() as u8], text.as_bytes()].concat();
    let row = |row: Option<(u8, u8, &str)>| match row {
        None => vec![0],
        Some((id, cents, "")) => vec![2, 2 * id, 2, cents, 0],
        Some((id, cents, status)) => [&[2, 2 * id, 2, cents, 2][..], &text(status)].concat(),
    };
    // 64 ms after 1970 is 128 in zigzag, which takes two bytes.
    framed(5, &[row(before), row(after), text("shop"), vec![0x80, 1], text(op), vec![0]].concat())
}

#[test]
fn the_row_of_a_change_event_is_the_one_after_it_or_before_a_deletion() {
    let sql = "CREATE STREAM s (at TIMESTAMP METADATA FROM 'source.timestamp', id BIGINT, total DECIMAL(12,2), status STRING, \
               op STRING METADATA FROM 'op') \
               WITH (event_time = 'at', source = 'kafka', connection = 'main', topic = 't', format = 'debezium-avro')";
    let schemas: WriterSchemas = [(5, Ok(envelope().into())), (1, Ok(FIRST.into()))].into();
    let (old, new) = (Some((1, 100, "new")), Some((1, 105, "paid")));
    let decoded = decode_as(
        &Arc::new(stream(sql)),
        &schemas,
        &[
            Some(change(None, old, "c")),
            Some(change(old, new, "u")),
            Some(change(new, None, "d")),
            None,
            Some(change(None, None, "d")),
            Some(change(None, None, "t")),
            Some(change(None, Some((2, 7, "")), "r")),
            Some(change(old, None, "u")),
            Some(change(None, old, "x")),
            Some(first("a", 1)),
        ],
    );
    let row = |id: u8, total: &str, status: &str, op: &str, offset: u8| {
        format!(
            "{{\"at\":\"1970-01-01T00:00:00.064Z\",\"id\":{id},\"total\":{total},{status}\"op\":\"{op}\",\"_source_offset\":{offset}}}"
        )
    };
    let without_null: Vec<String> = lines(&decoded).iter().map(|line| line.replace("\"status\":null,", "")).collect();
    let expected = [
        row(1, "1.00", "\"status\":\"new\",", "c", 10),
        row(1, "1.05", "\"status\":\"paid\",", "u", 11),
        row(1, "1.05", "\"status\":\"paid\",", "d", 12),
        row(2, "0.07", "", "r", 16),
    ];
    assert_eq!(without_null, expected, "{:?}", decoded.rejections);
    let mut reasons: Vec<(u64, &str)> =
        decoded.malformed.iter().map(|event| (event.line, event.reason.as_str())).collect();
    reasons.sort_unstable();
    let found: Vec<u64> = reasons.iter().map(|(line, _)| *line).collect();
    assert_eq!((found, decoded.rejected()), (vec![4, 5, 7, 8, 9], 5), "{reasons:?}");
    for (reason, part) in
        reasons.iter().zip(["without `before`", "TRUNCATE", "no `after`", "unknown `op` \"x\"", "no `op`"])
    {
        assert!(reason.1.contains(part), "{reason:?}");
    }
}
