//! Tests the rows endpoint: every parameter, every layer, finality and the ledger.

mod world;

use axum::http::StatusCode;
use serde_json::{Value, json};
use shared::ids::Offset;
use shared::ledger::Ledger;
use std::sync::atomic::Ordering;
use world::{P0, World};

const SQL: &str = "
CREATE STREAM flights (
  id BIGINT PRIMARY KEY, at TIMESTAMP, origin STRING, dest STRING, delay BIGINT, fare DECIMAL(10,2), share DOUBLE
) WITH (event_time = 'at', watermark_delay = '10 minutes', allowed_lateness = '2 hours');

CREATE VIEW departures WITH (schedule = '*/15 * * * *') AS
SELECT window_start, window_end, origin, dest, COUNT(*) AS flights, SUM(delay) AS delay, SUM(fare) AS fare, AVG(share) AS share
FROM flights GROUP BY TUMBLE(at, INTERVAL '1' HOUR), origin, dest;

CREATE VIEW ratios AS SELECT window_start, origin, SUM(delay) / COUNT(*) AS mean_delay
FROM flights GROUP BY TUMBLE(at, INTERVAL '1' HOUR), origin;

CREATE VIEW everything AS SELECT COUNT(*) AS flights FROM flights;

CREATE VIEW totals AS SELECT origin, COUNT(*) AS flights, MAX(delay) AS worst FROM flights GROUP BY origin;
";

const BATCH: &str = r#"
{"id":1,"at":"2001-01-01T06:10:00Z","origin":"ATL","dest":"JFK","delay":5,"fare":"10.50","share":0.5}
{"id":2,"at":"2001-01-01T06:20:00Z","origin":"ATL","dest":"JFK","delay":-3,"fare":"0.05","share":1.5}
{"id":3,"at":"2001-01-01T06:30:00Z","origin":"ORD","dest":"JFK","delay":null,"fare":null,"share":null}
{"id":4,"at":"2001-01-01T07:00:00Z","origin":"ATL","dest":"LAX","delay":7,"fare":"1.00","share":2.0}
"#;
const LIVE: &str = r#"
{"id":5,"at":"2001-01-01T06:40:00Z","origin":"ATL","dest":"JFK","delay":10,"fare":"2.00","share":1.0}
{"id":6,"at":"2001-01-01T08:15:00Z","origin":null,"dest":"LAX","delay":1,"fare":"1.25","share":0.25}
"#;

fn world() -> World {
    let world = World::new(SQL);
    world.publish(12, BATCH);
    world.live(LIVE);
    world.watermark("2001-01-01T08:05:00Z");
    world
}

fn column(rows: &[Value], name: &str) -> Vec<Value> {
    rows.iter().map(|row| row[name].clone()).collect()
}

#[tokio::test]
async fn the_document_follows_the_contract() {
    let reply = world().get("/v1/views/departures/rows?group_by=origin&measures=flights,fare").await;
    assert_eq!(reply.status, StatusCode::OK);
    assert_eq!(reply.header("content-type"), Some("application/json"));
    let row = |hour: u32, origin: Value, flights: u32, fare: Value, layer: &str, finality: &str| {
        json!({"window_start": format!("2001-01-01T{hour:02}:00:00Z"), "window_end": format!("2001-01-01T{:02}:00:00Z", hour + 1),
               "origin": origin, "flights": flights, "fare": fare, "_layer": layer, "_finality": finality})
    };
    let expected = json!({
        "view": "departures", "layer": "merged",
        "columns": [
            {"name": "window_start", "type": "TIMESTAMP", "role": "window"},
            {"name": "window_end", "type": "TIMESTAMP", "role": "window"},
            {"name": "origin", "type": "STRING", "role": "dimension"},
            {"name": "flights", "type": "BIGINT", "role": "measure"},
            {"name": "fare", "type": "DECIMAL(38,2)", "role": "measure"}],
        "rows": [
            row(6, json!("ATL"), 3, json!("12.55"), "merged", "closed"),
            row(6, json!("ORD"), 1, Value::Null, "batch", "closed"),
            row(7, json!("ATL"), 1, json!("1.00"), "batch", "closed"),
            row(8, Value::Null, 1, json!("1.25"), "speed", "open")],
        "seam": {"version": 12, "published_at": "2001-01-02T11:59:00Z", "offsets": {"0": 4}},
        "watermark": "2001-01-01T08:05:00Z", "as_of": "2001-01-02T12:00:00Z", "complete": true,
        "ledger": {"accepted": 6, "batch": 4, "speed": 2, "late": 0},
        "truncated": false, "next": null
    });
    assert_eq!(reply.json(), expected);
}

