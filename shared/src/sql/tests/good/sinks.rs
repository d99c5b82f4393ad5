//! Checks valid sinks.

use std::time::Duration;

use super::parse;
use crate::alert::KeyColumn;
use crate::event_sink::EventSink;
use crate::lookup::join::ReadsJoins;
use crate::sink::{Emit, Sink, every_text};

const VIEWS: &str = "CREATE VIEW delays AS SELECT window_start, origin, COUNT(*) AS n FROM flights
        GROUP BY TUMBLE(scheduled_at, INTERVAL '1' HOUR), origin;
    CREATE VIEW daily AS SELECT COUNT(*) AS n FROM flights
        GROUP BY CUMULATE(scheduled_at, INTERVAL '1' HOUR, INTERVAL '1' DAY);
    CREATE VIEW visits AS SELECT origin, COUNT(*) AS n FROM flights
        GROUP BY SESSION(scheduled_at, INTERVAL '1' HOUR), origin;
    CREATE VIEW total AS SELECT COUNT(*) AS n FROM flights;";

fn declared(statement: &str) -> Sink {
    let definitions =
        parse(&format!("{VIEWS}\n{statement}")).unwrap_or_else(|errors| panic!("{statement}: {}", errors[0]));
    definitions.sinks[0].clone()
}

#[test]
fn options_have_defaults_and_the_key_is_that_of_the_row() {
    let sink = declared("CREATE SINK out FROM VIEW delays WITH (connection = 'main', topic = 'delays.v1')");
    let topic = sink.target.topic().expect("a topic");
    assert_eq!((sink.view.as_str(), topic.topic.as_str()), ("delays", "delays.v1"));
    assert_eq!((sink.every, topic.transactional_id.as_str()), (Duration::from_secs(1), "trueup-out-delays.v1"));
    assert_eq!(sink.key, [KeyColumn::WindowStart, KeyColumn::Dimension(0)]);
    let sink = declared(
        "CREATE SINK out FROM delays WITH (connection = 'main', topic = 't', format = 'json', emit = 'changes',
         every = '50 milliseconds', key = 'Origin, window_start', transactional_id = 'id')",
    );
    assert_eq!((sink.every, sink.target.writer_id(&sink.name)), (Duration::from_millis(50), "id"));
    assert_eq!(sink.key, [KeyColumn::WindowStart, KeyColumn::Dimension(0)]);
    let of_final = declared("CREATE SINK out FROM delays WITH (connection = 'main', topic = 't', emit = 'final')");
    assert_eq!((sink.emit, of_final.emit), (Emit::Changes, Emit::Final));
    let key =
        |view: &str| declared(&format!("CREATE SINK out FROM {view} WITH (connection = 'main', topic = 't')")).key;
    // Windows of CUMULATE share their start.
    assert_eq!(key("daily"), [KeyColumn::WindowStart, KeyColumn::WindowEnd]);
    assert_eq!(key("total"), []);
    // The end of a session moves with every event, its start seldom.
    assert_eq!(key("visits"), [KeyColumn::WindowStart, KeyColumn::Dimension(0)]);
    let sessions = declared("CREATE SINK out FROM visits WITH (connection = 'main', topic = 't', emit = 'final')");
    assert_eq!(sessions.emit, Emit::Final);
    let hook = declared("CREATE SINK out FROM delays WITH (to = 'webhook:ops', every = '2 seconds', emit = 'final')");
    assert_eq!(
        (hook.target.to_string(), hook.target.writer_id(&hook.name), hook.emit),
        ("webhook:ops".to_owned(), "out", Emit::Final)
    );
    assert_eq!(
        (every_text(sink.every), every_text(of_final.every)),
        ("50 milliseconds".to_owned(), "1 second".to_owned())
    );
}

