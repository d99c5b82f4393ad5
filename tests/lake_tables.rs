//! Tests that the tables of the lake hold exactly what the server returns: deltalake, Polars and DuckDB for Python read
//! the data folder of a real server after random runs; see `tests/python/tables.py`. Tests that the history of
//! comparisons is complete after a kill.

use std::process::Command;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::{Value, json};
use world::{World, program};

const DEFINITIONS: &str = "
    CREATE STREAM sales (id STRING, at TIMESTAMP, shop STRING, paid BOOLEAN, units BIGINT, weight DOUBLE, price DECIMAL(12, 2))
    WITH (event_time = 'at', watermark_delay = '1 hour', allowed_lateness = '1 hour');
    CREATE VIEW revenue WITH (max_drift = 0.000001) AS
    SELECT window_start, window_end, shop, paid, COUNT(*) AS sales, SUM(price) AS amount, MAX(weight) AS heaviest,
           AVG(units) AS units, MIN(id) AS first_id, COUNT(DISTINCT units) AS different
    FROM sales GROUP BY TUMBLE(at, INTERVAL '6' HOUR), shop, paid;";
const SHOPS: [&str; 6] = ["Zürich", "日本", "a,\"b\"", " ", "", "x=y/z%41"];

fn events(random: &mut StdRng, count: usize, first: usize) -> String {
    let mut text = String::new();
    for i in first..first + count {
        let or_null = |value: Value, null: bool| if null { Value::Null } else { value };
        let shop = or_null(json!(SHOPS[random.random_range(0..SHOPS.len())]), random.random_bool(0.1));
        let event = json!({
            "id": format!("s{i}"),
            "at": 978_307_200_000i64 + random.random_range(0..10 * 86_400_000i64),
            "shop": shop,
            "paid": or_null(json!(random.random_bool(0.5)), random.random_bool(0.2)),
            "units": or_null(json!(random.random_range(-9..9i64)), random.random_bool(0.1)),
            "weight": or_null(json!(random.random_range(0..4000) as f64 / 8.0), random.random_bool(0.1)),
            "price": or_null(json!(format!("{}.{:02}", random.random_range(0..9_999_999), random.random_range(0..100))), random.random_bool(0.1)),
        });
        text += &(event.to_string() + "\n");
    }
    text
}

fn parquet_of_batch(world: &World, name: &str) -> std::path::PathBuf {
    let file = world.data.path().join(name);
    std::fs::write(&file, world.get_bytes("/v1/views/revenue/rows.parquet?layer=batch&limit=1000000"))
        .expect("the rows can be written");
    file
}

#[test]
fn python_finds_exactly_the_published_rows() {
    let Some(python) = program::python() else { return };
    let seed = rand::rng().random();
    println!("seed {seed}");
    let mut random = StdRng::seed_from_u64(seed);
    let world = World::new(DEFINITIONS);
    let mut sent = String::new();
    let mut count = 0;
    let mut old = None;
    for round in 0..4 {
        let more = random.random_range(50..400);
        let text = events(&mut random, more, count);
        count += more;
        sent += &text;
        assert_eq!(world.post("/v1/events/sales", text).status, 200);
        let run = world.run("revenue", random.random_bool(0.3));
        assert_eq!(run["state"], json!("published"), "{run}");
        if round == 1 {
            old = Some((run["version"].clone(), parquet_of_batch(&world, "old.parquet")));
        }
    }
    let (old_version, old_rows) = old.expect("the second round");
    let rows = parquet_of_batch(&world, "rows.parquet");
    let file = world.data.path().join("sent.ndjson");
    std::fs::write(&file, &sent).expect("the events can be written");
    let output = Command::new(python)
        .current_dir(world.data.path())
        .arg(world::root().join("tests/python/tables.py"))
        .arg(world.store().join("lake"))
        .args(["sales"])
        .arg(&file)
        .args(["revenue"])
        .arg(&rows)
        .arg(old_version.to_string())
        .arg(&old_rows)
        .output()
        .expect("Python starts");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(output.status.success(), "{}{}", text(&output.stdout), text(&output.stderr));
    println!("{}", text(&output.stdout));
}

