//! Sinks against a real Kafka: the topic is the view, record by record, also after batch runs, pauses and fencing.

use std::collections::BTreeMap;

use krafka::Record;
use serde_json::{Value, json};
use world::{World, program};

use crate::broker::{Broker, shared};
use crate::topic::{ReadRecord, Topic};

/// Orders over HTTP, and their number and total by five minutes and status.
pub fn definitions(output: &Topic, options: &str) -> String {
    format!(
        "CREATE STREAM orders (id STRING PRIMARY KEY, at TIMESTAMP, status STRING, amount BIGINT)
             WITH (event_time = 'at', partitions = 2, watermark_delay = '1 minute', allowed_lateness = '1 minute');
         CREATE VIEW totals AS
             SELECT window_start, status, COUNT(*) AS n, SUM(amount) AS total, COUNT(DISTINCT amount) AS amounts FROM orders
             GROUP BY TUMBLE(at, INTERVAL '5' MINUTE), status HAVING COUNT(*) > 1;
         CREATE SINK out FROM VIEW totals WITH (connection = 'main', topic = '{}', every = '50 milliseconds'{options});",
        output.name
    )
}

pub fn sink(world: &World, name: &str) -> Value {
    world.get(&format!("/v1/sinks/{name}")).json()
}

/// Waits until everything that the log has is in the topic.
pub fn written(world: &World, name: &str) {
    world.wait_for("the sink", |world| {
        let Some(answer) = world.try_get(&format!("/v1/sinks/{name}")) else { return false };
        let sink = answer.json();
        let view = world.get(&format!("/v1/views/{}", sink["view"].as_str().unwrap_or_default())).json();
        sink["state"] == "running" && sink["lag"] == 0 && sink["version"] == view["seam"]["version"]
    });
}

/// The rows of the view as the topic should have them, by the key of their record.
fn rows(world: &World) -> BTreeMap<String, Value> {
    let rows = world.rows("totals", "")["rows"].as_array().expect("rows").clone();
    let of_row = |row: Value| {
        let part = |name: &str| row[name].clone();
        let key = format!("{{\"window_start\":{},\"status\":{}}}", part("window_start"), part("status"));
        let names = ["window_start", "window_end", "status", "n", "total", "amounts"];
        let value: serde_json::Map<String, Value> = names.iter().map(|name| ((*name).to_owned(), part(name))).collect();
        (key, Value::Object(value))
    };
    rows.into_iter().map(of_row).collect()
}

fn order(id: usize, minute: usize, status: &str, amount: usize) -> String {
    format!(
        "{{\"id\":\"o{id}\",\"at\":\"2026-11-01T{:02}:{:02}:00Z\",\"status\":\"{status}\",\"amount\":{amount}}}\n",
        minute / 60,
        minute % 60
    )
}

/// Every record changes the value of its key.
pub fn assert_changes(records: &[ReadRecord]) {
    let mut last: BTreeMap<&str, Option<&Value>> = BTreeMap::new();
    for record in records {
        let before = last.insert(&record.key, record.value.as_ref());
        assert_ne!(before.flatten(), record.value.as_ref(), "{record:?} is there twice");
        let kind = if record.value.is_some() { "upsert" } else { "delete" };
        assert_eq!(record.headers["_kind"], kind, "{record:?}");
    }
}

#[test]
fn the_topic_is_the_view_and_batch_runs_correct_it() {
    let Some(broker) = shared() else { return };
    let output = Topic::create(broker, 3);
    let mut world = output.world(&definitions(&output, ""));
    let body: String = (0..600).map(|id| order(id, id / 4, ["new", "done"][id % 2], id)).collect();
    for part in body.split_inclusive('\n').collect::<Vec<_>>().chunks(97) {
        assert_eq!(world.post("/v1/events/orders", part.concat()).status, 200);
    }
    written(&world, "out");
    assert_eq!(output.table(), rows(&world));
    assert_changes(&output.read());
    let first = output.read()[0].clone();
    assert_eq!((first.headers["_layer"].as_str(), first.headers.get("_version")), ("speed", None), "{first:?}");

    // A late event is in no live figure; the run includes it, and only its row changes.
    assert_eq!(world.post("/v1/events/orders", order(1000, 3, "new", 7)).status, 200);
    written(&world, "out");
    let before = output.read().len();
    assert_eq!(world.run("totals", false)["state"], "published");
    written(&world, "out");
    let records = output.read();
    assert_eq!(records.len(), before + 1, "{:?}", &records[before..]);
    let corrected = records.iter().find(|record| record.headers.contains_key("_version")).expect("a corrected row");
    assert_eq!(corrected.headers["_layer"], "batch", "{corrected:?}");
    assert_eq!(corrected.value.as_ref().map(|value| &value["n"]), Some(&json!(11)), "{corrected:?}");
    assert_eq!(output.table(), rows(&world));
    assert_changes(&records);

    // A restart writes nothing again; nor does the next run, which changes nothing.
    assert_eq!(world.stop(), Some(0));
    world.start();
    written(&world, "out");
    assert_eq!(world.run("totals", true)["state"], "published");
    written(&world, "out");
    assert_eq!(output.read().len(), records.len());
    let status = sink(&world, "out");
    assert!(status["epoch"].as_u64() > Some(0) && status["rows"] == json!(rows(&world).len()), "{status}");
    let metrics = world.get("/metrics").text;
    for name in ["trueup_sink_running{sink=\"out\"} 1", "trueup_sink_lag_events{sink=\"out\"} 0"] {
        assert!(metrics.contains(name), "{name}");
    }
}

