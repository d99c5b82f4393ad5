//! Writes events as flat JSON objects, NULL as `null`: a whole batch as an array, or one by one.

use arrow::array::RecordBatch;
use serde_json::to_string;

use super::cells::Cells;

/// Appends the rows of `batch` as a JSON array.
pub fn write(batch: &RecordBatch, out: &mut Vec<u8>) {
    let events = EventWriter::new(batch);
    out.push(b'[');
    for row in 0..batch.num_rows() {
        if row > 0 {
            out.push(b',');
        }
        events.write(row, out);
    }
    out.push(b']');
}

/// Writes single rows of a batch.
pub struct EventWriter<'a>(Vec<(String, Cells<'a>)>);

impl<'a> EventWriter<'a> {
    /// Prepares the names and columns.
    pub fn new(batch: &'a RecordBatch) -> EventWriter<'a> {
        let schema = batch.schema();
        let column = |(i, field): (usize, &std::sync::Arc<arrow::datatypes::Field>)| {
            let name = to_string(field.name()).expect("a text has a JSON form");
            let before = if i == 0 { "{" } else { "," };
            (format!("{before}{name}:"), Cells::new(batch.column(i)))
        };
        EventWriter(schema.fields().iter().enumerate().map(column).collect())
    }

    /// Appends the row as an object.
    pub fn write(&self, row: usize, out: &mut Vec<u8>) {
        for (name, cells) in &self.0 {
            out.extend_from_slice(name.as_bytes());
            cells.write_json(row, out);
        }
        out.push(b'}');
    }
}
