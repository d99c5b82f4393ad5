//! Random changes, runs, kills and stops: after each step the merged, batch and speed figures equal a fold of the rows that the
//! list of changes leaves.

use proptest::prelude::*;
use serde_json::{Value, json};
use world::World;

use crate::changes::{BATCH_VIEWS, Change, Keys, Rows, SPEED_VIEWS, change, check, definitions};
use crate::sessions::check_ranges;

/// A short log: it is trimmed as soon as runs and archive allow it, so a start needs the archive.
const SHORT_LOG: &str = "dedup_horizon_events = 50\nlog_segment_bytes = 4096\narchive_wait_ms = 20\n";

#[derive(Debug, Clone)]
enum Step {
    Post(Vec<Change>),
    /// Sends the last changes again.
    Repeat,
    Run {
        view: usize,
        full: bool,
    },
    Checkpoint {
        view: usize,
    },
    Kill,
    Stop,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        8 => prop::collection::vec(change(), 1..40).prop_map(Step::Post),
        1 => Just(Step::Repeat),
        4 => (0usize..4, any::<bool>()).prop_map(|(view, full)| Step::Run { view, full }),
        2 => (0usize..2).prop_map(|view| Step::Checkpoint { view }),
        1 => Just(Step::Kill),
        1 => Just(Step::Stop),
    ];
    prop::collection::vec(step, 3..14)
}

fn post(world: &World, rows: &mut Rows, changes: &[Change], (is_debezium, keys): (bool, Keys)) {
    let mut lines = Vec::new();
    for change in changes {
        match is_debezium {
            true => lines.push(change.debezium(rows, keys)),
            false => lines.extend(change.upserts(keys)),
        }
        rows.apply(change, is_debezium);
    }
    let body: String = lines.iter().map(|line| format!("{line}\n")).collect();
    let answer = world.post("/v1/events/orders", body);
    assert_eq!(answer.status, 200, "{}", answer.text);
    let answer = answer.json();
    let count = |name: &str| answer[name].as_u64().expect("a count");
    // Every line has a change; a change of a key is two, and an upsert without a key is rejected.
    let renames = changes.iter().filter(|change| matches!(change, Change::Rename { .. })).count() as u64;
    let added = if is_debezium { answer_renames(changes) } else { 0 };
    let rejected = if is_debezium { 0 } else { renames };
    assert_eq!(count("rejected"), rejected, "{answer}");
    assert_eq!(count("accepted") + count("duplicates"), lines.len() as u64 + added - rejected, "{answer}");
}

/// The changes that are two, in the form of Debezium.
fn answer_renames(changes: &[Change]) -> u64 {
    changes.iter().filter(|change| matches!(change, Change::Rename { from, to, .. } if from != to)).count() as u64
}

fn check_all(world: &World, rows: &Rows, keys: Keys, context: &str) {
    for view in BATCH_VIEWS.into_iter().chain(SPEED_VIEWS) {
        check(world, rows, view, "", context);
    }
    check_ranges(world, rows, context);
    let listed = world.get("/v1/tables/orders/rows?limit=10000").json();
    let ids: Vec<i64> = listed["rows"].as_array().expect("rows").iter().filter_map(|row| keys.id(row)).collect();
    let mut expected: Vec<i64> = rows.0.keys().copied().collect();
    expected.sort_by_key(|id| keys.order(*id));
    assert_eq!(ids, expected, "{context}");
    for row in listed["rows"].as_array().expect("rows") {
        let id = keys.id(row).expect("a key");
        let alone = world.get(&format!("/v1/tables/orders/rows/{}", world::encoded(&keys.text(id))));
        assert_eq!((alone.status, &alone.json()), (200, row), "{context}");
        let expected = &rows.0[&id];
        let found = (row["status"].as_str(), row["note"].as_str(), row["quantity"].as_i64());
        assert_eq!(found, (expected.status, expected.note, expected.quantity), "{context}: {row}");
    }
}

fn follow(steps: &[Step], is_debezium: bool, keys: Keys) {
    let mut world = World::stopped(&definitions(if is_debezium { "debezium-json" } else { "json" }, keys));
    world.set_limits(SHORT_LOG);
    world.start();
    let (mut rows, mut last) = (Rows::default(), Vec::new());
    for (number, step) in steps.iter().enumerate() {
        let context = format!("step {number}");
        match step {
            Step::Post(changes) => {
                post(&world, &mut rows, changes, (is_debezium, keys));
                last.clone_from(changes);
            }
            Step::Repeat => post(&world, &mut rows, &last, (is_debezium, keys)),
            Step::Run { view, full } => {
                let run = world.run(BATCH_VIEWS[*view], *full);
                assert_eq!(run["state"], json!("published"), "{context}: {run}");
                check(&world, &rows, BATCH_VIEWS[*view], "&layer=batch", &context);
                let comparison = world.get(&format!("/v1/views/{}/compare", BATCH_VIEWS[*view]));
                if comparison.status == 200 {
                    let causes = comparison.json()["causes"].clone();
                    let late: Value = causes["late"].clone();
                    assert_eq!((&causes["unexplained"], &late), (&json!(0), &json!(0)), "{context}: {causes}");
                }
            }
            Step::Checkpoint { view } => {
                let run = world.post(&format!("/v1/views/{}/checkpoints", SPEED_VIEWS[*view]), "{}").json();
                world.finished(run["id"].as_str().expect("an id"));
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
        check_all(&world, &rows, keys, &context);
    }
    // Both layers from the first change on, whatever was published before.
    for view in BATCH_VIEWS {
        assert_eq!(world.run(view, true)["state"], json!("published"));
        check(&world, &rows, view, "&layer=batch", "in the end");
        check(&world, &rows, view, "", "in the end");
    }
}

fn cases() -> u32 {
    std::env::var("TRUEUP_CASES").ok().and_then(|n| n.parse().ok()).unwrap_or(8)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(), max_shrink_iters: 60, ..ProptestConfig::default() })]

    #[test]
    fn figures_over_row_changes_equal_a_fold_of_the_rows(steps in steps()) {
        follow(&steps, true, Keys::One);
    }

    #[test]
    fn figures_over_upserts_equal_a_fold_of_the_rows(steps in steps()) {
        follow(&steps, false, Keys::One);
    }

    #[test]
    fn figures_over_rows_with_keys_of_several_columns_equal_a_fold_of_the_rows(
        steps in steps(), is_debezium in any::<bool>(),
    ) {
        follow(&steps, is_debezium, Keys::Two);
    }
}
