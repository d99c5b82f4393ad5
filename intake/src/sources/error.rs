//! Lists the reasons why the reader of a topic or an outbox pauses, in the words that an operator reads.

use kafka::{RegistryError, TopicError};
use postgres::OutboxError;
use shared::limits::{PARTITIONS_MAX, TRANSACTION_BYTES_MAX};

use crate::partition::SubmitError;

/// Why a topic or an outbox is not read at present. Nothing is lost: reading continues at the durable position.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SourceError {
    #[error(transparent)]
    Topic(#[from] TopicError),
    #[error(transparent)]
    Outbox(#[from] OutboxError),
    #[error(
        "the connection now leads to another database than the one that was read, whose positions have no meaning in it; \
         correct the url, or declare a stream of another name"
    )]
    OtherDatabase,
    #[error(
        "the log of the stream was lost, and with it the place in the database: rows could be missed or count twice; declare a \
         stream of another name, which starts from scratch, or bring the log back"
    )]
    PositionLost,
    #[error("cannot write to the log: {0}")]
    Submit(#[from] SubmitError),
    #[error("the definitions name the connection \"{0}\", which the settings do not have; add it and start again")]
    NoConnection(String),
    #[error("the connection \"{0}\" has no schema_registry, which format = 'avro' needs; add it and start again")]
    NoRegistry(String),
    #[error(transparent)]
    Registry(#[from] RegistryError),
    #[error(
        "the topic \"{0}\" was deleted and created again, so the position of the stream is not one in it; declare a stream of \
         another name to read it"
    )]
    Recreated(String),
    #[error(
        "partition {partition} of the topic ends at {end}, before the position {position} of the stream: the brokers have lost \
         records that were read; will retry until they are back"
    )]
    BehindPosition { partition: u32, position: i64, end: i64 },
    #[error("the topic has {0} partitions, a stream has at most {PARTITIONS_MAX}")]
    TooManyPartitions(u32),
    #[error(
        "whole transactions need topics of one partition, and \"{0}\" has {1}; declare transactions = 'parts', or let Debezium write to a \
         topic with one"
    )]
    WholePartitions(String, u32),
    #[error(
        "cannot read the transaction topic \"{topic}\": {error}; set provide.transaction.metadata = true in Debezium, or correct \
         transaction_topic"
    )]
    TransactionTopic { topic: String, error: TopicError },
    #[error("cannot read the archive's position in the topic: {0}")]
    Lake(String),
    #[error("cannot make room for the new partitions of the topic: {0}")]
    Partitions(String),
    #[error("cannot keep rejected records: {0}; will retry")]
    Quarantine(String),
    #[error(
        "a transaction has too many changes of this table to become visible together, more than {TRANSACTION_BYTES_MAX} bytes \
         (TRANSACTION_BYTES_MAX); declare transactions = 'parts' and start again, which applies it in parts, and declare 'whole' again \
         when it is applied"
    )]
    TransactionTooLarge,
    #[error("cannot decode records: {0}")]
    Decode(String),
}

impl SourceError {
    /// Whether waiting alone may help.
    pub(super) fn is_transient(&self) -> bool {
        match self {
            SourceError::Topic(error) | SourceError::TransactionTopic { error, .. } => error.is_transient(),
            SourceError::Outbox(error) => error.is_transient(),
            SourceError::Submit(_)
            | SourceError::Registry(_)
            | SourceError::Lake(_)
            | SourceError::Quarantine(_)
            | SourceError::BehindPosition { .. } => true,
            _ => false,
        }
    }
}
