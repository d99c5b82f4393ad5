//! Tests historical events in the real program: in random histories with live events, runs, restarts and kills of either
//! process, no result differs from the oracle, and every event of every file is there once.

use std::collections::HashSet;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use proptest::prelude::*;
use serde_json::{Value, json};
use world::oracle::events::{DAY, Event, Log, PATIENT, SECOND, ndjson};
use world::oracle::measures::Row;
use world::oracle::plain::{NAMES, views};
use world::oracle::table::{Coverage, compare};
use world::oracle::views::View;
use world::oracle_check::{definitions, post};
use world::program::text;
use world::{World, flights_file};

/// 2001-09-09.
const BEGIN: i64 = 1_000_000_000_000_000;

/// `trueup ingest --historical` over the data of a world.
fn ingest(world: &World, stream: &str, files: &[PathBuf], more: &[&str]) -> Command {
    let mut command = world.trueup();
    command.args(["ingest", stream, "--historical", "--definitions"]).arg(world.data.path().join("definitions.sql"));
    command.arg("--data").arg(world.store()).args(more).args(files);
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

fn rejects(world: &World) -> PathBuf {
    world.store().join("rejected/events.ndjson")
}

/// Imports files completely; returns the output.
fn import(world: &World, stream: &str, files: &[PathBuf], more: &[&str]) -> String {
    let output = ingest(world, stream, files, more).output().expect("trueup runs");
    assert_eq!(output.status.code(), Some(0), "{}", text(&output));
    text(&output)
}

fn file(world: &World, name: &str, content: &[u8]) -> PathBuf {
    let path = world.data.path().join(name);
    std::fs::write(&path, content).expect("the file can be written");
    path
}

/// Checks a view whose version covers the historical events `history`.
fn check(world: &World, log: &Log, history: &[Event], view: &View, context: &str) {
    let context = format!("{context}: {}", view.name);
    let answer = world.rows(&view.name, "");
    let offset = |p: &str| answer["seam"]["offsets"][p].as_u64().unwrap_or(0) as usize;
    let historical = &history[..offset("1000000")];
    // Of the events with one id on one date, the live one is kept, otherwise the first historical one. Only events
    // before the seam count.
    let before: usize = (0..PATIENT.partitions).map(|p| offset(&p.to_string())).sum();
    let date = |event: &Event| event.at.div_euclid(DAY);
    let mut ids: HashSet<(&str, i64)> = HashSet::new();
    for accepted in &log.accepted[..before] {
        ids.extend(accepted.event.id.as_deref().map(|id| (id, date(&accepted.event))));
    }
    let mut rows = view.counted(log, before, true, true);
    for event in historical {
        if event.id.as_deref().is_none_or(|id| ids.insert((id, date(event)))) && view.accepts(event) {
            rows.push(Row { offset: 0, event });
        }
    }
    let by: Vec<usize> = (0..view.dimensions.len()).collect();
    compare(&answer, view, &by, &view.groups(&rows, &by, 0), &mut Coverage::default())
        .unwrap_or_else(|e| panic!("{context}: {e}"));
    let ledger = &answer["ledger"];
    let count = |part: &str| ledger[part].as_u64().expect("a count") as usize;
    assert_eq!(answer["complete"], json!(true), "{context}: {ledger}");
    assert_eq!(count("accepted"), log.accepted.len() + historical.len(), "{context}: {ledger}");
    assert_eq!(count("batch") + count("speed") + count("late"), count("accepted"), "{context}: {ledger}");
}

#[derive(Debug, Clone)]
enum Step {
    Post(Vec<Event>),
    Ingest { events: Vec<Event>, packed: bool, killed: Option<&'static str> },
    Run { view: usize, full: bool },
    Kill,
    Stop,
}

fn event() -> impl Strategy<Value = Event> {
    (
        0u32..60,
        prop_oneof![4 => 0i64..120, 2 => -200_000i64..200_000, 1 => Just(-1_000_000_100i64)],
        prop::option::weighted(0.8, prop::sample::select(vec!["north", "south", "größer"])),
        prop::option::weighted(0.8, -20i64..20),
        prop::option::weighted(0.9, -2i32..2),
        any::<Option<bool>>(),
    )
        .prop_map(|(id, seconds, region, amount, code, flag)| Event {
            id: Some(format!("e{id}")),
            at: BEGIN + seconds * SECOND + i64::from(id),
            region: region.map(str::to_owned),
            amount,
            price: amount.map(|a| a as f64 / 4.0),
            cost_cents: amount.map(|a| a * 3),
            code,
            flag,
            day: None,
        })
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let events = || prop::collection::vec(event(), 1..40);
    let killed = prop::option::weighted(0.4, prop::sample::select(vec!["history-written", "history-committed"]));
    let step = prop_oneof![
        4 => events().prop_map(Step::Post),
        4 => (events(), any::<bool>(), killed).prop_map(|(events, packed, killed)| Step::Ingest { events, packed, killed }),
        4 => (0usize..3, any::<bool>()).prop_map(|(view, full)| Step::Run { view, full }),
        1 => Just(Step::Kill),
        1 => Just(Step::Stop),
    ];
    prop::collection::vec(step, 3..12)
}

fn cases() -> u32 {
    std::env::var("TRUEUP_CASES").ok().and_then(|n| n.parse().ok()).unwrap_or(12)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(), max_shrink_iters: 20, ..ProptestConfig::default() })]

    #[test]
    fn historical_and_live_events_add_up_in_random_histories(steps in steps()) {
        let views = views();
        let mut world = World::new(&definitions(PATIENT, &views));
        let (mut log, mut history) = (Log::new(PATIENT), Vec::new());
        for (number, step) in steps.iter().enumerate() {
            let context = format!("step {number}");
            match step {
                Step::Post(events) => post(&world, &mut log, events),
                Step::Ingest { events, packed, killed } => {
                    let lines = ndjson(events).into_bytes();
                    let path = match packed {
                        true => file(&world, &format!("{number}.zst"), &zstd::encode_all(&lines[..], 1).expect("packs")),
                        false => file(&world, &format!("{number}.ndjson"), &lines),
                    };
                    // The same content may have been imported before.
                    if let Some(step) = killed {
                        let output = ingest(&world, "events", std::slice::from_ref(&path), &[])
                            .env("TRUEUP_FAIL_AT", step).output().expect("trueup runs");
                        prop_assert!(!output.status.success() || text(&output).contains("already imported"));
                    }
                    let output = import(&world, "events", std::slice::from_ref(&path), &[]);
                    let known = *killed == Some("history-committed");
                    prop_assert_eq!(output.contains("already imported"), known, "{}", output);
                    history.extend(events.iter().cloned());
                    prop_assert!(import(&world, "events", &[path], &[]).contains("ingested 0 events"));
                }
                Step::Run { view, full } => {
                    let run = world.run(NAMES[*view], *full);
                    prop_assert_eq!(&run["state"], &json!("published"), "{}: {}", context, run);
                    prop_assert_eq!(run["cut"]["1000000"].as_u64().unwrap_or(0), history.len() as u64);
                    let drift = world.get(&format!("/v1/views/{}/compare", NAMES[*view]));
                    prop_assert!(drift.status != 200 || drift.json()["causes"]["unexplained"] == json!(0), "{}", drift.text);
                }
                Step::Kill => {
                    world.kill();
                    world.start();
                }
                Step::Stop => {
                    prop_assert_eq!(world.stop(), Some(0));
                    world.start();
                }
            }
            for view in &views {
                // A view without a version starts a run by itself if it finds historical events at the start.
                if matches!(step, Step::Kill | Step::Stop) {
                    world.wait_for("its first run", |world| world.rows(&view.name, "")["complete"] == json!(true));
                }
                check(&world, &log, &history, view, &context);
            }
        }
        for full in [false, true] {
            for view in &views {
                world.run(&view.name, full);
                check(&world, &log, &history, view, if full { "full" } else { "incremental" });
            }
        }
    }
}

