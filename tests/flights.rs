//! Tests with real flights that the merged result equals what Polars computes directly from the file, before, during
//! and after runs, in every format.

use std::collections::BTreeMap;

use polars::prelude::*;
use serde_json::{Value, json};
use world::{World, flights_file};

const DEFINITIONS: &str = "
    CREATE STREAM flights (flight_id STRING PRIMARY KEY, scheduled_at TIMESTAMP, reported_at TIMESTAMP, origin STRING,
                           destination STRING, delay_min BIGINT, distance_mi BIGINT)
    WITH (event_time = 'scheduled_at', watermark_delay = '1 hour', allowed_lateness = '30 days');
    CREATE VIEW departures AS
    SELECT window_start, window_end, origin, COUNT(*) AS flights, AVG(delay_min) AS avg_delay, MAX(delay_min) AS max_delay,
           COUNT(*) FILTER (WHERE delay_min > 15) AS late_flights
    FROM flights GROUP BY TUMBLE(scheduled_at, INTERVAL '1' HOUR), origin;
    CREATE VIEW totals AS
    SELECT COUNT(*) AS flights, SUM(distance_mi) AS miles, MIN(delay_min) AS earliest FROM flights;";

type Hours = BTreeMap<(String, String), (i64, f64, i64, i64)>;

fn frame() -> LazyFrame {
    let file = flights_file();
    LazyFrame::scan_parquet(PlRefPath::new(file.to_str().expect("UTF-8")), Default::default()).expect("the flights")
}

/// The expected values, computed from the file.
fn expected_hours(first_events: usize) -> Hours {
    let late = col("delay_min").gt(lit(15)).cast(DataType::Int64).sum();
    let hours = frame()
        .slice(0, first_events as IdxSize)
        .with_columns([col("scheduled_at").dt().truncate(lit("1h")).dt().strftime("%Y-%m-%dT%H:%M:%SZ").alias("hour")])
        .group_by([col("hour"), col("origin")])
        .agg([
            len().cast(DataType::Int64).alias("n"),
            col("delay_min").mean().alias("mean"),
            col("delay_min").max().alias("max"),
            late.alias("late"),
        ])
        .collect()
        .expect("Polars answers");
    let text = |name: &str| hours.column(name).expect("a column").str().expect("texts").clone();
    let long = |name: &str| hours.column(name).expect("a column").i64().expect("integers").clone();
    let mean = hours.column("mean").expect("a column").f64().expect("floats").clone();
    let (hour, origin, n, max, late) = (text("hour"), text("origin"), long("n"), long("max"), long("late"));
    let row = |i: usize| {
        let key = (hour.get(i).expect("an hour").to_owned(), origin.get(i).expect("an origin").to_owned());
        let get = |column: &Int64Chunked| column.get(i).expect("a number");
        (key, (get(&n), mean.get(i).expect("a mean"), get(&max), get(&late)))
    };
    (0..hours.height()).map(row).collect()
}

fn found_hours(rows: &[Value]) -> Hours {
    let row = |r: &Value| {
        let text = |name: &str| r[name].as_str().expect("a text").to_owned();
        let long = |name: &str| r[name].as_i64().expect("an integer");
        let value =
            (long("flights"), r["avg_delay"].as_f64().expect("a float"), long("max_delay"), long("late_flights"));
        ((text("window_start"), text("origin")), value)
    };
    rows.iter().map(row).collect()
}

fn assert_hours(found: &Hours, expected: &Hours, context: &str) {
    assert_eq!(found.len(), expected.len(), "{context}");
    for (key, e) in expected {
        let f = found.get(key).unwrap_or_else(|| panic!("{context}: no row for {key:?}"));
        assert_eq!((f.0, f.2, f.3), (e.0, e.2, e.3), "{context}: {key:?}");
        assert!((f.1 - e.1).abs() <= 1e-9 * e.1.abs().max(1.0), "{context}: {key:?}: {} is not {}", f.1, e.1);
    }
}

/// The flights as NDJSON lines, in reported order.
fn lines() -> Vec<String> {
    let flights = frame()
        .with_columns([
            col("scheduled_at").dt().strftime("%Y-%m-%dT%H:%M:%SZ"),
            col("reported_at").dt().strftime("%Y-%m-%dT%H:%M:%SZ"),
        ])
        .collect()
        .expect("Polars answers");
    let columns: Vec<&Column> = flights.columns().iter().collect();
    let line = |i: usize| {
        let field = |c: &&Column| {
            let value = match c.get(i).expect("in range") {
                AnyValue::String(s) => json!(s),
                AnyValue::StringOwned(s) => json!(s.as_str()),
                AnyValue::Int64(n) => json!(n),
                other => panic!("unexpected {other:?}"),
            };
            (c.name().to_string(), value)
        };
        Value::Object(columns.iter().map(field).collect()).to_string() + "\n"
    };
    (0..flights.height()).map(line).collect()
}

