//! Measures the cost of small files and of compaction: a run over one date of a thousand small files, before and after.

use std::time::Instant;

use polars::prelude::*;

use crate::events::{PER_CHANNEL, STREAM, bids};
use crate::server::{Server, quantile};

const FILES: u64 = 1_000;
const EVENTS_PER_FILE: u64 = 1_000;
const ROUNDS: usize = 5;

pub fn measure() {
    let folder = tempfile::tempdir().expect("a folder");
    let limits = "archive_wait_ms = 1\ncompaction_every_ms = 0\n";
    let server = Server::with_limits(folder.path(), &format!("{STREAM}{PER_CHANNEL}"), limits);
    let archive = folder.path().join("store/lake/events/bids");
    for i in 0..FILES {
        let from = i * EVENTS_PER_FILE;
        // All events on one date, and each body archived before the next comes.
        server.post("/v1/events/bids", bids(from, from + EVENTS_PER_FILE, FILES * EVENTS_PER_FILE));
        while archived(&server) < from + EVENTS_PER_FILE {
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
    }
    server.run("per_channel", false);
    let before = figures(&server, &archive);
    let begin = Instant::now();
    let done = server.post("/v1/streams/bids/compact", Vec::new());
    let compacted = begin.elapsed().as_secs_f64();
    let after = figures(&server, &archive);
    println!(
        "{} files of {} rows, {:.1} MiB, became {} of {:.1} MiB in {compacted:.2} s ({:.2} million rows/s)",
        done["files_before"],
        done["rows"],
        mib(&done["bytes_read"]),
        done["files_after"],
        mib(&done["bytes_written"]),
        done["rows"].as_f64().unwrap_or(0.0) / compacted / 1e6,
    );
    println!(
        "full run: before {:.2} s, after {:.2} s, {:.1} x; plain Polars query over the table's files: before {:.2} s, after \
         {:.2} s, {:.1} x (medians of {ROUNDS})",
        before.0,
        after.0,
        before.0 / after.0,
        before.1,
        after.1,
        before.1 / after.1
    );
}

fn archived(server: &Server) -> u64 {
    let stream = server.get("/v1/streams/bids");
    stream["partitions"].as_array().into_iter().flatten().filter_map(|p| p["archived"].as_u64()).sum()
}

fn mib(bytes: &serde_json::Value) -> f64 {
    bytes.as_f64().unwrap_or(0.0) / (1 << 20) as f64
}

/// Seconds of a full run, and of a plain query over the files that the table has.
fn figures(server: &Server, archive: &std::path::Path) -> (f64, f64) {
    let live = live_files(archive);
    let (mut runs, mut queries) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        runs.push(server.run("per_channel", true));
        let files: Vec<PlRefPath> = live.iter().map(|f| PlRefPath::new(f.as_str())).collect();
        let begin = Instant::now();
        let scan = LazyFrame::scan_parquet_files(files.into(), ScanArgsParquet::default()).expect("the archive");
        let rows = scan.group_by([col("channel")]).agg([len(), col("price").sum().alias("total")]);
        rows.collect_with_engine(Engine::Streaming).expect("Polars answers");
        queries.push(begin.elapsed().as_secs_f64());
    }
    runs.sort_by(f64::total_cmp);
    queries.sort_by(f64::total_cmp);
    (quantile(&runs, 0.5), quantile(&queries, 0.5))
}

/// The files that the log of the table adds and does not remove.
fn live_files(archive: &std::path::Path) -> Vec<String> {
    let mut entries: Vec<_> = std::fs::read_dir(archive.join("_delta_log")).expect("a log").flatten().collect();
    entries.retain(|entry| entry.path().extension().is_some_and(|e| e == "json"));
    entries.sort_by_key(|entry| entry.path());
    let mut live = std::collections::BTreeSet::new();
    for entry in entries {
        let text = std::fs::read_to_string(entry.path()).expect("an entry");
        for action in text.lines().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok()) {
            if let Some(path) = action["add"]["path"].as_str() {
                live.insert(path.to_owned());
            }
            if let Some(path) = action["remove"]["path"].as_str() {
                live.remove(path);
            }
        }
    }
    live.iter().map(|path| archive.join(path).display().to_string()).collect()
}
