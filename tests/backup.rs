//! Tests that a lake copied while the server runs, in the order that docs/operations.md prescribes, can be restored
//! elsewhere, and that a copy in another order gives no wrong figure.

use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use serde_json::json;
use world::{Elsewhere, World};

const DEFINITIONS: &str = "
    CREATE STREAM sales (id STRING PRIMARY KEY, at TIMESTAMP, amount BIGINT)
        WITH (event_time = 'at', allowed_lateness = '100 days', partitions = 2);
    CREATE VIEW totals WITH (schedule = '@every 1s') AS SELECT window_start, COUNT(*) AS n, SUM(amount) AS total FROM sales
        GROUP BY TUMBLE(at, INTERVAL '1' HOUR);";

fn over(lake: &Path, take_over: bool) -> World {
    World::elsewhere(
        DEFINITIONS,
        Elsewhere {
            data: lake.display().to_string(),
            variables: Vec::new(),
            options: take_over.then(|| "--take-over".to_owned()).into_iter().collect(),
            limits: "archive_wait_ms = 20\ncompaction_every_ms = 200\nvacuum_every_ms = 200".to_owned(),
        },
    )
}

/// Events of different hours, so that every commit has several files.
fn events(range: std::ops::Range<u64>) -> String {
    let hour = |i: u64| format!("2001-01-{:02}T{:02}:00:00Z", 1 + i % 3, i % 24);
    range.map(|i| json!({"id": format!("e{i}"), "at": hour(i), "amount": i}).to_string() + "\n").collect()
}

fn send(world: &World, range: std::ops::Range<u64>) {
    let answer = world.post("/v1/events/sales", events(range));
    assert_eq!(answer.status, 200, "{}", answer.text);
}

fn totals(world: &World) -> (u64, u64) {
    let answer = world.rows("totals", "");
    assert_eq!(answer["complete"], json!(true), "{}", answer["ledger"]);
    let rows = answer["rows"].as_array().expect("rows");
    let sum = |name: &str| rows.iter().map(|row| row[name].as_u64().expect("a number")).sum();
    (sum("n"), sum("total"))
}

/// Copies the files below `from` whose paths below the lake satisfy `wanted`.
fn copy(lake: &Path, to: &Path, wanted: &dyn Fn(&str) -> bool) {
    fn walk(folder: &Path, lake: &Path, to: &Path, wanted: &dyn Fn(&str) -> bool) {
        for entry in std::fs::read_dir(folder).expect("a folder").flatten() {
            let path = entry.path();
            let below = path.strip_prefix(lake).expect("it is below the lake").to_path_buf();
            if path.is_dir() {
                walk(&path, lake, to, wanted);
            } else if wanted(&below.display().to_string()) && !to.join(&below).exists() {
                std::fs::create_dir_all(to.join(&below).parent().expect("a folder")).expect("a folder");
                match std::fs::copy(&path, to.join(&below)) {
                    // A file with a temporary name does not belong to the lake yet.
                    Err(error) if error.kind() != std::io::ErrorKind::NotFound => panic!("{}: {error}", path.display()),
                    _ => {}
                }
            }
        }
    }
    walk(&lake.join("lake"), lake, to, wanted);
}

fn is_log_of(tables: &'static str) -> impl Fn(&str) -> bool {
    move |path| path.starts_with(&format!("lake/{tables}/")) && path.contains("/_delta_log/")
}

/// Copies the lake in steps, while events, runs, compactions and vacuums continue.
fn copy_under_load(lake: &Path, world: &World, sent: &AtomicU64, steps: &[&dyn Fn(&str) -> bool]) -> tempfile::TempDir {
    let copied = tempfile::tempdir().expect("a folder");
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::SeqCst) {
                let from = sent.load(Ordering::SeqCst);
                send(world, from..from + 20);
                sent.store(from + 20, Ordering::SeqCst);
            }
        });
        for wanted in steps {
            copy(lake, copied.path(), wanted);
            // A version is published between the steps, so that their order matters.
            assert_eq!(world.run("totals", false)["state"], json!("published"));
        }
        stop.store(true, Ordering::SeqCst);
    });
    copied
}

/// The copy returns each of its events once, and all events after the senders have sent everything again.
fn check(copied: &Path, sent: u64) -> World {
    let restored = over(copied, true);
    restored.wait_for("a complete answer", |world| {
        let answer = world.rows("totals", "");
        answer["complete"] == json!(true) && answer["seam"]["version"].is_number()
    });
    let accepted = restored.rows("totals", "")["ledger"]["accepted"].as_u64().expect("a number");
    let (n, _) = totals(&restored);
    assert!(n == accepted && n > 0 && n <= sent, "{n} of {accepted} events");
    let mut from = 0;
    while from < sent {
        send(&restored, from..(from + 5_000).min(sent));
        from += 5_000;
    }
    assert_eq!(restored.run("totals", true)["state"], json!("published"));
    assert_eq!(totals(&restored), (sent, sent * (sent - 1) / 2));
    restored
}

#[test]
fn a_copy_of_a_running_servers_lake_is_whole() {
    let lake = tempfile::tempdir().expect("a folder");
    let world = over(lake.path(), false);
    let sent = AtomicU64::new(0);
    for _ in 0..3 {
        let steps: [&dyn Fn(&str) -> bool; 3] = [
            &|path| path.starts_with("lake/_owner") || is_log_of("views")(path) || is_log_of("reconciliations")(path),
            &is_log_of("events"),
            &|path| !path.contains("/_delta_log/"),
        ];
        let copied = copy_under_load(lake.path(), &world, &sent, &steps);
        let restored = check(copied.path(), sent.load(Ordering::SeqCst));
        assert!(!restored.log().contains("view and archive are from different moments"), "{}", restored.log());
    }
}

#[test]
fn a_view_ahead_of_its_archive_is_recomputed() {
    let lake = tempfile::tempdir().expect("a folder");
    let world = over(lake.path(), false);
    send(&world, 0..100);
    assert_eq!(world.run("totals", false)["state"], json!("published"));
    let sent = AtomicU64::new(100);
    let steps: [&dyn Fn(&str) -> bool; 3] = [
        &|path| path.starts_with("lake/_owner") || is_log_of("events")(path),
        &|path| is_log_of("views")(path) || is_log_of("reconciliations")(path),
        &|path| !path.contains("/_delta_log/"),
    ];
    let copied = copy_under_load(lake.path(), &world, &sent, &steps);
    let restored = check(copied.path(), sent.load(Ordering::SeqCst));
    assert!(restored.log().contains("view and archive are from different moments"), "{}", restored.log());
}
