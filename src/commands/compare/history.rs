//! `trueup compare VIEW --history`: shows the drift of all kept versions.

use std::fmt::Write;

use serde::Deserialize;
use shared::compare::{Causes, ComparisonSummary};

use crate::arguments::Compare;
use crate::exit::Failure;
use crate::human_units::grouped;
use crate::sparkline::sparkline;
use crate::table::{Align, draw};

use super::super::listing::show;

#[derive(Debug, Deserialize)]
struct Drift {
    view: String,
    max_drift: Option<f64>,
    /// Newest first.
    reconciliations: Vec<ComparisonSummary>,
}

pub async fn run(arguments: &Compare) -> Result<(), Failure> {
    let path = format!("/v1/views/{}/drift", arguments.view);
    show(&arguments.listing, &path, |drift| text(&drift, None)).await
}

fn text(drift: &Drift, width: Option<u16>) -> String {
    let Some(newest) = drift.reconciliations.first() else {
        return format!("{}: no comparisons yet; every published run makes one\n", drift.view);
    };
    let count = drift.reconciliations.len();
    let mut text = format!("{}: last {count} comparisons, oldest on the left\n\n", drift.view);
    let measures = newest.measures.keys().map(|measure| {
        let shares: Vec<f64> = drift.reconciliations.iter().rev().map(|r| drift_of(r, measure)).collect();
        let worst = shares.iter().copied().fold(0.0, f64::max);
        vec![measure.clone(), sparkline(&shares), percent(shares.last().copied().unwrap_or(0.0)), percent(worst)]
    });
    let header = [("measure", Align::Left), ("drift", Align::Left), ("last", Align::Right), ("largest", Align::Right)];
    text += &draw(&header, measures.collect::<Vec<_>>(), width);
    text.push('\n');
    let versions = drift.reconciliations.iter().map(|r| {
        vec![
            r.version.to_string(),
            r.compared_at.to_string(),
            format!("{} of {}", grouped(r.rows_equal), grouped(r.rows_compared)),
            causes(&r.causes),
        ]
    });
    let header = [
        ("version", Align::Right),
        ("compared at", Align::Left),
        ("rows served exactly", Align::Right),
        ("causes", Align::Left),
    ];
    text += &draw(&header, versions.collect::<Vec<_>>(), width);
    if let Some(max_drift) = drift.max_drift {
        writeln!(text, "\na mean drift above {} raises the alarm (max_drift)", percent(max_drift))
            .expect("a String takes any text");
    }
    text
}

fn drift_of(reconciliation: &ComparisonSummary, measure: &str) -> f64 {
    reconciliation.measures.get(measure).map_or(0.0, |measure| measure.drift)
}

fn percent(share: f64) -> String {
    format!("{:.3} %", share * 100.0)
}

fn causes(causes: &Causes) -> String {
    let Ok(serde_json::Value::Object(all)) = serde_json::to_value(causes) else { return String::new() };
    let counted = all.into_iter().filter_map(|(cause, count)| Some((cause, count.as_u64().filter(|n| *n > 0)?)));
    let counted: Vec<String> = counted.map(|(cause, count)| format!("{} {cause}", grouped(count))).collect();
    if counted.is_empty() { "none".to_owned() } else { counted.join(", ") }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn drift_is_drawn_as_a_line_and_listed_by_version() {
        let reconciliation = |version: i64, error: f64, late: u64| {
            json!({
                "version": version, "compared_at": format!("2001-01-0{version}T06:00:00Z"),
                "rows_compared": 1200, "rows_equal": 1200 - late,
                "measures": {"flights": {"equal": 1, "max_abs_error": 2.0, "max_rel_error": 0.5, "mean_rel_error": 0.0, "drift": error}},
                "causes": {"late": late, "duplicate": 0, "sketch": 0, "rounding": 0, "definition": 0, "unexplained": 0}
            })
        };
        let drift: Drift = serde_json::from_value(json!({
            "view": "departures", "max_drift": 0.01,
            "reconciliations": [reconciliation(3, 0.0, 0), reconciliation(2, 0.02, 1100), reconciliation(1, 0.01, 7)]
        }))
        .expect("drift");
        let text = text(&drift, Some(100));
        for part in [
            "departures: last 3 comparisons, oldest on the left",
            "▅█▁",
            "0.000 %",
            "2.000 %",
            "100 of 1,200",
            "1,100 late",
            "none",
            "a mean drift above 1.000 % raises the alarm",
        ] {
            assert!(text.contains(part), "{part}: {text}");
        }
        assert_eq!(sparkline(&[0.0, 0.0]), "▁▁");
        assert_eq!(sparkline(&[1e-9, 1.0]), "▂█");
    }
}
