//! Alerts on every kind of window are raised for exactly the rows that a query shows when they satisfy the condition.

use std::collections::BTreeSet;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::{Value, json};
use world::{World, encoded};

const DEFINITIONS: &str = "
    CREATE STREAM visits (id STRING PRIMARY KEY, at TIMESTAMP, user STRING, amount BIGINT)
        WITH (event_time = 'at', allowed_lateness = '365 days', partitions = 2);
    CREATE VIEW whole AS SELECT user, COUNT(*) AS n FROM visits GROUP BY user;
    CREATE VIEW everything AS SELECT COUNT(*) AS n FROM visits;
    CREATE VIEW hours AS SELECT window_start, user, COUNT(*) AS n, COUNT(DISTINCT amount) AS amounts FROM visits
        GROUP BY TUMBLE(at, INTERVAL '1' HOUR), user;
    CREATE VIEW hops AS SELECT window_start, user, COUNT(*) AS n FROM visits
        GROUP BY HOP(at, INTERVAL '30' MINUTE, INTERVAL '2' HOUR), user;
    CREATE VIEW steps AS SELECT window_start, window_end, user, COUNT(*) AS n FROM visits
        GROUP BY CUMULATE(at, INTERVAL '1' HOUR, INTERVAL '4' HOUR), user;
    CREATE VIEW stays AS SELECT window_start, user, COUNT(*) AS n FROM visits
        GROUP BY SESSION(at, INTERVAL '20' MINUTE), user;
    CREATE VIEW shown AS SELECT window_start, user, COUNT(*) AS n, SUM(amount) AS total FROM visits
        GROUP BY TUMBLE(at, INTERVAL '1' DAY), user HAVING COUNT(*) > 5;
    CREATE ALERT whole_3 ON whole WHEN n >= 3;
    CREATE ALERT everything_40 ON everything WHEN n >= 40;
    CREATE ALERT hours_3 ON hours WHEN lower(n) >= 3 AND upper(amounts) >= 2;
    CREATE ALERT hops_4 ON hops WHEN n >= 4 AND user <> 'u1';
    CREATE ALERT steps_3 ON steps WHEN n >= 3;
    CREATE ALERT stays_3 ON stays WHEN n >= 3 WITH (once_per = 'user');
    CREATE ALERT shown_1 ON shown WHEN n >= 1;";

/// Alert, view, the same condition as the where of a query, the columns of the key.
const CASES: [(&str, &str, &str, &[&str]); 7] = [
    ("whole_3", "whole", "n >= 3", &["user"]),
    ("everything_40", "everything", "n >= 40", &[]),
    ("hours_3", "hours", "n >= 3 AND amounts >= 2", &["user", "window_start"]),
    ("hops_4", "hops", "n >= 4 AND user <> 'u1'", &["user", "window_start"]),
    ("steps_3", "steps", "n >= 3", &["user", "window_end", "window_start"]),
    ("stays_3", "stays", "n >= 3", &["user"]),
    ("shown_1", "shown", "n >= 1", &["user", "window_start"]),
];

fn names(row: &Value, columns: &[&str]) -> String {
    columns.iter().map(|column| row[*column].to_string()).collect::<Vec<_>>().join(" ")
}

fn satisfied(world: &World, view: &str, condition: &str, columns: &[&str]) -> BTreeSet<String> {
    let rows = world.rows(view, &format!("&where={}", encoded(condition)));
    rows["rows"].as_array().expect("rows").iter().map(|row| names(row, columns)).collect()
}

fn raised(world: &World, alert: &str, columns: &[&str]) -> BTreeSet<String> {
    let listed = world.get(&format!("/v1/alerts?limit=10000&alert={alert}")).json();
    listed["alerts"].as_array().expect("alerts").iter().map(|record| names(&record["key"], columns)).collect()
}

fn events(random: &mut StdRng, first: u64, count: u64) -> String {
    let event = |n: u64| {
        let minute = random.random_range(0..30 * 60);
        let at = format!("2026-01-{:02}T{:02}:{:02}:00Z", 5 + minute / 1440, minute / 60 % 24, minute % 60);
        let user = format!("u{}", random.random_range(0..4));
        json!({"id": format!("e{n}"), "at": at, "user": user, "amount": random.random_range(0..3)}).to_string() + "\n"
    };
    (first..first + count).map(event).collect()
}

