//! Writes events as a JSON array of flat objects, NULL as `null`.

use arrow::array::RecordBatch;
use serde_json::to_string;

use super::cells::Cells;

/// Appends the rows of `batch` as a JSON array.
pub fn write(batch: &RecordBatch, out: &mut Vec<u8>) {
    let schema = batch.schema();
    let column = |(i, field): (usize, &std::sync::Arc<arrow::datatypes::Field>)| {
        let name = to_string(field.name()).expect("a text has a JSON form");
        let before = if i == 0 { "{" } else { "," };
        (format!("{before}{name}:"), Cells::new(batch.column(i)))
    };
    let columns: Vec<_> = schema.fields().iter().enumerate().map(column).collect();
    out.push(b'[');
    for row in 0..batch.num_rows() {
        if row > 0 {
            out.push(b',');
        }
        for (name, cells) in &columns {
            out.extend_from_slice(name.as_bytes());
            cells.write_json(row, out);
        }
        out.push(b'}');
    }
    out.push(b']');
}
