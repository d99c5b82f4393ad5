//! Opens tables whose Delta log was mutated: a table is read as its log says, or refused with a reason; nothing outside its
//! folder is read, written or deleted, and nothing that its newest version names is deleted.
//!
//! The seeds are logs that the product wrote, and logs as other writers write them ([`foreign_logs`]): with deletion vectors,
//! column mapping, checkpoints of both kinds, compacted entries and checksums.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use arrow::array::{Int64Array, RecordBatch, StringViewArray, TimestampMicrosecondArray};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use futures::TryStreamExt;
use lake::vacuum::{VacuumAge, expire_old_log, vacuum};
use lake::{Commit, DataFile, Lake, LakeError, Spool, Table, TablePath, TableSnapshot};
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};
use serde_json::Value;
use shared::date_partition::DatePartition;
use shared::time::Day;
use shared::types::timestamp_type;
use tokio::runtime::Runtime;

use crate::bundle::{BundledFile, decode, encode, mutate};
use crate::foreign_logs::foreign_logs;
use crate::fuzzer::{Target, fuzz, kind_of};
use crate::recorded_store::{Access, RecordedStore};

const DATE: &str = "_event_date";
const FOLDER: &str = "events/s";
const LOG: &str = "_delta_log/";

fn path() -> TablePath {
    TablePath::events(&"s".parse().expect("a name"))
}

fn schema() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new("at", timestamp_type(), false),
        Field::new("who", DataType::Utf8View, true),
        Field::new("n", DataType::Int64, true),
    ]))
}

fn rows(numbers: &[i64]) -> RecordBatch {
    let start = Day::parse("2001-01-01").expect("a day").start().0;
    let at: TimestampMicrosecondArray = numbers.iter().map(|n| Some(start + n)).collect();
    let who: StringViewArray = numbers.iter().map(|n| (n % 2 == 0).then(|| format!("name {n}"))).collect();
    let n = Int64Array::from(numbers.to_vec());
    RecordBatch::try_new(schema(), vec![Arc::new(at.with_timezone("UTC")), Arc::new(who), Arc::new(n)]).expect("rows")
}

fn day() -> DatePartition {
    DatePartition::Day(Day::parse("2001-01-01").expect("a day"))
}

async fn file(table: &Table, numbers: &[i64]) -> DataFile {
    table.write_parquet(day(), &[rows(numbers)]).await.expect("memory")
}

/// The files of a table that the product wrote, with paths that are the same in every run: those of the log, and the others.
async fn written(commits: i64) -> (Vec<BundledFile>, Vec<BundledFile>) {
    let store = Arc::new(RecordedStore::default());
    let table = Lake::over(store.clone()).table(&path(), schema(), DATE).await.expect("memory");
    let files = [file(&table, &[1, 2]).await, file(&table, &[3]).await, file(&table, &[4, 5, 6]).await];
    table.commit(Commit::append(files[..2].to_vec()).completing("s/0", 2)).await.expect("memory");
    table.commit(Commit::exchange(files[..1].to_vec(), files[2..].to_vec())).await.expect("memory");
    table.commit(Commit::declare(schema(), "CREATE STREAM s".to_owned())).await.expect("memory");
    for version in 4..=commits {
        table.commit(Commit::empty().completing("s/0", version)).await.expect("memory");
    }
    let mut contents = Vec::new();
    for object in store.list(Some(&Path::from(FOLDER))).try_collect::<Vec<_>>().await.expect("memory") {
        let bytes = store.get(&object.location).await.expect("memory").bytes().await.expect("memory");
        let name = object.location.as_ref().strip_prefix("events/s/").expect("in the folder").to_owned();
        contents.push((name, bytes.to_vec()));
    }
    let names: Vec<(String, String)> = (0..).zip(&files).map(|(i, f)| (f.path.clone(), data_path(i))).collect();
    let renamed = |text: &str| names.iter().fold(text.to_owned(), |text, (from, to)| text.replace(from, to));
    let is_text = |name: &str| name.ends_with(".json") || name.ends_with("_last_checkpoint");
    let content = |(name, bytes): BundledFile| match String::from_utf8(bytes) {
        Ok(text) if is_text(&name) => (renamed(&name), renamed(&text).into_bytes()),
        Ok(text) => (renamed(&name), text.into_bytes()),
        Err(other) => (renamed(&name), other.into_bytes()),
    };
    contents.into_iter().map(content).partition(|(name, _)| name.starts_with(LOG))
}

