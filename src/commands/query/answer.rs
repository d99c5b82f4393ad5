//! How does an answer look on a terminal? Its rows as a table, and a footer that says where the figures come from.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;
use serde_json::{Map, Value};
use shared::ids::{Offset, Partition};

use crate::human_units::counted;
use crate::table::{Align, draw};

/// An answer of `GET /v1/views/{view}/rows.json`; what a table does not show is left out.
#[derive(Debug, Deserialize)]
pub struct Answer {
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

/// What the server says of every row beside its columns, if it does.
const OF_ROWS: [(&str, &str); 2] = [("_layer", "layer"), ("_finality", "finality")];

impl Answer {
    /// The rows as a table, fitted to `width` characters; `None`: to the terminal.
    pub fn table(&self, width: Option<u16>) -> String {
        let shown: Vec<_> = self.columns.iter().map(|column| (column, Numbers::of(column, &self.rows))).collect();
        let mut header: Vec<_> =
            shown.iter().map(|(column, numbers)| (column.name.as_str(), numbers.align())).collect();
        let of_rows = OF_ROWS.map(|(field, title)| (field, title, self.rows.iter().any(|row| row.contains_key(field))));
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
            columns.chain(of_row.map(|(field, _, _)| text(row.get(*field), &Numbers::None))).collect()
        };
        draw(&header, self.rows.iter().map(cells), width)
    }

    /// Where the figures come from, in one line; more if something needs attention.
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
            lines.push(format!("warning: NULL stands for values that do not fit their type in {}", names.join(", ")));
        }
        lines.extend(attention(self.complete, self.next.as_deref()));
        lines.join("\n")
    }
}

/// What a reader must know whatever the format: the answer has gaps, or there is more of it.
pub fn attention(complete: bool, next: Option<&str>) -> Vec<String> {
    let incomplete = "warning: not every accepted event is accounted for in this answer; see the server's log";
    let more = next.map(|next| format!("more rows: --cursor '{next}', or a higher --limit"));
    (!complete).then(|| incomplete.to_owned()).into_iter().chain(more).collect()
}

/// How the numbers of a column are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Numbers {
    /// It has none.
    None,
    /// Digit for digit as they came.
    Exact,
    /// With this many digits behind the point.
    Rounded(usize),
}

impl Numbers {
    fn of(column: &Column, rows: &[Map<String, Value>]) -> Numbers {
        match column.data_type.split('(').next() {
            Some("INT" | "BIGINT" | "DECIMAL") => Numbers::Exact,
            Some("DOUBLE") => {
                let values = rows.iter().filter_map(|row| row.get(&column.name)?.as_f64());
                let largest = values.map(f64::abs).filter(|value| value.is_finite()).fold(0.0, f64::max);
                // Three digits, and as many more as the largest number of the column begins with zeros.
                let zeros = if largest > 0.0 && largest < 1.0 { -largest.log10().floor() } else { 0.0 };
                Numbers::Rounded(3 + zeros.min(15.0) as usize)
            }
            _ => Numbers::None,
        }
    }

    fn align(self) -> Align {
        if self == Numbers::None { Align::Left } else { Align::Right }
    }
}

fn text(value: Option<&Value>, numbers: &Numbers) -> String {
    match (value, numbers) {
        (None | Some(Value::Null), _) => "NULL".to_owned(),
        (Some(Value::String(text)), _) => text.clone(),
        (Some(Value::Number(number)), Numbers::Rounded(digits)) => match number.as_f64() {
            Some(value) if value.abs() < 1e15 => format!("{value:.digits$}"),
            _ => number.to_string(),
        },
        (Some(other), _) => other.to_string(),
    }
}

/// The interval of an approximate value.
fn bounds(row: &Map<String, Value>, column: &str, numbers: &Numbers) -> Option<String> {
    let bounds = row.get("_bounds")?.get(column)?;
    Some(format!("[{}, {}]", text(bounds.get(0), numbers), text(bounds.get(1), numbers)))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn answer(overrides: Value) -> Answer {
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
    fn rows_as_a_table() {
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
    fn the_footer_says_where_the_figures_come_from() {
        let footer = answer(json!({})).footer();
        assert_eq!(
            footer,
            "2 rows | batch version 12 of 2024-01-01T00:00:00Z | seam 0:41200 1:7 | watermark 2001-01-02T00:00:00Z | complete"
        );
        let young = answer(json!({"seam": {"version": null, "published_at": null, "offsets": {}}, "watermark": null}));
        assert_eq!(young.footer(), "2 rows | no batch version yet | seam - | watermark - | complete");
        let partly = answer(json!({"complete": false, "next": "abc"})).footer();
        assert!(partly.contains("INCOMPLETE") && partly.contains("warning: ") && partly.contains("--cursor 'abc'"));
    }
}
