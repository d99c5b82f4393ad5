//! Tests that compaction merges small files without affecting any result: random histories with posts, runs, kills,
//! compactions on request and in the background, and an immediate vacuum.

use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};

use proptest::prelude::*;
use serde_json::{Value, json};
use world::oracle::events::{Event, Log, STRICT};
use world::oracle::plain::{NAMES, views};
use world::oracle::table::Coverage;
use world::oracle::views::View;
use world::oracle_check::{Layer, Question, check_causes, definitions, post};
use world::{World, oracle_check, program};

/// 2001-09-09, well before any arrival.
const BEGIN: i64 = 1_000_000_000_000_000;
/// Every post becomes files of its own, background compaction runs continuously, and replaced files are deleted at once.
const EAGER: &str = "archive_wait_ms = 1\ncompaction_every_ms = 20\nvacuum_every_ms = 40\nvacuum_age_ms = 0\n";
/// The same without background compaction.
const ON_REQUEST: &str = "archive_wait_ms = 1\ncompaction_every_ms = 0\n";

#[derive(Debug, Clone)]
enum Step {
    Post(Vec<Event>),
    Run {
        view: usize,
        full: bool,
    },
    /// A compaction during a run of a view that reads the files being replaced.
    RunAndCompact {
        view: usize,
    },
    Compact,
    Kill,
}

fn event() -> impl Strategy<Value = Event> {
    (
        prop::option::weighted(0.9, 0u32..60),
        prop_oneof![6 => 0i64..120, 2 => -600i64..600, 2 => -200_000i64..200_000],
        prop::option::weighted(0.8, prop::sample::select(vec!["north", "south", "", "größer"])),
        prop::option::weighted(0.8, -20i64..20),
        prop::option::weighted(0.8, -1e6..1e6f64),
        prop::option::weighted(0.8, -100_000i64..100_000),
        prop::option::weighted(0.9, -2i32..2),
        any::<Option<bool>>(),
    )
        .prop_map(|(id, seconds, region, amount, price, cost_cents, code, flag)| Event {
            id: id.map(|id| format!("e{id}")),
            at: BEGIN + seconds * 1_000_000 + i64::from(id.unwrap_or(7)),
            region: region.map(str::to_owned),
            amount,
            price,
            cost_cents,
            code,
            flag,
            day: None,
        })
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        6 => prop::collection::vec(event(), 1..20).prop_map(Step::Post),
        3 => (0usize..3, any::<bool>()).prop_map(|(view, full)| Step::Run { view, full }),
        2 => (0usize..3).prop_map(|view| Step::RunAndCompact { view }),
        2 => Just(Step::Compact),
        1 => Just(Step::Kill),
    ];
    prop::collection::vec(step, 6..24)
}

fn check(world: &World, log: &Log, views: &[View], layer: Layer, context: &str) {
    for view in views {
        let checked = oracle_check::check(world, log, view, &Question::of(layer), &mut Coverage::default());
        checked.unwrap_or_else(|e| panic!("{context}: {e}"));
    }
}

fn compact(world: &World, body: &str) -> Value {
    let answer = world.post("/v1/streams/events/compact", body);
    assert_eq!(answer.status, 200, "{}", answer.text);
    answer.json()
}

fn started(limits: &str) -> World {
    let mut world = World::new(&definitions(STRICT, &views()));
    assert_eq!(world.stop(), Some(0));
    world.set_limits(limits);
    world.start();
    world
}

/// Number of random histories; `TRUEUP_CASES` sets it for a longer search.
fn cases() -> u32 {
    std::env::var("TRUEUP_CASES").ok().and_then(|n| n.parse().ok()).unwrap_or(12)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(), max_shrink_iters: 40, ..ProptestConfig::default() })]

    #[test]
    fn results_do_not_change_when_files_are_compacted_and_deleted(steps in steps()) {
        let views = views();
        let mut world = started(EAGER);
        let mut log = Log::new(STRICT);
        for (i, step) in steps.iter().enumerate() {
            let context = format!("step {i}");
            match step {
                Step::Post(events) => post(&world, &mut log, events),
                Step::Run { view, full } => {
                    let run = world.run(NAMES[*view], *full);
                    assert_eq!(run["state"], json!("published"), "{context}: {run}");
                    check(&world, &log, &views[*view..=*view], Layer::Batch, &format!("{context}: batch"));
                    check_causes(&world, NAMES[*view]).unwrap_or_else(|e| panic!("{context}: {e}"));
                }
                Step::RunAndCompact { view } => {
                    let run = world.post(&format!("/v1/views/{}/runs", NAMES[*view]), "{\"full\": true}").json();
                    let id = run["id"].as_str().expect("an id").to_owned();
                    compact(&world, "{\"vacuum_older_than_ms\": 0}");
                    let run = world.finished(&id);
                    assert_eq!(run["state"], json!("published"), "{context}: {run}");
                }
                Step::Compact => _ = compact(&world, "{\"vacuum_older_than_ms\": 0}"),
                Step::Kill => {
                    world.kill();
                    world.start();
                }
            }
            check(&world, &log, &views, Layer::Merged, &context);
        }
        for full in [false, true] {
            for name in NAMES {
                assert_eq!(world.run(name, full)["state"], json!("published"));
            }
            check(&world, &log, &views, Layer::Batch, if full { "full" } else { "incremental" });
            compact(&world, "{\"vacuum_older_than_ms\": 0}");
        }
    }
}

