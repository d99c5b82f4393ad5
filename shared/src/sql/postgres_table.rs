//! Reads the options of a table that follows a table in PostgreSQL, and checks how its columns are read.

use sqlparser::tokenizer::Span;

use super::cursor::Identifier;
use super::error::SqlError;
use super::options::SqlOption;
use super::outbox::{database_name, slot, table_name};
use super::source::Source;
use super::suggest::{did_you_mean, one_of};
use crate::ids::Name;
use crate::stream::{Column, DatabaseTable, Transactions};

/// Options that only such a table has.
pub(super) const OF_TABLE: [&str; 1] = ["table"];
/// Options of others, with the reason why such a table has none.
const REFUSED: [(&str, &str); 10] = [
    ("topic", "`topic` is an option of tables that read Kafka; remove it"),
    ("format", "the changes of a table in PostgreSQL have one format; remove `format`"),
    ("start", "a table starts with all rows that it has; remove `start`"),
    ("group", "`group` is an option of tables that read Kafka; remove it"),
    ("partitions", "a table in PostgreSQL is one partition, in the order of its transactions; remove `partitions`"),
    ("transaction_topic", "PostgreSQL says itself where transactions end; remove `transaction_topic`"),
    ("mode", "`mode` is how an outbox is read; the changes of a table are always decoded: remove it"),
    ("outbox", "`outbox` is an option of streams; name the table: table = '..'"),
    ("columns", "the columns of a table are read by their names; for another name write `a BIGINT FROM '/b'`"),
    ("prefix", "`prefix` is an option of streams that read messages; remove it"),
];

/// Reads the options of the table `name`.
pub(super) fn postgres_table<'o>(
    source: &Source,
    kind: &SqlOption,
    name: &Identifier,
    option: &dyn Fn(&str) -> Option<&'o SqlOption>,
) -> Result<DatabaseTable, SqlError> {
    for (other, reason) in REFUSED {
        if let Some(option) = option(other) {
            return Err(option.error(source, reason));
        }
    }
    let required = |name: &str, help: &str| {
        let missing = || kind.error(source, format!("a table that reads PostgreSQL needs `{name}`")).help(help);
        option(name).ok_or_else(missing)
    };
    let connection = required("connection", "name a [connections.NAME] of trueup.toml with kind = \"postgres\"")?;
    let table = required("table", "add table = 'SCHEMA.NAME'")?;
    Ok(DatabaseTable {
        connection: connection.value.parse::<Name>().map_err(|error| connection.error(source, error.to_string()))?,
        name: table_name(source, table)?,
        slot: slot(source, name, option("slot"), true, &|name, default| database_name(source, option(name), default))?,
        transactions: option("transactions").map_or(Ok(Transactions::Parts), |option| transactions(source, option))?,
    })
}

/// Reads the option `transactions`.
pub(super) fn transactions(source: &Source, option: &SqlOption) -> Result<Transactions, SqlError> {
    Transactions::named(&option.value).ok_or_else(|| {
        let help = did_you_mean(&option.value, Transactions::NAMES)
            .unwrap_or_else(|| format!("use {}", one_of(&Transactions::NAMES)));
        option.error(source, format!("unknown value '{}' of `transactions`", option.value)).help(help)
    })
}

/// Refuses columns that are not columns of the table or parts of its changes.
pub(super) fn check_columns(source: &Source, columns: &[Column], spans: &[Span]) -> Result<(), SqlError> {
    for (column, span) in columns.iter().zip(spans) {
        let (message, help) = match &column.metadata {
            Some(part) if DatabaseTable::has(part) => continue,
            Some(part) => (
                format!("changes of a table in PostgreSQL have no {part}"),
                format!("use {}, or a column of the table", one_of(&["op", "source.timestamp", "timestamp"])),
            ),
            None if column.field().levels().len() > 1 => (
                format!("`{}` is read from within a value, and a table in PostgreSQL has columns", column.name),
                "declare the whole column as STRING".to_owned(),
            ),
            None if column.is_base64 => {
                ("PostgreSQL has decimals as they are, not in Base64".to_owned(), "remove FORMAT 'base64'".to_owned())
            }
            None => continue,
        };
        return Err(source.error(*span, message).help(help));
    }
    Ok(())
}
