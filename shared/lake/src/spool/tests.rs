use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, Int64Array, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Int64Type, Schema};
use object_store::memory::InMemory;
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;

use super::*;
use crate::{Lake, TablePath};
use shared::date_partition::DatePartition;
use shared::time::Day;

const ROWS: i64 = 50_000;

fn rows() -> RecordBatch {
    // Numbers that do not compress well, nor do their differences, so that each column takes its room.
    let mixed = |i: i64, by: i64| {
        let product = i.wrapping_mul(by).wrapping_mul(0x9E37_79B9_7F4A_7C15_u64 as i64);
        (product ^ (product >> 32)).wrapping_mul(0x9E37_79B9_7F4A_7C15_u64 as i64)
    };
    let numbers = |by: i64| -> ArrayRef { Arc::new((0..ROWS).map(|i| mixed(i, by)).collect::<Int64Array>()) };
    let texts: ArrayRef = Arc::new((0..ROWS).map(|i| Some(format!("{:x}", mixed(i, 77)))).collect::<StringArray>());
    let field = |name: &str, data_type| Field::new(name, data_type, true);
    let fields = vec![field("a", DataType::Int64), field("text", DataType::Utf8), field("b", DataType::Int64)];
    RecordBatch::try_new(Arc::new(Schema::new(fields)), vec![numbers(3), texts, numbers(5)]).unwrap()
}

/// A table of a remote lake with one file, and what brings it here.
async fn table(folder: &Path, bytes_max: u64) -> (Table, Spool, DataFile) {
    let spool = Spool::open(&folder.join("spool"), bytes_max).unwrap();
    let lake = Lake::over(Arc::new(InMemory::new())).with_spool(spool.clone());
    let rows = rows();
    let path = TablePath::events(&"events".parse().unwrap());
    let mut fields = rows.schema().fields().to_vec();
    fields.push(Arc::new(Field::new("day", DataType::Date32, true)));
    let table = lake.table(&path, Arc::new(Schema::new(fields)), "day").await.unwrap();
    let file = table.write_parquet(DatePartition::Day(Day(0)), &[rows]).await.unwrap();
    (table, spool, file)
}

fn sum(path: &str, column: &str) -> i64 {
    let builder = ParquetRecordBatchReaderBuilder::try_new(File::open(path).unwrap()).unwrap();
    let mask = ProjectionMask::columns(builder.parquet_schema(), [column]);
    let batches = builder.with_projection(mask).build().unwrap();
    let of =
        |batch: RecordBatch| batch.column(0).as_primitive::<Int64Type>().iter().flatten().fold(0i64, i64::wrapping_add);
    batches.map(|batch| of(batch.unwrap())).fold(0i64, i64::wrapping_add)
}

fn names(columns: &[&str]) -> Vec<String> {
    columns.iter().map(|name| (*name).to_owned()).collect()
}

fn left(folder: &Path) -> usize {
    std::fs::read_dir(folder.join("spool")).unwrap().count()
}

#[tokio::test]
async fn only_needed_columns_are_fetched_once_and_deleted_with_the_last_holder() {
    let folder = tempfile::tempdir().unwrap();
    let (table, spool, file) = table(folder.path(), 1 << 30).await;
    let expected = |column: usize| {
        rows().column(column).as_primitive::<Int64Type>().iter().flatten().fold(0i64, i64::wrapping_add)
    };
    let read = AtomicU64::new(0);
    let files = std::slice::from_ref(&file);
    let first = table.hold(files, &names(&["b", "no such"]), &read).await.unwrap();
    let size = file.size_bytes as u64;
    let of_one = read.load(Ordering::Relaxed);
    assert!(size > 1_000_000 && of_one > 300_000 && of_one < size / 2, "{of_one} of {size}");
    assert_eq!(spool.bytes(), of_one);
    assert_eq!(sum(first.path(&file).unwrap(), "b"), expected(2));
    assert_eq!(first.rows(&file), Some(ROWS as u64));

    // The same again costs nothing; another column costs itself, in the same file.
    let again = table.hold(files, &names(&["b"]), &read).await.unwrap();
    assert_eq!(read.load(Ordering::Relaxed), of_one);
    let both = table.hold(files, &names(&["a", "b"]), &read).await.unwrap();
    assert!(read.load(Ordering::Relaxed) > of_one);
    assert_eq!((sum(both.path(&file).unwrap(), "a"), sum(both.path(&file).unwrap(), "b")), (expected(0), expected(2)));
    assert_eq!(again.path(&file), both.path(&file));
    drop((first, both));
    assert_eq!(left(folder.path()), 1);
    drop(again);
    assert_eq!((left(folder.path()), spool.bytes()), (0, 0));
}

#[tokio::test]
async fn a_file_beyond_the_limit_is_refused_and_leaves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let (table, spool, file) = table(folder.path(), 200_000).await;
    let error = table.hold(std::slice::from_ref(&file), &names(&["a"]), &AtomicU64::new(0)).await.unwrap_err();
    assert!(matches!(error, LakeError::SpoolFull { limit: 200_000, .. }), "{error}");
    assert!(error.to_string().contains("spool_bytes"), "{error}");
    assert_eq!((left(folder.path()), spool.bytes()), (0, 0));
    assert!(!table.has_room_for(&[file]));
}

#[tokio::test]
async fn a_start_cleans_up_after_a_process_that_died() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir_all(folder.path().join("spool")).unwrap();
    std::fs::write(folder.path().join("spool/0.parquet"), "left over").unwrap();
    Spool::open(&folder.path().join("spool"), 1).unwrap();
    assert_eq!(left(folder.path()), 0);
}

#[test]
fn near_ranges_are_joined_and_large_ones_cut() {
    let large = 2 * SPOOL_GAP_BYTES + 2 * SPOOL_PIECE_BYTES + 1;
    let cut = pieces(vec![1000..1100, 0..10, 2 * SPOOL_GAP_BYTES..large]);
    assert_eq!((cut.len(), cut[0].clone(), cut[3].clone()), (4, 0..1100, large - 1..large));
    let far = SPOOL_GAP_BYTES + 11;
    assert_eq!(pieces(vec![0..10, far..far + 1]), [0..10, far..far + 1]);
}