#[tokio::test]
async fn layers_can_be_selected_and_add_up() {
    let world = world();
    let flights = async |layer: &str| {
        let rows =
            world.rows(&format!("/v1/views/departures/rows?group_by=&grain=all&measures=flights&layer={layer}")).await;
        rows[0]["flights"].as_i64().expect("a count")
    };
    assert_eq!((flights("batch").await, flights("speed").await, flights("merged").await), (4, 2, 6));
    let rows = world.rows("/v1/views/departures/rows?layer=batch&group_by=").await;
    assert_eq!(column(&rows, "_layer"), ["batch", "batch"]);
    let rows = world.rows("/v1/views/departures/rows?layer=speed&group_by=").await;
    assert_eq!(column(&rows, "_layer"), ["speed", "speed"]);
}

#[tokio::test]
async fn finality_follows_the_watermark_and_the_layers() {
    let world = world();
    let path = "/v1/views/departures/rows?group_by=";
    assert_eq!(column(&world.rows(path).await, "_finality"), ["closed", "closed", "open"]);
    world.watermark("2001-01-02T00:00:00Z");
    assert_eq!(column(&world.rows(path).await, "_finality"), ["closed", "final", "closed"]);
    // With layer=batch, the first window stays closed: speed still adds to it.
    assert_eq!(column(&world.rows(&format!("{path}&layer=batch")).await, "_finality"), ["closed", "final"]);
    // A day is open until the watermark has passed its end, and the end is the day's.
    let day = &world.rows(&format!("{path}&grain=1d")).await[0];
    assert_eq!(
        (&day["window_start"], &day["window_end"]),
        (&json!("2001-01-01T00:00:00Z"), &json!("2001-01-02T00:00:00Z"))
    );
    assert_eq!(day["_finality"], "closed");
    world.watermark("2001-01-01T23:59:59Z");
    assert_eq!(world.rows(&format!("{path}&grain=1d")).await[0]["_finality"], "open");
    *world.speed.watermark.lock() = None;
    assert_eq!(column(&world.rows(path).await, "_finality"), ["open", "open", "open"]);
    assert_eq!(column(&world.rows("/v1/views/totals/rows").await, "_finality"), ["open", "open", "open"]);
}

#[tokio::test]
async fn a_view_over_all_time_has_no_window_columns() {
    let rows = world().rows("/v1/views/totals/rows?order_by=-worst").await;
    let expected = json!([
        {"origin": "ATL", "flights": 4, "worst": 10, "_layer": "merged", "_finality": "open"},
        {"origin": null, "flights": 1, "worst": 1, "_layer": "speed", "_finality": "open"},
        {"origin": "ORD", "flights": 1, "worst": null, "_layer": "batch", "_finality": "open"}]);
    assert_eq!(Value::from(rows), expected);
}

