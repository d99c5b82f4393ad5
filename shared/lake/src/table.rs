//! Opens, reads and writes Delta tables, now or at an earlier version; see [`super::commit`] for changes.
//!
//! The state is kept in memory and updated from the log's tail, so reading it often is cheap. Clones share
//! it, and commits of one process take turns.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use deltalake_core::DeltaTable;
use deltalake_core::kernel::transaction::CommitProperties;
use deltalake_core::kernel::{Action, Version};
use deltalake_core::logstore::{LogStoreRef, StorageConfig, default_logstore, get_actions};
use deltalake_core::operations::create::CreateBuilder;
use deltalake_core::protocol::SaveMode;
use futures::StreamExt;
use object_store::path::Path;
use object_store::prefix::PrefixStore;
use object_store::{ObjectStore, ObjectStoreExt};
use serde_json::{Map, Value};
use tokio::sync::{Mutex, MutexGuard};
use url::Url;

use super::checked_files::CheckedFiles;
use super::delete::delete;
use super::durable::DurableStore;
use super::encode::{Encoded, encode};
use super::log_keys::{CHECKPOINT_COMMITS, DECLARATION_KEY, INFO_KEY};
use super::readable::{check_protocol, checked_version, guarded};
use super::schema::{SchemaChange, change, delta_schema};
use super::{DataFile, Lake, LakeError, Leases, Spool, TablePath, TableSnapshot, VersionLease};
use shared::date_partition::DatePartition;
use shared::time::Micros;

/// The directory name of the partition whose value is null, as in Hive and Delta.
const NULL_PARTITION: &str = "__HIVE_DEFAULT_PARTITION__";

/// Entries of the log read at the same time.
const ENTRIES_AT_ONCE: usize = 8;

/// One Delta table. Clones share its state.
#[derive(Clone)]
pub struct Table {
    pub(super) inner: Arc<Inner>,
}

pub(super) struct Inner {
    pub(super) path: TablePath,
    pub(super) uri: String,
    pub(super) partition_column: String,
    /// The epoch of commits; see [`super::owner`].
    pub(super) epoch: Option<i64>,
    pub(super) log_store: LogStoreRef,
    access: FileAccess,
    pub(super) leases: Leases,
    /// The store of a local lake.
    pub(super) durable: Option<Arc<DurableStore>>,
    state: Mutex<TableState>,
}

/// How readers that need a path get at the files of the table.
pub(super) enum FileAccess {
    /// The lake is local: files have paths.
    InPlace(CheckedFiles),
    /// The lake is remote: files are copied to this machine.
    Spooled(Spool),
    /// The lake is remote, and there is nowhere to copy files to.
    NoSpool,
}

/// The cached state of the table.
pub(super) struct TableState {
    /// The table's path in the lake, for errors.
    table: String,
    pub(super) delta: DeltaTable,
    /// The version up to which the state was loaded from the log's newest checkpoint; it followed the log from there.
    pub(super) loaded: i64,
    snapshot: Option<Arc<TableSnapshot>>,
    /// Transaction versions looked up or committed since the state last followed a commit of another writer.
    pub(super) txns: HashMap<String, Option<i64>>,
}

/// Versions and notes found in the log.
#[derive(Debug, Clone, PartialEq)]
pub struct VersionNotes {
    /// The newest version, with or without a note.
    pub newest: i64,
    /// Versions with their notes, newest first.
    pub notes: Vec<(i64, Map<String, Value>)>,
    /// Whether these are all. Otherwise there are older ones, or the log no longer has them.
    pub whole: bool,
}

impl Table {
    /// Opens the table at `path`, if it exists.
    pub(super) async fn open(lake: &Lake, path: &TablePath) -> Result<Option<Table>, LakeError> {
        let log_store = log_store(lake, path);
        let name = path.to_string();
        let loaded = guarded(&name, async move {
            if !log_store.is_delta_table_location().await? {
                return Ok(None);
            }
            let mut delta = DeltaTable::new(log_store);
            delta.load().await?;
            Ok(Some(delta))
        });
        let Some(delta) = loaded.await? else { return Ok(None) };
        checked_version(&name, delta.version())?;
        check_protocol(&name, delta.snapshot()?)?;
        let partitions = delta.snapshot()?.metadata().partition_columns().to_vec();
        let [partition_column] = partitions.as_slice() else {
            let reason = format!("expected one partition column, found {partitions:?}");
            return Err(LakeError::Schema { table: path.to_string(), reason });
        };
        Ok(Some(Table::of(lake, path, partition_column.clone(), delta)))
    }

