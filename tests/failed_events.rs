//! Tests expressions whose texts would outgrow memory: a query is refused, a row or an event is excluded from its view alone,
//! and both layers exclude the same events, also after a restart.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

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

const GROUPS: &str = "
    CREATE STREAM texts (at TIMESTAMP, g STRING, t STRING) WITH (event_time = 'at');
    CREATE VIEW longest AS SELECT window_start, g, COUNT(*) AS n, CONCAT(MAX(t), MAX(t), MAX(t), MAX(t)) AS four FROM texts
        GROUP BY TUMBLE(at, INTERVAL '1' HOUR), g HAVING LENGTH(CONCAT(MAX(t), MAX(t), MAX(t))) > 0;";

/// An event of the group `g` with a text of `bytes` bytes.
fn text_event(g: &str, bytes: usize) -> String {
    json!({"at": "2001-01-01T00:10:00Z", "g": g, "t": "x".repeat(bytes)}).to_string() + "\n"
}

/// The head and the body of a response, up to `until`.
fn read_until(world: &World, path: &str, until: &str) -> String {
    let mut socket = TcpStream::connect(world.url().trim_start_matches("http://")).expect("connected");
    socket.set_read_timeout(Some(Duration::from_secs(20))).expect("a timeout");
    socket.write_all(format!("GET {path} HTTP/1.1\r\nhost: localhost\r\n\r\n").as_bytes()).expect("sent");
    let (mut text, mut buffer) = (String::new(), vec![0; 1 << 16]);
    while !text.contains(until) {
        let count = socket.read(&mut buffer).expect("an event");
        assert!(count > 0, "{}", &text[..text.len().min(1_000)]);
        text.push_str(&String::from_utf8_lossy(&buffer[..count]));
    }
    text
}

#[test]
fn a_group_that_fails_is_excluded_and_named_in_every_layer_and_format_and_refuses_no_query() {
    let world = World::new(GROUPS);
    // Three times 300 KB are allowed, four times are not; three times 400 KB are not allowed either.
    let body = text_event("short", 10) + &text_event("long", 300_000) + &text_event("outgrown", 400_000);
    let answer = world.post("/v1/events/texts", body);
    assert_eq!(answer.status, 200, "{}", answer.text);
    let check = |layer: &str| {
        for order in ["", "&order_by=-four", "&order_by=four,g", "&measures=n"] {
            let rows = world.rows("longest", &format!("{layer}{order}"));
            let mut groups: Vec<_> = figures(&rows).into_iter().map(|row| row["g"].clone()).collect();
            // NULL, where the text would be too long, is the smallest.
            match order {
                "&order_by=-four" => assert_eq!(groups, [json!("short"), json!("long")]),
                "&order_by=four,g" => assert_eq!(groups, [json!("long"), json!("short")]),
                _ => groups.sort_by_key(Value::to_string),
            }
            assert_eq!(groups.len(), 2, "{layer}{order}: {rows}");
            assert_eq!(
                (&rows["complete"], &rows["failed_rows"]["count"]),
                (&json!(false), &json!(1)),
                "{layer}{order}"
            );
            let reason = rows["failed_rows"]["reason"].as_str().expect("a reason");
            assert!(reason.contains("text of more than 1048576 bytes"), "{reason}");
            // The ledger balances: no event is missing.
            assert_eq!((&rows["ledger"]["accepted"], &rows["ledger"].get("failed")), (&json!(3), &None));
            if order.is_empty() {
                let long = rows["rows"].as_array().expect("rows").iter().find(|row| row["g"] == "long").expect("there");
                assert_eq!((&long["four"], &long["_overflow"]), (&Value::Null, &json!(["four"])), "{layer}");
            }
        }
        let csv = read_until(&world, &format!("/v1/views/longest/rows.csv?measures=n{layer}"), "\r\n\r\n");
        assert!(csv.contains("trueup-complete: false") && csv.contains("trueup-failed-rows: 1"), "{csv}");
        // Only the group that fails is affected.
        let others = world.rows("longest", &format!("&where={}{layer}", encoded("g <> 'outgrown'")));
        assert_eq!((&others["complete"], others.get("failed_rows")), (&json!(true), None), "{layer}");
    };
    check("");
    let first = read_until(&world, "/v1/views/longest/live?measures=n", "\"next\":");
    assert!(first.contains("\"complete\":false") && first.contains("\"failed_rows\":{\"count\":1"), "{first}");
    // Batch computes measures for the comparison by the same rule, so both layers are equal.
    let run = world.run("longest", false);
    assert_eq!(run["state"], json!("published"), "{run}");
    let compared = world.get(&format!("/v1/views/longest/compare?version={}", run["version"])).json();
    assert_eq!((&compared["rows_equal"], &compared["rows_compared"]), (&json!(3), &json!(3)), "{compared}");
    check("");
    check("&layer=batch");
    // A filter of the client's own is the client's to change.
    let filter = encoded("LENGTH(CONCAT(four, four)) > 0 OR n > 0");
    assert_eq!(world.get(&format!("/v1/views/longest/rows.json?where={filter}")).status, 200, "NULL is short");
    let metrics = world.get("/metrics").text;
    assert!(metrics.contains("trueup_failed_rows_total{view=\"longest\"}"), "{metrics}");
}

