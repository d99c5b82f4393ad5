//! Checks idempotency keys through the endpoint, in streams of one and several partitions, with and without ids, across
//! restarts.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::AtomicBool;

use axum::body::{Body, to_bytes};
use axum::http::{Method, Request};
use proptest::prelude::*;
use serde_json::{Value, json};
use shared::clock::ManualClock;
use shared::time::Micros;
use shared::vital::Vitals;
use tempfile::TempDir;
use tower::ServiceExt;

use super::*;
use crate::http::routes;
use crate::log::{IoFaults, IoStep, LocalDisk, with_faults};
use crate::partition::PartitionSettings;
use crate::quarantine::QuarantineSettings;

/// A stream on disk and its endpoint.
struct TestServer {
    intake: Intake,
    submitter: Arc<EventSubmitter>,
}

fn start(dir: &TempDir, stream: &Arc<Stream>) -> TestServer {
    start_with(dir, stream, &PartitionSettings::default())
}

fn start_with(dir: &TempDir, stream: &Arc<Stream>, settings: &PartitionSettings) -> TestServer {
    let clock: Arc<dyn Clock> = Arc::new(ManualClock::at(Micros(1_000)));
    let vitals = Vitals::default();
    let intake = Intake::open(dir.path(), std::slice::from_ref(stream), settings, &clock, &vitals).expect("opens");
    intake.start().expect("threads");
    let quarantine =
        Quarantine::open(dir.path(), [&stream.name], QuarantineSettings::default(), &vitals).expect("a thread");
    let submitter = Arc::new(EventSubmitter::new(&intake, &Arc::new(quarantine), &clock));
    TestServer { intake, submitter }
}

impl TestServer {
    async fn post(&self, body: &str, key: Option<&str>) -> (u16, Value) {
        self.post_to("/v1/events/events", body, key).await
    }

    async fn post_to(&self, uri: &str, body: &str, key: Option<&str>) -> (u16, Value) {
        let mut request = Request::builder().method(Method::POST).uri(uri);
        if let Some(key) = key {
            request = request.header("idempotency-key", key);
        }
        let routes = routes(Arc::clone(&self.submitter) as Arc<dyn StreamDirectory>);
        let response =
            routes.oneshot(request.body(Body::from(body.to_owned())).expect("valid")).await.expect("a response");
        let status = response.status().as_u16();
        let bytes = to_bytes(response.into_body(), usize::MAX).await.expect("a body");
        (status, serde_json::from_slice(&bytes).expect("JSON"))
    }

    fn accepted(&self) -> u64 {
        self.intake.streams().flat_map(|log| log.totals()).map(|totals| totals.accepted.events).sum()
    }
}

#[derive(Debug, Clone)]
enum Step {
    /// Sends the body of this number under a key.
    Send {
        key: u8,
        body: u8,
    },
    /// Sends events without a key.
    SendPlain {
        body: u8,
    },
    Restart,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (0u8..3, 0u8..8).prop_map(|(key, body)| Step::Send { key, body }),
        1 => (0u8..8).prop_map(|body| Step::SendPlain { body }),
        1 => Just(Step::Restart),
    ]
}

/// Bodies whose events differ in number, ids and partitions; body 0 has no valid event, and one in four a rejected line.
fn body(number: u8) -> String {
    let event = |id: u8| json!({"id": format!("e{id}"), "at": 0}).to_string() + "\n";
    let events: String = (number..2 * number).map(event).collect();
    if number.is_multiple_of(4) { events + "not json\n" } else { events }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn a_key_stands_for_one_body_across_restarts(
        partitions in prop_oneof![Just(1u32), Just(3), Just(4)],
        has_ids in any::<bool>(),
        steps in prop::collection::vec(step(), 1..25),
    ) {
        let id = if has_ids { "id STRING PRIMARY KEY" } else { "id STRING" };
        let sql = format!("CREATE STREAM events ({id}, at TIMESTAMP) WITH (event_time = 'at', partitions = {partitions});");
        let stream = Arc::new(crate::testing::stream(&sql));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let dir = TempDir::new().expect("a folder");
        let mut server = start(&dir, &stream);
        // The body and the first response of each key, and the ids that were accepted.
        let mut used: BTreeMap<u8, (u8, Value)> = BTreeMap::new();
        let (mut ids, mut events) = (BTreeSet::new(), 0);
        for step in steps {
            match step {
                Step::Send { key, body: number } => {
                    let (status, response) = runtime.block_on(server.post(&body(number), Some(&format!("k{key}"))));
                    match used.get(&key) {
                        Some((first, receipt)) if *first == number => {
                            prop_assert_eq!((status, &response), (200, receipt));
                        }
                        Some(_) => {
                            prop_assert_eq!((status, &response["code"]), (422, &json!("idempotency_key_reused")));
                        }
                        None => {
                            prop_assert_eq!(status, 200, "{}", response);
                            events += u64::from(number);
                            ids.extend(number..2 * number);
                            used.insert(key, (number, response));
                        }
                    }
                }
                Step::SendPlain { body: number } => {
                    let (status, _) = runtime.block_on(server.post(&body(number), None));
                    prop_assert_eq!(status, 200);
                    events += u64::from(number);
                    ids.extend(number..2 * number);
                }
                Step::Restart => {
                    server.intake.close();
                    drop(server);
                    server = start(&dir, &stream);
                }
            }
            prop_assert_eq!(server.accepted(), if has_ids { ids.len() as u64 } else { events });
        }
    }
}

#[tokio::test]
async fn a_request_that_only_some_partitions_had_room_for_says_exactly_what_was_accepted() {
    let sql = "CREATE STREAM events (id STRING PRIMARY KEY, at TIMESTAMP) WITH (event_time = 'at', partitions = 3);";
    let stream = Arc::new(crate::testing::stream(sql));
    let full = Arc::new(AtomicBool::new(true));
    let is_full = Arc::clone(&full);
    let faults: IoFaults = Arc::new(move |step| {
        let hit = step == IoStep::Write && std::thread::current().name() == Some("log-events-1");
        if hit && is_full.load(Ordering::SeqCst) { Err(std::io::ErrorKind::StorageFull.into()) } else { Ok(()) }
    });
    let mut settings = PartitionSettings::default();
    settings.log.disk = with_faults(Arc::new(LocalDisk), faults);
    let dir = TempDir::new().expect("a folder");
    let server = start_with(&dir, &stream, &settings);
    let event = |id: u32| json!({"id": format!("e{id}"), "at": 0}).to_string() + "\n";
    let body: String = (0..60).map(event).collect();
    let mut known = 0;
    for strict in ["", "?strict=true"] {
        let (status, problem) = server.post_to(&format!("/v1/events/events{strict}"), &body, None).await;
        assert_eq!((status, &problem["code"]), (507, &json!("disk_full")), "{problem}");
        assert_eq!(problem["refused_partitions"], json!([1]), "{problem}");
        let accepted = problem["accepted"].as_u64().expect("a number");
        assert_eq!((accepted + known, problem["duplicates"].as_u64()), (server.accepted(), Some(known)), "{problem}");
        assert!(accepted + known > 0 && accepted + known < 60, "{problem}");
        known += accepted;
    }
    full.store(false, Ordering::SeqCst);
    let (status, receipt) = server.post(&body, None).await;
    assert_eq!((status, &receipt["accepted"], &receipt["duplicates"]), (200, &json!(60 - known), &json!(known)));
    assert_eq!(server.accepted(), 60);
}
