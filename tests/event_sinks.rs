//! Tests sinks of streams through the program, with a webhook as the receiver: each event that passes arrives in the order of the
//! log, whatever the receiver refuses, however often the server is killed, and also if the log no longer has it.

use std::collections::{BTreeMap, BTreeSet};

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::{Value, json};
use world::webhook_receiver::WebhookReceiver;
use world::{World, program};

const DEFINITIONS: &str = "
    CREATE STREAM orders (id STRING PRIMARY KEY, at TIMESTAMP, country STRING, amount BIGINT)
        WITH (event_time = 'at', partitions = 2, watermark_delay = '0 seconds');
    CREATE VIEW totals AS SELECT country, COUNT(*) AS n FROM orders GROUP BY country;
    CREATE SINK large AS
        SELECT id, UPPER(country) AS place, amount * 2 AS twice FROM orders WHERE amount >= 50 OR country = 'no'
        WITH (to = 'webhook:ops', every = '20 milliseconds');";

/// Small segments, so that runs trim the log.
const LIMITS: &str = "[limits]\ndedup_horizon_events = 100\nlog_segment_bytes = 4096\narchive_wait_ms = 20\n";

fn world(receiver: &WebhookReceiver) -> World {
    let mut world = World::stopped(DEFINITIONS);
    let url = format!("http://127.0.0.1:{}/", receiver.port);
    world.set_settings(&format!("{LIMITS}[connections.ops]\nkind = \"webhook\"\nurl = \"{url}\"\n"));
    world.start();
    world
}

/// An order, and what a sink sends of it.
fn order(number: usize, country: &str, amount: i64) -> (String, Option<Value>) {
    let (id, at) = (format!("o-{number}"), format!("2026-01-05T10:{:02}:00Z", number / 60 % 60));
    let line = json!({"id": id, "at": at, "country": country, "amount": amount}).to_string();
    let value = json!({"id": id, "place": country.to_uppercase(), "twice": amount * 2});
    (line, (amount >= 50 || country == "no").then_some(value))
}

/// The events that a sink has sent, in order, with repetitions.
fn events(receiver: &WebhookReceiver, sink: &str) -> Vec<Value> {
    let bodies =
        receiver.received().into_iter().map(|request| serde_json::from_str::<Value>(&request.body).expect("JSON"));
    let of_sink = bodies.filter(|body| body["data"]["sink"] == json!(sink));
    let check =
        |body: &Value| assert_eq!((&body["type"], &body["data"]["stream"]), (&json!("sink.events"), &json!("orders")));
    of_sink.inspect(check).flat_map(|body| body["data"]["events"].as_array().expect("events").clone()).collect()
}

/// What a receiver has that stores events by their position: it may get some again, but only the same, and new ones in order.
fn stored(events: &[Value]) -> BTreeMap<(u64, u64), Value> {
    let mut stored: BTreeMap<(u64, u64), Value> = BTreeMap::new();
    let mut last: BTreeMap<u64, u64> = BTreeMap::new();
    for event in events {
        let part = |name: &str| event[name].as_u64().expect("a number");
        let place = (part("partition"), part("offset"));
        assert_eq!(event["key"], json!({"id": event["value"]["id"]}));
        match stored.insert(place, event["value"].clone()) {
            Some(before) => assert_eq!(before, event["value"], "{place:?}"),
            None => {
                assert!(last.insert(place.0, place.1).is_none_or(|last| last < place.1), "{place:?} is out of order")
            }
        }
    }
    stored
}

/// The values by id, each of which has one position.
fn by_id(stored: &BTreeMap<(u64, u64), Value>) -> BTreeMap<String, Value> {
    let mut values = BTreeMap::new();
    for value in stored.values() {
        let before = values.insert(value["id"].as_str().expect("an id").to_owned(), value.clone());
        assert_eq!(before, None, "an event has one position");
    }
    values
}

fn sink(world: &World, name: &str) -> Value {
    world.get(&format!("/v1/sinks/{name}")).json()
}

fn wait_until_sent(world: &World, name: &str) {
    world.wait_for("the events", |world| {
        let sink = sink(world, name);
        sink["state"] == json!("running") && sink["lag"] == json!(0)
    });
}

