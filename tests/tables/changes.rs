//! The oracle: rows after a list of changes, and views over them, in the simplest way. It knows nothing of retractions.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use serde_json::{Map, Value, json};
use world::World;
use world::oracle_check::micros;

/// 2001-09-09, in microseconds.
pub const BEGIN: i64 = 1_000_000_000_000_000;
const HOUR: i64 = 3_600_000_000;
const QUARTER: i64 = HOUR / 4;
/// Between sessions. Rows that are just as far apart are often in the histories.
pub const GAP: i64 = HOUR / 2;
/// What Debezium writes for a value that it does not know.
const UNAVAILABLE: &str = "__debezium_unavailable_value";

/// The columns whose values name a row.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Keys {
    /// `id`.
    One,
    /// `shop` and `number`: rows of a shop differ by their number.
    Two,
}

/// In their order; a path has to encode them.
const SHOPS: [&str; 3] = ["a", "b, \"c\"/d", "ü"];

impl Keys {
    fn columns(self) -> &'static str {
        if self == Keys::One { "id BIGINT PRIMARY KEY" } else { "number INT, shop STRING, PRIMARY KEY (shop, number)" }
    }

    /// A JSON object with the key of a row before these members.
    fn with(self, id: i64, members: Value) -> Value {
        let mut all = match self {
            Keys::One => json!({"id": id}),
            Keys::Two => json!({"number": id / 3, "shop": SHOPS[id as usize % 3]}),
        };
        let Value::Object(members) = members else { panic!("{members} is no object") };
        all.as_object_mut().expect("an object").extend(members);
        all
    }

    /// The id of a row.
    pub fn id(self, row: &Value) -> Option<i64> {
        match self {
            Keys::One => row["id"].as_i64(),
            Keys::Two => {
                let shop = SHOPS.iter().position(|shop| row["shop"] == **shop)?;
                Some(row["number"].as_i64()? * 3 + shop as i64)
            }
        }
    }

    /// What the order of the rows follows.
    pub fn order(self, id: i64) -> (i64, i64) {
        if self == Keys::One { (0, id) } else { (id % 3, id / 3) }
    }

    /// The key as the endpoints of rows write it.
    pub fn text(self, id: i64) -> String {
        if self == Keys::One { id.to_string() } else { json!([SHOPS[id as usize % 3], id / 3]).to_string() }
    }
}

