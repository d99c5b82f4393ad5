//! Writes events of the test stream as files of an archive.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::array::{
    ArrayRef, BooleanArray, Date32Array, Decimal128Array, Float64Array, Int32Array, Int64Array, RecordBatch,
    StringArray, TimestampMicrosecondArray,
};
use arrow::compute::cast;
use parquet::arrow::ArrowWriter;
use shared::stream::Stream;
use world::oracle::events::Event;

/// An event, its partition and its offset.
pub type Archived = (Event, i32, i64);

/// Writes a file per chunk.
pub fn write(folder: &Path, stream: &Stream, chunks: &[&[Archived]]) -> Vec<PathBuf> {
    let write = |(number, events): (usize, &&[Archived])| {
        let path = folder.join(format!("{number}.parquet"));
        let batch = batch(stream, events);
        let file = std::fs::File::create(&path).expect("a file");
        let mut writer = ArrowWriter::try_new(file, batch.schema(), None).expect("a writer");
        writer.write(&batch).expect("written");
        writer.close().expect("closed");
        path
    };
    chunks.iter().enumerate().map(write).collect()
}

fn batch(stream: &Stream, archived: &[Archived]) -> RecordBatch {
    let schema = stream.archive_schema();
    let events = || archived.iter().map(|(event, ..)| event);
    let times = |values: Vec<Option<i64>>| TimestampMicrosecondArray::from(values).with_timezone("UTC");
    let cost = Decimal128Array::from(events().map(|e| e.cost_cents.map(i128::from)).collect::<Vec<_>>());
    let columns: Vec<ArrayRef> = vec![
        Arc::new(events().map(|e| e.id.as_deref()).collect::<StringArray>()),
        Arc::new(times(events().map(|e| Some(e.at)).collect())),
        Arc::new(events().map(|e| e.region.as_deref()).collect::<StringArray>()),
        Arc::new(events().map(|e| e.amount).collect::<Int64Array>()),
        Arc::new(events().map(|e| e.price).collect::<Float64Array>()),
        Arc::new(cost.with_precision_and_scale(10, 2).expect("fits")),
        Arc::new(events().map(|e| e.code).collect::<Int32Array>()),
        Arc::new(events().map(|e| e.flag).collect::<BooleanArray>()),
        Arc::new(events().map(|e| e.day).collect::<Date32Array>()),
        Arc::new(archived.iter().map(|(_, partition, _)| Some(*partition)).collect::<Int32Array>()),
        Arc::new(archived.iter().map(|(.., offset)| Some(*offset)).collect::<Int64Array>()),
        Arc::new(times(events().map(|_| Some(0)).collect())),
        Arc::new(times(events().map(|_| None).collect())),
    ];
    let columns = columns.iter().zip(schema.fields());
    let columns = columns.map(|(column, field)| cast(column, field.data_type()).expect("of this type")).collect();
    RecordBatch::try_new(schema, columns).expect("a batch")
}