#[test]
fn sinks_of_joined_events_have_columns_of_tables() {
    let tables = "CREATE TABLE places (id STRING PRIMARY KEY, country STRING, at TIMESTAMP) WITH (event_time = 'at');
        CREATE TABLE countries (id STRING PRIMARY KEY, name STRING, at TIMESTAMP) WITH (event_time = 'at');";
    let definitions = parse(&format!(
        "{tables} CREATE SINK s AS SELECT flight_id, p.country, UPPER(c.name) AS name FROM flights AS f
         JOIN places AS p ON f.origin = p.id LEFT JOIN countries AS c ON p.country = c.id WHERE f.seats > 10
         WITH (to = 'webhook:ops')"
    ));
    let definitions = definitions.unwrap_or_else(|errors| panic!("{}", errors[0]));
    let sink = &definitions.event_sinks[0];
    // Whether there is a place, what is written, and what is looked up by.
    assert_eq!(sink.joined_columns().into_iter().collect::<Vec<_>>(), [(0, 0), (0, 1), (1, 1)]);
    let described = sink.describe(&definitions.streams[0]);
    for line in [
        "join             INNER JOIN places AS p ON origin = p.id; as of the event time",
        "join             LEFT JOIN countries AS c ON p.country = c.id; as of the event time",
        "column           p.country AS country (STRING)",
        "column           UPPER(c.name) AS name (STRING)",
        "filter           NOT p.id IS NULL AND",
    ] {
        assert!(described.contains(line), "{described}");
    }
}

fn of_stream(statement: &str) -> EventSink {
    let definitions = parse(statement).unwrap_or_else(|errors| panic!("{statement}: {}", errors[0]));
    definitions.event_sinks[0].clone()
}

#[test]
fn sinks_of_streams_have_columns_a_condition_and_a_key() {
    let streams = parse("").expect("valid").streams;
    let sink = of_stream(
        "CREATE SINK late AS SELECT f.Flight_ID, UPPER(origin) AS place, delay_min / 60.0 AS hours FROM flights AS f
         WHERE delay_min > 15 AND NOT cancelled WITH (connection = 'main', topic = 'late')",
    );
    assert_eq!((sink.stream.as_str(), sink.target.to_string().as_str()), ("flights", "late"));
    let names: Vec<&str> = sink.columns.iter().map(|column| column.name.as_str()).collect();
    assert_eq!(names, ["Flight_ID", "place", "hours"]);
    // The primary key of the stream, if it is selected.
    assert_eq!(sink.key_names().collect::<Vec<_>>(), ["Flight_ID"]);
    let described = sink.describe(&streams[0]);
    for line in [
        "sink late from stream flights",
        "topic            late of connection main, json",
        "emit             each event exactly once, in the order of the log, every 1 second",
        "column           flight_id AS Flight_ID (STRING)",
        "column           UPPER(origin) AS place (STRING)",
        "key              Flight_ID",
    ] {
        assert!(described.contains(line), "{described}");
    }
    let with =
        |options: &str| of_stream(&format!("CREATE SINK s AS SELECT origin, seats FROM flights WITH ({options})"));
    assert_eq!(with("to = 'webhook:ops'").key, [0; 0]);
    assert_eq!(with("to = 'webhook:ops', key = 'SEATS, origin'").key, [1, 0]);
    let all =
        of_stream("CREATE SINK s AS SELECT * FROM flights WITH (to = 'webhook:ops', every = '2 seconds', key = '')");
    assert_eq!((all.columns.len(), all.key.len(), every_text(all.every).as_str()), (10, 0, "2 seconds"));
    let described = all.describe(&streams[0]);
    assert!(described.contains("filter           all events") && described.contains("at least once"), "{described}");
    // Another condition or another column continues; another key, stream or topic does not.
    let hash = |select: &str, options: &str| {
        of_stream(&format!("CREATE SINK s AS SELECT {select} WITH (connection = 'c', {options})")).key_hash()
    };
    let plain = hash("origin, seats FROM flights", "topic = 't', key = 'origin'");
    assert_eq!(hash("seats, origin FROM flights WHERE cancelled", "topic = 't', key = 'origin'"), plain);
    for (select, options) in [
        ("origin, seats FROM flights", "topic = 't'"),
        ("origin, seats FROM flights", "topic = 'u', key = 'origin'"),
        ("origin, seats FROM flights", "topic = 't', key = 'seats'"),
        ("seats AS origin FROM flights", "topic = 't', key = 'origin'"),
        ("origin FROM flights", "topic = 't', key = 'origin', format = 'avro'"),
    ] {
        assert_ne!(hash(select, options), plain, "{select} {options}");
    }
}
