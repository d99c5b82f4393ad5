//! Checks valid texts and their meaning.

mod alerts;
mod joins;
mod names;
mod sinks;
mod tables;
mod windows_and_measures;

use std::time::Duration;

use super::{parse, parse_definitions};
use crate::scalar::Scalar;
use crate::sql::{parse_predicate, print};
use crate::stream::{Column, OutboxColumns, OutboxMode, OutboxSlot, RecordFormat, Stream, TopicStart, UnknownFields};
use crate::time::{MICROS_PER_SECOND, Micros};
use crate::types::DataType;
use crate::view::{AggregateFunction, OutputColumn, View, ViewLayers};
use crate::window::{Grid, Window};

const HOUR: i64 = 3600 * MICROS_PER_SECOND;

fn view(text: &str) -> View {
    match parse(text) {
        Ok(mut definitions) => definitions.views.pop().expect("one view"),
        Err(errors) => panic!("{text}\n{errors:?}"),
    }
}

fn shown(view: &View, scalar: &Scalar) -> String {
    let columns = parse("").expect("valid").streams.pop().expect("one stream").columns;
    assert_eq!(view.stream.as_str(), "flights");
    print(scalar, &|index| columns[index].name.clone())
}

#[test]
fn a_stream_has_its_options_or_their_defaults() {
    let text = "create stream Taps (
        Id bigint primary key, at timestamp not null, n decimal(12), ok bool, x double precision
    ) with (event_time = 'at', watermark_delay = '10 minutes', allowed_lateness = '1 day 2 hours', source = 'http',
            max_ahead = '5 seconds', idle_timeout = '500 milliseconds', unknown_fields = 'reject', partitions = 8);";
    let definitions = parse_definitions(&[("a".to_owned(), text.to_owned())]).expect("valid");
    let stream = &definitions.streams[0];
    assert_eq!((stream.name.as_str(), stream.primary_key, stream.event_time), ("taps", Some(0), 1));
    assert_eq!(stream.columns[2].data_type, DataType::Decimal { precision: 12, scale: 0 });
    assert_eq!(stream.watermark_delay, Duration::from_secs(600));
    assert_eq!(stream.allowed_lateness, Duration::from_secs(26 * 3600));
    assert_eq!(stream.max_ahead, Duration::from_secs(5));
    assert_eq!(stream.idle_timeout, Duration::from_millis(500));
    assert_eq!((stream.unknown_fields, stream.partitions), (UnknownFields::Reject, 8));
    assert!(stream.sql.starts_with("create stream") && stream.sql.ends_with("partitions = 8)"));

    let flights = &parse("").expect("valid").streams[0];
    assert_eq!((flights.watermark_delay, flights.allowed_lateness), (Duration::ZERO, Duration::ZERO));
    assert_eq!((flights.max_ahead, flights.idle_timeout), (Duration::from_secs(3600), Duration::from_secs(60)));
    assert_eq!((flights.unknown_fields, flights.partitions), (UnknownFields::Ignore, 1));
    assert_eq!(flights.sql.lines().count(), 4);
}

