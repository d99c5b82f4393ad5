//! What an operator reads before a table can follow one of PostgreSQL: each error says what to do, and reading starts when it is done.

use serde_json::json;
use world::World;

use crate::database::{Database, PASSWORD, Server, Session, shared};
use crate::followed_tables::{AS_JSON, compare, definitions, fails, options, orders, world};
use crate::topic::source;

/// A server for the table `orders` with these columns.
fn started(database: &Database, columns: &str) -> World {
    let mut world =
        world(database, &format!("CREATE TABLE orders ({columns}) WITH (event_time = 'at', {});", options(database)));
    world.start();
    world
}

fn database_with(server: &Server, statements: &str) -> (Database, Session) {
    let database = server.empty_database();
    let session = database.connect();
    session.run(statements);
    (database, session)
}

#[test]
fn tables_that_cannot_be_followed_are_named_with_what_to_do() {
    let Some(server) = shared() else { return };
    let at = "at TIMESTAMP METADATA FROM 'source.timestamp'";
    for (statements, columns, why) in [
        (
            "CREATE TABLE other (id int)",
            "id INT PRIMARY KEY",
            "there is no table public.orders; create it, or correct `table`",
        ),
        (
            "CREATE TABLE orders (id bigint PRIMARY KEY)",
            "id INT PRIMARY KEY",
            "the column id of \"public\".\"orders\" is bigint, which INT does not take; declare it as BIGINT",
        ),
        (
            "CREATE TABLE orders (id int PRIMARY KEY, a numeric(10,4))",
            "id INT PRIMARY KEY, a DECIMAL(10,2)",
            "is numeric(10,4), which DECIMAL(10,2) does not take; declare it as DECIMAL(10,4)",
        ),
        (
            "CREATE TABLE orders (id int PRIMARY KEY, a int GENERATED ALWAYS AS (id + 1) STORED)",
            "id INT PRIMARY KEY, a INT",
            "the column a of \"public\".\"orders\" is generated",
        ),
        (
            "CREATE TABLE orders (id int PRIMARY KEY, \"A\" int)",
            "id INT PRIMARY KEY, a INT",
            "has no column a; add it to the table",
        ),
        (
            "CREATE TABLE orders (id int, a int, PRIMARY KEY (id, a))",
            "id INT PRIMARY KEY",
            "id does not name the rows of \"public\".\"orders\"",
        ),
        (
            "CREATE TABLE orders (id int, a int NOT NULL, b int NOT NULL, PRIMARY KEY (id, a), UNIQUE (a, b))",
            "id INT, b INT, PRIMARY KEY (id, b)",
            "id, b does not name the rows of \"public\".\"orders\": it has no unique index of its own, or may be null; \
             ALTER TABLE \"public\".\"orders\" ADD PRIMARY KEY (\"id\", \"b\")",
        ),
        (
            "CREATE TABLE orders (id int PRIMARY KEY, b int NOT NULL)",
            "id INT, b INT, PRIMARY KEY (id, b)",
            "do not say which id, b they are of; ALTER TABLE \"public\".\"orders\" REPLICA IDENTITY FULL",
        ),
        (
            "CREATE TABLE orders (id int UNIQUE)",
            "id INT PRIMARY KEY",
            "it has no unique index of its own, or may be null",
        ),
        ("CREATE TABLE orders (id int PRIMARY KEY DEFERRABLE)", "id INT PRIMARY KEY", "ADD PRIMARY KEY"),
        (
            "CREATE TABLE orders (id int NOT NULL UNIQUE)",
            "id INT PRIMARY KEY",
            "do not say which id they are of; ALTER TABLE \"public\".\"orders\" REPLICA IDENTITY FULL",
        ),
        (
            "CREATE TABLE a (id int PRIMARY KEY); CREATE VIEW orders AS SELECT * FROM a",
            "id INT PRIMARY KEY",
            "is not a table",
        ),
        (
            "CREATE TABLE orders (id int PRIMARY KEY); CREATE PUBLICATION trueup_orders FOR TABLE orders WITH (publish = 'insert')",
            "id INT PRIMARY KEY",
            "does not publish all changes",
        ),
        (
            "CREATE TABLE orders (id int PRIMARY KEY, a int); CREATE PUBLICATION trueup_orders FOR TABLE orders WHERE (id > 5)",
            "id INT PRIMARY KEY",
            "filters the rows",
        ),
        (
            "CREATE TABLE orders (id int PRIMARY KEY, a int); CREATE PUBLICATION trueup_orders FOR TABLE orders (id)",
            "id INT PRIMARY KEY, a INT",
            "leaves out columns of \"public\".\"orders\": a",
        ),
    ] {
        let (database, _) = database_with(server, statements);
        let world = started(&database, &format!("{columns}, {at}"));
        fails(&world, why);
        assert_eq!(world.get("/readyz").status, 200, "the server stays ready");
        assert_eq!(source(&world, "orders")["partitions"][0]["position"], json!(null), "{why}: nothing was read");
    }
}

#[test]
fn reading_starts_when_the_privileges_are_there() {
    let Some(server) = shared() else { return };
    let (database, session) = orders(server);
    let user = format!("reader_{}", database.name);
    session.run(&format!("CREATE ROLE {user} LOGIN PASSWORD '{PASSWORD}'; INSERT INTO orders VALUES (1, 'open', 1)"));
    let mut world = world(&database, &definitions(&database));
    world.set_settings(&database.settings_of(&user));
    world.start();
    fails(
        &world,
        "let the owner of the table run: CREATE PUBLICATION \"trueup_orders\" FOR TABLE \"public\".\"orders\"",
    );
    session.run("CREATE PUBLICATION trueup_orders FOR TABLE orders");
    fails(&world, "ALTER ROLE .. REPLICATION");
    session.run(&format!("ALTER ROLE {user} REPLICATION"));
    fails(&world, "GRANT SELECT on the table");
    session.run(&format!("GRANT SELECT ON orders TO {user}"));
    compare(&world, &session, AS_JSON, "the snapshot");
    // A policy would hide rows, and their deletions would not be noticed.
    world.kill();
    session.run(&format!(
        "ALTER TABLE orders ENABLE ROW LEVEL SECURITY; SELECT pg_drop_replication_slot('{}')",
        database.name
    ));
    world.start();
    fails(&world, "row-level security");
    session.run("ALTER TABLE orders DISABLE ROW LEVEL SECURITY; INSERT INTO orders VALUES (2, 'paid', 2)");
    compare(&world, &session, AS_JSON, "all rows");
}
