//! Final rows exactly once: Trueup is killed at random and at each named point while windows close, runs publish versions and late
//! events arrive; every closed row is in the output once, followed by the corrections of its figures.

use std::collections::BTreeMap;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::{Value, json};
use sinks::fail_points::SinkPoint;
use world::World;

use crate::broker::shared;
use crate::sinks::{sink, written};
use crate::topic::{ReadRecord, Topic, read_all, read_records};
use crate::window_fold::{Fold, MINUTE, Order, PARTITIONS, SECOND, orders, seed, time};

const SIZE: i64 = MINUTE;
const DELAY: i64 = 20 * SECOND;

fn definitions(input: &Topic, output: &Topic, windows: &str) -> String {
    format!(
        "CREATE STREAM s (k STRING, v BIGINT, at TIMESTAMP) WITH (event_time = 'at', watermark_delay = '20 seconds',
             idle_timeout = '1 hour', {});
         CREATE VIEW sums AS SELECT window_start, window_end, k, COUNT(*) AS n, SUM(v) AS total FROM s
             GROUP BY {windows}, k;
         CREATE SINK out FROM sums WITH (connection = 'main', topic = '{}', emit = 'final', every = '20 milliseconds');",
        input.options(),
        output.name
    )
}

fn world(input: &Topic, output: &Topic) -> World {
    let world = World::stopped(&definitions(input, output, "TUMBLE(at, INTERVAL '1' MINUTE)"));
    world.set_settings(&(input.settings() + "[limits]\narchive_wait_ms = 20\nlog_segment_bytes = 8192\n"));
    world
}

/// Sends orders, and keeps what the output has to be.
struct Sender<'a> {
    input: &'a Topic,
    fold: Fold,
    now: i64,
    sent: usize,
}

impl Sender<'_> {
    fn new(input: &Topic) -> Sender<'_> {
        Sender { input, fold: Fold::new(SIZE, DELAY, 0), now: 60 * MINUTE, sent: 0 }
    }

    fn send(&mut self, orders: &[Order]) {
        let record = |order: &Order| {
            let value = json!({"k": order.group, "v": order.cents, "at": time(order.at)});
            self.input.record(order.partition, value.to_string())
        };
        self.input.write(orders.iter().map(record).collect::<Vec<_>>());
        orders.iter().for_each(|order| self.fold.add(order));
        self.sent += orders.len();
    }

    /// Sends an order to each partition: one without orders does not hold back the watermark.
    fn begin(&mut self, world: &World) {
        let first =
            |partition| Order { partition, group: "begin".to_owned(), is_counted: true, cents: 1, at: self.now };
        let first: Vec<Order> = (0..PARTITIONS).map(first).collect();
        self.send(&first);
        read_records(world, "s", self.sent);
    }

    fn send_some(&mut self, dice: &mut StdRng) {
        let count = dice.random_range(1..60);
        let some: Vec<Order> =
            orders(dice, self.now, count, false).into_iter().map(|order| Order { is_counted: true, ..order }).collect();
        self.now += count as i64 * 2 * SECOND;
        self.send(&some);
    }

    /// Closes every window so far.
    fn close(&mut self) {
        let at = self.now + 30 * MINUTE;
        let last = |partition| Order { partition, group: "end".to_owned(), is_counted: true, cents: 1, at };
        self.send(&(0..PARTITIONS).map(last).collect::<Vec<_>>());
        self.now = at;
    }

    fn key((start, group): &(i64, String)) -> String {
        format!("{{\"window_start\":\"{}\",\"k\":\"{group}\"}}", time(*start))
    }

    /// The output has each closed row first as final, then its corrections, and ends with the figure of all orders; nothing is
    /// there twice, and no row of an open window.
    fn compare(&self, output: &Topic, context: &str) {
        let mut keys: BTreeMap<String, Vec<ReadRecord>> = BTreeMap::new();
        for record in output.read() {
            keys.entry(record.key.clone()).or_default().push(record);
        }
        for (place, window) in self.fold.closed() {
            let records = keys.remove(&Self::key(place)).unwrap_or_default();
            let context = format!("{context}: {place:?} {window:?} {records:?}");
            let n = |record: &ReadRecord| record.value.as_ref().and_then(|value| value["n"].as_u64()).expect("a count");
            let first = records.first().map(n).expect(&context);
            // Nothing that came before the window was closed is missing in the first record.
            assert!(first >= window.live.len() as u64, "{context}");
            assert!(records.windows(2).all(|pair| n(&pair[0]) < n(&pair[1])), "{context}");
            for (at, record) in records.iter().enumerate() {
                assert_eq!(record.headers["_kind"], if at == 0 { "final" } else { "correction" }, "{context}");
            }
            let (count, total) = window.all;
            let last = records.last().and_then(|record| record.value.clone());
            let (start, end) = (time(place.0), time(place.0 + SIZE));
            let expected = json!({"window_start": start, "window_end": end, "k": place.1, "n": count, "total": total});
            assert_eq!(last, Some(expected), "{context}");
        }
        assert_eq!(keys, BTreeMap::new(), "{context}: records of open windows");
    }
}

