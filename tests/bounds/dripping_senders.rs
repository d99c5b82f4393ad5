//! Eight senders with large bodies, and hundreds of others, that send one byte at a time: in the head, in a body of events
//! and in the body of another request. `TRUEUP_BOUNDS_PATIENCE_S` waits for the time limits to end them (90 is enough).

use std::time::Duration;

use serde_json::json;
use shared::limits;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use world::World;

use crate::budget::{Budget, MIB};
use crate::setting;
use crate::sockets::{Attackers, post_head, reply};

const DEFINITIONS: &str = "
    CREATE STREAM notes (at TIMESTAMP, text STRING) WITH (event_time = 'at');
    CREATE VIEW per_hour AS SELECT window_start, COUNT(*) AS n FROM notes GROUP BY TUMBLE(at, INTERVAL '1' HOUR);";
const LARGE: usize = 8;
/// Bytes that each of the eight sends before it slows down.
const LARGE_BYTES: usize = 16 * MIB;
/// Of each kind.
const SMALL: usize = 200;

/// Sends one byte every half second, until the server closes the connection.
async fn drip(mut stream: TcpStream, byte: u8) -> u16 {
    loop {
        tokio::select! {
            reply = reply(&mut stream) => return reply.status(),
            () = tokio::time::sleep(Duration::from_millis(500)) => {}
        }
        if stream.write_all(&[byte]).await.is_err() {
            return 0;
        }
    }
}

#[test]
fn dripping_senders_hold_what_they_sent_for_a_while_and_others_are_served() {
    let mut world = World::new(DEFINITIONS);
    let attackers = Attackers::of(&world);
    let mut drippers = Vec::new();
    attackers.block_on(async {
        for _ in 0..LARGE {
            let mut stream = attackers.connect().await;
            // It announces as much as it may.
            let head = post_head("/v1/events/notes", limits::EVENT_BODY_BYTES_MAX);
            stream.write_all(&head).await.expect("the server reads");
            stream.write_all(&vec![b' '; LARGE_BYTES]).await.expect("the server reads");
            drippers.push((stream, b' '));
        }
        for _ in 0..SMALL {
            let heads: [(&[u8], u8); 3] = [
                (b"GET /livez HTTP/1.1\r\nhost: localhost\r\nx: ", b'x'),
                (&post_head("/v1/events/notes", limits::EVENT_BODY_BYTES_MAX), b' '),
                (&post_head("/v1/views/per_hour/runs", 1_000), b' '),
            ];
            for (head, byte) in heads {
                let mut stream = attackers.connect().await;
                stream.write_all(head).await.expect("the server reads");
                drippers.push((stream, byte));
            }
        }
    });
    let connections = drippers.len();
    let drippers: Vec<_> = drippers.into_iter().map(|(stream, byte)| attackers.spawn(drip(stream, byte))).collect();

    // The good clients: bodies of 1 MiB, and queries.
    let text = "x".repeat(10_000);
    let event = json!({"at": "2026-01-01T00:00:00Z", "text": text}).to_string() + "\n";
    let body = event.repeat(100);
    for n in 1..=5 {
        assert_eq!(world.post("/v1/events/notes", body.clone()).status, 200);
        assert_eq!(world.rows("per_hour", "")["rows"][0]["n"], json!(n * 100));
    }
    assert_eq!(world.run("per_hour", false)["state"], json!("published"));
    let in_flight = LARGE * 2 * LARGE_BYTES;
    let budget = Budget::new()
        .connections(connections)
        .bodies(in_flight)
        .partition(2 * MIB, 5 * MIB)
        .and("bodies of other requests", SMALL * limits::REQUEST_BODY_BYTES_MAX)
        .and("a run", 320 * MIB);
    budget.holds("608 dripping senders", &world);

    // The bodies of other requests are refused first, after ten seconds.
    let patience = Duration::from_secs(setting("TRUEUP_BOUNDS_PATIENCE_S", 0) as u64);
    if !patience.is_zero() {
        let ended =
            attackers.block_on(async { tokio::time::timeout(patience, futures::future::join_all(drippers)).await });
        let statuses: Vec<u16> =
            ended.expect("all end in time").into_iter().map(|ended| ended.expect("ends")).collect();
        let refused = statuses.iter().filter(|status| **status == 408).count();
        println!("{refused} of {connections} got 408, the others were closed");
        assert!(refused >= LARGE + 2 * SMALL, "{statuses:?}");
        budget.holds("608 dripping senders to their end", &world);
    }
    assert!(world.is_running());
}
