//! Measures a full recompute beside an equivalent Polars query over the same files, in turn.

use std::path::{Path, PathBuf};
use std::time::Instant;

use polars::prelude::*;

use crate::events::{PER_CHANNEL, STREAM, bids};
use crate::server::{Server, quantile};

const EVENTS: u64 = 20_000_000;
const BODY_EVENTS: u64 = 50_000;
const ROUNDS: usize = 5;

const FLIGHTS: &str = "
    CREATE STREAM flights (flight_id STRING PRIMARY KEY, scheduled_at TIMESTAMP, reported_at TIMESTAMP, origin STRING,
                           destination STRING, delay_min BIGINT, distance_mi BIGINT)
    WITH (event_time = 'scheduled_at', watermark_delay = '1 hour', allowed_lateness = '2 days');
    CREATE VIEW departures AS
    SELECT window_start, origin, COUNT(*) AS flights, AVG(delay_min) AS avg_delay, MAX(delay_min) AS max_delay,
           COUNT(*) FILTER (WHERE delay_min > 15) AS late_flights
    FROM flights GROUP BY TUMBLE(scheduled_at, INTERVAL '1' HOUR), origin;";

pub fn measure() {
    generated();
    flights();
}

fn generated() {
    let folder = tempfile::tempdir().expect("a folder");
    // Without ids: the plain query does not remove duplicates either.
    let definitions = format!("{}{PER_CHANNEL}", STREAM.replace(" PRIMARY KEY", ""));
    let server = Server::start(folder.path(), &definitions);
    for part in 0..20 {
        let bodies = (0..EVENTS / BODY_EVENTS / 20)
            .map(|i| part * EVENTS / 20 + i * BODY_EVENTS)
            .map(|from| bids(from, from + BODY_EVENTS, EVENTS))
            .collect();
        server.send("/v1/events/bids", bodies, 4);
    }
    server.run("per_channel", false);
    compare("20 M generated events", &server, "per_channel", &folder.path().join("store/lake/events/bids"), |files| {
        files.group_by([col("ts").dt().truncate(lit("10s")), col("channel")]).agg([
            len().alias("bids"),
            col("price").sum().alias("total"),
            col("price").max().alias("highest"),
        ])
    });
}

fn flights() {
    let file = std::env::var("TRUEUP_FLIGHTS")
        .map_or_else(|_| PathBuf::from("../shared/data/flights-3m.parquet"), PathBuf::from);
    if !file.exists() {
        println!("flights: {} is not here (set TRUEUP_FLIGHTS)", file.display());
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let server = Server::start(folder.path(), FLIGHTS);
    let sent = std::process::Command::new(env!("CARGO_BIN_EXE_trueup"))
        .args(["ingest", "flights", &file.display().to_string(), "--url", &server.url])
        .output()
        .expect("trueup runs");
    assert!(sent.status.success(), "{}", String::from_utf8_lossy(&sent.stderr));
    server.run("departures", false);
    compare("3 M flights", &server, "departures", &folder.path().join("store/lake/events/flights"), |files| {
        files.group_by([col("scheduled_at").dt().truncate(lit("1h")), col("origin")]).agg([
            len().alias("flights"),
            col("delay_min").mean().alias("avg_delay"),
            col("delay_min").max().alias("max_delay"),
            col("delay_min").gt(lit(15)).sum().alias("late_flights"),
        ])
    });
}

fn compare(what: &str, server: &Server, view: &str, archive: &Path, plain: impl Fn(LazyFrame) -> LazyFrame) {
    let files: Vec<PlRefPath> =
        parquet_files(archive).iter().map(|f| PlRefPath::new(f.to_str().expect("UTF-8"))).collect();
    let written = tempfile::tempdir().expect("a folder");
    let mut height = 0;
    let (mut ratios, mut stored_ratios) = (Vec::new(), Vec::new());
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let run = server.run(view, true);
        let begin = Instant::now();
        let scan =
            LazyFrame::scan_parquet_files(files.clone().into(), ScanArgsParquet::default()).expect("the archive");
        let mut rows = plain(scan).collect_with_engine(Engine::Streaming).expect("Polars answers").unwrap_single();
        let query = begin.elapsed().as_secs_f64();
        let file = std::fs::File::create(written.path().join("rows.parquet")).expect("a file");
        ParquetWriter::new(&file).with_compression(ParquetCompression::Zstd(None)).finish(&mut rows).expect("written");
        file.sync_all().expect("synced");
        let stored = begin.elapsed().as_secs_f64();
        height = rows.height();
        ratios.push(run / query);
        stored_ratios.push(run / stored);
        ours.push(run);
        theirs.push(query);
    }
    for values in [&mut ratios, &mut stored_ratios, &mut ours, &mut theirs] {
        values.sort_by(f64::total_cmp);
    }
    println!(
        "{what} in {} files, {height} rows of result: full run {:.2} s, plain Polars query {:.2} s, ratio {:.2}; with its rows \
         written to one Parquet file: ratio {:.2} (medians of {ROUNDS}, in turn); peak {:.0} MiB",
        files.len(),
        quantile(&ours, 0.5),
        quantile(&theirs, 0.5),
        quantile(&ratios, 0.5),
        quantile(&stored_ratios, 0.5),
        server.peak_mib(),
    );
}

fn parquet_files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).expect("the archive").flatten() {
            let path = entry.path();
            if path.is_dir() && !path.ends_with("_delta_log") {
                folders.push(path);
            } else if path.extension().is_some_and(|e| e == "parquet") {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}
