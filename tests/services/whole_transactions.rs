//! Applications move money between accounts in transactions of a real PostgreSQL, so the sum over all accounts is the same between any two
//! of them. With `transactions = 'whole'`, every answer of Trueup has that sum: figures of both layers, pages of rows, alerts and the
//! requests of a sink, while it is killed at random and at named points, and between batch runs.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use intake::fail_points::SourcePoint;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::{Value, json};
use world::World;
use world::webhook_receiver::WebhookReceiver;

use crate::database::{Database, Session, shared};
use crate::followed_kills::{killed_at, rounds, seed};
use crate::topic::source;

const APPLICATIONS: i64 = 4;
/// More than a batch of changes has.
const ACCOUNTS_EACH: i64 = 300;
/// The sum over all accounts, in cents.
pub const SUM: i64 = APPLICATIONS * ACCOUNTS_EACH * 10_000;

fn declared(database: &Database, transactions: &str) -> String {
    format!(
        "CREATE TABLE accounts (id BIGINT PRIMARY KEY, branch STRING, amount DECIMAL(12,2),
           moved_at TIMESTAMP METADATA FROM 'source.timestamp') WITH (event_time = 'moved_at', source = 'postgres',
           connection = 'shop', table = 'public.accounts', slot = '{}', transactions = '{transactions}');
         CREATE VIEW total AS SELECT COUNT(*) AS n, SUM(amount) AS total FROM accounts;
         CREATE VIEW branches AS SELECT branch, COUNT(*) AS n, SUM(amount) AS total FROM accounts GROUP BY branch;
         CREATE ALERT other_total ON total WHEN total <> {};
         CREATE SINK moved FROM VIEW branches WITH (to = 'webhook:ops', every = '20 milliseconds');",
        database.name,
        SUM / 100
    )
}

/// Creates the accounts.
pub fn fill(database: &Database) {
    database.connect().run(&format!(
        "CREATE TABLE accounts (id bigint PRIMARY KEY, branch text, amount numeric(12,2));
         INSERT INTO accounts SELECT i, 'b' || i % 7, 100 FROM generate_series(0, {}) i",
        APPLICATIONS * ACCOUNTS_EACH - 1
    ));
}

/// A database with accounts, and a server that has not started.
fn bank(database: &Database, receiver: &Receiver) -> World {
    fill(database);
    let world = World::stopped(&declared(database, "whole"));
    let hook =
        format!("[connections.ops]\nkind = \"webhook\"\nurl = \"http://127.0.0.1:{}/rows\"\n", receiver.hook.port);
    world.set_settings(&(database.settings() + &hook + "[limits]\narchive_wait_ms = 20\nlog_segment_bytes = 65536\n"));
    world
}

/// The accounts of an application: those whose id has this rest.
struct Application {
    session: Session,
    dice: StdRng,
    rest: i64,
    ids: Vec<i64>,
    next: i64,
}

impl Application {
    fn account(&mut self) -> i64 {
        self.ids[self.dice.random_range(0..self.ids.len())]
    }

    fn new_id(&mut self) -> i64 {
        self.next += APPLICATIONS;
        self.next
    }

