//! Definitions change between restarts, while events come, runs run and die: every answer is that of the definition which
//! answers, over every event that was accepted, and what cannot be done is refused before anything is changed.

#[allow(dead_code, reason = "each test uses a part of it")]
mod agree;
#[allow(dead_code, reason = "each test uses a part of the oracle")]
mod oracle;
#[allow(dead_code, reason = "each test uses a part of the world")]
mod world;

use agree::{Layer, Question, check_causes};
use oracle::events::{Event, Log, STRICT, ndjson};
use oracle::measures::{AMOUNT, CODE, Fold, PRICE};
use oracle::plain::{CODE_DIMENSION, REGION_DIMENSION};
use oracle::table::Coverage;
use oracle::views::{Condition, Dimension, Meaning, Measure, View};
use oracle::windows::{Length, Window};
use proptest::prelude::*;
use serde_json::{Value, json};
use world::World;

/// 2001-09-09, well before any arrival.
const BEGIN: i64 = 1_000_000_000_000_000;
const NAME: &str = "figures";

/// What is declared at one time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Declared {
    /// Is `price` a column of the stream? Not at the end, so that the places of others change with it.
    price: bool,
    /// Bits of the view: see [`Declared::view`].
    view: u8,
}

const N: Measure = Measure { name: "n", sql: "COUNT(*)", filter: None, meaning: Meaning::Rows };
const TOTAL: Measure =
    Measure { name: "total", sql: "SUM(amount)", filter: None, meaning: Meaning::Fold(Fold::Sum, AMOUNT) };
const CODES: Measure =
    Measure { name: "codes", sql: "SUM(code)", filter: None, meaning: Meaning::Fold(Fold::Sum, CODE) };
const DEAREST: Measure =
    Measure { name: "dearest", sql: "MAX(price)", filter: None, meaning: Meaning::Fold(Fold::Max, PRICE) };

impl Declared {
    fn stream(self) -> String {
        let price = if self.price { "price DOUBLE, " } else { "" };
        format!(
            "CREATE STREAM events (id STRING PRIMARY KEY, {price}at TIMESTAMP, region STRING, amount BIGINT, code INT)
             WITH (event_time = 'at', watermark_delay = '10 seconds', allowed_lateness = '20 seconds');\n"
        )
    }

    fn view(self) -> View {
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

    fn text(self) -> String {
        self.stream() + &self.view().sql()
    }

    /// An event as the stream takes it in.
    fn taken(self, event: &Event) -> Event {
        Event { price: event.price.filter(|_| self.price), ..event.clone() }
    }
}

#[derive(Debug, Clone)]
enum Step {
    Post(Vec<Event>),
    Run,
    /// The definitions of the next start.
    Define(Declared),
    Kill,
    Stop,
    /// Started so that the first run to come to this step ends the process.
    DieAt(&'static str),
    /// Until no definition waits to be computed.
    Settle,
}

fn event() -> impl Strategy<Value = Event> {
    (
        prop::option::weighted(0.9, 0u32..400),
        prop_oneof![8 => 0i64..150, 1 => -600i64..600, 1 => -200_000i64..200_000],
        prop::option::weighted(0.8, prop::sample::select(vec!["north", "south", ""])),
        prop::option::weighted(0.8, -20i64..20),
        prop::option::weighted(0.8, -1e6..1e6f64),
        prop::option::weighted(0.9, -2i32..2),
    )
        .prop_map(|(id, seconds, region, amount, price, code)| Event {
            id: id.map(|id| format!("e{id}")),
            at: BEGIN + seconds * 1_000_000 + i64::from(id.unwrap_or(7)),
            region: region.map(str::to_owned),
            amount,
            price,
            code,
            ..Event::default()
        })
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        6 => prop::collection::vec(event(), 1..40).prop_map(Step::Post),
        3 => Just(Step::Run),
        4 => (any::<bool>(), 0u8..32).prop_map(|(price, view)| Step::Define(Declared { price, view })),
        1 => Just(Step::Kill),
        1 => Just(Step::Stop),
        2 => prop::sample::select(vec![
            "cut", "archived", "plan", "recompute", "write", "reconcile", "commit", "publish", "retire",
        ]).prop_map(Step::DieAt),
        2 => Just(Step::Settle),
    ];
    prop::collection::vec(step, 4..16)
}

/// A server, the log as the oracle knows it, and every definition that may still answer.
struct History {
    world: World,
    log: Log,
    declared: Declared,
    /// Definitions since the last that was known to answer alone.
    known: Vec<Declared>,
    coverage: Coverage,
}

impl History {
    fn new(declared: Declared) -> History {
        let world = World::new(&declared.text());
        History { world, log: Log::new(STRICT), declared, known: vec![declared], coverage: Coverage::default() }
    }

