//! Opens topics and outboxes through the connections of the settings.

use std::collections::BTreeMap;

use futures::FutureExt;
use futures::future::BoxFuture;
use kafka::{ConnectionSettings, KrafkaReader, SchemaRegistry, TopicReader};
use postgres::{
    ColumnUse, ConnectionSettings as DatabaseSettings, FollowedTable, OutboxReader, PolledTable, PollingReader,
    SlotContent, SlotNames, SlotReader, Start, TableReader, TakenColumn,
};
use shared::ids::Name;
use shared::stream::{
    ChangeFormat, Column, DatabaseTable, EventSource, KafkaTopic, Outbox, OutboxMode, OutboxPart, OutboxSlot,
    RecordPart, Stream, TimeFormat, Transactions,
};
use shared::types::DataType;

use super::error::SourceError;

/// Opens the topic, the outbox or the table that a stream reads.
pub trait SourceOpener: Send + Sync {
    /// Connects to the brokers of the topic.
    fn open<'a>(
        &'a self,
        stream: &'a Stream,
        topic: &'a KafkaTopic,
    ) -> BoxFuture<'a, Result<Box<dyn TopicReader>, SourceError>>;

    /// Connects to the database of the outbox or the table, and checks that it can be read from `start`.
    fn open_database<'a>(
        &'a self,
        stream: &'a Stream,
        start: Start,
    ) -> BoxFuture<'a, Result<Box<dyn OutboxReader>, SourceError>> {
        let _ = start;
        let unknown = no_database(stream);
        async { Err(unknown) }.boxed()
    }

    /// The schema registry of the topic's connection.
    fn registry(&self, topic: &KafkaTopic) -> Result<SchemaRegistry, SourceError> {
        Err(SourceError::NoRegistry(topic.connection.to_string()))
    }
}

/// The clusters and databases of the settings, by the names of their connections.
#[derive(Debug, Clone, Default)]
pub struct Connections {
    pub clusters: BTreeMap<Name, ConnectionSettings>,
    pub databases: BTreeMap<Name, DatabaseSettings>,
}

impl SourceOpener for Connections {
    fn open<'a>(
        &'a self,
        stream: &'a Stream,
        topic: &'a KafkaTopic,
    ) -> BoxFuture<'a, Result<Box<dyn TopicReader>, SourceError>> {
        async move {
            let settings = self.clusters.get(&topic.connection);
            let settings = settings.ok_or_else(|| SourceError::NoConnection(topic.connection.to_string()))?;
            let reader = KrafkaReader::connect(settings, &topic.topic, &format!("trueup-{}", stream.name)).await?;
            Ok(Box::new(reader) as Box<dyn TopicReader>)
        }
        .boxed()
    }

    fn open_database<'a>(
        &'a self,
        stream: &'a Stream,
        start: Start,
    ) -> BoxFuture<'a, Result<Box<dyn OutboxReader>, SourceError>> {
        async move {
            let settings = stream.database().and_then(|connection| self.databases.get(connection));
            let settings = settings.ok_or_else(|| no_database(stream))?;
            let application = format!("trueup-{}", stream.name);
            match &stream.source {
                EventSource::Postgres(outbox) => open_outbox(settings, &application, stream, outbox, start).await,
                EventSource::PostgresTable(table) => {
                    let reader = TableReader::connect(settings, &application, followed(stream, table)?, start).await?;
                    Ok(Box::new(reader) as Box<dyn OutboxReader>)
                }
                EventSource::Http | EventSource::Kafka(_) => Err(no_database(stream)),
            }
        }
        .boxed()
    }

    fn registry(&self, topic: &KafkaTopic) -> Result<SchemaRegistry, SourceError> {
        let settings = self.clusters.get(&topic.connection).and_then(|settings| settings.schema_registry.clone());
        let settings = settings.ok_or_else(|| SourceError::NoRegistry(topic.connection.to_string()))?;
        SchemaRegistry::new(settings).map_err(SourceError::Decode)
    }
}

