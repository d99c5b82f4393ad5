//! `trueup compare`: compares served figures with the exact ones and shows the causes of differences.

mod history;

use std::collections::BTreeSet;
use std::fmt::Write;

use serde_json::Value;
use shared::compare::{Comparison, DefinitionChange, Difference};

use crate::arguments::Compare;
use crate::exit::Failure;
use crate::human_units::grouped;
use crate::table::{Align, draw};

use super::listing::{show, time_or_dash};

/// Number of differences printed; `-o json` prints all that the server lists.
const DIFFERENCES_SHOWN: usize = 10;

pub async fn run(arguments: Compare) -> Result<(), Failure> {
    if arguments.history {
        return history::run(&arguments).await;
    }
    let version = arguments.batch_version.map_or_else(String::new, |version| format!("?version={version}"));
    let path = format!("/v1/views/{}/compare{version}", arguments.view);
    show(&arguments.listing, &path, |comparison| text(&comparison, None)).await
}

fn text(comparison: &Comparison, width: Option<u16>) -> String {
    let mut text = match &comparison.definition {
        None => format!(
            "{} version {}: {} of {} rows were served exactly\n\n",
            comparison.view,
            comparison.version,
            grouped(comparison.rows_equal),
            grouped(comparison.rows_compared),
        ),
        Some(change) => changed(comparison, change),
    };
    if comparison.definition.as_ref().is_some_and(|change| change.not_comparable.is_some()) {
        return text;
    }
    text += &measures(comparison, width);
    let causes = comparison.causes.named().map(|(cause, count)| format!("{cause} {}", grouped(count))).join(", ");
    writeln!(text, "\ncauses of differing values: {causes}").expect("a String takes any text");
    if !comparison.rows.is_empty() {
        text.push('\n');
        text += &differences(comparison, width);
        let more = comparison.rows.len().saturating_sub(DIFFERENCES_SHOWN) as u64 + comparison.rows_omitted;
        if more > 0 {
            writeln!(text, "... and {} more", grouped(more)).expect("a String takes any text");
        }
    }
    text
}

/// Describes a version with a changed definition: the changes, and how many rows they affect.
fn changed(comparison: &Comparison, change: &DefinitionChange) -> String {
    let mut text = format!("{} version {} changed the definition:\n", comparison.view, comparison.version);
    for change in &change.changes {
        text += &format!("  {change}\n");
    }
    text.push('\n');
    match &change.not_comparable {
        Some(reason) => text += &format!("The results of the two definitions cannot be compared: {reason}.\n"),
        None => {
            let by: Vec<&str> =
                std::iter::once("window").chain(change.compared_by.iter().map(String::as_str)).collect();
            text += &format!(
                "By {}, {} of {} rows are the same under both definitions.\n\
                 Served: values of the old definition. Exact: values of the new one.\n\n",
                by.join(" and "),
                grouped(comparison.rows_equal),
                grouped(comparison.rows_compared),
            );
        }
    }
    text
}

fn measures(comparison: &Comparison, width: Option<u16>) -> String {
    let header = [
        ("measure", Align::Left),
        ("equal", Align::Right),
        ("largest error", Align::Right),
        ("relative", Align::Right),
        ("mean relative", Align::Right),
    ];
    let rows = comparison.measures.iter().map(|(name, drift)| {
        vec![
            name.clone(),
            grouped(drift.equal),
            rounded(drift.max_abs_error),
            percent(drift.max_rel_error),
            percent(drift.mean_rel_error),
        ]
    });
    draw(&header, rows, width)
}

fn differences(comparison: &Comparison, width: Option<u16>) -> String {
    let shown = &comparison.rows[..comparison.rows.len().min(DIFFERENCES_SHOWN)];
    let dimensions: BTreeSet<&str> = shown.iter().flat_map(|row| row.dimensions.keys().map(String::as_str)).collect();
    let mut header = vec![("window", Align::Left)];
    header.extend(dimensions.iter().map(|name| (*name, Align::Left)));
    let last = [("measure", Align::Left), ("served", Align::Right), ("exact", Align::Right), ("cause", Align::Left)];
    header.extend(last);
    let row = |row: &Difference| {
        let mut cells = vec![time_or_dash(row.window_start)];
        cells.extend(dimensions.iter().map(|name| row.dimensions.get(*name).map_or_else(String::new, plain)));
        let cause = format!("{:?}", row.cause).to_lowercase();
        cells.extend([row.measure.clone(), plain(&row.served), plain(&row.exact), cause]);
        cells
    };
    draw(&header, shown.iter().map(row), width)
}

