//! Tests alerts through the program: every raised, confirmed, withdrawn and corrected alert equals that of an independent
//! fold in log order, whatever is late, duplicate, killed or replayed; and every notice reaches its webhook.

mod crashes;
mod delivery;
mod fold;
mod fraud;
mod lists;
mod page;
mod quiet;
mod recipes;
mod verify;
mod windows;

use std::collections::BTreeMap;

use serde_json::Value;
use world::World;

/// Returns the records of an alert: state and how often it was raised, by the text of the key.
fn records(world: &World, alert: &str) -> BTreeMap<String, (String, u64)> {
    let answer = world.get(&format!("/v1/alerts?limit=10000&alert={alert}"));
    assert_eq!(answer.status, 200, "{}", answer.text);
    let answer = answer.json();
    let listed = answer["alerts"].as_array().expect("alerts");
    let record = |record: &Value| {
        let (state, times) = (record["state"].as_str().expect("a state"), record["times"].as_u64().expect("a number"));
        (key(&record["key"]), (state.to_owned(), times))
    };
    let records: BTreeMap<_, _> = listed.iter().map(record).collect();
    assert_eq!(records.len(), listed.len(), "one record per key: {answer}");
    records
}

/// Returns the values of a key, joined.
fn key(key: &Value) -> String {
    let values = key.as_object().expect("a key").values();
    values.map(|value| value.as_str().map_or_else(|| value.to_string(), str::to_owned)).collect::<Vec<_>>().join(" ")
}

/// Waits until the records of an alert are these.
fn wait_for_records(world: &World, alert: &str, expected: &BTreeMap<String, (String, u64)>) {
    let mut found = BTreeMap::new();
    let begin = std::time::Instant::now();
    while begin.elapsed() < std::time::Duration::from_secs(30) {
        found = records(world, alert);
        if found == *expected {
            return;
        }
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    let differs = |key: &&String| found.get(*key) != expected.get(*key);
    let keys: std::collections::BTreeSet<&String> = found.keys().chain(expected.keys()).collect();
    let differing: Vec<String> = keys
        .into_iter()
        .filter(differs)
        .map(|key| format!("{key}: found {:?}, expected {:?}", found.get(key), expected.get(key)))
        .collect();
    panic!("{alert}: {}\n{}", differing.join("\n"), world.log());
}
