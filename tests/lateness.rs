//! Tests late, ahead and rejected events: they are listed with how far off they were, counted, bounded, and known after
//! a restart. Compares the measured disorder of real flights with the true one.

use std::time::{Duration, Instant};

use polars::prelude::*;
use serde_json::{Value, json};
use world::{World, flights_file};

const DEFINITIONS: &str = "
    CREATE STREAM events (id STRING PRIMARY KEY, at TIMESTAMP, amount DECIMAL(9,2))
    WITH (event_time = 'at', watermark_delay = '10 minutes', allowed_lateness = '1 hour');
    CREATE VIEW hourly AS SELECT window_start, COUNT(*) AS n FROM events GROUP BY TUMBLE(at, INTERVAL '1' HOUR);";

fn event(id: &str, at: &str) -> String {
    json!({"id": id, "at": at, "amount": "1.50"}).to_string() + "\n"
}

fn send(world: &World, body: &str) -> Value {
    let answer = world.post("/v1/events/events", body);
    assert_eq!(answer.status, 200, "{}", answer.text);
    answer.json()
}

fn list(world: &World, what: &str, parameters: &str) -> Value {
    let answer = world.get(&format!("/v1/streams/events/{what}{parameters}"));
    assert_eq!(answer.status, 200, "{}", answer.text);
    answer.json()
}

fn ids(page: &Value) -> Vec<&str> {
    page["events"].as_array().expect("events").iter().map(|e| e["id"].as_str().expect("an id")).collect()
}

fn texts(page: &Value) -> Vec<&str> {
    page["lines"].as_array().expect("lines").iter().map(|line| line["text"].as_str().expect("a text")).collect()
}

fn later(minutes: i64) -> String {
    let at = chrono::Utc::now() + chrono::TimeDelta::minutes(minutes);
    at.to_rfc3339_opts(chrono::SecondsFormat::Millis, true)
}

#[test]
fn late_and_ahead_events_are_listed_and_counted_also_after_a_restart() {
    let mut world = World::new(DEFINITIONS);
    let day = "2001-01-01T";
    let first = send(&world, &(event("a", &format!("{day}12:00:00Z")) + &event("b", &format!("{day}10:50:00.5Z"))));
    assert_eq!((&first["accepted"], &first["late"], &first["ahead"]), (&json!(2), &json!(0), &Value::Null));
    // The watermark is 11:50; 10:50 is exactly at the limit, 10:00 is late by 50 minutes.
    let body =
        event("c", &format!("{day}10:50:00Z")) + &event("d", &format!("{day}10:00:00Z")) + &event("e", &later(90));
    let second = send(&world, &(body + &event("f", &format!("{day}12:01:00Z"))));
    assert_eq!((&second["accepted"], &second["late"], &second["ahead"]), (&json!(4), &json!(2), &json!(1)));

    let check = |world: &World| {
        let late = list(world, "late", "");
        assert_eq!((&late["total"], &late["kept"], &late["listed"]), (&json!(2), &json!(2), &json!(2)));
        assert_eq!((&late["kept_max"], &late["next"]), (&json!(10_000), &Value::Null));
        assert_eq!(ids(&late), ["d", "c"], "newest first");
        let mut newest = late["events"][0].clone();
        assert!(newest["_arrived_at"].as_str().is_some_and(|at| at.starts_with("20")), "{newest}");
        newest.as_object_mut().expect("an object").remove("_arrived_at");
        let expected = json!({
            "id": "d", "at": "2001-01-01T10:00:00Z", "amount": "1.50", "_partition": 0, "_offset": 3,
            "_watermark": "2001-01-01T11:50:00Z", "late_by_ms": 6_600_000, "beyond_allowed_lateness_ms": 3_000_000
        });
        assert_eq!(newest, expected);
        let ahead = list(world, "ahead", "");
        assert_eq!((&ahead["total"], ids(&ahead)), (&json!(1), vec!["e"]));
        let by = ahead["events"][0]["ahead_by_ms"].as_i64().expect("a number");
        assert!((5_300_000..=5_400_000).contains(&by), "{by}");
        assert_eq!(ahead["events"][0]["beyond_max_ahead_ms"], json!(by - 3_600_000));

        let stream = world.get("/v1/streams/events").json();
        // The event far ahead did not move the watermark: 12:01 less ten minutes.
        assert_eq!(stream["watermark"], json!("2001-01-01T11:51:00Z"));
        assert_eq!(stream["partitions"][0]["ahead"], json!(1));
        let settings = json!({"watermark_delay": "10 minutes", "allowed_lateness": "1 hour", "max_ahead": "1 hour",
                              "idle_timeout": "1 minute"});
        assert_eq!(stream["settings"], settings);
        let lateness = &stream["lateness"];
        assert_eq!((&lateness["measured"], &lateness["max_ms"]), (&json!(5), &json!(7_200_000.0)));
        assert_eq!(lateness["late_share"], json!(0.4));
        assert_eq!(lateness["behind_watermark_share"], json!(0.6));
        let rows = world.rows("hourly", "");
        assert_eq!((&rows["watermark"], &rows["complete"]), (&json!("2001-01-01T11:51:00Z"), &json!(true)));
    };
    check(&world);
    world.kill();
    world.start();
    check(&world);
    // With everything in batch, speed has nothing to replay; the watermark is known nevertheless.
    assert_eq!(world.run("hourly", false)["state"], json!("published"));
    assert_eq!(world.stop(), Some(0));
    world.start();
    check(&world);
}

