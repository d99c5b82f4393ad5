//! Tests two servers over one lake, each with a log of its own: one owns the lake; the other is refused, or takes over
//! where the archive ends, after which the first commits nothing more and stops.

use std::path::Path;
use std::process::Command;

use serde_json::json;
use world::program::trueup_in;
use world::{Elsewhere, World};

const DEFINITIONS: &str = "
    CREATE STREAM sales (id STRING PRIMARY KEY, at TIMESTAMP, amount BIGINT)
        WITH (event_time = 'at', allowed_lateness = '1 day', partitions = 2);
    CREATE VIEW totals AS SELECT window_start, COUNT(*) AS n, SUM(amount) AS total FROM sales
        GROUP BY TUMBLE(at, INTERVAL '1' HOUR);";

fn over(lake: &Path, take_over: bool) -> World {
    World::elsewhere(
        DEFINITIONS,
        Elsewhere {
            data: lake.display().to_string(),
            variables: Vec::new(),
            options: take_over.then(|| "--take-over".to_owned()).into_iter().collect(),
            limits: "archive_wait_ms = 50".to_owned(),
        },
    )
}

/// Starts a server that must be refused; returns its messages.
fn refused(lake: &Path, local: &Path, options: &[&str]) -> String {
    let file = lake.join("definitions.sql");
    std::fs::write(&file, DEFINITIONS).expect("the definitions can be written");
    let mut server = trueup_in(lake);
    server.arg("serve").arg(file).args(["--listen", "127.0.0.1:0"]).args(options);
    let output = server.arg("--data").arg(lake).arg("--local").arg(local).output().expect("trueup runs");
    assert!(!output.status.success());
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn events(range: std::ops::Range<u64>) -> String {
    range
        .map(|i| json!({"id": format!("e{i}"), "at": "2001-01-01T10:00:00Z", "amount": i}).to_string() + "\n")
        .collect()
}

fn send(world: &World, range: std::ops::Range<u64>) {
    let answer = world.post("/v1/events/sales", events(range));
    assert_eq!(answer.status, 200, "{}", answer.text);
}

fn archived(world: &World) -> u64 {
    let stream = world.get("/v1/streams/sales").json();
    stream["partitions"]
        .as_array()
        .expect("partitions")
        .iter()
        .map(|p| p["archived"].as_u64().expect("an offset"))
        .sum()
}

fn totals(world: &World) -> (u64, u64) {
    let answer = world.rows("totals", "");
    assert_eq!(answer["complete"], json!(true), "{}", answer["ledger"]);
    let rows = answer["rows"].as_array().expect("rows");
    let sum = |name: &str| rows.iter().map(|row| row[name].as_u64().expect("a number")).sum();
    (sum("n"), sum("total"))
}

#[test]
fn a_lake_has_one_owner_and_its_successor_starts_at_the_end_of_the_archive() {
    let lake = tempfile::tempdir().expect("a folder");
    let empty = tempfile::tempdir().expect("a folder");
    let mut old = over(lake.path(), false);
    send(&old, 0..100);
    assert_eq!(old.run("totals", false)["state"], json!("published"));
    send(&old, 100..150);
    old.wait_for("the archive", |old| archived(old) == 150);

    let text = refused(lake.path(), empty.path(), &[]);
    let process = format!("process {}", old.id());
    for part in ["the lake belongs to another trueup", &process, "last seen", "--take-over", "--local"] {
        assert!(text.contains(part), "{part} is not in\n{text}");
    }
    assert_eq!(totals(&old), (150, 150 * 149 / 2), "the owner is not disturbed");
    // A restart over the same log keeps the owner.
    assert_eq!(old.stop(), Some(0));
    old.start();

    let new = over(lake.path(), true);
    old.wait_for_exit();
    // From the archive alone: events that are in no version and not in the new log need a run, which the start requests.
    new.wait_for("the first run", |new| {
        new.get("/v1/runs").json()["runs"].as_array().expect("runs").iter().any(|run| run["state"] == "published")
    });
    assert_eq!(totals(&new), (150, 150 * 149 / 2));
    // An event of the former owner, a duplicate, and new ones.
    send(&new, 140..200);
    assert_eq!(new.run("totals", false)["state"], json!("published"));
    assert_eq!(totals(&new), (200, 200 * 199 / 2), "batch removes what the former owner had");

    // The former owner's machine returns: its log no longer belongs to the lake.
    let old_local = old.store();
    let text = refused(lake.path(), &old_local, &[]);
    assert!(text.contains("the lake belongs to another trueup"), "{text}");
    let text = refused(lake.path(), &old_local, &["--take-over"]);
    assert!(text.contains("cannot take over the lake with the log in") && text.contains("move"), "{text}");
    assert_eq!(totals(&new), (200, 200 * 199 / 2));
}

/// The former owner writes during the take-over, several times: the successor has each event that reached the
/// archive once, and no event arrives there afterwards.
#[test]
fn a_take_over_during_writes_keeps_every_offset_once() {
    let lake = tempfile::tempdir().expect("a folder");
    let mut present = over(lake.path(), false);
    let mut sent = 0;
    for _ in 0..5 {
        for _ in 0..20 {
            send(&present, sent..sent + 50);
            sent += 50;
        }
        let next = std::thread::scope(|scope| {
            let next = scope.spawn(|| over(lake.path(), true));
            while present.is_running() && !next.is_finished() {
                match present.try_post("/v1/events/sales", events(sent..sent + 50).into_bytes(), &[]) {
                    Some(answer) if answer.status == 200 => sent += 50,
                    _ => std::thread::sleep(std::time::Duration::from_millis(5)),
                }
            }
            next.join().expect("it starts")
        });
        present.wait_for_exit();
        present = next;
        // The last events of the former owner may be lost with its log: everything is sent again, as after such a loss.
        let mut from = 0;
        while from < sent {
            send(&present, from..(from + 5_000).min(sent));
            from += 5_000;
        }
        assert_eq!(present.run("totals", true)["state"], json!("published"));
        assert_eq!(totals(&present), (sent, sent * (sent - 1) / 2));
    }
}

#[test]
fn a_lake_restored_without_its_log_is_taken_over() {
    let lake = tempfile::tempdir().expect("a folder");
    let mut first = over(lake.path(), false);
    send(&first, 0..100);
    first.wait_for("the archive", |first| archived(first) == 100);
    assert_eq!(first.run("totals", false)["state"], json!("published"));
    assert_eq!(first.stop(), Some(0));

    let copy = tempfile::tempdir().expect("a folder");
    let copied = Command::new("cp").arg("-a").arg(lake.path().join("lake")).arg(copy.path()).status().expect("cp runs");
    assert!(copied.success());
    let restored = over(copy.path(), true);
    assert_eq!(totals(&restored), (100, 100 * 99 / 2), "a version that covers the archive answers at once");
    send(&restored, 100..120);
    assert_eq!(restored.run("totals", false)["state"], json!("published"));
    assert_eq!(totals(&restored), (120, 120 * 119 / 2));
    assert_eq!(restored.rows("totals", "")["ledger"]["batch"], json!(120));
}
