//! Brokers that restart, topics that do not exist, logins that fail, rejected records: clear errors, and nothing is lost.

use std::time::Duration;

use serde_json::{Value, json};
use world::World;

use crate::broker::{Broker, PASSWORD, shared};
use crate::topic::{Topic, read_all, source};

fn definitions(topic: &str) -> String {
    format!(
        "CREATE STREAM s (at TIMESTAMP METADATA FROM 'timestamp', k STRING, v BIGINT)
             WITH (event_time = 'at', source = 'kafka', connection = 'main', topic = '{topic}');
         CREATE VIEW sums AS SELECT COUNT(*) AS n, SUM(v) AS total FROM s;"
    )
}

fn world(settings: &str, definitions: &str) -> World {
    let mut world = World::stopped(definitions);
    world.set_settings(settings);
    world.start();
    world
}

fn total(world: &World) -> (i64, i64) {
    let row = world.rows("sums", "")["rows"][0].clone();
    (row["n"].as_i64().unwrap_or(0), row["total"].as_i64().unwrap_or(0))
}

/// Waits until the source of the stream shows an error with this text.
fn wait_for_error(world: &World, text: &str) -> Value {
    let mut shown = Value::Null;
    world.wait_for(text, |world| {
        shown = source(world, "s");
        shown["error"].as_str().is_some_and(|error| error.contains(text))
    });
    shown
}

#[test]
fn a_broker_that_is_away_stops_nothing_else_and_is_read_again_when_it_is_back() {
    let Some(mut broker) = Broker::start() else { return };
    let topic = Topic::create(&broker, 2);
    let records = |n: i64| (0..n).map(|v| topic.record((v % 2) as i32, format!("{{\"v\":{v}}}"))).collect::<Vec<_>>();
    let world = topic.world(&definitions(&topic.name));
    topic.write(records(100));
    read_all(&world, "s", &topic);
    broker.kill();
    let shown = wait_for_error(&world, "will retry");
    assert_eq!(shown["state"], json!("failing"), "{shown}");
    assert_eq!(world.get("/readyz").status, 200);
    assert_eq!(total(&world), (100, 4_950));
    broker.start_again();
    topic.write(records(100));
    world.wait_for("the records", |world| total(world) == (200, 9_900));
    read_all(&world, "s", &topic);
    assert_eq!(source(&world, "s")["error"], Value::Null);
}

#[test]
fn a_start_without_brokers_serves_queries_and_reads_later() {
    let Some(broker) = shared() else { return };
    let topic = Topic::create(broker, 1);
    topic.write([topic.record(0, "{\"v\":7}")]);
    let mut world = world(&topic.settings(), &definitions(&topic.name));
    read_all(&world, "s", &topic);
    assert_eq!(world.stop(), Some(0));
    world.set_settings("[connections.main]\nkind = \"kafka\"\nbrokers = [\"127.0.0.1:1\"]\n");
    world.start();
    assert_eq!(total(&world), (1, 7));
    wait_for_error(&world, "cannot reach the brokers 127.0.0.1:1");
    assert_eq!(world.stop(), Some(0));
    world.set_settings(&topic.settings());
    topic.write([topic.record(0, "{\"v\":8}")]);
    world.start();
    world.wait_for("the record", |world| total(world) == (2, 15));
}

#[test]
fn an_unknown_topic_and_a_deleted_one_are_named() {
    let Some(broker) = shared() else { return };
    let topic = Topic::create(broker, 1);
    let missing = world(&topic.settings(), &definitions("no-such-topic"));
    wait_for_error(&missing, "the brokers have no topic \"no-such-topic\"");
    assert_eq!(missing.get("/readyz").status, 200);
    drop(missing);
    topic.write([topic.record(0, "{\"v\":7}")]);
    let world = world(&topic.settings(), &definitions(&topic.name));
    read_all(&world, "s", &topic);
    topic.delete();
    wait_for_error(&world, "the brokers have no topic");
    assert_eq!(total(&world), (1, 7));
}

