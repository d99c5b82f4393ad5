//! Random histories of concurrent appends, compared with a list: sequences are dense, an acknowledged append is there as it
//! was acknowledged, one under a condition follows exactly what it expected, and an append is whole or not there.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::{Value, json};
use world::World;

use crate::client::{Client, Reply, event, members, runtime};
use crate::states::{folded, measures};
use crate::{ORDERS, SHORT_LOG};

const ENTITIES: usize = 7;
const CLIENTS: u64 = 8;

/// An append that was sent.
#[derive(Debug, Clone)]
struct Append {
    entity: usize,
    /// Ids of its events.
    ids: Vec<String>,
    /// The sequence that it expected.
    expected: Option<u64>,
    outcome: Outcome,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    /// Acknowledged with this first sequence.
    Accepted(u64),
    /// Refused.
    Refused,
    /// No answer: it may be there or not.
    Unknown,
}

/// An append that is about to be sent.
struct Draft {
    entity: usize,
    ids: Vec<String>,
    events: Vec<Value>,
    expected: Option<u64>,
    key: Option<String>,
}

impl Draft {
    /// Sends the append in a request of its own.
    async fn send(&self, client: &Client) -> Option<Reply> {
        let tag = self.expected.map(|sequence| format!("\"{sequence}\""));
        let mut headers: Vec<(&str, &str)> = Vec::new();
        headers.extend(tag.as_deref().map(|tag| ("if-match", tag)));
        headers.extend(self.key.as_deref().map(|key| ("idempotency-key", key)));
        client.try_append(&format!("e{}", self.entity), &self.events, &headers).await
    }

    /// The append as a line of a request with several.
    fn line(&self) -> String {
        let mut line = json!({"id": format!("e{}", self.entity), "events": self.events});
        if let Some(sequence) = self.expected {
            line["if_match"] = json!(sequence);
        }
        if let Some(key) = &self.key {
            line["idempotency_key"] = json!(key);
        }
        format!("{line}\n")
    }
}

/// Sends appends, by themselves or in one request; returns what became of each. `None`: the request had no answer.
async fn send(client: &Client, drafts: &[Draft], in_one: bool) -> Vec<Option<Reply>> {
    if !in_one {
        let mut replies = Vec::with_capacity(drafts.len());
        for draft in drafts {
            replies.push(draft.send(client).await);
        }
        return replies;
    }
    let Some(reply) = client.try_append_each(drafts.iter().map(Draft::line).collect()).await else {
        return drafts.iter().map(|_| None).collect();
    };
    if reply.status != 200 {
        return drafts.iter().map(|_| Some(reply.clone())).collect();
    }
    let outcomes = reply.body["appends"].as_array().expect("outcomes").clone();
    assert_eq!(outcomes.len(), drafts.len());
    let outcome = |outcome: Value| {
        let status = outcome["status"].as_u64().expect("a status") as u16;
        let tag = outcome[if status == 200 { "last_sequence" } else { "sequence" }].as_u64();
        Some(Reply { status, tag, body: outcome })
    };
    outcomes.into_iter().map(outcome).collect()
}

/// Appends until `stop`, and returns what was sent. `last` is what the client believes of each entity.
async fn appending(client: Client, number: u64, seed: u64, sent: Arc<AtomicU64>, stop: Arc<AtomicBool>) -> Vec<Append> {
    let mut dice = StdRng::seed_from_u64(seed * 1_000 + number);
    let (mut all, mut last) = (Vec::new(), BTreeMap::<usize, u64>::new());
    while !stop.load(Ordering::SeqCst) {
        let in_one = dice.random_bool(0.5);
        let with_keys = dice.random_bool(0.3);
        let mut believed = last.clone();
        let mut draft = |place: usize| {
            let entity = dice.random_range(0..ENTITIES);
            let events = dice.random_range(1..4);
            let ids: Vec<String> = (0..events).map(|i| format!("{seed}-{number}-{}-{i}", all.len() + place)).collect();
            let kinds = ["created", "paid", "shipped"];
            let event = |id: &String| event(id, kinds[dice.random_range(0..3)], dice.random_range(-9..10));
            let events: Vec<Value> = ids.iter().map(event).collect();
            let sequence = believed.entry(entity).or_default();
            let expected = dice.random_bool(0.7).then_some(*sequence);
            *sequence += ids.len() as u64;
            let key = with_keys.then(|| format!("key {}", ids[0]));
            Draft { entity, ids, events, expected, key }
        };
        let drafts: Vec<Draft> = (0..if in_one { 5 } else { 1 }).map(&mut draft).collect();
        let mut replies = send(&client, &drafts, in_one).await;
        if with_keys && dice.random_bool(0.5) {
            // A retry of the same request: the same answer, or the first one if that was lost.
            let again = send(&client, &drafts, in_one).await;
            for ((reply, again), draft) in replies.iter_mut().zip(again).zip(&drafts) {
                match (reply.as_ref(), again) {
                    (Some(first), Some(again)) if first.status == 200 && again.status != 503 => {
                        assert_eq!(first.body, again.body, "{:?}", draft.ids);
                    }
                    (_, Some(again)) => *reply = Some(again),
                    _ => {}
                }
            }
        }
        sent.fetch_add(1, Ordering::SeqCst);
        let mut is_over = false;
        for (Draft { entity, ids, expected, .. }, reply) in drafts.into_iter().zip(replies) {
            let outcome = match reply {
                None => Outcome::Unknown,
                Some(reply) => match reply.status {
                    200 => {
                        last.insert(entity, reply.tag.expect("a tag"));
                        assert_eq!(reply.body["accepted"], json!(ids.len()), "{ids:?}: {}", reply.body);
                        Outcome::Accepted(reply.body["first_sequence"].as_u64().expect("a sequence"))
                    }
                    412 => {
                        last.insert(entity, reply.tag.expect("a tag"));
                        Outcome::Refused
                    }
                    // The server is being stopped.
                    503 => Outcome::Unknown,
                    other => panic!("{other}: {}", reply.body),
                },
            };
            is_over |= outcome == Outcome::Unknown;
            all.push(Append { entity, ids, expected, outcome });
        }
        if is_over {
            break;
        }
    }
    all
}

