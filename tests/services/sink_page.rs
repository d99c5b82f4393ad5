//! The page of sinks shows what the API returns, also when it changes, pauses and resumes sinks, and is accessible.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use world::browser::{Browser, axe};

use crate::broker::shared;
use crate::sinks::{sink, written};
use crate::topic::Topic;

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

/// A script that returns the state of a sink and a fact of it.
fn fact(sink: &str, term: &str) -> String {
    format!(
        "const panel = document.querySelector('[data-sink={sink}]');
         const facts = [...panel?.querySelectorAll('.facts > div') ?? []];
         const found = facts.find((fact) => fact.querySelector('dt').textContent === '{term}');
         return panel ? [panel.querySelector('.now').textContent, found?.querySelector('dd').textContent ?? null] : null;"
    )
}

#[test]
fn the_page_shows_sinks_as_they_change_and_controls_them() {
    let Some(broker) = shared() else { return };
    let output = Topic::create(broker, 1);
    let sql = format!(
        "CREATE STREAM s (at TIMESTAMP, k STRING) WITH (event_time = 'at');
         CREATE VIEW counts AS SELECT window_start, k, COUNT(*) AS n FROM s GROUP BY TUMBLE(at, INTERVAL '1' HOUR), k;
         CREATE SINK works FROM counts WITH (connection = 'main', topic = '{}', emit = 'final', every = '50 milliseconds');
         CREATE SINK fails FROM counts WITH (connection = 'main', topic = 'no.such.topic');",
        output.name
    );
    let world = output.world(&sql);
    let browser = Browser::start();
    browser.open(&format!("{}/sinks", world.url()));
    wait(&browser, "the panels", "return document.querySelectorAll('.sink').length;", &json!(2));
    for (k, at) in [("a<b>", "10:00"), ("c", "10:30"), ("a<b>", "11:00")] {
        let event = json!({"at": format!("2026-01-05T{at}:00Z"), "k": k});
        assert_eq!(world.post("/v1/events/s", event.to_string()).status, 200);
    }
    written(&world, "works");
    wait(&browser, "the rows", &fact("works", "topic has"), &json!(["running", "2 rows"]));
    wait(&browser, "the lag", &fact("works", "lag"), &json!(["running", "0 events"]));
    wait(&browser, "the watermark", &fact("works", "final until"), &json!(["running", "2026-01-05 11:00"]));
    wait(&browser, "no watermark", &fact("fails", "final until"), &json!(["failing", null]));
    let reason = "return document.querySelector('[data-sink=fails] .reason').textContent.includes('no.such.topic');";
    wait(&browser, "the error", reason, &json!(true));
    let path = "return document.querySelector('[data-sink=works] .path').textContent;";
    let expected = format!("counts → {} (connection main): final rows by window_start, k", output.name);
    wait(&browser, "the path", path, &json!(expected));
    // The first click asks.
    browser.run("document.querySelector('[data-sink=works] button').click();");
    assert_eq!(sink(&world, "works")["state"], "running");
    browser.run("document.querySelector('[data-sink=works] button').click();");
    wait(&browser, "the pause", &fact("works", "topic has"), &json!(["paused", "2 rows"]));
    assert_eq!(sink(&world, "works")["state"], "paused");
    browser.run("document.querySelectorAll('[data-sink=works] button')[1].click();");
    wait(&browser, "the end of the pause", &fact("works", "topic has"), &json!(["running", "2 rows"]));
    if let Some(script) = axe::script() {
        axe::assert_accessible(&browser, &script, "/sinks", |browser| {
            wait(browser, "the page", &fact("works", "topic has"), &json!(["running", "2 rows"]));
        });
    }
}