fn numbered(i: i64) -> Event {
    Event {
        id: Some(format!("e{i}")),
        at: BEGIN + (i % 40) * 7_200_000_000,
        region: (i % 3 > 0).then(|| format!("r{}", i % 5)),
        amount: Some(i),
        price: Some(i as f64 / 7.0),
        cost_cents: Some(i * 11),
        code: Some((i % 2) as i32),
        flag: Some(i % 2 == 0),
        day: None,
    }
}

#[test]
fn compaction_on_request_reports_its_work_and_waits_for_every_view() {
    let views = views();
    let world = started(ON_REQUEST);
    let mut log = Log::new(STRICT);
    for i in 0..30 {
        post(&world, &mut log, &(i * 40..i * 40 + 40).map(numbered).collect::<Vec<_>>());
    }
    world.run("regions", false);
    let refused = compact(&world, "");
    assert_eq!(refused["files_read"], json!(0), "two views have taken in nothing: {refused}");
    for name in &NAMES[1..] {
        world.run(name, false);
    }
    let done = compact(&world, "");
    let number = |name: &str| done[name].as_u64().expect("a number");
    assert!(number("files_before") > number("dates") && number("files_after") == number("dates"), "{done}");
    assert_eq!((number("rows"), number("files_deleted")), (1_200, 0), "{done}");
    check(&world, &log, &views, Layer::Merged, "compacted");
    let young = compact(&world, "{\"vacuum_older_than_ms\": 3600000}");
    assert_eq!((&young["files_read"], &young["files_too_young"]), (&json!(0), &done["files_read"]), "{young}");
    let gone = compact(&world, "{\"vacuum_older_than_ms\": 0}");
    assert_eq!(gone["files_deleted"], done["files_read"], "{gone}");
    for name in NAMES {
        assert_eq!(world.run(name, true)["state"], json!("published"));
    }
    check(&world, &log, &views, Layer::Batch, "from the compacted archive");
    let metrics = world.get("/metrics").text;
    let line = format!("trueup_compacted_files_total{{stream=\"events\"}} {}", done["files_read"]);
    assert!(metrics.contains(&line), "{metrics}");

    // The command line, with a mistake and without.
    let trueup = |arguments: &[&str]| {
        program::text(&world.trueup().args(arguments).args(["--url", world.url()]).output().expect("trueup runs"))
    };
    let nothing = trueup(&["batch", "compact", "events", "--vacuum", "1h"]);
    assert!(nothing.starts_with("events: nothing to compact in ") && nothing.contains("deleted 0 files"), "{nothing}");
    let unknown = trueup(&["batch", "compact", "event"]);
    assert!(unknown.contains("there is no stream called \"event\"") && unknown.contains("events"), "{unknown}");
    python_reads(&world, log.accepted.len());
}

