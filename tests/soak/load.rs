//! Puts a steady load on a server: one sender at a fixed rate, readers that ask every second, and subscribers.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use futures::StreamExt;
use parking_lot::Mutex;
use world::World;

/// Events of a request.
const EVENTS: u64 = 10_000;
const CHANNELS: u64 = 100;
/// 2026-01-01, in milliseconds.
const FIRST_DAY: u64 = 1_767_225_600_000;
const DAY: u64 = 86_400_000;

/// How much load, and for how long.
#[derive(Debug)]
pub struct Plan {
    /// Load before memory is compared, so that what the server keeps for some time is full.
    pub warm_up: Duration,
    /// The time after it.
    pub time: Duration,
    /// Events per second.
    pub rate: u64,
    /// Half of them ask every second, half subscribe.
    pub readers: usize,
    pub run_every: Duration,
}

/// What clients observed.
pub struct Outcome {
    pub events: u64,
    pub seconds: f64,
    pub acknowledged: String,
    pub queried: String,
    pub changes: u64,
    pub refused: u64,
    pub errors: Vec<String>,
}

/// What readers observe, while they read.
#[derive(Default)]
struct Observations {
    query_millis: Mutex<Vec<f64>>,
    changes: AtomicU64,
    errors: Mutex<Vec<String>>,
    is_over: AtomicBool,
}

impl Observations {
    fn error(&self, what: &str, error: &dyn std::fmt::Display) {
        if !self.is_over.load(Ordering::SeqCst) {
            self.errors.lock().push(format!("{what}: {error}"));
        }
    }
}

/// The load on one server.
pub struct Load {
    client: reqwest::Client,
    url: String,
    seen: Observations,
}

impl Load {
    /// Runs the plan to its end.
    pub fn run(world: &World, plan: &Plan) -> Outcome {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
        let runtime = runtime.expect("a runtime");
        let client = reqwest::Client::builder().no_proxy().build().expect("a client");
        let load = Arc::new(Load { client, url: world.url().to_owned(), seen: Observations::default() });
        let readers: Vec<_> = (0..plan.readers)
            .map(|number| {
                let load = Arc::clone(&load);
                match number % 2 {
                    0 => runtime.spawn(async move { load.ask(number / 2).await }),
                    _ => runtime.spawn(async move { load.subscribe(number / 2).await }),
                }
            })
            .collect();
        let mut outcome = runtime.block_on(load.send(plan));
        load.seen.is_over.store(true, Ordering::SeqCst);
        readers.iter().for_each(tokio::task::JoinHandle::abort);
        outcome.queried = quantiles(&mut load.seen.query_millis.lock());
        outcome.changes = load.seen.changes.load(Ordering::SeqCst);
        outcome.errors.append(&mut load.seen.errors.lock());
        outcome
    }

    /// Sends at the rate; after a refusal it sends the same request again.
    async fn send(&self, plan: &Plan) -> Outcome {
        let pause = Duration::from_secs_f64(EVENTS as f64 / plan.rate as f64);
        let events_per_day = (plan.rate * plan.run_every.as_secs()).max(1);
        let mut body = Body::new();
        let (mut events, mut refused, mut millis, mut errors) = (0, 0, Vec::new(), Vec::new());
        let begin = Instant::now();
        let mut due = tokio::time::Instant::now();
        while begin.elapsed() < plan.warm_up + plan.time && errors.len() < 100 {
            tokio::time::sleep_until(due).await;
            due += pause;
            let bytes = body.of(events, events_per_day);
            let asked = Instant::now();
            loop {
                let request = self.client.post(format!("{}/v1/events/hits", self.url)).body(bytes.clone());
                match request.header("idempotency-key", format!("from-{events}")).send().await {
                    Ok(answer) if answer.status() == 200 => {
                        drop(answer.bytes().await);
                        events += EVENTS;
                        break;
                    }
                    Ok(answer) if answer.status() == 429 => {
                        refused += 1;
                        tokio::time::sleep(Duration::from_millis(50)).await;
                    }
                    Ok(answer) => break errors.push(format!("send: {}", answer.status())),
                    Err(error) => break errors.push(format!("send: {error}")),
                }
            }
            millis.push(asked.elapsed().as_secs_f64() * 1e3);
        }
        Outcome {
            events,
            seconds: begin.elapsed().as_secs_f64(),
            acknowledged: quantiles(&mut millis),
            queried: String::new(),
            changes: 0,
            refused,
            errors,
        }
    }

