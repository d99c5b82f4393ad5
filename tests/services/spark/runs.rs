//! Batch runs that Spark computes: every window with every measure over random histories equals the oracle, after full and
//! incremental runs, while runs alternate between the engines, and in the merged results at every moment.

use proptest::strategy::{Strategy, ValueTree};
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::{Value, json};
use world::World;
use world::oracle::events::{Event, Log, SECOND, STRICT};
use world::oracle::histories::{Near, PLACES, event, views};
use world::oracle::table::Coverage;
use world::oracle::views::View;
use world::oracle_check::{Layer, Question, check, check_causes, definitions, micros, post};

use super::connect::shared;

/// Number of random histories; `TRUEUP_CASES` sets it for a longer search.
fn cases() -> usize {
    std::env::var("TRUEUP_CASES").ok().and_then(|n| n.parse().ok()).unwrap_or(2)
}

fn events(random: &mut StdRng, now: i64) -> Vec<Event> {
    let seed = TestRng::from_seed(RngAlgorithm::ChaCha, &random.random::<[u8; 32]>());
    let mut runner = TestRunner::new_with_rng(Config::default(), seed);
    let count = random.random_range(20..150);
    let mut one = |i: i64| {
        let Near(event, distance) = event().new_tree(&mut runner).expect("an event").current();
        Event { at: now + i * SECOND / 4 + distance, ..event }
    };
    (0..count).map(&mut one).collect()
}

/// Runs a view, and compares what batch and both layers together have then.
fn run(world: &World, log: &Log, view: &View, engine: &str, full: bool) {
    let run = world.run(&view.name, full);
    assert_eq!(run["state"], json!("published"), "{run}\n{}", view.sql());
    // A run that has nothing to do has no engine.
    assert!(run["engine"] == json!(engine) || (!full && run["engine"] == Value::Null), "{run}");
    for layer in [Layer::Batch, Layer::Merged] {
        let checked = check(world, log, view, &Question::of(layer), &mut Coverage::default());
        checked.and_then(|_| check_causes(world, &view.name)).unwrap_or_else(|error| {
            panic!("after a run on {engine} (full: {full}): {error}\n{}", view.sql());
        });
    }
}

#[test]
fn every_window_and_measure_equals_the_oracle_after_runs_on_alternating_engines() {
    let Some(spark) = shared() else { return };
    let seed = std::env::var("TRUEUP_SEED").ok().and_then(|s| s.parse().ok()).unwrap_or(3);
    println!("TRUEUP_SEED={seed}");
    let mut random = StdRng::seed_from_u64(seed);
    for case in 0..cases() {
        let (zone, instant) = PLACES[(case + random.random_range(0..PLACES.len())) % PLACES.len()];
        let views = views(zone, &mut random);
        let mut world = World::stopped(&definitions(STRICT, &views));
        let mut log = Log::new(STRICT);
        let mut now = micros(instant);
        for (engine, full) in [("spark", false), ("spark", false), ("polars", false), ("spark", false), ("spark", true)]
        {
            world.set_settings(&format!("[batch]\nengine = \"{engine}\"\n{}", spark.settings()));
            world.start();
            post(&world, &mut log, &events(&mut random, now));
            now += 300 * SECOND;
            for view in &views {
                run(&world, &log, view, engine, full);
            }
            post(&world, &mut log, &events(&mut random, now));
            for view in &views {
                let checked = check(&world, &log, view, &Question::of(Layer::Merged), &mut Coverage::default());
                checked.unwrap_or_else(|error| panic!("{error}\n{}", view.sql()));
            }
            assert_eq!(world.stop(), Some(0));
        }
    }
}

#[test]
fn copies_among_historical_events_count_once_and_explain_what_was_served() {
    let Some(spark) = shared() else { return };
    let mut world = World::stopped(
        "CREATE STREAM orders (order_id STRING PRIMARY KEY, at TIMESTAMP, region STRING, amount BIGINT) WITH (event_time = 'at');
         CREATE VIEW hourly AS SELECT window_start, region, COUNT(*) AS n, SUM(amount) AS total, COUNT(DISTINCT order_id) AS ids,
           TOP_K(region, 2) AS top FROM orders GROUP BY TUMBLE(at, INTERVAL '1' HOUR), region;\n",
    );
    world.set_settings(&format!("[batch]\nengine = \"spark\"\n{}", spark.settings()));
    world.start();
    let lines = |numbers: std::ops::Range<i64>, day: u32, amount: i64| -> String {
        let line = |i: i64| {
            let at = format!("2024-03-{day:02}T{:02}:00:00Z", i % 24);
            json!({"order_id": format!("o{i}"), "at": at, "region": format!("r{}", i % 3), "amount": amount})
                .to_string()
                + "\n"
        };
        numbers.map(line).collect()
    };
    let accepted = world.post("/v1/events/orders", lines(0..100, 1, 1)).json()["accepted"].clone();
    assert_eq!(accepted, json!(100));
    assert_eq!(world.run("hourly", false)["engine"], json!("spark"));
    // Half of them are there already; the others are on two dates.
    let file = world.data.path().join("history.ndjson");
    std::fs::write(&file, lines(50..150, 1, 10) + &lines(50..150, 2, 100)).expect("written");
    let ingested = world
        .trueup()
        .args(["ingest", "orders", "--historical", "--definitions"])
        .arg(world.definitions())
        .arg("--data")
        .arg(world.store())
        .arg(&file)
        .output()
        .expect("trueup runs");
    assert!(ingested.status.success(), "{}", world::program::text(&ingested));
    let run = world.run("hourly", false);
    assert_eq!((&run["state"], &run["engine"]), (&json!("published"), &json!("spark")), "{run}");
    check_causes(&world, "hourly").unwrap_or_else(|error| panic!("{error}"));
    let on_spark = world.rows("hourly", "");
    let sum = |name: &str| -> i64 {
        let rows = on_spark["rows"].as_array().expect("rows");
        rows.iter().map(|row| row[name].as_i64().expect("a number")).sum()
    };
    assert_eq!((sum("n"), sum("total")), (250, 100 + 50 * 10 + 100 * 100));
    assert_eq!(world.stop(), Some(0));
    world.set_settings("[batch]\nengine = \"polars\"\n");
    world.start();
    let run = world.run("hourly", true);
    assert_eq!((&run["state"], &run["engine"]), (&json!("published"), &json!("polars")), "{run}");
    assert_eq!(world.rows("hourly", "")["rows"], on_spark["rows"]);
}
