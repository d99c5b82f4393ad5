//! Events of 1 MiB on many connections at the same time. `TRUEUP_BOUNDS_MIB` sends more.

use serde_json::json;
use world::World;

use crate::budget::{Budget, MIB};
use crate::setting;
use crate::sockets::{Attackers, post};

const DEFINITIONS: &str = "
    CREATE STREAM notes (id STRING PRIMARY KEY, at TIMESTAMP, text STRING) WITH (event_time = 'at');
    CREATE VIEW per_hour AS SELECT window_start, COUNT(*) AS n, MAX(LENGTH(text)) AS longest
        FROM notes GROUP BY TUMBLE(at, INTERVAL '1' HOUR);";
const CONNECTIONS: usize = 16;
/// Events of one request.
const EVENTS: usize = 4;
/// Bytes of an event, without those of its other fields.
const TEXT: usize = MIB - 200;

fn body(request: usize) -> Vec<u8> {
    let text = "x".repeat(TEXT);
    let event = |n: usize| {
        json!({"id": format!("{request}-{n}"), "at": "2026-01-01T00:00:00Z", "text": text}).to_string() + "\n"
    };
    (0..EVENTS).map(event).collect::<String>().into_bytes()
}

#[test]
fn events_of_1_mib_on_many_connections_stay_within_the_budgets() {
    let world = World::new(DEFINITIONS);
    let attackers = Attackers::of(&world);
    let requests = setting("TRUEUP_BOUNDS_MIB", 768).div_ceil(EVENTS);
    let refused = attackers.block_on(async {
        let sender = async |connection: usize| {
            let mut refused = 0;
            for request in (connection..requests).step_by(CONNECTIONS) {
                let request = post("/v1/events/notes", "connection: close\r\n", &body(request));
                loop {
                    let reply = attackers.ask(&request).await;
                    match reply.status() {
                        200 => break,
                        429 => {
                            refused += 1;
                            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
                        }
                        _ => panic!("{reply:?}"),
                    }
                }
            }
            refused
        };
        futures::future::join_all((0..CONNECTIONS).map(sender)).await.into_iter().sum::<usize>()
    });
    println!("{} MiB sent, {refused} refusals with 429", requests * EVENTS);
    let row = &world.rows("per_hour", "")["rows"][0];
    assert_eq!((&row["n"], &row["longest"]), (&json!(requests * EVENTS), &json!(TEXT)));
    let in_flight = CONNECTIONS * EVENTS * MIB;
    let budget = Budget::new().connections(CONNECTIONS).bodies(in_flight).partition(in_flight, requests * EVENTS * MIB);
    budget.holds("events of 1 MiB", &world);
    // One byte more is one too many, for its event alone.
    let long = json!({"id": "long", "at": "2026-01-01T00:00:00Z", "text": "x".repeat(MIB)}).to_string();
    let answer =
        world.post("/v1/events/notes", format!("{long}\n{}", r#"{"id":"short","at":"2026-01-01T00:00:00Z"}"#)).json();
    assert_eq!((&answer["accepted"], &answer["rejected"]), (&json!(1), &json!(1)), "{answer}");
}
