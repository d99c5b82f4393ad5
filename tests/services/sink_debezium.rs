//! Sinks that write envelopes of Debezium against a real Kafka: a table that reads the topic has the rows of the view, over kills.

use std::collections::BTreeMap;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::{Value, json};
use world::World;

use crate::broker::shared;
use crate::sink_kills::seed;
use crate::sinks::{sink, written};
use crate::topic::{ReadRecord, Topic, read_all};

fn definitions(output: &Topic) -> String {
    format!(
        "CREATE STREAM s (id BIGINT PRIMARY KEY, at TIMESTAMP, k STRING, v BIGINT) WITH (event_time = 'at', partitions = 2);
         CREATE VIEW sums AS SELECT k, COUNT(*) AS n, SUM(v) AS total, MAX(at) AS latest FROM s
             GROUP BY k HAVING SUM(v) > 0;
         CREATE SINK out FROM sums
             WITH (connection = 'main', topic = '{}', format = 'debezium-json', every = '20 milliseconds');",
        output.name
    )
}

/// Reads the topic back as a table.
fn reader(output: &Topic) -> World {
    output.world(&format!(
        "CREATE TABLE copy (k STRING PRIMARY KEY, n BIGINT, total BIGINT, latest TIMESTAMP)
             WITH (event_time = 'latest', format = 'debezium-json', {});
         CREATE VIEW all_rows AS SELECT k, SUM(n) AS n, SUM(total) AS total FROM copy GROUP BY k;",
        output.options()
    ))
}

/// The rows of a view: count and total by key.
fn rows(world: &World, view: &str) -> BTreeMap<String, (Value, Value)> {
    let rows = world.rows(view, "")["rows"].as_array().expect("rows").clone();
    rows.into_iter().map(|row| (row["k"].to_string(), (row["n"].clone(), row["total"].clone()))).collect()
}

/// Each envelope continues what the topic had of its key, and a tombstone follows each deletion.
fn assert_envelopes(records: &[ReadRecord]) {
    let mut rows: BTreeMap<String, Value> = BTreeMap::new();
    let mut deleted: BTreeMap<String, bool> = BTreeMap::new();
    for record in records {
        let was_deleted = deleted.insert(record.key.clone(), false) == Some(true);
        let Some(envelope) = &record.value else {
            assert!(was_deleted, "{record:?} follows no deletion");
            continue;
        };
        assert!(!was_deleted, "{record:?} comes before the tombstone");
        let (key, after): (Value, &Value) = (serde_json::from_str(&record.key).expect("JSON"), &envelope["after"]);
        let before = match envelope["op"].as_str() {
            Some("c") => rows.insert(record.key.clone(), after.clone()).map_or(Value::Null, |_| json!("a row")),
            Some("u") => {
                let before = rows.insert(record.key.clone(), after.clone());
                assert!(before.is_some_and(|before| before != *after), "{record:?}");
                Value::Null
            }
            Some("r") => {
                assert_eq!(rows.get(&record.key), Some(after), "{record:?}");
                Value::Null
            }
            Some("d") => {
                assert!(rows.remove(&record.key).is_some() && after.is_null(), "{record:?}");
                deleted.insert(record.key.clone(), true);
                key.clone()
            }
            other => panic!("{other:?}: {record:?}"),
        };
        assert_eq!(envelope["before"], before, "{record:?}");
        assert!(after.is_null() || after["k"] == key["k"], "{record:?}");
        let source = &envelope["source"];
        assert_eq!(
            (&source["connector"], &source["name"], &source["table"]),
            (&json!("trueup"), &json!("out"), &json!("sums"))
        );
        assert!(
            envelope["ts_ms"].as_i64() > Some(1_700_000_000_000) && envelope["ts_ms"] == source["ts_ms"],
            "{record:?}"
        );
    }
}

#[test]
fn a_table_that_reads_the_envelopes_has_the_rows_of_the_view() {
    let Some(broker) = shared() else { return };
    let output = Topic::create(broker, 2);
    let reader = reader(&output);
    let mut world = output.world(&definitions(&output));
    let mut dice = StdRng::seed_from_u64(seed() + 40);
    let mut number = 0;
    for round in 0..8 {
        for _ in 0..5 {
            let lines = (0..dice.random_range(1..20)).map(|_| {
                number += 1;
                let at = format!("2026-11-01T00:{:02}:00Z", number / 20 % 60);
                json!({"id": number, "at": at, "k": format!("k{}", dice.random_range(0..9)), "v": dice.random_range(-9..10)}).to_string()
            });
            let body: Vec<String> = lines.collect();
            assert_eq!(world.post("/v1/events/s", body.join("\n")).status, 200);
            std::thread::sleep(Duration::from_millis(dice.random_range(0..60)));
        }
        match round {
            2 | 5 => {
                world.kill();
                world.start();
            }
            4 => assert_eq!(world.run("sums", false)["state"], "published"),
            _ => {}
        }
    }
    written(&world, "out");
    let records = output.read();
    assert_envelopes(&records);
    let has = |op: &str| records.iter().any(|record| record.value.as_ref().is_some_and(|value| value["op"] == op));
    assert!(has("c") && has("u") && has("d") && !has("r"), "seed {}", seed());
    let read = || {
        read_all(&reader, "copy", &output);
        reader.wait_for("the rows of the view", |reader| rows(reader, "all_rows") == rows(&world, "sums"));
    };
    read();
    assert_eq!(reader.run("all_rows", true)["state"], "published");
    read();
    // All rows again: the table does not change.
    let before = sink(&world, "out")["records"].as_u64();
    assert_eq!(world.post("/v1/sinks/out/resume", "{\"from\": \"start\"}").status, 200);
    world.wait_for("the rows again", |world| sink(world, "out")["records"].as_u64() > before);
    written(&world, "out");
    let all = output.read();
    assert_envelopes(&all);
    let again = all[..].iter().filter(|record| record.value.as_ref().is_some_and(|value| value["op"] == "r")).count();
    assert_eq!(again, rows(&world, "sums").len());
    read();
}
