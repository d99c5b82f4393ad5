//! Deletes files that are no longer needed: old enough, in no kept version, without a reader, and not about to be
//! committed. It also deletes log entries from which no kept version is made.
//!
//! Files of a run that died between writing and committing are found in the same way: no entry of the log names them.

use std::collections::HashSet;
use std::time::Duration;

use deltalake_core::kernel::Action;
use deltalake_core::logstore::get_actions;
use deltalake_core::protocol::checkpoints::cleanup_expired_logs_for;
use futures::TryStreamExt;
use object_store::path::Path;
use object_store::{ObjectMeta, ObjectStore};

use super::delete::delete;
use super::exchange::{exchange_of, remove_empty};
use super::fail_points::LakePoint;
use super::readable::guarded;
use super::{LakeError, Leases, Table};
use shared::clock::{Clock, SystemClock};
use shared::limits::VACUUM_STAGED_AGE_MS;

/// A day, in milliseconds: entries newer than the current time, by a clock that is ahead, are still read.
const CLOCKS_APART_MS: i64 = 86_400_000;

/// The result of a vacuum.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct VacuumCounts {
    /// Files deleted, and their bytes.
    pub files: u64,
    pub bytes: u64,
    /// Remains of interrupted writes of a local lake.
    pub unfinished: u64,
    /// Unneeded files that are not old enough yet.
    pub too_young: u64,
}

/// How old an unneeded file has to be to be deleted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct VacuumAge {
    pub older_than: Duration,
    /// How far the clock is ahead of a plausible time: a wrong clock must not make files old.
    pub clock_ahead: Duration,
}

impl VacuumAge {
    /// Returns the time before which an unneeded file was written for the last time, in milliseconds since 1970.
    fn cutoff_ms(self) -> i64 {
        SystemClock.now().minus(self.clock_ahead).minus(self.older_than).0.div_euclid(1_000)
    }

    /// Returns the same for files that the log does not name: another process may be about to commit them, so
    /// their age has a floor.
    fn staged_cutoff_ms(self) -> i64 {
        let older_than = self.older_than.max(Duration::from_millis(VACUUM_STAGED_AGE_MS));
        VacuumAge { older_than, ..self }.cutoff_ms()
    }
}

/// Deletes the files of `table` that neither a version from `keep_versions_from` on (`None`: only the newest) nor a
/// lease needs, if they have been unneeded for `age.older_than`. That time protects readers and runs of other processes,
/// whose leases are unknown here. Files that the log does not name are kept for [`VACUUM_STAGED_AGE_MS`] at least.
pub async fn vacuum(
    table: &Table,
    keep_versions_from: Option<i64>,
    age: VacuumAge,
    leases: &Leases,
) -> Result<VacuumCounts, LakeError> {
    let newest = table.newest_version().await?;
    let floor = keep_versions_from.unwrap_or(newest).clamp(0, newest.max(0));
    // In this order: see [`Leases::begin_vacuum`].
    let listed = files_in_store(table).await?;
    let kept = leases.begin_vacuum(table.path(), floor);
    let from = kept.versions.first().copied().unwrap_or(floor).min(floor);
    let (cutoff_ms, staged_cutoff_ms) = (age.cutoff_ms(), age.staged_cutoff_ms());
    let (mut needed, version) = needed_since(table, from).await?;
    needed.extend(needed_at(table, from, cutoff_ms).await?);
    // Files that are younger than the floor were added by a commit that is at least as young, or by none yet.
    let named = match cutoff_ms > staged_cutoff_ms {
        true => named_since(table, staged_cutoff_ms, version).await?,
        false => HashSet::new(),
    };

    let mut counts = VacuumCounts::default();
    let mut unneeded = Vec::new();
    for file in listed {
        let path = file.location.as_ref();
        // I10: files that a kept version, a lease or a staged commit needs are not deleted.
        let is_exchanged = exchange_of(path).is_some_and(|exchange| kept.staged.contains(exchange));
        if needed.contains(path) || kept.staged.contains(path) || is_exchanged {
            continue;
        }
        let written_ms = file.last_modified.timestamp_millis();
        if written_ms > cutoff_ms || (written_ms > staged_cutoff_ms && !named.contains(path)) {
            counts.too_young += 1;
            continue;
        }
        counts.files += 1;
        counts.bytes += file.size;
        unneeded.push(file.location);
    }
    LakePoint::VacuumFiles.reach();
    let exchanges: HashSet<String> =
        unneeded.iter().filter_map(|path| exchange_of(path.as_ref())).map(str::to_owned).collect();
    delete(table.store().as_ref(), unneeded).await?;
    LakePoint::VacuumUnfinished.reach();
    if let Some(durable) = &table.inner.durable {
        let (durable, table) = (durable.clone(), table.clone());
        let unfinished = tokio::task::spawn_blocking(move || {
            let data = |path: &str| path.starts_with(&data_prefix(&table)) && !kept.staged.contains(path);
            let folder = durable.root().join(table.name());
            let files = super::disk::remove_unfinished(&folder, staged_cutoff_ms, &data);
            exchanges.iter().for_each(|exchange| remove_empty(&folder.join(exchange)));
            let log = |path: &str| path.starts_with("_delta_log/");
            files + super::disk::remove_unfinished(&folder, staged_cutoff_ms, &log)
        });
        counts.unfinished = unfinished.await?;
    }
    Ok(counts)
}

