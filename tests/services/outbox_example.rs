//! Runs `examples/outbox` from a real PostgreSQL to a real Kafka. Trueup is killed at each step between them: every order that
//! was placed is in the topic once.

use std::collections::BTreeMap;
use std::time::Duration;

use intake::fail_points::SourcePoint;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::{Value, json};
use sinks::fail_points::SinkPoint;
use world::{World, root};

use crate::broker;
use crate::database::{self, Session};
use crate::outbox::read_rows;
use crate::sinks::written;
use crate::topic::Topic;

/// Places some orders, each in a transaction, and takes some of them back.
fn place(session: &Session, dice: &mut StdRng, number: &mut u64) {
    for _ in 0..dice.random_range(1..20) {
        *number += 1;
        let cents = dice.random_range(1..10_000);
        let end = if dice.random_range(0..5) == 0 { "ROLLBACK" } else { "COMMIT" };
        session.run(&format!("BEGIN; SELECT place_order('o-{number}', 'AT', {cents} / 100.0); {end}"));
    }
}

#[test]
fn every_order_is_published_once_whatever_step_trueup_is_killed_at() {
    let (Some(server), Some(broker)) = (database::shared(), broker::shared()) else { return };
    let example = |file: &str| std::fs::read_to_string(root().join("examples/outbox").join(file)).expect("the example");
    let (database, topic) = (server.empty_database(), Topic::create(broker, 3));
    let session = database.connect();
    session.run(&example("shop.sql"));
    let sql = example("outbox.sql").replace("'placed-orders'", &format!("'{}'", topic.name));
    let mut world = World::stopped(&sql.replace("outbox = 'outbox'", &format!("slot = '{}'", database.name)));
    let settings = example("trueup.toml").replace("127.0.0.1:9092", &broker.address());
    let url = settings.lines().find(|line| line.starts_with("url")).expect("a line").to_owned();
    world.set_settings(&settings.replace(&url, &format!("url = \"{}\"", database.url("postgres"))));
    world.start();
    world.wait_for("the slot", |world| crate::topic::source(world, "orders")["partitions"][0]["position"] == 0);
    world.kill();
    let (mut dice, mut number) = (StdRng::seed_from_u64(17), 0);
    let points = [SourcePoint::Submit, SourcePoint::Settled, SourcePoint::Report].map(|point| point.name());
    for point in points.into_iter().chain(SinkPoint::ALL.iter().map(|point| point.name())) {
        world.set_environment(&[("TRUEUP_FAIL_AT", &format!("{point}:{}", dice.random_range(1..3)))]);
        world.start_whatever_comes();
        for _ in 0..200 {
            if !world.is_running() {
                break;
            }
            place(&session, &mut dice, &mut number);
            std::thread::sleep(Duration::from_millis(50));
        }
        assert!(!world.is_running(), "the point {point} was not reached");
        world.wait_for_exit();
    }
    world.set_environment(&[]);
    world.start();
    let orders = session
        .texts("SELECT json_build_object('id', id, 'country', country, 'amount', amount::text)::text FROM orders");
    read_rows(&world, "orders", orders.len());
    written(&world, "placed_orders_out");
    let expected: BTreeMap<String, Value> = orders
        .iter()
        .map(|order| {
            let order: Value = serde_json::from_str(order).expect("JSON");
            let (id, country, amount) = (&order["id"], &order["country"], &order["amount"]);
            let key = format!("{{\"order_id\":{id},\"country\":{country}}}");
            (key, json!({"order_id": id, "country": country, "events": 1, "amount": amount}))
        })
        .collect();
    let records = topic.read();
    assert_eq!(records.len(), expected.len(), "each order has one record");
    let published: BTreeMap<String, Value> =
        records.into_iter().map(|record| (record.key, record.value.expect("no tombstone"))).collect();
    assert!(published == expected, "{} orders are not those of the topic", expected.len());
    assert!(session.texts("SELECT 1::text FROM orders").len() > 50 && number > orders.len() as u64);
}
