//! Tests every kind of window over HTTP: ids, ends, finality, grains and refusals.

mod world;

use std::sync::atomic::Ordering;

use axum::http::StatusCode;
use serde_json::{Value, json};
use world::World;

fn stream_and(views: &str) -> String {
    format!(
        "CREATE STREAM s (at TIMESTAMP, k STRING, l STRING, n BIGINT)
         WITH (event_time = 'at', watermark_delay = '10 minutes', allowed_lateness = '1 hour'); {views}"
    )
}

fn event(at: &str, k: &str, n: i64) -> String {
    format!(r#"{{"at":"{at}","k":"{k}","l":"x","n":{n}}}"#) + "\n"
}

fn events(all: &[(&str, &str, i64)]) -> String {
    all.iter().map(|(at, k, n)| event(at, k, *n)).collect()
}

/// Starts, ends and counts of rows, times without their date's first part.
fn rows_of(rows: &[Value]) -> Vec<(String, String, i64)> {
    let text = |v: &Value| v.as_str().map_or("-".to_owned(), |t| t.trim_end_matches(":00Z").replace("2001-01-", ""));
    let row = |r: &Value| (text(&r["window_start"]), text(&r["window_end"]), r["c"].as_i64().expect("a count"));
    rows.iter().map(row).collect()
}

fn row(start: &str, end: &str, count: i64) -> (String, String, i64) {
    (start.to_owned(), end.to_owned(), count)
}

async fn refusal(world: &World, path: &str) -> String {
    let reply = world.get(path).await;
    let problem = reply.json();
    assert_eq!(reply.status, StatusCode::BAD_REQUEST, "{path}: {problem}");
    assert_eq!(problem["code"], "invalid_parameter", "{path}: {problem}");
    problem["detail"].as_str().expect("a detail").to_owned()
}

const BATCH: [(&str, &str, i64); 3] =
    [("2001-01-01T06:10:00Z", "a", 1), ("2001-01-01T07:10:00Z", "a", 2), ("2001-01-01T07:20:00Z", "b", 3)];
const LIVE: [(&str, &str, i64); 2] = [("2001-01-01T07:30:00Z", "a", 4), ("2001-01-01T09:00:00Z", "b", 5)];

fn world(view: &str) -> World {
    let world = World::new(&stream_and(view));
    world.publish(1, &events(&BATCH));
    world.live(&events(&LIVE));
    world.watermark("2001-01-01T08:50:00Z");
    world
}

#[tokio::test]
async fn hops_overlap_in_both_layers() {
    let world = world(
        "CREATE VIEW v AS SELECT window_start, window_end, k, COUNT(*) AS c, SUM(n) AS total
         FROM s GROUP BY HOP(at, INTERVAL '1' HOUR, INTERVAL '2' HOUR), k;",
    );
    let rows = world.rows("/v1/views/v/rows?group_by=").await;
    assert_eq!(
        rows_of(&rows),
        [
            row("01T05:00", "01T07:00", 1),
            row("01T06:00", "01T08:00", 4),
            row("01T07:00", "01T09:00", 3),
            row("01T08:00", "01T10:00", 1),
            row("01T09:00", "01T11:00", 1)
        ]
    );
    let of = |name: &str| rows.iter().map(|r| r[name].clone()).collect::<Vec<_>>();
    assert_eq!(of("_layer"), ["batch", "merged", "merged", "speed", "speed"]);
    assert_eq!(of("_finality"), ["final", "closed", "open", "open", "open"]);
    assert_eq!(of("total"), [1, 10, 9, 5, 5]);
    let batch = world.rows("/v1/views/v/rows?group_by=&layer=batch").await;
    assert_eq!(batch.iter().map(|r| r["_finality"].clone()).collect::<Vec<_>>(), ["final", "closed", "open"]);
    let speed = world.rows("/v1/views/v/rows?group_by=&layer=speed").await;
    assert_eq!(rows_of(&speed)[..2], [row("01T06:00", "01T08:00", 1), row("01T07:00", "01T09:00", 1)]);
    let cut = world.rows("/v1/views/v/rows?group_by=&from=2001-01-01T05:30:00Z&to=2001-01-01T07:00:00.000001Z").await;
    assert_eq!(rows_of(&cut), [row("01T06:00", "01T08:00", 4), row("01T07:00", "01T09:00", 3)]);
    let detail = refusal(&world, "/v1/views/v/rows?grain=1d").await;
    assert!(detail.contains("HOP") && detail.contains("TUMBLE"), "{detail}");
    assert!(refusal(&world, "/v1/views/v/rows?grain=all").await.contains("HOP"));
}

#[tokio::test]
async fn cumulated_windows_share_their_start_and_are_ordered_by_their_end() {
    let world = world(
        "CREATE VIEW v AS SELECT window_start, window_end, k, COUNT(*) AS c
         FROM s GROUP BY CUMULATE(at, INTERVAL '1' HOUR, INTERVAL '4' HOUR), k;",
    );
    let expected = [
        row("01T04:00", "01T07:00", 1),
        row("01T04:00", "01T08:00", 4),
        row("01T08:00", "01T10:00", 1),
        row("01T08:00", "01T11:00", 1),
        row("01T08:00", "01T12:00", 1),
    ];
    assert_eq!(rows_of(&world.rows("/v1/views/v/rows?group_by=").await), expected);
    let down = world.rows("/v1/views/v/rows?group_by=&order_by=-window_end").await;
    assert_eq!(rows_of(&down), expected.iter().rev().cloned().collect::<Vec<_>>());
    // Equal starts are ties, which the next column decides.
    let tied = world.rows("/v1/views/v/rows?group_by=&order_by=-window_start,-c").await;
    assert_eq!(
        rows_of(&tied),
        [&expected[2], &expected[3], &expected[4], &expected[1], &expected[0]].map(Clone::clone)
    );
    let finality = world.rows("/v1/views/v/rows?group_by=").await;
    let finality: Vec<_> = finality.iter().map(|r| r["_finality"].clone()).collect();
    assert_eq!(finality, ["final", "closed", "open", "open", "open"]);
    let cut = world.rows("/v1/views/v/rows?group_by=&from=2001-01-01T04:00:00.000001Z").await;
    assert_eq!(rows_of(&cut), expected[2..]);
    let cut = world.rows("/v1/views/v/rows?group_by=&to=2001-01-01T08:00:00Z").await;
    assert_eq!(rows_of(&cut), expected[..2]);
    assert!(refusal(&world, "/v1/views/v/rows?grain=4h").await.contains("CUMULATE"));
}

#[tokio::test]
async fn the_trailing_window_ends_at_as_of() {
    let world = world(
        "CREATE VIEW v AS SELECT window_start, window_end, k, COUNT(*) AS c, SUM(n) AS total
         FROM s GROUP BY SLIDE(at, INTERVAL '1' HOUR), k;",
    );
    let ask = async |query: &str| {
        let reply = world.get(&format!("/v1/views/v/rows?{query}")).await;
        assert_eq!(reply.status, StatusCode::OK, "{query}: {}", reply.text());
        let as_of = reply.header("trueup-as-of").map(str::to_owned);
        let document = reply.json();
        assert_eq!(document["as_of"].as_str(), as_of.as_deref());
        (document["as_of"].clone(), document["rows"].as_array().expect("rows").clone())
    };
    let (as_of, rows) = ask("as_of=2001-01-01T08:10:00Z").await;
    assert_eq!(as_of, "2001-01-01T08:10:00Z");
    assert_eq!(rows_of(&rows), [row("01T07:10", "01T08:10", 2), row("01T07:10", "01T08:10", 1)]);
    assert_eq!((&rows[0]["_layer"], &rows[0]["_finality"]), (&json!("merged"), &json!("closed")));
    assert_eq!((&rows[1]["_layer"], &rows[1]["_finality"]), (&json!("batch"), &json!("closed")));
    // Half open: an event counts from the instant after it until the window's size has passed.
    for (as_of, total) in [
        ("2001-01-01T07:10:00Z", 1),
        ("2001-01-01T07:10:00.000001Z", 2),
        ("2001-01-01T08:10:00Z", 6),
        ("2001-01-01T08:10:00.000001Z", 4),
        ("2001-01-01T08:30:00Z", 4),
    ] {
        let rows = ask(&format!("as_of={as_of}&where=k = 'a'")).await.1;
        assert_eq!(rows[0]["total"], total, "{as_of}");
    }
    assert_eq!(ask("as_of=2001-01-01T08:30:00.000001Z&where=k = 'a'").await.1, [] as [Value; 0]);
    // The clock stands at noon of the next day.
    assert_eq!(ask("").await, (json!("2001-01-02T12:00:00Z"), Vec::new()));
    assert_eq!(ask("as_of=now").await, ask("").await);
    world.latest_event("2001-01-01T09:00:00Z");
    let (as_of, rows) = ask("as_of=latest").await;
    assert_eq!((as_of, rows.len(), &rows[0]["c"]), (json!("2001-01-01T09:00:00.000001Z"), 1, &json!(1)));
    assert_eq!(rows[0]["_finality"], "open");
    let batch = ask("as_of=2001-01-01T07:30:00Z&layer=batch&group_by=").await.1;
    assert_eq!((&batch[0]["c"], &batch[0]["_finality"]), (&json!(2), &json!("final")));
    let batch = ask("as_of=2001-01-01T07:40:00Z&layer=batch&group_by=").await.1;
    assert_eq!((&batch[0]["c"], &batch[0]["_finality"]), (&json!(2), &json!("closed")));
    for query in ["from=2001-01-01", "to=2001-01-01", "grain=1h", "grain=all"] {
        assert!(refusal(&world, &format!("/v1/views/v/rows?{query}")).await.contains("as_of"), "{query}");
    }
    assert!(refusal(&world, "/v1/views/v/rows?as_of=yesterday").await.contains("latest"));
}

#[tokio::test]
async fn pages_of_a_trailing_window_share_one_instant() {
    let world = world(
        "CREATE VIEW v AS SELECT window_start, window_end, k, COUNT(*) AS c FROM s GROUP BY SLIDE(at, INTERVAL '2' DAY), k;",
    );
    let first = world.get("/v1/views/v/rows?limit=1").await.json();
    world.clock.set(shared::time::Micros::parse("2001-01-03T09:00:00Z").expect("a time"));
    let next = first["next"].as_str().expect("two keys");
    let second = world.get(&format!("/v1/views/v/rows?limit=1&cursor={next}")).await.json();
    assert_eq!((&second["as_of"], &second["rows"][0]["c"]), (&first["as_of"], &json!(2)));
    assert_ne!(world.get("/v1/views/v/rows").await.json()["as_of"], first["as_of"]);
}

#[tokio::test]
async fn the_instant_is_rounded_down_to_the_step() {
    let world = world(
        "CREATE VIEW v AS SELECT window_start, window_end, k, COUNT(*) AS c
         FROM s GROUP BY SLIDE(at, INTERVAL '1' HOUR, INTERVAL '10' MINUTE), k;",
    );
    let reply = world.get("/v1/views/v/rows?as_of=2001-01-01T08:19:59Z&group_by=").await.json();
    assert_eq!(reply["as_of"], "2001-01-01T08:10:00Z");
    assert_eq!(rows_of(reply["rows"].as_array().expect("rows")), [row("01T07:10", "01T08:10", 3)]);
    world.latest_event("2001-01-01T09:00:00Z");
    assert_eq!(world.get("/v1/views/v/rows?as_of=latest").await.json()["as_of"], "2001-01-01T09:10:00Z");
}

const SESSIONS: &str = "CREATE VIEW v AS SELECT window_start, window_end, k, COUNT(*) AS c
                        FROM s GROUP BY SESSION(at, INTERVAL '30' MINUTE), k;";

#[tokio::test]
async fn sessions_are_stitched_across_the_seam() {
    let world = World::new(&stream_and(SESSIONS));
    world.publish(
        1,
        &events(&[
            ("2001-01-01T06:00:00Z", "a", 1),
            ("2001-01-01T06:20:00Z", "a", 1),
            ("2001-01-01T07:10:00Z", "a", 1),
            ("2001-01-01T06:00:00Z", "b", 1),
        ]),
    );
    world.watermark("2001-01-01T09:00:00Z");
    let before = world.rows("/v1/views/v/rows").await;
    assert_eq!(
        rows_of(&before),
        [row("01T06:00", "01T06:50", 2), row("01T06:00", "01T06:30", 1), row("01T07:10", "01T07:40", 1)]
    );
    world.live(&events(&[("2001-01-01T06:45:00Z", "a", 1), ("2001-01-01T07:39:59Z", "b", 1)]));
    let rows = world.rows("/v1/views/v/rows").await;
    assert_eq!(
        rows_of(&rows),
        [row("01T06:00", "01T07:40", 4), row("01T06:00", "01T06:30", 1), row("01T07:39:59Z", "01T08:09:59Z", 1)]
    );
    assert_eq!((&rows[0]["_layer"], &rows[1]["_layer"]), (&json!("merged"), &json!("batch")));
    assert_eq!((&rows[0]["_finality"], &rows[1]["_finality"]), (&json!("closed"), &json!("final")));
    // A live session joins both sessions of batch.
    let batch = world.rows("/v1/views/v/rows?layer=batch").await;
    assert_eq!(
        batch.iter().map(|r| r["_finality"].clone()).collect::<Vec<_>>(),
        [json!("closed"), json!("final"), json!("closed")]
    );
    let longest = world.rows("/v1/views/v/rows?order_by=-window_end&limit=1").await;
    assert_eq!(rows_of(&longest), [row("01T07:39:59Z", "01T08:09:59Z", 1)]);
    // Of all keys together.
    assert_eq!(rows_of(&world.rows("/v1/views/v/rows?group_by=").await), [row("01T06:00", "01T08:09:59Z", 6)]);
    for grain in ["1h", "1d", "all"] {
        assert!(refusal(&world, &format!("/v1/views/v/rows?grain={grain}")).await.contains("SESSION"), "{grain}");
    }
}

/// A small generator of numbers, the same on every run.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % bound
    }
}

