//! Runs on Spark of views that are joined with tables: their figures equal a scan of all changes, full and incremental, also after changes
//! of a table alone, while runs alternate between the engines.

use std::fmt::Debug;
use std::ops::Range;

use proptest::strategy::{Strategy, ValueTree};
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::{Value, json};
use world::World;
use world::joined_views::{DEFINITIONS, Layer, Model, VIEWS, customer_change, order, region_change};

use super::connect::shared;

/// Number of random histories; `TRUEUP_CASES` sets it for a longer search.
fn cases() -> usize {
    std::env::var("TRUEUP_CASES").ok().and_then(|n| n.parse().ok()).unwrap_or(2)
}

fn some<T: Debug>(runner: &mut TestRunner, one: impl Strategy<Value = T>, number: Range<usize>) -> Vec<T> {
    proptest::collection::vec(one, number).new_tree(runner).expect("values").current()
}

/// Runs all views, and compares what batch and both layers together have then.
fn run(world: &World, model: &mut Model, engine: &str, full: bool, context: &str) {
    for view in 0..VIEWS.len() {
        let run = model.run(world, view, full, context);
        // A run that has nothing to do has no engine.
        assert!(run["engine"] == json!(engine) || (!full && run["engine"] == Value::Null), "{context}: {run}");
        model.check(world, view, Layer::Merged, context);
    }
}

#[test]
fn joined_views_equal_a_scan_of_all_changes_after_runs_on_alternating_engines() {
    let Some(spark) = shared() else { return };
    let seed = std::env::var("TRUEUP_SEED").ok().and_then(|s| s.parse().ok()).unwrap_or(5);
    println!("TRUEUP_SEED={seed}");
    let mut random = StdRng::seed_from_u64(seed);
    for case in 0..cases() {
        let seed = TestRng::from_seed(RngAlgorithm::ChaCha, &random.random::<[u8; 32]>());
        let mut runner = TestRunner::new_with_rng(Config::default(), seed);
        let (mut world, mut model) = (World::stopped(DEFINITIONS), Model::default());
        for (round, engine) in ["spark", "polars", "spark"].into_iter().enumerate() {
            let context = |what: &str| format!("case {case}, round {round} on {engine}, {what}");
            world.set_settings(&format!("[batch]\nengine = \"{engine}\"\n{}", spark.settings()));
            world.start();
            model.restarted();
            model.write_customers(&world, &some(&mut runner, customer_change(), 1..20));
            model.write_regions(&world, &some(&mut runner, region_change(), 1..8));
            model.order(&world, &some(&mut runner, order(), 20..120));
            for view in 0..VIEWS.len() {
                model.check(&world, view, Layer::Merged, &context("before a run"));
            }
            run(&world, &mut model, engine, false, &context("after orders"));
            model.write_customers(&world, &some(&mut runner, customer_change(), 1..20));
            model.write_regions(&world, &some(&mut runner, region_change(), 1..8));
            run(&world, &mut model, engine, false, &context("after changes of tables"));
            if round == 2 {
                run(&world, &mut model, engine, true, &context("in full"));
            }
            assert_eq!(world.stop(), Some(0));
        }
    }
}

/// Joined columns of every type, two joins with one table by keys of other widths, sessions.
const SHOP: &str = "
    CREATE TABLE items (id INT PRIMARY KEY, name STRING, label STRING, price DOUBLE, cost DECIMAL(12,2), made DATE, sold BOOLEAN,
                        seen TIMESTAMP, stock BIGINT, part INT, at TIMESTAMP) WITH (event_time = 'at');
    CREATE STREAM orders (order_id STRING PRIMARY KEY, item BIGINT, other INT, amount BIGINT, at TIMESTAMP)
        WITH (event_time = 'at', allowed_lateness = '1000 days');
    CREATE VIEW spells AS
        SELECT window_start, window_end, i.name, COUNT(*) AS n, SUM(amount) AS total, SUM(i.cost) AS cost, MAX(i.price) AS price,
               MIN(i.made) AS made, COUNT(*) FILTER (WHERE i.sold) AS sold, MAX(i.seen) AS seen, SUM(i.stock * amount) AS stock,
               COUNT(DISTINCT p.id) AS parts, MIN(p.label) AS label, MEDIAN(p.stock) AS median, TOP_K(p.name, 2) AS top
        FROM orders AS o JOIN items AS i ON o.item = i.id LEFT JOIN items AS p ON p.id = i.part
        GROUP BY SESSION(o.at, INTERVAL '90' MINUTE), i.name;
    CREATE VIEW prices AS
        SELECT i.price, i.id, p.made, COUNT(*) AS n, FIRST_VALUE(p.name) AS first_name, STDDEV_POP(i.stock) AS deviation
        FROM orders AS o LEFT JOIN items AS p ON p.id = o.other LEFT JOIN items AS i ON i.id = item
        WHERE p.cost IS NULL OR p.cost < 500
        GROUP BY i.price, i.id, p.made;";

