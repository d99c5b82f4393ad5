//! `trueup views`: lists the views of a server, and how current each is.

use serde_json::Value;

use crate::arguments::Listing;
use crate::exit::Failure;
use crate::human_units::grouped;
use crate::table::{Align, draw};

use super::listing::{Entries, dash, show};

const HEADER: [(&str, Align); 9] = [
    ("view", Align::Left),
    ("stream", Align::Left),
    ("schedule", Align::Left),
    ("next run", Align::Left),
    ("version", Align::Right),
    ("batch rows", Align::Right),
    ("live rows", Align::Right),
    ("watermark", Align::Left),
    ("served exactly", Align::Right),
];

pub async fn run(arguments: Listing) -> Result<(), Failure> {
    show(&arguments, "/v1/views", |Entries(views)| table(&views, None)).await
}

fn table(views: &[Value], width: Option<u16>) -> String {
    let rows = views.iter().map(|view| {
        let field = |path: &str| match view.pointer(path) {
            None | Some(Value::Null) => dash(),
            Some(Value::String(text)) => text.clone(),
            Some(other) => other.as_u64().map_or_else(|| other.to_string(), grouped),
        };
        let paths =
            ["/name", "/stream", "/schedule", "/next_run", "/seam/version", "/batch/rows", "/state/rows", "/watermark"];
        let mut cells = paths.map(field).to_vec();
        // From the last comparison: how many of the recomputed rows were served exactly.
        let count = |path: &str| view.pointer(path).and_then(Value::as_u64);
        let exact = count("/reconciliation/rows_equal").zip(count("/reconciliation/rows_compared"));
        cells.push(exact.map_or_else(dash, |(equal, compared)| format!("{equal} of {compared}")));
        cells
    });
    let mut text = draw(&HEADER, rows, width);
    views.iter().filter_map(shadow).for_each(|line| text += &line);
    text
}

/// Describes the new definition that is being computed, if any.
fn shadow(view: &Value) -> Option<String> {
    let state = view.pointer("/shadow/state")?.as_str()?;
    let of = |path: &str| view.pointer(path).and_then(Value::as_u64).unwrap_or(0);
    let (done, dates) = (of("/shadow/progress/dates_done"), of("/shadow/progress/dates"));
    let error = view.pointer("/shadow/error").and_then(Value::as_str).map_or_else(String::new, |e| format!(": {e}"));
    Some(format!(
        "{}: a new definition is being computed ({state}, {done} of {dates} dates{error}); the old one stays active until then\n",
        view["name"].as_str().unwrap_or_default(),
    ))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn every_view_has_a_row() {
        let views = [
            json!({"name": "departures", "stream": "flights", "schedule": "@every 5s", "next_run": "2024-01-01T00:00:05Z",
                   "seam": {"version": 12, "published_at": "2024-01-01T00:00:00Z", "offsets": {"0": 41200}},
                   "watermark": "2001-01-02T00:00:00Z", "batch": {"rows": 812, "run": "r1", "full": false},
                   "state": {"rows": 40, "bytes": 4096, "generations": 2},
                   "reconciliation": {"version": 12, "rows_compared": 812, "rows_equal": 790}}),
            json!({"name": "totals", "stream": "flights", "schedule": null, "seam": {"version": null},
                   "shadow": {"state": "running", "progress": {"dates": 15, "dates_done": 3}, "error": null}}),
        ];
        insta::assert_snapshot!(table(&views, Some(140)), @r#"
         view         stream    schedule    next run               version   batch rows   live rows   watermark              served exactly
        ────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────
         departures   flights   @every 5s   2024-01-01T00:00:05Z        12          812          40   2001-01-02T00:00:00Z       790 of 812
         totals       flights   -           -                            -            -           -   -                                   -
        totals: a new definition is being computed (running, 3 of 15 dates); the old one stays active until then
        "#);
    }
}
