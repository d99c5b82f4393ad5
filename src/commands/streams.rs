//! `trueup streams`: lists the streams of a server, one row per partition, or shows one stream with the lateness of its
//! events.

use std::fmt::Write;

use shared::control::{
    Lateness, PartitionStatus, RowsStatus, SourcePartitionStatus, SourceState, SourceStatus, StreamStatus,
};

use crate::arguments::Streams;
use crate::exit::Failure;
use crate::human_units::{bytes, counted, grouped, length};
use crate::table::{Align, draw};

use super::listing::{Entries, show, time_or_dash};

const HEADER: [(&str, Align); 10] = [
    ("stream", Align::Left),
    ("partition", Align::Right),
    ("events", Align::Right),
    ("archived", Align::Right),
    ("duplicates", Align::Right),
    ("late", Align::Right),
    ("rejected", Align::Right),
    ("events/s", Align::Right),
    ("log", Align::Right),
    ("watermark", Align::Left),
];

pub async fn run(arguments: Streams) -> Result<(), Failure> {
    match &arguments.stream {
        None => show(&arguments.listing, "/v1/streams", |Entries(streams)| table(&streams, None)).await,
        Some(name) => show(&arguments.listing, &format!("/v1/streams/{name}"), |stream| describe(&stream)).await,
    }
}

/// Describes one stream.
fn describe(stream: &StreamStatus) -> String {
    let sum = |of: fn(&PartitionStatus) -> u64| stream.partitions.iter().map(of).sum::<u64>();
    let settings = &stream.settings;
    let quarantine = &stream.quarantine;
    let mut lines = vec![
        (
            "events",
            format!(
                "{} in {}, {:.0} per second",
                grouped(sum(|p| p.accepted)),
                counted(stream.partitions.len(), "partition"),
                stream.events_per_second
            ),
        ),
        (
            "watermark",
            format!("{} ({} behind the latest event time)", time_or_dash(stream.watermark), settings.watermark_delay),
        ),
        ("retention", retention(stream)),
        ("historical", format!("{} ingested straight into the archive", grouped(stream.historical))),
        ("late", format!("{} (allowed lateness is {})", grouped(sum(|p| p.late)), settings.allowed_lateness)),
        ("ahead", format!("{} (more than {} ahead of their arrival)", grouped(sum(|p| p.ahead)), settings.max_ahead)),
        ("duplicates", grouped(sum(|p| p.duplicates))),
        ("quarantine", format!("keeps {} of {} rejected lines", grouped(quarantine.kept), grouped(quarantine.total))),
    ];
    let rows: Vec<RowsStatus> = stream.partitions.iter().filter_map(|partition| partition.rows).collect();
    if !rows.is_empty() {
        let (count, memory) = (rows.iter().map(|r| r.count).sum(), rows.iter().map(|r| r.bytes).sum());
        lines.push(("rows", format!("{} at present, {} of memory", grouped(count), bytes(memory))));
    }
    if let Some(source) = &stream.source {
        lines.extend(topic(source));
    }
    if let Some(hint) = &stream.suspicious_times {
        lines.push(("hint", hint.clone()));
    }
    if let Some(lateness) = &stream.lateness {
        lines.extend(distribution(lateness));
    }
    let mut text = format!("{}\n", stream.name);
    for (name, value) in lines {
        writeln!(text, "  {name:<12}{value}").expect("a String takes any text");
    }
    text
}

/// Describes the topic or the outbox that a stream reads, and how far.
fn topic(source: &SourceStatus) -> Vec<(&'static str, String)> {
    let state = match source.state {
        SourceState::Connecting => "connecting",
        SourceState::Reading => "reading",
        SourceState::Paused => "paused",
        SourceState::Failing => "failing",
    };
    let lag = source.lag.map_or("unknown".to_owned(), grouped);
    let is_outbox = source.kind == "postgres";
    let reported = match (is_outbox, source.group.as_str()) {
        (true, "") => "rows (the table is polled)".to_owned(),
        (true, slot) => format!("rows at least (the replication slot is {slot})"),
        (false, group) => format!("records (positions are reported to the group {group})"),
    };
    let name = if is_outbox { "source" } else { "topic" };
    let mut lines = vec![
        (name, format!("{} of connection {}, {state}", source.topic, source.connection)),
        ("lag", format!("{lag} {reported}")),
    ];
    if let Some(kept) = source.retained_bytes {
        lines.push(("slot", format!("the database keeps {} of its log", bytes(kept))));
    }
    let partition = |p: &SourcePartitionStatus| {
        let known = |value: Option<i64>| value.map_or("-".to_owned(), |value| value.to_string());
        match is_outbox {
            true => ("", format!("next row {}", known(p.position))),
            false => ("", format!("partition {} at offset {} of {}", p.partition, known(p.position), known(p.end))),
        }
    };
    lines.extend(source.partitions.iter().map(partition));
    if source.missed > 0 {
        lines.push((
            "missed",
            format!("{} offsets were deleted by the brokers before they were read", grouped(source.missed)),
        ));
    }
    lines.extend(source.error.clone().map(|error| ("error", error)));
    lines
}

/// Describes how long events are kept, and from which date on.
fn retention(stream: &StreamStatus) -> String {
    let kept =
        stream.retention.as_ref().map_or("keeps events forever".to_owned(), |span| format!("keeps events for {span}"));
    match &stream.retained_from {
        Some(from) => format!("{kept}; events before {from} are dropped"),
        None => format!("{kept}; no events are dropped"),
    }
}

