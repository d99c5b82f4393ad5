//! Compares the decoder of appends to many entities with the one of appends to one entity.

use intake::decode::{DecodedAppend, DecodedAppends, Options, decode_appends, decode_of_entity};
use serde::Deserialize;
use serde_json::value::RawValue;
use shared::stream::Stream;

use crate::fuzzer::{Target, fuzz, kind_of};

const STREAM: &str = "CREATE STREAM s (id STRING PRIMARY KEY, e STRING, at TIMESTAMP, n BIGINT)
    WITH (event_time = 'at', entity = 'e');";

/// The events of a line as it stands in the body.
#[derive(Deserialize)]
struct Line<'a> {
    #[serde(borrow)]
    events: Vec<&'a RawValue>,
}

fn stream() -> Stream {
    let files = [("test.sql".to_owned(), STREAM.to_owned())];
    shared::sql::parse_definitions(&files).unwrap_or_else(|errors| panic!("{}", errors[0])).streams.remove(0)
}

#[test]
fn many_appends_are_decoded_like_each_of_them() {
    let target = Target {
        name: "appends",
        seeds: [
            r#"{"id":"a","if_match":7,"events":[{"id":"1","at":0,"n":1},{"id":"2","at":0}]}"#,
            "{\"id\":\"a\",\"events\":[{\"id\":\"1\",\"at\":0}]}\n\r\n{\"id\":\"b\",\"if_none_match\":\"*\",\"idempotency_key\":\"k\",\"events\":[{\"at\":0},7]}\n",
            r#"{"events":[{"id":"1","at":0,"e":"\u0061","x":[1]}],"id":"\u0061","if_match":"*"}"#,
        ]
        .map(|seed| seed.as_bytes().to_vec())
        .to_vec(),
        tokens: &[
            "\"id\":", "\"events\":[", "\"if_match\":", "\"if_none_match\":", "\"idempotency_key\":", "{\"id\":\"3\",\"at\":0}",
            "\"e\":\"b\",", "\"*\"", "null", "-1", "1e3", "\\u0000", "\n", "},{", "]", "\u{feff}", "é",
        ],
        inputs: 20_000,
        ..Target::default()
    };
    let stream = stream();
    fuzz(&target, |body| match decode_appends(&stream, body, Options::default()) {
        Err(error) => kind_of(&error.to_string()),
        Ok(decoded) => {
            check(&stream, body, &decoded);
            let rejected = decoded.appends.iter().filter(|append| append.rejected > 0).count();
            format!("{} {} {}", decoded.appends.len().min(4), decoded.events.rows.num_rows().min(4), rejected.min(3))
        }
    });
}

fn check(stream: &Stream, body: &[u8], decoded: &DecodedAppends) {
    let body = body.strip_prefix("\u{feff}".as_bytes()).unwrap_or(body);
    let text = std::str::from_utf8(body).expect("accepted only as UTF-8");
    let lines: Vec<&str> =
        text.lines().map(|line| line.trim_matches([' ', '\t', '\r'])).filter(|line| !line.is_empty()).collect();
    assert_eq!(lines.len(), decoded.appends.len(), "one append per line");
    let mut row = 0;
    for (line, append) in lines.into_iter().zip(&decoded.appends) {
        assert_eq!(append.rows.start, row, "rows follow one another");
        row = append.rows.end;
        let Line { events } = serde_json::from_str(line).expect("accepted only as JSON");
        check_append(stream, &events, append, decoded);
    }
    assert_eq!(row, decoded.events.rows.num_rows(), "every row is of an append");
}

fn check_append(stream: &Stream, events: &[&RawValue], append: &DecodedAppend, decoded: &DecodedAppends) {
    let array = format!("[{}]", events.iter().map(|event| event.get()).collect::<Vec<_>>().join(","));
    let alone = decode_of_entity(stream, array.as_bytes(), Options::default(), &append.id).expect("an array");
    assert_eq!(alone.rejected(), append.rejected, "{array}");
    assert_eq!(alone.unknown_fields, append.unknown_fields, "{array}");
    let rows = decoded.events.rows.slice(append.rows.start, append.rows.len());
    assert_eq!(alone.rows, rows, "{array}");
    let hashes = |of: &Option<Vec<u128>>| of.clone().expect("hashes");
    assert_eq!(hashes(&alone.id_hashes), hashes(&decoded.events.id_hashes)[append.rows.clone()], "{array}");
    assert_eq!(hashes(&alone.entity_hashes), hashes(&decoded.events.entity_hashes)[append.rows.clone()], "{array}");
    for (listed, alone) in append.rejections.iter().zip(&alone.rejections) {
        assert_eq!(listed, alone, "{array}");
    }
}
