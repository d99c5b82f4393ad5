//! Runs an archiver: it catches up with the log, collects new events, and commits by size, by age and at every cut, so
//! that each file lies entirely before or entirely after a cut.
//!
//! The archive itself records its progress: the table's transaction of the partition is the offset archived so far, and
//! moves in the same commit as the files. A crash between writing and committing leaves only unreferenced files.

use std::sync::Arc;
use std::time::Duration;

use arrow::array::RecordBatch;
use arrow::error::ArrowError;
use futures::StreamExt;
use lake::{ArchiveTags, Commit, DataFile, LakeError, SchemaChange, Table, TablePath};
use parking_lot::Mutex;
use serde_json::{Map, json};
use shared::handoff::LogBatch;
use shared::ids::{Offset, Partition};
use shared::limits;
use shared::log_queue::QueuedItem;
use shared::stream::{Stream, system_columns};
use shared::vital;
use tokio::sync::watch;

use super::flush::{ArchiveFileRows, Flush};
use super::pending::PendingRows;
use super::queue::{ArchiveQueue, QueueNext};
use super::retry::{ArchiverExit, RetryLoop};
use super::{ArchiveStatus, ArchiverContext, ArchiverSettings, READER};
use crate::fail_points::IntakePoint;

/// How long current work may take after the archiver was asked to stop.
const STOP_WAIT: Duration = Duration::from_secs(5);

/// One partition's archiver, before it runs.
pub(super) struct ArchiverThread {
    stream: Arc<Stream>,
    partition: Partition,
    app_id: String,
    /// Name of the thread.
    pub name: String,
    context: ArchiverContext,
    retry: RetryLoop,
    archived: watch::Sender<Option<Offset>>,
}

/// An archiver with an open table.
pub(super) struct ActiveArchiver {
    worker: Arc<ArchiverThread>,
    table: Table,
    pending: PendingRows,
}

/// Closes the queue however the thread ends, so that no writer waits for a dead archiver.
struct CloseOnEnd(Arc<ArchiveQueue>, Arc<Mutex<ArchiveStatus>>);

impl Drop for CloseOnEnd {
    fn drop(&mut self) {
        self.0.close();
        if std::thread::panicking() {
            self.1.lock().last_error = Some("the archiver panicked".to_owned());
        }
    }
}

impl ArchiverThread {
    pub fn new(
        stream: Arc<Stream>,
        partition: Partition,
        context: ArchiverContext,
        settings: ArchiverSettings,
        queue: Arc<ArchiveQueue>,
        status: Arc<Mutex<ArchiveStatus>>,
        archived: watch::Sender<Option<Offset>>,
    ) -> ArchiverThread {
        let app_id = ArchiveTags::app_id(&stream.name, partition);
        let retry = RetryLoop { queue, status, settings };
        let name = format!("archive-{}-{partition}", stream.name);
        ArchiverThread { stream, partition, app_id, name, context, retry, archived }
    }

    /// Runs until stopped; `head` is the end of the log when the queue was opened.
    ///
    /// # Errors
    /// Events can no longer reach the archive, and a retry would not help: the process has to stop.
    pub fn run(self, head: Offset) -> Result<(), String> {
        let worker = Arc::new(self);
        // Dropped before `worker`: the end of progress is seen only when the queue is closed.
        let _close = CloseOnEnd(worker.retry.queue.clone(), worker.retry.status.clone());
        let exit = match worker.begin(head) {
            Ok(mut active) => loop {
                if let Err(exit) = active.step() {
                    break exit;
                }
            },
            Err(exit) => exit,
        };
        match exit {
            ArchiverExit::Stopped => Ok(()),
            ArchiverExit::Broken(error) => {
                worker.retry.status.lock().last_error = Some(error.clone());
                Err(error)
            }
        }
    }

    /// Opens the archive and catches up with the log to `head`, its end when the queue was opened.
    pub(super) fn begin(self: &Arc<Self>, head: Offset) -> Result<ActiveArchiver, ArchiverExit> {
        let (table, archived) = self.retry.until_done("opening the archive", || self.open())?;
        if archived > head {
            // Offsets would be assigned a second time, and the archive would mistake new events for old ones.
            return Err(ArchiverExit::Broken(format!(
                "the archive holds all events before offset {archived}, but the log ends at {head}; check that this is the right log"
            )));
        }
        let pending = PendingRows::new(&self.stream, self.partition, archived);
        let mut active = ActiveArchiver { worker: Arc::clone(self), table, pending };
        active.publish_progress(archived, &[]);
        active.catch_up(head)?;
        Ok(active)
    }

