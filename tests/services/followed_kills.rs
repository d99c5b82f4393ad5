//! Applications change a table in concurrent transactions, from before its snapshot on: inserts, updates, deletions, changes of
//! keys, large texts that are left as they are, rollbacks and TRUNCATE. Trueup is killed at random and at each named point, also
//! during snapshots, and loses its slot: in the end its rows and figures are those of the database.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use intake::fail_points::SourcePoint;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::json;
use world::World;

use crate::database::{Database, Session, shared};
use crate::followed_tables::{AS_JSON, compare, definitions, fails, options, orders, served, world};
use crate::topic::source;

/// Rows beside those that applications change: a snapshot takes several reads.
const OTHER_ROWS: u64 = 15_000;
const KEYS: i64 = 40;
const ROWS: Statements = Statements { truncate: false, move_large: true };

pub fn rounds() -> u64 {
    std::env::var("TRUEUP_KILLS").ok().and_then(|kills| kills.parse().ok()).unwrap_or(8)
}

pub fn seed() -> u64 {
    std::env::var("TRUEUP_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(5)
}

fn big() -> &'static str {
    "(SELECT string_agg(md5(random()::text), '') FROM generate_series(1, 200))"
}

/// What applications do beside changes of single rows.
#[derive(Debug, Clone, Copy)]
pub struct Statements {
    pub truncate: bool,
    /// Rows get another key and keep the text that is stored aside.
    pub move_large: bool,
}

/// A statement of an application.
fn statement(dice: &mut StdRng, Statements { truncate, move_large }: Statements) -> String {
    let (id, other) = (dice.random_range(1..=KEYS), dice.random_range(1..=KEYS));
    let amount = dice.random_range(1..10_000);
    match dice.random_range(0..if truncate { 200 } else { 199 }) {
        0..60 => format!("INSERT INTO orders VALUES ({id}, 'new', {amount} / 100.0, {}) ON CONFLICT DO NOTHING", big()),
        60..110 => format!("UPDATE orders SET status = 'paid', amount = {amount} / 100.0 WHERE id = {id}"),
        110..130 => format!("UPDATE orders SET note = {}, placed_at = now() WHERE id = {id}", big()),
        130..160 => format!("DELETE FROM orders WHERE id = {id}"),
        160..190 if move_large => format!("UPDATE orders SET id = {other} WHERE id = {id}"),
        160..190 => format!("UPDATE orders SET id = {other}, note = 'moved' WHERE id = {id}"),
        190..195 => format!("SAVEPOINT s; UPDATE orders SET status = 'undone' WHERE id <= {id}; ROLLBACK TO s"),
        195..199 => {
            format!("UPDATE orders SET status = 'sent' WHERE id = 100000 + {}", dice.random_range(0..OTHER_ROWS))
        }
        _ => "TRUNCATE orders".to_owned(),
    }
}

/// Applications that change rows until they are stopped.
pub struct Applications {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<u64>>,
}

impl Applications {
    pub fn start(database: &Database, seed: u64, statements: Statements) -> Applications {
        let stop = Arc::new(AtomicBool::new(false));
        let application = |number: u64| {
            let (session, stop) = (database.connect(), Arc::clone(&stop));
            let mut dice = StdRng::seed_from_u64(seed * 100 + number);
            std::thread::spawn(move || {
                let mut committed = 0;
                while !stop.load(Ordering::Relaxed) {
                    session.run("BEGIN");
                    // Keys that are taken and deadlocks end a transaction.
                    let lives = (0..dice.random_range(1..6)).all(|_| {
                        std::thread::sleep(Duration::from_millis(dice.random_range(0..4)));
                        session.try_run(&statement(&mut dice, statements))
                    });
                    let commits = lives && dice.random_range(0..5) > 0;
                    session.run(if commits { "COMMIT" } else { "ROLLBACK" });
                    committed += u64::from(commits);
                }
                committed
            })
        };
        Applications { threads: (0..4).map(application).collect(), stop }
    }

    /// Stops them, after they have done something.
    pub fn stop(self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads {
            assert!(thread.join().expect("it worked until it was stopped") > 0, "an application committed nothing");
        }
    }
}

pub fn filled(session: &Session) {
    session.run(&format!(
        "INSERT INTO orders SELECT 100000 + i, 'old', i, 'n' || i FROM generate_series(0, {}) i",
        OTHER_ROWS - 1
    ));
}

