//! Tests the retention of streams: dates are dropped, windows made of them stay frozen, and requests for dropped dates
//! are refused with a reason.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use world::World;
use world::changing_view::plan;
use world::program::trueup;

const MINUTE_MS: i64 = 60_000;

/// Speed accepts events of any age, so it shows events that a run excludes.
const DEFINITIONS: &str = "
    CREATE STREAM s (at TIMESTAMP, n BIGINT) WITH (event_time = 'at', watermark_delay = '100 days', RETENTION max_ahead = '1 hour');
    CREATE VIEW quarters AS SELECT window_start, COUNT(*) AS c, SUM(n) AS total FROM s GROUP BY TUMBLE(at, INTERVAL '6' HOUR);
    CREATE VIEW hops AS SELECT window_start, COUNT(*) AS c, SUM(n) AS total FROM s GROUP BY HOP(at, INTERVAL '12' HOUR, INTERVAL '2' DAY);
    CREATE VIEW visits AS SELECT window_start, COUNT(*) AS c, SUM(n) AS total FROM s GROUP BY SESSION(at, INTERVAL '30' MINUTE);";
const VIEWS: [&str; 3] = ["quarters", "hops", "visits"];

fn definitions(retention: &str) -> String {
    let option = if retention.is_empty() { String::new() } else { format!("retention = '{retention}',") };
    DEFINITIONS.replace("RETENTION", &option)
}

fn now_ms() -> i64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("after 1970");
    i64::try_from(now.as_millis()).expect("a time")
}

/// An event every `step` minutes, of the days between `from_days` and `to_days` ago.
fn aged(now: i64, from_days: i64, to_days: i64, step: i64) -> String {
    let mut ages: Vec<i64> = (to_days * 1_440 / step..from_days * 1_440 / step).map(|i| i * step).collect();
    ages.reverse();
    ages.into_iter()
        .enumerate()
        .map(|(i, age)| json!({"at": now - age * MINUTE_MS, "n": i}).to_string() + "\n")
        .collect()
}

/// The values and the finality of each row of `view`, by the start of its window.
fn rows(world: &World, view: &str, parameters: &str) -> BTreeMap<String, (Value, Value, String)> {
    let answer = world.rows(view, parameters);
    assert_eq!(answer["complete"], json!(true), "{view}: {}", answer["ledger"]);
    let row = |row: &Value| {
        let finality = row["_finality"].as_str().expect("a finality").to_owned();
        (row["window_start"].as_str().expect("a start").to_owned(), (row["c"].clone(), row["total"].clone(), finality))
    };
    answer["rows"].as_array().expect("rows").iter().map(row).collect()
}

/// The rows that start before `first`, without their finality.
fn before(rows: &BTreeMap<String, (Value, Value, String)>, first: &str) -> BTreeMap<String, (Value, Value)> {
    let early = rows.iter().filter(|(start, _)| start.as_str() < first);
    early.map(|(start, (c, total, _))| (start.clone(), (c.clone(), total.clone()))).collect()
}

fn run_all(world: &World, full: bool) {
    for view in VIEWS {
        let run = world.run(view, full);
        assert_eq!(run["state"], json!("published"), "{run}");
    }
}

fn causes(world: &World, view: &str) -> Value {
    world.get(&format!("/v1/views/{view}/compare")).json()["causes"].clone()
}

