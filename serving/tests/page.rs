//! Tests the skeletons of the pages, their files and headers: nothing is loaded from another server.

mod world;

use axum::body::Body;
use axum::http::{Request, StatusCode};
use world::World;

const SQL: &str = "
CREATE STREAM flights (at TIMESTAMP, origin STRING, dest STRING, delay BIGINT) WITH (event_time = 'at');
CREATE VIEW departures AS SELECT window_start, origin, dest, AVG(delay) AS mean, COUNT(*) AS flights
FROM flights GROUP BY TUMBLE(at, INTERVAL '90' MINUTE), origin, dest;
CREATE VIEW worst AS SELECT MAX(delay) AS worst FROM flights;
";

#[tokio::test]
async fn every_view_has_a_card() {
    let page = World::new(SQL).get("/").await;
    assert_eq!((page.status, page.header("content-type")), (StatusCode::OK, Some("text/html; charset=utf-8")));
    let html = page.text();
    for expected in [
        r#"id="view-departures" data-view="departures" data-updated="0" data-window-ms="5400000""#,
        r#"data-measure="flights" data-additive="true" data-dimensions="origin,dest""#,
        "of flights, in windows of 90 minutes, by origin and dest",
        r#"id="chart-departures""#,
        r#"data-measure="worst" data-additive="false" data-dimensions="""#,
        "of flights, over all time",
        r#"id="stream-flights""#,
    ] {
        assert!(html.contains(expected), "{expected} is not in {html}");
    }
}

#[tokio::test]
async fn every_file_is_served_by_this_server() {
    let world = World::new(SQL);
    let page = world.get("/").await;
    assert!(!page.text().contains("http"), "the page names no other server");
    assert!(
        page.header("content-security-policy").is_some_and(|p| p.contains("default-src 'none'") && !p.contains("http"))
    );
    let html = page.text();
    let links = html.split(['"', ' ']).filter(|part| part.starts_with("/assets/"));
    let mut files: Vec<String> = links.map(|link| link.split('?').next().unwrap_or(link).to_owned()).collect();
    files.extend(
        ["view_card", "view_chart", "dom", "fetch_json", "format"].map(|module| format!("/assets/{module}.js")),
    );
    for file in files {
        let reply = world.get(&file).await;
        assert_eq!(reply.status, StatusCode::OK, "{file}");
        assert!(!reply.body.is_empty(), "{file}");
    }
}

#[tokio::test]
async fn the_chart_library_is_compressed_and_cached() {
    let world = World::new(SQL);
    let ask = async |name: &'static str, value: &str| {
        let request = Request::get("/assets/plotly.min.js").header(name, value).body(Body::empty()).expect("a request");
        world.send(request).await
    };
    let plain = world.get("/assets/plotly.min.js").await;
    assert!(plain.text().contains("plotly.js v") && !plain.text().contains("<script"));
    let gzipped = ask("accept-encoding", "br, gzip;q=0.8").await;
    assert_eq!(gzipped.header("content-encoding"), Some("gzip"));
    assert!(gzipped.body.len() * 2 < plain.body.len());
    assert!(gzipped.header("cache-control").is_some_and(|c| c.contains("immutable")));
    let again = ask("if-none-match", plain.header("etag").expect("an etag")).await;
    assert_eq!((again.status, again.body.len()), (StatusCode::NOT_MODIFIED, 0));
}
