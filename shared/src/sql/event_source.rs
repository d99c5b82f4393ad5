//! Reads the options of a stream that say where its events come from, and refuses those that belong to another source.

use super::cursor::Identifier;
use super::error::SqlError;
use super::options::SqlOption;
use super::outbox::{OF_OUTBOX, outbox};
use super::postgres_table::{OF_TABLE, postgres_table, transactions};
use super::source::Source;
use super::suggest::did_you_mean;
use crate::ids::Name;
use crate::stream::event_source::is_topic_name;
use crate::stream::{EventSource, KafkaTopic, RecordFormat, TopicStart, Transactions};

/// Options that only a stream that reads a topic has.
const OF_TOPIC: [&str; 5] = ["connection", "topic", "format", "start", "group"];
/// Options of tables whose source has transactions.
const OF_TRANSACTIONS: [&str; 2] = ["transactions", "transaction_topic"];
/// The values of the option `source`.
const SOURCES: [&str; 3] = ["http", "kafka", "postgres"];
/// Longest name of a consumer group, in bytes: the protocol's limit of a short text is far above.
const GROUP_BYTES_MAX: usize = 255;

/// The source of the stream or table `name`.
pub(super) fn event_source(
    source: &Source,
    (name, is_table): (&Identifier, bool),
    options: &[SqlOption],
) -> Result<EventSource, SqlError> {
    let option = |name: &str| options.iter().find(|option| option.name == name);
    let Some(kind) = option("source").filter(|kind| kind.value != "http") else {
        // The changes of a table have a format wherever they come from.
        let of_topic = OF_TOPIC.iter().filter(|name| !(is_table && **name == "format"));
        if let Some(stray) = OF_OUTBOX.iter().chain(&OF_TABLE).find_map(|name| option(name)) {
            return Err(of_database(source, stray));
        }
        if let Some(stray) = OF_TRANSACTIONS.iter().find_map(|name| option(name)) {
            let message =
                format!("`{}` is an option of tables that follow PostgreSQL or read topics of Debezium", stray.name);
            return Err(stray.error(source, message).help(format!("remove `{}`", stray.name)));
        }
        return match of_topic.filter_map(|name| option(name)).next() {
            Some(stray) => {
                let message = format!("`{}` is an option of streams that read a topic", stray.name);
                Err(stray.error(source, message).help(format!("add source = 'kafka', or remove `{}`", stray.name)))
            }
            None => Ok(EventSource::Http),
        };
    };
    match kind.value.as_str() {
        "kafka" => match OF_OUTBOX.iter().chain(&OF_TABLE).find_map(|name| option(name)) {
            Some(stray) => Err(of_database(source, stray)),
            None => Ok(EventSource::Kafka(kafka_topic(source, kind, (name, is_table), &option)?)),
        },
        "postgres" if is_table => Ok(EventSource::PostgresTable(postgres_table(source, kind, name, &option)?)),
        "postgres" => Ok(EventSource::Postgres(outbox(source, kind, name, &option)?)),
        "debezium" => {
            let error = kind.error(source, "'debezium' is a record format, not a source");
            Err(error.help("write source = 'kafka' and format = 'debezium-json' or 'debezium-avro'"))
        }
        other => {
            let help =
                did_you_mean(other, SOURCES).unwrap_or_else(|| format!("the sources are {}", SOURCES.join(", ")));
            Err(kind.error(source, format!("unknown source '{other}'")).help(help))
        }
    }
}