/// Closes all windows, includes the late orders, and compares.
fn finish(world: &mut World, sender: &mut Sender<'_>, output: &Topic, context: &str) {
    sender.close();
    read_records(world, "s", sender.sent);
    written(world, "out");
    assert_eq!(world.run("sums", false)["state"], json!("published"));
    written(world, "out");
    sender.compare(output, context);
    let before = output.read().len();
    assert_eq!(world.stop(), Some(0));
    world.start();
    written(world, "out");
    assert_eq!(world.run("sums", true)["state"], json!("published"));
    written(world, "out");
    assert_eq!(output.read().len(), before, "{context}: a restart and a full run write nothing again");
}

#[test]
fn every_final_row_is_written_once_whenever_trueup_is_killed() {
    let Some(broker) = shared() else { return };
    let (input, output) = (Topic::create(broker, PARTITIONS), Topic::create(broker, PARTITIONS));
    let (mut sender, mut dice) = (Sender::new(&input), StdRng::seed_from_u64(seed()));
    let mut world = world(&input, &output);
    world.start();
    sender.begin(&world);
    world.kill();
    let rounds: u64 = std::env::var("TRUEUP_KILLS").ok().and_then(|kills| kills.parse().ok()).unwrap_or(12);
    for _ in 0..rounds {
        sender.send_some(&mut dice);
        world.start_whatever_comes();
        std::thread::sleep(Duration::from_millis(dice.random_range(0..600)));
        sender.send_some(&mut dice);
        if dice.random_range(0..3) == 0 {
            let _ = world.try_post("/v1/views/sums/runs", Vec::new(), &[]);
        }
        std::thread::sleep(Duration::from_millis(dice.random_range(0..300)));
        world.kill();
    }
    world.start();
    finish(&mut world, &mut sender, &output, &format!("seed {}", seed()));
}

#[test]
fn every_final_row_is_written_once_at_any_named_point() {
    let Some(broker) = shared() else { return };
    let (input, output) = (Topic::create(broker, PARTITIONS), Topic::create(broker, 2));
    let (mut sender, mut dice) = (Sender::new(&input), StdRng::seed_from_u64(seed() + 1));
    let mut world = world(&input, &output);
    world.start();
    sender.begin(&world);
    assert_eq!(world.stop(), Some(0));
    for point in SinkPoint::ALL.iter().flat_map(|point| [point.name(); 2]) {
        world.set_environment(&[("TRUEUP_FAIL_AT", &format!("{point}:{}", dice.random_range(1..4)))]);
        world.start_whatever_comes();
        for _ in 0..200 {
            if !world.is_running() {
                break;
            }
            sender.send_some(&mut dice);
            std::thread::sleep(Duration::from_millis(50));
        }
        assert!(!world.is_running(), "the point {point} was not reached");
        world.wait_for_exit();
    }
    world.set_environment(&[]);
    world.start();
    finish(&mut world, &mut sender, &output, &format!("seed {}", seed() + 1));
}

#[test]
fn overlapping_windows_are_final_one_by_one_and_the_end_of_retention_takes_nothing_back() {
    let Some(broker) = shared() else { return };
    let (input, output) = (Topic::create(broker, 1), Topic::create(broker, 1));
    let windows = "HOP(at, INTERVAL '1' MINUTE, INTERVAL '3' MINUTE)";
    let sql = definitions(&input, &output, windows).replace("sums AS", "sums WITH (retention = '1 day') AS");
    let world = input.world(&sql);
    let send = |second: i64| {
        let value = json!({"k": "a", "v": 1, "at": time(60 * MINUTE + second * SECOND)});
        input.write([input.record(0, value.to_string())]);
        read_all(&world, "s", &input);
        written(&world, "out");
    };
    let found = || -> Vec<(String, String, Value)> {
        let of = |record: ReadRecord| {
            let value = record.value.expect("a value");
            (
                record.headers["_kind"].clone(),
                value["window_end"].as_str().unwrap_or_default().to_owned(),
                value["n"].clone(),
            )
        };
        output.read().into_iter().map(of).collect()
    };
    let row = |kind: &str, minute: i64, n: i64| (kind.to_owned(), time(60 * MINUTE + minute * MINUTE), json!(n));
    send(30);
    assert_eq!(found(), []);
    // The watermark is a second before the end of the first window, and at it.
    send(79);
    assert_eq!(found(), []);
    send(80);
    let mut expected = vec![row("final", 1, 1)];
    world.wait_for("the first window", |_| found() == expected);
    // It is late for the first window alone; the figure of that window is live as long as the event is in another one.
    send(31);
    expected.push(row("correction", 1, 2));
    world.wait_for("the correction", |_| found() == expected);
    send(140);
    expected.push(row("final", 2, 4));
    world.wait_for("the second window", |_| found() == expected);
    // A version drops the dates that the view no longer keeps. Its rows stay in the topic, and the sink forgets them.
    assert_eq!(world.run("sums", false)["state"], json!("published"));
    written(&world, "out");
    world.wait_for("the rows to be forgotten", |world| sink(world, "out")["rows"] == 0);
    assert_eq!(found(), expected);
}
