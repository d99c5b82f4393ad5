//! Tests past versions: kept versions return the same bytes as before, also after vacuum, restarts and kills; other
//! versions are refused; and no unneeded file remains.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::{Value, json};
use world::World;

const KEPT: usize = 4;

const DEFINITIONS: &str = "
    CREATE STREAM s (at TIMESTAMP, k STRING, n BIGINT) WITH (event_time = 'at', allowed_lateness = '1 day');
    CREATE VIEW hourly WITH (versions_kept = 4) AS SELECT window_start, k, COUNT(*) AS c, AVG(n) AS mean, COUNT(DISTINCT n) AS d
      FROM s GROUP BY TUMBLE(at, INTERVAL '1' HOUR), k;
    CREATE VIEW visits WITH (versions_kept = 4) AS SELECT window_start, k, COUNT(*) AS c FROM s GROUP BY SESSION(at, INTERVAL '20' MINUTE), k;
    CREATE VIEW trailing WITH (versions_kept = 4) AS SELECT k, SUM(n) AS total FROM s GROUP BY SLIDE(at, INTERVAL '2' DAY, INTERVAL '1' HOUR), k;
    CREATE VIEW totals WITH (versions_kept = 4) AS SELECT k, SUM(n) AS total, MAX(at) AS latest FROM s GROUP BY k;";
const VIEWS: [&str; 4] = ["hourly", "visits", "trailing", "totals"];

fn seeded() -> StdRng {
    let seed = std::env::var("TRUEUP_SEED").ok().and_then(|s| s.parse().ok()).unwrap_or_else(rand::random);
    println!("TRUEUP_SEED={seed}");
    StdRng::seed_from_u64(seed)
}

/// Events of a few days, mostly going forward with `round`, some of them late.
fn events(random: &mut StdRng, round: u64, count: usize) -> String {
    let line = |_| {
        let second = round * 7_200 + random.random_range(0..200_000);
        let k = ["a", "b", "c"][random.random_range(0..3)];
        json!({"at": 978_307_200_000u64 + second * 1_000, "k": k, "n": random.random_range(0..50)}).to_string() + "\n"
    };
    (0..count).map(line).collect()
}

fn with_limits(definitions: &str, limits: &str) -> World {
    let mut world = World::new(definitions);
    assert_eq!(world.stop(), Some(0));
    world.set_limits(limits);
    world.start();
    world
}

/// The responses of a view: the document without its time, and the bytes of two other formats.
#[derive(Debug, PartialEq)]
struct Responses {
    document: String,
    csv: String,
    parquet: Vec<u8>,
}

fn responses(world: &World, view: &str, parameters: &str) -> Responses {
    let instant = if view == "trailing" { "&as_of=latest" } else { "" };
    let path = |format: &str| format!("/v1/views/{view}/rows.{format}?limit=100000{parameters}{instant}");
    let document = world.get(&path("json"));
    assert_eq!(document.status, 200, "{view}{parameters}: {}", document.text);
    let mut json = document.json();
    if view != "trailing" {
        json["as_of"] = Value::Null;
    }
    assert_eq!(json["complete"], json!(true), "{view}{parameters}: {}", json["ledger"]);
    let rows = document.text.find("\"rows\":").and_then(|from| Some(from..document.text.rfind(",\"seam\"")?));
    let rows = document.text[rows.expect("rows and a seam")].to_owned();
    let document = format!("{json}\n{rows}");
    Responses { document, csv: world.get(&path("csv")).text, parquet: world.get_bytes(&path("parquet")) }
}

