//! Appends: conditions, atomicity, retries, and what is refused.

use serde_json::json;
use world::{World, program};

use crate::client::{Client, event, members, runtime};
use crate::{ORDERS, SHORT_LOG};

#[test]
fn an_append_meets_its_condition_or_changes_nothing() {
    let world = World::new(ORDERS);
    let client = Client::of(&world);
    let first = client.append("o-1", &[event("a", "created", 5)], &[("if-none-match", "*")]);
    assert_eq!((first.status, first.tag), (200, Some(1)), "{}", first.body);
    assert_eq!((&first.body["first_sequence"], &first.body["last_sequence"]), (&json!(1), &json!(1)));
    // Several events of one append have neighbouring sequences.
    let more = client.append("o-1", &[event("b", "paid", 1), event("c", "shipped", 2)], &[("if-match", "\"1\"")]);
    assert_eq!((more.status, more.tag), (200, Some(3)), "{}", more.body);
    for header in [("if-match", "\"1\""), ("if-match", "\"4\""), ("if-match", "\"0\""), ("if-none-match", "*")] {
        let refused = client.append("o-1", &[event("d", "paid", 1)], &[header]);
        assert_eq!((refused.status, refused.tag), (412, Some(3)), "{header:?}: {}", refused.body);
        assert_eq!((&refused.body["code"], &refused.body["sequence"]), (&json!("sequence_conflict"), &json!(3)));
    }
    let unknown = client.append("o-2", &[event("e", "paid", 1)], &[("if-match", "*")]);
    assert_eq!((unknown.status, unknown.tag), (412, Some(0)), "{}", unknown.body);
    assert_eq!(client.append("o-2", &[event("e", "created", 1)], &[("if-match", "\"0\"")]).status, 200);
    assert_eq!(client.append("o-2", &[event("f", "paid", 1)], &[("if-match", "*")]).tag, Some(2));
    // The refused event was not accepted under any id, so its id is free.
    assert_eq!(client.append("o-1", &[event("d", "paid", 1)], &[]).tag, Some(4));
    assert_eq!(members(&client.events("o-1", 10), "_sequence"), [1, 2, 3, 4].map(|n| json!(n)));
    assert_eq!(members(&client.events("o-1", 10), "event_id"), ["a", "b", "c", "d"].map(|id| json!(id)));
    for wrong in ["1", "W/\"1\"", "\"x\""] {
        assert_eq!(client.append("o-1", &[event("x", "paid", 1)], &[("if-match", wrong)]).status, 400, "{wrong}");
    }
}

#[test]
fn an_append_is_accepted_as_a_whole_or_not_and_holds_events_of_its_entity_only() {
    let world = World::new(ORDERS);
    let client = Client::of(&world);
    let bad = json!({"event_id": "b", "at": "no time", "kind": "paid"});
    let refused = client.append("o-1", &[event("a", "created", 1), bad], &[]);
    assert_eq!(
        (refused.status, &refused.body["code"], &refused.body["rejected"]),
        (422, &json!("rejected"), &json!(1))
    );
    let other = json!({"event_id": "b", "at": 0, "order_id": "o-2"});
    let refused = client.append("o-1", &[event("a", "created", 1), other], &[]);
    assert!(
        refused.body["rejections"][0]["reason"].as_str().is_some_and(|r| r.contains("another entity")),
        "{refused:?}"
    );
    assert_eq!(client.append("o-1", &[], &[]).status, 400);
    let many: Vec<_> = (0..10_001).map(|i| event(&i.to_string(), "created", i)).collect();
    assert_eq!(client.append("o-1", &many, &[]).status, 413);
    assert_eq!(client.get("/v1/entities/order_events/o-1").status, 404);
    // An event may name its entity, also with an escape, or leave it out.
    let named = json!({"event_id": "a", "at": 0, "order_id": "o-1"});
    let escaped = "{\"event_id\": \"b\", \"at\": 0, \"order_id\": \"o\\u002d1\"}";
    assert_eq!(client.append("o-1", &[named], &[]).tag, Some(1));
    assert_eq!(world.post("/v1/entities/order_events/o-1/events", escaped).status, 200);
    assert_eq!(client.append("o-1", &[json!({"event_id": "c", "at": 0})], &[]).tag, Some(3));
    assert_eq!(members(&client.events("o-1", 10), "order_id"), [json!("o-1"), json!("o-1"), json!("o-1")]);
    // Ids with any characters.
    assert_eq!(client.append("a%2Fb%20%C3%A9", &[json!({"event_id": "d", "at": 0})], &[]).tag, Some(1));
    assert_eq!(members(&client.events("a%2Fb%20%C3%A9", 10), "order_id"), [json!("a/b é")]);
    // The other endpoint numbers events as well, and rejects those without an entity.
    let lines = "{\"event_id\":\"e\",\"at\":0,\"order_id\":\"o-1\"}\n{\"event_id\":\"f\",\"at\":0}\n\
                 {\"event_id\":\"g\",\"at\":0,\"order_id\":null}\n{\"event_id\":\"h\",\"at\":0,\"order_id\":\"\"}\n";
    let sent = world.post("/v1/events/order_events", lines).json();
    assert_eq!((&sent["accepted"], &sent["rejected"]), (&json!(1), &json!(3)), "{sent}");
    assert_eq!(sent["rejections"][0]["reason"], json!("order_id: the entity may not be null or empty"));
    assert_eq!(members(&client.events("o-1", 10), "_sequence"), [1, 2, 3, 4].map(|n| json!(n)));
    // What an event says about its sequence does not count.
    assert_eq!(client.append("o-1", &[json!({"event_id": "i", "at": 0, "_sequence": 99})], &[]).tag, Some(5));
}

