//! Checks when runs start and which version is active meanwhile.

use std::sync::Arc;

use shared::control::{Run, RunFilter, RunScope, RunState, Runs};
use shared::ids::{Offset, Partition};
use shared::time::Micros;
use shared::view::View;

use super::runs::{HOURLY, event};
use super::world::{HOUR, World, rows, settings, view};
use crate::service::Batch;
use crate::versions::load::load_published;

async fn started(world: &World, view: &Arc<View>, log_start: u64) -> Batch {
    let loaded = load_published(&world.lake(), &world.log.stream, view).await.expect("loads");
    world.views.publish(loaded.active.clone());
    let mut layers = world.layers();
    layers.log_starts = vec![(world.log.stream.name.clone(), Partition(0), Offset(log_start))];
    Batch::start(layers, vec![loaded], settings()).await.expect("starts")
}

/// All runs, newest first.
fn list(batch: &Batch) -> Vec<Run> {
    let all = RunFilter { view: None, state: None, before: None, limit: 100 };
    batch.list(&all).expect("a page").runs
}

/// The view's latest run, once it is over.
async fn over(batch: &Batch, count: usize) -> Run {
    loop {
        let runs = list(batch);
        if runs.len() >= count && runs[0].state.is_over() {
            return runs[0].clone();
        }
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_clock_starts_runs_and_one_replaces_all_missed_ones() {
    let world = World::new(settings());
    let view = view(&HOURLY.replace("departures AS", "departures WITH (schedule = '0 * * * *') AS"));
    world.append(0, [event("a", 1, "ATL")]);
    let batch = started(&world, &view, 0).await;
    assert_eq!(batch.next_run("departures"), Some(Micros(1_001 * HOUR)));
    assert!(list(&batch).is_empty());
    world.clock.set(Micros(1_001 * HOUR));
    let run = over(&batch, 1).await;
    assert_eq!((run.state, run.trigger.as_str(), run.version), (RunState::Published, "schedule", Some(1)));
    assert_eq!((run.progress.dates, run.progress.dates_done, run.progress.rows), (1, 1, 1));
    assert_eq!(batch.next_run("departures"), Some(Micros(1_002 * HOUR)));
    batch.stop().await;
    assert!(batch.request("departures", RunScope::CHANGED).is_err());

    world.append(0, [event("b", 2, "ATL")]);
    world.clock.set(Micros(1_040 * HOUR));
    let again = started(&world, &view, 0).await;
    let run = over(&again, 1).await;
    assert_eq!((run.trigger.as_str(), run.version, run.full), ("schedule", Some(2), false));
    assert_eq!(list(&again).len(), 1);
    let comparison = again.comparison("departures", None).await.expect("readable").expect("compared");
    assert_eq!(comparison.version, 2);
    assert_eq!(again.versions("departures", 1).await.expect("versions").len(), 1);
    again.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_definition_is_computed_while_the_old_one_is_served() {
    let world = World::new(settings());
    let old = view(HOURLY);
    world.append(0, [event("a", 1, "ATL"), event("b", 1, "ORD"), event("c", 30, "ATL")]);
    world.run(&old, false).await.expect("publishes");
    let changed = HOURLY.replace("SUM(fare) AS fares", "AVG(fare) AS fares, MAX(origin) AS last");
    let new = view(&changed.replace("FROM flights", "FROM flights WHERE origin = 'ATL'"));

    let loaded = load_published(&world.lake(), &world.log.stream, &new).await.expect("loads");
    assert_eq!(*loaded.active.view, *old);
    assert_eq!(loaded.shadow.as_deref(), Some(&*new));
    let batch = started(&world, &new, 0).await;
    let run = over(&batch, 1).await;
    assert_eq!((run.state, run.trigger.as_str(), run.full), (RunState::Published, "definition", true), "{run:?}");
    let published = world.published(&new).expect("published");
    assert_eq!(*published.definition_hash, new.definition_hash());
    let folded = world.log.folded(&new, world.log.head(), |_, _| true);
    assert_eq!(world.batch_rows(&new).await, rows(&new, &[&folded]));
    assert_eq!(world.log.retired(&old.definition_hash()), Some([u64::MAX; 2]));
    assert_eq!(world.log.retired(&new.definition_hash()), Some([3, 0]));
    let comparison = batch.comparison("departures", Some(2)).await.expect("readable").expect("compared");
    assert_eq!(comparison.measures.keys().collect::<Vec<_>>(), ["fares", "flights"]);
    assert_eq!((comparison.causes.definition, comparison.causes.unexplained), (2, 0));
    batch.stop().await;

    // The next start finds the new definition.
    let loaded = load_published(&world.lake(), &world.log.stream, &new).await.expect("loads");
    assert!(loaded.shadow.is_none());
    assert_eq!(loaded.active.version.map(|v| v.files.len()), Some(2));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_no_longer_begins_at_the_seam_needs_a_run() {
    let world = World::new(settings());
    world.append(0, [event("a", 1, "ATL"), event("b", 1, "ORD")]);
    let batch = started(&world, &view(HOURLY), 1).await;
    let run = over(&batch, 1).await;
    assert_eq!((run.state, run.trigger.as_str(), run.full), (RunState::Published, "start", true));
    batch.stop().await;
}
