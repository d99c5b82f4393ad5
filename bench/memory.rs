//! Measures the memory of a run whose groups exceed its limit, in a process of its own.

use std::path::Path;
use std::process::Command;

use batch::BatchSettings;
use shared::time::Day;

use crate::archived::History;

const GROUPS: u64 = 50_000_000;
const LIMITS_MIB: [u64; 2] = [2048, 1024];
const VIEW: &str = "
    CREATE VIEW per_bidder AS SELECT window_start, bidder, COUNT(*) AS bids, SUM(price) AS total, AVG(fare) AS average
    FROM bids GROUP BY TUMBLE(ts, INTERVAL '1' DAY), bidder;";
/// The argument of the measured process.
pub const CHILD: &str = "memory-child";

pub fn measure() {
    let groups = std::env::var("TRUEUP_GROUPS").ok().and_then(|n| n.parse().ok()).unwrap_or(GROUPS);
    let folder = tempfile::tempdir().expect("a folder");
    runtime().block_on(async {
        let history = History::open(folder.path(), VIEW, BatchSettings::default()).await;
        history.write_day(Day::parse("2026-01-01").expect("a day"), groups, 1_000_000, u64::MAX).await;
    });
    for limit in LIMITS_MIB {
        let program = std::env::current_exe().expect("this program");
        let measured = Command::new(program)
            .args([CHILD, &folder.path().display().to_string(), &limit.to_string()])
            .output()
            .expect("a process");
        assert!(measured.status.success(), "{}", String::from_utf8_lossy(&measured.stderr));
        print!("{groups} groups of one date, limit {limit} MiB: {}", String::from_utf8_lossy(&measured.stdout));
        let _ = std::fs::remove_dir_all(folder.path().join("views"));
    }
}

/// The measured process: one full run, without rows kept for queries.
pub fn child(arguments: &[String]) {
    let [folder, limit] = arguments else { panic!("a folder and a limit") };
    let limit: u64 = limit.parse().expect("MiB");
    let settings = BatchSettings { memory_limit_bytes: limit << 20, cache_bytes: 32 << 20, ..BatchSettings::default() };
    runtime().block_on(async {
        let history = History::open(Path::new(folder), VIEW, settings).await;
        let before = peak_mib();
        let (_, time) = history.run("per_bidder", true).await;
        let snapshot = history.table("per_bidder").await.snapshot().await.expect("a snapshot");
        let rows: i64 = snapshot.files.iter().map(|file| file.rows).sum();
        let files = snapshot.files.len();
        println!(
            "{rows} rows in {files} files, {:.1} s, peak {} MiB ({before} before)",
            time.as_secs_f64(),
            peak_mib()
        );
    });
}

pub fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime")
}

/// The most resident memory this process ever had.
fn peak_mib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    line.and_then(|line| line.trim().trim_end_matches(" kB").parse::<u64>().ok()).unwrap_or(0) / 1024
}
