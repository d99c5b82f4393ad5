//! Runs the recipes of `docs/outbox.md` as written, with the address of the database of this test.

use std::collections::BTreeSet;

use serde_json::json;
use world::{World, program, recipes, root};

use crate::database::shared;
use crate::outbox::read_rows;
use crate::topic::source;

/// The blocks of a kind, joined.
fn joined(blocks: &[(String, String)], kind: &str, has: &str) -> String {
    let found: String =
        blocks.iter().filter(|(of, text)| of == kind && text.contains(has)).map(|(_, t)| t.as_str()).collect();
    assert!(!found.is_empty(), "a block of {kind} with {has}");
    found
}

#[test]
fn the_recipes_of_the_page_work() {
    let Some(server) = shared() else { return };
    let page = std::fs::read_to_string(root().join("docs/outbox.md")).expect("the page");
    let blocks = recipes::blocks(&page);
    let database = server.empty_database();
    let session = database.connect();
    session.run("CREATE TABLE orders (id text PRIMARY KEY, country text NOT NULL, amount numeric(12,2) NOT NULL)");
    for has in ["CREATE TABLE outbox", "ADD COLUMN txid", "pg_create_logical_replication_slot"] {
        let statements = joined(&blocks, "sql database", has);
        // Slots have names of their own in the server that tests share, and are not created in one transaction with writes.
        for statement in statements.replace("'trueup_orders'", &format!("'{}_orders'", database.name)).split(";\n") {
            session.run(statement);
        }
    }
    let definitions: String = ["CREATE STREAM orders", "CREATE STREAM payments", "CREATE STREAM polled_orders"]
        .map(|stream| joined(&blocks, "sql", stream))
        .concat()
        .replace("outbox = 'outbox')", &format!("slot = '{}_orders')", database.name))
        .replace("prefix = 'payments')", &format!("prefix = 'payments', slot = '{}_payments')", database.name));
    let settings = joined(&blocks, "toml", "[connections.shop]");
    let url = settings.lines().find(|line| line.starts_with("url")).expect("a line").to_owned();
    let mut world = World::stopped(&definitions);
    world.set_settings(&settings.replace(&url, &format!("url = \"{}\"", database.url("postgres"))));
    world.start();
    for stream in ["orders", "payments", "polled_orders"] {
        world.wait_for("the reader", |world| source(world, stream)["partitions"][0]["position"] == 0);
    }
    session.run(&joined(&blocks, "sql application", "INSERT INTO outbox"));
    session.run(&joined(&blocks, "sql application", "pg_logical_emit_message"));
    for stream in ["orders", "payments", "polled_orders"] {
        read_rows(&world, stream, 1);
    }
    world.wait_for("the row", |world| world.rows("revenue", "")["rows"].as_array().map(Vec::len) == Some(1));
    let output = std::process::Command::new("bash")
        .args(["-euo", "pipefail", "-c", &joined(&blocks, "sh", "trueup query")])
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
    assert!(
        output.status.success() && text.contains("\"country\":\"AT\",\"orders\":1,\"revenue\":\"12.50\""),
        "{text}"
    );
    assert!(text.contains("outbox outbox of connection shop, reading"), "{text}");
    let events: BTreeSet<u64> = ["orders", "payments", "polled_orders"]
        .iter()
        .map(|stream| {
            world.get(&format!("/v1/streams/{stream}")).json()["partitions"][0]["head"].as_u64().expect("a number")
        })
        .collect();
    assert_eq!(json!(events), json!([1]), "each mode has its event");
}