fn numbered(from: usize, to: usize, prefix: &str) -> Vec<Event> {
    let event = |i: usize| Event {
        id: Some(format!("{prefix}{i}")),
        at: BEGIN + (i as i64 * 7_919 % 1_000_003) * SECOND,
        region: Some("north".to_owned()),
        amount: Some(i as i64),
        code: Some(1),
        ..Event::default()
    };
    (from..to).map(event).collect()
}

fn totals(world: &World) -> (u64, u64) {
    let answer = world.rows("signs", "&grain=all&group_by=");
    let doubled = answer["rows"][0]["doubled"].as_u64().unwrap_or(0);
    (answer["rows"][0]["n"].as_u64().unwrap_or(0), doubled)
}

#[test]
fn an_ingest_killed_at_any_moment_imports_every_event_once() {
    let world = World::new(&definitions(PATIENT, &views()));
    let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    packed.write_all(ndjson(&numbered(0, 30_000, "a")).as_bytes()).expect("packs");
    let first = file(&world, "a.gz", &packed.finish().expect("packs"));
    let second = file(&world, "b.ndjson", ndjson(&numbered(30_000, 50_000, "b")).as_bytes());
    let spawn = |files: &[PathBuf]| -> Child {
        ingest(&world, "events", files, &["--memory", "256KiB"]).spawn().expect("trueup runs")
    };
    let mut other = spawn(std::slice::from_ref(&second));
    let both = [first.clone(), second.clone()];
    let (mut kills, mut posted) = (0, 50_000);
    for wait_ms in (0..).map(|attempt| 60 + attempt * 37) {
        let mut child = spawn(&both[..1]);
        std::thread::sleep(Duration::from_millis(wait_ms));
        let live = numbered(posted, posted + 100, "live");
        assert_eq!(world.post("/v1/events/events", ndjson(&live)).status, 200);
        posted += 100;
        if child.try_wait().expect("a status").is_some() {
            break;
        }
        child.kill().expect("it can be killed");
        child.wait().expect("it ends");
        kills += 1;
    }
    assert!(kills > 1, "killed {kills} times only");
    assert!(other.wait().expect("it ends").success());
    let output = import(&world, "events", &both, &[]);
    assert!(output.contains("ingested 0 events from 0 files, rejected 0; 2 files already imported"), "{output}");
    // Two ingests of one file at once: one of them refuses.
    let third = file(&world, "c.ndjson", ndjson(&numbered(posted, posted + 20_000, "c")).as_bytes());
    let children: Vec<Child> = (0..2).map(|_| spawn(std::slice::from_ref(&third))).collect();
    for child in children {
        let output = child.wait_with_output().expect("it ends");
        let printed = text(&output);
        assert!(output.status.success() || printed.contains("another process is ingesting the same file"), "{printed}");
    }
    import(&world, "events", &[third], &[]);
    let all = posted as u64 + 20_000;
    for full in [false, true] {
        let run = world.run("signs", full);
        assert_eq!(run["state"], json!("published"), "{run}");
        assert_eq!(run["cut"]["1000000"], json!(70_000), "{run}");
        assert_eq!(totals(&world), (all, all * (all - 1)));
    }
    world.wait_for("the count", |world| world.get("/v1/streams/events").json()["historical"] == json!(70_000));
    let again = import(&world, "events", &[first], &["--again"]);
    assert!(again.contains("ingested 30,000 events"), "{again}");
    assert_eq!(world.run("signs", false)["cut"]["1000000"], json!(100_000));
    assert_eq!(totals(&world), (all, all * (all - 1)), "the same ids on the same dates count once");
}