#[test]
fn lists_are_bounded_and_paged() {
    let mut world = World::new(DEFINITIONS);
    world.stop();
    world.set_limits("listed_events_kept = 7\n");
    world.start();
    send(&world, &event("first", "2001-01-01T12:00:00Z"));
    for i in 0..5 {
        let of = |j: usize| event(&format!("late {i} {j}"), "2001-01-01T01:00:00Z");
        send(&world, &(of(0) + &of(1)));
    }
    let all = list(&world, "late", "");
    let counts = (&all["total"], &all["kept"], &all["kept_max"], &all["listed"]);
    assert_eq!(counts, (&json!(10), &json!(7), &json!(7), &json!(7)));
    let expected = ["late 4 1", "late 4 0", "late 3 1", "late 3 0", "late 2 1", "late 2 0", "late 1 1"];
    assert_eq!(ids(&all), expected);
    let (mut found, mut parameters) = (Vec::new(), "?limit=3".to_owned());
    loop {
        let page = list(&world, "late", &parameters);
        found.extend(ids(&page).into_iter().map(str::to_owned));
        let Some(next) = page["next"].as_str() else { break };
        // Later events are newer and do not move pages.
        send(&world, &event(&format!("in between {}", found.len()), "2001-01-01T12:00:00Z"));
        parameters = format!("?limit=3&cursor={next}");
    }
    assert_eq!(found, expected);
    for (parameters, code) in [
        ("?limit=0", "invalid_parameter"),
        ("?limit=1001", "invalid_parameter"),
        ("?cursor=x", "invalid_parameter"),
        ("?before=1", "unknown_parameter"),
    ] {
        let refused = world.get(&format!("/v1/streams/events/late{parameters}"));
        assert_eq!((refused.status, &refused.json()["code"]), (400, &json!(code)), "{parameters}");
    }
    assert_eq!(world.get("/v1/streams/event/ahead").json()["code"], json!("unknown_stream"));
}

