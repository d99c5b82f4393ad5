//! Sinks of views with sessions, through the program: after each step the receiver of a webhook has got exactly the changes of
//! the rows, whether sessions grow, begin earlier, become one, close, or open again, live or by batch runs.

use std::collections::BTreeMap;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::{Value, json};
use world::World;
use world::oracle::session_topic::{Lengths, SessionStream, Stay, Stays, changes};
use world::oracle_check::micros;
use world::webhook_receiver::WebhookReceiver;

const SECOND: i64 = 1_000_000;
const MINUTE: i64 = 60 * SECOND;
const LENGTHS: Lengths = Lengths { gap: 10 * MINUTE, delay: 5 * MINUTE, lateness: 10 * MINUTE };
const DEFINITIONS: &str = "
    CREATE STREAM visits (k STRING, at TIMESTAMP, v BIGINT) WITH (event_time = 'at', partitions = 1,
        watermark_delay = '5 minutes', allowed_lateness = '10 minutes');
    CREATE VIEW stays AS SELECT window_start, window_end, k, COUNT(*) AS n, SUM(v) AS total FROM visits
        GROUP BY SESSION(at, INTERVAL '10' MINUTE), k;
    CREATE SINK every_change FROM stays WITH (to = 'webhook:ops', every = '20 milliseconds');
    CREATE SINK closed FROM stays WITH (to = 'webhook:ops', every = '20 milliseconds', emit = 'final');";

/// A change of a row: the kind of its record, and its value.
type Change = (String, Option<Stay>);
/// The changes of each row, in order.
type History = BTreeMap<(String, i64), Vec<Change>>;

/// What one sink has written, and has to have written.
struct Expected {
    sink: &'static str,
    rows: Stays,
    history: History,
}

impl Expected {
    fn new(sink: &'static str) -> Expected {
        Expected { sink, rows: Stays::new(), history: History::new() }
    }

    fn move_to(&mut self, after: Stays) {
        for (place, stay) in changes(&self.rows, &after) {
            let is_known = self.rows.contains_key(&place);
            let kind = match (self.sink, stay) {
                (_, None) => "delete",
                ("every_change", _) => "upsert",
                _ if is_known => "correction",
                _ => "final",
            };
            self.history.entry(place).or_default().push((kind.to_owned(), stay));
        }
        self.rows = after;
    }

    /// Of the requests that the receiver got. After a kill it may get rows again that the server had not seen confirmed.
    fn found(&self, receiver: &WebhookReceiver) -> History {
        let mut history = History::new();
        for request in receiver.received() {
            let body: Value = serde_json::from_str(&request.body).expect("JSON");
            if body["data"]["sink"] != json!(self.sink) {
                continue;
            }
            for row in body["data"]["rows"].as_array().expect("rows") {
                let time = |value: &Value| micros(value.as_str().expect("a time"));
                let key = row["key"]["k"].as_str().expect("a key").to_owned();
                let figure = |value: &Value, name: &str| value[name].as_i64().expect("a figure");
                let stay = row["value"].as_object().map(|_| {
                    let value = &row["value"];
                    (time(&value["window_end"]), figure(value, "n"), figure(value, "total"))
                });
                let changes = history.entry((key, time(&row["key"]["window_start"]))).or_default();
                if changes.last().is_none_or(|(_, before)| *before != stay) {
                    changes.push((row["kind"].as_str().expect("a kind").to_owned(), stay));
                }
            }
        }
        history
    }
}

/// A server with both sinks, the receiver, and what it has to get.
struct Setup {
    world: World,
    receiver: WebhookReceiver,
    stream: SessionStream,
    sinks: [Expected; 2],
}

impl Setup {
    fn new() -> Setup {
        let receiver = WebhookReceiver::start(0);
        let mut world = World::stopped(DEFINITIONS);
        let url = format!("http://127.0.0.1:{}/rows", receiver.port);
        world.set_settings(&format!("[connections.ops]\nkind = \"webhook\"\nurl = \"{url}\"\n"));
        world.start();
        let sinks = [Expected::new("every_change"), Expected::new("closed")];
        Setup { world, receiver, stream: SessionStream::new(LENGTHS), sinks }
    }

