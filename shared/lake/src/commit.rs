//! Changes a table by one commit: added and removed files, transactions and a note, all or nothing.
//!
//! A [`Commit`] is made by the constructor of its kind and is complete then; [`attempt`] writes it to the log.

mod attempt;

use arrow::datatypes::SchemaRef;
use serde_json::{Map, Value};

use super::{DataFile, DroppedEvents, LostEvents};

/// A change of a table.
#[derive(Debug, Clone)]
pub struct Commit {
    /// Files that become part of the table.
    add: Vec<DataFile>,
    /// Files removed from it. They stay in the store, for readers of older versions.
    remove: Vec<DataFile>,
    txns: Vec<TxnStep>,
    /// The writer's note: see [`Table::commit_info`](crate::table::Table::commit_info).
    note: Map<String, Value>,
    properties: Vec<TableProperty>,
    base: CommitBase,
    rows: CommitRows,
    replaced: ReplacedFiles,
    log: LogEntries,
}

/// A transaction that a commit completes.
#[derive(Debug, Clone)]
struct TxnStep {
    app_id: String,
    from: TxnStart,
    to: i64,
}

/// Where a transaction has to be before a commit moves it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum TxnStart {
    /// Anywhere before its end: see [`Commit::completing`].
    Earlier,
    /// Exactly here, or nowhere yet: see [`Commit::moving`].
    At(Option<i64>),
}

/// A property of the table that a commit sets.
#[derive(Debug, Clone)]
enum TableProperty {
    /// The columns; the partition column may be omitted.
    Columns(SchemaRef),
    /// What the table contains: see [`Table::declaration`](crate::table::Table::declaration).
    Declaration(String),
    Dropped(DroppedEvents),
    Lost(LostEvents),
    DedupHorizon(u64),
}

/// Which commits of others a commit may follow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum CommitBase {
    /// All that did not remove the same files, complete the same transactions or change the columns.
    Newest,
    /// None after this version.
    Version(i64),
}

/// What a commit does to the rows of the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum CommitRows {
    Change,
    /// The added files hold exactly the rows of the removed ones: readers that follow the table have nothing to do.
    Stay,
}

/// What a commit asks of the files that it removes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ReplacedFiles {
    Any,
    /// All of them are part of the table: the added files have rows of theirs, which would be there twice otherwise, or
    /// again after another writer removed them.
    Present,
}

/// What happens to old entries of the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum LogEntries {
    /// They expire by age.
    Expire,
    /// They stay: versions are counted, and vacuum removes those that are not kept.
    Stay,
}

impl Commit {
    fn new(add: Vec<DataFile>, remove: Vec<DataFile>) -> Commit {
        Commit {
            add,
            remove,
            txns: Vec::new(),
            note: Map::new(),
            properties: Vec::new(),
            base: CommitBase::Newest,
            rows: CommitRows::Change,
            replaced: ReplacedFiles::Any,
            log: LogEntries::Expire,
        }
    }

    /// Adds files, whatever others commit at the same time.
    pub fn append(add: Vec<DataFile>) -> Commit {
        Commit::new(add, Vec::new())
    }

    /// Removes files, whatever others commit at the same time.
    pub fn remove(remove: Vec<DataFile>) -> Commit {
        Commit::new(Vec::new(), remove)
    }

    /// Adds files and removes others, whatever others commit at the same time.
    pub fn exchange(remove: Vec<DataFile>, add: Vec<DataFile>) -> Commit {
        Commit::new(add, remove)
    }

    /// Publishes the version after `base`: removes and adds files. Versions are counted, so the log keeps its entries.
    pub fn replace(base: i64, remove: Vec<DataFile>, add: Vec<DataFile>, columns: SchemaRef) -> Commit {
        Commit {
            properties: vec![TableProperty::Columns(columns)],
            base: CommitBase::Version(base),
            log: LogEntries::Stay,
            ..Commit::new(add, remove)
        }
    }