#[test]
fn every_row_that_a_query_shows_to_satisfy_the_condition_is_raised_and_no_other() {
    let mut world = World::new(DEFINITIONS);
    let mut random = StdRng::seed_from_u64(3);
    let mut expected: Vec<BTreeSet<String>> = vec![BTreeSet::new(); CASES.len()];
    for step in 0..14 {
        let count = random.random_range(1..25);
        let answer = world.post("/v1/events/visits", events(&mut random, step * 100, count));
        assert_eq!(answer.status, 200, "{}", answer.text);
        for ((alert, view, condition, columns), expected) in CASES.iter().zip(&mut expected) {
            expected.extend(satisfied(&world, view, condition, columns));
            let mut found = BTreeSet::new();
            world.wait_for(&format!("{alert} at step {step}: {expected:?}"), |world| {
                found = raised(world, alert, columns);
                found.is_superset(expected)
            });
            assert_eq!(found, *expected, "{alert} at step {step}");
        }
        match random.random_range(0..4) {
            0 => {
                for (_, view, ..) in CASES {
                    assert_eq!(world.run(view, false)["state"], json!("published"));
                }
            }
            1 => {
                world.kill();
                world.start();
            }
            _ => {}
        }
    }
    // Whatever was raised was exact here: nothing is late.
    for (alert, view, ..) in CASES {
        world.run(view, false);
        world.wait_for(alert, |world| {
            let listed = world.get(&format!("/v1/alerts?limit=10000&alert={alert}")).json();
            listed["alerts"].as_array().expect("alerts").iter().all(|record| record["state"] == "confirmed")
        });
    }
    assert!(expected.iter().all(|expected| !expected.is_empty()), "{expected:?}");
}

#[test]
fn the_figure_of_an_alert_is_that_of_the_query_and_the_previous_window_is_read() {
    let world = World::new(
        "CREATE STREAM visits (at TIMESTAMP, user STRING, amount BIGINT) WITH (event_time = 'at', allowed_lateness = '1 day');
         CREATE VIEW hours AS SELECT window_start, window_end, user, SUM(amount) AS total, COUNT(*) AS n FROM visits
             GROUP BY TUMBLE(at, INTERVAL '1' HOUR), user;
         CREATE VIEW recent AS SELECT user, SUM(amount) AS total FROM visits GROUP BY SLIDE(at, INTERVAL '1' HOUR), user;
         CREATE ALERT fell ON hours WHEN total < 0.5 * previous(total);
         CREATE ALERT much ON recent WHEN total > 100;",
    );
    let post = |at: &str, user: &str, amount: i64| {
        let event = json!({"at": format!("2026-01-05T{at}:00Z"), "user": user, "amount": amount});
        assert_eq!(world.post("/v1/events/visits", event.to_string()).status, 200);
    };
    let found = |alert: &str, count: usize| -> Vec<Value> {
        let mut alerts = Vec::new();
        world.wait_for(alert, |world| {
            let listed = world.get(&format!("/v1/alerts?alert={alert}")).json();
            alerts = listed["alerts"].as_array().expect("alerts").clone();
            alerts.len() >= count
        });
        assert_eq!(alerts.len(), count, "{alerts:?}");
        alerts
    };
    // There is no window before the first, so nothing can fall.
    post("10:10", "a", 80);
    post("10:30", "b", 10);
    post("11:05", "b", 9);
    post("11:06", "a", 30);
    let fell = &found("fell", 1)[0];
    assert_eq!(fell["key"], json!({"user": "a", "window_start": "2026-01-05T11:00:00Z"}));
    assert_eq!(fell["row"]["window_end"], json!("2026-01-05T12:00:00Z"));
    assert_eq!(fell["figures"], json!({"total": {"served": 30, "previous": 80}}));
    assert_eq!(fell["finality"], json!("open"));
    // The trailing hour of `a` at 11:07 has both; an event in the window before raises the one after it.
    let much = &found("much", 1)[0];
    assert_eq!((&much["key"], &much["figures"]["total"]["served"]), (&json!({"user": "a"}), &json!(110)));
    post("10:31", "b", 20);
    let fell = found("fell", 2);
    assert_eq!(fell[0]["key"], json!({"user": "b", "window_start": "2026-01-05T11:00:00Z"}));
    assert_eq!(fell[0]["figures"], json!({"total": {"served": 9, "previous": 30}}));
    // The run finds both exact.
    assert_eq!(world.run("hours", false)["state"], json!("published"));
    assert_eq!(world.run("recent", false)["state"], json!("published"));
    for (alert, exact) in [("fell", json!(9)), ("much", json!(110))] {
        world.wait_for(alert, |world| {
            let listed = world.get(&format!("/v1/alerts?alert={alert}&state=confirmed")).json();
            // A run judges the alerts of one view in any order.
            let mut confirmed = listed["alerts"].as_array().expect("alerts").iter();
            confirmed.any(|record| record["figures"]["total"]["exact"] == exact)
        });
    }
}
