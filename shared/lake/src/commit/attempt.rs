//! Writes commits to the log of a table. A commit is retried only where that is safe. Each carries an id of its own, by
//! which an attempt with an unknown outcome is found in the log.

use deltalake_core::DeltaTableError;
use deltalake_core::kernel::transaction::{CommitBuilder, CommitProperties, TableReference};
use deltalake_core::kernel::{Action, Metadata, MetadataExt, StructType, Transaction, Version};
use deltalake_core::protocol::{DeltaOperation, SaveMode};
use serde_json::Value;

use super::{Commit, CommitBase, CommitRows, LogEntries, ReplacedFiles, TableProperty, TxnStart, TxnStep};
use crate::log_keys::{
    CHECKPOINT_COMMITS, DECLARATION_KEY, DEDUP_HORIZON_KEY, DROPPED_KEY, ID_KEY, INFO_KEY, LOST_KEY, OWNER_TXN,
};
use crate::readable::{checked_version, guarded};
use crate::schema::{SchemaChange, change, delta_schema};
use crate::table::TableState;
use crate::{LakeError, Table, data_file};

/// Retries of a commit that may follow the commits of other writers.
const REBASES_MAX: usize = 15;

impl Table {
    /// Commits `commit` to the table and returns its version.
    ///
    /// After [`LakeError::Conflict`], [`LakeError::AlreadyCommitted`] and [`LakeError::FilesMissing`] nothing was changed.
    /// After another error the outcome is unknown: the transactions or the newest version show it.
    pub async fn commit(&self, commit: Commit) -> Result<i64, LakeError> {
        // Another process may have deleted files that waited long for their commit: see `vacuum`.
        let missing = self.missing(&commit.add).await?;
        if let Some(first) = missing.first() {
            self.give_up(&commit.add);
            return Err(LakeError::FilesMissing {
                table: self.name(),
                path: first.path.clone(),
                count: missing.len() as u64,
            });
        }
        let mut state = self.locked().await;
        let is_replacement = commit.replaced == ReplacedFiles::Present;
        if is_replacement || commit.depends_on_txns() || state.version() < commit.base_version().unwrap_or(0) {
            state.refresh().await?;
        }
        self.check_owner(&mut state).await?;
        let base = state.version();
        self.check_conflicts(&mut state, &commit).await?;

        let id = uuid::Uuid::new_v4().to_string();
        match self.guarded_attempt(&mut state, &commit, &id).await {
            Ok(version) => {
                self.give_up(&commit.add);
                let version = checked_version(&self.name(), Some(version))?;
                if version != base + 1 {
                    state.txns.clear();
                }
                state.txns.extend(commit.txns.into_iter().map(|step| (step.app_id, Some(step.to))));
                state.txns.extend(self.inner.epoch.map(|epoch| (OWNER_TXN.to_owned(), Some(epoch))));
                Ok(version)
            }
            // The attempt may have reached the log: its response was lost, or a retry met its own commit.
            Err(AttemptError::Delta(error)) => match self.find(base, &id).await {
                Ok(Some(version)) => {
                    self.give_up(&commit.add);
                    state.forget();
                    Ok(version)
                }
                Ok(None) | Err(_) => {
                    let error = LakeError::of_commit(&self.name(), error);
                    if matches!(error, LakeError::Conflict { .. }) {
                        state.refresh().await?;
                        self.check_owner(&mut state).await?;
                    }
                    Err(error)
                }
            },
            Err(AttemptError::Columns(error)) => Err(error),
        }
    }