#[test]
fn a_view_is_cut_into_window_dimensions_aggregates_and_measures() {
    let view = view(
        "CREATE VIEW departures WITH (schedule = '*/15 * * * *', time_zone = 'UTC') AS
         SELECT window_start, window_end, origin, UPPER(destination) AS dest, COUNT(*) AS flights,
                SUM(delay_min) / COUNT(*) AS mean, AVG(delay_min) AS avg_delay,
                COUNT(*) FILTER (WHERE delay_min > 15) AS late
         FROM flights WHERE distance > 0 AND NOT cancelled
         GROUP BY TUMBLE(scheduled_at, INTERVAL '1' HOUR), origin, dest;",
    );
    assert_eq!(view.window, Window::Tumble(Grid::Fixed { size: HOUR, offset: 0 }));
    assert_eq!(view.schedule.as_deref(), Some("*/15 * * * *"));
    assert_eq!(view.filter.as_ref().map(|f| shown(&view, f)).as_deref(), Some("distance > 0.0 AND NOT cancelled"));
    let dimensions: Vec<_> = view.dimensions.iter().map(|d| (d.name.as_str(), shown(&view, &d.expression))).collect();
    assert_eq!(dimensions, [("origin", "origin".to_owned()), ("dest", "UPPER(destination)".to_owned())]);
    // COUNT(*) is stored once, though two measures use it.
    let functions: Vec<_> = view.aggregates.iter().map(|a| (a.function, a.filter.is_some())).collect();
    use AggregateFunction::{Avg, Count, Sum};
    assert_eq!(functions, [(Count, false), (Sum, false), (Avg, false), (Count, true)]);
    let mean = &view.measures[view.measure("mean").expect("there")].expression;
    assert_eq!((print(mean, &|index| format!("#{index}")).as_str(), mean.data_type), ("#1 / #0", DataType::BigInt));
    use OutputColumn::{Dimension, Measure, WindowEnd, WindowStart};
    let output = [WindowStart, WindowEnd, Dimension(0), Dimension(1), Measure(0), Measure(1), Measure(2), Measure(3)];
    assert_eq!(view.output, output);
}

#[test]
fn every_window_is_parsed() {
    for (window, expected) in [
        ("INTERVAL '15' MINUTE", Window::Tumble(Grid::Fixed { size: HOUR / 4, offset: 0 })),
        ("INTERVAL '15 minutes'", Window::Tumble(Grid::Fixed { size: HOUR / 4, offset: 0 })),
        ("INTERVAL '1' DAY, INTERVAL '6' HOUR", Window::Tumble(Grid::Fixed { size: 24 * HOUR, offset: 6 * HOUR })),
        ("INTERVAL '1' DAY, INTERVAL '-1' HOUR", Window::Tumble(Grid::Fixed { size: 24 * HOUR, offset: 23 * HOUR })),
        ("INTERVAL '1' WEEK", Window::Tumble(Grid::Fixed { size: 7 * 24 * HOUR, offset: 4 * 24 * HOUR })),
        ("INTERVAL '7' DAY", Window::Tumble(Grid::Fixed { size: 7 * 24 * HOUR, offset: 0 })),
        ("INTERVAL '250' MILLISECOND", Window::Tumble(Grid::Fixed { size: 250_000, offset: 0 })),
    ] {
        let view = view(&format!(
            "CREATE VIEW v AS SELECT COUNT(*) AS n FROM flights GROUP BY TUMBLE(flights.scheduled_at, {window})"
        ));
        assert_eq!(view.window, expected, "{window}");
        assert_eq!(view.output, [OutputColumn::WindowStart, OutputColumn::WindowEnd, OutputColumn::Measure(0)]);
    }
    // A week begins on the Monday before it: 2001-01-01 was one.
    let week = view("CREATE VIEW v AS SELECT COUNT(*) n FROM flights".replace(" n ", " AS n ").as_str());
    assert_eq!(week.window, Window::All);
    let monday = Micros::parse("2001-01-01").expect("a date");
    let weekly = Window::Tumble(Grid::Fixed { size: 7 * 24 * HOUR, offset: 4 * 24 * HOUR });
    assert_eq!(weekly.pane_of(Micros(monday.0 + 6 * 24 * HOUR)).0, monday.0);
}

#[test]
fn grouped_columns_that_are_not_selected_are_still_dimensions() {
    use OutputColumn::{Dimension, Measure, WindowEnd, WindowStart};
    for (text, output) in [
        ("SELECT COUNT(*) AS n FROM flights GROUP BY origin", vec![Dimension(0), Measure(0)]),
        (
            "SELECT COUNT(*) AS n, origin FROM flights GROUP BY origin, destination",
            vec![Measure(0), Dimension(0), Dimension(1)],
        ),
        (
            "SELECT COUNT(*) AS n, window_end FROM flights GROUP BY TUMBLE(scheduled_at, INTERVAL '1' HOUR), origin",
            vec![WindowStart, Measure(0), WindowEnd, Dimension(0)],
        ),
        ("SELECT origin AS o, COUNT(*) AS n FROM flights GROUP BY 1", vec![Dimension(0), Measure(0)]),
        ("SELECT delay_min / 10 AS d, COUNT(*) AS n FROM flights GROUP BY d", vec![Dimension(0), Measure(0)]),
        (
            "SELECT delay_min / 10 AS d, COUNT(*) AS n FROM flights GROUP BY delay_min/10",
            vec![Dimension(0), Measure(0)],
        ),
        ("SELECT MAX(delay_min) AS n FROM flights", vec![Measure(0)]),
    ] {
        assert_eq!(view(&format!("CREATE VIEW v AS {text}")).output, output, "{text}");
    }
}

