//! Fetches the schemas that values need before they are decoded.

use std::sync::Arc;

use kafka::{RegisteredSchema, RegistryError, SchemaKind, SchemaRegistry, TopicRecord, without_references};
use shared::stream::{KafkaTopic, RecordFormat, Stream};

use super::batches::ValueFormat;
use super::error::SourceError;
use super::opener::SourceOpener;
use crate::decode::TextFormat;
use crate::decode::avro::{WriterSchemas, schema_id};
use crate::decode::protobuf::{MessageSchema, MessageSchemas};

/// The format of the values of a topic, with the schemas fetched so far.
pub(super) enum ValueSchemas {
    Text(TextFormat),
    /// `keys`: of which records the keys are read.
    Avro {
        registry: SchemaRegistry,
        known: Arc<WriterSchemas>,
        keys: KeysRead,
    },
    Protobuf {
        registry: SchemaRegistry,
        known: Arc<MessageSchemas>,
    },
}

/// The records whose keys are read with a schema, too.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum KeysRead {
    None,
    /// Those that delete a row by having no value.
    OfTombstones,
    All,
}

impl KeysRead {
    /// Of a table that reads rows or changes of rows.
    fn of(stream: &Stream, format: RecordFormat) -> KeysRead {
        match stream.table {
            None => KeysRead::None,
            // A deletion need not have the row before it.
            Some(_) if format.has_changes() => KeysRead::All,
            Some(_) => KeysRead::OfTombstones,
        }
    }

    fn reads(self, record: &TopicRecord) -> bool {
        match self {
            KeysRead::None => false,
            KeysRead::OfTombstones => record.value.is_none(),
            KeysRead::All => true,
        }
    }
}

impl ValueSchemas {
    pub fn new(opener: &dyn SourceOpener, stream: &Stream, topic: &KafkaTopic) -> Result<ValueSchemas, SourceError> {
        Ok(match topic.format {
            RecordFormat::Json => ValueSchemas::Text(TextFormat::Json),
            RecordFormat::DebeziumJson => ValueSchemas::Text(TextFormat::Change),
            RecordFormat::Csv => ValueSchemas::Text(TextFormat::Csv),
            RecordFormat::Avro | RecordFormat::DebeziumAvro => {
                let keys = KeysRead::of(stream, topic.format);
                ValueSchemas::Avro { registry: opener.registry(topic)?, known: Arc::default(), keys }
            }
            RecordFormat::Protobuf => {
                ValueSchemas::Protobuf { registry: opener.registry(topic)?, known: Arc::default() }
            }
        })
    }

    /// Fetches the schemas of `records`. An id that the registry does not have rejects its records alone.
    pub async fn prepare(&mut self, records: &[TopicRecord]) -> Result<(), SourceError> {
        let keys = if let ValueSchemas::Avro { keys, .. } = self { *keys } else { KeysRead::None };
        let with_key = |record: &&TopicRecord| keys.reads(record);
        let of_keys = records.iter().filter(with_key).filter_map(|record| record.key.as_deref());
        let of_values = records.iter().filter_map(|record| record.value.as_deref());
        for id in of_values.chain(of_keys).filter_map(schema_id) {
            match self {
                ValueSchemas::Text(_) => return Ok(()),
                ValueSchemas::Avro { known, .. } if known.contains_key(&id) => {}
                ValueSchemas::Protobuf { known, .. } if known.contains_key(&id) => {}
                ValueSchemas::Avro { registry, known, .. } => {
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
