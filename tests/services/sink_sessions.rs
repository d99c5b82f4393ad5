//! Sessions in topics exactly once: Trueup is killed at random and at each named point while sessions grow, begin earlier, become
//! one and close, and runs publish versions; no change is in an output twice, and both end with the sessions of all visits.

use std::collections::BTreeMap;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::{Value, json};
use sinks::fail_points::SinkPoint;
use world::World;
use world::oracle::sessions::sessions;

use crate::broker::shared;
use crate::sinks::{sink, written};
use crate::topic::{ReadRecord, Topic, read_all, read_records};
use crate::window_fold::{MINUTE, SECOND, seed, time};

const PARTITIONS: i32 = 3;
const GAP: i64 = MINUTE;

fn definitions(input: &Topic, every_change: &Topic, closed: &Topic) -> String {
    format!(
        "CREATE STREAM s (k STRING, v BIGINT, at TIMESTAMP) WITH (event_time = 'at', watermark_delay = '20 seconds',
             allowed_lateness = '1 minute', idle_timeout = '1 hour', {});
         CREATE VIEW stays AS SELECT window_start, window_end, k, COUNT(*) AS n, SUM(v) AS total FROM s
             GROUP BY SESSION(at, INTERVAL '1' MINUTE), k;
         CREATE SINK changes FROM stays WITH (connection = 'main', topic = '{}', every = '20 milliseconds');
         CREATE SINK closed FROM stays WITH (connection = 'main', topic = '{}', emit = 'final', every = '20 milliseconds');",
        input.options(),
        every_change.name,
        closed.name
    )
}

#[derive(Debug, Clone)]
struct Visit {
    partition: i32,
    key: String,
    value: i64,
    at: i64,
}

/// The topics of a test, and what was written to the input.
struct Setup {
    input: Topic,
    every_change: Topic,
    closed: Topic,
    visits: Vec<Visit>,
    now: i64,
}

impl Setup {
    fn new() -> Option<Setup> {
        let broker = shared()?;
        let [input, every_change, closed] = [PARTITIONS, 2, 2].map(|partitions| Topic::create(broker, partitions));
        Some(Setup { input, every_change, closed, visits: Vec::new(), now: 60 * MINUTE })
    }

    fn world(&self) -> World {
        let world = World::stopped(&definitions(&self.input, &self.every_change, &self.closed));
        let limits = "[limits]\narchive_wait_ms = 20\nlog_segment_bytes = 8192\n";
        world.set_settings(&(self.input.settings() + limits));
        world
    }

    fn send(&mut self, visits: Vec<Visit>) {
        let record = |visit: &Visit| {
            let value = json!({"k": visit.key, "v": visit.value, "at": time(visit.at)});
            self.input.record(visit.partition, value.to_string())
        };
        self.input.write(visits.iter().map(record).collect::<Vec<_>>());
        self.visits.extend(visits);
    }

    /// A visit to each partition: one without any does not hold back the watermark.
    fn send_to_all(&mut self, key: &str) {
        let visit = |partition| Visit { partition, key: key.to_owned(), value: 1, at: self.now };
        self.send((0..PARTITIONS).map(visit).collect());
    }

    fn send_some(&mut self, dice: &mut StdRng) {
        let count = dice.random_range(1..40);
        let visit = |at: i64, dice: &mut StdRng| {
            let behind = match dice.random_range(0..10) {
                0..6 => dice.random_range(0..20 * SECOND),
                6..9 => dice.random_range(0..3 * MINUTE),
                _ => dice.random_range(0..30 * MINUTE),
            };
            let key = format!("g{}", dice.random_range(0..4));
            let (partition, value) = (dice.random_range(0..PARTITIONS), dice.random_range(1..100));
            Visit { partition, key, value, at: at - behind }
        };
        let begin = self.now;
        let visits = (0..count).map(|number| visit(begin + number * 10 * SECOND, dice)).collect();
        self.now += count * 10 * SECOND;
        self.send(visits);
    }

