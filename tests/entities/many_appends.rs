//! Appends to many entities in one request: each by itself, in order, and what refuses the whole request.

use serde_json::{Value, json};
use world::World;

use crate::ORDERS;
use crate::client::{Client, event, members};

/// The status of each append, and its sequence afterwards: the one it has, or the one that it met.
fn outcomes(body: &Value) -> Vec<(u64, Option<u64>)> {
    let outcome = |append: &Value| {
        let sequence = append["last_sequence"].as_u64().or(append["sequence"].as_u64());
        (append["status"].as_u64().expect("a status"), sequence)
    };
    body["appends"].as_array().expect("outcomes").iter().map(outcome).collect()
}

#[test]
fn each_append_of_a_request_succeeds_or_is_refused_by_itself() {
    let mut world = World::new(ORDERS);
    let client = Client::of(&world);
    let appends = [
        json!({"id": "a", "if_none_match": "*", "events": [event("1", "created", 1)]}),
        json!({"id": "b", "if_match": 0, "idempotency_key": "k", "events": [event("1", "created", 2), event("2", "paid", 3)]}),
        // It follows the first append of this request.
        json!({"id": "a", "if_match": 1, "events": [event("2", "paid", 4)]}),
        json!({"id": "a", "if_match": 1, "events": [event("3", "shipped", 5)]}),
        json!({"id": "c", "if_match": "*", "events": [event("1", "created", 6)]}),
        json!({"id": "d", "events": [event("1", "created", 7), {"event_id": "2", "at": "no time"}]}),
        json!({"id": "e", "events": [{"event_id": "1", "at": 0, "order_id": "x", "extra": 1}]}),
        json!({"id": "f/é", "events": [{"event_id": "1", "at": 0, "order_id": "f/é", "extra": 1}]}),
        json!({"id": "b", "idempotency_key": "k", "events": [event("9", "created", 2)]}),
    ];
    let reply = client.append_each(&appends);
    let expected = [
        (200, Some(1)),
        (200, Some(2)),
        (200, Some(2)),
        (412, Some(2)),
        (412, Some(0)),
        (422, None),
        (422, None),
        (200, Some(1)),
        (422, None),
    ];
    assert_eq!((reply.status, outcomes(&reply.body)), (200, expected.to_vec()), "{}", reply.body);
    assert_eq!((&reply.body["succeeded"], &reply.body["refused"]), (&json!(4), &json!(5)));
    let of = |append: usize, member: &str| reply.body["appends"][append][member].clone();
    assert_eq!((of(1, "first_sequence"), of(1, "accepted")), (json!(1), json!(2)));
    assert_eq!((of(3, "code"), of(8, "code")), (json!("sequence_conflict"), json!("idempotency_key_reused")));
    assert_eq!((of(5, "code"), of(5, "rejections")[0]["line"].clone()), (json!("rejected"), json!(2)));
    assert!(of(6, "rejections")[0]["reason"].as_str().is_some_and(|r| r.contains("another entity")), "{}", reply.body);
    assert_eq!((of(7, "unknown_fields"), of(7, "id")), (json!(1), json!("f/é")));
    assert_eq!(members(&client.events("a", 10), "kind"), ["created", "paid"].map(|kind| json!(kind)));
    assert_eq!(members(&client.events("b", 10), "_sequence"), [json!(1), json!(2)]);
    assert_eq!(client.events("d", 10), Vec::<Value>::new());
    // A retry, also after a crash: the first answer for the key, and the other ids are known.
    world.kill();
    world.start();
    let client = Client::of(&world);
    let again = client.append_each(&[appends[1].clone(), json!({"id": "a", "events": [event("2", "paid", 4)]})]);
    assert_eq!(again.body["appends"][0], reply.body["appends"][1]);
    assert_eq!(
        (&again.body["appends"][1]["duplicates"], &again.body["appends"][1]["first_sequence"]),
        (&json!(1), &json!(null))
    );
    assert_eq!(world.run("order_states", true)["state"], json!("published"));
    let causes = world.get("/v1/views/order_states/compare").json()["causes"].clone();
    assert_eq!(causes["unexplained"], json!(0), "{causes}");
    // An erased entity refuses its appends alone.
    assert!(client.try_delete("/v1/entities/order_events/b").is_some_and(|status| status < 300));
    let mixed = [
        json!({"id": "b", "events": [event("7", "created", 1)]}),
        json!({"id": "a", "if_match": 2, "events": [event("7", "closed", 1)]}),
    ];
    assert_eq!(outcomes(&client.append_each(&mixed).body), [(410, None), (200, Some(3))]);
}

