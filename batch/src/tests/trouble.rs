//! Checks that a failed run leaves nothing behind, and that the next run includes its events.

use std::sync::Arc;

use lake::{Commit, LakeError};
use shared::control::RunState;

use super::runs::{HOURLY, event};
use super::world::{World, rows, settings, view};
use crate::fail_points::FailPoints;
use crate::failure::RunFailure;
use crate::run::Executor;
use crate::settings::BatchSettings;
use crate::step::Step;

#[tokio::test(flavor = "multi_thread")]
async fn the_old_version_stays_active_whichever_step_fails() {
    for step in Step::ALL.iter().copied() {
        let world = World::new(settings());
        let view = view(HOURLY);
        world.append(0, [event("a", 1, "ATL"), event("b", 30, "ATL")]);
        world.run(&view, false).await.expect("publishes");
        let (before, files) = (world.batch_rows(&view).await, world.parquet_files(&view));
        world.append(1, [event("c", 30, "ORD")]);

        let fail_points = FailPoints::fail_at(step);
        let clock = Arc::clone(&world.executor.deletion_clock);
        let failing = Executor::new(world.layers(), BatchSettings { fail_points, ..settings() }, clock);
        let entry = world.entry(&view, false).await;
        let failure = failing.execute(&world.job(&view), &entry).await.expect_err("fails");
        assert!(matches!(failure, RunFailure::Injected(at) if at == step), "{failure}");
        if step <= Step::Commit {
            assert_eq!(world.batch_rows(&view).await, before, "{step}");
            assert_eq!(world.parquet_files(&view), files, "{step}");
            assert_eq!(world.table(&view).await.snapshot().await.expect("a snapshot").version, 1, "{step}");
        }

        world.run(&view, false).await.expect("publishes");
        let folded = world.log.folded(&view, world.log.head(), |_, _| true);
        assert_eq!(world.batch_rows(&view).await, rows(&view, &[&folded]), "{step}");
        // Nothing was served from a version whose commit was not confirmed: its rows must not count as served.
        let version = world.published(&view).and_then(|published| published.version.clone());
        let comparison = version.and_then(|version| version.comparison.clone()).expect("compared");
        assert_eq!(comparison.causes.unexplained, 0, "{step}: {comparison:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_foreign_commit_is_a_conflict_and_not_built_upon() {
    let world = World::new(settings());
    let view = view(HOURLY);
    world.append(0, [event("a", 1, "ATL"), event("b", 30, "ATL")]);
    world.run(&view, false).await.expect("publishes");
    let files = world.parquet_files(&view);
    world.append(0, [event("c", 31, "ATL")]);
    let table = world.table(&view).await;
    let meddle = move || -> futures::future::BoxFuture<'static, ()> {
        Box::pin(async move {
            let snapshot = table.snapshot().await.expect("a snapshot");
            table.commit(Commit::remove(snapshot.files[..1].to_vec())).await.expect("commits");
        })
    };
    *world.log.before_pin.lock() = Some(Box::new(meddle));
    let failure = world.run(&view, false).await.expect_err("fails");
    assert!(matches!(failure, RunFailure::Lake(LakeError::Conflict { .. })), "{failure}");
    assert_eq!(world.parquet_files(&view), files, "staged files are deleted");

    assert_eq!(world.run(&view, false).await.expect("publishes"), 3);
    let published = world.published(&view).expect("published");
    assert!(published.version.as_ref().is_some_and(|v| v.full), "the commit of another process is not built upon");
    assert_eq!(world.batch_rows(&view).await.len(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_with_fewer_rows_than_noted_is_named() {
    let world = World::new(settings());
    let view = view(HOURLY);
    world.append(0, [event("a", 1, "ATL"), event("b", 2, "ATL")]);
    *world.log.lose_rows.lock() = 1;
    let failure = world.run(&view, false).await.expect_err("fails").to_string();
    assert!(failure.starts_with("archive file _event_date=1970-01-01/part-"), "{failure}");
    assert!(failure.ends_with(" of 1970-01-01 should hold 2 rows and holds 1"), "{failure}");
    assert!(world.parquet_files(&view).is_empty() && world.published(&view).is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn events_that_never_reached_the_archive_fail_the_run() {
    let world = World::new(settings());
    let view = view(HOURLY);
    world.append(0, [event("a", 1, "ATL"), event("b", 30, "ATL")]);
    world.flush().await;
    let path = lake::TablePath::events(&world.log.stream.name);
    let archive = world.lake().open_table(&path).await.expect("opens").expect("a table");
    let files = archive.snapshot().await.expect("a snapshot").files.clone();
    archive.commit(Commit::remove(vec![files[0].clone()])).await.expect("commits");
    let failure = world.run(&view, false).await.expect_err("fails").to_string();
    assert_eq!(failure, "the archive holds 1 events before the cut, the log accepted 2");
}

#[tokio::test(flavor = "multi_thread")]
async fn run_that_misses_a_file_names_it_and_works_after_a_repair() {
    let world = World::new(settings());
    let view = view(HOURLY);
    world.append(0, [event("a", 1, "ATL"), event("b", 30, "ATL"), event("c", 31, "ATL")]);
    world.run(&view, false).await.expect("publishes");
    let archive = world.archive().await;
    let snapshot = archive.snapshot().await.expect("a snapshot");
    let gone = snapshot.files.iter().find(|file| file.rows == 2).expect("of the second day").clone();
    std::fs::remove_file(archive.url_of(&gone)).expect("deleted");

    let failure = world.run(&view, true).await.expect_err("a file is gone");
    assert!(failure.may_pass(), "a retry succeeds once the folder is back or the archive is repaired");
    let text = failure.to_string();
    let version = format!(
        "version {} of events/flights lists files that are gone (1, the first is {}): ",
        snapshot.version, gone.path
    );
    assert!(text.starts_with(&version), "{text}");
    assert!(text.ends_with("give their 2 events up: trueup repair flights"), "{text}");
    assert_eq!(world.batch_rows(&view).await.len(), 3, "the previous version stays active");

    let missing = archive.missing(&snapshot.files).await.expect("looked up");
    assert_eq!(missing, [gone]);
    archive.give_up_lost(snapshot.version, missing).await.expect("repaired");
    world.append(0, [event("d", 40, "ATL")]);
    for full in [false, true] {
        world.run(&view, full).await.expect("publishes");
        let version = world.published(&view).and_then(|p| p.version.clone()).expect("a version");
        assert_eq!((version.ledger, version.ledger.events), (version.seam.accepted(), 4), "all are accounted for");
    }
    assert_eq!(world.batch_rows(&view).await.len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancelled_run_leaves_no_files() {
    let world = Arc::new(World::new(settings()));
    let view = view(HOURLY);
    world.append(0, [event("a", 1, "ATL")]);
    *world.log.archive_stuck.lock() = true;
    let entry = world.entry(&view, false).await;
    let waiting = entry.watch.cancel.clone();
    let (executor, job) = (Arc::clone(&world.executor), world.job(&view));
    let running = tokio::spawn(async move { executor.execute(&job, &entry).await });
    waiting.set();
    assert!(matches!(running.await.expect("ends"), Err(RunFailure::Cancelled)));

    // While it reads: Polars is stopped by the same flag.
    *world.log.archive_stuck.lock() = false;
    let entry = world.entry(&view, false).await;
    assert_eq!(entry.run().state, RunState::Running);
    entry.watch.cancel.set();
    let query = crate::recompute::reduce::group_by::ArchiveQuery {
        source: crate::recompute::scan::ArchiveSource {
            table: archive(&world).await,
            stream: Arc::clone(&world.log.stream),
        },
        view: Arc::clone(&view),
        frozen: None,
        verdicts: None,
        lookups: None,
    };
    let files = planned_files(&world).await;
    let stopped = tokio::task::spawn_blocking(move || {
        query.states(&files, crate::recompute::reduce::group_by::RowSelection::All, &entry.watch)
    });
    let failure = stopped.await.expect("ends").expect_err("stopped").to_string();
    assert!(failure.contains("cancelled"), "{failure}");
    assert!(world.parquet_files(&view).is_empty());
}

async fn archive(world: &World) -> lake::Table {
    world.flush().await;
    let path = lake::TablePath::events(&world.log.stream.name);
    world.lake().open_table(&path).await.expect("opens").expect("a table")
}

async fn planned_files(world: &World) -> Vec<crate::plan::ArchiveFile> {
    let snapshot = archive(world).await.snapshot().await.expect("a snapshot");
    let file = |file: &lake::DataFile| crate::plan::ArchiveFile {
        tags: lake::ArchiveTags::from_tags(&file.tags).expect("tags"),
        file: file.clone(),
    };
    snapshot.files.iter().map(file).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_archive_that_notes_impossible_many_historical_events_is_refused_at_once() {
    let world = World::new(settings());
    let view = view(HOURLY);
    world.append(0, [event("a", 1, "ATL")]);
    let table = archive(&world).await;
    let app_id = lake::ArchiveTags::app_id(&world.log.stream.name, shared::ids::Partition::HISTORY);
    table.commit(Commit::empty().completing(app_id, i64::MAX)).await.expect("another program may");
    let loaded = crate::load_published(&world.lake(), &world.log.stream, &view).await.expect_err("refused").to_string();
    assert!(loaded.contains("historical events") && loaded.contains("in no file"), "{loaded}");
    let failure = world.run(&view, false).await.expect_err("refused");
    assert!(!failure.may_pass(), "{failure}");
}