/// Starts the server, which kills itself at a point.
pub fn killed_at(world: &mut World, point: &str) {
    world.set_environment(&[("TRUEUP_FAIL_AT", point)]);
    world.start_whatever_comes();
    for _ in 0..1_200 {
        if !world.is_running() {
            break;
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    assert!(!world.is_running(), "the point {point} was not reached");
    world.wait_for_exit();
}

#[test]
fn a_table_is_that_of_the_database_whenever_trueup_is_killed() {
    let Some(server) = shared() else { return };
    for identity in ["DEFAULT", "FULL"] {
        let ((database, session), mut dice) = (orders(server), StdRng::seed_from_u64(seed()));
        session.run(&format!("ALTER TABLE orders REPLICA IDENTITY {identity}"));
        filled(&session);
        let mut world = world(&database, &definitions(&database));
        let applications = Applications::start(&database, seed(), ROWS);
        // Some of these kills are within a snapshot.
        for round in 0..rounds() {
            world.start_whatever_comes();
            std::thread::sleep(Duration::from_millis(dice.random_range(50..if round % 2 == 0 { 600 } else { 2_000 })));
            if dice.random_range(0..4) == 0 {
                let _ = world.try_post("/v1/views/by_status/runs", Vec::new(), &[]);
            }
            world.kill();
        }
        world.start();
        applications.stop();
        compare(&world, &session, AS_JSON, &format!("{identity}, seed {}", seed()));
        let applications = Applications::start(&database, seed() + 50, Statements { truncate: true, ..ROWS });
        for _ in 0..rounds() / 2 {
            std::thread::sleep(Duration::from_millis(dice.random_range(0..1_500)));
            world.kill();
            world.start_whatever_comes();
        }
        applications.stop();
        session.run("TRUNCATE orders; INSERT INTO orders VALUES (1, 'last', 1)");
        world.kill();
        world.start();
        let context = format!("{identity} with TRUNCATE, seed {}", seed());
        compare(&world, &session, AS_JSON, &context);
        assert_eq!(world.run("by_status", true)["state"], json!("published"));
        compare(&world, &session, AS_JSON, &format!("{context}, after a full run"));
        assert_eq!(world.get("/v1/streams/orders").json()["rejected"], json!(0));
    }
}

#[test]
fn a_table_is_that_of_the_database_after_a_kill_at_any_named_point() {
    let Some(server) = shared() else { return };
    let ((database, session), mut dice) = (orders(server), StdRng::seed_from_u64(seed() + 1));
    filled(&session);
    let mut world = world(&database, &definitions(&database));
    let applications = Applications::start(&database, seed() + 1, ROWS);
    // Positions without events: before the snapshot, and behind the deletion of all rows; then at the end of the snapshot.
    let starts = [1, 2].map(|hit| format!("{}:{hit}", SourcePoint::Start.name()));
    let end = format!("{}:2", SourcePoint::Start.name());
    let later = [SourcePoint::Submit, SourcePoint::Settled, SourcePoint::Report].map(|point| point.name());
    let later = later.into_iter().chain(["log-sync", "archive-commit"]);
    // Within the snapshot, whose rows are submitted in parts, or behind it.
    let later: Vec<String> = later.map(|point| format!("{point}:{}", dice.random_range(2..5))).collect();
    let within = ["20", "50"].map(|hit| format!("{}:{hit}", SourcePoint::Submit.name()));
    for point in starts.into_iter().chain(within).chain([end]).chain(later) {
        killed_at(&mut world, &point);
    }
    applications.stop();
    world.set_environment(&[]);
    world.start();
    compare(&world, &session, AS_JSON, &format!("seed {}", seed() + 1));
}

#[test]
fn a_table_whose_slot_is_lost_or_that_was_created_again_is_read_again() {
    let Some(server) = shared() else { return };
    let (database, session) = orders(server);
    session.run("INSERT INTO orders SELECT i, 'open', i, 'n' FROM generate_series(1, 10) i");
    let mut world: World = world(&database, &definitions(&database));
    world.start();
    compare(&world, &session, AS_JSON, "the snapshot");
    world.kill();
    session.run("DELETE FROM orders WHERE id < 4; UPDATE orders SET status = 'paid' WHERE id > 8");
    session.run(&format!("SELECT pg_drop_replication_slot('{}')", database.name));
    session.run("INSERT INTO orders VALUES (11, 'new', 11)");
    world.start();
    compare(&world, &session, AS_JSON, "without its slot");
    // Another table of the same name is not in the publication.
    session.run("ALTER TABLE orders RENAME TO former; CREATE TABLE orders (LIKE former INCLUDING ALL); INSERT INTO orders VALUES (1, 'else', 5)");
    fails(
        &world,
        "the publication trueup_orders does not publish all changes of \"public\".\"orders\"; drop it, then CREATE PUBLICATION",
    );
    assert_eq!(served(&world, "orders").len(), 8, "nothing is deleted before the table can be read");
    session.run("ALTER PUBLICATION trueup_orders SET TABLE orders");
    compare(&world, &session, AS_JSON, "another table");
    session.run("UPDATE orders SET status = 'changed'");
    compare(&world, &session, AS_JSON, "its changes");
}

#[test]
fn changes_that_the_snapshot_has_seen_are_not_applied_again() {
    let Some(server) = shared() else { return };
    let (database, session) = orders(server);
    session.run("CREATE PUBLICATION trueup_orders FOR TABLE orders");
    session.run(&format!("SELECT pg_create_logical_replication_slot('{}', 'pgoutput')", database.name));
    session.run("INSERT INTO orders VALUES (1, 'open', 1), (2, 'open', 2)");
    session.run("UPDATE orders SET amount = 3 WHERE id = 1");
    let columns = "id BIGINT PRIMARY KEY, placed_at TIMESTAMP, op STRING METADATA FROM 'op'";
    let options = options(&database);
    let mut world =
        world(&database, &format!("CREATE TABLE orders ({columns}) WITH (event_time = 'placed_at', {options});"));
    world.start();
    world.wait_for("the snapshot", |world| served(world, "orders").len() == 2);
    session.run("INSERT INTO orders VALUES (3, 'open', 3)");
    world.wait_for("the change", |world| served(world, "orders").len() == 3);
    let operations: Vec<_> = served(&world, "orders").into_values().map(|row| row["op"].clone()).collect();
    assert_eq!(operations, ["r", "r", "c"]);
}

#[test]
fn a_snapshot_waits_for_transactions_that_are_older_than_the_slot() {
    let Some(server) = shared() else { return };
    let (database, session) = orders(server);
    session.run("CREATE PUBLICATION trueup_orders FOR TABLE orders");
    session.run(&format!("SELECT pg_create_logical_replication_slot('{}', 'pgoutput')", database.name));
    let open = database.connect();
    open.run("BEGIN; INSERT INTO orders VALUES (1, 'open', 1)");
    // It is not of the slot's time, but it could be: the reader cannot know.
    let mut world = world(&database, &definitions(&database));
    world.start();
    world.wait_for("the wait", |world| source(world, "orders")["lag"] == json!(1));
    session.run("INSERT INTO orders VALUES (2, 'open', 2)");
    assert!(served(&world, "orders").is_empty(), "no snapshot yet");
    open.run("COMMIT");
    compare(&world, &session, AS_JSON, "the snapshot");
}

#[test]
fn a_snapshot_has_the_rows_of_a_table_that_is_truncated_while_it_starts() {
    let Some(server) = shared() else { return };
    let (database, session) = orders(server);
    session.run("INSERT INTO orders VALUES (1, 'open', 1), (2, 'open', 2)");
    session.run("CREATE PUBLICATION trueup_orders FOR TABLE orders");
    session.run(&format!("SELECT pg_create_logical_replication_slot('{}', 'pgoutput')", database.name));
    let (older, truncating) = (database.connect(), database.connect());
    older.run("BEGIN; SELECT pg_current_xact_id()");
    let columns = "id BIGINT PRIMARY KEY, placed_at TIMESTAMP, op STRING METADATA FROM 'op'";
    let options = options(&database);
    let mut world =
        world(&database, &format!("CREATE TABLE orders ({columns}) WITH (event_time = 'placed_at', {options});"));
    world.start();
    world.wait_for("the wait", |world| source(world, "orders")["lag"] == json!(1));
    truncating.run("BEGIN; LOCK TABLE orders IN ACCESS EXCLUSIVE MODE");
    older.run("COMMIT");
    let waits = "SELECT pid::text FROM pg_locks WHERE relation = 'orders'::regclass AND NOT granted";
    world.wait_for("the reader at the lock", |_| !session.texts(waits).is_empty());
    truncating.run("CREATE TEMPORARY TABLE copy AS SELECT * FROM orders");
    truncating.run("TRUNCATE orders; INSERT INTO orders SELECT * FROM copy; COMMIT");
    world.wait_for("the snapshot", |world| served(world, "orders").len() == 2);
    let operations: Vec<_> = served(&world, "orders").into_values().map(|row| row["op"].clone()).collect();
    assert_eq!(operations, ["r", "r"], "the snapshot has the rows, not the changes after it");
}

#[test]
fn a_slot_that_is_still_being_created_is_not_read() {
    let Some(server) = shared() else { return };
    let (database, session) = orders(server);
    let (first, second) = (database.connect(), database.connect());
    first.run("BEGIN; INSERT INTO orders VALUES (1, 'open', 1)");
    let mut world = world(&database, &definitions(&database));
    world.start();
    let created = format!("SELECT slot_name::text FROM pg_replication_slots WHERE slot_name = '{}'", database.name);
    world.wait_for("the slot", |_| !session.texts(&created).is_empty());
    // The server creates it all the same.
    world.kill();
    world.start();
    fails(&world, "is still being created");
    second.run("BEGIN; INSERT INTO orders VALUES (2, 'open', 2)");
    first.run("COMMIT");
    session.run("INSERT INTO orders VALUES (3, 'open', 3)");
    second.run("COMMIT");
    compare(&world, &session, AS_JSON, "rows that were written while the slot was created");
}
