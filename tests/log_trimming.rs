//! Tests small logs and a short dedup horizon: the log is trimmed only behind unneeded events, batch removes a duplicate that
//! intake no longer knows, which the comparison names, and idempotency keys outlive the events in the log.

use serde_json::json;
use world::World;

const DEFINITIONS: &str = "
    CREATE STREAM orders (id STRING PRIMARY KEY, at TIMESTAMP, amount BIGINT) WITH (event_time = 'at', allowed_lateness = '1 day');
    CREATE VIEW hourly AS SELECT window_start, COUNT(*) AS n, SUM(amount) AS total FROM orders GROUP BY TUMBLE(at, INTERVAL '1' HOUR);";

const LIMITS: &str = "dedup_horizon_events = 100\nlog_segment_bytes = 4096\narchive_wait_ms = 20\n";

fn orders(from: u64, to: u64) -> String {
    let line = |i: u64| {
        json!({"id": format!("o{i}"), "at": 1_000_000_000_000u64 + i * 10_000, "amount": i}).to_string() + "\n"
    };
    (from..to).map(line).collect()
}

fn totals(world: &World) -> (u64, u64) {
    let answer = world.rows("hourly", "");
    assert_eq!(answer["complete"], json!(true), "{}", answer["ledger"]);
    let sum =
        |name: &str| answer["rows"].as_array().expect("rows").iter().map(|r| r[name].as_u64().expect("a number")).sum();
    (sum("n"), sum("total"))
}

fn partition(world: &World) -> serde_json::Value {
    world.get("/v1/streams").json()["streams"][0]["partitions"][0].clone()
}

fn small() -> World {
    let mut world = World::new(DEFINITIONS);
    assert_eq!(world.stop(), Some(0));
    world.set_limits(LIMITS);
    world.start();
    world
}

#[test]
fn the_log_is_trimmed_up_to_the_events_that_speed_replays() {
    let mut world = small();
    for i in 0..40u64 {
        assert_eq!(world.post("/v1/events/orders", orders(i * 50, (i + 1) * 50)).status, 200);
    }
    let everything = (2000, 1999 * 2000 / 2);
    assert_eq!(totals(&world), everything);
    // Archived and far behind the dedup horizon, but not covered by a run: every restart replays all of it.
    for _ in 0..3 {
        world.wait_for("the archive", |world| partition(world)["archived"] == json!(2000));
        world.kill();
        world.start();
        assert_eq!(totals(&world), everything);
        assert_eq!(partition(&world)["log_start"], json!(0));
    }
    assert_eq!(world.run("hourly", false)["state"], json!("published"));
    world.wait_for("the log to be trimmed", |world| partition(world)["log_start"].as_u64() > Some(1000));
    world.kill();
    world.start();
    assert_eq!(totals(&world), everything);
    // A view declared over a trimmed log is served after its first run.
    assert_eq!(world.stop(), Some(0));
    let second =
        "CREATE VIEW daily AS SELECT window_start, COUNT(*) AS n FROM orders GROUP BY TUMBLE(at, INTERVAL '1' DAY);";
    world.redefine(&format!("{DEFINITIONS}{second}"));
    world.start();
    world.wait_for("the first run of the new view", |world| {
        let answer = world.rows("daily", "");
        let n: u64 = answer["rows"].as_array().expect("rows").iter().map(|r| r["n"].as_u64().expect("a count")).sum();
        assert!(n == 2000 || answer["complete"] == json!(false), "incomplete, and does not say so: {answer}");
        n == 2000 && answer["complete"] == json!(true)
    });
}

#[test]
fn a_start_keeps_the_log_for_the_view_that_is_furthest_behind() {
    // In both orders: the views are loaded one after the other.
    let view = |name: &str| format!("CREATE VIEW {name} AS SELECT COUNT(*) AS n FROM orders;");
    let mut world = World::new(&format!("{DEFINITIONS}{}", view("total")));
    assert_eq!(world.stop(), Some(0));
    let stream = DEFINITIONS.split_once("CREATE VIEW").expect("a view").0;
    let hourly = DEFINITIONS.split_once("CREATE VIEW").expect("a view").1;
    world.set_limits(LIMITS);
    world.start();
    for i in 0..40u64 {
        assert_eq!(world.post("/v1/events/orders", orders(i * 50, (i + 1) * 50)).status, 200);
    }
    world.wait_for("the archive", |world| partition(world)["archived"] == json!(2000));
    // Only `total` has a seam; `hourly` needs the whole log.
    assert_eq!(world.run("total", false)["state"], json!("published"));
    for definitions in [
        format!("{stream}{} CREATE VIEW{hourly}", view("total")),
        format!("{stream} CREATE VIEW{hourly}{}", view("total")),
    ] {
        world.kill();
        world.redefine(&definitions);
        world.start();
        assert_eq!(totals(&world), (2000, 1999 * 2000 / 2), "{definitions}");
        assert_eq!(partition(&world)["log_start"], json!(0));
    }
}

#[test]
fn a_duplicate_beyond_the_horizon_is_removed_by_batch_and_named() {
    let world = small();
    assert_eq!(world.post("/v1/events/orders", orders(0, 500)).json()["accepted"], json!(500));
    // Only the newest hundred ids are remembered.
    assert_eq!(world.post("/v1/events/orders", orders(450, 500)).json()["duplicates"], json!(50));
    assert_eq!(world.post("/v1/events/orders", orders(10, 20)).json()["accepted"], json!(10));
    assert_eq!(totals(&world).0, 510);
    assert_eq!(world.run("hourly", false)["state"], json!("published"));
    assert_eq!(totals(&world), (500, 499 * 500 / 2));
    let drift = world.get("/v1/views/hourly/compare").json();
    assert_eq!(drift["causes"]["unexplained"], json!(0), "{drift}");
    assert!(drift["causes"]["duplicate"].as_u64() > Some(0), "{drift}");
}

#[test]
fn an_idempotency_key_stands_for_its_body_after_the_log_has_deleted_its_events_and_the_process_was_killed() {
    let mut world = World::new(&DEFINITIONS.replace(" PRIMARY KEY", ""));
    assert_eq!(world.stop(), Some(0));
    world.set_limits(LIMITS);
    world.start();
    let post = |world: &World, key: &str, body: String| {
        let answer = world.try_post("/v1/events/orders", body.into_bytes(), &[("idempotency-key", key)]);
        let answer = answer.expect("a response");
        (answer.status, answer.json())
    };
    let (status, first) = post(&world, "the first", orders(0, 50));
    assert_eq!((status, &first["accepted"]), (200, &json!(50)));
    for i in 1..40u64 {
        assert_eq!(post(&world, &format!("key {i}"), orders(i * 50, (i + 1) * 50)).0, 200);
    }
    world.wait_for("the archive", |world| partition(world)["archived"] == json!(2000));
    assert_eq!(world.run("hourly", false)["state"], json!("published"));
    world.wait_for("the log to be trimmed", |world| partition(world)["log_start"].as_u64() > Some(1000));
    for _ in 0..2 {
        world.kill();
        world.start();
        assert!(partition(&world)["log_start"].as_u64() > Some(1000));
        let (status, again) = post(&world, "the first", orders(0, 50));
        assert_eq!((status, &again), (200, &first), "the first response again");
        let (status, other) = post(&world, "the first", orders(0, 51));
        assert_eq!((status, &other["code"]), (422, &json!("idempotency_key_reused")), "{other}");
        assert_eq!(totals(&world).0, 2000, "nothing is counted twice");
    }
}
