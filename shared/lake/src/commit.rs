//! Changes a table by one commit: added and removed files, transactions and a note, all or nothing.
//!
//! A commit is retried only where that is safe. Each carries an id of its own, by which an attempt with an unknown
//! outcome is found in the log.

use arrow::datatypes::SchemaRef;
use deltalake_core::DeltaTableError;
use deltalake_core::kernel::transaction::{CommitBuilder, CommitProperties, TableReference};
use deltalake_core::kernel::{Action, MetadataExt, StructType, Transaction, Version};
use deltalake_core::protocol::{DeltaOperation, SaveMode};
use serde_json::{Map, Value};

use super::owner::OWNER_TXN;
use super::schema::{SchemaChange, change, delta_schema};
use super::table::State;
use super::{DataFile, Dropped, LakeError, Table, TableSnapshot, data_file};

/// Commits after which the log gets a checkpoint, so that opening a table stays quick.
pub(super) const CHECKPOINT_COMMITS: i64 = 100;
/// Retries of a commit that may follow the commits of other writers.
const REBASES_MAX: usize = 15;
/// Key of the caller's note in Delta's commit information.
pub(super) const INFO_KEY: &str = "trueup";
/// Key of the declaration in the table's properties.
pub(super) const DECLARATION_KEY: &str = "trueup.declaration";
/// Key of the dates dropped by retention in the table's properties.
pub(super) const DROPPED_KEY: &str = "trueup.dropped";
/// Key of the commit's own id in Delta's commit information.
const ID_KEY: &str = "trueupCommit";

/// A change of a table.
#[derive(Debug, Clone, Default)]
pub struct Commit {
    /// Files that become part of the table.
    pub add: Vec<DataFile>,
    /// Files removed from it. They stay in the store, for readers of older versions.
    pub remove: Vec<DataFile>,
    /// Transactions that the commit completes, by application. If the table already has one of them, or a later one,
    /// the commit fails with [`LakeError::AlreadyCommitted`].
    pub txns: Vec<(String, i64)>,
    /// The writer's knowledge of transactions (`None`: there was none yet). If one has advanced, the commit fails
    /// with [`LakeError::Conflict`], even if it would advance it further.
    pub expects: Vec<(String, Option<i64>)>,
    /// The writer's note: see [`Table::commit_info`].
    pub info: Map<String, Value>,
    /// The new columns of the table, if they changed; the partition column may be omitted.
    pub schema: Option<SchemaRef>,
    /// The new declaration of the table's content, if it changed: see [`Table::declaration`].
    pub declaration: Option<String>,
    /// Everything that retention has dropped, including the removed files: see [`TableSnapshot::dropped`]. A commit
    /// that would restore dates is a conflict.
    pub dropped: Option<Dropped>,
    /// Any version after this one is a conflict. Without it, the commit may follow other commits as long as they did
    /// not remove the same files, complete the same transactions or change the columns.
    pub must_be_based_on: Option<i64>,
    /// Keeps old entries of the log: versions are counted, and vacuum removes those that are not kept. Otherwise
    /// entries expire by age.
    pub keeps_log: bool,
    /// The added files hold exactly the rows of the removed ones: readers that follow the table have nothing to do.
    pub rearranges: bool,
}

