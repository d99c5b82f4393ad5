//! `trueup batch versions` lists the versions of a view, `trueup batch vacuum` deletes files that no kept version needs.

use std::io::Write;

use reqwest::Method;
use serde_json::{Value, json};
use shared::control::VacuumReport;

use crate::arguments::{BatchVacuum, BatchVersions};
use crate::client::Client;
use crate::exit::Failure;
use crate::human_units::{bytes, counted, grouped};
use crate::table::{Align, draw};

use super::listing::{Entries, dash, show};

const HEADER: [(&str, Align); 10] = [
    ("version", Align::Right),
    ("published", Align::Left),
    ("run", Align::Left),
    ("full", Align::Left),
    ("origin", Align::Left),
    ("events", Align::Right),
    ("rows", Align::Right),
    ("files", Align::Right),
    ("size", Align::Right),
    ("kept for", Align::Left),
];

pub async fn list(arguments: BatchVersions) -> Result<(), Failure> {
    let path = format!("/v1/views/{}/versions", arguments.view);
    show(&arguments.listing, &path, |Entries(versions)| table(&versions, None)).await
}

fn table(versions: &[Value], width: Option<u16>) -> String {
    let rows = versions.iter().map(|version| {
        let text = |name: &str| version[name].as_str().map_or_else(dash, str::to_owned);
        let number = |name: &str| version[name].as_u64().map_or_else(dash, grouped);
        let kept = match version["kept_for"].as_u64() {
            None | Some(0) => "dropped".to_owned(),
            Some(more) => counted(usize::try_from(more).unwrap_or(usize::MAX), "more version"),
        };
        vec![
            version["version"].to_string(),
            text("published_at"),
            text("run"),
            if version["full"] == json!(true) { "yes" } else { "no" }.to_owned(),
            version["origin"].as_str().unwrap_or("batch").to_owned(),
            number("events"),
            number("rows"),
            number("files"),
            version["bytes"].as_u64().map_or_else(dash, bytes),
            kept,
        ]
    });
    draw(&HEADER, rows, width)
}

pub async fn vacuum(arguments: BatchVacuum) -> Result<(), Failure> {
    let client = Client::new(&arguments.server.url)?;
    let path = format!("/v1/views/{}/vacuum", arguments.view);
    let older_than_ms = arguments.older_than.map(|age| u64::try_from(age.as_millis()).unwrap_or(u64::MAX));
    let request = client.request(Method::POST, &path).json(&json!({ "older_than_ms": older_than_ms }));
    let cleaned: VacuumReport = client.json(request).await?;
    writeln!(std::io::stdout(), "{}", sentence(&cleaned))?;
    Ok(())
}

fn sentence(cleaned: &VacuumReport) -> String {
    let Some(kept_from) = cleaned.kept_from else {
        return format!("{}: no versions yet, nothing to delete", cleaned.view);
    };
    let file = |count: u64| counted(usize::try_from(count).unwrap_or(usize::MAX), "file");
    let mut text = format!(
        "{}: deleted {} ({}); keeping versions from {kept_from} on",
        cleaned.view,
        file(cleaned.files + cleaned.unfinished),
        bytes(cleaned.bytes)
    );
    if cleaned.too_young > 0 {
        text += &format!("; {} kept until old enough to delete", file(cleaned.too_young));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_printed_as_a_table() {
        let versions = [
            json!({"version": 3, "published_at": "2024-01-01T00:00:00Z", "run": "v-1-3", "full": false, "origin": "speed", "events": 41200,
                   "rows": 812, "files": 3, "bytes": 2048, "kept": true, "kept_for": 2}),
            json!({"version": 2, "published_at": "2023-12-31T00:00:00Z", "run": "v-1-2", "full": true, "events": 40000,
                   "rows": 800, "files": null, "bytes": null, "kept": true, "kept_for": 1}),
            json!({"version": 1, "published_at": "2023-12-30T00:00:00Z", "run": "v-1-1", "full": true, "events": 7,
                   "rows": 1, "files": 1, "bytes": 900, "kept": false, "kept_for": 0}),
        ];
        insta::assert_snapshot!(table(&versions, Some(140)), @r#"
         version   published              run     full   origin   events   rows   files      size   kept for
        ────────────────────────────────────────────────────────────────────────────────────────────────────────────
               3   2024-01-01T00:00:00Z   v-1-3   no     speed    41,200    812       3   2.0 KiB   2 more versions
               2   2023-12-31T00:00:00Z   v-1-2   yes    batch    40,000    800       -         -   1 more version
               1   2023-12-30T00:00:00Z   v-1-1   yes    batch         7      1       1     900 B   dropped
        "#);
    }

    #[test]
    fn the_sentence_lists_what_vacuum_deleted() {
        let cleaned = VacuumReport {
            kept_from: Some(4),
            files: 2,
            bytes: 2048,
            unfinished: 1,
            too_young: 5,
            ..VacuumReport::nothing("departures".parse().expect("a name"))
        };
        let words = "departures: deleted 3 files (2.0 KiB); keeping versions from 4 on; 5 files kept until old enough to delete";
        assert_eq!(sentence(&cleaned), words);
        let nothing = VacuumReport::nothing("departures".parse().expect("a name"));
        assert_eq!(sentence(&nothing), "departures: no versions yet, nothing to delete");
    }
}
