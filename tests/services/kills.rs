//! Trueup is killed at random and at each named point while it reads a topic, without a primary key: every record that the
//! topic shows to a reader of committed records is an event exactly once.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use intake::fail_points::SourcePoint;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::{Value, json};
use world::World;

use crate::broker::shared;
use crate::topic::{Topic, read_all};

/// Points of the path of any event that reading a topic reaches as well.
const POINTS_OF_EVENTS: [&str; 6] =
    ["log-write", "log-sync", "acknowledge", "hand-over", "archive-commit", "archive-release"];

fn rounds() -> u64 {
    std::env::var("TRUEUP_KILLS").ok().and_then(|kills| kills.parse().ok()).unwrap_or(20)
}

fn seed() -> u64 {
    std::env::var("TRUEUP_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(11)
}

/// The counts and sums by key that the topic has, folded as it is written.
#[derive(Default)]
struct Fold {
    by_key: BTreeMap<String, (i64, i64)>,
    rejected: u64,
    written: i64,
}

impl Fold {
    /// Writes a batch: plain, rejected, committed or aborted records.
    fn write(&mut self, topic: &Topic, dice: &mut StdRng, round: u64) {
        let mut records = Vec::new();
        let (mut events, mut rejected) = (Vec::new(), 0);
        for _ in 0..dice.random_range(1..200) {
            self.written += 1;
            let (key, value) = (format!("k{}", dice.random_range(0..5)), self.written);
            let partition = dice.random_range(0..3);
            if dice.random_range(0..20) == 0 {
                records.push(topic.record(partition, "no event"));
                rejected += 1;
            } else {
                records.push(topic.record(partition, format!("{{\"k\":\"{key}\",\"v\":{value}}}")));
                events.push((key, value));
            }
        }
        let is_committed = match dice.random_range(0..4) {
            0 | 1 => {
                topic.write(records);
                true
            }
            outcome => {
                topic.transact(&format!("{}-{round}", topic.name), records, outcome == 2);
                outcome == 2
            }
        };
        self.rejected += if is_committed { rejected } else { 0 };
        for (key, value) in events.into_iter().filter(|_| is_committed) {
            let entry = self.by_key.entry(key).or_default();
            *entry = (entry.0 + 1, entry.1 + value);
        }
    }

    fn compare(&self, world: &World, context: &str) {
        let rows = world.rows("sums", "");
        assert_eq!(rows["complete"], json!(true), "{context}: {rows}");
        let number = |row: &Value, name: &str| row[name].as_i64().expect("a number");
        let served: BTreeMap<String, (i64, i64)> = rows["rows"]
            .as_array()
            .expect("rows")
            .iter()
            .map(|row| (row["k"].as_str().expect("a key").to_owned(), (number(row, "n"), number(row, "total"))))
            .collect();
        assert_eq!(served, self.by_key, "{context}");
        let quarantine = world.get("/v1/streams/s/quarantine?limit=1000").json();
        let lines = quarantine["lines"].as_array().expect("lines");
        let addresses: BTreeSet<String> = lines.iter().map(|line| line["record"].to_string()).collect();
        assert_eq!(
            (&quarantine["total"], addresses.len()),
            (&json!(self.rejected), lines.len()),
            "{context}: {quarantine}"
        );
    }
}

fn definitions(topic: &Topic) -> String {
    format!(
        "CREATE STREAM s (at TIMESTAMP METADATA FROM 'timestamp', k STRING, v BIGINT) WITH (event_time = 'at', {});
         CREATE VIEW sums AS SELECT k, COUNT(*) AS n, SUM(v) AS total FROM s GROUP BY k;",
        topic.options()
    )
}

#[test]
fn no_record_is_lost_or_doubled_whenever_trueup_is_killed() {
    let Some(broker) = shared() else { return };
    let (topic, mut fold, mut dice) = (Topic::create(broker, 3), Fold::default(), StdRng::seed_from_u64(seed()));
    let mut world = World::stopped(&definitions(&topic));
    world.set_settings(&(topic.settings() + "[limits]\narchive_wait_ms = 20\nlog_segment_bytes = 8192\n"));
    for round in 0..rounds() {
        fold.write(&topic, &mut dice, round);
        world.start_whatever_comes();
        std::thread::sleep(Duration::from_millis(dice.random_range(0..150)));
        fold.write(&topic, &mut dice, 1_000_000 + round);
        if dice.random_range(0..4) == 0 {
            let _ = world.try_post("/v1/views/sums/runs", Vec::new(), &[]);
        }
        std::thread::sleep(Duration::from_millis(dice.random_range(0..100)));
        world.kill();
    }
    world.start();
    read_all(&world, "s", &topic);
    fold.compare(&world, &format!("seed {}", seed()));
    assert_eq!(world.run("sums", true)["state"], json!("published"));
    fold.compare(&world, "after a full run");
}

#[test]
fn no_record_is_lost_or_doubled_at_any_named_point() {
    let Some(broker) = shared() else { return };
    let points = SourcePoint::ALL.iter().map(|point| point.name()).chain(POINTS_OF_EVENTS);
    let (topic, mut fold, mut dice) = (Topic::create(broker, 3), Fold::default(), StdRng::seed_from_u64(seed() + 1));
    let mut world = World::stopped(&definitions(&topic));
    world.set_settings(&(topic.settings() + "[limits]\narchive_wait_ms = 20\nlog_segment_bytes = 8192\n"));
    for (round, point) in (0..).zip(points) {
        fold.write(&topic, &mut dice, round);
        // Only the first start makes positions.
        let passes = if point == "source-start" { 1 } else { dice.random_range(0..3) };
        world.set_environment(&[("TRUEUP_FAIL_AT", &format!("{point}:{}", passes + 1))]);
        world.start_whatever_comes();
        for more in 0..100 {
            if !world.is_running() {
                break;
            }
            fold.write(&topic, &mut dice, 1_000 * (round + 1) + more);
            std::thread::sleep(Duration::from_millis(100));
        }
        assert!(!world.is_running(), "the point {point} was not reached");
        world.wait_for_exit();
    }
    world.set_environment(&[]);
    world.start();
    read_all(&world, "s", &topic);
    fold.compare(&world, &format!("seed {}", seed() + 1));
}
