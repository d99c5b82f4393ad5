//! Fetches the schemas that values need before they are decoded.

use std::sync::Arc;

use kafka::{RegistryError, SchemaRegistry, TopicRecord};
use shared::stream::{KafkaTopic, RecordFormat};

use super::batches::ValueFormat;
use super::error::SourceError;
use super::opener::TopicOpener;
use crate::decode::TextFormat;
use crate::decode::avro::{WriterSchemas, schema_id};

/// The format of the values of a topic, with the schemas fetched so far.
pub(super) enum ValueSchemas {
    Text(TextFormat),
    Avro { registry: SchemaRegistry, known: Arc<WriterSchemas> },
}

impl ValueSchemas {
    pub fn new(opener: &dyn TopicOpener, topic: &KafkaTopic) -> Result<ValueSchemas, SourceError> {
        Ok(match topic.format {
            RecordFormat::Json => ValueSchemas::Text(TextFormat::Json),
            RecordFormat::Csv => ValueSchemas::Text(TextFormat::Csv),
            RecordFormat::Avro => ValueSchemas::Avro { registry: opener.registry(topic)?, known: Arc::default() },
        })
    }

    /// Fetches the schemas of `records`. An id that the registry does not have rejects its records alone.
    pub async fn prepare(&mut self, records: &[TopicRecord]) -> Result<(), SourceError> {
        let ValueSchemas::Avro { registry, known } = self else { return Ok(()) };
        for id in records.iter().filter_map(|record| schema_id(record.value.as_deref()?)) {
            if known.contains_key(&id) {
                continue;
            }
            let schema = match registry.avro(id).await {
                Ok(schema) => Ok(schema),
                Err(RegistryError::Unusable(reason)) => Err(reason),
                Err(unreachable) => return Err(unreachable.into()),
            };
            Arc::make_mut(known).insert(id, schema);
        }
        Ok(())
    }

    /// What decoding needs.
    pub fn format(&self) -> ValueFormat {
        match self {
            ValueSchemas::Text(format) => ValueFormat::Text(*format),
            ValueSchemas::Avro { known, .. } => ValueFormat::Avro(Arc::clone(known)),
        }
    }
}