    /// Opens the table, adds columns that the stream gained, and reads its progress.
    fn open(&self) -> Result<Result<(Table, Offset), LakeError>, ArchiverExit> {
        let lake = &self.context.lake;
        let schema = self.stream.archive_schema();
        let opened = self.block_on(async {
            let path = TablePath::events(&self.stream.name);
            let table = lake.table(&path, schema.clone(), system_columns::EVENT_DATE).await?;
            match table.schema_change(&schema).await? {
                SchemaChange::None => {}
                SchemaChange::Compatible => {
                    table.commit(Commit::columns(schema.clone())).await?;
                }
                SchemaChange::Incompatible(reason) => {
                    return Err(LakeError::Schema { table: table.name(), reason });
                }
            }
            let archived = table.txn_version(&self.app_id).await?.unwrap_or(0);
            Ok((table, offset_of(archived)))
        })?;
        Ok(opened)
    }

    /// Waits for work of the lake. If the lake does not respond, the work is abandoned some time after the archiver was
    /// asked to stop, as in a crash: the next start finds out whether it was committed.
    fn block_on<T>(&self, future: impl Future<Output = T>) -> Result<T, ArchiverExit> {
        let stopped = async {
            self.retry.queue.closed().await;
            tokio::time::sleep(STOP_WAIT).await;
        };
        self.context.runtime.block_on(async {
            tokio::select! {
                biased;
                done = future => Ok(done),
                () = stopped => Err(ArchiverExit::Stopped),
            }
        })
    }
}

impl ActiveArchiver {
    /// Processes the next item, or flushes what has waited long enough. Waits until there is one of both.
    fn step(&mut self) -> Result<(), ArchiverExit> {
        let deadline = self.pending.since().map(|since| since + self.worker.retry.settings.wait);
        match self.worker.retry.queue.next(deadline) {
            QueueNext::Item(item) => self.process(item),
            QueueNext::TimedOut => self.flush(),
            QueueNext::Closed => Err(ArchiverExit::Stopped),
        }
    }

    pub(super) fn process(&mut self, item: QueuedItem) -> Result<(), ArchiverExit> {
        self.catch_up(item.start())?;
        match item {
            QueuedItem::Batch(batch) => self.accept(&batch),
            QueuedItem::Cut(_) => self.flush(),
            QueuedItem::Unqueued(_) => Ok(()),
        }
    }

    /// Reads the missing events before `to` from the log.
    fn catch_up(&mut self, to: Offset) -> Result<(), ArchiverExit> {
        let log = self.worker.context.log.clone();
        let partition = self.worker.partition;
        if self.pending.end() >= to {
            return Ok(());
        }
        let worker = Arc::clone(&self.worker);
        worker.retry.until_done("replaying the log", || {
            let mut outcome = Ok(());
            let replayed = log.replay(partition, self.pending.end(), to, &mut |batch| {
                if outcome.is_ok() {
                    outcome = self.accept(&batch);
                }
            });
            outcome?;
            Ok(replayed.and_then(|()| match self.pending.end() {
                end if end < to => {
                    Err(shared::handoff::HandoffError(format!("the replay ended at {end}, before {to}")))
                }
                _ => Ok(()),
            }))
        })
    }

    /// Adds a batch that leaves no gap, and commits once there are enough rows.
    fn accept(&mut self, batch: &LogBatch) -> Result<(), ArchiverExit> {
        vital::reach(&self.worker.name);
        if batch.first_offset > self.pending.end() {
            let (first, expected) = (batch.first_offset, self.pending.end());
            return Err(ArchiverExit::Broken(format!("the log returned offset {first}, expected {expected}")));
        }
        self.pending.add(batch).map_err(|e| ArchiverExit::Broken(format!("cannot add a batch of the log: {e}")))?;
        self.worker.retry.status.lock().pending_rows = self.pending.rows();
        let ArchiverSettings { file_rows, file_bytes, .. } = self.worker.retry.settings;
        if self.pending.rows() >= file_rows || self.pending.bytes() >= file_bytes { self.flush() } else { Ok(()) }
    }

    /// Commits all pending rows, in several commits if they have many dates. Committed rows are kept.
    pub(super) fn flush(&mut self) -> Result<(), ArchiverExit> {
        let Some(flush) = self.pending.take().map_err(cannot_divide)? else { return Ok(()) };
        flush.commits(limits::ARCHIVE_COMMIT_DATES).into_iter().try_for_each(|commit| self.commit(commit))
    }

