//! Sinks that write Avro against a real Kafka: every record is read by its registered schema and compared with the view.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::sync::{Arc, Mutex};

use serde_json::{Map, Value, json};
use shared::time::{Day, Micros};
use world::World;

use crate::broker::shared as broker;
use crate::sinks::{sink, written};
use crate::topic::{Topic, read_all};

/// The state of a schema registry.
#[derive(Default)]
pub struct Subjects {
    /// Subjects and schemas, by id from 1.
    pub schemas: Vec<(String, String)>,
    refuses: bool,
}

/// A schema registry on a port of loopback, with the paths for reading and registering of that of Confluent.
pub fn registry() -> (String, Arc<Mutex<Subjects>>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let url = format!("http://{}", listener.local_addr().expect("an address"));
    let subjects = Arc::new(Mutex::new(Subjects::default()));
    let served = Arc::clone(&subjects);
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let request = whole_request(&mut stream);
            let (status, body) = answer(&request, &mut served.lock().expect("no panic"));
            let length = body.len();
            let _ = write!(stream, "HTTP/1.1 {status}\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{body}");
        }
    });
    (url, subjects)
}

fn whole_request(stream: &mut impl Read) -> String {
    let (mut request, mut piece) = (Vec::new(), [0; 4_096]);
    while let Ok(read @ 1..) = stream.read(&mut piece) {
        request.extend_from_slice(&piece[..read]);
        let text = String::from_utf8_lossy(&request).to_ascii_lowercase();
        let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
        if body.len() >= length.map_or(0, |length| length.trim().parse().expect("a length")) {
            break;
        }
    }
    String::from_utf8(request).expect("UTF-8")
}

fn answer(request: &str, subjects: &mut Subjects) -> (&'static str, String) {
    let (line, body) =
        (request.lines().next().unwrap_or_default(), request.split("\r\n\r\n").nth(1).unwrap_or_default());
    let path: Vec<&str> = line.split(' ').nth(1).unwrap_or_default().trim_start_matches('/').split('/').collect();
    match path[..] {
        ["subjects", subject, "versions"] if line.starts_with("POST ") => {
            if subjects.refuses {
                return ("409 Conflict", json!({"error_code": 409, "message": "it is not compatible"}).to_string());
            }
            let body: Value = serde_json::from_str(body).expect("JSON");
            let schema = (subject.to_owned(), body["schema"].as_str().expect("a schema").to_owned());
            let id = subjects.schemas.iter().position(|known| *known == schema).unwrap_or(subjects.schemas.len());
            if id == subjects.schemas.len() {
                subjects.schemas.push(schema);
            }
            ("200 OK", json!({"id": id + 1}).to_string())
        }
        ["schemas", "ids", id] => {
            let id: usize = id.parse().expect("a number");
            ("200 OK", json!({"schema": subjects.schemas[id - 1].1}).to_string())
        }
        _ => ("404 Not Found", json!({"error_code": 40401, "message": "not found"}).to_string()),
    }
}

/// Reads Avro by the specification: the oracle of what Trueup writes.
struct AvroText<'a>(&'a [u8]);

