//! Tests that names keep their spelling from events to results, nested fields and times of any format are read, and
//! older lakes stay readable.

use std::path::{Path, PathBuf};

use polars::prelude::*;
use serde_json::{Value, json};
use world::World;
use world::program::trueup;

const DEFINITIONS: &str = r#"
    CREATE STREAM Readings (
        eventId STRING PRIMARY KEY, "@timestamp" TIMESTAMP FORMAT 'unix_s', deviceId STRING, "user-id" STRING, "_id" BIGINT,
        "a.b" INT, "*" INT, "^x$" INT, "select" STRING, "say""hi""" STRING, Größe DOUBLE,
        city STRING FROM '/place/city', firstTag STRING FROM '/tags/0', slash STRING FROM '/x~1y'
    ) WITH (event_time = '@Timestamp');
    CREATE VIEW Devices AS
    SELECT window_start, deviceId, "user-id", "say""hi""", CITY AS "city.name", COUNT(*) AS Events, SUM("_ID") AS "Sum-Of-Ids",
           MAX("A.B") AS "a.b", MIN("*") AS "*", SUM("^X$") AS "^y$", MAX(GRÖßE) AS Größte, LAST_VALUE("SELECT") AS "select",
           COUNT(DISTINCT firstTag) AS tags, MAX(slash) AS slash
    FROM READINGS WHERE "_id" > 0
    GROUP BY TUMBLE("@TIMESTAMP", INTERVAL '1' HOUR), DEVICEID, "USER-ID", "say""hi""", city
    HAVING EVENTS > 0;"#;

/// 2025-11-28T10:15:00Z.
const SECONDS: i64 = 1_764_324_900;

fn event(number: i64) -> Value {
    json!({
        "eventId": format!("e{number}"), "@timestamp": SECONDS + number, "deviceId": "d1", "user-id": "u1", "_id": number.to_string(),
        "a.b": number, "*": -number, "^x$": 2, "select": "s", "say\"hi\"": "hello, \"you\"", "Größe": 1.5,
        "place": {"city": "Wien", "more": [1, {"city": "not this"}]}, "tags": [format!("t{number}"), "other"], "x/y": "z",
        "DEVICEID": "another field",
    })
}

fn lines(events: impl IntoIterator<Item = Value>) -> String {
    events.into_iter().map(|event| event.to_string() + "\n").collect()
}

/// The names of the columns of a Parquet file, except those of states.
fn columns(file: &Path) -> Vec<String> {
    let file = std::fs::File::open(file).expect("a file");
    let frame = ParquetReader::new(file).finish().expect("Parquet");
    let names = frame.get_column_names().into_iter().map(|name| name.to_string());
    names.filter(|name| !name.starts_with("_state_")).collect()
}

/// The Parquet files under a folder.
fn parquet_files(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("an entry").path());
    let (folders, files): (Vec<_>, Vec<_>) = entries.partition(|path| path.is_dir());
    let inner =
        folders.iter().filter(|folder| !folder.ends_with("_delta_log")).flat_map(|folder| parquet_files(folder));
    files.into_iter().filter(|file| file.extension().is_some_and(|e| e == "parquet")).chain(inner).collect()
}

const NAMES: [&str; 15] = [
    "window_start",
    "window_end",
    "deviceId",
    "user-id",
    "say\"hi\"",
    "city.name",
    "Events",
    "Sum-Of-Ids",
    "a.b",
    "*",
    "^y$",
    "Größte",
    "select",
    "tags",
    "slash",
];

