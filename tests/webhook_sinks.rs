//! Tests sinks that send rows to webhooks, through the program: a receiver that applies the rows in order has the view,
//! whatever it refuses, and however often the server is killed.

use std::collections::{BTreeMap, BTreeSet};

use aws_lc_rs::hmac;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::{Value, json};
use world::webhook_receiver::{Received, WebhookReceiver};
use world::{World, recipes, root};

const DEFINITIONS: &str = "
    CREATE STREAM orders (id STRING PRIMARY KEY, at TIMESTAMP, country STRING, amount BIGINT)
        WITH (event_time = 'at', watermark_delay = '0 seconds');
    CREATE VIEW revenue AS SELECT country, COUNT(*) AS orders, SUM(amount) AS total FROM orders GROUP BY country;
    CREATE VIEW rare AS SELECT country, COUNT(*) AS orders FROM orders GROUP BY country HAVING orders < 3;
    CREATE VIEW hourly AS SELECT window_start, COUNT(*) AS orders FROM orders GROUP BY TUMBLE(at, INTERVAL '1' HOUR);
    CREATE SINK revenue_hook FROM VIEW revenue WITH (to = 'webhook:ops', every = '20 milliseconds');
    CREATE SINK rare_hook FROM VIEW rare WITH (to = 'webhook:ops', every = '20 milliseconds');
    CREATE SINK hourly_hook FROM VIEW hourly WITH (to = 'webhook:ops', every = '20 milliseconds', emit = 'final');";

fn connection(receiver: &WebhookReceiver) -> String {
    let port = receiver.port;
    format!(
        "[connections.ops]\nkind = \"webhook\"\nurl = \"http://127.0.0.1:{port}/rows?token=hidden\"\nsecret = \"a secret\"\n"
    )
}

fn started(receiver: &WebhookReceiver) -> World {
    let mut world = World::stopped(DEFINITIONS);
    world.set_settings(&connection(receiver));
    world.start();
    world
}

fn event(number: usize, at: &str, country: &str, amount: i64) -> String {
    json!({"id": format!("o-{number}"), "at": at, "country": country, "amount": amount}).to_string()
}

/// Returns the rows that a sink has sent, in order.
fn rows(received: &[Received], sink: &str) -> Vec<Value> {
    let bodies = received.iter().map(|request| serde_json::from_str::<Value>(&request.body).expect("JSON"));
    let of_sink = bodies.filter(|body| body["data"]["sink"] == json!(sink));
    of_sink.flat_map(|body| body["data"]["rows"].as_array().expect("rows").clone()).collect()
}

/// Returns what a receiver has that applies the rows in order: orders and total by country.
fn table(rows: &[Value]) -> BTreeMap<String, (i64, i64)> {
    let mut table = BTreeMap::new();
    for row in rows {
        let country = row["key"]["country"].as_str().expect("a country").to_owned();
        match &row["value"] {
            Value::Null => drop(table.remove(&country)),
            value => {
                let figure = |name: &str| value[name].as_i64().unwrap_or_default();
                table.insert(country, (figure("orders"), figure("total")));
            }
        }
    }
    table
}

#[test]
fn a_receiver_that_applies_rows_in_order_has_the_view_through_refusals_and_kills() {
    let seed = std::env::var("TRUEUP_SEED").ok().and_then(|s| s.parse().ok()).unwrap_or_else(rand::random);
    println!("TRUEUP_SEED={seed}");
    let mut random = StdRng::seed_from_u64(seed);
    let receiver = WebhookReceiver::refusing(|number| number % 4 == 1);
    let mut world = started(&receiver);
    let mut expected: BTreeMap<String, (i64, i64)> = BTreeMap::new();
    for number in 0..300 {
        let (country, amount) = (format!("c{}", random.random_range(0..20)), random.random_range(0..100));
        let sent = world.post("/v1/events/orders", event(number, "2026-01-05T10:00:00Z", &country, amount));
        assert_eq!(sent.status, 200, "{}", sent.text);
        let row = expected.entry(country).or_default();
        *row = (row.0 + 1, row.1 + amount);
        if random.random_bool(0.02) {
            world.kill();
            world.start();
        }
        if random.random_bool(0.01) {
            assert_eq!(world.run("revenue", false)["state"], json!("published"));
        }
    }
    world.wait_for("the rows", |_| table(&rows(&receiver.received(), "revenue_hook")) == expected);
    let rare: BTreeMap<_, _> =
        expected.iter().filter(|(_, row)| row.0 < 3).map(|(c, row)| (c.clone(), (row.0, 0))).collect();
    world.wait_for("rare rows", |_| table(&rows(&receiver.received(), "rare_hook")) == rare);
    // Each row is never older than the one before it.
    let mut newest: BTreeMap<String, i64> = BTreeMap::new();
    for row in rows(&receiver.received(), "revenue_hook") {
        let (country, orders) = (row["key"]["country"].to_string(), row["value"]["orders"].as_i64().expect("a count"));
        let before = newest.insert(country.clone(), orders).unwrap_or_default();
        assert!(orders >= before, "{country}: {orders} after {before}");
    }
    assert!(!world.log().contains("a secret") && !world.log().contains("hidden"));
}