    /// Sends events in one request: the sinks see all of them or none.
    fn send(&mut self, events: &[(&str, i64, i64)]) {
        let line = |(key, at, value): &(&str, i64, i64)| json!({"k": key, "at": at / 1_000, "v": value}).to_string();
        let body = events.iter().map(line).collect::<Vec<_>>().join("\n");
        let sent = self.world.post("/v1/events/visits", body);
        assert_eq!(sent.status, 200, "{}", sent.text);
        events.iter().for_each(|(key, at, value)| self.stream.add(key, *at, *value));
    }

    fn run(&mut self, full: bool) {
        assert_eq!(self.world.run("stays", full)["state"], json!("published"));
        self.stream.cover();
    }

    /// Waits until the receiver has got the changes of this step, and nothing else.
    fn check(&mut self, context: &str) {
        let [every_change, closed] = &mut self.sinks;
        every_change.move_to(self.stream.stays());
        closed.move_to(self.stream.closed_stays(&closed.rows));
        for expected in &self.sinks {
            let mut found = History::new();
            for _ in 0..400 {
                found = expected.found(&self.receiver);
                if found == expected.history {
                    break;
                }
                std::thread::sleep(std::time::Duration::from_millis(25));
            }
            for (place, changes) in &expected.history {
                assert_eq!(found.get(place), Some(changes), "{context}: {} {place:?}", expected.sink);
            }
            assert_eq!(found, expected.history, "{context}: {}", expected.sink);
        }
    }
}

fn begin() -> i64 {
    micros("2026-01-05T21:00:00Z")
}

#[test]
fn a_session_that_grows_begins_earlier_and_joins_another_replaces_its_rows() {
    let mut setup = Setup::new();
    let at = |minutes: i64| begin() + minutes * MINUTE;
    setup.send(&[("a", at(0), 1), ("b", at(1), 1)]);
    setup.check("two sessions");
    setup.send(&[("a", at(8), 2)]);
    setup.check("one grows");
    setup.send(&[("a", at(-5), 3)]);
    setup.check("it begins earlier");
    setup.send(&[("a", at(20), 4)]);
    setup.check("another one");
    setup.send(&[("a", at(14), 5)]);
    setup.check("both become one");
    // Its end is minute 30; the watermark is at minute 30.
    setup.send(&[("b", at(35), 1)]);
    setup.check("the session is closed");
    assert_eq!(setup.sinks[1].rows.len(), 2, "both sessions of earlier minutes");
    // Late for the closed session, within the allowed lateness: corrections at once.
    setup.send(&[("a", at(19), 6)]);
    setup.check("a late event");
    assert_eq!(setup.sinks[1].history[&("a".to_owned(), at(-5))].len(), 2, "final, correction");
    setup.send(&[("a", at(-14), 7)]);
    setup.check("a late event before the start");
    assert_eq!(setup.sinks[1].rows.keys().next(), Some(&("a".to_owned(), at(-14))));
    // Behind the watermark, and yet it moves the end of the session beyond it.
    setup.send(&[("a", at(29), 8)]);
    setup.check("the session is open again");
    assert!(setup.sinks[1].rows.contains_key(&("a".to_owned(), at(-14))), "its row stays until then");
    setup.send(&[("b", at(44), 1)]);
    setup.check("and closed again");
    setup.run(false);
    setup.check("a run without late events");
    // The second is the only one of its date; then it is part of the first.
    setup.send(&[("c", at(175), 1), ("c", at(190), 1), ("b", at(2_000), 1)]);
    setup.check("sessions on both sides of midnight");
    setup.send(&[("c", at(182), 1)]);
    setup.check("an event that is late for every session");
    setup.run(false);
    setup.check("the run has joined them");
    // A live session begins before one of the version, on a date that the next run leaves as it is.
    setup.send(&[("b", at(1_991), 2), ("b", at(2_009), 2)]);
    setup.check("a session begins earlier and is open again");
    setup.run(true);
    setup.check("a full run");
    let of_c = |sink: &Expected| sink.rows.keys().filter(|(key, _)| key == "c").count();
    assert_eq!((of_c(&setup.sinks[0]), of_c(&setup.sinks[1])), (1, 1));
}

