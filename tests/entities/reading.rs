//! Reading events back: pages, times, the archive alone, and subscriptions with resume.

use std::time::Duration;

use futures::StreamExt;
use serde_json::{Value, json};
use world::{World, encoded};

use crate::client::{Client, event, members, runtime};
use crate::{ORDERS, SHORT_LOG};

fn partitions(world: &World) -> Vec<Value> {
    world.get("/v1/streams/order_events").json()["partitions"].as_array().expect("partitions").clone()
}

#[test]
fn events_are_read_by_sequence_and_by_time_from_log_and_archive() {
    let mut world = World::new(ORDERS);
    assert_eq!(world.stop(), Some(0));
    world.set_limits(SHORT_LOG);
    world.start();
    let client = Client::of(&world);
    // Events of other entities are in the same segments, files and partitions.
    for round in 0..40 {
        for entity in 0..5 {
            let id = format!("{round}-{entity}");
            assert_eq!(
                client.append(&format!("e{entity}"), &[event(&id, "kind", round)], &[]).tag,
                Some(round as u64 + 1)
            );
        }
    }
    let check = |world: &World| {
        let client = Client::of(world);
        for (limit, entity) in [(7, 0), (100, 1), (1, 4)] {
            let events = client.events(&format!("e{entity}"), limit);
            assert_eq!(members(&events, "_sequence"), (1..=40).map(|n| json!(n)).collect::<Vec<_>>());
            let ids: Vec<Value> = (0..40).map(|round| json!(format!("{round}-{entity}"))).collect();
            assert_eq!(members(&events, "event_id"), ids);
        }
        let from = client.get("/v1/entities/order_events/e3/events?from_sequence=38").body;
        assert_eq!(members(from["events"].as_array().expect("events"), "amount"), [37, 38, 39].map(|n| json!(n)));
        assert_eq!(from["next_sequence"], json!(null));
        let beyond = client.get("/v1/entities/order_events/e3/events?from_sequence=41");
        assert_eq!((beyond.body["events"].clone(), beyond.tag), (json!([]), Some(40)));
        let times: Vec<String> = members(&client.events("e2", 100), "_arrived_at")
            .iter()
            .map(|time| time.as_str().expect("a time").to_owned())
            .collect();
        assert!(times.is_sorted());
        for (from, to) in [(&times[3], &times[20]), (&times[0], &times[39]), (&times[39], &times[0])] {
            let path = format!("/v1/entities/order_events/e2/events?from={}&to={}", encoded(from), encoded(to));
            let events = client.get(&path).body["events"].as_array().expect("events").clone();
            let expected: Vec<Value> =
                (0..40).filter(|i| &times[*i] >= from && &times[*i] < to).map(|i| json!(i + 1)).collect();
            assert_eq!(members(&events, "_sequence"), expected, "{path}");
        }
    };
    check(&world);
    world.wait_for("the archive", |world| partitions(world).iter().all(|p| p["archived"] == p["head"]));
    check(&world);
    for view in ["order_states", "kinds"] {
        assert_eq!(world.run(view, false)["state"], json!("published"));
    }
    world.wait_for("the log to be trimmed", |world| partitions(world).iter().any(|p| p["log_start"] != json!(0)));
    check(&world);
    let compacted = world.post("/v1/streams/order_events/compact", "{\"vacuum_older_than_ms\": 0}").json();
    assert!(compacted["files_after"].as_u64() < compacted["files_before"].as_u64(), "{compacted}");
    check(&world);
    world.kill();
    world.start();
    check(&world);
    // A new log starts where the archive ends, and continues every sequence.
    assert_eq!(world.stop(), Some(0));
    std::fs::remove_dir_all(world.store().join("log")).expect("the log is lost");
    world.set_arguments(&["--take-over"]);
    world.start();
    check(&world);
    let client = Client::of(&world);
    for entity in 0..5 {
        let reply = client.append(&format!("e{entity}"), &[event("last", "kind", 40)], &[("if-match", "\"40\"")]);
        assert_eq!((reply.status, reply.tag), (200, Some(41)), "{}", reply.body);
    }
    let answer = client.get("/v1/entities/order_events/e3?view=order_states").body;
    assert_eq!(answer["views"]["order_states"]["events"], json!(41), "{answer}");
}

