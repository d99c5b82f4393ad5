//! Measures ten minutes of steady ingest with polling and subscribed dashboards and batch runs every minute: errors,
//! memory, and latency over time. `TRUEUP_SOAK_SECONDS` shortens it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use futures::StreamExt;

use crate::events::mixed;
use crate::server::{Server, quantile};

const PER_SECOND: u64 = 200_000;
const BODY_EVENTS: u64 = 10_000;
const POLLERS: usize = 100;
const LISTENERS: usize = 100;
const ALONE: Duration = Duration::from_secs(60);
const SECONDS: u64 = 600;
const CHANNELS: u64 = 100;

const DEFINITIONS: &str = "
    CREATE STREAM hits (at TIMESTAMP, channel STRING, amount BIGINT)
    WITH (event_time = 'at', watermark_delay = '2 seconds', allowed_lateness = '10 seconds', partitions = 2);
    CREATE VIEW per_second WITH (schedule = '* * * * *') AS
    SELECT window_start, channel, COUNT(*) AS hits, SUM(amount) AS total, MAX(amount) AS highest
    FROM hits GROUP BY TUMBLE(at, INTERVAL '10' SECOND), channel;";

fn body(first: u64) -> Vec<u8> {
    use std::fmt::Write;
    let mut text = String::with_capacity(BODY_EVENTS as usize * 70);
    for n in first..first + BODY_EVENTS {
        let r = mixed(n);
        let at = 1_767_225_600_000 + n * 1000 / PER_SECOND;
        let _ = writeln!(text, "{{\"at\":{at},\"channel\":\"channel-{}\",\"amount\":{}}}", r % CHANNELS, r % 1000);
    }
    text.into_bytes()
}

/// Observations while events were sent.
#[derive(Default)]
struct Sent {
    events: u64,
    seconds: f64,
    millis: Vec<f64>,
    refused: u64,
}

impl std::fmt::Display for Sent {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut millis = self.millis.clone();
        millis.sort_by(f64::total_cmp);
        write!(
            f,
            "{:.0} events/s, acknowledged after p50 {:.1} ms, p99 {:.1} ms, {} refusals with Retry-After",
            self.events as f64 / self.seconds,
            quantile(&millis, 0.5),
            quantile(&millis, 0.99),
            self.refused
        )
    }
}

/// Sends at the pace for so long, from event `first` on.
async fn send(client: &reqwest::Client, url: &str, first: u64, time: Duration) -> Sent {
    let mut sent = Sent::default();
    let begin = Instant::now();
    let pause = Duration::from_secs_f64(BODY_EVENTS as f64 / PER_SECOND as f64);
    let mut due = tokio::time::Instant::now();
    while begin.elapsed() < time {
        tokio::time::sleep_until(due).await;
        due += pause;
        let bytes = bytes::Bytes::from(body(first + sent.events));
        let asked = Instant::now();
        loop {
            let answer =
                client.post(format!("{url}/v1/events/hits")).body(bytes.clone()).send().await.expect("an answer");
            match answer.status().as_u16() {
                200 => break drop(answer.bytes().await.expect("an answer")),
                429 => {
                    sent.refused += 1;
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
                status => panic!("refused with {status}: {}", answer.text().await.unwrap_or_default()),
            }
        }
        sent.millis.push(asked.elapsed().as_secs_f64() * 1e3);
        sent.events += BODY_EVENTS;
    }
    sent.seconds = begin.elapsed().as_secs_f64();
    sent
}

/// What dashboards saw.
#[derive(Default)]
struct Seen {
    answers: AtomicU64,
    changes: AtomicU64,
    errors: AtomicU64,
    over: AtomicBool,
}

/// Asks once a second, of one of ten questions.
async fn poll(client: reqwest::Client, url: String, number: usize, seen: Arc<Seen>) {
    let path = format!(
        "/v1/views/per_second/rows?grain=1m&group_by=channel&where=channel%20LIKE%20'channel-{}%25'",
        number % 10
    );
    tokio::time::sleep(Duration::from_millis(number as u64 * 10)).await;
    while !seen.over.load(Ordering::Relaxed) {
        let next = tokio::time::Instant::now() + Duration::from_secs(1);
        let answered =
            async { client.get(format!("{url}{path}")).send().await?.error_for_status()?.bytes().await }.await;
        let counted = if answered.is_ok() { &seen.answers } else { &seen.errors };
        counted.fetch_add(1, Ordering::Relaxed);
        tokio::time::sleep_until(next).await;
    }
}

/// Listens to one of four questions.
async fn listen(client: reqwest::Client, url: String, number: usize, seen: Arc<Seen>) {
    let path = format!("/v1/views/per_second/live?grain={}m&group_by=&every=1s", 1 + number % 4);
    let answer = client.get(format!("{url}{path}")).send().await.and_then(reqwest::Response::error_for_status);
    let Ok(answer) = answer else {
        seen.errors.fetch_add(1, Ordering::Relaxed);
        return;
    };
    let mut pieces = answer.bytes_stream();
    while let Some(piece) = pieces.next().await {
        let counted = if piece.is_ok() { &seen.changes } else { &seen.errors };
        counted.fetch_add(1, Ordering::Relaxed);
    }
    if !seen.over.load(Ordering::Relaxed) {
        seen.errors.fetch_add(1, Ordering::Relaxed);
    }
}

pub fn measure() {
    let seconds = std::env::var("TRUEUP_SOAK_SECONDS").ok().and_then(|n| n.parse().ok()).unwrap_or(SECONDS);
    let folder = tempfile::tempdir().expect("a folder");
    let server = Server::start(folder.path(), DEFINITIONS);
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a runtime");
    let client = reqwest::Client::builder().no_proxy().build().expect("a client");
    let url = server.url.clone();
    let alone = runtime.block_on(send(&client, &url, 0, ALONE));
    println!("alone: {alone}");
    let seen = Arc::new(Seen::default());
    for number in 0..POLLERS {
        runtime.spawn(poll(client.clone(), url.clone(), number, Arc::clone(&seen)));
    }
    let listeners: Vec<_> = (0..LISTENERS)
        .map(|number| runtime.spawn(listen(client.clone(), url.clone(), number, Arc::clone(&seen))))
        .collect();
    let mut events = alone.events;
    let mut all = Sent::default();
    let slice = Duration::from_secs(seconds.div_ceil(10));
    for tenth in 1..=10 {
        let sent = runtime.block_on(send(&client, &url, events, slice));
        events += sent.events;
        println!("{tenth}/10: {sent}; resident {:.0} MiB", server.resident_mib());
        all.events += sent.events;
        all.seconds += sent.seconds;
        all.refused += sent.refused;
        all.millis.extend(sent.millis);
    }
    seen.over.store(true, Ordering::Relaxed);
    listeners.iter().for_each(tokio::task::JoinHandle::abort);
    println!("with {POLLERS} that poll and {LISTENERS} that listen: {all}");
    let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
    println!(
        "{} answers, {} changes heard, {} errors; peak {:.0} MiB",
        count(&seen.answers),
        count(&seen.changes),
        count(&seen.errors),
        server.peak_mib()
    );
    let answer = server.get("/v1/views/per_second/rows?grain=all&group_by=&measures=hits");
    assert_eq!(answer["rows"][0]["hits"], serde_json::json!(events), "{}", answer["ledger"]);
    assert_eq!(answer["complete"], serde_json::json!(true));
    println!("{events} events sent, {} counted", answer["rows"][0]["hits"]);
}
