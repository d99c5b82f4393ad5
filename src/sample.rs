//! What might an event of a stream look like? A plausible one made from the column types, to try a stream with.

use serde_json::{Value, json};
use shared::stream::Stream;
use shared::time::Micros;
use shared::types::DataType;

/// One event as JSON, its columns in order, its times at `now`.
pub fn event(stream: &Stream, now: Micros) -> String {
    let fields = stream.columns.iter().enumerate().map(|(index, column)| {
        let value = match column.data_type {
            DataType::String if stream.primary_key == Some(index) => json!("sample-1"),
            other => value(other, now),
        };
        format!("{}:{value}", Value::from(column.name.as_str()))
    });
    format!("{{{}}}", fields.collect::<Vec<_>>().join(","))
}

fn value(data_type: DataType, now: Micros) -> Value {
    match data_type {
        DataType::Boolean => json!(true),
        DataType::Int | DataType::BigInt => json!(1),
        DataType::Double => json!(1.5),
        // As text: a JSON number may lose digits on the way, and this one fits every scale.
        DataType::Decimal { .. } => json!("0"),
        DataType::String | DataType::Json => json!("sample"),
        DataType::Date => json!(now.day().to_string()),
        DataType::Timestamp => json!(now.to_string()),
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
