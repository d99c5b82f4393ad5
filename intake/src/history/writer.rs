//! Commits historical events to the archive exactly once: rows, their positions and the progress of the input files move
//! in one commit, which fails if another process has changed any of them.

use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::compute::concat_batches;
use futures::{StreamExt, TryStreamExt, stream};
use lake::{ArchiveTags, Commit, DataFile, Lake, LakeError, SchemaChange, Table, TablePath};
use serde_json::{Map, Value, json};
use shared::clock::Clock;
use shared::ids::{Offset, Partition};
use shared::limits;
use shared::stream::{Stream, system_columns};
use shared::time::Day;

use super::parts::{HistoricalFileRows, parts};

/// The progress of an input file that was ingested completely.
pub const DONE: i64 = i64::MAX;
/// Attempts to commit a chunk at new positions after other processes committed first.
const COMMIT_ATTEMPTS_MAX: usize = 100;

/// Settings of the writer.
#[derive(Debug, Clone, Copy)]
pub struct HistorySettings {
    /// Most rows of a file.
    pub file_rows: usize,
    /// Files encoded at the same time.
    pub writes: usize,
}

impl Default for HistorySettings {
    fn default() -> HistorySettings {
        let writes = std::thread::available_parallelism().map_or(2, usize::from);
        HistorySettings { file_rows: limits::ARCHIVE_FILE_ROWS, writes }
    }
}

/// Why events could not be ingested. Earlier commits stay.
#[derive(Debug, thiserror::Error)]
pub enum HistoryError {
    #[error(transparent)]
    Lake(#[from] LakeError),
    #[error("another process is ingesting the same file; wait for it, then run the command again to check the result")]
    SameFile,
    #[error("other processes committed first {COMMIT_ATTEMPTS_MAX} times in a row; run the command again to continue")]
    Crowded,
    #[error("cannot divide the rows into files: {0}")]
    Rows(#[from] arrow::error::ArrowError),
    #[error("background task failed: {0}")]
    Background(#[from] tokio::task::JoinError),
}

/// The progress of an input file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Standing {
    /// Ingested completely.
    Done,
    /// Ingested up to `progress`; continue with this name.
    Open { app_id: String, progress: Option<i64> },
}

/// A change of an input file's progress.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    pub app_id: String,
    /// Progress before: lines or rows that were ingested or rejected. `None` for a new file.
    pub from: Option<i64>,
    /// Progress afterwards; [`DONE`] at the end of the file.
    pub to: i64,
}

/// Events that are committed together, with the progress of their input files.
#[derive(Debug, Default)]
pub struct Chunk {
    /// [`Stream::schema`].
    pub rows: Vec<RecordBatch>,
    pub steps: Vec<Step>,
}

/// The result of a commit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Taken {
    pub rows: u64,
    pub files: u64,
    pub bytes: u64,
}

/// Writes historical events into the archive of one stream.
pub struct HistoryWriter {
    stream: Arc<Stream>,
    table: Table,
    app_id: String,
    settings: HistorySettings,
    clock: Arc<dyn Clock>,
}

impl HistoryWriter {
    /// Opens the archive, creates it if necessary, and adds columns that the stream gained.
    pub async fn open(
        lake: &Lake,
        stream: Arc<Stream>,
        settings: HistorySettings,
        clock: Arc<dyn Clock>,
    ) -> Result<HistoryWriter, HistoryError> {
        let (path, schema) = (TablePath::events(&stream.name), stream.archive_schema());
        let table = lake.table(&path, schema.clone(), system_columns::EVENT_DATE).await?;
        match table.schema_change(&schema).await? {
            SchemaChange::None => {}
            SchemaChange::Compatible => {
                table.commit(Commit { schema: Some(schema), ..Commit::default() }).await?;
            }
            SchemaChange::Incompatible(reason) => {
                return Err(LakeError::Schema { table: table.name(), reason }.into());
            }
        }
        let app_id = ArchiveTags::app_id(&stream.name, Partition::HISTORY);
        Ok(HistoryWriter { stream, table, app_id, settings, clock })
    }

    /// The first date kept, if retention dropped earlier ones: no more events are ingested for those.
    pub async fn retained_from(&self) -> Result<Option<Day>, HistoryError> {
        Ok(self.table.snapshot().await?.dropped.as_ref().map(|dropped| dropped.retained_from))
    }

    /// Reads the progress of the input file of this identity; with `again`, a completed file starts from the beginning.
    pub async fn standing(&self, identity: &str, again: bool) -> Result<Standing, HistoryError> {
        let first = ArchiveTags::history_file_app_id(&self.stream.name, identity);
        let mut round = 1;
        loop {
            let app_id = if round == 1 { first.clone() } else { format!("{first}#{round}") };
            match self.table.txn_version(&app_id).await? {
                Some(DONE) => round += 1,
                None if round > 1 && !again => return Ok(Standing::Done),
                progress => return Ok(Standing::Open { app_id, progress }),
            }
        }
    }