#[test]
fn an_entity_with_more_events_than_a_page_is_read_and_folded_in_pages() {
    let world = World::new(ORDERS);
    let client = Client::of(&world);
    let events: Vec<Value> = (0..10_000).map(|i| event(&i.to_string(), "kind", i)).collect();
    assert_eq!(client.append("o-1", &events, &[]).tag, Some(10_000));
    assert_eq!(client.append("o-1", &events[..3], &[]).tag, Some(10_000), "duplicates");
    let more: Vec<Value> = (10_000..12_345).map(|i| event(&i.to_string(), "kind", i)).collect();
    assert_eq!(client.append("o-1", &more, &[]).tag, Some(12_345));
    let page = client.get("/v1/entities/order_events/o-1/events").body;
    assert_eq!((page["events"].as_array().map(Vec::len), &page["next_sequence"]), (Some(1_000), &json!(1_001)));
    let page = client.get("/v1/entities/order_events/o-1/events?limit=10000&from_sequence=2000").body;
    assert_eq!((page["events"].as_array().map(Vec::len), &page["next_sequence"]), (Some(10_000), &json!(12_000)));
    assert_eq!(client.get("/v1/entities/order_events/o-1/events?limit=10001").status, 400);
    let state = client.get("/v1/entities/order_events/o-1?sequence=12000").body;
    let expected =
        json!({"events": 12_000, "last": 12_000, "total": 11_999 * 12_000 / 2, "kind": "kind", "payments": 0});
    assert_eq!(crate::states::measures(&state), expected, "{state}");
}

/// Reads server-sent events until there are `count` of them, as (id, data).
async fn subscribe(url: String, last: Option<u64>, count: usize) -> Vec<(u64, Value)> {
    let http = reqwest::Client::builder().no_proxy().build().expect("a client");
    let mut request = http.get(url);
    if let Some(last) = last {
        request = request.header("last-event-id", last.to_string());
    }
    let mut chunks = request.send().await.expect("an answer").bytes_stream();
    let (mut text, mut events) = (String::new(), Vec::new());
    while events.len() < count {
        let chunk = tokio::time::timeout(Duration::from_secs(30), chunks.next()).await.expect("an event in time");
        text.push_str(std::str::from_utf8(&chunk.expect("more").expect("bytes")).expect("UTF-8"));
        while let Some(end) = text.find("\n\n") {
            let frame: String = text.drain(..end + 2).collect();
            let field = |name: &str| frame.lines().find_map(|line| line.strip_prefix(name).map(str::to_owned));
            if let (Some(id), Some(data)) = (field("id: "), field("data: ")) {
                events.push((id.parse().expect("a sequence"), serde_json::from_str(&data).expect("an event")));
            }
        }
    }
    events
}

#[test]
fn a_subscriber_gets_every_event_once_and_resumes_by_sequence() {
    let mut world = World::new(ORDERS);
    let client = Client::of(&world);
    for i in 0..3 {
        client.append("o-1", &[event(&format!("{i}"), "kind", i)], &[]);
    }
    let url = |world: &World, rest: &str| format!("{}/v1/entities/order_events/o-1/live{rest}", world.url());
    let live = runtime().spawn(subscribe(url(&world, ""), None, 10));
    for i in 3..10 {
        client.append("o-1", &[event(&format!("{i}"), "kind", i)], &[]);
        client.append("o-2", &[event(&format!("{i}"), "kind", i)], &[]);
    }
    let events = runtime().block_on(live).expect("no panic");
    assert_eq!(events.iter().map(|(id, _)| *id).collect::<Vec<_>>(), (1..=10).collect::<Vec<_>>());
    assert!(events.iter().all(|(id, event)| event["_sequence"] == json!(id) && event["order_id"] == json!("o-1")));
    let resumed = runtime().block_on(subscribe(url(&world, "?from_sequence=2"), Some(8), 2));
    assert_eq!(resumed.iter().map(|(id, _)| *id).collect::<Vec<_>>(), [9, 10], "Last-Event-ID counts");
    let from = runtime().block_on(subscribe(url(&world, "?from_sequence=9"), None, 2));
    assert_eq!(from.iter().map(|(id, _)| *id).collect::<Vec<_>>(), [9, 10]);
    // A subscription ends with its process, and continues in the next one.
    let waiting = runtime().spawn(subscribe(url(&world, ""), Some(10), 1));
    world.kill();
    assert!(runtime().block_on(waiting).is_err(), "the connection ended");
    world.start();
    let waiting = runtime().spawn(subscribe(url(&world, ""), Some(10), 1));
    Client::of(&world).append("o-1", &[event("11", "kind", 11)], &[]);
    let next = runtime().block_on(waiting).expect("no panic");
    assert_eq!(next.iter().map(|(id, _)| *id).collect::<Vec<_>>(), [11]);
}
