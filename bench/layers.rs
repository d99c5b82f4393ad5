//! Measures what a view costs with batch runs and with checkpoints of the speed layer, over the same stream: CPU, memory, disk,
//! and the time of a restart (`docs/kappa.md`). Rounds go over both in turn.

use std::path::Path;
use std::time::Instant;

use crate::events::{STREAM, bids};
use crate::server::{Server, quantile};

const EVENTS: u64 = 1_000_000;
const PARTS: u64 = 8;
const BODY_EVENTS: u64 = 25_000;
const ROUNDS: usize = 3;
const SHORT_LOG: &str = "dedup_horizon_events = 100000\nlog_segment_bytes = 16777216\n";

/// The figures of one round.
#[derive(Default)]
struct Figures {
    cpu_seconds: f64,
    publish_seconds: f64,
    full_seconds: f64,
    restart_seconds: f64,
    peak_mib: f64,
    log_mib: f64,
    archive_mib: f64,
    versions_mib: f64,
}

pub fn measure() {
    let mut all: [Vec<Figures>; 2] = Default::default();
    for _ in 0..ROUNDS {
        for (layers, figures) in ["both", "speed"].into_iter().zip(&mut all) {
            figures.push(round(layers));
        }
    }
    println!("{EVENTS} events, {PARTS} versions; medians of {ROUNDS} rounds");
    println!("{:<34} {:>10} {:>10}", "", "both", "speed");
    let line = |name: &str, of: fn(&Figures) -> f64| {
        let median = |figures: &[Figures]| {
            let mut values: Vec<f64> = figures.iter().map(of).collect();
            values.sort_by(f64::total_cmp);
            quantile(&values, 0.5)
        };
        println!("{name:<34} {:>10.2} {:>10.2}", median(&all[0]), median(&all[1]));
    };
    line("server CPU-s per million events", |f| f.cpu_seconds / (EVENTS as f64 / 1e6));
    line("one version, s", |f| f.publish_seconds / PARTS as f64);
    line("full run or replay, s", |f| f.full_seconds);
    line("restart after the last version, s", |f| f.restart_seconds);
    line("peak memory, MiB", |f| f.peak_mib);
    line("log, MiB", |f| f.log_mib);
    line("archive, MiB", |f| f.archive_mib);
    line("versions, MiB", |f| f.versions_mib);
}

fn round(layers: &str) -> Figures {
    let folder = tempfile::tempdir().expect("a folder");
    let definitions = format!(
        "{STREAM}CREATE VIEW v WITH (layers = '{layers}') AS
         SELECT window_start, channel, COUNT(*) AS n, SUM(price) AS s, COUNT(DISTINCT bidder) AS bidders,
                PERCENTILE_CONT(0.99) WITHIN GROUP (ORDER BY price) AS p99
         FROM bids GROUP BY TUMBLE(ts, INTERVAL '1' MINUTE), channel;"
    );
    let server = Server::with_limits(folder.path(), &definitions, SHORT_LOG);
    let kind = if layers == "both" { "runs" } else { "checkpoints" };
    let mut figures = Figures::default();
    let before = server.cpu_seconds();
    for part in 0..PARTS {
        let first = part * EVENTS / PARTS;
        let bodies = (0..EVENTS / PARTS / BODY_EVENTS).map(|body| first + body * BODY_EVENTS);
        server.send("/v1/events/bids", bodies.map(|from| bids(from, from + BODY_EVENTS, EVENTS)).collect(), 4);
        figures.publish_seconds += server.publish("v", kind, false);
    }
    figures.cpu_seconds = server.cpu_seconds() - before;
    figures.peak_mib = server.peak_mib();
    let store = folder.path().join("store");
    figures.log_mib = mib(&store.join("log"));
    figures.archive_mib = mib(&store.join("lake/events"));
    figures.versions_mib = mib(&store.join("lake/views"));
    server.kill();
    let begin = Instant::now();
    let server = Server::with_limits(folder.path(), &definitions, SHORT_LOG);
    let answer = server.get("/v1/views/v/rows.json?grain=all&group_by=");
    figures.restart_seconds = begin.elapsed().as_secs_f64();
    assert_eq!(answer["rows"][0]["n"], serde_json::json!(EVENTS), "{}", answer["ledger"]);
    figures.full_seconds = server.publish("v", kind, true);
    figures
}

/// The size of the files in a folder.
fn mib(folder: &Path) -> f64 {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let sizes = entries.map(|entry| match entry.file_type().is_ok_and(|kind| kind.is_dir()) {
        true => mib(&entry.path()),
        false => entry.metadata().map_or(0.0, |file| file.len() as f64 / f64::from(1 << 20)),
    });
    sizes.sum()
}
