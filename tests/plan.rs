//! What does `trueup plan` foresee, what is refused, and what changes nothing?

#[allow(dead_code, reason = "each test uses a part of it")]
mod agree;
#[allow(dead_code, reason = "each test uses a part of it")]
mod history;
#[allow(dead_code, reason = "each test uses a part of the oracle")]
mod oracle;
#[allow(dead_code, reason = "each test uses a part of the world")]
mod world;

use history::{Declared, FIRST, History, NAME, events, plan};
use serde_json::{Value, json};
use world::World;

#[test]
fn what_cannot_be_changed_is_refused_before_anything_is() {
    let stream = |columns: &str, options: &str| {
        format!(
            "CREATE STREAM events ({columns}) WITH (event_time = 'at'{options});
                 CREATE VIEW figures AS SELECT COUNT(*) AS n FROM events;"
        )
    };
    let declared = stream("id STRING PRIMARY KEY, at TIMESTAMP, seen TIMESTAMP, amount BIGINT", ", partitions = 2");
    let mut world = World::new(&declared);
    // Without events nothing is bound.
    assert_eq!(world.stop(), Some(0));
    world.redefine(&stream("id BIGINT, at TIMESTAMP, amount STRING", ", partitions = 1"));
    world.start();
    assert_eq!(world.stop(), Some(0));
    world.redefine(&declared);
    world.start();
    let event = r#"{"id": "a", "at": 1000000000000, "amount": 7}"#;
    assert_eq!(world.post("/v1/events/events", event).json()["accepted"], json!(1));
    assert_eq!(world.stop(), Some(0));
    let refused = [
        (
            stream("id STRING PRIMARY KEY, at TIMESTAMP, seen TIMESTAMP, amount DOUBLE", ", partitions = 2"),
            "stream events: column amount changed: BIGINT → DOUBLE\n    the stored events have BIGINT there, and values are not converted\n    \
          to do: keep `amount BIGINT` and add a column of another name for DOUBLE, or declare a stream of another name, such as events_2",
        ),
        (
            declared.replace("event_time = 'at'", "event_time = 'seen'"),
            "stream events: event time changed: at → seen\n    the archive is kept by the date of the event time",
        ),
        (
            declared.replace(" PRIMARY KEY", ""),
            "stream events: primary key changed: id → none\n    the primary key decides which events are duplicates",
        ),
        (
            declared.replace("partitions = 2", "partitions = 1"),
            "stream events: partitions changed: 2 → 1\n    the number says where an event's id and a request's Idempotency-Key",
        ),
        (declared.replace("partitions = 2", "partitions = 3"), "stream events: partitions changed: 2 → 3"),
    ];
    for (text, told) in &refused {
        // The log alone has the event, or the archive as well.
        let (code, planned) = plan(&world, text, &[]);
        assert_eq!(code, Some(1), "{planned}");
        assert!(planned.contains("refused: "), "{planned}");
        world.redefine(text);
        let (code, said) = world.start_refused();
        assert_eq!(code, Some(1), "{said}");
        assert!(said.contains(told), "{told}\nis not in\n{said}");
        assert!(said.contains("nothing was changed") && said.contains("trueup plan"), "{said}");
        world.redefine(&declared);
        world.start();
        assert_eq!(world.rows("figures", "")["rows"][0]["n"], json!(1));
        assert_eq!(world.run("figures", true)["state"], json!("published"));
        assert_eq!(world.stop(), Some(0));
    }
}

#[test]
fn options_and_formatting_compute_nothing_anew() {
    let mut history = History::new(FIRST);
    history.post(&events(0, 60));
    history.world.run(NAME, false);
    assert_eq!(history.world.stop(), Some(0));
    let sql = FIRST
        .text()
        .replace("CREATE VIEW figures AS", "CREATE VIEW figures\nWITH (schedule = '0 0 1 1 *') -- once a year\n AS");
    // A column in the midst of the others changes their places, and nothing else.
    let sql = sql.replace("price DOUBLE", "tail STRING, price DOUBLE");
    let (code, planned) = plan(&history.world, &sql, &[]);
    assert_eq!(code, Some(0), "{planned}");
    assert!(
        planned.contains("view figures: only its options change: nothing is computed anew (version 1)"),
        "{planned}"
    );
    assert!(planned.contains("+ column tail STRING: NULL in the events that are stored"), "{planned}");
    history.world.redefine(&sql);
    history.world.start();
    let status = history.status();
    assert_eq!((&status["shadow"], &status["seam"]["version"]), (&Value::Null, &json!(1)), "{status}");
    let runs = history.world.get("/v1/runs").json()["runs"].clone();
    assert_eq!(runs.as_array().map(Vec::len), Some(1), "only the run of before the restart: {runs}");
    history.post(&events(60, 10));
    let rows = history.world.rows(NAME, "&group_by=&grain=all");
    assert_eq!(rows["rows"][0]["n"], json!(70), "{rows}");
}

