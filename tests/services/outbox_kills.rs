//! Applications write an outbox in concurrent transactions, some of which are rolled back or commit late, while Trueup is killed
//! at random and at each named point, and PostgreSQL crashes: every committed row is an event exactly once, without a primary
//! key, and no other row is.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use intake::fail_points::SourcePoint;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::json;
use world::World;

use crate::database::{Database, Server, shared};
use crate::followed_kills::killed_at;
use crate::outbox::{MODES, committed, definitions, event, read_rows, served};
use crate::topic::source;

/// Points of the path of any event that reading an outbox reaches as well.
const POINTS_OF_EVENTS: [&str; 4] = ["log-sync", "acknowledge", "archive-commit", "archive-release"];

fn rounds() -> u64 {
    std::env::var("TRUEUP_KILLS").ok().and_then(|kills| kills.parse().ok()).unwrap_or(8)
}

fn seed() -> u64 {
    std::env::var("TRUEUP_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(5)
}

/// Applications that write until they are stopped.
struct Applications {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Applications {
    fn start(database: &Database, seed: u64) -> Applications {
        static NUMBERS: AtomicI64 = AtomicI64::new(0);
        let stop = Arc::new(AtomicBool::new(false));
        let writer = |writer: u64| {
            let (session, stop) = (database.connect(), Arc::clone(&stop));
            let mut dice = StdRng::seed_from_u64(seed * 100 + writer);
            std::thread::spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    session.run("BEGIN");
                    for _ in 0..dice.random_range(1..6) {
                        let number = NUMBERS.fetch_add(1, Ordering::Relaxed);
                        session.run(&event(&format!("id{number}"), number));
                        // Transactions that started earlier commit later.
                        std::thread::sleep(Duration::from_millis(dice.random_range(0..4)));
                    }
                    session.run(if dice.random_range(0..4) == 0 { "ROLLBACK" } else { "COMMIT" });
                }
            })
        };
        Applications { threads: (0..4).map(writer).collect(), stop }
    }

    fn stop(self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads {
            thread.join().expect("it wrote until it was stopped");
        }
    }
}

fn world(database: &Database, mode: &str) -> World {
    let world = World::stopped(&definitions(database, mode));
    world.set_settings(&(database.settings() + "[limits]\narchive_wait_ms = 20\nlog_segment_bytes = 8192\n"));
    world
}

/// The slot exists: rows that are written from here on are read.
fn ready(world: &mut World) {
    world.start();
    world.wait_for("the reader", |world| source(world, "s")["partitions"][0]["position"] == 0);
}

/// Everything that was committed is an event once, and nothing else is.
fn compare(world: &World, database: &Database, context: &str) {
    let committed = committed(&database.connect());
    assert!(committed.values().all(|(events, _)| *events == 1), "{context}: each id was written once");
    read_rows(world, "s", committed.len());
    assert!(served(world) == committed, "{context}: {} rows are not the events", committed.len());
}

#[test]
fn no_row_is_lost_or_doubled_whenever_trueup_is_killed() {
    let Some(server) = shared() else { return };
    for mode in MODES {
        let (database, mut dice) = (server.database(), StdRng::seed_from_u64(seed()));
        let mut world = world(&database, mode);
        ready(&mut world);
        let applications = Applications::start(&database, seed());
        for _ in 0..rounds() {
            std::thread::sleep(Duration::from_millis(dice.random_range(0..400)));
            if dice.random_range(0..4) == 0 {
                let _ = world.try_post("/v1/views/sums/runs", Vec::new(), &[]);
            }
            world.kill();
            world.start_whatever_comes();
        }
        applications.stop();
        world.kill();
        world.start();
        let context = format!("{mode}, seed {}", seed());
        compare(&world, &database, &context);
        assert_eq!(world.run("sums", true)["state"], json!("published"));
        compare(&world, &database, &format!("{context}, after a full run"));
    }
}

#[test]
fn no_row_is_lost_or_doubled_at_any_named_point() {
    let Some(server) = shared() else { return };
    for mode in MODES {
        let (database, mut dice) = (server.database(), StdRng::seed_from_u64(seed() + 1));
        let mut world = world(&database, mode);
        // The first start makes the slot, before the position that says so.
        world.set_environment(&[("TRUEUP_FAIL_AT", &format!("{}:1", SourcePoint::Start.name()))]);
        world.start_whatever_comes();
        world.wait_for_exit();
        let applications = Applications::start(&database, seed() + 1);
        let points = [SourcePoint::Submit, SourcePoint::Settled, SourcePoint::Report].map(|point| point.name());
        for point in points.into_iter().chain(POINTS_OF_EVENTS) {
            killed_at(&mut world, &format!("{point}:{}", dice.random_range(1..4)));
        }
        applications.stop();
        world.set_environment(&[]);
        world.start();
        compare(&world, &database, &format!("{mode}, seed {}", seed() + 1));
    }
}

#[test]
fn no_row_is_lost_or_doubled_when_postgresql_crashes() {
    let Some(mut server) = Server::start("logical") else { return };
    let databases = MODES.map(|mode| (mode, server.database()));
    let mut worlds = databases.each_ref().map(|(mode, database)| world(database, mode));
    worlds.iter_mut().for_each(ready);
    let mut dice = StdRng::seed_from_u64(seed() + 2);
    for round in 0..3 {
        let writing = databases.each_ref().map(|(_, database)| Applications::start(database, seed() + 10 + round));
        std::thread::sleep(Duration::from_millis(dice.random_range(300..900)));
        writing.into_iter().for_each(Applications::stop);
        server.crash();
        for world in &worlds {
            world.wait_for("the outage", |world| source(world, "s")["state"] == "failing");
            assert_eq!(world.get("/readyz").status, 200);
            let error = source(world, "s")["error"].to_string();
            assert!(error.contains("cannot reach the database"), "{error}");
        }
        worlds[round as usize].kill();
        server.launch();
        worlds[round as usize].start();
    }
    for (world, (mode, database)) in worlds.iter().zip(&databases) {
        compare(world, database, &format!("{mode}, seed {}", seed() + 2));
    }
}

#[test]
fn polling_waits_for_transactions_that_commit_after_later_ones() {
    let Some(server) = Server::start("replica") else { return };
    let database = server.database();
    let mut world = world(&database, "polling");
    ready(&mut world);
    let (early, late) = (database.connect(), database.connect());
    early.run(&format!("BEGIN; {}", event("early", 1)));
    late.run(&event("late", 2));
    // The later transaction is committed and its row visible: it waits, and is shown as waiting.
    world.wait_for("the lag", |world| source(world, "s")["lag"] == 1);
    assert_eq!(source(&world, "s")["partitions"][0]["position"], 0);
    early.run("COMMIT");
    compare(&world, &database, "in the order of the transactions");
}
