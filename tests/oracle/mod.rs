//! What is true? A naive fold over the list of events, written without any of the system's code.

use std::collections::{BTreeMap, HashSet};

use serde_json::{Value, json};

/// One minute in microseconds.
pub const MINUTE: i64 = 60_000_000;
pub const WATERMARK_DELAY: i64 = 10_000_000;
pub const ALLOWED_LATENESS: i64 = 20_000_000;

/// An event of the test stream. Amounts are in cents where they are decimals.
#[derive(Debug, Clone)]
pub struct Event {
    pub id: Option<String>,
    pub at: i64,
    pub region: Option<String>,
    pub amount: Option<i64>,
    pub price: Option<f64>,
    pub cost_cents: Option<i64>,
    pub code: Option<i32>,
    pub flag: Option<bool>,
}

/// The stream and its views; the folds below are what they mean.
pub fn definitions(partitions: u32) -> String {
    format!(
        "CREATE STREAM events (
           id STRING PRIMARY KEY, at TIMESTAMP, region STRING, amount BIGINT, price DOUBLE, cost DECIMAL(10,2),
           code INT, flag BOOLEAN
         ) WITH (event_time = 'at', watermark_delay = '10 seconds', allowed_lateness = '20 seconds',
                 partitions = {partitions});

         CREATE VIEW regions AS
         SELECT window_start, window_end, region, COUNT(*) AS n, COUNT(amount) AS amounts, SUM(amount) AS total,
                AVG(price) AS price, MIN(amount) AS least, MAX(price) AS dearest,
                COUNT(*) FILTER (WHERE flag) AS flagged, SUM(cost) AS cost
         FROM events GROUP BY TUMBLE(at, INTERVAL '1' MINUTE), region;

         CREATE VIEW signs AS
         SELECT window_start,
                CASE WHEN amount > 0 THEN 'plus' WHEN amount < 0 THEN 'minus' ELSE 'none' END AS sign, code,
                SUM(amount * 2) AS doubled, SUM(amount) / COUNT(*) AS mean, COUNT(*) AS n
         FROM events WHERE code IS NOT NULL GROUP BY TUMBLE(at, INTERVAL '1' DAY), sign, code;

         CREATE VIEW totals AS
         SELECT COUNT(*) AS n, SUM(amount) AS total, MIN(region) AS first_region, MAX(at) AS latest
         FROM events WHERE amount % 3 <> 0 OR amount IS NULL;"
    )
}

/// The names of the views.
pub const VIEWS: [&str; 3] = ["regions", "signs", "totals"];

/// An accepted event: a duplicate is not one.
#[derive(Debug, Clone)]
pub struct Accepted {
    pub event: Event,
    /// The watermark just before it; `None` while there was none.
    pub watermark: Option<i64>,
}

/// Everything accepted so far, in log order (of a stream with one partition).
#[derive(Debug, Default)]
pub struct Log {
    pub accepted: Vec<Accepted>,
    ids: HashSet<String>,
    watermark: Option<i64>,
}

impl Log {
    /// Takes in an event, unless it is a duplicate. `true`: accepted.
    pub fn post(&mut self, event: &Event) -> bool {
        if let Some(id) = &event.id
            && !self.ids.insert(id.clone())
        {
            return false;
        }
        self.accepted.push(Accepted { event: event.clone(), watermark: self.watermark });
        let moved = event.at - WATERMARK_DELAY;
        self.watermark = Some(self.watermark.map_or(moved, |w| w.max(moved)));
        true
    }
}

/// Group (its columns' values as JSON, in order) to measures by name.
pub type Table = BTreeMap<String, BTreeMap<&'static str, Value>>;

fn is_late(accepted: &Accepted, window_micros: i64) -> bool {
    let end = accepted.event.at.div_euclid(window_micros) * window_micros + window_micros;
    accepted.watermark.is_some_and(|w| end + ALLOWED_LATENESS <= w)
}

/// Number of events that speed leaves out of `view`: late, and not before the seam.
pub fn late(view: &str, log: &Log, seam: usize) -> usize {
    let size = match view {
        "regions" => MINUTE,
        "signs" => 24 * 60 * MINUTE,
        _ => return 0,
    };
    log.accepted[seam..].iter().filter(|a| is_late(a, size)).count()
}

/// What a view's answer must be: all events before the seam, and those after it that are not too late for speed.
pub fn expected(view: &str, log: &Log, seam: usize) -> Table {
    let size = match view {
        "regions" => Some(MINUTE),
        "signs" => Some(24 * 60 * MINUTE),
        _ => None,
    };
    let counts = |(i, a): (usize, &Accepted)| {
        let in_time = i < seam || size.is_none_or(|size| !is_late(a, size));
        in_time.then(|| a.event.clone())
    };
    let events: Vec<Event> = log.accepted.iter().enumerate().filter_map(counts).collect();
    match view {
        "regions" => regions(&events),
        "signs" => signs(&events),
        _ => totals(&events),
    }
}

fn group<K: ToString>(events: &[Event], key: impl Fn(&Event) -> Option<K>) -> BTreeMap<String, Vec<&Event>> {
    let mut groups: BTreeMap<String, Vec<&Event>> = BTreeMap::new();
    for event in events {
        if let Some(key) = key(event) {
            groups.entry(key.to_string()).or_default().push(event);
        }
    }
    groups
}

/// RFC 3339 of microseconds, the way answers show times.
pub fn rfc3339(micros: i64) -> String {
    let time = chrono::DateTime::from_timestamp_micros(micros).expect("in range");
    time.to_rfc3339_opts(chrono::SecondsFormat::AutoSi, true)
}

