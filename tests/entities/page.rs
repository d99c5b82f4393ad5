//! Tests the page of an entity in a browser: the state, the history with what each event changed, and live updates.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use world::World;
use world::browser::{Browser, axe};

use crate::ORDERS;
use crate::client::{Client, event};

fn wait(browser: &Browser, what: &str, script: &str) -> Value {
    let begin = Instant::now();
    loop {
        let found = browser.run(script);
        if !matches!(found, Value::Null | Value::Bool(false)) {
            return found;
        }
        assert!(begin.elapsed() < Duration::from_secs(60), "timed out waiting for {what}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn the_page_shows_the_state_and_what_each_event_changed() {
    let world = World::new(ORDERS);
    let client = Client::of(&world);
    for (id, kind, amount) in [("1", "created", 5), ("2", "paid", 0), ("3", "<b>&shipped</b>", 2)] {
        client.append("o%2F1", &[event(id, kind, amount)], &[]);
    }
    let browser = Browser::start();
    browser.open(&format!("{}/entity/order_events/o%2F1", world.url()));
    let at = |sequence: u64| format!("return document.getElementById('entity').dataset.sequence === '{sequence}';");
    wait(&browser, "the history", &at(3));
    let cells = |class: &str| {
        let script = format!(
            "return [...document.querySelectorAll('.{class} tbody tr')].map((row) => [...row.children].map((cell) => cell.innerText));"
        );
        browser.run(&script)
    };
    let states = cells("states").to_string();
    assert!(states.contains(r#"["order_states.kind","<b>&shipped</b>"]"#), "{states}");
    let history = cells("history");
    let rows = history.as_array().expect("rows");
    assert_eq!(rows.iter().map(|row| row[0].clone()).collect::<Vec<_>>(), [json!("3"), json!("2"), json!("1")]);
    let effect = |row: usize| rows[row].as_array().and_then(|row| row.last()).expect("a cell").to_string();
    assert!(effect(0).contains("order_states.kind: paid → <b>&shipped</b>"), "{history}");
    assert!(effect(1).contains("order_states.payments: 0 → 1"), "{history}");
    assert!(effect(2).contains("order_states.events: – → 1"), "{history}");
    client.append("o%2F1", &[event("4", "closed", 0)], &[]);
    wait(&browser, "the next event", &at(4));
    if let Some(script) = axe::script() {
        axe::assert_accessible(&browser, &script, "the page of an entity", |_| {});
    }
    assert_eq!(client.get("/entity/none/a").status, 404);
}
