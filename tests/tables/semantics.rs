//! What a retraction means: its windows, values that cannot be retracted, changed definitions, and what is refused.

use serde_json::json;
use world::{World, program};

fn row(id: i64, at: &str, quantity: i64) -> String {
    format!("{{\"id\":{id},\"at\":\"{at}\",\"quantity\":{quantity}}}\n")
}

#[test]
fn a_retraction_is_in_the_window_of_its_row_and_never_late() {
    let world = World::new(
        "CREATE TABLE orders (id BIGINT PRIMARY KEY, at TIMESTAMP, quantity BIGINT) WITH (event_time = 'at');
         CREATE VIEW days AS SELECT window_start, COUNT(*) AS n, SUM(quantity) AS quantity FROM orders
            GROUP BY TUMBLE(at, INTERVAL '1' DAY);",
    );
    let days = |layer: &str| {
        let rows = world.rows("days", &format!("&order_by=window_start{layer}"))["rows"].clone();
        let day = |row: &serde_json::Value| {
            let start = row["window_start"].as_str().expect("a start")[..10].to_owned();
            (start, row["n"].as_i64().expect("a count"), row["quantity"].as_i64())
        };
        rows.as_array().expect("rows").iter().map(day).collect::<Vec<_>>()
    };
    let day = |day: &str, n: i64, quantity: i64| (day.to_owned(), n, Some(quantity));
    let (monday, tuesday, years_ago) = ("2026-11-30T10:00:00Z", "2026-12-01T10:00:00Z", "2020-01-01T10:00:00Z");
    world.post("/v1/events/orders", row(1, monday, 5) + &row(2, monday, 7) + &row(3, years_ago, 2));
    assert_eq!(world.run("days", false)["state"], json!("published"));
    // The watermark is far behind these windows now, in another generation than their rows.
    let moved = row(9, "2026-12-03T00:00:00Z", 1) + &row(1, tuesday, 5) + &row(3, years_ago, 4);
    let answer = world.post("/v1/events/orders", moved).json();
    assert_eq!((&answer["accepted"], &answer["late"]), (&json!(3), &json!(0)), "{answer}");
    let expected =
        vec![day("2020-01-01", 1, 4), day("2026-11-30", 1, 7), day("2026-12-01", 1, 5), day("2026-12-03", 1, 1)];
    assert_eq!(days(""), expected, "at once");
    // What the changes add up to; the row of 2020 is there before and after.
    let speed = vec![day("2026-11-30", -1, -5), day("2026-12-01", 1, 5), day("2026-12-03", 1, 1)];
    assert_eq!(days("&layer=speed"), speed);
    assert_eq!(world.run("days", false)["state"], json!("published"));
    assert_eq!((days(""), days("&layer=batch")), (expected.clone(), expected));
    let causes = world.get("/v1/views/days/compare").json()["causes"].clone();
    assert_eq!((&causes["late"], &causes["unexplained"]), (&json!(0), &json!(0)));
}

