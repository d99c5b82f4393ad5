//! Measures the dashboard query: 60 windows by a dimension, other ones each time and then the same ones, over 5 million batch
//! rows (`TRUEUP_MINUTES` times 1,000) and a live generation.

use std::fmt::Write;
use std::io::{Read, Write as _};
use std::net::TcpStream;
use std::time::Instant;

use crate::events::mixed;
use crate::server::{Server, quantile};

/// Minutes of history, unless `TRUEUP_MINUTES` says otherwise.
const MINUTES: u64 = 5_000;
/// Rows that a query may read in one go, so larger histories are not counted as a whole.
const COUNTED_MINUTES_MAX: u64 = 5_000;
const KEYS: u64 = 1_000;
const QUERIES: usize = 2_000;

const DEFINITIONS: &str = "
    CREATE STREAM hits (at TIMESTAMP, channel STRING, amount BIGINT) WITH (event_time = 'at', allowed_lateness = '1 hour');
    CREATE VIEW per_minute AS
    SELECT window_start, channel, COUNT(*) AS hits, SUM(amount) AS total, MAX(amount) AS highest
    FROM hits GROUP BY TUMBLE(at, INTERVAL '1' MINUTE), channel;";

/// Minutes of history.
pub fn history_minutes() -> u64 {
    std::env::var("TRUEUP_MINUTES").ok().and_then(|minutes| minutes.parse().ok()).unwrap_or(MINUTES)
}

/// One event for every key in each of the minutes.
pub fn minutes(from: u64, to: u64) -> Vec<u8> {
    let mut text = String::new();
    for minute in from..to {
        for key in 0..KEYS {
            let at = 1_767_225_600_000 + minute * 60_000 + key;
            let _ = writeln!(
                text,
                "{{\"at\":{at},\"channel\":\"channel-{key}\",\"amount\":{}}}",
                mixed(minute * KEYS + key) % 1000
            );
        }
    }
    text.into_bytes()
}

/// A server whose batch version has all minutes, and whose live generation has the last half hour again and half an hour on.
pub fn filled(folder: &std::path::Path) -> Server {
    let (server, history) = (Server::start(folder, DEFINITIONS), history_minutes());
    for part in (0..history).step_by(500) {
        let bodies = (part..history.min(part + 500)).step_by(25).map(|m| minutes(m, history.min(m + 25))).collect();
        server.send("/v1/events/hits", bodies, 2);
    }
    server.run("per_minute", false);
    server.send("/v1/events/hits", vec![minutes(history - 30, history + 30)], 1);
    server
}

pub fn measure() {
    let folder = tempfile::tempdir().expect("a folder");
    let (server, history) = (filled(folder.path()), history_minutes());
    let path = |minute: u64, windows: u64| {
        let time = |minute: u64| shared::time::Micros((1_767_225_600_000 + minute as i64 * 60_000) * 1000);
        let (from, to) = (time(minute), time(minute + windows));
        format!("/v1/views/per_minute/rows?from={from}&to={to}&grain=all&group_by=channel")
    };
    let last = path(history - 30, 60);
    let answer = server.get(&last);
    assert_eq!(answer["rows"].as_array().map(Vec::len), Some(KEYS as usize));
    assert_eq!(answer["rows"][0]["hits"], serde_json::json!(30 + 60));
    if history <= COUNTED_MINUTES_MAX {
        let everything = server.get("/v1/views/per_minute/rows?grain=all&group_by=");
        assert_eq!(everything["rows"][0]["hits"], serde_json::json!((history + 60) * KEYS));
    }
    let address = server.url.trim_start_matches("http://").to_owned();
    // Ranges that no query has asked for, so nothing that was kept answers one.
    let ranges = history - 60;
    let other = |number: u64| path(number * 7_919 % ranges, 60 + number / ranges);
    latencies("60 windows by channel over HTTP, of any time", &address, other);
    latencies("  the last 60, asked for again", &address, |_| last.clone());
    latencies("  a static answer (/livez)", &address, |_| "/livez".to_owned());
    println!("peak {:.0} MiB", server.peak_mib());
}

/// Plain HTTP over one open connection, so that the client's own cost stays small.
fn latencies(what: &str, address: &str, path: impl Fn(u64) -> String) {
    let mut connection = TcpStream::connect(address).expect("a connection");
    connection.set_nodelay(true).expect("a socket option");
    let mut buffer = vec![0; 1 << 20];
    let mut millis = Vec::with_capacity(QUERIES);
    let mut size = 0;
    for i in 0..QUERIES + 100 {
        let path = path(i as u64);
        let request = format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nAccept: application/json\r\n\r\n");
        let begin = Instant::now();
        connection.write_all(request.as_bytes()).expect("a request");
        size = read_answer(&mut connection, &mut buffer);
        if i >= 100 {
            millis.push(begin.elapsed().as_secs_f64() * 1e3);
        }
    }
    millis.sort_by(f64::total_cmp);
    println!(
        "{what}: p50 {:.3} ms, p99 {:.3} ms ({QUERIES} queries, {size} bytes each)",
        quantile(&millis, 0.5),
        quantile(&millis, 0.99)
    );
}

/// Reads one answer with a Content-Length; gives its size.
fn read_answer(connection: &mut TcpStream, buffer: &mut Vec<u8>) -> usize {
    let mut filled = 0;
    loop {
        if filled == buffer.len() {
            buffer.resize(buffer.len() * 2, 0);
        }
        let read = connection.read(&mut buffer[filled..]).expect("an answer");
        assert!(read > 0, "the server closed the connection");
        filled += read;
        let Some(head) = buffer[..filled].windows(4).position(|w| w == b"\r\n\r\n") else { continue };
        let text = String::from_utf8_lossy(&buffer[..head]).to_ascii_lowercase();
        assert!(text.starts_with("http/1.1 200"), "{text}");
        let length = text.lines().find_map(|l| l.strip_prefix("content-length: ")?.trim().parse::<usize>().ok());
        let whole = head + 4 + length.expect("a Content-Length");
        if filled >= whole {
            return whole;
        }
    }
}
