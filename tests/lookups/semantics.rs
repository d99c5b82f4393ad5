//! What an event sees: late changes and their cause, dates that a run computes again, the limit of versions, changed definitions.

use serde_json::{Value, json};
use world::{World, program};

const SHOP: &str = "
    CREATE TABLE customers (id BIGINT PRIMARY KEY, country STRING, note STRING, updated_at TIMESTAMP)
        WITH (event_time = 'updated_at', partitions = 3);
    CREATE STREAM orders (customer INT, amount BIGINT, at TIMESTAMP)
        WITH (event_time = 'at', allowed_lateness = '1000 days', partitions = 2);
    CREATE VIEW countries AS
        SELECT window_start, country, COUNT(*) AS n, SUM(amount) AS total
        FROM orders LEFT JOIN customers ON orders.customer = customers.id
        GROUP BY TUMBLE(at, INTERVAL '1' DAY), country;";

fn order(customer: i64, amount: i64, at: &str) -> String {
    format!("{{\"customer\":{customer},\"amount\":{amount},\"at\":\"{at}\"}}\n")
}

fn customer(id: i64, country: &str, at: &str) -> String {
    format!("{{\"id\":{id},\"country\":\"{country}\",\"updated_at\":\"{at}\"}}\n")
}

/// Day, country and total of each row.
fn rows(world: &World, query: &str) -> Vec<(String, Value, i64)> {
    let answer = world.rows("countries", query);
    let row = |row: &Value| {
        let day = row["window_start"].as_str().expect("a start")[..10].to_owned();
        (day, row["country"].clone(), row["total"].as_i64().expect("a total"))
    };
    let mut rows: Vec<_> = answer["rows"].as_array().expect("rows").iter().map(row).collect();
    rows.sort_by_key(|(day, country, _)| (day.clone(), country.to_string()));
    rows
}

fn causes(world: &World) -> Value {
    world.get("/v1/views/countries/compare").json()["causes"].clone()
}

fn run(world: &World) -> Value {
    let run = world.run("countries", false);
    assert_eq!(run["state"], json!("published"), "{run}");
    run
}

#[test]
fn a_change_of_the_past_is_in_the_figures_from_the_next_run_on() {
    let world = World::new(SHOP);
    world.post("/v1/events/customers", customer(1, "IE", "2026-01-01T00:00:00Z"));
    let orders = order(1, 10, "2026-01-02T00:00:00Z")
        + &order(1, 20, "2026-01-05T00:00:00Z")
        + &order(2, 5, "2026-01-09T00:00:00Z");
    world.post("/v1/events/orders", orders);
    let (second, fifth, ninth) = ("2026-01-02".to_owned(), "2026-01-05".to_owned(), "2026-01-09".to_owned());
    let live =
        vec![(second.clone(), json!("IE"), 10), (fifth.clone(), json!("IE"), 20), (ninth.clone(), Value::Null, 5)];
    assert_eq!(rows(&world, ""), live);
    assert_eq!(run(&world)["progress"]["dates"], json!(3));
    assert_eq!(rows(&world, "&layer=batch"), live);
    // It moved on the fourth, as a later change says. Nothing is new in the stream.
    world.post("/v1/events/customers", customer(1, "DE", "2026-01-04T00:00:00Z"));
    assert_eq!(rows(&world, ""), live);
    let again = run(&world);
    assert_eq!(again["progress"]["dates"], json!(2), "the days from the fourth on: {again}");
    let moved = vec![(second, json!("IE"), 10), (fifth.clone(), json!("DE"), 20), (ninth, Value::Null, 5)];
    assert_eq!(rows(&world, ""), moved);
    let found = causes(&world);
    assert!(found["lookup"].as_u64() > Some(0) && found["unexplained"] == json!(0), "{found}");
    // Between two versions that are there: only their days.
    world.post("/v1/events/customers", customer(1, "FR", "2026-01-03T00:00:00Z"));
    assert_eq!(run(&world)["state"], json!("published"));
    assert_eq!(rows(&world, ""), moved);
    // Without any change there is nothing to do.
    let (before, after) = (run(&world), run(&world));
    assert!(before["version"].is_i64() && before["version"] == after["version"], "{before} {after}");
    // Of equal times the later change wins, and a row that is written again is no longer deleted.
    world.post("/v1/events/customers", customer(1, "ES", "2026-01-04T00:00:00Z") + "{\"id\":1,\"_deleted\":true}\n");
    world.post("/v1/events/customers", customer(2, "PT", "2026-01-08T00:00:00Z"));
    run(&world);
    assert_eq!(rows(&world, "")[1..], [(fifth, json!("ES"), 20), ("2026-01-09".to_owned(), json!("PT"), 5)]);
}

