//! Sinks of joined events. Random orders and changes of tables, kills and stops: every order is sent once, with the rows that were known when
//! it was sent, as of its time, by a scan of all changes; and when all are sent again, with those that are known then.

use std::collections::BTreeMap;

use proptest::prelude::*;
use serde_json::{Value, json};
use world::World;
use world::joined_views::{
    Customer, CustomerChange, NOW, Order, RegionChange, customer_change, order, region_change, send,
};
use world::oracle::lookups::Changelog;
use world::webhook_receiver::WebhookReceiver;

use crate::histories::cases;

const DEFINITIONS: &str = "
    CREATE TABLE customers (id STRING PRIMARY KEY, country STRING, region INT, weight BIGINT, updated_at TIMESTAMP)
        WITH (event_time = 'updated_at');
    CREATE TABLE regions (id BIGINT PRIMARY KEY, name STRING, changed_at TIMESTAMP)
        WITH (event_time = 'changed_at', partitions = 2);
    CREATE STREAM orders (customer STRING, amount BIGINT, at TIMESTAMP) WITH (event_time = 'at', partitions = 1);
    CREATE SINK joined AS
        SELECT o.customer, amount, c.country, UPPER(r.name) AS region, amount * c.weight AS weighted
        FROM orders AS o LEFT JOIN customers AS c ON o.customer = c.id LEFT JOIN regions AS r ON c.region = r.id
        WITH (to = 'webhook:ops', every = '20 milliseconds');
    CREATE SINK matched AS
        SELECT customer, c.country, c.id FROM orders JOIN customers AS c ON customer = c.id
        WHERE c.weight IS NULL OR c.weight > -5
        WITH (to = 'webhook:ops', every = '20 milliseconds', key = 'customer');";

#[derive(Debug, Clone)]
enum Step {
    Order(Vec<Order>),
    Customers(Vec<CustomerChange>),
    Regions(Vec<RegionChange>),
    Kill,
    Stop,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => prop::collection::vec(order(), 1..30).prop_map(Step::Order),
        4 => prop::collection::vec(customer_change(), 1..12).prop_map(Step::Customers),
        2 => prop::collection::vec(region_change(), 1..5).prop_map(Step::Regions),
        1 => Just(Step::Kill),
        1 => Just(Step::Stop),
    ]
}

/// How many changes of each table were known.
#[derive(Debug, Clone, Copy, Default)]
struct Known {
    customers: usize,
    regions: usize,
}

/// What a sink has sent: values by offset.
type Sent = BTreeMap<u64, Value>;

#[derive(Default)]
struct Model {
    customers: Changelog<Customer>,
    regions: Changelog<Option<&'static str>>,
    /// Each with what was known when it was sent.
    orders: Vec<(Order, Known)>,
}

impl Model {
    fn known(&self) -> Known {
        Known { customers: self.customers.len(), regions: self.regions.len() }
    }

    fn order(&mut self, world: &World, orders: &[Order]) {
        let line = |order: &Order| json!({"customer": order.customer, "amount": order.amount, "at": order.at / 1_000});
        send(world, "orders", &orders.iter().map(line).collect::<Vec<_>>());
        let known = self.known();
        self.orders.extend(orders.iter().map(|order| (order.clone(), known)));
    }

    fn change_customers(&mut self, world: &World, changes: &[CustomerChange]) {
        let mut lines = Vec::new();
        for (id, change) in changes {
            match change {
                Some((at, row)) => {
                    self.customers.write(id, *at, row.clone());
                    let Customer { country, region, weight } = row;
                    lines.push(json!({"id": id, "country": country, "region": region, "weight": weight, "updated_at": at / 1_000}));
                }
                None => {
                    self.customers.delete(id, NOW);
                    lines.push(json!({"id": id, "_deleted": true}));
                }
            }
        }
        send(world, "customers", &lines);
    }

    fn change_regions(&mut self, world: &World, changes: &[RegionChange]) {
        let mut lines = Vec::new();
        for (id, change) in changes {
            match change {
                Some((at, name)) => {
                    self.regions.write(&id.to_string(), *at, *name);
                    lines.push(json!({"id": id, "name": name, "changed_at": at / 1_000}));
                }
                None => {
                    self.regions.delete(&id.to_string(), NOW);
                    lines.push(json!({"id": id, "_deleted": true}));
                }
            }
        }
        send(world, "regions", &lines);
    }