#[test]
fn historical_flights_give_the_results_of_live_ones() {
    let definitions = "
        CREATE STREAM flights (flight_id STRING PRIMARY KEY, scheduled_at TIMESTAMP, reported_at TIMESTAMP, origin STRING,
                               destination STRING, delay_min BIGINT, distance_mi BIGINT)
        WITH (event_time = 'scheduled_at', partitions = 2);
        CREATE VIEW departures AS
        SELECT window_start, window_end, origin, COUNT(*) AS flights, SUM(delay_min) AS delay, MAX(distance_mi) AS far,
               COUNT(DISTINCT destination) AS destinations
        FROM flights GROUP BY TUMBLE(scheduled_at, INTERVAL '1' HOUR), origin;";
    let mut old = World::new(definitions);
    assert_eq!(old.stop(), Some(0));
    let output = import(&old, "flights", &[flights_file()], &["--memory", "16MiB"]);
    assert!(output.starts_with("ingested 245,522 events from 1 file, rejected 0 ("), "{output}");
    // A server over an empty log and a full archive: the view reports that it is incomplete, and a run completes it.
    old.start();
    old.wait_for("the first run", |world| {
        let answer = world.rows("departures", "&grain=all&group_by=");
        assert_eq!(answer["ledger"]["accepted"], json!(245_522), "{answer}");
        let n = answer["rows"][0]["flights"].as_u64().unwrap_or(0);
        assert_eq!(answer["complete"], json!(n == 245_522), "{answer}");
        n == 245_522
    });
    let run = old.get("/v1/runs").json()["runs"][0].clone();
    assert_eq!((&run["trigger"], &run["full"]), (&json!("start"), &json!(true)), "{run}");

    let live = World::new(definitions);
    live.ingest("flights", &flights_file());
    assert_eq!(live.run("departures", true)["state"], json!("published"));
    let rows = |world: &World| -> Vec<Value> {
        let mut rows = world.rows("departures", "&layer=batch")["rows"].as_array().expect("rows").clone();
        for row in rows.iter_mut().filter_map(Value::as_object_mut) {
            row.retain(|name, _| !name.starts_with('_'));
        }
        rows
    };
    assert_eq!(rows(&old), rows(&live));
}

