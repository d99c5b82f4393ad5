//! The figures that the views must have: every request under its name, in one row.

use std::collections::BTreeMap;
use std::ops::Range;

use serde_json::{Value, json};

/// Streams and views: `keyed` recognizes repeated events by their ids, `plain` repeated requests by their keys.
pub const DEFINITIONS: &str = "
    CREATE STREAM keyed (id STRING PRIMARY KEY, at TIMESTAMP, request STRING, amount BIGINT)
        WITH (event_time = 'at', allowed_lateness = '2 days', partitions = 2);
    CREATE STREAM plain (at TIMESTAMP, request STRING, amount BIGINT)
        WITH (event_time = 'at', allowed_lateness = '2 days');
    CREATE VIEW of_keyed AS SELECT window_start, request, COUNT(*) AS n, SUM(amount) AS total FROM keyed
        GROUP BY TUMBLE(at, INTERVAL '1' DAY), request;
    CREATE VIEW of_plain AS SELECT window_start, request, COUNT(*) AS n, SUM(amount) AS total FROM plain
        GROUP BY TUMBLE(at, INTERVAL '1' DAY), request;";

/// The view of each stream.
pub const VIEWS: [(&str, &str); 2] = [("keyed", "of_keyed"), ("plain", "of_plain")];

/// The events of a request or a historical file. Their numbers are their amounts, and no two requests share one.
#[derive(Debug, Clone)]
pub struct Request {
    pub name: String,
    pub events: Range<u64>,
}

/// The row of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Count {
    pub events: u64,
    pub total: u64,
}

/// The rows of a view, by request.
pub type Figures = BTreeMap<String, Count>;

impl Request {
    /// Returns the events as lines of JSON.
    pub fn body(&self) -> String {
        let line = |number: u64| {
            let at = format!("2001-01-01T{:02}:{:02}:00Z", number / 60 % 24, number % 60);
            let id = format!("{}-{number}", self.name);
            json!({"id": id, "at": at, "request": self.name, "amount": number}).to_string() + "\n"
        };
        self.events.clone().map(line).collect()
    }

    pub fn count(&self) -> Count {
        Count { events: self.events.end - self.events.start, total: self.events.clone().sum() }
    }
}

/// Reads the rows of a view.
pub fn figures(answer: &Value) -> Figures {
    let mut figures = Figures::new();
    for row in answer["rows"].as_array().expect("rows") {
        let number = |name: &str| row[name].as_u64().expect("a number");
        let count = figures.entry(row["request"].as_str().expect("a request").to_owned()).or_default();
        count.events += number("n");
        count.total += number("total");
    }
    figures
}

/// How much of a request a view must have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    All,
    AllOrNothing,
    Any,
}

/// Checks the figures of a view: each of `requests` is there as far as it must be, and nothing else.
pub fn check<'a>(mut found: Figures, requests: impl Iterator<Item = (&'a Request, Part)>) -> Result<(), String> {
    for (request, part) in requests {
        let (found, all) = (found.remove(&request.name).unwrap_or_default(), request.count());
        let holds = match part {
            Part::All => found == all,
            Part::AllOrNothing => found == all || found == Count::default(),
            Part::Any => found.events <= all.events && found.total <= all.total,
        };
        if !holds {
            return Err(format!("{}: {found:?}, sent {all:?} ({part:?})", request.name));
        }
    }
    if found.is_empty() { Ok(()) } else { Err(format!("never sent: {found:?}")) }
}

/// Checks that every figure of `before` is still there.
pub fn check_kept(before: &Figures, now: &Figures) -> Result<(), String> {
    for (name, before) in before {
        let now = now.get(name).copied().unwrap_or_default();
        if now.events < before.events || now.total < before.total {
            return Err(format!("{name}: {now:?}, and {before:?} was served"));
        }
    }
    Ok(())
}
