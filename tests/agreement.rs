//! At every moment the merged answer equals the oracle: random events in random order, duplicates, late ones, NULLs,
//! several partitions, runs that succeed, runs that fail, kills and restarts in between.

mod oracle;
#[allow(dead_code, reason = "each test uses a part of the world")]
mod world;

use oracle::{Event, Log, VIEWS};
use proptest::prelude::*;
use serde_json::{Value, json};
use world::World;

/// 2001-09-09, well before any arrival.
const BEGIN: i64 = 1_000_000_000_000_000;

#[derive(Debug, Clone)]
enum Step {
    Post(Vec<Event>),
    Run {
        view: usize,
        full: bool,
    },
    /// A run that is cancelled at once: published or not, no answer may be wrong.
    Cancel {
        view: usize,
    },
    Kill,
    Stop,
}

fn event() -> impl Strategy<Value = Event> {
    let amount = prop_oneof![8 => -20i64..20, 1 => Just(i64::MAX), 1 => Just(i64::MIN)];
    (
        prop::option::weighted(0.9, 0u32..60),
        // Mostly near, sometimes minutes and days apart: late for some windows, not for others; also before 1970.
        prop_oneof![6 => 0i64..120, 2 => -600i64..600, 1 => -200_000i64..200_000, 1 => Just(-1_000_000_100i64)],
        prop::option::weighted(0.8, prop::sample::select(vec!["north", "south", "", "größer"])),
        prop::option::weighted(0.8, amount),
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
        })
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        6 => prop::collection::vec(event(), 1..40).prop_map(Step::Post),
        4 => (0usize..3, any::<bool>()).prop_map(|(view, full)| Step::Run { view, full }),
        1 => (0usize..3).prop_map(|view| Step::Cancel { view }),
        1 => Just(Step::Kill),
        1 => Just(Step::Stop),
    ];
    prop::collection::vec(step, 3..14)
}

/// With one partition the log's order is that of the requests, so lateness is known exactly.
fn check(world: &World, log: &Log, context: &str) {
    for view in VIEWS {
        let answer = world.rows(view, "");
        let seam = answer["seam"]["offsets"]["0"].as_u64().unwrap_or(0) as usize;
        oracle::assert_same(
            &oracle::found(&answer, view),
            &oracle::expected(view, log, seam),
            &format!("{context}: {view}"),
        );
        let ledger = &answer["ledger"];
        let accounted: u64 =
            ["batch", "speed", "late"].iter().map(|part| ledger[*part].as_u64().expect("a count")).sum();
        assert_eq!(ledger["accepted"], json!(log.accepted.len()), "{context}: {view}");
        assert_eq!(accounted, log.accepted.len() as u64, "{context}: {view}: {ledger}");
        assert_eq!(ledger["late"], json!(oracle::late(view, log, seam)), "{context}: {view}");
        assert_eq!(answer["complete"], json!(true), "{context}: {view}");
    }
}

/// The batch layer alone covers everything before its seam, late or not.
fn check_batch(world: &World, log: &Log, view: &str, context: &str) {
    let answer = world.rows(view, "&layer=batch");
    let seam = answer["seam"]["offsets"]["0"].as_u64().unwrap_or(0) as usize;
    let mut before = Log::default();
    log.accepted[..seam].iter().for_each(|a| {
        before.post(&a.event);
    });
    oracle::assert_same(&oracle::found(&answer, view), &oracle::expected(view, &before, seam), context);
}

fn post(world: &World, log: &mut Log, events: &[Event]) {
    let answer = world.post("/v1/events/events", oracle::ndjson(events));
    assert_eq!(answer.status, 200, "{}", answer.text);
    let accepted = events.iter().filter(|e| log.post(e)).count();
    assert_eq!(answer.json()["accepted"], json!(accepted), "{}", answer.text);
    assert_eq!(answer.json()["duplicates"], json!(events.len() - accepted));
}

