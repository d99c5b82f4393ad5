//! The oracle: rows after a list of changes, and views over them, in the simplest way. It knows nothing of retractions.

use std::collections::BTreeMap;

use proptest::prelude::*;
use serde_json::{Map, Value, json};
use world::World;
use world::oracle_check::micros;

/// 2001-09-09, in microseconds.
pub const BEGIN: i64 = 1_000_000_000_000_000;
const HOUR: i64 = 3_600_000_000;
const QUARTER: i64 = HOUR / 4;
/// What Debezium writes for a value that it does not know.
const UNAVAILABLE: &str = "__debezium_unavailable_value";

/// The table, and views of every kind over it.
pub fn definitions(format: &str) -> String {
    format!(
        "CREATE TABLE orders (id BIGINT PRIMARY KEY, status STRING, note STRING, amount DECIMAL(12,2), quantity BIGINT,
                              price DOUBLE, created_at TIMESTAMP NOT NULL)
            WITH (event_time = 'created_at', format = '{format}', partitions = 3);
        CREATE VIEW statuses AS
            SELECT status, COUNT(*) AS n, COUNT(amount) AS known, SUM(amount) AS total, AVG(amount) AS mean,
                   AVG(quantity) AS quantity, COUNT(*) FILTER (WHERE quantity > 0) AS some
            FROM orders GROUP BY status;
        CREATE VIEW hours AS
            SELECT COUNT(*) AS n, SUM(quantity) AS quantity, SUM(price) AS price, AVG(price) AS mean
            FROM orders GROUP BY TUMBLE(created_at, INTERVAL '1' HOUR);
        CREATE VIEW hops AS
            SELECT note, SUM(quantity) AS quantity, COUNT(DISTINCT_FREE) AS n
            FROM orders WHERE quantity > -5
            GROUP BY HOP(created_at, INTERVAL '15' MINUTE, INTERVAL '1' HOUR), note;
        CREATE VIEW totals WITH (layers = 'speed') AS
            SELECT COUNT(*) AS n, SUM(amount) AS total, SUM(quantity) / COUNT(*) AS share
            FROM orders HAVING COUNT(*) > 1;"
    )
    .replace("COUNT(DISTINCT_FREE)", "COUNT(quantity)")
}

/// The views that batch runs compute.
pub const BATCH_VIEWS: [&str; 3] = ["statuses", "hours", "hops"];

/// A row of the table.
#[derive(Debug, Clone, PartialEq)]
pub struct Row {
    pub status: Option<&'static str>,
    pub note: Option<&'static str>,
    pub cents: Option<i64>,
    pub quantity: Option<i64>,
    pub price: Option<f64>,
    pub at: i64,
}

/// How much of the row before it a change has.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Before {
    Missing,
    KeyOnly,
    Full,
    /// Other values than the row had.
    Wrong,
}

#[derive(Debug, Clone)]
pub enum Change {
    /// `op` is `c`, `u` or `r`; with `keeps_note` the sender does not know the note.
    Write {
        id: i64,
        row: Row,
        operation: &'static str,
        before: Before,
        keeps_note: bool,
    },
    Delete {
        id: i64,
        before: Before,
    },
    /// A row gets another key.
    Rename {
        from: i64,
        to: i64,
        row: Row,
    },
}

/// The rows after some changes.
#[derive(Debug, Clone, Default)]
pub struct Rows(pub BTreeMap<i64, Row>);

fn decimal(cents: i64) -> String {
    let sign = if cents < 0 { "-" } else { "" };
    format!("{sign}{}.{:02}", cents.abs() / 100, cents.abs() % 100)
}

impl Row {
    fn json(&self, id: i64, keeps_note: bool) -> Value {
        json!({
            "id": id, "status": self.status, "note": if keeps_note { Some(UNAVAILABLE) } else { self.note },
            "amount": self.cents.map(decimal), "quantity": self.quantity, "price": self.price,
            "created_at": self.at / 1_000,
        })
    }
}

