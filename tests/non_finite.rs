//! Tests values that JSON cannot write, and sums at the ends of their ranges, in the real program: a run that compares them is
//! published, the server starts again, causes are correct, and both layers show the same.

use serde_json::{Value, json};
use world::World;

fn send(world: &World, stream: &str, events: &[Value]) {
    for event in events {
        let answer = world.post(&format!("/v1/events/{stream}"), event.to_string());
        assert_eq!(answer.status, 200, "{}", answer.text);
    }
}

fn compared(world: &World, view: &str) -> Value {
    let run = world.run(view, false);
    assert_eq!(run["state"], json!("published"), "{run}");
    world.get(&format!("/v1/views/{view}/compare")).json()
}

#[test]
fn the_server_starts_again_after_comparing_an_infinite_with_a_finite_value() {
    let mut world = World::new(
        "CREATE STREAM s (spent DOUBLE, clicks DOUBLE, at TIMESTAMP) WITH (event_time = 'at', watermark_delay = '0 seconds');
         CREATE VIEW v AS SELECT window_start, SUM(spent) / SUM(clicks) AS cpc FROM s
             GROUP BY TUMBLE(at, INTERVAL '1' HOUR);",
    );
    let event = |at: &str, spent: f64, clicks: f64| json!({"at": at, "spent": spent, "clicks": clicks});
    send(&world, "s", &[event("2001-01-01T10:00:00Z", 5.0, 0.0), event("2001-01-01T12:00:00Z", 1.0, 1.0)]);
    send(&world, "s", &[event("2001-01-01T10:30:00Z", 1.0, 2.0)]);
    let comparison = compared(&world, "v");
    assert_eq!(
        (&comparison["causes"]["late"], &comparison["causes"]["rounding"]),
        (&json!(1), &json!(0)),
        "{comparison}"
    );
    assert_eq!(comparison["rows"][0]["served"], json!("Infinity"));
    let check = |world: &World| {
        let rows = world.rows("v", "")["rows"].clone();
        assert_eq!(rows[0]["cpc"], json!(3.0));
        assert_eq!(layers(&rows), [("batch", "final"), ("batch", "open")]);
    };
    check(&world);
    assert_eq!(world.stop(), Some(0));
    world.start();
    check(&world);
    assert_eq!(world.get("/v1/views/v/compare").json(), comparison);
}

#[test]
fn nan_is_equal_to_nan_and_raises_no_alarm() {
    let world = World::new(
        "CREATE STREAM s (x DOUBLE, at TIMESTAMP) WITH (event_time = 'at');
         CREATE VIEW v AS SELECT SUM(SQRT(x)) AS a, AVG(SQRT(x)) AS b, MAX(SQRT(x)) AS c, STDDEV(SQRT(x)) AS d,
             LAST_VALUE(SQRT(x)) AS e, SUM(x) / SUM(SQRT(x)) AS f, COUNT(DISTINCT SQRT(x)) AS g, TOP_K(SQRT(x), 2) AS h,
             MIN(SQRT(x)) AS i, COUNT(*) AS n FROM s;
         CREATE VIEW k AS SELECT SQRT(x) AS root, COUNT(*) AS n FROM s GROUP BY SQRT(x);",
    );
    let event = |x: f64| json!({"at": "2001-01-01T10:00:00Z", "x": x});
    send(&world, "s", &[event(-1.0), event(4.0), event(-2.0)]);
    for view in ["v", "k"] {
        let live = world.rows(view, "&layer=speed")["rows"].clone();
        let comparison = compared(&world, view);
        assert_eq!(comparison["rows_equal"], comparison["rows_compared"], "{comparison}");
        let unequal = comparison["causes"].as_object().expect("causes").values().any(|count| *count != json!(0));
        assert!(!unequal, "{comparison}");
        let detail = world.get(&format!("/v1/views/{view}")).json();
        assert_eq!(detail["alarm"], Value::Null, "{detail}");
        let shown = |rows: &Value| -> Vec<String> {
            let rows = rows.as_array().expect("rows").iter();
            rows.map(|row| format!("{} {} {} {}", row["root"], row["n"], row["g"], row["h"])).collect()
        };
        let batch = world.rows(view, "&layer=batch")["rows"].clone();
        assert_eq!(shown(&live), shown(&batch));
        // A window over all time never closes.
        assert!(layers(&live).iter().all(|row| *row == ("speed", "open")), "{live}");
        assert!(layers(&batch).iter().all(|row| *row == ("batch", "open")), "{batch}");
        assert_eq!(batch.as_array().expect("rows").len(), if view == "v" { 1 } else { 2 });
    }
}

/// The layer and the finality of each row.
fn layers(rows: &Value) -> Vec<(&str, &str)> {
    let rows = rows.as_array().expect("rows").iter();
    rows.map(|row| (row["_layer"].as_str().expect("a layer"), row["_finality"].as_str().expect("a finality"))).collect()
}

/// The rows without the columns that name their layers.
fn figures(rows: &Value) -> Vec<Value> {
    let mut rows = rows.as_array().expect("rows").clone();
    for row in &mut rows {
        row.as_object_mut().expect("a row").retain(|name, _| !matches!(name.as_str(), "_layer" | "_finality"));
    }
    rows
}

