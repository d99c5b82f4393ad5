//! Tests definitions that change between restarts, while events arrive and runs fail: every result is that of the active
//! definition, over every accepted event.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};

use proptest::prelude::*;
use serde_json::{Value, json};
use world::World;
use world::browser::Browser;
use world::changing_view::{BEGIN, Declared, FIRST, History, NAME, events, hold};
use world::oracle::events::{Event, ndjson};
use world::oracle_check::{Layer, check_causes};
use world::program::trueup;

#[derive(Debug, Clone)]
enum Step {
    Post(Vec<Event>),
    Run,
    /// Other definitions, after a stop or a kill.
    Define {
        declared: Declared,
        kill: bool,
    },
    Kill,
    Stop,
    /// The process ends when a run first reaches this step.
    DieAt(&'static str),
    /// Waits until no definition is being computed.
    Settle,
}

fn event() -> impl Strategy<Value = Event> {
    (
        prop::option::weighted(0.9, 0u32..400),
        prop_oneof![8 => 0i64..150, 1 => -600i64..600, 1 => -200_000i64..200_000],
        prop::option::weighted(0.8, prop::sample::select(vec!["north", "south", ""])),
        prop::option::weighted(0.8, -20i64..20),
        prop::option::weighted(0.8, -1e6..1e6f64),
        prop::option::weighted(0.9, -2i32..2),
    )
        .prop_map(|(id, seconds, region, amount, price, code)| Event {
            id: id.map(|id| format!("e{id}")),
            at: BEGIN + seconds * 1_000_000 + i64::from(id.unwrap_or(7)),
            region: region.map(str::to_owned),
            amount,
            price,
            code,
            ..Event::default()
        })
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        6 => prop::collection::vec(event(), 1..40).prop_map(Step::Post),
        3 => Just(Step::Run),
        4 => (any::<bool>(), 0u8..32, any::<bool>())
            .prop_map(|(price, view, kill)| Step::Define { declared: Declared { price, view }, kill }),
        1 => Just(Step::Kill),
        1 => Just(Step::Stop),
        2 => prop::sample::select(vec![
            "cut", "archived", "plan", "recompute", "write", "reconcile", "commit", "publish", "retire",
        ]).prop_map(Step::DieAt),
        2 => Just(Step::Settle),
    ];
    prop::collection::vec(step, 4..16)
}

/// Number of random histories; `TRUEUP_CASES` sets it for a longer search.
fn cases() -> u32 {
    std::env::var("TRUEUP_CASES").ok().and_then(|n| n.parse().ok()).unwrap_or(16)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(), max_shrink_iters: 30, ..ProptestConfig::default() })]

    #[test]
    fn every_result_is_that_of_the_active_definition(first in (any::<bool>(), 0u8..32), steps in steps()) {
        let mut history = History::new(Declared { price: first.0, view: first.1 });
        for (i, step) in steps.iter().enumerate() {
            let context = format!("step {i} of {steps:?}");
            match step {
                Step::Post(events) => history.post(events),
                Step::Run => {
                    let run = history.world.run(NAME, false);
                    prop_assert_eq!(&run["state"], &json!("published"), "{}: {}", context, run);
                    history.settle();
                    history.check(Layer::Batch, &context);
                    check_causes(&history.world, NAME).unwrap_or_else(|e| panic!("{context}: {e}"));
                }
                Step::Define { declared, kill: false } => history.define(*declared),
                Step::Define { declared, kill: true } => {
                    history.world.kill();
                    history.declare(*declared);
                    history.world.start();
                }
                Step::Kill => {
                    history.world.kill();
                    history.world.start();
                }
                Step::Stop => {
                    prop_assert_eq!(history.world.stop(), Some(0));
                    history.world.start();
                }
                Step::DieAt(step) => {
                    prop_assert_eq!(history.world.stop(), Some(0));
                    history.world.set_environment(&[("TRUEUP_FAIL_AT", step)]);
                    history.world.start_whatever_comes();
                    let _ = history.world.try_post(&format!("/v1/views/{NAME}/runs"), b"{\"full\":true}".to_vec(), &[]);
                    history.world.wait_for_exit();
                    history.world.set_environment(&[]);
                    history.world.start();
                }
                Step::Settle => history.settle(),
            }
            history.check(Layer::Merged, &context);
        }
        history.settle();
        history.check(Layer::Merged, "at the end");
        for full in [false, true] {
            history.world.run(NAME, full);
            history.check(Layer::Batch, if full { "full" } else { "incremental" });
        }
    }
}

/// Definitions of the view that speed folds for.
fn definitions_folded(world: &World) -> f64 {
    let metrics = world.get("/metrics").text;
    let line = metrics.lines().find(|line| line.starts_with("trueup_state_definitions") && line.contains(NAME));
    line.and_then(|line| line.rsplit(' ').next()?.parse().ok()).unwrap_or(f64::NAN)
}