    /// Statements after which all accounts have as much as before.
    fn statements(&mut self) -> Vec<String> {
        let (from, to, cents) = (self.account(), self.account(), self.dice.random_range(1..5_000));
        let add =
            |id: i64, cents: i64| format!("UPDATE accounts SET amount = amount + {cents} / 100.0 WHERE id = {id}");
        match self.dice.random_range(0..40) {
            0..18 => vec![add(from, -cents), add(to, cents)],
            18..22 => {
                let third = self.account();
                vec![add(third, -2 * cents), add(from, cents), add(to, cents)]
            }
            22..26 => {
                let id = self.new_id();
                self.ids.push(id);
                let branch = self.dice.random_range(0..7);
                let open = format!("INSERT INTO accounts VALUES ({id}, 'b{branch}', {cents} / 100.0)");
                vec![open, add(from, -cents)]
            }
            26..30 if from != to && self.ids.len() > 10 => {
                self.ids.retain(|id| *id != from);
                let amount = format!("(SELECT amount FROM accounts WHERE id = {from})");
                let moved = format!("UPDATE accounts SET amount = amount + {amount} WHERE id = {to}");
                vec![moved, format!("DELETE FROM accounts WHERE id = {from}")]
            }
            30..33 => {
                let id = self.new_id();
                self.ids.retain(|id| *id != from);
                self.ids.push(id);
                vec![format!("UPDATE accounts SET id = {id} WHERE id = {from}")]
            }
            33..36 => {
                let branch = self.dice.random_range(0..7);
                vec![format!("UPDATE accounts SET branch = 'b{branch}' WHERE id IN ({from}, {to})")]
            }
            36 if self.rest == 0 => vec![
                "LOCK TABLE accounts IN ACCESS EXCLUSIVE MODE".to_owned(),
                "CREATE TEMPORARY TABLE copy ON COMMIT DROP AS SELECT * FROM accounts".to_owned(),
                "TRUNCATE accounts".to_owned(),
                "INSERT INTO accounts SELECT * FROM copy".to_owned(),
            ],
            _ => {
                let (all, rest) = (self.ids.len(), self.rest);
                vec![format!(
                    "UPDATE accounts SET amount = amount + CASE WHEN id = {from} THEN 1 - {all} ELSE 1 END
                     WHERE id % {APPLICATIONS} = {rest}"
                )]
            }
        }
    }

    /// Runs a transaction, which may be rolled back.
    fn transact(&mut self) {
        let before = self.ids.clone();
        self.session.run("BEGIN");
        for statement in self.statements() {
            self.session.run(&statement);
            std::thread::sleep(Duration::from_millis(self.dice.random_range(0..3)));
        }
        let commits = self.dice.random_range(0..5) > 0;
        self.session.run(if commits { "COMMIT" } else { "ROLLBACK" });
        if !commits {
            self.ids = before;
        }
    }
}

/// Applications that work until they are stopped.
pub struct Applications {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
    transactions: Arc<AtomicU64>,
}

impl Applications {
    pub fn start(database: &Database, seed: u64) -> Applications {
        let (stop, transactions): (Arc<AtomicBool>, Arc<AtomicU64>) = Default::default();
        let application = |rest: i64| {
            let (session, dice) = (database.connect(), StdRng::seed_from_u64(seed * 100 + rest as u64));
            let ids = session.texts(&format!("SELECT id::text FROM accounts WHERE id % {APPLICATIONS} = {rest}"));
            let ids: Vec<i64> = ids.iter().map(|id| id.parse().expect("an id")).collect();
            let next = ids.iter().copied().max().expect("accounts");
            let mut application = Application { session, dice, rest, ids, next };
            let (stop, transactions) = (Arc::clone(&stop), Arc::clone(&transactions));
            std::thread::spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    application.transact();
                    transactions.fetch_add(1, Ordering::Relaxed);
                }
            })
        };
        Applications { threads: (0..APPLICATIONS).map(application).collect(), stop, transactions }
    }

    pub fn transactions(&self) -> u64 {
        self.transactions.load(Ordering::Relaxed)
    }

    pub fn stop(self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads {
            thread.join().expect("it worked until it was stopped");
        }
    }
}

/// An amount with two digits behind the point, in cents.
fn cents(amount: &Value) -> i64 {
    amount.as_str().expect("an amount").replace('.', "").parse().expect("a number")
}

fn sum(rows: &Value, column: &str) -> Option<i64> {
    let rows = rows["rows"].as_array().expect("rows");
    (!rows.is_empty()).then(|| rows.iter().map(|row| cents(&row[column])).sum())
}

/// What a receiver of the sink's requests has.
struct Receiver {
    hook: WebhookReceiver,
    requests: usize,
    branches: BTreeMap<String, i64>,
}

impl Receiver {
    fn start() -> Receiver {
        Receiver { hook: WebhookReceiver::start(0), requests: 0, branches: BTreeMap::new() }
    }

