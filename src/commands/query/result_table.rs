//! Formats a query result for a terminal: its rows as a table, and a footer with their provenance.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;
use serde_json::{Map, Value};
use shared::ids::{Offset, Partition};

use crate::human_units::counted;
use crate::table::{Align, draw};

/// A response of `GET /v1/views/{view}/rows.json`, with the fields that a table shows.
#[derive(Debug, Deserialize)]
pub struct QueryResult {
    columns: Vec<Column>,
    rows: Vec<Map<String, Value>>,
    #[serde(default)]
    seam: Seam,
    watermark: Option<String>,
    #[serde(default = "yes")]
    complete: bool,
    next: Option<String>,
}

#[derive(Debug, Deserialize)]
struct Column {
    name: String,
    #[serde(rename = "type")]
    data_type: String,
}

#[derive(Debug, Default, Deserialize)]
struct Seam {
    version: Option<i64>,
    published_at: Option<String>,
    #[serde(default)]
    offsets: BTreeMap<Partition, Offset>,
}

fn yes() -> bool {
    true
}

/// Fields of a row beside its columns, with their titles.
const ROW_FIELDS: [(&str, &str); 2] = [("_layer", "layer"), ("_finality", "finality")];

impl QueryResult {
    /// Returns the rows as a table, fitted to `width` characters. `None` means the width of the terminal.
    pub fn table(&self, width: Option<u16>) -> String {
        let shown: Vec<_> = self.columns.iter().map(|column| (column, NumberFormat::of(column, &self.rows))).collect();
        let mut header: Vec<_> =
            shown.iter().map(|(column, numbers)| (column.name.as_str(), numbers.align())).collect();
        let of_rows =
            ROW_FIELDS.map(|(field, title)| (field, title, self.rows.iter().any(|row| row.contains_key(field))));
        header.extend(of_rows.iter().filter(|(_, _, present)| *present).map(|(_, title, _)| (*title, Align::Left)));
        let cells = |row: &Map<String, Value>| {
            let columns = shown.iter().map(|(column, numbers)| {
                let text = text(row.get(&column.name), numbers);
                match bounds(row, &column.name, numbers) {
                    Some(bounds) => format!("{text} {bounds}"),
                    None => text,
                }
            });
            let of_row = of_rows.iter().filter(|(_, _, present)| *present);
            columns.chain(of_row.map(|(field, _, _)| text(row.get(*field), &NumberFormat::None))).collect()
        };
        draw(&header, self.rows.iter().map(cells), width)
    }

    /// Returns the provenance of the rows in one line, followed by warnings, if any.
    pub fn footer(&self) -> String {
        let batch = match (self.seam.version, &self.seam.published_at) {
            (Some(version), Some(at)) => format!("batch version {version} of {at}"),
            (Some(version), None) => format!("batch version {version}"),
            (None, _) => "no batch version yet".to_owned(),
        };
        let offsets: Vec<String> = self.seam.offsets.iter().map(|(p, offset)| format!("{p}:{offset}")).collect();
        let seam = if offsets.is_empty() { "-".to_owned() } else { offsets.join(" ") };
        let watermark = self.watermark.as_deref().unwrap_or("-");
        let rows = counted(self.rows.len(), "row");
        let complete = if self.complete { "complete" } else { "INCOMPLETE" };
        let mut lines = vec![format!("{rows} | {batch} | seam {seam} | watermark {watermark} | {complete}")];
        let overflowed: BTreeSet<&str> = self
            .rows
            .iter()
            .filter_map(|row| row.get("_overflow")?.as_array())
            .flatten()
            .filter_map(Value::as_str)
            .collect();
        if !overflowed.is_empty() {
            let names: Vec<&str> = overflowed.into_iter().collect();
            lines.push(format!(
                "warning: values that overflow their type, or cannot be computed, are NULL in {}",
                names.join(", ")
            ));
        }
        lines.extend(warnings(self.complete, self.next.as_deref()));
        lines.join("\n")
    }
}

/// Returns what a user must know in every format: that the result is incomplete, or that it has more rows.
pub fn warnings(complete: bool, next: Option<&str>) -> Vec<String> {
    let incomplete = "warning: the result is incomplete: events or rows are excluded; see /v1/streams/STREAM/failed, \
                      failed_rows of -o json, and the server's log";
    let more = next.map(|next| format!("more rows: --cursor '{next}', or a higher --limit"));
    (!complete).then(|| incomplete.to_owned()).into_iter().chain(more).collect()
}

/// The number format of a column.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum NumberFormat {
    /// The column has no numbers.
    None,
    /// All digits, as received.
    Exact,
    /// This number of digits after the decimal point.
    Rounded(usize),
}