fn no_database(stream: &Stream) -> SourceError {
    SourceError::NoConnection(stream.database().map_or_else(String::new, ToString::to_string))
}

async fn open_outbox(
    settings: &DatabaseSettings,
    application: &str,
    stream: &Stream,
    outbox: &Outbox,
    start: Start,
) -> Result<Box<dyn OutboxReader>, SourceError> {
    let parts = columns_of_parts(stream, outbox);
    let (table, payload) = (outbox.name.clone(), outbox.columns.payload.clone());
    let content = match outbox.mode {
        OutboxMode::Messages => SlotContent::Messages { prefix: table },
        OutboxMode::Decoding => SlotContent::Rows { table, payload, parts },
        OutboxMode::Polling => {
            let (id, txid) = (outbox.columns.id.clone(), outbox.columns.txid.clone());
            let timestamp = outbox.columns.timestamp.clone();
            let polled = PolledTable { table, id, txid, payload, timestamp, parts };
            let reader = PollingReader::connect(settings, application, polled, start).await?;
            return Ok(Box::new(reader));
        }
    };
    let what = (slot_names(&outbox.slot), content, has_part(stream, OutboxPart::Lsn));
    Ok(Box::new(SlotReader::connect(settings, application, what, start).await?))
}

fn slot_names(OutboxSlot { slot, publication }: &OutboxSlot) -> SlotNames {
    SlotNames { slot: slot.clone(), publication: publication.clone() }
}

/// What a table of Trueup takes of the table that it follows.
fn followed(stream: &Stream, table: &DatabaseTable) -> Result<FollowedTable, SourceError> {
    let no_table = || SourceError::Decode(format!("{} is not a table", stream.name));
    let row_key = stream.table.ok_or_else(no_table)?.key;
    let (mut columns, mut key) = (Vec::new(), Vec::new());
    for (index, column) in stream.read_columns() {
        key.extend(row_key.contains(&index).then_some(columns.len()));
        columns.push(TakenColumn {
            // A declaration has no path of several levels.
            name: column.field().levels().concat(),
            declared: column.data_type.to_string(),
            takes: column_use(column),
        });
    }
    Ok(FollowedTable {
        table: table.name.clone(),
        columns,
        key,
        names: slot_names(&table.slot),
        unchanged: ChangeFormat::UNCHANGED,
        marks_commits: table.transactions == Transactions::Whole,
    })
}

fn column_use(column: &Column) -> ColumnUse {
    match (column.data_type, &column.format) {
        (DataType::Boolean, _) => ColumnUse::Boolean,
        (DataType::Int, _) => ColumnUse::Int,
        (DataType::BigInt, _) => ColumnUse::BigInt,
        (DataType::Double, _) => ColumnUse::Double,
        (DataType::Decimal { precision, scale }, _) => ColumnUse::Decimal { precision, scale },
        (DataType::Date, _) => ColumnUse::Date,
        (DataType::Timestamp, None | Some(TimeFormat::Rfc3339)) => ColumnUse::Timestamp,
        (DataType::Timestamp, Some(TimeFormat::Unix(_))) => ColumnUse::Number,
        (DataType::Timestamp, Some(TimeFormat::Pattern(_))) | (DataType::String | DataType::Json, _) => ColumnUse::Text,
    }
}

/// Whether a column of the stream holds this part.
fn has_part(stream: &Stream, part: OutboxPart) -> bool {
    stream.own_columns().any(|(_, column)| column.metadata == Some(RecordPart::Outbox(part)))
}

/// The parts that the stream has, with the columns of the table that have them.
fn columns_of_parts(stream: &Stream, outbox: &Outbox) -> Vec<(&'static str, String)> {
    let parts = OutboxPart::ALL.into_iter().filter(|part| has_part(stream, *part));
    parts.filter_map(|part| Some((part.name(), outbox.column(part)?.to_owned()))).collect()
}