#[tokio::test]
async fn from_and_to_are_half_open_on_window_start() {
    let world = world();
    let starts = async |query: &str| {
        let rows = world.rows(&format!("/v1/views/departures/rows?group_by=&{query}")).await;
        rows.iter().map(|r| r["window_start"].as_str().map_or("-".into(), |t| t[11..13].to_owned())).collect::<Vec<_>>()
    };
    assert_eq!(starts("from=2001-01-01T07:00:00Z").await, ["07", "08"]);
    assert_eq!(starts("from=2001-01-01T06:00:00.000001Z&to=2001-01-01T08:00:00Z").await, ["07"]);
    assert_eq!(starts("from=2001-01-01&to=2001-01-02").await, ["06", "07", "08"]);
    assert_eq!(starts("to=2001-01-01T06:00:00%2B00:00").await, [] as [&str; 0]);
    // Only complete rows: a coarser window that starts before `from` is not shown.
    assert_eq!(starts("grain=2h&from=2001-01-01T07:00:00Z").await, ["08"]);
    assert_eq!(starts("grain=2h&to=2001-01-01T07:00:00Z").await, ["06"]);
    assert_eq!(starts("grain=all").await, ["-"]);
    let rows = world
        .rows("/v1/views/departures/rows?group_by=&grain=all&from=2001-01-01T06:30:00Z&to=2001-01-01T08:30:00Z")
        .await;
    assert_eq!(
        (&rows[0]["window_start"], &rows[0]["window_end"]),
        (&json!("2001-01-01T07:00:00Z"), &json!("2001-01-01T09:00:00Z"))
    );
    assert_eq!(rows[0]["flights"], 2);
}

#[tokio::test]
async fn where_is_over_dimensions_and_measures() {
    let world = world();
    let rows = world.rows("/v1/views/departures/rows?where=origin = 'ATL' AND dest <> 'LAX'&group_by=dest").await;
    assert_eq!(column(&rows, "flights"), [3]);
    let rows = world.rows("/v1/views/departures/rows?where=origin IS NULL").await;
    assert_eq!(column(&rows, "dest"), ["LAX"]);
    // Conditions over dimensions filter before merging, those over measures after it.
    let rows = world.rows("/v1/views/departures/rows?group_by=&where=flights > 1").await;
    assert_eq!((column(&rows, "flights"), column(&rows, "fare")), (vec![json!(4)], vec![json!("12.55")]));
    let rows = world.rows("/v1/views/departures/rows?group_by=&where=flights > 1 AND origin = 'ATL'").await;
    assert_eq!(column(&rows, "flights"), [3]);
    let rows = world.rows("/v1/views/departures/rows?group_by=origin&where=flights > 2 OR origin IS NULL").await;
    assert_eq!(column(&rows, "flights"), [3, 1]);
    // NULL is not true.
    let rows = world.rows("/v1/views/departures/rows?where=delay < 100&order_by=-delay").await;
    assert_eq!(column(&rows, "delay"), [12, 7, 1]);
    let rows = world.rows("/v1/views/ratios/rows?where=mean_delay BETWEEN 2 AND 5").await;
    assert_eq!(column(&rows, "mean_delay"), [4]);
    assert_eq!(world.rows("/v1/views/totals/rows?where=flights > 100").await, [] as [Value; 0]);
    let reply = world.get("/v1/views/departures/rows?where=origen = 'ATL'").await;
    let problem = reply.json();
    assert_eq!(
        (reply.status, &problem["code"], &problem["line"], &problem["column"]),
        (StatusCode::BAD_REQUEST, &json!("invalid_predicate"), &json!(1), &json!(1))
    );
    assert!(problem["detail"].as_str().is_some_and(|d| d.contains("origin")), "{problem}");
    for over in ["window_start > TIMESTAMP '2001-01-01 00:00:00'", "flights > 1 AND window_end IS NULL"] {
        let reply = world.get(&format!("/v1/views/departures/rows?where={over}")).await;
        assert_eq!(
            (reply.status, &reply.json()["code"]),
            (StatusCode::NOT_IMPLEMENTED, &json!("not_supported")),
            "{over}: {}",
            reply.text()
        );
    }
}

#[tokio::test]
async fn filtered_rows_are_counted_by_limits_and_pages() {
    let world = world();
    let path = "/v1/views/departures/rows?where=flights < 3&measures=flights&order_by=-window_start&limit=2";
    let first = world.get(path).await.json();
    assert_eq!(first["rows"].as_array().map(Vec::len), Some(2));
    let next = first["next"].as_str().expect("three rows pass");
    let second = world.get(&format!("{path}&cursor={next}")).await.json();
    assert_eq!((second["rows"].as_array().map(Vec::len), &second["next"]), (Some(1), &Value::Null));
    assert_eq!(second["rows"][0]["origin"], "ORD");
}

