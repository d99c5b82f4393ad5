//! Checks that compaction changes nothing but the number of files.

use std::time::Duration;

use lake::ArchiveTags;
use object_store::ObjectStore;
use object_store::path::Path;
use shared::ledger::Ledger;

use super::runs::{HOURLY, event};
use super::world::{World, settings, view};

const AT_ONCE: Option<Duration> = Some(Duration::ZERO);

async fn exists(world: &World, path: &str) -> bool {
    let path = Path::from(format!("events/flights/{path}"));
    object_store::ObjectStoreExt::head(&world.lake().store() as &dyn ObjectStore, &path).await.is_ok()
}

#[tokio::test(flavor = "multi_thread")]
async fn many_small_files_become_one_per_date_and_partition_with_the_same_events() {
    let world = World::new(settings());
    let view = view(HOURLY);
    for i in 0..30 {
        world.append(0, [event(&format!("a{i}"), i % 20, "ATL"), event(&format!("b{i}"), 24 + i % 20, "ORD")]);
        world.flush().await;
    }
    let unknown = world.compact(AT_ONCE).await;
    assert_eq!((unknown.files_before, unknown.files_after, unknown.dates), (60, 2, 2), "no view: all can be moved");
    assert_eq!((unknown.files_read, unknown.files_written, unknown.rows), (60, 2, 60));
    assert_eq!((unknown.files_deleted, unknown.files_too_young), (60, 0));
    world.run(&view, false).await.expect("publishes");
    let before = world.batch_rows(&view).await;

    for i in 30..40 {
        world.append(1, [event(&format!("a{i}"), i % 20, "ATL")]);
        world.flush().await;
    }
    // Events after the view's seam stay in their files: the next run must recognize new ones.
    assert_eq!(world.compact(None).await.files_read, 0);
    world.run(&view, false).await.expect("publishes");
    let version = world.published(&view).and_then(|p| p.version.clone()).expect("a version");
    assert!(!version.full);
    let done = world.compact(None).await;
    assert_eq!((done.files_before, done.files_after), (12, 3));
    assert_eq!(world.compact(None).await.files_read, 0, "nothing is left to do");

    let archived = world.archive().await.snapshot().await.expect("a snapshot");
    let tags: Vec<_> = archived.files.iter().map(|f| ArchiveTags::from_tags(&f.tags).expect("tags")).collect();
    let ledger: Ledger = tags.iter().map(|tags| tags.ledger).sum();
    assert_eq!(ledger, version.seam.accepted());
    assert!(archived.files.iter().zip(&tags).all(|(file, tags)| file.rows as u64 == tags.rows));
    assert!(archived.files.iter().all(|file| file.stats_json.as_deref().is_some_and(|s| s.contains("_offset"))));
    let after = world.batch_rows(&view).await;
    assert_ne!(after, before);
    world.run(&view, true).await.expect("publishes");
    assert_eq!(world.batch_rows(&view).await, after);
}

#[tokio::test(flavor = "multi_thread")]
async fn files_of_a_planned_run_are_kept_until_it_ends() {
    let world = World::new(settings());
    for i in 0..4 {
        world.append(0, [event(&format!("a{i}"), i, "ATL")]);
        world.flush().await;
    }
    let table = world.archive().await;
    let (planned, lease) = table.held_snapshot().await.expect("a snapshot");
    let done = world.compact(AT_ONCE).await;
    assert_eq!((done.files_read, done.files_written, done.files_deleted), (4, 1, 0));
    for file in &planned.files {
        assert!(exists(&world, &file.path).await, "{} is being read", file.path);
    }
    drop(lease);
    let later = world.compact(Some(Duration::from_secs(3600))).await;
    assert_eq!((later.files_read, later.files_deleted, later.files_too_young), (0, 0, 4));
    assert_eq!(world.compact(AT_ONCE).await.files_deleted, 4);
    for file in &planned.files {
        assert!(!exists(&world, &file.path).await);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn files_removed_by_another_process_are_not_restored() {
    let world = World::new(settings());
    for i in 0..4 {
        world.append(0, [event(&format!("a{i}"), i, "ATL")]);
        world.flush().await;
    }
    let table = world.archive().await;
    let stale = table.snapshot().await.expect("a snapshot");
    // Another process over the same lake compacts first.
    let other = lake::Lake::open(world.folder.path().to_str().expect("a path")).expect("a lake");
    let other = other.open_table(table.path()).await.expect("opens").expect("a table");
    let schema = world.log.stream.archive_schema();
    let rewrite = async |table: &lake::Table| {
        let file = table.rewrite(&stale.files, &schema).await.expect("writes");
        table.commit(lake::Commit::compact(stale.files.clone(), vec![file])).await
    };
    rewrite(&other).await.expect("commits");
    let refused = rewrite(&table).await.expect_err("the rows would be there twice").to_string();
    assert!(refused.contains("is not part of the table any more"), "{refused}");
    assert_eq!(table.snapshot().await.expect("a snapshot").files.iter().map(|f| f.rows).sum::<i64>(), 4);
}
