//! Streams that read outboxes of a real PostgreSQL: all modes end to end, rejected rows, metadata, and what an operator has to
//! set up.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use world::World;

use crate::database::{Database, Server, Session, shared};
use crate::topic::source;

pub const MODES: [&str; 3] = ["decoding", "messages", "polling"];

/// A stream whose events have an id, and a view with the number and the sum of the events of each id.
pub fn definitions(database: &Database, mode: &str) -> String {
    format!(
        "CREATE STREAM s (at TIMESTAMP, id STRING, v BIGINT) WITH (event_time = 'at', {});
         CREATE VIEW sums AS SELECT id, COUNT(*) AS n, SUM(v) AS total FROM s GROUP BY id;",
        options(database, mode)
    )
}

/// The options of a stream. The slots of a server have names of their own, whatever the databases.
pub fn options(database: &Database, mode: &str) -> String {
    let slot = if mode == "polling" { String::new() } else { format!(", slot = '{}'", database.name) };
    format!("source = 'postgres', connection = 'shop', mode = '{mode}'{slot}")
}

/// Writes an event into the outbox table and as a message, in one statement: the table is what all modes are compared with.
pub fn event(id: &str, v: i64) -> String {
    let payload = json!({"at": "2026-11-01T00:00:00Z", "id": id, "v": v}).to_string();
    format!(
        "INSERT INTO outbox (aggregatetype, aggregateid, type, payload) VALUES ('order', '{id}', 'placed', '{payload}');
         SELECT pg_logical_emit_message(true, 'trueup', '{payload}');"
    )
}

/// A server that reads the outbox of `database`.
pub fn world(database: &Database, mode: &str) -> World {
    let mut world = World::stopped(&definitions(database, mode));
    world.set_settings(&database.settings());
    world.start();
    world
}

/// The number and the sum of the events of each id, as the table has them.
pub fn committed(session: &Session) -> BTreeMap<String, (i64, i64)> {
    let rows = session.texts("SELECT payload::text FROM outbox WHERE payload ? 'id'");
    let mut sums = BTreeMap::new();
    for row in rows {
        let row: Value = serde_json::from_str(&row).expect("JSON");
        let (id, v) = (row["id"].as_str().expect("an id").to_owned(), row["v"].as_i64().expect("a number"));
        let sum: &mut (i64, i64) = sums.entry(id).or_default();
        *sum = (sum.0 + 1, sum.1 + v);
    }
    sums
}

/// The same, as the view has them.
pub fn served(world: &World) -> BTreeMap<String, (i64, i64)> {
    let rows = world.rows("sums", "");
    assert_eq!(rows["complete"], json!(true), "{rows}");
    let number = |row: &Value, name: &str| row[name].as_i64().expect("a number");
    let rows = rows["rows"].as_array().expect("rows").iter();
    rows.map(|row| (row["id"].as_str().expect("an id").to_owned(), (number(row, "n"), number(row, "total")))).collect()
}

/// Waits until a stream has read this many rows.
pub fn read_rows(world: &World, stream: &str, rows: usize) {
    world.wait_for("the rows", |world| {
        let answer = world.try_get(&format!("/v1/streams/{stream}"));
        answer.is_some_and(|answer| answer.json()["source"]["partitions"][0]["position"] == json!(rows))
    });
}

/// Waits until reading fails, and returns why.
fn failure(world: &World) -> String {
    let mut error = None;
    world.wait_for("a failure", |world| {
        error = source(world, "s")["error"].as_str().map(str::to_owned);
        error.is_some()
    });
    error.expect("an error")
}