#[test]
fn the_hash_of_a_definition_ignores_spacing_and_schedule() {
    let a = view("CREATE VIEW v AS SELECT COUNT(*) AS n FROM flights WHERE delay_min>1");
    let b = view(
        "CREATE VIEW v WITH (schedule = '0 0 * * *') AS\nselect count(*) as n -- all\nfrom flights where (delay_min > 1)",
    );
    let c = view("CREATE VIEW v AS SELECT COUNT(*) AS n FROM flights WHERE delay_min>2");
    assert_eq!(a.definition_hash(), b.definition_hash());
    assert_ne!(a.definition_hash(), c.definition_hash());
    let d = view("CREATE VIEW v AS SELECT COUNT(*) AS n FROM flights WHERE price > 0.5");
    assert_ne!(a.definition_hash(), d.definition_hash());
}

/// Predicates over the columns of the stream, and what they read as once typed.
#[test]
fn the_number_of_kept_versions_is_not_part_of_the_definition() {
    let body = "AS SELECT COUNT(*) AS n FROM flights GROUP BY TUMBLE(scheduled_at, INTERVAL '1' HOUR)";
    let plain = view(&format!("CREATE VIEW v {body}"));
    assert_eq!((plain.versions_kept, plain.retention), (crate::limits::VERSIONS_KEPT, None));
    let kept = view(&format!("CREATE VIEW v WITH (versions_kept = 30, retention = '1 year 2 weeks') {body}"));
    assert_eq!((kept.versions_kept, kept.retention), (30, Some(crate::retention::Retention { months: 12, days: 14 })));
    assert_eq!(plain.definition_hash(), kept.definition_hash());
}

#[test]
fn the_layers_of_a_view_choose_its_schedule_and_are_not_part_of_the_definition() {
    let view = |options: &str| view(&format!("CREATE VIEW v {options} AS SELECT COUNT(*) AS n FROM flights"));
    let (plain, both) =
        (view(""), view("WITH (layers = 'both', schedule = '@hourly', checkpoint_schedule = '@daily')"));
    let speed = view("WITH (layers = 'speed', schedule = '@hourly', checkpoint_schedule = '@daily')");
    assert_eq!((plain.layers, plain.version_schedule()), (ViewLayers::Both, None));
    assert_eq!((both.version_schedule(), speed.version_schedule()), (Some("@hourly"), Some("@daily")));
    assert_eq!((plain.definition_hash(), both.definition_hash()), (both.definition_hash(), speed.definition_hash()));
}

