//! Tests that other tools can read a view's table and merge its sketches: deltalake, Polars and Apache DataSketches for
//! Python read the data folder of a real server; see `tests/python/union.py`.

use std::process::Command;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::{Value, json};
use world::{World, program};

const DEFINITIONS: &str = "
    CREATE STREAM events (at TIMESTAMP, grp STRING, s STRING, n BIGINT, x DOUBLE) WITH (event_time = 'at');
    CREATE VIEW sketches AS
    SELECT grp, COUNT(DISTINCT s) AS ds, COUNT(DISTINCT n) AS dn, COUNT(DISTINCT x) AS dx,
           PERCENTILE_DISC(0.9) WITHIN GROUP (ORDER BY n) AS pn, MEDIAN(x) AS px,
           TOP_K(s, 3) AS ts, TOP_K(n, 3) AS tn
    FROM events GROUP BY grp;";

/// Groups of one to thousands of values, and one of NULLs.
const GROUPS: [(&str, usize); 7] =
    [("one", 1), ("few", 9), ("dozens", 70), ("hundreds", 300), ("thousands", 6_000), ("nothing", 5), ("extremes", 3)];

fn events() -> String {
    let mut random = StdRng::seed_from_u64(5);
    let mut text = String::new();
    for (group, count) in GROUPS {
        for i in 0..count {
            let rare = random.random_range(0..10_000i64);
            let value = if i % 4 == 0 { rare % 5 } else { rare };
            let (s, n, x) = match group {
                "nothing" => (Value::Null, Value::Null, Value::Null),
                "extremes" => (json!(["größer", "日本", "a"][i]), json!(i64::MIN + i as i64), json!(-0.0)),
                _ => (json!(format!("text {value}")), json!(value - 5_000), json!(value as f64 / 8.0 - 600.0)),
            };
            let event = json!({"at": 1_000_000_000_000i64 + i as i64, "grp": group, "s": s, "n": n, "x": x});
            text += &(event.to_string() + "\n");
        }
    }
    text
}

#[test]
fn python_reads_and_unions_the_sketches_of_a_view() {
    let Some(python) = program::python() else { return };
    let world = World::new(DEFINITIONS);
    let events = events();
    let file = world.data.path().join("events.ndjson");
    std::fs::write(&file, &events).expect("the events can be written");
    assert_eq!(world.post("/v1/events/events", events).status, 200);
    assert_eq!(world.run("sketches", false)["state"], json!("published"));
    let script = world::root().join("tests/python/union.py");
    let output = Command::new(python)
        .current_dir(world.data.path())
        .arg(script)
        .arg(world.store().join("lake/views/sketches"))
        .arg(&file)
        .output()
        .expect("Python starts");
    let text = program::text(&output);
    assert!(output.status.success(), "{text}");
    println!("{text}");
}
