//! Reads the archive of a stream and compares it with what clients know.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Int32Type, Int64Type, TimestampMicrosecondType};
use lake::{ArchiveTags, DataFile, Lake, Table, TablePath};
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use shared::ids::Partition;
use shared::stream::Stream;

use crate::model::{Accepted, Event, PartitionModel};

/// A row of the archive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct ArchivedRow {
    partition: usize,
    offset: u64,
    accepted: Accepted,
}

/// The contents of the archive of a stream.
#[derive(Default)]
pub struct LakeContents {
    /// The rows of each file that was read: no file ever changes.
    files: BTreeMap<String, Vec<ArchivedRow>>,
}

impl LakeContents {
    /// Reads the archive and compares it with `models`: it must hold exactly the first events of each partition. Returns
    /// their numbers.
    pub async fn check(
        &mut self,
        store: &Arc<dyn ObjectStore>,
        stream: &Stream,
        models: &[PartitionModel],
    ) -> Vec<u64> {
        let lake = Lake::over(Arc::clone(store));
        let path = TablePath::events(&stream.name);
        let Some(table) = lake.open_table(&path).await.expect("a table that can be read") else {
            return vec![0; models.len()];
        };
        let files = table.snapshot().await.expect("a snapshot").files.clone();
        let mut rows: Vec<ArchivedRow> = Vec::new();
        for file in &files {
            if !self.files.contains_key(&file.path) {
                let read = read(store, &path, file).await;
                self.files.insert(file.path.clone(), read);
            }
            rows.extend(self.files[&file.path].iter().copied());
        }
        rows.sort_unstable_by_key(|row| (row.partition, row.offset));
        let mut archived = Vec::new();
        for (partition, model) in models.iter().enumerate() {
            let rows: Vec<_> = rows.iter().filter(|row| row.partition == partition).collect();
            let end = progress(&table, stream, model.partition).await;
            assert_eq!(rows.len() as u64, end, "events of partition {partition} in the archive");
            for (row, offset) in rows.into_iter().zip(0..) {
                let expected = model.accepted.get(offset as usize);
                assert_eq!((row.offset, Some(&row.accepted)), (offset, expected), "partition {partition}");
            }
            archived.push(end);
        }
        archived
    }
}

/// The number of events of a partition that the archive says it has.
async fn progress(table: &Table, stream: &Stream, partition: Partition) -> u64 {
    let version = table.txn_version(&ArchiveTags::app_id(&stream.name, partition)).await.expect("its progress");
    u64::try_from(version.unwrap_or(0)).expect("an offset")
}

async fn read(store: &Arc<dyn ObjectStore>, table: &TablePath, file: &DataFile) -> Vec<ArchivedRow> {
    let object = store.get(&Path::from(format!("{table}/{}", file.path))).await.expect("a file of the archive");
    let bytes = object.bytes().await.expect("its bytes");
    let reader = ParquetRecordBatchReaderBuilder::try_new(bytes).and_then(|builder| builder.build()).expect("Parquet");
    reader.flat_map(|batch| rows(&batch.expect("rows"))).collect()
}

fn rows(batch: &RecordBatch) -> Vec<ArchivedRow> {
    let column = |name: &str, data_type: DataType| -> ArrayRef { cast(&batch[name], &data_type).expect("a column") };
    let times = |name: &str| column(name, batch[name].data_type().clone());
    let (ids, partitions) = (column("id", DataType::Utf8View), column("_partition", DataType::Int32));
    let offsets = column("_offset", DataType::Int64);
    let (at, arrived_at, watermarks) = (times("at"), times("_arrived_at"), times("_watermark"));
    let micros = |times: &ArrayRef, row: usize| times.as_primitive::<TimestampMicrosecondType>().value(row);
    let row = |row: usize| {
        let event = Event { id: Event::number(ids.as_string_view().value(row)), at: micros(&at, row) };
        let watermark = if watermarks.is_null(row) { i64::MIN } else { micros(&watermarks, row) };
        ArchivedRow {
            partition: partitions.as_primitive::<Int32Type>().value(row) as usize,
            offset: offsets.as_primitive::<Int64Type>().value(row) as u64,
            accepted: Accepted { event, arrived_at: micros(&arrived_at, row), watermark },
        }
    };
    (0..batch.num_rows()).map(row).collect()
}
