//! Makes a plausible sample event of a stream from its column types, to try the stream with.

use std::fmt;

use serde_json::{Value, json};
use shared::stream::{ChangeFormat, Column, Stream, TimeFormat};
use shared::time::Micros;
use shared::types::DataType;

/// Returns one event as JSON, with its fields in the order of the columns and its times at `now`.
pub fn event(stream: &Stream, now: Micros) -> String {
    let mut event = Members::default();
    for (index, column) in stream.read_columns() {
        let value = match column.data_type {
            DataType::String if stream.primary_key == Some(index) => json!("sample-1"),
            _ => value(column, now),
        };
        event.insert(column.field().levels(), value);
    }
    match stream.table.map(|table| table.format) {
        Some(ChangeFormat::Debezium | ChangeFormat::Postgres) => {
            let millis = now.0 / 1_000;
            format!(r#"{{"op":"c","source":{{"ts_ms":{millis}}},"after":{event}}}"#)
        }
        Some(ChangeFormat::Upsert) | None => event.to_string(),
    }
}

/// The members of an object, in order.
#[derive(Default)]
struct Members(Vec<(String, Member)>);

enum Member {
    Value(Value),
    Object(Members),
}

impl Members {
    fn insert(&mut self, levels: &[String], value: Value) {
        let [name, inner @ ..] = levels else { return };
        if inner.is_empty() {
            return self.0.push((name.clone(), Member::Value(value)));
        }
        let at = self.0.iter().position(|(known, _)| known == name).unwrap_or_else(|| {
            self.0.push((name.clone(), Member::Object(Members::default())));
            self.0.len() - 1
        });
        if let Member::Object(members) = &mut self.0[at].1 {
            members.insert(inner, value);
        }
    }
}

impl fmt::Display for Members {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("{")?;
        for (index, (name, member)) in self.0.iter().enumerate() {
            let comma = if index == 0 { "" } else { "," };
            write!(f, "{comma}{}:", Value::from(name.as_str()))?;
            match member {
                Member::Value(value) => write!(f, "{value}")?,
                Member::Object(members) => write!(f, "{members}")?,
            }
        }
        f.write_str("}")
    }
}

fn value(column: &Column, now: Micros) -> Value {
    match column.data_type {
        DataType::Boolean => json!(true),
        DataType::Int | DataType::BigInt => json!(1),
        DataType::Double => json!(1.5),
        // As text: a JSON number may lose digits on the way, and this one fits every scale.
        DataType::Decimal { .. } if column.is_base64 => json!("AA=="),
        DataType::Decimal { .. } => json!("0"),
        DataType::String | DataType::Json => json!("sample"),
        DataType::Date => json!(now.day().to_string()),
        DataType::Timestamp => match &column.format {
            None => json!(now.to_string()),
            Some(format) => time(format, now),
        },
    }
}

/// Counts as numbers, other times as text.
fn time(format: &TimeFormat, now: Micros) -> Value {
    let text = format.write(now);
    match (format, text.parse::<i64>()) {
        (TimeFormat::Unix(_), Ok(count)) => json!(count),
        _ => json!(text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_keep_their_order_and_types() {
        let text = "CREATE STREAM s (id STRING PRIMARY KEY, at TIMESTAMP, day DATE, price DECIMAL(9,2), n BIGINT, \
                    ratio DOUBLE, ok BOOLEAN, name STRING) WITH (event_time = 'at')";
        let definitions = shared::sql::parse_definitions(&[("s".to_owned(), text.to_owned())]).expect("right");
        let now = Micros::parse("2024-02-29T10:00:00Z").expect("a time");
        assert_eq!(
            event(&definitions.streams[0], now),
            r#"{"id":"sample-1","at":"2024-02-29T10:00:00Z","day":"2024-02-29","price":"0","n":1,"ratio":1.5,"ok":true,"name":"sample"}"#
        );
    }
}
