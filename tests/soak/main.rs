//! Runs the real server at a steady load for a long time: events at a fixed rate, a hundred readers, and runs of all views
//! at intervals. Memory stays flat, nothing fails, and every event is counted once.
//!
//! By default a few seconds at a low rate. The hour, or less of it:
//! `TRUEUP_SOAK_SECONDS=600 cargo test --release -p trueup --test soak -- --ignored --nocapture`; `TRUEUP_SOAK_RATE` sets the
//! events per second, `TRUEUP_SOAK_READERS` the readers, `TRUEUP_SOAK_RUN_SECONDS` the interval of runs. The load begins
//! `TRUEUP_SOAK_WARM_UP_SECONDS` earlier: idempotency keys are kept for a quarter of an hour, so memory grows until then.

mod load;
mod memory;

use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use world::World;

use crate::load::{Load, Plan};
use crate::memory::Samples;

const PATIENCE: Duration = Duration::from_secs(120);

/// One interval of runs is a day of event time: a run computes one or two dates, however long the history is.
fn definitions(plan: &Plan) -> String {
    let every = plan.run_every.as_secs();
    format!(
        "CREATE STREAM hits (id STRING PRIMARY KEY, at TIMESTAMP, channel STRING, amount BIGINT)
             WITH (event_time = 'at', watermark_delay = '10 minutes', allowed_lateness = '3 hours', partitions = 2);
         CREATE VIEW per_channel WITH (schedule = '@every {every}s') AS
             SELECT window_start, channel, COUNT(*) AS hits, SUM(amount) AS total, MAX(amount) AS highest
             FROM hits GROUP BY TUMBLE(at, INTERVAL '1' DAY), channel;
         CREATE VIEW per_hour WITH (schedule = '@every {every}s') AS
             SELECT window_start, COUNT(*) AS hits, COUNT(DISTINCT amount) AS amounts, AVG(amount) AS average
             FROM hits GROUP BY TUMBLE(at, INTERVAL '1' HOUR);"
    )
}

/// What a soak found.
struct Outcome {
    load: load::Outcome,
    memory: Samples,
    runs: usize,
    disk: String,
}

fn soak(plan: &Plan) -> Outcome {
    let world = World::new(&definitions(plan));
    let memory = Samples::start(world.id());
    let load = Load::run(&world, plan);
    let memory = memory.stop().after(plan.warm_up);
    let sent = load.events;
    for view in ["per_channel", "per_hour"] {
        let run = world.run(view, false);
        assert_eq!(run["state"], json!("published"), "{run}");
        let rows = world.rows(view, "&grain=all&group_by=&measures=hits");
        assert_eq!((&rows["rows"][0]["hits"], &rows["complete"]), (&json!(sent), &json!(true)), "{}", rows["ledger"]);
    }
    let runs = finished_runs(&world);
    assert!(runs.iter().all(|run| run["state"] == json!("published")), "a run failed: {runs:?}");
    let folders = ["log", "lake"].map(|name| format!("{name} {} MiB", bytes_below(&world.store().join(name)) >> 20));
    Outcome { load, memory, runs: runs.len(), disk: folders.join(", ") }
}

/// Waits for the runs that the schedule started meanwhile, and returns all runs.
fn finished_runs(world: &World) -> Vec<Value> {
    let begin = Instant::now();
    loop {
        let runs = world.get("/v1/runs?limit=1000").json();
        let runs = runs["runs"].as_array().expect("runs").clone();
        if runs.iter().all(|run| !run["finished_at"].is_null()) {
            return runs;
        }
        assert!(begin.elapsed() < PATIENCE, "a run does not finish: {runs:?}");
        std::thread::sleep(Duration::from_millis(100));
    }
}

impl Outcome {
    fn print(&self, plan: &Plan) {
        let Outcome { load, memory, runs, disk } = self;
        println!("load of the machine: {}", std::fs::read_to_string("/proc/loadavg").unwrap_or_default().trim());
        println!("| what | figure |\n|---|---|");
        println!("| events sent and counted | {} |", load.events);
        println!("| events/s, of {} | {:.0} |", plan.rate, load.events as f64 / load.seconds);
        println!("| acknowledged after, ms | {} |", load.acknowledged);
        println!("| queries answered, ms | {} |", load.queried);
        println!("| changes received by subscribers | {} |", load.changes);
        println!("| runs | {runs} |");
        println!("| refusals with 429 | {} |", load.refused);
        println!("| errors | {} |", load.errors.len());
        println!("| resident memory, first and second half, MiB | {} |", memory.halves());
        println!("| the same without the lowest and the highest tenth, MiB | {} |", memory.ranges());
        println!("| resident memory by tenths, MiB | {} |", memory.tenths());
        println!("| disk | {disk} |");
        load.errors.iter().take(10).for_each(|error| println!("error: {error}"));
    }
}

fn bytes_below(folder: &Path) -> u64 {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    entries
        .map(|entry| match entry.metadata() {
            Ok(about) if about.is_dir() => bytes_below(&entry.path()),
            Ok(about) => about.len(),
            Err(_) => 0,
        })
        .sum()
}

#[test]
fn a_short_soak_loses_nothing_and_fails_nothing() {
    let plan = Plan {
        warm_up: Duration::ZERO,
        time: Duration::from_secs(6),
        rate: 10_000,
        readers: 20,
        run_every: Duration::from_secs(2),
    };
    let outcome = soak(&plan);
    outcome.print(&plan);
    assert!(outcome.load.errors.is_empty(), "{:?}", outcome.load.errors);
    assert!(outcome.load.changes > 0 && outcome.runs >= 4, "{} runs", outcome.runs);
}

#[test]
#[ignore = "an hour by default"]
fn an_hour_of_load_leaves_memory_flat() {
    let setting = |name: &str, default: u64| {
        std::env::var(format!("TRUEUP_SOAK_{name}")).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
    };
    let plan = Plan {
        warm_up: Duration::from_secs(setting("WARM_UP_SECONDS", 900)),
        time: Duration::from_secs(setting("SECONDS", 3_600)),
        rate: setting("RATE", 300_000),
        readers: setting("READERS", 100) as usize,
        run_every: Duration::from_secs(setting("RUN_SECONDS", 60)),
    };
    let outcome = soak(&plan);
    outcome.print(&plan);
    assert!(outcome.load.errors.is_empty(), "{:?}", outcome.load.errors);
    let (first, second) = outcome.memory.medians();
    assert!(second <= first * 105 / 100, "memory grows: {} to {} MiB", first >> 20, second >> 20);
}
