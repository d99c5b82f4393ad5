//! Tests that what another engine leaves in an exchange is read, deleted, and left alone by vacuum while it is in use.

use std::path::{Path as FilePath, PathBuf};
use std::time::{Duration, SystemTime};

use futures::TryStreamExt;
use parquet::arrow::ArrowWriter;

use super::*;
use crate::vacuum::{VacuumAge, VacuumCounts, vacuum};

const HOURS: Duration = Duration::from_secs(7_200);

/// Writes a file as another engine would.
fn leave(exchange: &Exchange, path: &str) -> PathBuf {
    let path = PathBuf::from(exchange.url_of(path).strip_prefix("file://").expect("a local folder"));
    std::fs::create_dir_all(path.parent().expect("a folder")).unwrap();
    let batch = rows(DAY_ONE, &[1, 2, 3]);
    let mut writer = ArrowWriter::try_new(std::fs::File::create(&path).unwrap(), batch.schema(), None).unwrap();
    writer.write(&batch).unwrap();
    writer.close().unwrap();
    path
}

/// Makes all files of a folder look two hours old.
fn age(folder: &FilePath) {
    for entry in std::fs::read_dir(folder).unwrap().flatten() {
        match entry.path() {
            path if path.is_dir() => age(&path),
            path => {
                let file = std::fs::File::options().write(true).open(path).unwrap();
                file.set_modified(SystemTime::now() - HOURS).unwrap();
            }
        }
    }
}

async fn vacuumed(table: &Table) -> VacuumCounts {
    let age = VacuumAge { older_than: Duration::ZERO, clock_ahead: Duration::ZERO };
    vacuum(table, None, age, &table.inner.leases).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn parquet_files_of_an_exchange_are_listed_and_read_and_no_others() {
    let place = Place::new();
    let table = place.table().await;
    let (exchange, other) = (table.exchange(), table.exchange());
    leave(&exchange, "states/__date=1/part-1.parquet");
    leave(&exchange, "states/__date=0/part-2.parquet");
    leave(&exchange, "states/__date=0/.part-3.parquet");
    leave(&exchange, "copies/__date=0/part-4.parquet");
    leave(&other, "states/__date=0/part-5.parquet");
    exchange.write("states/_SUCCESS", String::new()).await.unwrap();
    let files = exchange.parquet_files("states").await.unwrap();
    let paths: Vec<&str> = files.iter().map(|file| file.path.as_str()).collect();
    assert_eq!(paths, ["states/__date=0/part-2.parquet", "states/__date=1/part-1.parquet"]);
    let opened = exchange.open(&files[0]).await.unwrap();
    assert_eq!(opened.metadata().file_metadata().num_rows(), 3);
    let read: Vec<RecordBatch> = opened.build().unwrap().try_collect().await.unwrap();
    assert_eq!(read.iter().map(RecordBatch::num_rows).sum::<usize>(), 3);
    assert_eq!(table.snapshot().await.unwrap().files, [], "an exchange is not part of the table");
    assert_eq!(exchange.parquet_files("nothing").await.unwrap(), []);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_exchange_is_deleted_with_its_folders() {
    let place = Place::new();
    let table = place.table().await;
    let exchange = table.exchange();
    let path = leave(&exchange, "states/__date=1/part-1.parquet");
    exchange.delete().await.unwrap();
    let folder = path.ancestors().nth(3).expect("the exchange");
    assert!(!folder.exists(), "{}", folder.display());
    exchange.delete().await.expect("nothing is left to delete");
}

#[tokio::test(flavor = "multi_thread")]
async fn vacuum_deletes_exchanges_that_their_run_left_behind_and_none_in_use() {
    let place = Place::new();
    let table = place.table().await;
    let exchange = table.exchange();
    let path = leave(&exchange, "states/__date=1/part-1.parquet");
    exchange.write("probe.txt", "x".to_owned()).await.unwrap();
    let folder = path.ancestors().nth(3).expect("the exchange").to_owned();
    age(&folder);
    assert_eq!(vacuumed(&table).await, VacuumCounts::default(), "it is in use");
    drop(exchange);
    assert_eq!(vacuumed(&table).await.files, 2);
    assert!(!folder.exists());
    // Another process may still write what is young.
    let other = table.exchange();
    let young = leave(&other, "states/__date=1/part-1.parquet");
    drop(other);
    let counts = vacuumed(&table).await;
    assert_eq!((counts.files, counts.too_young), (0, 1));
    assert!(young.exists());
}