    /// Applies the requests that have come, and checks the sum after each.
    fn check(&mut self, context: &str) {
        let received = self.hook.received();
        for request in &received[self.requests..] {
            let body: Value = serde_json::from_str(&request.body).expect("JSON");
            for row in body["data"]["rows"].as_array().expect("rows") {
                let branch = row["key"]["branch"].as_str().expect("a branch").to_owned();
                match &row["value"] {
                    Value::Null => drop(self.branches.remove(&branch)),
                    value => drop(self.branches.insert(branch, cents(&value["total"]))),
                }
            }
            let sum: i64 = self.branches.values().sum();
            assert_eq!(sum, SUM, "{context}: a request of the sink has a part of a transaction: {body}");
        }
        self.requests = received.len();
    }
}

/// Checks what readers see now. Returns whether they see the accounts: before the snapshot there are none.
pub fn check_answers(world: &World, context: &str) -> bool {
    let live = sum(&world.rows("total", ""), "total");
    assert!(live.is_none_or(|live| live == SUM), "{context}: the live total is {live:?}\n{}", world.log());
    let branches = sum(&world.rows("branches", ""), "total");
    assert!(branches.is_none_or(|branches| branches == SUM), "{context}: the branches have {branches:?}");
    let version = world.get("/v1/views/branches/rows.json?limit=1000&layer=batch");
    let exact = (version.status == 200).then(|| sum(&version.json(), "total")).flatten();
    assert!(exact.is_none_or(|exact| exact == SUM), "{context}: the last version has {exact:?}");
    let page = world.get("/v1/tables/accounts/rows?limit=10000").json();
    let rows = sum(&page, "amount");
    assert!(rows.is_none_or(|rows| rows == SUM), "{context}: the rows have {rows:?}");
    live.is_some()
}

/// Checks the same, the alert and what the sink has sent.
fn check(world: &World, receiver: &mut Receiver, context: &str) -> bool {
    let is_there = check_answers(world, context);
    let alerts = world.get("/v1/alerts?alert=other_total").json();
    assert_eq!(alerts["alerts"], json!([]), "{context}: the condition of the alert was never true");
    receiver.check(context);
    is_there
}

/// Waits until Trueup has the accounts of the database.
pub fn compare(world: &World, database: &Database, context: &str) {
    let session = database.connect();
    let stored = session.texts("SELECT json_build_array(id, branch, amount::text)::text FROM accounts ORDER BY id");
    let stored: Vec<Value> = stored.iter().map(|row| serde_json::from_str(row).expect("JSON")).collect();
    world.wait_for(&format!("{context}: the accounts"), |world| {
        let page = world.get("/v1/tables/accounts/rows?limit=10000").json();
        let rows = page["rows"].as_array().expect("rows").iter();
        source(world, "accounts")["lag"] == json!(0)
            && rows.map(|row| json!([row["id"], row["branch"], row["amount"]])).collect::<Vec<_>>() == stored
    });
}

#[test]
fn every_answer_has_whole_transactions_whenever_trueup_is_killed() {
    let Some(server) = shared() else { return };
    let (database, mut receiver) = (server.empty_database(), Receiver::start());
    let (mut world, mut dice) = (bank(&database, &receiver), StdRng::seed_from_u64(seed()));
    let applications = Applications::start(&database, seed());
    let mut answers = 0;
    for round in 0..rounds() {
        let context = format!("seed {}, round {round}", seed());
        world.start();
        let (begin, length) = (Instant::now(), Duration::from_millis(dice.random_range(100..2_000)));
        while begin.elapsed() < length {
            answers += u64::from(check(&world, &mut receiver, &context));
            if dice.random_range(0..15) == 0 {
                let view = if dice.random_range(0..2) == 0 { "total" } else { "branches" };
                let _ = world.try_post(&format!("/v1/views/{view}/runs"), Vec::new(), &[]);
            }
        }
        world.kill();
    }
    world.start();
    let before = applications.transactions();
    // As long as it takes, while transactions run.
    while answers < 50 || applications.transactions() < before + 100 {
        answers += u64::from(check(&world, &mut receiver, "before the end"));
    }
    applications.stop();
    compare(&world, &database, "in the end");
    for view in ["total", "branches"] {
        assert_eq!(world.run(view, true)["state"], json!("published"));
    }
    assert!(check(&world, &mut receiver, "after full runs"), "the accounts are there");
    assert_eq!(world.get("/v1/streams/accounts").json()["rejected"], json!(0));
}

