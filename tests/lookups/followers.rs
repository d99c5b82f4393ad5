//! Alerts and sinks of joined views. Random orders and changes of tables, runs, kills and stops: after each step, a receiver of each sink
//! that applies its rows in order has the view, and the records of each alert are those that follow from its figures. The figures
//! themselves are those of the oracle (`histories`).

use std::collections::BTreeMap;

use proptest::prelude::*;
use serde_json::{Value, json};
use world::joined_views::{
    CustomerChange, DEFINITIONS, Model, Order, RegionChange, VIEWS, customer_change, order, region_change,
};
use world::oracle_check::micros;
use world::webhook_receiver::{Received, WebhookReceiver};
use world::{World, joined_views};

use crate::histories::cases;

/// A sink and an alert of each view, and a sink of final rows.
const FOLLOWERS: &str = "
    CREATE SINK countries_hook FROM VIEW countries WITH (to = 'webhook:ops', every = '20 milliseconds');
    CREATE SINK names_hook FROM VIEW names WITH (to = 'webhook:ops', every = '20 milliseconds');
    CREATE SINK hops_hook FROM VIEW hops WITH (to = 'webhook:ops', every = '20 milliseconds');
    CREATE SINK final_hook FROM VIEW countries WITH (to = 'webhook:ops', every = '20 milliseconds', emit = 'final');
    CREATE ALERT on_countries ON countries WHEN n > 2;
    CREATE ALERT on_names ON names WHEN n > 5;
    CREATE ALERT on_hops ON hops WHEN n > 3;";
/// More than this many events raise the alert of each view.
const THRESHOLDS: [i64; 3] = [2, 5, 3];

#[derive(Debug, Clone)]
enum Step {
    Order(Vec<Order>),
    Customers(Vec<CustomerChange>),
    Regions(Vec<RegionChange>),
    Run { view: usize, full: bool },
    Kill,
    Stop,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => prop::collection::vec(order(), 1..30).prop_map(Step::Order),
        4 => prop::collection::vec(customer_change(), 1..12).prop_map(Step::Customers),
        1 => prop::collection::vec(region_change(), 1..5).prop_map(Step::Regions),
        4 => (0usize..3, prop::bool::weighted(0.25)).prop_map(|(view, full)| Step::Run { view, full }),
        2 => Just(Step::Kill),
        1 => Just(Step::Stop),
    ]
}

/// The expected record of an alert of one key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Record {
    /// No run has judged it.
    Raised,
    /// A run found that its condition holds.
    True,
    Withdrawn,
}

/// The records of one alert, by key.
type Records = BTreeMap<String, Record>;

/// The number of events of each row, by key.
type Figures = BTreeMap<String, i64>;

fn label(key: &Value) -> String {
    let start = key.get("window_start").and_then(Value::as_str).map(micros);
    json!([start, key.get("country").or(key.get("name"))]).to_string()
}

fn figures(world: &World, view: &str, query: &str) -> Figures {
    let answer = world.rows(view, query);
    let rows = answer["rows"].as_array().expect("rows");
    rows.iter().map(|row| (label(row), row["n"].as_i64().expect("a count"))).collect()
}

/// What a receiver has that applies the rows of a sink in order.
fn applied(received: &[Received], sink: &str) -> Figures {
    let mut rows = Figures::new();
    for request in received {
        let body: Value = serde_json::from_str(&request.body).expect("JSON");
        for row in body["data"]["rows"].as_array().filter(|_| body["data"]["sink"] == json!(sink)).into_iter().flatten()
        {
            match row["value"]["n"].as_i64() {
                Some(n) => _ = rows.insert(label(&row["key"]), n),
                None => _ = rows.remove(&label(&row["key"])),
            }
        }
    }
    rows
}

fn records(world: &World, view: &str) -> Records {
    let listed = world.get(&format!("/v1/alerts?limit=10000&alert=on_{view}")).json();
    let state = |record: &Value| match record["state"].as_str() {
        Some("raised") => Record::Raised,
        Some("confirmed" | "corrected") => Record::True,
        Some("withdrawn") => Record::Withdrawn,
        other => panic!("{other:?}: {record}"),
    };
    let listed = listed["alerts"].as_array().expect("alerts").clone();
    listed.iter().map(|record| (label(&record["key"]), state(record))).collect()
}

/// Waits until the sinks and the alert of a view have followed it.
fn check(world: &World, view: usize, (receiver, expected): (&WebhookReceiver, &mut Records), context: &str) {
    let name = VIEWS[view];
    let merged = figures(world, name, "");
    let sink = format!("{name}_hook");
    world.wait_for(&format!("{context}: the rows {merged:?} of {name}"), |_| {
        applied(&receiver.received(), &sink) == merged
    });
    if name == "countries" {
        let is_row = |(label, n): (&String, &i64)| merged.get(label) == Some(n);
        world.wait_for(&format!("{context}: final rows"), |_| {
            applied(&receiver.received(), "final_hook").iter().all(is_row)
        });
    }
    for (key, _) in merged.iter().filter(|(_, n)| **n > THRESHOLDS[view]) {
        let record = expected.entry(key.clone()).or_insert(Record::Raised);
        if *record == Record::Withdrawn {
            *record = Record::Raised;
        }
    }
    world
        .wait_for(&format!("{context}: the records {expected:?} of {name}"), |world| records(world, name) == *expected);
}