    /// The sessions of all visits, by the key of their record.
    fn stays(&self) -> BTreeMap<String, Value> {
        let mut of_key: BTreeMap<&str, Vec<&Visit>> = BTreeMap::new();
        self.visits.iter().for_each(|visit| of_key.entry(&visit.key).or_default().push(visit));
        let mut stays = BTreeMap::new();
        for (key, visits) in of_key {
            for (start, end) in sessions(visits.iter().map(|visit| visit.at).collect(), GAP) {
                let inside: Vec<i64> =
                    visits.iter().filter(|visit| (start..end).contains(&visit.at)).map(|visit| visit.value).collect();
                let row = json!({"window_start": time(start), "window_end": time(end), "k": key, "n": inside.len(),
                    "total": inside.iter().sum::<i64>()});
                stays.insert(format!("{{\"window_start\":\"{}\",\"k\":\"{key}\"}}", time(start)), row);
            }
        }
        stays
    }

    /// The outputs end with the sessions of all visits; the sessions of `last` are open.
    fn compare(&self, last: &str, context: &str) {
        let all = self.stays();
        assert_changes(&self.every_change.read(), ["upsert", "upsert"], context);
        assert_eq!(self.every_change.table(), all, "{context}");
        let closed: BTreeMap<String, Value> = all.into_iter().filter(|(_, row)| row["k"] != last).collect();
        assert_changes(&self.closed.read(), ["final", "correction"], context);
        assert_eq!(self.closed.table(), closed, "{context}");
    }
}

/// Every record changes the value of its key, and has the kind of the `first` value of its key or of a `later` one.
fn assert_changes(records: &[ReadRecord], [first, later]: [&str; 2], context: &str) {
    let mut values: BTreeMap<&str, Option<&Value>> = BTreeMap::new();
    for record in records {
        let before = values.insert(&record.key, record.value.as_ref()).flatten();
        assert_ne!(before, record.value.as_ref(), "{context}: {record:?} changes nothing");
        let kind = match (&record.value, before) {
            (None, _) => "delete",
            (Some(_), None) => first,
            (Some(_), Some(_)) => later,
        };
        assert_eq!(record.headers["_kind"], kind, "{context}: {record:?} after {before:?}");
    }
}

/// Closes all sessions but those of `end`, includes the late visits, and compares.
fn finish(world: &mut World, setup: &mut Setup, context: &str) {
    setup.now += 30 * MINUTE;
    setup.send_to_all("end");
    let both_written = |world: &World| ["changes", "closed"].iter().for_each(|sink| written(world, sink));
    read_records(world, "s", setup.visits.len());
    both_written(world);
    assert_eq!(world.run("stays", false)["state"], json!("published"));
    both_written(world);
    setup.compare("end", context);
    let lengths = |setup: &Setup| (setup.every_change.read().len(), setup.closed.read().len());
    let before = lengths(setup);
    assert_eq!(world.stop(), Some(0));
    world.start();
    both_written(world);
    assert_eq!(world.run("stays", true)["state"], json!("published"));
    both_written(world);
    assert_eq!(lengths(setup), before, "{context}: a restart and a full run write nothing again");
}

#[test]
fn every_change_of_a_session_is_written_once_whenever_trueup_is_killed() {
    let Some(mut setup) = Setup::new() else { return };
    let mut dice = StdRng::seed_from_u64(seed());
    let mut world = setup.world();
    world.start();
    setup.send_to_all("begin");
    read_records(&world, "s", setup.visits.len());
    world.kill();
    let rounds: u64 = std::env::var("TRUEUP_KILLS").ok().and_then(|kills| kills.parse().ok()).unwrap_or(12);
    for _ in 0..rounds {
        setup.send_some(&mut dice);
        world.start_whatever_comes();
        std::thread::sleep(Duration::from_millis(dice.random_range(0..600)));
        setup.send_some(&mut dice);
        if dice.random_range(0..3) == 0 {
            let _ = world.try_post("/v1/views/stays/runs", Vec::new(), &[]);
        }
        std::thread::sleep(Duration::from_millis(dice.random_range(0..300)));
        world.kill();
    }
    world.start();
    finish(&mut world, &mut setup, &format!("seed {}", seed()));
}

