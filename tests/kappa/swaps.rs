//! Changed definitions and switched layers of views, under load and with kills at every step: the old definition answers until the
//! replay has caught up, and no query sees a gap or an event twice.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::time::Duration;

use serde_json::{Value, json};
use world::World;
use world::changing_view::plan;

use crate::{SHORT_LOG, checkpoint, status};

const STREAM: &str = "
    CREATE STREAM orders (id STRING PRIMARY KEY, at TIMESTAMP, country STRING, amount BIGINT)
        WITH (event_time = 'at', watermark_delay = '1 day', allowed_lateness = '30 days');";
const COUNTRIES: [&str; 3] = ["at", "de", "fr"];

/// The view with this measure beside the count.
fn definitions(layers: &str, measure: &str) -> String {
    format!(
        "{STREAM}CREATE VIEW sales WITH (layers = '{layers}') AS SELECT window_start, country, COUNT(*) AS n, {measure}
         FROM orders GROUP BY TUMBLE(at, INTERVAL '1' HOUR), country;"
    )
}

/// Orders `from..to`, a minute apart.
fn orders(from: i64, to: i64) -> String {
    let line = |i: i64| {
        let country = COUNTRIES[(i % 3) as usize];
        json!({"id": format!("o{i}"), "at": 978_307_200_000 + i * 60_000, "country": country, "amount": i}).to_string()
            + "\n"
    };
    (from..to).map(line).collect()
}

/// A server whose log no longer has the first 3,000 orders.
fn with_history(layers: &str, measure: &str) -> World {
    let mut world = World::stopped(&definitions(layers, measure));
    world.set_limits(SHORT_LOG);
    world.start();
    for part in 0..6 {
        assert_eq!(world.post("/v1/events/orders", orders(part * 500, part * 500 + 500)).status, 200);
    }
    match layers {
        "speed" => _ = checkpoint(&world, "sales", false),
        _ => assert_eq!(world.run("sales", false)["state"], json!("published")),
    }
    world
}

/// Number and sum of the amounts over all rows.
fn totals(world: &World, measure: &str) -> (i64, i64) {
    let answer = world.rows("sales", "");
    assert_eq!(answer["complete"], json!(true), "{}", answer["ledger"]);
    let sum = |name: &str| answer["rows"].as_array().expect("rows").iter().filter_map(|row| row[name].as_i64()).sum();
    (sum("n"), sum(measure))
}

fn is_swapped(world: &World) -> bool {
    status(world, "sales")["shadow"].is_null()
}

/// The sum of the amounts of the first `count` orders, and of those above 100.
fn sums(count: i64) -> (i64, i64) {
    (count * (count - 1) / 2, count * (count - 1) / 2 - 5_050)
}

#[test]
fn a_replay_swaps_under_load_without_a_gap() {
    let mut world = with_history("speed", "SUM(amount) AS total");
    let changed = definitions("speed", "SUM(amount) FILTER (WHERE amount > 100) AS total, MAX(amount) AS top");
    checkpoint(&world, "sales", true);
    let (code, text) = plan(&world, &changed, &[]);
    assert_eq!(code, Some(0), "{text}");
    assert!(text.contains("replay; version 2 stays active until the replay has caught up"), "{text}");
    assert!(
        text.contains("replays 3,000 events") && text.contains("; takes about ") && text.contains(" events/s"),
        "{text}"
    );

    let go_on = world.data.path().join("go-on");
    world.set_environment(&[("TRUEUP_HOLD_AT", "commit"), ("TRUEUP_HOLD_UNTIL", &go_on.display().to_string())]);
    world.kill();
    world.redefine(&changed);
    world.start();
    // Orders and queries, while the replay is held just before its commit and after.
    let (stop, posted, url) =
        (Arc::new(AtomicBool::new(false)), Arc::new(AtomicI64::new(3_000)), world.url().to_owned());
    let load = {
        let (stop, posted) = (Arc::clone(&stop), Arc::clone(&posted));
        std::thread::spawn(move || {
            let client = reqwest::Client::builder().no_proxy().build().expect("a client");
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            while !stop.load(Ordering::SeqCst) {
                let from = posted.load(Ordering::SeqCst);
                let request = client.post(format!("{url}/v1/events/orders")).body(orders(from, from + 20));
                let status = runtime.block_on(async { request.send().await.map(|answer| answer.status().as_u16()) });
                assert_eq!(status.expect("an answer"), 200);
                posted.store(from + 20, Ordering::SeqCst);
                std::thread::sleep(Duration::from_millis(2));
            }
        })
    };
    let mut seen = 3_000;
    let mut look = |world: &World| {
        let before = posted.load(Ordering::SeqCst);
        let answer = world.rows("sales", "");
        assert_eq!(answer["complete"], json!(true), "{}", answer["ledger"]);
        let rows = answer["rows"].as_array().expect("rows");
        let n: i64 = rows.iter().filter_map(|row| row["n"].as_i64()).sum();
        assert!(n >= before.max(seen), "{n} of {before} orders, {seen} before");
        seen = n;
        rows.iter().any(|row| row.get("top").is_some())
    };
    world.wait_for("the replay", |world| {
        assert!(!look(world), "the new definition answers before it is complete");
        let shadow = &status(world, "sales")["shadow"];
        shadow["state"] == "running" && shadow["progress"]["rows"].as_i64().is_some_and(|rows| rows >= 3_000)
    });
    let (_, text) = world::program::trueup(&["batch", "status", "--url", world.url()]);
    assert!(text.contains("replaying a changed definition"), "{text}");
    for _ in 0..20 {
        assert!(!look(&world));
    }
    std::fs::write(&go_on, "").expect("writes");
    world.wait_for("the swap", |world| look(world));
    for _ in 0..20 {
        assert!(look(&world), "the old definition answers again");
    }
    stop.store(true, Ordering::SeqCst);
    load.join().expect("the load ends");
    let count = posted.load(Ordering::SeqCst);
    assert_eq!(totals(&world, "total"), (count, sums(count).1));
    let metrics = world.get("/metrics").text;
    assert!(metrics.contains("trueup_replay_events_left{view=\"sales\"} 0"), "{metrics}");

    let compared = world.get("/v1/views/sales/compare").json();
    assert_eq!(compared["causes"]["unexplained"], json!(0), "{compared}");
    // The first two hours of each country have amounts up to 100.
    assert_eq!(compared["causes"]["definition"], json!(6), "{compared}");
    let (_, text) = world::program::trueup(&["compare", "sales", "--url", world.url()]);
    assert!(text.contains("changed the definition") && text.contains("values of the old definition"), "{text}");
    world.set_environment(&[]);
    world.kill();
    world.start();
    assert_eq!(totals(&world, "total"), (count, sums(count).1));
}

