//! What is the NDJSON of an answer? One flat object a line, the same as in the JSON document.

use super::json_rows::RowWriter;
use crate::answer::Answer;

/// Writes the answer.
pub fn write(answer: &Answer) -> Vec<u8> {
    let mut rows = RowWriter::new(answer);
    let mut out = Vec::with_capacity(rows.bytes_expected());
    for row in 0..answer.rows() {
        rows.write(row, &mut out);
        out.push(b'\n');
    }
    out
}
