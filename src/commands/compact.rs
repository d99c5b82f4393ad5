//! `trueup batch compact`: compacts the archive of a stream.

use std::io::Write;

use reqwest::Method;
use serde_json::json;
use shared::control::CompactionReport;

use crate::arguments::BatchCompact;
use crate::client::Client;
use crate::exit::Failure;
use crate::human_units::{bytes, counted, grouped};

pub async fn run(arguments: BatchCompact) -> Result<(), Failure> {
    let client = Client::new(&arguments.server.url)?;
    let path = format!("/v1/streams/{}/compact", arguments.stream);
    let older_than_ms = arguments.vacuum.map(|age| u64::try_from(age.as_millis()).unwrap_or(u64::MAX));
    let request = client.request(Method::POST, &path).json(&json!({ "vacuum_older_than_ms": older_than_ms }));
    let compacted: CompactionReport = client.json(request).await?;
    writeln!(std::io::stdout(), "{}", sentence(&compacted, arguments.vacuum.is_some()))?;
    Ok(())
}

fn sentence(done: &CompactionReport, vacuumed: bool) -> String {
    let count = |number: u64, one: &str| counted(usize::try_from(number).unwrap_or(usize::MAX), one);
    let mut text = match done.files_read {
        0 => format!("{}: nothing to compact in {}", done.stream, count(done.files_after, "file")),
        read => format!(
            "{}: merged {} of {} into {} ({} rows, {} into {}); archive files: {} before, {} after",
            done.stream,
            count(read, "file"),
            count(done.dates, "date"),
            grouped(done.files_written),
            grouped(done.rows),
            bytes(done.bytes_read),
            bytes(done.bytes_written),
            grouped(done.files_before),
            grouped(done.files_after),
        ),
    };
    if let (Some(from), true) = (&done.retained_from, done.events_dropped > 0) {
        text += &format!(
            "; retention dropped {} of {}: all before {from}",
            count(done.events_dropped, "event"),
            count(done.dates_dropped, "date"),
        );
    }
    if done.conflicts > 0 {
        let dates = count(done.conflicts, "date");
        text += &format!("; {dates} skipped because another process changed the archive at the same time");
    }
    if vacuumed {
        text += &format!("; deleted {} ({})", count(done.files_deleted, "file"), bytes(done.bytes_deleted));
        if done.files_too_young > 0 {
            text += &format!("; {} kept until old enough to delete", count(done.files_too_young, "file"));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sentence_lists_everything_that_was_done() {
        let nothing =
            CompactionReport { files_after: 1, ..CompactionReport::nothing("flights".parse().expect("a name")) };
        assert_eq!(sentence(&nothing, false), "flights: nothing to compact in 1 file");
        let some = CompactionReport {
            dates: 2,
            files_before: 1_203,
            files_after: 205,
            files_read: 1_000,
            files_written: 2,
            rows: 90_000,
            bytes_read: 4096,
            bytes_written: 1024,
            files_deleted: 1,
            bytes_deleted: 512,
            files_too_young: 1_000,
            conflicts: 1,
            dates_dropped: 3,
            files_dropped: 4,
            events_dropped: 1_500,
            retained_from: Some("2024-01-01".to_owned()),
            ..nothing
        };
        assert_eq!(
            sentence(&some, true),
            "flights: merged 1,000 files of 2 dates into 2 (90,000 rows, 4.0 KiB into 1.0 KiB); archive files: 1,203 before, \
             205 after; retention dropped 1,500 events of 3 dates: all before 2024-01-01; 1 date skipped because another \
             process changed the archive at the same time; deleted 1 file (512 B); 1,000 files kept until old enough to \
             delete"
        );
    }
}
