//! Exactly once from topic to topic: Trueup is killed at random and at each named point while it reads one topic and writes
//! another, and the broker restarts; every change of a count is in the output once, in order.

use std::collections::BTreeMap;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::json;
use sinks::fail_points::SinkPoint;
use world::World;

use crate::broker::{Broker, shared};
use crate::sinks::{assert_changes, written};
use crate::topic::{Topic, read_all};

fn rounds() -> u64 {
    std::env::var("TRUEUP_KILLS").ok().and_then(|kills| kills.parse().ok()).unwrap_or(12)
}

pub fn seed() -> u64 {
    std::env::var("TRUEUP_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(7)
}

fn definitions(input: &Topic, output: &Topic) -> String {
    format!(
        "CREATE STREAM s (at TIMESTAMP METADATA FROM 'timestamp', k STRING, v BIGINT) WITH (event_time = 'at', {});
         CREATE VIEW sums AS SELECT k, COUNT(*) AS n, SUM(v) AS total FROM s GROUP BY k;
         CREATE SINK out FROM sums WITH (connection = 'main', topic = '{}', every = '20 milliseconds');",
        input.options(),
        output.name
    )
}

/// The records of the input, by key: number and sum.
#[derive(Default)]
struct Fold(BTreeMap<String, (i64, i64)>);

impl Fold {
    fn write(&mut self, input: &Topic, dice: &mut StdRng) {
        let mut records = Vec::new();
        for _ in 0..dice.random_range(1..150) {
            let (key, value) = (format!("k{}", dice.random_range(0..5)), dice.random_range(0..100));
            records.push(input.record(dice.random_range(0..3), format!("{{\"k\":\"{key}\",\"v\":{value}}}")));
            let entry = self.0.entry(key).or_default();
            *entry = (entry.0 + 1, entry.1 + value);
        }
        input.write(records);
    }

    /// The output ends with the sums of the input, and the count of each key grows from record to record.
    fn compare(&self, output: &Topic, context: &str) {
        let records = output.read();
        assert_changes(&records);
        let mut counts: BTreeMap<&str, i64> = BTreeMap::new();
        let mut partitions: BTreeMap<&str, i32> = BTreeMap::new();
        for record in &records {
            let n = record.value.as_ref().and_then(|value| value["n"].as_i64()).expect("a count");
            let before = counts.insert(&record.key, n).unwrap_or(0);
            assert!(n > before, "{context}: {record:?} after {before}");
            let known = *partitions.entry(&record.key).or_insert(record.partition);
            assert_eq!(known, record.partition, "{context}: a key stays in its partition");
        }
        let expected = self
            .0
            .iter()
            .map(|(k, (n, total))| (format!("{{\"k\":\"{k}\"}}"), json!({"k": k, "n": n, "total": total})));
        assert_eq!(output.table(), expected.collect(), "{context}");
    }
}

fn world(input: &Topic, output: &Topic) -> World {
    let world = World::stopped(&definitions(input, output));
    world.set_settings(&(input.settings() + "[limits]\narchive_wait_ms = 20\nlog_segment_bytes = 8192\n"));
    world
}

#[test]
fn every_change_is_written_once_whenever_trueup_is_killed() {
    let Some(broker) = shared() else { return };
    let (input, output) = (Topic::create(broker, 3), Topic::create(broker, 3));
    let (mut fold, mut dice) = (Fold::default(), StdRng::seed_from_u64(seed()));
    let mut world = world(&input, &output);
    for round in 0..rounds() {
        fold.write(&input, &mut dice);
        world.start_whatever_comes();
        std::thread::sleep(Duration::from_millis(dice.random_range(0..600)));
        fold.write(&input, &mut dice);
        if dice.random_range(0..3) == 0 {
            let _ = world.try_post("/v1/views/sums/runs", Vec::new(), &[]);
        }
        std::thread::sleep(Duration::from_millis(dice.random_range(0..200)));
        world.kill();
        if round % 4 == 3 {
            assert_changes(&output.read());
        }
    }
    world.start();
    read_all(&world, "s", &input);
    written(&world, "out");
    fold.compare(&output, &format!("seed {}", seed()));
    assert_eq!(world.run("sums", true)["state"], json!("published"));
    written(&world, "out");
    fold.compare(&output, "after a full run");
}

#[test]
fn every_change_is_written_once_at_any_named_point() {
    let Some(broker) = shared() else { return };
    let (input, output) = (Topic::create(broker, 3), Topic::create(broker, 2));
    let (mut fold, mut dice) = (Fold::default(), StdRng::seed_from_u64(seed() + 1));
    let mut world = world(&input, &output);
    for point in SinkPoint::ALL.iter().flat_map(|point| [point.name(); 2]) {
        world.set_environment(&[("TRUEUP_FAIL_AT", &format!("{point}:{}", dice.random_range(1..4)))]);
        world.start_whatever_comes();
        for _ in 0..200 {
            if !world.is_running() {
                break;
            }
            fold.write(&input, &mut dice);
            std::thread::sleep(Duration::from_millis(50));
        }
        assert!(!world.is_running(), "the point {point} was not reached");
        world.wait_for_exit();
    }
    world.set_environment(&[]);
    world.start();
    read_all(&world, "s", &input);
    written(&world, "out");
    fold.compare(&output, &format!("seed {}", seed() + 1));
}

#[test]
fn every_change_is_written_once_over_restarts_of_the_broker() {
    let Some(mut broker) = Broker::start() else { return };
    let (input, output) = (Topic::create(&broker, 3), Topic::create(&broker, 2));
    let (mut fold, mut dice) = (Fold::default(), StdRng::seed_from_u64(seed() + 2));
    let mut world = world(&input, &output);
    world.start();
    for round in 0..3 {
        fold.write(&input, &mut dice);
        std::thread::sleep(Duration::from_millis(dice.random_range(0..300)));
        broker.kill();
        if round == 1 {
            world.kill();
        }
        broker.start_again();
        if round == 1 {
            world.start();
        }
        read_all(&world, "s", &input);
    }
    fold.write(&input, &mut dice);
    read_all(&world, "s", &input);
    written(&world, "out");
    fold.compare(&output, &format!("seed {}", seed() + 2));
}