#[test]
fn kills_at_every_step_of_a_checkpoint_and_of_a_swap_lose_nothing() {
    let mut world = with_history("speed", "SUM(amount) AS total");
    let mut count = 3_000;
    for (number, step) in
        ["cut", "archived", "plan", "recompute", "write", "reconcile", "commit", "publish", "retire"].iter().enumerate()
    {
        for is_swap in [false, true] {
            assert_eq!(world.stop(), Some(0));
            world.set_environment(&[("TRUEUP_FAIL_AT", step)]);
            let measure = format!("SUM(amount) AS total, COUNT(*) + {number} AS m");
            if is_swap {
                world.redefine(&definitions("speed", &measure));
                world.start_whatever_comes();
            } else {
                world.start();
                assert_eq!(world.post("/v1/events/orders", orders(count, count + 50)).status, 200);
                count += 50;
                let _ = world.try_post("/v1/views/sales/checkpoints", Vec::new(), &[]);
            }
            world.wait_for_exit();
            world.set_environment(&[]);
            world.start();
            assert_eq!(totals(&world, "total"), (count, sums(count).0), "{step} {is_swap}");
            world.wait_for("the swap", is_swapped);
            assert_eq!(totals(&world, "total"), (count, sums(count).0), "{step} {is_swap}");
            checkpoint(&world, "sales", false);
            assert_eq!(totals(&world, "total"), (count, sums(count).0), "{step} {is_swap}");
        }
    }
}

#[test]
fn switched_layers_keep_history_both_ways() {
    let mut world = with_history("both", "SUM(amount) AS total");
    let is_all_of = |world: &World, layer: &str| {
        let answer = world.rows("sales", "");
        answer["rows"].as_array().expect("rows").iter().all(|row| row["_layer"] == layer)
    };
    assert!(is_all_of(&world, "batch"));
    assert_eq!(world.stop(), Some(0));
    let (code, text) = plan(&world, &definitions("speed", "SUM(amount) AS total"), &[]);
    assert!(code == Some(0) && text.contains("only options change, nothing to recompute"), "{text}");
    world.redefine(&definitions("speed", "SUM(amount) AS total"));
    world.start();
    assert_eq!(totals(&world, "total"), (3_000, sums(3_000).0));
    assert_eq!(world.post("/v1/events/orders", orders(3_000, 3_100)).status, 200);
    checkpoint(&world, "sales", false);
    assert_eq!(totals(&world, "total"), (3_100, sums(3_100).0));
    let answer = world.rows("sales", "");
    let of = |layer: &str| answer["rows"].as_array().expect("rows").iter().filter(|row| row["_layer"] == layer).count();
    assert!(
        of("batch") > 100 && of("speed") > 0 && of("merged") == 0,
        "whole dates stay exact: {} {}",
        of("batch"),
        of("speed")
    );

    assert_eq!(world.stop(), Some(0));
    let (code, text) = plan(&world, &definitions("both", "SUM(amount) AS total"), &[]);
    assert!(code == Some(0) && text.contains("recompute; version 2 stays active"), "{text}");
    world.redefine(&definitions("both", "SUM(amount) AS total"));
    world.start();
    // A run starts by itself.
    world.wait_for("exact figures", |world| is_all_of(world, "batch"));
    assert_eq!(totals(&world, "total"), (3_100, sums(3_100).0));
    let runs = world.get("/v1/runs?view=sales&limit=1").json();
    assert_eq!((&runs["runs"][0]["trigger"], &runs["runs"][0]["full"]), (&json!("layers"), &json!(true)));
    // Earlier versions can be queried, each with its layer.
    let past: Value = world.rows("sales", "&version=2");
    assert!(past["rows"].as_array().expect("rows").iter().any(|row| row["_layer"] == "speed"));
}