    /// Asks one of ten queries every second.
    async fn ask(&self, number: usize) {
        let digit = number % 10;
        let path = match number % 5 {
            0 => "/v1/views/per_hour/rows?order_by=-window_start&limit=48".to_owned(),
            1 => "/v1/views/per_channel/rows?grain=all".to_owned(),
            _ => format!(
                "/v1/views/per_channel/rows?order_by=-window_start&limit=200&where=channel%20LIKE%20'%25{digit}'"
            ),
        };
        let url = format!("{}{path}", self.url);
        tokio::time::sleep(Duration::from_millis(number as u64 * 17 % 1000)).await;
        while !self.seen.is_over.load(Ordering::SeqCst) {
            let next = tokio::time::Instant::now() + Duration::from_secs(1);
            let asked = Instant::now();
            let answer = async { self.client.get(&url).send().await?.error_for_status()?.bytes().await }.await;
            match answer {
                Ok(_) => self.seen.query_millis.lock().push(asked.elapsed().as_secs_f64() * 1e3),
                Err(error) => self.seen.error("query", &error),
            }
            tokio::time::sleep_until(next).await;
        }
    }

    /// Subscribes to one of four live queries.
    async fn subscribe(&self, number: usize) {
        let channel = number % 4;
        let path = format!("/v1/views/per_channel/live?every=1s&where=channel%20%3D%20'channel-{channel}'");
        let answer = self.client.get(format!("{}{path}", self.url)).send().await;
        let mut pieces = match answer.and_then(reqwest::Response::error_for_status) {
            Ok(answer) => answer.bytes_stream(),
            Err(error) => return self.seen.error("subscription", &error),
        };
        while let Some(piece) = pieces.next().await {
            match piece {
                Ok(_) => drop(self.seen.changes.fetch_add(1, Ordering::SeqCst)),
                Err(error) => self.seen.error("subscription", &error),
            }
        }
        self.seen.error("subscription", &"it ended");
    }
}

/// The text of one request, in which only ids and times change: writing it again would cost as much as the server.
struct Body {
    text: Vec<u8>,
    /// Where each event starts.
    starts: Vec<usize>,
}

const BEFORE_ID: &str = r#"{"id":"e"#;
const ID_DIGITS: usize = 12;
const BEFORE_TIME: &str = r#"","at":"#;
const TIME_DIGITS: usize = 13;

impl Body {
    fn new() -> Body {
        let (mut text, mut starts) = (Vec::new(), Vec::new());
        for n in 0..EVENTS {
            let r = n.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 20;
            starts.push(text.len());
            let (channel, amount) = (r % CHANNELS, r / CHANNELS % 1_000);
            let event = format!(
                "{BEFORE_ID}{:0ID_DIGITS$}{BEFORE_TIME}{:0TIME_DIGITS$},\"channel\":\"channel-{channel}\",\"amount\":{amount}}}\n",
                0, 0
            );
            text.extend_from_slice(event.as_bytes());
        }
        Body { text, starts }
    }

    /// Returns the events from number `first` on.
    fn of(&mut self, first: u64, events_per_day: u64) -> bytes::Bytes {
        for (number, start) in (first..).zip(&self.starts) {
            let id = start + BEFORE_ID.len();
            put(&mut self.text[id..id + ID_DIGITS], number);
            let time = id + ID_DIGITS + BEFORE_TIME.len();
            let at = u128::from(number) * u128::from(DAY) / u128::from(events_per_day);
            put(&mut self.text[time..time + TIME_DIGITS], FIRST_DAY + at as u64);
        }
        bytes::Bytes::copy_from_slice(&self.text)
    }
}

/// Writes a number with leading zeros.
fn put(digits: &mut [u8], mut number: u64) {
    for digit in digits.iter_mut().rev() {
        *digit = b'0' + (number % 10) as u8;
        number /= 10;
    }
}

fn quantiles(millis: &mut [f64]) -> String {
    if millis.is_empty() {
        return "none".to_owned();
    }
    millis.sort_by(f64::total_cmp);
    let at = |share: f64| millis[((millis.len() - 1) as f64 * share).round() as usize];
    format!("{} times, p50 {:.1}, p99 {:.1}, at most {:.1}", millis.len(), at(0.5), at(0.99), at(1.0))
}
