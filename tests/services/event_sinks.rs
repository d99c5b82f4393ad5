//! Sinks of streams against a real Kafka: Trueup is killed at random and at each named point while it reads one topic and writes
//! the events that pass to another; each is there once, in the order of its key. Avro, and the example.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::{Value, json};
use sinks::fail_points::SinkPoint;
use world::{World, recipes, root};

use crate::broker::shared;
use crate::sink_avro::{decoded, registry};
use crate::sink_kills::seed;
use crate::sinks::sink;
use crate::topic::{Topic, read_all};

/// Waits until everything that the log has is in the topic.
fn written(world: &World, name: &str) {
    world.wait_for("the sink", |world| {
        let Some(answer) = world.try_get(&format!("/v1/sinks/{name}")) else { return false };
        let sink = answer.json();
        sink["state"] == "running" && sink["lag"] == 0
    });
}

fn definitions(input: &Topic, output: &Topic) -> String {
    format!(
        "CREATE STREAM s (at TIMESTAMP METADATA FROM 'timestamp', k STRING, n BIGINT, v BIGINT)
             WITH (event_time = 'at', {});
         CREATE VIEW counts AS SELECT COUNT(*) AS n FROM s;
         CREATE SINK out AS SELECT k, n, UPPER(k) AS name, v * 2 AS twice FROM s WHERE v % 3 <> 0
             WITH (connection = 'main', topic = '{}', key = 'k', every = '20 milliseconds');",
        input.options(),
        output.name
    )
}

/// What the output should have: the values of each key, in order.
#[derive(Default)]
struct Expected {
    values: BTreeMap<String, Vec<Value>>,
    written: i64,
}

impl Expected {
    fn write(&mut self, input: &Topic, dice: &mut StdRng) {
        let mut records = Vec::new();
        for _ in 0..dice.random_range(1..150) {
            let (number, v) = (dice.random_range(0..6), dice.random_range(-50..50));
            let (k, n) = (format!("k{number}"), self.written);
            self.written += 1;
            // Events of a key are in one partition, in which their order is kept.
            records.push(input.record(number % 3, json!({"k": k, "n": n, "v": v}).to_string()));
            if v % 3 != 0 {
                let value = json!({"k": k, "n": n, "name": k.to_uppercase(), "twice": v * 2});
                self.values.entry(format!("{{\"k\":\"{k}\"}}")).or_default().push(value);
            }
        }
        input.write(records);
    }

    fn compare(&self, output: &Topic, context: &str) {
        let mut found: BTreeMap<String, Vec<Value>> = BTreeMap::new();
        let mut places = BTreeSet::new();
        for record in output.read() {
            let place = (record.headers["_partition"].clone(), record.headers["_offset"].clone());
            assert!(places.insert(place), "{context}: {record:?} is there twice");
            found.entry(record.key).or_default().push(record.value.expect("a value"));
        }
        assert_eq!(found, self.values, "{context}");
    }
}

fn world(input: &Topic, output: &Topic) -> World {
    let world = World::stopped(&definitions(input, output));
    let limits = "[limits]\narchive_wait_ms = 20\nlog_segment_bytes = 8192\ndedup_horizon_events = 100\n";
    world.set_settings(&(input.settings() + limits));
    world
}

#[test]
fn every_event_is_written_once_whenever_trueup_is_killed() {
    let Some(broker) = shared() else { return };
    let (input, output) = (Topic::create(broker, 3), Topic::create(broker, 2));
    let (mut expected, mut dice) = (Expected::default(), StdRng::seed_from_u64(seed() + 20));
    let mut world = world(&input, &output);
    let rounds = std::env::var("TRUEUP_KILLS").ok().and_then(|kills| kills.parse().ok()).unwrap_or(10);
    for _ in 0..rounds {
        expected.write(&input, &mut dice);
        world.start_whatever_comes();
        std::thread::sleep(Duration::from_millis(dice.random_range(0..600)));
        expected.write(&input, &mut dice);
        // Runs trim the log.
        if dice.random_range(0..3) == 0 {
            let _ = world.try_post("/v1/views/counts/runs", Vec::new(), &[]);
        }
        std::thread::sleep(Duration::from_millis(dice.random_range(0..200)));
        world.kill();
    }
    world.start();
    read_all(&world, "s", &input);
    written(&world, "out");
    expected.compare(&output, &format!("seed {}", seed()));
}

