//! `trueup verify --engine spark`: speed, Polars and Spark over real flights, with the same figures.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use world::{flights_file, program, root};

use super::connect::shared;

/// Verifies the views over a stream of some definitions, with two cuts and at last on Spark.
fn verify(definitions: &Path, (stream, events): (&str, &Path), tables: &[String]) -> Option<Value> {
    let spark = shared()?;
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::write(folder.path().join("trueup.toml"), spark.settings()).expect("written");
    let output = program::trueup_in(folder.path())
        .arg("verify")
        .arg(definitions)
        .args(["--stream", stream, "--engine", "spark", "--config", "trueup.toml", "--cuts", "2", "-o", "json"])
        .args(tables.iter().flat_map(|table| ["--table", table]))
        .arg("--events")
        .arg(events)
        .output()
        .expect("trueup runs");
    let printed = program::text(&output);
    let figures: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{printed}"));
    assert_eq!((output.status.code(), &figures["holds"]), (Some(0), &json!(true)), "{printed}");
    Some(figures)
}

/// Every view was computed on Spark, with rows that differ by rounding alone.
fn check(figures: &Value, views: &[&str]) {
    for view in views {
        let (full, spark) = (&figures["views"][view]["full"], &figures["views"][view]["spark"]);
        assert_eq!(spark["comparisons"], json!(1), "{view}: {figures:#}");
        assert_eq!(spark["rows_compared"], full["rows_compared"], "{view}");
        assert!(spark["rows_compared"].as_u64() > Some(0), "{view}");
        assert_eq!(spark["causes"]["unexplained"], json!(0), "{view}: {spark:#}");
        for (measure, sums) in spark["measures"].as_object().expect("measures") {
            let error = sums["max_rel_error"].as_f64().expect("a number");
            assert!(error <= 1e-9, "{view}, {measure}: {error:e}");
        }
    }
}

#[test]
fn verify_finds_the_same_figures_in_speed_in_polars_and_on_spark() {
    let Some(figures) = verify(&root().join("examples/flights/flights.sql"), ("flights", &flights_file()), &[]) else {
        return;
    };
    check(&figures, &["departures", "delays", "totals"]);
    let departures = &figures["views"]["departures"];
    assert_eq!(departures["spark"]["rows_equal"], departures["spark"]["rows_compared"], "no DOUBLE is summed");
    assert_eq!(departures["live"]["comparisons"], json!(3));
}

#[test]
fn verify_joins_events_with_the_same_rows_on_spark() {
    let folder = tempfile::tempdir().expect("a folder");
    let write = |name: &str, text: String| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).expect("written");
        path
    };
    let definitions = write(
        "shop.sql",
        "CREATE TABLE customers (id STRING PRIMARY KEY, country STRING, updated_at TIMESTAMP) WITH (event_time = 'updated_at');
         CREATE STREAM orders (customer STRING, amount BIGINT, at TIMESTAMP)
             WITH (event_time = 'at', allowed_lateness = '1000 days');
         CREATE VIEW sales AS SELECT window_start, c.country, COUNT(*) AS n, SUM(amount) AS total
             FROM orders AS o LEFT JOIN customers AS c ON o.customer = c.id
             GROUP BY TUMBLE(o.at, INTERVAL '1' DAY), c.country;"
            .to_owned(),
    );
    let customer = |n: i64| {
        let (country, day) = (["IE", "DE", "FR"][n as usize % 3], 1 + n % 28);
        json!({"id": format!("c{}", n % 40), "country": country, "updated_at": format!("2024-01-{day:02}T00:00:00Z")})
    };
    let order = |n: i64| {
        let day = 1 + n * 7 % 28;
        json!({"customer": format!("c{}", n % 45), "amount": n, "at": format!("2024-01-{day:02}T12:00:00Z")})
    };
    let customers = write("customers.ndjson", (0..1_000).map(|n| format!("{}\n", customer(n))).collect());
    let orders = write("orders.ndjson", (0..3_000).map(|n| format!("{}\n", order(n))).collect());
    let table = format!("customers={}", customers.display());
    let Some(figures) = verify(&definitions, ("orders", &orders), &[table]) else { return };
    check(&figures, &["sales"]);
    let spark = &figures["views"]["sales"]["spark"];
    assert_eq!(spark["rows_equal"], spark["rows_compared"], "{spark:#}");
}

/// Three million flights (`TRUEUP_FLIGHTS`), in every window and measure of the dialect.
#[test]
#[ignore = "takes half an hour"]
fn verify_finds_the_same_figures_of_three_million_flights() {
    let file = std::env::var_os("TRUEUP_FLIGHTS").expect("TRUEUP_FLIGHTS names a file of flights");
    let Some(figures) = verify(&root().join("examples/flights/dialect.sql"), ("flights", &PathBuf::from(file)), &[])
    else {
        return;
    };
    let views = ["hourly", "daily", "six_hours", "day_so_far", "spells", "last_three_hours", "monthly", "ever"];
    check(&figures, &views);
    println!("{figures:#}");
}