#[test]
fn a_plan_in_words() {
    let mut history = History::new(FIRST);
    let more = "CREATE VIEW gone AS SELECT COUNT(*) AS n FROM events;\nCREATE VIEW same AS SELECT COUNT(*) AS n FROM events;\n";
    assert_eq!(history.world.stop(), Some(0));
    let nothing = plan(&history.world, &FIRST.text(), &[]);
    history.world.redefine(&(FIRST.text() + more));
    history.world.start();
    history.post(&events(0, 60));
    for view in [NAME, "gone", "same"] {
        assert_eq!(history.world.run(view, false)["state"], json!("published"));
    }
    let second = Declared { price: false, view: 0b11110 };
    let text = second.text().replace("code INT", "code INT, tail STRING").replace("20 seconds", "1 minute")
        + "CREATE VIEW same WITH (schedule = '@hourly') AS SELECT COUNT(*) AS n FROM events;\n\
           CREATE VIEW fresh AS SELECT region, COUNT(*) AS n FROM events GROUP BY region;\n";
    // While the server runs.
    let (code, words) = plan(&history.world, &text, &[]);
    assert_eq!(code, Some(0), "{words}");
    insta::assert_snapshot!(told(&nothing.1), @r#"
    stream events: unchanged (0 events in the archive)
    view figures: new

    1 new view
    "#);
    insta::assert_snapshot!(told(&words), @r#"
    stream events: changed (60 events in the archive)
      + column tail STRING: NULL in the events that are stored
      - column price DOUBLE: no longer taken from events; the archive keeps what it has of it
      ~ option allowed_lateness = '20 seconds' → '1 minute'
    view figures: computed anew; version 1 answers as before until the new one is complete
      + filter amount > 0
      ~ window TUMBLE(at, INTERVAL '20' SECOND) → TUMBLE(at, INTERVAL '1' MINUTE)
      + dimension code
      + measure codes = SUM(code)
      - measure total = SUM(amount)
      - measure dearest = MAX(price)
      computes 1 date of events (2001-09-09), 60 events
      reads .. bytes; takes ..
    view same: only its options change: nothing is computed anew (version 1)
      + option schedule = '@hourly'
    view fresh: new
      computes 1 date of events (2001-09-09), 60 events
      reads .. bytes; takes ..
    view gone: no longer declared: its table stays (version 1, 1 row)

    1 stream changes, 1 new view, 1 view is computed anew
    "#);
    let refused = FIRST.text().replace("amount BIGINT", "amount INT").replace("PRIMARY KEY", "");
    let (code, words) = plan(&history.world, &refused, &[]);
    assert_eq!(code, Some(1), "{words}");
    insta::assert_snapshot!(told(&words), @r#"
    stream events: refused (60 events in the archive)
      ! column amount BIGINT → INT
          refused: the stored events have BIGINT there, and values are not converted
          to do:   keep `amount BIGINT` and add a column of another name for INT, or declare a stream of another name, such as events_2, and send the events to it
      ! primary key id → none
          refused: the primary key decides which events are duplicates, and that is decided for those that are stored
          to do:   declare a stream of another name, such as events_2, and send the events to it
    view figures: not looked at, because its stream is refused
    view gone: no longer declared: its table stays (version 1, 1 row)
    view same: no longer declared: its table stays (version 1, 1 row)

    2 changes are refused
    error: `serve` would refuse 2 changes
    "#);
    let (code, document) = plan(&history.world, &text, &["-o", "json"]);
    let document: Value = serde_json::from_str(&document).expect("JSON");
    let fates = |of: &str| -> Vec<Value> {
        document[of].as_array().expect("a list").iter().map(|o| json!([o["name"], o["fate"]])).collect()
    };
    assert_eq!((code, &document["refused"]), (Some(0), &json!(0)));
    assert_eq!(fates("streams"), [json!(["events", "changed"])]);
    assert_eq!(
        fates("views"),
        [json!([NAME, "changed"]), json!(["same", "options"]), json!(["fresh", "new"]), json!(["gone", "undeclared"])]
    );
    assert_eq!(document["views"][0]["recompute"]["events"], json!(60), "{document}");
}

/// Without what is for no picture: how large a file gets, and how long a run takes.
fn told(words: &str) -> String {
    let line = |line: &str| match (line.split_once("reads about "), line.split_once("takes about ")) {
        (Some((indent, _)), takes) => {
            format!("{indent}reads .. bytes{}", if takes.is_some() { "; takes .." } else { "" })
        }
        _ => line.to_owned(),
    };
    words.lines().map(line).collect::<Vec<_>>().join("\n")
}
