//! Tables that read topics: changes as Debezium writes them without the row before, and compacted topics with tombstones. Figures,
//! rows and what a sink writes are those of a map that the test keeps, through kills, runs and records that are written again.

use std::collections::BTreeMap;

use krafka::Record;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::{Value, json};
use world::World;

use crate::broker::shared;
use crate::formats::registry;
use crate::sinks::{assert_changes, written};
use crate::table_avro;
use crate::topic::{Topic, read_records};

const STATES: [&str; 3] = ["new", "paid", "shipped"];

/// The rows, by key: the status, the amount in whole units, and a note.
type Rows = BTreeMap<i64, (&'static str, i64, String)>;

/// How the topic says what changes.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Form {
    /// Change events with the default replica identity, and a tombstone after each deletion.
    Debezium,
    /// Rows, and tombstones.
    Compacted,
}

/// The form of a topic, and how many partitions it has. With one, the table is truncated at times.
#[derive(Debug, Clone, Copy)]
struct Written {
    form: Form,
    is_avro: bool,
    partitions: i64,
    /// Whether the key of a row is `id` and `line` instead of `id` alone; only of JSON.
    has_lines: bool,
}

/// The lines of an id.
const LINES: i64 = 4;

impl Written {
    fn format(self) -> &'static str {
        match (self.form, self.is_avro) {
            (Form::Debezium, false) => "debezium-json",
            (Form::Debezium, true) => "debezium-avro",
            (Form::Compacted, false) => "json",
            (Form::Compacted, true) => "avro",
        }
    }

    fn value(self, value: &Value) -> Vec<u8> {
        if self.is_avro { table_avro::value(value) } else { value.to_string().into_bytes() }
    }

    /// The columns of the key.
    fn columns(self) -> &'static str {
        if self.has_lines { "id, line" } else { "id" }
    }

    /// The key of a row, with more members.
    fn keyed(self, id: i64, members: Value) -> Value {
        let mut all = if self.has_lines { json!({"id": id / LINES, "line": id % LINES}) } else { json!({"id": id}) };
        let Value::Object(members) = members else { panic!("{members} is no object") };
        all.as_object_mut().expect("an object").extend(members);
        all
    }

    /// The number of a row that has a key.
    fn number(self, row: &Value) -> i64 {
        let id = row["id"].as_i64().expect("an id");
        if self.has_lines { id * LINES + row["line"].as_i64().expect("a line") } else { id }
    }

    /// A key as Debezium writes it; some topics of Avro have keys of JSON.
    fn key(self, id: i64, dice: &mut StdRng) -> Vec<u8> {
        let has_avro = self.is_avro && (self.form == Form::Debezium || dice.random_bool(0.5));
        if has_avro { table_avro::key(id) } else { self.keyed(id, json!({})).to_string().into_bytes() }
    }
}

fn row(written: Written, id: i64, (status, amount, note): &(&str, i64, String), at: i64) -> Value {
    written.keyed(id, json!({"status": status, "amount": format!("{amount}.50"), "note": note, "at": at}))
}

/// Changes a row, and returns the records.
fn change(written: Written, rows: &mut Rows, dice: &mut StdRng, topic: &Topic) -> Vec<Record> {
    let (form, id) = (written.form, dice.random_range(0..40));
    if form == Form::Debezium && written.partitions == 1 && dice.random_bool(0.02) {
        rows.clear();
        let truncate = json!({"op": "t", "before": null, "after": null, "source": {"ts_ms": 1}});
        return vec![topic.record(0, written.value(&truncate))];
    }
    let partition = (id % written.partitions) as i32;
    let key = written.key(id, dice);
    let at = 1_790_000_000_000_i64 + dice.random_range(0..200_000_000);
    let write = |value: Value| topic.record(partition, written.value(&value)).key(key.clone());
    let tombstone = || Record::tombstone(topic.name.as_str(), key.clone()).partition(partition);
    let before = rows.get(&id).cloned();
    if before.is_some() && dice.random_bool(0.3) {
        rows.remove(&id);
        // With the key only, and made-up values.
        let before = written.keyed(id, json!({"status": null, "at": 0}));
        let change = json!({"op": "d", "before": before, "after": null, "source": {"ts_ms": 1}});
        return match form {
            Form::Debezium if dice.random_bool(0.8) => vec![write(change), tombstone()],
            // The change was compacted away.
            _ => vec![tombstone()],
        };
    }
    let mut after =
        (STATES[dice.random_range(0..3)], dice.random_range(1..100), format!("note {}", dice.random_range(0..9)));
    let keeps_note = form == Form::Debezium && before.is_some() && dice.random_bool(0.3);
    if let (true, Some(before)) = (keeps_note, &before) {
        after.2.clone_from(&before.2);
    }
    let mut shown = row(written, id, &after, at);
    if keeps_note {
        shown["note"] = json!("__debezium_unavailable_value");
    }
    rows.insert(id, after);
    let op = if before.is_some() { "u" } else { ["c", "r"][dice.random_range(0..2)] };
    vec![write(match form {
        Form::Compacted => shown,
        Form::Debezium => {
            let change = json!({"op": op, "before": null, "after": shown, "source": {"ts_ms": at}});
            let is_wrapped = !written.is_avro && dice.random_bool(0.5);
            if is_wrapped { json!({"schema": {}, "payload": change}) } else { change }
        }
    })]
}

