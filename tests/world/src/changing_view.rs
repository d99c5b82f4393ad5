//! Follows changed definitions of a view with a server and an oracle, and knows which definition is active.

use serde_json::{Value, json};

use crate::World;
use crate::oracle::events::{Event, Log, STRICT, ndjson};
use crate::oracle::measures::{AMOUNT, CODE, Fold, PRICE};
use crate::oracle::plain::{CODE_DIMENSION, REGION_DIMENSION};
use crate::oracle::table::Coverage;
use crate::oracle::views::{Condition, Dimension, Meaning, Measure, View};
use crate::oracle::windows::{Length, Window};
use crate::oracle_check::{self, Layer, Question};
use crate::program::trueup;

/// 2001-09-09, well before any arrival.
pub const BEGIN: i64 = 1_000_000_000_000_000;
pub const NAME: &str = "figures";

/// The declarations of one time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Declared {
    /// Whether `price` is a column of the stream. It is not the last one, so that it moves others.
    pub price: bool,
    /// Bits of the view: see [`Declared::view`].
    pub view: u8,
}

pub const N: Measure = Measure { name: "n", sql: "COUNT(*)", filter: None, meaning: Meaning::Rows };
pub const TOTAL: Measure =
    Measure { name: "total", sql: "SUM(amount)", filter: None, meaning: Meaning::Fold(Fold::Sum, AMOUNT) };
pub const CODES: Measure =
    Measure { name: "codes", sql: "SUM(code)", filter: None, meaning: Meaning::Fold(Fold::Sum, CODE) };
pub const DEAREST: Measure =
    Measure { name: "dearest", sql: "MAX(price)", filter: None, meaning: Meaning::Fold(Fold::Max, PRICE) };

impl Declared {
    pub fn stream(self) -> String {
        let price = if self.price { "price DOUBLE, " } else { "" };
        format!(
            "CREATE STREAM events (id STRING PRIMARY KEY, {price}at TIMESTAMP, region STRING, amount BIGINT, code INT)
             WITH (event_time = 'at', watermark_delay = '10 seconds', allowed_lateness = '20 seconds');\n"
        )
    }

    pub fn view(self) -> View {
        let has = |bit: u8| self.view & (1 << bit) != 0;
        let mut measures = vec![N];
        if has(0) {
            measures.push(TOTAL);
        }
        if has(1) {
            measures.push(CODES);
        }
        if self.price {
            measures.push(DEAREST);
        }
        let dimensions: &[Dimension] = if has(2) { &[REGION_DIMENSION, CODE_DIMENSION] } else { &[REGION_DIMENSION] };
        let positive = Condition { sql: "amount > 0", holds: |e| e.amount > Some(0) };
        View {
            name: NAME.to_owned(),
            window: Window::Tumble { size: Length::Fixed(if has(3) { 60_000_000 } else { 20_000_000 }), offset: 0 },
            zone: chrono_tz::Tz::UTC,
            filter: has(4).then_some(positive),
            dimensions: dimensions.to_vec(),
            measures,
            having: None,
        }
    }

    pub fn text(self) -> String {
        self.stream() + &self.view().sql()
    }

    /// The event as the stream stores it.
    pub fn taken(self, event: &Event) -> Event {
        Event { price: event.price.filter(|_| self.price), ..event.clone() }
    }
}

/// A server, the oracle's log, and every definition that may be active.
pub struct History {
    pub world: World,
    pub log: Log,
    pub declared: Declared,
    /// Definitions since the last one that was known to be active.
    pub known: Vec<Declared>,
    pub coverage: Coverage,
}

impl History {
    pub fn new(declared: Declared) -> History {
        let world = World::new(&declared.text());
        History { world, log: Log::new(STRICT), declared, known: vec![declared], coverage: Coverage::default() }
    }

    pub fn post(&mut self, events: &[Event]) {
        // Events always have a price: undeclared fields are ignored.
        let answer = self.world.post("/v1/events/events", ndjson(events));
        assert_eq!(answer.status, 200, "{}", answer.text);
        let accepted = events.iter().filter(|e| self.log.post(&self.declared.taken(e))).count();
        assert_eq!(answer.json()["accepted"], json!(accepted), "{}", answer.text);
    }

    pub fn define(&mut self, declared: Declared) {
        assert_eq!(self.world.stop(), Some(0));
        self.declare(declared);
        self.world.start();
    }

    /// Sets the definitions of the next start.
    pub fn declare(&mut self, declared: Declared) {
        self.world.redefine(&declared.text());
        self.declared = declared;
        if !self.known.contains(&declared) {
            self.known.push(declared);
        }
    }

    pub fn status(&self) -> Value {
        self.world.get(&format!("/v1/views/{NAME}")).json()
    }

    /// The active definition, by its statement.
    pub fn answering(&self) -> Declared {
        let sql = self.status()["sql"].as_str().expect("a statement").to_owned();
        let is = |d: &&Declared| d.view().sql().trim().trim_end_matches(';') == sql.trim();
        *self.known.iter().find(is).unwrap_or_else(|| panic!("nobody declared what answers: {sql}"))
    }

    /// Checks results against the active definition. If it is replaced during a query, the query is repeated.
    pub fn check(&mut self, layer: Layer, context: &str) {
        for _ in 0..3 {
            let before = self.answering();
            let view = before.view();
            let checked = oracle_check::check(&self.world, &self.log, &view, &Question::of(layer), &mut self.coverage);
            if before == self.answering() {
                checked.unwrap_or_else(|e| panic!("{context}: {before:?}: {e}\n{}", self.world.log()));
                return;
            }
        }
        panic!("{context}: the definition does not come to rest");
    }

    /// Waits until the declared definition is active.
    pub fn settle(&mut self) {
        self.world.wait_for("the declared definition to answer", |world| {
            let status = world.get(&format!("/v1/views/{NAME}")).json();
            status["shadow"].is_null()
        });
        assert_eq!(self.answering(), self.declared);
        self.known = vec![self.declared];
    }
}

/// Runs `trueup plan` for definitions over the world's data; returns its exit code and output.
pub fn plan(world: &World, text: &str, more: &[&str]) -> (Option<i32>, String) {
    let file = world.data.path().join("planned.sql");
    std::fs::write(&file, text).expect("the definitions can be written");
    let (file, data) = (file.display().to_string(), world.store().display().to_string());
    trueup(&[&["plan", &file, "--data", &data], more].concat())
}

/// `count` events, one per second, starting with number `first`.
pub fn events(first: i64, count: i64) -> Vec<Event> {
    let event = |i: i64| Event {
        id: Some(format!("e{i}")),
        at: BEGIN + i * 1_000_000,
        region: Some(["north", "south"][(i % 2) as usize].to_owned()),
        amount: Some(i - 40),
        price: Some(i as f64 / 4.0),
        code: Some((i % 3) as i32),
        ..Event::default()
    };
    (first..first + count).map(event).collect()
}

/// Kills the server and starts it for other definitions, with runs held at `step`; returns the file that releases them.
pub fn hold(history: &mut History, step: &str, declared: Declared) -> std::path::PathBuf {
    let file = history.world.data.path().join("go-on");
    let _ = std::fs::remove_file(&file);
    history.world.set_environment(&[("TRUEUP_HOLD_AT", step), ("TRUEUP_HOLD_UNTIL", &file.display().to_string())]);
    history.world.kill();
    history.declare(declared);
    history.world.start();
    history.world.set_environment(&[]);
    file
}

pub const FIRST: Declared = Declared { price: true, view: 0b00001 };