    /// Creates the table, or opens it if another process was faster.
    pub(super) async fn create(
        lake: &Lake,
        path: &TablePath,
        schema: &SchemaRef,
        partition_column: &str,
    ) -> Result<Table, LakeError> {
        let columns = delta_schema(&path.to_string(), schema, partition_column)?;
        let interval = CHECKPOINT_COMMITS.to_string();
        let created = CreateBuilder::new()
            .with_log_store(log_store(lake, path))
            .with_table_name(path.to_string())
            .with_columns(columns.fields().cloned())
            .with_partition_columns([partition_column])
            .with_configuration([("delta.checkpointInterval", Some(interval))])
            .with_save_mode(SaveMode::ErrorIfExists)
            // With retries, the loser of a race would commit its creation on top of the winner's table.
            .with_commit_properties(CommitProperties::default().with_max_retries(0))
            .await;
        match created {
            Ok(delta) => Ok(Table::of(lake, path, partition_column.to_owned(), delta)),
            Err(error) => Table::open(lake, path).await?.ok_or_else(|| error.into()),
        }
    }

    fn of(lake: &Lake, path: &TablePath, partition_column: String, delta: DeltaTable) -> Table {
        let log_store = delta.log_store();
        let mut state = TableState { table: path.to_string(), delta, loaded: 0, snapshot: None, txns: HashMap::new() };
        state.loaded = state.version();
        let state = Mutex::new(state);
        let uri = lake.uri(&path.to_string());
        let access = match (lake.is_remote(), &lake.spool) {
            (false, _) => FileAccess::InPlace(CheckedFiles::new()),
            (true, Some(spool)) => FileAccess::Spooled(spool.clone()),
            (true, None) => FileAccess::NoSpool,
        };
        Table {
            inner: Arc::new(Inner {
                path: path.clone(),
                uri,
                partition_column,
                epoch: lake.epoch,
                log_store,
                access,
                leases: lake.leases().clone(),
                durable: lake.durable.clone(),
                state,
            }),
        }
    }

    /// Returns the table if it is partitioned as expected.
    pub(super) fn checked(&self, partition_column: &str) -> Result<Table, LakeError> {
        if self.inner.partition_column == partition_column {
            return Ok(self.clone());
        }
        let found = &self.inner.partition_column;
        let reason = format!("partitioned by {found}, not by {partition_column}");
        Err(LakeError::Schema { table: self.name(), reason })
    }

    /// Returns the table's path in the lake.
    pub fn path(&self) -> &TablePath {
        &self.inner.path
    }

    /// Returns the table's path as errors name it.
    pub fn name(&self) -> String {
        self.inner.path.to_string()
    }

    /// Returns the name of the DATE column that partitions the files.
    pub fn partition_column(&self) -> &str {
        &self.inner.partition_column
    }

    /// Writes `batches` (all of one schema, without the partition column) as one file of `date`, which is durable on return
    /// but part of the table only once committed.
    ///
    /// The file is leased until it is committed, deleted ([`Table::delete_files`]) or given up ([`Table::give_up`]).
    pub async fn write_parquet(&self, date: DatePartition, batches: &[RecordBatch]) -> Result<DataFile, LakeError> {
        let path = self.new_path(date)?;
        let encoded = self.encoded(batches).await?;
        self.store_encoded(date, path, encoded).await
    }

    /// Writes a file again that the store has lost, with the rows it had.
    pub async fn write_again(&self, file: &DataFile, batches: &[RecordBatch]) -> Result<(), LakeError> {
        let encoded = self.encoded(batches).await?;
        self.store().put(&Path::from(file.path.as_str()), encoded.bytes.into()).await?;
        Ok(())
    }

