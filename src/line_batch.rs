//! Defines a batch of events, the unit in which files of events are read and sent.

use bytes::Bytes;

/// How the events of a batch are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BatchFormat {
    /// Lines of JSON.
    Lines,
    /// An Arrow IPC stream.
    Arrow,
}

impl BatchFormat {
    /// The `Content-Type` of such a body.
    pub const fn content_type(self) -> &'static str {
        match self {
            BatchFormat::Lines => "application/x-ndjson",
            BatchFormat::Arrow => "application/vnd.apache.arrow.stream",
        }
    }
}

/// Complete, consecutive lines or rows of a file, without their parsing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LineBatch {
    /// From 0, without gaps.
    pub number: u64,
    /// Number of the first line in the file, from 1; of a Parquet file, of the first row.
    pub first_line: u64,
    pub lines: u64,
    pub format: BatchFormat,
    pub body: Bytes,
}
