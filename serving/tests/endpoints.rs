//! Tests the other endpoints: views, versions, comparisons, runs, streams and health.

mod world;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringViewArray};
use arrow::datatypes::{DataType, Field, Schema};
use axum::body::Body;
use axum::http::{Request, StatusCode};
use serde_json::{Value, json};
use shared::compare::{Cause, Difference, MeasureDrift};
use shared::control::{
    EventPage, Lateness, ListRange, PartitionStatus, QuarantineCounts, QuarantinePage, Quarantined, StreamColumn,
    StreamStatus, TimeSettings,
};
use shared::ids::Offset;
use shared::time::Micros;
use world::{P0, World, a_comparison};

const SQL: &str = "
CREATE STREAM flights (id BIGINT, at TIMESTAMP, origin STRING, delay BIGINT)
WITH (event_time = 'at', watermark_delay = '10 minutes', allowed_lateness = '2 hours');
CREATE VIEW departures WITH (schedule = '*/15 * * * *') AS
SELECT window_start, window_end, origin, COUNT(*) AS flights FROM flights GROUP BY TUMBLE(at, INTERVAL '1' HOUR), origin;
CREATE VIEW totals AS SELECT origin, COUNT(*) AS flights FROM flights GROUP BY origin;
";
const EVENT: &str = r#"{"id":1,"at":"2001-01-01T06:10:00Z","origin":"ATL","delay":5}"#;

fn at(text: &str) -> Micros {
    Micros::parse(text).expect("a time")
}

fn world() -> World {
    let world = World::new(SQL);
    world.publish(12, EVENT);
    world.live(EVENT);
    world.watermark("2001-01-02T11:00:00Z");
    *world.runs.next_run.lock() = Some(at("2001-01-02T12:15:00Z"));
    let row = |hour: u32| Difference {
        window_start: Some(at(&format!("2001-01-01T{hour:02}:00:00Z"))),
        dimensions: BTreeMap::from([("origin".to_owned(), json!("ATL"))]),
        measure: "flights".to_owned(),
        served: json!(49),
        exact: json!(51),
        cause: Cause::Late,
    };
    let mut comparison = a_comparison("departures", 12);
    comparison
        .measures
        .insert("flights".into(), MeasureDrift { equal: 9, max_abs_error: 2.0, ..MeasureDrift::default() });
    comparison.rows = vec![row(6), row(7), row(8)];
    world.runs.comparisons.lock().extend([a_comparison("departures", 11), comparison]);
    world
}

async fn send(world: &World, method: &str, path: &str, body: &str) -> (StatusCode, Value) {
    let request = Request::builder().method(method).uri(path).body(Body::from(body.to_owned())).expect("a request");
    let reply = world.send(request).await;
    (reply.status, reply.json())
}

#[tokio::test]
async fn a_view_is_described_in_full() {
    let world = world();
    let view = world.get("/v1/views/departures").await.json();
    assert!(view["sql"].as_str().is_some_and(|sql| sql.contains("CREATE VIEW departures")), "{view}");
    assert_eq!(view["stream"], "flights");
    assert_eq!(view["columns"][2], json!({"name": "origin", "type": "STRING", "role": "dimension"}));
    let window = json!({"kind": "tumble", "text": "TUMBLE of 1 hour in UTC", "time_zone": "UTC", "size_ms": 3_600_000, "offset_ms": 0});
    assert_eq!(view["window"], window);
    assert_eq!((&view["schedule"], &view["next_run"]), (&json!("*/15 * * * *"), &json!("2001-01-02T12:15:00Z")));
    assert_eq!(view["seam"], json!({"version": 12, "published_at": "2001-01-02T11:59:00Z", "offsets": {"0": 1}}));
    assert_eq!((&view["watermark"], &view["lag_ms"]), (&json!("2001-01-02T11:00:00Z"), &json!(3_600_000)));
    assert_eq!((&view["state"]["rows"], &view["state"]["generations"]), (&json!(1), &json!(1)));
    assert_eq!((&view["batch"]["rows"], &view["complete"]), (&json!(1), &json!(true)));
    assert_eq!(view["newest_window"], "2001-01-01T06:00:00Z");
    let drift = &view["reconciliation"];
    assert_eq!((&drift["version"], &drift["rows_equal"], &drift["causes"]["late"]), (&json!(12), &json!(9), &json!(1)));
    assert_eq!(drift["measures"]["flights"]["max_abs_error"], 2.0);
    assert_eq!(drift["rows"], Value::Null);
    let all = world.get("/v1/views").await.json();
    assert_eq!(
        (&all["views"][0], &all["views"][1]["window"], &all["views"][1]["name"]),
        (&view, &Value::Null, &json!("totals"))
    );
}