fn compact(world: &World) -> Value {
    let answer = world.post("/v1/streams/s/compact", r#"{"vacuum_older_than_ms": 0}"#);
    assert_eq!(answer.status, 200, "{}", answer.text);
    answer.json()
}

/// A world with twelve days of events in versions of all views, restarted with a retention of five days.
fn aging(now: i64) -> World {
    let mut world = World::new(&definitions(""));
    assert_eq!(world.stop(), Some(0));
    world.set_limits("archive_wait_ms = 5\n");
    world.start();
    assert_eq!(world.post("/v1/events/s", aged(now, 12, 0, 45)).status, 200);
    run_all(&world, false);
    assert_eq!(world.stop(), Some(0));
    let (code, text) = plan(&world, &definitions("5 days"), &[]);
    assert_eq!(code, Some(0), "{text}");
    assert!(text.contains("retention") && text.contains("drops ") && text.contains(" dates: all from "), "{text}");
    world.redefine(&definitions("5 days"));
    world.start();
    world
}

#[test]
fn windows_of_dropped_dates_keep_their_values() {
    let now = now_ms();
    let mut world = aging(now);
    let whole: BTreeMap<&str, _> = VIEWS.into_iter().map(|view| (view, rows(&world, view, ""))).collect();
    let done = compact(&world);
    assert!(done["events_dropped"].as_u64() > Some(100), "{done}");
    assert!(done["dates_dropped"].as_u64() >= Some(6), "{done}");
    let first = done["retained_from"].as_str().expect("a date").to_owned();
    world.wait_for("the stream's status", |world| world.get("/v1/streams/s").json()["retained_from"] == json!(first));
    assert_eq!(world.get("/v1/streams/s").json()["retention"], json!("5 days"));
    let (code, text) = trueup(&["streams", "s", "--url", world.url()]);
    assert!(
        code == Some(0) && text.contains(&format!("keeps events for 5 days; events before {first} are dropped")),
        "{text}"
    );

    // Late events: speed shows them until a run finds that their dates are dropped, and reports it.
    let late = aged(now, 11, 9, 45);
    assert_eq!(world.post("/v1/events/s", late.clone()).status, 200);
    assert_ne!(before(&rows(&world, "quarters", ""), &first), before(&whole["quarters"], &first));
    run_all(&world, false);
    for view in VIEWS {
        let causes = causes(&world, view);
        assert!(causes["retention"].as_u64() > Some(0) && causes["unexplained"] == json!(0), "{view}: {causes}");
        let status = world.get(&format!("/v1/views/{view}")).json();
        assert_eq!(status["frozen_before"], json!(first), "{status}");
        assert_eq!(status["past_retention"].as_u64(), Some(late.lines().count() as u64), "{view}");
        assert!(status["alarm"].is_null(), "{status}");
    }
    let same = |world: &World, when: &str| {
        for view in VIEWS {
            let now = rows(world, view, "");
            assert_eq!(before(&now, &first), before(&whole[view], &first), "{view} {when}");
            for (start, (.., finality)) in &now {
                assert_eq!(finality == "frozen", start.as_str() < first.as_str(), "{view} {start} {when}");
            }
        }
    };
    same(&world, "after a run");
    let csv = world.get("/v1/views/quarters/rows.csv").text;
    let is_frozen = |line: &&str| line.ends_with(",frozen");
    assert_eq!(csv.lines().filter(is_frozen).count(), before(&whole["quarters"], &first).len(), "{csv}");

    // From now on speed excludes them, and the ledger still counts the events.
    assert_eq!(world.post("/v1/events/s", late + &aged(now, 1, 0, 50)).status, 200);
    same(&world, "with late events in speed");
    assert_eq!(before(&rows(&world, "quarters", "&layer=speed"), &first).len(), 0);
    run_all(&world, true);
    same(&world, "after a full run");
    for view in VIEWS {
        assert_eq!(
            (&causes(&world, view)["retention"], &causes(&world, view)["unexplained"]),
            (&json!(0), &json!(0)),
            "{view}"
        );
    }
    // The late events are dropped as well, and the ledger balances.
    let again = compact(&world);
    assert!(again["events_dropped"].as_u64() > Some(0) && again["retained_from"] == json!(first), "{again}");
    run_all(&world, false);
    same(&world, "after what was late is gone, too");

    // A longer retention restores nothing.
    assert_eq!(world.stop(), Some(0));
    world.redefine(&definitions("90 days"));
    world.start();
    run_all(&world, true);
    same(&world, "with a longer retention");
    assert_eq!(compact(&world)["retained_from"], json!(first));
}

#[test]
fn requests_for_dropped_dates_are_refused_with_a_reason() {
    let now = now_ms();
    let mut world = aging(now);
    let first = compact(&world)["retained_from"].as_str().expect("a date").to_owned();
    run_all(&world, false);

    let backfill = json!({"from": "2001-01-01", "to": "2200-01-01"}).to_string();
    let refused = world.post("/v1/views/quarters/runs", backfill);
    assert_eq!((refused.status, refused.json()["code"].as_str()), (409, Some("events_dropped")), "{}", refused.text);
    assert!(refused.text.contains(&format!("Ask for days from {first} on")), "{}", refused.text);
    let url = world.url().to_owned();
    let (code, text) =
        trueup(&["batch", "backfill", "quarters", "--from", &first, "--to", "2200-01-01", "--wait", "--url", &url]);
    assert_eq!(code, Some(0), "{text}");

    // Lines of dropped dates are rejected one by one, and the others imported.
    let file = world.data.path().join("old.ndjson");
    let old = json!({"at": now - 11 * 1_440 * MINUTE_MS, "n": 1}).to_string();
    let young = json!({"at": now - 60 * MINUTE_MS, "n": 2}).to_string();
    std::fs::write(&file, format!("{old}\n\n{young}\n{old}\n")).expect("the file can be written");
    let (text, rejects) = (world.data.path().join("definitions.sql"), world.data.path().join("rejects.ndjson"));
    let [file, text, rejects_file, data] =
        [&file, &text, &rejects, &world.store()].map(|path| path.display().to_string());
    let (code, text) = trueup(&[
        "ingest",
        "s",
        &file,
        "--historical",
        "--definitions",
        &text,
        "--data",
        &data,
        "--rejects",
        &rejects_file,
    ]);
    assert_eq!(code, Some(1), "{text}");
    assert!(text.contains(&format!("is before {first}: the retention of")), "{text}");
    let rejected = std::fs::read_to_string(&rejects).expect("rejects");
    let lines: Vec<Value> = rejected.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    assert_eq!(lines.iter().map(|line| line["line"].clone()).collect::<Vec<_>>(), [json!(1), json!(4)], "{rejected}");
    assert_eq!(lines[0]["text"], json!(old));
    run_all(&world, false);

    // A changed view loses its frozen windows, a new one starts with the first kept date; the plan reports both.
    let changed = definitions("5 days")
        .replace("SUM(n) AS total FROM s GROUP BY TUMBLE", "MAX(n) AS total FROM s GROUP BY TUMBLE")
        + " CREATE VIEW late AS SELECT window_start, COUNT(*) AS c FROM s GROUP BY TUMBLE(at, INTERVAL '1' HOUR);";
    assert_eq!(world.stop(), Some(0));
    let (code, text) = plan(&world, &changed, &[]);
    assert_eq!(code, Some(0), "{text}");
    assert!(text.contains(&format!("events before {first} have been dropped and cannot be restored")), "{text}");
    assert!(text.contains(&format!("starts with {first}: the stream's retention has dropped")), "{text}");
    assert!(text.contains("loses ") && text.contains("which cannot be recomputed"), "{text}");
    world.redefine(&changed);
    world.start();
    world.wait_for("the changed view", |world| world.get("/v1/views/quarters").json()["shadow"].is_null());
    assert_eq!(world.run("late", false)["state"], json!("published"));
    for view in ["quarters", "late"] {
        assert_eq!(world.get(&format!("/v1/views/{view}")).json()["retained_from"], json!(first), "{view}");
        let starts = world.rows(view, "")["rows"].as_array().expect("rows").clone();
        assert!(!starts.is_empty() && starts.iter().all(|row| row["window_start"].as_str() >= Some(&first)), "{view}");
    }

    // A window over all time can never be complete again, even without the retention.
    assert_eq!(world.stop(), Some(0));
    let ever = definitions("5 days") + " CREATE VIEW ever AS SELECT COUNT(*) AS c FROM s;";
    let (code, text) = plan(&world, &ever, &[]);
    assert!(code != Some(0) && text.contains("`ever` adds up all time") && text.contains("add a window"), "{text}");
    let ever = definitions("") + " CREATE VIEW ever AS SELECT COUNT(*) AS c FROM s;";
    let (code, text) = plan(&world, &ever, &[]);
    assert!(code == Some(1) && text.contains("refused: it aggregates all time"), "{text}");
    world.redefine(&ever);
    let (code, text) = world.start_refused();
    assert!(code == Some(1) && text.contains("view ever: it aggregates all time"), "{text}");
}
