//! Fetches the schemas that values need before they are decoded.

use std::sync::Arc;

use kafka::{RegisteredSchema, RegistryError, SchemaKind, SchemaRegistry, TopicRecord, without_references};
use shared::stream::{KafkaTopic, RecordFormat};

use super::batches::ValueFormat;
use super::error::SourceError;
use super::opener::SourceOpener;
use crate::decode::TextFormat;
use crate::decode::avro::{WriterSchemas, schema_id};
use crate::decode::protobuf::{MessageSchema, MessageSchemas};

/// The format of the values of a topic, with the schemas fetched so far.
pub(super) enum ValueSchemas {
    Text(TextFormat),
    Avro { registry: SchemaRegistry, known: Arc<WriterSchemas> },
    Protobuf { registry: SchemaRegistry, known: Arc<MessageSchemas> },
}

impl ValueSchemas {
    pub fn new(opener: &dyn SourceOpener, topic: &KafkaTopic) -> Result<ValueSchemas, SourceError> {
        Ok(match topic.format {
            RecordFormat::Json => ValueSchemas::Text(TextFormat::Json),
            RecordFormat::DebeziumJson => ValueSchemas::Text(TextFormat::Change),
            RecordFormat::Csv => ValueSchemas::Text(TextFormat::Csv),
            RecordFormat::Avro | RecordFormat::DebeziumAvro => {
                ValueSchemas::Avro { registry: opener.registry(topic)?, known: Arc::default() }
            }
            RecordFormat::Protobuf => {
                ValueSchemas::Protobuf { registry: opener.registry(topic)?, known: Arc::default() }
            }
        })
    }

    /// Fetches the schemas of `records`. An id that the registry does not have rejects its records alone.
    pub async fn prepare(&mut self, records: &[TopicRecord]) -> Result<(), SourceError> {
        for id in records.iter().filter_map(|record| schema_id(record.value.as_deref()?)) {
            match self {
                ValueSchemas::Text(_) => return Ok(()),
                ValueSchemas::Avro { known, .. } if known.contains_key(&id) => {}
                ValueSchemas::Protobuf { known, .. } if known.contains_key(&id) => {}
                ValueSchemas::Avro { registry, known } => {
                    let schema = fetch(registry, id, SchemaKind::Avro).await?;
                    let schema = schema.and_then(|schema| usable(id, without_references(&schema)));
                    Arc::make_mut(known).insert(id, schema.map(Arc::from));
                }
                ValueSchemas::Protobuf { registry, known } => {
                    let schema = fetch(registry, id, SchemaKind::Protobuf).await?;
                    let schema = schema.and_then(|schema| usable(id, MessageSchema::compile(&schema)));
                    Arc::make_mut(known).insert(id, schema);
                }
            }
        }
        Ok(())
    }

    /// What decoding needs.
    pub fn format(&self) -> ValueFormat {
        match self {
            ValueSchemas::Text(format) => ValueFormat::Text(*format),
            ValueSchemas::Avro { known, .. } => ValueFormat::Avro(Arc::clone(known)),
            ValueSchemas::Protobuf { known, .. } => ValueFormat::Protobuf(Arc::clone(known)),
        }
    }
}

/// Fetches a schema. The inner error rejects the records with this id; the outer one is retried.
async fn fetch(
    registry: &SchemaRegistry,
    id: u32,
    kind: SchemaKind,
) -> Result<Result<Arc<RegisteredSchema>, String>, SourceError> {
    match registry.schema(id, kind).await {
        Ok(schema) => Ok(Ok(schema)),
        Err(RegistryError::Unusable(reason)) => Ok(Err(reason)),
        Err(unreachable) => Err(unreachable.into()),
    }
}

fn usable<T>(id: u32, schema: Result<T, String>) -> Result<T, String> {
    schema.map_err(|reason| format!("schema {id}: {reason}"))
}