/// The oldest offsets of the log.
fn log_starts(world: &World) -> Vec<u64> {
    let streams = world.get("/v1/streams").json();
    let partitions = streams["streams"][0]["partitions"].as_array().expect("partitions").clone();
    partitions.iter().map(|partition| partition["log_start"].as_u64().expect("an offset")).collect()
}

/// Sends orders until a run has trimmed the log of both partitions. Returns what a sink sends of them.
fn trimmed(world: &World, from: usize) -> BTreeMap<String, Value> {
    let mut expected = BTreeMap::new();
    let mut number = from;
    loop {
        let orders: Vec<_> =
            (number..number + 500).map(|n| order(n, ["at", "no", "de"][n % 3], (n % 100) as i64)).collect();
        number += 500;
        let body: Vec<&str> = orders.iter().map(|(line, _)| line.as_str()).collect();
        assert_eq!(world.post("/v1/events/orders", body.join("\n")).status, 200);
        expected.extend(orders.into_iter().filter_map(|(_, value)| {
            let value = value?;
            Some((value["id"].as_str().expect("an id").to_owned(), value))
        }));
        assert_eq!(world.run("totals", false)["state"], json!("published"));
        if log_starts(world).iter().all(|start| *start > 200) {
            return expected;
        }
        assert!(number < from + 50_000, "the log is never trimmed");
    }
}

#[test]
fn every_event_that_passes_arrives_in_order_through_refusals_duplicates_and_kills() {
    let seed = std::env::var("TRUEUP_SEED").ok().and_then(|s| s.parse().ok()).unwrap_or_else(rand::random);
    println!("TRUEUP_SEED={seed}");
    let mut random = StdRng::seed_from_u64(seed);
    let receiver = WebhookReceiver::refusing(|number| number % 4 == 1);
    let mut world = world(&receiver);
    let mut expected: BTreeMap<String, Value> = BTreeMap::new();
    let mut lines: Vec<String> = Vec::new();
    for number in 0..300 {
        let (line, value) = order(number, ["at", "no", "de"][random.random_range(0..3)], random.random_range(0..100));
        expected.extend(value.map(|value| (format!("o-{number}"), value)));
        // An event that was sent before is a duplicate, within the horizon.
        let again = lines.iter().rev().take(20).nth(random.random_range(0..20)).cloned();
        let body = [Some(line.clone()), again.filter(|_| random.random_bool(0.3))].into_iter().flatten();
        assert_eq!(world.post("/v1/events/orders", body.collect::<Vec<_>>().join("\n")).status, 200);
        lines.push(line);
        if random.random_bool(0.02) {
            world.kill();
            world.start();
        }
    }
    wait_until_sent(&world, "large");
    assert_eq!(by_id(&stored(&events(&receiver, "large"))), expected);
    let status = sink(&world, "large");
    let about = (&status["view"], &status["stream"], &status["emit"], &status["key"]);
    assert_eq!(about, (&Value::Null, &json!("orders"), &Value::Null, &json!(["id"])));
    // A restart sends nothing again once the position is durable, also that of events that do not pass.
    let (line, _) = order(1_000, "at", 1);
    assert_eq!(world.post("/v1/events/orders", line).status, 200);
    wait_until_sent(&world, "large");
    let before = events(&receiver, "large").len();
    assert_eq!(world.stop(), Some(0));
    world.start();
    wait_until_sent(&world, "large");
    assert_eq!(events(&receiver, "large").len(), before);
}

