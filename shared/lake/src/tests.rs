//! Tests that a table holds every commit exactly once, beside other writers and after reopening.

mod exchanges;
mod missing_files;
mod vacuum_race;

use std::sync::Arc;

use arrow::array::{Int64Array, RecordBatch, StringViewArray, TimestampMicrosecondArray};
use arrow::datatypes::{DataType as ArrowType, Field, Schema, SchemaRef};
use serde_json::{Map, json};
use tempfile::TempDir;

use super::*;
use shared::date_partition::DatePartition;
use shared::time::{Day, Micros};
use shared::types::timestamp_type;

const DATE: &str = "_event_date";
const DAY_ONE: &str = "2001-01-01";
const DAY_TWO: &str = "2001-01-02";

fn schema() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new("at", timestamp_type(), false),
        Field::new("who", ArrowType::Utf8View, true),
        Field::new("n", ArrowType::Int64, true),
    ]))
}

fn rows(day: &str, numbers: &[i64]) -> RecordBatch {
    let start = Day::parse(day).unwrap().start().0;
    let at: TimestampMicrosecondArray = numbers.iter().map(|n| Some(start + n)).collect();
    let who: StringViewArray =
        numbers.iter().map(|n| (n % 2 == 0).then(|| format!("a name that is long, {n}"))).collect();
    let n = Int64Array::from(numbers.to_vec());
    RecordBatch::try_new(schema(), vec![Arc::new(at.with_timezone("UTC")), Arc::new(who), Arc::new(n)]).unwrap()
}

fn path() -> TablePath {
    TablePath::events(&"flights".parse().unwrap())
}

struct Place {
    folder: TempDir,
}

impl Place {
    fn new() -> Place {
        Place { folder: tempfile::tempdir().unwrap() }
    }

    /// The table as another process would open it.
    async fn table(&self) -> Table {
        let lake = Lake::open(self.folder.path().to_str().unwrap()).unwrap();
        lake.table(&path(), schema(), DATE).await.unwrap()
    }
}

fn date(day: &str) -> DatePartition {
    DatePartition::Day(Day::parse(day).unwrap())
}

async fn file(table: &Table, day: &str, numbers: &[i64]) -> DataFile {
    let mut file = table.write_parquet(date(day), &[rows(day, numbers)]).await.unwrap();
    file.tags.insert("from".to_owned(), numbers[0].to_string());
    file
}

fn adding(files: &[DataFile]) -> Commit {
    Commit::append(files.to_vec())
}

fn sorted(mut files: Vec<DataFile>) -> Vec<DataFile> {
    files.sort_by(|a, b| a.path.cmp(&b.path));
    files
}

fn note(text: &str) -> Map<String, serde_json::Value> {
    Map::from_iter([("run".to_owned(), json!({"id": text, "operation": [1, 2]}))])
}

#[tokio::test]
async fn the_newest_version_says_when_it_was_committed() {
    let place = Place::new();
    let table = place.table().await;
    let before = Micros(wall_clock_ms() * 1_000);
    table.commit(adding(&[file(&table, DAY_ONE, &[0]).await])).await.unwrap();
    let committed = place.table().await.committed_at().await.unwrap().expect("a time");
    assert!(before <= committed && committed <= Micros((wall_clock_ms() + 1) * 1_000), "{committed}");
}

