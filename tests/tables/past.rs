//! Random changes, runs, kills and stops: rows as of any instant are those that a scan of all changes finds, by key and in pages.

use std::collections::BTreeMap;

use proptest::prelude::*;
use serde_json::{Value, json};
use world::World;
use world::oracle::events::rfc3339;
use world::oracle::lookups::Changelog;
use world::requests::{key, with_key};

/// 2001-09-09, in microseconds.
const BEGIN: i64 = 1_000_000_000_000_000;
/// After every test, and before [`FUTURE`]: deletions happen now.
const NOW: i64 = 2_000_000_000_000_000;
/// 2096-10-02.
const FUTURE: i64 = 4_000_000_000_000_000;
const SECOND: i64 = 1_000_000;
/// A short log: it is trimmed as soon as runs and archive allow it, so most changes are only in the archive.
const SHORT_LOG: &str = "dedup_horizon_events = 50\nlog_segment_bytes = 4096\narchive_wait_ms = 20\n";

/// `spread` has keys of two columns, several partitions, and times of the past: there, a row that is written again after its deletion has an earlier time.
const TABLES: &str = "
    CREATE TABLE items (id STRING PRIMARY KEY, n BIGINT, label STRING, at TIMESTAMP) WITH (event_time = 'at');
    CREATE TABLE spread (id BIGINT, shop STRING, n BIGINT, at TIMESTAMP, PRIMARY KEY (shop, id)) WITH (event_time = 'at', partitions = 3);
    CREATE VIEW item_counts AS SELECT COUNT(*) AS n FROM items;
    CREATE VIEW spread_counts AS SELECT COUNT(*) AS n FROM spread;";

/// A key with the time and number of its row; `None`: it is deleted.
type Change = (i64, Option<(i64, i64)>);

#[derive(Debug, Clone)]
enum Step {
    Items(Vec<Change>),
    Spread(Vec<Change>),
    Run { spread: bool, full: bool },
    Kill,
    Stop,
}

fn changes(times: impl Strategy<Value = i64>) -> impl Strategy<Value = Vec<Change>> {
    let change = (0i64..12, prop::option::weighted(0.75, (times, 0i64..1_000)));
    prop::collection::vec(change, 1..40)
}

fn past() -> impl Strategy<Value = i64> {
    // Few different ones, of hours and of days far from them.
    prop_oneof![5 => 0i64..20, 1 => -40i64..40].prop_map(|n| BEGIN + n * 9_000 * SECOND)
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let time = prop_oneof![4 => past(), 1 => (0i64..20).prop_map(|n| FUTURE + n * SECOND)];
    let step = prop_oneof![
        6 => changes(time).prop_map(Step::Items),
        3 => changes(past()).prop_map(Step::Spread),
        3 => (any::<bool>(), any::<bool>()).prop_map(|(spread, full)| Step::Run { spread, full }),
        1 => Just(Step::Kill),
        1 => Just(Step::Stop),
    ];
    prop::collection::vec(step, 3..12)
}

#[derive(Default)]
struct Model {
    items: Changelog<i64>,
    spread: Changelog<i64>,
}

/// One of few: many rows of `spread` differ by their id alone.
fn shop(id: i64) -> String {
    format!("shop {}", id % 2)
}

/// The text of a key.
fn key_text(table: &str, id: i64) -> String {
    if table == "items" { format!("item {id:02}") } else { json!([shop(id), id]).to_string() }
}

fn label(n: i64) -> String {
    format!("label {}", n % 7)
}

impl Model {
    fn post(&mut self, world: &World, table: &str, changes: &[Change]) {
        let is_text = table == "items";
        let log = if is_text { &mut self.items } else { &mut self.spread };
        let mut body = String::new();
        for (id, change) in changes {
            let key = json!(format!("item {id:02}"));
            match change {
                Some((at, n)) => {
                    log.write(&format!("{id:02}"), *at, *n);
                    let row = match is_text {
                        true => json!({"id": key, "n": n, "label": label(*n), "at": at / 1_000}),
                        false => json!({"id": id, "shop": shop(*id), "n": n, "at": at / 1_000}),
                    };
                    body += &format!("{row}\n");
                }
                None => {
                    log.delete(&format!("{id:02}"), NOW);
                    let deleted = match is_text {
                        true => json!({"id": key, "_deleted": true}),
                        false => json!({"id": id, "shop": shop(*id), "_deleted": true}),
                    };
                    body += &format!("{deleted}\n");
                }
            }
        }
        let answer = world.post(&format!("/v1/events/{table}"), body);
        assert_eq!((answer.status, &answer.json()["rejected"]), (200, &json!(0)), "{}", answer.text);
    }

