//! What does each metric mean? Name, kind, unit and a sentence, as Prometheus shows them; `docs/metrics.md` has the same
//! table. Nothing is measured here.

use metrics::{Unit, describe_counter, describe_gauge, describe_histogram};

/// What a metric counts in, and how.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// Only grows.
    Counter,
    /// A level.
    Gauge,
    /// How often a duration was how long.
    Histogram,
}

/// Upper bounds, in seconds, that durations are counted by.
pub const DURATION_BUCKETS_SECONDS: [f64; 16] =
    [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 60.0, 600.0, 3600.0];

/// Every metric: kind, unit, name, meaning.
const METRICS: &[(Kind, Unit, &str, &str)] = &[
    (Kind::Gauge, Unit::Count, "trueup_build_info", "1; its label is the version of the program"),
    (Kind::Counter, Unit::Count, "trueup_events_accepted_total", "events that were accepted and are durable"),
    (
        Kind::Counter,
        Unit::Count,
        "trueup_events_duplicate_total",
        "events that were left out because their id had come before",
    ),
    (
        Kind::Counter,
        Unit::Count,
        "trueup_events_late_total",
        "accepted events that came after allowed lateness: the next batch run has them",
    ),
    (
        Kind::Counter,
        Unit::Count,
        "trueup_events_ahead_total",
        "accepted events that were too far ahead of their arrival to move the watermark",
    ),
    (Kind::Counter, Unit::Count, "trueup_events_rejected_total", "lines that were no events of their stream"),
    (Kind::Gauge, Unit::Count, "trueup_quarantine_lines", "rejected lines that are kept to be looked at"),
    (
        Kind::Gauge,
        Unit::Seconds,
        "trueup_watermark_timestamp_seconds",
        "event time up to which a partition expects no more events",
    ),
    (
        Kind::Gauge,
        Unit::Seconds,
        "trueup_disorder_seconds",
        "how far events are behind the latest one, by quantile `q`",
    ),
    (Kind::Gauge, Unit::Count, "trueup_log_head_offset", "offset of the next event of a partition"),
    (Kind::Gauge, Unit::Count, "trueup_log_start_offset", "first offset that the log still has"),
    (Kind::Gauge, Unit::Bytes, "trueup_log_bytes", "size of the log on disk"),
    (
        Kind::Histogram,
        Unit::Seconds,
        "trueup_wal_sync_duration_seconds",
        "time that the disk took to make a group of events durable",
    ),
    (Kind::Gauge, Unit::Count, "trueup_archived_offset", "offset up to which the archive has a partition"),
    (Kind::Gauge, Unit::Count, "trueup_archive_files", "files of a stream's archive"),
    (Kind::Counter, Unit::Count, "trueup_compacted_files_total", "archive files that were rewritten into fewer"),
    (
        Kind::Counter,
        Unit::Count,
        "trueup_compaction_conflicts_total",
        "dates that were left as they are because another process changed the archive meanwhile",
    ),
    (
        Kind::Counter,
        Unit::Count,
        "trueup_archive_vacuumed_files_total",
        "archive files deleted because nobody needs them",
    ),
    (
        Kind::Counter,
        Unit::Count,
        "trueup_retention_dropped_events_total",
        "events whose dates a stream's retention dropped",
    ),
    (
        Kind::Counter,
        Unit::Count,
        "trueup_vacuumed_files_total",
        "files of views deleted because no kept version needs them",
    ),
    (
        Kind::Gauge,
        Unit::Count,
        "trueup_state_definitions",
        "definitions of a view that are folded: 2 while a changed one is computed",
    ),
    (Kind::Gauge, Unit::Count, "trueup_state_rows", "groups that the speed layer holds of a view"),
    (Kind::Gauge, Unit::Bytes, "trueup_state_bytes", "memory that they take"),
    (Kind::Gauge, Unit::Count, "trueup_batch_version", "the batch version of a view that answers"),
    (Kind::Gauge, Unit::Seconds, "trueup_batch_age_seconds", "time since it was published"),
    (
        Kind::Counter,
        Unit::Count,
        "trueup_version_notes_unreadable_total",
        "versions whose notes could not be read at start, wholly or in part",
    ),
    (Kind::Counter, Unit::Count, "trueup_batch_runs_total", "batch runs that ended, by how and what asked for them"),
    (Kind::Gauge, Unit::Seconds, "trueup_batch_success_timestamp_seconds", "when the last run of a view was published"),
    (Kind::Gauge, Unit::Count, "trueup_batch_retry_waiting", "1 while a failed run of a view waits to be tried again"),
    (Kind::Histogram, Unit::Seconds, "trueup_batch_run_seconds", "how long batch runs took"),
    (Kind::Gauge, Unit::Bytes, "trueup_batch_cache_bytes", "rows of versions that are kept in memory for queries"),
    (
        Kind::Counter,
        Unit::Count,
        "trueup_unexplained_differences_total",
        "differences between served and exact that no cause explains: a defect",
    ),
    (
        Kind::Gauge,
        Unit::Count,
        "trueup_view_drift_ratio",
        "how far off a measure had been, on average over all rows of the last comparison",
    ),
    (Kind::Gauge, Unit::Count, "trueup_view_drift_alarm", "1 while that is more than the view's max_drift"),
    (
        Kind::Counter,
        Unit::Count,
        "trueup_ledger_mismatch_total",
        "answers in which batch, speed and late events did not add up to those accepted",
    ),
    (Kind::Gauge, Unit::Count, "trueup_live_subscribers", "readers who listen to live answers"),
    (Kind::Gauge, Unit::Count, "trueup_live_feeds", "different live answers that are looked at"),
    (
        Kind::Counter,
        Unit::Count,
        "trueup_live_computations_total",
        "times that a live answer was computed, once for all who listen to it",
    ),
    (Kind::Counter, Unit::Count, "trueup_live_events_total", "events sent to readers of live answers"),
    (
        Kind::Counter,
        Unit::Count,
        "trueup_live_lagged_total",
        "times that a reader was too slow for the changes and got the whole answer",
    ),
    (Kind::Counter, Unit::Count, "trueup_query_cache_hits_total", "queries answered from the response cache"),
    (Kind::Gauge, Unit::Bytes, "trueup_query_cache_bytes", "size of the response cache"),
    (Kind::Counter, Unit::Count, "trueup_queries_refused_total", "queries refused, by reason: time, bytes or too_many"),
    (
        Kind::Counter,
        Unit::Count,
        "trueup_batch_merge_cache_total",
        "lookups in the batch merge cache, by outcome: hit or miss",
    ),
    (Kind::Gauge, Unit::Bytes, "trueup_batch_merge_cache_bytes", "size of the batch merge cache"),
    (Kind::Histogram, Unit::Seconds, "trueup_query_duration_seconds", "how long queries took"),
];

/// Tells the recorder that is installed.
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
        for folder in ["src", "shared/src", "intake/src", "speed/src", "batch/src", "serving/src"] {
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