#[test]
fn requests_are_signed_and_a_refusal_is_shown_until_it_ends() {
    let receiver = WebhookReceiver::start(3);
    let world = started(&receiver);
    assert_eq!(world.post("/v1/events/orders", event(1, "2026-01-05T10:00:00Z", "AT", 5)).status, 200);
    let status = |world: &World| world.get("/v1/sinks/revenue_hook").json();
    world.wait_for("the row", |_| !rows(&receiver.received(), "revenue_hook").is_empty());
    world.wait_for("running", |world| status(world)["state"] == json!("running"));
    let sink = status(&world);
    assert_eq!((&sink["connection"], &sink["topic"], &sink["rows"]), (&json!("ops"), &Value::Null, &json!(1)));
    let refused = world.log().lines().filter(|line| line.contains("answered with 503")).count();
    assert!(refused > 0, "{}", world.log());
    let received = receiver.received();
    let request = received.iter().find(|request| request.body.contains("revenue_hook")).expect("it was sent");
    let body: Value = serde_json::from_str(&request.body).expect("JSON");
    assert_eq!((&body["type"], &body["data"]["view"]), (&json!("sink.rows"), &json!("revenue")));
    let row = json!({
        "kind": "upsert", "key": {"country": "AT"}, "value": {"country": "AT", "orders": 1, "total": 5}, "layer": "speed"
    });
    assert_eq!(body["data"]["rows"], json!([row]));
    let (id, time) = (&request.headers["webhook-id"], &request.headers["webhook-timestamp"]);
    assert_eq!(request.headers["idempotency-key"], *id);
    let signed = format!("{id}.{time}.{}", request.body);
    let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, b"a secret"), signed.as_bytes());
    assert_eq!(request.headers["webhook-signature"], format!("v1,{}", STANDARD.encode(tag.as_ref())));
    let listed = world.trueup().args(["sinks", "--url", world.url()]).output().expect("trueup runs");
    assert!(String::from_utf8_lossy(&listed.stdout).contains("webhook:ops"));
}

#[test]
fn rows_are_final_once_and_corrected_by_runs() {
    let receiver = WebhookReceiver::start(0);
    let world = started(&receiver);
    for (number, at) in [(1, "2026-01-05T10:00:00Z"), (2, "2026-01-05T11:30:00Z"), (3, "2026-01-05T10:30:00Z")] {
        assert_eq!(world.post("/v1/events/orders", event(number, at, "AT", 5)).status, 200);
    }
    let kinds = || -> Vec<(Value, Value)> {
        let sent = rows(&receiver.received(), "hourly_hook");
        sent.iter().map(|row| (row["kind"].clone(), row["value"]["orders"].clone())).collect()
    };
    world.wait_for("the closed hour", |_| !kinds().is_empty());
    assert_eq!(kinds(), [(json!("final"), json!(1))], "the third order was late");
    assert_eq!(world.run("hourly", false)["state"], json!("published"));
    world.wait_for("the correction", |_| kinds().len() > 1);
    assert_eq!(kinds()[1..], [(json!("correction"), json!(2))]);
}

#[test]
fn a_receiver_that_is_away_is_named_without_its_address() {
    let mut world = World::stopped(DEFINITIONS);
    world.set_settings("[connections.ops]\nkind = \"webhook\"\nurl = \"http://127.0.0.1:9/rows?token=hidden\"\n");
    world.start();
    assert_eq!(world.post("/v1/events/orders", event(1, "2026-01-05T10:00:00Z", "AT", 5)).status, 200);
    let sink = |world: &World| world.get("/v1/sinks/revenue_hook").json();
    world.wait_for("a failure", |world| sink(world)["state"] == json!("failing"));
    let error = sink(&world)["error"].to_string();
    assert!(error.contains("the receiver did not accept the rows: ") && error.contains("refused"), "{error}");
    assert!(!error.contains("hidden") && !error.contains("127.0.0.1"), "{error}");
}

#[test]
fn rows_of_one_epoch_take_several_requests() {
    let receiver = WebhookReceiver::start(0);
    let world = started(&receiver);
    let events: Vec<_> = (0..2_500).map(|n| event(n, "2026-01-05T10:00:00Z", &format!("c{n}"), 1)).collect();
    assert_eq!(world.post("/v1/events/orders", events.join("\n")).status, 200);
    world.wait_for("all rows", |_| table(&rows(&receiver.received(), "revenue_hook")).len() == 2_500);
    let received = receiver.received();
    let most = received.iter().map(|request| rows(std::slice::from_ref(request), "revenue_hook").len()).max();
    assert_eq!(most, Some(1_000));
    let ids: BTreeSet<&String> = received.iter().map(|request| &request.headers["webhook-id"]).collect();
    assert_eq!(ids.len(), received.len(), "each request has an id of its own");
}

#[test]
fn a_sink_without_its_connection_refuses_the_start() {
    let mut world = World::stopped(DEFINITIONS);
    world.set_settings("[connections.ops2]\nkind = \"webhook\"\nurl = \"http://127.0.0.1:1/\"\n");
    let (code, output) = world.start_refused();
    assert_eq!(code, Some(2), "{output}");
    let problem = "sink revenue_hook: the settings have no connection \"ops\" (did you mean \"ops2\"?)";
    assert!(output.contains(problem), "{output}");
}

#[test]
fn the_statement_of_the_page_is_valid() {
    let page = std::fs::read_to_string(root().join("docs/kafka.md")).expect("the page");
    let (_, section) = page.split_once("### Webhooks\n").expect("the section");
    let (_, statement) = recipes::blocks(section).into_iter().find(|(kind, _)| kind == "sql").expect("a statement");
    let receiver = WebhookReceiver::start(0);
    let mut world = World::stopped(&format!("{DEFINITIONS}\n{statement}"));
    world.set_settings(&connection(&receiver));
    world.start();
    assert_eq!(world.get("/v1/sinks").json()["sinks"].as_array().map(Vec::len), Some(4));
}