#[test]
fn a_paused_sink_stays_paused_and_rows_are_written_again_on_request() {
    let Some(broker) = shared() else { return };
    let output = Topic::create(broker, 1);
    let mut world = output.world(&definitions(&output, ""));
    let two = |id: usize, minute: usize| order(id, minute, "new", id) + &order(id + 1, minute, "new", id);
    world.post("/v1/events/orders", two(0, 0) + &two(10, 10));
    written(&world, "out");
    let command = |world: &World, arguments: &[&str]| {
        let output = world.trueup().args(arguments).env("TRUEUP_URL", world.url()).output().expect("trueup runs");
        (output.status.code(), program::text(&output))
    };
    let (code, text) = command(&world, &["sinks", "pause", "out"]);
    assert!(code == Some(0) && text.contains("sink out is paused after epoch"), "{text}");
    world.post("/v1/events/orders", two(20, 20));
    assert_eq!(world.stop(), Some(0));
    world.start();
    world.wait_for("the pause", |world| sink(world, "out")["state"] == "paused" && sink(world, "out")["lag"] != 0);
    let before = output.read();
    assert_eq!(before.len(), 2, "{before:?}");
    let (code, text) = command(&world, &["sinks", "resume", "out", "--from", "2026-11-01T00:10:00Z"]);
    assert!(code == Some(0) && text.contains("writes rows again from 2026-11-01T00:10:00Z on"), "{text}");
    world.wait_for("the records", |world| sink(world, "out")["records"].as_u64() >= Some(2));
    written(&world, "out");
    let records = output.read();
    assert_eq!(records.len(), 4, "{records:?} {}", sink(&world, "out"));
    let again = &output.read()[2..];
    assert!(again.iter().all(|record| record.key != before[0].key), "{again:?}");
    assert_eq!(output.table(), rows(&world));
    let (code, text) = command(&world, &["sinks"]);
    assert!(code == Some(0) && text.contains("running") && text.contains(&output.name), "{text}");
    let (code, text) = command(&world, &["sinks", "pause", "oat"]);
    assert!(code != Some(0) && text.contains("did you mean") && text.contains("out"), "{text}");
}

#[test]
fn an_epoch_behind_the_transaction_of_another_sink_is_not_written_again() {
    let Some(broker) = shared() else { return };
    let output = Topic::create(broker, 1);
    let mut world = output.world(&definitions(&output, ""));
    let two = |id: usize, minute: usize| order(id, minute, "new", id) + &order(id + 1, minute, "new", id);
    world.post("/v1/events/orders", two(0, 0));
    written(&world, "out");
    let other = Record::new("trueup-sink-epochs", "{}").key(output.name.clone());
    let records = output.while_in_transaction(&format!("{}-other", output.name), other, || {
        world.post("/v1/events/orders", two(10, 10));
        written(&world, "out");
        assert_eq!(world.stop(), Some(0));
        world.start();
        // The sink waits for the end of the other transaction, which hides the marker of the last epoch.
        world.wait_for("the start of the sink", |world| sink(world, "out")["state"] == "starting");
        world.post("/v1/events/orders", two(20, 20));
        std::thread::sleep(std::time::Duration::from_secs(2));
        output.read().len()
    });
    assert_eq!(records, 2);
    written(&world, "out");
    let records = output.read();
    assert_eq!(records.len(), 3, "{records:?}");
    assert_changes(&records);
    assert_eq!(output.table(), rows(&world));
}

#[test]
fn a_server_with_another_data_folder_writes_the_topic_only_on_request() {
    let Some(broker) = shared() else { return };
    let output = Topic::create(broker, 1);
    let id = format!(", transactional_id = '{}'", output.name);
    let first = output.world(&definitions(&output, &id));
    first.post("/v1/events/orders", order(0, 0, "new", 1) + &order(1, 0, "new", 1));
    written(&first, "out");
    let second = output.world(&definitions(&output, &id));
    second.wait_for("the refusal", |world| sink(world, "out")["state"] == "stopped");
    let error = sink(&second, "out")["error"].as_str().unwrap_or_default().to_owned();
    assert!(error.contains("of another data folder") && error.contains("resume NAME --from start"), "{error}");
    // The first is not fenced.
    first.post("/v1/events/orders", order(2, 0, "new", 1));
    written(&first, "out");
    second.post("/v1/events/orders", order(0, 0, "new", 5) + &order(1, 0, "new", 5));
    assert_eq!(second.post("/v1/sinks/out/resume", "{\"from\":\"start\"}").status, 200);
    written(&second, "out");
    first.post("/v1/events/orders", order(3, 0, "new", 1));
    first.wait_for("the fence", |world| sink(world, "out")["state"] == "stopped");
    let error = sink(&first, "out")["error"].as_str().unwrap_or_default().to_owned();
    assert!(error.contains("another process has taken over"), "{error}");
    assert_eq!(output.table(), rows(&second));
}

