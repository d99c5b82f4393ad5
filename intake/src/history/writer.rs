//! How do historical events reach the archive exactly once? Rows, their places and the progress of the input files move
//! in one commit, which fails if any of it is not what the writer believed.

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

use super::parts::{Part, parts};

/// The progress of an input file that has been taken in to its end.
pub const DONE: i64 = i64::MAX;
/// Times a chunk is given new places because others were faster, before giving up.
const PLACES_TRIED_MAX: usize = 100;

/// How files are written.
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

/// Why events could not be taken in. What was committed before stays.
#[derive(Debug, thiserror::Error)]
pub enum HistoryError {
    #[error(transparent)]
    Lake(#[from] LakeError),
    #[error("another process is taking in the same file: let it finish, then start again to see that nothing is left")]
    SameFile,
    #[error("other processes were faster {PLACES_TRIED_MAX} times in a row; start again to go on")]
    Crowded,
    #[error("rows cannot be put into files: {0}")]
    Rows(#[from] arrow::error::ArrowError),
    #[error("background work ended: {0}")]
    Background(#[from] tokio::task::JoinError),
}

/// How far an input file has been taken in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Standing {
    /// To its end.
    Done,
    /// Up to here; go on with this name.
    Open { app_id: String, progress: Option<i64> },
}

/// An input file moves on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    pub app_id: String,
    /// Where it was before: lines or rows taken in, or refused. `None`: nowhere.
    pub from: Option<i64>,
    /// Where it is then; [`DONE`] at its end.
    pub to: i64,
}

/// Events that are committed together, and what the input files have come to with them.
#[derive(Debug, Default)]
pub struct Chunk {
    /// [`Stream::schema`].
    pub rows: Vec<RecordBatch>,
    pub steps: Vec<Step>,
}

/// What a chunk became.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Taken {
    pub rows: u64,
    pub files: u64,
    pub bytes: u64,
}

/// Puts historical events into the archive of one stream.
pub struct HistoryWriter {
    stream: Arc<Stream>,
    table: Table,
    app_id: String,
    settings: HistorySettings,
    clock: Arc<dyn Clock>,
}

impl HistoryWriter {
    /// Opens the archive, which is created if need be, and gives it columns that the stream got since.
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

    /// Events of earlier dates have been dropped by the stream's retention: none are taken in for them any more.
    pub async fn retained_from(&self) -> Result<Option<Day>, HistoryError> {
        Ok(self.table.snapshot().await?.dropped.as_ref().map(|dropped| dropped.retained_from))
    }

    /// How far the input file of this identity is; with `again`, a file that is done begins anew.
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

    /// Commits a chunk. Whatever happens, its events are in the archive once or not at all.
    pub async fn take_in(&self, chunk: Chunk) -> Result<Taken, HistoryError> {
        let Chunk { rows: batches, steps } = chunk;
        let (stream, file_rows) = (Arc::clone(&self.stream), self.settings.file_rows);
        let cut = tokio::task::spawn_blocking(move || {
            let rows = concat_batches(&stream.schema(), &batches)?;
            let parts = parts(&stream, &rows, file_rows);
            Ok::<_, arrow::error::ArrowError>((rows, parts))
        });
        let (rows, parts) = cut.await??;
        let (count, parts) = (rows.num_rows() as u64, parts.into_iter().map(Arc::new).collect::<Vec<_>>());
        for _ in 0..PLACES_TRIED_MAX {
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
                    tracing::info!(reason, "another process was faster: the rows get new places");
                    self.table.delete_files(&files).await?;
                }
                // The commit may have happened: the next start sees it in the transactions.
                Err(error) => return Err(error.into()),
            }
        }
        Err(HistoryError::Crowded)
    }

    /// The input files must still be where this process has brought them.
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
        parts: &[Arc<Part>],
        from: Offset,
    ) -> Result<Vec<DataFile>, HistoryError> {
        let arrived_at = self.clock.now();
        let write = |part: Arc<Part>| {
            let (stream, rows, day) = (Arc::clone(&self.stream), rows.clone(), part.day);
            async move {
                let placed = tokio::task::spawn_blocking(move || part.placed(&stream, &rows, from, arrived_at));
                let (rows, tags) = placed.await??;
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

/// For tests that kill a real process: ends it at a named step if the variable `TRUEUP_FAIL_AT` says so.
fn fail_point(step: &str) {
    if std::env::var("TRUEUP_FAIL_AT").is_ok_and(|at| at.strip_prefix("history-") == Some(step)) {
        tracing::error!(step, "ending the process because TRUEUP_FAIL_AT says so");
        std::process::abort();
    }
}
