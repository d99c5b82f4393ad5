//! Generates the events of the test stream and the log of accepted ones.

use std::collections::HashSet;

use serde_json::{Value, json};

/// A second, a minute, an hour and a day in microseconds.
pub const SECOND: i64 = 1_000_000;
pub const MINUTE: i64 = 60 * SECOND;
pub const HOUR: i64 = 60 * MINUTE;
pub const DAY: i64 = 24 * HOUR;

/// Watermark delay of the test stream, in microseconds.
pub const WATERMARK_DELAY: i64 = 10 * SECOND;

/// An event of the test stream.
#[derive(Debug, Clone, Default)]
pub struct Event {
    pub id: Option<String>,
    /// Event time in microseconds.
    pub at: i64,
    pub region: Option<String>,
    pub amount: Option<i64>,
    pub price: Option<f64>,
    pub cost_cents: Option<i64>,
    pub code: Option<i32>,
    pub flag: Option<bool>,
    /// Days since 1970.
    pub day: Option<i32>,
}

/// The test stream.
#[derive(Debug, Clone, Copy)]
pub struct Stream {
    pub partitions: u32,
    /// In microseconds.
    pub allowed_lateness: i64,
}

/// Late after 20 seconds, in one partition, whose order is that of the requests: lateness is known exactly.
pub const STRICT: Stream = Stream { partitions: 1, allowed_lateness: 20 * SECOND };
/// Nothing is late in any partition.
pub const PATIENT: Stream = Stream { partitions: 3, allowed_lateness: 100_000 * DAY };

impl Stream {
    pub fn sql(self) -> String {
        format!(
            "CREATE STREAM events (
               id STRING PRIMARY KEY, at TIMESTAMP, region STRING, amount BIGINT, price DOUBLE, cost DECIMAL(10,2),
               code INT, flag BOOLEAN, day DATE
             ) WITH (event_time = 'at', watermark_delay = '{} seconds', allowed_lateness = '{} seconds',
                     partitions = {});\n",
            WATERMARK_DELAY / SECOND,
            self.allowed_lateness / SECOND,
            self.partitions
        )
    }
}

/// An accepted event: a duplicate is not one.
#[derive(Debug, Clone)]
pub struct Accepted {
    pub event: Event,
    /// The watermark just before it, if there was one. In a stream of one partition.
    pub watermark: Option<i64>,
}

/// Everything accepted so far, in log order (of a stream with one partition).
#[derive(Debug)]
pub struct Log {
    pub stream: Stream,
    pub accepted: Vec<Accepted>,
    ids: HashSet<String>,
    watermark: Option<i64>,
}

impl Log {
    pub fn new(stream: Stream) -> Log {
        Log { stream, accepted: Vec::new(), ids: HashSet::new(), watermark: None }
    }

    /// Accepts an event, unless it is a duplicate or its id, the primary key, is missing. Returns whether it was accepted.
    pub fn post(&mut self, event: &Event) -> bool {
        if event.id.as_ref().is_none_or(|id| !self.ids.insert(id.clone())) {
            return false;
        }
        self.accepted.push(Accepted { event: event.clone(), watermark: self.watermark });
        let moved = event.at - WATERMARK_DELAY;
        self.watermark = Some(self.watermark.map_or(moved, |w| w.max(moved)));
        true
    }

    /// The first `count` events, as if there were no others.
    pub fn until(&self, count: usize) -> Log {
        let mut log = Log::new(self.stream);
        for accepted in &self.accepted[..count] {
            log.post(&accepted.event);
        }
        log
    }
}

/// RFC 3339 of microseconds, as in responses.
pub fn rfc3339(micros: i64) -> String {
    let time = chrono::DateTime::from_timestamp_micros(micros).expect("in range");
    time.to_rfc3339_opts(chrono::SecondsFormat::AutoSi, true)
}

/// `YYYY-MM-DD` of days since 1970.
pub fn date(days: i32) -> String {
    let time = chrono::DateTime::from_timestamp(i64::from(days) * 86_400, 0).expect("in range");
    time.format("%Y-%m-%d").to_string()
}

/// An amount of hundredths, as a decimal is written.
pub fn decimal(cents: i128) -> String {
    format!("{}{}.{:02}", if cents < 0 { "-" } else { "" }, cents.abs() / 100, cents.abs() % 100)
}

/// The events as a request body.
pub fn ndjson(events: &[Event]) -> String {
    let line = |e: &Event| -> Value {
        json!({
            "id": e.id, "at": rfc3339(e.at), "region": e.region, "amount": e.amount, "price": e.price,
            "cost": e.cost_cents.map(|c| decimal(c.into())), "code": e.code, "flag": e.flag, "day": e.day.map(date),
        })
    };
    events.iter().map(|e| line(e).to_string() + "\n").collect()
}
