//! Sessions over rows that change: what splits and joins them, ranges of them, fewer dimensions, and what the layers show.

use serde_json::{Value, json};
use world::World;

use crate::changes::{BEGIN, Rows, ViewRows, check_rows, served};

const MINUTE: i64 = 60_000_000;

/// Panics unless any range of sessions is a slice of all of them.
pub fn check_ranges(world: &World, rows: &Rows, context: &str) {
    let bounds = [BEGIN, BEGIN + 45 * MINUTE, BEGIN + 120 * MINUTE, BEGIN + 1_440 * MINUTE];
    for view in ["visits", "sittings"] {
        let all = rows.view(view);
        for (at, from) in bounds.iter().enumerate() {
            for to in bounds[at..].iter().map(Some).chain([None]) {
                let to_text = to.map_or_else(String::new, |to| format!("&to={}", text(*to)));
                let query = format!("&from={}{to_text}", text(*from));
                let is_inside = |label: &String| {
                    let start = start_of(label);
                    start >= *from && to.is_none_or(|to| start < *to)
                };
                let expected: ViewRows = all.clone().into_iter().filter(|(label, _)| is_inside(label)).collect();
                check_rows(&expected, &served(world, view, &query), &format!("{context}: {view}{query}"));
            }
        }
    }
}

/// The start of a session, from its label.
fn start_of(label: &str) -> i64 {
    let mut numbers = label.split(' ').map(|number| number.parse::<i64>().expect("a number"));
    let (days, seconds) = (numbers.next().expect("days"), numbers.next().expect("seconds"));
    (days * 86_400 + seconds) * 1_000_000
}

/// A time as queries take it.
fn text(micros: i64) -> String {
    chrono::DateTime::from_timestamp_micros(micros).expect("a time").format("%Y-%m-%dT%H:%M:%SZ").to_string()
}

const TABLE: &str = "
    CREATE TABLE clicks (id BIGINT PRIMARY KEY, who STRING, points BIGINT, at TIMESTAMP) WITH (event_time = 'at', partitions = 2);
    CREATE VIEW visits AS SELECT who, COUNT(*) AS n, SUM(points) AS points, LAST_VALUE(points) AS last FROM clicks
        GROUP BY SESSION(at, INTERVAL '30' MINUTE), who;";

/// A row some minutes after the start of 2026-11-20.
fn click(id: i64, who: &str, minute: i64, points: i64) -> String {
    format!("{{\"id\":{id},\"who\":\"{who}\",\"points\":{points},\"at\":\"{}\"}}\n", at(minute))
}

fn at(minute: i64) -> String {
    format!("2026-11-{:02}T{:02}:{:02}:00Z", 20 + minute / 1_440, minute % 1_440 / 60, minute % 60)
}

fn deleted(id: i64) -> String {
    format!("{{\"id\":{id},\"_deleted\":true}}\n")
}

/// Start, end, number of rows and sum of each session, by who and start.
fn visits(world: &World, query: &str) -> Vec<(String, i64, i64, i64, i64)> {
    let answer = world.rows("visits", &format!("&order_by=who,window_start{query}"));
    let minute = |row: &Value, name: &str| {
        let text = row[name].as_str().expect("a bound");
        let number = |range: std::ops::Range<usize>| text[range].parse::<i64>().expect("digits");
        (number(8..10) - 20) * 1_440 + number(11..13) * 60 + number(14..16)
    };
    let row = |row: &Value| {
        let figure = |name: &str| row[name].as_i64().expect("a number");
        let who = row["who"].as_str().unwrap_or("-").to_owned();
        (who, minute(row, "window_start"), minute(row, "window_end"), figure("n"), figure("points"))
    };
    answer["rows"].as_array().expect("rows").iter().map(row).collect()
}

fn session(who: &str, start: i64, last: i64, n: i64, points: i64) -> (String, i64, i64, i64, i64) {
    (who.to_owned(), start, last + 30, n, points)
}

#[test]
fn a_row_that_is_gone_splits_a_session_and_one_that_comes_joins_two() {
    let mut world = World::new(TABLE);
    let steps = [
        // Rows that are exactly the gap apart are in two sessions.
        (
            click(1, "a", 0, 1)
                + &click(2, "a", 20, 2)
                + &click(3, "a", 40, 4)
                + &click(4, "a", 70, 8)
                + &click(5, "b", 5, 16),
            vec![session("a", 0, 40, 3, 7), session("a", 70, 70, 1, 8), session("b", 5, 5, 1, 16)],
        ),
        (
            deleted(2),
            vec![
                session("a", 0, 0, 1, 1),
                session("a", 40, 40, 1, 4),
                session("a", 70, 70, 1, 8),
                session("b", 5, 5, 1, 16),
            ],
        ),
        // Another group leaves to connect them, and then goes back.
        (click(5, "a", 25, 16) + &click(6, "a", 60, 32), vec![session("a", 0, 70, 5, 61)]),
        (
            click(5, "b", 25, 16) + &click(6, "a", 1_430, 32) + &click(7, "a", 10, 64),
            vec![
                session("a", 0, 10, 2, 65),
                session("a", 40, 40, 1, 4),
                session("a", 70, 70, 1, 8),
                session("a", 1_430, 1_430, 1, 32),
                session("b", 25, 25, 1, 16),
            ],
        ),
        // The value of a row in the middle changes, and another row has its time.
        (
            click(7, "a", 10, -64) + &click(8, "a", 10, 5) + &click(3, "a", 35, 4) + &deleted(6),
            vec![session("a", 0, 35, 4, -54), session("a", 70, 70, 1, 8), session("b", 25, 25, 1, 16)],
        ),
    ];
    for (number, (changes, expected)) in steps.into_iter().enumerate() {
        assert_eq!(world.post("/v1/events/clicks", changes).status, 200);
        assert_eq!(visits(&world, ""), expected, "step {number}, at once");
        if number % 2 == 1 {
            world.kill();
            world.start();
            assert_eq!(visits(&world, ""), expected, "step {number}, after a kill");
        }
        assert_eq!(world.run("visits", number == 3)["state"], json!("published"));
        assert_eq!(visits(&world, "&layer=batch"), expected, "step {number}, in batch");
        assert_eq!(visits(&world, ""), expected, "step {number}, across the seam");
        assert_eq!(visits(&world, "&layer=speed"), vec![], "step {number}, nothing since the version");
        let causes = world.get("/v1/views/visits/compare").json()["causes"].clone();
        assert_eq!((&causes["late"], &causes["unexplained"]), (&json!(0), &json!(0)), "step {number}");
    }
}