#[tokio::test]
async fn any_range_of_sessions_is_a_slice_of_all_sessions() {
    let mut numbers = Numbers(7);
    let mut parts_read = 0;
    for _ in 0..12 {
        let world = World::new(&stream_and(SESSIONS));
        // Two weeks in which sessions often extend over midnight and live events often join them.
        let mut some = |count: usize| {
            let mut text = String::new();
            for _ in 0..count {
                let minutes = numbers.below(14 * 144) * 10;
                let burst = numbers.below(4);
                for step in 0..=burst {
                    let at = shared::time::Micros((11_323 * 1440 + (minutes + step * 20) as i64) * 60_000_000);
                    text.push_str(&event(&at.to_string(), ["a", "b", "c"][numbers.below(3) as usize], 1));
                }
            }
            text
        };
        world.publish(1, &some(80));
        world.live(&some(40));
        world.watermark("2001-01-20T00:00:00Z");
        for group_by in ["k", ""] {
            for layer in ["merged", "batch", "speed"] {
                let path = format!("/v1/views/v/rows?group_by={group_by}&layer={layer}");
                let whole = world.rows(&path).await;
                let all_read = world.batch.read.swap(0, Ordering::SeqCst);
                for _ in 0..8 {
                    let from = shared::time::Micros((11_322 * 1440 + numbers.below(16 * 144) as i64 * 10) * 60_000_000);
                    let to = shared::time::Micros(from.0 + numbers.below(400) as i64 * 600_000_000);
                    let inside = |row: &&Value| {
                        let start = row["window_start"].as_str().and_then(shared::time::Micros::parse);
                        start.is_some_and(|start| start >= from && start < to)
                    };
                    let expected: Vec<Value> = whole.iter().filter(inside).cloned().collect();
                    let cut = world.rows(&format!("{path}&from={from}&to={to}")).await;
                    assert_eq!(cut, expected, "{path} from {from} to {to}");
                    if group_by == "k" && layer == "merged" {
                        let read = world.batch.read.swap(0, Ordering::SeqCst);
                        assert!(read <= all_read);
                        parts_read += all_read - read;
                    }
                }
                world.batch.read.store(0, Ordering::SeqCst);
            }
        }
    }
    assert!(parts_read > 100, "ranges were read for no less than everything: {parts_read}");
}