#[test]
fn every_change_of_a_session_is_written_once_at_any_named_point() {
    let Some(mut setup) = Setup::new() else { return };
    let mut dice = StdRng::seed_from_u64(seed() + 1);
    let mut world = setup.world();
    world.start();
    setup.send_to_all("begin");
    read_records(&world, "s", setup.visits.len());
    assert_eq!(world.stop(), Some(0));
    for point in SinkPoint::ALL.iter().map(|point| point.name()) {
        world.set_environment(&[("TRUEUP_FAIL_AT", &format!("{point}:{}", dice.random_range(1..4)))]);
        world.start_whatever_comes();
        for _ in 0..200 {
            if !world.is_running() {
                break;
            }
            setup.send_some(&mut dice);
            std::thread::sleep(Duration::from_millis(50));
        }
        assert!(!world.is_running(), "the point {point} was not reached");
        world.wait_for_exit();
    }
    world.set_environment(&[]);
    world.start();
    finish(&mut world, &mut setup, &format!("seed {}", seed() + 1));
}

#[test]
fn closed_sessions_are_written_again_from_a_time_on_and_the_end_of_retention_takes_nothing_back() {
    let Some(broker) = shared() else { return };
    let [input, every_change, closed] = [1, 1, 1].map(|partitions| Topic::create(broker, partitions));
    let sql = definitions(&input, &every_change, &closed).replace("stays AS", "stays WITH (retention = '1 day') AS");
    let world = input.world(&sql);
    let send = |seconds: &[i64]| {
        let value = |second: &i64| json!({"k": "a", "v": 1, "at": time(60 * MINUTE + second * SECOND)}).to_string();
        input.write(seconds.iter().map(|second| input.record(0, value(second))).collect::<Vec<_>>());
        read_all(&world, "s", &input);
        written(&world, "closed");
    };
    let found = || -> Vec<(String, String, Value)> {
        let of = |record: ReadRecord| {
            let key: Value = serde_json::from_str(&record.key).expect("JSON");
            let n = record.value.map_or(Value::Null, |value| value["n"].clone());
            (record.headers["_kind"].clone(), key["window_start"].as_str().unwrap_or_default().to_owned(), n)
        };
        closed.read().into_iter().map(of).collect()
    };
    let row = |kind: &str, second: i64, n: Value| (kind.to_owned(), time(60 * MINUTE + second * SECOND), n);
    send(&[0, 30]);
    // The watermark is a second before the end of the session, and at it.
    send(&[109]);
    assert_eq!(found(), []);
    send(&[110]);
    let mut expected = vec![row("final", 0, json!(2))];
    world.wait_for("the first session", |_| found() == expected);
    send(&[200]);
    expected.push(row("final", 109, json!(2)));
    world.wait_for("the second session", |_| found() == expected);
    // It is between the two, late, and within the allowed lateness: the second session is a part of the first.
    send(&[70]);
    expected.extend([row("correction", 0, json!(5)), row("delete", 109, Value::Null)]);
    world.wait_for("the correction", |_| found() == expected);
    send(&[300]);
    expected.push(row("final", 200, json!(1)));
    world.wait_for("the third session", |_| found() == expected);
    let from = json!({"from": time(60 * MINUTE + 200 * SECOND)}).to_string();
    assert_eq!(world.post("/v1/sinks/closed/resume", from).status, 200);
    expected.push(row("final", 200, json!(1)));
    world.wait_for("the rows from the time on", |_| found() == expected);
    // A version drops the dates that the view no longer keeps. Its rows stay in the topic, and the sink forgets them; the other
    // sink deletes them, so that its topic is the view.
    assert_eq!(world.run("stays", false)["state"], json!("published"));
    written(&world, "closed");
    world.wait_for("the rows to be forgotten", |world| sink(world, "closed")["rows"] == 0);
    assert_eq!(found(), expected);
    world.wait_for("the rows to be deleted", |_| every_change.table().is_empty());
}
