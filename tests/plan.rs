//! Tests the output of `trueup plan`, refused changes, and changes that recompute nothing.

use serde_json::{Value, json};
use world::World;
use world::changing_view::{Declared, FIRST, History, NAME, events, plan};
use world::program;

#[test]
fn refused_changes_have_no_effect() {
    let stream = |columns: &str, options: &str| {
        format!(
            "CREATE STREAM events ({columns}) WITH (event_time = 'at'{options});
                 CREATE VIEW figures AS SELECT COUNT(*) AS n FROM events;"
        )
    };
    let declared = stream("id STRING PRIMARY KEY, at TIMESTAMP, seen TIMESTAMP, amount BIGINT", ", partitions = 2");
    let mut world = World::new(&declared);
    // Without stored events, every change is allowed.
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
    for (text, expected) in &refused {
        // The event may be only in the log, or in the archive too.
        let (code, planned) = plan(&world, text, &[]);
        assert_eq!(code, Some(1), "{planned}");
        assert!(planned.contains("refused: "), "{planned}");
        world.redefine(text);
        let (code, output) = world.start_refused();
        assert_eq!(code, Some(1), "{output}");
        assert!(output.contains(expected), "{expected}\nis not in\n{output}");
        assert!(output.contains("nothing was changed") && output.contains("trueup plan"), "{output}");
        world.redefine(&declared);
        world.start();
        assert_eq!(world.rows("figures", "")["rows"][0]["n"], json!(1));
        assert_eq!(world.run("figures", true)["state"], json!("published"));
        assert_eq!(world.stop(), Some(0));
    }
}

#[test]
fn changed_options_and_formatting_recompute_nothing() {
    let mut history = History::new(FIRST);
    history.post(&events(0, 60));
    history.world.run(NAME, false);
    assert_eq!(history.world.stop(), Some(0));
    let sql = FIRST
        .text()
        .replace("CREATE VIEW figures AS", "CREATE VIEW figures\nWITH (schedule = '0 0 1 1 *') -- once a year\n AS");
    // A new column between the others changes only their positions.
    let sql = sql.replace("price DOUBLE", "tail STRING, price DOUBLE");
    let (code, planned) = plan(&history.world, &sql, &[]);
    assert_eq!(code, Some(0), "{planned}");
    assert!(planned.contains("view figures: only options change, nothing to recompute (version 1)"), "{planned}");
    assert!(planned.contains("+ column tail STRING: NULL in the events that are stored"), "{planned}");
    history.world.redefine(&sql);
    history.world.start();
    let status = history.status();
    assert_eq!((&status["shadow"], &status["seam"]["version"]), (&Value::Null, &json!(1)), "{status}");
    let runs = history.world.get("/v1/runs").json()["runs"].clone();
    assert_eq!(runs.as_array().map(Vec::len), Some(1), "only the run before the restart: {runs}");
    history.post(&events(60, 10));
    let rows = history.world.rows(NAME, "&group_by=&grain=all");
    assert_eq!(rows["rows"][0]["n"], json!(70), "{rows}");
}

