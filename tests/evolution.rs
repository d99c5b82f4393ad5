//! Definitions change between restarts, while events come, runs run and die: every answer is that of the definition which
//! answers, over every event that was accepted, and what cannot be done is refused before anything is changed.

#[allow(dead_code, reason = "each test uses a part of it")]
mod agree;
#[allow(dead_code, reason = "each test uses a part of it")]
mod browser;
#[allow(dead_code, reason = "each test uses a part of the oracle")]
mod oracle;
#[allow(dead_code, reason = "each test uses a part of the world")]
mod world;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};

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
        self.declare(declared);
        self.world.start();
    }

    /// Definitions for the next start.
    fn declare(&mut self, declared: Declared) {
        self.world.redefine(&declared.text());
        self.declared = declared;
        if !self.known.contains(&declared) {
            self.known.push(declared);
        }
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

/// What a command says, and its exit code.
fn command(arguments: &[&str]) -> (Option<i32>, String) {
    let output =
        std::process::Command::new(env!("CARGO_BIN_EXE_trueup")).args(arguments).output().expect("trueup runs");
    (
        output.status.code(),
        String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr),
    )
}

/// What `trueup plan` says of definitions over the world's data, and its exit code.
fn plan(world: &World, text: &str, more: &[&str]) -> (Option<i32>, String) {
    let file = world.data.path().join("planned.sql");
    std::fs::write(&file, text).expect("the definitions can be written");
    let (file, data) = (file.display().to_string(), world.store().display().to_string());
    command(&[&["plan", &file, "--data", &data], more].concat())
}

