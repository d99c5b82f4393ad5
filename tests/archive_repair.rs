//! Tests in the real program that archives and views recover from lost files, that a raised horizon brings no duplicates back, and that
//! a stored declaration that cannot be read refuses the start.

use std::path::PathBuf;

use serde_json::{Value, json};
use world::World;
use world::program::text;

const DEFINITIONS: &str = "
    CREATE STREAM s (id STRING PRIMARY KEY, at TIMESTAMP, n BIGINT) WITH (event_time = 'at');
    CREATE VIEW daily AS SELECT window_start, COUNT(*) AS c FROM s GROUP BY TUMBLE(at, INTERVAL '1' DAY);";

/// Events with the ids `ids`, three of each day.
fn events(ids: std::ops::Range<u32>) -> String {
    let event =
        |id: u32| json!({"id": format!("e{id}"), "at": format!("2001-01-{:02}T06:00:00Z", 1 + id / 3), "n": id});
    ids.map(|id| event(id).to_string() + "\n").collect()
}

fn counted(world: &World, parameters: &str) -> u64 {
    let answer = world.rows("daily", parameters);
    assert_eq!(answer["complete"], json!(true), "{}", answer["ledger"]);
    answer["rows"].as_array().expect("rows").iter().map(|row| row["c"].as_u64().expect("a count")).sum()
}

/// The Parquet files of the archive of one day.
fn archived(world: &World, day: &str) -> Vec<PathBuf> {
    let folder = world.store().join(format!("lake/events/s/_event_date={day}"));
    std::fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path()).collect()
}

/// Runs `trueup repair`; returns its exit code and what it printed.
fn repair(world: &World, stream: &str, more: &[&str]) -> (Option<i32>, String) {
    let output = world.trueup().args(["repair", stream, "--data"]).arg(world.store()).args(more).output();
    let output = output.expect("trueup runs");
    (output.status.code(), text(&output))
}

#[test]
fn runs_work_again_after_lost_files_were_given_up() {
    let mut world = World::new(DEFINITIONS);
    assert_eq!(world.post("/v1/events/s", events(0..9)).status, 200);
    assert_eq!(world.run("daily", false)["state"], json!("published"));
    let (code, whole) = repair(&world, "s", &[]);
    assert!(code == Some(0) && whole.contains("none of them missing"), "{whole}");

    let lost = archived(&world, "2001-01-02");
    assert_eq!(lost.len(), 1, "{lost:?}");
    std::fs::remove_file(&lost[0]).expect("deleted");
    let run = world.run("daily", true);
    let error = run["error"].as_str().unwrap_or_default();
    assert!(run["state"] == json!("failed") && error.contains("trueup repair s"), "{run}");
    assert_eq!(counted(&world, ""), 9, "the previous version stays active");

    let (code, listed) = repair(&world, "s", &[]);
    assert!(code == Some(1) && listed.contains("2001-01-02: 1 file missing, with 3 events"), "{listed}");
    assert!(listed.contains("--apply"), "{listed}");
    let (code, done) = repair(&world, "s", &["--apply"]);
    assert!(code == Some(0) && done.contains("1 file with 3 events given up"), "{done}");
    assert_eq!(world.post("/v1/events/s", events(9..12)).status, 200);
    for full in [false, true] {
        let run = world.run("daily", full);
        assert_eq!(run["state"], json!("published"), "{run}");
    }
    assert_eq!((counted(&world, ""), counted(&world, "&layer=batch")), (9, 9), "three are lost, three are new");

    // The next process finds the same.
    world.kill();
    world.start();
    assert_eq!(counted(&world, ""), 9);
    let (code, unknown) = repair(&world, "t", &[]);
    assert!(code == Some(1) && unknown.contains("no archive of a stream called \"t\""), "{unknown}");
}

#[test]
fn raised_horizon_brings_no_duplicates_back_after_a_restart() {
    let mut world = World::new(DEFINITIONS);
    assert_eq!(world.stop(), Some(0));
    // From the first start on: the default of the start before is in force no more.
    world.set_limits("dedup_horizon_events = 10\n");
    world.start();
    for ids in [0..60, 0..30] {
        assert_eq!(world.post("/v1/events/s", events(ids)).status, 200);
    }
    assert_eq!(world.run("daily", false)["state"], json!("published"));
    assert_eq!(counted(&world, "&layer=batch"), 60);
    assert_eq!(world.stop(), Some(0));
    world.set_limits("");
    world.start();
    assert_eq!(world.post("/v1/events/s", events(60..63)).status, 200);
    for full in [false, true] {
        assert_eq!(world.run("daily", full)["state"], json!("published"));
        assert_eq!(counted(&world, "&layer=batch"), 63, "full: {full}");
    }
}