#[test]
fn an_epoch_with_many_rows_is_written_in_several_transactions() {
    let Some(broker) = shared() else { return };
    let output = Topic::create(broker, 2);
    let world = output.world(&definitions(&output, ""));
    written(&world, "out");
    assert_eq!(world.post("/v1/sinks/out/pause", "").status, 200);
    // More rows than one epoch has.
    let rows = 101_000;
    for part in 0..10 {
        let ids = (0..rows / 10).map(|at| part * rows / 10 + at);
        let body: String = ids
            .flat_map(|id| [order(2 * id, 0, &format!("s{id}"), 1), order(2 * id + 1, 0, &format!("s{id}"), 2)])
            .collect();
        assert_eq!(world.post("/v1/events/orders", body).status, 200);
    }
    assert_eq!(world.post("/v1/sinks/out/resume", "").status, 200);
    world.wait_for("the first transaction", |world| sink(world, "out")["records"].as_u64() > Some(0));
    written(&world, "out");
    let status = sink(&world, "out");
    assert_eq!(
        (status["rows"].as_u64(), status["records"].as_u64()),
        (Some(rows as u64), Some(rows as u64)),
        "{status}"
    );
    assert!(status["epoch"].as_u64() >= Some(12), "{status}");
    assert_eq!(output.table().len(), rows);
}

#[test]
fn the_keys_of_an_erased_entity_are_deleted_from_the_topic_and_forgotten() {
    let Some(broker) = shared() else { return };
    let output = Topic::create(broker, 1);
    let sql = format!(
        "CREATE STREAM events (id STRING PRIMARY KEY, who STRING, at TIMESTAMP) WITH (event_time = 'at', entity = 'who');
         CREATE VIEW visits AS SELECT who, COUNT(*) AS n FROM events GROUP BY who;
         CREATE SINK out FROM visits WITH (connection = 'main', topic = '{}', every = '50 milliseconds');",
        output.name
    );
    let world = output.world(&sql);
    let event =
        |id: usize, who: &str| format!("{{\"id\":\"e{id}\",\"who\":\"{who}\",\"at\":\"2026-01-05T10:00:00Z\"}}\n");
    assert_eq!(world.post("/v1/events/events", event(1, "alice") + &event(2, "bob")).status, 200);
    written(&world, "out");
    assert_eq!(world.post("/v1/sinks/out/pause", "").status, 200);
    assert_eq!(world.delete("/v1/entities/events/alice").status, 202);
    let waits =
        |world: &World| world.get("/v1/erasures").json()["erasures"][0]["waits_for"].as_str().map(str::to_owned);
    world.wait_for("the sink", |world| waits(world).is_some_and(|waits| waits.contains("trueup sinks resume out")));
    assert_eq!(world.post("/v1/sinks/out/resume", "").status, 200);
    let is_done = |world: &World| waits(world).is_none_or(|waits| waits.contains("vacuum"));
    world.wait_for("the rest", is_done);
    let records = output.read();
    let of_alice: Vec<bool> =
        records.iter().filter(|r| r.key == "{\"who\":\"alice\"}").map(|r| r.value.is_some()).collect();
    assert_eq!((of_alice, output.table().len()), (vec![true, false], 1), "{records:?}");
    let book = std::fs::read_to_string(world.store().join("sinks/out.log")).expect("the book");
    let hex = |who: &str| who.bytes().map(|byte| format!("{byte:02x}")).collect::<String>();
    assert!(book.contains(&hex("bob")) && !book.contains(&hex("alice")), "{book}");
}

#[test]
fn brokers_that_are_away_and_topics_that_do_not_exist_are_reported_and_retried() {
    let Some(mut broker) = Broker::start() else { return };
    let output = Topic::create(&broker, 2);
    let world = output.world(&definitions(&output, ""));
    world.post("/v1/events/orders", order(0, 0, "new", 1) + &order(1, 0, "new", 1));
    written(&world, "out");
    broker.kill();
    world.post("/v1/events/orders", order(2, 0, "new", 1) + &order(3, 7, "new", 1) + &order(4, 7, "new", 1));
    world.wait_for("the error", |world| sink(world, "out")["state"] == "failing");
    assert_eq!(world.get("/readyz").status, 200);
    broker.start_again();
    written(&world, "out");
    assert_eq!(output.table(), rows(&world));
    assert_changes(&output.read());
    let missing = definitions(&output, "").replace(&output.name, "no.such.topic");
    let other = output.world(&missing);
    other.wait_for("the error", |world| {
        sink(world, "out")["error"].as_str().is_some_and(|error| error.contains("have no topic \"no.such.topic\""))
    });
}
