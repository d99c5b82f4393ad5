//! Opens topics through the connections of the settings.

use std::collections::BTreeMap;

use futures::FutureExt;
use futures::future::BoxFuture;
use kafka::{ConnectionSettings, KrafkaReader, SchemaRegistry, TopicReader};
use shared::ids::{Name, StreamName};
use shared::stream::KafkaTopic;

use super::error::SourceError;

/// Opens the topic of a stream.
pub trait TopicOpener: Send + Sync {
    /// Connects to the brokers of the topic.
    fn open<'a>(
        &'a self,
        stream: &'a StreamName,
        topic: &'a KafkaTopic,
    ) -> BoxFuture<'a, Result<Box<dyn TopicReader>, SourceError>>;

    /// The schema registry of the topic's connection.
    fn registry(&self, topic: &KafkaTopic) -> Result<SchemaRegistry, SourceError> {
        Err(SourceError::NoRegistry(topic.connection.to_string()))
    }
}

/// The clusters of the settings, by the name of their connection.
#[derive(Debug, Clone, Default)]
pub struct Connections(pub BTreeMap<Name, ConnectionSettings>);

impl TopicOpener for Connections {
    fn open<'a>(
        &'a self,
        stream: &'a StreamName,
        topic: &'a KafkaTopic,
    ) -> BoxFuture<'a, Result<Box<dyn TopicReader>, SourceError>> {
        async move {
            let settings = self.0.get(&topic.connection);
            let settings = settings.ok_or_else(|| SourceError::NoConnection(topic.connection.to_string()))?;
            let reader = KrafkaReader::connect(settings, &topic.topic, &format!("trueup-{stream}")).await?;
            Ok(Box::new(reader) as Box<dyn TopicReader>)
        }
        .boxed()
    }

    fn registry(&self, topic: &KafkaTopic) -> Result<SchemaRegistry, SourceError> {
        let settings = self.0.get(&topic.connection).and_then(|settings| settings.schema_registry.clone());
        let settings = settings.ok_or_else(|| SourceError::NoRegistry(topic.connection.to_string()))?;
        SchemaRegistry::new(settings).map_err(SourceError::Decode)
    }
}