/// The table, and views of every kind over it.
pub fn definitions(format: &str, keys: Keys) -> String {
    let key = keys.columns();
    // The default of Debezium.
    let decimals = if format == "json" { "" } else { "FORMAT 'base64'" };
    format!(
        "CREATE TABLE orders ({key}, status STRING, note STRING, amount DECIMAL(12,2) {decimals}, quantity BIGINT,
                              price DOUBLE, created_at TIMESTAMP NOT NULL)
            WITH (event_time = 'created_at', format = '{format}', partitions = 3);
        CREATE VIEW statuses AS
            SELECT status, COUNT(*) AS n, COUNT(amount) AS known, SUM(amount) AS total, AVG(amount) AS mean,
                   AVG(quantity) AS quantity, COUNT(*) FILTER (WHERE quantity > 0) AS some,
                   MIN(amount) AS least, MAX(price) FILTER (WHERE quantity > 0) AS dearest, COUNT(DISTINCT note) AS notes,
                   TOP_K(quantity, 2) AS frequent, VAR_SAMP(quantity) AS spread,
                   FIRST_VALUE(amount) AS first_amount, LAST_VALUE(note) FILTER (WHERE quantity > 0) AS last_note
            FROM orders GROUP BY status;
        CREATE VIEW hours AS
            SELECT COUNT(*) AS n, SUM(quantity) AS quantity, SUM(price) AS price, AVG(price) AS mean,
                   MEDIAN(price) AS median, STDDEV_POP(price) AS deviation, MAX(created_at) AS newest, MIN(note) AS least_note,
                   PERCENTILE_DISC(0.9) WITHIN GROUP (ORDER BY quantity DESC) AS low, MEDIAN(amount) AS middle,
                   FIRST_VALUE(status) AS first_status, LAST_VALUE(price) AS last_price
            FROM orders GROUP BY TUMBLE(created_at, INTERVAL '1' HOUR);
        CREATE VIEW hops AS
            SELECT note, SUM(quantity) AS quantity, COUNT(quantity) AS n, MAX(quantity) - MIN(quantity) AS range, TOP_K(status, 3) AS states,
                   LAST_VALUE(quantity) AS last_quantity
            FROM orders WHERE quantity > -5
            GROUP BY HOP(created_at, INTERVAL '15' MINUTE, INTERVAL '1' HOUR), note;
        CREATE VIEW visits AS
            SELECT note, COUNT(*) AS n, SUM(quantity) AS quantity, AVG(price) AS mean, COUNT(*) FILTER (WHERE quantity > 0) AS some,
                   MIN(amount) AS least, MAX(price) AS dearest, COUNT(DISTINCT status) AS statuses, TOP_K(quantity, 2) AS frequent,
                   VAR_SAMP(quantity) AS spread, MEDIAN(price) AS median, FIRST_VALUE(amount) AS first_amount,
                   LAST_VALUE(status) AS last_status
            FROM orders WHERE quantity > -5 GROUP BY SESSION(created_at, INTERVAL '30' MINUTE), note;
        CREATE VIEW sittings WITH (layers = 'speed') AS
            SELECT COUNT(*) AS n, SUM(quantity) AS quantity, MAX(created_at) AS newest
            FROM orders GROUP BY SESSION(created_at, INTERVAL '30' MINUTE) HAVING COUNT(*) > 1;
        CREATE VIEW totals WITH (layers = 'speed') AS
            SELECT COUNT(*) AS n, SUM(amount) AS total, SUM(quantity) / COUNT(*) AS share, MAX(quantity) AS highest,
                   FIRST_VALUE(quantity) AS first_quantity
            FROM orders HAVING COUNT(*) > 1;"
    )
}

/// The views that batch runs compute.
pub const BATCH_VIEWS: [&str; 4] = ["statuses", "hours", "hops", "visits"];
/// Those of the speed layer alone.
pub const SPEED_VIEWS: [&str; 2] = ["totals", "sittings"];
/// Those whose windows are sessions.
pub const SESSION_VIEWS: [&str; 2] = ["visits", "sittings"];

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

/// Rows of a view: a label of window and group, and the measures.
pub type ViewRows = BTreeMap<String, Map<String, Value>>;

/// The rows after some changes.
#[derive(Debug, Clone, Default)]
pub struct Rows(pub BTreeMap<i64, Row>);

fn decimal(cents: i64) -> String {
    let sign = if cents < 0 { "-" } else { "" };
    format!("{sign}{}.{:02}", cents.abs() / 100, cents.abs() % 100)
}

/// The unscaled value in Base64, two's complement, as short as can be.
fn base64(cents: i64) -> String {
    let bytes = cents.to_be_bytes();
    let is_sign = |pair: &[u8]| (pair[0] == 0 && pair[1] < 128) || (pair[0] == 255 && pair[1] >= 128);
    let signs = bytes.windows(2).take_while(|pair| is_sign(pair)).count();
    let digits = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for three in bytes[signs..].chunks(3) {
        let bits = (0..3).fold(0u32, |bits, i| bits << 8 | u32::from(three.get(i).copied().unwrap_or(0)));
        for digit in 0..4 {
            let place = (bits >> (18 - 6 * digit)) & 63;
            text.push(if digit > three.len() { '=' } else { char::from(digits[place as usize]) });
        }
    }
    text
}

impl Row {
    fn json(&self, (keys, id): (Keys, i64), keeps_note: bool, decimal: fn(i64) -> String) -> Value {
        let members = json!({
            "status": self.status, "note": if keeps_note { Some(UNAVAILABLE) } else { self.note },
            "amount": self.cents.map(decimal), "quantity": self.quantity, "price": self.price,
            "created_at": self.at / 1_000,
        });
        keys.with(id, members)
    }
}