#[tokio::test]
async fn orders_are_total_and_pages_join_up() {
    let world = world();
    let path = "/v1/views/departures/rows?measures=flights";
    let rows = world.rows(&format!("{path}&order_by=-flights,origin")).await;
    assert_eq!(column(&rows, "flights"), [3, 1, 1, 1]);
    assert_eq!(column(&rows, "origin"), [json!("ATL"), Value::Null, json!("ATL"), json!("ORD")]);
    let rows = world.rows(&format!("{path}&order_by=-window_start,-origin")).await;
    assert_eq!(column(&rows, "origin"), [Value::Null, json!("ATL"), json!("ORD"), json!("ATL")]);
    for order in ["", "&order_by=-flights,origin", "&order_by=dest", "&order_by=-window_start"] {
        let whole = world.rows(&format!("{path}{order}")).await;
        for limit in 1..=5 {
            let (mut paged, mut cursor) = (Vec::new(), String::new());
            loop {
                let reply = world.get(&format!("{path}{order}&limit={limit}{cursor}")).await;
                let document = reply.json();
                paged.extend(document["rows"].as_array().expect("rows").iter().cloned());
                assert_eq!(document["next"].as_str(), reply.header("trueup-next"));
                match document["next"].as_str() {
                    Some(next) => cursor = format!("&cursor={next}"),
                    None => break,
                }
            }
            assert_eq!(paged, whole, "{order} in pages of {limit}");
        }
    }
}

#[tokio::test]
async fn a_cursor_belongs_to_its_query_and_its_version() {
    let world = world();
    let next =
        world.get("/v1/views/departures/rows?limit=1").await.json()["next"].as_str().expect("more rows").to_owned();
    let other = world.get(&format!("/v1/views/departures/rows?group_by=&limit=1&cursor={next}")).await;
    assert_eq!((other.status, &other.json()["code"]), (StatusCode::BAD_REQUEST, &json!("invalid_parameter")));
    world.speed.generations.lock().clear();
    world.publish(13, &format!("{BATCH}{LIVE}"));
    let late = world.get(&format!("/v1/views/departures/rows?limit=1&cursor={next}")).await;
    assert_eq!((late.status, &late.json()["code"]), (StatusCode::GONE, &json!("cursor_expired")));
}

