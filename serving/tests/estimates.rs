//! Tests that estimated values have bounds, and exact ones do not: distinct counts, percentiles, most frequent values.

mod world;

use serde_json::{Value, json};
use world::World;

const SQL: &str = "
CREATE STREAM s (at TIMESTAMP, k STRING, n BIGINT)
WITH (event_time = 'at', watermark_delay = '10 minutes', allowed_lateness = '1 hour');
CREATE VIEW v AS SELECT window_start, window_end, k, COUNT(*) AS c, COUNT(DISTINCT n) AS d,
    PERCENTILE_DISC(0.5) WITHIN GROUP (ORDER BY n) AS m, TOP_K(n, 2) AS top, COUNT(DISTINCT n) * 2 AS twice
FROM s GROUP BY TUMBLE(at, INTERVAL '1' HOUR), k;
";
/// Distinct values in a window: more than any group keeps individually.
const MANY: i64 = 5_000;

/// One event each for the values `from..to`, and one more for 7.
fn spread(hour: u32, k: &str, from: i64, to: i64) -> String {
    let event = |n: i64| format!(r#"{{"at":"2001-01-01T{hour:02}:10:00Z","k":"{k}","n":{n}}}"#) + "\n";
    (from..to).map(event).chain([event(7)]).collect()
}

fn world() -> World {
    let world = World::new(SQL);
    // In batch alone, in both layers, and few in both.
    let batch = [spread(6, "many", 0, MANY), spread(7, "many", 0, MANY), spread(8, "few", 0, 10)];
    world.publish(1, &batch.concat());
    world.live(&[spread(7, "many", MANY, MANY + 100), spread(8, "few", 5, 15), spread(9, "many", 0, MANY)].concat());
    world.watermark("2001-01-01T12:00:00Z");
    world
}

fn interval(row: &Value, measure: &str) -> Option<(f64, f64)> {
    let bounds = row["_bounds"].get(measure)?.as_array().expect("a pair").clone();
    assert_eq!(bounds.len(), 2, "{row}");
    Some((bounds[0].as_f64().expect("a number"), bounds[1].as_f64().expect("a number")))
}

/// Asserts that the measure is an estimate and that its interval contains both it and the exact value.
fn assert_estimated(row: &Value, measure: &str, truth: f64) {
    let (low, high) = interval(row, measure).unwrap_or_else(|| panic!("{measure} has no bounds in {row}"));
    let value = row[measure].as_f64().expect("a number");
    assert!(low < high && (low..=high).contains(&value) && (low..=high).contains(&truth), "{measure}: {row}");
    assert!(high - low < truth / 2.0, "{measure}: {row}");
}

#[tokio::test]
async fn batch_is_exact_and_large_groups_with_live_events_have_bounds() {
    let reply = world().get("/v1/views/v/rows").await.json();
    let exact_in: Vec<_> =
        reply["columns"].as_array().expect("columns").iter().map(|c| c["exact_in"].clone()).collect();
    let batch = json!("batch");
    let none = Value::Null;
    let expected = [none.clone(), none.clone(), none.clone(), none, batch.clone(), batch.clone(), batch.clone(), batch];
    assert_eq!(exact_in, expected);
    let rows = reply["rows"].as_array().expect("rows");
    let layers: Vec<_> = rows.iter().map(|r| r["_layer"].clone()).collect();
    assert_eq!(layers, ["batch", "merged", "merged", "speed"]);
    // Values of batch are exact.
    assert_eq!(rows[0]["_bounds"], Value::Null, "{}", rows[0]);
    assert_eq!((&rows[0]["c"], &rows[0]["d"], &rows[0]["twice"]), (&json!(MANY + 1), &json!(MANY), &json!(2 * MANY)));
    assert_eq!(rows[0]["m"], (MANY - 1) / 2);
    // Large groups with live events.
    assert_estimated(&rows[1], "d", (MANY + 100) as f64);
    assert_estimated(&rows[1], "twice", 2.0 * (MANY + 100) as f64);
    assert_estimated(&rows[1], "m", (MANY + 100) as f64 / 2.0);
    assert_eq!((interval(&rows[1], "c"), &rows[1]["c"]), (None, &json!(MANY + 102)));
    assert_eq!(rows[1]["_bounds"]["top"].as_array().map(Vec::len), Some(2), "{}", rows[1]);
    // Small groups are exact in every layer.
    assert_eq!(rows[2]["_bounds"], Value::Null, "{}", rows[2]);
    assert_eq!((&rows[2]["d"], &rows[2]["twice"]), (&json!(15), &json!(30)));
    assert_eq!(rows[2]["top"].as_array().map(Vec::len), Some(2), "{}", rows[2]);
    assert_estimated(&rows[3], "d", MANY as f64);
}

#[tokio::test]
async fn coarser_grains_of_batch_are_estimates() {
    let world = world();
    let rows = world.rows("/v1/views/v/rows?layer=batch").await;
    assert!(rows.iter().all(|row| row["_bounds"].is_null()), "{rows:?}");
    // Two windows of the same values: their distinct counts are not added.
    let day = world.rows("/v1/views/v/rows?layer=batch&grain=1d&where=k = 'many'").await;
    assert_eq!(day[0]["_layer"], "batch");
    assert_estimated(&day[0], "d", MANY as f64);
    assert_eq!((interval(&day[0], "c"), &day[0]["c"]), (None, &json!(2 * MANY + 2)));
    let day = world.rows("/v1/views/v/rows?layer=batch&grain=all&where=k = 'few'").await;
    assert_eq!((&day[0]["d"], &day[0]["_bounds"]), (&json!(10), &Value::Null));
    let fewer = world.rows("/v1/views/v/rows?layer=batch&group_by=").await;
    assert!(fewer.iter().all(|row| row["_bounds"].is_null()), "one key a window: nothing was merged: {fewer:?}");
}

#[tokio::test]
async fn flat_formats_have_columns_for_bounds() {
    let world = world();
    let csv = world.get("/v1/views/v/rows.csv?measures=d,c").await.text();
    let lines: Vec<Vec<&str>> = csv.lines().map(|line| line.split(',').collect()).collect();
    assert_eq!(lines[0], ["window_start", "window_end", "k", "d", "d_low", "d_high", "c", "_layer", "_finality"]);
    assert_eq!(lines[1][3..7], ["5000", "", "", "5001"]);
    let number = |text: &str| text.parse::<f64>().expect("a number");
    assert!(number(lines[2][4]) < number(lines[2][3]) && number(lines[2][3]) < number(lines[2][5]), "{csv}");
    assert_eq!(lines[3][3..6], ["15", "", ""]);
}

#[tokio::test]
async fn where_and_order_use_the_estimates() {
    let world = world();
    let rows = world.rows("/v1/views/v/rows?where=d > 100&order_by=-d&measures=d").await;
    assert_eq!(rows.len(), 3);
    assert!(rows.is_sorted_by(|a, b| a["d"].as_i64() >= b["d"].as_i64()), "{rows:?}");
    let reply = world.get("/v1/views/v/rows?where=top = 'x'").await;
    assert_eq!((reply.status.as_u16(), &reply.json()["code"]), (400, &json!("invalid_predicate")));
}