impl NumberFormat {
    fn of(column: &Column, rows: &[Map<String, Value>]) -> NumberFormat {
        match column.data_type.split('(').next() {
            Some("INT" | "BIGINT" | "DECIMAL") => NumberFormat::Exact,
            Some("DOUBLE") => {
                let values = rows.iter().filter_map(|row| row.get(&column.name)?.as_f64());
                let largest = values.map(f64::abs).filter(|value| value.is_finite()).fold(0.0, f64::max);
                // Three significant digits for the largest number of the column.
                let zeros = if largest > 0.0 && largest < 1.0 { -largest.log10().floor() } else { 0.0 };
                NumberFormat::Rounded(3 + zeros.min(15.0) as usize)
            }
            _ => NumberFormat::None,
        }
    }

    fn align(self) -> Align {
        if self == NumberFormat::None { Align::Left } else { Align::Right }
    }
}

fn text(value: Option<&Value>, numbers: &NumberFormat) -> String {
    match (value, numbers) {
        (None | Some(Value::Null), _) => "NULL".to_owned(),
        (Some(Value::String(text)), _) => text.clone(),
        (Some(Value::Number(number)), NumberFormat::Rounded(digits)) => match number.as_f64() {
            Some(value) if value.abs() < 1e15 => format!("{value:.digits$}"),
            _ => number.to_string(),
        },
        (Some(other), _) => other.to_string(),
    }
}

/// Formats the interval of an approximate value.
fn bounds(row: &Map<String, Value>, column: &str, numbers: &NumberFormat) -> Option<String> {
    let bounds = row.get("_bounds")?.get(column)?;
    Some(format!("[{}, {}]", text(bounds.get(0), numbers), text(bounds.get(1), numbers)))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn answer(overrides: Value) -> QueryResult {
        let mut answer = json!({
            "view": "departures", "layer": "merged",
            "columns": [{"name": "window_start", "type": "TIMESTAMP", "role": "window"},
                        {"name": "origin", "type": "STRING", "role": "dimension"},
                        {"name": "flights", "type": "BIGINT", "role": "measure"},
                        {"name": "avg_delay", "type": "DOUBLE", "role": "measure"},
                        {"name": "late_share", "type": "DOUBLE", "role": "measure"},
                        {"name": "revenue", "type": "DECIMAL(38,2)", "role": "measure"},
                        {"name": "destinations", "type": "BIGINT", "role": "measure", "exact_in": "batch"}],
            "rows": [{"window_start": "2001-01-01T06:00:00Z", "window_end": "2001-01-01T07:00:00Z", "origin": "ATL",
                      "flights": 51, "avg_delay": 7.123456789, "late_share": 0.0123456, "revenue": "12.50",
                      "destinations": 38, "_layer": "merged", "_finality": "closed", "_bounds": {"destinations": [37, 39]}},
                     {"window_start": "2001-01-01T06:00:00Z", "window_end": "2001-01-01T07:00:00Z", "origin": null,
                      "flights": 1204, "avg_delay": null, "late_share": 0.0, "revenue": "7.00", "destinations": 3,
                      "_layer": "batch", "_finality": "final"}],
            "seam": {"version": 12, "published_at": "2024-01-01T00:00:00Z", "offsets": {"0": 41200, "1": 7}},
            "watermark": "2001-01-02T00:00:00Z", "as_of": "2024-01-01T00:00:09Z", "complete": true,
            "ledger": {"accepted": 42198, "batch": 41200, "speed": 995, "late": 3}, "next": null
        });
        for (name, value) in overrides.as_object().expect("an object") {
            answer[name] = value.clone();
        }
        serde_json::from_value(answer).expect("the contract's shape")
    }

    #[test]
    fn rows_are_printed_as_a_table() {
        insta::assert_snapshot!(answer(json!({})).table(Some(140)), @r#"
         window_start           origin   flights   avg_delay   late_share   revenue   destinations   layer    finality
        ───────────────────────────────────────────────────────────────────────────────────────────────────────────────
         2001-01-01T06:00:00Z   ATL           51       7.123      0.01235     12.50    38 [37, 39]   merged   closed
         2001-01-01T06:00:00Z   NULL        1204        NULL      0.00000      7.00              3   batch    final
        "#);
    }

    #[test]
    fn a_narrow_terminal_wraps_instead_of_running_over() {
        let table = answer(json!({})).table(Some(60));
        assert!(table.lines().all(|line| line.chars().count() <= 60), "{table}");
    }

    #[test]
    fn the_footer_shows_the_provenance() {
        let footer = answer(json!({})).footer();
        assert_eq!(
            footer,
            "2 rows | batch version 12 of 2024-01-01T00:00:00Z | seam 0:41200 1:7 | watermark 2001-01-02T00:00:00Z | complete"
        );
        let young = answer(json!({"seam": {"version": null, "published_at": null, "offsets": {}}, "watermark": null}));
        assert_eq!(young.footer(), "2 rows | no batch version yet | seam - | watermark - | complete");
        let incomplete = answer(json!({"complete": false, "next": "abc"})).footer();
        assert!(
            incomplete.contains("INCOMPLETE")
                && incomplete.contains("warning: ")
                && incomplete.contains("--cursor 'abc'")
        );
    }
}
