//! Describes every metric: name, kind, unit and help text, as Prometheus shows them. Measures nothing.
//!
//! `docs/metrics.md` has the same table; a test compares the two.

use metrics::{Unit, describe_counter, describe_gauge, describe_histogram};

/// The Prometheus type of a metric.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// A sum that only grows.
    Counter,
    /// A value that rises and falls.
    Gauge,
    /// A distribution of durations over [`DURATION_BUCKETS_SECONDS`].
    Histogram,
}

/// Upper bounds of the histogram buckets, in seconds.
pub const DURATION_BUCKETS_SECONDS: [f64; 16] =
    [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 60.0, 600.0, 3600.0];

/// Every metric: kind, unit, name, help text.
const METRICS: &[(Kind, Unit, &str, &str)] = &[
    (Kind::Gauge, Unit::Count, "trueup_build_info", "always 1; the label `version` is the version of the program"),
    (
        Kind::Counter,
        Unit::Count,
        "trueup_events_accepted_total",
        "accepted events, each durable before it was acknowledged",
    ),
    (
        Kind::Counter,
        Unit::Count,
        "trueup_events_duplicate_total",
        "duplicates: events whose id was already known; they are not counted again",
    ),
    (
        Kind::Counter,
        Unit::Count,
        "trueup_events_late_total",
        "accepted events that came after allowed lateness; the speed layer excludes them, the next batch run includes them",
    ),
    (
        Kind::Counter,
        Unit::Count,
        "trueup_events_ahead_total",
        "accepted events whose event time is too far ahead of their arrival to move the watermark",
    ),
    (
        Kind::Counter,
        Unit::Count,
        "trueup_failed_events_total",
        "events that the speed layer excluded from a view because an expression failed for them; those read again after a restart are counted again",
    ),
    (
        Kind::Counter,
        Unit::Count,
        "trueup_failed_rows_total",
        "rows excluded from results because the HAVING of the view failed for them, once per result",
    ),
    (Kind::Counter, Unit::Count, "trueup_events_rejected_total", "rejected lines: not valid events of their stream"),
    (Kind::Gauge, Unit::Count, "trueup_quarantine_lines", "rejected lines that the quarantine holds"),
    (
        Kind::Gauge,
        Unit::Seconds,
        "trueup_watermark_timestamp_seconds",
        "watermark of a partition: no events with an earlier event time are expected",
    ),
    (
        Kind::Gauge,
        Unit::Seconds,
        "trueup_disorder_seconds",
        "how far events are behind the latest event time, by quantile `q`",
    ),
    (
        Kind::Gauge,
        Unit::Count,
        "trueup_source_connected",
        "1 while the topic, outbox or table that a stream reads is being read",
    ),
    (
        Kind::Gauge,
        Unit::Count,
        "trueup_source_position",
        "next offset to read of a partition of a topic, or next row of an outbox or a table",
    ),
    (
        Kind::Gauge,
        Unit::Count,
        "trueup_source_lag",
        "offsets of a partition of a topic, or rows of an outbox or a table, that are not read yet, as of the last response of the source",
    ),
    (
        Kind::Counter,
        Unit::Count,
        "trueup_source_missed_total",
        "offsets of a topic that the brokers deleted before they were read",
    ),
    (
        Kind::Gauge,
        Unit::Bytes,
        "trueup_source_retained_bytes",
        "size of the write-ahead log that a database keeps for the slot of an outbox or a table",
    ),
    (Kind::Gauge, Unit::Count, "trueup_log_head_offset", "offset of the next event of a partition"),
    (Kind::Gauge, Unit::Count, "trueup_log_start_offset", "first offset that the log still holds"),
    (Kind::Gauge, Unit::Bytes, "trueup_log_bytes", "size of the log on disk"),
    (Kind::Gauge, Unit::Count, "trueup_table_rows", "current rows of a table"),
    (Kind::Gauge, Unit::Bytes, "trueup_table_bytes", "memory of the current rows of a table (`table_bytes_max`)"),
    (Kind::Gauge, Unit::Count, "trueup_lookup_versions", "versions of the rows of a table that views look up"),
    (Kind::Gauge, Unit::Bytes, "trueup_lookup_bytes", "memory of these versions (`lookup_bytes_max`)"),
    (
        Kind::Counter,
        Unit::Count,
        "trueup_lookup_forgotten_total",
        "versions that the speed layer forgot at `lookup_bytes_max`: earlier events may find no row until the next run",
    ),
    (
        Kind::Gauge,
        Unit::Bytes,
        "trueup_log_backlog_bytes",
        "bytes of the log that a reader (`archive`, `speed`) has not processed",
    ),
    (
        Kind::Histogram,
        Unit::Seconds,
        "trueup_log_sync_duration_seconds",
        "duration of one fsync of the log, which makes a group of events durable",
    ),
    (Kind::Gauge, Unit::Count, "trueup_archived_offset", "offset up to which the archive holds a partition"),
    (Kind::Gauge, Unit::Count, "trueup_archive_files", "files in the archive of a stream"),
    (
        Kind::Counter,
        Unit::Count,
        "trueup_compacted_files_total",
        "archive files that compaction merged into larger ones",
    ),
    (
        Kind::Counter,
        Unit::Count,
        "trueup_compaction_conflicts_total",
        "dates that compaction skipped because another process changed the archive at the same time",
    ),
    (Kind::Counter, Unit::Count, "trueup_archive_vacuumed_files_total", "unneeded archive files that were deleted"),
    (Kind::Counter, Unit::Count, "trueup_erasures_completed_total", "erased entities of which no file is left"),
    (
        Kind::Counter,
        Unit::Count,
        "trueup_retention_dropped_events_total",
        "events that the retention of their stream dropped from the archive",
    ),
    (
        Kind::Counter,
        Unit::Count,
        "trueup_vacuumed_files_total",
        "files of views that were deleted because no kept version needs them",
    ),
    (
        Kind::Gauge,
        Unit::Count,
        "trueup_state_definitions",
        "definitions of a view that the speed layer maintains: 2 while a changed definition is being computed",
    ),
    (Kind::Gauge, Unit::Count, "trueup_state_rows", "groups that the speed layer holds for a view"),
    (Kind::Gauge, Unit::Bytes, "trueup_state_bytes", "memory that the speed layer holds for a view"),
    (Kind::Gauge, Unit::Bytes, "trueup_memory_allocated_bytes", "memory that the process uses"),
    (
        Kind::Gauge,
        Unit::Bytes,
        "trueup_memory_resident_bytes",
        "memory that the allocator holds: what the process uses, and what it freed and will use again",
    ),
    (Kind::Gauge, Unit::Count, "trueup_batch_version", "active batch version of a view"),
    (
        Kind::Gauge,
        Unit::Seconds,
        "trueup_batch_age_seconds",
        "time since the active batch version of a view was published",
    ),
    (
        Kind::Counter,
        Unit::Count,
        "trueup_version_notes_unreadable_total",
        "versions whose notes could not be read at start, wholly or in part",
    ),
    (Kind::Counter, Unit::Count, "trueup_batch_runs_total", "finished batch runs, by final state and trigger"),
    (
        Kind::Gauge,
        Unit::Seconds,
        "trueup_batch_success_timestamp_seconds",
        "time at which the last successful run of a view was published",
    ),
    (Kind::Gauge, Unit::Count, "trueup_batch_retry_waiting", "1 while a failed run of a view waits for its retry"),
    (
        Kind::Gauge,
        Unit::Seconds,
        "trueup_clock_ahead_seconds",
        "how far the clock is ahead of any plausible time; above 0, deletions by age use a plausible time instead",
    ),
    (Kind::Histogram, Unit::Seconds, "trueup_batch_run_seconds", "duration of batch runs"),
    (Kind::Gauge, Unit::Bytes, "trueup_batch_cache_bytes", "memory of the cached rows of batch versions"),
    (
        Kind::Counter,
        Unit::Count,
        "trueup_differing_values_total",
        "differences between served and exact values, by `cause`",
    ),
    (
        Kind::Counter,
        Unit::Count,
        "trueup_unexplained_differences_total",
        "differences between served and exact values that no cause explains; each is a defect",
    ),
    (
        Kind::Gauge,
        Unit::Count,
        "trueup_view_drift_ratio",
        "drift of a measure: mean relative error over all rows of the last comparison",
    ),
    (
        Kind::Gauge,
        Unit::Count,
        "trueup_replay_events_left",
        "events that a checkpoint has still to replay from the archive; 0 while none replays",
    ),
    (Kind::Gauge, Unit::Count, "trueup_view_drift_alarm", "1 while the drift of a view exceeds its max_drift"),
    (
        Kind::Counter,
        Unit::Count,
        "trueup_ledger_mismatch_total",
        "responses in which batch, speed and late events did not add up to the accepted events",
    ),
    (Kind::Counter, Unit::Count, "trueup_audit_dropped_total", "entries of the audit log that were not written"),
    (Kind::Gauge, Unit::Count, "trueup_connections", "open connections"),
    (
        Kind::Counter,
        Unit::Count,
        "trueup_connections_refused_total",
        "connections beyond the limit: answered with 503, or closed",
    ),
    (
        Kind::Counter,
        Unit::Count,
        "trueup_responses_refused_total",
        "responses that were not sent, because clients read the previous ones too slowly",
    ),
    (
        Kind::Gauge,
        Unit::Bytes,
        "trueup_live_bytes",
        "memory of live queries: results, and events that clients have not read yet",
    ),
    (
        Kind::Counter,
        Unit::Count,
        "trueup_live_postponed_total",
        "updates of live queries that waited for memory, because clients read too slowly",
    ),
    (Kind::Gauge, Unit::Count, "trueup_live_subscribers", "open subscriptions to live queries"),
    (Kind::Gauge, Unit::Count, "trueup_live_feeds", "distinct live queries that are being polled"),
    (
        Kind::Counter,
        Unit::Count,
        "trueup_live_computations_total",
        "computations of live queries; each serves all subscribers of the query",
    ),
    (Kind::Counter, Unit::Count, "trueup_live_events_total", "events sent to subscribers of live queries"),
    (
        Kind::Counter,
        Unit::Count,
        "trueup_live_lagged_total",
        "times that a subscriber fell behind and received a new snapshot instead of the changes",
    ),
    (
        Kind::Counter,
        Unit::Count,
        "trueup_query_cache_hits_total",
        "queries answered from the response cache because nothing had changed",
    ),
    (Kind::Gauge, Unit::Bytes, "trueup_query_cache_bytes", "memory of the response cache"),
    (
        Kind::Counter,
        Unit::Count,
        "trueup_queries_refused_total",
        "refused queries, by reason: time, bytes or too_many (concurrent queries)",
    ),
    (
        Kind::Counter,
        Unit::Count,
        "trueup_batch_merge_cache_lookups_total",
        "lookups of the batch part of a query result in the batch merge cache, by outcome",
    ),
    (
        Kind::Counter,
        Unit::Count,
        "trueup_alerts_raised_total",
        "alerts raised by live figures; one that is raised again after it was withdrawn is counted again",
    ),
    (
        Kind::Counter,
        Unit::Count,
        "trueup_alerts_judged_total",
        "alerts that a batch run has judged, by the new state: `confirmed`, `withdrawn` or `corrected`",
    ),
    (
        Kind::Counter,
        Unit::Count,
        "trueup_alerts_forgotten_total",
        "records of alerts forgotten because more were raised than are kept",
    ),
    (
        Kind::Counter,
        Unit::Count,
        "trueup_alert_errors_total",
        "evaluations of alerts that failed and were tried again with the next change",
    ),
    (
        Kind::Counter,
        Unit::Count,
        "trueup_alert_notices_total",
        "notices of alerts, by result: `delivered`, `retried`, `dead` after the last attempt, `silenced`, or `limited` by the rate of the alert",
    ),
    (Kind::Gauge, Unit::Count, "trueup_sink_running", "1 while the sink writes its topic, 0 otherwise"),
    (Kind::Gauge, Unit::Count, "trueup_sink_epoch", "number of the last committed epoch of the sink"),
    (
        Kind::Gauge,
        Unit::Seconds,
        "trueup_sink_committed_timestamp_seconds",
        "time of the last transaction of the sink that changed its topic",
    ),
    (Kind::Gauge, Unit::Count, "trueup_sink_lag_events", "events of the log after the last epoch of the sink"),
    (Kind::Gauge, Unit::Count, "trueup_sink_rows", "rows that the topic of the sink has"),
    (Kind::Counter, Unit::Count, "trueup_sink_records_total", "records that the sink has committed"),
    (
        Kind::Counter,
        Unit::Count,
        "trueup_sink_errors_total",
        "epochs of the sink that failed; all but stopped sinks retry",
    ),
    (
        Kind::Counter,
        Unit::Count,
        "trueup_sink_failed_events_total",
        "events that a sink of a stream did not write because an expression failed for them",
    ),
    (Kind::Gauge, Unit::Bytes, "trueup_batch_merge_cache_bytes", "memory of the batch merge cache"),
    (Kind::Histogram, Unit::Seconds, "trueup_query_duration_seconds", "duration of queries"),
];