impl Change {
    /// As Debezium writes it.
    pub fn debezium(&self, rows: &Rows, keys: Keys) -> Value {
        let before = |id: i64, before: Before| match (before, rows.0.get(&id)) {
            (Before::Missing, _) | (Before::Full, None) => Value::Null,
            (Before::KeyOnly, _) => keys.with(id, json!({"created_at": 0})),
            (Before::Full, Some(row)) => row.json((keys, id), false, base64),
            (Before::Wrong, _) => {
                keys.with(id, json!({"status": "wrong", "quantity": 1_000_000, "created_at": "no time"}))
            }
        };
        match self {
            Change::Write { id, row, operation, before: given, keeps_note } => json!({
                "op": operation, "before": before(*id, *given), "after": row.json((keys, *id), *keeps_note, base64), "source": {"lsn": 1}
            }),
            Change::Delete { id, before: given } => {
                // The key at least: a deletion is of one row.
                let given = if *given == Before::Missing { Before::KeyOnly } else { *given };
                let before = match before(*id, given) {
                    Value::Null => keys.with(*id, json!({})),
                    known => known,
                };
                json!({"payload": {"op": "d", "before": before, "after": null}, "schema": {"type": "struct"}})
            }
            Change::Rename { from, to, row } => {
                json!({"op": "u", "before": keys.with(*from, json!({})), "after": row.json((keys, *to), false, base64)})
            }
        }
    }

    /// As rows, with the mark of a deletion.
    pub fn upserts(&self, keys: Keys) -> Vec<Value> {
        let deleted = |id: i64| keys.with(id, json!({"_deleted": true}));
        match self {
            Change::Write { id, row, .. } => vec![row.json((keys, *id), false, decimal)],
            Change::Delete { id, .. } => vec![deleted(*id)],
            Change::Rename { from, to, row } => {
                vec![deleted(*from), json!({"_deleted": false}), row.json((keys, *to), false, decimal)]
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
    pub fn view(&self, view: &str) -> ViewRows {
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
                "visits" if row.quantity > Some(-5) => groups.entry(json!(row.note).to_string()).or_default().push(row),
                "visits" => {}
                _ => groups.entry(String::new()).or_default().push(row),
            }
        }
        if SESSION_VIEWS.contains(&view) {
            groups = sessions(&groups);
        }
        groups.retain(|_, rows| !SPEED_VIEWS.contains(&view) || rows.len() > 1);
        groups.into_iter().map(|(label, rows)| (label, measures(view, &rows))).collect()
    }
}

/// The sessions of each group, labelled by their start and end as well.
fn sessions<'a>(groups: &BTreeMap<String, Vec<&'a Row>>) -> BTreeMap<String, Vec<&'a Row>> {
    let mut all = BTreeMap::new();
    for (group, rows) in groups {
        let mut rows = rows.clone();
        rows.sort_by_key(|row| row.at);
        for session in rows.chunk_by(|before, after| after.at - before.at < GAP) {
            let (start, end) = (session[0].at, session[session.len() - 1].at + GAP);
            all.insert(format!("{} {} {group}", time(start), time(end)).trim_end().to_owned(), session.to_vec());
        }
    }
    all
}

/// An instant in labels.
fn time(micros: i64) -> String {
    let seconds = micros.div_euclid(1_000_000);
    let (days, rest) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
    format!("{days} {rest}")
}

