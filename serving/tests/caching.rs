//! Tests revalidation, the response cache and byte ranges.

mod world;

use arrow::array::RecordBatch;
use arrow::ipc::reader::StreamReader;
use axum::Router;
use axum::body::{Body, to_bytes};
use axum::http::{Request, StatusCode};
use bytes::Bytes;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use tower::ServiceExt;
use world::{Reply, World};

const SQL: &str = "
CREATE STREAM flights (at TIMESTAMP, origin STRING, delay BIGINT) WITH (event_time = 'at');
CREATE VIEW departures AS
SELECT window_start, window_end, origin, COUNT(*) AS flights FROM flights GROUP BY TUMBLE(at, INTERVAL '1' HOUR), origin;
";
const ROWS: &str = "/v1/views/departures/rows";

fn event(origin: &str) -> String {
    format!(r#"{{"at":"2001-01-01T06:10:00Z","origin":"{origin}","delay":5}}"#)
}

/// Sends a request to one server, which keeps its caches between requests.
async fn ask_of(server: &Router, method: &str, path: &str, headers: &[(&str, &str)]) -> Reply {
    let mut request = Request::builder().method(method).uri(path);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let request = request.body(Body::empty()).expect("a request");
    let response = server.clone().oneshot(request).await.expect("a router does not fail");
    let (status, headers) = (response.status(), response.headers().clone());
    let body = to_bytes(response.into_body(), usize::MAX).await.expect("a body").to_vec();
    Reply { status, headers, body }
}

async fn ask(world: &World, method: &str, path: &str, headers: &[(&str, &str)]) -> Reply {
    ask_of(&world.routes(), method, path, headers).await
}

fn tag(reply: &Reply) -> String {
    reply.header("etag").expect("a tag").to_owned()
}

#[tokio::test]
async fn only_a_changed_response_is_sent_again() {
    let world = World::new(SQL);
    world.publish(1, &event("ATL"));
    let first = ask(&world, "GET", ROWS, &[]).await;
    assert_eq!(first.header("cache-control"), Some("no-cache"));
    let again = ask(&world, "GET", ROWS, &[("if-none-match", &tag(&first))]).await;
    assert_eq!((again.status, again.body.len()), (StatusCode::NOT_MODIFIED, 0));
    assert_eq!(tag(&again), tag(&first));
    let other_query = ask(&world, "GET", "/v1/views/departures/rows?limit=1", &[("if-none-match", &tag(&first))]).await;
    assert_eq!(other_query.status, StatusCode::OK);
    let other_format = ask(&world, "GET", "/v1/views/departures/rows.csv", &[("if-none-match", &tag(&first))]).await;
    assert_eq!(other_format.status, StatusCode::OK);

    world.live(&event("BOS"));
    let live = ask(&world, "GET", ROWS, &[("if-none-match", &tag(&first))]).await;
    assert_eq!(live.status, StatusCode::OK, "a new event changes the response");
    assert_eq!(live.json()["rows"].as_array().map(Vec::len), Some(2));
    world.watermark("2001-01-02T11:00:00Z");
    let closed = ask(&world, "GET", ROWS, &[("if-none-match", &tag(&live))]).await;
    assert_eq!(closed.status, StatusCode::OK, "the watermark moves finality");
    world.publish(2, &event("ATL"));
    let published = ask(&world, "GET", ROWS, &[("if-none-match", &tag(&closed))]).await;
    assert_eq!(published.status, StatusCode::OK, "a new version changes the response");
}

#[tokio::test]
async fn ranges_of_a_parquet_response_belong_to_one_file() {
    let world = World::new(SQL);
    world.publish(1, &event("ATL"));
    let server = world.routes();
    let path = "/v1/views/departures/rows.parquet";
    let head = ask_of(&server, "HEAD", path, &[]).await;
    assert_eq!((head.status, head.header("accept-ranges")), (StatusCode::OK, Some("bytes")));
    let length: usize = head.header("content-length").expect("a length").parse().expect("a number");
    world.live(&event("BOS"));

    let tail = ask_of(&server, "GET", path, &[("range", "bytes=-8")]).await;
    assert_eq!(tail.status, StatusCode::PARTIAL_CONTENT);
    assert_eq!(tail.header("content-range"), Some(format!("bytes {}-{}/{length}", length - 8, length - 1).as_str()));
    assert_eq!(&tail.body[4..], b"PAR1");
    let half = length / 2;
    let first = ask_of(&server, "GET", path, &[("range", &format!("bytes=0-{}", half - 1))]).await;
    let second = ask_of(&server, "GET", path, &[("range", &format!("bytes={half}-"))]).await;
    assert_eq!((tag(&first), tag(&second)), (tag(&head), tag(&head)));
    let file = Bytes::from([first.body.as_slice(), second.body.as_slice()].concat());
    assert_eq!(rows_of(file), 1, "the file whose length HEAD returned");

    let beyond = ask_of(&server, "GET", path, &[("range", &format!("bytes={length}-"))]).await;
    assert_eq!(beyond.status, StatusCode::RANGE_NOT_SATISFIABLE);
    assert_eq!(beyond.header("content-range"), Some(format!("bytes */{length}").as_str()));
    let whole = ask_of(&server, "GET", path, &[]).await;
    assert_eq!((whole.status, rows_of(Bytes::from(whole.body))), (StatusCode::OK, 2), "a complete response is current");
}

fn rows_of(file: Bytes) -> i64 {
    ParquetRecordBatchReaderBuilder::try_new(file).expect("a file").metadata().file_metadata().num_rows()
}

#[tokio::test]
async fn an_arrow_stream_has_the_rows_of_the_parquet_file() {
    let world = World::new(SQL);
    world.publish(1, &event("ATL"));
    world.live(&event("BOS"));
    let reply = ask(&world, "GET", "/v1/views/departures/rows.arrow", &[]).await;
    assert_eq!(reply.header("content-type"), Some("application/vnd.apache.arrow.stream"));
    let streamed: Vec<RecordBatch> = StreamReader::try_new(reply.body.as_slice(), None)
        .expect("a stream")
        .collect::<Result<_, _>>()
        .expect("batches");
    let file = Bytes::from(ask(&world, "GET", "/v1/views/departures/rows.parquet", &[]).await.body);
    let read: Vec<RecordBatch> = ParquetRecordBatchReaderBuilder::try_new(file)
        .expect("a file")
        .build()
        .expect("a reader")
        .collect::<Result<_, _>>()
        .expect("batches");
    let columns = |batches: &[RecordBatch]| batches.iter().map(|batch| batch.columns().to_vec()).collect::<Vec<_>>();
    assert_eq!(columns(&streamed), columns(&read));
    assert_eq!(streamed[0].num_rows(), 2);
}

#[tokio::test]
async fn responses_are_reused_until_the_state_moves() {
    let world = World::new(SQL);
    world.publish(1, &event("ATL"));
    let server = world.routes();
    let path = "/v1/views/departures/rows.json";
    let first = ask_of(&server, "GET", path, &[]).await;
    world.clock.set(shared::time::Micros(i64::from(u32::MAX) * 1_000_000));
    let again = ask_of(&server, "GET", path, &[]).await;
    assert_eq!(again.text(), first.text(), "including as_of");
    // Other parameters, other formats and newer versions have responses of their own.
    assert_ne!(ask_of(&server, "GET", &format!("{path}?limit=1"), &[]).await.text(), first.text());
    assert_ne!(ask_of(&server, "GET", "/v1/views/departures/rows.csv", &[]).await.text(), first.text());
    world.publish(2, &(event("ATL") + "\n" + &event("ORD")));
    let newer = ask_of(&server, "GET", path, &[]).await;
    assert!(newer.text().contains("ORD") && tag(&newer) != tag(&first));
}

#[tokio::test]
async fn current_rows_must_be_revalidated() {
    let world = World::new(SQL);
    world.publish(1, &event("ATL"));
    let now = ask(&world, "GET", ROWS, &[]).await;
    assert_eq!((now.header("cache-control"), now.header("trueup-truncated")), (Some("no-cache"), Some("false")));
    assert_eq!(now.json()["truncated"], false);
}
