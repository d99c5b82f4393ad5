//! Checks that each row of an outbox becomes an event exactly once, with an outbox in memory: crashes of the reader, a disk
//! that is full in the middle of a read, reads that fail, rejected rows, another database.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use shared::control::SourceState;
use shared::stream::Stream;
use tempfile::TempDir;

use super::Process;
use super::fake_outbox::{FakeDatabase, FakeOutbox};
use crate::log::{IoStep, LocalDisk, with_faults};
use crate::partition::PartitionSettings;
use crate::testing::stream;

fn declared() -> Arc<Stream> {
    let sql = "CREATE STREAM s (at TIMESTAMP METADATA FROM 'timestamp', v BIGINT) \
         WITH (event_time = 'at', source = 'postgres', connection = 'shop')";
    Arc::new(stream(sql))
}

fn start(dir: &TempDir, outbox: &Arc<FakeOutbox>, settings: PartitionSettings) -> Process {
    Process::start_reading(dir, &declared(), Arc::new(FakeDatabase(Arc::clone(outbox))), settings)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_row_is_an_event_once_however_the_reader_ends() {
    for seed in 0..12 {
        let (dir, outbox) = (TempDir::new().expect("a folder"), FakeOutbox::new(1 + seed as usize % 5));
        for round in 0..6 {
            outbox.extend(20 + seed as usize, 7);
            let process = start(&dir, &outbox, PartitionSettings::default());
            outbox.fail_reads((seed + round) % 3);
            tokio::time::sleep(Duration::from_millis((seed * 7 + round * 5) % 23)).await;
            if (seed + round) % 2 == 0 { process.stop().await } else { process.crash() }
        }
        let process = start(&dir, &outbox, PartitionSettings::default());
        process.wait_for("the end of the outbox", |status| status.lag == Some(0)).await;
        assert_eq!(process.logged_column("v"), [outbox.values()], "seed {seed}");
        let rows = 6 * (20 + seed as usize);
        let poisoned = (0..rows).filter(|row| row % 7 == 6).map(|row| (0, row as i64)).collect::<Vec<_>>();
        assert_eq!(process.quarantined(), poisoned, "seed {seed}");
        process.wait_for("the acknowledgement", |status| status.retained_bytes == Some(4096)).await;
        process.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disk_that_is_full_in_the_middle_of_a_read_loses_nothing() {
    let (dir, outbox) = (TempDir::new().expect("a folder"), FakeOutbox::new(25_000));
    outbox.extend(70_000, usize::MAX);
    let count = Arc::new(AtomicU64::new(0));
    let writes = Arc::clone(&count);
    let faults = move |step: IoStep| match step {
        IoStep::Write if writes.fetch_add(1, Ordering::Relaxed) % 3 == 2 => {
            Err(std::io::Error::from(std::io::ErrorKind::StorageFull))
        }
        _ => Ok(()),
    };
    let mut settings = PartitionSettings::default();
    settings.log.disk = with_faults(Arc::new(LocalDisk), Arc::new(faults));
    let process = start(&dir, &outbox, settings);
    process.wait_for("the end of the outbox", |status| status.partitions[0].position == Some(70_000)).await;
    assert_eq!(process.logged_column("v"), [outbox.values()]);
    assert!(count.load(Ordering::Relaxed) > 5, "the disk was full at times");
    process.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn positions_of_another_database_are_not_used() {
    let (dir, outbox) = (TempDir::new().expect("a folder"), FakeOutbox::new(10));
    outbox.extend(3, usize::MAX);
    let process = start(&dir, &outbox, PartitionSettings::default());
    process.wait_for("the end of the outbox", |status| status.partitions[0].position == Some(3)).await;
    process.stop().await;
    assert_eq!(outbox.acknowledged(), 3);
    outbox.replace("second");
    outbox.extend(2, usize::MAX);
    let process = start(&dir, &outbox, PartitionSettings::default());
    process.wait_for("the error", |s| s.error.as_ref().is_some_and(|e| e.contains("another database"))).await;
    assert_eq!(process.status().state, SourceState::Failing);
    outbox.replace("first");
    process.wait_for("the rows", |status| status.partitions[0].position == Some(5)).await;
    assert_eq!(process.logged_column("v"), [outbox.values()]);
    process.stop().await;
}