#[test]
fn every_event_is_written_once_at_any_named_point() {
    let Some(broker) = shared() else { return };
    let (input, output) = (Topic::create(broker, 3), Topic::create(broker, 2));
    let (mut expected, mut dice) = (Expected::default(), StdRng::seed_from_u64(seed() + 21));
    let mut world = world(&input, &output);
    for point in SinkPoint::ALL.iter().flat_map(|point| [point.name(); 2]) {
        world.set_environment(&[("TRUEUP_FAIL_AT", &format!("{point}:{}", dice.random_range(1..4)))]);
        world.start_whatever_comes();
        for _ in 0..200 {
            if !world.is_running() {
                break;
            }
            expected.write(&input, &mut dice);
            std::thread::sleep(Duration::from_millis(50));
        }
        assert!(!world.is_running(), "the point {point} was not reached");
        world.wait_for_exit();
    }
    world.set_environment(&[]);
    world.start();
    read_all(&world, "s", &input);
    written(&world, "out");
    expected.compare(&output, &format!("seed {}", seed() + 21));
    // A later definition holds for later events; all events again on request, from the archive as well.
    assert_eq!(world.stop(), Some(0));
    world.redefine(&definitions(&input, &output).replace("v % 3 <> 0", "v > 1000"));
    world.start();
    let before = output.read().len();
    expected.write(&input, &mut dice);
    read_all(&world, "s", &input);
    written(&world, "out");
    assert_eq!(output.read().len(), before);
    assert_eq!(world.stop(), Some(0));
    world.redefine(&definitions(&input, &output));
    world.start();
    assert_eq!(world.post("/v1/sinks/out/resume", "{\"from\": \"start\"}").status, 200);
    world.wait_for("the events again", |world| sink(world, "out")["records"] != 0);
    written(&world, "out");
    let again: Vec<Value> = output.read().split_off(0).into_iter().filter_map(|record| record.value).collect();
    let all: usize = expected.values.values().map(Vec::len).sum();
    assert_eq!(again.len(), before + all);
}

#[test]
fn records_of_avro_have_the_columns_of_the_select() {
    let Some(broker) = shared() else { return };
    let (keyed, bare, (url, subjects)) = (Topic::create(broker, 2), Topic::create(broker, 1), registry());
    let select = "SELECT id, at, price * 2 AS twice, id % 2 = 0 AS even FROM orders WHERE id < 90";
    let mut world = World::stopped(&format!(
        "CREATE STREAM orders (id BIGINT PRIMARY KEY, at TIMESTAMP, price DECIMAL(12,2)) WITH (event_time = 'at', partitions = 2);
         CREATE SINK keyed AS {select} WITH (connection = 'main', topic = '{}', format = 'avro');
         CREATE SINK bare AS {select} WITH (connection = 'main', topic = '{}', format = 'avro', key = '');",
        keyed.name, bare.name
    ));
    world.set_settings(&format!("{}schema_registry = {{ url = \"{url}\" }}\n", keyed.settings()));
    world.start();
    let order =
        |id: u64| format!("{{\"id\":{id},\"at\":\"2026-11-01T00:00:{:02}Z\",\"price\":\"{id}.25\"}}\n", id % 60);
    assert_eq!(world.post("/v1/events/orders", (0..100).map(order).collect::<String>()).status, 200);
    written(&world, "keyed");
    written(&world, "bare");
    let expected = |id: u64| {
        let at = format!("2026-11-01T00:00:{:02}Z", id % 60);
        json!({"id": id, "at": at, "twice": format!("{}.50", id * 2), "even": id.is_multiple_of(2)})
    };
    let subjects = subjects.lock().expect("no panic");
    for topic in [&keyed, &bare] {
        let mut ids = BTreeSet::new();
        for record in topic.read_raw() {
            let value = decoded(&record.value.expect("a value"), &subjects, &format!("{}-value", topic.name));
            let id = value["id"].as_u64().expect("an id");
            assert_eq!((ids.insert(id), &value), (true, &expected(id)));
            let key = record.key.map(|key| decoded(&key, &subjects, &format!("{}-key", topic.name)));
            assert_eq!(key, (topic.name == keyed.name).then(|| json!({"id": id})));
        }
        assert_eq!(ids, (0..90).collect());
    }
    assert_eq!(subjects.schemas.len(), 3, "records without keys have no schema of keys");
}