/// Judges the records of a view by the version of a run.
fn judge(world: &World, view: usize, records: &mut Records) {
    let exact = figures(world, VIEWS[view], "&layer=batch");
    let holds = |key: &String| exact.get(key).is_some_and(|n| *n > THRESHOLDS[view]);
    for (key, record) in records.iter_mut().filter(|(_, record)| **record == Record::Raised) {
        *record = if holds(key) { Record::True } else { Record::Withdrawn };
    }
    for key in exact.keys().filter(|key| holds(key)) {
        records.insert(key.clone(), Record::True);
    }
}

fn started(definitions: &str, receiver: &WebhookReceiver) -> World {
    let mut world = World::stopped(definitions);
    let port = receiver.port;
    world.set_settings(&format!("[connections.ops]\nkind = \"webhook\"\nurl = \"http://127.0.0.1:{port}/\"\n"));
    world.start();
    world
}

fn follow(steps: &[Step]) {
    let receiver = WebhookReceiver::refusing(|number| number % 5 == 1);
    let mut world = started(&format!("{DEFINITIONS}{FOLLOWERS}"), &receiver);
    let (mut model, mut expected) = (Model::default(), [const { Records::new() }; 3]);
    for (number, step) in steps.iter().enumerate() {
        let context = format!("step {number}");
        match step {
            Step::Order(orders) => model.order(&world, orders),
            Step::Customers(changes) => model.write_customers(&world, changes),
            Step::Regions(changes) => model.write_regions(&world, changes),
            Step::Run { view, full } => {
                model.run(&world, *view, *full, &context);
                judge(&world, *view, &mut expected[*view]);
            }
            Step::Kill => {
                world.kill();
                world.start();
                model.restarted();
            }
            Step::Stop => {
                assert_eq!(world.stop(), Some(0), "{context}");
                world.start();
                model.restarted();
            }
        }
        for (view, expected) in expected.iter_mut().enumerate() {
            model.check(&world, view, joined_views::Layer::Merged, &context);
            check(&world, view, (&receiver, expected), &context);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(), max_shrink_iters: 40, ..ProptestConfig::default() })]

    #[test]
    fn alerts_and_sinks_of_joined_views_follow_their_figures(steps in prop::collection::vec(step(), 4..16)) {
        follow(&steps);
    }
}

const SHOP: &str = "
    CREATE TABLE customers (id BIGINT PRIMARY KEY, country STRING, updated_at TIMESTAMP) WITH (event_time = 'updated_at');
    CREATE STREAM orders (customer BIGINT, at TIMESTAMP) WITH (event_time = 'at', allowed_lateness = '1000 days');
    CREATE VIEW sales AS
        SELECT country, COUNT(*) AS n FROM orders LEFT JOIN customers ON customer = customers.id GROUP BY country;
    CREATE ALERT on_sales ON sales WHEN n > 1;
    CREATE SINK sales_hook FROM VIEW sales WITH (to = 'webhook:ops', every = '20 milliseconds');";

/// Sends two orders of a customer, and then the customer.
fn late_customer(receiver: &WebhookReceiver) -> World {
    let world = started(SHOP, receiver);
    let order = json!({"customer": 7, "at": "2026-01-05T10:00:00Z"});
    joined_views::send(&world, "orders", &[order.clone(), order]);
    let unknown = Figures::from([("[null,null]".to_owned(), 2)]);
    world.wait_for("the rows", |_| applied(&receiver.received(), "sales_hook") == unknown);
    world.wait_for("the alert", |world| records(world, "sales").len() == 1);
    let customer = json!({"id": 7, "country": "IE", "updated_at": "2026-01-01T00:00:00Z"});
    joined_views::send(&world, "customers", &[customer]);
    assert_eq!(figures(&world, "sales", ""), unknown, "they were folded before");
    world
}

#[test]
fn a_run_withdraws_and_corrects_alerts_because_of_a_late_row() {
    let receiver = WebhookReceiver::start(0);
    let world = late_customer(&receiver);
    assert_eq!(world.run("sales", false)["state"], json!("published"));
    let states = |world: &World| {
        let listed = world.get("/v1/alerts?limit=10").json();
        let listed = listed["alerts"].as_array().expect("alerts").clone();
        let state =
            |record: &Value| (record["state"].clone(), record["key"]["country"].clone(), record["cause"].clone());
        let mut states: Vec<_> = listed.iter().map(state).collect();
        states.sort_by_key(|(state, ..)| state.to_string());
        states
    };
    let judged =
        [(json!("corrected"), json!("IE"), json!("lookup")), (json!("withdrawn"), Value::Null, json!("lookup"))];
    world.wait_for("the verdicts", |world| states(world).iter().all(|(state, ..)| *state != json!("raised")));
    assert_eq!(states(&world), judged);
    let exact = Figures::from([("[null,\"IE\"]".to_owned(), 2)]);
    world.wait_for("the rows", |_| applied(&receiver.received(), "sales_hook") == exact);
}

#[test]
fn after_a_restart_a_sink_takes_back_rows_that_the_replay_does_not_have() {
    let receiver = WebhookReceiver::start(0);
    let mut world = late_customer(&receiver);
    world.kill();
    world.start();
    let replayed = Figures::from([("[null,\"IE\"]".to_owned(), 2)]);
    assert_eq!(figures(&world, "sales", ""), replayed);
    world.wait_for("the rows", |_| applied(&receiver.received(), "sales_hook") == replayed);
}