/// Describes the disorder of events and the settings that would fit.
fn distribution(lateness: &Lateness) -> [(&'static str, String); 3] {
    let quantiles: Vec<String> =
        lateness.quantiles_ms.iter().map(|(name, ms)| format!("{name} {}", length(*ms))).collect();
    let percent = |share: f64| format!("{:.2} %", 100.0 * share);
    let (behind, late) = (percent(lateness.behind_watermark_share), percent(lateness.late_share));
    let suggested = &lateness.suggested;
    [
        ("disorder", format!("{}, at most {}", quantiles.join(", "), length(lateness.max_ms))),
        ("now", format!("{behind} of {} arrive behind the watermark, {late} late", grouped(lateness.measured))),
        (
            "suggested",
            format!(
                "watermark_delay = '{}', allowed_lateness = '{}': 1 % behind the watermark, 0.1 % late",
                suggested.watermark_delay, suggested.allowed_lateness
            ),
        ),
    ]
}

fn table(streams: &[StreamStatus], width: Option<u16>) -> String {
    let rows = streams.iter().flat_map(|stream| {
        let historical = || {
            let events = grouped(stream.historical);
            let mut cells = vec![String::new(), "historical".to_owned(), events.clone(), events];
            cells.resize(HEADER.len(), String::new());
            cells
        };
        let historical = (stream.historical > 0).then(historical);
        let partitions = stream.partitions.iter().enumerate().map(|(index, partition)| {
            // Figures of the whole stream are shown only in the row of its first partition.
            let of_stream = |text: String| if index == 0 { text } else { String::new() };
            vec![
                of_stream(stream.name.to_string()),
                partition.partition.to_string(),
                grouped(partition.head.0),
                grouped(partition.archived.0),
                grouped(partition.duplicates),
                grouped(partition.late),
                of_stream(grouped(stream.rejected)),
                of_stream(format!("{:.0}", stream.events_per_second)),
                bytes(partition.log_bytes),
                time_or_dash(partition.watermark),
            ]
        });
        partitions.chain(historical).collect::<Vec<_>>()
    });
    draw(&HEADER, rows, width)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn one_stream_is_printed_with_its_lateness() {
        let partition = |number: u32| {
            json!({"partition": number, "log_start": 0, "head": 500, "archived": 10, "watermark": null, "accepted": 500,
                   "duplicates": 1, "late": 3, "ahead": 2, "log_bytes": 2048, "last_arrival": null, "archive_error": null})
        };
        let settings = json!({"watermark_delay": "1 hour", "allowed_lateness": "4 hours", "max_ahead": "1 hour",
                              "idle_timeout": "1 minute"});
        let quantiles = json!({"p50": 0.0, "p90": 1_860_000.0, "p95": 5_400_000.0, "p99": 15_300_000.0, "p99.9": 54e6});
        let suggested = json!({"watermark_delay": "5 hours", "allowed_lateness": "11 hours"});
        let lateness = json!({"measured": 1000, "quantiles_ms": quantiles, "max_ms": 86_400_000.0,
                              "behind_watermark_share": 0.125, "late_share": 0.006, "suggested": suggested});
        let stream = json!({"name": "flights", "columns": [], "partitions": [partition(0), partition(1)], "rejected": 3,
                            "unknown_fields": 0, "events_per_second": 817.6, "watermark": "2001-01-01T00:00:00Z",
                            "settings": settings, "lateness": lateness,
                            "quarantine": {"total": 30, "kept": 20, "dropped": 10}});
        let stream: StreamStatus = serde_json::from_value(stream).expect("the contract's shape");
        insta::assert_snapshot!(describe(&stream), @r"
        flights
          events      1,000 in 2 partitions, 818 per second
          watermark   2001-01-01T00:00:00Z (1 hour behind the latest event time)
          retention   keeps events forever; no events are dropped
          historical  0 ingested straight into the archive
          late        6 (allowed lateness is 4 hours)
          ahead       4 (more than 1 hour ahead of their arrival)
          duplicates  2
          quarantine  keeps 20 of 30 rejected lines
          disorder    p50 0 ms, p90 31 min, p95 90 min, p99 4.25 h, p99.9 15 h, at most 24 h
          now         12.50 % of 1,000 arrive behind the watermark, 0.60 % late
          suggested   watermark_delay = '5 hours', allowed_lateness = '11 hours': 1 % behind the watermark, 0.1 % late
        ");
    }

    #[test]
    fn every_partition_has_a_row() {
        let partition = |number: u32, head: u64| {
            json!({"partition": number, "log_start": 0, "head": head, "archived": 10, "watermark": "2001-01-01T00:00:00Z",
                   "accepted": head, "duplicates": 1, "late": 0, "ahead": 0, "log_bytes": 2048, "last_arrival": null,
                   "archive_error": null})
        };
        let stream = json!({"name": "flights", "columns": [], "partitions": [partition(0, 41200), partition(1, 12)],
                            "rejected": 3, "unknown_fields": 0, "events_per_second": 817.6});
        let streams: Entries<StreamStatus> = serde_json::from_value(json!([stream])).expect("the contract's shape");
        insta::assert_snapshot!(table(&streams.0, Some(120)), @r#"
         stream    partition   events   archived   duplicates   late   rejected   events/s       log   watermark
        ────────────────────────────────────────────────────────────────────────────────────────────────────────────────────
         flights           0   41,200         10            1      0          3        818   2.0 KiB   2001-01-01T00:00:00Z
                           1       12         10            1      0                         2.0 KiB   2001-01-01T00:00:00Z
        "#);
    }
}
