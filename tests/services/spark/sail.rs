//! Sail, a server of Spark Connect without a JVM: how far a run gets on it.
//!
//! It is `pysail` 0.7.2 with `pyspark-client` 4.1.1, whose program `TRUEUP_SAIL` names, or that in `$HOME/.cache/trueup-sail`. Without
//! it the test is skipped; with `CI` set, it fails.

use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use world::World;

use crate::guarded::Guarded;

const DEFINITIONS: &str =
    "CREATE STREAM orders (order_id STRING PRIMARY KEY, at TIMESTAMP, region STRING, amount BIGINT)
       WITH (event_time = 'at', max_ahead = '100 days');
     CREATE VIEW hourly AS SELECT window_start, region, COUNT(*) AS n, SUM(amount) AS total FROM orders
       GROUP BY TUMBLE(at, INTERVAL '1' HOUR), region;\n";

fn program() -> Option<PathBuf> {
    let named = std::env::var_os("TRUEUP_SAIL").map(PathBuf::from);
    let home = std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".cache/trueup-sail/bin/sail"));
    let found = named.or(home).filter(|program| program.exists());
    if found.is_none() {
        assert!(std::env::var_os("CI").is_none(), "Sail is required: set TRUEUP_SAIL (.ci/run does)");
        eprintln!("skipped: no Sail; set TRUEUP_SAIL");
    }
    found
}

/// A session, the settings, a file of Trueup and the files of the archive work; the query of a run does not, and the error says
/// at which part.
#[test]
fn a_run_on_sail_names_what_sail_does_not_support() {
    let Some(program) = program() else { return };
    let free = TcpListener::bind("127.0.0.1:0").and_then(|free| free.local_addr()).expect("a free port");
    let folder = tempfile::tempdir().expect("a folder");
    let mut command = Command::new(program);
    command.args(["spark", "server", "--ip", "127.0.0.1", "--port", &free.port().to_string()]);
    let _server = Guarded::start(&command, folder.path());
    let begin = Instant::now();
    while TcpStream::connect(free).is_err() {
        let log = || std::fs::read_to_string(folder.path().join("out")).unwrap_or_default();
        assert!(begin.elapsed() < Duration::from_secs(60), "Sail did not start:\n{}", log());
        std::thread::sleep(Duration::from_millis(50));
    }
    let mut world = World::stopped(DEFINITIONS);
    let connection = format!("[connections.sail]\nkind = \"spark\"\nurl = \"sc://{free}\"\n");
    world.set_settings(&format!("[batch]\nengine = \"spark\"\n[limits]\nrun_attempts_max = 1\n{connection}"));
    world.start();
    let event = |i: i64| {
        json!({"order_id": format!("o{i}"), "at": "2024-03-01T10:00:00Z", "region": "r", "amount": i}).to_string()
            + "\n"
    };
    let answer = world.post("/v1/events/orders", (0..100).map(event).collect::<String>());
    assert_eq!(answer.json()["accepted"], json!(100), "{}", answer.text);
    let run = world.run_once("hourly", false);
    assert_eq!((&run["state"], &run["version"]), (&json!("failed"), &Value::Null), "{run}");
    assert!(world.log().contains("Spark computes the states"), "all before the query works: {run}\n{}", world.log());
    let error = run["error"].as_str().unwrap_or_default();
    assert!(error.contains("DISTRIBUTE BY"), "docs/spark.md says what fails: {run}");
}