    /// The rows that a scan finds, by the key as text.
    fn rows(&self, table: &str, instant: i64) -> BTreeMap<String, i64> {
        let log = if table == "items" { &self.items } else { &self.spread };
        let row = |id: i64| Some((id, *log.as_of(&format!("{id:02}"), instant, log.len())?));
        (0..12).filter_map(row).map(|(id, n)| (key_text(table, id), n)).collect()
    }

    fn check(&self, world: &World, table: &str, instant: i64, limit: usize, context: &str) {
        let expected = self.rows(table, instant);
        let at = world::encoded(&rfc3339(instant));
        let found = pages(world, table, &format!("limit={limit}&as_of={at}"), limit);
        let numbers = found.iter().map(|(key, row)| (key.clone(), row["n"].as_i64().expect("a number")));
        assert_eq!(numbers.collect::<BTreeMap<_, _>>(), expected, "{context}: {table} at {instant}, pages of {limit}");
        for id in 0..13 {
            let key = key_text(table, id);
            let answer = world.get(&format!("/v1/tables/{table}/rows/{}?as_of={at}", world::encoded(&key)));
            match expected.get(&key) {
                Some(n) => {
                    assert_eq!((answer.status, &answer.json()["n"]), (200, &json!(n)), "{context}: {key} at {instant}");
                    assert_eq!(answer.json(), found[&key], "{context}: a page and a row have the same values");
                    let label_of = answer.json()["label"].clone();
                    assert!(table != "items" || label_of == json!(label(*n)), "{context}: {label_of}");
                }
                None => {
                    let code = answer.json()["code"].clone();
                    assert_eq!((answer.status, code), (404, json!("unknown_row")), "{context}: {key} at {instant}");
                }
            }
        }
    }
}

/// All rows, read in pages.
fn pages(world: &World, table: &str, query: &str, limit: usize) -> BTreeMap<String, Value> {
    let (mut rows, mut after) = (BTreeMap::new(), String::new());
    loop {
        let answer = world.get(&format!("/v1/tables/{table}/rows?{query}{after}"));
        assert_eq!(answer.status, 200, "{}", answer.text);
        let page = answer.json();
        let some = page["rows"].as_array().expect("rows");
        assert!(some.len() <= limit, "{page}");
        for row in some {
            let several = || json!([row["shop"], row["id"]]).to_string();
            let key = row["id"].as_str().map_or_else(several, str::to_owned);
            assert!(rows.insert(key.clone(), row.clone()).is_none(), "{key} is listed once");
        }
        let Some(next) = page["next"].as_str() else { return rows };
        after = format!("&after={}", world::encoded(next));
    }
}

fn follow(steps: &[Step], probes: &[(i64, usize)]) {
    let mut world = World::stopped(TABLES);
    world.set_limits(SHORT_LOG);
    world.start();
    let mut model = Model::default();
    for (number, step) in steps.iter().enumerate() {
        let context = format!("step {number}");
        match step {
            Step::Items(changes) => model.post(&world, "items", changes),
            Step::Spread(changes) => model.post(&world, "spread", changes),
            Step::Run { spread, full } => {
                let run = world.run(if *spread { "spread_counts" } else { "item_counts" }, *full);
                assert_eq!(run["state"], json!("published"), "{context}: {run}");
            }
            Step::Kill => {
                world.kill();
                world.start();
            }
            Step::Stop => {
                assert_eq!(world.stop(), Some(0), "{context}");
                world.start();
            }
        }
        for (instant, limit) in probes {
            model.check(&world, "items", *instant, *limit, &context);
            model.check(&world, "spread", *instant, *limit, &context);
        }
    }
}

fn cases() -> u32 {
    std::env::var("TRUEUP_CASES").ok().and_then(|n| n.parse().ok()).unwrap_or(8)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(), max_shrink_iters: 60, ..ProptestConfig::default() })]

    #[test]
    fn rows_as_of_an_instant_are_those_that_a_scan_of_all_changes_finds(
        steps in steps(),
        probes in prop::collection::vec((past(), 1usize..15), 1..3),
        later in 0i64..25,
    ) {
        let mut probes = probes;
        probes.extend([(FUTURE + later * SECOND, 4), (FUTURE - SECOND, 1_000)]);
        follow(&steps, &probes);
    }
}

