//! Tests runs that do not publish: failed runs are retried and remembered, cancelled runs leave nothing behind, and a
//! process that has lost its lake publishes nothing.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use world::program::trueup;
use world::{Elsewhere, World};

const DEFINITIONS: &str = "
    CREATE STREAM sales (id STRING PRIMARY KEY, at TIMESTAMP, amount BIGINT)
        WITH (event_time = 'at', allowed_lateness = '1 day');
    CREATE VIEW totals WITH (schedule = '0 2 * * *', schedule_time_zone = 'Europe/Berlin') AS
        SELECT window_start, COUNT(*) AS n, SUM(amount) AS total FROM sales GROUP BY TUMBLE(at, INTERVAL '1' HOUR);";

fn send(world: &World, range: std::ops::Range<u64>) {
    let lines: String = range
        .map(|i| json!({"id": format!("e{i}"), "at": "2001-01-01T10:00:00Z", "amount": i}).to_string() + "\n")
        .collect();
    let answer = world.post("/v1/events/sales", lines);
    assert_eq!(answer.status, 200, "{}", answer.text);
}

fn count(world: &World, layer: &str) -> u64 {
    let answer = world.rows("totals", &format!("&layer={layer}"));
    assert_eq!(answer["complete"], json!(true), "{}", answer["ledger"]);
    answer["rows"].as_array().expect("rows").iter().map(|row| row["n"].as_u64().expect("a number")).sum()
}

fn runs(world: &World, query: &str) -> Vec<Value> {
    world.get(&format!("/v1/runs?{query}")).json()["runs"].as_array().expect("runs").clone()
}

fn request(world: &World, body: &str) -> String {
    let answer = world.post("/v1/views/totals/runs", body);
    assert_eq!(answer.status, 202, "{}", answer.text);
    answer.json()["id"].as_str().expect("an id").to_owned()
}

/// Parquet files below a folder of the lake.
fn files(world: &World, folder: &str) -> BTreeSet<PathBuf> {
    fn walk(folder: &Path, found: &mut BTreeSet<PathBuf>) {
        for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
            let path = entry.path();
            if path.is_dir() {
                walk(&path, found);
            } else if path.extension().is_some_and(|extension| extension == "parquet") {
                found.insert(path);
            }
        }
    }
    let mut found = BTreeSet::new();
    walk(&world.store().join("lake").join(folder), &mut found);
    found
}