#[test]
fn every_answer_has_whole_transactions_after_a_kill_at_any_named_point() {
    let Some(server) = shared() else { return };
    let (database, mut receiver) = (server.empty_database(), Receiver::start());
    let (mut world, mut dice) = (bank(&database, &receiver), StdRng::seed_from_u64(seed() + 1));
    let applications = Applications::start(&database, seed() + 1);
    // Before the snapshot and just after it is submitted, then among transactions.
    let first = [format!("{}:1", SourcePoint::Start.name()), format!("{}:1", SourcePoint::Submit.name())];
    let later = [SourcePoint::Submit, SourcePoint::Settled, SourcePoint::Report].map(|point| point.name());
    let of_events = ["log-write", "log-sync", "acknowledge", "hand-over", "archive-commit"];
    let later = later.into_iter().chain(of_events).map(|point| format!("{point}:{}", dice.random_range(2..6)));
    for point in first.into_iter().chain(later.collect::<Vec<_>>()) {
        killed_at(&mut world, &point);
        world.set_environment(&[]);
        world.start();
        check(&world, &mut receiver, &format!("after {point}"));
        world.kill();
    }
    world.start();
    applications.stop();
    compare(&world, &database, "in the end");
    check(&world, &mut receiver, "in the end");
}

#[test]
fn whole_transactions_can_be_declared_later() {
    let Some(server) = shared() else { return };
    let (database, receiver) = (server.empty_database(), Receiver::start());
    let mut world = bank(&database, &receiver);
    world.redefine(&declared(&database, "parts"));
    let applications = Applications::start(&database, seed() + 2);
    world.start();
    world.wait_for("the snapshot", |world| source(world, "accounts")["lag"] == json!(0));
    world.kill();
    world.redefine(
        &declared(&database, "whole").replace("CREATE ALERT", "-- CREATE ALERT").replace("CREATE SINK", "-- "),
    );
    world.start();
    let live = |world: &World| sum(&world.rows("total", ""), "total");
    // The rest of a transaction of which some changes were visible before.
    world.wait_for("a whole transaction", |world| live(world) == Some(SUM));
    for _ in 0..100 {
        assert_eq!(live(&world), Some(SUM));
    }
    applications.stop();
    compare(&world, &database, "in the end");
}

#[test]
fn a_slot_that_is_lost_is_created_again_after_its_place_is_given_up() {
    let Some(server) = shared() else { return };
    for transactions in ["whole", "parts"] {
        let (database, receiver) = (server.empty_database(), Receiver::start());
        let mut world = bank(&database, &receiver);
        world.redefine(&declared(&database, transactions));
        let session = database.connect();
        world.start();
        compare(&world, &database, "the snapshot");
        world.kill();
        session.run(&format!("SELECT pg_drop_replication_slot('{}')", database.name));
        session.run("UPDATE accounts SET branch = 'gone' WHERE id < 100");
        // A slot that exists is taken for the one of the place: it must not exist before the place is given up. Then, in parts, the
        // deletion of all rows and the end of the snapshot move the place; a whole snapshot moves it with its rows.
        for hit in if transactions == "whole" { &[1][..] } else { &[1, 2, 2] } {
            killed_at(&mut world, &format!("{}:{hit}", SourcePoint::Start.name()));
        }
        world.set_environment(&[]);
        world.start();
        compare(&world, &database, &format!("{transactions}: without its slot"));
        session.run("UPDATE accounts SET branch = 'back' WHERE id < 50");
        compare(&world, &database, &format!("{transactions}: its changes"));
    }
}
