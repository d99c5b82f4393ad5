//! What does an archiver do all day? Catch up with the log, gather what arrives, and commit on size, on age and at
//! every cut, so that each file lies wholly before or wholly after it.
//!
//! The archive itself says how far it is: the table's transaction of the partition is the offset archived so far, and
//! moves in the same commit as the files. A crash between writing and committing leaves unreferenced files only.

use std::sync::Arc;
use std::time::Duration;

use lake::{ArchiveTags, Commit, DataFile, LakeError, SchemaChange, Table, TablePath};
use parking_lot::Mutex;
use serde_json::{Map, json};
use shared::handoff::{LogBatch, LogItem};
use shared::ids::{Offset, Partition};
use shared::stream::{Stream, system_columns};
use tokio::sync::watch;

use super::flush::{Flush, Part};
use super::pending::Pending;
use super::queue::{Next, Queue};
use super::retry::{End, Retry};
use super::{ArchiveStatus, ArchiverSettings, READER, Surroundings};

/// How long what is under way may take once the archiver was asked to stop.
const STOP_WAIT: Duration = Duration::from_secs(5);

/// One partition's archiver, before it runs.
pub(super) struct Worker {
    stream: Arc<Stream>,
    partition: Partition,
    app_id: String,
    surroundings: Surroundings,
    retry: Retry,
    archived: watch::Sender<Option<Offset>>,
}

/// An archiver at work.
struct Work<'a> {
    worker: &'a Worker,
    table: Table,
    pending: Pending,
}

/// Closes the queue however the thread ends, so that nobody waits for a dead archiver.
struct CloseOnEnd(Arc<Queue>, Arc<Mutex<ArchiveStatus>>);

impl Drop for CloseOnEnd {
    fn drop(&mut self) {
        self.0.close();
        if std::thread::panicking() {
            self.1.lock().last_error = Some("the archiver panicked".to_owned());
        }
    }
}

impl Worker {
    pub fn new(
        stream: Arc<Stream>,
        partition: Partition,
        surroundings: Surroundings,
        settings: ArchiverSettings,
        queue: Arc<Queue>,
        status: Arc<Mutex<ArchiveStatus>>,
        archived: watch::Sender<Option<Offset>>,
    ) -> Worker {
        let app_id = ArchiveTags::app_id(&stream.name, partition);
        let retry = Retry { queue, status, settings };
        Worker { stream, partition, app_id, surroundings, retry, archived }
    }

    /// Works until stopped; `head` is where the log ended when the queue was opened.
    pub fn run(self, head: Offset) {
        let _close = CloseOnEnd(self.retry.queue.clone(), self.retry.status.clone());
        match self.work(head) {
            Ok(()) | Err(End::Stopped) => {}
            Err(End::Broken(error)) => {
                tracing::error!(stream = %self.stream.name, partition = %self.partition, error, "the archiver has stopped");
                self.retry.status.lock().last_error = Some(error);
            }
        }
    }

    fn work(&self, head: Offset) -> Result<(), End> {
        let (table, archived) = self.retry.until_done("opening the archive", || self.open())?;
        if archived > head {
            // Offsets would be given out a second time, and the archive would take new events for old ones.
            return Err(End::Broken(format!(
                "the archive holds all before offset {archived}, but the log ends at {head}: is this the right log?"
            )));
        }
        let pending = Pending::new(&self.stream, self.partition, archived);
        let mut work = Work { worker: self, table, pending };
        work.settle(archived, &[]);
        work.catch_up(head)?;
        loop {
            let deadline = work.pending.since().map(|since| since + self.retry.settings.wait);
            match self.retry.queue.next(deadline) {
                Next::Item(LogItem::Batch(batch)) => {
                    work.catch_up(batch.first_offset)?;
                    work.accept(&batch)?;
                }
                Next::Item(LogItem::Cut(cut)) => {
                    work.catch_up(cut.offset)?;
                    work.flush()?;
                }
                Next::Late => work.flush()?,
                Next::Closed => return Err(End::Stopped),
            }
        }
    }

