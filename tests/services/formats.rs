//! Values of records in other formats than JSON.

use serde_json::{Value, json};
use world::World;

use crate::broker::shared;
use crate::topic::{Topic, read_all};

/// The rows of the view, by name.
fn sums(world: &World) -> Vec<(String, i64, f64)> {
    let rows = world.rows("sums", "")["rows"].clone();
    let row = |row: &Value| {
        let name = row["name"].as_str().unwrap_or_default().to_owned();
        (name, row["n"].as_i64().expect("a count"), row["total"].as_f64().expect("a sum"))
    };
    rows.as_array().expect("rows").iter().map(row).collect()
}

#[test]
fn a_value_may_be_a_line_of_csv() {
    let Some(broker) = shared() else { return };
    let topic = Topic::create(broker, 1);
    let world = topic.world(&format!(
        "CREATE STREAM s (k STRING METADATA FROM 'key', name STRING, at TIMESTAMP, v DOUBLE)
             WITH (event_time = 'at', format = 'csv', {});
         CREATE VIEW sums AS SELECT name, COUNT(*) AS n, SUM(v) AS total FROM s GROUP BY name;",
        topic.options()
    ));
    topic.write(
        [
            "\"a, b\",2026-01-01T00:00:00Z,1.5",
            "c,2026-01-01T00:00:01Z,",
            "too,few",
            "x,2026-01-01T00:00:00Z,no number",
            "c,2026-01-01T00:00:02Z,2\n",
        ]
        .map(|line| topic.record(0, line)),
    );
    read_all(&world, "s", &topic);
    assert_eq!(sums(&world), [("a, b".to_owned(), 1, 1.5), ("c".to_owned(), 2, 2.0)]);
    world.wait_for("the rejected records", |world| world.get("/v1/streams/s").json()["rejected"] == json!(2));
}

/// A schema registry that answers these paths, on a port of loopback; it also counts requests.
pub fn registry(answers: Vec<(&'static str, Value)>) -> (String, std::sync::Arc<std::sync::atomic::AtomicU32>) {
    use std::io::{Read, Write};
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let url = format!("http://{}", listener.local_addr().expect("an address"));
    let count = std::sync::Arc::new(std::sync::atomic::AtomicU32::new(0));
    let requests = std::sync::Arc::clone(&count);
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { continue };
            let mut request = [0; 4_096];
            let read = stream.read(&mut request).unwrap_or(0);
            let text = String::from_utf8_lossy(&request[..read]).into_owned();
            requests.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
            let path = text.strip_prefix("GET ").and_then(|rest| rest.split(' ').next()).unwrap_or_default();
            let (status, body) = match answers.iter().find(|(answered, _)| *answered == path) {
                Some((_, answer)) => ("200 OK", answer.to_string()),
                None => ("404 Not Found", json!({"error_code": 40403}).to_string()),
            };
            let _ = write!(
                stream,
                "HTTP/1.1 {status}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
                body.len()
            );
        }
    });
    (url, count)
}

/// A value in the wire format of Confluent.
fn framed(id: u32, body: &[&[u8]]) -> Vec<u8> {
    [&[0][..], &id.to_be_bytes(), &body.concat()].concat()
}