#[test]
fn a_failed_run_is_retried_across_a_restart_until_it_succeeds() {
    let limits = "archive_wait_ms = 20\nrun_retry_first_ms = 200\nrun_retry_max_ms = 400\nrun_attempts_max = 1000\n";
    let mut world = World::new(DEFINITIONS);
    assert_eq!(world.stop(), Some(0));
    world.set_limits(limits);
    world.start();
    send(&world, 0..10);
    assert_eq!(world.run("totals", false)["state"], json!("published"));
    // A file of the archive is missing, as in an outage of the store.
    let file = files(&world, "events").into_iter().next().expect("a file");
    let aside = world.data.path().join("aside");
    std::fs::rename(&file, &aside).expect("it can be moved");
    let first = request(&world, r#"{"full": true}"#);
    world.wait_for("a third attempt that failed", |world| {
        runs(world, "state=failed").iter().any(|run| run["attempt"] == json!(3))
    });
    let latest = runs(&world, "state=failed&limit=1")[0].clone();
    assert_eq!(
        (&latest["trigger"], &latest["retry_of"], &latest["full"]),
        (&json!("retry"), &json!(first), &json!(true))
    );
    assert_eq!(count(&world, "merged"), 10, "what answered before goes on answering");
    let view = world.get("/v1/views/totals").json();
    assert!(view["last_failure"]["error"].as_str().is_some_and(|error| !error.is_empty()), "{view}");
    assert_eq!(view["last_success"]["version"], json!(1));
    assert_eq!(view["schedule_time_zone"], json!("Europe/Berlin"));
    let words = trueup(&["batch", "status", "--url", world.url()]).1;
    assert!(words.contains("Europe/Berlin") && words.contains("ago: "), "{words}");

    // The server is killed while the retry waits.
    world.wait_for("a retry to wait", |world| !world.get("/v1/views/totals").json()["retry_at"].is_null());
    world.kill();
    std::fs::rename(&aside, &file).expect("it can be moved back");
    world.start();
    world.wait_for("the retry", |world| !runs(world, "state=published&limit=1")[0]["retry_of"].is_null());
    let done = runs(&world, "state=published&limit=1")[0].clone();
    assert_eq!((&done["retry_of"], &done["version"], &done["full"]), (&json!(first), &json!(2), &json!(true)));
    assert!(done["attempt"].as_u64() > Some(3), "{done}");
    let view = world.get("/v1/views/totals").json();
    assert_eq!((&view["last_success"]["run"], &view["retry_at"]), (&done["id"], &json!(null)));
    // The run log of the killed process is listed, page by page.
    let all = runs(&world, "limit=1000");
    let mut paged = Vec::new();
    let mut query = "limit=2".to_owned();
    loop {
        let page = world.get(&format!("/v1/runs?{query}")).json();
        paged.extend(page["runs"].as_array().expect("runs").clone());
        let Some(next) = page["next"].as_str() else { break };
        query = format!("limit=2&before={next}");
    }
    assert_eq!(paged, all);
    assert!(all.iter().any(|run| run["id"] == json!(first)), "{all:?}");
    let (code, text) = trueup(&["batch", "runs", "totals", "--state", "failed", "--url", world.url()]);
    assert!(code == Some(0) && text.contains("retry, attempt 2"), "{text}");
}

#[test]
fn a_retry_can_be_cancelled_and_is_replaced_by_a_request() {
    let mut world = World::new(DEFINITIONS);
    assert_eq!(world.stop(), Some(0));
    world.set_limits("archive_wait_ms = 20\nrun_retry_first_ms = 3600000\n");
    world.start();
    send(&world, 0..10);
    assert_eq!(world.run("totals", false)["state"], json!("published"));
    let file = files(&world, "events").into_iter().next().expect("a file");
    let aside = world.data.path().join("aside");
    std::fs::rename(&file, &aside).expect("it can be moved");
    let failed = world.finished(&request(&world, r#"{"full": true}"#));
    assert!(!failed["retry_at"].is_null(), "{failed}");
    let waits = |world: &World, n: u8| {
        world.get("/metrics").text.contains(&format!("trueup_batch_retry_waiting{{view=\"totals\"}} {n}\n"))
    };
    world.wait_for("the metric of a retry that waits", |world| waits(world, 1));
    let (code, text) = trueup(&["batch", "cancel", "totals", "--url", world.url()]);
    assert!(code == Some(0) && text.contains("the retry of run "), "{text}");
    world.wait_for("the metric of none", |world| waits(world, 0));
    assert_eq!(world.get("/v1/views/totals").json()["retry_at"], json!(null));
    let (code, text) = trueup(&["batch", "cancel", "totals", "--url", world.url()]);
    assert!(code == Some(1) && text.contains("no running or queued run of totals"), "{text}");

    let failed = world.finished(&request(&world, r#"{"full": true}"#));
    std::fs::rename(&aside, &file).expect("it can be moved back");
    let newer = world.finished(&request(&world, ""));
    // The run with the smaller scope inherits that of the failed one.
    assert_eq!((&newer["state"], &newer["full"], &newer["attempt"]), (&json!("published"), &json!(true), &json!(1)));
    let id = failed["id"].as_str().expect("an id");
    assert_eq!(world.get(&format!("/v1/runs/{id}")).json()["retry_at"], json!(null));
}

#[test]
fn a_run_that_is_cancelled_at_any_step_leaves_nothing_behind() {
    let mut world = World::new(DEFINITIONS);
    let mut sent = 0;
    for step in ["cut", "archived", "plan", "recompute", "write", "reconcile", "commit", "publish", "retire"] {
        assert_eq!(world.stop(), Some(0));
        world.set_environment(&[]);
        world.start();
        send(&world, sent..sent + 10);
        sent += 10;
        assert_eq!(world.run("totals", false)["state"], json!("published"));
        assert_eq!(world.stop(), Some(0));

        let go_on = world.data.path().join(format!("after-{step}"));
        let until = go_on.display().to_string();
        let environment = [("TRUEUP_HOLD_AT", step), ("TRUEUP_HOLD_UNTIL", &until), ("TRUEUP_LOG", "batch=debug,info")];
        world.set_environment(&environment);
        world.start();
        let before = world.rows("totals", "")["seam"].clone();
        let (views, reconciliations) = (files(&world, "views"), files(&world, "reconciliations"));
        send(&world, sent..sent + 10);
        sent += 10;
        let id = request(&world, "");
        world.wait_for("the step", |world| world.log().contains(&format!("step=\"{step}\"")));
        let (code, text) = trueup(&["batch", "cancel", &id, "--url", world.url()]);
        assert!(code == Some(0) && text.contains("is being cancelled"), "{text}");
        std::fs::write(&go_on, "").expect("a file");
        let run = world.finished(&id);
        if matches!(step, "publish" | "retire") {
            // It is committed and can no longer be cancelled.
            assert_eq!(run["state"], json!("published"), "{step}");
        } else {
            assert_eq!((&run["state"], &run["retry_at"]), (&json!("cancelled"), &json!(null)), "{step}");
            assert_eq!(world.rows("totals", "")["seam"], before, "{step}");
            assert_eq!(files(&world, "views"), views, "{step}");
            assert_eq!(files(&world, "reconciliations"), reconciliations, "{step}");
        }
        assert_eq!(count(&world, "merged"), sent, "{step}");
        assert_eq!(world.run("totals", false)["state"], json!("published"), "{step}");
        assert_eq!(count(&world, "batch"), sent, "{step}");
    }
}

/// Two processes run one view over one lake: the former owner publishes nothing, at whichever
/// step before its commit it is.
#[test]
fn only_the_owner_of_the_lake_publishes() {
    let lake = tempfile::tempdir().expect("a folder");
    let over = |take_over: bool, variables: Vec<(String, String)>| {
        World::elsewhere(
            DEFINITIONS,
            Elsewhere {
                data: lake.path().display().to_string(),
                variables,
                options: take_over.then(|| "--take-over".to_owned()).into_iter().collect(),
                limits: "archive_wait_ms = 20".to_owned(),
            },
        )
    };
    let versions = |world: &World| world.get("/v1/views/totals/versions").json()["versions"].clone();
    let until = lake.path().join("go-on");
    let mut sent = 0;
    for step in ["plan", "write", "commit"] {
        let _ = std::fs::remove_file(&until);
        let hold = [("TRUEUP_HOLD_AT", step.to_owned()), ("TRUEUP_HOLD_UNTIL", until.display().to_string())];
        let hold = hold.into_iter().chain([("TRUEUP_LOG", "batch=debug,info".to_owned())]);
        let mut old = over(sent > 0, hold.map(|(name, value)| (name.to_owned(), value)).collect());
        send(&old, sent..sent + 10);
        sent += 10;
        old.wait_for("the archive", |old| {
            old.get("/v1/streams/sales").json()["partitions"][0]["archived"] == json!(sent)
        });
        let _ = request(&old, r#"{"full": true}"#);
        old.wait_for("the step", |old| old.log().contains(&format!("step=\"{step}\"")));

        let mut new = over(true, Vec::new());
        send(&new, sent..sent + 10);
        sent += 10;
        assert_eq!(new.run("totals", true)["state"], json!("published"), "{step}");
        let published = versions(&new);
        // The former owner's run continues, whether or not its process has noticed the loss of the lake.
        std::fs::write(&until, "").expect("a file");
        old.wait_for_exit();
        assert_eq!(versions(&new), published, "{step}");
        assert_eq!((count(&new, "batch"), count(&new, "merged")), (sent, sent), "{step}");
        assert_eq!(new.run("totals", true)["state"], json!("published"), "{step}");
        assert_eq!(count(&new, "batch"), sent, "{step}");
        assert_eq!(new.stop(), Some(0));
    }
}