#[tokio::test]
async fn a_view_is_described_even_if_a_layer_is_unavailable() {
    let world = world();
    world.speed.stopped.store(true, Ordering::SeqCst);
    let view = world.get("/v1/views/departures").await.json();
    assert_eq!(
        (&view["name"], &view["watermark"], &view["complete"]),
        (&json!("departures"), &Value::Null, &Value::Null)
    );
    assert!(view["problems"][0].as_str().is_some_and(|p| p.contains("speed")), "{view}");
}

#[tokio::test]
async fn unknown_names_are_refused_with_the_nearest() {
    let world = world();
    for (method, path, code, hint) in [
        ("GET", "/v1/views/departure", "unknown_view", "\"departures\""),
        ("GET", "/v1/views/departure/rows", "unknown_view", "\"departures\""),
        ("GET", "/v1/views/Departures/rows.csv", "unknown_view", "\"departures\""),
        ("GET", "/v1/views/departure/compare", "unknown_view", "\"departures\""),
        ("GET", "/v1/views/departure/versions", "unknown_view", "\"departures\""),
        ("POST", "/v1/views/departure/runs", "unknown_view", "\"departures\""),
        ("GET", "/v1/runs/nope", "unknown_run", "nope"),
        ("DELETE", "/v1/runs/nope", "unknown_run", "nope"),
        ("GET", "/v1/streams/nope", "unknown_stream", "nope"),
        ("GET", "/v1/nothing", "unknown_path", "/v1/views"),
    ] {
        let (status, problem) = send(&world, method, path, "").await;
        assert_eq!((status, &problem["code"]), (StatusCode::NOT_FOUND, &json!(code)), "{method} {path}: {problem}");
        assert!(problem["detail"].as_str().is_some_and(|d| d.contains(hint)), "{method} {path}: {problem}");
    }
    let (status, problem) = send(&world, "POST", "/v1/views", "").await;
    assert_eq!((status, &problem["code"]), (StatusCode::METHOD_NOT_ALLOWED, &json!("method_not_allowed")));
}

