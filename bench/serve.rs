//! Measures requests per second of a cached dashboard query, beside a static file of 1.2 KB from the same server, with
//! 1, 16 and 256 connections (`wrk`); and a query over all of history during ingest, with the batch merge cache cold
//! and warm.

use std::process::Command;
use std::time::Instant;

use crate::query::{filled, history_minutes, minutes};
use crate::server::{Server, quantile};

const CONNECTIONS: [usize; 3] = [1, 16, 256];
const SECONDS: u32 = 5;
const ROUNDS: usize = 3;
const QUERIES: u64 = 60;
/// Changes nothing that a query answers.
const STATIC: &str = "/assets/live_updates.js";

pub fn measure() {
    let folder = tempfile::tempdir().expect("a folder");
    let server = filled(folder.path());
    requests_per_second(&server);
    shares(&server);
    println!("peak {:.0} MiB", server.peak_mib());
}

fn from(minutes_back: u64) -> shared::time::Micros {
    shared::time::Micros((1_767_225_600_000 + (history_minutes() - minutes_back) as i64 * 60_000) * 1000)
}

fn requests_per_second(server: &Server) {
    let dashboard = format!("/v1/views/per_minute/rows?from={}&group_by=&measures=hits,total", from(30));
    let bytes = server.get_bytes(&dashboard).len();
    let of_static = server.get_bytes(STATIC).len();
    println!("dashboard query: 60 windows, {bytes} bytes; static file: {of_static} bytes");
    for connections in CONNECTIONS {
        for round in 1..=ROUNDS {
            let measured = [STATIC, &dashboard].map(|path| wrk(&format!("{}{path}", server.url), connections));
            let [file, query] = &measured;
            println!(
                "{connections} connections, round {round}: static {file}; dashboard {query}; ratio {:.2}",
                query.per_second / file.per_second
            );
        }
    }
}

struct LoadReport {
    per_second: f64,
    p50: String,
    p99: String,
}

impl std::fmt::Display for LoadReport {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:.0}/s (p50 {}, p99 {})", self.per_second, self.p50, self.p99)
    }
}

fn wrk(url: &str, connections: usize) -> LoadReport {
    let output = Command::new("wrk")
        .args(["--latency", "-t1", &format!("-c{connections}"), &format!("-d{SECONDS}s"), url])
        .output()
        .expect("wrk is installed (apt-get install wrk)");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success() && !text.contains("Non-2xx") && !text.contains("Socket errors"), "{text}");
    let word = |name: &str| {
        let line = text.lines().map(str::trim).find(|line| line.starts_with(name));
        line.and_then(|line| line.split_whitespace().last()).unwrap_or_else(|| panic!("{name}: {text}")).to_owned()
    };
    LoadReport { per_second: word("Requests/sec").parse().expect("a number"), p50: word("50%"), p99: word("99%") }
}

/// A query over all rows, before each of which an event comes in, so that no answer is repeated.
fn shares(server: &Server) {
    // Ends behind all data: another end asks the same rows, in another question.
    let end = |hours: u64| shared::time::Micros(from(0).0 + (hours + 100) as i64 * 3_600_000_000);
    let query = |to: shared::time::Micros| {
        server.post("/v1/events/hits", minutes(history_minutes() + 40, history_minutes() + 41));
        let path = format!("/v1/views/per_minute/rows?to={to}&grain=1h&group_by=&measures=hits");
        let asked = Instant::now();
        server.get_bytes(&path);
        asked.elapsed().as_secs_f64() * 1e3
    };
    let (mut anew, mut kept) = (Vec::new(), Vec::new());
    query(end(0));
    for n in 1..=QUERIES {
        anew.push(query(end(n)));
        kept.push(query(end(0)));
    }
    for (what, times) in [("added up anew", &mut anew), ("kept from before", &mut kept)] {
        times.sort_by(f64::total_cmp);
        println!(
            "5 million batch rows by the hour, an event before each question, batch's share {what}: p50 {:.2} ms, p99 {:.2} ms",
            quantile(times, 0.5),
            quantile(times, 0.99)
        );
    }
}