#[test]
fn a_deleted_row_is_seen_by_events_before_its_deletion_and_by_no_later_one() {
    let mut world = World::new(SHOP);
    world.post("/v1/events/customers", customer(7, "IE", "2026-01-01T00:00:00Z"));
    world.post("/v1/events/customers", "{\"id\":7,\"_deleted\":true}\n");
    let orders = order(7, 1, "2026-01-02T00:00:00Z") + &order(7, 2, "2096-01-02T00:00:00Z");
    world.post("/v1/events/orders", orders);
    let seen = vec![("2026-01-02".to_owned(), json!("IE"), 1), ("2096-01-02".to_owned(), Value::Null, 2)];
    assert_eq!(rows(&world, ""), seen);
    run(&world);
    assert_eq!(rows(&world, "&layer=batch"), seen);
    assert_eq!(causes(&world)["lookup"], json!(0));
    // It comes back with a time before the deletion was accepted: the deletion counts for nothing.
    world.post("/v1/events/customers", customer(8, "FR", "2026-01-01T00:00:00Z"));
    world.post("/v1/events/customers", customer(7, "DE", "2026-02-01T00:00:00Z"));
    let back = vec![("2026-01-02".to_owned(), json!("IE"), 1), ("2096-01-02".to_owned(), json!("DE"), 2)];
    for restarted in [false, true] {
        if restarted {
            world.kill();
            world.start();
        }
        run(&world);
        assert_eq!(rows(&world, ""), back);
    }
}

#[test]
fn beyond_its_limit_the_speed_layer_forgets_old_versions_and_a_run_says_what_to_do() {
    let mut world = World::stopped(SHOP);
    world.set_limits("lookup_bytes_max = \"40 KiB\"\n");
    world.start();
    // Many versions of a few rows; the last of each stays.
    let version = |n: i64| {
        let day = 1 + n / 20 % 28;
        customer(n % 20, &format!("a country with a long name, number {n}"), &format!("2026-01-{day:02}T00:00:00Z"))
    };
    let changes: String = (0..1_000).map(version).collect();
    assert_eq!(world.post("/v1/events/customers", changes).status, 200);
    world.post("/v1/events/orders", order(3, 1, "2026-03-01T00:00:00Z"));
    let newest = (0..1_000).filter(|n| n % 20 == 3).max_by_key(|n| (n / 20 % 28, *n)).expect("versions");
    let country = json!(format!("a country with a long name, number {newest}"));
    assert_eq!(rows(&world, ""), [("2026-03-01".to_owned(), country.clone(), 1)]);
    assert!(world.log().contains("lookup_bytes_max"), "it is reported");
    let failed = world.run_once("countries", false);
    assert_eq!(failed["state"], json!("failed"), "{failed}");
    let reason = failed["error"].as_str().unwrap_or_default().to_owned();
    assert!(reason.contains("customers") && reason.contains("lookup_bytes_max"), "{reason}");
    assert_eq!(world.stop(), Some(0));
    world.set_limits("");
    world.start();
    run(&world);
    assert_eq!(rows(&world, ""), [("2026-03-01".to_owned(), country, 1)]);
}

#[test]
fn a_join_is_a_part_of_the_definition() {
    let mut world = World::new(SHOP);
    world.post("/v1/events/customers", customer(1, "IE", "2026-01-01T00:00:00Z"));
    world.post("/v1/events/orders", order(1, 10, "2026-01-02T00:00:00Z") + &order(2, 5, "2026-01-02T00:00:00Z"));
    run(&world);
    assert_eq!(world.stop(), Some(0));
    world.redefine(&SHOP.replace("LEFT JOIN", "JOIN"));
    world.start();
    let both = [("2026-01-02".to_owned(), json!("IE"), 10), ("2026-01-02".to_owned(), Value::Null, 5)];
    // The run that the change asks for starts with the server; until it has published, the old version is served.
    let served = rows(&world, "");
    assert!(served == both || served == both[..1], "{served:?}");
    run(&world);
    assert_eq!(rows(&world, ""), both[..1]);
    let comparison = world.get("/v1/views/countries/compare").json();
    let changes = comparison["definition"]["changes"].to_string();
    assert!(changes.contains("LEFT JOIN customers") && changes.contains("INNER JOIN customers"), "{changes}");
    assert_eq!(comparison["causes"]["unexplained"], json!(0), "{comparison}");
    // Another name for the table is the same definition.
    assert_eq!(world.stop(), Some(0));
    world.redefine(
        &SHOP.replace("LEFT JOIN customers ON", "LEFT JOIN customers AS c ON").replace("customers.id", "c.id"),
    );
    world.start();
    run(&world);
    assert_eq!(rows(&world, ""), both);
}