#[tokio::test]
async fn comparisons_are_found_by_version_and_filtered_by_time() {
    let world = world();
    let latest = world.get("/v1/views/departures/compare").await.json();
    assert_eq!((&latest["version"], latest["rows"].as_array().map(Vec::len)), (&json!(12), Some(3)));
    assert_eq!(
        latest["rows"][0],
        json!({"window_start": "2001-01-01T06:00:00Z", "origin": "ATL", "measure": "flights",
                                         "served": 49, "exact": 51, "cause": "late"})
    );
    let cut = world.get("/v1/views/departures/compare?from=2001-01-01T07:00:00Z&to=2001-01-01T08:00:00Z").await.json();
    assert_eq!(cut["rows"].as_array().map(Vec::len), Some(1));
    assert_eq!(world.get("/v1/views/departures/compare?version=11").await.json()["version"], 11);
    for (query, status, code) in [
        ("version=3", 404, "no_comparison"),
        ("version=x", 400, "invalid_parameter"),
        ("from=x", 400, "invalid_parameter"),
        ("form=2001-01-01", 400, "unknown_parameter"),
        ("to=2001-01-01&to=2001-01-01", 400, "invalid_parameter"),
    ] {
        let reply = world.get(&format!("/v1/views/departures/compare?{query}")).await;
        assert_eq!((reply.status.as_u16(), &reply.json()["code"]), (status, &json!(code)), "{query}");
    }
    assert_eq!(world.get("/v1/views/totals/compare").await.status, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn versions_are_listed_with_their_comparison() {
    let world = world();
    world.publish(13, EVENT);
    let versions = world.get("/v1/views/departures/versions").await.json();
    assert_eq!(versions["versions"].as_array().map(Vec::len), Some(2));
    assert_eq!((&versions["versions"][0]["version"], &versions["versions"][0]["drift"]), (&json!(13), &Value::Null));
    let older = &versions["versions"][1];
    assert_eq!((&older["version"], &older["cut"], &older["events"]), (&json!(12), &json!({"0": 1}), &json!(1)));
    assert_eq!(older["drift"]["rows_equal"], 9);
}

#[tokio::test]
async fn runs_can_be_requested_listed_and_cancelled() {
    let world = world();
    let (status, run) = send(&world, "POST", "/v1/views/departures/runs", "").await;
    assert_eq!(
        (status, &run["id"], &run["full"], &run["state"]),
        (StatusCode::ACCEPTED, &json!("run-1"), &json!(false), &json!("queued"))
    );
    let (status, run) = send(&world, "POST", "/v1/views/totals/runs", r#"{"full": true}"#).await;
    assert_eq!((status, &run["id"], &run["full"]), (StatusCode::ACCEPTED, &json!("run-2"), &json!(true)));
    for body in ["{", "[]x", r#"{"ful": true}"#, r#"{"full": 1}"#] {
        let (status, problem) = send(&world, "POST", "/v1/views/departures/runs", body).await;
        assert_eq!((status, &problem["code"]), (StatusCode::BAD_REQUEST, &json!("invalid_body")), "{body}");
    }
    let runs = world.get("/v1/runs").await.json();
    assert_eq!((&runs["runs"][0]["id"], runs["runs"].as_array().map(Vec::len)), (&json!("run-2"), Some(2)));
    let runs = world.get("/v1/runs?view=departures&state=queued&limit=1").await.json();
    assert_eq!((&runs["runs"][0]["id"], &runs["next"]), (&json!("run-1"), &json!(null)));
    for (query, code) in [
        ("limit=0", "invalid_parameter"),
        ("limit=x", "invalid_parameter"),
        ("state=done", "invalid_parameter"),
        ("view=nope", "unknown_view"),
        ("stat=failed", "unknown_parameter"),
    ] {
        assert_eq!(world.get(&format!("/v1/runs?{query}")).await.json()["code"], code, "{query}");
    }
    assert_eq!(world.get("/v1/runs/run-1").await.json()["view"], "departures");
    let (status, run) = send(&world, "DELETE", "/v1/runs/run-1", "").await;
    assert_eq!((status, &run["state"]), (StatusCode::OK, &json!("cancelled")));
}

#[tokio::test]
async fn streams_are_described_as_intake_reports_them() {
    let world = world();
    let partition = PartitionStatus {
        partition: P0,
        log_start: Offset(0),
        head: Offset(7),
        archived: Offset(5),
        watermark: None,
        accepted: 7,
        duplicates: 1,
        late: 2,
        ahead: 0,
        log_bytes: 100,
        last_arrival: None,
        backlog_bytes: Default::default(),
        archive_error: None,
        rows: None,
    };
    let (name, data_type, role) = ("at".into(), "TIMESTAMP".into(), Some("event time".into()));
    let column = StreamColumn { name, data_type, role, field: None, format: None, metadata: None };
    let stream = StreamStatus {
        historical: 0,
        name: "flights".parse().expect("a name"),
        columns: vec![column],
        partitions: vec![partition],
        rejected: 3,
        unknown_fields: 0,
        events_per_second: 12.5,
        watermark: Some(at("2001-01-01T06:00:00Z")),
        retention: Some("2 years".into()),
        retained_from: None,
        settings: TimeSettings { watermark_delay: "10 minutes".into(), ..TimeSettings::default() },
        lateness: Some(Lateness { measured: 7, late_share: 0.25, ..Lateness::default() }),
        quarantine: QuarantineCounts { total: 3, kept: 2, dropped: 1 },
        suspicious_times: None,
        source: None,
    };
    world.streams.all.lock().push(stream.clone());
    let expected = serde_json::to_value(&stream).expect("JSON");
    assert_eq!(world.get("/v1/streams").await.json(), json!({"streams": [expected]}));
    assert_eq!(world.get("/v1/streams/flights").await.json(), expected);
}

#[tokio::test]
async fn late_and_ahead_events_are_listed_as_flat_objects() {
    let world = world();
    let field = |name: &str, data_type| Field::new(name, data_type, true);
    let schema = Schema::new(vec![field("origin", DataType::Utf8View), field("late_by_ms", DataType::Int64)]);
    let origins: ArrayRef = Arc::new(StringViewArray::from(vec![Some("A\"TL"), None]));
    let rows = RecordBatch::try_new(Arc::new(schema), vec![origins, Arc::new(Int64Array::from(vec![5, 70]))]);
    let rows = rows.expect("columns of the schema");
    *world.streams.events.lock() = Some(EventPage { total: 9, kept: 4, kept_max: 4, rows, next: Some("1.0.2".into()) });
    let expected = json!({
        "stream": "flights", "total": 9, "kept": 4, "kept_max": 4, "listed": 2,
        "events": [{"origin": "A\"TL", "late_by_ms": 5}, {"origin": null, "late_by_ms": 70}], "next": "1.0.2"
    });
    assert_eq!(world.get("/v1/streams/flights/late").await.json(), expected);
    assert_eq!(world.get("/v1/streams/flights/ahead?limit=2&cursor=1.0.2").await.json(), expected);
    let asked = |what: &str, limit, cursor: Option<&str>| {
        (what.to_owned(), ListRange { limit, cursor: cursor.map(str::to_owned) })
    };
    assert_eq!(*world.streams.asked.lock(), [asked("Late", 100, None), asked("Ahead", 2, Some("1.0.2"))]);
    for (path, status, code) in [
        ("/v1/streams/flight/late", 404, "unknown_stream"),
        ("/v1/streams/flights/late?limit=0", 400, "invalid_parameter"),
        ("/v1/streams/flights/late?limit=1001", 400, "invalid_parameter"),
        ("/v1/streams/flights/ahead?cursor=bad", 400, "invalid_parameter"),
        ("/v1/streams/flights/late?before=1", 400, "unknown_parameter"),
    ] {
        let reply = world.get(path).await;
        assert_eq!((reply.status.as_u16(), reply.json()["code"].as_str()), (status, Some(code)), "{path}");
    }
}

#[tokio::test]
async fn rejected_lines_are_listed_and_removed() {
    let world = world();
    let line = Quarantined {
        number: 3,
        arrived_at: at("2001-01-01T06:00:00Z"),
        line: 17,
        reason: "expected an object, found number 1".into(),
        text: "1".into(),
        bytes: 1,
        truncated: false,
        idempotency_key: None,
        record: None,
    };
    let counts = QuarantineCounts { total: 3, kept: 1, dropped: 2 };
    let page = QuarantinePage { counts, kept_max: 10, kept_bytes_max: 99, lines: vec![line], next: None };
    *world.streams.quarantine.lock() = Some(page);
    let expected = json!({
        "total": 3, "kept": 1, "dropped": 2, "kept_max": 10, "kept_bytes_max": 99, "next": null,
        "lines": [{"number": 3, "arrived_at": "2001-01-01T06:00:00Z", "line": 17, "text": "1", "bytes": 1,
                   "reason": "expected an object, found number 1", "truncated": false}]
    });
    assert_eq!(world.get("/v1/streams/flights/quarantine").await.json(), expected);
    assert_eq!(
        send(&world, "DELETE", "/v1/streams/flights/quarantine", "").await,
        (StatusCode::OK, json!({"removed": 1}))
    );
    assert_eq!(send(&world, "DELETE", "/v1/streams/x/quarantine", "").await.0, StatusCode::NOT_FOUND);
    assert_eq!(send(&world, "POST", "/v1/streams/flights/quarantine", "").await.0, StatusCode::METHOD_NOT_ALLOWED);
}

#[tokio::test]
async fn readiness_gives_the_reason() {
    let world = world();
    assert_eq!(world.get("/livez").await.status, StatusCode::OK);
    assert_eq!(world.get("/readyz").await.json(), json!({"status": "ready"}));
    world.speed.stopped.store(true, Ordering::SeqCst);
    let reply = world.get("/readyz").await;
    assert_eq!(reply.status, StatusCode::SERVICE_UNAVAILABLE);
    assert!(reply.json()["reason"].as_str().is_some_and(|r| r.contains("departures")), "{}", reply.text());
    world.speed.stopped.store(false, Ordering::SeqCst);
    world.vitals.fail("archive-flights-0", "panicked");
    let reply = world.get("/readyz").await;
    assert_eq!(reply.status, StatusCode::SERVICE_UNAVAILABLE);
    assert!(
        reply.json()["reason"].as_str().is_some_and(|r| r.contains("archive-flights-0: panicked")),
        "{}",
        reply.text()
    );
    let world = self::world();
    world.ready.store(false, Ordering::SeqCst);
    assert_eq!(world.get("/readyz").await.status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(world.get("/livez").await.status, StatusCode::OK);
    assert_eq!(world.get("/metrics").await.text(), "trueup_up 1\n");
}
