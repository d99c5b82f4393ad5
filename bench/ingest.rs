//! Measures events per second through HTTP, durable, into one tumbling view, beside the JSON decoder alone on the same
//! bytes.

use std::time::Instant;

use crate::events::{PER_CHANNEL, STREAM, bids};
use crate::server::{Server, cpu_seconds};

const EVENTS: u64 = 6_000_000;
const BODY_EVENTS: u64 = 20_000;

pub fn measure() {
    let definitions = format!("{STREAM}{PER_CHANNEL}");
    let streams = shared::sql::parse_definitions(&[("bids.sql".to_owned(), definitions.clone())]).expect("definitions");
    let sample: Vec<Vec<u8>> = (0..20).map(|i| bids(i * BODY_EVENTS, (i + 1) * BODY_EVENTS, EVENTS)).collect();
    let bytes = sample.iter().map(Vec::len).sum::<usize>() as f64 / (20 * BODY_EVENTS) as f64;
    println!("{EVENTS} events of {bytes:.0} bytes, {BODY_EVENTS} a request");
    for round in 1..=3 {
        let begin = Instant::now();
        for body in &sample {
            let decoded = intake::decode::decode(&streams.streams[0], body, Default::default()).expect("decodes");
            assert_eq!(decoded.rows.num_rows() as u64, BODY_EVENTS);
        }
        let alone = (20 * BODY_EVENTS) as f64 / begin.elapsed().as_secs_f64();

        let begin = Instant::now();
        for body in &sample {
            let mut lines = 0;
            for value in
                serde_json::Deserializer::from_slice(body).into_iter::<serde_json::Map<String, serde_json::Value>>()
            {
                lines += usize::from(value.is_ok());
            }
            assert_eq!(lines as u64, BODY_EVENTS);
        }
        let serde = (20 * BODY_EVENTS) as f64 / begin.elapsed().as_secs_f64();

        let folder = tempfile::tempdir().expect("a folder");
        let server = Server::start(folder.path(), &definitions);
        let bodies: Vec<Vec<u8>> =
            (0..EVENTS / BODY_EVENTS).map(|i| bids(i * BODY_EVENTS, (i + 1) * BODY_EVENTS, EVENTS)).collect();
        let (server_before, client_before) = (server.cpu_seconds(), cpu_seconds("self"));
        let seconds = server.send("/v1/events/bids", bodies, 4);
        let server_cpu = server.cpu_seconds() - server_before;
        let client_cpu = cpu_seconds("self") - client_before;
        let answer = server.get("/v1/views/per_channel/rows?grain=all&group_by=");
        assert_eq!(answer["rows"][0]["bids"], serde_json::json!(EVENTS), "{}", answer["ledger"]);
        let millions = EVENTS as f64 / 1e6;
        println!(
            "round {round}: {:.2} M events/s; CPU-s per M events: server {:.2}, client {:.2}; server per core {:.2} M/s; \
             decoder alone {:.2} M/s (serde_json into values {:.2}); peak {:.0} MiB",
            millions / seconds,
            server_cpu / millions,
            client_cpu / millions,
            millions / server_cpu,
            alone / 1e6,
            serde / 1e6,
            server.peak_mib(),
        );
    }
}