fn sum_of(values: impl Iterator<Item = i128> + Clone) -> Value {
    if values.clone().next().is_none() {
        return Value::Null;
    }
    i64::try_from(values.sum::<i128>()).map_or(Value::Null, |sum| json!(sum))
}

fn regions(events: &[Event]) -> Table {
    let key = |e: &Event| Some(json!([rfc3339(e.at.div_euclid(MINUTE) * MINUTE), e.region]));
    let fold = |events: Vec<&Event>| {
        let amounts: Vec<i64> = events.iter().filter_map(|e| e.amount).collect();
        let prices: Vec<f64> = events.iter().filter_map(|e| e.price).collect();
        let costs: Vec<i64> = events.iter().filter_map(|e| e.cost_cents).collect();
        let average = prices.iter().sum::<f64>() / prices.len() as f64;
        let cents: i64 = costs.iter().sum();
        let sign = if cents < 0 { "-" } else { "" };
        let cost = format!("{sign}{}.{:02}", cents.abs() / 100, cents.abs() % 100);
        BTreeMap::from([
            ("n", json!(events.len())),
            ("amounts", json!(amounts.len())),
            ("total", sum_of(amounts.iter().map(|a| i128::from(*a)))),
            ("price", if prices.is_empty() { Value::Null } else { json!(average) }),
            ("least", json!(amounts.iter().min())),
            ("dearest", json!(prices.iter().copied().reduce(f64::max))),
            ("flagged", json!(events.iter().filter(|e| e.flag == Some(true)).count())),
            ("cost", if costs.is_empty() { Value::Null } else { json!(cost) }),
        ])
    };
    group(events, key).into_iter().map(|(key, events)| (key, fold(events))).collect()
}

fn signs(events: &[Event]) -> Table {
    let day = 24 * 60 * MINUTE;
    let sign = |e: &Event| match e.amount {
        Some(a) if a > 0 => "plus",
        Some(a) if a < 0 => "minus",
        _ => "none",
    };
    let key = |e: &Event| e.code.map(|code| json!([rfc3339(e.at.div_euclid(day) * day), sign(e), code]));
    let fold = |events: Vec<&Event>| {
        // A product that does not fit 64 bits is NULL and so not summed.
        let doubled = events.iter().filter_map(|e| e.amount?.checked_mul(2)).map(i128::from).collect::<Vec<_>>();
        let total = sum_of(events.iter().filter_map(|e| e.amount).map(i128::from));
        let mean = total.as_i64().map(|total| total / events.len() as i64);
        BTreeMap::from([
            ("doubled", sum_of(doubled.iter().copied())),
            ("mean", json!(mean)),
            ("n", json!(events.len())),
        ])
    };
    group(events, key).into_iter().map(|(key, events)| (key, fold(events))).collect()
}

fn totals(events: &[Event]) -> Table {
    let key = |e: &Event| e.amount.is_none_or(|a| a % 3 != 0).then(|| json!([]));
    let fold = |events: Vec<&Event>| {
        BTreeMap::from([
            ("n", json!(events.len())),
            ("total", sum_of(events.iter().filter_map(|e| e.amount).map(i128::from))),
            ("first_region", json!(events.iter().filter_map(|e| e.region.as_deref()).min())),
            ("latest", json!(events.iter().map(|e| e.at).max().map(rfc3339))),
        ])
    };
    group(events, key).into_iter().map(|(key, events)| (key, fold(events))).collect()
}

/// The events as a request body.
pub fn ndjson(events: &[Event]) -> String {
    let line = |e: &Event| {
        let cents = |c: i64| format!("{}{}.{:02}", if c < 0 { "-" } else { "" }, c.abs() / 100, c.abs() % 100);
        json!({
            "id": e.id, "at": rfc3339(e.at), "region": e.region, "amount": e.amount, "price": e.price,
            "cost": e.cost_cents.map(cents), "code": e.code, "flag": e.flag,
        })
        .to_string()
    };
    events.iter().map(|e| line(e) + "\n").collect()
}

/// An answer's rows in the form of [`expected`].
pub fn found(answer: &Value, view: &str) -> Table {
    let (group, measures): (&[&str], &[&'static str]) = match view {
        "regions" => {
            (&["window_start", "region"], &["n", "amounts", "total", "price", "least", "dearest", "flagged", "cost"])
        }
        "signs" => (&["window_start", "sign", "code"], &["doubled", "mean", "n"]),
        _ => (&[], &["n", "total", "first_region", "latest"]),
    };
    let row = |row: &Value| {
        let key = Value::Array(group.iter().map(|name| row[*name].clone()).collect());
        let values = measures.iter().map(|name| (*name, row[*name].clone())).collect();
        (key.to_string(), values)
    };
    answer["rows"].as_array().expect("rows").iter().map(row).collect()
}

/// Integers, texts and NULLs must be equal; floats to 1e-9 relative.
pub fn assert_same(found: &Table, expected: &Table, context: &str) {
    let keys = |table: &Table| table.keys().cloned().collect::<Vec<_>>();
    assert_eq!(keys(found), keys(expected), "{context}: other groups");
    for (key, measures) in expected {
        for (name, truth) in measures {
            let value = &found[key][name];
            let same = match (value.as_f64(), truth.as_f64()) {
                (Some(a), Some(b)) if value.is_f64() || truth.is_f64() => (a - b).abs() <= 1e-9 * b.abs().max(1e-3),
                _ => value == truth,
            };
            assert!(same, "{context}: {key} {name}: {value} where {truth} is true");
        }
    }
}