fn plain(value: &Value) -> String {
    match value {
        Value::Null => "none".to_owned(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// Formats whole numbers as they are, others with three decimals.
fn rounded(error: f64) -> String {
    if error.fract() == 0.0 { error.to_string() } else { format!("{error:.3}") }
}

fn percent(share: f64) -> String {
    format!("{:.3} %", share * 100.0)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_changed_definition_lists_its_changes() {
        let mut comparison = json!({
            "view": "departures", "version": 13, "compared_at": "2001-01-02T00:00:00Z", "cut": {"0": 41200},
            "rows_compared": 812, "rows_equal": 800,
            "measures": {"flights": {"equal": 800, "max_abs_error": 2.0, "max_rel_error": 0.02, "mean_rel_error": 0.0001}},
            "causes": {"late": 0, "duplicate": 0, "sketch": 0, "rounding": 0, "definition": 12, "unexplained": 0},
            "definition": {
                "before": "CREATE VIEW ..", "after": "CREATE VIEW ..", "compared_by": ["origin"],
                "changes": [
                    {"part": "filter", "before": "distance_mi > 0", "after": "distance_mi > 100"},
                    {"part": "measure", "name": "late_flights", "before": null, "after": "COUNT(*) FILTER (WHERE delay_min > 15)"},
                    {"part": "dimension", "name": "destination", "before": "destination", "after": null}
                ]
            },
            "rows": []
        });
        let report = |comparison: &Value| {
            let comparison: Comparison = serde_json::from_value(comparison.clone()).expect("the contract's shape");
            text(&comparison, Some(110))
        };
        insta::assert_snapshot!(report(&comparison), @r#"
        departures version 13 changed the definition:
          filter changed: distance_mi > 0 → distance_mi > 100
          measure late_flights added: COUNT(*) FILTER (WHERE delay_min > 15)
          dimension destination removed

        By window and origin, 800 of 812 rows are the same under both definitions.
        Served: values of the old definition. Exact: values of the new one.

         measure   equal   largest error   relative   mean relative
        ────────────────────────────────────────────────────────────
         flights     800               2    2.000 %         0.010 %

        causes of differing values: late 0, historical 0, duplicate 0, sketch 0, rounding 0, definition 12, retention 0, failed 0, erased 0, lookup 0, unexplained 0
        "#);
        comparison["definition"]["not_comparable"] = json!("their windows differ");
        insta::assert_snapshot!(report(&comparison), @r#"
        departures version 13 changed the definition:
          filter changed: distance_mi > 0 → distance_mi > 100
          measure late_flights added: COUNT(*) FILTER (WHERE delay_min > 15)
          dimension destination removed

        The results of the two definitions cannot be compared: their windows differ.
        "#);
    }

    #[test]
    fn a_report_lists_errors_and_causes() {
        let comparison = json!({
            "view": "departures", "version": 12, "compared_at": "2001-01-02T00:00:00Z", "cut": {"0": 41200},
            "rows_compared": 812, "rows_equal": 800,
            "measures": {"flights": {"equal": 800, "max_abs_error": 2.0, "max_rel_error": 0.02, "mean_rel_error": 0.0001}},
            "causes": {"late": 12, "duplicate": 0, "sketch": 0, "rounding": 0, "definition": 0, "unexplained": 0},
            "rows": [{"window_start": "2001-01-01T06:00:00Z", "origin": "ATL", "measure": "flights", "served": 49,
                      "exact": 51, "cause": "late"},
                     {"window_start": "2001-01-01T07:00:00Z", "origin": "ORD", "measure": "flights", "served": null,
                      "exact": 1, "cause": "late"}],
            "rows_omitted": 10
        });
        let comparison: Comparison = serde_json::from_value(comparison).expect("the contract's shape");
        insta::assert_snapshot!(text(&comparison, Some(110)), @r#"
        departures version 12: 800 of 812 rows were served exactly

         measure   equal   largest error   relative   mean relative
        ────────────────────────────────────────────────────────────
         flights     800               2    2.000 %         0.010 %

        causes of differing values: late 12, historical 0, duplicate 0, sketch 0, rounding 0, definition 0, retention 0, failed 0, erased 0, lookup 0, unexplained 0

         window                 origin   measure   served   exact   cause
        ──────────────────────────────────────────────────────────────────
         2001-01-01T06:00:00Z   ATL      flights       49      51   late
         2001-01-01T07:00:00Z   ORD      flights     none       1   late
        ... and 10 more
        "#);
    }
}