#[test]
fn views_that_join_by_different_columns_have_different_rows_of_one_table() {
    let view = |name: &str, key: &str| {
        format!(
            "CREATE VIEW {name} AS SELECT country, COUNT(*) AS n FROM moves LEFT JOIN customers ON {key} = customers.id
             GROUP BY country;"
        )
    };
    let world = World::new(&format!(
        "CREATE TABLE customers (id BIGINT PRIMARY KEY, country STRING, updated_at TIMESTAMP) WITH (event_time = 'updated_at');
         CREATE STREAM moves (buyer BIGINT, seller BIGINT, at TIMESTAMP) WITH (event_time = 'at');
         {}{}{}",
        view("buyers", "buyer"),
        view("sellers", "seller"),
        view("buyers_again", "buyer"),
    ));
    world.post(
        "/v1/events/customers",
        customer(1, "IE", "2026-01-01T00:00:00Z") + &customer(2, "DE", "2026-01-01T00:00:00Z"),
    );
    let moved = |buyer: i64, seller: i64| json!({"buyer": buyer, "seller": seller, "at": "2026-01-02T00:00:00Z"});
    let events = [moved(1, 2), moved(1, 2), moved(1, 1), moved(3, 2)].map(|event| event.to_string()).join("\n");
    assert_eq!(world.post("/v1/events/moves", events).status, 200);
    for (name, expected) in [
        ("buyers", json!([[null, 1], ["IE", 3]])),
        ("sellers", json!([["DE", 3], ["IE", 1]])),
        ("buyers_again", json!([[null, 1], ["IE", 3]])),
    ] {
        let answer = world.rows(name, "");
        let rows = answer["rows"].as_array().expect("rows").iter();
        let mut found: Vec<Value> = rows.map(|row| json!([row["country"], row["n"]])).collect();
        found.sort_by_key(ToString::to_string);
        let mut expected = expected.as_array().expect("rows").clone();
        expected.sort_by_key(ToString::to_string);
        assert_eq!(found, expected, "{name}");
    }
}

#[test]
fn commands_know_joins() {
    let folder = tempfile::tempdir().expect("a folder");
    let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).expect("written");
    write("shop.sql", SHOP);
    write("spark.sql", &SHOP.replace("CREATE VIEW countries AS", "CREATE VIEW countries WITH (engine = 'spark') AS"));
    let run = |arguments: &[&str]| {
        let done = program::trueup_in(folder.path()).args(arguments).output().expect("trueup runs");
        (done.status.code(), program::text(&done))
    };
    let (code, text) = run(&["check", "shop.sql"]);
    assert_eq!(code, Some(0), "{text}");
    for part in [
        "LEFT JOIN customers ON customer = customers.id; without a row its columns are NULL",
        "customers (country) as of the event time, from the changes accepted so far",
        "customers (country) as of the event time, from all changes before the run",
        "cause `lookup`",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
    let (code, text) = run(&["check", "spark.sql"]);
    assert_eq!(code, Some(0), "{text}");
    let (code, text) = run(&["check", "shop.sql", "--engine", "spark"]);
    assert_eq!(code, Some(0), "{text}");
    let versions = "-- trueup_versions0 (__key BIGINT, __first BIGINT, __last BIGINT, __c1 STRING): the versions of the rows of customers, \
                    __c1 = \"country\";";
    assert!(
        text.contains(versions) && text.contains("LEFT JOIN trueup_versions0 l0 ON l0.__key = e.`customer`"),
        "{text}"
    );
    let (code, text) = run(&["plan", "shop.sql", "--data", "store", "--engine", "spark"]);
    assert!(code == Some(1) && text.contains("joined with rows of table customers"), "{text}");
    let (code, text) = run(&["plan", "shop.sql", "--data", "store"]);
    assert!(code == Some(0) && text.contains("view countries"), "{text}");
    let change = |n: i64| match n % 13 {
        12 => format!("{{\"id\":{},\"_deleted\":true}}\n", n % 40),
        _ => customer(n % 40, ["IE", "DE", "FR"][(n % 3) as usize], &format!("2026-01-{:02}T00:00:00Z", 1 + n % 28)),
    };
    write("customers.ndjson", &(0..2_000).map(change).collect::<String>());
    let sold = |n: i64| order(n % 45, n, &format!("2026-01-{:02}T12:00:00Z", 1 + n * 7 % 28));
    write("orders.ndjson", &(0..5_000).map(sold).collect::<String>());
    let (code, text) = run(&[
        "verify",
        "shop.sql",
        "--stream",
        "orders",
        "--events",
        "orders.ndjson",
        "--table",
        "customers=customers.ndjson",
        "--cuts",
        "3",
        "--output",
        "json",
    ]);
    assert_eq!(code, Some(0), "{text}");
    assert!(text.contains("\"lookup\""), "{text}");
    let (code, text) = run(&[
        "verify",
        "shop.sql",
        "--stream",
        "orders",
        "--events",
        "orders.ndjson",
        "--table",
        "orders=customers.ndjson",
    ]);
    assert!(code != Some(0) && text.contains("\"orders\" is not a table"), "{text}");
}
