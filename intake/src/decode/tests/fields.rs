//! Tests where values lie in an event and how times are written.

use arrow::array::AsArray;
use proptest::prelude::*;
use serde_json::Value;
use shared::stream::{Column, FieldPath, Stream};
use shared::time::Micros;
use shared::types::DataType;

use super::{any_value, every_type, read, rows, same, shown};
use crate::decode::{Options, Rejection, before_1980, decode, decode_with};

/// A stream of `columns`, as SQL declares them, and the event time `at`.
fn declared(columns: &str, options: &str) -> Stream {
    let sql = format!("CREATE STREAM s (at TIMESTAMP, {columns}) WITH (event_time = 'at'{options})");
    let parsed = shared::sql::parse_definitions(&[("s".to_owned(), sql)]);
    parsed.unwrap_or_else(|errors| panic!("{errors:?}")).streams.remove(0)
}

/// The values of the event behind `at`, by both ways, or why it is rejected.
fn values(stream: &Stream, event: &str) -> Result<Vec<String>, String> {
    let [fast, slow] =
        [true, false].map(|fast| decode_with(stream, event.as_bytes(), Options::default(), fast).unwrap());
    assert_eq!((&fast.rows, &fast.rejections), (&slow.rows, &slow.rejections), "{event}");
    match fast.rejections.first() {
        Some(rejection) => Err(rejection.reason.clone()),
        None => Ok(rows(&fast.rows).remove(0).split_off(1)),
    }
}

