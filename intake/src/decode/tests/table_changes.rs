//! Tests changes of tables: rows, deletions, keys that change, values that are kept.

use arrow::array::{Array, AsArray};
use arrow::datatypes::{Int64Type, TimestampMicrosecondType};
use bytes::Bytes;
use kafka::TopicRecord;
use shared::stream::Stream;

use crate::decode::{DecodeError, Decoded, KeptValues, Options, TextFormat, decode, decode_records};

fn debezium() -> Stream {
    crate::testing::stream(
        "CREATE TABLE t (id BIGINT PRIMARY KEY, v STRING, at TIMESTAMP METADATA FROM 'source.timestamp', op STRING METADATA FROM 'op')
             WITH (event_time = 'at', format = 'debezium-json')",
    )
}

fn upserts() -> Stream {
    crate::testing::stream("CREATE TABLE t (id STRING PRIMARY KEY, v STRING, at TIMESTAMP) WITH (event_time = 'at')")
}

fn read(stream: &Stream, lines: &[&str]) -> Decoded {
    decode(stream, lines.join("\n").as_bytes(), Options::default()).expect("decoded")
}

/// The key, the value and whether it is a deletion, of each row.
fn rows(decoded: &Decoded) -> Vec<(String, Option<String>, bool)> {
    let column = |name: &str| decoded.rows.column_by_name(name).expect("a column");
    let deleted = column("_retracted").as_boolean();
    let key = |row: usize| arrow::util::display::array_value_to_string(column("id"), row).expect("a text");
    let values = column("v").as_string_view();
    (0..decoded.rows.num_rows())
        .map(|row| (key(row), values.is_valid(row).then(|| values.value(row).to_owned()), deleted.value(row)))
        .collect()
}

fn row(id: &str, value: Option<&str>, deleted: bool) -> (String, Option<String>, bool) {
    (id.to_owned(), value.map(str::to_owned), deleted)
}

fn reasons(decoded: &Decoded) -> Vec<(u64, &str)> {
    decoded.rejections.iter().map(|rejection| (rejection.line, rejection.reason.as_str())).collect()
}

#[test]
fn an_upsert_is_a_row_and_its_mark_deletes() {
    let decoded = read(
        &upserts(),
        &[
            r#"{"id":"a","v":"x","at":5}"#,
            r#"{"_deleted":true,"id":"b"}"#,
            r#"{"id":"c","_deleted":false,"at":5}"#,
            r#"{"id":"d","_deleted":null,"at":5,"v":"__debezium_unavailable_value"}"#,
            r#"{"v":"x","at":5}"#,
            r#"{"id":"","at":5}"#,
            r#"{"id":"e","v":"x"}"#,
            r#"{"id":"f","_deleted":"yes","at":5}"#,
            r#"{"_deleted":true}"#,
        ],
    );
    let unavailable = Some("__debezium_unavailable_value");
    let expected =
        [row("a", Some("x"), false), row("b", None, true), row("c", None, false), row("d", unavailable, false)];
    assert_eq!(rows(&decoded), expected);
    let expected = [
        (5, "id: the primary key may not be null"),
        (6, "id: the primary key may not be empty"),
        (7, "at: the event time may not be null"),
        (8, "_retracted: expected BOOLEAN, found string \"yes\""),
        (9, "id: the primary key may not be null"),
    ];
    assert_eq!(reasons(&decoded), expected);
    assert_eq!((decoded.lines_read, decoded.rejected(), decoded.unknown_fields), (9, 5, 0));
    let changes = decoded.changes.expect("a table");
    assert_eq!((changes.keys.len(), changes.kept.len(), changes.added), (4, 0, 0));
    assert_eq!(changes.keys, crate::event_id::hash_ids(decoded.rows.column(0)));
}

