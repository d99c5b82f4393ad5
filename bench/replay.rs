//! Measures events per second that a restarted server replays from its log.

use std::time::Instant;

use crate::events::{PER_CHANNEL, STREAM, bids};
use crate::server::Server;

const EVENTS: u64 = 6_000_000;
const BODY_EVENTS: u64 = 50_000;

pub fn measure() {
    let folder = tempfile::tempdir().expect("a folder");
    let definitions = format!("{STREAM}{PER_CHANNEL}");
    let server = Server::start(folder.path(), &definitions);
    for part in 0..6 {
        let from = part * EVENTS / 6;
        let bodies = (0..EVENTS / 6 / BODY_EVENTS)
            .map(|i| bids(from + i * BODY_EVENTS, from + (i + 1) * BODY_EVENTS, EVENTS))
            .collect();
        server.send("/v1/events/bids", bodies, 4);
    }
    server.kill();
    for round in 1..=3 {
        let begin = Instant::now();
        let server = Server::start(folder.path(), &definitions);
        let seconds = begin.elapsed().as_secs_f64();
        let answer = server.get("/v1/views/per_channel/rows?grain=all&group_by=");
        assert_eq!(answer["rows"][0]["bids"], serde_json::json!(EVENTS));
        println!(
            "round {round}: ready {seconds:.2} s after the start with {EVENTS} events in the log: {:.2} M events/s (recovery of \
             ids and replay together); peak {:.0} MiB",
            EVENTS as f64 / seconds / 1e6,
            server.peak_mib()
        );
        if let Some(line) = server.line_with("replayed the log") {
            println!("  {line}");
        }
        server.kill();
    }
}
