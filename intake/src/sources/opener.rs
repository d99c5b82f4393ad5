//! Opens topics and outboxes through the connections of the settings.

use std::collections::BTreeMap;

use futures::FutureExt;
use futures::future::BoxFuture;
use kafka::{ConnectionSettings, KrafkaReader, SchemaRegistry, TopicReader};
use postgres::{
    ConnectionSettings as DatabaseSettings, OutboxReader, PolledTable, PollingReader, SlotContent, SlotNames,
    SlotReader, Start,
};
use shared::ids::Name;
use shared::stream::{KafkaTopic, Outbox, OutboxMode, OutboxPart, OutboxSlot, RecordPart, Stream};

use super::error::SourceError;

/// Opens the topic or the outbox of a stream.
pub trait SourceOpener: Send + Sync {
    /// Connects to the brokers of the topic.
    fn open<'a>(
        &'a self,
        stream: &'a Stream,
        topic: &'a KafkaTopic,
    ) -> BoxFuture<'a, Result<Box<dyn TopicReader>, SourceError>>;

    /// Connects to the database of the outbox, and checks that it can be read from `start`.
    fn open_outbox<'a>(
        &'a self,
        stream: &'a Stream,
        outbox: &'a Outbox,
        start: Start,
    ) -> BoxFuture<'a, Result<Box<dyn OutboxReader>, SourceError>> {
        let _ = (stream, start);
        let unknown = SourceError::NoConnection(outbox.connection.to_string());
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

    fn open_outbox<'a>(
        &'a self,
        stream: &'a Stream,
        outbox: &'a Outbox,
        start: Start,
    ) -> BoxFuture<'a, Result<Box<dyn OutboxReader>, SourceError>> {
        async move {
            let settings = self.databases.get(&outbox.connection);
            let settings = settings.ok_or_else(|| SourceError::NoConnection(outbox.connection.to_string()))?;
            let (application, parts) = (format!("trueup-{}", stream.name), columns_of_parts(stream, outbox));
            let (table, payload) = (outbox.name.clone(), outbox.columns.payload.clone());
            let content = match outbox.mode {
                OutboxMode::Messages => SlotContent::Messages { prefix: table },
                OutboxMode::Decoding => SlotContent::Rows { table, payload, parts },
                OutboxMode::Polling => {
                    let (id, txid) = (outbox.columns.id.clone(), outbox.columns.txid.clone());
                    let timestamp = outbox.columns.timestamp.clone();
                    let polled = PolledTable { table, id, txid, payload, timestamp, parts };
                    let reader = PollingReader::connect(settings, &application, polled, start).await?;
                    return Ok(Box::new(reader) as Box<dyn OutboxReader>);
                }
            };
            let OutboxSlot { slot, publication } = outbox.slot.clone();
            let has_lsn = has_part(stream, OutboxPart::Lsn);
            let what = (SlotNames { slot, publication }, content, has_lsn);
            let reader = SlotReader::connect(settings, &application, what, start).await?;
            Ok(Box::new(reader) as Box<dyn OutboxReader>)
        }
        .boxed()
    }

    fn registry(&self, topic: &KafkaTopic) -> Result<SchemaRegistry, SourceError> {
        let settings = self.clusters.get(&topic.connection).and_then(|settings| settings.schema_registry.clone());
        let settings = settings.ok_or_else(|| SourceError::NoRegistry(topic.connection.to_string()))?;
        SchemaRegistry::new(settings).map_err(SourceError::Decode)
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
