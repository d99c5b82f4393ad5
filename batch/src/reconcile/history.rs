//! Keeps comparisons in a Delta table per view, one file per version, and the latest ones in memory as well.
//!
//! The file is written before its version is committed, and the version's notes name it. If the process ends between the two
//! commits, [`ComparisonHistory::settle`] completes the second. The table's transaction is the number of the version:
//! nothing becomes part of it twice.

mod columns;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use futures::future::try_join_all;
use lake::{Commit, DataFile, Lake, LakeError, Table, TablePath, check_footer};
use object_store::ObjectStoreExt;
use object_store::path::Path;
use parking_lot::Mutex;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use shared::compare::Comparison;
use shared::date_partition::DatePartition;
use shared::handoff::HandoffError;
use shared::ids::ViewName;
use shared::limits::{DRIFT_VERSIONS_MAX, RECONCILIATIONS_KEPT};
use shared::version::BatchVersion;

use self::columns::{COMPARED_DATE, ColumnsError};

/// The tag of each file that holds the number of its version.
const VERSION_TAG: &str = "version";
/// Files read at once.
const READS: usize = 16;

/// The comparisons of all views.
pub struct ComparisonHistory {
    lake: Lake,
    latest: Mutex<HashMap<ViewName, Arc<Comparison>>>,
    /// Views whose table was searched for the latest comparison.
    searched: Mutex<HashSet<ViewName>>,
    /// Comparisons by version, without rows.
    history: Mutex<HashMap<ViewName, BTreeMap<i64, Arc<Comparison>>>>,
}

