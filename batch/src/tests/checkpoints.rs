//! Checks that checkpoints of views that the speed layer alone computes are what this layer makes of all events in the order
//! of the log, however they were cut, and that a replay of the archive makes the same.

use std::sync::Arc;
use std::time::Duration;

use proptest::collection::vec;
use proptest::prelude::*;
use shared::compare::{Cause, Comparison};
use shared::partial::query_budget::QueryBudget;
use shared::readers::{BatchReader, SpeedReader};
use shared::time_range::TimeRange;
use shared::version::{BatchVersion, Origin};
use shared::view::View;

use super::runs::event;
use super::values::everything;
use super::world::{Event, HOUR, Rows, World, assert_same, rows, settings, view};
use crate::fail_points::FailPoints;
use crate::failure::RunFailure;
use crate::run::Executor;
use crate::settings::BatchSettings;
use crate::step::Step;

/// The same view with its versions made by other layers.
fn of_layers(sql: &str, layers: &str) -> Arc<View> {
    view(&sql.replacen(" AS ", &format!(" WITH (layers = '{layers}') AS "), 1))
}

fn speed(sql: &str) -> Arc<View> {
    of_layers(sql, "speed")
}

const HOURLY: &str = "CREATE VIEW departures AS SELECT window_start, origin, COUNT(*) AS flights, COUNT(DISTINCT id) AS ids \
                      FROM flights GROUP BY TUMBLE(at, INTERVAL '1' HOUR), origin";

fn version(world: &World, view: &View) -> Arc<BatchVersion> {
    world.published(view).and_then(|published| published.version.clone()).expect("a version")
}

async fn comparison(world: &World, view: &View) -> Comparison {
    let number = version(world, view).version;
    world.executor.comparisons.get(&view.name, number).await.expect("readable").expect("compared")
}

/// What a query sees: the version, and the generations from its seam on.
async fn served(world: &World, view: &View) -> Rows {
    let published = world.published(view).expect("published");
    let pin = world.log.pin(&published, &published.seam).await.expect("a pin");
    let budget = QueryBudget::unlimited();
    let version = version(world, view);
    let batch = world.executor.reader.parts(&published, &version, TimeRange::ALL, &budget).await.expect("parts");
    let live = pin.generations.iter().map(|generation| &generation.part);
    rows(view, &batch.iter().map(Arc::as_ref).chain(live).collect::<Vec<_>>())
}

/// Checks that the version has what speed counts of the events before its seam, and accounts for the others.
async fn check(world: &World, view: &Arc<View>, context: &str) {
    let (whole, late) = world.log.counted(view, world.log.head());
    assert_same(&world.batch_rows(view).await, &rows(view, &[&whole]), 1e6);
    let version = version(world, view);
    assert_eq!((version.origin, version.late), (Origin::Speed, late), "{context}");
    assert_eq!(version.ledger, version.seam.accepted(), "{context}");
    assert!(version.files.iter().all(|file| file.origin == Origin::Speed), "{context}");
}

#[derive(Debug, Clone)]
enum Act {
    Append(usize, Vec<Event>),
    Flush,
    Checkpoint {
        full: bool,
    },
    /// The attempt fails when it is about to begin this step; then the process starts again.
    Fail(Step),
    Compact,
    Restart,
}

fn any_event() -> impl Strategy<Value = Event> {
    let origin = prop_oneof![Just(None), Just(Some("ATL")), Just(Some("JFK")), Just(Some("ORD"))];
    let fare = proptest::option::of(prop_oneof![8 => -1e6..1e6, 1 => Just(f64::NAN), 1 => Just(-0.0)]);
    // Steps of half an hour over two days, with lateness of hours: a third of the events is late.
    (proptest::option::of(0u32..30), -48i64..48, origin, proptest::option::of(-60i64..200), fare, any::<Option<bool>>())
        .prop_map(|(id, half_hour, origin, delay, fare, ok)| Event {
            id: id.map(|id| id.to_string()),
            at: half_hour * (HOUR / 2) + 13,
            origin,
            delay,
            fare,
            ok,
            ..Event::default()
        })
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        4 => (0usize..2, vec(any_event(), 1..25)).prop_map(|(partition, events)| Act::Append(partition, events)),
        1 => Just(Act::Flush),
        3 => any::<bool>().prop_map(|full| Act::Checkpoint { full }),
        2 => proptest::sample::select(Step::ALL).prop_map(Act::Fail),
        1 => Just(Act::Compact),
        1 => Just(Act::Restart),
    ]
}

fn views() -> Vec<Arc<View>> {
    let hourly = everything("hourly", "window_start, origin,", "GROUP BY TUMBLE(at, INTERVAL '1' HOUR), origin");
    let hop = "GROUP BY HOP(at, INTERVAL '8' HOUR, INTERVAL '16' HOUR)";
    let visits = everything("visits", "window_start, origin,", "GROUP BY SESSION(at, INTERVAL '3' HOUR), origin");
    let ever = everything("ever", "origin,", "GROUP BY origin");
    [hourly, everything("hops", "window_start,", hop), visits, ever].iter().map(|sql| speed(sql)).collect()
}

