//! Tests that every line is sent exactly once, against a small server that fails in several ways.

use std::collections::VecDeque;
use std::sync::Mutex;
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use serde_json::json;

use super::*;

/// The server's reaction to a request.
#[derive(Debug, Clone, Copy)]
enum Reaction {
    /// Responds with 429 and asks to retry immediately.
    Busy,
    /// Responds with 507.
    Full,
    /// Accepts the lines, but the connection breaks before the response.
    Break,
}

#[derive(Debug, Default)]
struct Server {
    reactions: Mutex<VecDeque<Reaction>>,
    /// Key and body of every request, in order.
    requests: Mutex<Vec<(String, String)>>,
}

/// Rejects lines that hold `bad`, as intake would.
async fn events(State(server): State<Arc<Server>>, headers: HeaderMap, body: String) -> Response {
    let key = headers["idempotency-key"].to_str().expect("text").to_owned();
    assert_eq!(headers["content-type"], "application/x-ndjson");
    server.requests.lock().expect("no panic").push((key, body.clone()));
    let reaction = server.reactions.lock().expect("no panic").pop_front();
    match reaction {
        Some(Reaction::Busy) => (StatusCode::TOO_MANY_REQUESTS, [("retry-after", "0")]).into_response(),
        Some(Reaction::Full) => {
            (StatusCode::INSUFFICIENT_STORAGE, json!({"title": "the disk is full"}).to_string()).into_response()
        }
        Some(Reaction::Break) => {
            let pieces = stream::iter([Err::<String, _>(std::io::Error::other("broken"))]);
            axum::body::Body::from_stream(pieces).into_response()
        }
        None => {
            let bad = |(index, line): (usize, &str)| {
                line.contains("bad").then(|| json!({"line": index + 1, "reason": format!("cannot read {line}")}))
            };
            let rejections: Vec<_> = body.lines().enumerate().filter_map(bad).collect();
            let accepted = body.lines().count() - rejections.len();
            let answer = json!({"accepted": accepted, "duplicates": 0, "late": 1, "rejected": rejections.len(),
                                "rejections": rejections, "offsets": {}});
            answer.to_string().into_response()
        }
    }
}

async fn serve(reactions: &[Reaction]) -> (Arc<Server>, String) {
    let server = Arc::new(Server { reactions: Mutex::new(reactions.to_vec().into()), ..Server::default() });
    let router = Router::new().route("/v1/events/clicks", post(events)).with_state(Arc::clone(&server));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let url = format!("http://{}", listener.local_addr().expect("an address"));
    tokio::spawn(async move { axum::serve(listener, router).await });
    (server, url)
}

fn file(text: &str) -> (tempfile::NamedTempFile, EventsFile) {
    let mut file = tempfile::NamedTempFile::new().expect("a temporary file");
    file.write_all(text.as_bytes()).expect("written");
    let opened = EventsFile::open(file.path()).expect("opened");
    (file, opened)
}

/// Retries immediately, so that no test waits.
const NO_PAUSES: RetryLimits =
    RetryLimits { first_pause: Duration::ZERO, longest_pause: Duration::ZERO, broken_max: 3, busy_max: 3 };

fn sender(url: &str) -> Sender {
    let stream = "clicks".parse().expect("a name");
    Sender::new(Client::new(url).expect("an address"), &stream, NO_PAUSES)
}

const LINES: &str = "{\"n\":1}\n{\"n\":2}\nbad 3\n{\"n\":4}\n\n{\"n\":6}\nbad 7\nbad 8\n{\"n\":9}";

#[tokio::test]
async fn rejections_carry_the_line_of_the_file_over_several_batches() {
    for in_flight in [1, 3] {
        let (server, url) = serve(&[]).await;
        let (_kept, opened) = file(LINES);
        let mut tally = Tally::default();
        send_file(opened, sender(&url), in_flight, 18, &mut tally).await.expect("sent");
        let requests = server.requests.lock().expect("no panic");
        assert!(requests.len() >= 3, "several batches: {requests:?}");
        if in_flight == 1 {
            assert_eq!(requests.iter().map(|(_, body)| body.as_str()).collect::<String>(), LINES);
        }
        let lines: Vec<u64> = tally.first_rejections.iter().map(|(line, _)| *line).collect();
        assert_eq!(lines, [3, 7, 8]);
        assert_eq!((tally.lines, tally.rejected, tally.late), (9, 3, requests.len() as u64));
        assert!(tally.rejections("f").starts_with("f:3: cannot read bad 3\nf:7: "));
    }
}