#[test]
fn a_line_that_is_not_an_append_refuses_the_request_before_anything_is_written() {
    let world = World::new(&format!(
        "{ORDERS} CREATE STREAM plain (at TIMESTAMP) WITH (event_time = 'at');
         CREATE STREAM devices (device BIGINT, at TIMESTAMP) WITH (event_time = 'at', entity = 'device');"
    ));
    let good = "{\"id\":\"a\",\"events\":[{\"event_id\":\"1\",\"at\":0}]}";
    let orders = "/v1/entities/order_events";
    for (line, detail) in [
        ("nonsense", "line 3: expected an object"),
        ("{nonsense", "line 3: key must be a string"),
        ("[\"a\",null,null,null,[{}]]", "line 3: expected an object: one append per line"),
        ("{\"id\":\"a\"}", "line 3: missing field `events`"),
        ("{\"id\":\"a\",\"events\":[]}", "line 3: the append has no events: send at least one"),
        ("{\"id\":\"\",\"events\":[{\"at\":0}]}", "line 3: the id of an entity cannot be empty"),
        (
            "{\"id\":7,\"events\":[{\"at\":0}]}",
            "line 3: id: 7 is a number, but the entity column is STRING; send \"7\"",
        ),
        ("{\"id\":\"a\",\"events\":[{}],\"if_match\":-1}", "line 3: if_match: expected a sequence or \"*\""),
        (
            "{\"id\":\"a\",\"events\":[{}],\"if_match\":\"7\"}",
            "line 3: invalid condition: send if_match with the last sequence",
        ),
        (
            "{\"id\":\"a\",\"events\":[{}],\"if_match\":1,\"if_none_match\":\"*\"}",
            "line 3: invalid condition: send if_match",
        ),
        ("{\"id\":\"a\",\"events\":[{}],\"idempotency_key\":\"\"}", "line 3: invalid idempotency_key: send 1 to"),
        ("{\"id\":\"a\",\"events\":[{}],\"expected\":1}", "line 3: unknown field `expected`"),
    ] {
        let reply = world.post(orders, format!("{good}\n\n{line}\n"));
        let body = reply.json();
        assert_eq!((reply.status, &body["code"]), (400, &json!("invalid_body")), "{line}: {body}");
        assert!(body["detail"].as_str().is_some_and(|text| text.starts_with(detail)), "{line}: {body}");
    }
    assert_eq!(world.post(orders, " \n\n").status, 400);
    let many = format!("{good}\n").repeat(10_001);
    assert_eq!(world.post(orders, many).status, 413);
    let long = format!("{{\"id\":\"a\",\"events\":[{}{{}}]}}", "{},".repeat(10_000));
    assert_eq!(world.post(orders, long).status, 413);
    assert_eq!(world.get("/v1/entities/order_events/a").status, 404, "nothing was written");
    assert_eq!(world.post("/v1/entities/plain", good).status, 404);
    assert_eq!(world.post("/v1/entities/nothing", good).status, 404);
    assert_eq!(world.post(&format!("{orders}?x=1"), good).status, 400);
    let number = "{\"id\":7,\"events\":[{\"at\":0}]}\n{\"id\":\"7\",\"if_match\":1,\"events\":[{\"at\":0}]}";
    let reply = world.post("/v1/entities/devices", number).json();
    assert_eq!(outcomes(&reply), [(200, Some(1)), (200, Some(2))], "{reply}");
    // As many as a request may have, all of one entity.
    let line = |i: usize| format!("{{\"id\":\"z\",\"if_match\":{i},\"events\":[{{\"event_id\":\"{i}\",\"at\":0}}]}}\n");
    let most: String = (0..10_000).map(line).collect();
    assert_eq!(world.post(orders, most).json()["succeeded"], json!(10_000));
}