fn data_path(number: usize) -> String {
    format!("{DATE}=2001-01-01/part-{number}.parquet")
}

/// The files that the newest version has according to the entries alone; `None`: they say nothing certain.
fn replayed(files: &[BundledFile]) -> Option<BTreeMap<String, Option<i64>>> {
    let mut entries: BTreeMap<String, &[u8]> = BTreeMap::new();
    for (name, content) in files {
        let name = name.strip_prefix(LOG)?;
        if name.len() != 25 || !name.ends_with(".json") || entries.insert(name.to_owned(), content).is_some() {
            return None;
        }
    }
    let mut present = BTreeMap::new();
    for (version, (name, content)) in entries.into_iter().enumerate() {
        if name != format!("{version:020}.json") {
            return None;
        }
        let mut paths = BTreeSet::new();
        for line in content.split(|byte| *byte == b'\n').filter(|line| !line.trim_ascii().is_empty()) {
            let action: Value = serde_json::from_slice(line).ok()?;
            for kind in ["add", "remove"].into_iter().filter(|kind| !action[*kind].is_null()) {
                let path = action[kind]["path"].as_str()?.to_owned();
                // The order within an entry has no meaning.
                if !paths.insert(path.clone()) || !action[kind]["deletionVector"].is_null() {
                    return None;
                }
                match kind {
                    "add" => _ = present.insert(path, action[kind]["size"].as_i64()),
                    _ => _ = present.remove(&path),
                }
            }
        }
    }
    Some(present)
}

struct World {
    runtime: Runtime,
    spool: tempfile::TempDir,
    data: Vec<BundledFile>,
}

impl World {
    /// Reads and changes the table of a log in every way; returns what happened.
    async fn check(&self, input: &[u8]) -> String {
        let files = decode(input);
        let store = Arc::new(RecordedStore::default());
        for (name, content) in self.data.iter().chain(&files) {
            let path = Path::from(format!("{FOLDER}/{name}"));
            store.put(&path, content.clone().into()).await.expect("memory");
        }
        for decoy in ["secret.parquet", "events/other/_event_date=2001-01-01/part-0.parquet"] {
            store.put(&Path::from(decoy), self.data[0].1.clone().into()).await.expect("memory");
        }
        store.take();
        let spool = Spool::open(&self.spool.path().join("spool"), 1 << 30).expect("a spool");
        let lake = Lake::over(store.clone()).with_spool(spool);
        let mut seen = String::new();
        let mut newest = None;
        match lake.open_table(&path()).await {
            Ok(None) => seen += "no table",
            Err(error) => seen += &text(&error),
            Ok(Some(table)) => newest = read(&table, &files, &mut seen).await,
        }
        check_accesses(&store.take(), &BTreeSet::new());
        if let (Some(snapshot), Ok(Some(table))) = (newest, lake.open_table(&path()).await) {
            change(&table, &lake, &snapshot, &mut seen).await;
            check_accesses(&store.take(), &snapshot.files.iter().map(|file| file.path.clone()).collect());
        }
        seen
    }
}

