//! Defines the errors of the lake, and which of Delta's many errors mean that another writer came first.

use deltalake_core::DeltaTableError;
use deltalake_core::kernel::transaction::TransactionError;

/// Why an operation on the lake failed.
#[derive(Debug, thiserror::Error)]
pub enum LakeError {
    /// The lake cannot be opened.
    #[error("cannot open the lake at \"{location}\": {reason}")]
    Location { location: String, reason: String },
    /// Another writer changed the table in a way that conflicts with the commit. Nothing was changed.
    #[error("{table}: another commit came first: {reason}")]
    Conflict { table: String, reason: String },
    /// The table already holds this application's transaction, or a later one. Nothing was changed.
    #[error("\"{app_id}\" already committed its transaction {version}")]
    AlreadyCommitted { app_id: String, version: i64 },
    /// Another log has claimed the lake since. Nothing was changed.
    #[error("{table}: the lake has been taken over (epoch {owner}; this process has epoch {epoch})")]
    NotOwner { table: String, epoch: i64, owner: i64 },
    /// The rows or the columns do not fit the table.
    #[error("{table}: {reason}")]
    Schema { table: String, reason: String },
    /// A Parquet file of the table cannot be read.
    #[error("{table}: the file {path} cannot be read: {source}")]
    File { table: String, path: String, source: parquet::errors::ParquetError },
    /// The Delta library panicked on the log of the table: another program wrote it, or it is damaged.
    #[error("{table}: the Delta log cannot be read: {reason}")]
    Panicked { table: String, reason: String },
    /// A file that was to be deleted is part of the table.
    #[error("{table}: the file {path} is in use")]
    InUse { table: String, path: String },
    /// Files that were to be committed are not in the store any more. Nothing was changed.
    #[error(
        "{table}: {count} files were deleted before they could be committed, {path} among them: another process vacuumed \
         them; write them again"
    )]
    FilesMissing { table: String, path: String, count: u64 },
    /// A file cannot be copied to this machine.
    #[error("the spool cannot be written: {path}: {source}")]
    Spool { path: String, source: std::io::Error },
    /// The files that have to be read at the same time need more room than the spool has.
    #[error(
        "the files to read take more than {limit} bytes of the spool ({needed}): raise spool_bytes in the settings, or \
         lower the rows of one query"
    )]
    SpoolFull { needed: u64, limit: u64 },
    /// The lake is remote and has no spool.
    #[error("{table}: a remote lake needs a spool, and there is none")]
    NoSpool { table: String },
    #[error(transparent)]
    Store(#[from] object_store::Error),
    #[error(transparent)]
    Delta(#[from] DeltaTableError),
    #[error(transparent)]
    Parquet(#[from] parquet::errors::ParquetError),
    #[error(transparent)]
    Arrow(#[from] arrow::error::ArrowError),
    /// Background work panicked or was cancelled.
    #[error("background work ended: {0}")]
    Background(#[from] tokio::task::JoinError),
}

impl LakeError {
    /// Converts the error of a commit attempt: a lost race is a [`LakeError::Conflict`], everything else stays as it
    /// is.
    pub(super) fn of_commit(table: &str, error: DeltaTableError) -> LakeError {
        let lost = match &error {
            DeltaTableError::VersionAlreadyExists(_) => true,
            DeltaTableError::Transaction { source } => matches!(
                source,
                TransactionError::CommitConflict(_)
                    | TransactionError::MaxCommitAttempts(_)
                    | TransactionError::VersionAlreadyExists(_)
            ),
            _ => false,
        };
        if lost { LakeError::Conflict { table: table.to_owned(), reason: error.to_string() } } else { error.into() }
    }
}
