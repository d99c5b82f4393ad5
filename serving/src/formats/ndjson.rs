//! Writes results as NDJSON: one flat object per line, the same as in the JSON document.

use shared::partial::query_budget::{Exceeded, QueryBudget};

use super::ResponseSize;
use super::json_rows::RowWriter;
use crate::execute::QueryResult;

/// Writes the result, within the memory of its query.
pub fn write(result: &QueryResult, budget: &QueryBudget) -> Result<Vec<u8>, Exceeded> {
    let mut size = ResponseSize::within(budget);
    let mut rows = RowWriter::new(result);
    let mut out = Vec::with_capacity(rows.bytes_expected());
    for row in 0..result.rows() {
        rows.write(row, &mut out);
        out.push(b'\n');
        size.check(out.len())?;
    }
    Ok(out)
}
