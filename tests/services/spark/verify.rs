//! `trueup verify --engine spark`: speed, Polars and Spark over real flights, with the same figures.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use world::{flights_file, program, root};

use super::connect::shared;

/// Verifies the views of a file of the flights example, with two cuts, the second of them on Spark.
fn verify(definitions: &Path, events: &Path) -> Option<Value> {
    let spark = shared()?;
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::write(folder.path().join("trueup.toml"), spark.settings()).expect("written");
    let output = program::trueup_in(folder.path())
        .arg("verify")
        .arg(definitions)
        .args(["--stream", "flights", "--engine", "spark", "--config", "trueup.toml", "--cuts", "2", "-o", "json"])
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
    let Some(figures) = verify(&root().join("examples/flights/flights.sql"), &flights_file()) else { return };
    check(&figures, &["departures", "delays", "totals"]);
    let departures = &figures["views"]["departures"];
    assert_eq!(departures["spark"]["rows_equal"], departures["spark"]["rows_compared"], "no DOUBLE is summed");
    assert_eq!(departures["live"]["comparisons"], json!(3));
}

/// Three million flights (`TRUEUP_FLIGHTS`), in every window and measure of the dialect.
#[test]
#[ignore = "takes half an hour"]
fn verify_finds_the_same_figures_of_three_million_flights() {
    let file = std::env::var_os("TRUEUP_FLIGHTS").expect("TRUEUP_FLIGHTS names a file of flights");
    let Some(figures) = verify(&root().join("examples/flights/dialect.sql"), &PathBuf::from(file)) else { return };
    let views = ["hourly", "daily", "six_hours", "day_so_far", "spells", "last_three_hours", "monthly", "ever"];
    check(&figures, &views);
    println!("{figures:#}");
}