/// Reads whatever a table has to say.
async fn read(table: &Table, files: &[BundledFile], seen: &mut String) -> Option<Arc<TableSnapshot>> {
    let snapshot = match table.snapshot().await {
        Ok(snapshot) => snapshot,
        Err(error) => {
            *seen += &text(&error);
            return None;
        }
    };
    if let Some(expected) = replayed(files) {
        let found: BTreeSet<&str> = snapshot.files.iter().map(|file| file.path.as_str()).collect();
        assert_eq!(found, expected.keys().map(String::as_str).collect(), "the log names other files");
        for file in &snapshot.files {
            assert!(expected[&file.path].is_none_or(|size| size == file.size_bytes), "another size of {}", file.path);
        }
    }
    *seen += &format!("{} files ", snapshot.files.len().min(5));
    for outcome in [
        table.snapshot_at(0).await.map(drop),
        table.txn_version("s/0").await.map(drop),
        table.commit_info(1).await.map(drop),
        table.history(-1, 10).await.map(drop),
        table.schema_change(&schema()).await.map(drop),
        table.declaration().await.map(drop),
        table.missing(&snapshot.files).await.map(drop),
        table.hold(&snapshot.files, &["n".to_owned()], &AtomicU64::new(0)).await.map(drop),
        table.rewrite(&snapshot.files, &schema()).await.map(drop),
    ] {
        *seen += &outcome.err().map_or_else(String::new, |error| text(&error));
    }
    for file in snapshot.files.iter().take(4) {
        *seen += &table.column_bytes(file).await.err().map_or_else(String::new, |error| text(&error));
    }
    Some(snapshot)
}

/// Commits a file, and deletes whatever is not needed.
async fn change(table: &Table, lake: &Lake, snapshot: &TableSnapshot, seen: &mut String) {
    let added = file(table, &[7]).await;
    match table.commit(Commit::append(vec![added.clone()])).await {
        Err(error) => *seen += &text(&error),
        Ok(version) => {
            let again = Lake::over(lake.store()).open_table(&path()).await.expect("readable").expect("a table");
            let read = again.snapshot().await.unwrap_or_else(|error| panic!("committed, then refused: {error}"));
            assert!(read.version >= version && read.holds(&added.path), "the commit is not there");
            assert!(snapshot.files.iter().all(|file| read.holds(&file.path)), "a file is gone");
        }
    }
    let age = VacuumAge { older_than: Duration::ZERO, clock_ahead: Duration::ZERO };
    for outcome in [
        vacuum(table, None, age, lake.leases()).await.map(drop),
        expire_old_log(table, age, lake.leases()).await.map(drop),
    ] {
        *seen += &outcome.err().map_or_else(String::new, |error| text(&error));
    }
}

/// Checks that only objects of the table were touched, and that none of `needed` was deleted.
fn check_accesses(accesses: &[(Access, Path)], needed: &BTreeSet<String>) {
    for (access, path) in accesses {
        let path = path.as_ref();
        let Some(name) = path.strip_prefix("events/s/") else { panic!("{access:?} outside the table: {path}") };
        assert!(*access != Access::Deleted || !needed.contains(name), "deleted a file in use: {path}");
    }
}

fn text(error: &LakeError) -> String {
    let text = error.to_string();
    assert!(!text.trim().is_empty(), "an error without a reason");
    kind_of(&text).chars().take(120).collect::<String>() + "; "
}

#[test]
fn delta_logs_are_read_as_they_say_or_refused() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("threads");
    let (short, data) = runtime.block_on(written(3));
    let (long, _) = runtime.block_on(written(101));
    // After a checkpoint, entries before it may be gone.
    let is_late = |name: &str| !name.ends_with(".json") || name > "_delta_log/00000000000000000098.json";
    let long: Vec<BundledFile> = long.into_iter().filter(|(name, _)| is_late(name)).collect();
    assert!(long.iter().any(|(name, _)| name.contains("checkpoint")), "a checkpoint was written");
    let seeds = [short, long].into_iter().chain(foreign_logs()).map(|files| encode(&files)).collect();
    let world = World { runtime, spool: tempfile::tempdir().expect("a folder"), data };
    let tokens = ["\n@_delta_log/00000000000000000004.json\n", "{\"remove\":{\"path\":\"", "{\"commitInfo\":{}}\n"];
    let target = Target {
        name: "delta_log",
        seeds,
        tokens: &tokens,
        inputs: 2_000,
        bytes_max: 64 * 1024,
        memory_max: Some(512 << 20),
        mutate: Some(mutate),
    };
    fuzz(&target, |input| world.runtime.block_on(world.check(input)));
}
