//! Defines the unit of work of a partition's writer: the events of one request for one partition, and the result.

use std::sync::Arc;

use arrow::array::{Array, RecordBatch};
use serde::{Deserialize, Serialize};
use shared::entity::EntityId;
use shared::ids::{Offset, Partition};
use shared::limits::SUBMISSION_BYTES_MAX;
use shared::live_state::LiveStateExceeded;
use shared::retained_bytes::row_bytes;
use shared::stream::Stream;
use shared::time::Micros;
use tokio::sync::oneshot;

use super::key_claims::KeyClaim;
use crate::decode::KeptValues;
use crate::log::{Backlog, EntityHash, Exhausted, SourcePosition, Tombstone};

/// Events of one request for one partition.
#[derive(Debug)]
pub struct Submission {
    /// Columns of [`Stream::schema`].
    pub rows: RecordBatch,
    /// [`crate::event_id::hash_ids`] of the primary key's column; `None` exactly if the stream has no primary key.
    pub id_hashes: Option<Vec<u128>>,
    /// The entity of each event; `None` exactly if the stream has no entity.
    pub entities: Option<SubmittedEntities>,
    /// The values that changes of a table keep; empty for a stream.
    pub kept: Vec<KeptValues>,
    /// The request's idempotency key: a retry gets the first receipt again and writes nothing.
    pub key: Option<Arc<KeyClaim>>,
    /// Set if the rows were read from a topic: they move the position in it.
    pub source: Option<SourceStep>,
    /// Receives the receipt when the events are durable, or the reason why they are not. Dropped without a value only if
    /// the process dies.
    pub reply: oneshot::Sender<Result<PartitionReceipt, SubmitError>>,
}

/// A move of the position in a topic. It is written only if the position is where the reader believes it to be: records
/// can be neither skipped nor written twice, whatever became of an earlier submission.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceStep {
    /// The offset of the first record that was read; `None`: the stream starts to read.
    pub from: Option<i64>,
    pub to: SourcePosition,
}

/// A request to erase an entity.
#[derive(Debug)]
pub struct Erasure {
    pub entity: EntityHash,
    pub id: EntityId,
    /// The caller that asked for it.
    pub by: String,
    /// What the client calls the request.
    pub reference: Option<String>,
    /// Receives the tombstone when it is durable: the present one, if the entity was erased before.
    pub reply: oneshot::Sender<Result<Tombstone, SubmitError>>,
}

/// The entities of a submission.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SubmittedEntities {
    /// [`crate::event_id::entity_hashes`].
    pub hashes: Vec<u128>,
    /// Set if the request appends to one entity: all events are of it, and there is at least one.
    pub append: Option<EntityAppend>,
}

/// A request to append events to one entity.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct EntityAppend {
    /// The condition under which it appends; `None`: in any case.
    pub expected: Option<ExpectedSequence>,
}

/// The last sequence of an entity that an append expects.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExpectedSequence {
    /// Exactly this one; 0: the entity has no events.
    Exactly(u64),
    /// Any but 0.
    Any,
}

/// What one partition did with a submission.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct PartitionReceipt {
    pub accepted: u64,
    pub duplicates: u64,
    /// Accepted events that came after allowed lateness.
    pub late: u64,
    /// Accepted events too far ahead of their arrival to move the watermark.
    #[serde(default)]
    pub ahead: u64,
    /// Events of erased entities; they were not written.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub erased: u64,
    /// Offset of the first accepted event; `None` if nothing was accepted.
    pub first_offset: Option<Offset>,
    /// Offset after the last accepted event; `None` if nothing was accepted.
    pub end_offset: Option<Offset>,
    /// Last sequence of the entity after the submission, if it appends to one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_sequence: Option<u64>,
}

fn is_zero(count: &u64) -> bool {
    *count == 0
}