fn kafka_topic<'o>(
    source: &Source,
    kind: &SqlOption,
    (name, is_table): (&Identifier, bool),
    option: &dyn Fn(&str) -> Option<&'o SqlOption>,
) -> Result<KafkaTopic, SqlError> {
    let required = |name: &str, help: &str| {
        option(name).ok_or_else(|| kind.error(source, format!("a stream that reads Kafka needs `{name}`")).help(help))
    };
    for (other, reason) in [
        ("partitions", "the partitions of the stream are those of the topic; remove `partitions`"),
        (
            "entity",
            "`entity` is not supported for streams that read a topic: its partitions need not follow the entity",
        ),
    ] {
        if let Some(option) = option(other) {
            return Err(option.error(source, reason));
        }
    }
    let connection = required("connection", "name a [connections.NAME] of trueup.toml with kind = \"kafka\"")?;
    let topic = required("topic", "add topic = '..'")?;
    let topic = topic_name(source, topic)?;
    let format = match option("format") {
        None => RecordFormat::Json,
        Some(option) => RecordFormat::named(&option.value).ok_or_else(|| unknown_format(source, option))?,
    };
    let start = match option("start") {
        None => TopicStart::Earliest,
        Some(option) => TopicStart::parse(&option.value).ok_or_else(|| {
            let error = option.error(source, format!("cannot start at '{}'", option.value));
            error.help(
                "write 'earliest', 'latest', a time such as '2026-11-01T00:00:00Z', or offsets such as '0:42,1:7'",
            )
        })?,
    };
    let group = match option("group") {
        None => format!("trueup-{}", name.name),
        Some(option) if (1..=GROUP_BYTES_MAX).contains(&option.value.len()) => option.value.clone(),
        Some(option) => {
            return Err(option.error(source, format!("the name of a group has 1 to {GROUP_BYTES_MAX} bytes")));
        }
    };
    Ok(KafkaTopic {
        connection: connection.value.parse::<Name>().map_err(|error| connection.error(source, error.to_string()))?,
        topic,
        format,
        start,
        group,
        transaction_topic: transaction_topic(source, is_table, format, option)?,
    })
}

fn topic_name(source: &Source, option: &SqlOption) -> Result<String, SqlError> {
    match is_topic_name(&option.value) {
        true => Ok(option.value.clone()),
        false => {
            let value = &option.value;
            let message = format!("'{value}' is not the name of a topic: 1 to 249 of a-z, A-Z, 0-9, `.`, `_` and `-`");
            Err(option.error(source, message))
        }
    }
}

/// The topic with the ends of transactions, if they become visible whole.
fn transaction_topic<'o>(
    source: &Source,
    is_table: bool,
    format: RecordFormat,
    option: &dyn Fn(&str) -> Option<&'o SqlOption>,
) -> Result<Option<String>, SqlError> {
    let (kind, topic) = (option("transactions"), option("transaction_topic"));
    let is_whole = kind.map(|kind| transactions(source, kind)).transpose()? == Some(Transactions::Whole);
    match (kind.filter(|_| is_whole), topic) {
        (None, None) => Ok(None),
        (None, Some(topic)) => {
            let error = topic.error(source, "`transaction_topic` is needed for whole transactions only");
            Err(error.help("add transactions = 'whole', or remove `transaction_topic`"))
        }
        (Some(kind), _) if !is_table || format != RecordFormat::DebeziumJson => {
            let error =
                kind.error(source, "only tables with format = 'debezium-json' know the transactions of their topic");
            Err(error.help("remove `transactions`"))
        }
        (Some(kind), None) => {
            let error =
                kind.error(source, "whole transactions of a topic need `transaction_topic`, which says where they end");
            Err(error.help(
                "set provide.transaction.metadata = true in Debezium, and add transaction_topic = 'PREFIX.transaction'",
            ))
        }
        (Some(_), Some(topic)) => topic_name(source, topic).map(Some),
    }
}

fn of_database(source: &Source, stray: &SqlOption) -> SqlError {
    let readers = if OF_TABLE.contains(&stray.name.as_str()) {
        "tables that read PostgreSQL"
    } else {
        "streams that read an outbox"
    };
    let message = format!("`{}` is an option of {readers}", stray.name);
    stray.error(source, message).help(format!("set source = 'postgres', or remove `{}`", stray.name))
}

fn unknown_format(source: &Source, option: &SqlOption) -> SqlError {
    let value = option.value.as_str();
    let help = did_you_mean(value, RecordFormat::NAMES)
        .unwrap_or_else(|| format!("the formats are {}", RecordFormat::NAMES.join(", ")));
    option.error(source, format!("unknown format '{value}'")).help(help)
}
