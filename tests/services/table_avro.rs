//! Writes changes of the table `orders` in Avro, as the converters of Debezium and Kafka Connect do.

use serde_json::{Value, json};

/// Ids of the schemas of values and keys.
const VALUE: u32 = 1;
const KEY: u32 = 2;

fn row_schema() -> Value {
    json!({"type": "record", "name": "Value", "fields": [
        {"name": "id", "type": "long"},
        {"name": "status", "type": ["null", "string"], "default": null},
        {"name": "amount", "type": ["null", {"type": "bytes", "logicalType": "decimal", "precision": 12, "scale": 2}]},
        {"name": "note", "type": ["null", "string"], "default": null},
        {"name": "at", "type": ["null", "long"], "default": null}]})
}

/// What a registry answers to those who read the topic.
pub fn answers(has_envelopes: bool) -> Vec<(&'static str, Value)> {
    let envelope = json!({"type": "record", "name": "Envelope", "fields": [
        {"name": "before", "type": ["null", row_schema()], "default": null},
        {"name": "after", "type": ["null", "Value"], "default": null},
        {"name": "source", "type": ["null", {"type": "record", "name": "Source", "fields": [{"name": "ts_ms", "type": "long"}]}]},
        {"name": "op", "type": "string"}]});
    let value = if has_envelopes { envelope } else { row_schema() };
    let key = json!({"type": "record", "name": "Key", "fields": [{"name": "id", "type": "long"}]});
    let answer = |schema: &Value| json!({"schema": schema.to_string()});
    vec![("/schemas/ids/1", answer(&value)), ("/schemas/ids/2", answer(&key))]
}

fn long(value: i64) -> Vec<u8> {
    let mut rest = (value.cast_unsigned() << 1) ^ (value >> 63).cast_unsigned();
    let mut bytes = Vec::new();
    while rest >= 128 {
        bytes.push(rest as u8 | 128);
        rest >>= 7;
    }
    bytes.push(rest as u8);
    bytes
}

fn optional(value: &Value, write: impl Fn(&Value) -> Vec<u8>) -> Vec<u8> {
    if value.is_null() { long(0) } else { [long(1), write(value)].concat() }
}

fn text(value: &Value) -> Vec<u8> {
    let text = value.as_str().expect("a text");
    [long(text.len() as i64), text.as_bytes().to_vec()].concat()
}

/// A decimal with two digits behind the point, as its unscaled value.
fn decimal(value: &Value) -> Vec<u8> {
    let digits = value.as_str().expect("a decimal").replace('.', "");
    let unscaled: i64 = digits.parse().expect("digits");
    [long(8), unscaled.to_be_bytes().to_vec()].concat()
}

fn number(value: &Value) -> Vec<u8> {
    long(value.as_i64().expect("a number"))
}

fn row(row: &Value) -> Vec<u8> {
    let (status, note) = (optional(&row["status"], text), optional(&row["note"], text));
    [number(&row["id"]), status, optional(&row["amount"], decimal), note, optional(&row["at"], number)].concat()
}

fn framed(id: u32, body: Vec<u8>) -> Vec<u8> {
    [vec![0], id.to_be_bytes().to_vec(), body].concat()
}

/// A value in Avro that is written in JSON here: a row, or a change event without its schema.
pub fn value(value: &Value) -> Vec<u8> {
    let body = match value.get("op") {
        None => row(value),
        Some(op) => {
            let source = optional(&value["source"], |source| number(&source["ts_ms"]));
            [optional(&value["before"], row), optional(&value["after"], row), source, text(op)].concat()
        }
    };
    framed(VALUE, body)
}

pub fn key(id: i64) -> Vec<u8> {
    framed(KEY, long(id))
}