    fn post(&mut self, events: &[Event]) {
        // Sent with a price at all times: a field that is not declared is left out.
        let answer = self.world.post("/v1/events/events", ndjson(events));
        assert_eq!(answer.status, 200, "{}", answer.text);
        let accepted = events.iter().filter(|e| self.log.post(&self.declared.taken(e))).count();
        assert_eq!(answer.json()["accepted"], json!(accepted), "{}", answer.text);
    }

    fn define(&mut self, declared: Declared) {
        assert_eq!(self.world.stop(), Some(0));
        self.world.redefine(&declared.text());
        self.declared = declared;
        if !self.known.contains(&declared) {
            self.known.push(declared);
        }
        self.world.start();
    }

    fn status(&self) -> Value {
        self.world.get(&format!("/v1/views/{NAME}")).json()
    }

    /// The definition that answers, by its statement.
    fn answering(&self) -> Declared {
        let sql = self.status()["sql"].as_str().expect("a statement").to_owned();
        let is = |d: &&Declared| d.view().sql().trim().trim_end_matches(';') == sql.trim();
        *self.known.iter().find(is).unwrap_or_else(|| panic!("nobody declared what answers: {sql}"))
    }

    /// Answers are those of the definition that answers. It may be replaced while it is asked: then it is asked again.
    fn check(&mut self, layer: Layer, context: &str) {
        for _ in 0..3 {
            let before = self.answering();
            let view = before.view();
            let checked = agree::check(&self.world, &self.log, &view, &Question::of(layer), &mut self.coverage);
            if before == self.answering() {
                checked.unwrap_or_else(|e| panic!("{context}: {before:?}: {e}\n{}", self.world.log()));
                return;
            }
        }
        panic!("{context}: the definition does not come to rest");
    }

    /// Waits until the declared definition answers.
    fn settle(&mut self) {
        self.world.wait_for("the declared definition to answer", |world| {
            let status = world.get(&format!("/v1/views/{NAME}")).json();
            status["shadow"].is_null()
        });
        assert_eq!(self.answering(), self.declared);
        self.known = vec![self.declared];
    }
}

/// Random histories tried; `TRUEUP_CASES` for a longer search.
fn cases() -> u32 {
    std::env::var("TRUEUP_CASES").ok().and_then(|n| n.parse().ok()).unwrap_or(16)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(), max_shrink_iters: 30, ..ProptestConfig::default() })]

    #[test]
    fn every_answer_is_that_of_the_definition_that_answers(first in (any::<bool>(), 0u8..32), steps in steps()) {
        let mut history = History::new(Declared { price: first.0, view: first.1 });
        for (i, step) in steps.iter().enumerate() {
            let context = format!("step {i} of {steps:?}");
            match step {
                Step::Post(events) => history.post(events),
                Step::Run => {
                    let run = history.world.run(NAME, false);
                    prop_assert_eq!(&run["state"], &json!("published"), "{}: {}", context, run);
                    history.settle();
                    history.check(Layer::Batch, &context);
                    check_causes(&history.world, NAME).unwrap_or_else(|e| panic!("{context}: {e}"));
                }
                Step::Define(declared) => history.define(*declared),
                Step::Kill => {
                    history.world.kill();
                    history.world.start();
                }
                Step::Stop => {
                    prop_assert_eq!(history.world.stop(), Some(0));
                    history.world.start();
                }
                Step::DieAt(step) => {
                    prop_assert_eq!(history.world.stop(), Some(0));
                    history.world.set_environment(&[("TRUEUP_FAIL_AT", step)]);
                    history.world.start_whatever_comes();
                    let _ = history.world.try_post(&format!("/v1/views/{NAME}/runs"), b"{\"full\":true}".to_vec(), &[]);
                    history.world.wait_for_exit();
                    history.world.set_environment(&[]);
                    history.world.start();
                }
                Step::Settle => history.settle(),
            }
            history.check(Layer::Merged, &context);
        }
        history.settle();
        history.check(Layer::Merged, "at the end");
        for full in [false, true] {
            history.world.run(NAME, full);
            history.check(Layer::Batch, if full { "full" } else { "incremental" });
        }
    }
}
