//! `trueup alerts`: lists the alerts of a server, last changed first.

use serde_json::Value;
use shared::control::AlertRecord;

use crate::arguments::Alerts;
use crate::exit::Failure;
use crate::table::{Align, draw};

use super::listing::{Entries, dash, show};

const HEADER: [(&str, Align); 7] = [
    ("alert", Align::Left),
    ("state", Align::Left),
    ("key", Align::Left),
    ("figures", Align::Left),
    ("raised", Align::Left),
    ("version", Align::Right),
    ("cause", Align::Left),
];

pub async fn run(arguments: Alerts) -> Result<(), Failure> {
    let mut query = vec![format!("limit={}", arguments.limit)];
    query.extend(arguments.state.map(|state| format!("state={}", state.name())));
    query.extend(arguments.alert.map(|alert| format!("alert={alert}")));
    let path = format!("/v1/alerts?{}", query.join("&"));
    show(&arguments.listing, &path, |Entries(alerts)| table(&alerts, None)).await
}

fn table(alerts: &[AlertRecord], width: Option<u16>) -> String {
    let rows = alerts.iter().map(|alert| {
        let key: Vec<String> = alert.key.values().map(text).collect();
        let figure = |(name, figure): (&String, &shared::control::AlertFigure)| match &figure.exact {
            Some(exact) if *exact != figure.served => format!("{name} {} → {}", text(&figure.served), text(exact)),
            _ => format!("{name} {}", text(&figure.served)),
        };
        vec![
            alert.alert.to_string(),
            alert.state.name().to_owned(),
            if key.is_empty() { dash() } else { key.join(", ") },
            alert.figures.iter().map(figure).collect::<Vec<_>>().join(", "),
            alert.raised_at.to_string(),
            alert.version.map_or_else(dash, |version| version.to_string()),
            alert.cause.clone().unwrap_or_else(dash),
        ]
    });
    draw(&HEADER, rows, width)
}

fn text(value: &Value) -> String {
    match value {
        Value::Null => dash(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_alert_is_printed_with_its_figures_and_why_it_was_withdrawn() {
        let alert = json!({
            "id": "1", "alert": "high_spend", "view": "spend", "state": "withdrawn", "key": {"user_id": "u7"}, "row": {"user_id": "u7"},
            "condition": "total > 10000", "figures": {"total": {"served": "10050.00", "exact": "9950.00"}}, "finality": "open",
            "raised_at": "2026-11-29T10:00:00Z", "changed_at": "2026-11-29T10:05:00Z", "times": 1, "position": {"0": 7},
            "version": 2, "cause": "duplicate", "declared": true, "seq": 3
        });
        let alerts: Entries<AlertRecord> =
            serde_json::from_value(json!({"alerts": [alert], "total": 1})).expect("the contract's shape");
        insta::assert_snapshot!(table(&alerts.0, Some(120)), @r"
         alert        state       key   figures                    raised                 version   cause
        ──────────────────────────────────────────────────────────────────────────────────────────────────────
         high_spend   withdrawn   u7    total 10050.00 → 9950.00   2026-11-29T10:00:00Z         2   duplicate
        ");
    }
}