/// Random histories tried; `TRUEUP_CASES` for a longer search.
fn cases() -> u32 {
    std::env::var("TRUEUP_CASES").ok().and_then(|n| n.parse().ok()).unwrap_or(24)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(), max_shrink_iters: 40, ..ProptestConfig::default() })]

    #[test]
    fn merged_equals_the_oracle_at_every_step(steps in steps()) {
        let mut world = World::new(&oracle::definitions(1));
        let mut log = Log::default();
        for (i, step) in steps.iter().enumerate() {
            let context = format!("step {i}");
            match step {
                Step::Post(events) => post(&world, &mut log, events),
                Step::Run { view, full } => {
                    let run = world.run(VIEWS[*view], *full);
                    assert_eq!(run["state"], json!("published"), "{context}: {run}");
                    check_batch(&world, &log, VIEWS[*view], &format!("{context}: batch of {}", VIEWS[*view]));
                    let drift = world.get(&format!("/v1/views/{}/compare", VIEWS[*view]));
                    if drift.status == 200 {
                        assert_eq!(drift.json()["causes"]["unexplained"], json!(0), "{context}: {}", drift.text);
                    }
                }
                Step::Cancel { view } => {
                    let run = world.post(&format!("/v1/views/{}/runs", VIEWS[*view]), "{}").json();
                    let id = run["id"].as_str().expect("an id").to_owned();
                    world.delete(&format!("/v1/runs/{id}"));
                    world.finished(&id);
                }
                Step::Kill => {
                    world.kill();
                    world.start();
                }
                Step::Stop => {
                    assert_eq!(world.stop(), Some(0), "{context}");
                    world.start();
                }
            }
            check(&world, &log, &context);
        }
        // In the end incremental equals full.
        for view in VIEWS {
            world.run(view, false);
            let incremental = oracle::found(&world.rows(view, "&layer=batch"), view);
            world.run(view, true);
            let full = oracle::found(&world.rows(view, "&layer=batch"), view);
            oracle::assert_same(&incremental, &full, &format!("incremental and full of {view}"));
        }
    }

    #[test]
    fn several_partitions_merge_to_the_oracle(bodies in prop::collection::vec(prop::collection::vec(event(), 1..60), 1..6)) {
        // Lateness depends on which partition an id falls into; batch covers late events all the same.
        let mut world = World::new(&oracle::definitions(3));
        let mut log = Log::default();
        for (i, events) in bodies.iter().enumerate() {
            post(&world, &mut log, events);
            if i % 2 == 1 {
                world.kill();
                world.start();
            }
            for view in VIEWS {
                let answer = world.rows(view, "");
                assert_eq!(answer["complete"], json!(true));
                assert_eq!(answer["ledger"]["accepted"], json!(log.accepted.len()));
            }
        }
        for view in VIEWS {
            assert_eq!(world.run(view, false)["state"], json!("published"));
            let answer = world.rows(view, "");
            let everything = oracle::expected(view, &log, log.accepted.len());
            oracle::assert_same(&oracle::found(&answer, view), &everything, view);
            assert_eq!(answer["ledger"]["batch"], json!(log.accepted.len()));
        }
    }
}

#[test]
fn a_changed_definition_answers_as_before_until_its_first_version_is_out() {
    let mut world = World::new(&oracle::definitions(1));
    let mut log = Log::default();
    let event = |i: i64| Event {
        id: Some(format!("e{i}")),
        at: BEGIN + i * 1_000_000,
        region: Some("north".to_owned()),
        amount: Some(i),
        price: Some(0.5),
        cost_cents: Some(1),
        code: Some(1),
        flag: Some(i % 2 == 0),
    };
    post(&world, &mut log, &(0..50).map(event).collect::<Vec<_>>());
    world.run("regions", false);
    post(&world, &mut log, &(50..80).map(event).collect::<Vec<_>>());
    assert_eq!(world.stop(), Some(0));
    world
        .redefine(&oracle::definitions(1).replace("COUNT(*) AS n, COUNT(amount)", "COUNT(*) * 10 AS n, COUNT(amount)"));
    world.start();
    world.wait_for("the new definition", |world| {
        let answer = world.rows("regions", "");
        let total: i64 =
            answer["rows"].as_array().expect("rows").iter().map(|r| r["n"].as_i64().expect("a count")).sum();
        assert_eq!(answer["complete"], Value::Bool(true));
        assert!(total == 80 || total == 800, "neither the old nor the new answer: {total}");
        total == 800
    });
}

#[test]
fn a_run_that_dies_at_any_step_changes_nothing() {
    let mut world = World::new(&oracle::definitions(1));
    let mut log = Log::default();
    let event = |i: i64| Event {
        id: Some(format!("e{i}")),
        at: BEGIN + (i * 37 % 400) * 1_000_000,
        region: (i % 3 > 0).then(|| format!("r{}", i % 5)),
        amount: Some(i),
        price: Some(i as f64 / 7.0),
        cost_cents: Some(i * 11),
        code: Some((i % 2) as i32),
        flag: Some(i % 2 == 0),
    };
    let mut next = 0;
    for step in ["cut", "archived", "plan", "recompute", "write", "reconcile", "commit", "publish", "retire"] {
        post(&world, &mut log, &(next..next + 30).map(event).collect::<Vec<_>>());
        next += 30;
        assert_eq!(world.stop(), Some(0));
        world.set_environment(&[("TRUEUP_FAIL_AT", step)]);
        world.start();
        let _ = world.try_post("/v1/views/regions/runs", b"{}".to_vec(), &[]);
        world.wait_for_exit();
        world.set_environment(&[]);
        world.start();
        check(&world, &log, &format!("killed at {step}"));
        assert_eq!(world.run("regions", false)["state"], json!("published"), "after a kill at {step}");
        check(&world, &log, &format!("after the run that followed a kill at {step}"));
    }
}