/// The first or the last of the values by time, and of equal times by themselves.
fn edge<T>(
    rows: &[&Row],
    is_first: bool,
    value: impl Fn(&Row) -> Option<T>,
    order: impl Fn(&T, &T) -> Ordering,
) -> Option<T> {
    let mut values: Vec<(i64, T)> = rows.iter().filter_map(|row| Some((row.at, value(row)?))).collect();
    values.sort_by(|(at, value), (other_at, other)| at.cmp(other_at).then_with(|| order(value, other)));
    if !is_first {
        values.reverse();
    }
    values.into_iter().next().map(|(_, value)| value)
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
    let notes: BTreeSet<&str> = rows.iter().filter_map(|row| row.note).collect();
    let dear = rows.iter().filter(|row| row.quantity > Some(0)).filter_map(|row| row.price);
    let statuses: BTreeSet<&str> = rows.iter().filter_map(|row| row.status).collect();
    let numbers: Vec<f64> = quantities.iter().map(|quantity| *quantity as f64).collect();
    let all = match view {
        "statuses" => json!({
            "n": rows.len(), "known": cents.len(), "total": some(!cents.is_empty(), total),
            "mean": mean(total, cents.len()), "quantity": mean(quantity as f64, quantities.len()),
            "some": quantities.iter().filter(|q| **q > 0).count(),
            "least": cents.iter().min().map(|cents| *cents as f64 / 100.0),
            "dearest": dear.max_by(f64::total_cmp), "notes": notes.len(),
            "frequent": top(&quantities, 2), "spread": spread(&numbers, numbers.len().saturating_sub(1)),
            "first_amount": edge(rows, true, |row| row.cents, i64::cmp).map(|cents| cents as f64 / 100.0),
            "last_note": edge(rows, false, |row| row.note.filter(|_| row.quantity > Some(0)), |a, b| a.cmp(b)),
        }),
        "hours" => json!({
            "n": rows.len(), "quantity": some(!quantities.is_empty(), quantity as f64),
            "price": some(!prices.is_empty(), price), "mean": mean(price, prices.len()),
            "median": median(&prices), "deviation": spread(&prices, prices.len()).map(f64::sqrt),
            "least_note": notes.first(), "middle": median(&cents.iter().map(|cents| *cents as f64 / 100.0).collect::<Vec<_>>()),
            "newest": rows.iter().map(|row| row.at).max(), "low": low_nine_tenths(&quantities),
            "first_status": edge(rows, true, |row| row.status, |a, b| a.cmp(b)),
            "last_price": edge(rows, false, |row| row.price, f64::total_cmp),
        }),
        "hops" => json!({
            "quantity": some(!quantities.is_empty(), quantity as f64), "n": quantities.len(),
            "range": quantities.iter().max().zip(quantities.iter().min()).map(|(most, least)| most - least),
            "states": top(&rows.iter().filter_map(|row| row.status).collect::<Vec<_>>(), 3),
            "last_quantity": edge(rows, false, |row| row.quantity, i64::cmp),
        }),
        "visits" => json!({
            "n": rows.len(), "quantity": some(!quantities.is_empty(), quantity as f64),
            "mean": mean(price, prices.len()), "some": quantities.iter().filter(|q| **q > 0).count(),
            "least": cents.iter().min().map(|cents| *cents as f64 / 100.0),
            "dearest": prices.iter().copied().max_by(f64::total_cmp), "statuses": statuses.len(),
            "frequent": top(&quantities, 2), "spread": spread(&numbers, numbers.len().saturating_sub(1)),
            "median": median(&prices), "first_amount": edge(rows, true, |row| row.cents, i64::cmp).map(|cents| cents as f64 / 100.0),
            "last_status": edge(rows, false, |row| row.status, |a, b| a.cmp(b)),
        }),
        "sittings" => json!({
            "n": rows.len(), "quantity": some(!quantities.is_empty(), quantity as f64),
            "newest": rows.iter().map(|row| row.at).max(),
        }),
        _ => json!({
            "n": rows.len(), "total": some(!cents.is_empty(), total),
            // Of BIGINT: toward zero.
            "share": some(!quantities.is_empty(), (quantity / rows.len() as i64) as f64),
            "highest": quantities.iter().max(), "first_quantity": edge(rows, true, |row| row.quantity, i64::cmp),
        }),
    };
    let Value::Object(all) = all else { unreachable!("an object") };
    all
}