impl Change {
    /// As Debezium writes it.
    pub fn debezium(&self, rows: &Rows) -> Value {
        let before = |id: i64, before: Before| match (before, rows.0.get(&id)) {
            (Before::Missing, _) | (Before::Full, None) => Value::Null,
            (Before::KeyOnly, _) => json!({"id": id, "created_at": 0}),
            (Before::Full, Some(row)) => row.json(id, false),
            (Before::Wrong, _) => json!({"id": id, "status": "wrong", "quantity": 1_000_000, "created_at": "no time"}),
        };
        match self {
            Change::Write { id, row, operation, before: given, keeps_note } => json!({
                "op": operation, "before": before(*id, *given), "after": row.json(*id, *keeps_note), "source": {"lsn": 1}
            }),
            Change::Delete { id, before: given } => {
                // The key at least: a deletion is of one row.
                let given = if *given == Before::Missing { Before::KeyOnly } else { *given };
                let before = match before(*id, given) {
                    Value::Null => json!({"id": id}),
                    known => known,
                };
                json!({"payload": {"op": "d", "before": before, "after": null}, "schema": {"type": "struct"}})
            }
            Change::Rename { from, to, row } => {
                json!({"op": "u", "before": {"id": from}, "after": row.json(*to, false)})
            }
        }
    }

    /// As rows, with the mark of a deletion.
    pub fn upserts(&self) -> Vec<Value> {
        match self {
            Change::Write { id, row, .. } => vec![row.json(*id, false)],
            Change::Delete { id, .. } => vec![json!({"id": id, "_deleted": true})],
            Change::Rename { from, to, row } => {
                vec![json!({"_deleted": true, "id": from}), json!({"_deleted": false}), row.json(*to, false)]
            }
        }
    }
}

impl Rows {
    pub fn apply(&mut self, change: &Change, knows_notes: bool) {
        match change {
            Change::Write { id, row, keeps_note, .. } => {
                let mut row = row.clone();
                if *keeps_note && knows_notes {
                    row.note = self.0.get(id).and_then(|before| before.note);
                }
                self.0.insert(*id, row);
            }
            Change::Delete { id, .. } => _ = self.0.remove(id),
            Change::Rename { from, to, row } => {
                self.0.remove(from);
                self.0.insert(*to, row.clone());
            }
        }
    }

    /// The rows of a view: a label of window and group, and the measures.
    pub fn view(&self, view: &str) -> BTreeMap<String, Map<String, Value>> {
        let mut groups: BTreeMap<String, Vec<&Row>> = BTreeMap::new();
        for row in self.0.values() {
            match view {
                "statuses" => groups.entry(json!(row.status).to_string()).or_default().push(row),
                "hours" => groups.entry(time(row.at.div_euclid(HOUR) * HOUR)).or_default().push(row),
                "hops" => {
                    let last = row.at.div_euclid(QUARTER) * QUARTER;
                    for start in (0..4).map(|n| last - n * QUARTER).filter(|_| row.quantity > Some(-5)) {
                        groups.entry(format!("{} {}", time(start), json!(row.note))).or_default().push(row);
                    }
                }
                _ => groups.entry(String::new()).or_default().push(row),
            }
        }
        groups.retain(|_, rows| view != "totals" || rows.len() > 1);
        groups.into_iter().map(|(label, rows)| (label, measures(view, &rows))).collect()
    }
}

fn time(micros: i64) -> String {
    let seconds = micros.div_euclid(1_000_000);
    let (days, rest) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
    format!("{days} {rest}")
}

