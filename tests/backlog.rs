//! Tests through the real binary what senders get while a reader of the log is behind: answers, then 429, and never a hang.

use std::path::PathBuf;

use serde_json::{Value, json};
use world::{Answer, World};

const DEFINITIONS: &str = "
    CREATE STREAM sales (id STRING PRIMARY KEY, at TIMESTAMP, amount BIGINT, text STRING)
        WITH (event_time = 'at', allowed_lateness = '1 day');
    CREATE VIEW totals AS SELECT window_start, COUNT(*) AS n FROM sales GROUP BY TUMBLE(at, INTERVAL '1' HOUR);
    CREATE VIEW recent AS SELECT window_start, COUNT(*) AS n FROM sales GROUP BY SLIDE(at, INTERVAL '1' MINUTE);";

/// Events in one request.
const EVENTS: u64 = 100;

fn events(request: u64) -> Vec<u8> {
    let text = "x".repeat(200);
    // Every event has a time of its own: SLIDE keeps a row for each.
    let line = |i: u64| {
        let at = format!("2001-01-01T10:00:00.{:06}Z", i % 1_000_000);
        json!({"id": format!("e{i}"), "at": at, "amount": i, "text": text}).to_string() + "\n"
    };
    (request * EVENTS..(request + 1) * EVENTS).map(line).collect::<String>().into_bytes()
}

/// Sends requests until one is refused; returns their number and the refusal.
fn send_until_refused(world: &World, from: u64) -> (u64, Answer) {
    for request in from..from + 10_000 {
        let answer = world.post("/v1/events/sales", events(request));
        if answer.status != 200 {
            return (request, answer);
        }
    }
    panic!("nothing is ever refused");
}

fn refusal(answer: &Answer, words: &str) {
    assert_eq!((answer.status, &answer.json()["code"]), (429, &json!("busy")), "{}", answer.text);
    assert!(answer.json()["detail"].as_str().is_some_and(|detail| detail.contains(words)), "{}", answer.text);
}

fn counted(world: &World) -> Value {
    let rows = world.rows("totals", "");
    assert_eq!(rows["complete"], json!(true), "{}", rows["ledger"]);
    rows["rows"][0]["n"].clone()
}

fn archive(world: &World) -> PathBuf {
    let folder = world.store().join("lake/events/sales");
    assert!(folder.join("_delta_log").is_dir(), "{}", folder.display());
    folder
}

#[test]
fn while_the_lake_is_away_senders_get_answers_up_to_the_bound_then_429_and_queries_continue() {
    let mut world = World::new(DEFINITIONS);
    world.stop();
    world.set_limits("archive_backlog_bytes_max = 2000000\nlog_segment_bytes = 300000\narchive_wait_ms = 20\n");
    world.start();
    assert_eq!(world.post("/v1/events/sales", events(0)).status, 200);
    let archive = archive(&world);
    let away = archive.with_extension("away");
    std::fs::rename(&archive, &away).expect("moves");
    std::fs::write(&archive, "the lake is away").expect("writes");

    let (sent, refused) = send_until_refused(&world, 1);
    refusal(&refused, "the archive is behind");
    assert!(sent > 20, "the backlog is in the log, not refused at once: {sent}");
    assert_eq!(counted(&world), json!(sent * EVENTS));
    let partition = &world.get("/v1/streams/sales").json()["partitions"][0];
    assert!(partition["backlog_bytes"]["archive"].as_u64().is_some_and(|bytes| bytes > 1_900_000), "{partition}");
    assert!(partition["archive_error"].is_string(), "{partition}");

    std::fs::remove_file(&archive).expect("removes");
    std::fs::rename(&away, &archive).expect("moves");
    let retry = || world.post("/v1/events/sales", events(sent));
    world.wait_for("room in the backlog", |_| retry().status == 200);
    assert_eq!(world.run("totals", false)["state"], json!("published"));
    assert_eq!(counted(&world), json!((sent + 1) * EVENTS));
}

#[test]
fn live_state_beyond_its_bound_refuses_events_until_a_run_has_published() {
    let mut world = World::new(DEFINITIONS);
    world.stop();
    world.set_limits("live_state_bytes_max = 100000\n");
    world.start();
    let (sent, refused) = send_until_refused(&world, 0);
    refusal(&refused, "the live state of all views");
    assert_eq!(counted(&world), json!(sent * EVENTS));
    for view in ["totals", "recent"] {
        assert_eq!(world.run(view, false)["state"], json!("published"));
    }
    world.wait_for("room in the live state", |world| world.post("/v1/events/sales", events(sent)).status == 200);
    assert_eq!(counted(&world), json!((sent + 1) * EVENTS));
}

#[test]
fn events_that_no_present_window_reaches_are_released_and_a_run_brings_earlier_windows_back() {
    const TRAILING: &str = "
        CREATE STREAM sales (id STRING PRIMARY KEY, at TIMESTAMP) WITH (event_time = 'at');
        CREATE VIEW recent AS SELECT COUNT(*) AS n FROM sales GROUP BY SLIDE(at, INTERVAL '1' MINUTE);";
    let world = World::new(TRAILING);
    // Ten minutes, with an event each 10 ms.
    let at = |tick: u64| format!("2001-01-01T10:{:02}:{:02}.{:02}0Z", tick / 6_000, tick / 100 % 60, tick % 100);
    for first in (0..60_000).step_by(3_000) {
        let line = |tick: u64| json!({"id": format!("e{tick}"), "at": at(tick)}).to_string() + "\n";
        let body: String = (first..first + 3_000).map(line).collect();
        assert_eq!(world.post("/v1/events/sales", body).status, 200);
        let state = world.get("/v1/views/recent").json()["state"].clone();
        // A window has 6,000 rows.
        assert!(state["rows"].as_u64().is_some_and(|rows| rows < 20_000), "{state}");
    }
    let count = |query: &str| {
        let answer = world.rows("recent", query);
        assert_eq!(answer["complete"], json!(true), "{answer}");
        answer["rows"][0]["n"].clone()
    };
    assert_eq!(count("&as_of=latest"), json!(6_000));
    assert_eq!(world.rows("recent", "")["rows"], json!([]), "now is decades later");
    let earlier = "as_of=2001-01-01T10:05:00Z";
    let refused = world.get(&format!("/v1/views/recent/rows?{earlier}"));
    assert_eq!((refused.status, &refused.json()["code"]), (400, &json!("invalid_parameter")), "{}", refused.text);
    assert!(refused.text.contains("no longer holds") && refused.text.contains("next run"), "{}", refused.text);
    let live = world.get(&format!("/v1/views/recent/live?{earlier}"));
    assert_eq!((live.status, &live.json()["code"]), (400, &json!("invalid_parameter")), "{}", live.text);
    let run = world.run("recent", false);
    assert_eq!(run["state"], json!("published"), "{run}");
    let compared = world.get("/v1/views/recent/compare").json();
    assert_eq!(compared["rows_equal"], compared["rows_compared"], "released panes are not compared: {compared}");
    assert!(compared["rows_compared"].as_u64() >= Some(6_000), "{compared}");
    for query in [format!("&{earlier}"), format!("&{earlier}&layer=batch"), "&as_of=latest".to_owned()] {
        assert_eq!(count(&query), json!(6_000), "{query}");
    }
}
