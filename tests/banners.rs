//! Tests the banners of the pages: a drift alarm is shown on every page with figures of the view and links to the
//! comparison; excluded rows are shown on the page of the view, suspicious event times on the streams page.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use world::World;
use world::browser::Browser;

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

#[test]
fn rows_whose_having_fails_are_counted_on_the_page_of_the_view() {
    let world = World::new(
        "CREATE STREAM texts (at TIMESTAMP, g STRING, t STRING) WITH (event_time = 'at');
         CREATE VIEW longest AS SELECT window_start, g, COUNT(*) AS n FROM texts
             GROUP BY TUMBLE(at, INTERVAL '1' HOUR), g HAVING LENGTH(CONCAT(MAX(t), MAX(t), MAX(t))) > 0;",
    );
    let send = |g: &str, bytes: usize| {
        let event = json!({"at": "2001-01-01T00:10:00Z", "g": g, "t": "x".repeat(bytes)}).to_string();
        assert_eq!(world.post("/v1/events/texts", event).status, 200);
    };
    send("short", 10);
    let browser = Browser::start();
    browser.open(&format!("{}/view/longest", world.url()));
    assert_eq!(banners(&browser, 0), json!([]), "every row is shown");
    send("long", 400_000);
    let seen = banners(&browser, 1);
    let text = seen[0][1].as_str().unwrap_or_default();
    assert!(text.starts_with("1 row excluded: ") && text.contains("text of more than 1048576 bytes"), "{seen}");
}

#[test]
fn suspicious_times_are_shown_on_the_streams_page_until_most_times_are_plausible() {
    let world = World::new(
        "CREATE STREAM clicks (at TIMESTAMP) WITH (event_time = 'at', watermark_delay = '1 hour');
         CREATE STREAM orders (at TIMESTAMP) WITH (event_time = 'at');
         CREATE VIEW n AS SELECT COUNT(*) AS n FROM clicks; CREATE VIEW o AS SELECT COUNT(*) AS n FROM orders;",
    );
    let browser = Browser::start();
    let send = |stream: &str, at: &str| {
        let answer = world.post(&format!("/v1/events/{stream}"), format!("{{\"at\":{at}}}"));
        assert_eq!(answer.json()["accepted"], json!(1), "{}", answer.text);
    };
    // Waits until the page shows that the stream has `events` events, so that the banner is up to date.
    let banners_after = |events: &str| -> Value {
        let script = format!(
            "const section = (stream) => document.getElementById(`stream-${{stream}}`);
            if (!section('clicks')?.textContent.includes('{events}')) return null;
            return ['clicks', 'orders'].map((stream) => section(stream).querySelector('.suspicious'))
              .map((one) => [one.getClientRects().length > 0, one.getAttribute('role'), one.textContent]);"
        );
        let begin = Instant::now();
        loop {
            let shown = browser.run(&script);
            if !shown.is_null() {
                return shown;
            }
            assert!(begin.elapsed() < PATIENCE, "the page never shows {events}");
            std::thread::sleep(Duration::from_millis(50));
        }
    };
    send("orders", "\"2025-11-28T10:15:00Z\"");
    // Seconds since 1970, read as milliseconds.
    send("clicks", "1764324900");
    browser.open(&format!("{}/streams", world.url()));
    let shown = banners_after("events1");
    let hint = world.get("/v1/streams/clicks").json()["suspicious_times"].as_str().expect("a hint").to_owned();
    assert!(hint.contains("FORMAT 'unix_s'"), "{hint}");
    assert_eq!(shown, json!([[true, "alert", hint], [false, "alert", ""]]));
    // The open page hides the banner when most times are plausible.
    send("clicks", "\"2025-11-28T10:15:00Z\"");
    assert_eq!(banners_after("events2"), json!([[false, "alert", ""], [false, "alert", ""]]));
}