/// Returns when the oldest file in the store was written that no version from `keep_versions_from` on (`None`: only the newest)
/// has, in milliseconds; `None`: there is none.
pub async fn oldest_leftover(table: &Table, keep_versions_from: Option<i64>) -> Result<Option<i64>, LakeError> {
    let listed = files_in_store(table).await?;
    let newest = table.newest_version().await?;
    let (needed, _) = needed_since(table, keep_versions_from.unwrap_or(newest).clamp(0, newest.max(0))).await?;
    let left = listed.iter().filter(|file| !needed.contains(file.location.as_ref()));
    Ok(left.map(|file| file.last_modified.timestamp_millis()).min())
}

/// Deletes entries and checkpoints of the log from which no version from `version` on is made. Returns their number.
pub async fn expire_log(table: &Table, version: i64) -> Result<u64, LakeError> {
    let keep_from = table.version_of(version)?;
    let log = table.inner.log_store.as_ref();
    let now_ms = SystemClock.now().0.div_euclid(1_000);
    LakePoint::VacuumLog.reach();
    let expire = async { Ok(cleanup_expired_logs_for(keep_from, log, now_ms + CLOCKS_APART_MS, None).await?) };
    let deleted = guarded(&table.name(), expire).await?;
    Ok(deleted as u64)
}

/// Deletes entries of the log that are older than `age.older_than` and that no lease needs, of a table whose versions
/// are not counted. Opening a table lists its log, so the log must not grow for ever.
pub async fn expire_old_log(table: &Table, age: VacuumAge, leases: &Leases) -> Result<u64, LakeError> {
    let newest = table.newest_version().await?;
    let young = first_since(table, age.cutoff_ms()).await?.unwrap_or(newest);
    let oldest = leases.oldest_version(table.path()).map_or(young, |held| held.min(young));
    expire_log(table, oldest.min(newest).max(0)).await
}

/// Returns the versions of which the log has entries, with the times at which they were written, in milliseconds.
async fn entries(table: &Table) -> Result<Vec<(i64, i64)>, LakeError> {
    let log = Path::from("_delta_log");
    let listed: Vec<ObjectMeta> = table.store().list(Some(&log)).try_collect().await?;
    let entry = |object: &ObjectMeta| {
        let version: u64 = object.location.filename()?.strip_suffix(".json")?.parse().ok()?;
        Some((i64::try_from(version).ok()?, object.last_modified.timestamp_millis()))
    };
    Ok(listed.iter().filter_map(entry).collect())
}

