//! Tests with `kill -9` at random moments of ingest and a retrying client that no event is lost or counted twice.

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::json;
use world::World;

const KILLS: u64 = 25;
const BATCH: u64 = 200;

const DEFINITIONS: &str = "
    CREATE STREAM with_id (id STRING PRIMARY KEY, at TIMESTAMP, amount BIGINT) WITH (event_time = 'at', allowed_lateness = '1 day');
    CREATE STREAM without_id (at TIMESTAMP, amount BIGINT) WITH (event_time = 'at', allowed_lateness = '1 day');
    CREATE VIEW ids AS SELECT window_start, COUNT(*) AS n, SUM(amount) AS total FROM with_id GROUP BY TUMBLE(at, INTERVAL '1' HOUR);
    CREATE VIEW no_ids AS SELECT window_start, COUNT(*) AS n, SUM(amount) AS total FROM without_id GROUP BY TUMBLE(at, INTERVAL '1' HOUR);";

fn body(batch: u64) -> String {
    let line = |i: u64| {
        let second = i % 3600;
        let at = format!("2001-01-01T{:02}:{:02}:{:02}Z", (i / 3600) % 24, second / 60, second % 60);
        json!({"id": format!("e{i}"), "at": at, "amount": i}).to_string() + "\n"
    };
    (batch * BATCH..(batch + 1) * BATCH).map(line).collect()
}

fn totals(world: &World, view: &str) -> (u64, u64) {
    let answer = world.rows(view, "");
    assert_eq!(answer["complete"], json!(true), "{}", answer["ledger"]);
    let sum =
        |name: &str| answer["rows"].as_array().expect("rows").iter().map(|r| r[name].as_u64().expect("a number")).sum();
    (sum("n"), sum("total"))
}

#[test]
fn no_event_is_lost_or_counted_twice() {
    let seed = std::env::var("TRUEUP_SEED").ok().and_then(|s| s.parse().ok()).unwrap_or_else(rand::random);
    println!("TRUEUP_SEED={seed}");
    let mut random = StdRng::seed_from_u64(seed);
    let mut world = World::new(DEFINITIONS);
    let mut batch = 0;
    for kill in 0..KILLS {
        // The server is killed within a few milliseconds; the client continues to send until a request fails.
        let process = world.id();
        let patience = std::time::Duration::from_micros(random.random_range(200..40_000));
        let killer = std::thread::spawn(move || {
            std::thread::sleep(patience);
            std::process::Command::new("kill").args(["-9", &process.to_string()]).status().expect("kill runs")
        });
        let mut run_asked = false;
        while world.is_running() {
            let text = body(batch);
            let key = format!("batch-{batch}");
            let header = [("Idempotency-Key", key.as_str())];
            // Both streams get the batch; it counts as sent once both have acknowledged it.
            let first = world.try_post("/v1/events/with_id", text.clone().into_bytes(), &[]);
            let second = world.try_post("/v1/events/without_id", text.into_bytes(), &header);
            match (first, second) {
                (Some(a), Some(b)) if a.status == 200 && b.status == 200 => batch += 1,
                (Some(a), _) if a.status >= 400 => panic!("refused: {}", a.text),
                (_, Some(b)) if b.status >= 400 => panic!("refused: {}", b.text),
                _ => break,
            }
            if !run_asked && random.random_bool(0.3) {
                run_asked = true;
                let _ = world.try_post("/v1/views/no_ids/runs", b"{}".to_vec(), &[]);
                let _ = world.try_post("/v1/views/ids/runs", b"{}".to_vec(), &[]);
            }
        }
        assert!(killer.join().expect("the killer ends").success());
        world.wait_for_exit();
        world.start();
        // The batch without a response is sent again, as a client would.
        let key = format!("batch-{batch}");
        let first = world.post("/v1/events/with_id", body(batch));
        let second = world.try_post("/v1/events/without_id", body(batch).into_bytes(), &[("Idempotency-Key", &key)]);
        assert_eq!((first.status, second.expect("an answer").status), (200, 200));
        // Its key stands for its body, even if the server was killed between the two streams.
        let other = body(batch + 1).into_bytes();
        let reused = world.try_post("/v1/events/without_id", other, &[("Idempotency-Key", &key)]).expect("an answer");
        assert_eq!((reused.status, &reused.json()["code"]), (422, &json!("idempotency_key_reused")), "{}", reused.text);
        batch += 1;
        let events = batch * BATCH;
        let expected = (events, events * (events - 1) / 2);
        assert_eq!(totals(&world, "ids"), expected, "with ids, after kill {kill}");
        assert_eq!(totals(&world, "no_ids"), expected, "without ids, after kill {kill}");
    }
    for view in ["ids", "no_ids"] {
        assert_eq!(world.run(view, true)["state"], json!("published"));
        let events = batch * BATCH;
        assert_eq!(totals(&world, view), (events, events * (events - 1) / 2), "{view}, exact");
        assert_eq!(world.rows(view, "")["ledger"]["batch"], json!(events));
    }
}
