//! The lake is away while events come at full speed: they wait in the log, up to its bound. `TRUEUP_BOUNDS_BACKLOG_MIB`
//! makes the absence longer: at 100 MB/s, an hour is 360,000.

use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::{Duration, Instant};

use serde_json::json;
use world::World;

use crate::budget::{Budget, MIB, resident};
use crate::setting;
use crate::sockets::{Attackers, post};

const DEFINITIONS: &str = "
    CREATE STREAM notes (id STRING PRIMARY KEY, at TIMESTAMP, amount BIGINT, text STRING)
        WITH (event_time = 'at', allowed_lateness = '1 day');
    CREATE VIEW totals AS SELECT window_start, COUNT(*) AS n, SUM(amount) AS total
        FROM notes GROUP BY TUMBLE(at, INTERVAL '1' HOUR);";
/// Events of one request.
const EVENTS: usize = 5_000;
const CONNECTIONS: usize = 4;
const IN_FLIGHT: usize = CONNECTIONS * EVENTS * 200;

fn body(request: usize) -> Vec<u8> {
    use std::fmt::Write as _;
    let mut text = String::with_capacity(EVENTS * 200);
    for n in request * EVENTS..(request + 1) * EVENTS {
        let r = (n as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        writeln!(text, r#"{{"id":"e{n}","at":"2026-01-01T00:00:00Z","amount":1,"text":"{r:016x}{:064}{r:016x}"}}"#, r)
            .expect("a String takes any text");
    }
    text.into_bytes()
}

/// What happened until every connection had been refused.
struct Sent {
    /// Requests that were tried, from number 1 on.
    tried: usize,
    /// The numbers of those that were refused: one of each connection.
    refused: Vec<usize>,
    refusal: String,
    /// Memory of the server when half of the backlog was there.
    halfway: usize,
}

fn send_until_refused(attackers: &Attackers, process: u32, half: usize) -> Sent {
    let (tried, halfway) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let sender = async || {
        loop {
            let request = tried.fetch_add(1, SeqCst) + 1;
            if request == half {
                halfway.store(resident(process), SeqCst);
            }
            let reply = attackers.ask(&post("/v1/events/notes", "connection: close\r\n", &body(request))).await;
            match reply.status() {
                200 => {}
                429 => return (request, reply.0),
                _ => panic!("{reply:?}"),
            }
        }
    };
    let (refused, mut refusals): (Vec<usize>, Vec<String>) =
        attackers.block_on(futures::future::join_all((0..CONNECTIONS).map(|_| sender()))).into_iter().unzip();
    Sent {
        tried: tried.into_inner(),
        refused,
        refusal: refusals.pop().expect("a refusal"),
        halfway: halfway.into_inner(),
    }
}

#[test]
fn while_the_lake_is_away_memory_is_flat_up_to_the_bound_of_the_log_and_everything_is_archived_later() {
    let backlog = setting("TRUEUP_BOUNDS_BACKLOG_MIB", 384);
    let mut world = World::new(DEFINITIONS);
    world.stop();
    world.set_limits(&format!(
        "archive_backlog_bytes_max = {}\nlog_segment_bytes = {}\narchive_wait_ms = 20\n",
        backlog * MIB,
        8 * MIB
    ));
    world.start();
    assert_eq!(world.post("/v1/events/notes", body(0)).status, 200);
    let archive = world.store().join("lake/events/notes");
    world.wait_for("the archive", |_| archive.join("_delta_log").is_dir());
    let away = archive.with_extension("away");
    std::fs::rename(&archive, &away).expect("moves");
    std::fs::write(&archive, "the lake is away").expect("writes");

    let attackers = Attackers::of(&world);
    let begin = Instant::now();
    let half = backlog * MIB / (EVENTS * 150) / 2;
    let Sent { tried, refused, refusal, halfway } = send_until_refused(&attackers, world.id(), half);
    let end = resident(world.id());
    println!(
        "refused after {} events in {:.1} s; {} MiB halfway, {} MiB at the end",
        tried * EVENTS,
        begin.elapsed().as_secs_f64(),
        halfway / MIB,
        end / MIB
    );
    assert!(refusal.contains("the archive is behind") && refusal.contains("retry-after"), "{refusal}");
    // Ids for the search for duplicates grow with the events, at most to their horizon: some 40 bytes each.
    let ids = tried * EVENTS * 40;
    let budget = Budget::new()
        .connections(CONNECTIONS)
        .bodies(IN_FLIGHT)
        .partition(IN_FLIGHT, backlog * MIB)
        .and("ids", 2 * ids);
    budget.holds("the lake away", &world);
    assert!(halfway > 0 && end < halfway + ids + 64 * MIB, "memory grows with the backlog: {halfway} to {end}");

    std::fs::remove_file(&archive).expect("removes");
    std::fs::rename(&away, &archive).expect("moves");
    for request in refused {
        world.wait_for("room in the backlog", |world| {
            std::thread::sleep(Duration::from_millis(20));
            world.post("/v1/events/notes", body(request)).status == 200
        });
    }
    let sent = (tried + 1) * EVENTS;
    world.wait_for("the archive to catch up", |world| {
        world.get("/v1/streams/notes").json()["partitions"][0]["archived"] == json!(sent)
    });
    assert_eq!(world.run("totals", false)["state"], json!("published"));
    for layer in ["merged", "batch"] {
        let rows = world.rows("totals", &format!("&layer={layer}"));
        assert_eq!(
            (&rows["rows"][0]["n"], &rows["rows"][0]["total"]),
            (&json!(sent), &json!(sent)),
            "{}",
            rows["ledger"]
        );
        assert_eq!(rows["complete"], json!(true));
    }
}