    /// Opens the table, gives it columns that the stream got since, and reads how far it is.
    fn open(&self) -> Result<Result<(Table, Offset), LakeError>, End> {
        let lake = &self.surroundings.lake;
        let schema = self.stream.archive_schema();
        let opened = self.block_on(async {
            let path = TablePath::events(&self.stream.name);
            let table = lake.table(&path, schema.clone(), system_columns::EVENT_DATE).await?;
            match table.schema_change(&schema).await? {
                SchemaChange::None => {}
                SchemaChange::Compatible => {
                    table.commit(Commit { schema: Some(schema.clone()), ..Commit::default() }).await?;
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

    /// Waits for what the lake has to do. A lake that does not answer is let go of some time after the archiver was asked to
    /// stop, as a crash would: the next start finds out what became of it.
    fn block_on<T>(&self, future: impl Future<Output = T>) -> Result<T, End> {
        let stopped = async {
            self.retry.queue.closed().await;
            tokio::time::sleep(STOP_WAIT).await;
        };
        self.surroundings.runtime.block_on(async {
            tokio::select! {
                biased;
                done = future => Ok(done),
                () = stopped => Err(End::Stopped),
            }
        })
    }
}

impl Work<'_> {
    /// Reads from the log what is missing before `to`.
    fn catch_up(&mut self, to: Offset) -> Result<(), End> {
        let log = self.worker.surroundings.log.clone();
        let partition = self.worker.partition;
        if self.pending.end() >= to {
            return Ok(());
        }
        self.worker.retry.until_done("replaying the log", || {
            let mut outcome = Ok(());
            let replayed = log.replay(partition, self.pending.end(), to, &mut |batch| {
                if outcome.is_ok() {
                    outcome = self.accept(&batch);
                }
            });
            outcome?;
            Ok(replayed.and_then(|()| match self.pending.end() {
                end if end < to => Err(shared::handoff::HandoffError(format!("it ended at {end}, before {to}"))),
                _ => Ok(()),
            }))
        })
    }

    /// Gathers a batch that leaves no gap, and commits once there is enough.
    fn accept(&mut self, batch: &LogBatch) -> Result<(), End> {
        if batch.first_offset > self.pending.end() {
            let (first, expected) = (batch.first_offset, self.pending.end());
            return Err(End::Broken(format!("the log gave offset {first} where {expected} was next")));
        }
        self.pending.add(batch).map_err(|e| End::Broken(format!("a batch of the log does not fit: {e}")))?;
        self.worker.retry.status.lock().pending_rows = self.pending.rows();
        if self.pending.rows() >= self.worker.retry.settings.file_rows { self.flush() } else { Ok(()) }
    }

    /// Commits everything gathered.
    fn flush(&mut self) -> Result<(), End> {
        let broken = |e| End::Broken(format!("cannot sort the rows into files: {e}"));
        let Some(mut flush) = self.pending.take().map_err(broken)? else { return Ok(()) };
        let mut parts = flush.parts().map_err(broken)?;
        // Written, but not known to be committed: a later attempt uses them, too.
        let mut files: Vec<DataFile> = Vec::with_capacity(parts.len());
        let lost = |error: LakeError| match error {
            // Trying again would not help, and the events must not be numbered any more.
            LakeError::NotOwner { .. } => Err(End::Broken(error.to_string())),
            passing => Ok(Err(passing)),
        };
        let committed = self.worker.retry.until_done("writing to the archive", || {
            let present = match self.worker.block_on(self.table.txn_version(&self.worker.app_id))? {
                Ok(version) => offset_of(version.unwrap_or(0)),
                Err(error) => return Ok(Err(error)),
            };
            if present < flush.from {
                return Err(End::Broken(format!("the archive went back from offset {} to {present}", flush.from)));
            }
            if present > flush.from {
                // An earlier attempt got through after all, or another process archived this partition. Files that
                // are not part of the table are garbage, and those that are will not be deleted.
                let unused = self.worker.block_on(self.table.delete_files(&files))?;
                tracing::info!(%present, unused = ?unused.err(), "the archive is ahead");
                flush = flush.after(present);
                files.clear();
                parts = flush.parts().map_err(broken)?;
            }
            if parts.is_empty() {
                return Ok(Ok(false));
            }
            match self.worker.block_on(self.write(&flush, &parts, &mut files))? {
                Ok(()) => Ok(Ok(true)),
                Err(error) => lost(error),
            }
        })?;
        self.settle(flush.to, if committed { &files } else { &[] });
        Ok(())
    }

    /// Writes the files that are not written yet, and commits them all.
    async fn write(&self, flush: &Flush, parts: &[Part], files: &mut Vec<DataFile>) -> Result<(), LakeError> {
        for part in &parts[files.len()..] {
            let mut file = self.table.write_parquet(part.day, std::slice::from_ref(&part.rows)).await?;
            file.tags = part.tags.to_tags();
            files.push(file);
        }
        let info = json!({"partition": flush.partition, "from": flush.from, "to": flush.to});
        let info = info.as_object().cloned().unwrap_or_else(Map::new);
        let txns = vec![(self.worker.app_id.clone(), flush.to.0 as i64)];
        self.table.commit(Commit { add: files.clone(), txns, info, ..Commit::default() }).await?;
        Ok(())
    }

    /// Tells everybody that all before `archived` is in the lake.
    fn settle(&self, archived: Offset, files: &[DataFile]) {
        let mut status = self.worker.retry.status.lock();
        status.archived = archived;
        status.pending_rows = self.pending.rows();
        status.files += files.len() as u64;
        status.bytes += files.iter().map(|file| file.size_bytes as u64).sum::<u64>();
        drop(status);
        self.worker.archived.send_replace(Some(archived));
        let retention = &self.worker.surroundings.retention;
        retention.release(&self.worker.stream.name, self.worker.partition, READER, archived);
    }
}

/// Transaction versions are offsets, which start at 0.
fn offset_of(version: i64) -> Offset {
    Offset(u64::try_from(version).unwrap_or(0))
}