/// `count` events a second apart, from the `first` on.
fn events(first: i64, count: i64) -> Vec<Event> {
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

/// Ends the server at once and starts it for other definitions with runs held at `step`; gives the file that lets them go on.
fn hold(history: &mut History, step: &str, declared: Declared) -> std::path::PathBuf {
    let file = history.world.data.path().join("go-on");
    let _ = std::fs::remove_file(&file);
    history.world.set_environment(&[("TRUEUP_HOLD_AT", step), ("TRUEUP_HOLD_UNTIL", &file.display().to_string())]);
    history.world.kill();
    history.declare(declared);
    history.world.start();
    history.world.set_environment(&[]);
    file
}

/// Definitions of the view that speed folds for.
fn definitions_folded(world: &World) -> f64 {
    let metrics = world.get("/metrics").text;
    let line = metrics.lines().find(|line| line.starts_with("trueup_state_definitions") && line.contains(NAME));
    line.and_then(|line| line.rsplit(' ').next()?.parse().ok()).unwrap_or(f64::NAN)
}

const FIRST: Declared = Declared { price: true, view: 0b00001 };

#[test]
fn the_old_definition_answers_until_the_new_one_is_complete_and_the_version_says_what_changed() {
    let mut history = History::new(FIRST);
    history.post(&events(0, 60));
    assert_eq!(history.world.run(NAME, false)["state"], json!("published"));
    // Another filter, a dimension and a measure more, a measure less; and the stream has lost the column `price`.
    let second = Declared { price: false, view: 0b10111 };
    hold(&mut history, "recompute", second);
    history.post(&events(60, 40));
    history.world.wait_for("the run", |world| {
        world.get(&format!("/v1/views/{NAME}")).json()["shadow"]["progress"]["dates"] == json!(1)
    });
    history.check(Layer::Merged, "while the shadow is computed");
    let status = history.status();
    assert_eq!(history.answering(), FIRST);
    assert_eq!(status["shadow"]["state"], json!("running"), "{status}");
    let statement = |declared: Declared| declared.view().sql().trim().trim_end_matches(';').to_owned();
    assert_eq!(status["shadow"]["sql"], json!(statement(second)));
    assert_eq!(status["shadow"]["changes"].as_array().map(Vec::len), Some(4), "{status}");
    history.world.wait_for("both definitions to be folded", |world| definitions_folded(world) == 2.0);

    // Another change of mind in the middle of it: the first goes on answering, with all that came since.
    let third = Declared { price: false, view: 0b10101 };
    let go_on = hold(&mut history, "commit", third);
    history.post(&events(100, 30));
    history.check(Layer::Merged, "while the second shadow is computed");
    assert_eq!(history.answering(), FIRST);
    std::fs::write(&go_on, "").expect("a file");
    history.settle();
    history.check(Layer::Merged, "after the swap");
    // Speed lets go of the old definition at once, not at the next start.
    history.world.wait_for("one definition to be folded", |world| definitions_folded(world) == 1.0);
    history.post(&events(130, 30));
    history.check(Layer::Merged, "on after the swap");

    let comparison = history.world.get(&format!("/v1/views/{NAME}/compare")).json();
    let changes = comparison["definition"]["changes"].as_array().expect("changes").iter();
    let changes: Vec<String> = changes
        .map(|c| format!("{} {}", c["part"].as_str().expect("a part"), c["name"].as_str().unwrap_or("-")))
        .collect();
    assert_eq!(changes, ["filter -", "dimension code", "measure dearest"], "{comparison}");
    assert_eq!(comparison["definition"]["compared_by"], json!(["region"]));
    assert_eq!(comparison["measures"].as_object().expect("measures").keys().collect::<Vec<_>>(), ["n", "total"]);
    assert_eq!(comparison["causes"]["unexplained"], json!(0));
    // Before: the 100 events up to the cut by window and region; after: those with a positive amount, added up to regions.
    let counted = |positive: bool| {
        let mut windows: BTreeMap<_, (u64, i64)> = BTreeMap::new();
        for event in events(0, 100).iter().filter(|e| !positive || e.amount > Some(0)) {
            let (n, total) = windows.entry((event.at / 20_000_000, event.region.clone())).or_default();
            (*n, *total) = (*n + 1, *total + event.amount.unwrap_or(0));
        }
        windows
    };
    let (before, after) = (counted(false), counted(true));
    let differing = before.iter().map(|(key, (n, total))| match after.get(key) {
        Some((other_n, other_total)) => u64::from(n != other_n) + u64::from(total != other_total),
        None => 2,
    });
    let equal = differing.clone().filter(|values| *values == 0).count();
    assert_eq!(comparison["rows_compared"], json!(before.len()), "{comparison}");
    assert_eq!(comparison["rows_equal"], json!(equal), "{comparison}");
    assert_eq!(comparison["causes"]["definition"], json!(differing.sum::<u64>()), "{comparison}");
    let words = command(&["compare", NAME, "--url", history.world.url()]).1;
    assert!(
        words.starts_with(&format!("{NAME} version 2 changed the definition:\n  filter added: amount > 0\n")),
        "{words}"
    );

    // A measure alone is added: what differs now has its usual causes, since the others mean what they meant.
    let late = Event { at: BEGIN - 600_000_000, ..events(500, 1).remove(0) };
    history.post(&[late]);
    history.define(Declared { price: false, view: 0b10111 });
    history.settle();
    let comparison = history.world.get(&format!("/v1/views/{NAME}/compare")).json();
    assert_eq!(
        (&comparison["causes"]["late"], &comparison["causes"]["definition"]),
        (&json!(2), &json!(0)),
        "{comparison}"
    );
    // Other windows cannot be compared.
    history.define(Declared { price: false, view: 0b11111 });
    history.settle();
    let words = command(&["compare", NAME, "--url", history.world.url()]).1;
    assert!(words.contains("cannot be compared: their windows are not the same"), "{words}");
}

#[test]
fn no_answer_is_wrong_while_events_come_and_the_definition_is_swapped() {
    let mut history = History::new(FIRST);
    history.post(&events(0, 60));
    assert_eq!(history.world.run(NAME, false)["state"], json!("published"));
    let go_on = hold(&mut history, "publish", Declared { price: true, view: 0b00111 });
    let (acknowledged, stop) = (Arc::new(AtomicI64::new(60)), Arc::new(AtomicBool::new(false)));
    let senders: Vec<_> = (0..2)
        .map(|sender| {
            let (acknowledged, stop) = (Arc::clone(&acknowledged), Arc::clone(&stop));
            let url = format!("{}/v1/events/events", history.world.url());
            std::thread::spawn(move || {
                let client = reqwest::Client::builder().no_proxy().build().expect("a client");
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
                for round in 0.. {
                    if stop.load(Ordering::SeqCst) {
                        return;
                    }
                    // All in the windows there are, so that none is late.
                    let mut some = events(0, 50);
                    some.iter_mut().enumerate().for_each(|(i, e)| e.id = Some(format!("s{sender}-{round}-{i}")));
                    let answer = runtime.block_on(client.post(&url).body(ndjson(&some)).send()).expect("an answer");
                    assert_eq!(answer.status(), 200);
                    acknowledged.fetch_add(50, Ordering::SeqCst);
                }
            })
        })
        .collect();
    let mut asked = [0, 0];
    let begun = std::time::Instant::now();
    while asked[1] < 200 {
        if asked[0] == 200 {
            std::fs::write(&go_on, "").expect("a file");
        }
        assert!(begun.elapsed() < std::time::Duration::from_secs(60), "{asked:?}");
        let before = acknowledged.load(Ordering::SeqCst);
        let answer = history.world.rows(NAME, "&layer=merged");
        // Two requests of fifty events may be under way.
        let after = acknowledged.load(Ordering::SeqCst) + 100;
        let n: i64 = answer["rows"].as_array().expect("rows").iter().map(|r| r["n"].as_i64().expect("a count")).sum();
        let late = answer["ledger"]["late"].as_i64().expect("a count");
        assert!((before..=after).contains(&(n + late)), "{before} <= {n} + {late} <= {after}: {answer}");
        assert_eq!(answer["complete"], json!(true), "{answer}");
        let is_new = answer["columns"].as_array().expect("columns").iter().any(|c| c["name"] == json!("code"));
        asked[usize::from(is_new)] += 1;
        assert!(!(is_new && asked[0] < 200), "swapped before it was let go on");
    }
    stop.store(true, Ordering::SeqCst);
    senders.into_iter().for_each(|sender| sender.join().expect("every request was answered"));
    history.settle();
    assert_eq!(history.world.run(NAME, false)["state"], json!("published"));
    let rows = history.world.rows(NAME, "&group_by=&layer=batch");
    let n: i64 = rows["rows"].as_array().expect("rows").iter().map(|r| r["n"].as_i64().expect("a count")).sum();
    assert_eq!(n, acknowledged.load(Ordering::SeqCst));
}

#[test]
fn what_cannot_be_changed_is_refused_before_anything_is() {
    let stream = |columns: &str, options: &str| {
        format!(
            "CREATE STREAM events ({columns}) WITH (event_time = 'at'{options});
                 CREATE VIEW figures AS SELECT COUNT(*) AS n FROM events;"
        )
    };
    let declared = stream("id STRING PRIMARY KEY, at TIMESTAMP, seen TIMESTAMP, amount BIGINT", ", partitions = 2");
    let mut world = World::new(&declared);
    // Without events nothing is bound.
    assert_eq!(world.stop(), Some(0));
    world.redefine(&stream("id BIGINT, at TIMESTAMP, amount STRING", ", partitions = 1"));
    world.start();
    assert_eq!(world.stop(), Some(0));
    world.redefine(&declared);
    world.start();
    let event = r#"{"id": "a", "at": 1000000000000, "amount": 7}"#;
    assert_eq!(world.post("/v1/events/events", event).json()["accepted"], json!(1));
    assert_eq!(world.stop(), Some(0));
    let refused = [
        (
            stream("id STRING PRIMARY KEY, at TIMESTAMP, seen TIMESTAMP, amount DOUBLE", ", partitions = 2"),
            "stream events: column amount changed: BIGINT → DOUBLE\n    the stored events have BIGINT there, and values are not converted\n    \
          to do: keep `amount BIGINT` and add a column of another name for DOUBLE, or declare a stream of another name, such as events_2",
        ),
        (
            declared.replace("event_time = 'at'", "event_time = 'seen'"),
            "stream events: event time changed: at → seen\n    the archive is kept by the date of the event time",
        ),
        (
            declared.replace(" PRIMARY KEY", ""),
            "stream events: primary key changed: id → none\n    the primary key decides which events are duplicates",
        ),
        (
            declared.replace("partitions = 2", "partitions = 1"),
            "stream events: partitions changed: 2 → 1\n    the number says where an event's id and a request's Idempotency-Key",
        ),
        (declared.replace("partitions = 2", "partitions = 3"), "stream events: partitions changed: 2 → 3"),
    ];
    for (text, told) in &refused {
        // The log alone has the event, or the archive as well.
        let (code, planned) = plan(&world, text, &[]);
        assert_eq!(code, Some(1), "{planned}");
        assert!(planned.contains("refused: "), "{planned}");
        world.redefine(text);
        let (code, said) = world.start_refused();
        assert_eq!(code, Some(1), "{said}");
        assert!(said.contains(told), "{told}\nis not in\n{said}");
        assert!(said.contains("nothing was changed") && said.contains("trueup plan"), "{said}");
        world.redefine(&declared);
        world.start();
        assert_eq!(world.rows("figures", "")["rows"][0]["n"], json!(1));
        assert_eq!(world.run("figures", true)["state"], json!("published"));
        assert_eq!(world.stop(), Some(0));
    }
}

#[test]
fn options_and_formatting_compute_nothing_anew() {
    let mut history = History::new(FIRST);
    history.post(&events(0, 60));
    history.world.run(NAME, false);
    assert_eq!(history.world.stop(), Some(0));
    let sql = FIRST
        .text()
        .replace("CREATE VIEW figures AS", "CREATE VIEW figures\nWITH (schedule = '0 0 1 1 *') -- once a year\n AS");
    // A column in the midst of the others changes their places, and nothing else.
    let sql = sql.replace("price DOUBLE", "tail STRING, price DOUBLE");
    let (code, planned) = plan(&history.world, &sql, &[]);
    assert_eq!(code, Some(0), "{planned}");
    assert!(
        planned.contains("view figures: only its options change: nothing is computed anew (version 1)"),
        "{planned}"
    );
    assert!(planned.contains("+ column tail STRING: NULL in the events that are stored"), "{planned}");
    history.world.redefine(&sql);
    history.world.start();
    let status = history.status();
    assert_eq!((&status["shadow"], &status["seam"]["version"]), (&Value::Null, &json!(1)), "{status}");
    assert_eq!(history.world.get("/v1/runs").json()["runs"], json!([]));
    history.post(&events(60, 10));
    let rows = history.world.rows(NAME, "&group_by=&grain=all");
    assert_eq!(rows["rows"][0]["n"], json!(70), "{rows}");
}

#[test]
fn a_plan_in_words() {
    let mut history = History::new(FIRST);
    let more = "CREATE VIEW gone AS SELECT COUNT(*) AS n FROM events;\nCREATE VIEW same AS SELECT COUNT(*) AS n FROM events;\n";
    assert_eq!(history.world.stop(), Some(0));
    let nothing = plan(&history.world, &FIRST.text(), &[]);
    history.world.redefine(&(FIRST.text() + more));
    history.world.start();
    history.post(&events(0, 60));
    for view in [NAME, "gone", "same"] {
        assert_eq!(history.world.run(view, false)["state"], json!("published"));
    }
    let second = Declared { price: false, view: 0b11110 };
    let text = second.text().replace("code INT", "code INT, tail STRING").replace("20 seconds", "1 minute")
        + "CREATE VIEW same WITH (schedule = '@hourly') AS SELECT COUNT(*) AS n FROM events;\n\
           CREATE VIEW fresh AS SELECT region, COUNT(*) AS n FROM events GROUP BY region;\n";
    // While the server runs.
    let (code, words) = plan(&history.world, &text, &[]);
    assert_eq!(code, Some(0), "{words}");
    insta::assert_snapshot!(told(&nothing.1), @r#"
    stream events: unchanged (0 events in the archive)
    view figures: new

    1 new view
    "#);
    insta::assert_snapshot!(told(&words), @r#"
    stream events: changed (60 events in the archive)
      + column tail STRING: NULL in the events that are stored
      - column price DOUBLE: no longer taken from events; the archive keeps what it has of it
      ~ option allowed_lateness = '20 seconds' → '1 minute'
    view figures: computed anew; version 1 answers as before until the new one is complete
      + filter amount > 0
      ~ window TUMBLE(at, INTERVAL '20' SECOND) → TUMBLE(at, INTERVAL '1' MINUTE)
      + dimension code
      + measure codes = SUM(code)
      - measure total = SUM(amount)
      - measure dearest = MAX(price)
      computes 1 date of events (2001-09-09), 60 events
      reads .. bytes; takes ..
    view same: only its options change: nothing is computed anew (version 1)
      + option schedule = '@hourly'
    view fresh: new
      computes 1 date of events (2001-09-09), 60 events
      reads .. bytes; takes ..
    view gone: no longer declared: its table stays (version 1, 1 row)

    1 stream changes, 1 new view, 1 view is computed anew
    "#);
    let refused = FIRST.text().replace("amount BIGINT", "amount INT").replace("PRIMARY KEY", "");
    let (code, words) = plan(&history.world, &refused, &[]);
    assert_eq!(code, Some(1), "{words}");
    insta::assert_snapshot!(told(&words), @r#"
    stream events: refused (60 events in the archive)
      ! column amount BIGINT → INT
          refused: the stored events have BIGINT there, and values are not converted
          to do:   keep `amount BIGINT` and add a column of another name for INT, or declare a stream of another name, such as events_2, and send the events to it
      ! primary key id → none
          refused: the primary key decides which events are duplicates, and that is decided for those that are stored
          to do:   declare a stream of another name, such as events_2, and send the events to it
    view figures: not looked at, because its stream is refused
    view gone: no longer declared: its table stays (version 1, 1 row)
    view same: no longer declared: its table stays (version 1, 1 row)

    2 changes are refused
    error: `serve` would refuse 2 changes
    "#);
    let (code, document) = plan(&history.world, &text, &["-o", "json"]);
    let document: Value = serde_json::from_str(&document).expect("JSON");
    let fates = |of: &str| -> Vec<Value> {
        document[of].as_array().expect("a list").iter().map(|o| json!([o["name"], o["fate"]])).collect()
    };
    assert_eq!((code, &document["refused"]), (Some(0), &json!(0)));
    assert_eq!(fates("streams"), [json!(["events", "changed"])]);
    assert_eq!(
        fates("views"),
        [json!([NAME, "changed"]), json!(["same", "options"]), json!(["fresh", "new"]), json!(["gone", "undeclared"])]
    );
    assert_eq!(document["views"][0]["recompute"]["events"], json!(60), "{document}");
}

#[test]
fn the_page_says_that_a_new_definition_is_being_computed_and_then_shows_it() {
    let mut history = History::new(FIRST);
    history.post(&events(0, 60));
    assert_eq!(history.world.run(NAME, false)["state"], json!("published"));
    let go_on = hold(&mut history, "commit", Declared { price: true, view: 0b00111 });
    let browser = browser::Browser::start();
    browser.open(&format!("{}/", history.world.url()));
    let read = "const card = document.querySelector('.card'); const banner = card.querySelector('.shadow');
                return [banner.hidden ? '' : banner.textContent, card.querySelector('.about').textContent];";
    let mut seen = Value::Null;
    history.world.wait_for("the banner", |_| {
        seen = browser.run(read);
        seen[0].as_str().is_some_and(|text| text.contains("1 of 1 dates are done"))
    });
    assert_eq!(
        seen,
        json!([
            "A new definition is being computed. Until it is complete, these are the answers of the old one: \
                1 of 1 dates are done.dimension code added, measure codes added",
            "of events, in windows of 20 seconds, by region"
        ]),
    );
    std::fs::write(&go_on, "").expect("a file");
    history.settle();
    history.world.wait_for("the new definition on the page", |_| {
        seen = browser.run(read);
        seen == json!(["", "of events, in windows of 20 seconds, by region and code"])
    });
    let errors = browser.log("browser");
    assert!(errors.is_empty(), "{errors:?}");
}

/// Without what is for no picture: how large a file gets, and how long a run takes.
fn told(words: &str) -> String {
    let line = |line: &str| match (line.split_once("reads about "), line.split_once("takes about ")) {
        (Some((indent, _)), takes) => {
            format!("{indent}reads .. bytes{}", if takes.is_some() { "; takes .." } else { "" })
        }
        _ => line.to_owned(),
    };
    words.lines().map(line).collect::<Vec<_>>().join("\n")
}