#[test]
fn rejected_records_are_in_quarantine_with_their_address() {
    let Some(broker) = shared() else { return };
    let topic = Topic::create(broker, 1);
    let world = world(&topic.settings(), &definitions(&topic.name));
    topic.write([
        topic.record(0, "{\"v\":1}"),
        topic.record(0, "no JSON"),
        topic.record(0, vec![0xff, 0xfe]),
        topic.record(0, "{\"v\":\"text\"}"),
        topic.record(0, "").without_value().key("k"),
        topic.record(0, "{\"v\":2}"),
    ]);
    read_all(&world, "s", &topic);
    world.wait_for("the counts", |world| total(world) == (2, 3));
    world.wait_for("the quarantine", |world| world.get("/v1/streams/s").json()["quarantine"]["total"] == json!(4));
    let page = world.get("/v1/streams/s/quarantine").json();
    let lines = page["lines"].as_array().expect("lines");
    let offsets: Vec<i64> = lines.iter().map(|line| line["record"]["offset"].as_i64().expect("an offset")).collect();
    assert_eq!(offsets, [4, 3, 2, 1], "{page}");
    assert_eq!(lines[0]["record"], json!({"topic": topic.name, "partition": 0, "offset": 4}));
    assert_eq!(lines[0]["reason"], json!("the record has no value (a tombstone)"));
    assert_eq!(lines[2]["reason"], json!("invalid UTF-8 at column 1"));
}

#[test]
fn records_deleted_before_they_are_read_are_counted() {
    let Some(broker) = shared() else { return };
    let topic = Topic::create(broker, 1);
    let mut world = world(&topic.settings(), &definitions(&topic.name));
    topic.write((0..10).map(|_| topic.record(0, "{\"v\":1}")));
    read_all(&world, "s", &topic);
    assert_eq!(world.stop(), Some(0));
    topic.write((0..10).map(|_| topic.record(0, "{\"v\":1}")));
    topic.delete_before(0, 15);
    world.start();
    world.wait_for("the rest", |world| total(world).0 == 15);
    assert_eq!(source(&world, "s")["missed"], json!(5));
}

#[test]
fn logins_and_certificates_open_the_topic_and_wrong_ones_are_named() {
    let Some(broker) = shared().filter(|broker| broker.is_kafka()) else { return };
    let topic = Topic::create(broker, 1);
    topic.write([topic.record(0, "{\"v\":7}")]);
    let sasl = broker.sasl_address().expect("a listener");
    let login = |mechanism: &str, user: &str, password: &str| {
        format!(
            "[connections.main]\nkind = \"kafka\"\nbrokers = [\"{sasl}\"]\n\
             sasl = {{ mechanism = \"{mechanism}\", username = \"{user}\", password = \"{password}\" }}\n"
        )
    };
    // A token without a signature, as the broker of the test accepts it.
    let token = unsigned_token();
    let bearer = format!(
        "[connections.main]\nkind = \"kafka\"\nbrokers = [\"{sasl}\"]\nsasl = {{ mechanism = \"OAUTHBEARER\", token = \"{token}\" }}\n"
    );
    let tls = world::root().join("tests/tls");
    let certificates = format!(
        "[connections.main]\nkind = \"kafka\"\nbrokers = [\"{}\"]\n\
         tls = {{ ca = \"{tls}/ca.crt\", certificate = \"{tls}/client.crt\", key = \"{tls}/client.key\" }}\n",
        broker.tls_address().expect("a listener"),
        tls = tls.display()
    );
    for (name, settings) in [
        ("PLAIN", login("PLAIN", "plain", PASSWORD)),
        ("SCRAM-SHA-256", login("SCRAM-SHA-256", "scram", PASSWORD)),
        ("SCRAM-SHA-512", login("SCRAM-SHA-512", "scram", PASSWORD)),
        ("OAUTHBEARER", bearer),
        ("TLS", certificates),
    ] {
        let world = world(&settings, &definitions(&topic.name));
        world.wait_for(name, |world| total(world) == (1, 7));
    }
    let wrong = world(&login("SCRAM-SHA-512", "scram", "not the password"), &definitions(&topic.name));
    let shown = wait_for_error(&wrong, "refused the login");
    assert_eq!(wrong.get("/readyz").status, 200);
    assert!(!wrong.log().contains("not the password") && !shown.to_string().contains("not the password"));
    std::thread::sleep(Duration::ZERO);
}

/// A JSON Web Token with the algorithm `none`, valid for an hour.
fn unsigned_token() -> String {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("after 1970").as_secs();
    let encoded = |text: String| {
        const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
        let chunk = |chunk: &[u8]| {
            let bits = chunk.iter().fold(0u32, |bits, byte| bits << 8 | u32::from(*byte)) << (8 * (3 - chunk.len()));
            (0..=chunk.len()).map(|i| char::from(ALPHABET[(bits >> (18 - 6 * i) & 63) as usize])).collect::<String>()
        };
        text.as_bytes().chunks(3).map(chunk).collect::<String>()
    };
    let header = encoded(json!({"alg": "none"}).to_string());
    format!("{header}.{}.", encoded(json!({"sub": "x", "iat": now, "exp": now + 3_600}).to_string()))
}
