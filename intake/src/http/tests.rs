//! Checks each status and each encoding of the events endpoint against a writer that only records.

use std::io::Write;
use std::sync::Mutex;

use axum::body::{Body, to_bytes};
use axum::http::{Method, StatusCode};
use bytes::Bytes;
use serde_json::{Value, json};
use shared::limits::EVENT_BODY_BYTES_MAX;
use tower::ServiceExt;

use super::*;
use crate::log::Exhausted;

/// Accepts everything, or refuses everything, and records what was submitted.
#[derive(Default)]
struct RecordingWriter {
    refuse: Option<SubmitError>,
    submitted: Mutex<Vec<(usize, Option<String>)>>,
    fingerprints: Mutex<Vec<BodyFingerprint>>,
    rejected: Mutex<Vec<RejectedLines>>,
}

/// The recorder as the only stream that accepts events.
struct Recorder(Arc<Stream>, Arc<RecordingWriter>);

struct RecorderDirectory(Arc<RecordingWriter>);

impl StreamDirectory for RecorderDirectory {
    fn stream(&self, name: &str) -> Option<Arc<dyn StreamWriter>> {
        let sql =
            "CREATE STREAM flights (scheduled_at TIMESTAMP, delay_min BIGINT) WITH (event_time = 'scheduled_at');";
        let stream = Arc::new(crate::testing::stream(sql));
        (name == "flights").then(|| Arc::new(Recorder(stream, Arc::clone(&self.0))) as Arc<dyn StreamWriter>)
    }

    fn stream_names(&self) -> Vec<StreamName> {
        vec!["flights".parse().unwrap(), "orders".parse().unwrap()]
    }
}

impl StreamWriter for Recorder {
    fn stream(&self) -> &Arc<Stream> {
        &self.0
    }

    fn record_rejected(&self, rejected: RejectedLines, _: u64) {
        self.1.rejected.lock().unwrap().push(rejected);
    }

    fn submit(&self, decoded: Decoded, key: Option<IdempotencyKey>) -> BoxFuture<'_, Result<WriteReceipt, WriteError>> {
        let rows = decoded.rows.num_rows();
        self.1.fingerprints.lock().unwrap().extend(key.as_ref().map(|key| key.body));
        self.1.submitted.lock().unwrap().push((rows, key.map(|key| key.key)));
        let written = match &self.1.refuse {
            Some(error) => Err(error.clone().into()),
            None => Ok(WriteReceipt {
                accepted: rows as u64,
                duplicates: 1,
                erased: 0,
                late: 3,
                ahead: 0,
                offsets: BTreeMap::from([(Partition(0), (Offset(41_200), Offset(41_199 + rows as u64)))]),
            }),
        };
        Box::pin(async move { written })
    }

    fn append_each(&self, _: Vec<EntityEvents>) -> BoxFuture<'_, Result<Vec<AppendVerdict>, SubmitError>> {
        unreachable!("the stream has no entity")
    }
}

const GOOD: &str = "{\"scheduled_at\":\"2001-01-01T06:00:00Z\",\"delay_min\":5}\n";
const BAD: &str = "{\"scheduled_at\":\"2001-01-01T06:00:00Z\",\"delay_min\":\"abc\"}\n";

struct Reply {
    status: StatusCode,
    headers: HeaderMap,
    json: Value,
}

async fn send(recorder: &Arc<RecordingWriter>, uri: &str, headers: &[(&str, &str)], body: impl Into<Body>) -> Reply {
    let mut request = Request::builder().method(Method::POST).uri(uri);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let routes = routes(Arc::new(RecorderDirectory(Arc::clone(recorder))));
    let response = routes.oneshot(request.body(body.into()).unwrap()).await.unwrap();
    let (parts, body) = response.into_parts();
    let bytes = to_bytes(body, usize::MAX).await.unwrap();
    Reply { status: parts.status, headers: parts.headers, json: serde_json::from_slice(&bytes).unwrap() }
}

async fn post_flights(headers: &[(&str, &str)], body: impl Into<Body>) -> Reply {
    send(&Arc::default(), "/v1/events/flights", headers, body).await
}

