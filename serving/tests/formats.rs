//! Tests that every format carries the same rows, each decoded by a reader of its own.

mod world;

use std::sync::Arc;

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::compute::concat_batches;
use arrow::csv::ReaderBuilder;
use arrow::csv::reader::Format;
use arrow::datatypes::{Decimal128Type, Float64Type, Int64Type, TimestampMicrosecondType};
use axum::body::Body;
use axum::http::{Request, StatusCode};
use bytes::Bytes;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use serde_json::{Value, json};
use world::World;

const SQL: &str = "
CREATE STREAM sales (id BIGINT, at TIMESTAMP, shop STRING, amount DECIMAL(10,2), weight DOUBLE)
WITH (event_time = 'at', watermark_delay = '1 minute', allowed_lateness = '1 hour');
CREATE VIEW revenue AS
SELECT window_start, window_end, shop, COUNT(*) AS sales, SUM(amount) AS amount, MAX(weight) AS heaviest, MIN(at) AS first_at
FROM sales GROUP BY TUMBLE(at, INTERVAL '1' HOUR), shop;
";
const EVENTS: &str = r#"
{"id":1,"at":"2001-01-01T06:10:00.123456Z","shop":"a, \"b\"\nc","amount":"10.50","weight":0.1}
{"id":2,"at":"2001-01-01T06:20:00Z","shop":"","amount":"-0.05","weight":1e300}
{"id":3,"at":"2001-01-01T06:30:00Z","shop":null,"amount":null,"weight":null}
{"id":4,"at":"2001-01-01T07:00:00Z","shop":"Zürich","amount":"99999999.99","weight":-3}
"#;
const NAMES: [&str; 9] =
    ["window_start", "window_end", "shop", "sales", "amount", "heaviest", "first_at", "_layer", "_finality"];

fn world() -> World {
    let world = World::new(SQL);
    world.publish(7, EVENTS);
    world.watermark("2001-01-01T07:00:00Z");
    world
}

#[tokio::test]
async fn ndjson_and_the_bare_array_have_the_rows_of_the_document() {
    let world = world();
    let rows = world.rows("/v1/views/revenue/rows").await;
    assert_eq!(rows.len(), 4);
    assert_eq!(rows[3]["shop"], "Zürich");
    assert_eq!(rows[2]["first_at"], "2001-01-01T06:10:00.123456Z");
    let ndjson = world.get("/v1/views/revenue/rows.ndjson").await;
    assert_eq!(ndjson.header("content-type"), Some("application/x-ndjson"));
    let lines: Vec<Value> = ndjson.text().lines().map(|l| serde_json::from_str(l).expect("a line of JSON")).collect();
    assert_eq!(lines, rows);
    let bare = world.get("/v1/views/revenue/rows.json?shape=rows").await;
    assert_eq!(bare.json(), Value::from(rows));
    assert_eq!(world.get("/v1/views/revenue/rows.csv?shape=rows").await.status, StatusCode::BAD_REQUEST);
}

#[tokio::test]
async fn metadata_is_in_the_headers() {
    let reply = world().get("/v1/views/revenue/rows.csv?limit=1").await;
    assert_eq!(reply.header("trueup-version"), Some("7"));
    assert_eq!(reply.header("trueup-seam"), Some("0:4"));
    assert_eq!(reply.header("trueup-watermark"), Some("2001-01-01T07:00:00Z"));
    assert_eq!(reply.header("trueup-complete"), Some("true"));
    assert!(reply.header("trueup-next").is_some());
    assert!(reply.header("content-type").is_some_and(|t| t.starts_with("text/csv")));
}

#[tokio::test]
async fn csv_round_trips() {
    let body = world().get("/v1/views/revenue/rows.csv").await.body;
    let text = String::from_utf8(body.clone()).expect("UTF-8");
    assert!(
        text.starts_with("window_start,window_end,shop,sales,amount,heaviest,first_at,_layer,_finality\n"),
        "{text}"
    );
    // NULL and the empty text differ.
    assert!(text.contains("Z,,1,,,"), "{text}");
    assert!(text.contains("Z,\"\",1,-0.05,1e+300,"), "{text}");
    let (schema, _) = Format::default().with_header(true).infer_schema(body.as_slice(), None).expect("a schema");
    let reader = ReaderBuilder::new(Arc::new(schema)).with_header(true).build(body.as_slice()).expect("a reader");
    let batches: Vec<RecordBatch> = reader.map(|b| b.expect("rows")).collect();
    assert_eq!(batches[0].num_rows(), 4);
    assert_eq!(batches[0].column_by_name("shop").expect("shop").as_string::<i32>().value(2), "a, \"b\"\nc");
    assert_eq!(batches[0].column_by_name("sales").expect("sales").as_primitive::<Int64Type>().values(), &[1, 1, 1, 1]);
}