#[test]
fn committed_rows_become_events_in_every_mode() {
    let Some(server) = shared() else { return };
    for mode in MODES {
        let database = server.database();
        let (mut world, session) = (world(&database, mode), database.connect());
        // Reading starts with the creation of the slot.
        world.wait_for("the reader", |world| source(world, "s")["partitions"][0]["position"] == 0);
        session.run(&event("a", 1));
        session.run(&format!("BEGIN; {} {} COMMIT", event("b", 2), event("a", 3)));
        session.run(&format!("BEGIN; {} ROLLBACK", event("c", 100)));
        session.run(&format!(
            "BEGIN; {} SAVEPOINT p; {} ROLLBACK TO p; {} COMMIT",
            event("d", 4),
            event("e", 100),
            event("d", 5)
        ));
        session.run("UPDATE outbox SET type = 'seen' WHERE aggregateid = 'd'");
        read_rows(&world, "s", 5);
        let expected: BTreeMap<String, (i64, i64)> =
            [("a", (2, 4)), ("b", (1, 2)), ("d", (2, 9))].map(|(id, sum)| (id.to_owned(), sum)).into();
        assert_eq!((&served(&world), &committed(&session)), (&expected, &expected), "{mode}");
        world.kill();
        session.run(&event("f", 6));
        session.run("DELETE FROM outbox WHERE aggregateid = 'a'");
        world.start();
        read_rows(&world, "s", 6);
        assert_eq!(served(&world).get("f"), Some(&(1, 6)), "{mode}");
        assert_eq!(served(&world).len(), 4, "{mode}: deletes are not events");
        // The slot is looked at after the rows are durable.
        world.wait_for("the slot", |world| mode == "polling" || source(world, "s")["retained_bytes"].is_u64());
        let status = source(&world, "s");
        assert_eq!((&status["kind"], &status["lag"]), (&json!("postgres"), &json!(0)), "{mode}: {status}");
        assert_eq!(status["retained_bytes"].is_u64(), mode != "polling", "{mode}: {status}");
        let refused = world.post("/v1/events/s", "{}");
        assert_eq!(
            (refused.status, refused.json()["code"].as_str()),
            (409, Some("stream_reads_topic")),
            "{}",
            refused.text
        );
        let metrics = world.get("/metrics").text;
        assert!(metrics.contains("trueup_source_lag{stream=\"s\",partition=\"0\"} 0"), "{metrics}");
        assert_eq!(metrics.contains("trueup_source_retained_bytes{stream=\"s\"}"), mode != "polling", "{metrics}");
        let output = world.trueup().args(["streams", "s"]).env("TRUEUP_URL", world.url()).output().expect("it runs");
        let text = world::program::text(&output);
        assert!(text.contains("of connection shop, reading") && text.contains("next row 6"), "{text}");
    }
}

#[test]
fn parts_of_a_row_are_columns_and_the_id_removes_duplicates() {
    let Some(server) = shared() else { return };
    for (mode, more) in [("decoding", ""), ("polling", ", columns = 'timestamp = written_at'")] {
        let database = server.database();
        let session = database.connect();
        session.run("ALTER TABLE outbox ADD COLUMN written_at timestamptz NOT NULL DEFAULT '2026-11-05 12:00:00+01'");
        // The event router's id, from an application that writes an event twice.
        session.run("ALTER TABLE outbox DROP CONSTRAINT outbox_pkey");
        let lsn = if mode == "decoding" { "lsn STRING METADATA FROM 'lsn'," } else { "" };
        let mut world = World::stopped(&format!(
            "CREATE STREAM s (at TIMESTAMP METADATA FROM 'timestamp', id STRING PRIMARY KEY METADATA FROM 'id', {lsn}
                 kind STRING METADATA FROM 'aggregatetype', number BIGINT METADATA FROM 'aggregateid',
                 what STRING METADATA FROM 'type', v BIGINT)
               WITH (event_time = 'at', {}{more});
             CREATE VIEW sums AS SELECT id, kind, number, what, COUNT(*) AS n, SUM(v) AS total, MAX(at) AS last FROM s
               GROUP BY id, kind, number, what;",
            options(&database, mode)
        ));
        world.set_settings(&database.settings());
        world.start();
        world.wait_for("the reader", |world| source(world, "s")["partitions"][0]["position"] == 0);
        let id = "11111111-2222-3333-4444-555555555555";
        for (what, v) in [("placed", 7), ("placed", 7)] {
            session.run(&format!(
                "INSERT INTO outbox (id, aggregatetype, aggregateid, type, payload)
                 VALUES ('{id}', 'order', '42', '{what}', '{{\"v\": {v}}}')"
            ));
        }
        read_rows(&world, "s", 2);
        let rows = world.rows("sums", "");
        let row = &rows["rows"][0];
        assert_eq!(rows["rows"].as_array().map(Vec::len), Some(1), "{rows}");
        for (name, value) in [
            ("id", json!(id)),
            ("kind", json!("order")),
            ("number", json!(42)),
            ("what", json!("placed")),
            ("n", json!(1)),
            ("total", json!(7)),
        ] {
            assert_eq!(row[name], value, "{mode}: {rows}");
        }
        let last = row["last"].as_str().expect("a time");
        assert_eq!(last == "2026-11-05T11:00:00Z", mode == "polling", "{last}");
    }
}

