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
    read_all(&world, "s");
    assert_eq!(sums(&world), [("a, b".to_owned(), 1, 1.5), ("c".to_owned(), 2, 2.0)]);
    world.wait_for("the rejected records", |world| world.get("/v1/streams/s").json()["rejected"] == json!(2));
}

/// A schema registry with two schemas, on a port of loopback; it also counts requests.
fn registry() -> (String, std::sync::Arc<std::sync::atomic::AtomicU32>) {
    use std::io::{Read, Write};
    let schemas = [
        r#"{"type":"record","name":"r","fields":[{"name":"name","type":"string"},{"name":"v","type":"double"}]}"#,
        r#"{"type":"record","name":"r","fields":[{"name":"v","type":"double"},{"name":"more","type":"long"},{"name":"name","type":"string"}]}"#,
    ];
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
            let id =
                text.strip_prefix("GET /schemas/ids/").and_then(|rest| rest.split(' ').next()?.parse::<usize>().ok());
            let (status, body) = match id.and_then(|id| schemas.get(id.wrapping_sub(1))) {
                Some(schema) => ("200 OK", json!({"schema": schema}).to_string()),
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

#[test]
fn values_of_avro_have_schemas_of_the_registry_that_change_from_record_to_record() {
    let Some(broker) = shared() else { return };
    let (topic, (url, requests)) = (Topic::create(broker, 1), registry());
    let mut world = World::stopped(&format!(
        "CREATE STREAM s (at TIMESTAMP METADATA FROM 'timestamp', name STRING, v DOUBLE)
             WITH (event_time = 'at', format = 'avro', {});
         CREATE VIEW sums AS SELECT name, COUNT(*) AS n, SUM(v) AS total FROM s GROUP BY name;",
        topic.options()
    ));
    world.set_settings(&format!("{}schema_registry = {{ url = \"{url}\" }}\n", topic.settings()));
    world.start();
    let framed = |id: u32, body: &[&[u8]]| [&[0][..], &id.to_be_bytes(), &body.concat()].concat();
    let (a, one, two) = (&[2, b'a'][..], 1.0_f64.to_le_bytes(), 2.0_f64.to_le_bytes());
    let first = || topic.record(0, framed(1, &[a, &one]));
    let second = || topic.record(0, framed(2, &[&two, &[14], a]));
    let bad = [framed(1, &[a]), framed(7, &[a, &one]), b"{}".to_vec()].map(|value| topic.record(0, value));
    topic.write([first(), second(), first()].into_iter().chain(bad).chain([second()]));
    read_all(&world, "s");
    assert_eq!(sums(&world), [("a".to_owned(), 4, 6.0)]);
    world.wait_for("the rejected records", |world| world.get("/v1/streams/s").json()["rejected"] == json!(3));
    let lines = world.get("/v1/streams/s/quarantine").json()["lines"].clone();
    let offsets: Vec<_> = lines.as_array().expect("lines").iter().map(|l| l["record"]["offset"].clone()).collect();
    assert_eq!(offsets.len(), 3, "{lines}");
    assert!(lines.to_string().contains("schema 7: the registry does not have it"), "{lines}");
    assert_eq!(requests.load(std::sync::atomic::Ordering::SeqCst), 3, "each id is fetched once");
}
