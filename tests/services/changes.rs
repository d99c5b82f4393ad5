//! Changes of a table by Debezium as events, and messages of an outbox, each once by the id in its header.

use std::collections::BTreeMap;

use krafka::Record;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::{Value, json};

use crate::broker::shared;
use crate::topic::Topic;

const STATES: [&str; 3] = ["new", "paid", "shipped"];

/// A table of orders, and what its changes add up to.
#[derive(Default)]
struct Table {
    rows: BTreeMap<i64, (String, i64)>,
    changes: i64,
    /// Changes by operation.
    by_operation: BTreeMap<String, i64>,
    /// The status and the operation of the last change of each row.
    last: BTreeMap<i64, (String, String)>,
}

impl Table {
    /// Makes a change, and returns its records: the change, and after a deletion a tombstone.
    fn change(&mut self, dice: &mut StdRng, topic: &Topic) -> Vec<Record> {
        let id = dice.random_range(0..30);
        let row =
            |(status, amount): &(String, i64)| json!({"id": id, "status": status, "amount": format!("{amount}.50")});
        let before = self.rows.get(&id).cloned();
        let after = (STATES[dice.random_range(0..3)].to_owned(), dice.random_range(1..100));
        let (op, before, after) = match before {
            None if dice.random_bool(0.2) => ("r", None, Some(after)),
            None => ("c", None, Some(after)),
            Some(before) if dice.random_bool(0.3) => ("d", Some(before), None),
            Some(before) => ("u", Some(before), Some(after)),
        };
        match &after {
            Some(after) => _ = self.rows.insert(id, after.clone()),
            None => _ = self.rows.remove(&id),
        }
        self.changes += 1;
        *self.by_operation.entry(op.to_owned()).or_default() += 1;
        let shown = after.clone().or(before.clone()).expect("a row");
        self.last.insert(id, (shown.0, op.to_owned()));
        let change = json!({
            "before": before.as_ref().map(row), "after": after.as_ref().map(row), "op": op, "ts_ms": 1,
            "source": {"connector": "postgresql", "ts_ms": 1_790_000_000_000i64 + self.changes, "table": "orders"},
        });
        let change = match dice.random_bool(0.5) {
            true => change,
            false => {
                json!({"schema": {"type": "struct", "fields": [], "name": "shop.public.orders.Envelope"}, "payload": change})
            }
        };
        // All changes of a row are in one partition.
        let partition = (id % 3) as i32;
        let mut records = vec![topic.record(partition, change.to_string())];
        if op == "d" {
            records.push(Record::tombstone(topic.name.as_str(), format!("{{\"id\":{id}}}")).partition(partition));
        }
        records
    }
}

#[test]
fn changes_of_a_table_are_events_with_their_operation() {
    let Some(broker) = shared() else { return };
    let topic = Topic::create(broker, 3);
    let mut world = topic.world(&format!(
        "CREATE STREAM changes (changed_at TIMESTAMP METADATA FROM 'source.timestamp', op STRING METADATA FROM 'op', id BIGINT,
                 status STRING, amount DECIMAL(12,2))
             WITH (event_time = 'changed_at', format = 'debezium-json', {});
         CREATE VIEW by_operation AS SELECT op, COUNT(*) AS n FROM changes GROUP BY op;
         CREATE VIEW orders AS SELECT id, LAST_VALUE(status) AS status, LAST_VALUE(op) AS last FROM changes GROUP BY id;",
        topic.options()
    ));
    let (mut table, mut dice) = (Table::default(), StdRng::seed_from_u64(crate::sink_kills::seed()));
    for round in 0..4 {
        for _ in 0..100 {
            topic.write(table.change(&mut dice, &topic));
        }
        if round > 1 {
            // A TRUNCATE names no rows.
            topic.write([topic.record(0, json!({"op": "t", "source": {"ts_ms": 1}}).to_string())]);
        }
        match round {
            1 => {
                world.kill();
                world.start();
            }
            2 => assert_eq!(world.run("orders", false)["state"], json!("published")),
            _ => {}
        }
        world.wait_for("all changes", |world| {
            let rows = world.rows("by_operation", "")["rows"].as_array().expect("rows").clone();
            rows.iter().filter_map(|row| row["n"].as_i64()).sum::<i64>() == table.changes
        });
        let rows = |view: &str| world.rows(view, "")["rows"].as_array().expect("rows").clone();
        let counts =
            rows("by_operation").into_iter().map(|row| (text(&row["op"]), row["n"].as_i64().expect("a count")));
        assert_eq!(counts.collect::<BTreeMap<_, _>>(), table.by_operation, "round {round}");
        let last = rows("orders")
            .into_iter()
            .map(|row| (row["id"].as_i64().expect("an id"), (text(&row["status"]), text(&row["last"]))));
        assert_eq!(last.collect::<BTreeMap<_, _>>(), table.last, "round {round}");
    }
    // One for each TRUNCATE.
    world
        .wait_for("the quarantine", |world| world.get("/v1/streams/changes").json()["quarantine"]["total"] == json!(2));
}

fn text(value: &Value) -> String {
    value.as_str().expect("a text").to_owned()
}

#[test]
fn messages_of_an_outbox_count_once_by_the_id_in_their_header() {
    let Some(broker) = shared() else { return };
    let topic = Topic::create(broker, 2);
    let world = topic.world(&format!(
        "CREATE STREAM orders (id STRING PRIMARY KEY METADATA FROM 'header:id', kind STRING METADATA FROM 'header:type',
                 order_id STRING METADATA FROM 'key', at TIMESTAMP, amount BIGINT)
             WITH (event_time = 'at', {});
         CREATE VIEW kinds AS SELECT kind, COUNT(*) AS n, SUM(amount) AS total FROM orders GROUP BY kind;",
        topic.options()
    ));
    let message = |id: i64| {
        let kind = if id % 2 == 0 { "created" } else { "paid" };
        let order = id % 5;
        topic
            .record((order % 2) as i32, format!("{{\"at\":1790000000000,\"amount\":{id}}}"))
            .key(format!("o{order}"))
            .header("id", format!("m{id}"))
            .header("type", kind)
    };
    // The relay died before it had noted what it sent, and sends some again.
    topic.write((0..20).chain(10..40).map(message));
    world.wait_for("all messages", |world| {
        let stream = world.get("/v1/streams/orders").json();
        let sum = |name: &str| -> u64 {
            stream["partitions"].as_array().expect("partitions").iter().filter_map(|p| p[name].as_u64()).sum()
        };
        sum("accepted") + sum("duplicates") == 50
    });
    let rows = world.rows("kinds", "")["rows"].clone();
    let of = |kind: i64| (0..40).filter(|id| id % 2 == kind).sum::<i64>();
    let found: BTreeMap<String, (i64, i64)> = rows
        .as_array()
        .expect("rows")
        .iter()
        .map(|row| (text(&row["kind"]), (row["n"].as_i64().expect("n"), row["total"].as_i64().expect("total"))))
        .collect();
    let expected = [("created".to_owned(), (20, of(0))), ("paid".to_owned(), (20, of(1)))];
    assert_eq!(found, expected.into(), "{rows}");
}
