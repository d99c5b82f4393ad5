//! Runs on Spark that are cancelled, that lose the connection, Spark or Trueup itself, and lakes that Spark does not see: nothing
//! wrong becomes visible, and nothing stays behind.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use world::World;
use world::oracle_check::published;
use world::s3::S3;

use super::connect::{ConnectServer, shared};

/// Each event is in 10,000 windows of the view `slow`, which takes Spark a while.
const DEFINITIONS: &str = "CREATE STREAM orders (order_id STRING PRIMARY KEY, at TIMESTAMP, region STRING, amount BIGINT)
       WITH (event_time = 'at', max_ahead = '100 days');
     CREATE VIEW hourly AS SELECT window_start, region, COUNT(*) AS n, SUM(amount) AS total, COUNT(DISTINCT order_id) AS ids
       FROM orders GROUP BY TUMBLE(at, INTERVAL '1' HOUR), region;
     CREATE VIEW slow AS SELECT window_start, COUNT(*) AS n, SUM(amount) AS total
       FROM orders GROUP BY HOP(at, INTERVAL '1' SECOND, INTERVAL '10000' SECOND);\n";

fn settings(connection: &str) -> String {
    format!(
        "[batch]\nengine = \"spark\"\n[limits]\nrun_retry_first_ms = 200\nrun_retry_max_ms = 200\narchive_wait_ms = 20\n{connection}"
    )
}

fn post(world: &World, count: i64) {
    let event = |i: i64| {
        let at = format!("2024-03-01T10:{:02}:{:02}Z", i % 60, i / 60 % 60);
        json!({"order_id": format!("o{i}"), "at": at, "region": format!("r{}", i % 3), "amount": i}).to_string() + "\n"
    };
    let answer = world.post("/v1/events/orders", (0..count).map(event).collect::<String>());
    assert_eq!(answer.status, 200, "{}", answer.text);
}

fn world(connection: &str) -> World {
    let mut world = World::stopped(DEFINITIONS);
    world.set_settings(&settings(connection));
    world.start();
    world
}

/// Requests a run and waits until Spark computes its states.
fn start(world: &World, view: &str) -> String {
    let begins = |world: &World| world.log().matches("Spark computes the states").count();
    let before = begins(world);
    let answer = world.post(&format!("/v1/views/{view}/runs"), "{}");
    let id = answer.json()["id"].as_str().expect("an id").to_owned();
    world.wait_for("Spark to compute", |world| {
        let run = world.get(&format!("/v1/runs/{id}")).json();
        assert_ne!(run["state"], json!("failed"), "{run}");
        begins(world) > before
    });
    id
}

/// The files that were exchanged and not deleted.
fn exchanged(world: &World) -> Vec<PathBuf> {
    fn find(folder: &Path, found: &mut Vec<PathBuf>) {
        for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
            match entry.path() {
                path if path.is_dir() => find(&path, found),
                path => found.push(path),
            }
        }
    }
    let mut found = Vec::new();
    for view in ["hourly", "slow"] {
        find(&world.store().join("lake/views").join(view).join("_exchange"), &mut found);
    }
    found
}

/// Those of them that hold rows.
fn left_behind(world: &World) -> Vec<PathBuf> {
    let mut found = exchanged(world);
    found.retain(|path| path.extension().is_some_and(|extension| extension == "parquet"));
    found
}

/// The count over all rows of the hourly view, from batch alone.
fn counted(world: &World) -> i64 {
    let rows = world.get("/v1/views/hourly/rows.json?limit=100000&layer=batch").json();
    let rows = rows["rows"].as_array().unwrap_or_else(|| panic!("{rows}"));
    rows.iter().map(|row| row["n"].as_i64().expect("a number")).sum()
}

#[test]
fn a_cancelled_run_stops_in_spark_and_leaves_nothing() {
    let Some(spark) = shared() else { return };
    let world = world(&spark.settings());
    post(&world, 20_000);
    let id = start(&world, "slow");
    std::thread::sleep(Duration::from_secs(2));
    let answer = world.delete(&format!("/v1/runs/{id}"));
    assert_eq!(answer.status, 200, "{}", answer.text);
    let run = world.finished(&id);
    assert_eq!(run["state"], json!("cancelled"), "{run}");
    assert_eq!(left_behind(&world), Vec::<PathBuf>::new());
    let active = world.get("/v1/views/slow/versions").json();
    assert_eq!(active["versions"], json!([]), "nothing was published: {active}");
    // Spark has both its cores for other runs.
    let begin = Instant::now();
    published(&world.run("hourly", false));
    assert!(begin.elapsed() < Duration::from_secs(40), "Spark still works on the cancelled run");
    assert_eq!(counted(&world), 20_000);
}

