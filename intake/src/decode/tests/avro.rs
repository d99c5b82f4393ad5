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
    let record = |(offset, value): (i64, &Option<Vec<u8>>)| TopicRecord {
        partition: 0,
        offset,
        timestamp_ms: offset,
        key: None,
        value: value.clone().map(Into::into),
        headers: Vec::new(),
    };
    let records: Vec<TopicRecord> = (10..).zip(values).map(record).collect();
    decode_avro(&declared(), &schemas(), &records, Options::default()).expect("decodes")
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