fn measures(view: &str, rows: &[&Row]) -> Map<String, Value> {
    let cents: Vec<i64> = rows.iter().filter_map(|row| row.cents).collect();
    let quantities: Vec<i64> = rows.iter().filter_map(|row| row.quantity).collect();
    let prices: Vec<f64> = rows.iter().filter_map(|row| row.price).collect();
    let some = |is_some: bool, value: f64| if is_some { json!(value) } else { Value::Null };
    let total = cents.iter().sum::<i64>() as f64 / 100.0;
    let quantity = quantities.iter().sum::<i64>();
    let price = prices.iter().sum::<f64>();
    let mean = |sum: f64, count: usize| some(count > 0, sum / count as f64);
    let all = match view {
        "statuses" => json!({
            "n": rows.len(), "known": cents.len(), "total": some(!cents.is_empty(), total),
            "mean": mean(total, cents.len()), "quantity": mean(quantity as f64, quantities.len()),
            "some": quantities.iter().filter(|q| **q > 0).count(),
        }),
        "hours" => json!({
            "n": rows.len(), "quantity": some(!quantities.is_empty(), quantity as f64),
            "price": some(!prices.is_empty(), price), "mean": mean(price, prices.len()),
        }),
        "hops" => json!({"quantity": some(!quantities.is_empty(), quantity as f64), "n": quantities.len()}),
        _ => json!({
            "n": rows.len(), "total": some(!cents.is_empty(), total),
            // Of BIGINT: toward zero.
            "share": some(!quantities.is_empty(), (quantity / rows.len() as i64) as f64),
        }),
    };
    let Value::Object(all) = all else { unreachable!("an object") };
    all
}

/// What the server returns for a view, labelled as the oracle does.
pub fn served(world: &World, view: &str, query: &str) -> BTreeMap<String, Map<String, Value>> {
    let answer = world.get(&format!("/v1/views/{view}/rows?limit=10000{query}"));
    assert_eq!(answer.status, 200, "{}", answer.text);
    let answer = answer.json();
    assert_eq!(answer["complete"], json!(true), "{answer}");
    let rows = answer["rows"].as_array().expect("rows");
    rows.iter()
        .map(|row| {
            let start = row["window_start"].as_str().map(|start| time(micros(start)));
            let group = row.get("status").or(row.get("note")).map(Value::to_string);
            let label: Vec<String> = start.into_iter().chain(group).collect();
            (label.join(" "), row.as_object().expect("a row").clone())
        })
        .collect()
}

fn number(value: &Value) -> Option<f64> {
    value.as_f64().or_else(|| value.as_str()?.parse().ok())
}

/// Panics unless the server returns what the rows say.
pub fn check(world: &World, rows: &Rows, view: &str, query: &str, context: &str) {
    let (expected, found) = (rows.view(view), served(world, view, query));
    let labels = |groups: &BTreeMap<String, Map<String, Value>>| groups.keys().cloned().collect::<Vec<_>>();
    assert_eq!(labels(&found), labels(&expected), "{context}: groups of {view}{query}");
    for (label, measures) in &expected {
        for (name, value) in measures {
            let (wanted, given) = (number(value), number(&found[label][name]));
            let is_close = match (wanted, given) {
                (Some(a), Some(b)) => (a - b).abs() <= 1e-9 * a.abs().max(1.0),
                (a, b) => a == b,
            };
            assert!(is_close, "{context}: {view}{query} {label} {name}: {given:?}, not {wanted:?}");
        }
    }
}

pub fn row() -> impl Strategy<Value = Row> {
    (
        prop::option::weighted(0.9, prop::sample::select(vec!["open", "paid", "sent"])),
        prop::option::weighted(0.8, prop::sample::select(vec!["a", "b", ""])),
        prop::option::weighted(0.8, -100_000i64..100_000),
        prop::option::weighted(0.8, -20i64..20),
        prop::option::weighted(0.8, -1e6..1e6f64),
        // Of some hours, and of days far from them.
        prop_oneof![6 => 0i64..14_400, 1 => -400_000i64..400_000],
    )
        .prop_map(|(status, note, cents, quantity, price, seconds)| Row {
            status,
            note,
            cents,
            quantity,
            price,
            at: BEGIN + seconds * 1_000_000,
        })
}

pub fn change() -> impl Strategy<Value = Change> {
    let before = || prop::sample::select(vec![Before::Missing, Before::KeyOnly, Before::Full, Before::Wrong]);
    let id = || 0i64..25;
    prop_oneof![
        8 => (id(), row(), prop::sample::select(vec!["c", "u", "r"]), before(), prop::bool::weighted(0.2)).prop_map(
            |(id, row, operation, before, keeps_note)| Change::Write { id, row, operation, before, keeps_note }
        ),
        3 => (id(), before()).prop_map(|(id, before)| Change::Delete { id, before }),
        1 => (id(), id(), row()).prop_map(|(from, to, row)| Change::Rename { from, to, row }),
    ]
}