#[tokio::test]
async fn days_weeks_and_months_follow_the_zone_of_the_view() {
    // Vienna goes to summer time on 2001-03-25, at 01:00 UTC.
    let world = World::new(&stream_and(
        "CREATE VIEW hours WITH (time_zone = 'Europe/Vienna') AS SELECT window_start, window_end, k, COUNT(*) AS c
         FROM s GROUP BY TUMBLE(at, INTERVAL '1' HOUR), k;
         CREATE VIEW days WITH (time_zone = 'Europe/Vienna') AS SELECT window_start, window_end, k, COUNT(*) AS c
         FROM s GROUP BY TUMBLE(at, INTERVAL '1' DAY), k;",
    ));
    world.publish(
        1,
        &events(&[
            ("2001-03-24T22:59:00Z", "a", 1),
            ("2001-03-24T23:00:00Z", "a", 1),
            ("2001-03-25T21:59:00Z", "a", 1),
            ("2001-03-25T22:00:00Z", "a", 1),
        ]),
    );
    world.live(&events(&[("2001-03-31T21:59:00Z", "a", 1), ("2001-03-31T22:00:00Z", "a", 1)]));
    world.watermark("2001-03-25T22:00:00Z");
    let bounds = |rows: &[Value]| {
        let text =
            |v: &Value| v.as_str().expect("a time").trim_start_matches("2001-").trim_end_matches(":00Z").to_owned();
        rows.iter()
            .map(|r| (text(&r["window_start"]), text(&r["window_end"]), r["c"].as_i64().expect("a count")))
            .collect::<Vec<_>>()
    };
    let expected_days = [
        row("03-23T23:00", "03-24T23:00", 1),
        // This day has 23 hours.
        row("03-24T23:00", "03-25T22:00", 2),
        row("03-25T22:00", "03-26T22:00", 1),
        row("03-30T22:00", "03-31T22:00", 1),
        row("03-31T22:00", "04-01T22:00", 1),
    ];
    let days = world.rows("/v1/views/days/rows").await;
    assert_eq!(bounds(&days), expected_days);
    assert_eq!((&days[1]["_finality"], &days[2]["_finality"]), (&json!("closed"), &json!("open")));
    assert_eq!(bounds(&world.rows("/v1/views/hours/rows?grain=1d").await), expected_days);
    let cut = world.rows("/v1/views/hours/rows?grain=1d&from=2001-03-24T00:00:00Z&to=2001-03-25T22:00:00Z").await;
    assert_eq!(bounds(&cut), expected_days[1..2]);
    for view in ["hours", "days"] {
        let of = async |grain: &str| bounds(&world.rows(&format!("/v1/views/{view}/rows?grain={grain}")).await);
        // Weeks from Monday.
        assert_eq!(
            of("1w").await,
            [row("03-18T23:00", "03-25T22:00", 3), row("03-25T22:00", "04-01T22:00", 3)],
            "{view}"
        );
        assert_eq!(
            of("1mo").await,
            [row("02-28T23:00", "03-31T22:00", 5), row("03-31T22:00", "04-30T22:00", 1)],
            "{view}"
        );
        assert_eq!(
            of("1q").await,
            [row("2000-12-31T23:00", "03-31T22:00", 5), row("03-31T22:00", "06-30T22:00", 1)],
            "{view}"
        );
        assert_eq!(of("1y").await, [row("2000-12-31T23:00", "12-31T23:00", 6)], "{view}");
    }
    let fixed = world.rows("/v1/views/hours/rows?grain=24h").await;
    assert_eq!(bounds(&fixed)[0], row("03-24T00:00", "03-25T00:00", 2));
    let detail = refusal(&world, "/v1/views/days/rows?grain=24h").await;
    assert!(detail.contains("calendar of Europe/Vienna") && detail.contains("1d, 1w, 1mo, 1q, 1y, all"), "{detail}");
}

