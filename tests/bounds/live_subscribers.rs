//! More live queries, and more subscribers of one, than the server may have. 10,000 subscribers need as many open files of
//! this process and of the server; where the system permits fewer, that part is skipped.

use shared::limits;
use world::World;

use crate::budget::Budget;
use crate::sockets::{Attackers, get, reply};

const DEFINITIONS: &str = "
    CREATE STREAM sales (at TIMESTAMP, amount BIGINT) WITH (event_time = 'at');
    CREATE VIEW totals AS SELECT window_start, COUNT(*) AS n FROM sales GROUP BY TUMBLE(at, INTERVAL '1' HOUR);";
/// Connections that are opened before their answers are read.
const AT_ONCE: usize = 250;

/// Subscribes to `count` live queries, the number of each given to `path`. Returns the connections, and how many were
/// refused with 503.
async fn subscribe(
    attackers: &Attackers,
    count: usize,
    path: impl Fn(usize) -> String,
) -> (Vec<tokio::net::TcpStream>, usize) {
    let (mut open, mut refused) = (Vec::with_capacity(count), 0);
    for first in (0..count).step_by(AT_ONCE) {
        let some = (first..count.min(first + AT_ONCE)).map(|n| attackers.unread(get(&path(n), "")));
        for mut stream in futures::future::join_all(some).await {
            match reply(&mut stream).await.status() {
                200 => open.push(stream),
                503 => refused += 1,
                status => panic!("answered with {status}"),
            }
        }
    }
    (open, refused)
}

#[test]
fn live_queries_and_their_subscribers_are_refused_beyond_their_numbers() {
    let world = World::new(DEFINITIONS);
    let attackers = Attackers::of(&world);
    let live = "/v1/views/totals/live?every=60m";
    let different = |n: usize| format!("{live}&where=n%20%3E%20{n}");
    let (queries, refused) = attackers.block_on(subscribe(&attackers, limits::LIVE_FEEDS_MAX + 20, different));
    assert_eq!((queries.len(), refused), (limits::LIVE_FEEDS_MAX, 20));

    let files = rlimit::Resource::NOFILE.get_soft().unwrap_or(0) as usize;
    if files < limits::LIVE_SUBSCRIBERS_MAX + limits::DESCRIPTORS_RESERVED + 1_000 {
        println!("SKIPPED: {files} open files are too few for {} subscribers", limits::LIVE_SUBSCRIBERS_MAX);
        return;
    }
    let others = limits::LIVE_SUBSCRIBERS_MAX - queries.len() + 50;
    let (subscribers, refused) = attackers.block_on(subscribe(&attackers, others, |_| different(1)));
    assert_eq!((subscribers.len() + queries.len(), refused), (limits::LIVE_SUBSCRIBERS_MAX, 50));
    assert_eq!(world.get("/v1/views/totals/rows").status, 200, "queries are answered");
    Budget::new().connections(limits::LIVE_SUBSCRIBERS_MAX).holds("10,000 live subscribers", &world);
}