    /// Checks that nothing that the commit relies on has changed.
    async fn check_conflicts(&self, state: &mut TableState, commit: &Commit) -> Result<(), LakeError> {
        let conflict = |reason: String| Err(LakeError::Conflict { table: self.name(), reason });
        let base = state.version();
        if let Some(expected) = commit.base_version().filter(|expected| *expected != base) {
            return conflict(format!("expected version {expected}, found {base}"));
        }
        for TxnStep { app_id, from, .. } in &commit.txns {
            let TxnStart::At(expected) = from else { continue };
            let found = state.txn_version(app_id).await?;
            if found != *expected {
                return conflict(format!("\"{app_id}\" is at {found:?}, not at {expected:?}"));
            }
        }
        if commit.replaced == ReplacedFiles::Present {
            // Files that other writers removed must not be added back under another name.
            let snapshot = self.snapshot_of(&state.delta)?;
            if let Some(file) = commit.remove.iter().find(|file| !snapshot.holds(&file.path)) {
                return conflict(format!("the file {} is not part of the table any more", file.path));
            }
        }
        for property in &commit.properties {
            let TableProperty::Dropped(dropped) = property else { continue };
            let known = self.snapshot_of(&state.delta)?.dropped;
            if let Some(known) = known.filter(|known| known.retained_from > dropped.retained_from) {
                return conflict(format!("all before {} has been dropped already", known.retained_from));
            }
        }
        for TxnStep { app_id, to, .. } in &commit.txns {
            if let Some(version) = state.txn_version(app_id).await?.filter(|present| present >= to) {
                return Err(LakeError::AlreadyCommitted { app_id: app_id.clone(), version });
            }
        }
        Ok(())
    }

    /// Checks that this process may still write to the table.
    async fn check_owner(&self, state: &mut TableState) -> Result<(), LakeError> {
        let Some(epoch) = self.inner.epoch else { return Ok(()) };
        match state.txn_version(OWNER_TXN).await? {
            // I11: a commit with an ended epoch fails.
            Some(owner) if owner > epoch => Err(LakeError::NotOwner { table: self.name(), epoch, owner }),
            _ => Ok(()),
        }
    }

    /// Returns the table's metadata as the commit's properties change it; `None`: they are what they were.
    fn changed_metadata(
        &self,
        commit: &Commit,
        present: &Metadata,
        columns: &StructType,
    ) -> Result<Option<Metadata>, AttemptError> {
        let mut changed: Option<Metadata> = None;
        for property in &commit.properties {
            let before = changed.clone().unwrap_or_else(|| present.clone());
            let text = |value: Result<String, serde_json::Error>| value.expect("plain data");
            let (key, value) = match property {
                TableProperty::Columns(wanted) => {
                    let wanted = delta_schema(&self.name(), wanted, self.partition_column())?;
                    if change(columns, &wanted) != SchemaChange::None {
                        changed = Some(before.with_schema(&wanted).map_err(DeltaTableError::from)?);
                    }
                    continue;
                }
                TableProperty::Declaration(declaration) => (DECLARATION_KEY, declaration.clone()),
                TableProperty::Dropped(dropped) => (DROPPED_KEY, text(serde_json::to_string(dropped))),
                TableProperty::Lost(lost) => (LOST_KEY, text(serde_json::to_string(lost))),
                TableProperty::DedupHorizon(events) => (DEDUP_HORIZON_KEY, events.to_string()),
            };
            if before.configuration().get(key) != Some(&value) {
                changed = Some(before.add_config_key(key.to_owned(), value).map_err(DeltaTableError::from)?);
            }
        }
        Ok(changed)
    }

    /// Does the same as [`Table::attempt`]; a panic of the Delta library leaves the outcome unknown.
    async fn guarded_attempt(
        &self,
        state: &mut TableState,
        commit: &Commit,
        id: &str,
    ) -> Result<Version, AttemptError> {
        let attempted = guarded(&self.name(), async { Ok(self.attempt(state, commit, id).await) }).await;
        attempted.unwrap_or_else(|panic| {
            state.forget();
            Err(DeltaTableError::Generic(panic.to_string()).into())
        })
    }

