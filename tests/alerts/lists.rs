//! Alerts are listed, pushed, shown by the commands, and visible to those who may read their view only.

use serde_json::{Value, json};
use world::requests::{ask_until, key, with_key};
use world::{World, program};

const DEFINITIONS: &str = "
    CREATE STREAM visits (id STRING PRIMARY KEY, at TIMESTAMP, user STRING) WITH (event_time = 'at');
    CREATE VIEW whole AS SELECT user, COUNT(*) AS n FROM visits GROUP BY user;
    CREATE VIEW days AS SELECT window_start, user, COUNT(*) AS n FROM visits GROUP BY TUMBLE(at, INTERVAL '1' DAY), user;
    CREATE ALERT often ON whole WHEN n >= 2;
    CREATE ALERT daily ON days WHEN n >= 2;";

fn post(world: &World, ids: &[(&str, &str)]) {
    for (id, user) in ids {
        let event = json!({"id": id, "at": "2026-01-05T10:00:00Z", "user": user});
        assert_eq!(world.post("/v1/events/visits", event.to_string()).status, 200);
    }
}

fn total(world: &World, parameters: &str) -> Value {
    let answer = world.get(&format!("/v1/alerts{parameters}"));
    assert_eq!(answer.status, 200, "{}", answer.text);
    answer.json()["total"].clone()
}

#[test]
fn alerts_are_listed_by_alert_and_state_and_pushed_after_an_id() {
    let world = World::new(DEFINITIONS);
    post(&world, &[("1", "a"), ("2", "a"), ("3", "b"), ("4", "b")]);
    world.wait_for("four alerts", |world| total(world, "") == json!(4));
    assert_eq!(world.run("whole", false)["state"], json!("published"));
    world.wait_for("two judged ones", |world| total(world, "?state=confirmed") == json!(2));
    assert_eq!(total(&world, "?state=raised&alert=daily"), json!(2));
    let listed = world.get("/v1/alerts?limit=1&alert=often").json();
    assert_eq!((listed["alerts"].as_array().map(Vec::len), &listed["total"]), (Some(1), &json!(2)));
    assert_eq!(
        listed["declared"][1],
        json!({"name": "often", "view": "whole", "condition": "n >= 2", "once_per": ["user"], "to": null})
    );
    for (parameters, problem) in [
        ("?state=raisd", "(did you mean \"raised\"?)"),
        ("?alert=oftn", "there is no alert called \"oftn\" (did you mean \"often\"?)"),
        ("?limit=0", "expected a number from 1 to"),
        ("?view=whole", "there is no parameter \"view\""),
    ] {
        let answer = world.get(&format!("/v1/alerts{parameters}"));
        assert!(answer.status == 400 && answer.text.contains(problem.replace('"', "\\\"").as_str()), "{}", answer.text);
    }
    // A subscriber that resumes gets every record that has changed since, once, in order.
    let events = |last: &str, until: &str| -> Vec<(u64, String)> {
        let reply = ask_until(&world, "GET", "/v1/alerts/live", &[("last-event-id", last)], until);
        assert_eq!(reply.status, 200, "{}", reply.head);
        let ids = reply.body.lines().filter_map(|line| line.strip_prefix("id: ")?.parse().ok());
        let names = reply.body.lines().filter_map(|line| line.strip_prefix("event: ").map(str::to_owned));
        ids.zip(names).collect()
    };
    let all = events("0", "\"seq\":6}");
    let (ids, names): (Vec<u64>, Vec<String>) = all.into_iter().unzip();
    assert!(ids.len() == 4 && ids.is_sorted() && ids.last() == Some(&6), "{ids:?}");
    assert_eq!(names.iter().filter(|name| *name == "confirmed").count(), 2, "{names:?}");
    assert_eq!(events("5", "\"seq\":6}").len(), 1);
    // One without an id gets what changes from now on.
    let fresh = std::thread::scope(|scope| {
        let subscriber = scope.spawn(|| ask_until(&world, "GET", "/v1/alerts/live", &[], "\"declared\":true,\"seq\":"));
        // The first bytes of the answer cannot be awaited from here: send until both have arrived.
        let mut number = 10;
        while !subscriber.is_finished() {
            post(
                &world,
                &[(&format!("x{number}"), &format!("u{number}")), (&format!("y{number}"), &format!("u{number}"))],
            );
            number += 1;
        }
        subscriber.join().expect("a subscriber")
    });
    assert!(!fresh.body.contains("id: 6\n") && fresh.body.contains("event: raised\n"), "{}", fresh.body);
}