#[tokio::test]
async fn every_invalid_parameter_is_refused_with_the_reason() {
    let world = world();
    let cases = [
        ("groupby=origin", "unknown_parameter", "group_by"),
        ("limit=1&limit=2", "invalid_parameter", "only once"),
        ("from=yesterday", "invalid_parameter", "yesterday"),
        ("from=2001-01-03&to=2001-01-02", "invalid_parameter", "after"),
        ("group_by=orign", "invalid_parameter", "\"origin\""),
        ("group_by=origin,origin", "invalid_parameter", "twice"),
        ("group_by=flights", "invalid_parameter", "no dimension"),
        ("measures=flight", "invalid_parameter", "\"flights\""),
        ("order_by=-flight", "invalid_parameter", "\"flights\""),
        ("order_by=origin,-origin", "invalid_parameter", "twice"),
        ("group_by=dest&order_by=origin", "invalid_parameter", "not in group_by"),
        ("grain=45m", "invalid_parameter", "1h, 6h, 1d, 1w, 1mo, 1q, 1y, all"),
        ("grain=hourly", "invalid_parameter", "not a length"),
        ("limit=0", "invalid_parameter", "1 to 1000000"),
        ("limit=1000001", "invalid_parameter", "1 to 1000000"),
        ("limit=ten", "invalid_parameter", "ten"),
        ("layer=bach", "invalid_parameter", "\"batch\""),
        ("shape=tree", "invalid_parameter", "rows"),
        ("cursor=abc", "invalid_parameter", "cursor"),
        ("where=origin =", "invalid_predicate", "where"),
        ("where=origin", "invalid_predicate", "where"),
        ("group_by=origin&where=flights > 1 OR dest = 'LAX'", "invalid_parameter", "\"dest\""),
    ];
    for (query, code, words) in cases {
        let reply = world.get(&format!("/v1/views/departures/rows?{query}")).await;
        let problem = reply.json();
        assert_eq!((reply.status, &problem["code"]), (StatusCode::BAD_REQUEST, &json!(code)), "{query}: {problem}");
        assert_eq!(reply.header("content-type"), Some("application/problem+json"));
        assert_eq!((&problem["status"], &problem["type"]), (&json!(400), &json!(format!("urn:trueup:problem:{code}"))));
        assert!(problem["detail"].as_str().is_some_and(|d| d.contains(words)), "{query}: {problem}");
    }
    let reply = world.get("/v1/views/departures/rows?as_of=2001-01-01").await;
    assert_eq!((reply.status, &reply.json()["code"]), (StatusCode::NOT_FOUND, &json!("unknown_version")));
    assert_eq!(world.rows("/v1/views/everything/rows?where=1 = 1").await[0]["flights"], 6);
    assert_eq!(world.rows("/v1/views/everything/rows?where=1 > 1").await, [] as [Value; 0]);
    for query in ["from=2001-01-01", "to=2001-01-01", "grain=1h"] {
        let reply = world.get(&format!("/v1/views/totals/rows?{query}")).await;
        assert_eq!(
            (reply.status, &reply.json()["code"]),
            (StatusCode::BAD_REQUEST, &json!("invalid_parameter")),
            "{query}"
        );
    }
    assert_eq!(world.rows("/v1/views/totals/rows?grain=all&group_by=").await[0]["flights"], 6);
}

#[tokio::test]
async fn measures_and_dimensions_come_in_the_order_asked_for() {
    let reply =
        world().get("/v1/views/departures/rows?group_by=dest,origin&measures=share,flights&limit=1").await.json();
    let names: Vec<_> = reply["columns"].as_array().expect("columns").iter().map(|c| c["name"].clone()).collect();
    assert_eq!(names, ["window_start", "window_end", "dest", "origin", "share", "flights"]);
    assert_eq!(
        world().rows("/v1/views/departures/rows?measures=&group_by=&grain=all").await,
        [json!({"window_start": null, "window_end": null, "_layer": "merged", "_finality": "open"})]
    );
}

#[tokio::test]
async fn a_view_without_its_first_version_says_that_the_archive_has_more() {
    let world = world();
    let published = world.views.get("departures").expect("a view");
    let unread = Ledger::of_range(shared::ids::Partition::HISTORY, Offset(0), Offset(1_000));
    let nothing = shared::published::PublishedView::nothing(published.view.clone(), published.stream.clone());
    world.views.publish(shared::published::PublishedView { unread, ..nothing });
    world.speed.generations.lock().get_mut("departures").expect("generations").clear();
    for (layer, accepted) in [("merged", 1_000), ("batch", 1_000), ("speed", 1_000)] {
        let answer = world.get(&format!("/v1/views/departures/rows?layer={layer}")).await.json();
        assert_eq!((&answer["rows"], &answer["ledger"]["accepted"]), (&json!([]), &json!(accepted)), "{answer}");
        // Only layer=speed is complete: all events since the seam.
        assert_eq!(answer["complete"], json!(layer == "speed"), "{layer}");
    }
}