#[test]
fn values_of_avro_have_schemas_of_the_registry_that_change_from_record_to_record() {
    let Some(broker) = shared() else { return };
    let record =
        |fields: Value| json!({"schema": json!({"type": "record", "name": "r", "fields": fields}).to_string()});
    let (name, v) = (json!({"name": "name", "type": "string"}), json!({"name": "v", "type": "double"}));
    let mut referring = record(json!([name, v, {"name": "paid", "type": "shop.Amount"}]));
    referring["references"] = json!([{"name": "shop.Amount", "subject": "shop/amount", "version": 3}]);
    let amount = json!({"type": "record", "name": "Amount", "namespace": "shop", "fields": [{"name": "euros", "type": "double"}]});
    let (topic, (url, requests)) = (
        Topic::create(broker, 1),
        registry(vec![
            ("/schemas/ids/1", record(json!([name, v]))),
            ("/schemas/ids/2", record(json!([v, {"name": "more", "type": "long"}, name]))),
            ("/schemas/ids/3", referring),
            ("/schemas/ids/4", json!({"schema": "syntax = \"proto3\";", "schemaType": "PROTOBUF"})),
            ("/subjects/shop%2Famount/versions/3", json!({"schema": amount.to_string()})),
        ]),
    );
    let mut world = World::stopped(&format!(
        "CREATE STREAM s (at TIMESTAMP METADATA FROM 'timestamp', name STRING, v DOUBLE)
             WITH (event_time = 'at', format = 'avro', {});
         CREATE VIEW sums AS SELECT name, COUNT(*) AS n, SUM(v) AS total FROM s GROUP BY name;",
        topic.options()
    ));
    world.set_settings(&format!("{}schema_registry = {{ url = \"{url}\" }}\n", topic.settings()));
    world.start();
    let (a, one, two) = (&[2, b'a'][..], 1.0_f64.to_le_bytes(), 2.0_f64.to_le_bytes());
    let first = || topic.record(0, framed(1, &[a, &one]));
    let second = || topic.record(0, framed(2, &[&two, &[14], a]));
    let third = topic.record(0, framed(3, &[a, &one, &two]));
    let bad =
        [framed(1, &[a]), framed(7, &[a, &one]), framed(4, &[a]), b"{}".to_vec()].map(|value| topic.record(0, value));
    topic.write([first(), second(), first()].into_iter().chain(bad).chain([second(), third]));
    read_all(&world, "s", &topic);
    assert_eq!(sums(&world), [("a".to_owned(), 5, 7.0)]);
    world.wait_for("the rejected records", |world| world.get("/v1/streams/s").json()["rejected"] == json!(4));
    let lines = world.get("/v1/streams/s/quarantine").json()["lines"].clone();
    let offsets: Vec<_> = lines.as_array().expect("lines").iter().map(|l| l["record"]["offset"].clone()).collect();
    assert_eq!(offsets.len(), 4, "{lines}");
    assert!(lines.to_string().contains("schema 7: the registry does not have it"), "{lines}");
    assert!(lines.to_string().contains("schema 4: its type is PROTOBUF, but the stream expects AVRO"), "{lines}");
    assert_eq!(requests.load(std::sync::atomic::Ordering::SeqCst), 6, "each schema is fetched once");
}

#[test]
fn values_of_protobuf_have_schemas_with_imports_of_the_registry() {
    let Some(broker) = shared() else { return };
    let event = "syntax = \"proto3\"; import \"amounts/v1.proto\";
        message Event { string name = 1; amounts.Amount amount = 2; }";
    let amount = "syntax = \"proto3\"; package amounts; message Amount { double euros = 1; }";
    let (topic, (url, requests)) = (
        Topic::create(broker, 1),
        registry(vec![
            (
                "/schemas/ids/1",
                json!({
                    "schema": event, "schemaType": "PROTOBUF",
                    "references": [{"name": "amounts/v1.proto", "subject": "amounts", "version": 1}]
                }),
            ),
            ("/subjects/amounts/versions/1", json!({"schema": amount, "schemaType": "PROTOBUF"})),
            ("/schemas/ids/2", json!({"schema": "no schema", "schemaType": "PROTOBUF"})),
        ]),
    );
    let mut world = World::stopped(&format!(
        "CREATE STREAM s (at TIMESTAMP METADATA FROM 'timestamp', name STRING, v DOUBLE FROM '/amount/euros')
             WITH (event_time = 'at', format = 'protobuf', {});
         CREATE VIEW sums AS SELECT name, COUNT(*) AS n, SUM(v) AS total FROM s GROUP BY name;",
        topic.options()
    ));
    world.set_settings(&format!("{}schema_registry = {{ url = \"{url}\" }}\n", topic.settings()));
    world.start();
    let message = |id: u32, euros: f64| {
        let amount = [&[0x12, 9, 0x09][..], &euros.to_le_bytes()].concat();
        framed(id, &[&[0], &[0x0a, 1, b'a'], &amount])
    };
    let values = [message(1, 1.5), message(2, 1.0), b"{}".to_vec(), message(1, 2.5), framed(1, &[&[0], &[0x0a, 9]])];
    topic.write(values.map(|value| topic.record(0, value)));
    read_all(&world, "s", &topic);
    assert_eq!(sums(&world), [("a".to_owned(), 2, 4.0)]);
    world.wait_for("the rejected records", |world| world.get("/v1/streams/s").json()["rejected"] == json!(3));
    let lines = world.get("/v1/streams/s/quarantine").json()["lines"].to_string();
    assert!(lines.contains("schema 2: ") && lines.contains("cannot read the message with schema 1"), "{lines}");
    assert_eq!(requests.load(std::sync::atomic::Ordering::SeqCst), 3, "each schema is fetched once");
}