#[test]
fn only_readers_of_a_view_see_its_alerts() {
    let world = World::new(DEFINITIONS);
    post(&world, &[("1", "a"), ("2", "a")]);
    world.wait_for("both alerts", |world| total(world, "") == json!(2));
    let (reader, other) = (key(&world, &["--scope", "read:whole"]), key(&world, &["--scope", "ingest:visits"]));
    let tenant = key(&world, &["--scope", "read:*", "--where", "user = 'a'"]);
    let seen = with_key(&world, &reader, "GET", "/v1/alerts", "").json();
    assert_eq!((&seen["total"], &seen["alerts"][0]["alert"]), (&json!(1), &json!("often")));
    assert_eq!(seen["declared"].as_array().map(Vec::len), Some(1));
    assert_eq!(with_key(&world, &other, "GET", "/v1/alerts", "").json()["total"], json!(0));
    // Records are of all tenants.
    for path in ["/v1/alerts", "/v1/alerts/live", "/v1/alerts/dead_letters"] {
        assert_eq!(with_key(&world, &tenant, "GET", path, "").code(), "row_filter", "{path}");
    }
}

#[test]
fn commands_show_alerts_and_what_changed_definitions_do() {
    let mut world = World::new(DEFINITIONS);
    post(&world, &[("1", "a"), ("2", "a")]);
    world.wait_for("both alerts", |world| total(world, "") == json!(2));
    let run = |world: &World, arguments: &[&str]| {
        let output = world.trueup().args(arguments).output().expect("trueup runs");
        (output.status.code(), program::text(&output))
    };
    let (code, table) = run(&world, &["alerts", "often", "--state", "raised", "--url", world.url()]);
    assert!(code == Some(0) && table.contains("often") && table.contains("n 2"), "{table}");
    let file = world.definitions().display().to_string();
    let (code, checked) = run(&world, &["check", &file]);
    assert!(
        code == Some(0)
            && checked.contains(
                "alert daily on view days\n  condition        n >= 2\n  raised           once per window_start, user\n"
            ),
        "{checked}"
    );
    assert!(checked.contains("no errors: 1 stream, 2 views, 2 alerts"), "{checked}");
    // One alert changes, the other is removed: their records stay.
    assert_eq!(world.stop(), Some(0));
    world.redefine(
        &DEFINITIONS
            .replace("CREATE ALERT often ON whole WHEN n >= 2", "CREATE ALERT often ON whole WHEN n >= 3")
            .replace("CREATE ALERT daily", "CREATE ALERT every_day"),
    );
    let store = world.store().display().to_string();
    let (code, planned) = run(&world, &["plan", &file, "--data", &store]);
    assert_eq!(code, Some(0), "{planned}");
    for line in [
        "alert often: starts again; what the earlier definition raised stays listed and is not judged any more (1 record)",
        "~ condition n >= 2 → n >= 3",
        "alert every_day: new on view days; raised by rows that change from now on",
        "alert daily: no longer declared; what it raised stays listed (1 record)",
        "1 new alert, 1 changed alert",
    ] {
        assert!(planned.contains(line), "{line}\nis not in\n{planned}");
    }
    world.start();
    // The new alert is evaluated over the rows that events since the last run changed.
    world.wait_for("the alert of another name", |world| total(world, "?alert=every_day") == json!(1));
    post(&world, &[("3", "a")]);
    world.wait_for("the changed alert", |world| total(world, "?alert=often") == json!(2));
    let listed = world.get("/v1/alerts?alert=often").json();
    let declared: Vec<&Value> =
        listed["alerts"].as_array().expect("alerts").iter().map(|record| &record["declared"]).collect();
    assert_eq!(declared, [&json!(true), &json!(false)]);
    assert_eq!(world.run("whole", false)["state"], json!("published"));
    world.wait_for("the judgement", |world| total(world, "?alert=often&state=confirmed") == json!(1));
    assert_eq!(total(&world, "?alert=often&state=raised"), json!(1), "the earlier definition is not judged");
}