#[test]
fn expressions_are_typed_and_their_casts_are_written_out() {
    let stream = parse("").expect("valid").streams.pop().expect("one stream");
    let columns: Vec<_> = stream.columns.iter().map(|c| (c.name.clone(), c.data_type)).collect();
    for (text, expected) in [
        ("delay_min + 1 > 2", "delay_min + 1 > 2"),
        ("seats = 5", "CAST(seats AS BIGINT) = 5"),
        ("seats + seats = 5", "CAST(seats AS BIGINT) + CAST(seats AS BIGINT) = 5"),
        ("delay_min > 0.5", "CAST(delay_min AS DOUBLE) > 0.5"),
        ("price > 0.5", "price > 0.50"),
        ("price > 5", "price > 5.00"),
        ("price * 1.5 > 5", "CAST(price AS DECIMAL(38,2)) * 1.5 > 5.000"),
        ("price + delay_min > 0", "CAST(price AS DECIMAL(38,2)) + CAST(delay_min AS DECIMAL(38,2)) > 0.00"),
        ("price / 2 > 1", "CAST(price AS DOUBLE) / 2.0 > 1.0"),
        ("price > distance", "CAST(price AS DOUBLE) > distance"),
        ("scheduled_at >= '2001-01-01'", "scheduled_at >= TIMESTAMP '2001-01-01T00:00:00Z'"),
        ("flown_on = '2001-01-31'", "flown_on = DATE '2001-01-31'"),
        ("flown_on < scheduled_at", "CAST(flown_on AS TIMESTAMP) < scheduled_at"),
        ("flown_on = TIMESTAMP '2001-01-31'", "CAST(flown_on AS TIMESTAMP) = TIMESTAMP '2001-01-31T00:00:00Z'"),
        (
            "scheduled_at + INTERVAL '1' DAY > DATE '2001-01-01'",
            "scheduled_at + INTERVAL '1' DAY > TIMESTAMP '2001-01-01T00:00:00Z'",
        ),
        (
            "scheduled_at - INTERVAL '90 seconds' > '2001-01-01'",
            "scheduled_at - INTERVAL '90' SECOND > TIMESTAMP '2001-01-01T00:00:00Z'",
        ),
        ("origin IN ('ATL', NULL)", "origin IN ('ATL', NULL)"),
        ("delay_min NOT IN (1, 2)", "NOT delay_min IN (1, 2)"),
        ("price IN (1, 2.5)", "price IN (1.00, 2.50)"),
        ("delay_min BETWEEN 1 AND 2", "delay_min >= 1 AND delay_min <= 2"),
        ("delay_min NOT BETWEEN 1 AND 2 OR cancelled", "NOT (delay_min >= 1 AND delay_min <= 2) OR cancelled"),
        ("origin LIKE 'A%'", "origin LIKE 'A%'"),
        ("origin NOT ILIKE '!%a' ESCAPE '!'", "NOT origin ILIKE '!%a' ESCAPE '!'"),
        ("cancelled IS NOT TRUE", "NOT COALESCE(cancelled, FALSE)"),
        ("cancelled IS FALSE", "COALESCE(NOT cancelled, FALSE)"),
        ("origin IS NOT NULL", "NOT origin IS NULL"),
        (
            "CASE delay_min WHEN 1 THEN 'a' ELSE origin END = 'a'",
            "CASE WHEN delay_min = 1 THEN 'a' ELSE origin END = 'a'",
        ),
        (
            "CASE WHEN cancelled THEN 1 WHEN seats > 1 THEN 0.5 END > 0",
            "CASE WHEN cancelled THEN 1.0 WHEN CAST(seats AS BIGINT) > 1 THEN 0.5 END > 0.0",
        ),
        ("COALESCE(delay_min, seats, 0) = 0", "COALESCE(delay_min, CAST(seats AS BIGINT), 0) = 0"),
        ("NULLIF(delay_min, 0) IS NULL", "NULLIF(delay_min, 0) IS NULL"),
        ("origin || '-' || destination = 'A-B'", "CONCAT(origin, '-', destination) = 'A-B'"),
        ("delay_min::STRING = '1'", "CAST(delay_min AS STRING) = '1'"),
        ("TRY_CAST(origin AS INT) = 1", "CAST(CAST(origin AS INT) AS BIGINT) = 1"),
        ("-delay_min < -5", "-delay_min < -5"),
        ("-(-delay_min) < +5", "-(-delay_min) < 5"),
        ("delay_min - (1 - seats) > 0", "delay_min - (1 - CAST(seats AS BIGINT)) > 0"),
        ("(delay_min - 1) - 2 > 0", "delay_min - 1 - 2 > 0"),
        ("delay_min % 2 = 0 AND (cancelled OR delay_min = 1)", "delay_min % 2 = 0 AND (cancelled OR delay_min = 1)"),
        ("EXTRACT(DOW FROM scheduled_at) = 0", "EXTRACT(DOW FROM scheduled_at) = 0"),
        ("EXTRACT(EPOCH FROM flown_on) > 1e9", "EXTRACT(EPOCH FROM CAST(flown_on AS TIMESTAMP)) > 1000000000.0"),
        (
            "DATE_TRUNC('month', scheduled_at) = '2001-01-01'",
            "DATE_TRUNC('month', scheduled_at) = TIMESTAMP '2001-01-01T00:00:00Z'",
        ),
        ("ROUND(distance, 2) > FLOOR(price)", "ROUND(distance, 2) > CAST(FLOOR(price) AS DOUBLE)"),
        ("SUBSTRING(origin FROM 1 FOR 2) = SUBSTR(origin, 1, 2)", "SUBSTRING(origin, 1, 2) = SUBSTRING(origin, 1, 2)"),
        ("TRIM(origin) = LEFT(LTRIM(origin), 1)", "TRIM(origin) = LEFT(LTRIM(origin), 1)"),
        (
            "GREATEST(delay_min, 0.5) = LEAST(1, 2)",
            "GREATEST(CAST(delay_min AS DOUBLE), 0.5) = CAST(LEAST(1, 2) AS DOUBLE)",
        ),
        ("NULL = delay_min", "NULL = delay_min"),
        ("\"origin\" = 'it''s'", "origin = 'it''s'"),
        ("NOT cancelled = TRUE", "NOT cancelled = TRUE"),
        ("POWER(2, 3) = SQRT(64)", "POWER(2.0, 3.0) = SQRT(64.0)"),
    ] {
        match parse_predicate(text, &columns) {
            Ok(scalar) => assert_eq!(print(&scalar, &|index| columns[index].0.clone()), expected, "{text}"),
            Err(error) => panic!("{text}: {error}"),
        }
    }
}