#[test]
fn merged_results_equal_those_of_polars() {
    let world = World::new(DEFINITIONS);
    let lines = lines();
    let mut sent = 0;
    let mut run: Option<String> = None;
    // A third of the flights before the first run, a third during runs, a third after; then a last run.
    for (i, third) in lines.chunks(lines.len().div_ceil(3)).enumerate() {
        for body in third.chunks(20_000) {
            let answer = world.post("/v1/events/flights", body.concat());
            assert_eq!(answer.status, 200, "{}", answer.text);
            assert_eq!(answer.json()["accepted"], json!(body.len()));
            sent += body.len();
            if i == 1 {
                let asked = world.post("/v1/views/departures/runs", "{}");
                run = Some(asked.json()["id"].as_str().expect("an id").to_owned());
                let answer = world.rows("departures", "");
                assert_hours(
                    &found_hours(answer["rows"].as_array().expect("rows")),
                    &expected_hours(sent),
                    "during a run",
                );
            }
        }
        let answer = world.rows("departures", "");
        assert_hours(&found_hours(answer["rows"].as_array().expect("rows")), &expected_hours(sent), "between runs");
    }
    assert_eq!(world.finished(&run.expect("a run"))["state"], json!("published"));
    assert_eq!(world.run("departures", false)["state"], json!("published"));
    assert_eq!(world.run("totals", false)["state"], json!("published"));
    let expected = expected_hours(sent);
    let answer = world.rows("departures", "&layer=batch");
    assert_hours(&found_hours(answer["rows"].as_array().expect("rows")), &expected, "batch alone");
    assert_eq!(answer["ledger"]["batch"], json!(lines.len()));

    let totals = world.rows("totals", "");
    let file = frame()
        .select([col("distance_mi").sum().alias("miles"), col("delay_min").min().alias("earliest")])
        .collect()
        .expect("Polars answers");
    let value = |name: &str| file.column(name).expect("a column").i64().expect("integers").get(0);
    assert_eq!(totals["rows"][0]["flights"], json!(lines.len()));
    assert_eq!(totals["rows"][0]["miles"], json!(value("miles")));
    assert_eq!(totals["rows"][0]["earliest"], json!(value("earliest")));

    formats(&world, &expected);
    command_line(&world, lines.len());
    let drift = world.get("/v1/views/departures/compare").json();
    assert_eq!(drift["causes"]["unexplained"], json!(0), "{drift}");
}

/// CSV, NDJSON and Parquet carry the same rows as JSON.
fn formats(world: &World, expected: &Hours) {
    let path = |extension: &str| format!("/v1/views/departures/rows.{extension}?limit=1000000");
    let text = String::from_utf8(world.get_bytes(&path("ndjson"))).expect("UTF-8");
    let rows: Vec<Value> = text.lines().map(|l| serde_json::from_str(l).expect("JSON")).collect();
    assert_hours(&found_hours(&rows), expected, "ndjson");

    let csv = String::from_utf8(world.get_bytes(&path("csv"))).expect("UTF-8");
    let mut lines = csv.lines();
    let header: Vec<&str> = lines.next().expect("a header").split(',').collect();
    let at = |name: &str| header.iter().position(|h| *h == name).expect("a column");
    let row = |line: &str| {
        let cells: Vec<&str> = line.split(',').collect();
        let long = |name: &str| cells[at(name)].parse::<i64>().expect("an integer");
        let value = (
            long("flights"),
            cells[at("avg_delay")].parse::<f64>().expect("a float"),
            long("max_delay"),
            long("late_flights"),
        );
        ((cells[at("window_start")].to_owned(), cells[at("origin")].to_owned()), value)
    };
    assert_hours(&lines.map(row).collect(), expected, "csv");

    let file = world.data.path().join("rows.parquet");
    std::fs::write(&file, world.get_bytes(&path("parquet"))).expect("can be written");
    let table = LazyFrame::scan_parquet(PlRefPath::new(file.to_str().expect("UTF-8")), Default::default())
        .expect("Parquet")
        .collect()
        .expect("Polars reads it");
    assert_eq!(table.height(), expected.len());
    let flights: i64 = table.column("flights").expect("a column").i64().expect("integers").sum().expect("a sum");
    assert_eq!(flights, expected.values().map(|v| v.0).sum::<i64>());
}

/// `trueup query` prints the rows of the HTTP response.
fn command_line(world: &World, flights: usize) {
    let output =
        world.trueup().args(["query", "totals", "-o", "csv", "--url", world.url()]).output().expect("trueup runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).expect("UTF-8");
    assert!(text.lines().nth(1).is_some_and(|l| l.split(',').any(|c| c == flights.to_string())), "{text}");
}