#[test]
fn the_old_definition_is_served_until_the_new_one_is_complete_and_the_version_lists_the_changes() {
    let mut history = History::new(FIRST);
    history.post(&events(0, 60));
    assert_eq!(history.world.run(NAME, false)["state"], json!("published"));
    // Another filter, one more dimension and measure, one measure less; and the stream no longer declares the column `price`.
    let second = Declared { price: false, view: 0b10111 };
    hold(&mut history, "recompute", second);
    history.post(&events(60, 40));
    history.world.wait_for("the run", |world| {
        world.get(&format!("/v1/views/{NAME}")).json()["shadow"]["progress"]["dates"] == json!(1)
    });
    history.check(Layer::Merged, "while the shadow is computed");
    let status = history.status();
    assert_eq!(history.answering(), FIRST);
    assert_eq!(status["shadow"]["state"], json!("running"), "{status}");
    let statement = |declared: Declared| declared.view().sql().trim().trim_end_matches(';').to_owned();
    assert_eq!(status["shadow"]["sql"], json!(statement(second)));
    assert_eq!(status["shadow"]["changes"].as_array().map(Vec::len), Some(4), "{status}");
    history.world.wait_for("both definitions to be folded", |world| definitions_folded(world) == 2.0);

    // A second change during the recomputation: the first definition stays active, with all later events.
    let third = Declared { price: false, view: 0b10101 };
    let go_on = hold(&mut history, "commit", third);
    history.world.wait_for("the run to have cut", |world| {
        world.get(&format!("/v1/views/{NAME}")).json()["shadow"]["progress"]["dates"] == json!(1)
    });
    history.post(&events(100, 30));
    history.check(Layer::Merged, "while the second shadow is computed");
    assert_eq!(history.answering(), FIRST);
    std::fs::write(&go_on, "").expect("a file");
    history.settle();
    history.check(Layer::Merged, "after the swap");
    // Speed drops the old definition at once, not at the next start.
    history.world.wait_for("one definition to be folded", |world| definitions_folded(world) == 1.0);
    history.post(&events(130, 30));
    history.check(Layer::Merged, "on after the swap");

    let comparison = history.world.get(&format!("/v1/views/{NAME}/compare")).json();
    let changes = comparison["definition"]["changes"].as_array().expect("changes").iter();
    let changes: Vec<String> = changes
        .map(|c| format!("{} {}", c["part"].as_str().expect("a part"), c["name"].as_str().unwrap_or("-")))
        .collect();
    assert_eq!(changes, ["filter -", "dimension code", "measure dearest"], "{comparison}");
    assert_eq!(comparison["definition"]["compared_by"], json!(["region"]));
    assert_eq!(comparison["measures"].as_object().expect("measures").keys().collect::<Vec<_>>(), ["n", "total"]);
    assert_eq!(comparison["causes"]["unexplained"], json!(0));
    // Before: the 100 events up to the cut by window and region. After: those with a positive amount, added up by region.
    let counted = |positive: bool| {
        let mut windows: BTreeMap<_, (u64, i64)> = BTreeMap::new();
        for event in events(0, 100).iter().filter(|e| !positive || e.amount > Some(0)) {
            let (n, total) = windows.entry((event.at / 20_000_000, event.region.clone())).or_default();
            (*n, *total) = (*n + 1, *total + event.amount.unwrap_or(0));
        }
        windows
    };
    let (before, after) = (counted(false), counted(true));
    let differing = before.iter().map(|(key, (n, total))| match after.get(key) {
        Some((other_n, other_total)) => u64::from(n != other_n) + u64::from(total != other_total),
        None => 2,
    });
    let equal = differing.clone().filter(|values| *values == 0).count();
    assert_eq!(comparison["rows_compared"], json!(before.len()), "{comparison}");
    assert_eq!(comparison["rows_equal"], json!(equal), "{comparison}");
    assert_eq!(comparison["causes"]["definition"], json!(differing.sum::<u64>()), "{comparison}");
    let words = trueup(&["compare", NAME, "--url", history.world.url()]).1;
    assert!(
        words.starts_with(&format!("{NAME} version 2 changed the definition:\n  filter added: amount > 0\n")),
        "{words}"
    );

    // Only a measure is added: differences have their usual causes, because the other measures did not change.
    let late = Event { at: BEGIN - 600_000_000, ..events(500, 1).remove(0) };
    history.post(&[late]);
    history.define(Declared { price: false, view: 0b10111 });
    history.settle();
    let comparison = history.world.get(&format!("/v1/views/{NAME}/compare")).json();
    assert_eq!(
        (&comparison["causes"]["late"], &comparison["causes"]["definition"]),
        (&json!(2), &json!(0)),
        "{comparison}"
    );
    // Other windows cannot be compared.
    history.define(Declared { price: false, view: 0b11111 });
    history.settle();
    let words = trueup(&["compare", NAME, "--url", history.world.url()]).1;
    assert!(words.contains("cannot be compared: their windows are not the same"), "{words}");
}

