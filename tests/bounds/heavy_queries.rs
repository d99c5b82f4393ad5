//! Many heavy queries at once, over batch rows that are not in memory, in every format; and the pages.

use std::fmt::Write as _;

use serde_json::json;
use shared::limits;
use world::World;

use crate::budget::{Budget, MIB};
use crate::setting;
use crate::sockets::{Attackers, get};

const DEFINITIONS: &str = "
    CREATE STREAM sales (at TIMESTAMP, shop BIGINT, amount BIGINT)
        WITH (event_time = 'at', allowed_lateness = '40000 days');
    CREATE VIEW per_shop AS SELECT window_start, shop, COUNT(*) AS n, SUM(amount) AS total, MAX(amount) AS highest
        FROM sales GROUP BY TUMBLE(at, INTERVAL '1' DAY), shop;";
const DAYS: usize = 10;
/// Groups of a day.
const SHOPS: usize = 15_000;
const QUERY_BYTES: usize = 96 * MIB;
const CACHE_BYTES: usize = MIB;

fn events(day: usize) -> Vec<u8> {
    let mut text = String::with_capacity(SHOPS * 60);
    for shop in 0..SHOPS {
        writeln!(text, r#"{{"at":{},"shop":{},"amount":{shop}}}"#, (20_000 + day) * 86_400_000, shop * 7919)
            .expect("a String takes any text");
    }
    text.into_bytes()
}

#[test]
fn heavy_queries_over_cold_batch_rows_wait_for_each_other_within_the_budgets() {
    let clients = setting("TRUEUP_BOUNDS_QUERIES", 48);
    let mut world = World::new(DEFINITIONS);
    world.stop();
    world.set_limits(&format!("query_memory_bytes = {QUERY_BYTES}\nbatch_cache_bytes = {CACHE_BYTES}\n"));
    world.start();
    for day in 0..DAYS {
        assert_eq!(world.post("/v1/events/sales", events(day)).status, 200);
    }
    assert_eq!(world.run("per_shop", false)["state"], json!("published"));
    // A fresh process: its peak is that of the queries.
    world.stop();
    world.start();
    let attackers = Attackers::of(&world);
    let rows = "/v1/views/per_shop/rows";
    let query = |n: usize| match n % 8 {
        0 => format!("{rows}.json?limit=1000000"),
        1 => format!("{rows}.csv?limit=1000000"),
        2 => format!("{rows}.ndjson?limit=1000000&order_by=-total"),
        3 => format!("{rows}.parquet?limit=1000000"),
        4 => format!("{rows}.arrow?limit=1000000"),
        5 => format!("{rows}.json?limit=1000000&where=total%20%3E%20{n}"),
        6 => format!("{rows}.json?grain=all&limit=1000000"),
        _ => ["/", "/view/per_shop", "/compare/per_shop", "/batch", "/streams"][n / 8 % 5].to_owned(),
    };
    let answers = attackers.block_on(async {
        let asked = (0..clients).map(|n| {
            let headers =
                if n % 3 == 0 { "accept-encoding: gzip\r\nconnection: close\r\n" } else { "connection: close\r\n" };
            let request = get(&query(n), headers);
            let attackers = &attackers;
            async move { attackers.ask(&request).await.status() }
        });
        futures::future::join_all(asked).await
    });
    let of = |status: u16| answers.iter().filter(|answer| **answer == status).count();
    println!("{} of {clients} answered, {} too large, {} busy", of(200), of(413), of(429) + of(503) + of(504));
    assert_eq!(of(200) + of(413) + of(429) + of(503) + of(504), clients, "{answers:?}");
    assert!(of(200) >= clients / 2, "{answers:?}");
    let budget = Budget::new()
        .connections(clients)
        .queries(QUERY_BYTES)
        .and("responses being written", 5 * QUERY_BYTES)
        .and("responses being sent", limits::RESPONSES_BYTES_MAX.min(clients * 20 * MIB))
        .and("batch rows in memory", CACHE_BYTES)
        .bodies(MIB);
    budget.holds("heavy queries", &world);
    let total = world.rows("per_shop", "&group_by=&grain=all&measures=n");
    assert_eq!(total["rows"][0]["n"], json!(DAYS * SHOPS));
}