/// The history of a view, newest first.
fn history(world: &World) -> Vec<Value> {
    let answer = world.get("/v1/views/revenue/drift").json();
    answer["reconciliations"].as_array().expect("a list").clone()
}

fn adds_up(comparison: &Value) -> bool {
    let causes: u64 = comparison["causes"].as_object().expect("causes").values().filter_map(Value::as_u64).sum();
    let listed = comparison["rows"].as_array().map_or(0, Vec::len) as u64;
    causes == listed + comparison["rows_omitted"].as_u64().unwrap_or(0)
}

#[test]
fn every_version_has_its_reconciliation_after_a_kill() {
    let mut random = StdRng::seed_from_u64(3);
    let mut world = World::new(DEFINITIONS);
    let mut count = 0;
    let mut expected = Vec::new();
    for step in ["", "publish", "retire", "", "commit"] {
        if world.is_running() {
            world.kill();
        }
        world.set_environment(&[("TRUEUP_FAIL_AT", step)]);
        world.start();
        let text = events(&mut random, 100, count);
        count += 100;
        assert_eq!(world.post("/v1/events/sales", text).status, 200);
        if step.is_empty() {
            let run = world.run("revenue", false);
            assert_eq!(run["state"], json!("published"), "{run}");
            let version = run["version"].as_i64().expect("a version");
            expected.extend((expected.last().copied().unwrap_or(0) + 1)..=version);
            continue;
        }
        let _ = world.try_post("/v1/views/revenue/runs", b"{}".to_vec(), &[("content-type", "application/json")]);
        world.wait_for_exit();
    }
    world.set_environment(&[]);
    world.start();
    world.wait_for("the history to be whole", |world| {
        let newest = world.get("/v1/views/revenue").json()["seam"]["version"].as_i64().expect("a version");
        let found: Vec<i64> = history(world).iter().rev().filter_map(|r| r["version"].as_i64()).collect();
        found == (1..=newest).collect::<Vec<_>>()
    });
    for summary in history(&world) {
        let version = summary["version"].as_i64().expect("a version");
        let whole = world.get(&format!("/v1/views/revenue/compare?version={version}")).json();
        assert!(adds_up(&whole), "{whole}");
        assert_eq!(whole["causes"], summary["causes"], "version {version}");
    }
    assert!(expected.len() >= 2);
}

#[test]
fn drift_beyond_the_limit_raises_an_alarm_and_the_server_stays_ready() {
    let world = World::new(DEFINITIONS);
    let event =
        |id: &str, at: &str| format!(r#"{{"id":"{id}","at":"{at}","shop":"a","units":1,"weight":1.5,"price":"2.50"}}"#);
    let day = |day: u32| format!("2001-01-{day:02}T12:00:00Z");
    assert_eq!(world.post("/v1/events/sales", event("a", &day(1))).status, 200);
    assert_eq!(world.run("revenue", false)["state"], json!("published"));
    let view = || world.get("/v1/views/revenue").json();
    assert_eq!((&view()["alarm"], &view()["max_drift"]), (&Value::Null, &json!(0.000001)));
    // Ten days later the first day is long over: speed excludes the late event, batch includes it.
    for (id, at) in [("b", day(11)), ("c", day(1))] {
        assert_eq!(world.post("/v1/events/sales", event(id, &at)).status, 200);
    }
    assert_eq!(world.run("revenue", false)["state"], json!("published"));
    let alarm = view()["alarm"].as_str().expect("an alarm").to_owned();
    assert!(alarm.starts_with("version 2: ") && alarm.contains("had been off by"), "{alarm}");
    let metrics = world.get("/metrics").text;
    assert!(metrics.contains("trueup_view_drift_alarm{view=\"revenue\"} 1"), "{metrics}");
    assert!(metrics.contains("trueup_view_drift_ratio{view=\"revenue\",measure=\"sales\"} 0."), "{metrics}");
    assert_eq!(world.get("/readyz").status, 200, "an alarm is no reason to take the server out of service");
    let wrong = world.get("/v1/views/revenue/drift?measure=sale");
    assert_eq!(wrong.status, 400);
    assert!(wrong.text.contains("sales"), "{}", wrong.text);
}