#[test]
fn results_stay_correct_while_the_definition_is_swapped_under_load() {
    let mut history = History::new(FIRST);
    history.post(&events(0, 60));
    assert_eq!(history.world.run(NAME, false)["state"], json!("published"));
    let go_on = hold(&mut history, "publish", Declared { price: true, view: 0b00111 });
    let (acknowledged, stop) = (Arc::new(AtomicI64::new(60)), Arc::new(AtomicBool::new(false)));
    let senders: Vec<_> = (0..2)
        .map(|sender| {
            let (acknowledged, stop) = (Arc::clone(&acknowledged), Arc::clone(&stop));
            let url = format!("{}/v1/events/events", history.world.url());
            std::thread::spawn(move || {
                let client = reqwest::Client::builder().no_proxy().build().expect("a client");
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
                for round in 0.. {
                    if stop.load(Ordering::SeqCst) {
                        return;
                    }
                    // All of them fall into existing windows, so that none is late.
                    let mut some = events(0, 50);
                    some.iter_mut().enumerate().for_each(|(i, e)| e.id = Some(format!("s{sender}-{round}-{i}")));
                    let answer = runtime.block_on(client.post(&url).body(ndjson(&some)).send()).expect("an answer");
                    assert_eq!(answer.status(), 200);
                    acknowledged.fetch_add(50, Ordering::SeqCst);
                }
            })
        })
        .collect();
    let mut asked = [0, 0];
    let started = std::time::Instant::now();
    while asked[1] < 200 {
        if asked[0] == 200 {
            std::fs::write(&go_on, "").expect("a file");
        }
        assert!(started.elapsed() < std::time::Duration::from_secs(60), "{asked:?}");
        let before = acknowledged.load(Ordering::SeqCst);
        let answer = history.world.rows(NAME, "&layer=merged");
        // Two requests of fifty events may be in flight.
        let after = acknowledged.load(Ordering::SeqCst) + 100;
        let n: i64 = answer["rows"].as_array().expect("rows").iter().map(|r| r["n"].as_i64().expect("a count")).sum();
        let late = answer["ledger"]["late"].as_i64().expect("a count");
        assert!((before..=after).contains(&(n + late)), "{before} <= {n} + {late} <= {after}: {answer}");
        assert_eq!(answer["complete"], json!(true), "{answer}");
        let is_new = answer["columns"].as_array().expect("columns").iter().any(|c| c["name"] == json!("code"));
        asked[usize::from(is_new)] += 1;
        assert!(!(is_new && asked[0] < 200), "swapped before the run could continue");
    }
    stop.store(true, Ordering::SeqCst);
    senders.into_iter().for_each(|sender| sender.join().expect("every request was answered"));
    history.settle();
    assert_eq!(history.world.run(NAME, false)["state"], json!("published"));
    let rows = history.world.rows(NAME, "&group_by=&layer=batch");
    let n: i64 = rows["rows"].as_array().expect("rows").iter().map(|r| r["n"].as_i64().expect("a count")).sum();
    assert_eq!(n, acknowledged.load(Ordering::SeqCst));
}

#[test]
fn the_page_announces_a_new_definition_and_then_shows_it() {
    let mut history = History::new(FIRST);
    history.post(&events(0, 60));
    assert_eq!(history.world.run(NAME, false)["state"], json!("published"));
    let go_on = hold(&mut history, "commit", Declared { price: true, view: 0b00111 });
    let browser = Browser::start();
    browser.open(&format!("{}/", history.world.url()));
    let read = "const card = document.querySelector('.card'); const banner = card.querySelector('.shadow');
                return [banner?.textContent ?? '', card.querySelector('.about').textContent];";
    let mut seen = Value::Null;
    history.world.wait_for("the banner", |_| {
        seen = browser.run(read);
        seen[0].as_str().is_some_and(|text| text.contains("1 of 1 dates are done"))
    });
    assert_eq!(
        seen,
        json!([
            "A new definition is being computed. Until it is complete, results come from the old definition: \
                1 of 1 dates are done.dimension code added, measure codes added",
            "of events, in windows of 20 seconds, by region"
        ]),
    );
    std::fs::write(&go_on, "").expect("a file");
    history.settle();
    history.world.wait_for("the new definition on the page", |_| {
        seen = browser.run(read);
        seen == json!(["", "of events, in windows of 20 seconds, by region and code"])
    });
    let errors = browser.log("browser");
    assert!(errors.is_empty(), "{errors:?}");
}
