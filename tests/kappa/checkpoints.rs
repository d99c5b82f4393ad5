//! Real flights: after any checkpoints, kills and restarts a view of the speed layer alone shows what the file says, the log
//! behind the seam is gone, and every response says which layer the figures are of.

use std::collections::BTreeMap;

use polars::prelude::*;
use serde_json::{Value, json};
use world::program::trueup_in;
use world::{World, flights_file};

use crate::{SHORT_LOG, checkpoint, status};

const FLIGHTS: i64 = 30_000;
const DEFINITIONS: &str = "
    CREATE STREAM flights (flight_id STRING PRIMARY KEY, scheduled_at TIMESTAMP, origin STRING, destination STRING, delay_min BIGINT)
        WITH (event_time = 'scheduled_at', watermark_delay = '2 hours', allowed_lateness = '30 days', partitions = 2);
    CREATE VIEW departures WITH (layers = 'speed', checkpoint_schedule = '@every 1h', schedule = '@every 1s') AS
        SELECT window_start, origin, COUNT(*) AS flights, MAX(delay_min) AS longest, COUNT(DISTINCT destination) AS destinations
        FROM flights GROUP BY TUMBLE(scheduled_at, INTERVAL '1' HOUR), origin;";

/// Flights, longest delay and destinations by hour and origin.
type Hours = BTreeMap<(String, String), (i64, i64, i64)>;

fn frame() -> DataFrame {
    let file = flights_file();
    let scanned = LazyFrame::scan_parquet(PlRefPath::new(file.to_str().expect("UTF-8")), Default::default());
    let time = col("scheduled_at").dt().strftime("%Y-%m-%dT%H:%M:%SZ");
    let columns = [col("flight_id"), time, col("origin"), col("destination"), col("delay_min").cast(DataType::Int64)];
    let first = scanned.expect("the flights").slice(0, FLIGHTS as IdxSize).select(columns);
    first.collect().expect("Polars reads the flights")
}

fn expected(flights: &DataFrame) -> Hours {
    let hours = flights
        .clone()
        .lazy()
        .group_by([col("scheduled_at").str().head(lit(13)).alias("hour"), col("origin")])
        .agg([
            len().cast(DataType::Int64).alias("n"),
            col("delay_min").max().alias("longest"),
            col("destination").n_unique().cast(DataType::Int64).alias("places"),
        ])
        .collect()
        .expect("Polars answers");
    let text =
        |name: &str, row: usize| hours.column(name).expect("there").str().expect("texts").get(row).map(str::to_owned);
    let long =
        |name: &str, row: usize| hours.column(name).expect("there").i64().expect("numbers").get(row).expect("one");
    let row = |row: usize| {
        let key = (format!("{}:00:00Z", text("hour", row).expect("an hour")), text("origin", row).expect("an origin"));
        (key, (long("n", row), long("longest", row), long("places", row)))
    };
    (0..hours.height()).map(row).collect()
}

fn lines(flights: &DataFrame) -> Vec<String> {
    let column = |name: &str| flights.column(name).expect("there").clone();
    let [id, at, from, to] = ["flight_id", "scheduled_at", "origin", "destination"].map(column);
    let delay = column("delay_min");
    let text = |column: &Column, row: usize| column.str().expect("texts").get(row).map(str::to_owned);
    let line = |row: usize| {
        json!({
            "flight_id": text(&id, row), "scheduled_at": text(&at, row), "origin": text(&from, row),
            "destination": text(&to, row), "delay_min": delay.i64().expect("numbers").get(row),
        })
        .to_string()
            + "\n"
    };
    (0..flights.height()).map(line).collect()
}

/// Checks that the rows are of the speed layer and what the file says; an estimate lies within its bounds.
fn check(answer: &Value, whole: &Hours) {
    assert_eq!(answer["complete"], json!(true), "{}", answer["ledger"]);
    let rows = answer["rows"].as_array().expect("rows");
    assert_eq!(rows.len(), whole.len());
    for row in rows {
        assert!(row["_layer"] == "speed" && row["_finality"] != "final", "{row}");
        let text = |name: &str| row[name].as_str().expect("a text").to_owned();
        let (flights, longest, places) = whole[&(text("window_start"), text("origin"))];
        assert_eq!((&row["flights"], &row["longest"]), (&json!(flights), &json!(longest)), "{row}");
        let bounds = &row["_bounds"]["destinations"];
        let is_right = match (bounds[0].as_i64(), bounds[1].as_i64()) {
            (Some(low), Some(high)) => (low..=high).contains(&places),
            _ => row["destinations"] == json!(places),
        };
        assert!(is_right, "{places} destinations: {row}");
    }
    assert_eq!(answer["columns"][5]["exact_in"], json!("none"), "{}", answer["columns"]);
}