#[test]
fn rejected_lines_are_kept_with_their_text_and_not_counted() {
    let mut world = World::new(DEFINITIONS);
    let good = |id: &str| event(id, "2001-01-01T12:00:00Z");
    let long = "y".repeat(5_000);
    let body = format!("{}not json\n{{\"id\":\"x\"}}\n{}{{\"{long}\n", good("a"), good("b"));
    let key = [("Idempotency-Key", "k-1")];
    for _ in 0..2 {
        let answer = world.try_post("/v1/events/events", body.clone().into_bytes(), &key).expect("an answer").json();
        assert_eq!((&answer["accepted"], &answer["rejected"]), (&json!(2), &json!(3)), "{answer}");
    }
    send(&world, "[1]");
    assert_eq!(world.post("/v1/events/events?strict=true", "2").status, 422);

    let check = |world: &World| {
        let page = list(world, "quarantine", "");
        assert_eq!((&page["total"], &page["kept"], &page["dropped"]), (&json!(4), &json!(4), &json!(0)));
        let cut = format!("{{\"{}", &long[..4_094]);
        assert_eq!(
            texts(&page),
            ["1", &cut, "{\"id\":\"x\"}", "not json"],
            "the repetition under the key is kept once"
        );
        let lines = page["lines"].as_array().expect("lines");
        assert_eq!(
            (&lines[1]["truncated"], &lines[1]["bytes"], &lines[1]["line"]),
            (&json!(true), &json!(5_002), &json!(5))
        );
        assert_eq!(
            (&lines[2]["reason"], &lines[2]["truncated"]),
            (&json!("at: the event time may not be null"), &json!(false))
        );
        assert_eq!((&lines[2]["line"], &lines[2]["idempotency_key"]), (&json!(3), &json!("k-1")));
        assert_eq!(lines[0]["idempotency_key"], Value::Null);
        assert!(lines[0]["arrived_at"].as_str().is_some_and(|at| at.ends_with('Z')));
        let rows = world.rows("hourly", "");
        assert_eq!((&rows["rows"][0]["n"], &rows["ledger"]["accepted"]), (&json!(2), &json!(2)));
        assert_eq!(world.get("/v1/streams/events").json()["quarantine"], json!({"total": 4, "kept": 4, "dropped": 0}));
    };
    check(&world);
    assert_eq!(world.stop(), Some(0));
    world.start();
    check(&world);
    let first = list(&world, "quarantine", "?limit=1");
    let rest = list(&world, "quarantine", &format!("?limit=9&cursor={}", first["next"].as_str().expect("more")));
    assert_eq!((texts(&first), texts(&rest).len(), &rest["next"]), (vec!["1"], 3, &Value::Null));

    assert_eq!(world.delete("/v1/streams/events/quarantine").json(), json!({"removed": 4}));
    let expected = json!({"total": 0, "kept": 0, "dropped": 0, "kept_max": 10_000, "kept_bytes_max": 8 << 20, "lines": [],
                          "next": null});
    assert_eq!(list(&world, "quarantine", ""), expected);
    world.kill();
    world.start();
    assert_eq!(list(&world, "quarantine", ""), expected);
}

#[test]
fn the_quarantine_is_bounded_in_lines_bytes_and_disk() {
    let mut world = World::new(DEFINITIONS);
    world.stop();
    world.set_limits("quarantine_lines_max = 50\nquarantine_bytes_max = \"8 KiB\"\n");
    world.start();
    let bad = |from: usize, n: usize, length: usize| -> String {
        (from..from + n).map(|i| format!("line {i} {}\n", "z".repeat(length))).collect()
    };
    send(&world, &bad(0, 200, 0));
    let page = list(&world, "quarantine", "?limit=1000");
    let kept = page["kept"].as_u64().expect("a number");
    assert!((1..=50).contains(&kept), "{kept}");
    assert_eq!((&page["total"], &page["dropped"]), (&json!(200), &json!(200 - kept)));
    assert_eq!(page["lines"][0]["text"], json!("line 199"));
    for i in 0..20 {
        send(&world, &bad(200 + i * 10, 10, 1_000));
    }
    let page = list(&world, "quarantine", "?limit=1000");
    let bytes: usize = texts(&page).iter().map(|text| text.len()).sum();
    assert!((1_000..=8 << 10).contains(&bytes), "{bytes}");
    assert_eq!((&page["total"], page["lines"][0]["text"].as_str().map(|t| t.len())), (&json!(400), Some(1_009)));
    assert_eq!(world.stop(), Some(0));
    let folder = world.store().join("quarantine/events");
    let on_disk: u64 = std::fs::read_dir(folder)
        .expect("a folder")
        .map(|e| e.expect("an entry").metadata().expect("a file").len())
        .sum();
    assert!((1_000..=2 * (8 << 10)).contains(&on_disk), "{on_disk}");
    world.start();
    let again = list(&world, "quarantine", "?limit=1000");
    assert_eq!((&again["lines"][0], &again["total"]), (&page["lines"][0], &page["total"]));
    // More rejected lines than are kept per request; all are counted.
    let many = send(&world, &bad(0, 1_500, 0));
    assert_eq!(many["rejected"], json!(1_500));
    assert_eq!(list(&world, "quarantine", "")["total"], json!(1_900));
}