#[test]
fn rejected_rows_are_kept_one_by_one() {
    let Some(server) = shared() else { return };
    for mode in ["decoding", "polling"] {
        let database = server.database();
        let (world, session) = (world(&database, mode), database.connect());
        world.wait_for("the reader", |world| source(world, "s")["partitions"][0]["position"] == 0);
        let poison = |payload: &str| {
            format!("INSERT INTO outbox (aggregatetype, aggregateid, type, payload) VALUES ('o', 'x', 't', {payload});")
        };
        session.run(&format!(
            "BEGIN; {} {} {} {} {} COMMIT",
            event("a", 1),
            poison("NULL"),
            poison("'[1]'"),
            poison("'{\"v\": \"seven\"}'"),
            event("a", 2)
        ));
        read_rows(&world, "s", 5);
        assert_eq!(served(&world), BTreeMap::from([("a".to_owned(), (2, 3))]), "{mode}");
        let quarantine = world.get("/v1/streams/s/quarantine").json();
        let lines = quarantine["lines"].as_array().expect("lines");
        assert_eq!((&quarantine["total"], lines.len()), (&json!(3), 3), "{mode}: {quarantine}");
        let record = |line: &Value| (line["record"]["topic"].clone(), line["record"]["offset"].as_i64());
        let mut numbers: Vec<_> = lines.iter().map(|line| record(line).1).collect();
        numbers.sort_unstable();
        numbers.dedup();
        assert_eq!((record(&lines[0]).0, numbers.len()), (json!("outbox"), 3), "{mode}: {quarantine}");
    }
}