#[test]
fn values_that_cannot_be_taken_out_of_a_sum_are_null_while_they_are_there() {
    let world = World::new(
        "CREATE TABLE t (id BIGINT PRIMARY KEY, at TIMESTAMP, a DOUBLE, b DOUBLE, n BIGINT, i INT) WITH (event_time = 'at');
         CREATE VIEW sums AS SELECT COUNT(*) AS rows, SUM(a / b) AS ratio, AVG(a / b) AS mean, SUM(n) AS n, AVG(n) AS mean_n,
            SUM(i) AS i FROM t;",
    );
    let line =
        |id: i64, b: f64, n: i64, i: i32| format!("{{\"id\":{id},\"at\":0,\"a\":1,\"b\":{b},\"n\":{n},\"i\":{i}}}\n");
    let check = |changes: String, expected: serde_json::Value| {
        assert_eq!(world.post("/v1/events/t", changes).status, 200);
        for layer in ["", "&layer=batch"] {
            if !layer.is_empty() {
                assert_eq!(world.run("sums", true)["state"], json!("published"));
            }
            let row = world.rows("sums", layer)["rows"][0].clone();
            for (name, value) in expected.as_object().expect("values") {
                assert_eq!((name, &row[name]), (name, value), "{layer} {row}");
            }
        }
    };
    check(line(1, 2.0, 4, i32::MIN) + &line(2, 0.0, i64::MAX, 1), json!({"rows": 2, "ratio": null, "mean": null}));
    // Both opposite and neither: sums beyond BIGINT on the way do not matter.
    check(line(2, 4.0, i64::MAX, 1) + &line(3, 4.0, i64::MIN, 2), json!({"rows": 3, "ratio": 1.0, "n": null}));
    let left = json!({"rows": 2, "ratio": 0.75, "mean": 0.375, "n": 4, "mean_n": 4.0, "i": i64::from(i32::MIN) + 2});
    check("{\"id\":2,\"_deleted\":true}\n".to_owned(), left);
    check(line(3, 4.0, 6, 2), json!({"rows": 2, "n": 10, "mean_n": 5.0}));
}

#[test]
fn a_row_that_is_gone_reveals_the_first_and_the_last_value_after_it() {
    let mut world = World::new(
        "CREATE TABLE t (id BIGINT PRIMARY KEY, at TIMESTAMP, quantity BIGINT) WITH (event_time = 'at');
         CREATE VIEW edges AS SELECT FIRST_VALUE(quantity) AS first, LAST_VALUE(quantity) AS last FROM t;",
    );
    let (morning, noon) = ("2026-11-30T08:00:00Z", "2026-11-30T12:00:00Z");
    let deleted = |id: i64| format!("{{\"id\":{id},\"_deleted\":true}}\n");
    let steps = [
        // Of equal times, the least value is the first and the greatest the last one, in whatever order they came.
        (row(1, morning, 7) + &row(2, morning, 5) + &row(3, noon, 1) + &row(4, noon, 3), json!([5, 3])),
        (row(5, morning, 6) + &deleted(2), json!([6, 3])),
        // A later time, a NULL, which does not count, and a row whose value alone changes.
        (row(5, noon, 6) + &format!("{{\"id\":6,\"at\":\"{noon}\"}}\n") + &row(1, morning, 9), json!([9, 6])),
        (deleted(5) + &deleted(4), json!([9, 1])),
        (deleted(1) + &deleted(3), json!([null, null])),
    ];
    for (number, (changes, expected)) in steps.into_iter().enumerate() {
        assert_eq!(world.post("/v1/events/t", changes).status, 200);
        let found = |query: &str| {
            let row = world.rows("edges", query)["rows"][0].clone();
            json!([row["first"], row["last"]])
        };
        assert_eq!(found(""), expected, "step {number}");
        // Half of the rows are read behind the seam, and after a kill.
        if number % 2 == 1 {
            assert_eq!(world.run("edges", number == 3)["state"], json!("published"));
            assert_eq!((found("&layer=batch"), found("")), (expected.clone(), expected), "step {number}");
            world.kill();
            world.start();
        }
    }
}