impl Table {
    /// Commits `commit` to the table and returns its version.
    ///
    /// After [`LakeError::Conflict`] and [`LakeError::AlreadyCommitted`] nothing was changed. After another error the
    /// outcome is unknown: the transactions or the newest version show it.
    pub async fn commit(&self, commit: Commit) -> Result<i64, LakeError> {
        let mut state = self.locked().await;
        if commit.rearranges || state.version() < commit.must_be_based_on.unwrap_or(0) {
            state.refresh().await?;
        }
        if !commit.expects.is_empty() {
            state.refresh().await?;
        }
        self.check_owner(&mut state).await?;
        let base = state.version();
        if let Some(expected) = commit.must_be_based_on.filter(|expected| *expected != base) {
            let reason = format!("expected version {expected}, found {base}");
            return Err(LakeError::Conflict { table: self.name(), reason });
        }
        for (app_id, expected) in &commit.expects {
            let found = state.txn_version(app_id).await?;
            if found != *expected {
                let reason = format!("\"{app_id}\" is at {found:?}, not at {expected:?}");
                return Err(LakeError::Conflict { table: self.name(), reason });
            }
        }
        if commit.rearranges {
            self.check_present(&state, &commit.remove)?;
        }
        if let Some(dropped) = &commit.dropped {
            let known = TableSnapshot::of(&state.delta, self)?.dropped;
            if let Some(known) = known.filter(|known| known.retained_from > dropped.retained_from) {
                let reason = format!("all before {} has been dropped already", known.retained_from);
                return Err(LakeError::Conflict { table: self.name(), reason });
            }
        }
        for (app_id, wanted) in &commit.txns {
            if let Some(version) = state.txn_version(app_id).await?.filter(|present| present >= wanted) {
                return Err(LakeError::AlreadyCommitted { app_id: app_id.clone(), version });
            }
        }

        let columns = match &commit.schema {
            Some(schema) => Some(delta_schema(&self.name(), schema, self.partition_column())?),
            None => None,
        };

        let id = uuid::Uuid::new_v4().to_string();
        match self.attempt(&mut state, &commit, columns, &id).await {
            Ok(version) => {
                self.give_up(&commit.add);
                let version = i64::try_from(version).unwrap_or(i64::MAX);
                if version != base + 1 {
                    state.txns.clear();
                }
                state.txns.extend(commit.txns.into_iter().map(|(app_id, txn)| (app_id, Some(txn))));
                state.txns.extend(self.inner.epoch.map(|epoch| (OWNER_TXN.to_owned(), Some(epoch))));
                Ok(version)
            }
            // The attempt may have reached the log: its response was lost, or a retry met its own commit.
            Err(error) => match self.find(base, &id).await {
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
        }
    }

    /// Files that other writers removed must not be added back under another name.
    fn check_present(&self, state: &State, files: &[DataFile]) -> Result<(), LakeError> {
        let snapshot = TableSnapshot::of(&state.delta, self)?;
        match files.iter().find(|file| !snapshot.holds(&file.path)) {
            None => Ok(()),
            Some(file) => {
                let reason = format!("the file {} is not part of the table any more", file.path);
                Err(LakeError::Conflict { table: self.name(), reason })
            }
        }
    }

    /// Checks that this process may still write to the table.
    async fn check_owner(&self, state: &mut State) -> Result<(), LakeError> {
        let Some(epoch) = self.inner.epoch else { return Ok(()) };
        match state.txn_version(OWNER_TXN).await? {
            // I11: a commit with an ended epoch fails.
            Some(owner) if owner > epoch => Err(LakeError::NotOwner { table: self.name(), epoch, owner }),
            _ => Ok(()),
        }
    }

    /// Writes the commit to the log and brings the state up to it.
    async fn attempt(
        &self,
        state: &mut State,
        commit: &Commit,
        columns: Option<StructType>,
        id: &str,
    ) -> Result<Version, DeltaTableError> {
        let snapshot = state.delta.snapshot()?.clone();
        let mut actions: Vec<Action> = Vec::with_capacity(commit.add.len() + commit.remove.len() + 1);
        let columns = columns.filter(|columns| change(&snapshot.schema(), columns) != SchemaChange::None);
        let known = snapshot.metadata().configuration().get(DECLARATION_KEY);
        let declaration = commit.declaration.as_ref().filter(|declaration| Some(*declaration) != known);
        let dropped = commit.dropped.as_ref().map(|dropped| serde_json::to_string(dropped).expect("plain data"));
        if columns.is_some() || declaration.is_some() || dropped.is_some() {
            let mut metadata = snapshot.metadata().clone();
            if let Some(columns) = columns {
                metadata = metadata.with_schema(&columns)?;
            }
            if let Some(declaration) = declaration {
                metadata = metadata.add_config_key(DECLARATION_KEY.to_owned(), declaration.clone())?;
            }
            if let Some(dropped) = dropped {
                metadata = metadata.add_config_key(DROPPED_KEY.to_owned(), dropped)?;
            }
            actions.push(metadata.into());
        }
        let blind = actions.is_empty() && commit.remove.is_empty();
        let column = self.partition_column();
        actions.extend(
            commit.remove.iter().map(|file| Action::from(data_file::remove_action(file, column, !commit.rearranges))),
        );
        actions.extend(
            commit.add.iter().map(|file| Action::from(data_file::add_action(file, column, !commit.rearranges))),
        );

        let next = state.version() + 1;
        let owner = self.inner.epoch.map(|epoch| (OWNER_TXN, epoch));
        let txns = commit.txns.iter().map(|(app, version)| (app.as_str(), *version)).chain(owner);
        let properties = CommitProperties::default()
            .with_metadata([
                (INFO_KEY.to_owned(), Value::Object(commit.info.clone())),
                (ID_KEY.to_owned(), Value::String(id.to_owned())),
                ("isBlindAppend".to_owned(), Value::Bool(blind)),
            ])
            .with_application_transactions(txns.map(|(app, v)| Transaction::new(app, v)).collect())
            .with_max_retries(if commit.must_be_based_on.is_some() { 0 } else { REBASES_MAX })
            .with_create_checkpoint(true)
            // Listing the whole log at every commit would be slow; old entries are removed when a checkpoint has
            // replaced them.
            .with_cleanup_expired_logs(Some(!commit.keeps_log && (next + 1) % CHECKPOINT_COMMITS == 0));
        let operation = if commit.rearranges {
            let target_size = commit.add.iter().map(|file| file.size_bytes).max().unwrap_or(0);
            DeltaOperation::Optimize { predicate: None, target_size }
        } else {
            DeltaOperation::Write {
                mode: if blind { SaveMode::Append } else { SaveMode::Overwrite },
                partition_by: Some(vec![column.to_owned()]),
                predicate: None,
            }
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