/// The `k` most frequent values with their counts.
fn top<T: Ord + Copy + serde::Serialize>(values: &[T], k: usize) -> Value {
    let mut counts: BTreeMap<T, u64> = BTreeMap::new();
    values.iter().for_each(|value| *counts.entry(*value).or_default() += 1);
    let mut listed: Vec<(T, u64)> = counts.into_iter().collect();
    listed.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
    let listed: Vec<Value> =
        listed.iter().take(k).map(|(value, count)| json!({"value": value, "count": count})).collect();
    if listed.is_empty() { Value::Null } else { json!(listed) }
}

fn median(values: &[f64]) -> Option<f64> {
    let mut values = values.to_vec();
    values.sort_by(f64::total_cmp);
    let (below, above) = (values.get(values.len().wrapping_sub(1) / 2)?, values[values.len() / 2]);
    Some((below + above) / 2.0)
}

/// The greatest value that nine tenths of all are not less than.
fn low_nine_tenths(values: &[i64]) -> Option<i64> {
    let is_low = |value: &i64| values.iter().filter(|other| *other >= value).count() * 10 >= values.len() * 9;
    values.iter().copied().filter(is_low).max()
}

/// The squared deviations from the mean, divided by `by`.
fn spread(values: &[f64], by: usize) -> Option<f64> {
    let mean = values.iter().sum::<f64>() / values.len() as f64;
    (by > 0).then(|| values.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / by as f64)
}

/// What the server returns for a view, labelled as the oracle does.
pub fn served(world: &World, view: &str, query: &str) -> ViewRows {
    let answer = world.get(&format!("/v1/views/{view}/rows?limit=10000{query}"));
    assert_eq!(answer.status, 200, "{}", answer.text);
    let answer = answer.json();
    assert_eq!(answer["complete"], json!(true), "{answer}");
    let rows = answer["rows"].as_array().expect("rows");
    rows.iter()
        .map(|row| {
            let bound = |name: &str| row[name].as_str().map(|bound| time(micros(bound)));
            let end = if SESSION_VIEWS.contains(&view) { bound("window_end") } else { None };
            let group = row.get("status").or(row.get("note")).map(Value::to_string);
            let label: Vec<String> = bound("window_start").into_iter().chain(end).chain(group).collect();
            (label.join(" "), row.as_object().expect("a row").clone())
        })
        .collect()
}

/// A number; of a time its microseconds.
fn number(value: &Value) -> Option<f64> {
    let text = || value.as_str().map(|text| text.parse().unwrap_or_else(|_| micros(text) as f64));
    value.as_f64().or_else(text)
}

/// Panics unless the server returns what the rows say.
pub fn check(world: &World, rows: &Rows, view: &str, query: &str, context: &str) {
    check_rows(&rows.view(view), &served(world, view, query), &format!("{context}: {view}{query}"));
}

/// Panics unless the rows are the expected ones.
pub fn check_rows(expected: &ViewRows, found: &ViewRows, context: &str) {
    let labels = |groups: &ViewRows| groups.keys().cloned().collect::<Vec<_>>();
    assert_eq!(labels(found), labels(expected), "{context}: groups");
    for (label, measures) in expected {
        for (name, value) in measures {
            let given = &found[label][name];
            if value.is_array() || name.ends_with("_note") || name.ends_with("_status") {
                assert_eq!(given, value, "{context} {label} {name}");
                continue;
            }
            let (wanted, given) = (number(value), number(given));
            let is_close = match (wanted, given) {
                (Some(a), Some(b)) => (a - b).abs() <= 1e-9 * a.abs().max(1.0),
                (a, b) => a == b,
            };
            assert!(is_close, "{context} {label} {name}: {given:?}, not {wanted:?}");
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
        // Of some hours, often the same, and of days far from them.
        prop_oneof![4 => 0i64..14_400, 2 => (0i64..8).prop_map(|half| half * 1_800), 1 => -400_000i64..400_000],
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
