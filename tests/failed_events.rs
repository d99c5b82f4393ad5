//! Tests expressions whose texts would outgrow memory: a query is refused, an event is excluded from its view alone, and both
//! layers exclude the same events, also after a restart.

use serde_json::{Value, json};
use world::{World, encoded};

const DEFINITIONS: &str = "
    CREATE STREAM events (at TIMESTAMP, o STRING, a STRING, b STRING, dim STRING) WITH (event_time = 'at');
    CREATE VIEW replaced AS SELECT window_start, REPLACE(o, a, b) AS k, COUNT(*) AS n, MAX(REPLACE(b, a, o)) AS m
        FROM events GROUP BY TUMBLE(at, INTERVAL '1' HOUR), REPLACE(o, a, b);
    CREATE VIEW sessions AS SELECT window_start, COUNT(*) AS n FROM events WHERE LENGTH(REPLACE(o, a, b)) >= 0
        GROUP BY SESSION(at, INTERVAL '10' MINUTE);
    CREATE VIEW plain AS SELECT window_start, dim, COUNT(*) AS n FROM events GROUP BY TUMBLE(at, INTERVAL '1' HOUR), dim;";

fn event(minute: usize, o: &str, a: &str, b: &str) -> String {
    let at = format!("2001-01-01T{:02}:{:02}:00Z", minute / 60, minute % 60);
    json!({"at": at, "o": o, "a": a, "b": b, "dim": "AAAAAAAAAA"}).to_string() + "\n"
}

/// 600 KB that ask for 90 GB.
fn poison(minute: usize) -> String {
    event(minute, &"A".repeat(300_000), "A", &"B".repeat(300_000))
}

fn send(world: &World, body: String) {
    let answer = world.post("/v1/events/events", body);
    assert_eq!(answer.status, 200, "{}", answer.text);
}

/// The rows without what says where they came from.
fn figures(answer: &Value) -> Vec<Value> {
    let mut rows = answer["rows"].as_array().expect("rows").clone();
    for row in &mut rows {
        let row = row.as_object_mut().expect("an object");
        row.retain(|name, _| !name.starts_with('_'));
    }
    rows
}

#[test]
fn queries_whose_texts_would_multiply_are_refused_and_the_server_stays() {
    let mut world = World::new(DEFINITIONS);
    send(&world, event(1, "x", "y", "z"));
    let thousand = "A".repeat(1_000);
    let nested = |levels: usize, with: &str| {
        (0..levels).fold("dim".to_owned(), |text, _| format!("REPLACE({text},'A','{with}')"))
    };
    let filters = [
        format!("LENGTH({})>0", nested(4, &thousand)),
        format!("LENGTH({})>0", nested(3, &thousand[..500])),
        format!("n > 0 OR LENGTH({})>0", nested(3, &thousand)),
        "LENGTH(CONCAT(REPLACE(dim,'A','AAAAAAAAAAAAAAAA'),dim))>0 AND LENGTH(REPLACE(REPLACE(REPLACE(REPLACE(REPLACE(REPLACE(dim,'A',dim),'A',dim),'A',dim),'A',dim),'A',dim),'A',dim))>0".to_owned(),
    ];
    for filter in &filters {
        let answer = world.get(&format!("/v1/views/plain/rows.json?where={}", encoded(filter)));
        assert_eq!((answer.status, &answer.json()["code"]), (413, &json!("query_too_large")), "{}", answer.text);
    }
    // A long text that is allowed.
    let filter = format!("LENGTH({})=10000", nested(1, &thousand));
    let answer = world.get(&format!("/v1/views/plain/rows.json?where={}", encoded(&filter)));
    assert_eq!((answer.status, figures(&answer.json()).len()), (200, 1), "{}", answer.text);
    assert!(world.is_running());
}