/// Checks every format of the view's rows.
fn check_rows(world: &World, layer: &str) {
    let body = world.rows("devices", "");
    let names: Vec<&str> =
        body["columns"].as_array().expect("columns").iter().filter_map(|c| c["name"].as_str()).collect();
    assert_eq!(names, NAMES);
    let row = &body["rows"][0];
    assert_eq!(body["rows"].as_array().map(Vec::len), Some(1), "{body}");
    let expected = json!({
        "window_start": "2025-11-28T10:00:00Z", "deviceId": "d1", "user-id": "u1", "say\"hi\"": "hello, \"you\"",
        "city.name": "Wien", "Events": 3, "Sum-Of-Ids": 6, "a.b": 3, "*": -3, "^y$": 6, "Größte": 1.5, "select": "s", "tags": 3,
        "slash": "z", "_layer": layer,
    });
    for (name, value) in expected.as_object().expect("an object") {
        assert_eq!(row[name], *value, "{name} of {row}");
    }
    let csv = world.get("/v1/views/devices/rows.csv").text;
    let header = csv.lines().next().expect("a header");
    assert_eq!(
        header,
        "window_start,window_end,deviceId,user-id,\"say\"\"hi\"\"\",city.name,Events,Sum-Of-Ids,a.b,*,^y$,Größte,select,\
         tags,tags_low,tags_high,slash,_layer,_finality"
    );
    let file = world.data.path().join("rows.parquet");
    std::fs::write(&file, world.get_bytes("/v1/views/devices/rows.parquet")).expect("can be written");
    let mut flat: Vec<&str> = NAMES.to_vec();
    flat.splice(14..14, ["tags_low", "tags_high"]);
    flat.extend(["_layer", "_finality"]);
    assert_eq!(columns(&file), flat);
}

#[test]
fn spelling_is_kept_and_matched_without_case() {
    let mut world = World::new(DEFINITIONS);
    let sent = world.post("/v1/events/readings", lines((1..=3).map(event))).json();
    assert_eq!((&sent["accepted"], &sent["unknown_fields"]), (&json!(3), &json!(3)), "{sent}");
    let again = world.post("/v1/events/readings", lines([event(2)])).json();
    assert_eq!((&again["accepted"], &again["duplicates"]), (&json!(0), &json!(1)));
    check_rows(&world, "speed");
    assert_eq!(world.run("devices", false)["state"], json!("published"));
    check_rows(&world, "batch");

    // Queries match without case.
    for (parameters, expected) in [
        ("&where=DEVICEID%3D%27d1%27%20AND%20events%3D3", 1),
        ("&where=%22User-ID%22%3D%27u1%27%20AND%20%22SUM-of-ids%22%3E5", 1),
        ("&where=deviceid%3D%27other%27", 0),
        ("&group_by=DeviceID,USER-ID", 1),
        ("&measures=EVENTS,A.B,%2A", 1),
        ("&order_by=-Events,DEVICEID,Window_Start", 1),
    ] {
        let rows = world.rows("devices", parameters);
        assert_eq!(rows["rows"].as_array().map(Vec::len), Some(expected), "{parameters}: {rows}");
    }
    let refused = world.get("/v1/views/devices/rows?group_by=device").json();
    assert_eq!(refused["status"], json!(400), "{refused}");

    // Tables have the names, and a restart finds them again.
    let archived = parquet_files(&world.store().join("lake/events/readings"));
    let names = columns(archived.first().expect("a file of the archive"));
    assert_eq!(names[..6], ["eventId", "@timestamp", "deviceId", "user-id", "_id", "a.b"], "{names:?}");
    let published = parquet_files(&world.store().join("lake/views/devices"));
    let names = columns(published.first().expect("a file of the view"));
    assert!(NAMES.iter().all(|name| names.iter().any(|column| column == name)), "{names:?}");
    assert_eq!(world.stop(), Some(0));
    world.start();
    check_rows(&world, "batch");
    let stream = world.get("/v1/streams/readings").json();
    let column =
        |name: &str| stream["columns"].as_array().and_then(|all| all.iter().find(|c| c["name"] == name)).cloned();
    assert_eq!(column("city").expect("a column")["field"], json!("/place/city"));
    assert_eq!(column("@timestamp").expect("a column")["format"], json!("unix_s"));
    assert_eq!(stream["suspicious_times"], Value::Null);
}

#[test]
fn check_shows_fields_and_refuses_equal_names() {
    let folder = tempfile::tempdir().expect("a folder");
    let check = |sql: &str| {
        let file = folder.path().join("s.sql");
        std::fs::write(&file, sql).expect("can be written");
        trueup(&["check", file.to_str().expect("UTF-8")])
    };
    let (code, shown) = check(DEFINITIONS);
    assert_eq!(code, Some(0), "{shown}");
    for part in [
        "city STRING FROM '/place/city'",
        "\"@timestamp\" TIMESTAMP FORMAT 'unix_s'",
        "SUM(\"^x$\")",
        "TUMBLE(\"@timestamp\"",
    ] {
        assert!(shown.contains(part), "{part} is not in\n{shown}");
    }
    for (sql, message) in [
        (
            "CREATE STREAM s (at TIMESTAMP, a INT, A INT) WITH (event_time = 'at')",
            "the columns `a` and `A` differ only by case",
        ),
        (
            "CREATE STREAM s (at TIMESTAMP) WITH (event_time = 'at'); CREATE VIEW v AS SELECT COUNT(*) AS n, MAX(at) AS N FROM s",
            "the columns `n` and `N` differ only by case",
        ),
    ] {
        let (code, shown) = check(sql);
        assert_eq!(code, Some(1), "{shown}");
        assert!(shown.contains(message), "{shown}");
    }
}

