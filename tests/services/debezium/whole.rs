//! Whole transactions that a real Debezium writes of a real PostgreSQL, with `provide.transaction.metadata = true`: money moves between
//! accounts, and every answer has the same sum, while Trueup is killed and batch runs are made.

use std::sync::Arc;
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::json;

use super::postgres::properties;
use super::{Connector, python};
use crate::broker::shared as broker;
use crate::database::shared as server;
use crate::followed_kills::{rounds, seed};
use crate::topic::Topic;
use crate::whole_transactions::{Applications, check_answers, compare, fill};

#[test]
fn every_answer_has_whole_transactions_of_a_real_debezium() {
    let (Some(broker), Some(server), Some(python)) = (broker(), server(), python()) else { return };
    let (database, mut dice) = (server.empty_database(), StdRng::seed_from_u64(seed()));
    fill(&database);
    let topic = Arc::new(Topic::create(broker, 1));
    let transactions = Arc::new(topic.beside(1));
    let others = json!({ "decimal.handling.mode": "string", "provide.transaction.metadata": true });
    let properties = properties(&database, "public.accounts", others);
    let connector = Connector::new(python, properties, "public.accounts", Arc::clone(&topic), 1);
    let connector = connector.with_transactions(Arc::clone(&transactions));
    let running = connector.start();
    let mut world = topic.world(&format!(
        "CREATE TABLE accounts (id BIGINT PRIMARY KEY, branch STRING, amount DECIMAL(12,2),
           moved_at TIMESTAMP METADATA FROM 'source.timestamp') WITH (event_time = 'moved_at', format = 'debezium-json', {},
           transactions = 'whole', transaction_topic = '{}');
         CREATE VIEW total AS SELECT COUNT(*) AS n, SUM(amount) AS total FROM accounts;
         CREATE VIEW branches AS SELECT branch, COUNT(*) AS n, SUM(amount) AS total FROM accounts GROUP BY branch;",
        topic.options(),
        transactions.name
    ));
    // The rows of the snapshot are in no transaction.
    compare(&world, &database, "the snapshot");
    let applications = Applications::start(&database, seed());
    for round in 0..rounds().div_ceil(2) {
        let context = format!("seed {}, round {round}", seed());
        let (begin, length) = (Instant::now(), Duration::from_millis(dice.random_range(100..2_000)));
        while begin.elapsed() < length {
            assert!(check_answers(&world, &context), "{context}: the accounts are there");
            if dice.random_range(0..15) == 0 {
                let _ = world.try_post("/v1/views/branches/runs", Vec::new(), &[]);
            }
        }
        world.kill();
        world.start();
    }
    // Without a further transaction, the last one does not wait for ever.
    applications.stop();
    compare(&world, &database, "in the end");
    check_answers(&world, "in the end");
    // What a connector that was killed writes again does no harm in the end.
    let applications = Applications::start(&database, seed() + 7);
    let mut running = running;
    for _ in 0..2 {
        std::thread::sleep(Duration::from_millis(dice.random_range(500..2_000)));
        running.kill();
        running = connector.start();
    }
    std::thread::sleep(Duration::from_secs(1));
    applications.stop();
    compare(&world, &database, "after kills of Debezium");
    check_answers(&world, "after kills of Debezium");
    assert_eq!(world.run("branches", true)["state"], json!("published"));
    check_answers(&world, "after a full run");
    running.kill();
    let status = world.get("/v1/streams/accounts").json();
    assert_eq!(status["rejected"], json!(0), "{status}");
    topic.delete();
    transactions.delete();
}
