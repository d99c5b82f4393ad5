//! Tests that a server whose lake another program has changed or damaged stays up: runs over what it cannot read fail with
//! the reason, and all other views are recomputed.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use world::World;

/// A change of a stream's table, and a part of the reason that a run must give.
struct Case {
    stream: &'static str,
    reason: &'static str,
    change: fn(&Path),
}

const CASES: [Case; 9] = [
    Case { stream: "cut", reason: "cannot be read", change: |table| cut_short(&data_file(table)) },
    Case { stream: "footer", reason: "cannot be read", change: |table| damage_footer(&data_file(table)) },
    Case { stream: "pages", reason: "", change: |table| damage_pages(&data_file(table)) },
    Case {
        stream: "outside",
        reason: "not in the table's folder",
        change: |table| append(table, &[add("../../secret.parquet")]),
    },
    Case {
        stream: "absolute",
        reason: "not in the table's folder",
        change: |table| append(table, &[add("file:///etc/passwd")]),
    },
    Case {
        stream: "vectors",
        reason: "deletion vector",
        change: |table| append(table, &[with_deletion_vector(table)]),
    },
    Case { stream: "mapped", reason: "column mapping", change: |table| append(table, &[mapped(table)]) },
    Case { stream: "text", reason: "", change: |table| append(table, &[json!("nonsense"), json!({"add": 7})]) },
    Case {
        stream: "untagged",
        reason: "tag",
        change: |table| append(table, &[add("_event_date=2001-01-01/foreign.parquet")]),
    },
];

fn definitions() -> String {
    let of = |stream: &str| {
        format!(
            "CREATE STREAM {stream} (at TIMESTAMP, amount BIGINT) WITH (event_time = 'at', allowed_lateness = '1 day');
             CREATE VIEW of_{stream} AS SELECT window_start, COUNT(*) AS n, SUM(amount) AS total FROM {stream}
                 GROUP BY TUMBLE(at, INTERVAL '1' HOUR);\n"
        )
    };
    CASES.iter().map(|case| of(case.stream)).chain([of("healthy")]).collect()
}

fn data_file(table: &Path) -> PathBuf {
    let folder = table.join("_event_date=2001-01-01");
    let mut files = std::fs::read_dir(folder).expect("the date").flatten().map(|entry| entry.path());
    files.find(|path| path.extension().is_some_and(|extension| extension == "parquet")).expect("a file")
}

fn cut_short(file: &Path) {
    let bytes = std::fs::read(file).expect("a file");
    std::fs::write(file, &bytes[..bytes.len() / 2]).expect("writes");
}

/// Overwrites the footer, and keeps the length and the magic after it.
fn damage_footer(file: &Path) {
    let mut bytes = std::fs::read(file).expect("a file");
    let end = bytes.len() - 8;
    bytes[end - 60..end].fill(0xff);
    std::fs::write(file, &bytes).expect("writes");
}

fn damage_pages(file: &Path) {
    let mut bytes = std::fs::read(file).expect("a file");
    bytes[4..60].fill(0xff);
    std::fs::write(file, &bytes).expect("writes");
}

/// Appends an entry to the log, as another program would.
fn append(table: &Path, actions: &[Value]) {
    let log = table.join("_delta_log");
    let next = (0_u64..).find(|version| !log.join(format!("{version:020}.json")).exists()).expect("a version");
    let lines: String = actions.iter().map(|action| action.to_string() + "\n").collect();
    std::fs::write(log.join(format!("{next:020}.json")), lines).expect("writes");
}

fn add(path: &str) -> Value {
    json!({"add": {"path": path, "partitionValues": {"_event_date": "2001-01-01"}, "size": 1000, "modificationTime": 1,
        "dataChange": true, "stats": "{\"numRecords\":5}"}})
}

/// Returns the latest action of a kind in the log.
fn latest(table: &Path, kind: &str) -> Value {
    let mut entries: Vec<PathBuf> =
        std::fs::read_dir(table.join("_delta_log")).expect("the log").flatten().map(|entry| entry.path()).collect();
    entries.sort();
    let lines = entries.iter().filter(|path| path.extension().is_some_and(|extension| extension == "json"));
    let mut lines = lines.flat_map(|path| {
        let text = std::fs::read_to_string(path).expect("an entry");
        text.lines().map(|line| serde_json::from_str::<Value>(line).expect("JSON")).collect::<Vec<_>>()
    });
    lines.rfind(|action| !action[kind].is_null()).expect("an action of that kind")
}

fn with_deletion_vector(table: &Path) -> Value {
    let mut action = latest(table, "add");
    action["add"]["deletionVector"] = json!({"storageType": "i", "pathOrInlineDv": "wi5b=000010000siXQKl0rr91000f55c8Xg0@@D72lkbi5=-{L",
        "sizeInBytes": 40, "cardinality": 1});
    action
}

fn mapped(table: &Path) -> Value {
    let mut action = latest(table, "metaData");
    action["metaData"]["configuration"]["delta.columnMapping.mode"] = json!("name");
    action
}

fn events() -> String {
    (0..5).map(|i| json!({"at": format!("2001-01-01T10:0{i}:00Z"), "amount": i}).to_string() + "\n").collect()
}

#[test]
fn a_damaged_lake_fails_its_runs_with_a_reason_and_nothing_else() {
    let mut world = World::new(&definitions());
    assert_eq!(world.stop(), Some(0));
    world.set_limits("archive_wait_ms = 1\ncompaction_every_ms = 50\nrun_attempts_max = 1\n");
    world.start();
    let streams = || CASES.iter().map(|case| case.stream).chain(["healthy"]);
    for stream in streams() {
        assert_eq!(world.post(&format!("/v1/events/{stream}"), events()).status, 200);
        assert_eq!(world.run(&format!("of_{stream}"), false)["state"], json!("published"), "{stream}");
    }
    let lake = world.store().join("lake");
    std::fs::copy(data_file(&lake.join("events/healthy")), lake.join("secret.parquet")).expect("copies");
    for case in &CASES {
        (case.change)(&lake.join("events").join(case.stream));
    }
    for case in &CASES {
        let run = world.run_once(&format!("of_{}", case.stream), true);
        let error = run["error"].as_str().unwrap_or_default();
        assert_eq!(run["state"], json!("failed"), "{}: {run}", case.stream);
        assert!(!error.is_empty() && error.contains(case.reason), "{}: {error}", case.stream);
        // The archiver meets it as well; its events are in the log.
        let posted = world.post(&format!("/v1/events/{}", case.stream), events());
        assert_eq!(posted.status, 200, "{}: {}", case.stream, posted.text);
        let answer = world.rows(&format!("of_{}", case.stream), "");
        assert_eq!(answer["rows"][0]["n"], json!(10), "{}: {answer}", case.stream);
    }
    assert_eq!(world.post("/v1/events/healthy", events()).status, 200);
    assert_eq!(world.run("of_healthy", true)["state"], json!("published"));
    assert_eq!(world.rows("of_healthy", "")["rows"][0]["n"], json!(10));
    assert_eq!(world.get("/readyz").status, 200);
    assert!(world.is_running(), "{}", world.log());
    assert!(lake.join("secret.parquet").exists());
}
