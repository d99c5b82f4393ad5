//! Tests histories of many clients in the style of Jepsen: writers with retries, readers, subscribers, runs, compactions,
//! kills and errors of disks. What the clients did and saw is recorded, and [`checks`] finds what contradicts the promise.
//!
//! `TRUEUP_SEEDS=100 cargo test --release -p trueup --test checker -- --nocapture` checks 100 histories, one line each;
//! `TRUEUP_SEED=n` begins with another one. Kills come at real moments, so a seed repeats the plan of a history and not its
//! schedule: the whole history of a failure is written to a file.

mod checks;
mod connection;
mod definitions;
mod history;
mod nemesis;
mod subscriber;
mod workload;

use std::collections::BTreeMap;
use std::panic::AssertUnwindSafe;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::json;
use world::World;
use world::s3::S3;

use crate::connection::Connection;
use crate::definitions::{STREAMS, VIEWS};
use crate::history::{Entry, Operation, Outcome, Recorder, ViewState};
use crate::nemesis::Nemesis;
use crate::subscriber::Subscriber;
use crate::workload::Clients;

/// Histories by default.
const SEEDS: u64 = 2;
/// One seed in so many has its lake in an S3 server, behind a proxy that injects faults.
const REMOTE_SHARE: u64 = 5;
/// Streams that writers send to, one writer each.
const WRITERS: [&str; 5] = ["with_id", "with_id", "with_key", "plain", "timed"];
/// Views that subscribers follow.
const FOLLOWED: [&str; 2] = ["ids", "minutes"];
const READERS: u64 = 2;
/// How long the end of a live query may be behind.
const FEED_PATIENCE: Duration = Duration::from_secs(20);

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok().and_then(|text| text.parse().ok())
}

#[test]
fn what_clients_see_never_contradicts_the_promise() {
    let first = number("TRUEUP_SEED").unwrap_or_else(|| rand::random_range(0..1_000_000));
    for seed in first..first + number("TRUEUP_SEEDS").unwrap_or(SEEDS) {
        let begin = Instant::now();
        let (history, mut found) = run(seed);
        found.extend(checks::check(&history, &VIEWS));
        println!("TRUEUP_SEED={seed}: {}, {:.1} s", summary(&history), begin.elapsed().as_secs_f64());
        if !found.is_empty() {
            let path = history::write(&history, seed);
            let listed: Vec<&String> = found.iter().take(20).collect();
            panic!("TRUEUP_SEED={seed}: {} contradictions in {}: {listed:#?}", found.len(), path.display());
        }
    }
}

/// Ends the clients however a history ends: otherwise a panic would wait for them for ever.
struct EndOnDrop<'a>(&'a AtomicBool);

impl Drop for EndOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Makes the history of a seed. Returns it, and what was wrong at its end.
fn run(seed: u64) -> (Vec<Entry>, Vec<String>) {
    let recorder = Recorder::new();
    let made = std::panic::catch_unwind(AssertUnwindSafe(|| make(seed, &recorder)));
    let found = made.unwrap_or_else(|_| vec!["the test panicked".to_owned()]);
    (recorder.into_entries(), found)
}

fn make(seed: u64, recorder: &Recorder) -> Vec<String> {
    let mut random = StdRng::seed_from_u64(seed);
    let strikes = random.random_range(3..7);
    let (ending, ended) = (AtomicBool::new(false), AtomicBool::new(false));
    let store = if seed.is_multiple_of(REMOTE_SHARE) { S3::start(seed) } else { None };
    let mut nemesis = Nemesis::new(recorder, random, store);
    let url = nemesis.world.url().to_owned();
    let clients = Clients { recorder, url: &url, seed, ending: &ending };
    clients.write_first(90);
    let mut found = Vec::new();
    let followed: Mutex<BTreeMap<&str, ViewState>> = Mutex::default();
    std::thread::scope(|scope| {
        let _ends = (EndOnDrop(&ending), EndOnDrop(&ended));
        let (clients, ended, followed) = (&clients, &ended, &followed);
        let write = |(stream, writer): (&&'static str, u64)| {
            let stream = *stream;
            scope.spawn(move || clients.write(writer, stream))
        };
        let writers: Vec<_> = WRITERS.iter().zip(0..).map(write).collect();
        (0..READERS).for_each(|reader| _ = scope.spawn(move || clients.read(20 + reader)));
        scope.spawn(move || clients.observe());
        scope.spawn(move || clients.operate(40));
        for (view, number) in FOLLOWED.iter().zip(60..) {
            scope.spawn(move || follow(Subscriber::new(clients, number, view), view, followed, ended));
        }
        for _ in 0..strikes {
            nemesis.strike();
        }
        std::thread::sleep(Duration::from_millis(100));
        ending.store(true, Ordering::Relaxed);
        writers.into_iter().for_each(|writer| writer.join().expect("a writer ends"));
        nemesis.add_view();
        finish(&nemesis.world, clients, followed, &mut found);
    });
    found
}