    /// Replaces files by others with the same rows. Conflicts with every commit that removed one of them.
    pub fn compact(remove: Vec<DataFile>, add: Vec<DataFile>) -> Commit {
        Commit { rows: CommitRows::Stay, replaced: ReplacedFiles::Present, ..Commit::new(add, remove) }
    }

    /// Replaces files by others without some of their rows. Conflicts with every commit that removed one of them.
    pub fn erase(remove: Vec<DataFile>, add: Vec<DataFile>) -> Commit {
        Commit { replaced: ReplacedFiles::Present, ..Commit::new(add, remove) }
    }

    /// Drops the files of dates that retention no longer keeps. `dropped` is everything that is dropped then; a commit that
    /// would restore dates is a conflict, and so is any version after `base`.
    pub fn drop_dates(base: i64, remove: Vec<DataFile>, dropped: DroppedEvents) -> Commit {
        Commit {
            properties: vec![TableProperty::Dropped(dropped)],
            base: CommitBase::Version(base),
            ..Commit::new(Vec::new(), remove)
        }
    }

    /// Removes files that the store has lost. `lost` are all events that are lost then; any version after `base` is a
    /// conflict.
    pub fn give_up_lost(base: i64, remove: Vec<DataFile>, lost: LostEvents) -> Commit {
        Commit {
            properties: vec![TableProperty::Lost(lost)],
            base: CommitBase::Version(base),
            ..Commit::new(Vec::new(), remove)
        }
    }

    /// Changes the columns of the table.
    pub fn columns(columns: SchemaRef) -> Commit {
        Commit { properties: vec![TableProperty::Columns(columns)], ..Commit::empty() }
    }

    /// Changes the columns of the table and the declaration of its content.
    pub fn declare(columns: SchemaRef, declaration: String) -> Commit {
        let properties = vec![TableProperty::Columns(columns), TableProperty::Declaration(declaration)];
        Commit { properties, ..Commit::empty() }
    }

    /// Notes the smallest number of events among which intake ever removed duplicates.
    pub fn note_dedup_horizon(events: u64) -> Commit {
        Commit { properties: vec![TableProperty::DedupHorizon(events)], ..Commit::empty() }
    }

    /// Changes nothing but the transactions, the owner's among them.
    pub fn empty() -> Commit {
        Commit::new(Vec::new(), Vec::new())
    }

    /// Returns the commit that also completes the transaction `to` of `app_id`. If the table already has it, or a later one,
    /// the commit fails with [`LakeError::AlreadyCommitted`](crate::LakeError::AlreadyCommitted).
    pub fn completing(self, app_id: impl Into<String>, to: i64) -> Commit {
        self.with_txn(TxnStep { app_id: app_id.into(), from: TxnStart::Earlier, to })
    }

    /// Returns the commit that also moves the transaction of `app_id` from where the writer knows it to be (`None`: there is
    /// none yet). If it has moved, the commit fails with [`LakeError::Conflict`](crate::LakeError::Conflict), even if it would move it further.
    pub fn moving(self, app_id: impl Into<String>, from: Option<i64>, to: i64) -> Commit {
        self.with_txn(TxnStep { app_id: app_id.into(), from: TxnStart::At(from), to })
    }

    fn with_txn(self, step: TxnStep) -> Commit {
        let txns = self.txns.into_iter().chain([step]).collect();
        Commit { txns, ..self }
    }

    /// Returns the commit with a note of its writer.
    pub fn noting(self, note: Map<String, Value>) -> Commit {
        Commit { note, ..self }
    }

    /// Returns the commit that also sets the columns of the table, if they differ.
    pub fn with_columns(self, columns: SchemaRef) -> Commit {
        let properties = self.properties.into_iter().chain([TableProperty::Columns(columns)]).collect();
        Commit { properties, ..self }
    }

    fn base_version(&self) -> Option<i64> {
        match self.base {
            CommitBase::Newest => None,
            CommitBase::Version(version) => Some(version),
        }
    }

    fn depends_on_txns(&self) -> bool {
        self.txns.iter().any(|step| step.from != TxnStart::Earlier)
    }
}
