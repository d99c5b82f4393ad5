//! A thousand readers that never read: subscribers of live queries, large and small responses, pages and lists.
//! `TRUEUP_BOUNDS_READERS` opens more.

use std::fmt::Write as _;

use serde_json::json;
use shared::limits;
use world::World;

use crate::budget::{Budget, MIB};
use crate::setting;
use crate::sockets::{Attackers, get};

const DEFINITIONS: &str = "
    CREATE STREAM sales (id STRING PRIMARY KEY, at TIMESTAMP, shop STRING, amount BIGINT) WITH (event_time = 'at');
    CREATE VIEW per_shop AS SELECT window_start, shop, COUNT(*) AS n, SUM(amount) AS total
        FROM sales GROUP BY TUMBLE(at, INTERVAL '1' HOUR), shop;";
/// Groups of the view: all of them make a response of some 4 MiB.
const GROUPS: usize = 20_000;
const QUERY_BYTES: usize = 64 * MIB;

fn events(from: usize, to: usize) -> Vec<u8> {
    let mut text = String::new();
    for n in from..to {
        let shop = n % GROUPS;
        writeln!(
            text,
            r#"{{"id":"e{n}","at":"2026-01-01T00:00:00Z","shop":"a shop with a long name {shop:08}","amount":{n}}}"#
        )
        .expect("a String takes any text");
    }
    text.into_bytes()
}

/// What reader number `n` asks for.
fn request(n: usize) -> Vec<u8> {
    let rows = "/v1/views/per_shop/rows";
    match n % 8 {
        // 16 different live queries, each of which changes with every event.
        0 | 1 => get(&format!("/v1/views/per_shop/live?limit=50000&every=100ms&where=total%20%3E%20-{}", n % 16), ""),
        2 => get(&format!("{rows}.json?limit=100000"), ""),
        3 => get(&format!("{rows}.ndjson?limit=100000"), ""),
        4 => get(&format!("{rows}.csv?limit=100000"), ""),
        5 => get(&format!("{rows}.json?limit=100"), "accept-encoding: br\r\n"),
        6 => get("/metrics", "accept-encoding: gzip\r\n"),
        _ => get(["/", "/view/per_shop", "/streams", "/batch", "/openapi.json", "/v1/views", "/docs/"][n / 8 % 7], ""),
    }
}

#[test]
fn a_thousand_readers_that_do_not_read_stay_within_the_budgets_and_others_are_served() {
    let readers = setting("TRUEUP_BOUNDS_READERS", 1_000);
    let mut world = World::new(DEFINITIONS);
    world.stop();
    world.set_limits(&format!("query_memory_bytes = {QUERY_BYTES}\n"));
    world.start();
    assert_eq!(world.post("/v1/events/sales", events(0, GROUPS)).status, 200);
    let attackers = Attackers::of(&world);
    let mut unread = Vec::with_capacity(readers);
    let mut sent = GROUPS;
    for n in 0..readers {
        unread.push(attackers.block_on(attackers.unread(&request(n))));
        if n % 50 == 0 {
            // The good clients: one sends, one asks.
            assert_eq!(world.post("/v1/events/sales", events(sent, sent + 200)).status, 200);
            sent += 200;
            let rows = world.rows("per_shop", "&group_by=&grain=all&measures=n");
            assert_eq!(rows["rows"][0]["n"], json!(sent), "{}", rows["ledger"]);
        }
    }
    let metric = |name: &str| {
        let text = world.get("/metrics").text;
        let lines = text.lines().filter_map(|line| line.strip_prefix(name)?.rsplit(' ').next()?.parse::<f64>().ok());
        lines.sum::<f64>() as usize
    };
    // Until all of them have what the server has for them: the queries of the last ones are still under way.
    world.wait_for("the queries to end", |world| {
        world.get("/v1/views/per_shop/rows.json?limit=1").status == 200 && metric("trueup_live_feeds") > 0
    });
    println!(
        "{} connections, {} live subscribers with {} MiB, {} responses refused",
        metric("trueup_connections"),
        metric("trueup_live_subscribers"),
        metric("trueup_live_bytes") / MIB,
        metric("trueup_responses_refused_total")
    );
    assert!(metric("trueup_responses_refused_total") > 0, "the budget of responses is reached");
    assert!(metric("trueup_live_bytes") <= limits::LIVE_BYTES_MAX);
    let budget = Budget::new()
        .connections(readers)
        .responses(readers)
        .and("live queries", limits::LIVE_BYTES_MAX)
        .queries(QUERY_BYTES)
        .bodies(MIB)
        .partition(MIB, 16 * MIB);
    budget.holds("1,000 readers that do not read", &world);
    drop(unread);
    world.wait_for("the connections to end", |_| metric("trueup_connections") < 10);
    let all = world.get("/v1/views/per_shop/rows.json?limit=100000");
    assert_eq!(all.status, 200, "the budget is free again: {}", all.text);
}
