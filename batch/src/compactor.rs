//! Who compacts archives, and deletes what of them nobody needs? A task per stream that looks now and then, and whoever
//! asks for it. Runs and queries go on meanwhile: a run that has planned keeps its files by a lease.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::json;
use shared::control::Compacted;
use shared::ids::StreamName;
use shared::lake::vacuum::{expire_old_log, vacuum};
use shared::lake::{Commit, DataFile, Lake, LakeError, Table, TablePath};
use shared::published::Views;
use shared::stream::Stream;
use tokio::sync::Mutex;

use crate::cancel::Cancel;
use crate::compaction::{Group, Target, groups, oldest_seam};
use crate::settings::CompactionSettings;
use crate::step::CompactionStep;

/// Compacts the archives of all streams.
pub struct Compactor {
    lake: Lake,
    views: Arc<Views>,
    settings: CompactionSettings,
    /// One compaction of a stream at a time.
    streams: BTreeMap<StreamName, (Arc<Stream>, Mutex<()>)>,
}

/// Why an archive could not be compacted. What was committed before stays.
#[derive(Debug, thiserror::Error)]
pub enum CompactionError {
    #[error("{0}")]
    Lake(#[from] LakeError),
    #[error("{0}")]
    Tags(#[from] shared::lake::archive_tags::InvalidTag),
    #[error("the files of {date} hold {found} rows, their tags say {noted}: they are left as they are")]
    Rows { date: String, found: i64, noted: u64 },
}

impl Compactor {
    /// A compactor of the archives of `streams`, in which `views` are the views.
    pub fn new(lake: &Lake, views: &Arc<Views>, streams: &[Arc<Stream>], settings: CompactionSettings) -> Compactor {
        let streams = streams.iter().map(|s| (s.name.clone(), (Arc::clone(s), Mutex::default()))).collect();
        Compactor { lake: lake.clone(), views: Arc::clone(views), settings, streams }
    }

    /// The streams there are.
    pub fn streams(&self) -> impl Iterator<Item = &StreamName> {
        self.streams.keys()
    }

    /// Looks after the archive of `stream` until stopped.
    pub async fn watch(self: Arc<Compactor>, stream: StreamName, stopping: Cancel) {
        let CompactionSettings { every, vacuum_every, vacuum_age, files_min, .. } = self.settings;
        let pause = if every.is_zero() { vacuum_every } else { every };
        let mut vacuumed = Instant::now();
        loop {
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = stopping.wait() => return,
            }
            let vacuum_due = vacuumed.elapsed() >= vacuum_every;
            let files_min = if every.is_zero() { usize::MAX } else { files_min };
            let work = self.compact(&stream, files_min, vacuum_due.then_some(vacuum_age));
            // Until it is committed nothing of it counts, and what is deleted nobody needs: it can stop anywhere.
            let done = tokio::select! {
                done = work => done,
                () = stopping.wait() => return,
            };
            if vacuum_due {
                vacuumed = Instant::now();
            }
            if let Err(error) = done {
                tracing::warn!(%stream, %error, "the archive could not be compacted; it will be next time");
            }
        }
    }

    /// Rewrites what can be rewritten: neighbours of at least `files_min` files. Then vacuums what has not been needed for
    /// `older_than`. `None`: there is no such stream.
    pub async fn compact(
        &self,
        stream: &StreamName,
        files_min: usize,
        older_than: Option<Duration>,
    ) -> Result<Option<Compacted>, CompactionError> {
        let Some((stream, alone)) = self.streams.get(stream) else { return Ok(None) };
        let _alone = alone.lock().await;
        let mut compacted = Compacted::nothing(stream.name.clone());
        let Some(table) = self.lake.open_table(&TablePath::events(&stream.name)).await? else {
            return Ok(Some(compacted));
        };
        self.rewrite_all(stream, &table, files_min, &mut compacted).await?;
        if let Some(older_than) = older_than {
            CompactionStep::Delete.reach();
            let vacuumed = vacuum(&table, None, older_than, self.lake.leases()).await?;
            compacted.files_deleted = vacuumed.files + vacuumed.unfinished;
            compacted.bytes_deleted = vacuumed.bytes;
            compacted.files_too_young = vacuumed.too_young;
            let age = older_than.max(self.settings.vacuum_age);
            let entries = expire_old_log(&table, age, self.lake.leases()).await?;
            tracing::debug!(stream = %stream.name, entries, "old entries of the archive's log were let go");
        }
        report(&compacted);
        Ok(Some(compacted))
    }

    async fn rewrite_all(
        &self,
        stream: &Stream,
        table: &Table,
        files_min: usize,
        compacted: &mut Compacted,
    ) -> Result<(), CompactionError> {
        let (snapshot, _lease) = table.held_snapshot().await?;
        compacted.files_before = snapshot.files.len() as u64;
        compacted.files_after = compacted.files_before;
        let views = self.views.all();
        let views: Vec<_> = views.iter().map(Arc::as_ref).filter(|view| view.stream.name == stream.name).collect();
        let target = Target { rows: self.settings.file_rows, bytes: self.settings.file_bytes, files_min };
        let groups = groups(&snapshot.files, target, |partition| oldest_seam(&views, partition))?;
        drop(snapshot);
        for date in groups.chunk_by(|a, b| a.date == b.date) {
            let mut written = Vec::with_capacity(date.len());
            let outcome = rewrite_date(stream, table, date, &mut written).await;
            let read = || date.iter().flat_map(|group| &group.files);
            match outcome {
                Ok(()) => {
                    let (read_count, written_count) = (read().count() as u64, written.len() as u64);
                    compacted.dates += 1;
                    compacted.files_after -= read_count - written_count;
                    compacted.files_read += read_count;
                    compacted.files_written += written_count;
                    compacted.rows += date.iter().map(|group| group.tags.rows).sum::<u64>();
                    compacted.bytes_read += bytes_of(read());
                    compacted.bytes_written += bytes_of(written.iter());
                }
                Err(CompactionError::Lake(LakeError::Conflict { reason, .. })) => {
                    tracing::info!(stream = %stream.name, reason, "a date was not compacted, another commit came first");
                    compacted.conflicts += 1;
                    table.delete_files(&written).await?;
                }
                Err(error) => {
                    // Whether a commit got through may not be known: vacuum finds out, and deletes what it has to.
                    table.give_up(&written);
                    return Err(error);
                }
            }
        }
        Ok(())
    }
}

/// Rewrites the groups of one date and commits them; what was written is noted in `written`.
async fn rewrite_date(
    stream: &Stream,
    table: &Table,
    groups: &[Group],
    written: &mut Vec<DataFile>,
) -> Result<(), CompactionError> {
    CompactionStep::Write.reach();
    for group in groups {
        let mut file = table.rewrite(&group.files, &stream.archive_schema()).await?;
        file.tags = group.tags.to_tags();
        let (found, noted) = (file.rows, group.tags.rows);
        written.push(file);
        if u64::try_from(found) != Ok(noted) {
            let date = crate::failure::date_name(group.date);
            return Err(CompactionError::Rows { date, found, noted });
        }
    }
    CompactionStep::Commit.reach();
    let remove: Vec<DataFile> = groups.iter().flat_map(|group| group.files.iter().cloned()).collect();
    let info = json!({ "compacted": { "files": remove.len(), "into": written.len() } });
    let info = info.as_object().cloned().unwrap_or_default();
    table.commit(Commit { add: written.clone(), remove, info, rearranges: true, ..Commit::default() }).await?;
    Ok(())
}

fn bytes_of<'a>(files: impl Iterator<Item = &'a DataFile>) -> u64 {
    files.map(|file| u64::try_from(file.size_bytes).unwrap_or(0)).sum()
}

fn report(compacted: &Compacted) {
    let Compacted { stream, dates, files_read, files_written, files_deleted, conflicts, .. } = compacted;
    let counter =
        |name: &'static str, more: u64| metrics::counter!(name, "stream" => stream.to_string()).increment(more);
    counter("trueup_compacted_files_total", *files_read);
    counter("trueup_compaction_conflicts_total", *conflicts);
    counter("trueup_archive_vacuumed_files_total", *files_deleted);
    metrics::gauge!("trueup_archive_files", "stream" => stream.to_string()).set(compacted.files_after as f64);
    if *files_read > 0 {
        tracing::info!(%stream, dates, files_read, files_written, "archive compacted");
    }
}
