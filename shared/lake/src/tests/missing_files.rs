//! Tests that files are neither deleted before another process commits them nor committed after they were deleted, and
//! that a table whose files are gone can be repaired.

use std::time::{Duration, SystemTime};

use shared::ids::{Offset, Partition};
use shared::ledger::Ledger;

use super::*;
use crate::vacuum::{VacuumAge, VacuumCounts, vacuum};

const HOUR: Duration = Duration::from_secs(3_600);

async fn vacuumed(table: &Table, older_than: Duration, clock_ahead: Duration) -> VacuumCounts {
    let leases = Leases::default();
    vacuum(table, None, VacuumAge { older_than, clock_ahead }, &leases).await.unwrap()
}

/// Makes a file look as if it had been written so long ago.
fn age(table: &Table, file: &DataFile, by: Duration) {
    let opened = std::fs::File::options().write(true).open(table.url_of(file)).unwrap();
    opened.set_modified(SystemTime::now() - by).unwrap();
}

fn exists(table: &Table, file: &DataFile) -> bool {
    std::fs::exists(table.url_of(file)).unwrap()
}

fn tagged(mut file: DataFile, from: u64, to: u64) -> DataFile {
    let (partition, from, to) = (Partition(0), Offset(from), Offset(to));
    let (rows, ledger) = (to.0 - from.0, Ledger::of_range(partition, from, to));
    file.tags = ArchiveTags { partition, from, to, rows, erased: 0, ledger, latest_watermark: Micros::MIN }.to_tags();
    file
}

#[tokio::test(flavor = "multi_thread")]
async fn vacuum_of_any_age_keeps_files_that_another_process_is_about_to_commit() {
    let place = Place::new();
    let (server, ingest) = (place.table().await, place.table().await);
    let replaced = file(&server, DAY_ONE, &[1]).await;
    server.commit(adding(std::slice::from_ref(&replaced))).await.unwrap();
    let merged = file(&server, DAY_ONE, &[1]).await;
    server.commit(Commit::compact(vec![replaced.clone()], vec![merged.clone()])).await.unwrap();
    let staged = file(&ingest, DAY_TWO, &[2, 3]).await;

    let counts = vacuumed(&server, Duration::ZERO, Duration::ZERO).await;
    assert_eq!((counts.files, counts.too_young), (1, 1), "the replaced file goes at once");
    assert!(!exists(&server, &replaced) && exists(&server, &merged) && exists(&ingest, &staged));
    ingest.commit(adding(std::slice::from_ref(&staged))).await.unwrap();
    assert_eq!(server.snapshot().await.unwrap().files.len(), 2);

    // A run or an ingest that died an hour ago commits no more.
    let left = file(&ingest, DAY_TWO, &[4]).await;
    age(&ingest, &left, HOUR - Duration::from_secs(60));
    assert_eq!(vacuumed(&server, Duration::ZERO, Duration::ZERO).await.files, 0);
    age(&ingest, &left, HOUR + Duration::from_secs(60));
    assert_eq!(vacuumed(&server, 2 * HOUR, Duration::ZERO).await.files, 0);
    assert_eq!(vacuumed(&server, Duration::ZERO, HOUR).await.files, 0, "the clock is an hour ahead");
    assert_eq!(vacuumed(&server, Duration::ZERO, Duration::ZERO).await.files, 1);
    assert!(!exists(&ingest, &left));
}

#[tokio::test(flavor = "multi_thread")]
async fn commit_of_deleted_files_changes_nothing_and_says_so() {
    let place = Place::new();
    let table = place.table().await;
    let (kept, deleted) = (file(&table, DAY_ONE, &[1]).await, file(&table, DAY_TWO, &[2]).await);
    std::fs::remove_file(table.url_of(&deleted)).unwrap();
    let refused = table.commit(adding(&[kept.clone(), deleted.clone()]).completing("app", 1)).await;
    match &refused {
        Err(LakeError::FilesMissing { path, count: 1, .. }) => assert_eq!(*path, deleted.path),
        other => panic!("{other:?}"),
    }
    assert_eq!((table.snapshot().await.unwrap().version, table.txn_version("app").await.unwrap()), (0, None));
    // Written again under its name, it is what the commit says.
    table.write_again(&deleted, &[rows(DAY_TWO, &[2])]).await.unwrap();
    table.commit(adding(&[kept, deleted.clone()])).await.unwrap();
    let size = std::fs::metadata(table.url_of(&deleted)).unwrap().len();
    assert_eq!(size, deleted.size_bytes as u64);
}

#[tokio::test(flavor = "multi_thread")]
async fn files_that_are_gone_can_be_given_up_and_stay_accounted_for() {
    let place = Place::new();
    let table = place.table().await;
    let kept = tagged(file(&table, DAY_ONE, &[1, 2]).await, 0, 2);
    let gone = [tagged(file(&table, DAY_ONE, &[3]).await, 2, 3), tagged(file(&table, DAY_TWO, &[4, 5]).await, 3, 5)];
    table.commit(adding(&[kept.clone(), gone[0].clone(), gone[1].clone()])).await.unwrap();
    let snapshot = table.snapshot().await.unwrap();
    assert_eq!(table.missing(&snapshot.files).await.unwrap(), []);
    gone.iter().for_each(|file| std::fs::remove_file(table.url_of(file)).unwrap());
    let missing = table.missing(&snapshot.files).await.unwrap();
    assert_eq!(sorted(missing.clone()), sorted(gone.to_vec()));

    let first = missing.iter().filter(|file| **file == gone[0]).cloned().collect();
    let version = table.give_up_lost(snapshot.version, first).await.unwrap();
    let stale = table.give_up_lost(snapshot.version, missing.clone()).await;
    assert!(matches!(stale, Err(LakeError::Conflict { .. })), "{stale:?}");
    table.give_up_lost(version, vec![gone[1].clone()]).await.unwrap();
    let repaired = place.table().await.snapshot().await.unwrap();
    assert_eq!(repaired.files, [kept]);
    let lost = repaired.lost.as_ref().expect("noted");
    assert_eq!(lost.ledger(), Ledger::of_range(Partition(0), Offset(2), Offset(5)));
    assert_eq!(lost.partitions[&Partition(0)].to, Offset(5));
}

#[tokio::test(flavor = "multi_thread")]
async fn noted_dedup_horizon_survives_other_commits() {
    let place = Place::new();
    let table = place.table().await;
    assert_eq!(table.snapshot().await.unwrap().dedup_horizon_events, None);
    table.commit(Commit::note_dedup_horizon(10)).await.unwrap();
    table.commit(adding(&[file(&table, DAY_ONE, &[1]).await])).await.unwrap();
    assert_eq!(place.table().await.snapshot().await.unwrap().dedup_horizon_events, Some(10));
}