#[test]
fn an_operator_reads_what_to_set_up_and_reading_starts_when_it_is() {
    let Some(server) = shared() else { return };
    let database = server.database();
    let session = database.connect();
    session.run(&format!("CREATE ROLE reader_{} LOGIN PASSWORD '{}'", database.name, crate::database::PASSWORD));
    let user = format!("reader_{}", database.name);
    // Polling needs SELECT alone, and a column with the transaction.
    session.run("ALTER TABLE outbox DROP COLUMN txid; ALTER TABLE outbox RENAME TO hidden");
    let mut world = World::stopped(&definitions(&database, "polling"));
    world.set_settings(&database.settings_of(&user));
    world.start();
    assert!(failure(&world).starts_with("there is no table outbox; create it"), "{}", failure(&world));
    assert_eq!(world.get("/readyz").status, 200, "without its source the server stays ready");
    session.run("ALTER TABLE hidden RENAME TO outbox");
    world.wait_for("the column", |world| {
        failure(world).contains("ADD COLUMN \"txid\" xid8 NOT NULL DEFAULT pg_current_xact_id()")
    });
    session.run("ALTER TABLE outbox ADD COLUMN \"txid\" xid8 NOT NULL DEFAULT pg_current_xact_id()");
    world.wait_for("the privilege", |world| failure(world).contains("GRANT SELECT"));
    session.run(&format!("GRANT SELECT ON outbox TO {user}"));
    session.run(&event("a", 1));
    read_rows(&world, "s", 1);

    // Another database is not taken for this one.
    world.kill();
    world.set_settings(&server.database().settings());
    world.start();
    assert!(failure(&world).contains("leads to another database"), "{}", failure(&world));

    // Decoding needs REPLICATION and a publication that the owner creates.
    let database = server.database();
    let session = database.connect();
    let mut world = World::stopped(&definitions(&database, "decoding"));
    world.set_settings(&database.settings_of(&user));
    world.start();
    assert!(
        failure(&world).contains("let the owner of the table run: CREATE PUBLICATION \"trueup_s\" FOR TABLE"),
        "{}",
        failure(&world)
    );
    session.run("CREATE TABLE other (id int); CREATE PUBLICATION trueup_s FOR TABLE other");
    world.wait_for("the table", |world| {
        failure(world).contains("does not publish what is inserted into \"public\".\"outbox\"")
    });
    session.run("DROP PUBLICATION trueup_s; CREATE PUBLICATION trueup_s FOR TABLE outbox WITH (publish = 'insert')");
    world.wait_for("the role", |world| failure(world).contains("ALTER ROLE .. REPLICATION"));
    session.run(&format!("ALTER ROLE {user} REPLICATION"));
    world.wait_for("the slot", |world| source(world, "s")["state"] == "reading");
    session.run(&event("a", 1));
    read_rows(&world, "s", 1);

    // A slot that is gone is not created again unasked.
    world.kill();
    session.run(&format!("SELECT pg_drop_replication_slot('{}')", database.name));
    world.start();
    assert!(
        failure(&world).contains(&format!("the replication slot {} is gone", database.name)),
        "{}",
        failure(&world)
    );
    session.run(&format!("SELECT pg_create_logical_replication_slot('{}', 'pgoutput')", database.name));
    world.wait_for("the slot", |world| source(world, "s")["state"] == "reading");
    session.run(&event("a", 2));
    read_rows(&world, "s", 2);
    assert_eq!(served(&world), BTreeMap::from([("a".to_owned(), (2, 3))]));

    // A slot of another database is not read, and a login that fails does not stop the server.
    world.kill();
    let other = server.database();
    world.set_settings(&other.settings());
    world.start();
    assert!(failure(&world).contains("is not one of pgoutput in the database"), "{}", failure(&world));
    world.kill();
    world.set_settings(&database.settings_of("nobody"));
    world.start();
    assert!(failure(&world).starts_with("the database refused the login"), "{}", failure(&world));
}

#[test]
fn a_server_without_logical_decoding_says_so_and_can_be_polled() {
    let Some(server) = Server::start("replica") else { return };
    let database = server.database();
    let session = database.connect();
    let mut decoding = World::stopped(&definitions(&database, "decoding"));
    decoding.set_settings(&database.settings());
    decoding.start();
    assert!(failure(&decoding).contains("logical decoding needs wal_level = logical, and it is replica"));
    let polling = world(&database, "polling");
    session.run(&event("a", 1));
    read_rows(&polling, "s", 1);
    assert_eq!(served(&polling), committed(&session));
}

#[test]
fn a_stream_whose_log_is_lost_is_not_read_from_a_guessed_place() {
    let Some(server) = shared() else { return };
    let database = server.database();
    let (mut world, session) = (world(&database, "polling"), database.connect());
    session.run(&event("a", 1));
    read_rows(&world, "s", 1);
    assert_eq!(world.run("sums", true)["state"], json!("published"));
    world.kill();
    std::fs::remove_dir_all(world.store().join("log")).expect("the log is lost");
    world.set_arguments(&["--take-over"]);
    world.start();
    assert!(failure(&world).starts_with("the log of the stream was lost"), "{}", failure(&world));
    assert_eq!(served(&world), committed(&session), "the archive stays");
}