#[test]
fn differences_by_events_that_failed_in_one_layer_have_the_cause_failed() {
    // The fold of the view panics in the speed layer, in each batch of events.
    let mut world = World::with_environment(DEFINITIONS, &[("TRUEUP_PANIC_IN", "plain")]);
    send(&world, event(1, "x", "A", "b") + &event(2, "x", "A", "b") + &event(70, "x", "A", "b"));
    let live = world.rows("plain", "");
    assert_eq!((&live["complete"], &live["ledger"]["failed"]), (&json!(false), &json!(3)), "{live}");
    let (mut version, mut checked) = (Value::Null, Value::Null);
    for (full, rows) in [(false, 2), (true, 2)] {
        let run = world.run("plain", full);
        assert_eq!(run["state"], json!("published"), "{run}");
        if !full {
            version = run["version"].clone();
            checked = world.get(&format!("/v1/views/plain/compare?version={version}")).json();
        }
        assert_eq!(figures(&world.rows("plain", "")).len(), rows);
    }
    assert_eq!((&checked["causes"]["failed"], &checked["causes"]["unexplained"]), (&json!(2), &json!(0)), "{checked}");
    assert!(checked["rows"].as_array().expect("rows").iter().all(|row| row["cause"] == "failed"), "{checked}");
    let metrics = world.get("/metrics").text;
    let of_cause = |line: &&str| line.starts_with("trueup_differing_values_total") && line.contains("\"failed\"");
    let counted = metrics.lines().find(|line| of_cause(line) && line.contains("\"plain\"")).expect("counted");
    assert!(counted.ends_with(" 2"), "{counted}");
    // Both layers exclude an event of another view: that explains nothing, and nothing differs.
    let other = world.run("replaced", false);
    let compared = world.get(&format!("/v1/views/replaced/compare?version={}", other["version"])).json();
    assert_eq!((&compared["causes"]["failed"], &compared["rows_compared"]), (&json!(0), &compared["rows_equal"]));
    // The Delta table keeps the cause: another process reads it from there.
    world.set_environment(&[]);
    world.stop();
    world.start();
    let stored = world.get(&format!("/v1/views/plain/compare?version={version}")).json();
    assert_eq!(stored["causes"], checked["causes"], "{stored}");
    let (mut command, version) = (world.trueup(), version.to_string());
    let shown = command.args(["compare", "plain", "--version", &version, "--url", world.url()]).output();
    let shown = shown.expect("trueup runs");
    let shown = String::from_utf8_lossy(&shown.stdout).into_owned();
    assert!(shown.contains("failed 2"), "{shown}");
}