/// Why events were not written, or are not acknowledged.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SubmitError {
    /// Too many bytes wait for the writer; nothing was written (429).
    #[error("the log's writer is busy: events arrive faster than they can be written")]
    Busy,
    /// A reader of the log is behind by more than its limit; nothing was written (429).
    #[error("{}", behind(.0))]
    Behind(Backlog),
    /// The live state of the views is too large; nothing was written (429).
    #[error(transparent)]
    LiveState(#[from] LiveStateExceeded),
    /// Nothing was written; later submissions may succeed (507).
    #[error(transparent)]
    Exhausted(Exhausted),
    /// Before it started, nothing was written. Afterwards the outcome is unknown until the next start (503).
    #[error("the log is closed: the server is stopping")]
    Stopped,
    /// The idempotency key was used with another body; nothing was written (422).
    #[error("the Idempotency-Key was used with another body; send a new key, or the same body for a retry")]
    KeyReused,
    /// The entity is at another sequence than the append expects; nothing was written (412).
    #[error("{}", conflict(.expected, *.current))]
    SequenceConflict { expected: ExpectedSequence, current: u64 },
    /// The entity of the append is erased; nothing was written (410).
    #[error("the entity was erased at {at}; an id is never used again: create another one")]
    Erased { at: Micros },
    /// The position in the topic is not where the submission starts; nothing was written.
    #[error("the position in the topic is {current:?}, not {from:?}")]
    SourceMoved { from: Option<i64>, current: Option<i64> },
    /// A partition can have no more entities; nothing was written (507).
    #[error(
        "a partition of the stream has its {max} entities (entities_max); events of known entities are still accepted"
    )]
    TooManyEntities { max: usize },
    /// The rows of a table take all the memory that they may; nothing was written (507).
    #[error(
        "the rows of a partition of the table take their {max} bytes (table_bytes_max); changes that need no more, and deletions, \
         are still accepted"
    )]
    TableFull { max: usize },
    /// Larger than any submission may be (413).
    #[error("the request holds {bytes} bytes of events for one partition; at most {max} are possible")]
    TooLarge { bytes: usize, max: usize },
    #[error("the stream does not have a partition {0}")]
    NoPartition(Partition),
    /// A mistake of the caller: the rows are not what the stream declares.
    #[error("the rows do not match the stream: {0}")]
    Mismatch(String),
    #[error("the events could not be divided among the partitions: {0}")]
    Rows(String),
}

fn conflict(expected: &ExpectedSequence, current: u64) -> String {
    match expected {
        ExpectedSequence::Any => "the entity has no events yet".to_owned(),
        ExpectedSequence::Exactly(0) => {
            format!("the entity has events already: its last sequence is {current}; read it and decide again")
        }
        ExpectedSequence::Exactly(expected) => {
            format!("the last sequence of the entity is {current}, not {expected}; read it and decide again")
        }
    }
}

fn behind(Backlog { reader, bytes, bytes_max }: &Backlog) -> String {
    let (what, see) = match reader.as_str() {
        crate::archive::READER => ("events that are not in the lake", "; /v1/streams shows the archive's error"),
        _ => ("events that are not in the live figures", ""),
    };
    format!(
        "the {reader} is behind: {bytes} bytes of {what} wait in the log of a partition, at most {bytes_max} may{see}"
    )
}

impl Submission {
    /// Checks the submission against the stream and returns its size in bytes.
    pub(crate) fn check(&self, stream: &Stream) -> Result<usize, SubmitError> {
        let mismatch = |reason: String| Err(SubmitError::Mismatch(reason));
        if self.rows.num_columns() != stream.columns.len() {
            return mismatch(format!("{} columns, not {}", self.rows.num_columns(), stream.columns.len()));
        }
        for (array, column) in self.rows.columns().iter().zip(&stream.columns) {
            if *array.data_type() != column.data_type.arrow() {
                return mismatch(format!("{} is {}, not {}", column.name, array.data_type(), column.data_type));
            }
        }
        if self.rows.column(stream.event_time).null_count() > 0 {
            return mismatch("an event time is null".to_owned());
        }
        match (&self.id_hashes, stream.primary_key) {
            (None, None) => {}
            (Some(ids), Some(_)) if ids.len() == self.rows.num_rows() => {}
            _ => return mismatch("one id hash per row is needed, and none without a primary key".to_owned()),
        }
        match (&self.entities, stream.entity) {
            (None, None) => {}
            (Some(entities), Some(_)) if entities.is_for(self.rows.num_rows()) => {}
            _ => return mismatch("one entity hash per row is needed, and none without an entity".to_owned()),
        }
        let bytes = row_bytes(&self.rows);
        match bytes {
            0..=SUBMISSION_BYTES_MAX => Ok(bytes),
            _ => Err(SubmitError::TooLarge { bytes, max: SUBMISSION_BYTES_MAX }),
        }
    }
}

impl SubmittedEntities {
    fn is_for(&self, rows: usize) -> bool {
        let is_one = || rows > 0 && self.hashes.iter().all(|hash| *hash == self.hashes[0]);
        self.hashes.len() == rows && (self.append.is_none() || is_one())
    }
}