/// Other readers of Delta tables find every event once.
fn python_reads(world: &World, events: usize) {
    let Some(python) = program::python() else { return };
    let script = world::root().join("tests/python/archive.py");
    let table = world.store().join("lake/events/events");
    let output = Command::new(python)
        .current_dir(world.data.path())
        .arg(script)
        .arg(table)
        .arg(events.to_string())
        .output()
        .expect("Python starts");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn compaction_under_load_loses_no_event() {
    let views = views();
    let world = started(EAGER);
    let mut log = Log::new(STRICT);
    for name in NAMES {
        world.run(name, false);
    }
    let done = AtomicBool::new(false);
    let url = world.url().to_owned();
    std::thread::scope(|scope| {
        // Archivers commit continuously; a compaction retries or skips a date, and never removes their rows.
        let compacting = scope.spawn(|| {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            let client = reqwest::Client::builder().no_proxy().build().expect("a client");
            let mut compactions = 0;
            while !done.load(Ordering::SeqCst) {
                let request = client.post(format!("{url}/v1/streams/events/compact")).send();
                assert!(runtime.block_on(request).expect("an answer").status().is_success());
                compactions += 1;
            }
            compactions
        });
        for i in 0..60 {
            post(&world, &mut log, &(i * 20..i * 20 + 20).map(numbered).collect::<Vec<_>>());
            if i % 10 == 9 {
                for name in NAMES {
                    assert_eq!(world.run(name, i % 20 == 19)["state"], json!("published"));
                }
                check(&world, &log, &views, Layer::Merged, &format!("post {i}"));
            }
        }
        done.store(true, Ordering::SeqCst);
        assert!(compacting.join().expect("it ends") > 1);
    });
    check(&world, &log, &views, Layer::Batch, "in the end");
}

/// Parquet files in the folder of the archive.
fn stored(world: &World) -> usize {
    fn count(folder: &std::path::Path) -> usize {
        let entries = std::fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
        let dates = entries.filter(|path| !path.ends_with("_delta_log"));
        dates
            .map(
                |path| {
                    if path.is_dir() { count(&path) } else { usize::from(path.extension() == Some("parquet".as_ref())) }
                },
            )
            .sum()
    }
    count(&world.store().join("lake/events/events"))
}

#[test]
fn a_compaction_killed_at_any_step_changes_no_result_and_its_files_are_deleted() {
    let views = views();
    let mut world = started(ON_REQUEST);
    let mut log = Log::new(STRICT);
    for (round, step) in ["compaction-write", "compaction-commit", "compaction-delete"].into_iter().enumerate() {
        let base = round as i64 * 10_000;
        for i in 0..10 {
            post(&world, &mut log, &(base + i * 40..base + i * 40 + 40).map(numbered).collect::<Vec<_>>());
        }
        for name in NAMES {
            assert_eq!(world.run(name, false)["state"], json!("published"));
        }
        assert_eq!(world.stop(), Some(0));
        world.set_environment(&[("TRUEUP_FAIL_AT", step)]);
        world.start();
        let before = stored(&world);
        let answer = world.try_post("/v1/streams/events/compact", b"{\"vacuum_older_than_ms\": 0}".to_vec(), &[]);
        assert!(answer.is_none(), "{step}: {answer:?}");
        world.wait_for_exit();
        match step {
            "compaction-write" => assert_eq!(stored(&world), before, "{step}"),
            _ => assert!(stored(&world) > before, "{step}: files were written"),
        }
        world.set_environment(&[]);
        world.start();
        check(&world, &log, &views, Layer::Merged, step);
        // Younger files that no commit names are kept: another process might be about to commit them.
        world.age_files();
        let done = compact(&world, "{\"vacuum_older_than_ms\": 0}");
        assert_eq!(json!(stored(&world)), done["files_after"], "{step}: {done}");
        for name in NAMES {
            assert_eq!(world.run(name, true)["state"], json!("published"));
        }
        check(&world, &log, &views, Layer::Batch, step);
    }
}

/// Numbers of the commits in the archive's Delta log.
fn log_entries(world: &World) -> Vec<u64> {
    let log = world.store().join("lake/events/events/_delta_log");
    let names = std::fs::read_dir(log).into_iter().flatten().flatten().map(|entry| entry.file_name());
    let mut numbers: Vec<u64> = names.filter_map(|name| name.to_str()?.strip_suffix(".json")?.parse().ok()).collect();
    numbers.sort_unstable();
    numbers
}

#[test]
fn the_delta_log_of_an_archive_stays_bounded() {
    let views = views();
    let mut world = started(&format!("{ON_REQUEST}vacuum_age_ms = 0\n"));
    let mut log = Log::new(STRICT);
    let mut posts = 0;
    while log_entries(&world).len() < 230 {
        post(&world, &mut log, &(posts * 3..posts * 3 + 3).map(numbered).collect::<Vec<_>>());
        posts += 1;
        assert!(posts < 20_000, "the archiver does not commit");
    }
    for name in NAMES {
        assert_eq!(world.run(name, false)["state"], json!("published"));
    }
    let newest = *log_entries(&world).last().expect("an entry");
    compact(&world, "{\"vacuum_older_than_ms\": 0}");
    let left = log_entries(&world);
    assert!(left[0] + 200 > newest && left[0] > 0, "{left:?}");
    check(&world, &log, &views, Layer::Merged, "with a shorter log");
    // A process that starts over a shortened log finds the same table and continues with it.
    world.kill();
    world.start();
    check(&world, &log, &views, Layer::Merged, "after a restart");
    post(&world, &mut log, &(100_000..100_050).map(numbered).collect::<Vec<_>>());
    for name in NAMES {
        assert_eq!(world.run(name, true)["state"], json!("published"));
    }
    check(&world, &log, &views, Layer::Batch, "from the archive with a shorter log");
    python_reads(&world, log.accepted.len());
}