#[test]
fn a_row_that_did_not_exist_is_unknown_and_the_answer_says_since_when_or_until_when() {
    let world = World::new(TABLES);
    let mut model = Model::default();
    model.post(&world, "items", &[(1, Some((BEGIN, 5)))]);
    let detail = |instant: &str, key: &str| {
        let answer = world.get(&format!("/v1/tables/items/rows/{}?as_of={instant}", world::encoded(key)));
        (answer.status, answer.json()["detail"].as_str().unwrap_or_default().to_owned())
    };
    let (status, early) = detail("2001-09-09T00:00:00Z", "item 01");
    assert!(
        status == 404 && early.contains("at 2001-09-09T00:00:00Z: its first version is of 2001-09-09T01:46:40Z"),
        "{early}"
    );
    let (status, never) = detail("2001-09-10", "item 02");
    assert!(status == 404 && never.contains("has never had a row with the key \"item 02\""), "{never}");
    model.post(&world, "items", &[(1, None)]);
    let (status, deleted) = detail("2090-01-01", "item 01");
    assert!(status == 404 && deleted.contains("at 2090-01-01T00:00:00Z: it was deleted at 2"), "{deleted}");
    assert_eq!(detail("2001-09-10", "item 01").0, 200, "it was there");
    for (path, code) in [
        ("/v1/tables/items/rows/item?as_of=yesterday", "invalid_parameter"),
        ("/v1/tables/items/rows?as_of=yesterday", "invalid_parameter"),
        ("/v1/tables/items/rows/item?at=2001-09-10", "unknown_parameter"),
    ] {
        let answer = world.get(path);
        assert_eq!((answer.status, answer.json()["code"].clone()), (400, json!(code)), "{path}: {}", answer.text);
    }
}

#[test]
fn rows_of_the_past_are_refused_when_their_changes_are_no_longer_kept() {
    let mut world = World::stopped(TABLES);
    world.set_limits(SHORT_LOG);
    world.start();
    let mut model = Model::default();
    for round in 0..40 {
        model.post(&world, "items", &(0..12).map(|id| (id, Some((BEGIN, round * 12 + id)))).collect::<Vec<_>>());
    }
    assert_eq!(world.run("item_counts", false)["state"], json!("published"));
    world.kill();
    world.start();
    model.check(&world, "items", BEGIN, 5, "with its archive");
    let archive = world.store().join("lake/events/items");
    std::fs::rename(&archive, world.store().join("elsewhere")).expect("the archive is there");
    let refused = |world: &World, reason: &str| {
        for path in ["/v1/tables/items/rows?as_of=2020-01-01", "/v1/tables/items/rows/item%2001?as_of=2020-01-01"] {
            let answer = world.get(path);
            let code = answer.json()["code"].clone();
            assert_eq!((answer.status, code), (503, json!("batch_unavailable")), "{}", answer.text);
            assert!(answer.text.contains(reason), "{}", answer.text);
        }
    };
    refused(&world, "of the archive: No such file");
    assert_eq!(world.get("/v1/tables/items/rows/item%2001").status, 200, "the current rows are known");
    world.kill();
    world.start();
    refused(&world, "of the table items are no longer kept");
}

#[test]
fn rows_of_the_past_need_the_scope_of_their_table_and_are_not_for_keys_with_a_row_filter() {
    let world = World::new(TABLES);
    Model::default().post(&world, "items", &[(1, Some((BEGIN, 5)))]);
    let reader = key(&world, &["--scope", "read:items"]);
    let other = key(&world, &["--scope", "read:spread"]);
    let filtered = key(&world, &["--scope", "read:*", "--where", "label = 'label 5'"]);
    for path in ["/v1/tables/items/rows?as_of=2002-01-01", "/v1/tables/items/rows/item%2001?as_of=2002-01-01"] {
        let status = |key: &str| with_key(&world, key, "GET", path, "").status;
        assert_eq!((status(&reader), status(&other)), (200, 403), "{path}");
        let refused = with_key(&world, &filtered, "GET", path, "");
        assert_eq!((refused.status, refused.code()), (403, "row_filter".to_owned()), "{path}: {}", refused.body);
    }
}