    /// Writes the commit to the log and brings the state up to it.
    async fn attempt(&self, state: &mut TableState, commit: &Commit, id: &str) -> Result<Version, AttemptError> {
        let snapshot = state.delta.snapshot()?.clone();
        let mut actions: Vec<Action> = Vec::with_capacity(commit.add.len() + commit.remove.len() + 1);
        let metadata = self.changed_metadata(commit, snapshot.metadata(), &snapshot.schema())?;
        actions.extend(metadata.map(Action::from));
        let blind = actions.is_empty() && commit.remove.is_empty();
        let (column, changes) = (self.partition_column(), commit.rows == CommitRows::Change);
        let remove = commit.remove.iter().map(|file| data_file::remove_action(file, column, changes).into());
        let add = commit.add.iter().map(|file| data_file::add_action(file, column, changes).into());
        actions.extend(remove.chain(add));

        let next = state.version() + 1;
        let properties = self.commit_properties(commit, id, next, blind);
        let operation = match commit.rows {
            CommitRows::Stay => {
                let target_size = commit.add.iter().map(|file| file.size_bytes).max().unwrap_or(0);
                DeltaOperation::Optimize { predicate: None, target_size }
            }
            CommitRows::Change => DeltaOperation::Write {
                mode: if blind { SaveMode::Append } else { SaveMode::Overwrite },
                partition_by: Some(vec![column.to_owned()]),
                predicate: None,
            },
        };
        let reference: &dyn TableReference = &snapshot;
        let builder = CommitBuilder::from(properties).with_actions(actions);
        let prepared = builder.build(Some(reference), self.inner.log_store.clone(), operation);
        let post_commit = prepared.into_prepared_commit_future().await?.await?;
        let version = post_commit.version;
        // The commit is in the log: from here on no failure may be reported for it.
        match post_commit.await {
            Ok(done) => state.delta.state = Some(done.snapshot),
            Err(error) => {
                tracing::warn!(table = self.name(), version, %error, "could not check-point the table");
                state.forget();
            }
        }
        Ok(version)
    }

    fn commit_properties(&self, commit: &Commit, id: &str, next: i64, blind: bool) -> CommitProperties {
        let owner = self.inner.epoch.map(|epoch| Transaction::new(OWNER_TXN, epoch));
        let txns = commit.txns.iter().map(|step| Transaction::new(step.app_id.as_str(), step.to));
        let expires = commit.log == LogEntries::Expire && (next + 1) % CHECKPOINT_COMMITS == 0;
        CommitProperties::default()
            .with_metadata([
                (INFO_KEY.to_owned(), Value::Object(commit.note.clone())),
                (ID_KEY.to_owned(), Value::String(id.to_owned())),
                ("isBlindAppend".to_owned(), Value::Bool(blind)),
            ])
            .with_application_transactions(txns.chain(owner).collect())
            .with_max_retries(if commit.base == CommitBase::Newest { REBASES_MAX } else { 0 })
            .with_create_checkpoint(true)
            // Listing the whole log at every commit would be slow; old entries are removed when a checkpoint has
            // replaced them.
            .with_cleanup_expired_logs(Some(expires))
    }

    /// Finds the version after `base` that carries the commit id `id`.
    async fn find(&self, base: i64, id: &str) -> Result<Option<i64>, LakeError> {
        let mut version = base + 1;
        while let Some(note) = self.note_of(self.version_of(version)?).await? {
            if note.get(ID_KEY).and_then(Value::as_str) == Some(id) {
                return Ok(Some(version));
            }
            version += 1;
        }
        Ok(None)
    }
}

/// Why an attempt to commit failed.
#[derive(Debug)]
enum AttemptError {
    /// The log may have the commit all the same.
    Delta(DeltaTableError),
    /// The columns do not fit the table: nothing was written.
    Columns(LakeError),
}

impl From<DeltaTableError> for AttemptError {
    fn from(error: DeltaTableError) -> AttemptError {
        AttemptError::Delta(error)
    }
}

impl From<LakeError> for AttemptError {
    fn from(error: LakeError) -> AttemptError {
        AttemptError::Columns(error)
    }
}