#[test]
fn sums_that_overflow_on_the_way_are_the_same_in_both_layers() {
    let m = "9".repeat(38);
    let world = World::new(
        "CREATE STREAM s (x DOUBLE, d DECIMAL(38,0), at TIMESTAMP) WITH (event_time = 'at');
         CREATE VIEW alone AS SELECT window_start, SUM(d) AS d FROM s GROUP BY TUMBLE(at, INTERVAL '1' HOUR);
         CREATE VIEW beside AS SELECT window_start, SUM(d) AS d, SUM(x) AS x, AVG(x) AS mean, STDDEV_POP(x) AS s,
             COUNT(DISTINCT x) AS n FROM s GROUP BY TUMBLE(at, INTERVAL '1' HOUR);",
    );
    let event = |at: &str, x: f64, d: String| json!({"at": at, "x": x, "d": d});
    // The sum of the first hour is out of range; that of the third only in between.
    let events = [
        event("2001-01-01T10:00:00Z", 1e308, m.clone()),
        event("2001-01-01T10:10:00Z", 1e308, m.clone()),
        event("2001-01-01T11:00:00Z", -1e308, format!("-{m}")),
        event("2001-01-01T12:00:00Z", 1e308, m.clone()),
        event("2001-01-01T12:10:00Z", 1e308, m.clone()),
        event("2001-01-01T12:20:00Z", -1e308, format!("-{m}")),
    ];
    send(&world, "s", &events);
    let day = "&grain=1d&from=2001-01-01&to=2001-01-02";
    for view in ["alone", "beside"] {
        let (live, live_day) = (world.rows(view, "")["rows"].clone(), world.rows(view, day)["rows"].clone());
        let comparison = compared(&world, view);
        assert_eq!(comparison["rows_equal"], comparison["rows_compared"], "{comparison}");
        let exact = world.rows(view, "")["rows"].clone();
        assert_eq!(figures(&exact), figures(&live));
        // The watermark is 12:20, so the last hour is still open.
        assert_eq!(layers(&live), [("speed", "closed"), ("speed", "closed"), ("speed", "open")]);
        assert_eq!(layers(&exact), [("batch", "final"), ("batch", "final"), ("batch", "open")]);
        assert_eq!(live[0]["d"], Value::Null);
        assert_eq!(live[2]["d"], json!(m));
        let merged_day = world.rows(view, day)["rows"].clone();
        assert_eq!(merged_day[0]["d"], live_day[0]["d"]);
        // Four events above, two below: the sum of the day does not fit.
        assert_eq!(merged_day[0]["d"], Value::Null);
        if view == "beside" {
            assert_eq!((&live[2]["x"], &live[0]["x"], &live[0]["mean"]), (&json!(1e308), &Value::Null, &json!(1e308)));
            assert_eq!(live[0]["s"], json!(0.0));
        }
    }
    send(&world, "s", &[event("2001-01-01T13:00:00Z", -1e308, format!("-{m}"))]);
    for view in ["alone", "beside"] {
        let days = world.rows(view, day)["rows"].clone();
        let day = &days[0];
        assert_eq!(day["d"], json!(m), "batch's stored sums and one on top");
        assert_eq!(layers(&days), [("merged", "open")]);
        if view == "beside" {
            assert_eq!(day["x"], json!(1e308));
        }
    }
}

#[test]
fn notes_that_cannot_be_read_do_not_stop_the_server() {
    let mut world = World::new(
        "CREATE STREAM s (x BIGINT, at TIMESTAMP) WITH (event_time = 'at');
         CREATE VIEW one AS SELECT SUM(x) AS x FROM s;
         CREATE VIEW two AS SELECT COUNT(*) AS n FROM s;
         CREATE VIEW three AS SELECT MAX(x) AS x FROM s;",
    );
    let event = |x: i64| json!({"at": "2001-01-01T10:00:00Z", "x": x});
    send(&world, "s", &[event(1), event(2)]);
    for view in ["one", "two", "three"] {
        compared(&world, view);
    }
    assert_eq!(world.stop(), Some(0));
    let broken = |view: &str, from: &str, to: &str| {
        let folder = world.store().join("lake").join("views").join(view).join("_delta_log");
        let logs = std::fs::read_dir(&folder).expect("a log").flatten().map(|entry| entry.path());
        let last = logs.filter(|path| path.extension().is_some_and(|e| e == "json")).max().expect("a commit");
        let text = std::fs::read_to_string(&last).expect("a commit");
        assert!(text.contains(from), "{text}");
        std::fs::write(&last, text.replace(from, to)).expect("writable");
    };
    broken("one", "\"rows_equal\":", "\"rows_alike\":");
    broken("two", "\"seam\":", "\"seams\":");
    world.start();
    for view in ["one", "three"] {
        assert_eq!(world.rows(view, "")["complete"], json!(true), "{view} is served from its version");
        assert!(world.get(&format!("/v1/views/{view}")).json()["seam"]["version"].is_i64());
    }
    assert_eq!(world.rows("one", "")["rows"][0]["x"], json!(3));
    assert_eq!(world.rows("three", "")["rows"][0]["x"], json!(2));
    assert!(world.log().contains("cannot read the comparison summary of the version"), "{}", world.log());
    assert!(world.log().contains("cannot read the notes of the version"), "{}", world.log());
    // A run replaces the lost version.
    assert_eq!(world.run("two", false)["state"], json!("published"));
    assert_eq!(world.rows("two", "")["rows"][0]["n"], json!(2));
    assert_eq!(world.rows("two", "")["complete"], json!(true));
}
