//! Compacts archives, drops the dates that retention no longer keeps, and deletes unused files: one scheduled task per stream,
//! and on request. Runs and queries continue meanwhile; a run keeps the files of its plan by a lease.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use lake::vacuum::{VacuumAge, expire_old_log, vacuum};
use lake::{Commit, DataFile, DroppedEvents, Lake, LakeError, Table, TablePath};
use serde_json::json;
use shared::control::CompactionReport;
use shared::horizon::{DroppedSessions, Horizon};
use shared::ids::StreamName;
use shared::published::{PublishedView, Views};
use shared::stream::Stream;
use shared::time::{Day, Micros, micros_of};
use shared::window::Window;
use tokio::sync::{Mutex, MutexGuard};

use crate::archive::compaction::{CompactionTarget, FileGroup, groups, oldest_seam};
use crate::archive::retention::{DatesToDrop, dates_to_drop, first_open};
use crate::archive::settings::CompactionSettings;
use crate::deletion_clock::{DeletionClock, newest_event};
use crate::plan::sessions::latest_end;
use crate::step::UpkeepStep;
use crate::watch::Cancel;

/// Attempts to drop dates from an archive that is written to at the same time, before the next compaction tries again.
const DROP_ATTEMPTS_MAX: u32 = 3;

/// Compacts the archives of all streams.
pub struct Compactor {
    lake: Lake,
    views: Arc<Views>,
    clock: Arc<DeletionClock>,
    settings: CompactionSettings,
    /// One compaction of a stream at a time.
    streams: BTreeMap<StreamName, (Arc<Stream>, Mutex<()>)>,
}