#[test]
fn retries_and_duplicates_get_no_sequence() {
    let mut world = World::new(ORDERS);
    let client = Client::of(&world);
    let events = [event("a", "created", 1), event("b", "paid", 2)];
    let headers = [("idempotency-key", "k"), ("if-none-match", "*")];
    let first = client.append("o-1", &events, &headers);
    assert_eq!((first.status, first.tag), (200, Some(2)));
    // The condition no longer holds, but the retry is the same request.
    assert_eq!(client.append("o-1", &events, &headers).body, first.body);
    // The same body for another entity is another request.
    assert_eq!(client.append("o-2", &events, &headers).status, 422);
    // Ids are those of an entity: the same id of another one is another event.
    assert_eq!(client.append("o-2", &events, &[]).tag, Some(2));
    let again = client.append("o-1", &[event("b", "paid", 2), event("c", "shipped", 3)], &[]);
    assert_eq!((&again.body["accepted"], &again.body["duplicates"]), (&json!(1), &json!(1)));
    assert_eq!((&again.body["first_sequence"], again.tag), (&json!(3), Some(3)));
    let all = client.append("o-1", &events, &[]);
    assert_eq!((&all.body["first_sequence"], all.tag), (&json!(null), Some(3)));
    world.kill();
    world.start();
    let client = Client::of(&world);
    assert_eq!(client.append("o-1", &events, &headers).body, first.body, "also after a crash");
    assert_eq!(client.append("o-1", &[event("d", "closed", 0)], &[("if-match", "\"3\"")]).tag, Some(4));
    assert_eq!(members(&client.events("o-1", 1), "event_id"), ["a", "b", "c", "d"].map(|id| json!(id)));
    assert_eq!(world.run("order_states", true)["state"], json!("published"));
    let causes = world.get("/v1/views/order_states/compare").json()["causes"].clone();
    assert_eq!(causes["unexplained"], json!(0), "{causes}");
    assert_eq!(client.get("/v1/entities/order_events/o-2").body["views"]["order_states"]["events"], json!(2));
}

#[test]
fn an_id_belongs_to_its_entity_also_where_batch_removes_duplicates() {
    let mut world = World::new(&ORDERS.replace("partitions = 3", "partitions = 1"));
    assert_eq!(world.stop(), Some(0));
    world.set_limits(SHORT_LOG);
    world.start();
    let client = Client::of(&world);
    let events: Vec<_> = (0..60).map(|i| event(&i.to_string(), "created", i)).collect();
    assert_eq!(client.append("a", &events, &[]).tag, Some(60));
    assert_eq!(client.append("b", &events, &[]).tag, Some(60), "the same ids of another entity");
    // Intake remembers the ids of fifty events.
    assert_eq!(client.append("a", &events[..2], &[]).tag, Some(62));
    let states = |client: &Client, past: &str| {
        ["a", "b"].map(|entity| {
            let state = client.get(&format!("/v1/entities/order_events/{entity}{past}")).body;
            let row = &state["views"]["order_states"];
            (state["sequence"].as_u64(), row["events"].as_u64(), row["total"].as_i64())
        })
    };
    let total = Some(59 * 60 / 2);
    let exact = [(Some(62), Some(60), total), (Some(60), Some(60), total)];
    assert_eq!(states(&client, "")[0].1, Some(62), "until a run removes the duplicates");
    let past = client.get("/v1/entities/order_events/a?sequence=62").body;
    assert_eq!(past["views"]["order_states"]["events"], json!(60), "a state of the past is exact: {past}");
    assert_eq!(world.run("order_states", true)["state"], json!("published"));
    assert_eq!(states(&client, ""), exact);
    let causes = world.get("/v1/views/order_states/compare").json()["causes"].clone();
    assert_eq!(causes["unexplained"], json!(0), "{causes}");
}

