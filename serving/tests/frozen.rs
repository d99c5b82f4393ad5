//! Tests windows whose events retention has dropped: rows show what batch kept and are frozen, whatever speed has.

mod world;

use serde_json::{Value, json};
use world::World;

const SQL: &str = "
CREATE STREAM s (id BIGINT PRIMARY KEY, at TIMESTAMP, n BIGINT) WITH (event_time = 'at');
CREATE VIEW hours AS SELECT window_start, COUNT(*) AS c FROM s GROUP BY TUMBLE(at, INTERVAL '1' HOUR);
CREATE VIEW hops AS SELECT window_start, COUNT(*) AS c FROM s GROUP BY HOP(at, INTERVAL '12' HOUR, INTERVAL '1' DAY);
CREATE VIEW steps AS SELECT window_start, window_end, COUNT(*) AS c FROM s GROUP BY CUMULATE(at, INTERVAL '12' HOUR, INTERVAL '2' DAY);
CREATE VIEW visits AS SELECT window_start, COUNT(*) AS c FROM s GROUP BY SESSION(at, INTERVAL '30' MINUTE);
CREATE VIEW trailing AS SELECT COUNT(*) AS c FROM s GROUP BY SLIDE(at, INTERVAL '2' DAY, INTERVAL '1' HOUR);
";

const BATCH: &str = r#"
{"id":1,"at":"2001-01-01T06:10:00Z","n":1}
{"id":2,"at":"2001-01-01T23:50:00Z","n":1}
{"id":3,"at":"2001-01-02T00:10:00Z","n":1}
{"id":4,"at":"2001-01-02T07:00:00Z","n":1}
"#;
const LIVE: &str = r#"
{"id":5,"at":"2001-01-01T06:15:00Z","n":1}
{"id":6,"at":"2001-01-02T07:10:00Z","n":1}
{"id":7,"at":"2001-01-01T18:00:00Z","n":1}
"#;

/// Start, figure, layer and finality of every row.
async fn shown(world: &World, view: &str, parameters: &str) -> Vec<Value> {
    let rows = world.rows(&format!("/v1/views/{view}/rows?{parameters}")).await;
    let row = |row: &Value| {
        json!([row["window_start"].as_str().map(|s| &s[5..16]), row["c"], row["_layer"], row["_finality"]])
    };
    rows.iter().map(row).collect()
}

#[tokio::test]
async fn frozen_windows_show_batch_alone() {
    let world = World::new(SQL);
    world.publish(12, BATCH);
    world.live(LIVE);
    world.watermark("2001-01-09T00:00:00Z");
    let hour = |start: &str, c: u32, layer: &str, finality: &str| json!([start, c, layer, finality]);
    let young = [hour("01-02T00:00", 1, "batch", "final"), hour("01-02T07:00", 2, "merged", "closed")];
    let before = shown(&world, "hours", "").await;
    assert_eq!(before[0], hour("01-01T06:00", 2, "merged", "closed"));
    assert_eq!(before.len(), 5, "{before:?}");

    world.freeze("2001-01-02");
    let frozen = [hour("01-01T06:00", 1, "batch", "frozen"), hour("01-01T23:00", 1, "batch", "frozen")];
    assert_eq!(shown(&world, "hours", "").await, [&frozen[..], &young[..]].concat());
    assert_eq!(shown(&world, "hours", "layer=speed").await, [hour("01-02T07:00", 1, "speed", "closed")]);
    // With layer=batch, speed adds to no frozen row.
    assert_eq!(shown(&world, "hours", "layer=batch&to=2001-01-02").await, frozen);
    // A coarser row is frozen if all its windows are.
    let days = [hour("01-01T00:00", 2, "batch", "frozen"), hour("01-02T00:00", 3, "merged", "closed")];
    assert_eq!(shown(&world, "hours", "grain=1d").await, days);
    let two_days = shown(&world, "hours", "grain=1w").await;
    assert_eq!(two_days, [hour("01-01T00:00", 5, "merged", "closed")]);
    let csv = world.get("/v1/views/hours/rows.csv?to=2001-01-02").await.text();
    assert_eq!(csv.lines().filter(|line| line.ends_with(",batch,frozen")).count(), 2, "{csv}");

    // A hop that overlaps dropped dates is frozen; the first one after them is not.
    let hops = shown(&world, "hops", "").await;
    let expected = [
        hour("12-31T12:00", 1, "batch", "frozen"),
        hour("01-01T00:00", 2, "batch", "frozen"),
        hour("01-01T12:00", 3, "batch", "frozen"),
        hour("01-02T00:00", 3, "merged", "closed"),
    ];
    assert_eq!(hops, expected);
    let steps = shown(&world, "steps", "").await;
    // Cumulating windows start on the last day of the previous year.
    let is_before = |row: &Value| matches!(row[0].as_str().unwrap_or_default().get(..5), Some("12-31" | "01-01"));
    assert!(steps.iter().all(|row| is_before(row) == (row[3] == "frozen")), "{steps:?}");
    let sessions = [
        hour("01-01T06:10", 1, "batch", "frozen"),
        hour("01-01T23:50", 2, "batch", "frozen"),
        hour("01-02T07:00", 2, "merged", "closed"),
    ];
    assert_eq!(shown(&world, "visits", "").await, sessions);
    // Frozen panes stay as they are; the window still advances.
    let trailing = world.rows("/v1/views/trailing/rows?as_of=2001-01-03T00:00:00Z").await;
    assert_eq!((&trailing[0]["c"], &trailing[0]["_finality"]), (&json!(5), &json!("closed")));
    let older = world.rows("/v1/views/trailing/rows?as_of=2001-01-02T00:00:00Z").await;
    assert_eq!((&older[0]["c"], &older[0]["_finality"]), (&json!(2), &json!("frozen")));
    let view = world.get("/v1/views/hours").await.json();
    assert_eq!(view["frozen_before"], json!("2001-01-02"), "{view}");
}
