//! Lists the points at which the program can be killed or its calls refused, and does the work that reaches each of them.

use std::time::{Duration, Instant};

use batch::step::{Step, UpkeepStep};
use intake::fail_points::IntakePoint;
use lake::LakePoint;

use crate::client::{Client, Reply};

/// Longest wait for work in the background.
const PATIENCE: Duration = Duration::from_secs(30);
/// Rounds of work after which a point counts as not reached.
const ROUNDS_MAX: usize = 20;

/// Where an injected abort ended a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Death {
    Server,
    Import,
}

/// Returns the names of all points of all crates, but those of erasures: `tests/entities/erasures.rs` kills there.
pub fn all() -> Vec<&'static str> {
    let intake = IntakePoint::ALL.iter().map(|point| point.name());
    let lake = LakePoint::ALL.iter().map(|point| point.name());
    let runs = Step::ALL.iter().map(|step| step.name());
    let upkeep = UpkeepStep::ALL.iter().map(|step| step.name());
    intake.chain(lake).chain(runs).chain(upkeep).filter(|name| !name.starts_with("erase-")).collect()
}

/// Returns the names of the points at which a call of the system can be refused.
pub fn calls() -> Vec<&'static str> {
    let is_call =
        |name: &&str| name.starts_with("lake-") || of_a_write(name) && !["acknowledge", "hand-over"].contains(name);
    all().into_iter().filter(is_call).chain(["run-log"]).collect()
}

/// Returns whether accepting events reaches the point.
pub fn of_a_write(point: &str) -> bool {
    let of_log = point.starts_with("log-") && point != "log-trim";
    of_log || point.starts_with("keys-") || ["acknowledge", "hand-over"].contains(&point)
}

/// Returns the points that a checkpoint reaches.
pub fn of_a_checkpoint() -> impl Iterator<Item = &'static str> {
    Step::ALL.iter().map(|step| step.name())
}

/// Returns the points that every start reaches.
pub fn of_a_start() -> [&'static str; 6] {
    ["log-create", "lake-stage", "lake-sync", "lake-rename", "lake-read", "lake-list"]
}

/// Returns `fault` at `point`, with another fault if the point is reached only after that.
pub fn with_cause(point: &str, fault: &str) -> String {
    // A group is cut off only if there was no room for it.
    let cause = if point == "log-truncate" { "\nlog-sync:28" } else { "" };
    format!("{point}:{fault}{cause}")
}

/// Does the work that reaches `point` until a process has ended there. `None`: it was not reached.
pub fn drive_to_death(client: &mut Client, point: &str) -> Option<Death> {
    for _ in 0..ROUNDS_MAX {
        if point.starts_with("history-") {
            let ingest = client.import();
            if ingest.code.is_none() {
                return Some(Death::Import);
            }
            continue;
        }
        if work(client, point).is_none() {
            return has_ended(client).then_some(Death::Server);
        }
    }
    None
}

/// Sends events and makes checkpoints until the server has ended. `None`: it did not.
pub fn checkpoint_to_death(client: &mut Client) -> Option<Death> {
    for _ in 0..ROUNDS_MAX {
        let ended = client.send().contains(&Reply::Nothing)
            || client.request_checkpoint("live", false).is_none_or(|id| finish_run(client, &id).is_none());
        if ended {
            return has_ended(client).then_some(Death::Server);
        }
    }
    None
}

/// Does one round of work that may reach `point`. `None`: the server has ended.
pub fn work(client: &mut Client, point: &str) -> Option<()> {
    for _ in 0..4 {
        if client.send().contains(&Reply::Nothing) {
            return None;
        }
    }
    if of_a_write(point) {
        return Some(());
    }
    if point == "retention-commit" {
        return (client.compact("aging") != Reply::Nothing).then_some(());
    }
    for view in ["ids", "no_ids"] {
        let id = client.request_run(view, false)?;
        finish_run(client, &id)?;
    }
    if point.starts_with("compaction-") || point.starts_with("vacuum-") || point.starts_with("lake-") {
        for stream in ["with_id", "without_id"] {
            (client.compact(stream) != Reply::Nothing).then_some(())?;
        }
        (client.vacuum("no_ids") != Reply::Nothing).then_some(())?;
    }
    Some(())
}

/// Waits until a run is over. `None`: the server has ended.
pub fn finish_run(client: &Client, id: &str) -> Option<()> {
    let begin = Instant::now();
    loop {
        let run = client.run_state(id)?;
        if ["published", "failed", "cancelled"].contains(&run["state"].as_str().unwrap_or("")) {
            return Some(());
        }
        assert!(begin.elapsed() < PATIENCE, "a run does not end: {run}\n{}", client.world.log());
        std::thread::sleep(Duration::from_millis(3));
    }
}

/// Waits for the end of a server whose connection broke. Returns whether it has ended.
fn has_ended(client: &mut Client) -> bool {
    let begin = Instant::now();
    while client.world.is_running() {
        if begin.elapsed() > PATIENCE {
            return false;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    true
}
