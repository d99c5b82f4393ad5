//! Measures events per second of `trueup ingest --historical`, from NDJSON and from Parquet.

use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow::array::{ArrayRef, RecordBatch, TimestampMicrosecondArray};
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, ZstdLevel};
use parquet::file::properties::WriterProperties;
use shared::stream::Stream;

use crate::events::{STREAM, bids, mixed};

const EVENTS: u64 = 10_000_000;
const PART_EVENTS: u64 = 100_000;
const DATES: i64 = 60;
const DAY_US: i64 = 86_400_000_000;

pub fn measure() {
    let folder = tempfile::tempdir().expect("a folder");
    let parsed = shared::sql::parse_definitions(&[("bids.sql".to_owned(), STREAM.to_owned())]).expect("definitions");
    let stream = &parsed.streams[0];
    let file = |name: &str| folder.path().join(name);
    std::fs::write(file("bids.sql"), STREAM).expect("the definitions can be written");

    let mut lines = File::create(file("lines.ndjson")).expect("a file");
    let mut in_order = parquet(&file("in_order.parquet"), stream);
    let mut shuffled = parquet(&file("shuffled.parquet"), stream);
    let mut decoding = 0.0;
    for from in (0..EVENTS).step_by(PART_EVENTS as usize) {
        let body = bids(from, from + PART_EVENTS, EVENTS);
        lines.write_all(&body).expect("written");
        let begin = Instant::now();
        let rows = intake::decode::decode(stream, &body, Default::default()).expect("decodes").rows;
        decoding += begin.elapsed().as_secs_f64();
        let time = |n: u64| (n as i128 * i128::from(DATES * DAY_US) / i128::from(EVENTS)) as i64;
        in_order.write(&timed(&rows, stream, |row| time(from + row))).expect("written");
        let any = |row: u64| (mixed(from + row) % (DATES * DAY_US) as u64) as i64;
        shuffled.write(&timed(&rows, stream, any)).expect("written");
    }
    drop(lines);
    in_order.close().expect("written");
    shuffled.close().expect("written");
    println!("{EVENTS} events; the decoder alone, one core: {:.2} M/s", EVENTS as f64 / 1e6 / decoding);
    for round in 1..=2 {
        for (name, what) in [
            ("lines.ndjson", "NDJSON, one date"),
            ("in_order.parquet", "Parquet, 60 dates in order"),
            ("shuffled.parquet", "Parquet, 60 dates shuffled"),
        ] {
            let bytes = file(name).metadata().expect("a file").len() as f64 / 1e6;
            let (seconds, cpu, peak) = ingest(folder.path(), name);
            let millions = EVENTS as f64 / 1e6;
            println!(
                "round {round}: {what} ({bytes:.0} MB): {:.2} M events/s, {:.0} MB/s; {:.2} M events per CPU-s; peak {peak:.0} MiB",
                millions / seconds,
                bytes / seconds,
                millions / cpu,
            );
        }
    }
}

/// Seconds, CPU seconds, and peak memory in MiB.
fn ingest(folder: &Path, name: &str) -> (f64, f64, f64) {
    let data = folder.join("data");
    let before = children_cpu_seconds();
    let begin = Instant::now();
    let mut child = Command::new(env!("CARGO_BIN_EXE_trueup"))
        .args(["ingest", "bids", "--historical", "--definitions"])
        .arg(folder.join("bids.sql"))
        .arg("--data")
        .arg(&data)
        .arg(folder.join(name))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("trueup starts");
    let mut peak = 0.0f64;
    let status = loop {
        let status = std::fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap_or_default();
        let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap_or_default();
        peak = peak.max(line.split_whitespace().nth(1).and_then(|kb| kb.parse().ok()).unwrap_or(0.0) / 1024.0);
        if let Some(status) = child.try_wait().expect("a status") {
            break status;
        }
        std::thread::sleep(Duration::from_millis(10));
    };
    let seconds = begin.elapsed().as_secs_f64();
    assert!(status.success(), "the ingest failed");
    std::fs::remove_dir_all(&data).expect("the data can be removed");
    (seconds, children_cpu_seconds() - before, peak)
}

/// CPU seconds of this process' children that have ended.
fn children_cpu_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let after_name = stat.rsplit(") ").next().unwrap_or_default();
    let ticks: f64 = after_name.split(' ').skip(13).take(2).filter_map(|t| t.parse::<f64>().ok()).sum();
    ticks / 100.0
}

fn parquet(path: &Path, stream: &Stream) -> ArrowWriter<File> {
    let level = ZstdLevel::try_new(1).expect("a level");
    let properties = WriterProperties::builder().set_compression(Compression::ZSTD(level)).build();
    ArrowWriter::try_new(File::create(path).expect("a file"), stream.schema(), Some(properties)).expect("a writer")
}

/// The rows with other event times, in microseconds.
fn timed(rows: &RecordBatch, stream: &Stream, time: impl Fn(u64) -> i64) -> RecordBatch {
    let times = TimestampMicrosecondArray::from_iter_values((0..rows.num_rows() as u64).map(time)).with_timezone("UTC");
    let mut columns: Vec<ArrayRef> = rows.columns().to_vec();
    columns[stream.event_time] = Arc::new(times);
    RecordBatch::try_new(rows.schema(), columns).expect("rows of the stream")
}
