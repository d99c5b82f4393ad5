//! Reads the options of a stream that reads an outbox in PostgreSQL, and checks the columns that hold parts of its events.

use sqlparser::tokenizer::Span;

use super::cursor::Identifier;
use super::error::SqlError;
use super::options::SqlOption;
use super::source::Source;
use super::suggest::{did_you_mean, one_of};
use crate::ids::Name;
use crate::stream::{Column, Outbox, OutboxColumns, OutboxMode, OutboxPart, OutboxSlot, RecordPart};

/// Options that only such a stream has.
pub(super) const OF_OUTBOX: [&str; 6] = ["mode", "outbox", "columns", "prefix", "slot", "publication"];
/// Options of other streams, with the reason why an outbox has none.
const REFUSED: [(&str, &str); 9] = [
    ("table", "the table of an outbox is named by `outbox`; to follow the rows of any table, use CREATE TABLE"),
    ("transactions", "each row of an outbox is an event of its own; remove `transactions`"),
    ("transaction_topic", "each row of an outbox is an event of its own; remove `transaction_topic`"),
    ("topic", "`topic` is an option of streams that read Kafka; remove it"),
    ("format", "an outbox has JSON; remove `format`"),
    ("start", "an outbox is read from its first row, or from the creation of its slot; remove `start`"),
    ("group", "`group` is an option of streams that read Kafka; remove it"),
    ("partitions", "an outbox is one partition, in the order of its transactions; remove `partitions`"),
    ("entity", "`entity` is not supported for streams that read an outbox"),
];
/// Longest name in PostgreSQL, in bytes.
const NAME_BYTES_MAX: usize = 63;

/// Reads the options of the stream `name`.
pub(super) fn outbox<'o>(
    source: &Source,
    kind: &SqlOption,
    name: &Identifier,
    option: &dyn Fn(&str) -> Option<&'o SqlOption>,
) -> Result<Outbox, SqlError> {
    for (other, reason) in REFUSED {
        if let Some(option) = option(other) {
            return Err(option.error(source, reason));
        }
    }
    let Some(connection) = option("connection") else {
        let error = kind.error(source, "a stream that reads PostgreSQL needs `connection`");
        return Err(error.help("name a [connections.NAME] of trueup.toml with kind = \"postgres\""));
    };
    let mode = match option("mode") {
        None => OutboxMode::Decoding,
        Some(option) => OutboxMode::named(&option.value).ok_or_else(|| {
            let help = did_you_mean(&option.value, OutboxMode::NAMES)
                .unwrap_or_else(|| format!("use {}", one_of(&OutboxMode::NAMES)));
            option.error(source, format!("unknown mode '{}'", option.value)).help(help)
        })?,
    };
    for other in unused(mode) {
        if let Some(option) = option(other) {
            return Err(option.error(source, format!("mode = '{mode}' has no `{other}`; remove it")));
        }
    }
    let named = |name: &str, default: &str| database_name(source, option(name), default);
    Ok(Outbox {
        connection: connection.value.parse::<Name>().map_err(|error| connection.error(source, error.to_string()))?,
        mode,
        name: match mode {
            OutboxMode::Messages => named("prefix", "trueup")?,
            _ => option("outbox").map_or_else(|| Ok("outbox".to_owned()), |option| table_name(source, option))?,
        },
        columns: option("columns").map_or(Ok(OutboxColumns::default()), |option| columns(source, option, mode))?,
        slot: slot(source, name, option("slot"), mode != OutboxMode::Polling, &named)?,
    })
}

/// The options that a mode does not have.
fn unused(mode: OutboxMode) -> &'static [&'static str] {
    match mode {
        OutboxMode::Decoding => &["prefix"],
        OutboxMode::Messages => &["outbox", "columns"],
        OutboxMode::Polling => &["prefix", "slot", "publication"],
    }
}

/// The value of an option that names something in a database.
pub(super) fn database_name(source: &Source, option: Option<&SqlOption>, default: &str) -> Result<String, SqlError> {
    let Some(option) = option else { return Ok(default.to_owned()) };
    match (1..=NAME_BYTES_MAX).contains(&option.value.len()) {
        true => Ok(option.value.clone()),
        false => Err(option.error(source, format!("`{}` has 1 to {NAME_BYTES_MAX} bytes", option.name))),
    }
}

