//! Tests that a drift alarm is shown on every page with figures of the view, and links to the comparison.

#[allow(dead_code, reason = "each test uses a part of it")]
mod browser;
#[allow(dead_code, reason = "each test uses a part of the world")]
mod world;

use std::time::{Duration, Instant};

use browser::Browser;
use serde_json::{Value, json};
use world::World;

const DEFINITIONS: &str = "
    CREATE STREAM sales (id STRING, at TIMESTAMP, units BIGINT)
        WITH (event_time = 'at', watermark_delay = '1 hour', allowed_lateness = '1 hour');
    CREATE VIEW sold WITH (max_drift = 0.001) AS
        SELECT window_start, COUNT(*) AS sales, SUM(units) AS units FROM sales GROUP BY TUMBLE(at, INTERVAL '6' HOUR);";
const PATIENCE: Duration = Duration::from_secs(60);

/// Reads the visible banners and the targets of their links.
const BANNERS: &str =
    "return [...document.querySelectorAll('.alarm.banner')].filter((one) => one.getClientRects().length)
    .map((one) => [one.getAttribute('role'), one.textContent, one.querySelector('a')?.getAttribute('href') ?? null]);";

fn banners(browser: &Browser, wanted: usize) -> Value {
    let begin = Instant::now();
    loop {
        let seen = browser.run(BANNERS);
        if seen.as_array().is_some_and(|banners| banners.len() == wanted) || begin.elapsed() > PATIENCE {
            return seen;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn drift_above_the_limit_shows_an_alarm_on_every_page() {
    let world = World::new(DEFINITIONS);
    let browser = Browser::start();
    let send = |id: &str, day: u32| {
        let event = format!(r#"{{"id":"{id}","at":"2001-01-{day:02}T12:00:00Z","units":3}}"#);
        assert_eq!(world.post("/v1/events/sales", event).status, 200);
    };
    send("a", 1);
    assert_eq!(world.run("sold", false)["state"], json!("published"));
    browser.open(&format!("{}/view/sold", world.url()));
    assert_eq!(banners(&browser, 0), json!([]), "there is no drift");
    // A late event: speed excludes it, batch includes it.
    send("b", 11);
    send("c", 1);
    assert_eq!(world.run("sold", false)["state"], json!("published"));
    let alarm = world.get("/v1/views/sold").json()["alarm"].as_str().expect("an alarm").to_owned();
    // The page that is already open, and every other page with figures of the view.
    for path in ["", "/", "/compare/sold"] {
        if !path.is_empty() {
            browser.open(&format!("{}{path}", world.url()));
        }
        let seen = banners(&browser, 1);
        let banner = &seen[0];
        assert_eq!((&banner[0], &banner[2]), (&json!("alert"), &json!("/compare/sold")), "{path}: {seen}");
        assert!(banner[1].as_str().is_some_and(|text| text.contains(&alarm)), "{path}: {seen} lacks {alarm}");
    }
    // The next comparison finds no drift, so the banner disappears.
    send("d", 12);
    assert_eq!(world.run("sold", false)["state"], json!("published"));
    browser.open(&format!("{}/", world.url()));
    let begin = Instant::now();
    while browser.run("return document.querySelector('.card[data-view=sold]')?.dataset.version;") != json!("3") {
        assert!(begin.elapsed() < PATIENCE, "the page never shows version 3");
        std::thread::sleep(Duration::from_millis(50));
    }
    assert_eq!(banners(&browser, 0), json!([]));
}
