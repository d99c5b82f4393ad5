//! Measures the time from acknowledgement to visibility: how long until a query includes an acknowledged event.

use std::time::Instant;

use serde_json::json;

use crate::events::{PER_CHANNEL, STREAM, bids};
use crate::server::{Server, quantile};

const PROBES: usize = 500;

pub fn measure() {
    let folder = tempfile::tempdir().expect("a folder");
    let probes = "
        CREATE STREAM probes (at TIMESTAMP) WITH (event_time = 'at');
        CREATE VIEW seen AS SELECT COUNT(*) AS n FROM probes;";
    let server = Server::start(folder.path(), &format!("{STREAM}{PER_CHANNEL}{probes}"));
    probe("quiet", &server, 0);
    // The same while another client sends as fast as it can.
    let url = server.url.clone();
    let (stop, stopped) = std::sync::mpsc::channel::<()>();
    let load = std::thread::spawn(move || {
        let client = reqwest::Client::builder().no_proxy().build().expect("a client");
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let mut from = 0;
        while stopped.try_recv().is_err() {
            let body = bids(from, from + 5_000, 50_000_000);
            from += 5_000;
            let request = client.post(format!("{url}/v1/events/bids")).body(body);
            let _ = runtime.block_on(async { request.send().await?.bytes().await });
        }
        from
    });
    let begin = Instant::now();
    probe("under load", &server, PROBES);
    let seconds = begin.elapsed().as_secs_f64();
    stop.send(()).expect("the load is running");
    let sent = load.join().expect("the load ends");
    println!("  the load: {:.0} events/s", sent as f64 / seconds);
}

fn probe(what: &str, server: &Server, before: usize) {
    let mut millis = Vec::with_capacity(PROBES);
    for n in 1..=PROBES {
        server.post("/v1/events/probes", b"{\"at\":\"2026-01-01T00:00:00Z\"}".to_vec());
        let begin = Instant::now();
        while server.get("/v1/views/seen/rows")["rows"][0]["n"] != json!(before + n) {}
        millis.push(begin.elapsed().as_secs_f64() * 1e3);
    }
    millis.sort_by(f64::total_cmp);
    println!(
        "{what}: p50 {:.2} ms, p99 {:.2} ms from acknowledgement to the answer that shows it ({PROBES} probes, the query included)",
        quantile(&millis, 0.5),
        quantile(&millis, 0.99)
    );
}