#[tokio::test]
async fn windows_that_do_not_fill_a_zones_days_are_refused() {
    let world = World::new(&stream_and(
        "CREATE VIEW v WITH (time_zone = 'Asia/Kolkata') AS SELECT window_start, k, COUNT(*) AS c
         FROM s GROUP BY TUMBLE(at, INTERVAL '1' HOUR), k;",
    ));
    world.publish(1, &events(&[("2001-01-01T18:10:00Z", "a", 1)]));
    // Midnight is at 18:30 UTC there.
    let detail = refusal(&world, "/v1/views/v/rows?grain=1d").await;
    assert!(detail.contains("2001-01-01T18:00:00Z") && detail.contains("24h"), "{detail}");
    assert_eq!(world.rows("/v1/views/v/rows?grain=24h").await[0]["c"], 1);
}

#[tokio::test]
async fn having_filters_the_rows_of_the_result() {
    let world = world(
        "CREATE VIEW v AS SELECT window_start, window_end, k, COUNT(*) AS c, SUM(n) AS total
         FROM s GROUP BY TUMBLE(at, INTERVAL '1' HOUR), k HAVING SUM(n) + COUNT(*) > 4;",
    );
    let shown = async |query: &str| rows_of(&world.rows(&format!("/v1/views/v/rows?{query}")).await);
    // At seven a has 2 and 4, b has 3; at six a has 1, at nine b has 5.
    assert_eq!(shown("").await, [row("01T07:00", "01T08:00", 2), row("01T09:00", "01T10:00", 1)]);
    assert_eq!(shown("layer=batch").await, []);
    assert_eq!(shown("layer=batch&group_by=").await, [row("01T07:00", "01T08:00", 2)]);
    assert_eq!(shown("grain=1d").await, [row("01T00:00", "02T00:00", 3), row("01T00:00", "02T00:00", 2)]);
    assert_eq!(shown("grain=1d&where=c < 3").await, [row("01T00:00", "02T00:00", 2)]);
    let first = world.get("/v1/views/v/rows?limit=1").await.json();
    assert!(first["next"].is_string());
    let first = world.get("/v1/views/v/rows?limit=2").await.json();
    assert_eq!(first["next"], Value::Null);
}