    /// Writes the files of one commit, and commits them.
    fn commit(&self, mut flush: Flush) -> Result<(), ArchiverExit> {
        let worker = &self.worker;
        let erased = |rows: &RecordBatch| worker.context.log.erased(worker.partition, rows);
        let mut parts = flush.parts(&erased).map_err(cannot_divide)?;
        // Written, but not known to be committed: a later attempt reuses them.
        let mut files: Vec<DataFile> = Vec::with_capacity(parts.len());
        let lost = |error: LakeError| match error {
            // I11: another log owns the lake. A retry would not help, and no more events may be numbered.
            LakeError::NotOwner { .. } => Err(ArchiverExit::Broken(error.to_string())),
            transient => Ok(Err(transient)),
        };
        let committed = self.worker.retry.until_done("writing to the archive", || {
            let present = match self.worker.block_on(self.table.txn_version(&self.worker.app_id))? {
                Ok(version) => offset_of(version.unwrap_or(0)),
                Err(error) => return Ok(Err(error)),
            };
            if present < flush.from {
                return Err(ArchiverExit::Broken(format!(
                    "the archive moved back from offset {} to {present}",
                    flush.from
                )));
            }
            if present > flush.from {
                // An earlier attempt was committed after all, or another process archived this partition. Files that
                // are not part of the table are garbage; `delete_files` keeps those that are.
                let unused = self.worker.block_on(self.table.delete_files(&files))?;
                tracing::info!(%present, unused = ?unused.err(), "the archive is ahead of this archiver");
                flush = flush.after(present);
                files.clear();
                parts = flush.parts(&erased).map_err(cannot_divide)?;
            }
            if parts.is_empty() {
                return Ok(Ok(false));
            }
            match self.worker.block_on(self.write(&flush, &parts, &mut files))? {
                Ok(()) => Ok(Ok(true)),
                Err(error) => lost(error),
            }
        })?;
        IntakePoint::ArchiveRelease.reach();
        self.publish_progress(flush.to, if committed { &files } else { &[] });
        Ok(())
    }

    /// Writes the files that are not written yet, and commits all of them.
    async fn write(
        &self,
        flush: &Flush,
        parts: &[ArchiveFileRows],
        files: &mut Vec<DataFile>,
    ) -> Result<(), LakeError> {
        IntakePoint::ArchiveWrite.reach();
        let write = |part: &ArchiveFileRows| {
            let (date, rows, tags) = (part.date, part.rows.clone(), part.tags.to_tags());
            async move {
                let mut file = self.table.write_parquet(date, std::slice::from_ref(&rows)).await?;
                file.tags = tags;
                Ok::<DataFile, LakeError>(file)
            }
        };
        let unwritten = parts[files.len()..].iter().map(write).collect::<Vec<_>>();
        let mut written = futures::stream::iter(unwritten).buffered(limits::ARCHIVE_FILES_AT_ONCE);
        while let Some(file) = written.next().await {
            files.push(file?);
        }
        let info = json!({"partition": flush.partition, "from": flush.from, "to": flush.to});
        let info = info.as_object().cloned().unwrap_or_else(Map::new);
        let mut commit = Commit::append(files.clone()).completing(&self.worker.app_id, flush.to.0 as i64).noting(info);
        if let Some(next) = flush.source_next() {
            let app_id = ArchiveTags::source_app_id(&self.worker.stream.name, self.worker.partition);
            commit = commit.completing(app_id, next);
        }
        IntakePoint::ArchiveCommit.reach();
        match self.table.commit(commit).await {
            Ok(_) => Ok(()),
            Err(error) => {
                if matches!(error, LakeError::FilesMissing { .. }) {
                    files.clear();
                }
                Err(error)
            }
        }
    }

    /// Publishes that all events before `archived` are in the lake, and releases them from the log.
    fn publish_progress(&self, archived: Offset, files: &[DataFile]) {
        let mut status = self.worker.retry.status.lock();
        status.archived = archived;
        status.pending_rows = self.pending.rows();
        status.files += files.len() as u64;
        status.bytes += files.iter().map(|file| file.size_bytes as u64).sum::<u64>();
        drop(status);
        self.worker.archived.send_replace(Some(archived));
        let retention = &self.worker.context.retention;
        retention.release(&self.worker.stream.name, self.worker.partition, READER, archived);
    }
}

fn cannot_divide(error: ArrowError) -> ArchiverExit {
    ArchiverExit::Broken(format!("cannot divide the rows into files: {error}"))
}

/// Transaction versions are offsets, which start at 0.
fn offset_of(version: i64) -> Offset {
    Offset(u64::try_from(version).unwrap_or(0))
}
