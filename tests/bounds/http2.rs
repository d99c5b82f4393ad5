//! HTTP/2 clients that open every stream they may and read nothing: the same bounds as over HTTP/1.1, and others are served.

use std::fmt::Write as _;

use axum::body::Body;
use axum::http::Request;
use hyper::client::conn::http2::{Builder, SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use serde_json::json;
use shared::limits;
use world::World;

use crate::budget::{Budget, MIB};
use crate::setting;
use crate::sockets::Attackers;

const DEFINITIONS: &str = "
    CREATE STREAM sales (at TIMESTAMP, shop STRING, amount BIGINT) WITH (event_time = 'at');
    CREATE VIEW per_shop AS SELECT window_start, shop, COUNT(*) AS n, SUM(amount) AS total
        FROM sales GROUP BY TUMBLE(at, INTERVAL '1' HOUR), shop;";
/// All groups make a response of some 2 MiB, far more than a connection buffers.
const GROUPS: usize = 10_000;
const QUERY_BYTES: usize = 64 * MIB;
/// What a client lets the server send for each stream before it reads.
const CLIENT_WINDOW: u32 = 1_024;

/// Opens a connection whose client takes few bytes of each response.
async fn connect(attackers: &Attackers) -> SendRequest<Body> {
    let stream = TokioIo::new(attackers.connect().await);
    let mut client = Builder::new(TokioExecutor::new());
    client.timer(TokioTimer::new()).initial_stream_window_size(CLIENT_WINDOW);
    let (sender, connection) = client.handshake(stream).await.expect("the server speaks HTTP/2");
    #[expect(clippy::disallowed_methods, reason = "the task ends with its connection")]
    tokio::spawn(async move {
        let _ = connection.await;
    });
    sender
}

#[test]
fn streams_that_are_not_read_stay_within_the_budgets_of_their_connections() {
    let connections = setting("TRUEUP_BOUNDS_HTTP2_CONNECTIONS", 40);
    let mut world = World::new(DEFINITIONS);
    world.stop();
    world.set_limits(&format!("query_memory_bytes = {QUERY_BYTES}\n"));
    world.start();
    let mut events = String::new();
    for n in 0..GROUPS {
        writeln!(events, r#"{{"at":"2026-01-01T00:00:00Z","shop":"a shop with a long name {n:08}","amount":{n}}}"#)
            .expect("a String takes any text");
    }
    assert_eq!(world.post("/v1/events/sales", events).status, 200);
    let url = |path: &str| format!("{}{path}", world.url());
    let all_rows = url("/v1/views/per_shop/rows.ndjson?limit=100000");
    let attackers = Attackers::of(&world);
    let ask = |client: &mut SendRequest<Body>, uri: &str| {
        client.send_request(Request::get(uri).body(Body::empty()).expect("a request"))
    };
    let mut unread = Vec::new();
    let (mut clients, mut refused) = (Vec::new(), 0);
    attackers.block_on(async {
        for _ in 0..connections {
            let mut client = connect(&attackers).await;
            let responses = (0..limits::HTTP2_STREAMS_MAX).map(|_| ask(&mut client, &all_rows));
            let responses = futures::future::join_all(responses).await;
            let responses = responses.into_iter().map(|response| response.expect("a response"));
            let (unread_now, refusals): (Vec<_>, Vec<_>) = responses.partition(|response| response.status() == 200);
            if refusals.is_empty() {
                // All streams are in use: the next request waits for one of them.
                let more = ask(&mut client, &url("/livez"));
                let waited = tokio::time::timeout(std::time::Duration::from_millis(20), more).await;
                assert!(waited.is_err(), "{waited:?}");
            }
            refused += refusals.len();
            unread.extend(unread_now);
            unread.extend(refusals);
            clients.push(client);
        }
    });
    let rows = world.rows("per_shop", "&group_by=&grain=all&measures=n");
    assert_eq!(rows["rows"][0]["n"], json!(GROUPS), "{}", rows["ledger"]);
    println!("{} unread responses over {connections} connections, {refused} of them refusals", unread.len());
    assert!(refused > 0, "the budget of responses is reached");
    let places = connections * limits::HTTP2_CONNECTION_PLACES as usize;
    Budget::new()
        .connections(places)
        .responses(connections * limits::HTTP2_STREAMS_MAX as usize)
        .queries(QUERY_BYTES)
        .bodies(MIB)
        .partition(MIB, 4 * MIB)
        .holds("HTTP/2 clients that do not read", &world);
    drop((unread, clients));
    world.wait_for("the connections to end", |world| {
        let response = world.get("/v1/views/per_shop/rows.json?limit=100000");
        assert!([200, 503].contains(&response.status), "{}", response.text);
        response.status == 200
    });
}
