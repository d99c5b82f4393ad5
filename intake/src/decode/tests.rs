//! Tests decoding: tables for the rules, properties for every body.

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::datatypes::{Date32Type, Decimal128Type, Float64Type, Int32Type, Int64Type, TimestampMicrosecondType};
use proptest::prelude::*;
use serde_json::{Value, json};
use shared::stream::{Column, Stream, UnknownFields};
use shared::time::{Day, Micros};
use shared::types::DataType;

use super::*;

mod avro;
mod avro_tables;
mod changes;
mod fields;
mod protobuf;
mod table_changes;
mod tables;
#[test]
fn a_column_that_was_removed_is_null_and_its_field_unknown() {
    let mut stream = every_type();
    stream.columns.retain(|column| column.name != "big");
    stream.declared -= 1;
    stream.event_time = stream.column("at").unwrap();
    let stream = stream.with_removed([Column::new("big", DataType::BigInt)]);
    for fast_path in [true, false] {
        let body = br#"{"id": "a", "at": 1, "big": 7}"#;
        let decoded = decode_with(&stream, body, Options::default(), fast_path).unwrap();
        assert_eq!((decoded.rows.num_rows(), decoded.unknown_fields), (1, 1));
        assert_eq!(decoded.rows.column_by_name("big").map(|column| column.null_count()), Some(1));
    }
    let strict = Stream { unknown_fields: UnknownFields::Reject, ..stream };
    let decoded = decode(&strict, br#"{"id": "a", "at": 1, "big": 7}"#, Options::default()).unwrap();
    assert_eq!(decoded.rejections[0].reason, "the stream has no field \"big\"");
}

/// One column of each type, then the event time.
fn every_type() -> Stream {
    let columns = [
        ("id", DataType::String),
        ("flag", DataType::Boolean),
        ("small", DataType::Int),
        ("big", DataType::BigInt),
        ("ratio", DataType::Double),
        ("price", DataType::Decimal { precision: 10, scale: 2 }),
        ("wide", DataType::Decimal { precision: 38, scale: 0 }),
        ("day", DataType::Date),
        ("note", DataType::String),
        ("at", DataType::Timestamp),
    ];
    Stream {
        name: "every_type".parse().unwrap(),
        columns: columns.iter().map(|(name, t)| Column::new(*name, *t)).collect(),
        declared: columns.len(),
        event_time: 9,
        ..crate::testing::stream("CREATE STREAM s (at TIMESTAMP) WITH (event_time = 'at')")
    }
}

fn read(body: &str) -> Decoded {
    decode(&every_type(), body.as_bytes(), Options::default()).unwrap()
}

/// A line whose `field` is `value`, with an event time unless that is the field.
fn line_with(field: &str, value: &str) -> String {
    match field {
        "at" => format!("{{\"at\":{value}}}"),
        _ => format!("{{\"{field}\":{value},\"at\":0}}"),
    }
}

/// The value of a row as text; `NULL` for null.
fn shown(column: &ArrayRef, row: usize) -> String {
    use arrow::datatypes::DataType as T;
    if column.is_null(row) {
        return "NULL".to_owned();
    }
    match column.data_type() {
        T::Utf8View => column.as_string_view().value(row).to_owned(),
        T::Boolean => column.as_boolean().value(row).to_string(),
        T::Int32 => column.as_primitive::<Int32Type>().value(row).to_string(),
        T::Int64 => column.as_primitive::<Int64Type>().value(row).to_string(),
        T::Float64 => format!("{:?}", column.as_primitive::<Float64Type>().value(row)),
        T::Decimal128(..) => column.as_primitive::<Decimal128Type>().value(row).to_string(),
        T::Date32 => Day(column.as_primitive::<Date32Type>().value(row)).to_string(),
        T::Timestamp(..) => Micros(column.as_primitive::<TimestampMicrosecondType>().value(row)).to_string(),
        other => panic!("{other}"),
    }
}

fn rows(batch: &RecordBatch) -> Vec<Vec<String>> {
    (0..batch.num_rows()).map(|row| batch.columns().iter().map(|column| shown(column, row)).collect()).collect()
}

#[test]
fn each_type_reads_its_values() {
    for (field, json, want) in [
        ("flag", "true", "true"),
        ("flag", "null", "NULL"),
        ("small", "2147483647", "2147483647"),
        ("small", "-2147483648", "-2147483648"),
        ("small", "3.0", "3"),
        ("small", "-0", "0"),
        ("small", "12e2", "1200"),
        ("big", "9223372036854775807", "9223372036854775807"),
        ("big", "-9223372036854775808", "-9223372036854775808"),
        ("big", "9223372036854775807.000", "9223372036854775807"),
        ("big", "1e18", "1000000000000000000"),
        ("big", "\"42\"", "42"),
        ("big", "\"-9223372036854775808\"", "-9223372036854775808"),
        ("big", "\"\\u0034\\u0032\"", "42"),
        ("big", "\"0\"", "0"),
        ("big", "\"-0\"", "0"),
        ("small", "\"-2147483648\"", "-2147483648"),
        ("ratio", "0.1", "0.1"),
        ("ratio", "-0.0", "0.0"),
        ("ratio", "-0", "0.0"),
        ("ratio", "7", "7.0"),
        ("ratio", "1e-400", "0.0"),
        ("ratio", "-1e-400", "0.0"),
        ("ratio", "123456789012345678901234567890", "1.2345678901234568e29"),
        ("price", "12.34", "1234"),
        ("price", "12.3400", "1234"),
        ("price", "\"12.34\"", "1234"),
        ("price", "\"-99999999.99\"", "-9999999999"),
        ("price", "1e2", "10000"),
        ("price", "0.29", "29"),
        ("wide", "99999999999999999999999999999999999999", "99999999999999999999999999999999999999"),
        ("wide", "\"-99999999999999999999999999999999999999\"", "-99999999999999999999999999999999999999"),
        ("day", "\"2024-02-29\"", "2024-02-29"),
        ("note", "\"\"", ""),
        ("note", "\"a \\\"b\\\" \\u00e9 \\ud83d\\ude00 \u{e9}\"", "a \"b\" \u{e9} \u{1f600} \u{e9}"),
        ("at", "\"2026-01-01T00:00:01.234Z\"", "2026-01-01T00:00:01.234Z"),
        ("at", "\"2026-01-01T00:00:01\"", "2026-01-01T00:00:01Z"),
        ("at", "\"2026-01-01T02:00:00+02:00\"", "2026-01-01T00:00:00Z"),
        ("at", "\"2026-01-01T02:00:00\\u002B02:00\"", "2026-01-01T00:00:00Z"),
        ("at", "\"2026-01-01T02:00:00+0200\"", "2026-01-01T00:00:00Z"),
        ("at", "\"20260101T000001.5Z\"", "2026-01-01T00:00:01.500Z"),
        ("at", "\"20260101T020001+0200\"", "2026-01-01T00:00:01Z"),
        ("at", "\"20260101T000001\"", "2026-01-01T00:00:01Z"),
        ("at", "1767225601234", "2026-01-01T00:00:01.234Z"),
        ("at", "1767225601234.567", "2026-01-01T00:00:01.234567Z"),
        ("at", "1.767225601234e12", "2026-01-01T00:00:01.234Z"),
        ("at", "-0.0011", "1969-12-31T23:59:59.999998Z"),
    ] {
        let decoded = read(&line_with(field, json));
        assert_eq!(decoded.rejections, [], "{field} {json}");
        let column = decoded.rows.column_by_name(field).unwrap();
        assert_eq!(shown(column, 0), want, "{field} {json}");
    }
}

#[test]
fn each_type_rejects_what_it_does_not_hold() {
    for (field, json, want) in [
        ("big", "\"abc\"", "big: expected BIGINT, found string \"abc\""),
        ("big", "\"4.5\"", "big: expected BIGINT, found string \"4.5\""),
        ("big", "\"4.0\"", "big: expected BIGINT, found string \"4.0\""),
        ("big", "\" 42\"", "big: expected BIGINT, found string \" 42\""),
        ("big", "\"+42\"", "big: expected BIGINT, found string \"+42\""),
        ("big", "\"042\"", "big: expected BIGINT, found string \"042\""),
        ("big", "\"-\"", "big: expected BIGINT, found string \"-\""),
        ("big", "\"\"", "big: expected BIGINT, found string \"\""),
        ("big", "\"9223372036854775808\"", "big: BIGINT is out of range, found string \"9223372036854775808\""),
        ("small", "\"2147483648\"", "small: INT is out of range, found string \"2147483648\""),
        ("at", "\"1767225601234\"", "at: expected TIMESTAMP, found string \"1767225601234\""),
        ("big", "3.5", "big: expected BIGINT, found number 3.5"),
        ("big", "9223372036854775808", "big: BIGINT is out of range, found number 9223372036854775808"),
        ("big", "1e99", "big: BIGINT is out of range, found number 1e99"),
        ("small", "2147483648", "small: INT is out of range, found number 2147483648"),
        ("small", "3000000000.0", "small: INT is out of range, found number 3000000000.0"),
        ("small", "true", "small: expected INT, found boolean true"),
        ("flag", "1", "flag: expected BOOLEAN, found number 1"),
        ("flag", "\"true\"", "flag: expected BOOLEAN, found string \"true\""),
        ("ratio", "1e999", "ratio: DOUBLE is out of range, found number 1e999"),
        ("ratio", "\"1.5\"", "ratio: expected DOUBLE, found string \"1.5\""),
        ("price", "100000000", "price: DECIMAL(10,2) is out of range, found number 100000000"),
        ("price", "12.345", "price: expected DECIMAL(10,2), found number 12.345"),
        ("price", "\"twelve\"", "price: expected DECIMAL(10,2), found string \"twelve\""),
        ("wide", "1e38", "wide: DECIMAL(38,0) is out of range, found number 1e38"),
        ("day", "\"2023-02-29\"", "day: expected DATE, found string \"2023-02-29\""),
        ("day", "\"2023-02-28T00:00:00Z\"", "day: expected DATE, found string \"2023-02-28T00:00:00Z\""),
        ("day", "19000", "day: expected DATE, found number 19000"),
        ("note", "5", "note: expected STRING, found number 5"),
        ("note", "{\"a\":1}", "note: expected STRING, found object"),
        ("note", "[]", "note: expected STRING, found array"),
        ("note", "\"\\ud800\"", "note: unexpected end of hex escape"),
        ("note", "\"\\ud800\\u0041\"", "note: lone leading surrogate in hex escape"),
        ("at", "null", "at: the event time may not be null"),
        ("at", "\"soon\"", "at: expected TIMESTAMP, found string \"soon\""),
        ("at", "253402300800000", "at: TIMESTAMP is out of range, found number 253402300800000"),
        ("at", "9223372036854775807", "at: TIMESTAMP is out of range, found number 9223372036854775807"),
        ("at", "1e300", "at: TIMESTAMP is out of range, found number 1e300"),
        ("big", "+1", "invalid JSON at column 8: expected value"),
        ("big", "01", "invalid JSON at column 9: invalid number"),
        ("big", "NaN", "invalid JSON at column 8: expected value"),
        (
            "note",
            "\"a\tb\"",
            "invalid JSON at column 10: control character (\\u0000-\\u001F) found while parsing a string",
        ),
        ("note", "\"a\",\"note\":\"b\"", "note: the field appears twice"),
    ] {
        let decoded = read(&line_with(field, json));
        assert_eq!(decoded.rows.num_rows(), 0, "{field} {json}");
        assert_eq!(decoded.rejections, [Rejection { line: 1, reason: want.into() }], "{field} {json}");
    }
}

#[test]
fn a_line_that_is_not_an_object_is_rejected_with_its_type() {
    let decoded = read("{\"at\":1}\n42\n\"x\"\nhello\n{\"at\":2\n{\"at\":3}}\n{\"big\":1}\nnull\n{\"at\":4}");
    let reasons: Vec<_> = decoded.rejections.iter().map(|r| (r.line, r.reason.as_str())).collect();
    assert_eq!(
        reasons,
        [
            (2, "expected an object, found number 42"),
            (3, "expected an object, found string \"x\""),
            (4, "invalid JSON at column 1: expected value"),
            (5, "invalid JSON at column 7: EOF while parsing an object"),
            (6, "invalid JSON at column 9: trailing characters"),
            (7, "at: the event time may not be null"),
            (8, "expected an object, found null"),
        ]
    );
    assert_eq!((decoded.lines_read, decoded.rejected(), decoded.rows.num_rows()), (9, 7, 2));
}

#[test]
fn lines_may_be_blank_end_in_crlf_or_begin_with_a_byte_order_mark() {
    let decoded = read("\u{feff}\r\n{\"at\":1}\r\n\r\n   \n\n  { \"at\" : 2 }  \r\n{\"at\":\t3}");
    assert_eq!((decoded.lines_read, decoded.rejections.len(), decoded.rows.num_rows()), (3, 0, 3));
    let decoded = read("\n\n\nx\n");
    assert_eq!(decoded.rejections[0].line, 4);
    assert_eq!(read(" \r\n ").lines_read, 0);
}

#[test]
fn one_object_may_span_lines() {
    let decoded = read("\n{\n  \"at\": 1,\n  \"note\": \"x\"\n}\n");
    assert_eq!((decoded.lines_read, decoded.rows.num_rows()), (1, 1));
    let decoded = read("{\n  \"at\": \"never\"\n}");
    assert_eq!(decoded.rejections.len(), 1);
    // A truncated first line does not start an object of several lines: its neighbours are accepted.
    let decoded = read("{\"at\":1,\n{\"at\":2}\n{\"at\":3}");
    assert_eq!((decoded.lines_read, decoded.rows.num_rows()), (3, 2));
}

#[test]
fn arrays_reject_elements_by_number_and_are_refused_where_they_break() {
    let decoded = read(" [ {\"at\":1}, 5,\n {\"at\":\n2}, {\"at\":\"x\"}, {\"at\":3, \"u\":[{}]} ] \n");
    assert_eq!((decoded.lines_read, decoded.rows.num_rows(), decoded.unknown_fields), (5, 3, 1));
    let lines: Vec<_> = decoded.rejections.iter().map(|r| r.line).collect();
    assert_eq!(lines, [2, 4]);
    assert_eq!(read("[]").lines_read, 0);

    for (body, line, column) in [
        ("[{\"at\":1},\n {\"at\":}]", 2, 8),
        ("[{\"at\":1}", 1, 10),
        ("[{\"at\":1},]", 1, 11),
        ("[{\"at\":1} {\"at\":2}]", 1, 11),
        ("[{\"at\":1}]\n]", 2, 1),
        ("[", 1, 2),
        ("[{\"at\":1}, {\"at\":2,\n\n \"u\": tru}]", 3, 10),
    ] {
        let error = decode(&every_type(), body.as_bytes(), Options::default()).unwrap_err();
        assert!(
            matches!(error, DecodeError::Syntax { line: l, column: c, .. } if (l, c) == (line, column)),
            "{body}: {error}"
        );
    }
    let error = decode(&every_type(), b"[{\"at\":1},\n\xff]", Options::default()).unwrap_err();
    assert_eq!(error, DecodeError::Syntax { line: 2, column: 1, reason: "invalid UTF-8".into() });
}

#[test]
fn a_line_that_is_not_utf_8_is_rejected_alone() {
    let body =
        b"{\"at\":1}\n{\"at\":2,\"note\":\"\xc3\"}\n{\"at\":3}\n\xff\n\xfe{\"at\":4}\n{\"at\":5,\"note\":\"\xc3\xa9\"}";
    let decoded = decode(&every_type(), body, Options::default()).unwrap();
    let reasons: Vec<_> = decoded.rejections.iter().map(|r| (r.line, r.reason.as_str())).collect();
    assert_eq!(
        reasons,
        [(2, "invalid UTF-8 at column 17"), (4, "invalid UTF-8 at column 1"), (5, "invalid UTF-8 at column 1")]
    );
    assert_eq!((decoded.lines_read, decoded.rows.num_rows()), (6, 3));
    assert_eq!(shown(decoded.rows.column(8), 2), "\u{e9}");
}

#[test]
fn unknown_fields_are_counted_or_reject_the_event() {
    let body = "{\"at\":1,\"x\":[1,{\"y\":2}],\"z\":\"\\n\"}\n{\"q\":null,\"at\":2}\n{\"q\":1,\"at\":null}";
    assert_eq!(read(body).unknown_fields, 3);
    let strict = Stream { unknown_fields: UnknownFields::Reject, ..every_type() };
    let decoded = decode(&strict, body.as_bytes(), Options::default()).unwrap();
    let reasons: Vec<_> = decoded.rejections.iter().map(|r| r.reason.as_str()).collect();
    assert_eq!(
        reasons,
        ["the stream has no field \"x\"", "the stream has no field \"q\"", "the stream has no field \"q\""]
    );
    assert_eq!(decoded.unknown_fields, 0);
}

#[test]
fn long_events_are_rejected_and_long_lists_of_rejections_cut() {
    let options = Options { event_bytes_max: 20, rejections_listed_max: 3, ..Options::default() };
    let long = "{\"at\":1,\"note\":\"long\"}\n";
    let body = format!("{{\"at\":1}}\n{long}{{\"at\":2,\"note\":\"s\"}}\n{}", "?\n".repeat(10));
    let decoded = decode(&every_type(), body.as_bytes(), options).unwrap();
    assert_eq!(decoded.rejections[0], Rejection { line: 2, reason: "the event is longer than 20 bytes".into() });
    assert_eq!((decoded.rejections.len(), decoded.rejected(), decoded.rows.num_rows()), (3, 11, 2));
    let decoded = decode(&every_type(), format!("[{}]", long.trim()).as_bytes(), options).unwrap();
    assert_eq!(decoded.rejected(), 1);
}

#[test]
fn bodies_of_too_many_events_are_refused() {
    let options = Options { values_max: 39, ..Options::default() };
    let lines = |events: usize| "{\"at\":1}\nbad\n".repeat(events);
    assert_eq!(decode(&every_type(), lines(3).as_bytes(), options).unwrap().rows.num_rows(), 3);
    let error = decode(&every_type(), lines(4).as_bytes(), options).unwrap_err();
    assert_eq!(error, DecodeError::TooManyEvents { max: 3 });
}

#[test]
fn ids_are_hashed_if_the_stream_has_a_primary_key() {
    let body = "{\"id\":\"a\",\"at\":1}\n{\"id\":\"b\",\"at\":1}\n{\"id\":\"\\u0061\",\"at\":1}";
    let with = Stream { primary_key: Some(0), ..every_type() };
    let hashes = decode(&with, body.as_bytes(), Options::default()).unwrap().id_hashes.unwrap();
    assert_eq!(hashes[0], hashes[2]);
    assert_ne!(hashes[0], hashes[1]);
    assert_eq!(read(body).id_hashes, None);
}

#[test]
fn names_that_need_escapes_are_found() {
    let mut stream = every_type();
    stream.columns[8].name = "a\"b\\c".into();
    let body = "{\"at\":1,\"a\\\"b\\\\c\":\"x\"}\n{\"at\":1,\"a\\u0022b\\u005cc\":\"y\"}\n{\"at\":1,\"a\"b\\c\":\"z\"}";
    let decoded = decode(&stream, body.as_bytes(), Options::default()).unwrap();
    assert_eq!((shown(decoded.rows.column(8), 0), shown(decoded.rows.column(8), 1)), ("x".into(), "y".into()));
    assert_eq!(decoded.rejected(), 1);
}

fn same(stream: &Stream, body: &[u8]) -> Result<(), TestCaseError> {
    let options = Options { event_bytes_max: 200, rejections_listed_max: 5, values_max: 40, ..Options::default() };
    let fast = decode_with(stream, body, options, true);
    let slow = decode_with(stream, body, options, false);
    match (fast, slow) {
        (Ok(fast), Ok(slow)) => {
            prop_assert_eq!(fast.rows, slow.rows);
            prop_assert_eq!(fast.rejections, slow.rejections);
            prop_assert_eq!(fast.malformed, slow.malformed);
            prop_assert_eq!(fast.lines_read, slow.lines_read);
            prop_assert_eq!(fast.unknown_fields, slow.unknown_fields);
            prop_assert_eq!(fast.id_hashes, slow.id_hashes);
        }
        (fast, slow) => prop_assert_eq!(fast.map(|d| d.lines_read), slow.map(|d| d.lines_read)),
    }
    Ok(())
}

/// Pieces of which almost JSON is made.
fn piece() -> impl Strategy<Value = String> {
    prop_oneof![
        Just("{".to_owned()),
        Just("}".to_owned()),
        Just("[".to_owned()),
        Just("]".to_owned()),
        Just(",".to_owned()),
        Just(":".to_owned()),
        Just("\n".to_owned()),
        Just("\r\n".to_owned()),
        Just(" ".to_owned()),
        Just("\"".to_owned()),
        Just("\\".to_owned()),
        Just("\"\\ud800\"".to_owned()),
        Just("{\"at\":1}".to_owned()),
        Just("{\"at\":1,\"note\":".to_owned()),
        "-?[0-9]{1,20}(\\.[0-9]{1,4})?([eE][+-]?[0-9]{1,3})?",
        "(null|true|false)",
        "\"(id|flag|small|big|ratio|price|wide|day|note|at|other)\":",
        "\"[a-z\u{e9}\\\\\"]{0,20}\"",
    ]
}

/// A value that may or may not fit its column.
fn any_value() -> impl Strategy<Value = String> {
    prop_oneof![
        4 => "-?(0|[1-9][0-9]{0,20})(\\.[0-9]{1,4})?([eE][+-]?[0-9]{1,2})?",
        2 => "\"[a-z0-9 .\u{e9}-]{0,20}\"",
        1 => "\"[a-z]{0,9}\\\\(n|u00e9|ud800|x|\")[a-z]{0,9}\"",
        1 => "\"-?[0-9]{1,10}\\.[0-9]{2}\"",
        1 => "\"20[0-9]{2}-[01][0-9]-[0-3][0-9](T[0-2][0-9]:[0-5][0-9]:[0-5][0-9](\\.[0-9]{1,9})?(Z|\\+0[0-9]:30)?)?\"",
        1 => "(null|true|false|\\[\\]|\\{\"a\": \\[1\\]\\})",
    ]
}

fn almost_valid_object() -> impl Strategy<Value = String> {
    let name = "(id|flag|small|big|ratio|price|wide|day|note|at|other|\\\\u0061t)";
    let field = (name, any_value(), " ?", " ?").prop_map(|(n, v, a, b)| format!("\"{n}\"{a}:{b}{v}"));
    (prop::collection::vec(field, 0..6), ", ?", "(,\"at\":1)?", " {0,2}")
        .prop_map(|(fields, comma, at, end)| format!("{{{}{at}{end}}}", fields.join(&comma)))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn no_bytes_panic(body in prop::collection::vec(any::<u8>(), 0..300)) {
        same(&every_type(), &body)?;
    }

    #[test]
    fn garbage_decodes_equally_on_both_paths(pieces in prop::collection::vec(piece(), 0..40)) {
        same(&every_type(), pieces.concat().as_bytes())?;
    }

    #[test]
    fn objects_decode_equally_on_both_paths(
        objects in prop::collection::vec(almost_valid_object(), 1..6), array in any::<bool>(), reject in any::<bool>(),
        line_end in "(\n|\r\n| \n)",
    ) {
        let unknown_fields = if reject { UnknownFields::Reject } else { UnknownFields::Ignore };
        let body = if array { format!("[{}]", objects.join(",\n")) } else { objects.join(&line_end) };
        same(&Stream { unknown_fields, ..every_type() }, body.as_bytes())?;
    }

    #[test]
    fn a_broken_byte_decodes_equally_on_both_paths(
        objects in prop::collection::vec(almost_valid_object(), 1..4), at in any::<prop::sample::Index>(), byte in any::<u8>(),
    ) {
        let mut body = objects.join("\n").into_bytes();
        let at = at.index(body.len());
        body[at] = byte;
        same(&every_type(), &body)?;
    }

    #[test]
    fn neighbours_of_a_bad_line_survive(
        bad in "[^\\n]{1,60}", before in 0usize..4, after in 0usize..4, not_utf8 in any::<bool>(),
    ) {
        let good = |i: usize| format!("{{\"id\":\"{i}\",\"note\":\"a string longer than inline\",\"at\":{i}}}\n");
        let mut body: Vec<u8> = (0..before).flat_map(|i| good(i).into_bytes()).collect();
        // A leading brace that is never closed keeps the line from being blank, an array or valid.
        body.extend(b"{\"note\":\"began\",");
        body.extend(bad.bytes().filter(|b| *b != b'}'));
        if not_utf8 {
            body.push(0xff);
        }
        body.push(b'\n');
        body.extend((before..before + after).flat_map(|i| good(i).into_bytes()));
        let decoded = decode(&every_type(), &body, Options::default()).unwrap();
        prop_assert_eq!(decoded.rejections.len(), 1);
        prop_assert_eq!(decoded.rejections[0].line, before as u64 + 1);
        let ids: Vec<_> = rows(&decoded.rows).into_iter().map(|row| (row[0].clone(), row[8].clone())).collect();
        let want: Vec<_> = (0..before + after).map(|i| (i.to_string(), "a string longer than inline".to_owned())).collect();
        prop_assert_eq!(ids, want);
    }

    #[test]
    fn valid_rows_round_trip(
        events in prop::collection::vec((
            prop::option::of(any::<String>()), prop::option::of(any::<bool>()), prop::option::of(any::<i32>()),
            prop::option::of(any::<i64>()), prop::option::of(any::<f64>().prop_filter("finite", |v| v.is_finite())),
            prop::option::of(-9_999_999_999i64..=9_999_999_999), prop::option::of(-719_162i32..=2_932_896),
            any::<String>(), -62_135_596_800_000_000i64..=253_402_300_799_999_999,
        ), 0..8),
        shape in 0..3, absent in any::<bool>(),
    ) {
        let mut want = Vec::new();
        let mut objects = Vec::new();
        for (id, flag, small, big, ratio, cents, day, note, at) in &events {
            let decimal = cents.map(|c| format!("{}{}.{:02}", if c < 0 { "-" } else { "" }, c.abs() / 100, c.abs() % 100));
            let mut object = json!({
                "id": id, "flag": flag, "small": small, "big": big, "ratio": ratio, "price": decimal,
                "wide": null, "day": day.map(|d| Day(d).to_string()), "note": note, "at": Micros(*at).to_string(),
            });
            if absent {
                object.as_object_mut().unwrap().retain(|_, value| !value.is_null());
            }
            objects.push(object);
            let or_null = |text: Option<String>| text.unwrap_or_else(|| "NULL".into());
            want.push(vec![
                or_null(id.clone()), or_null(flag.map(|v| v.to_string())), or_null(small.map(|v| v.to_string())),
                or_null(big.map(|v| v.to_string())), or_null(ratio.map(|v| format!("{:?}", v + 0.0))),
                or_null(cents.map(|v| v.to_string())), "NULL".into(), or_null(day.map(|d| Day(d).to_string())),
                note.clone(), Micros(*at).to_string(),
            ]);
        }
        let lines: Vec<_> = objects.iter().map(Value::to_string).collect();
        let body = match shape {
            0 => lines.join("\n"),
            1 => Value::Array(objects).to_string(),
            _ => serde_json::to_string_pretty(&objects).unwrap(),
        };
        let decoded = read(&body);
        prop_assert_eq!(decoded.rejections, []);
        prop_assert_eq!(rows(&decoded.rows), want);
        prop_assert_eq!(decoded.rows.schema(), every_type().schema());
    }
}

#[test]
fn a_deeply_nested_value_is_skipped_without_recursion() {
    let depth = 100_000;
    let body = format!(
        "{{\"at\":1,\"x\":{}{}}}\n{{\"at\":2,\"x\":{}\n{{\"at\":3}}",
        "[".repeat(depth),
        "]".repeat(depth),
        "{\"a\":".repeat(depth)
    );
    let decoded = read(&body);
    assert_eq!((decoded.rows.num_rows(), decoded.rejected(), decoded.unknown_fields), (2, 1, 1));
}

#[test]
fn strings_do_not_hold_on_to_the_body() {
    let line = "{\"at\":1,\"note\":\"a string longer than inline\"}\n";
    let decoded = read(&line.repeat(1_000));
    let strings = decoded.rows.column(8).as_string_view();
    let held: usize = strings.data_buffers().iter().map(|buffer| buffer.len()).sum();
    assert_eq!(held, 1_000 * "a string longer than inline".len());
}

#[test]
fn rejected_events_keep_their_text() {
    let mut stream = every_type();
    stream.unknown_fields = UnknownFields::Reject;
    let body = b"{\"at\":1}\n{\"id\":\"x\"} \r\n  {\"at\":\"?\"}\t\n\xff{\"at\":2} \n\n{\"at\":3,\"other\":1}\nnull\n{\"at\":4}";
    let decoded = decode(&stream, body, Options::default()).unwrap();
    let malformed: Vec<_> = decoded.malformed.iter().map(|m| (m.line, m.text.as_str(), m.bytes, m.truncated)).collect();
    let want = [
        (2, "{\"id\":\"x\"}", 10, false),
        (3, "{\"at\":\"?\"}", 10, false),
        (4, "\u{fffd}{\"at\":2}", 9, false),
        (6, "{\"at\":3,\"other\":1}", 18, false),
        (7, "null", 4, false),
    ];
    assert_eq!(malformed, want);
    let reasons: Vec<_> = decoded.malformed.iter().map(|m| (m.line, m.reason.clone())).collect();
    let listed: Vec<_> = decoded.rejections.iter().map(|r| (r.line, r.reason.clone())).collect();
    assert_eq!((reasons, decoded.rows.num_rows()), (listed, 2));
    let elements = decode(&stream, b"[{\"at\":1}, {\"id\":\"x\"},7]", Options::default()).unwrap();
    let texts: Vec<_> = elements.malformed.iter().map(|m| (m.line, m.text.as_str())).collect();
    assert_eq!(texts, [(2, "{\"id\":\"x\"}"), (3, "7")]);
}

#[test]
fn kept_texts_of_rejected_events_are_bounded() {
    let options = Options { malformed_kept_max: 3, malformed_text_bytes_max: 6, ..Options::default() };
    let body = "1234567\n123456\näöüß\n1\n2\n3\n";
    let decoded = decode(&every_type(), body.as_bytes(), options).unwrap();
    let malformed: Vec<_> = decoded.malformed.iter().map(|m| (m.text.as_str(), m.bytes, m.truncated)).collect();
    assert_eq!(malformed, [("123456", 7, true), ("123456", 6, false), ("äöü", 8, true)]);
    assert_eq!((decoded.rejected(), decoded.rejections.len()), (6, 6));
    let odd = decode(&every_type(), "12345ä\n".as_bytes(), options).unwrap();
    assert_eq!((odd.malformed[0].text.as_str(), odd.malformed[0].truncated), ("12345", true));
    let not_text = decode(&every_type(), b"\xff\xff\xff\n", options).unwrap();
    assert_eq!((not_text.malformed[0].text.as_str(), not_text.malformed[0].truncated), ("\u{fffd}\u{fffd}", true));
}

/// A NULL id would never be recognised as a duplicate, so its event is rejected; whatever the type of the key, whether the
/// field is null or missing, and however the body is framed.
#[test]
fn an_event_without_its_primary_key_is_rejected() {
    let values = ["\"a\"", "true", "1", "2", "0.5", "\"1.50\"", "3", "\"2024-02-29\"", "\"n\"", "7"];
    for (key, value) in values.iter().enumerate() {
        let stream = Stream { primary_key: Some(key), ..every_type() };
        let name = &stream.columns[key].name;
        let role = if key == stream.event_time { "event time" } else { "primary key" };
        let reason = format!("{name}: the {role} may not be null");
        let event = |field: &str| match key == stream.event_time {
            true => format!("{{{field}}}"),
            false if field.is_empty() => "{\"at\":0}".to_owned(),
            false => format!("{{{field},\"at\":0}}"),
        };
        let good = event(&format!("\"{name}\":{value}"));
        for bad in [event(&format!("\"{name}\":null")), event("")] {
            for body in [format!("{good}\n{bad}\n{good}"), format!("[{good},{bad},{good}]")] {
                for usual in [true, false] {
                    let decoded = decode_with(&stream, body.as_bytes(), Options::default(), usual).unwrap();
                    assert_eq!((decoded.rows.num_rows(), decoded.rejected()), (2, 1), "{name} {body}");
                    assert_eq!(decoded.rejections, [Rejection { line: 2, reason: reason.clone() }]);
                    assert_eq!(decoded.malformed[0].text, bad);
                    assert!(decoded.id_hashes.is_some_and(|hashes| !hashes.contains(&crate::event_id::NULL_ID)));
                }
            }
            let alone = decode(&stream, bad.replace(',', ",\n").as_bytes(), Options::default()).unwrap();
            assert_eq!((alone.rows.num_rows(), alone.rejected()), (0, 1), "{name} {bad}");
        }
    }
}
