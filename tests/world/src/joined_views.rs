//! Views that are joined with tables, random events and changes for them, and their oracle: each event is joined by a scan of the list of
//! changes, as far as its layer knew them, and added to its groups.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use serde_json::{Value, json};

use crate::World;
use crate::oracle::lookups::Changelog;
use crate::oracle_check::micros;

/// 2001-09-09, in microseconds.
pub const BEGIN: i64 = 1_000_000_000_000_000;
/// After every test, and before [`FUTURE`]: deletions happen now.
pub const NOW: i64 = 2_000_000_000_000_000;
/// 2096-10-02.
pub const FUTURE: i64 = 4_000_000_000_000_000;
const HOUR: i64 = 3_600_000_000;
const QUARTER: i64 = HOUR / 4;
const DELAY: i64 = 1_000_000;
const LATENESS: i64 = 2 * HOUR;

/// A stream, two tables of which one is looked up by a column of the other, and views of every kind.
pub const DEFINITIONS: &str = "
    CREATE TABLE customers (id STRING PRIMARY KEY, country STRING, region INT, weight BIGINT, updated_at TIMESTAMP)
        WITH (event_time = 'updated_at');
    CREATE TABLE regions (id BIGINT PRIMARY KEY, name STRING, changed_at TIMESTAMP)
        WITH (event_time = 'changed_at', partitions = 2);
    CREATE STREAM orders (customer STRING, amount BIGINT, at TIMESTAMP)
        WITH (event_time = 'at', watermark_delay = '1 second', allowed_lateness = '2 hours');
    CREATE VIEW countries AS
        SELECT window_start, c.country, COUNT(*) AS n, SUM(amount) AS total, SUM(amount * c.weight) AS weighted,
               COUNT(*) FILTER (WHERE c.region > 1) AS far
        FROM orders AS o JOIN customers AS c ON o.customer = c.id
        WHERE c.weight IS NULL OR c.weight > -5
        GROUP BY TUMBLE(o.at, INTERVAL '1' HOUR), c.country;
    CREATE VIEW names AS
        SELECT r.name, COUNT(*) AS n, MAX(amount) AS most, COUNT(DISTINCT c.country) AS countries
        FROM orders LEFT JOIN customers AS c ON customer = c.id LEFT OUTER JOIN regions AS r ON r.id = c.region
        GROUP BY r.name;
    CREATE VIEW hops AS
        SELECT window_start, UPPER(c.country) AS country, COUNT(*) AS n, COUNT(r.name) AS named
        FROM orders INNER JOIN customers AS c ON c.id = orders.customer LEFT JOIN regions AS r ON c.region = r.id
        GROUP BY HOP(at, INTERVAL '15' MINUTE, INTERVAL '1' HOUR), UPPER(c.country);";

pub const VIEWS: [&str; 3] = ["countries", "names", "hops"];

#[derive(Debug, Clone, PartialEq)]
pub struct Customer {
    pub country: Option<&'static str>,
    pub region: Option<i64>,
    pub weight: Option<i64>,
}

#[derive(Debug, Clone)]
pub struct Order {
    pub customer: Option<String>,
    pub amount: i64,
    pub at: i64,
}

/// How many changes of each table a layer knew.
#[derive(Debug, Clone, Copy, Default)]
struct Known {
    customers: usize,
    regions: usize,
}

/// What a view has of the events.
#[derive(Debug, Clone, Default)]
struct ViewState {
    /// Events before this one are in the version.
    covered: usize,
    /// What the run of the version knew.
    batch: Known,
    /// What the speed layer knew when it folded each event.
    folded: Vec<Known>,
}

/// All that was sent, and what each layer knew when.
#[derive(Debug, Default)]
pub struct Model {
    customers: Changelog<Customer>,
    regions: Changelog<Option<&'static str>>,
    /// Each with the watermark before it.
    orders: Vec<(Order, Option<i64>)>,
    watermark: Option<i64>,
    views: [ViewState; 3],
}

/// The events of a query.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Layer {
    Merged,
    Batch,
    Speed,
}

/// The key of a customer with its time and row; `None`: it is deleted.
pub type CustomerChange = (String, Option<(i64, Customer)>);

