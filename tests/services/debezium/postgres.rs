//! A table that reads what a real Debezium writes of a real PostgreSQL, while applications change rows and both programs are killed.

use std::sync::Arc;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::{Value, json};

use super::{Connector, python};
use crate::broker::shared as broker;
use crate::database::{Database, shared as server};
use crate::followed_kills::{Applications, Statements, filled, rounds, seed};
use crate::followed_tables::{AS_JSON, compare, orders};
use crate::topic::Topic;

/// The properties of a connector that follows a table, with others that only it has.
pub fn properties(database: &Database, table: &str, others: Value) -> Value {
    let mut properties = json!({
        "connector.class": "io.debezium.connector.postgresql.PostgresConnector",
        "plugin.name": "pgoutput",
        "database.hostname": "127.0.0.1",
        "database.port": database.port(),
        "database.user": "postgres",
        "database.password": crate::database::PASSWORD,
        "database.dbname": database.name,
        "slot.name": database.name,
        "slot.drop.on.stop": false,
        "publication.autocreate.mode": "filtered",
        "table.include.list": table,
        "skipped.operations": "none",
    });
    for (name, value) in others.as_object().into_iter().flatten() {
        properties[name] = value.clone();
    }
    properties
}

/// How the connector is set up.
struct Setup {
    identity: &'static str,
    decimals: &'static str,
    /// The declared type of the decimals.
    amount: &'static str,
    schemas: bool,
    partitions: i32,
    statements: Statements,
}

fn follow(Setup { identity, decimals, amount, schemas, partitions, statements }: Setup) {
    let (Some(broker), Some(server), Some(python)) = (broker(), server(), python()) else { return };
    let ((database, session), mut dice) = (orders(server), StdRng::seed_from_u64(seed()));
    session.run(&format!("ALTER TABLE orders REPLICA IDENTITY {identity}"));
    filled(&session);
    let topic = Arc::new(Topic::create(broker, partitions));
    let properties = properties(
        &database,
        "public.orders",
        json!({ "decimal.handling.mode": decimals, "value.converter.schemas.enable": schemas }),
    );
    let connector = Connector::new(python, properties, "public.orders", Arc::clone(&topic), partitions);
    let mut world = topic.world(&format!(
        "CREATE TABLE orders (id BIGINT PRIMARY KEY, status STRING, amount {amount}, note STRING, placed_at TIMESTAMP)
             WITH (event_time = 'placed_at', format = 'debezium-json', {});
         CREATE VIEW by_status AS SELECT status, COUNT(*) AS n, SUM(amount) AS total, MAX(amount) AS highest
           FROM orders GROUP BY status;",
        topic.options()
    ));
    let context = format!("{identity}, decimals as {decimals}, seed {}", seed());
    let applications = Applications::start(&database, seed(), statements);
    for round in 0..rounds().div_ceil(4) {
        let running = connector.start();
        std::thread::sleep(Duration::from_millis(dice.random_range(0..3_000)));
        if round % 2 == 0 {
            world.kill();
            world.start();
        }
        running.kill();
    }
    let running = connector.start();
    std::thread::sleep(Duration::from_secs(1));
    applications.stop();
    compare(&world, &session, AS_JSON, &context);
    assert_eq!(world.run("by_status", true)["state"], json!("published"));
    session.run("DELETE FROM orders WHERE id % 7 = 0; UPDATE orders SET amount = amount + 0.01 WHERE id % 5 = 0");
    compare(&world, &session, AS_JSON, &format!("{context}, after a full run"));
    running.kill();
    let status = world.get("/v1/streams/orders").json();
    assert_eq!(status["rejected"], json!(0), "{status}");
    topic.delete();
}

#[test]
fn a_table_of_a_real_debezium_has_the_rows_of_the_database() {
    // Debezium gives a row with a new key no value that is stored aside and did not change.
    follow(Setup {
        identity: "DEFAULT",
        decimals: "precise",
        amount: "DECIMAL(12,2) FORMAT 'base64'",
        schemas: false,
        partitions: 3,
        statements: Statements { truncate: false, move_large: false },
    });
}

#[test]
fn a_table_of_a_real_debezium_with_full_rows_has_the_rows_of_the_database() {
    follow(Setup {
        identity: "FULL",
        decimals: "string",
        amount: "DECIMAL(12,2)",
        schemas: true,
        partitions: 3,
        statements: Statements { truncate: false, move_large: true },
    });
}

#[test]
fn a_table_of_a_real_debezium_is_empty_after_a_truncate() {
    follow(Setup {
        identity: "FULL",
        decimals: "precise",
        amount: "DECIMAL(12,2) FORMAT 'base64'",
        schemas: false,
        partitions: 1,
        statements: Statements { truncate: true, move_large: true },
    });
}

#[test]
fn decimals_that_a_real_debezium_writes_as_doubles_are_exact() {
    follow(Setup {
        identity: "DEFAULT",
        decimals: "double",
        amount: "DECIMAL(12,2)",
        schemas: false,
        partitions: 3,
        statements: Statements { truncate: false, move_large: false },
    });
}
