//! Lets each call of the system for log and lake fail with each error that a disk gives, and checks the answers: what failed
//! is reported, no acknowledged event is lost, and everything is right again afterwards.

use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};

use crate::client::{Client, Reply};
use crate::points;

const ERRORS: [(&str, i32); 4] = [("EIO", 5), ("ENOSPC", 28), ("EDQUOT", 122), ("EMFILE", 24)];
/// Rounds of work after which a call counts as not made.
const ROUNDS_MAX: usize = 20;
/// How long a run may be delayed by an error before the test continues without it.
const RUN_WAIT: Duration = Duration::from_millis(300);

#[test]
fn a_refused_call_is_reported_and_loses_nothing() {
    let mut random = StdRng::seed_from_u64(crate::seed());
    let everything = crate::number("TRUEUP_KILLS").is_some();
    let mut cases: Vec<(&str, (&str, i32))> = Vec::new();
    for point in points::calls() {
        match everything {
            true => cases.extend(ERRORS.map(|error| (point, error))),
            // The disk is full, which passes, or broken, which ends the process; other errors are met at random.
            false if point == "log-sync" => cases.extend([(point, ERRORS[0]), (point, ERRORS[1])]),
            false => cases.push((point, ERRORS[random.random_range(0..ERRORS.len())])),
        }
    }
    cases.shuffle(&mut random);
    let mut client = Client::new();
    for (point, (name, errno)) in cases {
        let context = format!("{name} at {point}");
        let before = injected(&client, point);
        client.inject(&points::with_cause(point, &errno.to_string()));
        let outcome = work_until_refused(&mut client, point, before, &context);
        println!("{context}: {outcome}");
        client.settle();
        client.check(&context);
        client.run_and_check(false, &context);
    }
    client.check_exact("in the end");
}

/// How often the server has reported an injected error.
fn injected(client: &Client, point: &str) -> usize {
    let field = format!("point=\"{point}\"");
    client.world.log().lines().filter(|line| line.contains("injecting an error") && line.contains(&field)).count()
}

/// Works until the call has failed once; returns what the client noticed.
fn work_until_refused(client: &mut Client, point: &str, before: usize, context: &str) -> String {
    let is_of_log = point.starts_with("log-");
    let mut noticed = Vec::new();
    for _ in 0..ROUNDS_MAX {
        for _ in 0..4 {
            for reply in client.send() {
                match reply {
                    Reply::Status(200) => {}
                    Reply::Status(status @ (503 | 507)) if is_of_log => noticed.push(status.to_string()),
                    Reply::Nothing if is_of_log => {}
                    other => panic!("{context}: {other:?}\n{}", client.world.log()),
                }
            }
        }
        if is_of_log && noticed.iter().any(|status| status == "503") || !client.world.is_running() {
            let (code, log) = client.world.end_by_itself();
            let last = log.lines().last().unwrap_or_default();
            assert!(code == Some(4) && is_of_log && last.contains("log"), "{context}: {code:?}\n{log}");
            noticed.push(format!("exit 4, {last}"));
            break;
        }
        if injected(client, point) == before && !points::of_a_write(point) {
            upkeep(client, &mut noticed, context);
        }
        if injected(client, point) > before {
            break;
        }
    }
    let ended = noticed.iter().any(|what| what.starts_with("exit"));
    assert!(ended || injected(client, point) > before, "{context}: the call was not made\n{}", client.world.log());
    noticed.dedup();
    noticed.join(", ")
}

/// Requests a run, a compaction, a vacuum and an import, each of which may fail with a reason.
fn upkeep(client: &mut Client, noticed: &mut Vec<String>, context: &str) {
    for view in ["ids", "no_ids"] {
        let id = client.request_run(view, false).expect("an answer");
        let begin = Instant::now();
        while begin.elapsed() < RUN_WAIT {
            let run = client.run_state(&id).expect("an answer");
            if run["state"] == "failed" {
                let error = run["error"].as_str().unwrap_or_default();
                assert!(error.len() > 10, "{context}: {run}");
                noticed.push(format!("run failed: {error}"));
            }
            if ["published", "failed", "cancelled"].contains(&run["state"].as_str().unwrap_or("")) {
                break;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }
    for (what, reply) in [("compact", client.compact("with_id")), ("vacuum", client.vacuum("no_ids"))] {
        match reply {
            Reply::Status(200) => {}
            Reply::Status(status @ 500..=599) => noticed.push(format!("{what} {status}")),
            other => panic!("{context}: {what}: {other:?}"),
        }
    }
    let ingest = client.import();
    match ingest.code {
        Some(0) => {}
        Some(code) => {
            assert!(ingest.text.contains("error"), "{context}: {}", ingest.text);
            noticed.push(format!("import exit {code}"));
        }
        None => panic!("{context}: {}", ingest.text),
    }
}