/// Registers the help texts with the installed recorder.
pub fn describe() {
    for (kind, unit, name, meaning) in METRICS {
        match kind {
            Kind::Counter => describe_counter!(*name, *unit, *meaning),
            Kind::Gauge => describe_gauge!(*name, *unit, *meaning),
            Kind::Histogram => describe_histogram!(*name, *unit, *meaning),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::path::Path;

    use super::*;

    fn names_in(text: &str, names: &mut BTreeSet<String>) {
        for (at, _) in text.match_indices("\"trueup_") {
            let name = text[at + 1..].split('"').next().unwrap_or_default();
            if name.chars().all(|c| c.is_ascii_lowercase() || c == '_') {
                names.insert(name.to_owned());
            }
        }
    }

    fn walk(folder: &Path, names: &mut BTreeSet<String>) {
        for entry in std::fs::read_dir(folder).expect("a folder").flatten() {
            let path = entry.path();
            if path.is_dir() {
                walk(&path, names);
            } else if path.extension().is_some_and(|extension| extension == "rs") && !path.ends_with("metric_names.rs")
            {
                names_in(&std::fs::read_to_string(&path).expect("readable"), names);
            }
        }
    }

    #[test]
    fn every_metric_is_described_here_and_in_the_documentation() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let mut used = BTreeSet::new();
        for folder in
            ["src", "shared/src", "intake/src", "speed/src", "batch/src", "serving/src", "alerts/src", "sinks/src"]
        {
            walk(&root.join(folder), &mut used);
        }
        let described: BTreeSet<String> = METRICS.iter().map(|(_, _, name, _)| (*name).to_owned()).collect();
        assert_eq!(used, described);
        let page = std::fs::read_to_string(root.join("docs/metrics.md")).expect("docs/metrics.md");
        for (kind, _, name, meaning) in METRICS {
            let row = format!("| `{name}` | {} |", format!("{kind:?}").to_lowercase());
            assert!(page.contains(&row) && page.contains(meaning), "docs/metrics.md lacks\n{row} {meaning} |");
        }
    }
}
