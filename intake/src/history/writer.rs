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
use shared::time::{Day, Micros};

use super::parts::{HistoricalFileRows, parts};
use crate::fail_points::IntakePoint;

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
pub enum FileProgress {
    /// Ingested completely.
    Done,
    /// Ingested up to `progress`; continue with this name.
    Open { app_id: String, progress: Option<i64> },
}

/// A change of an input file's progress.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProgressChange {
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
    pub changes: Vec<ProgressChange>,
}

/// The result of a commit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CommittedChunk {
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
                table.commit(Commit::columns(schema)).await?;
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
    pub async fn progress_of(&self, identity: &str, again: bool) -> Result<FileProgress, HistoryError> {
        let first = ArchiveTags::history_file_app_id(&self.stream.name, identity);
        let mut round = 1;
        loop {
            let app_id = if round == 1 { first.clone() } else { format!("{first}#{round}") };
            match self.table.txn_version(&app_id).await? {
                Some(DONE) => round += 1,
                None if round > 1 && !again => return Ok(FileProgress::Done),
                progress => return Ok(FileProgress::Open { app_id, progress }),
            }
        }
    }

    /// Commits a chunk. In every case its events are in the archive either once or not.
    pub async fn append(&self, chunk: Chunk) -> Result<CommittedChunk, HistoryError> {
        let Chunk { rows: batches, changes } = chunk;
        let (stream, file_rows) = (Arc::clone(&self.stream), self.settings.file_rows);
        let cut = tokio::task::spawn_blocking(move || {
            let rows = concat_batches(&stream.schema(), &batches)?;
            let parts = parts(&stream, &rows, file_rows);
            Ok::<_, arrow::error::ArrowError>((rows, parts))
        });
        let (rows, parts) = cut.await??;
        let (count, parts) = (rows.num_rows() as u64, parts.into_iter().map(Arc::new).collect::<Vec<_>>());
        for _ in 0..COMMIT_ATTEMPTS_MAX {
            self.check(&changes).await?;
            let present = self.table.txn_version(&self.app_id).await?;
            let from = Offset(present.and_then(|offset| u64::try_from(offset).ok()).unwrap_or(0));
            IntakePoint::HistoryWrite.reach();
            let files = self.write(&rows, &parts, from).await?;
            IntakePoint::HistoryWritten.reach();
            match self.commit(&files, &changes, present, from, count).await {
                Ok(_) => {
                    IntakePoint::HistoryCommitted.reach();
                    self.write_lost_again(&rows, &parts, from, &files).await?;
                    let bytes = files.iter().map(|file| u64::try_from(file.size_bytes).unwrap_or(0)).sum();
                    return Ok(CommittedChunk { rows: count, files: files.len() as u64, bytes });
                }
                Err(LakeError::Conflict { reason, .. }) => {
                    tracing::info!(reason, "another process committed first; assigning new positions");
                    self.table.delete_files(&files).await?;
                }
                Err(error @ LakeError::FilesMissing { .. }) => {
                    tracing::warn!(%error, "files were deleted before their commit; writing them again");
                    self.table.delete_files(&files).await?;
                }
                // The commit may have succeeded: the next start finds out from the transactions.
                Err(error) => return Err(error.into()),
            }
        }
        Err(HistoryError::Crowded)
    }

    /// Checks that no other process changed the progress of the input files.
    async fn check(&self, changes: &[ProgressChange]) -> Result<(), HistoryError> {
        for step in changes {
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
        let write = |part: Arc<HistoricalFileRows>| async move {
            let date = part.date;
            let (rows, tags) = self.positioned(part, rows, from, arrived_at).await?;
            let file = self.table.write_parquet(date, &[rows]).await?;
            Ok::<_, HistoryError>(DataFile { tags: tags.to_tags(), ..file })
        };
        stream::iter(parts.iter().cloned().map(write)).buffered(self.settings.writes.max(1)).try_collect().await
    }

    async fn positioned(
        &self,
        part: Arc<HistoricalFileRows>,
        rows: &RecordBatch,
        from: Offset,
        arrived_at: Micros,
    ) -> Result<(RecordBatch, ArchiveTags), HistoryError> {
        let (stream, rows) = (Arc::clone(&self.stream), rows.clone());
        let position = move || part.at_position(&stream, &rows, from, arrived_at);
        Ok(tokio::task::spawn_blocking(position).await??)
    }

    /// Writes those of the committed `files` again that were deleted just before the commit: a vacuum of another process may
    /// have read the log before.
    async fn write_lost_again(
        &self,
        rows: &RecordBatch,
        parts: &[Arc<HistoricalFileRows>],
        from: Offset,
        files: &[DataFile],
    ) -> Result<(), HistoryError> {
        let lost = self.table.missing(files).await?;
        for (file, part) in files.iter().zip(parts).filter(|(file, _)| lost.contains(file)) {
            tracing::warn!(path = file.path, "a file was deleted while it was committed; writing it again");
            let (rows, _) = self.positioned(Arc::clone(part), rows, from, self.clock.now()).await?;
            self.table.write_again(file, &[rows]).await?;
        }
        Ok(())
    }

    async fn commit(
        &self,
        files: &[DataFile],
        changes: &[ProgressChange],
        present: Option<i64>,
        from: Offset,
        count: u64,
    ) -> Result<i64, LakeError> {
        let to = from.0 + count;
        let append = Commit::append(files.to_vec());
        let commit = changes.iter().fold(append, |commit, step| commit.moving(&step.app_id, step.from, step.to));
        let commit = match count {
            0 => commit,
            _ => commit.moving(&self.app_id, present, i64::try_from(to).unwrap_or(i64::MAX)),
        };
        let note = match json!({"partition": Partition::HISTORY, "from": from, "to": to}) {
            Value::Object(info) => info,
            _ => Map::new(),
        };
        self.table.commit(commit.noting(note)).await
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::{ArrayRef, TimestampMicrosecondArray};
    use shared::clock::ManualClock;
    use shared::time::MICROS_PER_DAY;

    use super::*;

    async fn writer(folder: &std::path::Path) -> HistoryWriter {
        let sql = "CREATE STREAM s (at TIMESTAMP) WITH (event_time = 'at');";
        let parsed = shared::sql::parse_definitions(&[("s".to_owned(), sql.to_owned())]);
        let stream = Arc::new(parsed.expect("right").streams.remove(0));
        let lake = Lake::open(folder.to_str().expect("UTF-8")).expect("a lake");
        let clock = Arc::new(ManualClock::at(Micros(7)));
        HistoryWriter::open(&lake, stream, HistorySettings::default(), clock).await.expect("opens")
    }

    /// An event on each of three days.
    fn chunk(writer: &HistoryWriter) -> (RecordBatch, Vec<Arc<HistoricalFileRows>>) {
        let times: ArrayRef = Arc::new(
            TimestampMicrosecondArray::from_iter_values((0..3).map(|n| n * MICROS_PER_DAY)).with_timezone("UTC"),
        );
        let rows = RecordBatch::try_new(writer.stream.schema(), vec![times]).expect("rows");
        let parts = parts(&writer.stream, &rows, 10).into_iter().map(Arc::new).collect();
        (rows, parts)
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn files_that_another_process_deletes_are_written_again() {
        let folder = tempfile::tempdir().expect("a folder");
        let writer = writer(folder.path()).await;
        let (rows, parts) = chunk(&writer);
        let path = |file: &DataFile| writer.table.url_of(file);

        // Before the commit: nothing is committed, so that the caller starts again.
        let files = writer.write(&rows, &parts, Offset(0)).await.expect("written");
        std::fs::remove_file(path(&files[1])).expect("deleted");
        let refused = writer.commit(&files, &[], None, Offset(0), 3).await;
        assert!(matches!(refused, Err(LakeError::FilesMissing { count: 1, .. })), "{refused:?}");
        assert_eq!(writer.table.txn_version(&writer.app_id).await.expect("readable"), None);

        // After it: the same rows under the same name.
        let files = writer.write(&rows, &parts, Offset(0)).await.expect("written");
        writer.commit(&files, &[], None, Offset(0), 3).await.expect("committed");
        let before = std::fs::read(path(&files[1])).expect("readable");
        std::fs::remove_file(path(&files[1])).expect("deleted");
        writer.write_lost_again(&rows, &parts, Offset(0), &files).await.expect("written again");
        assert_eq!(std::fs::read(path(&files[1])).expect("there again"), before);
        assert_eq!(writer.table.missing(&files).await.expect("looked up"), []);
    }
}
