//! Tests through the real binary that a server ends with a layer that cannot continue, and does not start with a log that
//! is older than its lake.

use std::path::Path;

use serde_json::json;
use world::World;

const DEFINITIONS: &str = "
    CREATE STREAM sales (id STRING PRIMARY KEY, at TIMESTAMP, amount BIGINT)
        WITH (event_time = 'at', allowed_lateness = '1 day');
    CREATE VIEW totals AS SELECT window_start, COUNT(*) AS n, SUM(amount) AS total FROM sales
        GROUP BY TUMBLE(at, INTERVAL '1' HOUR);";

fn events(range: std::ops::Range<u64>) -> Vec<u8> {
    let line = |i| json!({"id": format!("e{i}"), "at": "2001-01-01T10:00:00Z", "amount": i}).to_string() + "\n";
    range.map(line).collect::<String>().into_bytes()
}

#[test]
fn a_panic_in_any_layer_ends_the_process_with_its_own_exit_code_and_the_reason_as_the_last_line() {
    for part in ["log-sales-0", "speed-sales-0", "archive-sales-0", "batch runs of totals"] {
        let mut world = World::with_environment(DEFINITIONS, &[("TRUEUP_PANIC_IN", part)]);
        // They may get any response, or none, but no response may be waited for without end.
        let _ = world.try_post("/v1/events/sales", events(0..10), &[]);
        let _ = world.try_post("/v1/views/totals/runs", b"{}".to_vec(), &[]);
        let (code, log) = world.end_by_itself();
        assert_eq!(code, Some(4), "{part}: {log}");
        let last = log.lines().last().expect("a last line");
        assert!(last.starts_with(&format!("error: a layer failed: {part}: panicked")), "{part}: {last}");
        // The next start recovers.
        world.set_environment(&[]);
        world.start();
        assert_eq!(world.post("/v1/events/sales", events(0..10)).status, 200);
        let counted = world.rows("totals", "");
        assert_eq!((&counted["rows"][0]["n"], &counted["complete"]), (&json!(10), &json!(true)), "{part}");
    }
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).expect("a folder");
    for entry in std::fs::read_dir(from).expect("a folder").flatten() {
        let (path, target) = (entry.path(), to.join(entry.file_name()));
        if path.is_dir() {
            copy(&path, &target);
        } else {
            std::fs::copy(&path, &target).expect("copies");
        }
    }
}

#[test]
fn a_log_older_than_its_lake_is_refused_before_an_event_is_accepted() {
    let mut world = World::new(DEFINITIONS);
    assert_eq!(world.post("/v1/events/sales", events(0..100)).status, 200);
    assert_eq!(world.run("totals", false)["state"], json!("published"));
    world.stop();
    let (log, backup) = (world.store().join("log"), world.data.path().join("backup"));
    copy(&log, &backup);
    world.start();
    assert_eq!(world.post("/v1/events/sales", events(100..200)).status, 200);
    assert_eq!(world.run("totals", false)["state"], json!("published"));
    world.stop();
    let newest = world.data.path().join("newest");
    std::fs::rename(&log, &newest).expect("moves");
    copy(&backup, &log);

    let (code, text) = world.start_refused();
    assert_eq!(code, Some(1));
    for words in
        ["stream sales, partition 0, is older than its lake", "ends at offset 100", "before offset 200", "--take-over"]
    {
        assert!(text.contains(words), "{words} is not in: {text}");
    }
    // Both ways out work: the newer log, and a new log that takes the lake over.
    std::fs::remove_dir_all(&log).expect("removes");
    std::fs::rename(&newest, &log).expect("moves");
    world.start();
    assert_eq!(world.rows("totals", "")["rows"][0]["n"], json!(200));
}