#[tokio::test]
async fn a_retry_sends_the_same_batch_under_the_same_key() {
    let (server, url) = serve(&[Reaction::Busy, Reaction::Busy, Reaction::Break]).await;
    let (_kept, opened) = file("{\"n\":1}\n{\"n\":2}\n");
    let mut tally = Tally::default();
    send_file(opened, sender(&url), 1, 8, &mut tally).await.expect("sent");
    let requests = server.requests.lock().expect("no panic");
    let keys: Vec<&str> = requests.iter().map(|(key, _)| key.as_str()).collect();
    assert_eq!(keys.len(), 5);
    assert!(keys[..4].iter().all(|key| *key == keys[0]), "{keys:?}");
    assert_ne!(keys[4], keys[0], "the next batch has a key of its own");
    assert_eq!(tally.accepted, 2);
}

#[tokio::test]
async fn keys_of_two_runs_over_one_file_differ() {
    let (server, url) = serve(&[]).await;
    for _ in 0..2 {
        let (_kept, opened) = file("{\"n\":1}\n");
        send_file(opened, sender(&url), 1, 100, &mut Tally::default()).await.expect("sent");
    }
    let requests = server.requests.lock().expect("no panic");
    assert_ne!(requests[0].0, requests[1].0);
}

#[tokio::test]
async fn retries_are_limited() {
    for (reaction, attempts) in [(Reaction::Busy, 4), (Reaction::Full, 1)] {
        let (server, url) = serve(&[reaction; 9]).await;
        let (_kept, opened) = file("{\"n\":1}\n");
        let stop = send_file(opened, sender(&url), 1, 100, &mut Tally::default()).await.expect_err("never accepted");
        let SendFailure::Server(error) = stop else { panic!("the server's fault: {stop}") };
        assert_eq!(Failure::from(error).code, crate::exit::REFUSED);
        assert_eq!(server.requests.lock().expect("no panic").len(), attempts, "{reaction:?}");
    }
    let (server, url) =
        serve(&[Reaction::Busy, Reaction::Break, Reaction::Break, Reaction::Break, Reaction::Break]).await;
    let (_kept, opened) = file("{\"n\":1}\n");
    send_file(opened, sender(&url), 1, 100, &mut Tally::default()).await.expect_err("broken for good");
    assert_eq!(server.requests.lock().expect("no panic").len(), 5);
}

#[tokio::test]
async fn an_unreachable_server_fails_immediately() {
    // A port that was free a moment ago, so no process listens on it.
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let url = format!("http://{}", listener.local_addr().expect("an address"));
    drop(listener);
    let (_kept, opened) = file("{\"n\":1}\n");
    let stop = send_file(opened, sender(&url), 1, 100, &mut Tally::default()).await.expect_err("unreachable");
    let SendFailure::Server(error @ ClientError::Unreachable { .. }) = stop else { panic!("unreachable: {stop}") };
    assert_eq!(Failure::from(error).code, crate::exit::REFUSED);
}

#[tokio::test]
async fn a_truncated_file_fails_after_its_readable_part_was_sent() {
    let mut packed = zstd::stream::encode_all("{\"n\":1}\n".repeat(1000).as_bytes(), 1).expect("packed");
    packed.truncate(packed.len() - 3);
    let mut broken = tempfile::NamedTempFile::new().expect("a temporary file");
    broken.write_all(&packed).expect("written");
    let (_server, url) = serve(&[]).await;
    let opened = EventsFile::open(broken.path()).expect("opened");
    let stop = send_file(opened, sender(&url), 1, 100, &mut Tally::default()).await.expect_err("truncated");
    assert!(matches!(stop, SendFailure::File(_)), "{stop}");
}