impl AvroText<'_> {
    fn take(&mut self, count: usize) -> &[u8] {
        let (taken, rest) = self.0.split_at(count);
        self.0 = rest;
        taken
    }

    fn long(&mut self) -> i64 {
        let (mut value, mut shift) = (0_u64, 0);
        loop {
            let byte = self.take(1)[0];
            value |= u64::from(byte & 0x7f) << shift;
            shift += 7;
            if byte & 0x80 == 0 {
                return (value >> 1) as i64 ^ -((value & 1) as i64);
            }
        }
    }

    fn value(&mut self, schema: &Value) -> Value {
        if let Some(union) = schema.as_array() {
            let index = self.long() as usize;
            return self.value(&union[index].clone());
        }
        let logical = schema["logicalType"].as_str();
        match (schema.as_str().or_else(|| schema["type"].as_str()), logical) {
            (Some("null"), _) => Value::Null,
            (Some("boolean"), _) => json!(self.take(1)[0] == 1),
            (Some("long"), Some("timestamp-micros")) => json!(Micros(self.long()).to_string()),
            (Some("int"), Some("date")) => json!(Day(self.long() as i32).to_string()),
            (Some("long" | "int"), None) => json!(self.long()),
            (Some("double"), _) => {
                let number = f64::from_le_bytes(self.take(8).try_into().expect("8 bytes"));
                // The rows of the view are texts that serde_json parses, which may be one unit in the last place off.
                serde_json::from_str(&number.to_string()).expect("a finite number")
            }
            (Some("string"), _) => {
                let length = self.long() as usize;
                json!(String::from_utf8(self.take(length).to_vec()).expect("UTF-8"))
            }
            (Some("bytes"), Some("decimal")) => {
                let length = self.long() as usize;
                let bytes = self.take(length);
                let negative = bytes.first().is_some_and(|byte| byte & 0x80 != 0);
                let unscaled =
                    bytes.iter().fold(if negative { -1_i128 } else { 0 }, |n, byte| n << 8 | i128::from(*byte));
                let scale = schema["scale"].as_u64().expect("a scale") as usize;
                let digits = format!("{:0width$}", unscaled.unsigned_abs(), width = scale + 1);
                let (whole, part) = digits.split_at(digits.len() - scale);
                json!(format!("{}{whole}.{part}", if unscaled < 0 { "-" } else { "" }))
            }
            (Some("record"), _) => {
                let fields = schema["fields"].as_array().expect("fields").clone();
                let member =
                    |field: Value| (field["name"].as_str().expect("a name").to_owned(), self.value(&field["type"]));
                Value::Object(fields.into_iter().map(member).collect::<Map<_, _>>())
            }
            other => panic!("no such type: {other:?}"),
        }
    }
}

/// Decodes a key or a value by the schema that its id names.
pub fn decoded(bytes: &[u8], subjects: &Subjects, subject: &str) -> Value {
    assert_eq!(bytes[0], 0, "the magic byte");
    let id = u32::from_be_bytes(bytes[1..5].try_into().expect("4 bytes")) as usize;
    let (of, schema) = &subjects.schemas[id - 1];
    assert_eq!(of, subject);
    let mut text = AvroText(&bytes[5..]);
    let value = text.value(&serde_json::from_str(schema).expect("JSON"));
    assert!(text.0.is_empty(), "bytes are left after {value}");
    value
}

/// The last value of each key, decoded.
fn table(topic: &Topic, subjects: &Subjects) -> BTreeMap<String, Value> {
    let (mut table, mut bytes) = (BTreeMap::new(), BTreeMap::new());
    for record in topic.read_raw() {
        let raw = record.key.expect("a key");
        let key = decoded(&raw, subjects, &format!("{}-key", topic.name)).to_string();
        assert_eq!(bytes.entry(key.clone()).or_insert_with(|| raw.clone()), &raw, "a key always has the same bytes");
        match record.value {
            Some(value) => table.insert(key, decoded(&value, subjects, &format!("{}-value", topic.name))),
            None => table.remove(&key),
        };
    }
    table
}

fn definitions(topic: &Topic) -> String {
    format!(
        "CREATE STREAM orders (id STRING PRIMARY KEY, at TIMESTAMP, status STRING, price DECIMAL(12,2), paid BOOLEAN)
             WITH (event_time = 'at', partitions = 2, watermark_delay = '1 day', allowed_lateness = '1 day');
         CREATE VIEW totals AS
             SELECT window_start, window_end, status, paid, COUNT(*) AS n, SUM(price) AS revenue, AVG(price) AS mean,
                    MAX(at) AS latest
             FROM orders GROUP BY TUMBLE(at, INTERVAL '1' HOUR), status, paid HAVING COUNT(*) < 6;
         CREATE SINK out FROM VIEW totals
             WITH (connection = 'main', topic = '{}', format = 'avro', every = '50 milliseconds');",
        topic.name
    )
}

/// The rows of the view as the topic should have them.
fn rows(world: &World) -> BTreeMap<String, Value> {
    let rows = world.rows("totals", "")["rows"].as_array().expect("rows").clone();
    let of_row = |row: Value| {
        let of = |names: &[&str]| -> Value {
            Value::Object(names.iter().map(|name| ((*name).to_owned(), row[*name].clone())).collect())
        };
        let value = of(&["window_start", "window_end", "status", "paid", "n", "revenue", "mean", "latest"]);
        (of(&["window_start", "status", "paid"]).to_string(), value)
    };
    rows.into_iter().map(of_row).collect()
}

