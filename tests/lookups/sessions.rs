//! Sessions of joined events: each value of the table has the sessions of the oracle, whichever changes came late, and across the seam.

use std::collections::BTreeMap;

use proptest::prelude::*;
use serde_json::{Value, json};
use world::World;
use world::joined_views::{BEGIN, NOW, send};
use world::oracle::lookups::Changelog;
use world::oracle::sessions::sessions;
use world::oracle_check::micros;

use crate::histories::cases;

const GAP: i64 = 600_000_000;
/// No visit is late.
const DEFINITIONS: &str = "
    CREATE TABLE customers (id STRING PRIMARY KEY, country STRING, updated_at TIMESTAMP) WITH (event_time = 'updated_at');
    CREATE STREAM visits (customer STRING, at TIMESTAMP) WITH (event_time = 'at', allowed_lateness = '1000 days');
    CREATE VIEW stays AS SELECT window_start, window_end, c.country, COUNT(*) AS n
        FROM visits AS v LEFT JOIN customers AS c ON v.customer = c.id
        GROUP BY SESSION(v.at, INTERVAL '10' MINUTE), c.country;";

type CustomerChange = (String, Option<(i64, Option<&'static str>)>);

#[derive(Debug, Clone)]
enum Step {
    Visit(Vec<(Option<String>, i64)>),
    Customers(Vec<CustomerChange>),
    Run { full: bool },
    Kill,
    Stop,
}

#[derive(Debug, Default)]
struct Model {
    customers: Changelog<Option<&'static str>>,
    /// Each with the number of changes that the speed layer knew when it folded it.
    visits: Vec<(Option<String>, i64, usize)>,
    /// Visits before this one are in the version, which knew so many changes.
    covered: (usize, usize),
}

impl Model {
    fn visit(&mut self, world: &World, visits: &[(Option<String>, i64)]) {
        let line = |(customer, at): &(Option<String>, i64)| json!({"customer": customer, "at": at / 1_000});
        send(world, "visits", &visits.iter().map(line).collect::<Vec<_>>());
        let known = self.customers.len();
        self.visits.extend(visits.iter().map(|(customer, at)| (customer.clone(), *at, known)));
    }

    fn change(&mut self, world: &World, changes: &[CustomerChange]) {
        let mut lines = Vec::new();
        for (id, change) in changes {
            match change {
                Some((at, country)) => {
                    self.customers.write(id, *at, *country);
                    lines.push(json!({"id": id, "country": country, "updated_at": at / 1_000}));
                }
                None => {
                    self.customers.delete(id, NOW);
                    lines.push(json!({"id": id, "_deleted": true}));
                }
            }
        }
        send(world, "customers", &lines);
    }

    fn run(&mut self, world: &World, full: bool) {
        let run = world.run("stays", full);
        assert_eq!(run["state"], json!("published"), "{run}");
        self.covered = (self.visits.len(), self.customers.len());
        let comparison = world.get("/v1/views/stays/compare");
        if comparison.status == 200 {
            let causes = comparison.json()["causes"].clone();
            assert_eq!(causes["unexplained"], json!(0), "{causes}");
        }
    }

    /// The speed layer folds again, with all that it knows now.
    fn restarted(&mut self) {
        let known = self.customers.len();
        self.visits.iter_mut().for_each(|visit| visit.2 = known);
    }

    /// Panics unless the server returns the sessions of all visits.
    fn check(&self, world: &World, context: &str) {
        let answer = world.get("/v1/views/stays/rows?limit=10000").json();
        assert_eq!(answer["complete"], json!(true), "{context}: {answer}");
        let time = |row: &Value, name: &str| micros(row[name].as_str().expect("a time"));
        let found: BTreeMap<(String, i64), (i64, Value)> = answer["rows"]
            .as_array()
            .expect("rows")
            .iter()
            .map(|row| {
                let label = (row["country"].to_string(), time(row, "window_start"));
                (label, (time(row, "window_end"), row["n"].clone()))
            })
            .collect();
        assert_eq!(found, self.stays(), "{context}");
    }

    fn stays(&self) -> BTreeMap<(String, i64), (i64, Value)> {
        let mut times: BTreeMap<String, Vec<i64>> = BTreeMap::new();
        for (number, (customer, at, folded)) in self.visits.iter().enumerate() {
            let known = if number < self.covered.0 { self.covered.1 } else { *folded };
            let row = customer.as_ref().and_then(|id| self.customers.as_of(id, *at, known));
            times.entry(json!(row.copied().flatten()).to_string()).or_default().push(*at);
        }
        let mut stays = BTreeMap::new();
        for (country, times) in times {
            for (start, end) in sessions(times.clone(), GAP) {
                let n = times.iter().filter(|at| (start..end).contains(*at)).count();
                stays.insert((country.clone(), start), (end, json!(n)));
            }
        }
        stays
    }
}

/// Of some hours, and of days before and after them.
fn time() -> impl Strategy<Value = i64> {
    prop_oneof![6 => 0i64..14_400, 1 => -200_000i64..200_000].prop_map(|seconds| BEGIN + seconds * 1_000_000)
}

fn customer() -> impl Strategy<Value = String> {
    (0..4).prop_map(|n| format!("customer {n}"))
}

fn step() -> impl Strategy<Value = Step> {
    let visit = (prop::option::weighted(0.9, customer()), time());
    let country = prop::option::weighted(0.9, prop::sample::select(vec!["ie", "a longer name of a country"]));
    let change = (customer(), prop::option::weighted(0.8, (time(), country)));
    prop_oneof![
        6 => prop::collection::vec(visit, 1..30).prop_map(Step::Visit),
        5 => prop::collection::vec(change, 1..6).prop_map(Step::Customers),
        4 => prop::bool::weighted(0.25).prop_map(|full| Step::Run { full }),
        1 => Just(Step::Kill),
        1 => Just(Step::Stop),
    ]
}

fn follow(steps: &[Step]) {
    let (mut world, mut model) = (World::new(DEFINITIONS), Model::default());
    for (number, step) in steps.iter().enumerate() {
        match step {
            Step::Visit(visits) => model.visit(&world, visits),
            Step::Customers(changes) => model.change(&world, changes),
            Step::Run { full } => model.run(&world, *full),
            Step::Kill => {
                world.kill();
                world.start();
                model.restarted();
            }
            Step::Stop => {
                assert_eq!(world.stop(), Some(0));
                world.start();
                model.restarted();
            }
        }
        model.check(&world, &format!("step {number}"));
    }
    model.run(&world, false);
    model.check(&world, "in the end");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(), max_shrink_iters: 60, ..ProptestConfig::default() })]

    #[test]
    fn sessions_of_joined_events_equal_those_of_a_scan(steps in prop::collection::vec(step(), 4..14)) {
        follow(&steps);
    }
}