#[test]
fn rows_of_an_erased_entity_are_deleted_though_no_version_had_their_date() {
    let receiver = WebhookReceiver::start(0);
    let mut world = World::stopped(
        "CREATE STREAM visits (id STRING PRIMARY KEY, who STRING, at TIMESTAMP) WITH (event_time = 'at', entity = 'who');
         CREATE VIEW stays AS SELECT who, COUNT(*) AS n FROM visits GROUP BY SESSION(at, INTERVAL '10' MINUTE), who;
         CREATE VIEW days AS SELECT who, COUNT(*) AS n FROM visits GROUP BY TUMBLE(at, INTERVAL '1' DAY), who;
         CREATE SINK of_stays FROM stays WITH (to = 'webhook:ops', every = '20 milliseconds');
         CREATE SINK of_days FROM days WITH (to = 'webhook:ops', every = '20 milliseconds');",
    );
    let url = format!("http://127.0.0.1:{}/rows", receiver.port);
    world.set_settings(&format!("[connections.ops]\nkind = \"webhook\"\nurl = \"{url}\"\n"));
    world.start();
    let send = |id: &str, who: &str, at: &str| {
        let sent = world.post("/v1/events/visits", json!({"id": id, "who": who, "at": at}).to_string());
        assert_eq!(sent.status, 200, "{}", sent.text);
    };
    let kinds = |who: &str| -> BTreeMap<String, Vec<String>> {
        let mut kinds: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for request in receiver.received() {
            let body: Value = serde_json::from_str(&request.body).expect("JSON");
            for row in
                body["data"]["rows"].as_array().expect("rows").iter().filter(|row| row["key"]["who"] == json!(who))
            {
                let of_sink = kinds.entry(body["data"]["sink"].as_str().expect("a sink").to_owned()).or_default();
                of_sink.push(row["kind"].as_str().expect("a kind").to_owned());
            }
        }
        kinds
    };
    send("1", "bob", "2026-01-05T10:00:00Z");
    for view in ["stays", "days"] {
        assert_eq!(world.run(view, false)["state"], json!("published"));
    }
    send("2", "alice", "2026-01-07T10:00:00Z");
    let of_both = |kinds: &[&str]| -> BTreeMap<String, Vec<String>> {
        let kinds: Vec<String> = kinds.iter().map(|kind| (*kind).to_owned()).collect();
        ["of_days", "of_stays"].into_iter().map(|sink| (sink.to_owned(), kinds.clone())).collect()
    };
    world.wait_for("the rows of alice", |_| kinds("alice") == of_both(&["upsert"]));
    assert_eq!(world.delete("/v1/entities/visits/alice").status, 202);
    world.wait_for("their deletion", |_| kinds("alice") == of_both(&["upsert", "delete"]));
    assert_eq!(kinds("bob"), of_both(&["upsert"]));
}

#[test]
fn rows_follow_sessions_through_random_events_runs_and_kills() {
    let seed = std::env::var("TRUEUP_SEED").ok().and_then(|s| s.parse().ok()).unwrap_or_else(rand::random);
    println!("TRUEUP_SEED={seed}");
    let mut dice = StdRng::seed_from_u64(seed);
    let rounds: usize = std::env::var("TRUEUP_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(2);
    for round in 0..rounds {
        let mut setup = Setup::new();
        for step in 0..60 {
            let now = setup.stream.latest().unwrap_or_else(begin);
            match dice.random_range(0..20) {
                0..15 => {
                    let event = |dice: &mut StdRng| {
                        let behind = match dice.random_range(0..10) {
                            0..4 => dice.random_range(-20 * MINUTE..0),
                            4..7 => dice.random_range(0..10 * MINUTE),
                            7..9 => dice.random_range(0..40 * MINUTE),
                            _ => dice.random_range(0..1_000 * MINUTE),
                        };
                        let key = ["a", "b", "c"][dice.random_range(0..3)];
                        (key, (now - behind) / 1_000 * 1_000, dice.random_range(1..100))
                    };
                    let events: Vec<_> = (0..dice.random_range(1..12)).map(|_| event(&mut dice)).collect();
                    setup.send(&events);
                }
                15..18 => {
                    let full = dice.random_bool(0.3);
                    setup.run(full);
                }
                18 => {
                    setup.world.kill();
                    setup.world.start();
                }
                _ => {
                    assert_eq!(setup.world.stop(), Some(0));
                    setup.world.start();
                }
            }
            setup.check(&format!("seed {seed}, round {round}, step {step}"));
        }
        // Whatever was written besides would be there by now.
        setup.send(&[("end", now_after(&setup), 1)]);
        setup.check(&format!("seed {seed}, round {round}, the end"));
        assert!(setup.sinks[1].history.values().flatten().any(|(kind, _)| kind == "correction"));
    }
}

fn now_after(setup: &Setup) -> i64 {
    setup.stream.latest().unwrap_or_else(begin) + 2_000 * MINUTE
}