#[test]
fn fields_are_matched_exactly() {
    let stream = declared("\"deviceId\" STRING, \"user-id\" STRING, \"_id\" STRING, \"@x\" STRING", "");
    let all = r#"{"at":1,"deviceId":"a","user-id":"b","_id":"c","@x":"d"}"#;
    assert_eq!(values(&stream, all), Ok(["a", "b", "c", "d"].map(str::to_owned).to_vec()));
    let other = r#"{"at":1,"deviceid":"a","USER-ID":"b","id":"c","x":"d"}"#;
    assert_eq!(values(&stream, other), Ok(["NULL"; 4].map(str::to_owned).to_vec()));
    assert!(values(&stream, r#"{"At":1}"#).is_err());
}

#[test]
fn pointers_read_nested_values_in_one_pass() {
    let stream = declared(
        "user STRING FROM '/user/id', deep BIGINT FROM '/a/b/c', first STRING FROM '/items/0/name', \
         third INT FROM '/items/2', odd STRING FROM '/x~1y/~0', other STRING FROM '/renamed', note STRING, \
         digit STRING FROM '/map/0'",
        "",
    );
    let null = || "NULL".to_owned();
    for (event, expected) in [
        (
            r#"{"user":{"more":[1,{}],"id":"u"},"a":{"b":{"c":"7"}},"items":[{"name":"n"},5,6],"x/y":{"~":"o"},"renamed":"r","note":"t","map":{"0":"z"},"at":1}"#,
            ["u", "7", "n", "6", "o", "r", "t", "z"].map(str::to_owned).to_vec(),
        ),
        (r#"{"at":1}"#, vec![null(); 8]),
        (r#"{"at":1,"user":null,"a":5,"items":"x","x/y":[],"map":true}"#, vec![null(); 8]),
        (r#"{"at":1,"user":{},"a":{"b":[1]},"items":{"1":1},"map":{"1":"z"}}"#, vec![null(); 8]),
        (r#"{"at":1,"a":{"b":-1.5e3},"items":[],"user":[],"other":"not this"}"#, vec![null(); 8]),
        (
            r#"{"items":{"0":{"name":"n"},"2":1},"map":["z"],"at":1}"#,
            [&null(), &null(), "n", "1", &null(), &null(), &null(), "z"].map(str::to_owned).to_vec(),
        ),
    ] {
        assert_eq!(values(&stream, event), Ok(expected), "{event}");
    }
    for (event, reason) in [
        (r#"{"at":1,"user":{"id":5}}"#, "user: expected STRING, found number 5"),
        (r#"{"at":1,"user":{"id":{"x":1}}}"#, "user: expected STRING, found object"),
        (r#"{"at":1,"user":{"id":"a","id":"b"}}"#, "user: the field appears twice"),
        (r#"{"at":1,"user":{"x":1},"user":{}}"#, "the object \"user\" appears twice"),
        (r#"{"at":1,"user":{"id":"a"}"#, "invalid JSON at column 25: EOF while parsing an object"),
        (r#"{"at":1,"user":{"id":"a",}}"#, "invalid JSON at column 26: trailing comma"),
    ] {
        assert_eq!(values(&stream, event), Err(reason.to_owned()), "{event}");
    }
    let twice = format!("{}\n{}", r#"{"at":1,"user":{"id":"a"}}"#, r#"{"at":1,"user":{"id":"b"}}"#);
    assert_eq!(decode(&stream, twice.as_bytes(), Options::default()).unwrap().rows.num_rows(), 2);
}

#[test]
fn only_fields_of_the_event_itself_are_unknown() {
    let stream = declared("id STRING FROM '/user/id'", ", unknown_fields = 'reject'");
    assert_eq!(values(&stream, r#"{"at":1,"user":{"id":"a","more":1}}"#), Ok(vec!["a".to_owned()]));
    let reason = "the stream has no field \"id\"".to_owned();
    assert_eq!(values(&stream, r#"{"at":1,"id":"a"}"#), Err(reason));
}

#[test]
fn formats_read_times() {
    for (format, value, expected) in [
        ("unix_s", "1764324900", "2025-11-28T10:15:00Z"),
        ("unix_s", "1764324900.25", "2025-11-28T10:15:00.250Z"),
        ("unix_s", "\"1764324900\"", "2025-11-28T10:15:00Z"),
        ("unix_s", "1.7643249e9", "2025-11-28T10:15:00Z"),
        ("unix_ms", "1764324900001", "2025-11-28T10:15:00.001Z"),
        ("unix_us", "1764324900000001", "2025-11-28T10:15:00.000001Z"),
        ("unix_ns", "1764324900000001999", "2025-11-28T10:15:00.000001Z"),
        ("unix_ns", "-1", "1969-12-31T23:59:59.999999Z"),
        ("unix_ns", "\"1764324900000001999\"", "2025-11-28T10:15:00.000001Z"),
        ("rfc3339", "\"2025-11-28T10:15:00+02:00\"", "2025-11-28T08:15:00Z"),
        ("%d.%m.%Y %H:%M", "\"28.11.2025 10:15\"", "2025-11-28T10:15:00Z"),
        ("%Y%m%d", "20251128", "2025-11-28T00:00:00Z"),
        ("%Y%m%d", "\"20251128\"", "2025-11-28T00:00:00Z"),
        ("unix_s", "null", "NULL"),
    ] {
        let stream = declared(&format!("ts TIMESTAMP FORMAT '{format}'"), "");
        let event = format!("{{\"at\":1,\"ts\":{value}}}");
        assert_eq!(values(&stream, &event), Ok(vec![expected.to_owned()]), "{format} {value}");
    }
    for (format, value, reason) in [
        (
            "unix_s",
            "\"2025-11-28T10:15:00Z\"",
            "ts: expected TIMESTAMP as 'unix_s', found string \"2025-11-28T10:15:00Z\"",
        ),
        ("unix_s", "1764324900001", "ts: TIMESTAMP is out of range, found number 1764324900001"),
        ("unix_s", "true", "ts: expected TIMESTAMP as 'unix_s', found boolean true"),
        ("rfc3339", "1764324900001", "ts: expected TIMESTAMP as 'rfc3339', found number 1764324900001"),
        ("%d.%m.%Y", "\"31.02.2025\"", "ts: expected TIMESTAMP as '%d.%m.%Y', found string \"31.02.2025\""),
        ("%Y%m%d", "1.5", "ts: expected TIMESTAMP as '%Y%m%d', found number 1.5"),
    ] {
        let stream = declared(&format!("ts TIMESTAMP FORMAT '{format}'"), "");
        let event = format!("{{\"at\":1,\"ts\":{value}}}");
        assert_eq!(values(&stream, &event), Err(reason.to_owned()), "{format} {value}");
    }
}

#[test]
fn events_that_are_too_old_are_rejected() {
    let stream = declared("n INT", ", max_age = '1 hour'");
    let at = |text: &str| Micros::parse(text).unwrap();
    let body = "{\"at\":\"2026-11-28T09:00:00Z\"}\n{\"at\":\"2026-11-28T08:59:59.999999Z\"}\n{\"at\":\"2030-01-01T00:00:00Z\"}";
    let options = Options { arrived_at: Some(at("2026-11-28T10:00:00Z")), ..Options::default() };
    let decoded = decode(&stream, body.as_bytes(), options).unwrap();
    let reason = "at: 2026-11-28T08:59:59.999999Z is more than 1 hour before its arrival (max_age)".to_owned();
    assert_eq!(decoded.rejections, [Rejection { line: 2, reason }]);
    assert_eq!(decoded.rows.num_rows(), 2);
    // Historical events are of any age.
    assert_eq!(decode(&stream, body.as_bytes(), Options::default()).unwrap().rows.num_rows(), 3);
    let none = declared("n INT", "");
    assert_eq!(decode(&none, body.as_bytes(), options).unwrap().rows.num_rows(), 3);
}

#[test]
fn events_before_1980_are_counted() {
    let body = "{\"at\":1764324900}\n{\"at\":\"1980-01-01T00:00:00Z\"}\n{\"at\":\"1979-12-31T23:59:59.999999Z\"}";
    assert_eq!(before_1980(read(body).rows.column_by_name("at").unwrap().as_primitive()), 2);
}

/// A stream whose columns lie in the fields of [`every_type`], some of them deeper.
fn nested() -> Stream {
    let mut stream = every_type();
    let pointer = |text: &str| Some(FieldPath::parse(text).unwrap());
    for (column, path) in [(1, "/note/flag"), (3, "/note/0"), (4, "/other/big"), (8, "/other/0/a")] {
        stream.columns[column].field = pointer(path);
    }
    stream
}

/// Values with the members that [`nested`] looks for.
fn nested_value() -> impl Strategy<Value = String> {
    let value = any_value().boxed();
    let member = ("(flag|0|big|a|x)", value.clone()).prop_map(|(name, value)| format!("\"{name}\":{value}"));
    let object = prop::collection::vec(member, 0..4).prop_map(|members| format!("{{{}}}", members.join(",")));
    let object = object.boxed();
    let array = prop::collection::vec(prop_oneof![value.clone(), object.clone()], 0..3);
    prop_oneof![value, object, array.prop_map(|elements| format!("[{}]", elements.join(", ")))]
}

/// The value at a pointer, as a tree of the whole event has it.
fn looked_up(event: &Value, column: &Column) -> Option<Value> {
    let at = |value: &Value, level: &String| match value {
        Value::Array(elements) => elements.get(level.parse::<usize>().ok()?).cloned(),
        other => other.get(level).cloned(),
    };
    column.field().levels().iter().try_fold(event.clone(), |value, level| at(&value, level))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn nested_objects_decode_equally_on_both_paths(
        fields in prop::collection::vec(("(id|note|other|big|at)", nested_value()), 0..5), line_end in "(\n|\r\n)",
    ) {
        let fields: Vec<String> = fields.into_iter().map(|(name, value)| format!("\"{name}\":{value}")).collect();
        let event = format!("{{{}}}", fields.join(","));
        same(&nested(), [event.as_str(), &event].join(&line_end).as_bytes())?;
        same(&nested(), format!("[{event}]").as_bytes())?;
    }

    /// Strings at pointers are those that a tree of the event has there.
    #[test]
    fn pointers_find_the_values_that_serde_json_finds(note in nested_value(), other in nested_value()) {
        let mut stream = nested();
        stream.columns.iter_mut().for_each(|column| column.data_type = DataType::String);
        stream.columns[9].data_type = DataType::Timestamp;
        let body = format!("{{\"note\":{note},\"other\":{other},\"at\":1}}");
        let Ok(event) = serde_json::from_str::<Value>(&body) else { return Ok(()) };
        let decoded = decode(&stream, body.as_bytes(), Options::default()).unwrap();
        if decoded.rows.num_rows() == 1 {
            for (index, column) in stream.columns.iter().enumerate().filter(|(index, _)| *index < 9) {
                let want = looked_up(&event, column).filter(|value| !value.is_null());
                let want = want.map_or("NULL".to_owned(), |value| value.as_str().unwrap_or("not a string").to_owned());
                prop_assert_eq!(shown(decoded.rows.column(index), 0), want, "{}", body);
            }
        }
    }
}