fn vacuum(world: &World, view: &str) -> Value {
    let answer = world.post(&format!("/v1/views/{view}/vacuum"), r#"{"older_than_ms": 0}"#);
    assert_eq!(answer.status, 200, "{}", answer.text);
    answer.json()
}

/// Files of the view's table in the store, and those that its versions from `from` on need by the Delta log.
fn files(world: &World, view: &str, from: i64) -> (BTreeSet<String>, BTreeSet<String>) {
    let table = world.store().join("lake/views").join(view);
    let mut stored = BTreeSet::new();
    let mut folders = vec![table.clone()];
    while let Some(folder) = folders.pop() {
        // A view without a run has no table.
        for entry in std::fs::read_dir(&folder).into_iter().flatten() {
            let path = entry.expect("an entry").path();
            let name = path.strip_prefix(&table).expect("inside").display().to_string();
            if path.is_dir() {
                folders.push(path);
            } else if name.starts_with("_window_date=") {
                stored.insert(name);
            }
        }
    }
    let (mut active, mut needed) = (BTreeSet::new(), BTreeSet::new());
    for version in 0.. {
        let Ok(entry) = std::fs::read_to_string(table.join(format!("_delta_log/{version:020}.json"))) else { break };
        let actions = || entry.lines().map(|line| serde_json::from_str::<Value>(line).expect("an action"));
        for action in actions() {
            let path = |kind: &str| action[kind]["path"].as_str().map(|path| path.replace("%3D", "="));
            if let Some(path) = path("remove") {
                active.remove(&path);
            }
            if let Some(path) = path("add") {
                active.insert(path);
            }
        }
        if version >= from {
            needed.extend(active.iter().cloned());
        }
    }
    (stored, needed)
}

fn nothing_leaks(world: &World, view: &str) {
    let kept_from = vacuum(world, view)["kept_from"].as_i64().unwrap_or(0);
    let (stored, needed) = files(world, view, kept_from);
    assert_eq!(stored, needed, "{view}, from version {kept_from}");
}

#[test]
fn kept_versions_return_the_same_bytes_and_others_are_refused() {
    let mut random = seeded();
    let mut world = with_limits(DEFINITIONS, "archive_wait_ms = 5\n");
    let mut history: BTreeMap<&str, BTreeMap<i64, (String, Responses)>> = BTreeMap::new();
    for round in 0..14 {
        let count = random.random_range(1..120);
        assert_eq!(world.post("/v1/events/s", events(&mut random, round, count)).status, 200);
        for view in VIEWS {
            if random.random_bool(0.2) {
                continue;
            }
            let run = world.run(view, random.random_bool(0.1));
            assert_eq!(run["state"], json!("published"), "{run}");
            let version = run["version"].as_i64().expect("a version");
            let now = responses(&world, view, "&layer=batch");
            let published_at =
                world.get(&format!("/v1/views/{view}/versions")).json()["versions"][0]["published_at"].clone();
            let published_at = published_at.as_str().expect("a time").to_owned();
            history.entry(view).or_default().insert(version, (published_at, now));
        }
        match random.random_range(0..5) {
            0 => assert_eq!(world.stop(), Some(0)),
            1 => world.kill(),
            2 => VIEWS.into_iter().for_each(|view| nothing_leaks(&world, view)),
            _ => {}
        }
        if !world.is_alive() {
            world.start();
        }
        for (view, versions) in &history {
            let oldest = versions.len().saturating_sub(KEPT);
            for (i, (version, (published_at, before))) in versions.iter().enumerate() {
                let parameters = format!("&version={version}");
                if i < oldest {
                    let gone = world.get(&format!("/v1/views/{view}/rows?version={version}"));
                    assert_eq!(
                        (gone.status, gone.json()["code"].clone()),
                        (410, json!("version_gone")),
                        "{}",
                        gone.text
                    );
                    let named = versions.keys().nth(oldest).expect("a version");
                    assert!(gone.text.contains(&format!("the oldest kept version is {named}")), "{}", gone.text);
                    continue;
                }
                assert_eq!(&responses(&world, view, &parameters), before, "{view} {version}, round {round}");
                if *view != "trailing" {
                    assert_eq!(&responses(&world, view, &format!("&as_of={version}")), before);
                    assert_eq!(
                        &responses(&world, view, &format!("&as_of={published_at}")),
                        before,
                        "{view} at {published_at}"
                    );
                }
            }
            let newest = versions.keys().last().expect("a version");
            let future = world.get(&format!("/v1/views/{view}/rows?version={}", newest + 1));
            assert_eq!(
                (future.status, future.json()["code"].clone()),
                (404, json!("unknown_version")),
                "{}",
                future.text
            );
        }
    }
    VIEWS.into_iter().for_each(|view| nothing_leaks(&world, view));

    // Old versions keep their own definition.
    let (version, (_, before)) = history["hourly"].iter().last().expect("a version");
    assert_eq!(world.stop(), Some(0));
    world.redefine(&DEFINITIONS.replace("AVG(n) AS mean", "MAX(n) AS largest"));
    world.start();
    world.wait_for("the new definition", |world| world.rows("hourly", "")["seam"]["version"].as_i64() > Some(*version));
    assert_eq!(&responses(&world, "hourly", &format!("&version={version}")), before);
    let refused = world.get(&format!("/v1/views/hourly/rows?version={version}&measures=largest"));
    assert_eq!(refused.status, 400, "{}", refused.text);

    // Pages of a past version, while new versions are published.
    let first = world.get(&format!("/v1/views/hourly/rows?version={version}&limit=2")).json();
    assert_eq!(world.post("/v1/events/s", events(&mut random, 3, 10)).status, 200);
    assert_eq!(world.run("hourly", false)["state"], json!("published"));
    let next = first["next"].as_str().expect("more rows");
    let second = world.get(&format!("/v1/views/hourly/rows?version={version}&limit=2&cursor={next}")).json();
    let whole = world.get(&format!("/v1/views/hourly/rows?version={version}&limit=4"));
    assert_eq!(whole.cache_control.as_deref(), Some("max-age=86400, immutable"));
    let whole = whole.json();
    let rows = |answer: &Value| answer["rows"].as_array().expect("rows").clone();
    assert_eq!([rows(&first), rows(&second)].concat(), rows(&whole));
}

#[test]
fn a_kill_at_any_step_leaves_no_file_behind() {
    let mut random = seeded();
    let mut world = with_limits(DEFINITIONS, "archive_wait_ms = 5\n");
    let mut leftovers = 0;
    for (round, step) in ["recompute", "write", "reconcile", "commit", "publish", "retire"].into_iter().enumerate() {
        assert_eq!(world.post("/v1/events/s", events(&mut random, round as u64, 100)).status, 200);
        assert_eq!(world.run("hourly", false)["state"], json!("published"));
        nothing_leaks(&world, "hourly");
        assert_eq!(world.post("/v1/events/s", events(&mut random, round as u64, 100)).status, 200);
        assert_eq!(world.stop(), Some(0));
        world.set_environment(&[("TRUEUP_FAIL_AT", step)]);
        world.start();
        let _ = world.try_post("/v1/views/hourly/runs", b"{}".to_vec(), &[]);
        world.wait_for_exit();
        world.set_environment(&[]);
        world.start();
        let (stored, needed) = files(&world, "hourly", 0);
        let left = stored.difference(&needed).count();
        leftovers += left;
        // Another process might be about to commit them.
        let too_young = vacuum(&world, "hourly")["too_young"].as_u64().expect("a count");
        assert!(too_young >= left as u64, "{step}: {too_young} of {left}");
        world.age_files();
        nothing_leaks(&world, "hourly");
        assert_eq!(world.rows("hourly", "")["complete"], json!(true), "{step}");
    }
    assert!(leftovers > 0, "no kill left anything, so nothing was shown");
}

#[test]
fn queries_never_read_a_deleted_file() {
    let mut random = seeded();
    let definitions = DEFINITIONS.replace("versions_kept = 4", "versions_kept = 1");
    let limits = "archive_wait_ms = 5\nbatch_cache_bytes = 1\nvacuum_age_ms = 0\nvacuum_every_ms = 0\n";
    let world = with_limits(&definitions, limits);
    assert_eq!(world.post("/v1/events/s", events(&mut random, 0, 3_000)).status, 200);
    assert_eq!(world.run("hourly", false)["state"], json!("published"));
    let over = Arc::new(AtomicBool::new(false));
    let ask = |path: &'static str| {
        let (over, url) = (Arc::clone(&over), world.url().to_owned());
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            let client = reqwest::Client::builder().no_proxy().build().expect("a client");
            let mut statuses: BTreeMap<u16, u64> = BTreeMap::new();
            let mut version = 1;
            while !over.load(Ordering::SeqCst) {
                let path = path.replace("{version}", &version.to_string());
                let answer = runtime.block_on(async { client.get(format!("{url}{path}")).send().await });
                let answer = answer.expect("an answer");
                let status = answer.status().as_u16();
                let text = runtime.block_on(answer.text()).expect("a text");
                assert!(status == 200 || (status == 410 && path.contains("version=")), "{path}: {status} {text}");
                if status == 410 {
                    let oldest = text.split("the oldest kept version is ").nth(1).and_then(|t| t.split(',').next());
                    version = oldest.and_then(|oldest| oldest.parse().ok()).expect("the oldest is named");
                }
                *statuses.entry(status).or_default() += 1;
            }
            statuses
        })
    };
    let asking = [
        ask("/v1/views/hourly/rows.json?version={version}"),
        ask("/v1/views/hourly/rows.json?layer=batch"),
        ask("/v1/views/hourly/rows.json"),
    ];
    for round in 0..25 {
        assert_eq!(world.post("/v1/events/s", events(&mut random, round, 20)).status, 200);
        assert_eq!(world.run("hourly", true)["state"], json!("published"));
        vacuum(&world, "hourly");
    }
    over.store(true, Ordering::SeqCst);
    for thread in asking {
        let statuses = thread.join().expect("no answer was wrong");
        assert!(statuses[&200] > 10, "{statuses:?}");
    }
    nothing_leaks(&world, "hourly");
}

