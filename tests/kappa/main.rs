//! Tests views that the speed layer alone computes, through the real binary: checkpoints, changed definitions, switched layers,
//! and the commands of docs/kappa.md.

mod checkpoints;
mod recipes;
mod swaps;

use serde_json::{Value, json};
use world::World;

/// A short log: it is trimmed as soon as checkpoints and archive allow it.
const SHORT_LOG: &str = "dedup_horizon_events = 50\nlog_segment_bytes = 16384\narchive_wait_ms = 20\n";

/// Requests a checkpoint and waits until it is over; returns the run.
fn checkpoint(world: &World, view: &str, full: bool) -> Value {
    let answer = world.post(&format!("/v1/views/{view}/checkpoints"), json!({ "full": full }).to_string());
    assert_eq!(answer.status, 202, "{}", answer.text);
    let run = world.finished(answer.json()["id"].as_str().expect("an id"));
    assert_eq!(run["state"], json!("published"), "{run}\n{}", world.log());
    run
}

fn status(world: &World, view: &str) -> Value {
    world.get(&format!("/v1/views/{view}")).json()
}
