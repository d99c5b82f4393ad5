//! The page of alerts shows what the API returns, also when it changes, and is accessible.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use world::World;
use world::browser::{Browser, axe};

const DEFINITIONS: &str = "
    CREATE STREAM visits (id STRING PRIMARY KEY, at TIMESTAMP, user STRING) WITH (event_time = 'at');
    CREATE VIEW whole AS SELECT user, COUNT(*) AS n FROM visits GROUP BY user;
    CREATE ALERT often ON whole WHEN n >= 2;";
const ROWS: &str = "return [...document.querySelectorAll('#records tbody tr')].map((row) => [row.children[1].textContent, row.children[2].textContent, row.children[3].textContent]);";

fn wait(browser: &Browser, what: &str, script: &str, expected: &Value) {
    let begin = Instant::now();
    loop {
        let found = browser.run(script);
        if found == *expected {
            return;
        }
        assert!(begin.elapsed() < Duration::from_secs(60), "timed out waiting for {what}: {found}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn the_page_shows_alerts_as_they_change() {
    let world = World::new(DEFINITIONS);
    let browser = Browser::start();
    browser.open(&format!("{}/alerts", world.url()));
    let declared = "return [...document.querySelectorAll('#declared tbody tr')].map((row) => [...row.children].map((cell) => cell.textContent));";
    wait(&browser, "the declared alert", declared, &json!([["often", "whole", "n >= 2", "user", "–"]]));
    wait(&browser, "an empty list", "return document.getElementById('nothing').hidden;", &json!(false));
    for (id, user) in [("1", "a<b>"), ("2", "a<b>"), ("3", "c"), ("4", "c")] {
        let event = json!({"id": id, "at": "2026-01-05T10:00:00Z", "user": user});
        assert_eq!(world.post("/v1/events/visits", event.to_string()).status, 200);
    }
    wait(&browser, "both alerts", ROWS, &json!([["raised", "c", "n 2"], ["raised", "a<b>", "n 2"]]));
    let points =
        "return document.getElementById('timeline').data?.map((trace) => [trace.name, trace.x.length]) ?? null;";
    wait(&browser, "the timeline", points, &json!([["raised", 2]]));
    assert_eq!(world.run("whole", false)["state"], json!("published"));
    wait(&browser, "the judgement", points, &json!([["confirmed", 2]]));
    browser.run("document.querySelector('[data-state=raised]').click();");
    let listed = "return document.getElementById('listed').textContent;";
    wait(&browser, "no raised alert", listed, &json!("No alerts in this state."));
    browser.run("document.querySelector('[data-state=confirmed]').click();");
    wait(&browser, "the confirmed ones", listed, &json!("2 of 2, last changed first"));
    if let Some(script) = axe::script() {
        axe::assert_accessible(&browser, &script, "/alerts", |browser| {
            wait(browser, "the page", listed, &json!("2 of 2, last changed first"));
        });
    }
}