/// Why an archive could not be compacted. Dates that were committed before stay compacted.
#[derive(Debug, thiserror::Error)]
pub enum CompactionError {
    #[error("{0}")]
    Lake(#[from] LakeError),
    #[error("{0}")]
    Tags(#[from] lake::archive_tags::InvalidTag),
    #[error("the files of {date} hold {found} rows, but their tags note {noted}; they are not compacted")]
    Rows { date: String, found: i64, noted: u64 },
}

impl Compactor {
    /// Returns a compactor of the archives of `streams`, whose views are `views`.
    pub fn new(
        lake: &Lake,
        views: &Arc<Views>,
        clock: &Arc<DeletionClock>,
        streams: &[Arc<Stream>],
        settings: CompactionSettings,
    ) -> Compactor {
        let clock = Arc::clone(clock);
        let streams = streams.iter().map(|s| (s.name.clone(), (Arc::clone(s), Mutex::default()))).collect();
        Compactor { lake: lake.clone(), views: Arc::clone(views), clock, settings, streams }
    }

    /// Returns the names of all streams.
    pub fn streams(&self) -> impl Iterator<Item = &StreamName> {
        self.streams.keys()
    }

    /// Returns a stream, and the right to be the only one that rewrites its archive.
    pub(super) async fn alone(&self, stream: &StreamName) -> Option<(&Arc<Stream>, MutexGuard<'_, ()>)> {
        let (stream, alone) = self.streams.get(stream)?;
        Some((stream, alone.lock().await))
    }

    pub(super) fn lake(&self) -> &Lake {
        &self.lake
    }

    /// Compacts the archive of `stream` on schedule until stopped.
    pub async fn watch(self: Arc<Compactor>, stream: StreamName, stopping: Cancel) {
        let CompactionSettings { every, vacuum_every, vacuum_age, files_min, .. } = self.settings;
        let pause = if every.is_zero() { vacuum_every } else { every };
        let mut vacuumed = shared::clock::monotonic_now();
        loop {
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = stopping.wait() => return,
            }
            let vacuum_due = vacuumed.elapsed() >= vacuum_every;
            let files_min = if every.is_zero() { usize::MAX } else { files_min };
            let work = self.compact(&stream, files_min, vacuum_due.then_some(vacuum_age));
            // It can stop anywhere: nothing counts before its commit, and only unused files are deleted.
            let done = tokio::select! {
                done = work => done,
                () = stopping.wait() => return,
            };
            if vacuum_due {
                vacuumed = shared::clock::monotonic_now();
            }
            if let Err(error) = done {
                tracing::warn!(%stream, %error, "compaction failed; will retry");
            }
        }
    }

    /// Drops the dates that the stream's retention no longer keeps, and rewrites neighbours of at least `files_min` files.
    /// Then vacuums files that have been unused for `older_than`. `None`: the stream does not exist.
    pub async fn compact(
        &self,
        stream: &StreamName,
        files_min: usize,
        older_than: Option<Duration>,
    ) -> Result<Option<CompactionReport>, CompactionError> {
        let Some((stream, _alone)) = self.alone(stream).await else { return Ok(None) };
        let mut compacted = CompactionReport::nothing(stream.name.clone());
        let Some(table) = self.lake.open_table(&TablePath::events(&stream.name)).await? else {
            return Ok(Some(compacted));
        };
        self.drop_dates(stream, &table, &mut compacted).await?;
        self.rewrite_all(stream, &table, files_min, &mut compacted).await?;
        if let Some(older_than) = older_than {
            UpkeepStep::CompactionDelete.reach();
            let clock_ahead = self.clock.ahead(newest_event(&table.snapshot().await?.files));
            let age = VacuumAge { older_than, clock_ahead };
            let vacuumed = vacuum(&table, None, age, self.lake.leases()).await?;
            compacted.files_deleted = vacuumed.files + vacuumed.unfinished;
            compacted.bytes_deleted = vacuumed.bytes;
            compacted.files_too_young = vacuumed.too_young;
            let older_than = older_than.max(self.settings.vacuum_age);
            let entries = expire_old_log(&table, VacuumAge { older_than, clock_ahead }, self.lake.leases()).await?;
            tracing::debug!(stream = %stream.name, entries, "old entries of the archive's table log deleted");
        }
        report(&compacted);
        Ok(Some(compacted))
    }

    /// Drops the dates that are older than the stream's retention. Runs that have planned keep their files by a lease; the
    /// same commit notes for later runs what was dropped.
    async fn drop_dates(
        &self,
        stream: &Stream,
        table: &Table,
        compacted: &mut CompactionReport,
    ) -> Result<(), CompactionError> {
        for attempt in 1.. {
            // In this order: a view that publishes in between covers more than assumed, never less.
            let views = self.views_of(stream);
            let snapshot = table.snapshot().await?;
            let before = snapshot.dropped.as_ref();
            compacted.retained_from = before.map(|dropped| dropped.retained_from.to_string());
            let now = self.clock.now(newest_event(&snapshot.files));
            let Some(wanted) = self.first_to_keep(stream, &views, before, now).await? else { return Ok(()) };
            let views: Vec<_> = views.iter().map(Arc::as_ref).collect();
            let drop = dates_to_drop(&snapshot.files, before, wanted, |partition| oldest_seam(&views, partition))?;
            let Some(DatesToDrop { files, dates, events, dropped }) = drop else { return Ok(()) };
            let retained_from = dropped.retained_from;
            let count = files.len() as u64;
            let info =
                json!({ "dropped": { "events": events, "dates": dates, "retained_from": retained_from.to_string() } });
            let note = info.as_object().cloned().unwrap_or_default();
            UpkeepStep::RetentionCommit.reach();
            let commit = Commit::drop_dates(snapshot.version, files, dropped).noting(note);
            match table.commit(commit).await {
                Ok(_) => {
                    compacted.retained_from = Some(retained_from.to_string());
                    (compacted.dates_dropped, compacted.files_dropped) = (dates, count);
                    compacted.events_dropped = events;
                    return Ok(());
                }
                // The archive was written to meanwhile: look again.
                Err(LakeError::Conflict { .. }) if attempt < DROP_ATTEMPTS_MAX => {}
                Err(LakeError::Conflict { reason, .. }) => {
                    tracing::info!(stream = %stream.name, reason, "no dates dropped: other commits came first");
                    compacted.conflicts += 1;
                    return Ok(());
                }
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    /// Returns the date before which everything may be dropped, if every view covers it; `None`: nothing may.
    async fn first_to_keep(
        &self,
        stream: &Stream,
        views: &[Arc<PublishedView>],
        before: Option<&DroppedEvents>,
        now: Micros,
    ) -> Result<Option<Day>, CompactionError> {
        // Without a retention now, late events of dates that were dropped before are dropped nevertheless.
        let by_retention = stream.retention.map(|retention| retention.first_day(now));
        let Some(mut wanted) = by_retention.or(before.map(|dropped| dropped.retained_from)) else { return Ok(None) };
        let lateness = micros_of(stream.allowed_lateness);
        for published in views {
            for view in std::iter::once(&published.view).chain(&published.shadow) {
                let mut sessions = Vec::new();
                if matches!(view.window, Window::Session { .. })
                    && let Some(table) = self.lake.open_table(&TablePath::view(&view.name)).await?
                {
                    let snapshot = table.snapshot().await?;
                    let of_file =
                        |file: &DataFile| Some((file.partition.day()?, latest_end(file).map_or(i64::MAX, |end| end.0)));
                    sessions.extend(snapshot.files.iter().filter_map(of_file));
                    // Frozen sessions need no event.
                    sessions.retain(|(day, _)| before.is_none_or(|dropped| *day >= dropped.retained_from));
                }
                let Some(open) = first_open(view.window, lateness, now, sessions.into_iter()) else { return Ok(None) };
                wanted = wanted.min(open);
            }
        }
        Ok(Some(before_dropped_sessions(views, wanted)))
    }

    fn views_of(&self, stream: &Stream) -> Vec<Arc<PublishedView>> {
        self.views.all().into_iter().filter(|view| view.stream.name == stream.name).collect()
    }

    async fn rewrite_all(
        &self,
        stream: &Stream,
        table: &Table,
        files_min: usize,
        compacted: &mut CompactionReport,
    ) -> Result<(), CompactionError> {
        let (snapshot, _lease) = table.held_snapshot().await?;
        compacted.files_before = snapshot.files.len() as u64;
        compacted.files_after = compacted.files_before;
        let views = self.views_of(stream);
        let views: Vec<_> = views.iter().map(Arc::as_ref).collect();
        let target = CompactionTarget { rows: self.settings.file_rows, bytes: self.settings.file_bytes, files_min };
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
                    tracing::info!(stream = %stream.name, reason, "date not compacted: another commit came first");
                    compacted.conflicts += 1;
                    table.delete_files(&written).await?;
                }
                Err(error) => {
                    // The commit may have succeeded: vacuum finds out, and deletes the files if it did not.
                    table.give_up(&written);
                    return Err(error);
                }
            }
        }
        Ok(())
    }
}

/// Returns the first date to keep, moved back until no dropped session reaches past it: the events of such a session must stay
/// recognizable.
fn before_dropped_sessions(views: &[Arc<PublishedView>], wanted: Day) -> Day {
    let mut wanted = wanted;
    loop {
        let first = views.iter().filter_map(|published| {
            let Window::Session { gap } = published.view.window else { return None };
            let DroppedSessions::Known(reach) = Horizon::of(published).dropped_sessions() else { return None };
            (reach.end > wanted.start()).then(|| reach.needed_from(gap))
        });
        match first.min().filter(|first| *first < wanted) {
            Some(first) => wanted = first,
            None => return wanted,
        }
    }
}

/// Rewrites the groups of one date and commits them; adds the new files to `written`.
async fn rewrite_date(
    stream: &Stream,
    table: &Table,
    groups: &[FileGroup],
    written: &mut Vec<DataFile>,
) -> Result<(), CompactionError> {
    UpkeepStep::CompactionWrite.reach();
    for group in groups {
        let mut file = table.rewrite(&group.files, &stream.archive_schema()).await?;
        file.tags = group.tags.to_tags();
        let (found, noted) = (file.rows, group.tags.rows);
        written.push(file);
        if u64::try_from(found) != Ok(noted) {
            let date = group.date.to_string();
            return Err(CompactionError::Rows { date, found, noted });
        }
    }
    UpkeepStep::CompactionCommit.reach();
    let remove: Vec<DataFile> = groups.iter().flat_map(|group| group.files.iter().cloned()).collect();
    let info = json!({ "compacted": { "files": remove.len(), "into": written.len() } });
    let note = info.as_object().cloned().unwrap_or_default();
    table.commit(Commit::compact(remove, written.clone()).noting(note)).await?;
    Ok(())
}

fn bytes_of<'a>(files: impl Iterator<Item = &'a DataFile>) -> u64 {
    files.map(|file| u64::try_from(file.size_bytes).unwrap_or(0)).sum()
}

fn report(compacted: &CompactionReport) {
    let CompactionReport { dates_dropped, events_dropped, retained_from, .. } = compacted;
    let CompactionReport { stream, dates, files_read, files_written, files_deleted, conflicts, .. } = compacted;
    let counter =
        |name: &'static str, more: u64| metrics::counter!(name, "stream" => stream.to_string()).increment(more);
    counter("trueup_compacted_files_total", *files_read);
    counter("trueup_compaction_conflicts_total", *conflicts);
    counter("trueup_archive_vacuumed_files_total", *files_deleted);
    metrics::gauge!("trueup_archive_files", "stream" => stream.to_string()).set(compacted.files_after as f64);
    if *events_dropped > 0 {
        counter("trueup_retention_dropped_events_total", *events_dropped);
        tracing::info!(%stream, dates_dropped, events_dropped, retained_from, "retention dropped dates");
    }
    if *files_read > 0 {
        tracing::info!(%stream, dates, files_read, files_written, "archive compacted");
    }
}