#[test]
fn an_envelope_is_a_row_a_deletion_or_both() {
    let decoded = read(
        &debezium(),
        &[
            r#"{"op":"r","after":{"id":1,"v":"a"},"source":{"ts_ms":1}}"#,
            r#"{"schema":{},"payload":{"op":"u","before":null,"after":{"id":1,"v":"b"},"source":{"ts_ms":2}}}"#,
            r#"{"op":"u","before":{"id":1,"v":7},"after":{"id":2,"v":"c"},"source":{"ts_ms":3}}"#,
            r#"{"op":"d","before":{"id":2,"v":{}},"after":null}"#,
            r#"{"op":"c","after":{"id":3,"v":"__debezium_unavailable_value"},"source":{"ts_ms":5}}"#,
            r#"{"op":"d","before":null}"#,
            r#"{"op":"d","before":{"v":"c"}}"#,
            r#"{"op":"u","before":{"id":5},"after":{"id":6,"v":7},"source":{"ts_ms":6}}"#,
            r#"{"op":"u","before":{"id":5},"after":{"id":6}}"#,
            r#"{"op":"t","source":{"ts_ms":6}}"#,
            r#"{"id":1}"#,
        ],
    );
    let expected = [
        row("1", Some("a"), false),
        row("1", Some("b"), false),
        row("1", None, true),
        row("2", Some("c"), false),
        row("2", None, true),
        row("3", None, false),
    ];
    assert_eq!(rows(&decoded), expected);
    let at = decoded.rows.column(2).as_primitive::<TimestampMicrosecondType>();
    assert_eq!([0, 1, 3, 5].map(|row| at.value(row)), [1_000, 2_000, 3_000, 5_000]);
    let op = decoded.rows.column(3).as_string_view();
    assert_eq!([op.value(0), op.value(3)], ["r", "u"]);
    let changes = decoded.changes.as_ref().expect("a table");
    assert_eq!(changes.kept, [KeptValues { row: 5, columns: vec![1], is_renamed: false }]);
    let expected = [
        (
            6,
            "the value is not a row change: a deletion without `before`: give the table a primary key, or set REPLICA IDENTITY FULL",
        ),
        (7, "id: the primary key may not be null"),
        // Nothing of a change whose row is rejected is applied.
        (8, "v: expected STRING, found number 7"),
        (9, "at: the event time may not be null"),
        (10, "the value is not a row change: a TRUNCATE names no rows"),
        (11, "the value is not a row change: it has no `op`"),
    ];
    assert_eq!(reasons(&decoded), expected);
    assert_eq!((decoded.lines_read, decoded.rejected(), changes.added), (11, 6, 1));
}

fn of_topic(columns: &str, format: &str) -> Stream {
    crate::testing::stream(&format!(
        "CREATE TABLE t ({columns}, v STRING, at TIMESTAMP METADATA FROM 'timestamp') WITH (event_time = 'at', source = 'kafka',
             connection = 'main', topic = 't', format = '{format}')"
    ))
}

fn record(offset: i64, key: Option<&[u8]>, value: Option<&str>) -> TopicRecord {
    let bytes = |text: &str| Bytes::copy_from_slice(text.as_bytes());
    let (key, value) = (key.map(Bytes::copy_from_slice), value.map(bytes));
    TopicRecord { partition: 0, offset, timestamp_ms: 5, key, value, headers: Vec::new() }
}

