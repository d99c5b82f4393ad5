//! Tests that only pages of admitted origins may read and change something.

mod world;

use axum::body::Body;
use axum::http::{Method, Request, StatusCode};
use serving::http::Origins;
use world::World;

const SQL: &str = "
    CREATE STREAM flights (at TIMESTAMP, origin STRING) WITH (event_time = 'at');
    CREATE VIEW departures AS SELECT window_start, origin, COUNT(*) AS n FROM flights
        GROUP BY TUMBLE(at, INTERVAL '1' HOUR), origin;";
const PAGE: &str = "https://app.example";

async fn ask(world: &World, method: Method, path: &str, origin: &str) -> world::Reply {
    let request = Request::builder().method(method).uri(path).header("origin", origin).header("host", "127.0.0.1:8080");
    let request = request.header("access-control-request-method", "POST");
    world.send(request.body(Body::empty()).expect("a request")).await
}

#[tokio::test]
async fn pages_of_other_origins_need_admission() {
    let mut world = World::new(SQL);
    let rows = "/v1/views/departures/rows";
    assert_eq!(ask(&world, Method::GET, rows, PAGE).await.header("access-control-allow-origin"), None);
    let refused = ask(&world, Method::POST, "/v1/views/departures/runs", PAGE).await;
    assert_eq!((refused.status, refused.json()["code"].as_str()), (StatusCode::FORBIDDEN, Some("cross_origin")));
    // The server's own pages are always admitted.
    let own = ask(&world, Method::POST, "/v1/views/departures/runs", "http://127.0.0.1:8080").await;
    assert_eq!(own.status, StatusCode::ACCEPTED);

    world.perimeter.origins = Origins::parse([PAGE]).expect("an origin");
    let read = ask(&world, Method::GET, rows, PAGE).await;
    assert_eq!(read.header("access-control-allow-origin"), Some(PAGE));
    assert!(read.header("access-control-expose-headers").is_some_and(|shown| shown.contains("etag")));
    let asked = ask(&world, Method::OPTIONS, "/v1/views/departures/runs", PAGE).await;
    assert!(asked.header("access-control-allow-methods").is_some_and(|methods| methods.contains("POST")));
    assert_eq!(ask(&world, Method::POST, "/v1/views/departures/runs", PAGE).await.status, StatusCode::ACCEPTED);
    let other = ask(&world, Method::GET, rows, "https://other.example").await;
    assert_eq!(other.header("access-control-allow-origin"), None);
    assert_eq!(ask(&world, Method::POST, "/v1/views/departures/runs", "null").await.status, StatusCode::FORBIDDEN);
}
