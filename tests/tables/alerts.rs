//! Alerts over a table: raised when a change makes a condition true, confirmed or withdrawn by the rows that a run finds.

use serde_json::{Value, json};
use world::World;

const DEFINITIONS: &str = "
    CREATE TABLE orders (id BIGINT PRIMARY KEY, status STRING, amount BIGINT, at TIMESTAMP) WITH (event_time = 'at');
    CREATE VIEW statuses AS SELECT status, COUNT(*) AS n, MAX(amount) AS highest FROM orders GROUP BY status;
    CREATE VIEW bursts AS SELECT status, COUNT(*) AS n FROM orders GROUP BY SESSION(at, INTERVAL '10' MINUTE), status;
    CREATE ALERT busy ON bursts WHEN n >= 3;
    CREATE ALERT many ON statuses WHEN n >= 3;
    CREATE ALERT dear ON statuses WHEN highest > 100;";

fn put(world: &World, id: i64, status: &str, amount: i64) {
    let row = json!({"id": id, "status": status, "amount": amount, "at": "2026-01-05T10:00:00Z"});
    assert_eq!(world.post("/v1/events/orders", row.to_string()).status, 200);
}

/// Group and state of the alerts.
fn alerts(world: &World, alert: &str) -> Vec<(String, String)> {
    let answer = world.get(&format!("/v1/alerts?alert={alert}")).json();
    let text = |value: &Value| value.as_str().expect("a text").to_owned();
    let listed = answer["alerts"].as_array().expect("alerts").iter();
    let mut listed: Vec<_> = listed.map(|record| (text(&record["key"]["status"]), text(&record["state"]))).collect();
    listed.sort();
    listed
}

#[test]
fn alerts_over_a_table_are_of_its_rows() {
    let mut world = World::new(DEFINITIONS);
    let state = |group: &str, state: &str| (group.to_owned(), state.to_owned());
    for id in 0..2 {
        put(&world, id, "open", 1);
    }
    // The same row again, and one that leaves: never three at a time.
    put(&world, 1, "open", 2);
    put(&world, 2, "paid", 500);
    world.wait_for("the alert", |world| alerts(world, "dear") == [state("paid", "raised")]);
    assert_eq!(alerts(&world, "many"), []);
    put(&world, 3, "open", 1);
    world.wait_for("the alert", |world| alerts(world, "many") == [state("open", "raised")]);

    // The row moves on before a run looks.
    put(&world, 2, "paid", 50);
    assert_eq!(world.run("statuses", false)["state"], json!("published"));
    world.wait_for("the judgement", |world| {
        alerts(world, "dear") == [state("paid", "withdrawn")] && alerts(world, "many") == [state("open", "confirmed")]
    });

    // Behind the seam, a change takes rows out of the batch version, and a restart raises nothing that is there.
    put(&world, 0, "paid", 700);
    world.wait_for("the alert", |world| alerts(world, "dear") == [state("paid", "raised")]);
    world.kill();
    world.start();
    assert_eq!(world.run("statuses", true)["state"], json!("published"));
    world.wait_for("the judgement", |world| alerts(world, "dear") == [state("paid", "confirmed")]);
}

#[test]
fn alerts_over_sessions_of_a_table_follow_what_splits_and_joins_them() {
    let world = World::new(DEFINITIONS);
    let put = |id: i64, minute: i64| {
        let row = json!({"id": id, "status": "open", "amount": 1, "at": format!("2026-01-05T10:{minute:02}:00Z")});
        assert_eq!(world.post("/v1/events/orders", row.to_string()).status, 200);
    };
    let found = |world: &World| {
        let answer = world.get("/v1/alerts?alert=busy").json();
        let text = |value: &Value| value.as_str().expect("a text").to_owned();
        let listed = answer["alerts"].as_array().expect("alerts").iter();
        let mut listed: Vec<_> = listed
            .map(|record| (text(&record["key"]["window_start"])[14..16].to_owned(), text(&record["state"])))
            .collect();
        listed.sort();
        listed
    };
    let state = |minute: &str, state: &str| (minute.to_owned(), state.to_owned());
    put(1, 0);
    put(2, 8);
    put(3, 24);
    assert_eq!(world.run("bursts", false)["state"], json!("published"));
    assert_eq!(found(&world), []);
    // A live row joins two sessions of the version.
    put(4, 16);
    world.wait_for("the alert", |world| found(world) == [state("00", "raised")]);
    // One that leaves splits them again.
    put(4, 59);
    assert_eq!(world.run("bursts", false)["state"], json!("published"));
    world.wait_for("the judgement", |world| found(world) == [state("00", "withdrawn")]);
    // Now of rows at 8, 15, 20 and 24.
    put(1, 20);
    put(4, 15);
    world.wait_for("the alert", |world| found(world) == [state("00", "withdrawn"), state("08", "raised")]);
    assert_eq!(world.run("bursts", true)["state"], json!("published"));
    world.wait_for("the judgement", |world| found(world) == [state("00", "withdrawn"), state("08", "confirmed")]);
}