#[test]
fn a_value_of_json_may_begin_with_the_id_of_a_schema() {
    let Some(broker) = shared() else { return };
    let topic = Topic::create(broker, 1);
    let world = topic.world(&format!(
        "CREATE STREAM s (at TIMESTAMP, name STRING, v DOUBLE) WITH (event_time = 'at', {});
         CREATE VIEW sums AS SELECT name, COUNT(*) AS n, SUM(v) AS total FROM s GROUP BY name;",
        topic.options()
    ));
    let event = br#"{"at":"2026-01-01T00:00:00Z","name":"a","v":2}"#;
    topic.write([event.to_vec(), framed(258, &[event])].map(|value| topic.record(0, value)));
    read_all(&world, "s", &topic);
    assert_eq!(sums(&world), [("a".to_owned(), 2, 4.0)]);
}

#[test]
fn changes_of_rows_in_avro_are_events_with_their_operation() {
    let Some(broker) = shared() else { return };
    let row = json!({"type": "record", "name": "Value", "fields": [
        {"name": "name", "type": "string"}, {"name": "v", "type": "double"}]});
    let envelope = json!({"type": "record", "name": "Envelope", "namespace": "shop", "fields": [
        {"name": "before", "type": ["null", row], "default": null},
        {"name": "after", "type": ["null", "Value"], "default": null},
        {"name": "source", "type": {"type": "record", "name": "Source", "fields": [{"name": "ts_ms", "type": "long"}]}},
        {"name": "op", "type": "string"}]});
    let (topic, (url, _)) =
        (Topic::create(broker, 1), registry(vec![("/schemas/ids/1", json!({"schema": envelope.to_string()}))]));
    let mut world = World::stopped(&format!(
        "CREATE STREAM s (at TIMESTAMP METADATA FROM 'source.timestamp', op STRING METADATA FROM 'op', name STRING, v DOUBLE)
             WITH (event_time = 'at', format = 'debezium-avro', {});
         CREATE VIEW sums AS SELECT op AS name, COUNT(*) AS n, SUM(v) AS total FROM s GROUP BY op;",
        topic.options()
    ));
    world.set_settings(&format!("{}schema_registry = {{ url = \"{url}\" }}\n", topic.settings()));
    world.start();
    let (old, new) =
        ([&[2, 2, b'a'][..], &1.0_f64.to_le_bytes()].concat(), [&[2, 2, b'a'][..], &4.0_f64.to_le_bytes()].concat());
    let change = |before: &[u8], after: &[u8], op: u8| topic.record(0, framed(1, &[before, after, &[14], &[2, op]]));
    topic.write([
        change(&[0], &old, b'c'),
        change(&old, &new, b'u'),
        change(&new, &[0], b'd'),
        change(&[0], &[0], b'd'),
    ]);
    read_all(&world, "s", &topic);
    let expected = [("c", 1, 1.0), ("d", 1, 4.0), ("u", 1, 4.0)].map(|(op, n, total)| (op.to_owned(), n, total));
    assert_eq!(sums(&world), expected);
    let lines = world.get("/v1/streams/s/quarantine").json()["lines"].clone();
    assert!(lines.to_string().contains("a deletion without `before`"), "{lines}");
}
