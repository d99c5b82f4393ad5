//! Kills the server while clients change rows: no acknowledged change is lost, and figures are those of the rows.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::{Value, json};
use world::World;

const TABLE: &str = "
    CREATE TABLE accounts (id BIGINT PRIMARY KEY, owner STRING, balance BIGINT, at TIMESTAMP) WITH (event_time = 'at', partitions = 2);
    CREATE VIEW owners AS SELECT owner, COUNT(*) AS n, SUM(balance) AS balance FROM accounts GROUP BY owner;";
const CLIENTS: i64 = 3;
const KEYS: i64 = 8;

/// The last acknowledged value of a key, and those sent after it, whose outcome is unknown.
#[derive(Default, Clone)]
struct Known {
    acknowledged: Option<i64>,
    unknown: Vec<Option<i64>>,
}

/// Changes the rows of one client until the server is gone or the time is over.
fn work(url: &str, client: i64, random: &mut StdRng, stop: &AtomicBool, known: &mut BTreeMap<i64, Known>) {
    let http = reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(10)).build().expect("a client");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    while !stop.load(Ordering::SeqCst) {
        let changes: Vec<(i64, Option<i64>)> = (0..random.random_range(1..6))
            .map(|_| {
                (
                    client * KEYS + random.random_range(0..KEYS),
                    random.random_bool(0.8).then(|| random.random_range(1..1_000)),
                )
            })
            .collect();
        let line = |(id, balance): &(i64, Option<i64>)| match balance {
            Some(balance) => json!({"id": id, "owner": format!("o{}", balance % 3), "balance": balance, "at": balance}),
            None => json!({"id": id, "_deleted": true}),
        };
        let body: String = changes.iter().map(|change| format!("{}\n", line(change))).collect();
        for (id, balance) in &changes {
            known.entry(*id).or_default().unknown.push(*balance);
        }
        let sent = runtime.block_on(async { http.post(format!("{url}/v1/events/accounts")).body(body).send().await });
        if !sent.is_ok_and(|answer| answer.status() == 200) {
            return;
        }
        for (id, balance) in changes {
            known.insert(id, Known { acknowledged: balance, unknown: Vec::new() });
        }
    }
}

#[test]
fn acknowledged_changes_survive_kills_and_figures_are_those_of_the_rows() {
    let mut world = World::stopped(TABLE);
    world.set_limits("dedup_horizon_events = 50\nlog_segment_bytes = 8192\narchive_wait_ms = 20\n");
    world.start();
    let mut known: Vec<BTreeMap<i64, Known>> = vec![BTreeMap::new(); CLIENTS as usize];
    let mut random = StdRng::seed_from_u64(14);
    for round in 0..6 {
        let (url, stop) = (world.url().to_owned(), AtomicBool::new(false));
        std::thread::scope(|scope| {
            for (client, known) in (0..).zip(&mut known) {
                let (url, stop, mut random) = (&url, &stop, StdRng::seed_from_u64(round * 10 + client as u64));
                scope.spawn(move || work(url, client, &mut random, stop, known));
            }
            std::thread::sleep(Duration::from_millis(random.random_range(20..250)));
            if round % 2 == 1 {
                world.run("owners", false);
            }
            world.kill();
            stop.store(true, Ordering::SeqCst);
        });
        world.start();
        let listed = world.get("/v1/tables/accounts/rows").json();
        let rows = listed["rows"].as_array().expect("rows");
        let balances: BTreeMap<i64, i64> = rows
            .iter()
            .map(|row| (row["id"].as_i64().expect("an id"), row["balance"].as_i64().expect("a balance")))
            .collect();
        for (id, state) in known.iter_mut().flatten() {
            let found = balances.get(id).copied();
            assert!(
                found == state.acknowledged || state.unknown.contains(&found),
                "round {round}, row {id}: {found:?}"
            );
            *state = Known { acknowledged: found, unknown: Vec::new() };
        }
        check(&world, &balances, round);
    }
    assert_eq!(world.run("owners", true)["state"], json!("published"));
    assert!(known.iter().flatten().count() > 10, "clients changed rows");
}

/// The figures are those of the rows.
fn check(world: &World, balances: &BTreeMap<i64, i64>, round: u64) {
    let mut expected: BTreeMap<String, (i64, i64)> = BTreeMap::new();
    for balance in balances.values() {
        let group = expected.entry(format!("o{}", balance % 3)).or_default();
        *group = (group.0 + 1, group.1 + balance);
    }
    let answer = world.get("/v1/views/owners/rows").json();
    assert_eq!(answer["complete"], json!(true), "{answer}");
    let number = |value: &Value| value.as_i64().expect("a number");
    let found =
        answer["rows"].as_array().expect("rows").iter().map(|row| {
            (row["owner"].as_str().expect("an owner").to_owned(), (number(&row["n"]), number(&row["balance"])))
        });
    assert_eq!(found.collect::<BTreeMap<_, _>>(), expected, "round {round}");
}
