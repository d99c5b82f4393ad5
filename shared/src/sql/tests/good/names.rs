//! Spelling and matching of names; fields and formats of columns.

use std::time::Duration;

use crate::sql::{
    parse_definitions, parse_folded_view, parse_predicate, parse_query_filter, parse_view, print, print_name,
};
use crate::stream::{Stream, TimeFormat, UnixUnit};
use crate::types::DataType;
use crate::view::View;

const SENSORS: &str = "CREATE STREAM Sensors (
    eventId STRING PRIMARY KEY, \"@timestamp\" TIMESTAMP FORMAT 'unix_s', \"_id\" BIGINT, \"user-id\" STRING, \"select\" INT,
    \"a\"\"b\" INT FROM '/x/y~1z', Größe DOUBLE
) WITH (event_time = '@TIMESTAMP', max_age = '7 days')";

fn stream() -> Stream {
    let parsed = parse_definitions(&[("s.sql".to_owned(), SENSORS.to_owned())]);
    parsed.unwrap_or_else(|errors| panic!("{errors:?}")).streams.remove(0)
}

fn view(sql: &str) -> View {
    parse_view(&stream(), &[], sql).unwrap_or_else(|error| panic!("{error}"))
}

fn names(view: &View) -> Vec<&str> {
    let dimensions = view.dimensions.iter().map(|dimension| dimension.name.as_str());
    dimensions.chain(view.measures.iter().map(|measure| measure.name.as_str())).collect()
}

#[test]
fn a_stream_keeps_the_spelling_of_its_columns() {
    let stream = stream();
    let names: Vec<&str> = stream.columns.iter().map(|column| column.name.as_str()).collect();
    assert_eq!(names, ["eventId", "@timestamp", "_id", "user-id", "select", "a\"b", "Größe"]);
    assert_eq!((stream.name.as_str(), stream.event_time, stream.primary_key), ("sensors", 1, Some(0)));
    assert_eq!(stream.max_age, Some(Duration::from_secs(7 * 86_400)));
    assert_eq!(stream.columns[1].format, Some(TimeFormat::Unix(UnixUnit::Seconds)));
    assert_eq!(stream.columns[5].field().levels(), ["x", "y/z"]);
    assert_eq!((stream.column("EVENTID"), stream.column("GRÖßE"), stream.column("event_id")), (Some(0), Some(6), None));
}

#[test]
fn columns_read_as_they_were_declared() {
    let stream = stream();
    let declared: Vec<String> =
        stream.columns.iter().map(|column| format!("{} {column}", print_name(&column.name))).collect();
    let sql = format!("CREATE STREAM sensors ({}) WITH (event_time = '@timestamp')", declared.join(", "));
    let again = parse_definitions(&[("s.sql".to_owned(), sql)]).unwrap_or_else(|errors| panic!("{errors:?}"));
    assert_eq!(again.streams[0].columns, stream.columns);
}

#[test]
fn a_view_matches_without_case_and_keeps_its_own_spelling() {
    let text = "CREATE VIEW v AS SELECT Window_Start, EventID, \"User-ID\" AS \"who?\", COUNT(*) AS Events, MAX(\"SELECT\") AS \"Max\"
        FROM SENSORS WHERE \"_ID\" > 0 GROUP BY TUMBLE(\"@Timestamp\", INTERVAL '1' HOUR), eventid, \"user-id\", GRÖßE
        HAVING EVENTS > 1";
    assert_eq!(names(&view(text)), ["EventID", "who?", "GRÖßE", "Events", "Max"]);
}

#[test]
fn spelling_of_other_columns_does_not_change_a_definition() {
    let hash =
        |column: &str| view(&format!("CREATE VIEW v AS SELECT SUM({column}) AS n FROM sensors")).definition_hash();
    assert_eq!(hash("\"_id\""), hash("_ID"));
    let named =
        |name: &str| view(&format!("CREATE VIEW v AS SELECT COUNT(*) AS {name} FROM sensors")).definition_hash();
    assert_ne!(named("n"), named("N"));
}

#[test]
fn texts_of_earlier_programs_fold_unquoted_names() {
    let text = "CREATE VIEW v AS SELECT EventId, \"User-Id\", COUNT(*) AS Events FROM sensors GROUP BY 1, 2";
    let folded = parse_folded_view(&stream(), &[], text).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(names(&folded), ["eventid", "User-Id", "events"]);
}

#[test]
fn names_are_quoted_where_they_need_it() {
    for (name, printed) in [
        ("deviceId", "deviceId"),
        ("_id", "_id"),
        ("at", "at"),
        ("order", "\"order\""),
        ("select", "\"select\""),
        ("null", "\"null\""),
        ("true", "\"true\""),
        ("primary", "\"primary\""),
        ("@timestamp", "\"@timestamp\""),
        ("1st", "\"1st\""),
        ("a\"b", "\"a\"\"b\""),
        ("", "\"\""),
    ] {
        assert_eq!(print_name(name), printed);
    }
}

#[test]
fn every_keyword_reads_back_as_a_name() {
    for keyword in sqlparser::keywords::ALL_KEYWORDS {
        let column = [(keyword.to_lowercase(), DataType::BigInt)];
        let text = format!("{} > 1", print_name(&column[0].0));
        let scalar = parse_predicate(&text, &column).unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(print(&scalar, &|index| print_name(&column[index].0)), text);
        let sql = format!(
            "CREATE STREAM s (at TIMESTAMP, {} INT) WITH (event_time = 'at')",
            if *keyword == "AT" { "\"x\"".to_owned() } else { print_name(&column[0].0) }
        );
        parse_definitions(&[("s.sql".to_owned(), sql)]).unwrap_or_else(|errors| panic!("{keyword}: {errors:?}"));
    }
}

#[test]
fn the_where_of_a_query_matches_without_case() {
    let dimensions = [("deviceId".to_owned(), DataType::String), ("user-id".to_owned(), DataType::String)];
    let measures = [("Events".to_owned(), DataType::BigInt)];
    for text in
        ["DEVICEID = 'x' AND events > 1", "\"deviceid\" = 'x' AND \"EVENTS\" > 1", "\"User-Id\" = 'x' AND eventS > 1"]
    {
        let filter = parse_query_filter(text, &dimensions, &measures).unwrap_or_else(|error| panic!("{error}"));
        assert!(filter.groups.is_some() && filter.rows.is_some(), "{text}");
    }
    assert!(parse_query_filter("device_id = 'x'", &dimensions, &measures).is_err());
}