#[tokio::test]
async fn a_ledger_mismatch_makes_the_result_incomplete() {
    let world = world();
    assert_eq!(world.get("/v1/views/departures/rows").await.json()["complete"], true);
    // One event in place of another: the numbers add up, the positions do not.
    let swapped = Ledger::of_range(P0, Offset(0), Offset(3)) + Ledger::of(P0, Offset(77));
    let published = world.views.get("departures").expect("a view");
    let mut version = published.version.as_deref().expect("a version").clone();
    version.ledger = swapped;
    let unbalanced =
        shared::published::PublishedView::version(published.view.clone(), published.stream.clone(), version);
    world.views.publish(unbalanced);
    let reply = world.get("/v1/views/departures/rows").await;
    assert_eq!(reply.json()["complete"], false);
    assert_eq!(reply.json()["ledger"], json!({"accepted": 6, "batch": 4, "speed": 2, "late": 0}));
    assert_eq!(reply.header("trueup-complete"), Some("false"));
    assert_eq!(world.get("/v1/views/departures/rows?layer=batch").await.json()["complete"], false);
    assert_eq!(world.get("/v1/views/departures/rows?layer=speed").await.json()["complete"], true);
    // Speed loses an event.
    world.publish(13, BATCH);
    world.speed.generations.lock().get_mut("departures").expect("generations")[0].folded = Ledger::of(P0, Offset(4));
    assert_eq!(world.get("/v1/views/departures/rows").await.json()["complete"], false);
    assert_eq!(world.get("/v1/views/departures/rows?layer=batch").await.json()["complete"], true);
    assert_eq!(world.get("/v1/views/departures/rows?layer=speed").await.json()["complete"], false);
    // Late events are accounted for.
    world.speed.generations.lock().get_mut("departures").expect("generations")[0].late = Ledger::of(P0, Offset(5));
    let reply = world.get("/v1/views/departures/rows").await.json();
    assert_eq!((&reply["complete"], &reply["ledger"]["late"]), (&json!(true), &json!(1)));
}

#[tokio::test]
async fn a_moved_seam_is_retried_and_a_missing_layer_is_reported() {
    let world = world();
    world.speed.seam_moves.store(3, Ordering::SeqCst);
    assert_eq!(world.get("/v1/views/departures/rows").await.status, StatusCode::OK);
    world.speed.seam_moves.store(9, Ordering::SeqCst);
    let reply = world.get("/v1/views/departures/rows").await;
    assert_eq!((reply.status, &reply.json()["code"]), (StatusCode::SERVICE_UNAVAILABLE, &json!("speed_unavailable")));
    world.speed.seam_moves.store(0, Ordering::SeqCst);
    world.batch.broken.store(true, Ordering::SeqCst);
    let reply = world.get("/v1/views/departures/rows").await;
    assert_eq!((reply.status, &reply.json()["code"]), (StatusCode::SERVICE_UNAVAILABLE, &json!("batch_unavailable")));
    assert_eq!(world.get("/v1/views/departures/rows?layer=speed").await.status, StatusCode::OK);
}

#[tokio::test]
async fn measures_composed_of_aggregates_are_computed_after_merging() {
    let rows = world().rows("/v1/views/ratios/rows?order_by=-mean_delay").await;
    assert_eq!(column(&rows, "mean_delay"), [json!(7), json!(4), json!(1), Value::Null]);
}

#[tokio::test]
async fn a_sum_that_does_not_fit_is_null_and_named() {
    let world = World::new(SQL);
    let huge = |id: u8| {
        format!(r#"{{"id":{id},"at":"2001-01-01T06:10:00Z","origin":"ATL","dest":"JFK","delay":{}}}"#, i64::MAX)
    };
    world.publish(1, &huge(1));
    assert_eq!(world.rows("/v1/views/departures/rows").await[0]["_overflow"], Value::Null);
    world.live(&huge(2));
    let row = &world.rows("/v1/views/departures/rows").await[0];
    assert_eq!((&row["delay"], &row["_overflow"], &row["flights"]), (&Value::Null, &json!(["delay"]), &json!(2)));
}

#[tokio::test]
async fn without_versions_and_events_the_result_is_empty() {
    let world = World::new(SQL);
    let reply = world.get("/v1/views/departures/rows").await.json();
    assert_eq!(reply["rows"], json!([]));
    assert_eq!(reply["seam"], json!({"version": null, "published_at": null, "offsets": {"0": 0}}));
    assert_eq!((&reply["complete"], &reply["watermark"]), (&json!(true), &Value::Null));
}
