//! Tests the scenarios of the seam over object storage: a real S3 server behind a proxy that injects errors, lost
//! responses, closed connections and races, and a store that is unreachable for a while.

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use serde_json::{Value, json};
use world::oracle::events::{Event, Log, STRICT};
use world::oracle::plain::{NAMES, views};
use world::oracle_check::{Layer, definitions, post};
use world::program::trueup_in;
use world::s3::proxy::Fault;
use world::s3::{S3, SECRET};
use world::{World, scenarios};

/// Number of random histories of each kind; `TRUEUP_CASES` sets it for a longer search.
fn cases() -> u32 {
    std::env::var("TRUEUP_CASES").ok().and_then(|n| n.parse().ok()).unwrap_or(2)
}

fn seed() -> u64 {
    let seed = std::env::var("TRUEUP_SEED").ok().and_then(|s| s.parse().ok()).unwrap_or_else(rand::random);
    println!("TRUEUP_SEED={seed}");
    seed
}

/// Runs random histories over a faulty store; every kind of fault must have occurred.
fn with_faults<S: Strategy>(strategy: S, history: impl Fn(scenarios::NewWorld<'_>, S::Value)) {
    let Some(s3) = S3::start(seed()) else { return };
    s3.proxy.set_faulty(true);
    let new_world = |text: &str| World::elsewhere(text, s3.place());
    // A failing history is not shrunk, because each attempt would meet other faults.
    let config = Config { cases: cases(), max_shrink_iters: 0, failure_persistence: None, ..Config::default() };
    let tried = TestRunner::new(config).run(&strategy, |value| {
        history(&new_world, value);
        Ok(())
    });
    tried.unwrap_or_else(|failure| panic!("{failure}"));
    let counts = s3.proxy.counts();
    println!("faults: {counts:?}");
    for fault in [Fault::ErrorBefore, Fault::ErrorAfter, Fault::CloseAfter, Fault::Conflict, Fault::Repeated] {
        assert!(counts.get(&fault).is_some_and(|count| *count > 0), "{fault:?} did not come up: {counts:?}");
    }
}

#[test]
fn merged_equals_the_oracle_at_every_step_over_a_faulty_store() {
    with_faults(scenarios::steps(), |new_world, steps| {
        scenarios::equals_the_oracle_at_every_step(new_world, &steps);
    });
}

#[test]
fn several_partitions_merge_to_the_oracle_over_a_faulty_store() {
    with_faults(scenarios::bodies(), |new_world, bodies| scenarios::several_partitions_merge(new_world, &bodies));
}

#[test]
fn a_run_that_dies_at_any_step_changes_nothing_in_a_faulty_store() {
    let Some(s3) = S3::start(seed()) else { return };
    s3.proxy.set_faulty(true);
    scenarios::run_that_dies_changes_nothing(&|text| World::elsewhere(text, s3.place()));
}

#[test]
fn a_changed_definition_answers_as_before_over_object_storage() {
    let Some(s3) = S3::start(seed()) else { return };
    scenarios::changed_definition_answers_as_before(&|text| World::elsewhere(text, s3.place()));
}

fn event(i: i64) -> Event {
    Event {
        id: Some(format!("e{i}")),
        at: scenarios::BEGIN + (i * 37 % 400) * 1_000_000,
        region: (i % 3 > 0).then(|| format!("r{}", i % 5)),
        amount: Some(i),
        price: Some(i as f64 / 7.0),
        cost_cents: Some(i * 11),
        code: Some((i % 2) as i32),
        flag: Some(i % 2 == 0),
        day: None,
    }
}

fn events(numbers: std::ops::Range<i64>) -> Vec<Event> {
    numbers.map(event).collect()
}

#[test]
fn queries_and_ingest_survive_an_outage_of_the_store() {
    let Some(s3) = S3::start(seed()) else { return };
    let views = views();
    let place = s3.place();
    let mut world = World::elsewhere(&definitions(STRICT, &views), place.clone());
    let mut log = Log::new(STRICT);
    post(&world, &mut log, &events(0..60));
    for name in NAMES {
        assert_eq!(world.run(name, false)["state"], json!("published"));
    }

    s3.proxy.set_away(true);
    post(&world, &mut log, &events(60..90));
    scenarios::check(&world, &log, &views, Layer::Merged, "the store is away");
    let run = world.post("/v1/views/regions/runs", "{}").json();
    let id = run["id"].as_str().expect("an id").to_owned();
    world.wait_for("the archiver's complaint", |world| {
        let stream = world.get("/v1/streams/events").json();
        stream["partitions"][0]["archive_error"].as_str().is_some_and(|error| error.contains("writing to the archive"))
    });
    post(&world, &mut log, &events(90..100));
    scenarios::check(&world, &log, &views, Layer::Merged, "the store is still away");
    assert_eq!(world.get(&format!("/v1/runs/{id}")).json()["state"], json!("running"));
    s3.proxy.set_away(false);
    assert_eq!(world.finished(&id)["state"], json!("published"));
    scenarios::check(&world, &log, &views, Layer::Batch, "the store is back");
    scenarios::check(&world, &log, &views, Layer::Merged, "the store is back");

    // A server killed during the outage has lost nothing either.
    s3.proxy.set_away(true);
    post(&world, &mut log, &events(100..130));
    world.kill();
    s3.proxy.set_away(false);
    world.start();
    scenarios::check(&world, &log, &views, Layer::Merged, "started again");

    // A failed run gives its reason, and the next one covers its work.
    post(&world, &mut log, &events(130..140));
    s3.proxy.set_broken(Some("views/regions"));
    let failed = world.run_once("regions", false);
    assert_eq!(failed["state"], json!("failed"), "{failed}");
    let reason = failed["error"].as_str().expect("a reason");
    assert!(reason.contains("503") && reason.contains("views/regions"), "{reason}");
    scenarios::check(&world, &log, &views, Layer::Merged, "after a failed run");
    s3.proxy.set_broken(None);
    assert_eq!(world.run("regions", false)["state"], json!("published"));
    scenarios::check(&world, &log, &views, Layer::Merged, "after the run that made up for it");
    assert_eq!(world.stop(), Some(0));
}

#[test]
fn a_run_fetches_only_needed_columns_and_deletes_them() {
    let Some(s3) = S3::start(seed()) else { return };
    let text = "CREATE STREAM wide (id STRING, at TIMESTAMP, n BIGINT, text STRING) WITH (event_time = 'at');
        CREATE VIEW narrow AS SELECT SUM(n) AS total FROM wide;";
    let world = World::elsewhere(text, s3.place());
    let line = |i: u32| {
        let words: Vec<String> =
            (0..40).map(|w| format!("{:x}", (i * 7919 + w * 104_729).wrapping_mul(2_654_435_761))).collect();
        json!({"id": format!("e{i}"), "at": 1_000_000_000_000i64 + i64::from(i), "n": i, "text": words.join(" ")})
            .to_string()
            + "\n"
    };
    let count = 20_000u32;
    let answer = world.post("/v1/events/wide", (0..count).map(line).collect::<String>());
    assert_eq!(answer.json()["accepted"], json!(count), "{}", answer.text);
    let run = world.run("narrow", false);
    assert_eq!(run["state"], json!("published"), "{run}");
    let total = u64::from(count) * u64::from(count - 1) / 2;
    assert_eq!(world.rows("narrow", "&layer=batch")["rows"][0]["total"], json!(total));
    let (all, read) =
        (run["progress"]["bytes"].as_u64().expect("bytes"), run["progress"]["bytes_read"].as_u64().expect("bytes"));
    assert!(all > 2_000_000 && read > 0 && read < all / 10, "read {read} of {all} bytes");
    let left: Vec<_> = std::fs::read_dir(world.store().join("spool")).expect("a spool").collect();
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn errors_of_the_store_do_not_contain_its_keys() {
    let Some(s3) = S3::start(seed()) else { return };
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("definitions.sql");
    std::fs::write(&file, definitions(STRICT, &views())).expect("the definitions can be written");
    let settings = folder.path().join("trueup.toml");
    std::fs::write(&settings, "[limits]\nstore_request_timeout_ms = 500\nstore_retry_ms = 500\n").expect("settings");
    let start = |data: &str, variables: &[(&str, &str)]| {
        let output = trueup_in(folder.path())
            .arg("serve")
            .arg(&file)
            .args(["--data", data, "--listen", "127.0.0.1:0", "--local"])
            .arg(folder.path().join("local"))
            .arg("--config")
            .arg(&settings)
            .envs(s3.variables())
            .envs(variables.iter().copied())
            .env("TRUEUP_LOG", "trace")
            .output()
            .expect("trueup runs");
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!text.contains(SECRET), "{data}: the key is in\n{text}");
        let error = text.lines().skip_while(|line| !line.starts_with("error: ")).collect::<Vec<_>>().join("\n");
        assert!(!output.status.success() && !error.is_empty(), "{data}: {text}");
        error
    };
    let wrong_bucket = start("s3://nowhere/x", &[]);
    assert!(
        wrong_bucket.contains("there is no such bucket") && wrong_bucket.contains("s3://nowhere/x"),
        "{wrong_bucket}"
    );
    let nobody = start("s3://lake/x", &[("AWS_ENDPOINT_URL", "http://127.0.0.1:1")]);
    assert!(nobody.contains("can be reached") && nobody.contains("AWS_ENDPOINT_URL"), "{nobody}");
    let in_url = start(&format!("s3://me:{SECRET}@lake/x"), &[]);
    assert!(in_url.contains("environment variables") && in_url.contains("s3://lake/x"), "{in_url}");
    let unknown = start("ftp://lake/x", &[]);
    assert!(unknown.contains("s3://bucket/prefix"), "{unknown}");

    // A busy server, with faults and the most verbose log of all libraries.
    s3.proxy.set_faulty(true);
    let mut place = s3.place();
    place.variables.push(("TRUEUP_LOG".to_owned(), "trace".to_owned()));
    let world = World::elsewhere(&definitions(STRICT, &views()), place);
    let mut log = Log::new(STRICT);
    post(&world, &mut log, &events(0..20));
    assert_eq!(world.run("regions", false)["state"], json!("published"));
    let text = world.log();
    assert!(text.contains("object_store") || text.contains("hyper"), "nothing was said");
    assert!(!text.contains(SECRET), "the key is in the log");
    assert_ne!(world.get("/v1/streams").json(), Value::Null);
}
