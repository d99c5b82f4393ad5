//! Measures how fast a stream reads a topic, against the same events over HTTP. Prints figures and asserts only that all
//! events are counted:
//!
//! `TRUEUP_KAFKA_EVENTS=4000000 cargo test --release -p trueup --test services throughput -- --ignored --nocapture`

use std::time::{Duration, Instant};

use serde_json::json;
use world::World;

use crate::broker::shared;
use crate::topic::{Topic, source};

/// Events of a request, and of a write to the topic.
const BATCH: usize = 20_000;
const CONNECTIONS: usize = 4;
const PARTITIONS: u32 = 2;
const ROUNDS: usize = 3;

fn definitions(options: &str) -> String {
    format!(
        "CREATE STREAM bids (at TIMESTAMP, auction BIGINT, bidder BIGINT, price BIGINT, channel STRING, url STRING)
             WITH (event_time = 'at', allowed_lateness = '1 day', {options});
         CREATE VIEW per_channel AS SELECT window_start, channel, COUNT(*) AS n, SUM(price) AS total FROM bids
             GROUP BY TUMBLE(at, INTERVAL '1' MINUTE), channel;"
    )
}

fn bid(number: usize) -> String {
    let (auction, bidder, channel) =
        (number * 7 % 1_000, number * 31 % 1_000_000, ["Apple", "Google", "Baidu", "Facebook"][number % 4]);
    format!(
        "{{\"at\":{},\"auction\":{auction},\"bidder\":{bidder},\"price\":{},\"channel\":\"{channel}\",\"url\":\"https://www.example.com/item/{auction}\"}}",
        1_790_000_000_000usize + number / 10,
        number % 10_000
    )
}

fn counted(world: &World, events: usize) {
    world.wait_for("all events", |world| {
        let rows = world.rows("per_channel", "&grain=all&group_by=&measures=n");
        rows["rows"][0]["n"] == json!(events) && rows["complete"] == json!(true)
    });
}

fn over_http(bodies: &[String]) -> f64 {
    let world = World::new(&definitions(&format!("partitions = {PARTITIONS}")));
    let begin = Instant::now();
    std::thread::scope(|scope| {
        for connection in 0..CONNECTIONS {
            let (world, bodies) = (&world, bodies.iter().skip(connection).step_by(CONNECTIONS));
            scope.spawn(move || {
                for body in bodies {
                    // 429 asks to wait.
                    while world.post("/v1/events/bids", body.as_str()).status != 200 {
                        std::thread::sleep(Duration::from_millis(20));
                    }
                }
            });
        }
    });
    let seconds = begin.elapsed().as_secs_f64();
    counted(&world, bodies.len() * BATCH);
    seconds
}

fn over_a_topic(topic: &Topic, events: usize) -> f64 {
    let world = World::stopped(&definitions(&topic.options()));
    world.set_settings(&topic.settings());
    let mut world = world;
    world.start();
    let begin = Instant::now();
    world.wait_for("the end of the topic", |world| source(world, "bids")["lag"] == 0);
    let seconds = begin.elapsed().as_secs_f64();
    counted(&world, events);
    seconds
}

#[test]
#[ignore = "measures"]
fn throughput_of_a_topic_against_http() {
    let Some(broker) = shared() else { return };
    let events: usize = std::env::var("TRUEUP_KAFKA_EVENTS").ok().and_then(|n| n.parse().ok()).unwrap_or(2_000_000);
    let bodies: Vec<String> = (0..events / BATCH)
        .map(|batch| (batch * BATCH..(batch + 1) * BATCH).map(|number| bid(number) + "\n").collect())
        .collect();
    let topic = Topic::create(broker, PARTITIONS as i32);
    for (number, body) in bodies.iter().enumerate() {
        topic.write(body.lines().map(|line| topic.record((number % PARTITIONS as usize) as i32, line)));
    }
    let events = bodies.len() * BATCH;
    for round in 1..=ROUNDS {
        let (http, kafka) = (over_http(&bodies), over_a_topic(&topic, events));
        println!(
            "round {round}: HTTP {:.0}/s, topic {:.0}/s, {:.2} of HTTP",
            events as f64 / http,
            events as f64 / kafka,
            http / kafka
        );
    }
}