#[test]
fn a_new_column_is_null_in_rows_before_it_and_retracted_so() {
    let view = "CREATE VIEW v AS SELECT kind, COUNT(*) AS n FROM t GROUP BY kind;";
    let table = |columns: &str| {
        format!("CREATE TABLE t (id BIGINT PRIMARY KEY, at TIMESTAMP{columns}) WITH (event_time = 'at');")
    };
    let mut world = World::new(&(table("") + "CREATE VIEW rows AS SELECT COUNT(*) AS n FROM t;"));
    world.post("/v1/events/t", "{\"id\":1,\"at\":0}\n{\"id\":2,\"at\":0}\n{\"id\":3,\"at\":0}\n");
    assert_eq!(world.stop(), Some(0));
    world.redefine(&(table(", kind STRING") + view));
    world.start();
    world.post("/v1/events/t", "{\"id\":1,\"at\":5,\"kind\":\"a\"}\n{\"id\":2,\"_deleted\":true}\n");
    let expected = json!([[null, 1], ["a", 1]]);
    for full in [false, true] {
        assert_eq!(world.run("v", full)["state"], json!("published"));
        let mut found: Vec<_> = world.rows("v", "")["rows"]
            .as_array()
            .expect("rows")
            .iter()
            .map(|row| json!([row["kind"], row["n"]]))
            .collect();
        found.sort_by_key(ToString::to_string);
        found.reverse();
        found.sort_by_key(|row| !row[0].is_null());
        assert_eq!(json!(found), expected);
    }
    assert_eq!(world.stop(), Some(0));
    world.redefine(&(table("") + "CREATE VIEW rows AS SELECT COUNT(*) AS n FROM t;"));
    let (code, text) = world.start_refused();
    assert!(code != Some(0) && text.contains("retractions of rows that have a value there would lack it"), "{text}");
}

#[test]
fn commands_know_tables() {
    let folder = tempfile::tempdir().expect("a folder");
    let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).expect("written");
    let table = "CREATE TABLE t (id BIGINT PRIMARY KEY, status STRING, amount DECIMAL(9,2), at TIMESTAMP METADATA FROM 'source.timestamp')
        WITH (event_time = 'at', format = 'debezium-json');";
    write(
        "t.sql",
        &format!(
            "{table} CREATE VIEW v AS SELECT status, COUNT(*) AS n, SUM(amount) AS total FROM t GROUP BY status;
            CREATE VIEW w AS SELECT status, COUNT(*) AS n, MAX(amount) AS most FROM t GROUP BY SESSION(at, INTERVAL '1' HOUR), status;"
        ),
    );
    write(
        "bad.sql",
        &format!(
            "{table} CREATE VIEW v WITH (retention = '30 days') AS SELECT COUNT(*) AS n FROM t GROUP BY SESSION(at, INTERVAL '1' HOUR);"
        ),
    );
    let run = |arguments: &[&str]| {
        let done = program::trueup_in(folder.path()).args(arguments).output().expect("trueup runs");
        (done.status.code(), program::text(&done))
    };
    let (code, text) = run(&["check", "t.sql"]);
    assert!(code == Some(0) && text.contains("SUM(CASE WHEN _retracted THEN -1 ELSE 1 END)"), "{text}");
    assert!(text.contains("no errors: 1 table, 2 views"), "{text}");
    let (code, text) = run(&["check", "t.sql", "--engine", "spark"]);
    assert!(code == Some(1) && text.contains("its figures over tables have not been compared yet"), "{text}");
    let (code, text) = run(&["check", "bad.sql"]);
    assert!(code == Some(1) && text.contains("sessions over a table cannot be dropped by retention"), "{text}");
    let change = |n: usize| {
        let (id, status) = (n % 40, ["open", "paid", "sent"][n * 7 % 3]);
        let source = format!("\"source\":{{\"ts_ms\":{}}}", 1_790_000_000_000_i64 + n as i64 * 60_000);
        match n % 11 {
            10 => format!("{{\"op\":\"d\",\"before\":{{\"id\":{id}}},{source}}}\n"),
            _ => format!(
                "{{\"op\":\"u\",\"after\":{{\"id\":{id},\"status\":\"{status}\",\"amount\":{n}.25}},{source}}}\n"
            ),
        }
    };
    write("changes.ndjson", &(0..2_000).map(change).collect::<String>());
    let (code, text) =
        run(&["verify", "t.sql", "--stream", "t", "--events", "changes.ndjson", "--cuts", "3", "--output", "json"]);
    assert!(code == Some(0), "{text}");
    let (code, text) =
        run(&["ingest", "t", "changes.ndjson", "--historical", "--definitions", "t.sql", "--data", "store"]);
    assert!(code != Some(0) && text.contains("\"t\" is a table"), "{text}");
}