#[test]
fn later_files_read_streams_of_earlier_ones() {
    let files = [(
        "b.sql",
        "CREATE VIEW v AS SELECT COUNT(*) AS n FROM flights; ;; CREATE VIEW w AS SELECT SUM(seats) AS n FROM flights",
    )];
    let definitions = parse(files[0].1).expect("valid");
    assert_eq!(definitions.views.len(), 2);
    assert_eq!(definitions.views[1].sql, "CREATE VIEW w AS SELECT SUM(seats) AS n FROM flights");
    assert_eq!(definitions.views[1].aggregates[0].data_type(), DataType::BigInt);
}

#[test]
fn plans_are_readable() {
    let definitions = parse(
        "CREATE VIEW v AS SELECT origin, AVG(price) AS p FROM flights WHERE NOT cancelled
         GROUP BY TUMBLE(scheduled_at, INTERVAL '1' DAY), origin",
    )
    .expect("valid");
    let text = crate::explain::describe(&definitions.views[0], &definitions.streams[0]);
    for line in [
        "view v on stream flights",
        "watermark        0 days behind the latest event",
        "allowed lateness none; speed excludes later events, batch includes them",
        "read             scheduled_at, origin, price, cancelled",
        "filter           NOT cancelled",
        "window           TUMBLE(scheduled_at, INTERVAL '1' DAY)",
        "keys             window_start, origin",
        "zone             UTC",
        "an event         falls into 1 window",
        "state            AVG(price): 128-bit sum and count",
        "aggregate        AVG(price): exact",
        "write            views/v partitioned by window date",
        "p                DOUBLE measure AVG(price)",
    ] {
        assert!(text.contains(line), "{line}\n{text}");
    }
}

#[test]
fn an_entity_adds_a_column_for_its_sequence_that_views_read_and_events_do_not() {
    let sql = "CREATE STREAM s (id STRING PRIMARY KEY, order_id STRING NOT NULL, at TIMESTAMP) WITH (event_time = 'at', entity = 'Order_Id');
        CREATE VIEW v AS SELECT order_id, MAX(_sequence) AS last FROM s GROUP BY order_id;";
    let definitions = parse_definitions(&[("s.sql".to_owned(), sql.to_owned())]).unwrap_or_else(|e| panic!("{e:?}"));
    let stream = &definitions.streams[0];
    assert_eq!((stream.entity, stream.sequence(), stream.declared), (Some(1), Some(3), 4));
    let read: Vec<&str> = stream.read_columns().map(|(_, column)| column.name.as_str()).collect();
    assert_eq!(read, ["id", "order_id", "at"]);
    assert_eq!(stream.columns[3], Column::new("_sequence", DataType::BigInt));
}