/// Milliseconds since 1970.
fn wall_clock_ms() -> i64 {
    i64::try_from(std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap().as_millis()).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reopened_table_holds_exactly_its_commits() {
    let place = Place::new();
    let table = place.table().await;
    let files = [file(&table, DAY_ONE, &[1, 2]).await, file(&table, DAY_TWO, &[3]).await];
    let nowhere = table.write_parquet(DatePartition::Undated, &[rows(DAY_ONE, &[9])]).await.unwrap();
    let commit = adding(&files).completing("flights/0", 4).noting(note("one"));
    assert_eq!(table.commit(commit).await.unwrap(), 1);
    assert_eq!(table.commit(adding(std::slice::from_ref(&nowhere))).await.unwrap(), 2);

    let again = place.table().await;
    let snapshot = again.snapshot().await.unwrap();
    assert_eq!(snapshot, table.snapshot().await.unwrap());
    assert_eq!(snapshot.version, 2);
    assert_eq!(snapshot.files, sorted(files.iter().cloned().chain([nowhere]).collect()));
    assert_eq!(again.snapshot_at(1).await.unwrap().files, sorted(files.to_vec()));
    assert_eq!(again.txn_version("flights/0").await.unwrap(), Some(4));
    assert_eq!(again.txn_version("flights/1").await.unwrap(), None);
    assert_eq!(again.commit_info(1).await.unwrap(), Some(note("one")));
    assert_eq!(again.commit_info(7).await.unwrap(), None);
    let names: Vec<&str> = snapshot.schema.fields().iter().map(|f| f.name().as_str()).collect();
    assert_eq!(names, ["at", "who", "n", DATE]);
    assert_eq!(snapshot.schema.field(3).data_type(), &ArrowType::Date32);
    assert!(files.iter().all(|f| std::fs::exists(again.url_of(f)).unwrap()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn one_of_many_creators_creates_and_the_others_open() {
    let place = Arc::new(Place::new());
    let creators = (0..8).map(|_| {
        let place = place.clone();
        tokio::spawn(async move { place.table().await.snapshot().await.unwrap().version })
    });
    let versions: Vec<i64> = futures::future::join_all(creators).await.into_iter().map(|v| v.unwrap()).collect();
    assert_eq!(versions, [0; 8]);
}

#[tokio::test(flavor = "multi_thread")]
async fn statistics_bound_the_rows() {
    let place = Place::new();
    let file = file(&place.table().await, DAY_ONE, &[5, 2, 8]).await;
    let stats: serde_json::Value = serde_json::from_str(file.stats_json.as_deref().unwrap()).unwrap();
    let start = Day::parse(DAY_ONE).unwrap().start().0;
    assert_eq!(stats["numRecords"], json!(3));
    assert_eq!(stats["minValues"], json!({"at": Micros(start + 2).to_string(), "n": 2}));
    assert_eq!(stats["maxValues"], json!({"at": Micros(start + 8).to_string(), "n": 8}));
    assert_eq!(stats["nullCount"], json!({"at": 0, "who": 1, "n": 0}));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replaced_date_leaves_the_others_alone_and_old_files_in_place() {
    let place = Place::new();
    let table = place.table().await;
    let old = file(&table, DAY_ONE, &[1]).await;
    let other = file(&table, DAY_TWO, &[2]).await;
    let first = table.commit(adding(&[old.clone(), other.clone()])).await.unwrap();
    let new = file(&table, DAY_ONE, &[1, 3]).await;
    let replace = Commit::replace(first, vec![old.clone()], vec![new.clone()], schema());
    table.commit(replace).await.unwrap();
    assert_eq!(place.table().await.snapshot().await.unwrap().files, sorted(vec![new, other]));
    assert!(std::fs::exists(table.url_of(&old)).unwrap());
}

#[tokio::test(flavor = "multi_thread")]
async fn one_of_two_commits_on_the_same_version_conflicts() {
    let place = Place::new();
    // Two processes: neither sees the other's state.
    let (one, two) = (place.table().await, place.table().await);
    let base = one.commit(adding(&[file(&one, DAY_ONE, &[0]).await])).await.unwrap();
    let on_base = |file| Commit::replace(base, Vec::new(), vec![file], schema());
    let (a, b) = (on_base(file(&one, DAY_ONE, &[1]).await), on_base(file(&two, DAY_ONE, &[2]).await));
    let (a, b) = tokio::join!(one.commit(a), two.commit(b));
    let won = [&a, &b].into_iter().filter(|r| matches!(r, Ok(v) if *v == base + 1)).count();
    let lost = [&a, &b].into_iter().filter(|r| matches!(r, Err(LakeError::Conflict { .. }))).count();
    assert_eq!((won, lost), (1, 1), "{a:?} {b:?}");
    assert_eq!(place.table().await.snapshot().await.unwrap().files.len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn blind_appends_of_many_writers_all_land() {
    let place = Place::new();
    place.table().await;
    let writers = (0..4).map(|writer| {
        let table = place.table();
        async move {
            let table = table.await;
            for turn in 1..=5 {
                let file = file(&table, DAY_ONE, &[turn]).await;
                table.commit(adding(&[file]).completing(format!("flights/{writer}"), turn)).await.unwrap();
            }
        }
    });
    futures::future::join_all(writers).await;
    let table = place.table().await;
    let snapshot = table.snapshot().await.unwrap();
    assert_eq!((snapshot.version, snapshot.files.len()), (20, 20));
    for writer in 0..4 {
        assert_eq!(table.txn_version(&format!("flights/{writer}")).await.unwrap(), Some(5));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_is_committed_once() {
    let place = Place::new();
    let (table, stale) = (place.table().await, place.table().await);
    let commit = adding(&[file(&table, DAY_ONE, &[1]).await]).completing("app", 10);
    // The other writer has looked, and found no transaction yet.
    assert_eq!(stale.txn_version("app").await.unwrap(), None);
    table.commit(commit.clone()).await.unwrap();
    for writer in [&table, &place.table().await] {
        let again = writer.commit(commit.clone()).await;
        assert!(matches!(again, Err(LakeError::AlreadyCommitted { version: 10, .. })), "{again:?}");
    }
    let unaware = stale.commit(commit.clone()).await;
    assert!(matches!(unaware, Err(LakeError::Conflict { .. })), "{unaware:?}");
    assert_eq!(stale.txn_version("app").await.unwrap(), Some(10));
    assert_eq!(table.snapshot().await.unwrap().files.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn columns_can_be_added_and_a_changed_type_is_named() {
    let place = Place::new();
    let table = place.table().await;
    assert_eq!(table.schema_change(&schema()).await.unwrap(), SchemaChange::None);
    let mut fields: Vec<Field> = schema().fields().iter().map(|f| f.as_ref().clone()).collect();
    fields.push(Field::new("more", ArrowType::Boolean, true));
    let wider: SchemaRef = Arc::new(Schema::new(fields.clone()));
    assert_eq!(table.schema_change(&wider).await.unwrap(), SchemaChange::Compatible);
    table.commit(Commit::columns(wider.clone())).await.unwrap();
    assert_eq!(table.schema_change(&wider).await.unwrap(), SchemaChange::None);
    fields[2] = Field::new("n", ArrowType::Float64, true);
    let changed = table.schema_change(&Arc::new(Schema::new(fields))).await.unwrap();
    assert!(
        matches!(&changed, SchemaChange::Incompatible(reason) if reason.starts_with("column n was ")),
        "{changed:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn checkpoints_keep_tags_transactions_and_notes() {
    let place = Place::new();
    let table = place.table().await;
    let mut files = Vec::new();
    for turn in 1..=105 {
        let file = file(&table, DAY_ONE, &[turn]).await;
        let commit = adding(std::slice::from_ref(&file)).completing("app", turn).noting(note(&turn.to_string()));
        table.commit(commit).await.unwrap();
        files.push(file);
    }
    let log = place.folder.path().join("events/flights/_delta_log");
    let has_checkpoint =
        std::fs::read_dir(log).unwrap().any(|e| e.unwrap().file_name().to_str().unwrap().contains("checkpoint"));
    assert!(has_checkpoint);
    let again = place.table().await;
    for table in [&table, &again] {
        assert_eq!(table.snapshot().await.unwrap().files, sorted(files.clone()));
        // A table that is open for long starts from the checkpoint as well, or the columns of each commit stay in memory.
        assert!(table.locked().await.loaded >= 100);
    }
    assert_eq!(again.txn_version("app").await.unwrap(), Some(105));
    assert_eq!(again.latest_info().await.unwrap(), Some((105, note("105"))));
}

#[tokio::test(flavor = "multi_thread")]
async fn only_files_of_failed_runs_can_be_deleted() {
    let place = Place::new();
    let table = place.table().await;
    let (kept, failed) = (file(&table, DAY_ONE, &[1]).await, file(&table, DAY_ONE, &[2]).await);
    table.commit(adding(std::slice::from_ref(&kept))).await.unwrap();
    let both = [failed.clone(), kept.clone()];
    assert!(matches!(table.delete_files(&both).await, Err(LakeError::InUse { .. })));
    table.delete_files(std::slice::from_ref(&failed)).await.unwrap();
    table.delete_files(std::slice::from_ref(&failed)).await.unwrap();
    assert!(!std::fs::exists(table.url_of(&failed)).unwrap() && std::fs::exists(table.url_of(&kept)).unwrap());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lake_without_directories_works_alike() {
    let lake = Lake::over(Arc::new(object_store::memory::InMemory::new()));
    assert!(lake.local_root().is_none() && lake.open_table(&path()).await.unwrap().is_none());
    let table = lake.table(&path(), schema(), DATE).await.unwrap();
    table.commit(adding(&[file(&table, DAY_ONE, &[1]).await])).await.unwrap();
    assert_eq!(lake.open_table(&path()).await.unwrap().unwrap().snapshot().await.unwrap().files.len(), 1);
    assert!(lake.table(&path(), schema(), "another").await.is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_fails_if_its_expected_transactions_changed() {
    let place = Place::new();
    let (table, other) = (place.table().await, place.table().await);
    let moving = |from: Option<i64>, to: i64| Commit::empty().moving("app", from, to);
    table.commit(moving(None, 10)).await.unwrap();
    for stale in [moving(None, 20), moving(Some(9), 20)] {
        let lost = other.commit(stale).await;
        assert!(matches!(lost, Err(LakeError::Conflict { .. })), "{lost:?}");
    }
    other.commit(moving(Some(10), 20)).await.unwrap();
    // Many at once from one state: one moves on, the others find it moved.
    let racers: Vec<Table> = futures::future::join_all((0..6).map(|_| place.table())).await;
    let races = racers.iter().enumerate().map(|(i, racer)| racer.commit(moving(Some(20), 21 + i as i64)));
    let outcomes = futures::future::join_all(races).await;
    assert_eq!(outcomes.iter().filter(|outcome| outcome.is_ok()).count(), 1, "{outcomes:?}");
}

#[tokio::test]
async fn merged_files_have_all_columns_and_the_rows_in_order() {
    use futures::TryStreamExt;
    use object_store::ObjectStoreExt;
    use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;

    let place = Place::new();
    let table = place.table().await;
    let old = file(&table, DAY_ONE, &[5, 4, 9]).await;
    // A file from after `who` was taken out of the stream, and `extra` put in and out.
    let numbers = rows(DAY_ONE, &[7, 1]);
    let extra = Arc::new(Int64Array::from(vec![70, 10]));
    let other = Schema::new(vec![
        Field::new("at", timestamp_type(), false),
        Field::new("n", ArrowType::Int64, true),
        Field::new("extra", ArrowType::Int64, true),
    ]);
    let columns = vec![Arc::clone(numbers.column(0)), Arc::clone(numbers.column(2)), extra as _];
    let other = RecordBatch::try_new(Arc::new(other), columns).unwrap();
    let new = table.write_parquet(date(DAY_ONE), &[other]).await.unwrap();
    table.commit(adding(&[old.clone(), new.clone()])).await.unwrap();

    let wanted: SchemaRef = Arc::new(schema().project(&[0, 2]).unwrap());
    let one = table.rewrite(&[old.clone(), new.clone()], &wanted).await.unwrap();
    assert_eq!((one.rows, one.partition), (5, date(DAY_ONE)));
    let stats: serde_json::Value = serde_json::from_str(one.stats_json.as_deref().unwrap()).unwrap();
    assert_eq!((&stats["minValues"]["n"], &stats["maxValues"]["n"]), (&json!(1), &json!(9)));
    assert_eq!((&stats["nullCount"]["who"], &stats["nullCount"]["extra"]), (&json!(4), &json!(3)));
    let commit = Commit::compact(vec![old.clone(), new.clone()], vec![one.clone()]);
    table.commit(commit).await.unwrap();
    assert_eq!(place.table().await.snapshot().await.unwrap().files.len(), 1);

    let stored = table.store().get(&object_store::path::Path::from(one.path.as_str())).await.unwrap();
    let bytes = stored.bytes().await.unwrap();
    let read = ParquetRecordBatchReaderBuilder::try_new(bytes).unwrap().build().unwrap();
    let read = read.collect::<Result<Vec<_>, _>>().unwrap();
    let read = arrow::compute::concat_batches(&read[0].schema(), &read).unwrap();
    let names: Vec<String> = read.schema().fields().iter().map(|f| f.name().clone()).collect();
    assert_eq!(names, ["at", "n", "who", "extra"]);
    assert_eq!(read.column(1).as_ref(), &Int64Array::from(vec![5, 4, 9, 7, 1]) as &dyn arrow::array::Array);
    let extra = Int64Array::from(vec![None, None, None, Some(70), Some(10)]);
    assert_eq!(read.column(3).as_ref(), &extra as &dyn arrow::array::Array);

    // The log says that no data changed: followers have nothing to do.
    let entry = object_store::path::Path::from("_delta_log/00000000000000000002.json");
    let entry = table.store().get(&entry).await.unwrap().bytes().await.unwrap();
    let entry = String::from_utf8(entry.to_vec()).unwrap();
    assert_eq!(entry.matches("\"dataChange\":false").count(), 3, "{entry}");
    let names: Vec<_> = table.store().list(None).try_collect().await.unwrap();
    assert_eq!(names.iter().filter(|f| f.location.as_ref().starts_with(DATE)).count(), 3, "old files stay for now");

    let text = RecordBatch::try_new(
        Arc::new(Schema::new(vec![Field::new("n", ArrowType::Utf8View, true)])),
        vec![Arc::new(StringViewArray::from(vec!["no number"]))],
    );
    let text = table.write_parquet(date(DAY_ONE), &[text.unwrap()]).await.unwrap();
    let refused = table.rewrite(&[one.clone(), text], &wanted).await;
    assert!(refused.is_err(), "a value without a place is no null");
    let elsewhere = file(&table, DAY_TWO, &[1]).await;
    let refused = table.rewrite(&[one, elsewhere], &wanted).await.unwrap_err().to_string();
    assert!(refused.contains("is of another date than"), "{refused}");
}
