//! Writes results as NDJSON: one flat object per line, the same as in the JSON document.

use super::json_rows::RowWriter;
use crate::execute::QueryResult;

/// Writes the result.
pub fn write(result: &QueryResult) -> Vec<u8> {
    let mut rows = RowWriter::new(result);
    let mut out = Vec::with_capacity(rows.bytes_expected());
    for row in 0..result.rows() {
        rows.write(row, &mut out);
        out.push(b'\n');
    }
    out
}
