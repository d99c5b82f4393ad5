//! What is handed to a partition's writer, and what comes back?

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::datatypes::DataType;
use serde::{Deserialize, Serialize};
use shared::ids::Offset;
use shared::stream::Stream;
use tokio::sync::oneshot;

/// Largest submission, in bytes of its columns: a frame and its string offsets stay far below 32 bits.
const SUBMISSION_BYTES_MAX: usize = 512 * 1024 * 1024;

/// Events of one request for one partition.
#[derive(Debug)]
pub struct Submission {
    /// Columns of [`Stream::schema`].
    pub rows: RecordBatch,
    /// [`crate::event_id::hash_ids`] of the primary key's column; `None` exactly if the stream has no primary key.
    pub id_hashes: Option<Vec<u128>>,
    /// With it, a repetition gets the first answer again and writes nothing.
    pub idempotency_key: Option<String>,
    /// Told when the events are durable, or why they are not. Dropped without an answer only if the process dies.
    pub reply: oneshot::Sender<Result<PartAnswer, WriteError>>,
}

/// What became of a submission.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct PartAnswer {
    pub accepted: u64,
    pub duplicates: u64,
    /// Accepted events that came after allowed lateness.
    pub late: u64,
    /// Accepted events too far ahead of their arrival to move the watermark.
    #[serde(default)]
    pub ahead: u64,
    /// Offset of the first accepted event; `None` if nothing was accepted.
    pub first_offset: Option<Offset>,
    /// Offset after the last accepted event; `None` if nothing was accepted.
    pub end_offset: Option<Offset>,
}

/// Why a submission was not taken. Nothing of it was written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SubmitError {
    /// Too many bytes wait already: ask again later (429).
    #[error("the log's writer is busy")]
    Busy,
    /// Not started yet, or stopping.
    #[error("the log takes no events now")]
    Stopped,
    /// Larger than any submission may be (413).
    #[error("{bytes} bytes of events at once; at most {max} are possible")]
    TooLarge { bytes: usize, max: usize },
    #[error("the stream has no partition {0}")]
    NoPartition(u32),
    /// The caller's mistake: the rows are not what the stream declares.
    #[error("the submission does not fit the stream: {0}")]
    Mismatch(String),
}

/// Why a submission that was taken is not acknowledged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum WriteError {
    /// Nothing of it was written; later ones may succeed (507).
    #[error("disk full")]
    DiskFull,
    /// Unknown whether it was written: the process stops, and the next one will know.
    #[error("the log has stopped")]
    Stopped,
}

impl Submission {
    /// Checks the submission against the stream and says how many bytes it holds.
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
        let bytes = bytes_of(&self.rows);
        match bytes {
            0..=SUBMISSION_BYTES_MAX => Ok(bytes),
            _ => Err(SubmitError::TooLarge { bytes, max: SUBMISSION_BYTES_MAX }),
        }
    }
}

/// Bytes of the rows themselves, without what else is in the buffers they share with others.
fn bytes_of(rows: &RecordBatch) -> usize {
    let of_column = |column: &dyn Array| match column.data_type() {
        DataType::Utf8View => column.len() * 16 + column.as_string_view().total_buffer_bytes_used(),
        other => column.len() * other.primitive_width().unwrap_or(1),
    };
    rows.columns().iter().map(|column| of_column(column.as_ref())).sum()
}