async fn fail(world: &World, view: &Arc<View>, step: Step) -> Result<i64, RunFailure> {
    let fail_points = FailPoints::fail_at(step);
    let clock = Arc::clone(&world.executor.deletion_clock);
    let failing = Executor::new(world.layers(), BatchSettings { fail_points, ..settings() }, clock);
    let entry = world.entry(view, false).await;
    failing.execute(&world.job(view), &entry).await
}

async fn follow(acts: Vec<Act>) {
    let mut world = World::new(settings());
    let views = views();
    let last = [Act::Checkpoint { full: false }, Act::Checkpoint { full: true }];
    for act in acts.into_iter().chain(last) {
        let context = format!("{act:?}");
        match act {
            Act::Append(partition, events) => world.append(partition, events),
            Act::Flush => world.flush().await,
            Act::Compact => _ = world.compact(Some(Duration::ZERO)).await,
            Act::Restart => world = world.restarted(&views, settings()).await,
            Act::Fail(step) => {
                for view in &views {
                    // With nothing new, the steps after the archive are not reached.
                    let failed = fail(&world, view, step).await;
                    assert!(failed.is_ok() || matches!(failed, Err(RunFailure::Injected(_))), "{failed:?}");
                }
                world = world.restarted(&views, settings()).await;
            }
            Act::Checkpoint { full } => {
                for view in &views {
                    world.run(view, full).await.expect("publishes");
                    check(&world, view, &format!("{}: {context}", view.name)).await;
                }
            }
        }
        for view in views.iter().filter(|view| world.published(view).is_some_and(|p| p.version.is_some())) {
            let (whole, _) = world.log.counted(view, world.log.head());
            assert_same(&served(&world, view).await, &rows(view, &[&whole]), 1e6);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn checkpoints_and_replays_equal_one_fold_of_the_log(acts in vec(act(), 1..12)) {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime");
        runtime.block_on(follow(acts));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_checkpoint_releases_speed_and_log_and_leaves_other_dates_alone() {
    let world = World::new(settings());
    let view = speed(HOURLY);
    world.append(0, [event("a", 1, "ATL"), event("b", 30, "ATL")]);
    world.run(&view, false).await.expect("publishes");
    assert_eq!(world.log.retired(&view.definition_hash()), Some([2, 0]));
    let files = world.parquet_files(&view);
    // The first one is late: its date stays, although it has a new event.
    world.append(0, [event("c", 2, "ATL"), event("d", 31, "ATL")]);
    world.run(&view, false).await.expect("publishes");
    check(&world, &view, "second").await;
    assert_eq!(world.parquet_files(&view).len(), files.len() + 1, "one date was written again");
    let released = world.log.released();
    assert_eq!(released[&("speed/departures".to_owned(), shared::ids::Partition(0))].0, 4);
    // Nothing is compared: the served rows are published as they are.
    assert!(version(&world, &view).comparison.is_none());
    assert!(!version(&world, &view).full);
    assert_eq!(world.run(&view, false).await.expect("nothing to do"), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn bounds_of_large_groups_survive_checkpoints() {
    let world = World::new(settings());
    let view = speed(HOURLY);
    let many = |from: usize, to: usize| (from..to).map(|i| event(&format!("e{i}"), 1, "ATL")).collect::<Vec<_>>();
    for part in 0..4 {
        world.append(0, many(part * 1_500, (part + 1) * 1_500));
        world.run(&view, false).await.expect("publishes");
    }
    let published = world.published(&view).expect("published");
    let cold = crate::versions::reader::VersionReader::new(&world.lake(), 0);
    let budget = QueryBudget::unlimited();
    let parts = cold.parts(&published, &version(&world, &view), TimeRange::ALL, &budget).await.expect("reads");
    let states = &parts[0].blocks[0].states;
    let finished = shared::partial::finish::finish_measures(&view, states).expect("finishes");
    let bounds = finished[1].bounds.as_ref().expect("an estimate");
    let number = |column: &arrow::array::ArrayRef| shared::json_cell::json_cell(column, 0).as_i64().expect("a number");
    let (low, estimate, high) = (number(&bounds.low), number(&finished[1].column), number(&bounds.high));
    assert!(low < high && low <= estimate && estimate <= high, "{low} {estimate} {high}");
    assert!(low <= 6_000 && 6_000 <= high, "{low} {high}");
    assert_eq!(number(&finished[0].column), 6_000);
}

#[tokio::test(flavor = "multi_thread")]
async fn switched_layers_keep_history_and_become_exact_again() {
    let world = World::new(settings());
    let [both, alone] = ["both", "speed"].map(|layers| of_layers(HOURLY, layers));
    world.append(0, [event("a", 1, "ATL"), event("b", 30, "ATL"), event("late", 1, "ATL"), event("c", 50, "ORD")]);
    world.run(&both, false).await.expect("publishes");
    let exact = world.batch_rows(&both).await;

    // Nothing is computed again, and the exact date stays exact.
    world.append(0, [event("d", 51, "ORD"), event("late too", 2, "ATL")]);
    let world = world.restarted(std::slice::from_ref(&alone), settings()).await;
    assert_eq!(world.batch_rows(&alone).await, exact);
    world.run(&alone, false).await.expect("publishes");
    let mixed = version(&world, &alone);
    let origins: Vec<Origin> = mixed.files.iter().map(|file| file.origin).collect();
    assert_eq!(origins, [Origin::Batch, Origin::Batch, Origin::Speed]);
    assert_eq!((mixed.late, mixed.full, mixed.ledger), (1, false, mixed.seam.accepted()));
    let kept = world.batch_rows(&alone).await;
    assert!(exact.iter().all(|(row, values)| kept.get(row) == Some(values)), "{kept:?}");

    // Back again: everything is exact, and the comparison names what was missing.
    let world = world.restarted(std::slice::from_ref(&both), settings()).await;
    assert_eq!(world.batch_rows(&both).await, kept);
    world.run(&both, false).await.expect("publishes");
    let folded = world.log.folded(&both, world.log.head(), |_, _| true);
    assert_eq!(world.batch_rows(&both).await, rows(&both, &[&folded]));
    let now = version(&world, &both);
    assert_eq!((now.origin, now.late, now.full, now.has_rows_of_speed()), (Origin::Batch, 0, true, false));
    let causes = comparison(&world, &both).await.causes;
    assert_eq!((causes.late, causes.unexplained), (2, 0), "{causes:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_long_checkpointed_late_event_is_named_when_batch_includes_it() {
    let world = World::new(settings());
    let [both, alone] = ["both", "speed"].map(|layers| of_layers(HOURLY, layers));
    world.append(0, [event("a", 1, "ATL"), event("b", 30, "ATL"), event("late", 1, "ATL")]);
    world.run(&alone, false).await.expect("publishes");
    assert_eq!(version(&world, &alone).late, 1);
    let world = world.restarted(std::slice::from_ref(&both), settings()).await;
    world.run(&both, false).await.expect("publishes");
    let compared = comparison(&world, &both).await;
    assert_eq!((compared.causes.late, compared.causes.unexplained), (2, 0), "{compared:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_definition_replays_while_the_old_one_answers_and_is_compared() {
    let other =
        HOURLY.replace("COUNT(*) AS flights", "COUNT(*) FILTER (WHERE delay IS NULL) AS flights, MAX(fare) AS top");
    for step in [None].into_iter().chain(Step::ALL.iter().copied().map(Some)) {
        let world = World::new(settings());
        let (old, new) = (speed(HOURLY), speed(&other));
        let delayed = |id: &str, hour: i64| Event { delay: Some(1), ..event(id, hour, "ATL") };
        world.append(0, [event("a", 1, "ATL"), event("b", 30, "ATL"), event("late", 1, "ATL"), delayed("c", 30)]);
        world.run(&old, false).await.expect("publishes");
        world.append(0, [event("d", 31, "ATL")]);
        let world = world.restarted(std::slice::from_ref(&new), settings()).await;
        let active = world.published(&new).expect("published");
        assert_eq!((&active.view.sql, active.declared()), (&old.sql, &new));
        let before = served(&world, &old).await;
        if let Some(step) = step {
            let failed = fail(&world, &new, step).await;
            assert!(matches!(failed, Err(RunFailure::Injected(at)) if at == step), "{failed:?}");
            if step <= Step::Commit {
                assert_eq!(served(&world, &old).await, before, "{step}");
            }
        }
        let world = world.restarted(std::slice::from_ref(&new), settings()).await;
        world.run(&new, false).await.expect("publishes");
        check(&world, &new, &format!("{step:?}")).await;
        if step.is_none_or(|step| step <= Step::Commit) {
            let compared = comparison(&world, &new).await;
            assert_eq!((compared.causes.definition, compared.causes.unexplained), (1, 0), "{compared:#?}");
            assert_eq!((compared.rows.len(), compared.rows[0].cause), (1, Cause::Definition));
            assert_eq!((compared.rows[0].served.as_i64(), compared.rows[0].exact.as_i64()), (Some(2), Some(1)));
            assert!(compared.definition.is_some_and(|change| change.changes.len() == 2));
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn generations_that_lack_events_are_replaced_by_a_replay() {
    let world = World::new(settings());
    let view = speed(HOURLY);
    world.append(0, [event("a", 1, "ATL"), event("b", 30, "ATL")]);
    world.run(&view, false).await.expect("publishes");
    world.append(0, [event("c", 31, "ATL"), event("late", 1, "ATL")]);
    world.append(1, [event("d", 31, "ORD")]);
    *world.log.folds_nothing.lock() = true;
    world.run(&view, false).await.expect("publishes");
    assert!(version(&world, &view).full, "replayed");
    check(&world, &view, "replayed").await;
}