/// Why a comparison could not be read or written.
#[derive(Debug, thiserror::Error)]
enum HistoryError {
    #[error(transparent)]
    Lake(#[from] LakeError),
    #[error(transparent)]
    Store(#[from] object_store::Error),
    #[error(transparent)]
    Parquet(#[from] parquet::errors::ParquetError),
    #[error(transparent)]
    Arrow(#[from] arrow::error::ArrowError),
    #[error(transparent)]
    Columns(#[from] ColumnsError),
    #[error("background task failed: {0}")]
    Background(#[from] tokio::task::JoinError),
}

impl ComparisonHistory {
    /// Returns the comparisons kept in `lake`.
    pub fn new(lake: &Lake) -> ComparisonHistory {
        ComparisonHistory {
            lake: lake.clone(),
            latest: Mutex::default(),
            searched: Mutex::default(),
            history: Mutex::default(),
        }
    }

    /// Writes a comparison's file; [`ComparisonHistory::settle`] makes it part of the table once its version is committed.
    /// A failure is logged and does not fail the run.
    pub async fn stage(&self, comparison: &Comparison) -> Option<DataFile> {
        match self.write(comparison).await {
            Ok(file) => Some(file),
            Err(error) => {
                let (view, version) = (&comparison.view, comparison.version);
                tracing::warn!(%view, version, %error, "could not write the comparison");
                None
            }
        }
    }

    /// Deletes a staged file: the run failed.
    pub async fn discard(&self, view: &ViewName, file: Option<DataFile>) {
        let Some(file) = file else { return };
        if let Ok(table) = self.table(view).await
            && let Err(error) = table.delete_files(&[file]).await
        {
            tracing::warn!(%view, %error, "could not delete the comparison of a failed run");
        }
    }

    /// Remembers the comparison of a version that is committed and about to be published.
    pub fn remember(&self, comparison: &Comparison) {
        self.summarize(comparison);
        self.latest.lock().insert(comparison.view.clone(), Arc::new(comparison.clone()));
    }

    /// Makes the file of a version's comparison part of the table, unless it is already: the process that published the
    /// version may have ended before.
    pub async fn settle(&self, version: &BatchVersion) {
        let Some(file) = &version.comparison_file else { return };
        if let Err(error) = self.commit(version, file).await {
            let view = &version.view;
            tracing::warn!(%view, version = version.version, %error, "could not commit the comparison to its table; the next start will");
        }
    }

    async fn write(&self, comparison: &Comparison) -> Result<DataFile, HistoryError> {
        let table = self.table(&comparison.view).await?;
        let rows = columns::rows(comparison)?;
        let mut file = table.write_parquet(DatePartition::of_day(comparison.compared_at.day()), &[rows]).await?;
        file.tags.insert(VERSION_TAG.to_owned(), comparison.version.to_string());
        Ok(file)
    }

    async fn commit(&self, version: &BatchVersion, file: &DataFile) -> Result<(), HistoryError> {
        let table = self.table(&version.view).await?;
        let app_id = TablePath::reconciliations(&version.view).to_string();
        if table.txn_version(&app_id).await?.is_some_and(|written| written >= version.version) {
            return Ok(());
        }
        let expired = expired(&table.snapshot().await?.files);
        let commit = Commit::exchange(expired, vec![file.clone()])
            .completing(app_id, version.version)
            .with_columns(columns::schema());
        match table.commit(commit).await {
            Ok(_) | Err(LakeError::AlreadyCommitted { .. }) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    async fn table(&self, view: &ViewName) -> Result<Table, LakeError> {
        self.lake.table(&TablePath::reconciliations(view), columns::schema(), COMPARED_DATE).await
    }

    /// Removes the rows from the comparisons of all versions before `version`: they may be of erased entities. Counts stay.
    pub async fn forget_rows(&self, view: &ViewName, version: i64) -> Result<(), HandoffError> {
        self.rewrite(view, version).await.map_err(|error| failed(view, &error))?;
        let mut all = self.latest.lock();
        if let Some(latest) = all.get_mut(view).filter(|latest| latest.version < version) {
            *latest = Arc::new(latest.summary());
        }
        Ok(())
    }

    async fn rewrite(&self, view: &ViewName, version: i64) -> Result<(), HistoryError> {
        let Some(table) = self.lake.open_table(&TablePath::reconciliations(view)).await? else { return Ok(()) };
        let (mut remove, mut add) = (Vec::new(), Vec::new());
        for file in &table.snapshot().await?.files {
            let is_older = version_of(file).is_none_or(|of_file| of_file < version);
            let Some(comparison) = (if is_older { self.read(view, file).await? } else { None }) else { continue };
            if !comparison.rows.is_empty() {
                add.push(self.write(&comparison.summary()).await?);
                remove.push(file.clone());
            }
        }
        if !remove.is_empty() {
            table.commit(Commit::erase(remove, add)).await?;
        }
        Ok(())
    }

    /// Returns the comparison of a version, if there was one.
    pub async fn get(&self, view: &ViewName, version: i64) -> Result<Option<Comparison>, HandoffError> {
        if let Some(latest) = self.latest.lock().get(view).filter(|c| c.version == version) {
            return Ok(Some(latest.as_ref().clone()));
        }
        self.read_version(view, version).await.map_err(|error| failed(view, &error))
    }

    async fn read_version(&self, view: &ViewName, version: i64) -> Result<Option<Comparison>, HistoryError> {
        let Some(table) = self.lake.open_table(&TablePath::reconciliations(view)).await? else { return Ok(None) };
        let files = table.snapshot().await?;
        match files.files.iter().find(|file| version_of(file) == Some(version)) {
            Some(file) => self.read(view, file).await,
            None => Ok(None),
        }
    }

    async fn read(&self, view: &ViewName, file: &DataFile) -> Result<Option<Comparison>, HistoryError> {
        let path = Path::from(format!("{}/{}", TablePath::reconciliations(view), file.path));
        let found = match self.lake.store().get(&path).await {
            Err(object_store::Error::NotFound { .. }) => {
                // Nothing else depends on it, so the comparison is just not there.
                tracing::warn!(%view, file = %path, "the file of a comparison is gone");
                return Ok(None);
            }
            found => found?,
        };
        let bytes = found.bytes().await?;
        // On a thread of its own, because the library may panic on a file that another program wrote.
        let batches = tokio::task::spawn_blocking(move || {
            let size = bytes.len() as u64;
            let builder = ParquetRecordBatchReaderBuilder::try_new(bytes)?;
            check_footer(builder.metadata(), size)?;
            Ok::<_, HistoryError>(builder.build()?.collect::<Result<Vec<_>, _>>()?)
        });
        Ok(columns::read(view, &batches.await??)?)
    }

    /// Returns the latest comparisons of a view, newest first, at most `limit` and [`DRIFT_VERSIONS_MAX`], without rows.
    pub async fn history(&self, view: &ViewName, limit: usize) -> Result<Vec<Comparison>, HandoffError> {
        self.load_history(view, limit.min(DRIFT_VERSIONS_MAX)).await.map_err(|error| failed(view, &error))?;
        let history = self.history.lock();
        let of_view = history.get(view).into_iter().flat_map(|versions| versions.values().rev());
        Ok(of_view.take(limit).map(|comparison| comparison.as_ref().clone()).collect())
    }

    /// Reads those of the latest `limit` comparisons that are not in memory.
    async fn load_history(&self, view: &ViewName, limit: usize) -> Result<(), HistoryError> {
        let Some(table) = self.lake.open_table(&TablePath::reconciliations(view)).await? else { return Ok(()) };
        let snapshot = table.snapshot().await?;
        let mut files: Vec<(i64, &DataFile)> =
            snapshot.files.iter().filter_map(|file| Some((version_of(file)?, file))).collect();
        files.sort_unstable_by_key(|(version, _)| std::cmp::Reverse(*version));
        files.truncate(limit);
        files.retain(|(version, _)| !self.history.lock().get(view).is_some_and(|known| known.contains_key(version)));
        for some in files.chunks(READS) {
            let read = try_join_all(some.iter().map(|(_, file)| self.read(view, file))).await?;
            read.into_iter().flatten().for_each(|comparison| self.summarize(&comparison));
        }
        Ok(())
    }

    fn summarize(&self, comparison: &Comparison) {
        let mut history = self.history.lock();
        let of_view = history.entry(comparison.view.clone()).or_default();
        of_view.insert(comparison.version, Arc::new(comparison.summary()));
        while of_view.len() > DRIFT_VERSIONS_MAX {
            of_view.pop_first();
        }
    }

    /// Returns the latest comparison of a view. The table is searched once; every newer comparison is remembered here.
    pub async fn latest(&self, view: &ViewName) -> Result<Option<Comparison>, HandoffError> {
        if let Some(latest) = self.latest.lock().get(view) {
            return Ok(Some(latest.as_ref().clone()));
        }
        if self.searched.lock().contains(view) {
            return Ok(None);
        }
        let found = match self.history(view, 1).await?.first() {
            Some(summary) => self.get(view, summary.version).await?,
            None => None,
        };
        self.searched.lock().insert(view.clone());
        let Some(found) = found else { return Ok(None) };
        // A run may have published meanwhile.
        let mut all = self.latest.lock();
        Ok(Some(all.entry(view.clone()).or_insert_with(|| Arc::new(found)).as_ref().clone()))
    }
}

/// Returns the oldest files beyond the number that is kept.
fn expired(files: &[DataFile]) -> Vec<DataFile> {
    let mut files: Vec<(i64, &DataFile)> = files.iter().filter_map(|file| Some((version_of(file)?, file))).collect();
    files.sort_unstable_by_key(|(version, _)| *version);
    let too_many = (files.len() + 1).saturating_sub(RECONCILIATIONS_KEPT);
    files.into_iter().take(too_many).map(|(_, file)| file.clone()).collect()
}

fn version_of(file: &DataFile) -> Option<i64> {
    file.tags.get(VERSION_TAG)?.parse().ok()
}

fn failed(view: &ViewName, error: &HistoryError) -> HandoffError {
    HandoffError(format!("comparisons of {view}: {error}"))
}