#[test]
fn a_run_survives_lost_connections() {
    let Some(spark) = shared() else { return };
    let proxy = CuttingProxy::start(spark.port());
    let world = world(&proxy.settings());
    post(&world, 6_000);
    let id = start(&world, "slow");
    for _ in 0..5 {
        proxy.cut();
        std::thread::sleep(Duration::from_millis(300));
    }
    let run = world.finished(&id);
    assert_eq!((&run["state"], &run["attempt"]), (&json!("published"), &json!(1)), "{run}");
    assert!(proxy.connections() >= 3, "connections were cut");
    assert_eq!(left_behind(&world), Vec::<PathBuf>::new());
}

#[test]
fn a_run_whose_spark_is_killed_is_tried_again() {
    let Some(mut spark) = ConnectServer::start(&[]) else { return };
    let world = world(&spark.settings());
    post(&world, 2_000);
    published(&world.run("hourly", false));
    let id = start(&world, "slow");
    spark.kill();
    spark.start_again();
    let run = world.finished(&id);
    assert_eq!(run["state"], json!("failed"), "{run}");
    let error = run["error"].as_str().unwrap_or_default();
    assert!(error.contains("Spark"), "{run}");
    assert_eq!(left_behind(&world), Vec::<PathBuf>::new());
    assert_eq!(counted(&world), 2_000, "the version before stays");
    world.wait_for("the retry", |world| {
        let runs = world.get("/v1/runs?view=slow").json();
        runs["runs"][0]["state"] == json!("published")
    });
    let runs = world.get("/v1/runs?view=slow").json();
    assert_eq!(runs["runs"][0]["retry_of"], json!(id), "{runs}");
}

#[test]
fn a_run_whose_trueup_is_killed_leaves_nothing_that_is_visible_or_stays() {
    let Some(spark) = shared() else { return };
    let mut world = world(&spark.settings());
    post(&world, 4_000);
    published(&world.run("hourly", false));
    start(&world, "slow");
    world.kill();
    world.start();
    assert_eq!(counted(&world), 4_000);
    assert_eq!(world.get("/v1/views/slow/versions").json()["versions"], json!([]));
    let run = world.run("hourly", true);
    published(&run);
    // Spark does not know that its client is gone, and completes what it was asked for.
    world.wait_for("Spark", |world| exchanged(world).iter().any(|path| path.ends_with("_SUCCESS")));
    assert_ne!(left_behind(&world), Vec::<PathBuf>::new());
    world.age_files();
    let answer = world.post("/v1/views/slow/vacuum", json!({"older_than_ms": 3_600_000}).to_string());
    assert_eq!(answer.status, 200, "{}", answer.text);
    assert_eq!(left_behind(&world), Vec::<PathBuf>::new());
}

#[test]
fn a_lake_that_spark_does_not_see_is_an_error_before_the_run() {
    let (Some(spark), Some(s3)) = (shared(), S3::start(7)) else { return };
    let mut world = World::elsewhere(DEFINITIONS, s3.place());
    assert_eq!(world.stop(), Some(0));
    world.set_settings(&settings(&spark.settings()));
    world.start();
    post(&world, 100);
    let run = world.run_once("hourly", false);
    assert_eq!(run["state"], json!("failed"), "{run}");
    let error = run["error"].as_str().unwrap_or_default();
    assert!(error.contains("Spark cannot read s3://") && error.contains("every machine of the cluster"), "{run}");
    assert_eq!(run["retry_at"], Value::Null, "time does not help: {run}");
}

/// Forwards connections to a port of loopback, until they are cut.
struct CuttingProxy {
    port: u16,
    open: Arc<Mutex<(Vec<TcpStream>, usize)>>,
}

impl CuttingProxy {
    fn start(to: u16) -> CuttingProxy {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let port = listener.local_addr().expect("an address").port();
        let open = Arc::new(Mutex::new((Vec::new(), 0)));
        let shared = Arc::clone(&open);
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let Ok(server) = TcpStream::connect(("127.0.0.1", to)) else { continue };
                let mut open = shared.lock().expect("no panic while forwarding");
                open.1 += 1;
                for (from, to) in [(&client, &server), (&server, &client)] {
                    let (mut from, mut to) = (from.try_clone().expect("a socket"), to.try_clone().expect("a socket"));
                    open.0.push(from.try_clone().expect("a socket"));
                    std::thread::spawn(move || {
                        let mut buffer = [0; 16_384];
                        while let Ok(read @ 1..) = from.read(&mut buffer) {
                            if to.write_all(&buffer[..read]).is_err() {
                                break;
                            }
                        }
                        let _ = to.shutdown(Shutdown::Both);
                    });
                }
            }
        });
        CuttingProxy { port, open }
    }

    fn settings(&self) -> String {
        format!("[connections.spark]\nkind = \"spark\"\nurl = \"sc://127.0.0.1:{}\"\n", self.port)
    }

    /// Closes all connections.
    fn cut(&self) {
        for socket in self.open.lock().expect("no panic while forwarding").0.drain(..) {
            let _ = socket.shutdown(Shutdown::Both);
        }
    }

    fn connections(&self) -> usize {
        self.open.lock().expect("no panic while forwarding").1
    }
}