#[test]
fn sessions_of_fewer_dimensions_are_those_of_all_their_rows() {
    let world = World::new(TABLE);
    world.post(
        "/v1/events/clicks",
        click(1, "a", 0, 1) + &click(2, "b", 20, 2) + &click(3, "a", 40, 4) + &click(4, "b", 90, 8),
    );
    let expected = [session("-", 0, 40, 3, 7), session("-", 90, 90, 1, 8)];
    let all = |query: &str| {
        let answer = world.rows("visits", &format!("&group_by=&order_by=window_start{query}"));
        let rows = answer["rows"].as_array().expect("rows").clone();
        rows.iter()
            .map(|row| (row["window_start"].clone(), row["n"].clone(), row["points"].clone()))
            .collect::<Vec<_>>()
    };
    let bounds: Vec<_> =
        expected.iter().map(|(_, start, _, n, points)| (json!(at(*start)), json!(n), json!(points))).collect();
    assert_eq!(all(""), bounds);
    assert_eq!(world.run("visits", false)["state"], json!("published"));
    assert_eq!(all("&layer=batch"), bounds);
    // Between the groups of two sessions, in the layer that the others are not in.
    world.post("/v1/events/clicks", click(5, "c", 65, 16));
    assert_eq!(all(""), vec![(bounds[0].0.clone(), json!(5), json!(31))]);
    world.post("/v1/events/clicks", deleted(2));
    let split = |minute: i64, n: i64, points: i64| (json!(at(minute)), json!(n), json!(points));
    assert_eq!(all(""), vec![split(0, 1, 1), split(40, 3, 28)]);
    assert_eq!(all(&format!("&from={}", at(10))), vec![split(40, 3, 28)]);
}

#[test]
fn a_range_knows_the_session_that_reaches_into_it() {
    let world = World::new(TABLE);
    // Of the second and third date, whose files a query of them reads, and of the one before.
    let rows = [(1, 1_430, 1), (2, 1_450, 2), (3, 2_000, 4), (4, 2_870, 8), (5, 2_890, 16)];
    world.post("/v1/events/clicks", rows.map(|(id, minute, points)| click(id, "a", minute, points)).concat());
    assert_eq!(world.run("visits", false)["state"], json!("published"));
    let next_date = format!("&from={}", at(1_440));
    for layer in ["", "&layer=batch"] {
        let expected = [session("a", 2_000, 2_000, 1, 4), session("a", 2_870, 2_890, 2, 24)];
        assert_eq!(visits(&world, &(next_date.clone() + layer)), expected, "{layer}");
        let to = format!("&from={}&to={}{layer}", at(1_441), at(2_880));
        assert_eq!(visits(&world, &to), expected, "{layer}: the last one ends behind the range");
    }
    world.post("/v1/events/clicks", deleted(1));
    let rest = [session("a", 1_450, 1_450, 1, 2), session("a", 2_000, 2_000, 1, 4), session("a", 2_870, 2_890, 2, 24)];
    assert_eq!(visits(&world, &next_date), rest, "a live change outside of the range");
}

#[test]
fn times_that_rows_have_left_are_not_in_versions() {
    let world = World::new(TABLE);
    for minute in 0..20 {
        world.post("/v1/events/clicks", click(1, "a", minute, 1) + &click(2, "a", minute + 1, 1));
        if minute % 7 == 0 {
            assert_eq!(world.run("visits", false)["state"], json!("published"));
        }
    }
    assert_eq!(visits(&world, ""), [session("a", 19, 20, 2, 2)]);
    let run = world.run("visits", true);
    assert_eq!(
        (&run["state"], visits(&world, "&layer=batch")),
        (&json!("published"), vec![session("a", 19, 20, 2, 2)])
    );
    let version = world.get("/v1/views/visits").json()["batch"].clone();
    assert_eq!(version["rows"], json!(2), "{version}");
}

#[test]
fn a_session_that_only_lost_rows_since_the_version_is_not_called_one_of_batch() {
    let world = World::new(TABLE);
    world.post(
        "/v1/events/clicks",
        click(1, "a", 0, 1) + &click(2, "a", 20, 2) + &click(3, "a", 45, 4) + &click(4, "b", 0, 8),
    );
    assert_eq!(world.run("visits", false)["state"], json!("published"));
    let layers = || {
        let answer = world.rows("visits", "&order_by=who,window_start");
        let rows = answer["rows"].as_array().expect("rows").clone();
        rows.iter().map(|row| row["_layer"].as_str().expect("a layer").to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(layers(), ["batch", "batch"]);
    world.post("/v1/events/clicks", deleted(2));
    assert_eq!(layers(), ["merged", "merged", "batch"]);
    // What the changes add up to.
    assert_eq!(visits(&world, "&layer=speed"), [session("a", 20, 20, -1, -2)]);
}