#[test]
fn events_that_the_log_no_longer_has_are_read_from_the_archive() {
    let receiver = WebhookReceiver::start(0);
    let mut world = world(&receiver);
    let command = |world: &World, arguments: &[&str]| {
        let output = world.trueup().args(arguments).env("TRUEUP_URL", world.url()).output().expect("trueup runs");
        assert!(output.status.success(), "{}", program::text(&output));
        program::text(&output)
    };
    wait_until_sent(&world, "large");
    command(&world, &["sinks", "pause", "large"]);
    let expected = trimmed(&world, 0);
    // Nothing waits for a sink that is paused: neither clients nor the log.
    let paused = sink(&world, "large");
    assert_eq!((&paused["state"], &paused["position"]), (&json!("paused"), &json!({})), "{paused}");
    assert!(paused["lag"].as_u64() > Some(400) && events(&receiver, "large").is_empty(), "{paused}");
    world.kill();
    let second = "CREATE SINK copy AS SELECT id, UPPER(country) AS place, amount * 2 AS twice FROM orders
        WITH (to = 'webhook:ops', every = '20 milliseconds');";
    world.redefine(&format!("{DEFINITIONS}{second}"));
    world.start();
    command(&world, &["sinks", "resume", "large"]);
    wait_until_sent(&world, "large");
    assert_eq!(by_id(&stored(&events(&receiver, "large"))), expected);
    // A sink that is declared later has all events as well.
    wait_until_sent(&world, "copy");
    let copied = by_id(&stored(&events(&receiver, "copy")));
    let figures = world.rows("totals", "")["rows"].as_array().expect("rows").clone();
    let all: u64 = figures.iter().map(|row| row["n"].as_u64().expect("a count")).sum();
    assert_eq!(copied.len() as u64, all);
    let listed = command(&world, &["sinks"]);
    assert!(listed.contains("orders") && listed.contains("events") && listed.contains("webhook:ops"), "{listed}");
}

#[test]
fn events_are_sent_again_on_request() {
    let receiver = WebhookReceiver::start(0);
    let world = world(&receiver);
    let orders: Vec<String> = (0..240).map(|number| order(number, "no", number as i64).0).collect();
    assert_eq!(world.post("/v1/events/orders", orders.join("\n")).status, 200);
    wait_until_sent(&world, "large");
    let ids = |events: &[Value]| -> BTreeSet<String> {
        events.iter().map(|event| event["value"]["id"].to_string()).collect()
    };
    assert_eq!((events(&receiver, "large").len(), ids(&events(&receiver, "large")).len()), (240, 240));
    let resume = |from: &str| {
        let records = |world: &World| sink(world, "large")["records"].as_u64().expect("a number");
        let before = events(&receiver, "large").len();
        let sent = records(&world);
        let answer = world.post("/v1/sinks/large/resume", json!({"from": from}).to_string());
        assert_eq!(answer.status, 200, "{}", answer.text);
        world.wait_for("the events again", |world| records(world) > sent && sink(world, "large")["lag"] == json!(0));
        events(&receiver, "large")[before..].to_vec()
    };
    // By the time of the event: the orders of two of the four minutes.
    let again = resume("2026-01-05T10:02:00Z");
    let expected: BTreeSet<String> = (120..240).map(|number| json!(format!("o-{number}")).to_string()).collect();
    assert_eq!((again.len(), ids(&again)), (120, expected));
    assert_eq!(resume("start").len(), 240);
}

#[test]
fn check_and_plan_explain_sinks_of_streams() {
    let receiver = WebhookReceiver::start(0);
    let mut world = world(&receiver);
    assert_eq!(world.post("/v1/events/orders", order(1, "no", 1).0).status, 200);
    wait_until_sent(&world, "large");
    assert_eq!(world.stop(), Some(0));
    let run = |world: &World, arguments: &[&str]| {
        let output = world.trueup().args(arguments).output().expect("trueup runs");
        program::text(&output)
    };
    let file = world.definitions().display().to_string();
    let checked = run(&world, &["check", &file]);
    for line in ["sink large from stream orders", "filter           amount >= 50 OR country = 'no'", "1 sink"] {
        assert!(checked.contains(line), "{checked}");
    }
    let plan = |world: &World| {
        let data = world.store().display().to_string();
        run(world, &["plan", &file, "--data", &data])
    };
    assert!(plan(&world).contains("sink large: unchanged (epoch "), "{}", plan(&world));
    world.redefine(&DEFINITIONS.replace("amount >= 50", "amount >= 60"));
    let changed = plan(&world);
    for line in ["only options change; it continues", "where", "holds for the events after its position"] {
        assert!(changed.contains(line), "{changed}");
    }
    world.redefine(&DEFINITIONS.replace("every =", "key = 'place', every ="));
    let changed = plan(&world);
    assert!(changed.contains("stops") && changed.contains("with another key"), "{changed}");
}
