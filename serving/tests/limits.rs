//! Tests the limits of queries and the batch merge cache.

mod world;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use axum::http::StatusCode;
use serde_json::{Value, json};
use serving::admission::{Admission, QueryLimits};
use shared::limits::{ALERT_SUBSCRIBERS_MAX, ENTITY_SUBSCRIBERS_MAX};
use shared::time::Micros;
use tower::ServiceExt;
use world::World;

const SQL: &str = "
CREATE STREAM flights (at TIMESTAMP, origin STRING, delay BIGINT) WITH (event_time = 'at');
CREATE VIEW departures AS
SELECT window_start, window_end, origin, COUNT(*) AS flights, SUM(delay) AS delays, COUNT(DISTINCT delay) AS kinds
FROM flights GROUP BY TUMBLE(at, INTERVAL '1' HOUR), origin;
CREATE VIEW trailing AS
SELECT window_end, origin, COUNT(*) AS flights FROM flights GROUP BY HOP(at, INTERVAL '1' HOUR, INTERVAL '3' HOUR), origin;
";
/// More windows than the cache ignores.
const WINDOWS: i64 = 24_000;

fn event(hour: i64, origin: &str) -> String {
    let at = Micros(hour * 3_600_000_000 + 7);
    format!("{{\"at\":\"{at}\",\"origin\":\"{origin}\",\"delay\":{}}}\n", hour % 40)
}

/// A world with one event per hour.
fn world() -> World {
    let world = World::new(SQL);
    let origins = ["ATL", "BOS", "JFK"];
    world.publish(1, &(0..WINDOWS).map(|hour| event(hour, origins[hour as usize % 3])).collect::<String>());
    world
}

fn limited(limits: QueryLimits) -> World {
    World { admission: Arc::new(Admission::new(limits)), ..world() }
}

#[tokio::test]
async fn a_query_beyond_its_limits_is_refused_with_an_alternative() {
    let small = limited(QueryLimits { bytes_max: 100_000, ..QueryLimits::default() });
    let hasty = limited(QueryLimits { time: Duration::ZERO, ..QueryLimits::default() });
    let path = "/v1/views/departures/rows?limit=1";
    for (world, status, code) in [
        (&small, StatusCode::PAYLOAD_TOO_LARGE, "query_too_large"),
        (&hasty, StatusCode::GATEWAY_TIMEOUT, "query_timeout"),
    ] {
        let refused = world.get(path).await;
        assert_eq!((refused.status, &refused.json()["code"]), (status, &json!(code)), "{}", refused.text());
        assert!(refused.text().contains("a coarser grain"), "{}", refused.text());
    }
    // Live queries are refused too.
    let refused = small.get("/v1/views/departures/live").await;
    assert_eq!((refused.status, &refused.json()["code"]), (StatusCode::PAYLOAD_TOO_LARGE, &json!("query_too_large")));
    // The alternative that the refusal names works.
    let reply = small.get("/v1/views/departures/rows?grain=30d&group_by=").await.json();
    assert_eq!(reply["rows"].as_array().map(Vec::len), Some(34));
}