/// Returns the first version written after `cutoff_ms`.
async fn first_since(table: &Table, cutoff_ms: i64) -> Result<Option<i64>, LakeError> {
    let entries = entries(table).await?;
    Ok(entries.into_iter().filter(|(_, written_ms)| *written_ms > cutoff_ms).map(|(version, _)| version).min())
}

/// Returns the common prefix of the paths of a table's files.
fn data_prefix(table: &Table) -> String {
    format!("{}=", table.partition_column())
}

async fn files_in_store(table: &Table) -> Result<Vec<ObjectMeta>, LakeError> {
    let prefix = data_prefix(table);
    let is_data = |file: &ObjectMeta| {
        let path = file.location.as_ref();
        path.starts_with(&prefix) || exchange_of(path).is_some()
    };
    let listed: Vec<ObjectMeta> = table.store().list(None).try_collect().await?;
    Ok(listed.into_iter().filter(is_data).collect())
}

/// Returns the files of every version from `from` to the newest, which are those that the newest has and those removed since, and
/// the number of the newest.
async fn needed_since(table: &Table, from: i64) -> Result<(HashSet<String>, i64), LakeError> {
    let snapshot = table.snapshot().await?;
    let mut needed: HashSet<String> = snapshot.files.iter().map(|file| file.path.clone()).collect();
    for version in from + 1..=snapshot.version {
        let Some(paths) = named_by(table, version).await? else {
            let reason = format!("the log has no entry of version {version}, so the needed files are unknown");
            return Err(LakeError::Schema { table: table.name(), reason });
        };
        needed.extend(paths);
    }
    Ok((needed, snapshot.version))
}

/// Returns the files that entries of the log written after `cutoff_ms` name, up to version `newest`. A file that only a later
/// version names may be needed: another process may have committed it meanwhile.
async fn named_since(table: &Table, cutoff_ms: i64, newest: i64) -> Result<HashSet<String>, LakeError> {
    let Some(first) = first_since(table, cutoff_ms).await? else { return Ok(HashSet::new()) };
    let mut named = HashSet::new();
    // Only versions that have an entry: another program may have left a gap of any size.
    let present = entries(table).await?.into_iter().map(|(version, _)| version);
    for version in present.filter(|version| (first..=newest).contains(version)) {
        named.extend(named_by(table, version).await?.into_iter().flatten());
    }
    Ok(named)
}

/// Returns the files that `version` added or removed; `None`: the log has no entry of it.
async fn named_by(table: &Table, version: i64) -> Result<Option<Vec<String>>, LakeError> {
    let version = table.version_of(version)?;
    let Some(bytes) = table.inner.log_store.read_commit_entry(version).await? else { return Ok(None) };
    let paths = get_actions(version, &bytes)?.into_iter().filter_map(|action| match action {
        Action::Add(add) => Some(add.path),
        Action::Remove(remove) => Some(remove.path),
        _ => None,
    });
    Ok(Some(paths.collect()))
}

/// Returns the files of the version that was the newest at `cutoff_ms`, if it is older than `from` and can still be
/// loaded. Files added or removed since are protected by their own age.
async fn needed_at(table: &Table, from: i64, cutoff_ms: i64) -> Result<HashSet<String>, LakeError> {
    let first = first_since(table, cutoff_ms).await?;
    let Some(version) = first.map(|first| first - 1).filter(|version| (0..from).contains(version)) else {
        return Ok(HashSet::new());
    };
    match table.snapshot_at(version).await {
        Ok(snapshot) => Ok(snapshot.files.into_iter().map(|file| file.path).collect()),
        Err(error) => {
            tracing::debug!(table = table.name(), version, %error, "an old version cannot be loaded and has no readers");
            Ok(HashSet::new())
        }
    }
}