#[test]
fn the_delta_log_of_a_view_stays_bounded() {
    let mut random = seeded();
    let definitions = DEFINITIONS.replace("versions_kept = 4", "versions_kept = 3");
    let mut world = with_limits(&definitions, "archive_wait_ms = 1\n");
    for round in 0..125 {
        assert_eq!(world.post("/v1/events/s", events(&mut random, round, 1)).status, 200);
        assert_eq!(world.run("totals", false)["state"], json!("published"));
    }
    let before = responses(&world, "totals", "&version=123");
    let cleaned = vacuum(&world, "totals");
    assert_eq!(cleaned["kept_from"], json!(123));
    assert!(cleaned["log_entries"].as_u64() > Some(90), "{cleaned}");
    let log = world.store().join("lake/views/totals/_delta_log");
    assert!(entries(&log) < 40, "{} entries", entries(&log));
    world.kill();
    world.start();
    assert_eq!(responses(&world, "totals", "&version=123"), before);
    assert_eq!(world.get("/v1/views/totals/rows?version=122").status, 410);
    assert_eq!(world.post("/v1/events/s", events(&mut random, 0, 1)).status, 200);
    let run = world.run("totals", false);
    assert_eq!((&run["state"], &run["version"]), (&json!("published"), &json!(126)), "{run}");
    let listed = world.get("/v1/views/totals/versions").json();
    let kept = listed["versions"].as_array().expect("versions").iter().filter(|v| v["kept"] == json!(true)).count();
    assert_eq!(kept, 3, "{listed}");
}

