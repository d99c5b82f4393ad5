//! Measures the hot path: queries over HTTP on five million batch rows and a live generation in memory, for the last 60
//! windows by group, 1,000 rows of JSON: `cargo build --release --workspace --examples`, then `hot` in the target folder's
//! `release/examples`. Prints percentiles.

#[path = "../tests/world/mod.rs"]
mod world;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow::array::{ArrayRef, StringViewArray};
use arrow::datatypes::i256;
use axum::body::Body;
use axum::http::Request;
use shared::date_partition::DatePartition;
use shared::ids::Offset;
use shared::ledger::Ledger;
use shared::partial::block::{Block, Part};
use shared::partial::keys::{KeyIndex, KeyLayout};
use shared::partial::states::States;
use shared::readers::Generation;
use shared::view::{Precision, View};
use shared::window::WindowId;
use tower::ServiceExt;
use world::{P0, World};

const SQL: &str = "
CREATE STREAM bids (at TIMESTAMP, channel STRING, price BIGINT) WITH (event_time = 'at', watermark_delay = '1 minute');
CREATE VIEW bidding AS SELECT window_start, window_end, channel, COUNT(*) AS bids, SUM(price) AS price, MAX(price) AS highest
FROM bids GROUP BY TUMBLE(at, INTERVAL '1' MINUTE), channel;
";
const MINUTE: i64 = 60_000_000;
const MINUTES: i64 = 5_000;
const CHANNELS: u32 = 1_000;
const REQUESTS: usize = 3_000;

/// Builds rows of every channel in the minutes `from..to`, as batch loads them: sorted, in one block.
fn part(view: &View, minutes: std::ops::Range<i64>) -> Part {
    let types = view.dimensions.iter().map(|d| d.expression.data_type).collect();
    let layout = Arc::new(KeyLayout::new(types).expect("a layout"));
    let names: StringViewArray = (0..CHANNELS).map(|c| Some(format!("channel-{c:04}"))).collect();
    let mut index = KeyIndex::default();
    let encoded = layout.encode(&[Arc::new(names) as ArrayRef]).expect("encodes");
    let ids: Vec<u32> = encoded.iter().map(|row| index.id_of(row.as_ref())).collect();
    let mut block = Block::empty(view, Precision::Sketch);
    for minute in minutes {
        ids.iter().for_each(|id| block.push(WindowId(minute * MINUTE), *id));
    }
    for states in &mut block.states {
        let value = |i: usize| (i * 7919 % 1000) as i64;
        match states {
            States::Count(counts) => counts.iter_mut().enumerate().for_each(|(i, c)| *c = value(i) + 1),
            States::Integers { sums, counts } => {
                *sums = (0..counts.len()).map(|i| Some(i256::from_i128(i128::from(value(i)) * 100))).collect();
                counts.iter_mut().enumerate().for_each(|(i, c)| *c = value(i) + 1);
            }
            States::Ordered { values, seen, .. } => {
                values.iter_mut().enumerate().for_each(|(i, v)| *v = value(i));
                seen.fill(true);
            }
            other => panic!("the view has no {other:?}"),
        }
    }
    block.sorted = true;
    Part { layout, panes: false, keys: index.keys().clone(), blocks: vec![Arc::new(block)] }
}

fn world() -> World {
    let world = World::new(SQL);
    world.publish(1, "");
    let view = Arc::clone(&world.by_name["bidding"]);
    let of_day = |day: i64| Arc::new(part(&view, day..(day + 1440).min(MINUTES)));
    let days = (0..MINUTES).step_by(1440).map(|day| (DatePartition::Undated, of_day(day)));
    world.batch.parts.lock().insert("bidding".to_owned(), days.collect());
    let live = part(&view, MINUTES - 5..MINUTES + 1);
    let generation = Generation {
        released: None,
        partition: P0,
        from: Offset(0),
        to: Offset(0),
        part: live,
        folded: Ledger::EMPTY,
        late: Ledger::EMPTY,
        failed: Ledger::EMPTY,
        failed_events: Arc::default(),
        accepted: Ledger::EMPTY,
    };
    world.speed.generations.lock().insert("bidding".to_owned(), vec![generation]);
    world
}

/// Sends one request on a kept connection and reads the complete response.
fn ask(connection: &mut TcpStream, request: &str, answer: &mut Vec<u8>) -> std::io::Result<()> {
    connection.write_all(request.as_bytes())?;
    answer.clear();
    let mut buffer = [0u8; 65536];
    let mut wanted = usize::MAX;
    while answer.len() < wanted {
        let read = connection.read(&mut buffer)?;
        answer.extend_from_slice(&buffer[..read]);
        if wanted == usize::MAX
            && let Some(head) = answer.windows(4).position(|w| w == b"\r\n\r\n")
        {
            let text = String::from_utf8_lossy(&answer[..head]).to_lowercase();
            let length =
                text.lines().find_map(|l| l.strip_prefix("content-length: ")).and_then(|l| l.parse::<usize>().ok());
            wanted = head + 4 + length.expect("a length");
        }
    }
    Ok(())
}

fn print(how: &str, mut times: Vec<Duration>) {
    times.sort_unstable();
    let at = |share: f64| times[((times.len() - 1) as f64 * share) as usize];
    println!("  {how}: p50 {:?}, p95 {:?}, p99 {:?}", at(0.5), at(0.95), at(0.99));
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let routes = world().routes();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    let in_process = routes.clone();
    tokio::spawn(async move { axum::serve(listener, routes).await });
    let from = shared::time::Micros((MINUTES - 59) * MINUTE);
    for query in [
        format!("from={from}&grain=all&group_by=channel"),
        format!("from={from}&grain=all&group_by="),
        format!("from={from}&grain=all&group_by=channel&order_by=-bids&limit=10"),
        format!("from={from}&group_by=channel&limit=100000"),
        "grain=1d&group_by=channel&order_by=-bids&limit=10".to_owned(),
    ] {
        let requests = if query.contains("grain=all") { REQUESTS } else { 20 };
        let request = format!("GET /v1/views/bidding/rows?{query} HTTP/1.1\r\nhost: localhost\r\n\r\n");
        let measured = tokio::task::spawn_blocking(move || -> std::io::Result<(Vec<Duration>, usize)> {
            let mut connection = TcpStream::connect(address)?;
            connection.set_nodelay(true)?;
            let mut answer = Vec::new();
            let mut times = Vec::with_capacity(requests);
            for _ in 0..requests + 10 {
                let started = Instant::now();
                ask(&mut connection, &request, &mut answer)?;
                times.push(started.elapsed());
            }
            Ok((times.split_off(10), answer.len()))
        });
        let (times, bytes) = measured.await??;
        println!("{query}: {bytes} bytes");
        print("over HTTP", times);
        let mut times = Vec::with_capacity(requests);
        for _ in 0..requests {
            let started = Instant::now();
            let request = Request::get(format!("/v1/views/bidding/rows?{query}")).body(Body::empty())?;
            let answer = in_process.clone().oneshot(request).await?;
            axum::body::to_bytes(answer.into_body(), usize::MAX).await?;
            times.push(started.elapsed());
        }
        print("in process", times);
    }
    Ok(())
}