#[test]
fn differences_caused_by_historical_events_are_named() {
    let world = World::new(&definitions(PATIENT, &views()));
    assert_eq!(world.post("/v1/events/events", ndjson(&numbered(0, 50, "live"))).status, 200);
    assert_eq!(world.run("signs", false)["state"], json!("published"));
    let path = file(&world, "old.ndjson", ndjson(&numbered(0, 50, "old")).as_bytes());
    import(&world, "events", &[path], &[]);
    assert_eq!(totals(&world).0, 50, "not before the next run");
    assert_eq!(world.run("signs", false)["state"], json!("published"));
    assert_eq!(totals(&world).0, 100);
    let drift = world.get("/v1/views/signs/compare").json();
    let causes = drift["causes"].as_object().expect("causes");
    let sum: u64 = causes.values().filter_map(Value::as_u64).sum();
    assert_eq!(causes["historical"].as_u64(), Some(sum), "{drift}");
    assert!(sum > 0 && drift["rows"][0]["cause"] == json!("historical"), "{drift}");
    let output = trueup(&world, &["compare", "signs"]);
    assert!(text(&output).contains(&format!("late 0, historical {sum}, ")), "{}", text(&output));
    world.wait_for("the line", |world| text(&trueup(world, &["streams"])).contains("historical"));
}

fn trueup(world: &World, arguments: &[&str]) -> Output {
    world.trueup().args(arguments).args(["--url", world.url()]).output().expect("trueup runs")
}

