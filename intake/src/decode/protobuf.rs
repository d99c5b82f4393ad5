//! Decodes records of a topic whose values are Protobuf in the wire format of Confluent: a zero byte, the id of the schema, the
//! place of the message in it, the message.
//!
//! A message becomes JSON by the mapping that Protobuf defines, with the names of its fields as the schema has them, and is
//! then read like any event in JSON. A field without presence has its default value where the message lacks it; one with
//! presence is absent.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;

use kafka::{RegisteredSchema, TopicRecord};
use prost_reflect::prost::encoding::decode_varint;
use prost_reflect::{DynamicMessage, FileDescriptor, MessageDescriptor, SerializeOptions};
use protox::file::{ChainFileResolver, File, FileResolver, GoogleFileResolver};
use shared::limits::SOURCE_BATCH_BYTES;
use shared::stream::Stream;

use super::avro::{PREFIX_BYTES, schema_id};
use super::records::RecordParts;
use super::reject_reason::RejectReason;
use super::session::Session;
use super::{DecodeError, Decoded, Options};

/// The name of a schema among the files that it imports. Registries have none for it.
const MAIN_FILE: &str = "schema-of-the-record.proto";
/// Depth of messages in messages.
const DEPTH_MAX: u64 = 100;

/// Bytes of the JSON of records that are decoded together.
pub const TEXT_BYTES_MAX: usize = 8 * SOURCE_BATCH_BYTES;

/// Schemas by id; an error says why records with the id cannot be read.
pub type MessageSchemas = HashMap<u32, Result<MessageSchema, String>>;

/// The messages of a schema.
#[derive(Debug, Clone)]
pub struct MessageSchema(FileDescriptor);

/// The texts of a schema and of its imports.
struct Texts(Arc<RegisteredSchema>);

impl FileResolver for Texts {
    fn open_file(&self, name: &str) -> Result<File, protox::Error> {
        match (name, self.0.references.get(name)) {
            (MAIN_FILE, _) => File::from_source(name, &self.0.text),
            (_, Some(text)) => File::from_source(name, text),
            (_, None) => Err(protox::Error::file_not_found(name)),
        }
    }
}

impl MessageSchema {
    /// Compiles a schema.
    ///
    /// # Errors
    /// The reason why it is not a schema of Protobuf.
    pub fn compile(schema: &Arc<RegisteredSchema>) -> Result<MessageSchema, String> {
        let mut files = ChainFileResolver::new();
        files.add(Texts(Arc::clone(schema)));
        files.add(GoogleFileResolver::new());
        let mut compiler = protox::Compiler::with_file_resolver(files);
        compiler.include_imports(true).open_file(MAIN_FILE).map_err(|error| error.to_string())?;
        let file = compiler.descriptor_pool().get_file_by_name(MAIN_FILE);
        file.map(MessageSchema).ok_or_else(|| "it has no messages".to_owned())
    }

    /// Reads the place of a message, and returns the message with the bytes after the place.
    fn message<'b>(&self, mut bytes: &'b [u8]) -> Option<(MessageDescriptor, &'b [u8])> {
        let depth = zigzag(&mut bytes)?;
        if depth > DEPTH_MAX {
            return None;
        }
        // Zero stands for the first message.
        let first = if depth == 0 { 0 } else { usize::try_from(zigzag(&mut bytes)?).ok()? };
        let mut message = self.0.messages().nth(first)?;
        for _ in 1..depth {
            let index = usize::try_from(zigzag(&mut bytes)?).ok()?;
            let child = message.child_messages().nth(index)?;
            message = child;
        }
        Some((message, bytes))
    }
}

/// Reads a number that is not negative, in the encoding for signed ones.
fn zigzag(bytes: &mut &[u8]) -> Option<u64> {
    let encoded = decode_varint(bytes).ok()?;
    (encoded & 1 == 0).then_some(encoded >> 1)
}

/// Reads the events of `records`, in their order. A rejected one has its index in `records` as its line.
///
/// # Errors
/// [`DecodeError::EventsTooLarge`] if several records are longer than [`TEXT_BYTES_MAX`] as JSON: decode fewer at once.
/// [`DecodeError::TooManyEvents`] beyond [`Options::values_max`]. All else is a rejection of single records.
pub fn decode_protobuf(
    stream: &Stream,
    schemas: &MessageSchemas,
    records: &[TopicRecord],
    options: Options,
) -> Result<Decoded, DecodeError> {
    let mut texts: Vec<Option<Result<String, String>>> = Vec::with_capacity(records.len());
    let mut length = 0;
    for record in records {
        let text = record.value.as_deref().map(|value| json(schemas, value, options.event_bytes_max));
        length += text.as_ref().and_then(|text| text.as_ref().ok()).map_or(0, String::len);
        if length > TEXT_BYTES_MAX && records.len() > 1 {
            return Err(DecodeError::EventsTooLarge { max: TEXT_BYTES_MAX });
        }
        texts.push(text);
    }
    let bytes = texts.iter().flatten().flatten().map(String::len).sum();
    let mut session = Session::new(stream, options, bytes, true);
    let parts = RecordParts::new(stream);
    for ((index, record), text) in (0..).zip(records).zip(&texts) {
        let rejection = match text {
            Some(Ok(text)) => {
                session.read_record(index, text, |row| parts.add(record, row));
                continue;
            }
            Some(Err(reason)) => RejectReason::Message { reason },
            None => RejectReason::NoValue,
        };
        let shown = record.value.as_deref().or(record.key.as_deref());
        session.reject(index, shown.unwrap_or_default(), rejection);
    }
    session.finish()
}

/// Text that ends with an error where it becomes too long: a message of two bytes can have thousands of fields with defaults.
struct BoundedText {
    bytes: Vec<u8>,
    bytes_max: usize,
}

impl io::Write for BoundedText {
    fn write(&mut self, piece: &[u8]) -> io::Result<usize> {
        if self.bytes.len() + piece.len() > self.bytes_max {
            return Err(io::Error::other(format!("it is longer than {} bytes", self.bytes_max)));
        }
        self.bytes.extend_from_slice(piece);
        Ok(piece.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Returns the event as JSON.
fn json(schemas: &MessageSchemas, value: &[u8], bytes_max: usize) -> Result<String, String> {
    let id = schema_id(value).ok_or("the value does not begin with a zero byte and the id of a schema")?;
    let schema = match schemas.get(&id) {
        Some(Ok(schema)) => schema,
        Some(Err(reason)) => return Err(reason.clone()),
        None => return Err(format!("schema {id}: it was not fetched")),
    };
    let (message, body) = schema
        .message(&value[PREFIX_BYTES..])
        .ok_or_else(|| format!("schema {id} has no message at the position that the value gives"))?;
    let event = DynamicMessage::decode(message, body)
        .map_err(|error| format!("cannot read the message with schema {id}: {error}"))?;
    let options =
        SerializeOptions::new().use_proto_field_name(true).skip_default_fields(false).stringify_64_bit_integers(false);
    let mut text = BoundedText { bytes: Vec::with_capacity((2 * body.len() + 64).min(bytes_max)), bytes_max };
    event
        .serialize_with_options(&mut serde_json::Serializer::new(&mut text), &options)
        .map_err(|error| format!("cannot convert the message to JSON: {error}"))?;
    String::from_utf8(text.bytes).map_err(|error| error.to_string())
}
