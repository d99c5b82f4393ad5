//! Tests that responses match the description: schemathesis reads `/openapi.json` and sends every endpoint valid and
//! invalid requests; no response may be a server error, or have a status, type or shape that is not described.

#[allow(dead_code, reason = "each test uses a part of the world")]
mod world;

use std::process::Command;

use world::{World, flights_file};

/// Existing names, so that not every response is "no such view", and one that does not exist.
const NAMES: &str = r#"
[parameters]
"path.view" = ["departures", "totals", "nothing"]
"path.stream" = ["flights", "nothing"]
"#;
const CHECKS: &str = "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance,unsupported_method";

#[test]
fn every_response_matches_the_description() {
    let Ok(python) = std::env::var("TRUEUP_PYTHON") else {
        assert!(std::env::var_os("CI").is_none(), "TRUEUP_PYTHON names no interpreter");
        eprintln!("SKIPPED: TRUEUP_PYTHON names no interpreter with the packages of tests/python/requirements.txt");
        return;
    };
    let definitions = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/flights/flights.sql");
    let world = World::new(&std::fs::read_to_string(definitions).expect("the example"));
    let sent = Command::new(env!("CARGO_BIN_EXE_trueup"))
        .args(["ingest", "flights", "--url", world.url()])
        .arg(flights_file())
        .output()
        .expect("trueup runs");
    assert!(sent.status.success(), "{}", String::from_utf8_lossy(&sent.stderr));
    for view in ["departures", "totals"] {
        assert_eq!(world.run(view, false)["state"], "published");
    }
    let config = world.data.path().join("schemathesis.toml");
    std::fs::write(&config, NAMES).expect("the settings can be written");
    let output = Command::new(python)
        .args(["-m", "schemathesis.cli", "--config-file"])
        .arg(&config)
        .args(["run", &format!("{}/openapi.json", world.url()), "--checks", CHECKS])
        // A live query has no end.
        .args(["--exclude-path", "/v1/views/{view}/live"])
        .args(["--phases", "examples,coverage,fuzzing", "--max-examples", "100", "--seed", "7"])
        .args(["--workers", "2", "--request-timeout", "60", "--continue-on-failure", "--no-color"])
        .args(["--generation-database", "none", "--suppress-health-check", "all", "--warnings", "off"])
        .current_dir(world.data.path())
        .output()
        .expect("Python starts");
    let said = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    // Requests were generated.
    assert!(said.contains("generated"), "{said}");
    println!("{said}");
}