#[test]
fn a_poison_event_is_excluded_from_its_view_alone_in_both_layers_and_after_restarts() {
    let mut world = World::new(DEFINITIONS);
    for minute in [1, 20] {
        send(&world, event(minute, "xAx", "A", "b"));
    }
    send(&world, event(22, "q", "r", "s") + &poison(21) + &event(23, "q", "r", "s"));
    send(&world, event(90, "xAx", "A", "b"));
    let check = |world: &World, layer: &str| {
        let replaced = world.rows("replaced", "");
        let expected = json!([
            {"window_start": "2001-01-01T00:00:00Z", "window_end": "2001-01-01T01:00:00Z", "k": "q", "n": 2, "m": "s"},
            {"window_start": "2001-01-01T00:00:00Z", "window_end": "2001-01-01T01:00:00Z", "k": "xbx", "n": 2, "m": "b"},
            {"window_start": "2001-01-01T01:00:00Z", "window_end": "2001-01-01T02:00:00Z", "k": "xbx", "n": 1, "m": "b"},
        ]);
        assert_eq!(json!(figures(&replaced)), expected, "{layer}");
        assert_eq!(replaced["complete"], json!(false), "{layer}");
        let counts = &replaced["ledger"];
        assert_eq!((&counts["accepted"], &counts["failed"]), (&json!(6), &json!(1)), "{layer}: {counts}");
        assert_eq!(counts["batch"].as_u64().expect("a count") + counts["speed"].as_u64().expect("a count"), 5);
        let finality: Vec<_> =
            replaced["rows"].as_array().expect("rows").iter().map(|row| row["_finality"].clone()).collect();
        assert!(!finality[..2].contains(&json!("final")), "{layer}: an event of their window is missing: {finality:?}");
        let sessions = figures(&world.rows("sessions", ""));
        assert_eq!(sessions.iter().map(|row| row["n"].clone()).collect::<Vec<_>>(), [json!(1), json!(3), json!(1)]);
        let plain = world.rows("plain", "");
        assert_eq!((&plain["complete"], &plain["rows"][0]["n"]), (&json!(true), &json!(5)), "{layer}");
        let failed = world.get("/v1/streams/events/failed").json();
        assert_eq!(failed["total"], json!(2), "{layer}: {failed}");
        let of_view = |view: &str| {
            let events = failed["events"].as_array().expect("events");
            events.iter().find(|event| event["view"] == json!(view)).expect("listed").clone()
        };
        for view in ["replaced", "sessions"] {
            let listed = of_view(view);
            assert_eq!((&listed["partition"], &listed["offset"]), (&json!(0), &json!(3)), "{layer}");
            assert_eq!(listed["event_time"], json!("2001-01-01T00:21:00Z"), "{layer}");
            let reason = listed["reason"].as_str().expect("a reason");
            assert!(reason.contains("text of more than 1048576 bytes"), "{layer}: {reason}");
        }
    };
    check(&world, "speed");
    let metrics = world.get("/metrics").text;
    assert!(metrics.contains("trueup_failed_events_total{view=\"replaced\"} 1"), "{metrics}");
    world.kill();
    world.start();
    check(&world, "speed, replayed");
    // The watermark passes all windows.
    send(&world, event(23 * 60 + 59, "z", "z", "z"));
    for view in ["replaced", "sessions", "plain"] {
        let run = world.run(view, false);
        assert_eq!(run["state"], json!("published"), "{run}");
        let version = &run["version"];
        let compared = world.get(&format!("/v1/views/{view}/compare?version={version}")).json();
        assert_eq!(compared["causes"]["unexplained"], json!(0), "{view}: {compared}");
        assert_eq!(compared["rows_equal"], compared["rows_compared"], "{view}: {compared}");
    }
    let before = |world: &World| {
        let answer = world.rows("replaced", "&to=2001-01-01T12:00:00Z");
        (figures(&answer), answer["complete"].clone(), answer["ledger"]["failed"].clone())
    };
    let after_run = before(&world);
    assert_eq!((&after_run.1, &after_run.2), (&json!(false), &json!(1)));
    assert_eq!(world.get("/v1/streams/events/failed").json()["total"], json!(2), "batch excludes them as well");
    let rows = world.rows("replaced", "&to=2001-01-01T12:00:00Z");
    let finality: Vec<_> = rows["rows"].as_array().expect("rows").iter().map(|r| r["_finality"].clone()).collect();
    assert_eq!(finality, [json!("closed"), json!("closed"), json!("final")]);
    world.stop();
    world.start();
    assert_eq!(before(&world), after_run);
    // A run of another date keeps what is known of this one.
    send(&world, json!({"at": "2001-01-05T00:00:00Z", "o": "z", "a": "z", "b": "z", "dim": "d"}).to_string());
    assert_eq!(world.run("replaced", false)["state"], json!("published"));
    assert_eq!(before(&world), after_run);
    assert_eq!(world.run("replaced", true)["state"], json!("published"));
    assert_eq!(before(&world), after_run);
}