    /// Commits a chunk. In every case its events are in the archive either once or not.
    pub async fn append(&self, chunk: Chunk) -> Result<Taken, HistoryError> {
        let Chunk { rows: batches, steps } = chunk;
        let (stream, file_rows) = (Arc::clone(&self.stream), self.settings.file_rows);
        let cut = tokio::task::spawn_blocking(move || {
            let rows = concat_batches(&stream.schema(), &batches)?;
            let parts = parts(&stream, &rows, file_rows);
            Ok::<_, arrow::error::ArrowError>((rows, parts))
        });
        let (rows, parts) = cut.await??;
        let (count, parts) = (rows.num_rows() as u64, parts.into_iter().map(Arc::new).collect::<Vec<_>>());
        for _ in 0..COMMIT_ATTEMPTS_MAX {
            self.check(&steps).await?;
            let present = self.table.txn_version(&self.app_id).await?;
            let from = Offset(present.and_then(|offset| u64::try_from(offset).ok()).unwrap_or(0));
            let files = self.write(&rows, &parts, from).await?;
            fail_point("written");
            match self.commit(&files, &steps, present, from, count).await {
                Ok(_) => {
                    fail_point("committed");
                    let bytes = files.iter().map(|file| u64::try_from(file.size_bytes).unwrap_or(0)).sum();
                    return Ok(Taken { rows: count, files: files.len() as u64, bytes });
                }
                Err(LakeError::Conflict { reason, .. }) => {
                    tracing::info!(reason, "another process committed first; assigning new positions");
                    self.table.delete_files(&files).await?;
                }
                // The commit may have succeeded: the next start finds out from the transactions.
                Err(error) => return Err(error.into()),
            }
        }
        Err(HistoryError::Crowded)
    }

    /// Checks that no other process changed the progress of the input files.
    async fn check(&self, steps: &[Step]) -> Result<(), HistoryError> {
        for step in steps {
            if self.table.txn_version(&step.app_id).await? != step.from {
                return Err(HistoryError::SameFile);
            }
        }
        Ok(())
    }

    async fn write(
        &self,
        rows: &RecordBatch,
        parts: &[Arc<HistoricalFileRows>],
        from: Offset,
    ) -> Result<Vec<DataFile>, HistoryError> {
        let arrived_at = self.clock.now();
        let write = |part: Arc<HistoricalFileRows>| {
            let (stream, rows, day) = (Arc::clone(&self.stream), rows.clone(), part.day);
            async move {
                let positioned =
                    tokio::task::spawn_blocking(move || part.at_position(&stream, &rows, from, arrived_at));
                let (rows, tags) = positioned.await??;
                let mut file = self.table.write_parquet(day, &[rows]).await?;
                file.tags = tags.to_tags();
                Ok::<_, HistoryError>(file)
            }
        };
        stream::iter(parts.iter().cloned().map(write)).buffered(self.settings.writes.max(1)).try_collect().await
    }

    async fn commit(
        &self,
        files: &[DataFile],
        steps: &[Step],
        present: Option<i64>,
        from: Offset,
        count: u64,
    ) -> Result<i64, LakeError> {
        let to = from.0 + count;
        let mut txns: Vec<(String, i64)> = steps.iter().map(|step| (step.app_id.clone(), step.to)).collect();
        let mut expects: Vec<(String, Option<i64>)> =
            steps.iter().map(|step| (step.app_id.clone(), step.from)).collect();
        if count > 0 {
            txns.push((self.app_id.clone(), i64::try_from(to).unwrap_or(i64::MAX)));
            expects.push((self.app_id.clone(), present));
        }
        let info = match json!({"partition": Partition::HISTORY, "from": from, "to": to}) {
            Value::Object(info) => info,
            _ => Map::new(),
        };
        self.table.commit(Commit { add: files.to_vec(), txns, expects, info, ..Commit::default() }).await
    }
}

/// Aborts the process at the step that `TRUEUP_FAIL_AT` names, for tests that kill a real process.
#[cfg(feature = "fail-points")]
fn fail_point(step: &str) {
    if std::env::var("TRUEUP_FAIL_AT").is_ok_and(|at| at.strip_prefix("history-") == Some(step)) {
        tracing::error!(step, "aborting at the step named by TRUEUP_FAIL_AT");
        std::process::abort();
    }
}

/// Does nothing: fault injection is not compiled in.
#[cfg(not(feature = "fail-points"))]
fn fail_point(_: &str) {}
