//! Tables with keys of several columns that follow tables of a real PostgreSQL: every change of a key, in the snapshot and behind it.

use serde_json::{Value, json};
use world::World;

use crate::database::{Database, Session, shared};
use crate::followed_tables::{options, world};
use crate::topic::source;

/// The order of the columns of the key is another one than that of the columns, and than that of the key of Trueup.
const STORED: &str = "note text, id bigint, status text, shop text COLLATE \"C\", amount numeric(12,2),
    placed_at timestamptz NOT NULL DEFAULT now(), PRIMARY KEY (id, shop)";

fn definitions(database: &Database) -> String {
    format!(
        "CREATE TABLE orders (shop STRING, id BIGINT, status STRING, amount DECIMAL(12,2), note STRING, placed_at TIMESTAMP,
                              PRIMARY KEY (shop, id)) WITH (event_time = 'placed_at', {});
         CREATE VIEW by_status AS SELECT status, COUNT(*) AS n, SUM(amount) AS total, MAX(note) AS note FROM orders GROUP BY status;",
        options(database)
    )
}

/// The rows of the database in the order of their keys.
fn stored(session: &Session) -> Vec<Value> {
    let query =
        "SELECT json_build_object('shop', shop, 'id', id, 'status', status, 'amount', amount::text, 'note', note)::text
                 FROM orders ORDER BY shop, id";
    session.texts(query).iter().map(|row| serde_json::from_str(row).expect("JSON")).collect()
}

/// Those of Trueup, read in pages.
fn served(world: &World) -> Vec<Value> {
    let (mut rows, mut after) = (Vec::new(), String::new());
    loop {
        let page = world.get(&format!("/v1/tables/orders/rows?limit=7{after}")).json();
        for row in page["rows"].as_array().expect("rows") {
            let mut row = row.clone();
            row.as_object_mut().expect("a row").remove("placed_at");
            rows.push(row);
        }
        let Some(next) = page["next"].as_str() else { return rows };
        after = format!("&after={}", world::encoded(next));
    }
}

fn figures(session: &Session) -> Vec<Value> {
    let query = "SELECT json_build_object('status', status, 'n', count(*), 'total', sum(amount)::text, 'note', max(note COLLATE \"C\"))::text
                 FROM orders GROUP BY status";
    sorted(session.texts(query).iter().map(|row| serde_json::from_str(row).expect("JSON")).collect())
}

fn sorted(mut rows: Vec<Value>) -> Vec<Value> {
    rows.sort_by_key(|row| row["status"].as_str().map(str::to_owned));
    rows
}

fn view(world: &World) -> Vec<Value> {
    let mut rows = world.rows("by_status", "")["rows"].as_array().expect("rows").clone();
    rows.iter_mut().for_each(|row| row.as_object_mut().expect("a row").retain(|name, _| !name.starts_with('_')));
    sorted(rows)
}

/// Waits until Trueup has the rows of the database, and compares the figures and one row.
fn compare(world: &World, session: &Session, context: &str) {
    let expected = stored(session);
    world.wait_for(context, |world| source(world, "orders")["lag"] == json!(0) && served(world) == expected);
    assert_eq!(view(world), figures(session), "{context}");
    for row in expected.iter().take(3) {
        let key = json!([row["shop"], row["id"]]).to_string();
        let found = world.get(&format!("/v1/tables/orders/rows/{}", world::encoded(&key))).json();
        assert_eq!(found["note"], row["note"], "{context}: {key}");
    }
}

#[test]
fn a_table_with_a_key_of_several_columns_has_the_rows_of_the_database_after_every_kind_of_change() {
    let Some(server) = shared() else { return };
    for identity in ["DEFAULT", "FULL"] {
        let database = server.empty_database();
        let session = database.connect();
        session.run(&format!(
            "CREATE TABLE orders ({STORED}); ALTER TABLE orders REPLICA IDENTITY {identity};
             INSERT INTO orders (shop, id, status, amount, note)
               SELECT s, i, 'open', i, s || i FROM generate_series(1, 20) i, unnest(ARRAY['a', 'b \"c\"', 'ü, /']) s"
        ));
        let big = "(SELECT string_agg(md5(random()::text), '') FROM generate_series(1, 400))";
        let mut world = world(&database, &definitions(&database));
        world.start();
        compare(&world, &session, &format!("{identity}: the snapshot"));
        for statements in [
            "UPDATE orders SET amount = amount + 1, status = 'paid' WHERE id % 3 = 0 AND shop = 'a'".to_owned(),
            "DELETE FROM orders WHERE id = 4 AND shop <> 'a'".to_owned(),
            // One column of the key, the other, and both.
            "UPDATE orders SET id = id + 100 WHERE shop = 'a' AND id < 5".to_owned(),
            "UPDATE orders SET shop = 'd' WHERE id IN (5, 6) AND shop = 'a'".to_owned(),
            "UPDATE orders SET shop = shop || '!', id = -id WHERE id BETWEEN 7 AND 9".to_owned(),
            // Two rows exchange their keys.
            "BEGIN; UPDATE orders SET id = 0 WHERE (shop, id) = ('d', 5); UPDATE orders SET id = 5 WHERE (shop, id) = ('d', 6);
             UPDATE orders SET id = 6 WHERE (shop, id) = ('d', 0); COMMIT".to_owned(),
            // Values that are stored aside, and do not come with changes that leave them as they are.
            format!("UPDATE orders SET note = {big} WHERE id IN (10, 11)"),
            "UPDATE orders SET amount = 7 WHERE id = 10".to_owned(),
            "UPDATE orders SET shop = 'big' WHERE id = 11 AND shop = 'a'; UPDATE orders SET id = 111 WHERE shop = 'big'".to_owned(),
            "BEGIN; TRUNCATE orders; INSERT INTO orders VALUES ('after', 1, 'open', 'a', 2), ('', 2, NULL, '', NULL); COMMIT".to_owned(),
            "INSERT INTO orders (shop, id, status, amount) SELECT 's' || i % 5, i, 'open', i FROM generate_series(1, 300) i".to_owned(),
        ] {
            session.run(&statements);
            compare(&world, &session, &format!("{identity}: {statements}"));
        }
        assert_eq!(world.run("by_status", true)["state"], json!("published"));
        world.kill();
        session.run("DELETE FROM orders WHERE id > 250; UPDATE orders SET id = id + 1000 WHERE shop = 's1'");
        world.start();
        compare(&world, &session, &format!("{identity}: after a kill"));
        assert_eq!(world.get("/v1/streams/orders").json()["rejected"], json!(0));
    }
}
