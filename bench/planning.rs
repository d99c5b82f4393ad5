//! Measures the cost of a long history: a run of one changed day, and a start, after more and more commits that
//! replaced files. The table is the same, only its log is longer.

use std::path::Path;
use std::time::{Duration, Instant};

use batch::BatchSettings;
use shared::time::Day;

use crate::archived::History;
use crate::memory::runtime;

const COMMITS: u64 = 100_000;
const DATES: i32 = 365;
const ROUNDS: usize = 5;
const VIEW: &str = "
    CREATE VIEW counted AS SELECT window_start, channel, COUNT(*) AS bids, SUM(price) AS total
    FROM bids GROUP BY TUMBLE(ts, INTERVAL '1' HOUR), channel;";

pub fn measure() {
    let commits = std::env::var("TRUEUP_COMMITS").ok().and_then(|n| n.parse().ok()).unwrap_or(COMMITS);
    let folder = tempfile::tempdir().expect("a folder");
    let first = Day::parse("2024-01-01").expect("a day");
    runtime().block_on(async {
        let mut history = History::open(folder.path(), VIEW, BatchSettings::default()).await;
        for number in 0..DATES {
            history.write_day(Day(first.0 + number), 1_000, 1_000, 100).await;
        }
        history.run("counted", true).await;
        let mut done = 0;
        for stage in [0, commits / 100, commits / 10, commits] {
            let begin = Instant::now();
            history.churn(stage - done).await;
            let each = begin.elapsed().as_secs_f64() * 1e3 / (stage - done).max(1) as f64;
            done = stage;
            drop(history);
            let begin = Instant::now();
            history = History::open(folder.path(), VIEW, BatchSettings::default()).await;
            let open = begin.elapsed();
            let mut runs = Vec::new();
            for round in 0..ROUNDS {
                history.write_day(Day(first.0 + 50 * round as i32), 100, 100, 100).await;
                runs.push(history.run("counted", false).await.1);
            }
            runs.sort();
            println!(
                "{stage} commits behind it ({each:.1} ms each, {} entries of the log): start {:.0} ms, a run of one changed day {:.1} ms",
                entries(folder.path()), ms(open), ms(runs[ROUNDS / 2]),
            );
        }
    });
}

fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

fn entries(lake: &Path) -> usize {
    std::fs::read_dir(lake.join("events/bids/_delta_log")).map_or(0, Iterator::count)
}