fn check(world: &World, changes: Written, rows: &Rows, context: &str) {
    let mut expected: BTreeMap<&str, (i64, f64)> = BTreeMap::new();
    for (status, amount, _) in rows.values() {
        let group = expected.entry(status).or_default();
        *group = (group.0 + 1, group.1 + *amount as f64 + 0.5);
    }
    for layer in ["", "&layer=batch"].into_iter().take(if context.starts_with("run") { 2 } else { 1 }) {
        let answer = world.rows("orders_by_status", layer);
        let found: BTreeMap<&str, (i64, f64)> = answer["rows"]
            .as_array()
            .expect("rows")
            .iter()
            .map(|row| {
                let total = row["total"].as_str().and_then(|total| total.parse().ok()).or(row["total"].as_f64());
                (
                    row["status"].as_str().expect("a status"),
                    (row["n"].as_i64().expect("a count"), total.expect("a sum")),
                )
            })
            .collect();
        assert_eq!(found, expected, "{context}{layer}");
    }
    let listed = world.get("/v1/tables/orders/rows").json();
    let listed = listed["rows"].as_array().expect("rows").iter();
    let shown: BTreeMap<i64, Value> = listed.map(|row| (changes.number(row), row["note"].clone())).collect();
    assert_eq!(shown, rows.iter().map(|(id, (.., note))| (*id, json!(note))).collect(), "{context}");
}

/// The topic of the sink has the rows of the table by their key, and a tombstone for each that is gone.
fn check_sink(world: &World, changes: Written, rows: &Rows, output: &Topic, context: &str) {
    written(world, "out");
    let expected = rows.iter().map(|(id, (status, amount, _))| {
        let value = json!({"n": 1, "highest": format!("{amount}.50"), "statuses": 1, "last": status});
        (changes.keyed(*id, json!({})).to_string(), changes.keyed(*id, value))
    });
    assert_eq!(output.table(), expected.collect(), "{context}");
    assert_changes(&output.read());
}

fn follow(changes: Written) {
    let Some(broker) = shared() else { return };
    let (topic, output) = (Topic::create(broker, changes.partitions as i32), Topic::create(broker, 2));
    let (url, _) = registry(table_avro::answers(changes.form == Form::Debezium));
    let mut world = World::stopped(&format!(
        "CREATE TABLE orders (id BIGINT{line}, status STRING, amount DECIMAL(12,2), note STRING, at TIMESTAMP, PRIMARY KEY ({key}))
             WITH (event_time = 'at', format = '{}', {});
         CREATE VIEW orders_by_status AS SELECT status, COUNT(*) AS n, SUM(amount) AS total FROM orders GROUP BY status;
         CREATE VIEW orders_by_id AS SELECT {key}, COUNT(*) AS n, MAX(amount) AS highest, COUNT(DISTINCT status) AS statuses,
             LAST_VALUE(status) AS last FROM orders GROUP BY {key};
         CREATE SINK out FROM orders_by_id WITH (connection = 'main', topic = '{}', every = '20 milliseconds');",
        changes.format(),
        topic.options(),
        output.name,
        key = changes.columns(),
        line = if changes.has_lines { ", line INT" } else { "" },
    ));
    world.set_settings(&format!("{}schema_registry = {{ url = \"{url}\" }}\n", topic.settings()));
    world.start();
    let (mut rows, mut dice) = (Rows::new(), StdRng::seed_from_u64(crate::sink_kills::seed()));
    let mut written = 0;
    for round in 0..6 {
        let records: Vec<Record> = (0..150).flat_map(|_| change(changes, &mut rows, &mut dice, &topic)).collect();
        written += records.len();
        topic.write(records.clone());
        if round % 2 == 1 {
            // A connector that failed writes its last changes again.
            written += records.len();
            topic.write(records);
        }
        if round % 3 == 2 {
            world.kill();
            world.start();
        }
        read_records(&world, "orders", written);
        if round % 2 == 0 {
            assert_eq!(world.run("orders_by_status", round == 4)["state"], json!("published"));
            assert_eq!(world.run("orders_by_id", round == 4)["state"], json!("published"));
        }
        let context = format!("{} {round}", if round % 2 == 0 { "run in round" } else { "round" });
        check(&world, changes, &rows, &context);
        check_sink(&world, changes, &rows, &output, &context);
    }
    let status = world.get("/v1/streams/orders").json();
    assert_eq!(status["rejected"], json!(0), "{status}");
    topic.delete();
    output.delete();
}

#[test]
fn a_table_of_debezium_changes_has_the_rows_of_the_database() {
    follow(Written { form: Form::Debezium, is_avro: false, partitions: 3, has_lines: false });
}

#[test]
fn a_table_of_a_compacted_topic_has_its_last_values() {
    follow(Written { form: Form::Compacted, is_avro: false, partitions: 3, has_lines: false });
}

#[test]
fn a_table_of_debezium_changes_in_avro_has_the_rows_of_the_database() {
    follow(Written { form: Form::Debezium, is_avro: true, partitions: 3, has_lines: false });
}

#[test]
fn a_table_of_a_compacted_topic_in_avro_has_its_last_values() {
    follow(Written { form: Form::Compacted, is_avro: true, partitions: 3, has_lines: false });
}

#[test]
fn a_table_with_keys_of_two_columns_has_the_rows_of_the_database() {
    for (form, partitions) in [(Form::Debezium, 3), (Form::Debezium, 1), (Form::Compacted, 3)] {
        follow(Written { form, is_avro: false, partitions, has_lines: true });
    }
}

#[test]
fn a_table_of_one_partition_is_truncated_with_the_database() {
    follow(Written { form: Form::Debezium, is_avro: false, partitions: 1, has_lines: false });
    follow(Written { form: Form::Debezium, is_avro: true, partitions: 1, has_lines: false });
}