fn entries(folder: &Path) -> usize {
    std::fs::read_dir(folder).expect("a folder").count()
}

const RETAINED: &str = "
    CREATE STREAM s (at TIMESTAMP, n BIGINT) WITH (event_time = 'at', allowed_lateness = '60 days', watermark_delay = '1 day');
    CREATE VIEW short WITH (RETENTION versions_kept = 5) AS SELECT window_start, COUNT(*) AS c, SUM(n) AS total FROM s GROUP BY TUMBLE(at, INTERVAL '6' HOUR);
    CREATE VIEW whole AS SELECT window_start, COUNT(*) AS c, SUM(n) AS total FROM s GROUP BY TUMBLE(at, INTERVAL '6' HOUR);
    CREATE VIEW visits WITH (RETENTION versions_kept = 5) AS SELECT window_start, COUNT(*) AS c FROM s GROUP BY SESSION(at, INTERVAL '30' MINUTE);
    CREATE VIEW all_visits AS SELECT window_start, COUNT(*) AS c FROM s GROUP BY SESSION(at, INTERVAL '30' MINUTE);";

fn retained(days: Option<u32>) -> String {
    RETAINED.replace("RETENTION", &days.map_or_else(String::new, |days| format!("retention = '{days} days',")))
}

/// Events of the last days, one every `step` minutes.
fn recent(days: i64, step: i64) -> String {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("after 1970");
    let now = i64::try_from(now.as_millis()).expect("a time");
    let at = (1..days * 1_440 / step).rev().map(|i| now - i * step * 60_000);
    at.enumerate().map(|(i, at)| json!({"at": at, "n": i}).to_string() + "\n").collect()
}

/// The rows of `view` are those rows of `of` whose windows start on a kept date.
fn is_cut(world: &World, view: &str, of: &str, parameters: &str) -> String {
    let first = world.get(&format!("/v1/views/{view}")).json()["retained_from"].as_str().expect("a date").to_owned();
    let cut = world.rows(view, parameters);
    let whole = world.rows(of, &format!("{parameters}&from={first}"));
    let shown = |answer: &Value| {
        let rows = answer["rows"].as_array().expect("rows").iter();
        rows.map(|row| [&row["window_start"], &row["c"], &row["total"]].map(Value::to_string)).collect::<Vec<_>>()
    };
    assert_eq!(cut["complete"], json!(true), "{}", cut["ledger"]);
    assert!(!shown(&cut).is_empty());
    assert_eq!(shown(&cut), shown(&whole), "{view} {parameters}");
    first
}