#[test]
fn a_state_after_an_append_includes_it() {
    // Long enough for a read between the acknowledgement and the speed layer.
    let world = World::with_environment(ORDERS, &[("TRUEUP_WAIT_AT", "hand-over:20")]);
    let client = Client::of(&world);
    let appending = |entity: usize| {
        let client = client.clone();
        async move {
            let entity = format!("o-{entity}");
            for i in 1..=20 {
                let appended = client.try_append(&entity, &[event(&format!("{i}"), "created", 1)], &[]).await;
                assert_eq!(appended.expect("an answer").tag, Some(i));
                let state = client.try_get(&format!("/v1/entities/order_events/{entity}")).await.expect("an answer");
                // The tag is what the next append has to match: a state from before it would break the rules of a command.
                let events = &state.body["views"]["order_states"]["events"];
                assert_eq!((state.tag, events), (Some(i), &json!(i)), "{}", state.body);
            }
        }
    };
    let all: Vec<_> = (0..8).map(|entity| runtime().spawn(appending(entity))).collect();
    for one in all {
        runtime().block_on(one).expect("no panic");
    }
}

#[test]
fn what_an_entity_cannot_do_is_refused_with_the_reason() {
    let mut world = World::new(&format!(
        "{ORDERS} CREATE STREAM plain (at TIMESTAMP) WITH (event_time = 'at');
         CREATE STREAM devices (device BIGINT, at TIMESTAMP) WITH (event_time = 'at', entity = 'device');"
    ));
    let client = Client::of(&world);
    for (path, status, code) in [
        ("/v1/entities/plain/a", 404, "no_entity"),
        ("/v1/entities/plain/a/events", 404, "no_entity"),
        ("/v1/entities/plain", 404, "no_entity"),
        ("/v1/entities/nothing/a", 404, "unknown_stream"),
        ("/v1/entities/order_events/none", 404, "unknown_entity"),
        ("/v1/entities/order_events/none/events", 404, "unknown_entity"),
        ("/v1/entities/devices/07", 400, "invalid_parameter"),
        ("/v1/entities/devices/x/events", 400, "invalid_parameter"),
        ("/v1/entities/order_events/a?as_of=x", 400, "invalid_parameter"),
        ("/v1/entities/order_events/a?view=kinds", 400, "invalid_parameter"),
        ("/v1/entities/devices", 501, "not_supported"),
    ] {
        let reply = client.get(path);
        assert_eq!((reply.status, &reply.body["code"]), (status, &json!(code)), "{path}: {}", reply.body);
    }
    assert_eq!(world.post("/v1/entities/devices/7/events", "{\"at\":0}").json()["last_sequence"], json!(1));
    assert_eq!(
        world.post("/v1/entities/devices/7/events", "{\"at\":0,\"device\":7}").json()["last_sequence"],
        json!(2)
    );
    assert_eq!(world.post("/v1/entities/devices/7/events", "{\"at\":0,\"device\":8}").status, 422);
    assert_eq!(client.get("/v1/entities/devices/7").body["id"], json!(7));
    assert_eq!(client.append("o-1", &[event("a", "created", 1)], &[]).tag, Some(1));
    // Historical events would have no place among the sequences.
    let file = world.data.path().join("old.ndjson");
    std::fs::write(&file, "{\"at\":0,\"device\":1}\n").expect("written");
    assert_eq!(world.stop(), Some(0));
    let mut ingest = world.trueup();
    ingest.args(["ingest", "devices"]).arg(&file).args(["--historical", "--definitions"]).arg(world.definitions());
    let refused = ingest.arg("--data").arg(world.store()).output().expect("trueup runs");
    assert_eq!(refused.status.code(), Some(2), "{}", program::text(&refused));
    // The entity of stored events cannot change.
    world.redefine(&ORDERS.replace("entity = 'order_id', ", "").replace("MAX(_sequence)", "MAX(amount)"));
    let (code, text) = world.start_refused();
    assert!(code != Some(0) && text.contains("entity changed: order_id → none"), "{text}");
}

#[test]
fn a_partition_with_all_its_entities_refuses_new_ones_only() {
    let mut world = World::new(&ORDERS.replace("partitions = 3", "partitions = 1"));
    assert_eq!(world.stop(), Some(0));
    world.set_limits("entities_max = 2\n");
    world.start();
    let client = Client::of(&world);
    assert_eq!(client.append("a", &[event("1", "created", 1)], &[]).tag, Some(1));
    assert_eq!(client.append("b", &[event("2", "created", 1)], &[]).tag, Some(1));
    let full = client.append("c", &[event("3", "created", 1)], &[]);
    assert_eq!((full.status, &full.body["code"]), (507, &json!("too_many_entities")), "{}", full.body);
    assert_eq!(client.append("a", &[event("4", "paid", 1)], &[]).tag, Some(2));
    assert_eq!(client.get("/v1/entities/order_events/c").status, 404);
}