#[tokio::test]
async fn every_kind_of_window_is_described() {
    let world = world(
        "CREATE VIEW hop AS SELECT window_start, COUNT(*) AS c FROM s GROUP BY HOP(at, INTERVAL '1' HOUR, INTERVAL '2' HOUR);
         CREATE VIEW cumulate AS SELECT window_start, COUNT(*) AS c FROM s GROUP BY CUMULATE(at, INTERVAL '1' HOUR, INTERVAL '4' HOUR);
         CREATE VIEW slide AS SELECT window_start, COUNT(*) AS c FROM s GROUP BY SLIDE(at, INTERVAL '1' HOUR);
         CREATE VIEW session AS SELECT window_start, COUNT(*) AS c FROM s GROUP BY SESSION(at, INTERVAL '30' MINUTE);
         CREATE VIEW month WITH (time_zone = 'Europe/Vienna') AS SELECT window_start, COUNT(*) AS c FROM s GROUP BY TUMBLE(at, INTERVAL '1' MONTH);",
    );
    for (view, window, newest) in [
        (
            "hop",
            json!({"kind": "hop", "text": "HOP of 2 hours every hour in UTC", "time_zone": "UTC",
                   "size_ms": 7_200_000, "slide_ms": 3_600_000, "offset_ms": 0}),
            json!("2001-01-01T09:00:00Z"),
        ),
        (
            "cumulate",
            json!({"kind": "cumulate", "text": "CUMULATE up to 4 hours by 1 hour in UTC", "time_zone": "UTC",
                   "size_ms": 14_400_000, "step_ms": 3_600_000, "offset_ms": 0}),
            json!("2001-01-01T08:00:00Z"),
        ),
        ("slide", json!({"kind": "slide", "text": "SLIDE over the last 1 hour", "size_ms": 3_600_000}), Value::Null),
        (
            "session",
            json!({"kind": "session", "text": "SESSION with gaps of less than 30 minutes", "gap_ms": 1_800_000}),
            json!("2001-01-01T09:00:00Z"),
        ),
        (
            "month",
            json!({"kind": "tumble", "text": "TUMBLE of 1 month in Europe/Vienna", "time_zone": "Europe/Vienna"}),
            json!("2000-12-31T23:00:00Z"),
        ),
    ] {
        let described = world.get(&format!("/v1/views/{view}")).await.json();
        assert_eq!(described["window"], window, "{view}");
        assert_eq!(described["newest_window"], newest, "{view}");
    }
    let page = world.get("/").await.text();
    for expected in [
        r#"data-window-ms="3600000"
    data-kind="hop" data-measure="c""#,
        r#"data-kind="session" data-measure="c""#,
        r#"data-window-ms="0"
    data-kind="slide" data-measure="c""#,
        "in windows of 2 hours every hour",
        "in windows that grow to 4 hours by 1 hour",
        "over the last 1 hour",
        "in sessions with gaps of less than 30 minutes",
        "in windows of 1 month",
    ] {
        assert!(page.contains(expected), "{expected} is not in {page}");
    }
}
