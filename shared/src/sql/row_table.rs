//! Reads what only `CREATE TABLE` has: the key of the rows and the form of the changes. Refuses options that a table cannot have.

use sqlparser::tokenizer::Span;

use super::cursor::Identifier;
use super::error::SqlError;
use super::options::SqlOption;
use super::source::Source;
use super::suggest::did_you_mean;
use crate::limits::KEY_COLUMNS_MAX;
use crate::stream::{ChangeFormat, Column, EventSource, KeyColumns, RecordFormat, RowTable};
use crate::types::DataType;

/// Options of streams that tables do not have, with the reason.
const REFUSED: [(&str, &str); 4] = [
    ("entity", "the rows of a table are named by its PRIMARY KEY; remove `entity`"),
    (
        "allowed_lateness",
        "a change of a table is never late: it retracts and asserts rows of any time; remove `allowed_lateness`",
    ),
    ("max_age", "a row can change at any age; remove `max_age`"),
    ("retention", "a table keeps all its changes: without the old ones its rows would be unknown; remove `retention`"),
];

/// Reads the key and the format of the table `name` whose events come from `events`.
pub(super) fn row_table(
    source: &Source,
    name: &Identifier,
    (columns, key): (&[Column], &[usize]),
    spans: &[Span],
    options: &[SqlOption],
    events: &EventSource,
) -> Result<RowTable, SqlError> {
    let option = |name: &str| options.iter().find(|option| option.name == name);
    for (other, reason) in REFUSED {
        if let Some(option) = option(other) {
            return Err(option.error(source, reason));
        }
    }
    if key.is_empty() {
        let error = source.error(name.span, "a table needs a PRIMARY KEY, which names its rows");
        return Err(error.help("write `id BIGINT PRIMARY KEY`, or declare a stream"));
    }
    for index in key {
        let (Column { name, data_type, metadata, .. }, span) = (&columns[*index], spans[*index]);
        if !matches!(data_type, DataType::String | DataType::Int | DataType::BigInt) {
            let message = format!("the key of a table is a STRING, INT or BIGINT, but `{name}` is {data_type}");
            return Err(source.error(span, message));
        }
        if metadata.is_some() {
            return Err(source.error(span, "the key of a table is a column of its rows, not a part of a record"));
        }
    }
    let Some(key) = KeyColumns::new(key) else {
        let message = format!("the key of a table has at most {KEY_COLUMNS_MAX} columns, not {}", key.len());
        return Err(source.error(name.span, message));
    };
    let format = match (events, option("format")) {
        (EventSource::Kafka(topic), found) => match topic.format {
            RecordFormat::Json | RecordFormat::Avro => ChangeFormat::Upsert,
            RecordFormat::DebeziumJson | RecordFormat::DebeziumAvro => ChangeFormat::Debezium,
            other => {
                let message = format!("tables are not read from topics in the format '{other}' yet");
                let error = found
                    .map_or_else(|| source.error(name.span, message.clone()), |o| o.error(source, message.clone()));
                return Err(error.help("use 'json', 'avro', 'debezium-json' or 'debezium-avro'"));
            }
        },
        (EventSource::PostgresTable(_), _) => ChangeFormat::Postgres,
        // A table cannot name an outbox.
        (EventSource::Http | EventSource::Postgres(_), None) => ChangeFormat::Upsert,
        (EventSource::Http | EventSource::Postgres(_), Some(option)) => {
            ChangeFormat::named(&option.value).ok_or_else(|| {
                let help = did_you_mean(&option.value, ChangeFormat::NAMES)
                    .unwrap_or_else(|| format!("the formats of tables are {}", ChangeFormat::NAMES.join(" and ")));
                option.error(source, format!("unknown format '{}' of a table", option.value)).help(help)
            })?
        }
    };
    Ok(RowTable { key, format })
}