/// Follows a view until the history has ended, and keeps the last result.
fn follow(
    mut subscriber: Subscriber<'_>,
    view: &'static str,
    followed: &Mutex<BTreeMap<&'static str, ViewState>>,
    ended: &AtomicBool,
) {
    while !ended.load(Ordering::Relaxed) {
        if let Some(state) = subscriber.step() {
            followed.lock().expect("no subscriber panicked").insert(view, state);
        }
    }
}

/// Recomputes every view, reads it for the last time, and compares the end of the history with what was sent.
fn finish(
    world: &World,
    clients: &Clients<'_>,
    followed: &Mutex<BTreeMap<&'static str, ViewState>>,
    found: &mut Vec<String>,
) {
    let connection = Connection::new(clients.url, Duration::from_secs(10));
    for view in &VIEWS {
        // A run that was under way when the lake failed may fail with it.
        let published = (0..3).any(|_| world.run(view.name, true)["state"] == json!("published"));
        let Some(state) = clients.query(&connection, "last reader", view.name).filter(|_| published) else {
            found.push(format!("{}: no run or no query succeeds after everything has healed", view.name));
            continue;
        };
        clients.compare(&connection, "last reader", view.name);
        let batch = world.rows(view.name, "&layer=batch");
        let exact = workload::view_state(&batch, batch["rows"].as_array().into_iter().flatten());
        if exact.counts != state.counts || state.live > 0 {
            found.push(format!("{}: merged and exact results differ after a full run without new events", view.name));
        }
        let listed = world.get(&format!("/v1/streams/{}", view.stream)).json();
        let partitions = listed["partitions"].as_array().into_iter().flatten();
        let accepted: u64 = partitions.filter_map(|partition| partition["accepted"].as_u64()).sum();
        let counted: u64 = state.counts.values().map(|count| count.events).sum();
        if [accepted, state.accepted] != [counted; 2] {
            let of_ledger = state.accepted;
            found.push(format!(
                "{}: {counted} events counted, {accepted} in the log, {of_ledger} in the ledger",
                view.name
            ));
        }
        let is_followed = |counts| {
            followed.lock().expect("no subscriber panicked").get(view.name).is_some_and(|known| known.counts == counts)
        };
        let begin = Instant::now();
        while FOLLOWED.contains(&view.name) && !is_followed(state.counts.clone()) {
            if begin.elapsed() > FEED_PATIENCE {
                found.push(format!("{}: the events of a live query do not add up to the last result", view.name));
                break;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

/// Says in one line what is in a history.
fn summary(history: &[Entry]) -> String {
    let count = |is: fn(&Operation) -> bool| history.iter().filter(|entry| is(&entry.operation)).count();
    let acknowledged =
        |operation: &Operation| matches!(operation, Operation::Send { outcome: Outcome::Acknowledged { .. }, .. });
    let faults: Vec<&str> = history
        .iter()
        .filter_map(|entry| match &entry.operation {
            Operation::Fault { what } if !["started", "healed", "SIGCONT"].contains(&what.as_str()) => {
                Some(what.as_str())
            }
            _ => None,
        })
        .collect();
    format!(
        "{} attempts to send, {} acknowledged, {} reads, {} feed events; {}",
        count(|operation| matches!(operation, Operation::Send { .. })),
        history.iter().filter(|entry| acknowledged(&entry.operation)).count(),
        count(|operation| matches!(operation, Operation::Read { .. })),
        count(|operation| matches!(operation, Operation::Feed { .. })),
        faults.join(", ")
    )
}

/// The streams that writers send to are those that are declared.
#[test]
fn every_stream_has_a_writer() {
    assert!(STREAMS.iter().all(|stream| WRITERS.contains(stream)));
}
