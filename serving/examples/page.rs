//! Does the page look right? A server over made-up flights that keep coming, with a run every few seconds and no other
//! layer: `cargo run --release -p serving --example page -- [address] [empty]`.

#[path = "../tests/world/mod.rs"]
mod world;

use std::time::Duration;

use serde_json::json;
use shared::clock::{Clock, SystemClock};
use shared::compare::MeasureDrift;
use shared::control::{PartitionStatus, StreamColumn, StreamStatus};
use shared::ids::Offset;
use shared::time::Micros;
use world::{P0, World, a_comparison};

const SQL: &str = "
CREATE STREAM flights (
  flight_id STRING PRIMARY KEY, scheduled_at TIMESTAMP, origin STRING, destination STRING, delay_min BIGINT, distance_mi BIGINT
) WITH (event_time = 'scheduled_at', watermark_delay = '30 minutes', allowed_lateness = '2 hours');
CREATE VIEW departures WITH (schedule = '*/15 * * * *') AS
SELECT window_start, window_end, origin, COUNT(*) AS flights, AVG(delay_min) AS avg_delay, MAX(delay_min) AS worst_delay,
       COUNT(*) FILTER (WHERE delay_min > 15) AS late_flights
FROM flights GROUP BY TUMBLE(scheduled_at, INTERVAL '1' HOUR), origin;
CREATE VIEW routes AS
SELECT window_start, origin, destination, AVG(delay_min) AS avg_delay
FROM flights GROUP BY TUMBLE(scheduled_at, INTERVAL '1' DAY), origin, destination;
CREATE VIEW totals WITH (schedule = '0 * * * *') AS
SELECT origin, COUNT(*) AS flights, SUM(distance_mi) AS miles, MAX(delay_min) AS worst_delay FROM flights GROUP BY origin;
";
const AIRPORTS: [&str; 12] = ["ATL", "ORD", "DFW", "LAX", "DEN", "PHX", "SFO", "LAS", "MSP", "IAH", "DTW", "STL"];
const HOUR: i64 = 3_600_000_000;

/// A small generator, so that every run shows the same flights.
struct Flights {
    state: u64,
    made: u64,
    start: i64,
}

impl Flights {
    fn number(&mut self, below: u64) -> u64 {
        self.state = self.state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.state >> 33) % below
    }

    /// Flights of the hour `hour`, a few of them of hours before.
    fn hour(&mut self, hour: i64, share: u64) -> String {
        let daily = [2, 1, 1, 1, 2, 8, 20, 28, 30, 27, 26, 28, 30, 29, 28, 27, 29, 31, 29, 24, 18, 12, 7, 4];
        let many = (daily[hour.rem_euclid(24) as usize] * 6 * share / 10).max(1);
        let mut lines = String::new();
        for _ in 0..many {
            let back = if self.number(12) == 0 { self.number(9) as i64 } else { 0 };
            let at = self.start + (hour - back) * HOUR + self.number(HOUR as u64) as i64;
            let origin = AIRPORTS[(self.number(12) * self.number(12) / 11) as usize];
            let destination = AIRPORTS[self.number(12) as usize];
            let delay = self.number(60) as i64 * self.number(6) as i64 / 4 - 12;
            self.made += 1;
            let event = json!({"flight_id": format!("f{}", self.made), "scheduled_at": Micros(at).to_string(), "origin": origin,
                               "destination": destination, "delay_min": delay, "distance_mi": 200 + self.number(2000)});
            lines.push_str(&format!("{event}\n"));
        }
        lines
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let address = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:8099".to_owned());
    let empty = std::env::args().nth(2).is_some();
    let world = World::new(SQL);
    world.clock.set(SystemClock.now());
    let listener = tokio::net::TcpListener::bind(&address).await?;
    eprintln!("http://{}", listener.local_addr()?);
    let routes = world.routes();
    let server = tokio::spawn(async move { axum::serve(listener, routes).await });
    let mut flights = Flights { state: 7, made: 0, start: Micros::parse("2001-01-01").unwrap_or_default().0 };
    show_stream(&world, &flights);
    if !empty {
        replay(world, &mut flights).await;
    }
    Ok(server.await??)
}

/// Three hours a second, in tenths; a run every seven seconds.
async fn replay(world: World, flights: &mut Flights) {
    let mut all: String = (0..40).map(|hour| flights.hour(hour, 10)).collect();
    world.publish(1, &all);
    let mut version = 1;
    for step in 0i64.. {
        let hour = 40 + step * 3 / 10;
        let live = flights.hour(hour, 3);
        all.push_str(&live);
        world.live(&live);
        world.clock.set(SystemClock.now());
        *world.speed.watermark.lock() = Some(Micros(flights.start + hour * HOUR - HOUR / 2));
        *world.runs.next_run.lock() = Some(Micros(SystemClock.now().0 + (70 - step % 70) * 100_000));
        if step % 70 == 69 {
            version += 1;
            tokio::task::block_in_place(|| publish(&world, version, &all));
        }
        show_stream(&world, flights);
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

fn publish(world: &World, version: i64, all: &str) {
    world.clock.set(Micros(SystemClock.now().0 + 60_000_000));
    world.speed.generations.lock().clear();
    world.publish(version, all);
    world.clock.set(SystemClock.now());
    for view in ["departures", "totals"] {
        let mut comparison = a_comparison(view, version);
        (comparison.rows_compared, comparison.rows_equal, comparison.causes.late) = (412, 397, 15);
        let drift = MeasureDrift { equal: 397, max_abs_error: 2.0, max_rel_error: 0.04, mean_rel_error: 0.001 };
        comparison.measures.insert("flights".to_owned(), drift);
        world.runs.comparisons.lock().push(comparison);
    }
}

fn show_stream(world: &World, flights: &Flights) {
    let column = |c: &shared::stream::Column| StreamColumn {
        name: c.name.clone(),
        data_type: c.data_type.to_string(),
        role: (c.name == "flight_id").then(|| "primary key".to_owned()),
    };
    let partition = PartitionStatus {
        partition: P0,
        log_start: Offset(0),
        head: Offset(flights.made),
        archived: Offset(flights.made),
        watermark: *world.speed.watermark.lock(),
        accepted: flights.made,
        duplicates: flights.made / 400,
        late: flights.made / 90,
        ahead: 0,
        log_bytes: flights.made * 60,
        last_arrival: None,
        archive_error: None,
    };
    *world.streams.0.lock() = vec![StreamStatus {
        name: world.stream.name.clone(),
        columns: world.stream.columns.iter().map(column).collect(),
        partitions: vec![partition],
        rejected: 0,
        unknown_fields: 0,
        events_per_second: if flights.made > 0 { 312.4 } else { 0.0 },
    }];
}
