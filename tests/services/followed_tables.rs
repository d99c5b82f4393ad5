//! Tables that follow tables of a real PostgreSQL: every kind of change end to end, types, columns that are added, dropped and
//! changed, TRUNCATE, and the recipe of `docs/cdc.md`.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use shared::time::Micros;
use world::{World, program, recipes, root};

use crate::database::{Database, Session, shared};
use crate::topic::source;

/// The columns of the table of the tests, as the database and as Trueup declares them.
const COLUMNS: &str =
    "id bigint PRIMARY KEY, status text, amount numeric(12,2), note text, placed_at timestamptz NOT NULL DEFAULT now()";
const DECLARED: &str = "id BIGINT PRIMARY KEY, status STRING, amount DECIMAL(12,2), note STRING, placed_at TIMESTAMP";

/// A table that follows `orders`, with a view.
pub fn definitions(database: &Database) -> String {
    declared(database, DECLARED)
}

fn declared(database: &Database, columns: &str) -> String {
    format!(
        "CREATE TABLE orders ({columns}) WITH (event_time = 'placed_at', {});
         CREATE VIEW by_status AS SELECT status, COUNT(*) AS n, SUM(amount) AS total, MAX(amount) AS highest
           FROM orders GROUP BY status;",
        options(database)
    )
}

pub fn options(database: &Database) -> String {
    format!("source = 'postgres', connection = 'shop', table = 'public.orders', slot = '{}'", database.name)
}

/// A database with the table `orders`, and a session of an application.
pub fn orders(server: &crate::database::Server) -> (Database, Session) {
    let database = server.empty_database();
    let session = database.connect();
    session.run(&format!("CREATE TABLE orders ({COLUMNS})"));
    (database, session)
}

pub fn world(database: &Database, definitions: &str) -> World {
    let world = World::stopped(definitions);
    world.set_settings(&(database.settings() + "[limits]\narchive_wait_ms = 20\nlog_segment_bytes = 65536\n"));
    world
}

/// The rows of a table of Trueup by their key, without the key.
pub fn served(world: &World, table: &str) -> BTreeMap<i64, Value> {
    let (mut rows, mut after) = (BTreeMap::new(), String::new());
    loop {
        let page = world.get(&format!("/v1/tables/{table}/rows?limit=1000{after}")).json();
        for row in page["rows"].as_array().expect("rows") {
            let mut row = row.as_object().expect("a row").clone();
            let key = row.remove("id").and_then(|key| key.as_i64()).expect("a key");
            let at = row["placed_at"].as_str().and_then(Micros::parse).expect("a time");
            row["placed_at"] = json!(with_micros(at));
            rows.insert(key, Value::Object(row));
        }
        match &page["next"] {
            Value::Null => return rows,
            next => after = format!("&after={}", next.as_str().map_or_else(|| next.to_string(), str::to_owned)),
        }
    }
}

/// A time with all six digits of its microseconds.
fn with_micros(at: Micros) -> String {
    let text = at.to_string();
    let (seconds, micros) = (&text[..19], at.0.rem_euclid(1_000_000));
    format!("{seconds}.{micros:06}Z")
}

/// The rows of the database, as JSON that a query makes.
pub fn stored(session: &Session, columns: &str) -> BTreeMap<i64, Value> {
    let texts = session.texts(&format!("SELECT json_build_object('id', id, {columns})::text FROM orders"));
    rows_by_key(texts.iter().map(|text| serde_json::from_str(text).expect("JSON")).collect())
}

/// Rows by their key, without it.
pub fn rows_by_key(rows: Vec<Value>) -> BTreeMap<i64, Value> {
    let by_key = |row: Value| {
        let Value::Object(mut row) = row else { panic!("{row}") };
        (row.remove("id").and_then(|key| key.as_i64()).expect("a key"), Value::Object(row))
    };
    rows.into_iter().map(by_key).collect()
}

