//! Defines the errors of the log, with file and byte. The caller decides what follows from them.

use std::io;
use std::path::{Path, PathBuf};

use arrow::error::ArrowError;

use super::io::Exhausted;

/// Why the log could not be opened, read or written.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    #[error("{path}: {source}", path = path.display())]
    Io { path: PathBuf, source: io::Error },
    /// Durable bytes are not those that were written. Never repaired: the bytes cut away might have been acknowledged.
    #[error("{path}: corrupt at byte {position}: {reason}", path = path.display())]
    Corrupt { path: PathBuf, position: u64, reason: &'static str },
    #[error("{path}: log format version {found} is not supported: this program reads version {known}", path = path.display())]
    UnknownVersion { path: PathBuf, found: u32, known: u32 },
    /// The file is valid but does not belong where it is.
    #[error("{path}: {reason}", path = path.display())]
    Misplaced { path: PathBuf, reason: String },
    /// A column changed its type, or the event time is new: old events have no value for it.
    #[error("{path}: column {column}: {reason}", path = path.display())]
    Columns { path: PathBuf, column: String, reason: String },
    #[error("{path}: another process has this log open", path = path.display())]
    Locked { path: PathBuf },
    #[error("offset {from} is before the start of the log at {start}")]
    BeforeStart { from: u64, start: u64 },
    #[error("cannot decode rows of the log: {0}")]
    Rows(#[from] ArrowError),
}

impl LogError {
    /// Wraps an error of the operating system at `path`, for `map_err`.
    pub(crate) fn io(path: &Path) -> impl FnOnce(io::Error) -> LogError + use<> {
        let path = path.to_owned();
        move |source| LogError::Io { path, source }
    }

    pub(crate) fn corrupt(path: &Path, position: u64, reason: &'static str) -> LogError {
        LogError::Corrupt { path: path.to_owned(), position, reason }
    }
}

/// Why a group of frames is not in the log.
#[derive(Debug, thiserror::Error)]
pub enum CommitError {
    /// The log is unchanged: later groups may succeed.
    #[error(transparent)]
    Exhausted(#[from] Exhausted),
    /// The content of the disk is unknown. The writer refuses all further work; the process has to stop and recover.
    #[error("{0}")]
    Fatal(String),
}