/// The first offset that the log of a partition still has.
fn log_start(world: &World, partition: u32) -> u64 {
    let folder = world.store().join(format!("log/flights/{partition}"));
    let names = std::fs::read_dir(folder).expect("the log").flatten().map(|entry| entry.file_name());
    let first = |name: std::ffi::OsString| name.to_str()?.strip_suffix(".log")?.parse().ok();
    names.filter_map(first).min().expect("a segment")
}

#[test]
fn flights_survive_checkpoints_kills_and_a_trimmed_log() {
    let flights = frame();
    let (lines, whole) = (lines(&flights), expected(&flights));
    let mut world = World::stopped(DEFINITIONS);
    world.set_limits(SHORT_LOG);
    world.start();
    for (number, chunk) in lines.chunks(6_000).enumerate() {
        for body in chunk.chunks(1_500) {
            assert_eq!(world.post("/v1/events/flights", body.concat()).status, 200);
        }
        match number {
            0 | 2 => _ = checkpoint(&world, "departures", false),
            1 => {
                world.kill();
                world.start();
            }
            3 => _ = checkpoint(&world, "departures", true),
            _ => {}
        }
    }
    check(&world.rows("departures", ""), &whole);
    let run = checkpoint(&world, "departures", false);
    let published = world.rows("departures", "&layer=batch");
    check(&published, &whole);
    assert_eq!((&published["seam"]["version"], &published["seam"]["origin"]), (&run["version"], &json!("speed")));
    // The last event is in the seam; a restart replays nothing of the flights and shows all of them.
    world.wait_for("the log to be trimmed", |world| (0..2).all(|partition| log_start(world, partition) > 10_000));
    world.kill();
    world.start();
    check(&world.rows("departures", ""), &whole);
    assert_eq!(status(&world, "departures")["state"]["rows"], json!(0));

    let status = status(&world, "departures");
    assert_eq!((&status["layers"], &status["checkpoint_schedule"]), (&json!("speed"), &json!("@every 1h")));
    assert_eq!((&status["schedule"], &status["batch"]["origin"]), (&Value::Null, &json!("speed")));
    let versions = world.get("/v1/views/departures/versions").json();
    let versions = versions["versions"].as_array().expect("versions");
    assert_eq!(versions.len(), 4, "its schedule of runs is skipped: {versions:?}");
    assert!(versions.iter().all(|version| version["origin"] == "speed" && version["late"] == 0), "{versions:?}");
}

#[test]
fn requests_for_the_other_layers_are_refused_with_the_way_out() {
    let both = "CREATE VIEW exact AS SELECT COUNT(*) AS n FROM flights;";
    let world = World::new(&format!("{DEFINITIONS}{both}"));
    for (path, way_out) in [
        ("/v1/views/departures/runs", "trueup checkpoint departures"),
        ("/v1/views/exact/checkpoints", "trueup batch run exact"),
    ] {
        let refused = world.post(path, "");
        assert_eq!((refused.status, refused.json()["code"].as_str()), (409, Some("other_layers")), "{}", refused.text);
        assert!(refused.text.contains(way_out), "{}", refused.text);
    }
    let command = |arguments: &[&str]| {
        let output = trueup_in(world.data.path()).args(arguments).env("TRUEUP_URL", world.url()).output();
        let output = output.expect("trueup runs");
        (output.status.code(), world::program::text(&output))
    };
    let (code, text) = command(&["batch", "run", "departures"]);
    assert!(code == Some(3) && text.contains("layers = 'speed'"), "{code:?} {text}");
    assert_eq!(
        world.post("/v1/events/flights", r#"{"flight_id": "a", "scheduled_at": "2001-01-01T00:00:00Z"}"#).status,
        200
    );
    let (code, text) = command(&["checkpoint", "departures", "--wait"]);
    assert!(code == Some(0) && text.contains("published version 1"), "{code:?} {text}");
    let (_, text) = command(&["batch", "versions", "departures"]);
    assert!(text.contains("speed"), "{text}");
    let (_, text) = command(&["batch", "status"]);
    assert!(text.contains("departures") && text.contains("version 1"), "{text}");
}

#[test]
fn a_schedule_publishes_checkpoints() {
    let world = World::new(&DEFINITIONS.replace("@every 1h", "@every 1s"));
    assert_eq!(
        world.post("/v1/events/flights", r#"{"flight_id": "a", "scheduled_at": "2001-01-01T00:00:00Z"}"#).status,
        200
    );
    world.wait_for("a checkpoint", |world| status(world, "departures")["seam"]["version"] == json!(1));
    assert_eq!(status(&world, "departures")["last_success"]["version"], json!(1));
}