#[tokio::test]
async fn parquet_keeps_the_types() {
    let reply = world().get("/v1/views/revenue/rows.parquet").await;
    assert_eq!(reply.header("content-type"), Some("application/vnd.apache.parquet"));
    let reader = ParquetRecordBatchReaderBuilder::try_new(Bytes::from(reply.body)).expect("a file");
    let schema = Arc::clone(reader.schema());
    assert_eq!(schema.fields().iter().map(|f| f.name().as_str()).collect::<Vec<_>>(), NAMES);
    let batches: Vec<RecordBatch> = reader.build().expect("a reader").map(|b| b.expect("rows")).collect();
    let rows = concat_batches(&schema, &batches).expect("one batch");
    let column = |name| rows.column_by_name(name).expect("a column");
    assert!(column("shop").is_null(0));
    assert_eq!(column("shop").as_string_view().value(1), "");
    assert_eq!(column("amount").as_primitive::<Decimal128Type>().value_as_string(3), "99999999.99");
    assert_eq!(column("heaviest").as_primitive::<Float64Type>().value(1), 1e300);
    assert_eq!(column("window_start").as_primitive::<TimestampMicrosecondType>().value(0), 978_328_800_000_000);
    assert_eq!(column("_layer").as_string_view().value(0), "batch");
    assert_eq!(
        column("_finality").as_string_view().iter().flatten().collect::<Vec<_>>(),
        ["closed", "closed", "closed", "open"]
    );
}

#[tokio::test]
async fn an_empty_result_is_valid_in_every_format() {
    let world = world();
    let path = |extension: &str| format!("/v1/views/revenue/rows.{extension}?from=2030-01-01");
    assert_eq!(world.get(&path("json")).await.json()["rows"], json!([]));
    assert_eq!(world.get(&path("ndjson")).await.text(), "");
    assert_eq!(world.get(&path("csv")).await.text().lines().count(), 1);
    let body = world.get(&path("parquet")).await.body;
    let reader = ParquetRecordBatchReaderBuilder::try_new(Bytes::from(body)).expect("a file");
    assert_eq!(reader.metadata().file_metadata().num_rows(), 0);
}

#[tokio::test]
async fn without_extension_the_format_follows_accept() {
    let world = world();
    let ask = async |path: &str, accept: &str| {
        let request = Request::get(path).header("accept", accept).body(Body::empty()).expect("a request");
        let reply = world.send(request).await;
        (reply.status.as_u16(), reply.header("content-type").unwrap_or_default().to_owned())
    };
    assert_eq!(ask("/v1/views/revenue/rows", "text/csv").await.1, "text/csv; charset=utf-8; header=present");
    assert_eq!(ask("/v1/views/revenue/rows", "*/*").await, (200, "application/json".into()));
    assert_eq!(ask("/v1/views/revenue/rows.json", "text/csv").await, (200, "application/json".into()));
    assert_eq!(ask("/v1/views/revenue/rows", "image/png").await, (406, "application/problem+json".into()));
    assert_eq!(
        ask("/v1/views/revenue/rows", "application/vnd.apache.arrow.stream").await,
        (200, "application/vnd.apache.arrow.stream".into())
    );
    assert_eq!(ask("/v1/views/revenue/rows.xlsx", "*/*").await, (404, "application/problem+json".into()));
}

#[tokio::test]
async fn large_bodies_are_compressed_if_the_client_accepts_it() {
    let world = world();
    let ask = async |path: &str, encoding: &str| {
        let request = Request::get(path).header("accept-encoding", encoding).body(Body::empty()).expect("a request");
        let reply = world.send(request).await;
        assert_eq!(reply.status, StatusCode::OK);
        reply.header("content-encoding").map(str::to_owned)
    };
    assert_eq!(ask("/v1/views/revenue/rows", "gzip").await.as_deref(), Some("gzip"));
    assert_eq!(ask("/v1/views/revenue/rows", "zstd").await.as_deref(), Some("zstd"));
    assert_eq!(ask("/v1/views/revenue/rows", "br").await.as_deref(), Some("br"));
    assert_eq!(ask("/v1/views/revenue/rows", "identity").await, None);
    assert_eq!(ask("/v1/views/revenue/rows.parquet", "gzip").await, None);
    assert_eq!(ask("/livez", "gzip").await, None);
}
