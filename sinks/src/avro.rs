//! Encodes keys and values of records as Avro, each behind the id of its schema in the wire format of Confluent.
//!
//! The schemas are those of the view: every column is optional, so that a column can be added. They are registered under the
//! subjects TOPIC-key and TOPIC-value when they are written first.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, RecordBatchOptions};
use arrow::datatypes::{DataType, Field, Schema};
use arrow::error::ArrowError;
use arrow_avro::errors::AvroError;
use arrow_avro::schema::{FingerprintStrategy, SCHEMA_METADATA_KEY};
use arrow_avro::writer::WriterBuilder;
use arrow_avro::writer::format::AvroSoeFormat;
use bytes::Bytes;
use kafka::{OutgoingRecord, RegistryError, SchemaRegistry};
use serde_json::{Value, json};
use shared::ids::Name;

/// The namespace of schemas.
const NAMESPACE: &str = "trueup";

/// Keys and values of the records of an epoch.
#[derive(Debug)]
pub struct AvroRows {
    /// One row for each record; `None`: records have no keys.
    pub keys: Option<RecordBatch>,
    /// One row for each of the first records, which have values; the others are tombstones.
    pub values: RecordBatch,
}

/// The reason why records were not encoded.
#[derive(Debug, thiserror::Error)]
pub enum EncodeError {
    #[error(transparent)]
    Registry(#[from] RegistryError),
    #[error("cannot write Avro: {0}")]
    Avro(#[from] AvroError),
}

/// Encodes the records of one sink.
pub struct AvroEncoder {
    registry: SchemaRegistry,
    topic: String,
    /// The name of the records: of the view, or of the sink of a stream.
    name: String,
    /// Ids by subject and schema.
    ids: HashMap<(String, String), u32>,
}

impl AvroEncoder {
    /// Returns an encoder that has registered nothing yet.
    pub fn new(name: &Name, topic: String, registry: SchemaRegistry) -> AvroEncoder {
        AvroEncoder { registry, topic, name: name.to_string(), ids: HashMap::new() }
    }

    /// Replaces the keys and values of `records` with `rows`.
    ///
    /// # Errors
    /// The registry does not answer, or refuses a schema.
    pub async fn encode(&mut self, rows: &AvroRows, records: &mut [OutgoingRecord]) -> Result<(), EncodeError> {
        if let Some(keys) = &rows.keys {
            let keys = self.encoded("key", &format!("{}_key", self.name), keys).await?;
            for (record, key) in records.iter_mut().zip(keys) {
                record.key = Some(key);
            }
        }
        let values = self.encoded("value", &self.name.clone(), &rows.values).await?;
        for (record, value) in records.iter_mut().zip(values) {
            record.value = Some(value);
        }
        Ok(())
    }

    async fn encoded(&mut self, part: &str, name: &str, rows: &RecordBatch) -> Result<Vec<Bytes>, EncodeError> {
        if rows.num_rows() == 0 {
            return Ok(Vec::new());
        }
        let schema = record_schema(name, rows.schema_ref()).to_string();
        let subject = format!("{}-{part}", self.topic);
        let id = match self.ids.get(&(subject.clone(), schema.clone())) {
            Some(id) => *id,
            None => {
                let id = self.registry.register(&subject, &schema).await?;
                self.ids.insert((subject, schema.clone()), id);
                id
            }
        };
        if rows.num_columns() == 0 {
            // A record without fields has no bytes of its own.
            let prefix: Bytes = [&[0][..], &id.to_be_bytes()].concat().into();
            return Ok(vec![prefix; rows.num_rows()]);
        }
        let metadata = HashMap::from([(SCHEMA_METADATA_KEY.to_owned(), schema)]);
        let columns = Schema::new_with_metadata(rows.schema_ref().fields().clone(), metadata);
        let builder = WriterBuilder::new(columns).with_fingerprint_strategy(FingerprintStrategy::Id(id));
        let mut encoder = builder.build_encoder::<AvroSoeFormat>()?;
        encoder.encode(rows)?;
        Ok(encoder.flush().iter().collect())
    }
}

/// Returns a batch of `rows` rows, in which every column may be null.
pub(crate) fn nullable_rows(columns: Vec<(String, ArrayRef)>, rows: usize) -> Result<RecordBatch, ArrowError> {
    let field = |(name, column): &(String, ArrayRef)| Field::new(name, column.data_type().clone(), true);
    let schema = Schema::new(columns.iter().map(field).collect::<Vec<_>>());
    let columns = columns.into_iter().map(|(_, column)| column).collect();
    RecordBatch::try_new_with_options(Arc::new(schema), columns, &RecordBatchOptions::new().with_row_count(Some(rows)))
}

/// Returns the Avro schema of a record with these optional columns.
fn record_schema(name: &str, columns: &Schema) -> Value {
    let field = |field: &Arc<Field>| json!({"name": field.name(), "type": ["null", type_schema(field.data_type())], "default": null});
    let fields: Vec<Value> = columns.fields().iter().map(field).collect();
    json!({"type": "record", "name": name, "namespace": NAMESPACE, "fields": fields})
}

/// Returns the Avro schema of a column's type.
fn type_schema(data_type: &DataType) -> Value {
    match data_type {
        DataType::Boolean => json!("boolean"),
        DataType::Int32 => json!("int"),
        DataType::Int64 => json!("long"),
        DataType::Float64 => json!("double"),
        DataType::Decimal128(precision, scale) => {
            json!({"type": "bytes", "logicalType": "decimal", "precision": precision, "scale": scale})
        }
        DataType::Date32 => json!({"type": "int", "logicalType": "date"}),
        DataType::Timestamp(..) => json!({"type": "long", "logicalType": "timestamp-micros"}),
        _ => json!("string"),
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::{Int64Array, StringViewArray};

    use super::*;

    #[test]
    fn every_column_of_a_schema_is_optional_and_has_a_default() {
        let columns: Vec<(String, ArrayRef)> = vec![
            ("status".to_owned(), Arc::new(StringViewArray::from(vec![Some("new"), None]))),
            ("n".to_owned(), Arc::new(Int64Array::from(vec![1, 2]))),
        ];
        let rows = nullable_rows(columns, 2).expect("columns of one length");
        let expected = json!({"type": "record", "name": "totals", "namespace": "trueup", "fields": [
            {"name": "status", "type": ["null", "string"], "default": null},
            {"name": "n", "type": ["null", "long"], "default": null},
        ]});
        assert_eq!(record_schema("totals", rows.schema_ref()), expected);
        let decimal = type_schema(&DataType::Decimal128(12, 2));
        assert_eq!(decimal, json!({"type": "bytes", "logicalType": "decimal", "precision": 12, "scale": 2}));
    }
}
