//! One request with 3,000 dates, live and as history: one file per date.

use std::fmt::Write as _;

use serde_json::json;
use world::World;

use crate::budget::{Budget, MIB, peak};

const DEFINITIONS: &str = "
    CREATE STREAM notes (id STRING PRIMARY KEY, at TIMESTAMP) WITH (event_time = 'at', allowed_lateness = '40000 days');
    CREATE VIEW per_day AS SELECT window_start, COUNT(*) AS n FROM notes GROUP BY TUMBLE(at, INTERVAL '1' DAY);";
const DATES: u64 = 3_000;
/// Dates of the historical events, all of them before the live ones.
const HISTORICAL_DATES: u64 = 1_000;

/// An event for each of so many days from the day `first` on.
fn events(first: u64, dates: u64) -> String {
    let mut text = String::new();
    for day in first..first + dates {
        writeln!(text, r#"{{"id":"d{day}","at":{}}}"#, day * 86_400_000).expect("a String takes any text");
    }
    text
}

#[test]
fn a_request_with_3000_dates_is_archived_within_the_budgets() {
    let mut world = World::new(DEFINITIONS);
    world.stop();
    world.set_limits("archive_wait_ms = 100\n");
    world.start();
    let answer = world.post("/v1/events/notes", events(HISTORICAL_DATES, DATES));
    assert_eq!((answer.status, &answer.json()["accepted"]), (200, &json!(DATES)), "{}", answer.text);
    // Others are served meanwhile.
    assert_eq!(world.rows("per_day", "&from=1972-09-27&to=1972-09-30")["complete"], json!(true));
    world.wait_for("all dates to be archived", |world| {
        world.get("/v1/streams/notes").json()["partitions"][0]["archived"] == json!(DATES)
    });
    assert_eq!(world.run("per_day", false)["state"], json!("published"));
    let rows = world.rows("per_day", "&layer=batch&grain=all");
    assert_eq!(rows["rows"][0]["n"], json!(DATES), "{}", rows["ledger"]);
    let budget = Budget::new().connections(1).bodies(MIB).partition(MIB, MIB).and("a run", 2 * 320 * MIB);
    budget.holds("3,000 dates", &world);
    assert_eq!(world.stop(), Some(0));

    let file = world.data.path().join("history.ndjson");
    std::fs::write(&file, events(0, HISTORICAL_DATES)).expect("written");
    let mut command = world.trueup();
    command.args(["ingest", "notes"]).arg(&file).args(["--historical", "--definitions"]).arg(world.definitions());
    let mut child = command.arg("--data").arg(world.store()).spawn().expect("trueup runs");
    let mut highest = 0;
    let status = loop {
        highest = highest.max(peak(child.id()));
        match child.try_wait().expect("a status") {
            Some(status) => break status,
            None => std::thread::sleep(std::time::Duration::from_millis(2)),
        }
    };
    assert!(status.success(), "{status}");
    assert!(highest > 0, "the process was seen");
    Budget::new()
        .and("rows of a chunk, a copy by date, files", 3 * 128 * MIB)
        .holds_for("1,000 historical dates", highest);
    world.start();
    assert_eq!(world.run("per_day", false)["state"], json!("published"));
    assert_eq!(world.rows("per_day", "&grain=all")["rows"][0]["n"], json!(DATES + HISTORICAL_DATES));
}