#[test]
fn a_record_without_a_value_deletes_the_row_of_its_key() {
    let records = [
        record(3, Some(br#"{"id":1}"#), Some(r#"{"id":1,"v":"a"}"#)),
        record(4, Some(br#"{"id":1}"#), None),
        record(6, Some(br#"{"schema":{},"payload":{"id":2}}"#), None),
        record(7, Some(b"3"), None),
        record(8, Some(b"\0\0\0\0\x09{\"id\":4}"), None),
        record(9, None, None),
        record(10, Some(b"five"), None),
        record(11, Some(b"\xff"), None),
    ];
    let stream = of_topic("id BIGINT PRIMARY KEY", "json");
    let decoded = decode_records(&stream, TextFormat::Json, &records, Options::default()).expect("decoded");
    let deleted = |id: &str| row(id, None, true);
    assert_eq!(rows(&decoded), [row("1", Some("a"), false), deleted("1"), deleted("2"), deleted("3"), deleted("4")]);
    let offsets = decoded.rows.column_by_name("_source_offset").expect("a column").as_primitive::<Int64Type>();
    assert_eq!(offsets.values().as_ref(), [3, 4, 6, 7, 8]);
    let expected = [
        (5, "id: the primary key may not be null"),
        (6, "id: expected BIGINT, found \"five\""),
        (7, "invalid UTF-8 at column 1"),
    ];
    assert_eq!(reasons(&decoded), expected);
    // A text needs no quotes.
    let stream = of_topic("id STRING PRIMARY KEY", "debezium-json");
    let records = [
        record(0, Some(b"o-1"), None),
        record(1, Some(b"\"o\\u0031\""), None),
        record(2, Some(b"o2"), Some(r#"{"op":"d","before":null}"#)),
        record(3, Some(b"17"), None),
        record(4, Some(br#"{"id":"o3","payload":"x"}"#), None),
    ];
    let decoded = decode_records(&stream, TextFormat::Change, &records, Options::default()).expect("decoded");
    assert_eq!(rows(&decoded), ["o-1", "o1", "o2", "17", "o3"].map(deleted));
}

#[test]
fn a_key_of_several_columns_names_a_row_by_all_of_them() {
    let columns = "id STRING, n INT, v STRING, at TIMESTAMP, PRIMARY KEY (n, id)";
    let stream = crate::testing::stream(&format!("CREATE TABLE t ({columns}) WITH (event_time = 'at')"));
    let lines = [
        r#"{"id":"a","n":1,"v":"x","at":5}"#,
        r#"{"id":"","n":2,"_deleted":true}"#,
        r#"{"id":"a","v":"x","at":5}"#,
        r#"{"n":1,"_deleted":true}"#,
        r#"{"id":null,"n":1,"at":5}"#,
    ];
    let decoded = read(&stream, &lines);
    assert_eq!(rows(&decoded), [row("a", Some("x"), false), row("", None, true)]);
    let (id, n) = ("id: the primary key may not be null", "n: the primary key may not be null");
    assert_eq!(reasons(&decoded), [(3, n), (4, id), (5, id)]);
    let keys = [decoded.rows.column(1).as_ref(), decoded.rows.column(0).as_ref()];
    assert_eq!(decoded.changes.expect("a table").keys, crate::event_id::hash_keys(&keys), "in the order of the key");
    // Envelopes: any of the columns may change.
    let stream = crate::testing::stream(&format!(
        "CREATE TABLE t ({columns}) WITH (event_time = 'at', format = 'debezium-json')"
    ));
    let lines = [
        r#"{"op":"u","before":{"id":"a","n":1},"after":{"id":"a","n":1,"v":"x","at":5}}"#,
        r#"{"op":"u","before":{"id":"a","n":1},"after":{"id":"a","n":2,"v":"y","at":5}}"#,
        r#"{"op":"u","before":{"id":"a","n":2},"after":{"id":"\u0062","n":2,"v":"__debezium_unavailable_value","at":5}}"#,
        r#"{"op":"d","before":{"id":"b","n":2}}"#,
        r#"{"op":"d","before":{"id":"b"}}"#,
    ];
    let decoded = read(&stream, &lines);
    let expected = [
        row("a", Some("x"), false),
        row("a", None, true),
        row("a", Some("y"), false),
        row("a", None, true),
        row("b", None, false),
        row("b", None, true),
    ];
    assert_eq!((rows(&decoded), reasons(&decoded)), (expected.to_vec(), vec![(5, n)]));
    let changes = decoded.changes.expect("a table");
    assert_eq!((changes.added, changes.kept), (2, vec![KeptValues { row: 4, columns: vec![2], is_renamed: true }]));
}

#[test]
fn the_key_of_a_record_has_all_columns_of_the_key() {
    let stream = of_topic("id STRING, n BIGINT, PRIMARY KEY (id, n)", "json");
    let records = [
        record(0, Some(br#"{"n":1,"id":"a"}"#), None),
        record(1, Some(br#"{"schema":{},"payload":{"id":"b","n":2}}"#), None),
        record(2, Some(br#"["\u0063",3]"#), None),
        record(3, Some(br#"{"id":"a"}"#), None),
        record(4, Some(b"a"), None),
        record(5, Some(br#"["a"]"#), None),
        record(6, Some(br#"["a",null]"#), None),
        record(7, Some(br#"[1,"a"]"#), None),
    ];
    let decoded = decode_records(&stream, TextFormat::Json, &records, Options::default()).expect("decoded");
    assert_eq!(rows(&decoded), ["a", "b", "c"].map(|id| row(id, None, true)));
    let n = decoded.rows.column_by_name("n").expect("a column").as_primitive::<Int64Type>();
    assert_eq!(n.values().as_ref(), [1, 2, 3]);
    let array = "the key of the record is neither an object with the 2 columns of the key nor an array of their values";
    let (n, id) = ("n: the primary key may not be null", "id: expected STRING, found number 1");
    assert_eq!(reasons(&decoded), [(3, n), (4, array), (5, array), (6, n), (7, id)]);
}

#[test]
fn a_truncate_ends_what_is_read_at_once_and_is_refused_in_one_of_several_partitions() {
    let mut stream = of_topic("id BIGINT PRIMARY KEY", "debezium-json");
    let records = [
        record(0, None, Some(r#"{"op":"c","after":{"id":1,"v":"a"}}"#)),
        record(1, None, Some(r#"{"op":"t","source":{"ts_ms":6}}"#)),
        record(2, None, Some(r#"{"op":"t"}"#)),
    ];
    let decode = |stream: &Stream| decode_records(stream, TextFormat::Change, &records, Options::default());
    assert_eq!(decode(&stream).expect_err("a truncate"), DecodeError::Truncate { record: 1 });
    stream.partitions = 2;
    let decoded = decode(&stream).expect("decoded");
    assert_eq!((rows(&decoded), decoded.rejected()), (vec![row("1", Some("a"), false)], 2));
    assert!(reasons(&decoded)[0].1.starts_with("a TRUNCATE, whose place"), "{:?}", decoded.rejections);
}

#[test]
fn a_key_that_changes_within_one_of_several_partitions_is_refused() {
    let change = r#"{"op":"u","before":{"id":1},"after":{"id":2,"v":"a"}}"#;
    let mut stream = of_topic("id BIGINT PRIMARY KEY", "debezium-json");
    let records = [record(0, None, Some(change))];
    let decode =
        |stream: &Stream| decode_records(stream, TextFormat::Change, &records, Options::default()).expect("decoded");
    assert_eq!(rows(&decode(&stream)), [row("1", None, true), row("2", Some("a"), false)]);
    stream.partitions = 2;
    let decoded = decode(&stream);
    assert_eq!(decoded.rows.num_rows(), 0);
    assert!(reasons(&decoded)[0].1.contains("it changes the key of a row"), "{:?}", decoded.rejections);
}

#[test]
fn no_text_of_a_followed_table_is_the_mark_of_a_value_that_is_not_known() {
    let stream = crate::testing::stream(
        "CREATE TABLE t (id STRING PRIMARY KEY, v STRING, at TIMESTAMP METADATA FROM 'source.timestamp') WITH (event_time = 'at',
             source = 'postgres', connection = 'shop', table = 't')",
    );
    let records = [
        record(
            0,
            None,
            Some(r#"{"op":"u","source":{"ts_ms":5},"before":null,"after":{"id":"a","v":"\u0000unchanged"}}"#),
        ),
        record(
            1,
            None,
            Some(
                r#"{"op":"c","source":{"ts_ms":5},"before":null,"after":{"id":"b","v":"__debezium_unavailable_value"}}"#,
            ),
        ),
        record(
            2,
            None,
            Some(r#"{"op":"u","source":{"ts_ms":5},"before":{"id":"b"},"after":{"id":"c","v":"\u0000unchanged"}}"#),
        ),
        record(3, None, Some(r#"{"op":"u","source":{"ts_ms":5},"before":{"id":"c"},"after":{"id":"d","v":"x"}}"#)),
        record(
            4,
            None,
            Some(r#"{"op":"u","source":{"ts_ms":5},"before":null,"after":{"id":"d","v":"\u0000unchanged"}}"#),
        ),
    ];
    let decoded = decode_records(&stream, TextFormat::Json, &records, Options::default()).expect("decoded");
    let expected = [
        row("a", None, false),
        row("b", Some("__debezium_unavailable_value"), false),
        row("b", None, true),
        row("c", None, false),
        row("c", None, true),
        row("d", Some("x"), false),
        row("d", None, false),
    ];
    assert_eq!((rows(&decoded), decoded.rejected()), (expected.to_vec(), 0));
    let kept = |row: usize, is_renamed: bool| KeptValues { row, columns: vec![1], is_renamed };
    assert_eq!(decoded.changes.expect("a table").kept, [kept(0, false), kept(3, true), kept(6, false)]);
}
