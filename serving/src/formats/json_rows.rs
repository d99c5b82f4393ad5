//! Writes rows as flat JSON objects, for JSON and NDJSON. Names are encoded once per result.

use arrow::array::ArrayRef;
use arrow::buffer::BooleanBuffer;
use serde_json::to_string;

use super::cells::Cells;
use crate::execute::{ColumnRole, QueryResult, ResultColumn};
use crate::finality::Finality;

/// Writes the rows of one result.
pub struct RowWriter<'a> {
    result: &'a QueryResult,
    columns: Vec<(Vec<u8>, Cells<'a>, bool)>,
    /// Number of leading columns that identify a row: window and dimensions.
    key_columns: usize,
    /// Names and rows of values that do not fit their type.
    overflowed: Vec<(&'a str, &'a BooleanBuffer)>,
    /// Estimated measures: name with colon, and both ends of the intervals.
    bounds: Vec<(Vec<u8>, Cells<'a>, Cells<'a>)>,
    /// The last text of each window column: rows of one window share it.
    last_texts: Vec<Option<(i64, std::ops::Range<usize>)>>,
}

const OPEN: &[u8] = br#","_finality":"open""#;
const CLOSED: &[u8] = br#","_finality":"closed""#;
const FINAL: &[u8] = br#","_finality":"final""#;
const FROZEN: &[u8] = br#","_finality":"frozen""#;

impl<'a> RowWriter<'a> {
    /// Creates a writer for the rows of `result`.
    pub fn new(result: &'a QueryResult) -> RowWriter<'a> {
        let column = |(i, column): (usize, &'a ResultColumn)| {
            let name = to_string(&column.name).expect("a text has a JSON form");
            let before = if i == 0 { "{" } else { "," };
            (
                format!("{before}{name}:").into_bytes(),
                Cells::typed(&column.values, column.data_type),
                column.role == ColumnRole::Window,
            )
        };
        let columns: Vec<_> = result.columns.iter().enumerate().map(column).collect();
        let overflowed = result.columns.iter().filter_map(|c| Some((c.name.as_str(), c.overflowed.as_ref()?)));
        let bounds = result.columns.iter().filter_map(|column| {
            let bounds = column.bounds.as_ref()?;
            let name = to_string(&column.name).expect("a text has a JSON form");
            let cells = |end: &'a ArrayRef| Cells::typed(end, column.data_type);
            Some((format!("{name}:[").into_bytes(), cells(&bounds.low), cells(&bounds.high)))
        });
        let (overflowed, bounds) = (overflowed.collect(), bounds.collect());
        let key_columns = result.columns.iter().take_while(|column| column.role != ColumnRole::Measure).count();
        RowWriter { result, last_texts: vec![None; columns.len()], columns, key_columns, overflowed, bounds }
    }

    /// Estimates the bytes that the rows need.
    pub fn bytes_expected(&self) -> usize {
        let per_row: usize = self.columns.iter().map(|(name, ..)| name.len() + 12).sum::<usize>() + 48;
        self.result.rows() * per_row
    }

    /// Appends the key of the row as an object: its window and dimensions.
    pub fn write_key(&self, row: usize, out: &mut Vec<u8>) {
        for (name, cells, _) in &self.columns[..self.key_columns] {
            out.extend_from_slice(name);
            cells.write_json(row, out);
        }
        out.extend_from_slice(if self.key_columns == 0 { b"{}" } else { b"}" });
    }

    /// Appends the row as an object. All rows of one writer go into one vector.
    pub fn write(&mut self, row: usize, out: &mut Vec<u8>) {
        let Self { result, columns, overflowed, bounds, last_texts, .. } = self;
        for ((name, cells, is_window), last) in columns.iter().zip(last_texts) {
            out.extend_from_slice(name);
            match (is_window, cells.timestamp(row)) {
                (true, Some(time)) => write_window(time, cells, row, last, out),
                _ => cells.write_json(row, out),
            }
        }
        out.extend_from_slice(if columns.is_empty() { b"{\"_layer\":\"" } else { b",\"_layer\":\"" });
        out.extend_from_slice(result.layers[row].name().as_bytes());
        out.push(b'"');
        out.extend_from_slice(match result.finality[row] {
            Finality::Open => OPEN,
            Finality::Closed => CLOSED,
            Finality::Final => FINAL,
            Finality::Frozen => FROZEN,
        });
        write_bounds(bounds, row, out);
        let mut names = overflowed.iter().filter(|(_, rows)| rows.value(row)).map(|(name, _)| *name).peekable();
        if names.peek().is_some() {
            out.extend_from_slice(b",\"_overflow\":");
            serde_json::to_writer(&mut *out, &names.collect::<Vec<_>>()).expect("names have a JSON form");
        }
        out.push(b'}');
    }
}

/// Writes the intervals of the row's estimated values, if there are any.
fn write_bounds(bounds: &[(Vec<u8>, Cells<'_>, Cells<'_>)], row: usize, out: &mut Vec<u8>) {
    let mut before: &[u8] = b",\"_bounds\":{";
    for (name, low, high) in bounds.iter().filter(|(_, low, high)| !low.is_null(row) || !high.is_null(row)) {
        out.extend_from_slice(before);
        before = b",";
        out.extend_from_slice(name);
        low.write_json(row, out);
        out.push(b',');
        high.write_json(row, out);
        out.push(b']');
    }
    if before == b"," {
        out.push(b'}');
    }
}

/// Writes a window's bound; copies the text of the previous row if it is the same.
fn write_window(
    time: i64,
    cells: &Cells<'_>,
    row: usize,
    last: &mut Option<(i64, std::ops::Range<usize>)>,
    out: &mut Vec<u8>,
) {
    match last {
        Some((before, text)) if *before == time => out.extend_from_within(text.clone()),
        _ => {
            let start = out.len();
            cells.write_json(row, out);
            *last = Some((time, start..out.len()));
        }
    }
}