    async fn encoded(&self, batches: &[RecordBatch]) -> Result<Encoded, LakeError> {
        let wrong = |reason: String| LakeError::Schema { table: self.name(), reason };
        let schema = batches.first().ok_or_else(|| wrong("a file without a batch".to_owned()))?.schema();
        let kept: Vec<usize> =
            (0..schema.fields().len()).filter(|i| schema.field(*i).name() != self.partition_column()).collect();
        let schema = Arc::new(schema.project(&kept)?);
        let batches = batches.iter().map(|batch| batch.project(&kept)).collect::<Result<Vec<_>, _>>()?;
        tokio::task::spawn_blocking(move || encode(schema, &batches)).await?
    }

    /// Returns a path that no file of `date` had before.
    pub(super) fn new_path(&self, date: DatePartition) -> Result<String, LakeError> {
        let folder = match date {
            DatePartition::Day(day) if DatePartition::of_day(day) != date => {
                let reason = format!("{day} is not a date that every reader accepts");
                return Err(LakeError::Schema { table: self.name(), reason });
            }
            DatePartition::Day(day) => day.to_string(),
            DatePartition::Undated | DatePartition::AllTime => NULL_PARTITION.to_owned(),
        };
        Ok(format!("{}={folder}/part-{}.parquet", self.partition_column(), uuid::Uuid::new_v4()))
    }

    /// Stores an encoded file, leased.
    pub(super) async fn store_encoded(
        &self,
        partition: DatePartition,
        path: String,
        encoded: Encoded,
    ) -> Result<DataFile, LakeError> {
        let size_bytes = encoded.bytes.len() as i64;
        let mut unfinished = StagedWrite { table: self, path: Some(&path) };
        self.inner.leases.stage(self.path(), &path);
        self.store().put(&Path::from(path.as_str()), encoded.bytes.into()).await?;
        unfinished.path = None;
        drop(unfinished);
        Ok(DataFile {
            path,
            partition,
            size_bytes,
            rows: encoded.rows,
            tags: Default::default(),
            stats_json: Some(encoded.stats_json),
        })
    }

    /// Returns the location for readers without this store: an absolute path, or a URL in a remote lake.
    pub fn url_of(&self, file: &DataFile) -> String {
        format!("{}/{}", self.inner.uri, file.path)
    }

    /// Returns the current state of the table.
    pub async fn snapshot(&self) -> Result<Arc<TableSnapshot>, LakeError> {
        let mut state = self.refreshed().await?;
        let version = state.version();
        if let Some(snapshot) = state.snapshot.as_ref().filter(|snapshot| snapshot.version == version) {
            return Ok(snapshot.clone());
        }
        let snapshot = Arc::new(self.snapshot_of(&state.delta)?);
        state.snapshot = Some(snapshot.clone());
        Ok(snapshot)
    }

    /// Returns the current state of the table with a lease: while it is held, vacuum deletes none of the files.
    pub async fn held_snapshot(&self) -> Result<(Arc<TableSnapshot>, VersionLease), LakeError> {
        loop {
            let snapshot = self.snapshot().await?;
            // Otherwise a newer version was committed in between, and files only in this one are being deleted.
            if let Some(lease) = self.inner.leases.version(self.path(), snapshot.version) {
                return Ok((snapshot, lease));
            }
        }
    }

    /// Returns the state of the table at `version`.
    pub async fn snapshot_at(&self, version: i64) -> Result<TableSnapshot, LakeError> {
        let (version, log_store) = (self.version_of(version)?, self.inner.log_store.clone());
        let load = async move {
            let mut delta = DeltaTable::new(log_store);
            delta.load_version(version).await?;
            Ok(delta)
        };
        self.snapshot_of(&guarded(&self.name(), load).await?)
    }

    /// Returns the version of the last transaction that `app_id` committed.
    pub async fn txn_version(&self, app_id: &str) -> Result<Option<i64>, LakeError> {
        let mut state = self.refreshed().await?;
        state.txn_version(app_id).await
    }

    /// Returns the note of the writer of `version`; `None` for versions of other writers or whose log is deleted.
    pub async fn commit_info(&self, version: i64) -> Result<Option<Map<String, Value>>, LakeError> {
        let mut note = self.note_of(self.version_of(version)?).await?.unwrap_or_default();
        Ok(match note.remove(INFO_KEY) {
            Some(Value::Object(info)) => Some(info),
            _ => None,
        })
    }