fn order(id: usize) -> String {
    let status = ["\"new\"", "\"dené\"", "null"][id % 3];
    let (hour, paid) = (id / 20 % 24, ["true", "false", "null"][id / 3 % 3]);
    let (sign, cents) = (if id.is_multiple_of(7) { "-" } else { "" }, id * 37 % 100);
    format!(
        "{{\"id\":\"o{id}\",\"at\":\"2026-11-01T{hour:02}:00:00Z\",\"status\":{status},\"price\":\"{sign}{id}.{cents:02}\",\"paid\":{paid}}}\n"
    )
}

#[test]
fn records_of_avro_are_the_rows_of_the_view_also_after_runs_and_for_readers_of_avro() {
    let Some(broker) = broker() else { return };
    let (output, (url, subjects)) = (Topic::create(broker, 2), registry());
    let mut world = World::stopped(&definitions(&output));
    world.set_settings(&format!("{}schema_registry = {{ url = \"{url}\" }}\n", output.settings()));
    world.start();
    for from in [0, 300, 600] {
        assert_eq!(world.post("/v1/events/orders", (from..from + 300).map(order).collect::<String>()).status, 200);
        written(&world, "out");
    }
    let expected = rows(&world);
    assert!(expected.len() > 100 && expected.values().any(|row| row["status"].is_null()), "{}", expected.len());
    assert_eq!(table(&output, &subjects.lock().expect("no panic")), expected);
    assert_eq!(subjects.lock().expect("no panic").schemas.len(), 2, "a schema is registered once");
    let tombstones = output.read_raw().iter().filter(|record| record.value.is_none()).count();
    assert_eq!(world.run("totals", false)["state"], "published");
    assert_eq!(world.stop(), Some(0));
    world.start();
    assert_eq!(world.post("/v1/events/orders", (900..1_400).map(order).collect::<String>()).status, 200);
    written(&world, "out");
    assert_eq!(table(&output, &subjects.lock().expect("no panic")), rows(&world));
    let later = output.read_raw().iter().filter(|record| record.value.is_none()).count();
    assert!(later > tombstones, "rows that HAVING excludes are deleted: {tombstones} and {later}");

    // A stream of Trueup reads what its sink has written.
    let records = output.read_raw().iter().filter(|record| record.value.is_some()).count();
    let mut reader = World::stopped(&format!(
        "CREATE STREAM changes (at TIMESTAMP METADATA FROM 'timestamp', status STRING, n BIGINT, revenue DECIMAL(38,2))
             WITH (event_time = 'at', format = 'avro', {});
         CREATE VIEW counts AS SELECT COUNT(*) AS n, SUM(n) AS orders FROM changes;",
        output.options()
    ));
    reader.set_settings(&format!("{}schema_registry = {{ url = \"{url}\" }}\n", output.settings()));
    reader.start();
    read_all(&reader, "changes", &output);
    reader.wait_for("the events", |reader| reader.rows("counts", "")["rows"][0]["n"] == json!(records));
}

#[test]
fn a_schema_that_the_registry_refuses_stops_the_sink_until_it_is_resumed() {
    let Some(broker) = broker() else { return };
    let (output, (url, subjects)) = (Topic::create(broker, 1), registry());
    subjects.lock().expect("no panic").refuses = true;
    let mut world = World::stopped(&definitions(&output));
    world.set_settings(&format!("{}schema_registry = {{ url = \"{url}\" }}\n", output.settings()));
    world.start();
    assert_eq!(world.post("/v1/events/orders", (0..50).map(order).collect::<String>()).status, 200);
    world.wait_for("the refusal", |world| sink(world, "out")["state"] == "stopped");
    let error = sink(&world, "out")["error"].as_str().unwrap_or_default().to_owned();
    let expected = format!("the registry refuses the schema of {}-key: it is not compatible", output.name);
    assert_eq!(error, expected);
    assert!(output.read_raw().is_empty());
    subjects.lock().expect("no panic").refuses = false;
    assert_eq!(world.post("/v1/sinks/out/resume", "").status, 200);
    written(&world, "out");
    assert_eq!(table(&output, &subjects.lock().expect("no panic")), rows(&world));
}
