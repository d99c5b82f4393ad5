//! Runs the example of a shop against the real server: no rule is ever broken, however many clients there are; and the roles
//! of a process.

use std::process::Command;

use serde_json::{Value, json};
use world::{World, program, root};

use crate::ORDERS;
use crate::client::{Client, event, members};

fn shop(python: &std::path::Path, world: &World, arguments: &[&str]) -> (Option<i32>, String) {
    let script = root().join("examples/shop/shop.py");
    let mut command = Command::new(python);
    command.current_dir(world.data.path()).arg("-B").arg(script).args(["--url", world.url()]).args(arguments);
    let output = command.output().expect("Python starts");
    (output.status.code(), program::text(&output))
}

#[test]
fn ten_clients_at_once_break_no_rule() {
    let Some(python) = program::python() else { return };
    let world = World::new(&std::fs::read_to_string(root().join("examples/shop/shop.sql")).expect("the example"));
    let (code, text) = shop(&python, &world, &["create", "o-1", "alice", "12.50"]);
    assert_eq!((code, text.trim()), (Some(0), "1"));
    assert_eq!(shop(&python, &world, &["create", "o-1", "bob", "1"]).0, Some(1));
    let (code, text) = shop(&python, &world, &["ship", "o-1"]);
    assert_eq!((code, text.trim()), (Some(1), "o-1 is not paid"));
    assert_eq!(shop(&python, &world, &["pay", "o-1", "12.49"]).0, Some(1));
    assert_eq!(shop(&python, &world, &["pay", "o-1", "12.50"]).1.trim(), "2");
    assert_eq!(shop(&python, &world, &["ship", "o-1"]).1.trim(), "3");
    let past: Value =
        serde_json::from_str(&shop(&python, &world, &["show", "o-1", "--sequence", "2"]).1).expect("JSON");
    assert_eq!((&past["customer"], &past["paid"], &past["shipped"]), (&json!("alice"), &json!(1), &json!(0)));

    let (code, text) = shop(&python, &world, &["race", "--orders", "12", "--clients", "10", "--commands", "30"]);
    assert_eq!(code, Some(0), "{text}");
    let race: Value = serde_json::from_str(text.trim()).expect("JSON");
    assert!(race["refused"].as_u64() > Some(50), "rules were tried: {race}");
    let client = Client::of(&world);
    let mut counts = [0, 0, 0];
    for order in 0..12 {
        let events = client.events(&format!("order-{order}"), 100);
        let kinds = members(&events, "kind");
        let rule = [json!("created"), json!("paid"), json!("shipped")];
        assert_eq!(kinds[..], rule[..kinds.len()], "each once, in this order");
        assert!(events.iter().skip(1).take(1).all(|paid| paid["amount"] == events[0]["amount"]));
        for (count, _) in counts.iter_mut().zip(&kinds) {
            *count += 1;
        }
    }
    assert_eq!(counts.map(|n| json!(n)), [race["created"].clone(), race["paid"].clone(), race["shipped"].clone()]);
    let status: Value = serde_json::from_str(&shop(&python, &world, &["status"]).1).expect("JSON");
    // With the order before the race.
    assert_eq!(status["unpaid"], json!(counts[0] - counts[1]), "{status}");
    assert_eq!(status["to_ship"], json!(counts[1] - counts[2]), "{status}");
    assert_eq!(status["shipped"], json!(counts[2] + 1), "{status}");
}

#[test]
fn a_process_refuses_the_requests_of_the_other_side() {
    let mut world = World::new(ORDERS);
    let append = |world: &World| Client::of(world).append("o-1", &[event("a", "created", 1)], &[]).status;
    assert_eq!(append(&world), 200);
    for (roles, commands, queries) in [("queries", 421, 200), ("commands", 200, 421), ("commands,queries", 200, 200)] {
        assert_eq!(world.stop(), Some(0));
        world.set_arguments(&["--roles", roles]);
        world.start();
        assert_eq!(append(&world), commands, "{roles}");
        assert_eq!(
            world.post("/v1/events/order_events", "{\"event_id\":\"b\",\"at\":0,\"order_id\":\"o-2\"}").status,
            commands
        );
        for path in
            ["/v1/views/order_states/rows", "/v1/views", "/v1/runs", "/v1/entities/order_events?view=order_states", "/"]
        {
            assert_eq!(world.get(path).status, queries, "{roles} {path}");
        }
        // Commands are decided by these, and every process is watched.
        for path in [
            "/v1/entities/order_events/o-1",
            "/v1/entities/order_events/o-1/events",
            "/livez",
            "/metrics",
            "/v1/streams",
        ] {
            assert_eq!(world.get(path).status, 200, "{roles} {path}");
        }
    }
    assert_eq!(world.stop(), Some(0));
    let refused = world.trueup().arg("serve").arg(world.definitions()).args(["--roles", "intake"]).output();
    let refused = refused.expect("trueup runs");
    assert_eq!(refused.status.code(), Some(2));
    assert!(program::text(&refused).contains("not supported yet"), "{}", program::text(&refused));
}