#[test]
fn stored_declaration_that_cannot_be_read_refuses_the_start() {
    let mut world = World::new(DEFINITIONS);
    assert_eq!(world.post("/v1/events/s", events(0..3)).status, 200);
    assert_eq!(world.run("daily", false)["state"], json!("published"));
    assert_eq!(world.stop(), Some(0));
    let log = world.store().join("lake/events/s/_delta_log");
    let mut changed = 0;
    for entry in
        std::fs::read_dir(log).expect("a log").flatten().filter(|e| e.path().extension() == Some("json".as_ref()))
    {
        let before = std::fs::read_to_string(entry.path()).expect("text");
        let lines = before.lines().map(|line| {
            let mut action: Value = serde_json::from_str(line).expect("an action");
            if let Some(declared) = action.pointer_mut("/metaData/configuration/trueup.declaration") {
                *declared = json!("CREATE STREAM s FROM THE FUTURE");
                changed += 1;
            }
            action.to_string() + "\n"
        });
        let after: String = lines.collect();
        std::fs::write(entry.path(), after).expect("written");
    }
    assert!(changed > 0, "no entry has the declaration");
    let (code, refused) = world.start_refused();
    assert_eq!(code, Some(1), "{refused}");
    assert!(refused.contains("cannot read the declaration stored in events/s"), "{refused}");
}

/// The Parquet files of a table of the view `daily`, of one day.
fn files_of_view(world: &World, table: &str, day: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![world.store().join("lake").join(table).join("daily")];
    while let Some(folder) = folders.pop() {
        for path in std::fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path()) {
            let is_of_day = path.to_string_lossy().contains(day) && !path.to_string_lossy().contains("_delta_log");
            match path.is_dir() {
                true => folders.push(path),
                false if is_of_day && path.extension().is_some_and(|e| e == "parquet") => found.push(path),
                false => {}
            }
        }
    }
    found
}

#[test]
fn lost_files_of_a_view_are_computed_again_by_a_full_run_and_past_versions_say_that_they_are_gone() {
    let mut world = World::new(DEFINITIONS);
    assert_eq!(world.post("/v1/events/s", events(0..9)).status, 200);
    assert_eq!(world.run("daily", false)["version"], json!(1));
    let lost = files_of_view(&world, "views", "2001-01-02");
    assert_eq!(lost.len(), 1, "{lost:?}");
    // Rows in memory need no file; the next process has to read it.
    assert_eq!(world.stop(), Some(0));
    std::fs::remove_file(&lost[0]).expect("deleted");
    world.start();
    let broken = world.get("/v1/views/daily/rows");
    let detail = broken.json()["detail"].as_str().unwrap_or_default().to_owned();
    assert_eq!((broken.status, &broken.json()["code"]), (503, &json!("batch_unavailable")), "{detail}");
    assert!(detail.contains("is gone") && detail.contains("trueup batch run daily --full"), "{detail}");
    assert_eq!(world.rows("daily", "&from=2001-01-03")["rows"][0]["c"], json!(3), "other dates are not affected");
    let (code, listed) = repair(&world, "daily", &[]);
    assert!(code == Some(1) && listed.contains("2001-01-02: 1 file missing, with 1 row"), "{listed}");
    assert!(listed.contains("trueup batch run daily --full"), "{listed}");
    // A run that has to read it says the same, and is not retried.
    assert_eq!(world.post("/v1/events/s", events(3..4).replace("e3", "new")).status, 200);
    let run = world.run("daily", false);
    let error = run["error"].as_str().unwrap_or_default();
    assert!(run["state"] == json!("failed") && error.contains("trueup batch run daily --full"), "{run}");
    assert_eq!(run["retry_at"], Value::Null, "{run}");

    let run = world.run("daily", true);
    assert_eq!(run["state"], json!("published"), "{run}");
    assert_eq!((counted(&world, ""), counted(&world, "&layer=batch")), (10, 10));
    let compared = world.get(&format!("/v1/views/daily/compare?version={}", run["version"]));
    assert_eq!((compared.status, &compared.json()["code"]), (404, &json!("no_comparison")), "{}", compared.text);
    let past = world.get("/v1/views/daily/rows?version=1");
    assert_eq!((past.status, &past.json()["code"]), (410, &json!("version_gone")), "{}", past.text);
    assert!(past.json()["detail"].as_str().is_some_and(|detail| detail.contains("is gone")), "{}", past.text);
    let (code, whole) = repair(&world, "daily", &[]);
    assert!(code == Some(0) && whole.contains("none of them missing"), "{whole}");
    assert_eq!(world.run("daily", false)["state"], json!("published"), "and so do incremental runs");
    // Also in the next process.
    assert_eq!(world.stop(), Some(0));
    world.start();
    assert_eq!((counted(&world, ""), counted(&world, "&layer=batch")), (10, 10));
    assert_eq!(world.get("/v1/views/daily/rows?version=1").status, 410);
}

#[test]
fn a_lost_comparison_is_missing_and_nothing_else() {
    let mut world = World::new(DEFINITIONS);
    for ids in [0..9, 9..12] {
        assert_eq!(world.post("/v1/events/s", events(ids)).status, 200);
        assert_eq!(world.run("daily", false)["state"], json!("published"));
    }
    assert_eq!(world.stop(), Some(0));
    let comparisons = files_of_view(&world, "reconciliations", "");
    assert_eq!(comparisons.len(), 2, "{comparisons:?}");
    comparisons.iter().for_each(|path| std::fs::remove_file(path).expect("deleted"));
    world.start();
    assert_eq!(world.get("/v1/views/daily/compare").json()["code"], json!("no_comparison"));
    assert_eq!(world.get("/v1/views/daily/drift").status, 200);
    assert_eq!(world.get("/v1/views/daily/versions").status, 200);
    assert_eq!(world.post("/v1/events/s", events(12..15)).status, 200);
    assert_eq!(world.run("daily", false)["state"], json!("published"));
    assert_eq!(world.get("/v1/views/daily/compare").status, 200);
}