/// The key of a region with its time and name; `None`: it is deleted.
pub type RegionChange = (i64, Option<(i64, Option<&'static str>)>);

impl Layer {
    fn query(self) -> &'static str {
        match self {
            Layer::Merged => "",
            Layer::Batch => "&layer=batch",
            Layer::Speed => "&layer=speed",
        }
    }
}

#[derive(Debug, Default)]
struct Group {
    n: i64,
    total: i64,
    weighted: Option<i64>,
    far: i64,
    most: Option<i64>,
    countries: BTreeSet<&'static str>,
    named: i64,
}

pub fn send(world: &World, stream: &str, lines: &[Value]) {
    let body: String = lines.iter().map(|line| format!("{line}\n")).collect();
    let answer = world.post(&format!("/v1/events/{stream}"), body);
    assert_eq!(answer.status, 200, "{}", answer.text);
    assert_eq!(answer.json()["rejected"], json!(0), "{}", answer.text);
}

impl Model {
    fn known(&self) -> Known {
        Known { customers: self.customers.len(), regions: self.regions.len() }
    }

    /// Writes customers; without a row, deletes them.
    pub fn write_customers(&mut self, world: &World, changes: &[CustomerChange]) {
        let mut lines = Vec::new();
        for (id, change) in changes {
            match change {
                Some((at, row)) => {
                    self.customers.write(id, *at, row.clone());
                    lines.push(json!({"id": id, "country": row.country, "region": row.region, "weight": row.weight,
                                      "updated_at": at / 1_000}));
                }
                None => {
                    self.customers.delete(id, NOW);
                    lines.push(json!({"id": id, "_deleted": true}));
                }
            }
        }
        send(world, "customers", &lines);
    }

    /// Writes regions; without a row, deletes them.
    pub fn write_regions(&mut self, world: &World, changes: &[RegionChange]) {
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

    /// Sends orders. They have to be [folded](Model::check) before the next change of a table.
    pub fn order(&mut self, world: &World, orders: &[Order]) {
        let line = |order: &Order| json!({"customer": order.customer, "amount": order.amount, "at": order.at / 1_000});
        send(world, "orders", &orders.iter().map(line).collect::<Vec<_>>());
        let known = self.known();
        for order in orders {
            self.orders.push((order.clone(), self.watermark));
            // A time far ahead of now does not move it.
            if order.at < NOW {
                self.watermark = self.watermark.max(Some(order.at - DELAY));
            }
            self.views.iter_mut().for_each(|view| view.folded.push(known));
        }
    }

    /// Runs a view, and checks its version. Returns the run.
    pub fn run(&mut self, world: &World, view: usize, full: bool, context: &str) -> Value {
        let run = world.run(VIEWS[view], full);
        assert_eq!(run["state"], json!("published"), "{context}: {run}");
        let known = self.known();
        let state = &mut self.views[view];
        (state.covered, state.batch) = (self.orders.len(), known);
        let comparison = world.get(&format!("/v1/views/{}/compare", VIEWS[view]));
        if comparison.status == 200 {
            let causes = comparison.json()["causes"].clone();
            assert_eq!(causes["unexplained"], json!(0), "{context}: {causes}");
        }
        self.check(world, view, Layer::Batch, context);
        run
    }

    /// After a restart, the speed layer folds with all that it knows now.
    pub fn restarted(&mut self) {
        let known = self.known();
        self.views.iter_mut().for_each(|view| view.folded.fill(known));
    }

    /// Panics unless the server returns what the oracle says.
    pub fn check(&self, world: &World, view: usize, layer: Layer, context: &str) {
        let answer = world.get(&format!("/v1/views/{}/rows?limit=10000{}", VIEWS[view], layer.query()));
        assert_eq!(answer.status, 200, "{}", answer.text);
        let answer = answer.json();
        assert_eq!(answer["complete"], json!(true), "{context}: {answer}");
        let label = |row: &Value| {
            let start = row["window_start"].as_str().map(micros);
            json!([start, row.get("country").or(row.get("name"))]).to_string()
        };
        let found: BTreeMap<String, &Value> =
            answer["rows"].as_array().expect("rows").iter().map(|row| (label(row), row)).collect();
        let expected = self.groups(view, layer);
        let labels: Vec<&String> = expected.keys().collect();
        assert_eq!(found.keys().collect::<Vec<_>>(), labels, "{context}: groups of {} {layer:?}", VIEWS[view]);
        for (label, group) in &expected {
            let values = match VIEWS[view] {
                "countries" => {
                    json!({"n": group.n, "total": group.total, "weighted": group.weighted, "far": group.far})
                }
                "names" => json!({"n": group.n, "most": group.most, "countries": group.countries.len()}),
                _ => json!({"n": group.n, "named": group.named}),
            };
            for (name, value) in values.as_object().expect("values") {
                let given = &found[label][name];
                assert_eq!(given, value, "{context}: {} {layer:?} {label} {name}: {}", VIEWS[view], found[label]);
            }
        }
    }

    fn groups(&self, view: usize, layer: Layer) -> BTreeMap<String, Group> {
        let state = &self.views[view];
        let mut groups: BTreeMap<String, Group> = BTreeMap::new();
        for (number, (order, watermark)) in self.orders.iter().enumerate() {
            let is_batch = number < state.covered;
            if layer == Layer::Batch && !is_batch || layer == Layer::Speed && is_batch {
                continue;
            }
            let known = if is_batch { state.batch } else { state.folded[number] };
            let is_late = |end: i64| !is_batch && watermark.is_some_and(|watermark| end + LATENESS <= watermark);
            let customer = order.customer.as_ref();
            let customer = customer.and_then(|id| self.customers.as_of(id, order.at, known.customers));
            let region = customer.and_then(|customer| customer.region);
            let region =
                region.and_then(|id| self.regions.as_of(&id.to_string(), order.at, known.regions)).copied().flatten();
            let country = customer.and_then(|customer| customer.country);
            let labels: Vec<Value> = match VIEWS[view] {
                "countries" => {
                    let start = order.at.div_euclid(HOUR) * HOUR;
                    let passes = customer.is_some_and(|customer| customer.weight.is_none_or(|weight| weight > -5));
                    (passes && !is_late(start + HOUR)).then(|| json!([start, country])).into_iter().collect()
                }
                "names" => vec![json!([null, region])],
                _ => {
                    let pane = order.at.div_euclid(QUARTER) * QUARTER;
                    let is_in = customer.is_some() && !is_late(pane + HOUR);
                    let starts = (0..4).map(|n| pane - n * QUARTER).filter(|_| is_in);
                    starts.map(|start| json!([start, country.map(str::to_uppercase)])).collect()
                }
            };
            for label in labels {
                let group = groups.entry(label.to_string()).or_default();
                group.n += 1;
                group.total += order.amount;
                if let Some(weight) = customer.and_then(|customer| customer.weight) {
                    *group.weighted.get_or_insert(0) += order.amount * weight;
                }
                group.far += i64::from(customer.and_then(|customer| customer.region) > Some(1));
                group.most = group.most.max(Some(order.amount));
                group.countries.extend(country);
                group.named += i64::from(region.is_some());
            }
        }
        groups
    }
}

/// Of some hours, of days far from them, and of hours to come.
fn time() -> impl Strategy<Value = i64> {
    let seconds = |from: i64| move |seconds: i64| from + seconds * 1_000_000;
    prop_oneof![
        6 => (0i64..14_400).prop_map(seconds(BEGIN)),
        1 => (-400_000i64..400_000).prop_map(seconds(BEGIN)),
        2 => (0i64..14_400).prop_map(seconds(FUTURE)),
    ]
}

fn customer_id() -> impl Strategy<Value = String> {
    (0..8).prop_map(|n| format!("customer {n}"))
}

/// Orders of few customers, some of none.
pub fn order() -> impl Strategy<Value = Order> {
    (prop::option::weighted(0.9, customer_id()), -100i64..100, time()).prop_map(|(customer, amount, at)| Order {
        customer,
        amount,
        at,
    })
}

fn customer() -> impl Strategy<Value = Customer> {
    let country = prop::option::weighted(0.9, prop::sample::select(vec!["ie", "de", "a longer name of a country"]));
    (country, prop::option::weighted(0.8, 0i64..4), prop::option::weighted(0.8, -8i64..8))
        .prop_map(|(country, region, weight)| Customer { country, region, weight })
}

/// Writes and deletions of customers.
pub fn customer_change() -> impl Strategy<Value = CustomerChange> {
    (customer_id(), prop::option::weighted(0.75, (time(), customer())))
}

/// Writes and deletions of regions. Of a table with several partitions: a row that is written again after its deletion has an earlier time.
pub fn region_change() -> impl Strategy<Value = RegionChange> {
    let at = (0i64..14_400).prop_map(|seconds| BEGIN + seconds * 1_000_000);
    let name = prop::option::weighted(0.9, prop::sample::select(vec!["north", "south"]));
    (0i64..4, prop::option::weighted(0.75, (at, name)))
}