#[test]
fn a_stream_reads_an_outbox_with_columns_for_parts_of_its_rows() {
    let parsed = |columns: &str, options: &str| {
        let sql = format!(
            "CREATE STREAM s ({columns}) WITH (event_time = 'at', source = 'postgres', connection = 'shop'{options});"
        );
        let definitions = parse_definitions(&[("s.sql".to_owned(), sql)]).unwrap_or_else(|e| panic!("{e:?}"));
        Stream::clone(&definitions.streams[0])
    };
    let all = "at TIMESTAMP METADATA FROM 'timestamp', id STRING PRIMARY KEY METADATA FROM 'id', n BIGINT METADATA FROM 'aggregateid',
        t STRING METADATA FROM 'aggregatetype', w STRING METADATA FROM 'type', l STRING METADATA FROM 'lsn', a BIGINT";
    let stream = parsed(all, "");
    let read: Vec<&str> = stream.read_columns().map(|(_, column)| column.name.as_str()).collect();
    assert_eq!((read, stream.primary_key, stream.source_offset(), stream.partitions), (vec!["a"], Some(1), Some(7), 1));
    assert_eq!(stream.columns[5].to_string(), "STRING METADATA FROM 'lsn'");
    let outbox = stream.outbox().expect("an outbox");
    let default = format!("trueup_{}", stream.name);
    let slot = |name: &str| OutboxSlot { slot: name.to_owned(), publication: default.clone() };
    assert_eq!((outbox.mode, outbox.name.as_str()), (OutboxMode::Decoding, "outbox"));
    assert_eq!((&outbox.columns, &outbox.slot), (&OutboxColumns::default(), &slot(&default)));
    assert_eq!(outbox.describe(), "outbox outbox");

    let polled = parsed(
        "at TIMESTAMP METADATA FROM 'timestamp', a BIGINT",
        ", mode = 'polling', outbox = 'Shop.Out', columns = 'id = key, payload=body , timestamp = at, txid = tx'",
    );
    let outbox = polled.outbox().expect("an outbox");
    let columns = OutboxColumns {
        id: "key".to_owned(),
        payload: "body".to_owned(),
        timestamp: Some("at".to_owned()),
        txid: "tx".to_owned(),
        ..OutboxColumns::default()
    };
    assert_eq!((&outbox.columns, outbox.describe().as_str()), (&columns, "outbox Shop.Out (polling)"));

    let messages = parsed("at TIMESTAMP, a BIGINT", ", mode = 'messages', slot = 'events_1'");
    let outbox = messages.outbox().expect("an outbox");
    assert_eq!((outbox.describe().as_str(), &outbox.slot), ("messages trueup", &slot("events_1")));
}

#[test]
fn a_stream_reads_a_topic_with_columns_for_parts_of_its_records() {
    let sql = "CREATE STREAM s (written TIMESTAMP METADATA FROM 'timestamp', k STRING METADATA FROM 'key', a BIGINT)
        WITH (event_time = 'written', source = 'kafka', connection = 'main', topic = 'Orders.v1', start = '2:7');";
    let definitions = parse_definitions(&[("s.sql".to_owned(), sql.to_owned())]).unwrap_or_else(|e| panic!("{e:?}"));
    let stream = &definitions.streams[0];
    let read: Vec<&str> = stream.read_columns().map(|(_, column)| column.name.as_str()).collect();
    assert_eq!((read, stream.own_columns().count(), stream.partitions), (vec!["a"], 3, 1));
    assert_eq!(stream.source_offset(), Some(3));
    assert_eq!(stream.columns[3], Column::new("_source_offset", DataType::BigInt));
    assert_eq!(stream.columns[1].to_string(), "STRING METADATA FROM 'key'");
    let topic = stream.topic().expect("a topic");
    assert_eq!(
        (topic.topic.as_str(), topic.group.as_str(), topic.format),
        ("Orders.v1", "trueup-s", RecordFormat::Json)
    );
    assert_eq!(topic.start, TopicStart::Offsets([(2, 7)].into()));
}
