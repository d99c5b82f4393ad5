//! States of entities: now, and of the past by time and by sequence.

use serde_json::{Value, json};
use world::{World, encoded};

use crate::ORDERS;
use crate::client::{Client, event, members};

/// The expected state after the first events of an order, as kinds and amounts.
pub fn folded(events: &[(String, i64)]) -> Value {
    let payments = events.iter().filter(|(kind, _)| kind == "paid").count();
    let total: i64 = events.iter().map(|(_, amount)| amount).sum();
    let kind = events.last().map(|(kind, _)| kind.clone());
    json!({"events": events.len(), "last": events.len(), "total": total, "kind": kind, "payments": payments})
}

/// The measures of a state, without the key and what rows add.
pub fn measures(state: &Value) -> Value {
    let row = &state["views"]["order_states"];
    let names = ["events", "last", "total", "kind", "payments"];
    Value::Object(names.iter().map(|name| ((*name).to_owned(), row[*name].clone())).collect())
}

#[test]
fn a_state_is_the_fold_of_the_events_up_to_it() {
    let mut world = World::new(ORDERS);
    let client = Client::of(&world);
    let kinds = ["created", "paid", "packed", "paid", "shipped"];
    let mut history: Vec<(String, i64)> = Vec::new();
    for (number, kind) in kinds.iter().cycle().take(23).enumerate() {
        let amount = number as i64 - 3;
        let reply = client.append("o-1", &[event(&number.to_string(), kind, amount)], &[]);
        client.append("o-2", &[event(&number.to_string(), kind, 1)], &[]);
        history.push(((*kind).to_owned(), amount));
        // The present state includes every acknowledged event, and its tag is the last sequence.
        let state = client.get("/v1/entities/order_events/o-1");
        assert_eq!((state.tag, measures(&state.body)), (reply.tag, folded(&history)), "{}", state.body);
        assert_eq!(state.body["complete"], json!(true));
        if number == 9 {
            assert_eq!(world.run("order_states", false)["state"], json!("published"));
        }
    }
    let check = |client: &Client| {
        let events = client.events("o-1", 100);
        for length in 1..=history.len() {
            let state = client.get(&format!("/v1/entities/order_events/o-1?sequence={length}"));
            assert_eq!((state.tag, measures(&state.body)), (Some(length as u64), folded(&history[..length])));
            let time = events[length - 1]["_arrived_at"].as_str().expect("a time").to_owned();
            let until = events.iter().filter(|e| e["_arrived_at"].as_str() <= Some(&time)).count();
            let state = client.get(&format!("/v1/entities/order_events/o-1?as_of={}", encoded(&time)));
            assert_eq!(measures(&state.body), folded(&history[..until]), "{}", state.body);
            assert_eq!(state.body["as_of"], json!(time));
        }
    };
    check(&client);
    let before = client.get("/v1/entities/order_events/o-1?as_of=2001-01-01T00:00:00Z");
    assert_eq!((before.status, &before.body["code"]), (404, &json!("unknown_entity")));
    assert_eq!(client.get("/v1/entities/order_events/o-1?sequence=24").status, 400);
    assert_eq!(client.get("/v1/entities/order_events/o-1?sequence=1&as_of=2001-01-01").status, 400);
    assert_eq!(world.run("order_states", false)["state"], json!("published"));
    check(&client);
    world.kill();
    world.start();
    let client = Client::of(&world);
    check(&client);
    let state = client.get("/v1/entities/order_events/o-1");
    assert_eq!((state.tag, measures(&state.body)), (Some(23), folded(&history)));
}

#[test]
fn a_state_names_the_joined_views_that_it_omits() {
    let world = World::new(&format!(
        "{ORDERS}
         CREATE TABLE kind_weights (name STRING PRIMARY KEY, weight BIGINT, at TIMESTAMP) WITH (event_time = 'at');
         CREATE VIEW weights AS SELECT order_id, SUM(k.weight) AS weight FROM order_events AS o LEFT JOIN kind_weights AS k ON o.kind = k.name
         GROUP BY order_id;"
    ));
    let client = Client::of(&world);
    client.append("o-1", &[event("a", "created", 1)], &[]);
    for state in ["/v1/entities/order_events/o-1", "/v1/entities/order_events/o-1?sequence=1"] {
        let state = client.get(state);
        assert_eq!(state.body["omitted_views"], json!(["weights"]), "{}", state.body);
        assert_eq!(state.body["views"].as_object().map(|views| views.len()), Some(1), "{}", state.body);
    }
    let named = client.get("/v1/entities/order_events/o-1?view=order_states");
    assert_eq!(named.body["omitted_views"], Value::Null, "{}", named.body);
    for refused in ["/v1/entities/order_events/o-1?view=weights", "/v1/entities/order_events?view=weights"] {
        let refused = client.get(refused);
        let detail = refused.body["detail"].as_str().unwrap_or_default();
        assert_eq!(refused.status, 400);
        assert!(detail.contains("joined with tables") && detail.contains("/v1/views/weights/rows"), "{}", refused.body);
    }
}

#[test]
fn all_entities_are_listed_with_filter_and_pages() {
    let world = World::new(&format!(
        "{ORDERS} CREATE VIEW payments AS SELECT order_id, SUM(amount) AS paid FROM order_events WHERE kind = 'paid' GROUP BY order_id;"
    ));
    let client = Client::of(&world);
    for order in 0..25 {
        let events = [event("a", "created", order), event("b", if order % 2 == 0 { "paid" } else { "failed" }, order)];
        assert_eq!(client.append(&format!("o-{order:02}"), &events, &[("if-none-match", "*")]).status, 200);
    }
    let ambiguous = client.get("/v1/entities/order_events");
    assert_eq!(ambiguous.status, 400, "{}", ambiguous.body);
    let filter = encoded("kind = 'paid' AND total > 10");
    let mut path = format!("/v1/entities/order_events?view=order_states&where={filter}&order_by=order_id&limit=4");
    let (first, mut orders) = (path.clone(), Vec::new());
    loop {
        let page = client.get(&path);
        assert_eq!(page.status, 200, "{}", page.body);
        orders.extend(members(page.body["rows"].as_array().expect("rows"), "order_id"));
        match page.body["next"].as_str() {
            Some(next) => path = format!("{first}&cursor={}", encoded(next)),
            None => break,
        }
    }
    let expected: Vec<Value> = (6..25).filter(|o| o % 2 == 0).map(|o| json!(format!("o-{o:02}"))).collect();
    assert_eq!(orders, expected);
    // A state has all views, and null for one whose WHERE excludes every event.
    let unpaid = client.get("/v1/entities/order_events/o-07").body;
    assert_eq!((&unpaid["views"]["payments"], &unpaid["views"]["order_states"]["events"]), (&json!(null), &json!(2)));
    assert_eq!(client.get("/v1/entities/order_events/o-07?sequence=2").body["views"]["payments"], json!(null));
    assert_eq!(client.get("/v1/entities/order_events/o-08?sequence=2").body["views"]["payments"]["paid"], json!(8));
    assert_eq!(client.get("/v1/entities/order_events/o-08?sequence=1").body["views"]["payments"], json!(null));
}
