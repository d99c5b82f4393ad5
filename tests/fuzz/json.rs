//! Compares the decoder of events with `serde_json`.

use std::fmt;

use arrow::array::{Array, AsArray};
use arrow::datatypes::{Float64Type, Int64Type};
use intake::decode::{Decoded, Options, decode};
use serde::de::{IgnoredAny, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::Value;
use shared::stream::Stream;

use crate::fuzzer::{Target, fuzz, kind_of};

const STREAM: &str = "CREATE STREAM s (at TIMESTAMP, n BIGINT, x DOUBLE, t STRING, f BOOLEAN, d STRING FROM '/a/b/0')
    WITH (event_time = 'at');";

/// The columns whose values are compared; the event time is in the others.
const COMPARED: [&str; 4] = ["n", "x", "t", "f"];

fn stream() -> Stream {
    let files = [("test.sql".to_owned(), STREAM.to_owned())];
    shared::sql::parse_definitions(&files).unwrap_or_else(|errors| panic!("{}", errors[0])).streams.remove(0)
}

#[test]
fn decoder_agrees_with_serde_json() {
    let target = Target {
        name: "json",
        seeds: [
            r#"{"at":1764324900000,"n":-9223372036854775808,"x":1.5e-7,"t":"a\u00e9\n\ud83d\ude00","f":true,"a":{"b":["q"]}}"#,
            "{\"at\":\"2001-01-01T00:00:00Z\",\"n\":null,\"x\":0.1}\n{\"at\":1,\"t\":\"\"}\r\n\n[1]\nnonsense\n",
            r#"[{"at":1,"f":false},{"at":2,"x":-0.0,"unknown":{"deep":[[[{}]]]}},7]"#,
            "{\n  \"at\": 0,\n  \"n\": \"12\",\n  \"x\": 9007199254740993\n}",
            "\u{feff}{\"at\":0,\"t\":\"größer\"}",
        ]
        .map(|seed| seed.as_bytes().to_vec())
        .to_vec(),
        tokens: &[
            "\"at\":0,", "\"n\":", "\"x\":", "\"t\":", "\"f\":", "\"a\":{\"b\":[", "null", "true", "false", "1e308", "1e309",
            "-0", "0.1", "1E5", "\\u0000", "\\ud800", "\\\"", "\\x", "{\"at\":0}", "\n", "},{", "[", "]", "\u{feff}", "é",
        ],
        inputs: 20_000,
        ..Target::default()
    };
    let stream = stream();
    fuzz(&target, |body| {
        let decoded = decode(&stream, body, Options::default());
        if let Ok(decoded) = &decoded {
            check_counts(decoded, body);
        }
        // One event on one line.
        let line: Vec<u8> = body.iter().map(|byte| if matches!(byte, b'\n' | b'\r') { b' ' } else { *byte }).collect();
        let single = decode(&stream, &line, Options::default());
        check_line(&stream, &line, single);
        match decoded {
            Ok(decoded) => {
                let reasons: Vec<String> = decoded.rejections.iter().map(|one| kind_of(&one.reason)).take(3).collect();
                format!("{} {} {reasons:?}", decoded.rows.num_rows().min(4), decoded.unknown_fields.min(3))
            }
            Err(error) => kind_of(&error.to_string()),
        }
    });
}

fn check_counts(decoded: &Decoded, body: &[u8]) {
    let rejected = decoded.rejected();
    assert_eq!(decoded.rejections.len() as u64, rejected.min(100), "rejections are listed");
    assert_eq!(decoded.malformed.len(), decoded.rejections.len().max(decoded.malformed.len()));
    assert!(decoded.lines_read <= body.len() as u64, "{} events in {} bytes", decoded.lines_read, body.len());
    let at = decoded.rows.column_by_name("at").expect("the event time");
    assert_eq!(at.null_count(), 0, "an event without its time was accepted");
}

/// The names of an object's members, as often as they occur.
struct Names(Vec<String>);

impl<'de> Deserialize<'de> for Names {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Collector;
        impl<'de> Visitor<'de> for Collector {
            type Value = Names;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Names, A::Error> {
                let mut names = Vec::new();
                while let Some((name, IgnoredAny)) = members.next_entry::<String, IgnoredAny>()? {
                    names.push(name);
                }
                Ok(Names(names))
            }
        }
        deserializer.deserialize_map(Collector)
    }
}

/// Compares the event of `line` with its reading by `serde_json`.
fn check_line(stream: &Stream, line: &[u8], decoded: Result<Decoded, intake::decode::DecodeError>) {
    let line = line.strip_prefix("\u{feff}".as_bytes()).unwrap_or(line);
    let text = String::from_utf8_lossy(line);
    if text.trim_start_matches(' ').starts_with('[') {
        return;
    }
    let decoded = decoded.expect("only arrays are refused as a whole");
    let parsed: Option<Value> = serde_json::from_slice(line).ok();
    let Some(Value::Object(members)) = parsed else {
        // Numbers that `serde_json` cannot represent are valid JSON all the same.
        let is_valid = serde_json::from_slice::<&serde_json::value::RawValue>(line).is_ok();
        assert!(is_valid || decoded.rows.num_rows() == 0, "accepted what is not JSON");
        return;
    };
    if decoded.rows.num_rows() == 0 {
        assert!(decoded.lines_read == 1, "an object was not seen");
        let is_plain = |name: &str, value: &Value| match name {
            "n" => value.is_null() || value.is_i64(),
            "x" => value.is_null() || value.is_number(),
            "t" => value.is_null() || value.is_string(),
            "f" => value.is_null() || value.is_boolean(),
            "at" => value.as_i64().is_some_and(|ms| (0..=4_000_000_000_000).contains(&ms)),
            "a" => false,
            _ => true,
        };
        // A name that occurs twice is a reason to reject.
        let Names(mut names) = serde_json::from_slice(line).expect("an object");
        names.sort();
        let is_unique = names.windows(2).all(|pair| pair[0] != pair[1]);
        let is_plain = members.iter().all(|(name, value)| is_plain(name, value)) && members.contains_key("at");
        assert!(!(is_plain && is_unique), "rejected a plain event: {}", decoded.rejections[0].reason);
        return;
    }
    assert_eq!(decoded.rows.num_rows(), 1, "one object is one event");
    for name in COMPARED {
        let column = decoded.rows.column_by_name(name).expect("a column");
        let value = members.get(name).unwrap_or(&Value::Null);
        if column.is_null(0) {
            assert!(value.is_null(), "{name}: {value} became NULL");
            continue;
        }
        let same = match name {
            "n" => {
                let found = column.as_primitive::<Int64Type>().value(0);
                match value {
                    Value::String(text) => text.parse() == Ok(found),
                    value => value.as_i64() == Some(found) || value.as_f64() == Some(found as f64),
                }
            }
            "x" => {
                let found = column.as_primitive::<Float64Type>().value(0);
                match value {
                    Value::String(text) => text.parse() == Ok(found),
                    // `serde_json` may be a few units in the last place off.
                    value => value.as_f64().is_some_and(|x| (x - found).abs() <= 4.0 * f64::EPSILON * x.abs()),
                }
            }
            "t" => value.as_str() == Some(column.as_string_view().value(0)),
            _ => value.as_bool() == Some(column.as_boolean().value(0)),
        };
        assert!(same, "{name}: {value} became {column:?}");
    }
    assert_eq!(stream.declared, decoded.rows.num_columns());
}