fn assert_problem(reply: &Reply, status: u16, code: &str) {
    assert_eq!(reply.status.as_u16(), status, "{}", reply.json);
    assert_eq!(reply.headers[header::CONTENT_TYPE], "application/problem+json");
    assert_eq!((&reply.json["status"], &reply.json["code"]), (&json!(status), &json!(code)));
    assert_eq!(reply.json["type"], format!("urn:trueup:problem:{code}"));
    for member in ["title", "detail"] {
        assert!(reply.json[member].as_str().is_some_and(|text| !text.is_empty()), "{member}: {}", reply.json);
    }
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

#[tokio::test]
async fn responses_follow_the_contract() {
    let reply = post_flights(&[("content-type", "application/x-ndjson")], format!("{GOOD}{BAD}{GOOD}")).await;
    assert_eq!(reply.status, StatusCode::OK);
    let want = json!({
        "accepted": 2, "duplicates": 1, "late": 3, "rejected": 1,
        "rejections": [{"line": 2, "reason": "delay_min: expected BIGINT, found string \"abc\""}],
        "offsets": {"0": [41_200, 41_201]},
    });
    assert_eq!(reply.json, want);
}

#[tokio::test]
async fn unknown_fields_are_reported_if_any() {
    let reply = post_flights(&[], "{\"scheduled_at\":0,\"x\":1,\"y\":[]}").await;
    assert_eq!(reply.json["unknown_fields"], 2);
}

#[tokio::test]
async fn arrays_and_objects_are_accepted() {
    let array =
        post_flights(&[("content-type", "application/json")], "[{\"scheduled_at\":0},{\"scheduled_at\":1}]").await;
    assert_eq!(array.json["accepted"], 2);
    let object = post_flights(&[("content-type", "Application/JSON; charset=utf-8")], "{\n\"scheduled_at\":0\n}").await;
    assert_eq!(object.json["accepted"], 1);
    let broken = post_flights(&[], "[{\"scheduled_at\":0},\n{]").await;
    assert_problem(&broken, 400, "invalid_json");
    assert_eq!((&broken.json["line"], &broken.json["column"]), (&json!(2), &json!(2)));
}

#[tokio::test]
async fn csv_arrow_and_parquet_are_accepted_and_refused_by_the_same_rules() {
    let csv = [("content-type", "text/csv; charset=utf-8")];
    let body = "scheduled_at,delay_min\n2001-01-01T06:00:00Z,5\n2001-01-01T06:00:00Z,abc\n";
    let reply = post_flights(&csv, body).await;
    assert_eq!((&reply.json["accepted"], &reply.json["rejected"]), (&json!(1), &json!(1)), "{}", reply.json);
    let reason = "delay_min: expected BIGINT, found \"abc\"";
    assert_eq!(reply.json["rejections"], json!([{"line": 3, "reason": reason}]));
    let reply = send(&Arc::default(), "/v1/events/flights?strict=true", &csv, body).await;
    assert_problem(&reply, 422, "rejected");
    assert_problem(&post_flights(&csv, "delay_min\n5\n").await, 400, "invalid_table");

    let times: arrow::array::ArrayRef = Arc::new(arrow::array::Int64Array::from(vec![Some(1), None, Some(3)]));
    let rows = arrow::array::RecordBatch::try_from_iter_with_nullable([("scheduled_at", times, true)]).unwrap();
    let mut writer = arrow::ipc::writer::StreamWriter::try_new(Vec::new(), &rows.schema()).unwrap();
    writer.write(&rows).unwrap();
    writer.finish().unwrap();
    let body = writer.into_inner().unwrap();
    let arrow = ("content-type", "application/vnd.apache.arrow.stream");
    let reply = post_flights(&[arrow], body.clone()).await;
    assert_eq!((&reply.json["accepted"], &reply.json["rejected"]), (&json!(2), &json!(1)), "{}", reply.json);
    let reply = post_flights(&[arrow, ("content-encoding", "gzip")], gzip(&body)).await;
    assert_eq!(reply.json["accepted"], 2, "{}", reply.json);
    assert_problem(&post_flights(&[arrow], body[..body.len() - 20].to_vec()).await, 400, "invalid_table");
    assert_problem(&post_flights(&[arrow], GOOD).await, 400, "invalid_table");

    let mut writer = parquet::arrow::ArrowWriter::try_new(Vec::new(), rows.schema(), None).unwrap();
    writer.write(&rows).unwrap();
    let body = writer.into_inner().unwrap();
    let parquet = ("content-type", "application/vnd.apache.parquet");
    let reply = post_flights(&[parquet], body.clone()).await;
    assert_eq!((&reply.json["accepted"], &reply.json["rejected"]), (&json!(2), &json!(1)), "{}", reply.json);
    assert_problem(&post_flights(&[parquet], body[1..].to_vec()).await, 400, "invalid_table");
    assert_problem(&post_flights(&[parquet], GOOD).await, 400, "invalid_table");
}

#[tokio::test]
async fn strict_accepts_all_events_or_none() {
    let recorder = Arc::<RecordingWriter>::default();
    let reply = send(&recorder, "/v1/events/flights?strict=true", &[], format!("{GOOD}{BAD}")).await;
    assert_problem(&reply, 422, "rejected");
    assert_eq!(reply.json["rejections"][0]["line"], 2);
    assert!(recorder.submitted.lock().unwrap().is_empty());
    let reply = send(&recorder, "/v1/events/flights?strict=true", &[], GOOD).await;
    assert_eq!((reply.status, &reply.json["accepted"]), (StatusCode::OK, &json!(1)));
    let reply = send(&recorder, "/v1/events/flights?strict=perhaps", &[], GOOD).await;
    assert_problem(&reply, 400, "bad_query");
    // A misspelt parameter is not ignored.
    let reply = send(&recorder, "/v1/events/flights?strct=true", &[], format!("{GOOD}{BAD}")).await;
    assert_problem(&reply, 400, "bad_query");
    assert!(reply.json["detail"].as_str().is_some_and(|detail| detail.contains("strict")), "{}", reply.json);
}

#[tokio::test]
async fn a_request_without_events_and_without_a_key_is_not_submitted() {
    let recorder = Arc::<RecordingWriter>::default();
    for body in ["", BAD, "[]"] {
        let reply = send(&recorder, "/v1/events/flights", &[], body).await;
        assert_eq!(
            (reply.status, &reply.json["accepted"], &reply.json["offsets"]),
            (StatusCode::OK, &json!(0), &json!({}))
        );
    }
    assert!(recorder.submitted.lock().unwrap().is_empty());
    // With a key it is: the key is used from now on.
    send(&recorder, "/v1/events/flights", &[("idempotency-key", "k")], BAD).await;
    assert_eq!(*recorder.submitted.lock().unwrap(), [(0, Some("k".to_owned()))]);
}

#[tokio::test]
async fn rejected_lines_are_recorded_once_the_request_is_accepted() {
    let recorder = Arc::<RecordingWriter>::default();
    let reply = send(&recorder, "/v1/events/flights", &[("idempotency-key", "k")], format!("{GOOD}{BAD}x\n")).await;
    assert_eq!((reply.status, &reply.json["rejected"]), (StatusCode::OK, &json!(2)));
    {
        let recorded = recorder.rejected.lock().unwrap();
        let lines: Vec<_> = recorded[0].lines.iter().map(|line| (line.line, line.text.as_str())).collect();
        assert_eq!(lines, [(2, BAD.trim_end()), (3, "x")]);
        assert_eq!((recorded[0].count, recorded[0].idempotency_key.as_deref()), (2, Some("k")));
    }
    // The client will send both again as a whole.
    let busy = Arc::new(RecordingWriter { refuse: Some(SubmitError::Busy), ..RecordingWriter::default() });
    send(&busy, "/v1/events/flights", &[], format!("{GOOD}{BAD}")).await;
    send(&busy, "/v1/events/flights?strict=true", &[], format!("{GOOD}{BAD}")).await;
    assert!(busy.rejected.lock().unwrap().is_empty());
}

#[tokio::test]
async fn compressed_bodies_are_decompressed() {
    let lines = GOOD.repeat(3_000);
    let gzipped = post_flights(&[("content-encoding", "gzip")], gzip(lines.as_bytes())).await;
    assert_eq!(gzipped.json["accepted"], 3_000, "{}", gzipped.json);
    let mut members = gzip(GOOD.as_bytes());
    members.extend(gzip(GOOD.as_bytes()));
    assert_eq!(post_flights(&[("content-encoding", "gzip")], members).await.json["accepted"], 2);
    let zstd = zstd::encode_all(lines.as_bytes(), 3).unwrap();
    assert_eq!(post_flights(&[("content-encoding", "ZSTD")], zstd.clone()).await.json["accepted"], 3_000);
    assert_eq!(post_flights(&[("content-encoding", "identity")], lines).await.json["accepted"], 3_000);

    for (encoding, body) in [("gzip", &zstd[..]), ("zstd", &zstd[..zstd.len() - 1]), ("zstd", b"{}")] {
        assert_problem(&post_flights(&[("content-encoding", encoding)], body.to_vec()).await, 400, "broken_body");
    }
    for encoding in ["br", "gzip, zstd"] {
        assert_problem(&post_flights(&[("content-encoding", encoding)], GOOD).await, 415, "unsupported_encoding");
    }
}

#[tokio::test]
async fn decompression_bombs_are_refused() {
    let spaces = vec![b' '; EVENT_BODY_BYTES_MAX];
    let fits = post_flights(&[("content-encoding", "gzip")], gzip(&spaces)).await;
    assert_eq!(fits.status, StatusCode::OK);
    let too_many = vec![b' '; EVENT_BODY_BYTES_MAX + 1];
    let bomb = post_flights(&[("content-encoding", "gzip")], gzip(&too_many)).await;
    assert_problem(&bomb, 413, "too_large");
    let bomb = post_flights(&[("content-encoding", "zstd")], zstd::encode_all(&too_many[..], 1).unwrap()).await;
    assert_problem(&bomb, 413, "too_large");

    let mut wide = zstd::Encoder::new(Vec::new(), 1).unwrap();
    wide.window_log(27).unwrap();
    wide.write_all(GOOD.as_bytes()).unwrap();
    let wide = post_flights(&[("content-encoding", "zstd")], wide.finish().unwrap()).await;
    assert_problem(&wide, 400, "broken_body");
}

#[tokio::test]
async fn large_bodies_are_refused_with_and_without_a_length() {
    let length = (EVENT_BODY_BYTES_MAX + 1).to_string();
    assert_problem(&post_flights(&[("content-length", &length)], GOOD).await, 413, "too_large");
    let frame = Bytes::from(vec![b' '; 1 << 20]);
    let frames = futures::stream::iter((0..65).map(move |_| Ok::<_, std::io::Error>(frame.clone())));
    assert_problem(&post_flights(&[], Body::from_stream(frames)).await, 413, "too_large");
}

#[tokio::test]
async fn bodies_in_pieces_are_joined() {
    let body = GOOD.repeat(5_000);
    for announced in [true, false] {
        let pieces: Vec<_> =
            body.as_bytes().chunks(1_000).map(Bytes::copy_from_slice).map(Ok::<_, std::io::Error>).collect();
        let length = body.len().to_string();
        let headers = [("content-length", &*length)];
        let headers = if announced { &headers[..] } else { &[] };
        let reply = post_flights(headers, Body::from_stream(futures::stream::iter(pieces))).await;
        assert_eq!(reply.json["accepted"], 5_000, "{}", reply.json);
    }
    let broken = futures::stream::iter([Ok(Bytes::from_static(GOOD.as_bytes())), Err(std::io::Error::other("reset"))]);
    assert_problem(&post_flights(&[], Body::from_stream(broken)).await, 400, "broken_body");
}

#[tokio::test]
async fn types_under_which_clients_send_json_are_accepted() {
    for good in [
        "application/json",
        "application/ndjson",
        "application/jsonl",
        "text/plain; charset=utf-8",
        "application/octet-stream",
        "",
    ] {
        assert_eq!(post_flights(&[("content-type", good)], GOOD).await.status, StatusCode::OK, "{good}");
    }
    for bad in ["text/html", "multipart/form-data", "json"] {
        assert_problem(&post_flights(&[("content-type", bad)], GOOD).await, 415, "unsupported_type");
    }
}

#[tokio::test]
async fn unknown_streams_get_the_nearest_name() {
    let recorder = Arc::default();
    let near = send(&recorder, "/v1/events/flight", &[], GOOD).await;
    assert_problem(&near, 404, "unknown_stream");
    assert_eq!(near.json["detail"], "there is no stream called \"flight\" (did you mean \"flights\"?)");
    let far = send(&recorder, "/v1/events/temperatures", &[], GOOD).await;
    assert_eq!(far.json["detail"], "there is no stream called \"temperatures\"");
}

#[tokio::test]
async fn refusals_of_the_writer_have_their_status() {
    for (error, status, code) in [
        (SubmitError::Busy, 429, "busy"),
        (SubmitError::Exhausted(Exhausted::Disk), 507, "disk_full"),
        (SubmitError::Exhausted(Exhausted::OpenFiles), 507, "disk_full"),
        (SubmitError::Stopped, 503, "stopping"),
        (SubmitError::KeyReused, 422, "idempotency_key_reused"),
        (SubmitError::TooLarge { bytes: 2, max: 1 }, 413, "too_large"),
        (SubmitError::Mismatch("no".into()), 500, "internal"),
    ] {
        let recorder = Arc::new(RecordingWriter { refuse: Some(error), ..RecordingWriter::default() });
        let reply = send(&recorder, "/v1/events/flights", &[], GOOD).await;
        assert_problem(&reply, status, code);
        assert_eq!(reply.headers.get(header::RETRY_AFTER).is_some(), status == 429);
    }
}

#[tokio::test]
async fn bodies_beyond_the_budget_are_refused_as_busy() {
    let budget = BodyBudget::new(10_000, body::BodyPatience::default());
    let body = || Body::from(vec![b' '; 4_000]);
    let first = budget.collect(body(), Some(4_000)).await.unwrap();
    let _second = budget.collect(body(), None).await.unwrap();
    let response = Problem::from(budget.collect(body(), None).await.unwrap_err()).into_response();
    assert_eq!(
        (response.status(), response.headers()[header::RETRY_AFTER].as_bytes()),
        (StatusCode::TOO_MANY_REQUESTS, &b"1"[..])
    );
    drop(first);
    assert!(budget.collect(body(), None).await.is_ok());
}

#[tokio::test]
async fn idempotency_keys_are_submitted_with_the_fingerprint_of_the_decompressed_body() {
    let recorder = Arc::<RecordingWriter>::default();
    let key = "k".repeat(IDEMPOTENCY_KEY_BYTES_MAX);
    send(&recorder, "/v1/events/flights", &[("idempotency-key", &key)], GOOD).await;
    send(&recorder, "/v1/events/flights", &[], GOOD).await;
    let packed = [("idempotency-key", &*key), ("content-encoding", "gzip")];
    send(&recorder, "/v1/events/flights", &packed, gzip(GOOD.as_bytes())).await;
    send(&recorder, "/v1/events/flights", &[("idempotency-key", &key)], format!("{GOOD} ")).await;
    let submitted = [(1, Some(key.clone())), (1, None), (1, Some(key.clone())), (1, Some(key))];
    assert_eq!(*recorder.submitted.lock().unwrap(), submitted);
    let body = BodyFingerprint::of(GOOD.as_bytes());
    let other = BodyFingerprint::of(format!("{GOOD} ").as_bytes());
    assert_eq!(*recorder.fingerprints.lock().unwrap(), [body, body, other]);
    for bad in ["k".repeat(IDEMPOTENCY_KEY_BYTES_MAX + 1), String::new(), "\u{e9}".to_owned()] {
        let reply = send(&recorder, "/v1/events/flights", &[("idempotency-key", &bad)], GOOD).await;
        assert_problem(&reply, 400, "bad_idempotency_key");
    }
}
