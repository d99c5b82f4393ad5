//! Reads and writes topics of Kafka: connections, and small traits behind which the client library can be exchanged.
//!
//! It knows nothing about streams, sinks or the log. [`TopicReader`] is what a reader of a topic needs, [`TopicWriter`] and
//! [`TopicCluster`] what a writer of transactions needs; [`settings`] describes how brokers are reached, and [`krafka_reader`]
//! and [`krafka_writer`] implement the traits. [`record_fetch`] asks brokers for records, and [`record_batches`] unpacks them.

mod avro_references;
mod error;
mod krafka_reader;
mod krafka_writer;
mod oauth;
mod reader;
mod record_batches;
mod record_fetch;
mod registry;
mod security;
pub mod settings;
mod writer;

pub use avro_references::without_references;
pub use error::TopicError;
pub use krafka_reader::KrafkaReader;
pub use krafka_writer::KafkaCluster;
pub use reader::{PartitionProgress, TopicDescription, TopicReader, TopicRecord, Watermarks};
pub use registry::{RegisteredSchema, RegistryError, SchemaKind, SchemaRegistry};
pub use settings::ConnectionSettings;
pub use writer::{OutgoingRecord, ReadUntil, TopicCluster, TopicWriter, WriteError, commit_certainly};