#[test]
fn a_plan_lists_changes_and_costs() {
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
    insta::assert_snapshot!(masked(&nothing.1), @r#"
    stream events: unchanged (0 events in the archive)
    view figures: new

    1 new view
    "#);
    insta::assert_snapshot!(masked(&words), @r#"
    stream events: changed (60 events in the archive)
      + column tail STRING: NULL in the events that are stored
      - column price DOUBLE: no longer read from events; the archive keeps its stored values
      ~ option allowed_lateness = '20 seconds' → '1 minute'
    view figures: recompute; version 1 stays active until the new version is complete
      + filter amount > 0
      ~ window TUMBLE(at, INTERVAL '20' SECOND) → TUMBLE(at, INTERVAL '1' MINUTE)
      + dimension code
      + measure codes = SUM(code)
      - measure total = SUM(amount)
      - measure dearest = MAX(price)
      computes 60 events of 1 date (2001-09-09)
      reads .. bytes; takes ..
    view same: only options change, nothing to recompute (version 1)
      + option schedule = '@hourly'
    view fresh: new
      computes 60 events of 1 date (2001-09-09)
      reads .. bytes; takes ..
    view gone: no longer declared; its table is kept (version 1, 1 row)

    1 changed stream, 1 new view, 1 view to recompute
    "#);
    let refused = FIRST.text().replace("amount BIGINT", "amount INT").replace("PRIMARY KEY", "");
    let (code, words) = plan(&history.world, &refused, &[]);
    assert_eq!(code, Some(1), "{words}");
    insta::assert_snapshot!(masked(&words), @r#"
    stream events: refused (60 events in the archive)
      ! column amount BIGINT → INT
          refused: the stored events have BIGINT there, and values are not converted
          to do:   keep `amount BIGINT` and add a column of another name for INT, or declare a stream of another name, such as events_2, and send the events to it
      ! primary key id → none
          refused: the primary key decides which events are duplicates, and that is decided for those that are stored
          to do:   declare a stream of another name, such as events_2, and send the events to it
    view figures: not checked because its stream is refused
    view gone: no longer declared; its table is kept (version 1, 1 row)
    view same: no longer declared; its table is kept (version 1, 1 row)

    2 refused changes
    error: `serve` would refuse 2 changes
    "#);
    let (code, document) = plan(&history.world, &text, &["-o", "json"]);
    let document: Value = serde_json::from_str(&document).expect("JSON");
    let statuses = |of: &str| -> Vec<Value> {
        document[of].as_array().expect("a list").iter().map(|o| json!([o["name"], o["status"]])).collect()
    };
    assert_eq!((code, &document["refused"]), (Some(0), &json!(0)));
    assert_eq!(statuses("streams"), [json!(["events", "changed"])]);
    assert_eq!(
        statuses("views"),
        [json!([NAME, "changed"]), json!(["same", "options"]), json!(["fresh", "new"]), json!(["gone", "undeclared"])]
    );
    assert_eq!(document["views"][0]["recompute"]["events"], json!(60), "{document}");
}

#[test]
fn check_prints_the_query_of_each_view_for_spark_or_refuses_it() {
    let folder = tempfile::tempdir().expect("a folder");
    let check = |views: &str| {
        let file = folder.path().join("views.sql");
        let stream =
            "CREATE STREAM events (id STRING PRIMARY KEY, at TIMESTAMP, price DOUBLE) WITH (event_time = 'at');\n";
        std::fs::write(&file, format!("{stream}{views}")).expect("written");
        program::trueup(&["check", file.to_str().expect("UTF-8"), "--engine", "spark"])
    };
    let (code, text) = check(
        "CREATE VIEW hourly AS SELECT window_start, SUM(price) AS total FROM events GROUP BY TUMBLE(at, INTERVAL '1' HOUR);
         CREATE VIEW live WITH (layers = 'speed') AS SELECT COUNT(*) AS n FROM events;",
    );
    assert_eq!(code, Some(0), "{text}");
    for part in [
        "-- view hourly on Apache Spark 4\n-- trueup_events: the Parquet files of events/events at one version\n",
        "SET spark.sql.session.timeZone=UTC;\n",
        "FROM trueup_events) WHERE (__copy = 1 OR `id` IS NULL)",
        "-- view live: no batch runs (layers = 'speed')\n",
    ] {
        assert!(text.contains(part), "{part} in {text}");
    }
    let (code, text) = check("CREATE VIEW texts AS SELECT MIN(CAST(price AS STRING)) AS least FROM events;");
    assert_eq!(code, Some(1), "{text}");
    assert!(
        text.contains("Spark cannot compute measure least with the same result: it formats a DOUBLE differently"),
        "{text}"
    );
}

/// Masks values that vary between runs: file sizes and durations.
fn masked(words: &str) -> String {
    let line = |line: &str| match (line.split_once("reads about "), line.split_once("takes about ")) {
        (Some((indent, _)), takes) => {
            format!("{indent}reads .. bytes{}", if takes.is_some() { "; takes .." } else { "" })
        }
        _ => line.to_owned(),
    };
    words.lines().map(line).collect::<Vec<_>>().join("\n")
}

#[test]
fn a_plan_says_what_a_changed_sink_does() {
    let definitions = |sinks: &str| {
        format!(
            "CREATE STREAM s (at TIMESTAMP, k STRING) WITH (event_time = 'at');
             CREATE VIEW counts AS SELECT window_start, k, COUNT(*) AS n FROM s GROUP BY TUMBLE(at, INTERVAL '1' HOUR), k;
             {sinks}"
        )
    };
    let sink = |name: &str, options: &str| {
        format!("CREATE SINK {name} FROM counts WITH (connection = 'main', topic = 'topic-of-{name}'{options});")
    };
    let first = definitions(&(sink("a", "") + &sink("b", ", emit = 'final'") + &sink("c", "")));
    let mut world = World::stopped(&first);
    // No broker: sinks keep their definitions before they write.
    world.set_settings("[connections.main]\nkind = \"kafka\"\nbrokers = [\"127.0.0.1:1\"]\n");
    let (code, planned) = plan(&world, &first, &[]);
    assert_eq!(code, Some(0), "{planned}");
    assert!(planned.contains("sink a: new; writes the rows of view counts to topic topic-of-a"), "{planned}");
    assert!(planned.contains("3 new sinks"), "{planned}");
    world.start();
    assert_eq!(world.stop(), Some(0));
    let (code, planned) = plan(&world, &first, &[]);
    assert!(code == Some(0) && planned.contains("sink b: unchanged (epoch 0, the topic has 0 rows)"), "{planned}");
    let changed =
        definitions(&(sink("a", ", every = '5 seconds'") + &sink("b", ", emit = 'changes'") + &sink("d", "")));
    let (code, planned) = plan(&world, &changed, &[]);
    assert_eq!(code, Some(0), "{planned}");
    for expected in [
        "sink a: only options change; it continues (epoch 0, the topic has 0 rows)\n  ~ every 1 second → 5 seconds\n",
        "sink b: stops (epoch 0, the topic has 0 rows)\n  ~ emit final → changes\n  its records would not replace",
        "sink d: new; writes the rows of view counts to topic topic-of-d\n",
        "sink c: no longer declared; topic topic-of-c and its state are kept (epoch 0, the topic has 0 rows)\n",
        "1 new sink, 1 sink that stops\n",
    ] {
        assert!(planned.contains(expected), "{expected}\nis not in\n{planned}");
    }
    let (_, planned) = plan(&world, &changed, &["-o", "json"]);
    let planned: Value = serde_json::from_str(&planned).unwrap_or_else(|_| panic!("{planned}"));
    let effects: Vec<&Value> = planned["sinks"].as_array().expect("sinks").iter().map(|sink| &sink["effect"]).collect();
    assert_eq!(effects, ["continues", "other_keys", "writes_all", "ends"], "{planned}");
}