#[tokio::test]
async fn rows_that_do_not_fit_the_memory_of_their_query_are_not_loaded() {
    let world = limited(QueryLimits { bytes_max: 100_000, ..QueryLimits::default() });
    world.batch.is_cold.store(true, Ordering::SeqCst);
    for parameters in ["limit=1", "limit=1&layer=batch", "grain=30d&group_by="] {
        let refused = world.get(&format!("/v1/views/departures/rows?{parameters}")).await;
        let code = refused.json()["code"].clone();
        assert_eq!((refused.status, code), (StatusCode::PAYLOAD_TOO_LARGE, json!("query_too_large")), "{parameters}");
    }
    assert_eq!(world.batch.read.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn rows_are_loaded_by_admitted_queries_alone() {
    let world = limited(QueryLimits { at_once: 1, waiting_max: 0, ..QueryLimits::default() });
    world.batch.is_cold.store(true, Ordering::SeqCst);
    let other = world.admission.admit(Instant::now()).await.expect("the first");
    let path = "/v1/views/departures/rows?limit=1";
    let refused = world.get(path).await;
    assert_eq!((refused.status, &refused.json()["code"]), (StatusCode::TOO_MANY_REQUESTS, &json!("too_many_queries")));
    assert_eq!(world.batch.read.load(Ordering::SeqCst), 0);
    drop(other);
    assert_eq!(world.get(path).await.status, StatusCode::OK);
    assert!(world.batch.read.load(Ordering::SeqCst) > 0);
}

#[tokio::test]
async fn truncated_results_are_marked() {
    let world = world();
    let some = world.get("/v1/views/departures/rows?limit=5").await;
    assert_eq!((&some.json()["truncated"], some.header("trueup-truncated")), (&json!(true), Some("true")));
    let all = world.get("/v1/views/departures/rows.csv?grain=all&group_by=").await;
    assert_eq!(all.header("trueup-truncated"), Some("false"));
}

#[tokio::test]
async fn cached_merges_equal_fresh_ones_and_live_events_are_added() {
    let world = world();
    let paths = [
        "/v1/views/departures/rows?grain=1d&group_by=",
        "/v1/views/departures/rows?grain=7d&group_by=origin&measures=flights,delays",
        "/v1/views/departures/rows?grain=all&where=origin = 'BOS'",
        "/v1/views/departures/rows?grain=1d&group_by=&layer=batch",
        "/v1/views/trailing/rows?group_by=&from=1970-06-01",
    ]
    .map(|path| path.replace(' ', "%20"));
    let rows = async |world: &World, path: &str| -> Vec<Value> {
        let reply = world.get(path).await.json();
        reply["rows"].as_array().unwrap_or_else(|| panic!("{path}: {reply}")).clone()
    };
    let check = async |what: &str| {
        for path in &paths {
            let cached = rows(&world, path).await;
            // The same state with an empty cache.
            let fresh = World { admission: Arc::default(), ..world.clone() };
            assert_eq!(cached, rows(&fresh, path).await, "{what}: {path}");
        }
    };
    check("at first").await;
    let flights = async |world: &World| rows(world, &paths[0]).await[10]["flights"].as_i64().expect("a count");
    let before = flights(&world).await;
    world.live(&event(10 * 24 + 3, "BOS"));
    check("with a live event").await;
    assert_eq!(flights(&world).await, before + 1);
    // New groups, before and after those of batch.
    world.live(&(event(-50, "LAX") + &event(WINDOWS + 100, "SEA")));
    check("with new groups").await;
    // Another version has an entry of its own.
    world.speed.generations.lock().clear();
    world.publish(2, &(0..WINDOWS).map(|hour| event(hour, "ATL")).collect::<String>());
    check("with another version").await;
    assert_eq!(flights(&world).await, 24);
}

#[tokio::test]
async fn an_endpoint_without_parameters_refuses_any() {
    let world = world();
    for path in ["/v1/views", "/v1/views/departures", "/v1/views/departures/versions", "/v1/streams", "/v1/runs/x"] {
        let refused = world.get(&format!("{path}?limit=3")).await;
        assert_eq!((refused.status, &refused.json()["code"]), (StatusCode::BAD_REQUEST, &json!("unknown_parameter")));
    }
}

#[tokio::test]
async fn subscribers_of_entities_and_alerts_are_refused_beyond_their_numbers_and_leave_room() {
    let world = World::new(SQL);
    let entities = Arc::new(world::no_entities::OneEntity::new());
    for (path, most) in
        [("/v1/alerts/live", ALERT_SUBSCRIBERS_MAX), ("/v1/entities/orders/o-1/live", ENTITY_SUBSCRIBERS_MAX)]
    {
        let routes = world.routes_with(Arc::clone(&entities) as _);
        let open = || async {
            let request = axum::http::Request::get(path).body(axum::body::Body::empty()).expect("a request");
            routes.clone().oneshot(request).await.expect("a router does not fail")
        };
        let mut subscribed = Vec::with_capacity(most);
        for _ in 0..most {
            let response = open().await;
            assert_eq!(response.status(), StatusCode::OK, "{path}");
            subscribed.push(response);
        }
        assert_eq!(open().await.status(), StatusCode::SERVICE_UNAVAILABLE, "{path}");
        subscribed.pop();
        assert_eq!(open().await.status(), StatusCode::OK, "{path}: one has left");
    }
}
