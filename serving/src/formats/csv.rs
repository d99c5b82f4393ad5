//! What is the CSV of an answer? RFC 4180 with a header and line feeds: the columns, then `_layer` and `_finality`.

use super::cells::{Cells, write_csv_text};
use super::flat;
use crate::answer::Answer;

/// Writes the answer. NULL is an empty field, an empty text is `""`.
pub fn write(answer: &Answer) -> Vec<u8> {
    let columns = flat::columns(answer);
    let cells: Vec<Cells<'_>> = columns.iter().map(|c| Cells::typed(&c.values, c.data_type)).collect();
    let mut out = Vec::with_capacity((answer.rows() + 1) * (cells.len() + 2) * 12);
    for column in &columns {
        write_csv_text(&column.name, &mut out);
        out.push(b',');
    }
    out.extend_from_slice(b"_layer,_finality\n");
    for row in 0..answer.rows() {
        for column in &cells {
            column.write_csv(row, &mut out);
            out.push(b',');
        }
        out.extend_from_slice(answer.layers[row].name().as_bytes());
        out.push(b',');
        out.extend_from_slice(answer.finality[row].name().as_bytes());
        out.push(b'\n');
    }
    out
}