#[test]
fn rejected_lines_are_listed_and_kept_and_unfit_files_are_refused() {
    let world = World::new(&definitions(PATIENT, &views()));
    let lines = "{\"id\":\"x\",\"at\":\"2001-01-01T00:00:00Z\"}\nnot json\n\n{\"id\":\"y\"}\n{\"id\":\"z\",\"at\":1}\n{\"at\":1}\n";
    let path = file(&world, "some.ndjson", lines.as_bytes());
    let output = ingest(&world, "events", std::slice::from_ref(&path), &[]).output().expect("trueup runs");
    let printed = text(&output);
    assert_eq!(output.status.code(), Some(1), "{printed}");
    assert!(printed.contains("ingested 2 events from 1 file, rejected 3"), "{printed}");
    assert!(printed.contains("some.ndjson:2: ") && printed.contains("some.ndjson:4: "), "{printed}");
    let kept = std::fs::read_to_string(rejects(&world)).expect("a file");
    let kept: Vec<Value> = kept.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    assert_eq!((kept.len(), &kept[0]["line"], &kept[0]["text"]), (3, &json!(2), &json!("not json")));
    assert_eq!((&kept[2]["line"], &kept[2]["reason"]), (&json!(6), &json!("id: the primary key may not be null")));

    let refused = |files: &[PathBuf], stream: &str| -> String {
        let output = ingest(&world, stream, files, &[]).output().expect("trueup runs");
        assert!(!output.status.success());
        text(&output)
    };
    let output = refused(&[flights_file()], "events");
    assert!(
        output.contains(
            "the columns do not fit the stream: id: the primary key is missing; at: the event time is missing"
        ),
        "{output}"
    );
    assert!(refused(std::slice::from_ref(&path), "evnts").contains("declared streams: events"));
    assert!(refused(&[Path::new("-").to_owned()], "events").contains("standard input"));
    assert_eq!(world.run("totals", false)["cut"]["1000000"], json!(2));
}

#[test]
fn a_backfill_recomputes_its_range_even_without_changes() {
    let world = World::new(&definitions(PATIENT, &views()));
    let mut log = Log::new(PATIENT);
    let events: Vec<Event> = (0..200)
        .map(|i| Event { id: Some(format!("e{i}")), at: BEGIN + i * DAY / 10, ..numbered(0, 1, "x")[0].clone() })
        .collect();
    post(&world, &mut log, &events);
    let first = world.run("signs", false);
    assert_eq!(first["progress"]["dates"], json!(20), "{first}");
    let output =
        trueup(&world, &["batch", "backfill", "signs", "--from", "2001-09-12", "--to", "2001-09-15", "--wait"]);
    assert!(output.status.success(), "{}", text(&output));
    assert!(
        text(&output).contains(" with 2001-09-12 to 2001-09-15 published version 2 (3 dates, 30 rows, "),
        "{}",
        text(&output)
    );
    let run = world.get("/v1/runs").json()["runs"][0].clone();
    assert_eq!(run["trigger"], json!("backfill"));
    assert_eq!(run["ranges"], json!([{"from": "2001-09-12", "to": "2001-09-15"}]));
    // The version also includes changes outside the range.
    let late = Event { id: Some("late".to_owned()), at: BEGIN, ..numbered(0, 1, "x")[0].clone() };
    post(&world, &mut log, &[late]);
    let body = json!({"from": "2001-09-12", "to": "2001-09-13"}).to_string();
    let run = world.post("/v1/views/signs/runs", body).json();
    let run = world.finished(run["id"].as_str().expect("an id"));
    assert_eq!((&run["state"], &run["progress"]["dates"]), (&json!("published"), &json!(2)), "{run}");
    check(&world, &log, &[], &views()[1], "after the backfill");
    assert_eq!(world.get("/v1/views/signs/compare").json()["causes"]["unexplained"], json!(0));
    // One window over all time is recomputed as a whole.
    let all = world.post("/v1/views/totals/runs", json!({"from": "2001-09-12", "to": "2001-09-13"}).to_string()).json();
    assert_eq!(world.finished(all["id"].as_str().expect("an id"))["progress"]["rows"], json!(201));

    for (body, why) in [
        (json!({"from": "2001-09-12"}), "to: required together with from"),
        (json!({"from": "2001-09-12", "to": "2001-09-12"}), "for one day use from=2001-09-12 to=2001-09-13"),
        (json!({"from": "2001-09-12", "to": "2001-09-11"}), "2001-09-11 is before from"),
        (json!({"from": "yesterday", "to": "2001-09-11"}), "from: expected a date such as"),
    ] {
        let answer = world.post("/v1/views/signs/runs", body.to_string());
        assert!(answer.status == 400 && answer.text.contains(why), "{body}: {}", answer.text);
    }
    let output = trueup(&world, &["batch", "backfill", "signs", "--from", "2001-09-15", "--to", "2001-09-12"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output).contains("--from 2001-09-12 --to 2001-09-15"), "{}", text(&output));
}