/// Lets clients append until some requests were sent, kills the server under them, and starts it again.
fn history(world: &mut World, seed: u64, requests: u64) -> Vec<Append> {
    let (sent, stop) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
    let client = Client::of(world);
    let clients: Vec<_> = (0..CLIENTS)
        .map(|number| runtime().spawn(appending(client.clone(), number, seed, Arc::clone(&sent), Arc::clone(&stop))))
        .collect();
    world.wait_for("requests", |_| sent.load(Ordering::SeqCst) >= requests);
    world.kill();
    stop.store(true, Ordering::SeqCst);
    let sent = clients.into_iter().flat_map(|client| runtime().block_on(client).expect("no panic")).collect();
    world.start();
    sent
}

/// Compares what every entity has with what was sent.
fn check(world: &World, appends: &[Append]) {
    let client = Client::of(world);
    for entity in 0..ENTITIES {
        let name = format!("e{entity}");
        let events = client.events(&name, 1_000);
        let sequences: Vec<Value> = (1..=events.len()).map(|n| json!(n)).collect();
        assert_eq!(members(&events, "_sequence"), sequences, "{name}: dense, without gap or repeat");
        let place: BTreeMap<String, u64> =
            (1..).zip(&events).map(|(n, e)| (e["event_id"].as_str().expect("an id").to_owned(), n)).collect();
        assert_eq!(place.len(), events.len(), "{name}: no event is there twice");
        let mut known = 0;
        for append in appends.iter().filter(|append| append.entity == entity) {
            let at: Vec<Option<u64>> = append.ids.iter().map(|id| place.get(id).copied()).collect();
            let first = at[0];
            let whole: Vec<Option<u64>> = (0..append.ids.len() as u64).map(|i| first.map(|f| f + i)).collect();
            assert_eq!(at, whole, "an append is whole, in order, or not there: {append:?}");
            match append.outcome {
                Outcome::Accepted(sequence) => assert_eq!(first, Some(sequence), "{append:?}"),
                Outcome::Refused => assert_eq!(first, None, "{append:?}"),
                Outcome::Unknown => {}
            }
            if let (Some(first), Some(expected)) = (first, append.expected) {
                assert_eq!(first, expected + 1, "it follows what it expected: {append:?}");
            }
            known += first.map_or(0, |_| append.ids.len());
        }
        assert_eq!(known, events.len(), "{name}: every event was sent");
        if events.is_empty() {
            continue;
        }
        let history: Vec<(String, i64)> = events
            .iter()
            .map(|e| (e["kind"].as_str().expect("a kind").to_owned(), e["amount"].as_i64().expect("an amount")))
            .collect();
        let state = client.get(&format!("/v1/entities/order_events/{name}"));
        assert_eq!((state.tag, measures(&state.body)), (Some(events.len() as u64), folded(&history)));
        let half = history.len().div_ceil(2);
        let past = client.get(&format!("/v1/entities/order_events/{name}?sequence={half}"));
        assert_eq!(measures(&past.body), folded(&history[..half]));
    }
}

/// Kills a server of short logs under concurrent appends, several times; between kills the log is archived, covered by runs
/// and trimmed, so that sequences come from the archive alone.
fn kills(seed: u64, requests: u64) {
    let mut world = World::new(ORDERS);
    assert_eq!(world.stop(), Some(0));
    world.set_limits(SHORT_LOG);
    world.start();
    let mut appends = Vec::new();
    for round in 0..3 {
        appends.extend(history(&mut world, seed * 10 + round, requests));
        check(&world, &appends);
        if round == 1 {
            for view in ["order_states", "kinds"] {
                assert_eq!(world.run(view, false)["state"], json!("published"));
            }
            world.wait_for("the log to be trimmed", |world| {
                let partitions = world.get("/v1/streams/order_events").json()["partitions"].clone();
                partitions.as_array().expect("partitions").iter().any(|p| p["log_start"] != json!(0))
            });
            check(&world, &appends);
            world.kill();
            world.start();
            check(&world, &appends);
        }
    }
    let accepted = appends.iter().filter(|a| matches!(a.outcome, Outcome::Accepted(_))).count();
    let refused = appends.iter().filter(|a| a.outcome == Outcome::Refused).count();
    assert!(accepted > 20 && refused > 20, "{accepted} accepted, {refused} refused: both must happen");
    println!("seed {seed}: {accepted} appends accepted, {refused} refused, {} sent", appends.len());
}

/// `TRUEUP_CASES` histories, `TRUEUP_SEED` is the first.
#[test]
fn concurrent_appends_keep_every_promise_whatever_is_killed() {
    let number =
        |name: &str, default: u64| std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default);
    let (first, cases) = (number("TRUEUP_SEED", 1), number("TRUEUP_CASES", 2));
    for seed in first..first + cases {
        println!("seed {seed}");
        kills(seed, 250);
    }
}
