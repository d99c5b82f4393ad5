//! Writes results as CSV (RFC 4180, with a header and line feeds): the columns, then `_layer` and `_finality`.

use shared::partial::query_budget::{Exceeded, QueryBudget};

use super::ResponseSize;
use super::cells::{Cells, write_csv_text};
use super::flat;
use crate::execute::QueryResult;

/// Writes the result, within the memory of its query. NULL is an empty field, an empty text is `""`.
pub fn write(result: &QueryResult, budget: &QueryBudget) -> Result<Vec<u8>, Exceeded> {
    let mut size = ResponseSize::within(budget);
    let columns = flat::columns(result);
    let cells: Vec<Cells<'_>> = columns.iter().map(|c| Cells::typed(&c.values, c.data_type)).collect();
    let mut out = Vec::with_capacity((result.rows() + 1) * (cells.len() + 2) * 12);
    for column in &columns {
        write_csv_text(&column.name, &mut out);
        out.push(b',');
    }
    out.extend_from_slice(b"_layer,_finality\n");
    for row in 0..result.rows() {
        for column in &cells {
            column.write_csv(row, &mut out);
            out.push(b',');
        }
        out.extend_from_slice(result.layers[row].name().as_bytes());
        out.push(b',');
        out.extend_from_slice(result.finality[row].name().as_bytes());
        out.push(b'\n');
        size.check(out.len())?;
    }
    Ok(out)
}
