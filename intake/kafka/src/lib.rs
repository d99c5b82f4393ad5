//! Reads topics of Kafka: connections, and a small trait behind which the client library can be exchanged.
//!
//! It knows nothing about streams or the log. [`TopicReader`] is what a reader of a topic needs; [`settings`] describes how
//! brokers are reached, and [`krafka_reader`] implements the trait.

mod avro_references;
mod error;
mod krafka_reader;
mod oauth;
mod reader;
mod registry;
mod security;
pub mod settings;

pub use avro_references::without_references;
pub use error::TopicError;
pub use krafka_reader::KrafkaReader;
pub use reader::{PartitionProgress, TopicDescription, TopicReader, TopicRecord, Watermarks};
pub use registry::{RegisteredSchema, RegistryError, SchemaKind, SchemaRegistry};
pub use settings::ConnectionSettings;
