//! Tests that a run keeps within its memory limit, with a limit far below the size of all groups, and gives the same
//! results as with a high limit.

use std::fmt::Write as _;

use serde_json::{Value, json};
use world::World;

/// Number of groups of one window date; a fifth of the events is sent twice.
const GROUPS: u64 = 1_200_000;
const DEFINITIONS: &str = "
    CREATE STREAM bids (id STRING PRIMARY KEY, at TIMESTAMP, bidder STRING, price BIGINT, fare DOUBLE)
        WITH (event_time = 'at');
    CREATE VIEW per_bidder AS SELECT window_start, bidder, COUNT(*) AS bids, SUM(price) AS total, AVG(fare) AS average
        FROM bids GROUP BY TUMBLE(at, INTERVAL '1' DAY), bidder;";

/// Peak resident memory of the process, in MiB.
fn peak_mib(world: &World) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", world.id())).expect("it lives");
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("a peak");
    line.trim().trim_end_matches(" kB").parse::<u64>().expect("kB") / 1024
}

/// A server over a fresh archive of the events after a run of the view, with the peak memory before and after the run.
fn ran(file: &std::path::Path, limit: &str) -> (World, u64, u64) {
    let mut world = World::new(DEFINITIONS);
    assert_eq!(world.stop(), Some(0));
    let ingested = world
        .trueup()
        .args(["ingest", "bids"])
        .arg(file)
        .args(["--historical", "--definitions"])
        .arg(world.definitions())
        .arg("--data")
        .arg(world.store())
        .output()
        .expect("trueup runs");
    assert!(ingested.status.success(), "{}", String::from_utf8_lossy(&ingested.stderr));
    world.set_limits(&format!("batch_cache_bytes = 1024\n[batch]\nmemory_limit = \"{limit}\"\n"));
    world.start();
    let before = peak_mib(&world);
    world.wait_for("the first run", |world| {
        let runs = world.get("/v1/runs").json();
        assert!(!runs.to_string().contains("\"failed\""), "{runs}");
        runs["runs"][0]["state"] == json!("published")
    });
    let after = peak_mib(&world);
    (world, before, after)
}

/// The rows of some groups.
fn rows(world: &World) -> Vec<Value> {
    let rows = world.rows("per_bidder", "&layer=batch&where=bidder%20LIKE%20'b00000_0'");
    rows["rows"].as_array().expect("rows").clone()
}

#[test]
fn a_run_within_a_low_limit_gives_the_same_rows() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("bids.ndjson");
    let mut text = String::new();
    for i in 0..GROUPS + GROUPS / 5 {
        let i = i % GROUPS;
        let id = i.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let at = 1_704_067_200_000 + i % 86_400_000;
        writeln!(
            text,
            r#"{{"id":"{id:016x}","at":{at},"bidder":"b{i:07}","price":{},"fare":{}.25}}"#,
            i % 1000,
            i % 77
        )
        .expect("a String takes any text");
    }
    std::fs::write(&file, text).expect("the events can be written");

    let (large, before_large, with_room) = ran(&file, "4 GiB");
    let expected = rows(&large);
    assert_eq!(expected.len(), 10);
    drop(large);
    let (small, before_small, within) = ran(&file, "64 MiB");
    assert_eq!(rows(&small), expected);
    println!("peak with room {before_large} to {with_room} MiB, within 64 MiB {before_small} to {within} MiB");
    // Besides the limit: buffers of readers and writers, and memory kept by the allocator. All groups take far more.
    assert!(within < before_small + 64 + 200, "{within} MiB");
    assert!(with_room > within + 120, "the bound says nothing: {with_room} MiB with room");
    let progress = small.get("/v1/runs").json()["runs"][0]["progress"].clone();
    assert_eq!(progress["rows"], json!(GROUPS + GROUPS / 5));
}