/// The slot and the publication of the stream or table `name`. `is_used`: the log is decoded, so the slot needs a legal name.
pub(super) fn slot(
    source: &Source,
    name: &Identifier,
    option: Option<&SqlOption>,
    is_used: bool,
    named: &dyn Fn(&str, &str) -> Result<String, SqlError>,
) -> Result<OutboxSlot, SqlError> {
    let default = format!("trueup_{}", name.name);
    let names = OutboxSlot { slot: named("slot", &default)?, publication: named("publication", &default)? };
    let is_legal = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_';
    if !is_used || names.slot.len() <= NAME_BYTES_MAX && names.slot.bytes().all(is_legal) {
        return Ok(names);
    }
    let message = format!("'{}' is not the name of a slot: 1 to {NAME_BYTES_MAX} of a-z, 0-9 and _", names.slot);
    Err(match option {
        Some(option) => option.error(source, message),
        None => source.error(name.span, message).help("add slot = '..' and publication = '..'"),
    })
}

/// The value of an option that names a table.
pub(super) fn table_name(source: &Source, option: &SqlOption) -> Result<String, SqlError> {
    let parts: Vec<&str> = option.value.split('.').collect();
    let is_name = |part: &&str| (1..=NAME_BYTES_MAX).contains(&part.len()) && !part.contains('\0');
    match parts.len() <= 2 && parts.iter().all(is_name) {
        true => Ok(option.value.clone()),
        false => Err(option.error(source, format!("'{}' is not a table: write NAME or SCHEMA.NAME", option.value))),
    }
}

/// Reads `id = event_id, payload = body`.
fn columns(source: &Source, option: &SqlOption, mode: OutboxMode) -> Result<OutboxColumns, SqlError> {
    let mut columns = OutboxColumns::default();
    for pair in option.value.split(',') {
        let Some((name, column)) = pair.split_once('=') else {
            let error = option.error(source, format!("'{}' names no column", pair.trim()));
            return Err(error.help("write pairs such as 'id = event_id, payload = body'"));
        };
        let (name, column) = (name.trim(), column.trim());
        if column.is_empty() || column.len() > NAME_BYTES_MAX {
            return Err(option.error(source, format!("the column for {name} has 1 to {NAME_BYTES_MAX} bytes")));
        }
        if matches!(name, "txid" | "timestamp") && mode != OutboxMode::Polling {
            let message = format!("`{name}` is a column for mode = 'polling'; logical decoding knows it without one");
            return Err(option.error(source, message));
        }
        if !columns.set(name, column.to_owned()) {
            let help = did_you_mean(name, OutboxColumns::NAMES)
                .unwrap_or_else(|| format!("they are {}", OutboxColumns::NAMES.join(", ")));
            return Err(option.error(source, format!("an outbox has no '{name}'")).help(help));
        }
    }
    Ok(columns)
}

/// Refuses columns that hold parts which the events of the outbox do not have.
pub(super) fn check_parts(
    source: &Source,
    outbox: &Outbox,
    columns: &[Column],
    spans: &[Span],
) -> Result<(), SqlError> {
    for (column, span) in columns.iter().zip(spans) {
        let (message, help) = match &column.metadata {
            None => continue,
            Some(RecordPart::Outbox(part)) if outbox.has(*part) => continue,
            Some(RecordPart::Timestamp) if outbox.has_timestamp() => continue,
            Some(RecordPart::Timestamp) => (
                "polling does not know when a row was committed".to_owned(),
                "name a column: columns = 'timestamp = created_at'".to_owned(),
            ),
            Some(part) => {
                let parts = OutboxPart::ALL.into_iter().filter(|part| outbox.has(*part)).map(OutboxPart::name);
                let parts: Vec<&str> = parts.chain(["timestamp"]).collect();
                let help = match outbox.mode {
                    OutboxMode::Messages => format!("use {}, or a field of the message", one_of(&parts)),
                    _ => format!("use {}", one_of(&parts)),
                };
                (format!("events of this outbox have no {part}"), help)
            }
        };
        return Err(source.error(*span, message).help(help));
    }
    Ok(())
}