pub const AS_JSON: &str = "'status', status, 'amount', amount::text, 'note', note, 'placed_at',
    to_char(placed_at AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"')";

/// The figures of the view, as the database computes them.
fn figures(session: &Session) -> Vec<Value> {
    let query = "SELECT json_build_object('status', status, 'n', count(*), 'total', sum(amount)::text, 'highest', max(amount)::text)::text
                 FROM orders GROUP BY status";
    session.texts(query).iter().map(|row| serde_json::from_str(row).expect("JSON")).collect()
}

fn sorted(mut rows: Vec<Value>) -> Vec<Value> {
    rows.sort_by_key(|row| row["status"].as_str().map(str::to_owned));
    rows
}

fn view(world: &World) -> Vec<Value> {
    let mut rows = world.rows("by_status", "")["rows"].as_array().expect("rows").clone();
    for row in &mut rows {
        // Without what only Trueup says about it.
        row.as_object_mut().expect("a row").retain(|name, _| !name.starts_with('_'));
    }
    sorted(rows)
}

/// Waits until Trueup has the rows of the database, and compares the figures of the view.
pub fn compare(world: &World, session: &Session, columns: &str, context: &str) {
    compare_with(world, &|| stored(session, columns), &|| figures(session), context);
}

/// The same for any database: `stored` returns its rows, `figures` those of the view.
pub fn compare_with(
    world: &World,
    stored: &dyn Fn() -> BTreeMap<i64, Value>,
    figures: &dyn Fn() -> Vec<Value>,
    context: &str,
) {
    let mut expected = stored();
    let mut found = BTreeMap::new();
    let begin = std::time::Instant::now();
    while begin.elapsed().as_secs() < 180 {
        if source(world, "orders")["lag"] == json!(0) {
            found = served(world, "orders");
            if found == expected {
                break;
            }
            // The database may commit the last statements of a client after the client was killed.
            expected = stored();
        }
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    let other = found.iter().find(|(key, row)| expected.get(key) != Some(row));
    let missing = expected.keys().find(|key| !found.contains_key(key));
    let status = source(world, "orders");
    assert!(
        found == expected,
        "{context}: {other:?} is another row, {missing:?} is missing: {status}\n{}",
        world.log()
    );
    assert_eq!(view(world), sorted(figures()), "{context}");
}

/// Waits until reading fails with this text.
pub fn fails(world: &World, why: &str) {
    let mut last = Value::Null;
    world.wait_for(why, |world| {
        last = source(world, "orders")["error"].clone();
        last.as_str().is_some_and(|error| error.contains(why))
    });
}

#[test]
fn a_table_has_the_rows_of_the_database_after_every_kind_of_change() {
    let Some(server) = shared() else { return };
    for identity in ["DEFAULT", "FULL"] {
        let (database, session) = orders(server);
        session.run(&format!(
            "ALTER TABLE orders REPLICA IDENTITY {identity};
             INSERT INTO orders SELECT i, 'open', i, 'n' || i FROM generate_series(1, 20) i;
             INSERT INTO orders VALUES (21, NULL, NULL, NULL)"
        ));
        let big = "(SELECT string_agg(md5(random()::text), '') FROM generate_series(1, 400))";
        let mut world = world(&database, &definitions(&database));
        world.start();
        compare(&world, &session, AS_JSON, &format!("{identity}: the snapshot"));
        for statements in [
            "INSERT INTO orders VALUES (30, 'open', 1.50, 'x')".to_owned(),
            "UPDATE orders SET status = 'paid', amount = amount + 1 WHERE id % 3 = 0".to_owned(),
            "DELETE FROM orders WHERE id IN (4, 5)".to_owned(),
            // Values that are stored aside, and do not come with changes that leave them as they are.
            format!("UPDATE orders SET note = {big} WHERE id IN (1, 2, 3, 30)"),
            "UPDATE orders SET amount = 7 WHERE id IN (1, 2)".to_owned(),
            "UPDATE orders SET id = 101 WHERE id = 1".to_owned(),
            "BEGIN; UPDATE orders SET id = 102 WHERE id = 2; UPDATE orders SET id = 103 WHERE id = 102; COMMIT".to_owned(),
            "BEGIN; INSERT INTO orders VALUES (40, 'lost'); SAVEPOINT s; ROLLBACK; INSERT INTO orders VALUES (41, 'kept')".to_owned(),
            "BEGIN; INSERT INTO orders VALUES (42); SAVEPOINT s; DELETE FROM orders; ROLLBACK TO s; COMMIT".to_owned(),
            "UPDATE orders SET note = E'__debezium_unavailable_value' WHERE id = 3".to_owned(),
            "UPDATE orders SET note = E'a \"b\"\\n\\u0001 \\\\ ü' WHERE id = 6".to_owned(),
            "BEGIN; TRUNCATE orders; INSERT INTO orders VALUES (1, 'open', 2, 'after'); COMMIT".to_owned(),
            "TRUNCATE orders".to_owned(),
            "INSERT INTO orders SELECT i, 'open', i, 'n' || i FROM generate_series(1, 300) i".to_owned(),
        ] {
            session.run(&statements);
            compare(&world, &session, AS_JSON, &format!("{identity}: {statements}"));
        }
        assert_eq!(world.run("by_status", true)["state"], json!("published"));
        world.kill();
        session.run("DELETE FROM orders WHERE id > 250; UPDATE orders SET status = 'late' WHERE id < 9");
        world.start();
        compare(&world, &session, AS_JSON, &format!("{identity}: after a kill"));
        let status = source(&world, "orders");
        assert_eq!(
            (&status["kind"], &status["topic"]),
            (&json!("postgres"), &json!("table public.orders")),
            "{status}"
        );
        world.wait_for("the slot", |world| source(world, "orders")["retained_bytes"].is_u64());
        let metrics = world.get("/metrics").text;
        assert!(metrics.contains("trueup_source_retained_bytes{stream=\"orders\"}"), "{metrics}");
        let refused = world.post("/v1/events/orders", "{}");
        assert_eq!((refused.status, refused.json()["code"].as_str()), (409, Some("stream_reads_topic")));
        assert_eq!(world.get("/v1/streams/orders").json()["rejected"], json!(0));
    }
}

#[test]
fn values_of_all_types_are_those_of_the_database() {
    let Some(server) = shared() else { return };
    let database = server.empty_database();
    let session = database.connect();
    session.run(
        "CREATE DOMAIN cents AS numeric(10,2); CREATE DOMAIN price AS cents; CREATE TYPE mood AS ENUM ('calm', 'cross');
         CREATE TABLE orders (id uuid PRIMARY KEY DEFAULT gen_random_uuid(), yes boolean, small smallint, whole int, large bigint,
           single real, ratio double precision, amount price, day date, at timestamp, placed_at timestamptz, seconds bigint,
           body jsonb, raw bytea, fixed char(5), feeling mood, tags text[], \"Other Name\" text, hidden text);
         INSERT INTO orders VALUES ('11111111-2222-3333-4444-555555555555', true, -7, 7, 9007199254740993, 0.5, 1e20, 12.30,
           '2024-02-29', '2026-11-01 12:00:00.25', '2026-11-01 12:00:00+02', 1790000000, '{\"a\": [1]}', '\\x00ff', 'ab', 'cross',
           ARRAY['x', 'y z'], 'o', 'h');",
    );
    let mut world = world(
        &database,
        &format!(
            "CREATE TABLE orders (id STRING PRIMARY KEY, yes BOOLEAN, small INT, whole INT, large BIGINT, single DOUBLE, ratio DOUBLE,
               amount DECIMAL(12,2), day DATE, at TIMESTAMP, placed_at TIMESTAMP, seconds TIMESTAMP FORMAT 'unix_s', body STRING,
               raw STRING, fixed STRING, feeling STRING, tags STRING, other STRING FROM '/Other Name',
               op STRING METADATA FROM 'op', changed_at TIMESTAMP METADATA FROM 'source.timestamp') WITH (event_time = 'placed_at', {});",
            options(&database)
        ),
    );
    world.start();
    let row = "/v1/tables/orders/rows/11111111-2222-3333-4444-555555555555";
    let mut shown = Value::Null;
    for (op, statements) in [
        ("r", ""),
        ("u", "UPDATE orders SET hidden = 'i'"),
        ("c", "CREATE TABLE copy AS SELECT * FROM orders; DELETE FROM orders; INSERT INTO orders SELECT * FROM copy"),
    ] {
        session.run(statements);
        world.wait_for(op, |world| {
            shown = world.try_get(row).map_or(Value::Null, |answer| answer.json());
            shown["op"] == json!(op)
        });
        let mut values = shown.as_object().expect("a row").clone();
        assert!(values.remove("changed_at").is_some_and(|at| at.is_string()), "{shown}");
        values.remove("op");
        let expected = json!({
            "id": "11111111-2222-3333-4444-555555555555", "yes": true, "small": -7, "whole": 7, "large": 9_007_199_254_740_993_i64,
            "single": 0.5, "ratio": 1e20, "amount": "12.30", "day": "2024-02-29", "at": "2026-11-01T12:00:00.250Z",
            "placed_at": "2026-11-01T10:00:00Z", "seconds": "2026-09-21T14:13:20Z", "body": "{\"a\": [1]}", "raw": "\\x00ff",
            "fixed": "ab   ", "feeling": "cross", "tags": "{x,\"y z\"}", "other": "o",
        });
        assert_eq!(Value::Object(values), expected, "{op}");
    }
    session.run("INSERT INTO orders (id, placed_at) VALUES ('21111111-2222-3333-4444-555555555555', 'infinity'); DELETE FROM orders");
    world.wait_for("the deletion", |world| world.get(row).status == 404);
    let lines = world.get("/v1/streams/orders/quarantine").json();
    assert_eq!(lines["total"], json!(1), "a time that no TIMESTAMP is: {lines}");
}

#[test]
fn columns_can_be_added_and_a_column_that_is_gone_stops_reading_without_a_loss() {
    let Some(server) = shared() else { return };
    let (database, session) = orders(server);
    session.run("INSERT INTO orders VALUES (1, 'open', 1, 'a'), (2, 'open', 2, 'b')");
    let mut world = world(&database, &definitions(&database));
    world.start();
    compare(&world, &session, AS_JSON, "the snapshot");
    // A column that the table does not declare, then a declaration that does.
    session.run("ALTER TABLE orders ADD COLUMN country text; UPDATE orders SET country = 'IE' WHERE id = 1");
    session.run("INSERT INTO orders VALUES (3, 'paid', 3, 'c', '2026-11-01', 'AT')");
    compare(&world, &session, AS_JSON, "an added column");
    world.kill();
    session.run("UPDATE orders SET country = 'DE' WHERE id = 2");
    world.redefine(&declared(&database, &format!("{DECLARED}, country STRING")));
    world.start();
    session.run("UPDATE orders SET country = 'FR', amount = 9 WHERE id IN (1, 3)");
    compare(&world, &session, &format!("{AS_JSON}, 'country', country"), "a declared column");
    // In one log: changes before, without and after the column.
    session.run("UPDATE orders SET amount = 10 WHERE id = 2");
    session.run("ALTER TABLE orders DROP COLUMN note; INSERT INTO orders (id, status, amount) VALUES (4, 'open', 4)");
    fails(&world, "the table \"public\".\"orders\" has no column note; add it to the table");
    assert!(!served(&world, "orders").contains_key(&4), "the change waits");
    world.kill();
    session.run("UPDATE orders SET country = NULL WHERE id = 2");
    world.start();
    fails(&world, "has no column note");
    session.run("ALTER TABLE orders ADD COLUMN note int; UPDATE orders SET status = 'seen'");
    world.kill();
    world.start();
    // A number is a text, too; of rows that were not changed, the text is the former one.
    compare(
        &world,
        &session,
        &format!("{AS_JSON}, 'country', country").replace("'note', note", "'note', note::text"),
        "it is back",
    );
    session.run("ALTER TABLE orders ALTER COLUMN amount TYPE text; UPDATE orders SET amount = 'much' WHERE id = 1");
    fails(
        &world,
        "the column amount of \"public\".\"orders\" is text, which DECIMAL(12,2) does not take; declare it as STRING",
    );
    session.run("UPDATE orders SET amount = '1' WHERE id = 1; ALTER TABLE orders ALTER COLUMN amount TYPE numeric(12,2) USING amount::numeric");
    session.run("UPDATE orders SET status = 'done'");
    compare(
        &world,
        &session,
        &format!("{AS_JSON}, 'country', country").replace("'note', note", "'note', note::text"),
        "the type is back",
    );
}

#[test]
fn a_partitioned_table_is_one_table() {
    let Some(server) = shared() else { return };
    let database = server.empty_database();
    let session = database.connect();
    session.run(&format!(
        "CREATE TABLE orders ({COLUMNS}) PARTITION BY RANGE (id);
         CREATE TABLE first PARTITION OF orders FOR VALUES FROM (0) TO (100);
         CREATE TABLE second PARTITION OF orders FOR VALUES FROM (100) TO (200);
         INSERT INTO orders SELECT i, 'open', i, 'n' FROM generate_series(95, 105) i"
    ));
    let mut world = world(&database, &definitions(&database));
    world.start();
    compare(&world, &session, AS_JSON, "the snapshot");
    // Between partitions, a change of the key is a deletion and an insert.
    session.run("UPDATE orders SET id = id + 60 WHERE id BETWEEN 97 AND 98; DELETE FROM first WHERE id = 95; UPDATE second SET status = 'paid'");
    compare(&world, &session, AS_JSON, "changes of partitions");
    session.run("TRUNCATE orders; INSERT INTO orders VALUES (150, 'last', 1)");
    compare(&world, &session, AS_JSON, "a TRUNCATE");
}

#[test]
fn the_recipe_of_the_page_works() {
    let Some(server) = shared() else { return };
    let page = std::fs::read_to_string(root().join("docs/cdc.md")).expect("the page");
    let blocks = recipes::blocks(&page);
    let joined = |kind: &str| -> String {
        let found: String = blocks.iter().filter(|(of, _)| of == kind).map(|(_, text)| text.as_str()).collect();
        assert!(!found.is_empty(), "a block of {kind}");
        found
    };
    let database = server.empty_database();
    let session = database.connect();
    session.run(&joined("sql database"));
    // Slots have names of their own in the server that tests share.
    let definitions = joined("sql followed")
        .replace("table = 'shop.orders'", &format!("table = 'shop.orders', slot = '{}'", database.name))
        .replace("table = 'shop.accounts'", &format!("table = 'shop.accounts', slot = '{}_accounts'", database.name));
    let mut world = World::stopped(&definitions);
    world.set_settings(&database.settings());
    world.start();
    world.wait_for("the snapshot", |world| world.rows("totals", "")["rows"].as_array().map(Vec::len) == Some(1));
    world.wait_for("its snapshot", |world| world.rows("branches", "")["rows"].as_array().map(Vec::len) == Some(2));
    session.run(&joined("sql application"));
    world.wait_for("the changes", |world| world.rows("totals", "")["rows"].as_array().map(Vec::len) == Some(2));
    let output = std::process::Command::new("bash")
        .args(["-euo", "pipefail", "-c", &joined("sh followed")])
        .env(
            "PATH",
            format!(
                "{}:{}",
                program::path().parent().expect("a folder").display(),
                std::env::var("PATH").unwrap_or_default()
            ),
        )
        .env("TRUEUP_URL", world.url())
        .output()
        .expect("bash runs");
    let text = program::text(&output);
    assert!(output.status.success(), "{text}");
    let shown = joined("text followed");
    for line in shown.lines().map(|line| line.trim_end_matches("..").trim()) {
        assert!(text.contains(line), "{line} is not in {text}");
    }
}
