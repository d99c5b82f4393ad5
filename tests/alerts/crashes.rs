//! A crash between the commit of a version and its judgement, or with a damaged book, has the outcome that is documented.

use serde_json::{Value, json};
use world::World;

const DEFINITIONS: &str = "
    CREATE STREAM visits (id STRING PRIMARY KEY, at TIMESTAMP, user STRING) WITH (event_time = 'at');
    CREATE VIEW whole AS SELECT user, COUNT(*) AS n FROM visits GROUP BY user;
    CREATE ALERT often ON whole WHEN n >= 2;";

fn alerts(world: &World) -> Vec<Value> {
    world.get("/v1/alerts").json()["alerts"].as_array().expect("alerts").clone()
}

fn post(world: &World, ids: &[&str]) {
    for id in ids {
        let event = json!({"id": id, "at": "2026-01-05T10:00:00Z", "user": "a"});
        assert_eq!(world.post("/v1/events/visits", event.to_string()).status, 200);
    }
}

#[test]
fn a_version_that_was_committed_before_a_crash_is_judged_after_it() {
    for step in ["commit", "publish", "retire"] {
        let mut world = World::with_environment(DEFINITIONS, &[("TRUEUP_FAIL_AT", step)]);
        post(&world, &["1", "2"]);
        world.wait_for("the alert", |world| alerts(world).len() == 1);
        assert_eq!(world.post("/v1/views/whole/runs", "").status, 202);
        world.wait_for_exit();
        world.set_environment(&[]);
        world.start();
        if step == "commit" {
            assert_eq!(world.run("whole", false)["state"], json!("published"));
        }
        world.wait_for(step, |world| alerts(world)[0]["state"] == "confirmed");
        let judged = alerts(&world);
        assert_eq!((judged.len(), &judged[0]["version"], &judged[0]["times"]), (1, &json!(1), &json!(1)), "{judged:?}");
        assert_eq!(judged[0]["figures"]["n"], json!({"served": 2, "exact": 2}));
        assert_eq!(judged[0]["cause"], Value::Null);
    }
}

#[test]
fn a_damaged_book_refuses_the_start_and_a_lost_one_raises_again() {
    let mut world = World::new(DEFINITIONS);
    post(&world, &["1", "2"]);
    world.wait_for("the alert", |world| alerts(world).len() == 1);
    assert_eq!(world.stop(), Some(0));
    let path = world.store().join("alerts/alerts.log");
    let whole = std::fs::read(&path).expect("the book");
    let mut damaged = whole.clone();
    damaged[30] ^= 4;
    std::fs::write(&path, damaged).expect("writes");
    let (code, output) = world.start_refused();
    assert!(
        code == Some(1) && output.contains("alerts.log: line 1 is damaged: restore the file from a backup"),
        "{code:?} {output}"
    );
    std::fs::remove_file(&path).expect("removes");
    world.start();
    // The events since the last run are folded again.
    world.wait_for("the alert again", |world| alerts(world).len() == 1);
}