    /// What both sinks have to have sent; `known` replaces what was known of the tables.
    fn sent(&self, known: Option<Known>) -> [Sent; 2] {
        let (mut joined, mut matched) = (Sent::new(), Sent::new());
        for (offset, (order, known_then)) in (0..).zip(&self.orders) {
            let known = known.unwrap_or(*known_then);
            let Order { customer, amount, at } = order;
            let row = customer.as_ref().and_then(|id| self.customers.as_of(id, *at, known.customers));
            let region = row.and_then(|row| row.region);
            let region = region.and_then(|id| self.regions.as_of(&id.to_string(), *at, known.regions));
            let value = json!({
                "customer": customer,
                "amount": amount,
                "country": row.and_then(|row| row.country),
                "region": region.copied().flatten().map(str::to_uppercase),
                "weighted": row.and_then(|row| row.weight).map(|weight| weight * amount),
            });
            joined.insert(offset, value);
            if let Some(row) = row.filter(|row| row.weight.is_none_or(|weight| weight > -5)) {
                matched.insert(offset, json!({"customer": customer, "country": row.country, "id": customer}));
            }
        }
        [joined, matched]
    }
}

/// What a receiver has that keeps the last value of each offset.
fn received(receiver: &WebhookReceiver, sink: &str) -> Sent {
    let mut sent = Sent::new();
    for request in receiver.received() {
        let body: Value = serde_json::from_str(&request.body).expect("JSON");
        let events = body["data"]["events"].as_array().filter(|_| body["data"]["sink"] == json!(sink));
        for event in events.into_iter().flatten() {
            sent.insert(event["offset"].as_u64().expect("an offset"), event["value"].clone());
        }
    }
    sent
}

fn check(world: &World, receiver: &WebhookReceiver, expected: &[Sent; 2], context: &str) {
    for (name, expected) in ["joined", "matched"].into_iter().zip(expected) {
        world.wait_for("the sink", |world| {
            let sink = world.get(&format!("/v1/sinks/{name}")).json();
            sink["state"] == json!("running") && sink["lag"] == json!(0)
        });
        assert_eq!(&received(receiver, name), expected, "{context}: {name}");
    }
}

fn follow(steps: &[Step]) {
    let receiver = WebhookReceiver::refusing(|number| number % 5 == 1);
    let mut world = World::stopped(DEFINITIONS);
    let port = receiver.port;
    world.set_settings(&format!("[connections.ops]\nkind = \"webhook\"\nurl = \"http://127.0.0.1:{port}/\"\n"));
    world.start();
    let mut model = Model::default();
    for (number, step) in steps.iter().enumerate() {
        match step {
            Step::Order(orders) => model.order(&world, orders),
            Step::Customers(changes) => model.change_customers(&world, changes),
            Step::Regions(changes) => model.change_regions(&world, changes),
            Step::Kill => {
                world.kill();
                world.start();
            }
            Step::Stop => {
                assert_eq!(world.stop(), Some(0), "step {number}");
                world.start();
            }
        }
        check(&world, &receiver, &model.sent(None), &format!("step {number}"));
    }
    // Sent again, each event has the rows that are known now; one that has no customer any more is not sent again.
    for name in ["joined", "matched"] {
        assert_eq!(world.post(&format!("/v1/sinks/{name}/resume"), "{\"from\":\"start\"}").status, 200);
    }
    let [joined, matched] = model.sent(Some(model.known()));
    world.wait_for("the events again", |_| received(&receiver, "joined") == joined);
    world.wait_for("the events again", |_| {
        let found = received(&receiver, "matched");
        matched.iter().all(|(offset, value)| found.get(offset) == Some(value))
    });
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(), max_shrink_iters: 40, ..ProptestConfig::default() })]

    #[test]
    fn every_joined_event_is_sent_with_the_rows_that_are_known_then(steps in prop::collection::vec(step(), 4..16)) {
        follow(&steps);
    }
}