    /// Returns when the newest version was committed, by the clock of its writer; `None`: its log entry does not say.
    pub async fn committed_at(&self) -> Result<Option<Micros>, LakeError> {
        let newest = self.version_of(self.newest_version().await?)?;
        let Some(bytes) = self.inner.log_store.read_commit_entry(newest).await? else { return Ok(None) };
        let written_ms = get_actions(newest, &bytes)?.into_iter().find_map(|action| match action {
            Action::CommitInfo(info) => info.timestamp,
            _ => None,
        });
        Ok(written_ms.map(|ms| Micros(ms.saturating_mul(1_000))))
    }

    /// Returns the newest version that has a note, and the note.
    pub async fn latest_info(&self) -> Result<Option<(i64, Map<String, Value>)>, LakeError> {
        let history = self.history(-1, 1).await?;
        Ok(history.notes.into_iter().next())
    }

    /// Returns the number of the newest version.
    pub async fn newest_version(&self) -> Result<i64, LakeError> {
        Ok(self.refreshed().await?.version())
    }

    /// Returns the notes of the newest versions after `after`, at most `limit` of them, reading only the needed part of
    /// the log. Versions of other writers have none.
    pub async fn history(&self, after: i64, limit: usize) -> Result<VersionNotes, LakeError> {
        let newest = self.newest_version().await?;
        let mut notes = Vec::new();
        let entries = futures::stream::iter((after + 1..=newest).rev());
        // Most entries have a note, so no more are requested at once than may be needed.
        let mut entries = entries.map(|version| self.entry_of(version)).buffered(limit.clamp(1, ENTRIES_AT_ONCE));
        while let Some(entry) = entries.next().await {
            match entry? {
                (version, Some(mut note)) => {
                    if let Some(Value::Object(info)) = note.remove(INFO_KEY) {
                        notes.push((version, info));
                    }
                }
                (_, None) => return Ok(VersionNotes { newest, notes, whole: false }),
            }
            if notes.len() >= limit {
                let whole = notes.last().is_some_and(|(version, _)| *version == after + 1);
                return Ok(VersionNotes { newest, notes, whole });
            }
        }
        Ok(VersionNotes { newest, notes, whole: true })
    }

    async fn entry_of(&self, version: i64) -> Result<(i64, Option<Map<String, Value>>), LakeError> {
        Ok((version, self.note_of(self.version_of(version)?).await?))
    }

    /// Returns the table's columns with the partition column, as readers of the files see them.
    pub async fn schema(&self) -> Result<SchemaRef, LakeError> {
        let state = self.refreshed().await?;
        Ok(state.delta.snapshot()?.snapshot().arrow_schema())
    }

    /// Returns the declaration of the table's content, recorded by a commit.
    pub async fn declaration(&self) -> Result<Option<String>, LakeError> {
        let state = self.refreshed().await?;
        Ok(state.delta.snapshot()?.metadata().configuration().get(DECLARATION_KEY).cloned())
    }

    /// Returns how the table's columns differ from `schema`.
    pub async fn schema_change(&self, schema: &SchemaRef) -> Result<SchemaChange, LakeError> {
        let wanted = delta_schema(&self.name(), schema, self.partition_column())?;
        let state = self.refreshed().await?;
        Ok(change(&state.delta.snapshot()?.schema(), &wanted))
    }

    /// Deletes files of a failed run. Refuses, before deleting any, if the table's newest version holds one of them.
    pub async fn delete_files(&self, files: &[DataFile]) -> Result<(), LakeError> {
        self.give_up(files);
        let snapshot = self.snapshot().await?;
        let in_use = |file: &&DataFile| snapshot.holds(&file.path);
        if let Some(file) = files.iter().find(in_use) {
            return Err(LakeError::InUse { table: self.name(), path: file.path.clone() });
        }
        delete(self.store().as_ref(), files.iter().map(|file| Path::from(file.path.as_str())).collect()).await
    }

    /// Returns the snapshot of a loaded state of the table.
    pub(super) fn snapshot_of(&self, delta: &DeltaTable) -> Result<TableSnapshot, LakeError> {
        TableSnapshot::of(delta, &self.name(), self.partition_column())
    }

    /// Returns how readers that need a path get at the files.
    pub(super) fn access(&self) -> &FileAccess {
        &self.inner.access
    }