/// Versions of thirteen items; every seventh change deletes one.
fn items() -> String {
    let item = |n: i64| match n % 7 {
        6 => format!("{{\"id\":{},\"_deleted\":true}}\n", n % 13),
        _ => {
            let hour = n * 5 % 24;
            let item = json!({
                "id": n % 13, "name": format!("item '{}'\u{1F600}", n % 5), "label": (["", "a", "\u{0}b"][n as usize % 3]),
                "price": ([Some(-0.0), Some(0.0), Some(1e300), None][n as usize % 4]), "cost": format!("{}.05", n * 9),
                "made": format!("20{:02}-03-01", n % 50), "sold": n % 3 == 0, "seen": format!("1969-12-31T{hour:02}:00:00.000001Z"),
                "stock": n * 1_000_003, "part": ([Some(n % 17), None][n as usize % 2]),
                "at": format!("2024-03-{:02}T{hour:02}:00:00Z", 1 + n % 3),
            });
            format!("{item}\n")
        }
    };
    (0..120).map(item).collect()
}

fn orders(numbers: Range<i64>, amount: i64) -> String {
    let order = |n: i64| {
        let item = if n % 11 == 0 { Value::Null } else { json!([n % 15, 1 << 40][usize::from(n % 19 == 0)]) };
        let at = format!("2024-03-{:02}T{:02}:00:00Z", 1 + n % 3, n * 7 % 24);
        json!({"order_id": format!("o{n}"), "item": item, "other": n % 14, "amount": amount, "at": at}).to_string()
            + "\n"
    };
    numbers.map(order).collect()
}

#[test]
fn joined_columns_of_every_type_and_copies_of_events_are_those_of_polars() {
    let Some(spark) = shared() else { return };
    let mut world = World::stopped(SHOP);
    world.set_settings(&format!("[batch]\nengine = \"spark\"\n{}", spark.settings()));
    world.start();
    let send = |world: &World, stream: &str, lines: String| {
        let answer = world.post(&format!("/v1/events/{stream}"), lines).json();
        assert_eq!(answer["rejected"], json!(0), "{answer}");
    };
    send(&world, "items", items());
    send(&world, "orders", orders(0..200, 1));
    // Half of them are there already.
    let file = world.data.path().join("history.ndjson");
    std::fs::write(&file, orders(100..300, 10)).expect("written");
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
    let mut on_spark = Vec::new();
    for view in ["spells", "prices"] {
        let run = world.run(view, false);
        assert_eq!((&run["state"], &run["engine"]), (&json!("published"), &json!("spark")), "{run}");
        on_spark.push(world.rows(view, "&layer=batch")["rows"].clone());
    }
    let all = |rows: &Value, name: &str| {
        rows.as_array().expect("rows").iter().filter_map(|row| row[name].as_i64()).sum::<i64>()
    };
    assert!(
        (1..300).contains(&all(&on_spark[0], "n")) && all(&on_spark[0], "sold") > 0,
        "some items are not there: {}",
        on_spark[0]
    );
    assert!(all(&on_spark[1], "n") > 100, "{}", on_spark[1]);
    assert_eq!(world.stop(), Some(0));
    world.set_settings("[batch]\nengine = \"polars\"\n");
    world.start();
    for (view, on_spark) in ["spells", "prices"].iter().zip(on_spark) {
        let run = world.run(view, true);
        assert_eq!((&run["state"], &run["engine"]), (&json!("published"), &json!("polars")), "{run}");
        assert_eq!(world.rows(view, "&layer=batch")["rows"], on_spark, "{view}");
    }
}
