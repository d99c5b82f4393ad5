//! Tests that responses match the description: schemathesis reads `/openapi.json` and sends every endpoint valid and
//! invalid requests; no response may be a server error, or have a status, type or shape that is not described.

use std::process::Command;

use world::{World, flights_file, program};

/// Existing names, so that not every response is "no such view", and a missing one.
const NAMES: &str = r#"
[parameters]
"path.view" = ["departures", "totals", "nothing"]
"path.stream" = ["flights", "nothing"]
"#;
const CHECKS: &str = "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance,unsupported_method";

#[test]
fn every_response_matches_the_description() {
    let Some(python) = program::python() else { return };
    let definitions = flights_file().with_extension("sql");
    let world = World::new(&std::fs::read_to_string(definitions).expect("the example"));
    world.ingest("flights", &flights_file());
    for view in ["departures", "totals"] {
        assert_eq!(world.run(view, false)["state"], "published");
    }
    let config = world.data.path().join("schemathesis.toml");
    std::fs::write(&config, NAMES).expect("the settings can be written");
    let output = Command::new(python)
        .args(["-m", "schemathesis.cli", "--config-file"])
        .arg(&config)
        .args(["run", &format!("{}/openapi.json", world.url()), "--checks", CHECKS])
        // Streams of events have no end.
        .args(["--exclude-path", "/v1/views/{view}/live", "--exclude-path", "/v1/alerts/live"])
        .args(["--phases", "examples,coverage,fuzzing", "--max-examples", "100", "--seed", "7"])
        .args(["--workers", "2", "--request-timeout", "60", "--continue-on-failure", "--no-color"])
        .args(["--generation-database", "none", "--suppress-health-check", "all", "--warnings", "off"])
        .current_dir(world.data.path())
        .output()
        .expect("Python starts");
    let text = program::text(&output);
    assert!(output.status.success(), "{text}");
    // Requests were generated.
    assert!(text.contains("generated"), "{text}");
    println!("{text}");
}