#[test]
fn a_longer_retention_of_a_view_restores_its_dates() {
    let mut world = with_limits(&retained(None), "archive_wait_ms = 5\n");
    assert_eq!(world.post("/v1/events/s", recent(12, 60)).status, 200);
    let views = ["short", "whole", "visits", "all_visits"];
    views.into_iter().for_each(|view| assert_eq!(world.run(view, false)["state"], json!("published")));
    let before = world.rows("short", "")["rows"].as_array().expect("rows").len();
    assert_eq!(world.get("/v1/views/short").json()["retained_from"], Value::Null);

    // Without a new event, the next run drops dates beyond the retention.
    assert_eq!(world.stop(), Some(0));
    world.redefine(&retained(Some(5)));
    world.start();
    let run = world.run("short", false);
    assert_eq!((&run["state"], &run["version"]), (&json!("published"), &json!(2)), "{run}");
    assert_eq!(world.run("visits", false)["state"], json!("published"));
    is_cut(&world, "short", "whole", "");
    is_cut(&world, "visits", "all_visits", "");
    assert!(world.rows("short", "")["rows"].as_array().expect("rows").len() < before * 2 / 3);
    assert_eq!(world.rows("short", "&version=1")["rows"].as_array().expect("rows").len(), before, "then it had all");
    assert_eq!(world.run("short", false)["version"], json!(2), "nothing more to do");

    // Late events of dropped dates are shown by neither layer, and counted.
    let late: String = recent(11, 60).lines().take(30).map(|line| line.to_owned() + "\n").collect();
    assert_eq!(world.post("/v1/events/s", late.clone() + &recent(1, 60)).status, 200);
    for layer in ["merged", "batch", "speed"] {
        is_cut(&world, "short", "whole", &format!("&layer={layer}"));
    }
    is_cut(&world, "short", "whole", "&grain=1d");
    views.into_iter().for_each(|view| assert_eq!(world.run(view, false)["state"], json!("published")));
    let first = is_cut(&world, "short", "whole", "");
    is_cut(&world, "visits", "all_visits", "");
    let status = world.get("/v1/views/short").json();
    assert_eq!((&status["retention"], &status["past_retention"]), (&json!("5 days"), &json!(30)), "{status}");
    for view in views {
        let drift = world.get(&format!("/v1/views/{view}/compare")).json();
        assert_eq!(drift["causes"]["unexplained"], json!(0), "{view}: {drift}");
    }
    // A full run changes nothing.
    let incremental = responses(&world, "short", "&layer=batch");
    assert_eq!(world.run("short", true)["state"], json!("published"));
    assert_eq!(responses(&world, "short", "&layer=batch").csv, incremental.csv);

    // A longer retention restores the dates that are still in the archive.
    assert_eq!(world.stop(), Some(0));
    world.redefine(&retained(Some(9)));
    world.start();
    assert_eq!(world.run("short", false)["state"], json!("published"));
    assert!(is_cut(&world, "short", "whole", "") < first);
    ["short", "visits"].into_iter().for_each(|view| nothing_leaks(&world, view));
}

#[test]
fn a_cancelled_run_deletes_its_files_at_once() {
    let mut random = seeded();
    let world = with_limits(&DEFINITIONS.replace("versions_kept = 4", "versions_kept = 1000"), "archive_wait_ms = 5\n");
    let mut cancelled = 0;
    for round in 0..40 {
        assert_eq!(world.post("/v1/events/s", events(&mut random, round, 200)).status, 200);
        let asked = world.post("/v1/views/hourly/runs", r#"{"full": true}"#);
        let id = asked.json()["id"].as_str().expect("an id").to_owned();
        std::thread::sleep(std::time::Duration::from_micros(random.random_range(0..60_000)));
        assert_eq!(world.delete(&format!("/v1/runs/{id}")).status, 200);
        cancelled += usize::from(world.finished(&id)["state"] == json!("cancelled"));
        let (stored, needed) = files(&world, "hourly", 0);
        assert_eq!(stored, needed, "round {round}");
    }
    assert!(cancelled > 0, "no run was caught under way");
}