/// By HTTP, by `trueup ingest`, and by `trueup ingest --historical` in `tests/historical_ingest.rs`.
#[test]
fn a_null_primary_key_is_rejected_and_kept_in_the_quarantine() {
    let world = World::new(DEFINITIONS);
    let good = event("a", "2001-01-01T12:00:00Z");
    let bad = [r#"{"id":null,"at":"2001-01-01T12:00:00Z"}"#, r#"{"at":"2001-01-01T12:00:00Z"}"#];
    let lines = format!("{good}{}\n{}\n", bad[0], bad[1]);
    let array = format!("[{}]", lines.trim_end().replace('\n', ","));
    let rejected = json!([
        {"line": 2, "reason": "id: the primary key may not be null"},
        {"line": 3, "reason": "id: the primary key may not be null"},
    ]);
    for (body, accepted) in [(&lines, 1), (&array, 0)] {
        let answer = send(&world, body);
        assert_eq!((&answer["accepted"], &answer["rejections"]), (&json!(accepted), &rejected), "{answer}");
    }
    let path = world.data.path().join("events.ndjson");
    std::fs::write(&path, &lines).expect("the file can be written");
    let output =
        world.trueup().args(["ingest", "events", "--url", world.url()]).arg(&path).output().expect("trueup runs");
    assert_eq!(output.status.code(), Some(1));
    let page = list(&world, "quarantine", "");
    assert_eq!((&page["total"], texts(&page)), (&json!(6), bad.iter().rev().cycle().take(6).copied().collect()));
    assert_eq!(world.rows("hourly", "")["rows"][0]["n"], json!(1));
}

/// The same for one partition and for several, and after a restart.
#[test]
fn a_used_idempotency_key_is_refused_with_another_body() {
    let mut world = World::new(
        "CREATE STREAM one (id STRING PRIMARY KEY, at TIMESTAMP) WITH (event_time = 'at');
         CREATE STREAM many (id STRING PRIMARY KEY, at TIMESTAMP) WITH (event_time = 'at', partitions = 4);",
    );
    let body =
        |from: usize| -> String { (from..from + 2).map(|id| event(&id.to_string(), "2001-01-01T12:00:00Z")).collect() };
    let post = |world: &World, stream: &str, body: String| {
        let key = [("Idempotency-Key", "k")];
        world.try_post(&format!("/v1/events/{stream}"), body.into_bytes(), &key).expect("an answer")
    };
    for stream in ["one", "many"] {
        let first = post(&world, stream, body(0));
        assert_eq!((first.status, &first.json()["accepted"]), (200, &json!(2)));
        for round in ["before a restart", "after a restart"] {
            // For events of any partitions.
            for other in 1..8 {
                let refused = post(&world, stream, body(2 * other));
                assert_eq!(refused.status, 422, "{stream} {round}: {}", refused.text);
                assert_eq!(refused.json()["code"], json!("idempotency_key_reused"));
            }
            assert_eq!(post(&world, stream, body(0)).json(), first.json(), "{stream} {round}");
            let accepted = world.get(&format!("/v1/streams/{stream}")).json()["partitions"].clone();
            let accepted = accepted.as_array().expect("partitions").iter().filter_map(|p| p["accepted"].as_u64());
            assert_eq!(accepted.sum::<u64>(), 2, "{stream} {round}");
            if round == "before a restart" {
                world.kill();
                world.start();
            }
        }
    }
}

#[test]
fn an_idle_partition_is_ignored_and_the_watermark_never_goes_back() {
    let idle_timeout = Duration::from_secs(4);
    let definitions = "
        CREATE STREAM probe (id STRING PRIMARY KEY, at TIMESTAMP) WITH (event_time = 'at', partitions = 2);
        CREATE STREAM events (id STRING PRIMARY KEY, at TIMESTAMP)
        WITH (event_time = 'at', idle_timeout = '4 seconds', allowed_lateness = '30 days', partitions = 2);
        CREATE VIEW hourly AS SELECT window_start, COUNT(*) AS n FROM events GROUP BY TUMBLE(at, INTERVAL '1' HOUR);";
    let world = World::new(definitions);
    let event = |id: usize, at: &str| json!({"id": format!("e{id}"), "at": format!("2001-01-01T{at}Z")}).to_string();
    // The hash of an id decides its partition, equally in every stream.
    let (mut zero, mut one) = (Vec::new(), Vec::new());
    for id in 0..100 {
        let answer = world.post("/v1/events/probe", event(id, "00:00:00")).json();
        let to = if answer["offsets"].get("0").is_some() { &mut zero } else { &mut one };
        to.push(id);
    }
    let mut to_zero = |at: &str| send(&world, &event(zero.pop().expect("enough ids"), at));
    let mut to_one = |at: &str| send(&world, &event(one.pop().expect("enough ids"), at));
    let watermark = || {
        let (rows, stream) = (world.rows("hourly", ""), world.get("/v1/streams/events").json());
        assert_eq!(rows["watermark"], stream["watermark"], "readers of a view and of the stream see the same");
        rows["watermark"].as_str().expect("a time").trim_start_matches("2001-01-01T").trim_end_matches('Z').to_owned()
    };
    to_zero("05:00:00");
    assert_eq!(watermark(), "05:00:00", "a partition that never had an event holds nobody");
    let fed = Instant::now();
    to_one("03:00:00");
    assert_eq!(watermark(), "05:00:00", "its first event is behind and moves nothing back");
    to_zero("07:00:00");
    let silent_since = Instant::now();
    to_one("06:00:00");
    let seen = watermark();
    if fed.elapsed() < idle_timeout {
        assert_eq!(seen, "06:00:00", "the smaller of the two");
    }
    let mut minute = 0;
    world.wait_for("the silent partition to be let go", |_| {
        minute += 1;
        to_zero(&format!("08:{minute:02}:00"));
        let seen = watermark();
        if seen == "06:00:00" {
            std::thread::sleep(Duration::from_millis(200));
            return false;
        }
        assert!(silent_since.elapsed() >= idle_timeout, "let go too early: {seen}");
        seen == format!("08:{minute:02}:00")
    });
    to_one("06:30:00");
    assert_eq!(watermark(), format!("08:{minute:02}:00"), "it is back, and behind");
    to_zero("10:00:00");
    let fed = Instant::now();
    to_one("09:00:00");
    let seen = watermark();
    if fed.elapsed() < idle_timeout {
        assert_eq!(seen, "09:00:00");
    }
}

/// How far each flight is behind the latest one before it, in minutes, in the order of the file; sorted.
fn flights_behind() -> Vec<i64> {
    let file = flights_file();
    let times = LazyFrame::scan_parquet(PlRefPath::new(file.to_str().expect("UTF-8")), Default::default())
        .expect("the flights")
        .select([col("scheduled_at").cast(DataType::Int64)])
        .collect()
        .expect("Polars answers");
    let times = times.column("scheduled_at").expect("a column").i64().expect("integers").clone();
    let mut latest = i64::MIN;
    let mut behind: Vec<i64> = Vec::with_capacity(times.len());
    for time in times.iter().flatten() {
        latest = latest.max(time);
        behind.push(latest - time);
    }
    behind.sort_unstable();
    behind
}

#[test]
fn real_flights_are_measured_and_the_suggestion_fits_them() {
    let definitions = std::fs::read_to_string(flights_file().with_extension("sql")).expect("the definitions");
    let world = World::new(&definitions);
    world.ingest("flights", &flights_file());

    let behind = flights_behind();
    let at = |q: f64| behind[((q * behind.len() as f64).ceil() as usize).max(1) - 1];
    let stream = world.get("/v1/streams/flights").json();
    let lateness = &stream["lateness"];
    assert_eq!(lateness["measured"], json!(behind.len()));
    let per_ms = at(1.0) as f64 / lateness["max_ms"].as_f64().expect("a number");
    assert!(per_ms == 1_000.0 || per_ms == 1.0, "the file's unit is milliseconds or microseconds: {per_ms}");
    for (name, q) in [("p50", 0.5), ("p90", 0.9), ("p95", 0.95), ("p99", 0.99), ("p99.9", 0.999)] {
        let (found, exact) = (lateness["quantiles_ms"][name].as_f64().expect("a number"), at(q) as f64 / per_ms);
        assert!((found - exact).abs() <= 0.01 * exact, "{name}: {found} is not {exact} within 1 %");
    }
    // As the file's documentation says: 35 minutes in the median, 169 for one flight in a hundred.
    let minutes = |q: f64| at(q) as f64 / per_ms / 60_000.0;
    assert_eq!((minutes(0.5), minutes(0.99)), (35.0, 169.0));
    // One hour of delay and four of lateness, as in flights.sql.
    let late = behind.iter().filter(|b| **b as f64 / per_ms >= 5.0 * 3_600_000.0).count();
    let share = lateness["late_share"].as_f64().expect("a number");
    assert!((share - late as f64 / behind.len() as f64).abs() < 1e-12, "{share}");
    let counted: u64 =
        stream["partitions"].as_array().expect("partitions").iter().filter_map(|p| p["late"].as_u64()).sum();
    assert_eq!(counted, late as u64, "the log's own rule says the same");
    let listed = world.get("/v1/streams/flights/late?limit=1").json();
    assert_eq!(listed["total"], json!(late));

    // With the suggested settings, at most one flight in a hundred is behind the watermark and one in a thousand late.
    let suggested = &lateness["suggested"];
    let (delay, allowed) = (suggested["watermark_delay"].as_str(), suggested["allowed_lateness"].as_str());
    let (delay, allowed) = (delay.expect("a length"), allowed.expect("a length"));
    let declared = definitions
        .replace("watermark_delay = '1 hour'", &format!("watermark_delay = '{delay}'"))
        .replace("allowed_lateness = '4 hours'", &format!("allowed_lateness = '{allowed}'"));
    assert!(declared.contains(delay) && declared.contains(allowed), "{delay}, {allowed}");
    let fitted = World::new(&declared);
    fitted.ingest("flights", &flights_file());
    let fitted = fitted.get("/v1/streams/flights").json();
    let share = |name: &str| fitted["lateness"][name].as_f64().expect("a share");
    assert!(share("behind_watermark_share") <= 0.01, "{}", fitted["lateness"]);
    assert!(share("late_share") <= 0.001, "{}", fitted["lateness"]);

    let shown = world.trueup().args(["streams", "flights", "--url", world.url()]).output().expect("trueup runs");
    let text = String::from_utf8(shown.stdout).expect("UTF-8");
    for part in [
        "disorder    p50 ",
        &format!("watermark_delay = '{delay}', allowed_lateness = '{allowed}'"),
        "quarantine  keeps 0 of 0",
    ] {
        assert!(text.contains(part), "{part} is not in\n{text}");
    }
}