    /// Releases files that were written and will not be committed; vacuum deletes them when they are old enough.
    pub fn give_up(&self, files: &[DataFile]) {
        self.inner.leases.settle(self.path(), files.iter().map(|file| file.path.as_str()));
    }

    pub(super) fn store(&self) -> Arc<dyn ObjectStore> {
        self.inner.log_store.object_store(None)
    }

    pub(super) fn version_of(&self, version: i64) -> Result<Version, LakeError> {
        let reason = || LakeError::Schema { table: self.name(), reason: format!("there is no version {version}") };
        Version::try_from(version).map_err(|_| reason())
    }

    /// Returns the flattened part of a version's commit information; `None`: the log has no entry of the version.
    pub(super) async fn note_of(&self, version: Version) -> Result<Option<Map<String, Value>>, LakeError> {
        let Some(bytes) = self.inner.log_store.read_commit_entry(version).await? else { return Ok(None) };
        let note = get_actions(version, &bytes)?.into_iter().find_map(|action| match action {
            Action::CommitInfo(info) => Some(info.info.into_iter().collect()),
            _ => None,
        });
        Ok(Some(note.unwrap_or_default()))
    }

    pub(super) async fn locked(&self) -> MutexGuard<'_, TableState> {
        self.inner.state.lock().await
    }

    async fn refreshed(&self) -> Result<MutexGuard<'_, TableState>, LakeError> {
        let mut state = self.locked().await;
        state.refresh().await?;
        Ok(state)
    }
}

/// A file being written. If the write fails, its name is not used.
struct StagedWrite<'a> {
    table: &'a Table,
    path: Option<&'a str>,
}

impl Drop for StagedWrite<'_> {
    fn drop(&mut self) {
        self.table.inner.leases.settle(self.table.path(), self.path.into_iter());
    }
}

impl fmt::Debug for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Table({})", self.inner.path)
    }
}

impl TableState {
    /// Follows the log to its end.
    pub(super) async fn refresh(&mut self) -> Result<(), LakeError> {
        if self.version() / CHECKPOINT_COMMITS > self.loaded / CHECKPOINT_COMMITS {
            // Following the log keeps the columns of each commit apart, tens of kilobytes for one file; a checkpoint has them
            // together.
            self.delta.state = None;
        }
        let is_loaded = self.delta.state.is_some();
        let TableState { delta, table, .. } = self;
        let before = delta.version();
        let followed = guarded(table, async { Ok(delta.update_incremental(None).await?) }).await;
        if let Err(error) = followed {
            // After a panic, the state may be half of one version and half of the next.
            if matches!(error, LakeError::Panicked { .. }) {
                self.forget();
            }
            return Err(error);
        }
        if self.delta.version() != before {
            self.txns.clear();
        }
        if !is_loaded {
            self.loaded = self.version();
        }
        checked_version(&self.table, self.delta.version()).map(drop)
    }

    /// Drops the cached state, so the next use reads the log again.
    pub(super) fn forget(&mut self) {
        self.delta.state = None;
        self.txns.clear();
    }

    /// Returns the version of the cached state; -1 before it was loaded.
    pub(super) fn version(&self) -> i64 {
        self.delta.version().and_then(|version| i64::try_from(version).ok()).unwrap_or(-1)
    }

    pub(super) async fn txn_version(&mut self, app_id: &str) -> Result<Option<i64>, LakeError> {
        if let Some(version) = self.txns.get(app_id) {
            return Ok(*version);
        }
        let TableState { delta, table, .. } = &*self;
        let version = guarded(table, async {
            Ok(delta.snapshot()?.transaction_version(delta.log_store().as_ref(), app_id).await?)
        });
        let version = version.await?;
        self.txns.insert(app_id.to_owned(), version);
        Ok(version)
    }
}

/// Opens the store of one table's log. The URL only has to distinguish tables: every path in it is relative to the
/// lake, so a lake can be moved, and all kinds of stores use the same code.
fn log_store(lake: &Lake, path: &TablePath) -> LogStoreRef {
    let store = lake.store();
    let table_store = Arc::new(PrefixStore::new(store.clone(), path.to_string()));
    let url = Url::parse(&format!("lake:///{path}/")).expect("table paths are made of names and slashes");
    default_logstore(table_store, store, &url, &StorageConfig::default())
}
