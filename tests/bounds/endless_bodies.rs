//! Bodies and heads that do not end, or that become large: compression bombs, chunks without end, events without fields,
//! huge headers.

use std::io::Write;

use serde_json::json;
use shared::limits;
use tokio::io::AsyncWriteExt;
use world::World;

use crate::budget::{Budget, MIB};
use crate::sockets::{Attackers, Reply, get, post, reply};

const EVENTS: &str = "/v1/events/notes";
/// Attackers of each kind at the same time.
const EACH: usize = 12;

/// A stream of a hundred columns: an event without fields is short in JSON and long in memory.
fn definitions() -> String {
    let columns: String = (0..100).map(|n| format!("c{n} BIGINT, ")).collect();
    format!(
        "CREATE STREAM notes ({columns}at TIMESTAMP) WITH (event_time = 'at');
         CREATE VIEW per_hour AS SELECT window_start, COUNT(*) AS n FROM notes GROUP BY TUMBLE(at, INTERVAL '1' HOUR);"
    )
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).expect("into memory");
    encoder.finish().expect("into memory")
}

/// Sends chunks until the server refuses the body.
async fn endless_chunks(attackers: &Attackers) -> Reply {
    let mut stream = attackers.connect().await;
    let head = format!("POST {EVENTS} HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: chunked\r\n\r\n");
    stream.write_all(head.as_bytes()).await.expect("the server reads");
    let chunk = [format!("{:x}\r\n", MIB).as_bytes(), &vec![b'\n'; MIB], b"\r\n"].concat();
    for _ in 0..2 * limits::EVENT_BODY_BYTES_MAX / MIB {
        if stream.write_all(&chunk).await.is_err() {
            break;
        }
    }
    reply(&mut stream).await
}

#[test]
fn bombs_and_endless_bodies_are_refused_within_the_budgets() {
    let world = World::new(&definitions());
    let attackers = Attackers::of(&world);
    let spaces = vec![b'\n'; limits::EVENT_BODY_BYTES_MAX + 1];
    let tiny = b"{\"at\":0}\n".repeat(limits::EVENT_BODY_BYTES_MAX / 9);
    let bombs = [
        ("content-encoding: gzip\r\n", gzip(&spaces)),
        ("content-encoding: zstd\r\n", zstd::encode_all(&spaces[..], 1).expect("into memory")),
        ("content-encoding: gzip\r\n", gzip(&tiny)),
        ("content-encoding: zstd\r\n", zstd::encode_all(&tiny[..], 1).expect("into memory")),
    ];
    drop((spaces, tiny));
    attackers.block_on(async {
        let bombs = (0..EACH).map(async |n| {
            let (encoding, body) = &bombs[n % bombs.len()];
            (n, attackers.ask(&post(EVENTS, &format!("{encoding}connection: close\r\n"), body)).await)
        });
        for (n, reply) in futures::future::join_all(bombs).await {
            assert_eq!(reply.status(), 413, "{n}: {reply:?}");
        }
        let chunked = (0..EACH).map(|_| endless_chunks(&attackers));
        for reply in futures::future::join_all(chunked).await {
            // Those for which the bodies of the others leave no room are refused earlier.
            assert!(reply.status() == 413 || reply.status() == 429, "{reply:?}");
        }
        let header = format!("GET /livez HTTP/1.1\r\nhost: localhost\r\nx: {}", "y".repeat(MIB));
        let path = format!("GET /{} HTTP/1.1\r\nhost: localhost\r\n\r\n", "y".repeat(MIB));
        for (request, status) in [(header, 431), (path, 414)] {
            let refused = futures::future::join_all((0..EACH).map(|_| attackers.ask(request.as_bytes()))).await;
            assert!(refused.iter().all(|reply| reply.status() == status), "{refused:?}");
        }
        // The last piece read may double the buffer.
        let header = format!("x: {}\r\n", "y".repeat(3 * limits::CONNECTION_BUFFER_BYTES_MAX));
        let refused = attackers.ask(&get("/livez", &header)).await;
        assert_eq!(refused.status(), 431, "{refused:?}");
        let login = attackers.ask(&post("/login", "", &vec![b'x'; limits::REQUEST_BODY_BYTES_MAX + 1])).await;
        assert_eq!(login.status(), 413, "{login:?}");
    });
    assert_eq!(world.post(EVENTS, r#"{"at":"2026-01-01T00:00:00Z"}"#).status, 200);
    assert_eq!(world.rows("per_hour", "")["rows"][0]["n"], json!(1), "nothing of the others was taken");
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    // BIGINTs have eight bytes; columns double as they grow.
    let budget = Budget::new()
        .connections(EACH)
        .bodies(limits::BODIES_BYTES_MAX)
        .and("columns of bodies being decoded", cores * 2 * 8 * limits::BODY_VALUES_MAX);
    budget.holds("bombs and endless bodies", &world);
}