#[test]
fn events_too_old_are_rejected_and_suspicious_times_are_shown() {
    let world = World::new(
        "CREATE STREAM s (at TIMESTAMP, n BIGINT) WITH (event_time = 'at');
         CREATE STREAM young (at TIMESTAMP FORMAT 'unix_s', n BIGINT) WITH (event_time = 'at', max_age = '1 day');
         CREATE VIEW v AS SELECT COUNT(*) AS n FROM s; CREATE VIEW w AS SELECT COUNT(*) AS n FROM young;",
    );
    assert_eq!(world.post("/v1/events/s", r#"{"at": 1764324900, "n": "42"}"#).json()["accepted"], json!(1));
    let hint = world.get("/v1/streams/s").json()["suspicious_times"].clone();
    assert!(
        hint.as_str().is_some_and(|hint| hint.contains("before 1980") && hint.contains("FORMAT 'unix_s'")),
        "{hint}"
    );
    let shown = trueup(&["streams", "s", "--url", world.url()]).1;
    assert!(shown.contains("most events of this stream lie before 1980"), "{shown}");
    // As many events with a plausible time: the others are no longer the majority.
    let right = r#"{"at": "2025-11-28T10:15:00+0200", "n": 1}"#;
    assert_eq!(world.post("/v1/events/s", right).json()["accepted"], json!(1));
    assert_eq!(world.get("/v1/streams/s").json()["suspicious_times"], Value::Null);
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("after 1970").as_secs();
    let sent = world.post("/v1/events/young", lines([json!({"at": now - 60}), json!({"at": now - 2 * 86_400})])).json();
    assert_eq!((&sent["accepted"], &sent["rejected"]), (&json!(1), &json!(1)), "{sent}");
    let reason = sent["rejections"][0]["reason"].as_str().expect("a reason").to_owned();
    assert!(
        reason.starts_with("at: ") && reason.ends_with("is more than 1 day before its arrival (max_age)"),
        "{reason}"
    );
}

#[test]
fn a_lake_with_lower_case_names_accepts_other_spellings() {
    let old = "CREATE STREAM s (eventid STRING PRIMARY KEY, at TIMESTAMP, device STRING) WITH (event_time = 'at');
        CREATE VIEW v AS SELECT device, COUNT(*) AS events FROM s GROUP BY device;";
    let mut world = World::new(old);
    world.post("/v1/events/s", r#"{"eventid": "a", "at": 1764324900000, "device": "d"}"#);
    assert_eq!(world.run("v", false)["state"], json!("published"));
    assert_eq!(world.stop(), Some(0));
    // Earlier programs wrote unquoted names in lower case.
    let log = world.store().join("lake/views/v/_delta_log");
    for entry in std::fs::read_dir(log).expect("a log") {
        let path = entry.expect("an entry").path();
        if path.extension().is_some_and(|extension| extension == "json") {
            let commit = std::fs::read_to_string(&path).expect("a commit");
            std::fs::write(
                &path,
                commit.replace("SELECT device, COUNT(*) AS events", "SELECT DEVICE, COUNT(*) AS Events"),
            )
            .expect("can be written");
        }
    }
    let new = "CREATE STREAM s (eventId STRING PRIMARY KEY, At TIMESTAMP, Device STRING) WITH (event_time = 'at');
        CREATE VIEW v AS SELECT Device, COUNT(*) AS Events FROM s GROUP BY device;";
    world.redefine(new);
    let file = world.definitions().to_str().expect("UTF-8").to_owned();
    let planned = trueup(&["plan", &file, "--data", world.store().to_str().expect("UTF-8")]).1;
    for part in
        ["column eventId eventid → eventId", "measure Events = events → Events", "dimension Device = device → Device"]
    {
        assert!(planned.contains(part), "{part} is not in\n{planned}");
    }
    // The run that a changed view needs waits until the previous version was asked for.
    let resume = world.data.path().join("resume");
    world.set_environment(&[("TRUEUP_HOLD_AT", "plan"), ("TRUEUP_HOLD_UNTIL", &resume.display().to_string())]);
    world.start();
    // The previous version is served under its own names.
    let before = world.rows("v", "")["rows"][0].clone();
    std::fs::write(&resume, "").expect("can be written");
    assert_eq!((&before["device"], &before["events"]), (&json!("d"), &json!(1)), "{before}");
    // The same id is the same event; events use the declared spelling.
    let sent = world.post(
        "/v1/events/s",
        lines([
            json!({"eventId": "a", "At": 1_764_324_900_000i64}),
            json!({"eventId": "b", "At": 1_764_324_900_000i64, "Device": "d"}),
        ]),
    );
    let sent = sent.json();
    assert_eq!((&sent["accepted"], &sent["duplicates"]), (&json!(1), &json!(1)), "{sent}");
    assert_eq!(world.run("v", false)["state"], json!("published"));
    let after = world.rows("v", "")["rows"][0].clone();
    assert_eq!((&after["Device"], &after["Events"]), (&json!("d"), &json!(2)), "{after}");
    let names =
        parquet_files(&world.store().join("lake/events/s")).iter().flat_map(|file| columns(file)).collect::<Vec<_>>();
    assert!(names.iter().any(|name| name == "eventid") && !names.iter().any(|name| name == "eventId"), "{names:?}");
    assert_eq!(world.stop(), Some(0));
    let planned = trueup(&["plan", &file, "--data", world.store().to_str().expect("UTF-8")]).1;
    assert!(!planned.contains('→'), "{planned}");
    world.start();
    assert_eq!(world.rows("v", "")["rows"][0]["Events"], json!(2));
}

#[test]
fn parquet_columns_are_found_by_name_and_read_by_format() {
    let definitions =
        "CREATE STREAM s (eventId STRING PRIMARY KEY, at TIMESTAMP FORMAT 'unix_s', day TIMESTAMP FORMAT '%d.%m.%Y',
            city STRING FROM '/place/city') WITH (event_time = 'at');
        CREATE VIEW v AS SELECT city, COUNT(*) AS n, MIN(at) AS first, MAX(day) AS day FROM s GROUP BY city;";
    let mut world = World::new(definitions);
    assert_eq!(world.stop(), Some(0));
    let file = world.data.path().join("past.parquet");
    let mut frame = df!("EVENTID" => ["a", "b", "c"], "at" => [SECONDS, SECONDS + 1, SECONDS + 2], "day" => ["28.11.2025", "29.11.2025", "x"],
        "City" => ["Wien", "Wien", "Wien"])
    .expect("a frame");
    ParquetWriter::new(std::fs::File::create(&file).expect("a file")).finish(&mut frame).expect("Parquet is written");
    let more = world.data.path().join("past.ndjson");
    std::fs::write(&more, lines([json!({"eventId": "d", "at": SECONDS - 1, "place": {"city": "Wien"}})]))
        .expect("can be written");
    let store = world.store();
    let (definitions, file, more) = (world.definitions().to_path_buf(), file, more);
    let path = |path: &Path| path.to_str().expect("UTF-8").to_owned();
    let (code, shown) = trueup(&[
        "ingest",
        "s",
        "--historical",
        "--definitions",
        &path(&definitions),
        "--data",
        &path(&store),
        &path(&file),
        &path(&more),
    ]);
    assert_eq!(code, Some(1), "{shown}");
    assert!(shown.contains("day: not a value of TIMESTAMP"), "{shown}");
    // In the data folder, and the path is printed.
    let rejected = store.join("rejected/s.ndjson");
    assert!(shown.contains(&format!("all 1 rejected lines are in {}", rejected.display())), "{shown}");
    assert_eq!(std::fs::read_to_string(rejected).expect("the rejected lines").lines().count(), 1);
    world.start();
    assert_eq!(world.run("v", true)["state"], json!("published"));
    let row = world.rows("v", "")["rows"][0].clone();
    assert_eq!(
        (&row["city"], &row["n"], &row["first"], &row["day"]),
        (&json!("Wien"), &json!(3), &json!("2025-11-28T10:14:59Z"), &json!("2025-11-29T00:00:00Z")),
        "{row}"
    );
}
