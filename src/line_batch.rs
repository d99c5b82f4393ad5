//! Defines a batch of lines, the unit in which files of events are read and sent.

use bytes::Bytes;

/// Complete, consecutive lines of a file, without their parsing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LineBatch {
    /// From 0, without gaps.
    pub number: u64,
    /// Number of the first line in the file, from 1; of a Parquet file, of the first row.
    pub first_line: u64,
    pub lines: u64,
    pub body: Bytes,
}