#[test]
fn large_orders_are_copied_to_another_topic() {
    let Some(broker) = shared() else { return };
    let (input, output) = (Topic::create(broker, 3), Topic::create(broker, 3));
    let sql = std::fs::read_to_string(root().join("examples/large-orders/large_orders.sql")).expect("the example");
    let sql = sql.replace("topic = 'orders'", &format!("topic = '{}'", input.name));
    let world = input.world(&sql.replace("topic = 'large-orders'", &format!("topic = '{}'", output.name)));
    let page = std::fs::read_to_string(root().join("examples/large-orders/README.md")).expect("the page");
    let (_, rest) = page.split_once("An input record is `").expect("an example");
    let first = rest.split_once('`').expect("its end").0.to_owned();
    let order = |n: i64| {
        let amount = format!("{}.50", n * 7 % 1_500);
        json!({"order_id": format!("x-{n}"), "customer": format!("c-{}", n % 9), "country": "de", "amount": amount, "placed_at": 1_000_000_000_000_i64 + n})
    };
    input.write([input.record(0, first.clone())]);
    read_all(&world, "orders", &input);
    // The third of each ten is written twice.
    let orders = (1..400).flat_map(|n| vec![n; if n % 10 == 3 { 2 } else { 1 }]);
    input.write(orders.map(|n| input.record((n % 3) as i32, order(n).to_string())));
    read_all(&world, "orders", &input);
    written(&world, "large_orders");
    let mut found = BTreeMap::new();
    for record in output.read() {
        assert_eq!(found.insert(record.key.clone(), record.value.clone()), None, "{record:?} is there twice");
    }
    let example = recipes::blocks(&page).into_iter().find(|(kind, _)| kind == "text").expect("an example").1;
    let part = |name: &str| example.lines().find_map(|line| line.strip_prefix(name)).expect("a line").trim().to_owned();
    let value: Value = serde_json::from_str(&part("value")).expect("JSON");
    assert_eq!(found.remove(&part("key")), Some(Some(value)));
    let expected = (1..400).filter(|n| n * 7 % 1_500 >= 100).map(|n| {
        let amount = n * 7 % 1_500;
        let value = json!({
            "order_id": format!("x-{n}"), "customer": format!("c-{}", n % 9), "country": "DE", "amount": format!("{amount}.50"),
            "needs_review": amount >= 1_000,
        });
        (format!("{{\"order_id\":\"x-{n}\"}}"), Some(value))
    });
    assert_eq!(found, expected.collect());
}

#[test]
fn the_recipe_of_the_page_works() {
    let Some(broker) = shared() else { return };
    let (input, output) = (Topic::create(broker, 1), Topic::create(broker, 1));
    let page = std::fs::read_to_string(root().join("docs/kafka.md")).expect("the page");
    let (_, section) = page.split_once("### Sinks of streams\n").expect("the section");
    let block = |text: &str, kind: &str| recipes::blocks(text).into_iter().find(|(k, _)| k == kind).expect("a block").1;
    let stream = block(&page, "sql").replace("topic = 'orders'", &format!("topic = '{}'", input.name));
    let statement = block(section, "sql").replace("topic = 'large-orders'", &format!("topic = '{}'", output.name));
    let world = input.world(&format!("{stream}{statement}"));
    let order = |amount: &str| format!("{{\"country\":\"at\",\"amount\":\"{amount}\"}}");
    input.write(["10.50", "9.99"].map(|amount| input.record(0, order(amount)).key("c1")));
    read_all(&world, "orders", &input);
    written(&world, "large_orders");
    let records = output.read();
    let example = block(section, "text");
    let part = |name: &str| example.lines().find_map(|line| line.strip_prefix(name)).expect("a line").trim().to_owned();
    let value: Value = serde_json::from_str(&part("value")).expect("JSON");
    assert_eq!((records.len(), &records[0].key, &records[0].value), (1, &part("key"), &Some(value)));
    let headers = &records[0].headers;
    assert_eq!(part("headers"), format!("_partition: {}   _offset: {}", headers["_partition"], headers["_offset"]));
}
