//! Runs histories of a server in which the merged result must equal the oracle at every moment. The caller chooses
//! where the server keeps its data.

use proptest::prelude::*;
use serde_json::{Value, json};

use crate::World;
use crate::oracle::events::{Event, Log, PATIENT, STRICT};
use crate::oracle::plain::{NAMES, views};
use crate::oracle::table::Coverage;
use crate::oracle::views::View;
use crate::oracle_check::{self, Layer, Question, check_causes, definitions, post};

/// A function that starts a server for definitions.
pub type NewWorld<'a> = &'a dyn Fn(&str) -> World;

/// 2001-09-09, well before any arrival.
pub const BEGIN: i64 = 1_000_000_000_000_000;

#[derive(Debug, Clone)]
pub enum Step {
    Post(Vec<Event>),
    Run {
        view: usize,
        full: bool,
    },
    /// A run that is cancelled at once: published or not, no result may be wrong.
    Cancel {
        view: usize,
    },
    Kill,
    Stop,
}

pub fn event() -> impl Strategy<Value = Event> {
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
            day: None,
        })
}

pub fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        6 => prop::collection::vec(event(), 1..40).prop_map(Step::Post),
        4 => (0usize..3, any::<bool>()).prop_map(|(view, full)| Step::Run { view, full }),
        1 => (0usize..3).prop_map(|view| Step::Cancel { view }),
        1 => Just(Step::Kill),
        1 => Just(Step::Stop),
    ];
    prop::collection::vec(step, 3..14)
}

/// Requests to a stream of several partitions.
pub fn bodies() -> impl Strategy<Value = Vec<Vec<Event>>> {
    prop::collection::vec(prop::collection::vec(event(), 1..60), 1..6)
}

/// With one partition the log's order is that of the requests, so lateness is known exactly.
pub fn check(world: &World, log: &Log, views: &[View], layer: Layer, context: &str) {
    for view in views {
        // Sums and extremes are never approximate.
        let mut coverage = Coverage::default();
        let checked = oracle_check::check(world, log, view, &Question::of(layer), &mut coverage);
        checked.unwrap_or_else(|e| panic!("{context}: {e}"));
        assert_eq!(coverage.values(), 0);
    }
}

/// Posts, runs, cancelled runs, kills and stops in any order.
pub fn equals_the_oracle_at_every_step(new_world: NewWorld<'_>, steps: &[Step]) {
    let views = views();
    let mut world = new_world(&definitions(STRICT, &views));
    let mut log = Log::new(STRICT);
    for (i, step) in steps.iter().enumerate() {
        let context = format!("step {i}");
        match step {
            Step::Post(events) => post(&world, &mut log, events),
            Step::Run { view, full } => {
                let run = world.run(NAMES[*view], *full);
                assert_eq!(run["state"], json!("published"), "{context}: {run}");
                // The batch layer alone covers everything before its seam, late or not.
                check(&world, &log, &views[*view..=*view], Layer::Batch, &format!("{context}: batch"));
                check_causes(&world, NAMES[*view]).unwrap_or_else(|e| panic!("{context}: {e}"));
            }
            Step::Cancel { view } => {
                let run = world.post(&format!("/v1/views/{}/runs", NAMES[*view]), "{}").json();
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
        check(&world, &log, &views, Layer::Merged, &context);
    }
    // In the end incremental and full runs equal the oracle over the whole log.
    for full in [false, true] {
        for name in NAMES {
            world.run(name, full);
        }
        check(&world, &log, &views, Layer::Batch, if full { "full" } else { "incremental" });
    }
}

/// Requests to a stream of several partitions, with kills in between.
pub fn several_partitions_merge(new_world: NewWorld<'_>, bodies: &[Vec<Event>]) {
    // Lateness would depend on the partition of an id, so nothing is late here.
    let views = views();
    let mut world = new_world(&definitions(PATIENT, &views));
    let mut log = Log::new(PATIENT);
    for (i, events) in bodies.iter().enumerate() {
        post(&world, &mut log, events);
        if i % 2 == 1 {
            world.kill();
            world.start();
        }
        check(&world, &log, &views, Layer::Merged, &format!("body {i}"));
    }
    for name in NAMES {
        assert_eq!(world.run(name, false)["state"], json!("published"));
    }
    check(&world, &log, &views, Layer::Merged, "after the runs");
    check(&world, &log, &views, Layer::Batch, "after the runs");
}

/// Changes the definition while the server is stopped.
pub fn changed_definition_answers_as_before(new_world: NewWorld<'_>) {
    let text = definitions(STRICT, &views());
    let mut world = new_world(&text);
    let mut log = Log::new(STRICT);
    let event = |i: i64| Event {
        id: Some(format!("e{i}")),
        at: BEGIN + i * 1_000_000,
        region: Some("north".to_owned()),
        amount: Some(i),
        price: Some(0.5),
        cost_cents: Some(1),
        code: Some(1),
        flag: Some(i % 2 == 0),
        day: None,
    };
    post(&world, &mut log, &(0..50).map(event).collect::<Vec<_>>());
    world.run("regions", false);
    post(&world, &mut log, &(50..80).map(event).collect::<Vec<_>>());
    assert_eq!(world.stop(), Some(0));
    let changed = text.replacen("COUNT(*) AS n", "COUNT(*) * 10 AS n", 1);
    assert_ne!(changed, text);
    world.redefine(&changed);
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

/// Kills the server at each step of a run.
pub fn run_that_dies_changes_nothing(new_world: NewWorld<'_>) {
    let views = views();
    let mut world = new_world(&definitions(STRICT, &views));
    let mut log = Log::new(STRICT);
    let event = |i: i64| Event {
        id: Some(format!("e{i}")),
        at: BEGIN + (i * 37 % 400) * 1_000_000,
        region: (i % 3 > 0).then(|| format!("r{}", i % 5)),
        amount: Some(i),
        price: Some(i as f64 / 7.0),
        cost_cents: Some(i * 11),
        code: Some((i % 2) as i32),
        flag: Some(i % 2 == 0),
        day: None,
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
        check(&world, &log, &views, Layer::Merged, &format!("killed at {step}"));
        assert_eq!(world.run("regions", false)["state"], json!("published"), "after a kill at {step}");
        check(&world, &log, &views, Layer::Merged, &format!("after the run that followed a kill at {step}"));
    }
}
