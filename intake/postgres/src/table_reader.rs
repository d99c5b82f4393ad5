//! Implements [`OutboxReader`] for a table: all rows that it has, and then each change of them.
//!
//! The slot is there before the snapshot, so every transaction is seen by the snapshot, decoded from the slot, or both. Of those
//! that are both, the changes are skipped: the snapshot says which transactions it has seen. A snapshot starts with the deletion of
//! all rows that are there, so one that did not come to its end, or one that follows the loss of the slot, leaves none behind.

use std::pin::Pin;
use std::sync::Arc;

use async_trait::async_trait;
use futures::StreamExt;
use tokio_postgres::{SimpleQueryMessage, SimpleQueryRow, SimpleQueryStream};

use crate::OutboxError;
use crate::catalog::{Database, IfMissing, Published, Table, ensure_publication, ensure_slot, has_slot};
use crate::columns::{Field, RowWriter, TakenColumn};
use crate::followed::{ColumnTypes, all_rows};
use crate::lsn::{Lsn, RowPlace};
use crate::pgoutput::{OldRow, Output, Relation, RowChange, Value};
use crate::polling_reader::is_full;
use crate::reader::{OutboxReader, OutboxRow, ReadEnd, ReadRows, RowEffect, Start};
use crate::seen::{SNAPSHOT, SeenTransactions, TablePlace};
use crate::session::{Session, value};
use crate::settings::ConnectionSettings;
use crate::slot::{Slot, SlotNames};
use crate::sql;

/// How values are printed, in snapshots and in changes: as [`crate::columns`] reads them. A policy that hides rows is an error.
const PRINTED: &str = "SET datestyle = 'ISO, MDY'; SET timezone = 'UTC'; SET intervalstyle = 'postgres'; SET bytea_output = 'hex'; \
                       SET extra_float_digits = 1; SET row_security = off";
const BEGIN: &str = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY";
const GAP: &str = "; it is created again, and the table is read again";
const SELECT: &str = "GRANT SELECT on the table to the user of the connection";

/// A table that is followed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FollowedTable {
    /// `NAME` or `SCHEMA.NAME`.
    pub table: String,
    pub columns: Vec<TakenColumn>,
    /// Indexes of the columns that together name a row.
    pub key: Vec<usize>,
    pub names: SlotNames,
    /// The text of a value that did not change and is not known.
    pub unchanged: &'static str,
    /// Whether a row marks the end of each transaction that has changes.
    pub marks_commits: bool,
}

/// Reads a table.
pub struct TableReader {
    slot: Slot,
    database: String,
    /// As the declaration names it.
    name: String,
    table: Table,
    all_rows: String,
    writer: RowWriter,
    types: ColumnTypes,
    /// The end of the log just before the columns were checked.
    checked_at: Lsn,
    phase: Phase,
    /// After the last change that was returned.
    place: RowPlace,
    seen: Option<SeenTransactions>,
    transaction: Transaction,
    /// The columns of the last change, and where those that are taken are among them.
    mapped: Option<(Arc<Relation>, Vec<Option<usize>>)>,
    marks_commits: bool,
}

enum Phase {
    /// The slot of the place is gone. The place moves to the snapshot before a slot is created: one that exists is taken for that of the
    /// place.
    Lost {
        has_moved: bool,
    },
    /// The snapshot starts when all transactions below this one have ended.
    Waiting {
        below: u64,
    },
    Snapshot {
        rows: Pin<Box<SimpleQueryStream>>,
        seen: SeenTransactions,
        timestamp_ms: i64,
    },
    Changes,
}

/// The transaction that is being decoded.
#[derive(Clone, Copy, Default)]
struct Transaction {
    place: RowPlace,
    timestamp_ms: i64,
    /// Whether the snapshot has its changes.
    is_seen: bool,
    /// Whether a change of it was returned.
    has_changes: bool,
}

impl TableReader {
    /// Connects, checks what the database has, and creates what it lacks. Without the slot, or if the table is another one than
    /// before, reading starts with a snapshot.
    ///
    /// # Errors
    /// [`OutboxError::Setup`] and [`OutboxError::NotAuthorized`] say what to change.
    pub async fn connect(
        settings: &ConnectionSettings,
        application: &str,
        followed: FollowedTable,
        start: Start,
    ) -> Result<TableReader, OutboxError> {
        let FollowedTable { table: name, columns, key, names, unchanged, marks_commits } = followed;
        let session = Session::connect(settings, application).await?;
        session.run(PRINTED).await?;
        let database = Database::read(&session).await?;
        database.check_decoding(false)?;
        check_encoding(&session).await?;
        let checked_at = session.lsn("pg_current_wal_insert_lsn()").await?;
        let table = Table::read(&session, &name, "table").await?;
        let types = table.check_taken(&columns)?;
        let key_names: Vec<&str> = key.iter().map(|index| columns[*index].name.as_str()).collect();
        let rows = table.check_key(&session, &key_names).await?;
        let taken: Vec<&str> = columns.iter().map(|column| column.name.as_str()).collect();
        ensure_publication(&session, &names.publication, Published::Changes(&table, &taken)).await?;
        let place = match &start {
            Start::New | Start::After(None) => TablePlace::Snapshot,
            Start::After(Some(place)) => place.parse().map_err(|()| bad_place(place))?,
        };
        let is_lost = place != TablePlace::Snapshot && !has_slot(&session, &names.slot).await?;
        if !is_lost {
            ensure_slot(&session, &database, &names.slot, IfMissing::Create).await?;
        }
        let (phase, place, seen) = match place {
            _ if is_lost => (Phase::Lost { has_moved: false }, RowPlace::default(), None),
            TablePlace::Change { table: oid, row, seen } if oid == table.oid => (Phase::Changes, row, seen),
            before => {
                if before != TablePlace::Snapshot {
                    tracing::warn!(table = name, "the table is another one than before; reading it again");
                }
                // A transaction may be in the log already, before the slot, and not be visible yet. All of them are below this one.
                let row = session.row("SELECT pg_current_xact_id()::text", &[], "").await?;
                (Phase::Waiting { below: number(value(&row, 0)?)? }, RowPlace::default(), None)
            }
        };
        Ok(TableReader {
            all_rows: all_rows(&table, rows, &columns),
            slot: Slot::new(session, names, false, GAP),
            database: database.id,
            name,
            table,
            writer: RowWriter::new(columns, key, unchanged),
            types,
            checked_at,
            phase,
            place,
            seen,
            transaction: Transaction::default(),
            mapped: None,
            marks_commits,
        })
    }

    /// Moves the place to the snapshot; then the next connection creates the slot.
    fn restart(&mut self, has_moved: bool) -> Result<ReadRows, OutboxError> {
        if has_moved {
            return Err(OutboxError::Other(format!("the replication slot {}{GAP}", self.slot.gone())));
        }
        self.phase = Phase::Lost { has_moved: true };
        let moved = self.row(TablePlace::Snapshot.to_string(), RowEffect::Move);
        Ok(ReadRows { rows: vec![moved], end: ReadEnd::More })
    }

    /// Starts the snapshot, unless transactions that it must see have not ended.
    async fn begin_snapshot(&mut self, below: u64) -> Result<ReadRows, OutboxError> {
        let session = &self.slot.session;
        let row = session.row("SELECT pg_snapshot_xmin(pg_current_snapshot())::text", &[], "").await?;
        if number(value(&row, 0)?)? < below {
            return Ok(ReadRows { rows: Vec::new(), end: ReadEnd::Nothing });
        }
        session.run(BEGIN).await?;
        // TRUNCATE and ALTER TABLE do not keep rows for older snapshots. From here on they wait, so the snapshot finds the rows that it sees.
        let lock = format!("LOCK TABLE {} IN ACCESS SHARE MODE", sql::table(&self.name));
        session.query(&lock, &[], SELECT).await?;
        let statement = "SELECT pg_current_snapshot()::text, (extract(epoch FROM now()) * 1000)::bigint";
        let row = session.row(statement, &[], "").await?;
        let (text, timestamp_ms): (&str, i64) = (value(&row, 0)?, value(&row, 1)?);
        let snapshot = text.parse().map_err(|()| OutboxError::Other(format!("{text} is not a pg_snapshot")))?;
        // Behind the commits of all transactions that the snapshot has seen.
        let until = session.lsn("pg_current_wal_insert_lsn()").await?;
        let rows = Box::pin(session.texts(&self.all_rows, SELECT).await?);
        self.phase = Phase::Snapshot { rows, seen: SeenTransactions { until, snapshot }, timestamp_ms };
        let clear = self.row(TablePlace::Snapshot.to_string(), RowEffect::Snapshot);
        Ok(ReadRows { rows: vec![clear], end: ReadEnd::More })
    }

    fn row(&self, place: impl Into<Arc<str>>, effect: RowEffect) -> OutboxRow {
        let timestamp_ms = self.transaction.timestamp_ms;
        OutboxRow { place: place.into(), timestamp_ms, parts: Vec::new(), payload: None, effect }
    }

    async fn read_snapshot(&mut self) -> Result<ReadRows, OutboxError> {
        let Phase::Snapshot { rows: found, timestamp_ms, .. } = &mut self.phase else {
            return Ok(ReadRows { rows: Vec::new(), end: ReadEnd::More });
        };
        let place: Arc<str> = Arc::from(SNAPSHOT);
        let (mut rows, mut bytes) = (Vec::new(), 0);
        while let Some(message) = found.next().await {
            let SimpleQueryMessage::Row(row) = message.map_err(|error| OutboxError::of(&error, SELECT))? else {
                continue;
            };
            let payload = self.writer.change("r", *timestamp_ms, None, Some(&printed(&row)?));
            let (place, timestamp_ms, effect) = (Arc::clone(&place), *timestamp_ms, RowEffect::Record);
            let row = OutboxRow { place, timestamp_ms, parts: Vec::new(), payload: Some(payload), effect };
            bytes += row.bytes();
            rows.push(row);
            if is_full(rows.len(), bytes) {
                return Ok(ReadRows { rows, end: ReadEnd::More });
            }
        }
        self.slot.session.run("COMMIT").await?;
        if let Phase::Snapshot { seen, .. } = std::mem::replace(&mut self.phase, Phase::Changes) {
            self.seen = Some(seen);
        }
        rows.push(self.row(self.place_now().to_string(), RowEffect::Move));
        Ok(ReadRows { rows, end: ReadEnd::More })
    }

    fn place_now(&self) -> TablePlace {
        TablePlace::Change { table: self.table.oid, row: self.place, seen: self.seen.clone() }
    }

    async fn read_changes(&mut self) -> Result<ReadRows, OutboxError> {
        let (mut rows, mut bytes) = (Vec::new(), 0);
        if !self.slot.begin().await? {
            return Ok(ReadRows { rows, end: ReadEnd::Nothing });
        }
        while let Some(output) = self.slot.next().await? {
            let Some(row) = self.change(output)? else { continue };
            bytes += row.bytes();
            rows.push(row);
            if is_full(rows.len(), bytes) {
                return Ok(ReadRows { rows, end: ReadEnd::More });
            }
        }
        Ok(ReadRows { rows, end: self.slot.end() })
    }

    /// The change in the output; `None`: it has none, or one that was returned before, or that the snapshot has seen.
    fn change(&mut self, output: Output) -> Result<Option<OutboxRow>, OutboxError> {
        let change = match output {
            Output::Begin { transaction, commit, timestamp_ms } => {
                self.seen.take_if(|seen| commit >= seen.until);
                let is_seen = self.seen.as_ref().is_some_and(|seen| seen.snapshot.has_seen(transaction));
                let place = RowPlace { commit, rows: 0 };
                self.transaction = Transaction { place, timestamp_ms, is_seen, has_changes: false };
                return Ok(None);
            }
            Output::Commit { .. } if self.marks_commits && self.transaction.has_changes => {
                return Ok(Some(self.row(self.place_now().to_string(), RowEffect::Commit)));
            }
            Output::Change(change) if change.table == self.table.oid => Some(change),
            Output::Truncate { tables } if tables.contains(&self.table.oid) => None,
            _ => return Ok(None),
        };
        self.transaction.place.rows += 1;
        if self.transaction.is_seen || self.transaction.place <= self.place {
            return Ok(None);
        }
        let payload = change.map(|change| self.payload(&change)).transpose()?;
        self.place = self.transaction.place;
        self.transaction.has_changes = true;
        let effect = if payload.is_some() { RowEffect::Record } else { RowEffect::Clear };
        Ok(Some(OutboxRow { payload, ..self.row(self.place_now().to_string(), effect) }))
    }

    fn payload(&mut self, change: &RowChange) -> Result<bytes::Bytes, OutboxError> {
        let indexes = self.indexes(&change.relation)?;
        let old = change.old.as_ref().map(|old| fields(&old.values, &indexes)).transpose()?;
        let is_known = |row: &[Field<'_>], index: &usize| matches!(row.get(*index), Some(Field::Text(_)));
        let key = |row: &[Field<'_>]| match self.writer.key.iter().all(|index| is_known(row, index)) {
            true => Ok(()),
            false => Err(OutboxError::setup(
                format!("a change of {} does not say which row it is of", self.table.name),
                format!(
                    "ALTER TABLE {} REPLICA IDENTITY FULL, then SELECT pg_drop_replication_slot('..')",
                    self.table.name
                ),
            )),
        };
        let timestamp_ms = self.transaction.timestamp_ms;
        let Some(new) = &change.new else {
            let old = old.unwrap_or_default();
            key(&old)?;
            return Ok(self.writer.change("d", timestamp_ms, Some(&old), None));
        };
        let mut new = fields(new, &indexes)?;
        if let (Some(old), Some(OldRow { is_whole, .. })) = (&old, &change.old) {
            for (index, field) in new.iter_mut().enumerate() {
                if *field == Field::Unchanged && (*is_whole || self.writer.key.contains(&index)) {
                    *field = old[index];
                }
            }
        }
        key(&new)?;
        let before = old.filter(|old| self.writer.key.iter().any(|index| old[*index] != new[*index]));
        let op = if change.is_update { "u" } else { "c" };
        Ok(self.writer.change(op, timestamp_ms, before.as_deref(), Some(&new)))
    }

    /// The indexes of the columns that are taken among those of a change.
    fn indexes(&mut self, relation: &Arc<Relation>) -> Result<Vec<Option<usize>>, OutboxError> {
        if let Some((known, indexes)) = &self.mapped
            && Arc::ptr_eq(known, relation)
        {
            return Ok(indexes.clone());
        }
        // Changes from before the columns were checked may lack some that were added since; their rows have NULL there.
        if self.transaction.place.commit >= self.checked_at && !self.types.fit(relation, self.writer.columns()) {
            return Err(OutboxError::Other(format!("the columns of {} have changed", self.table.name)));
        }
        let indexes: Vec<Option<usize>> =
            self.writer.columns().iter().map(|column| relation.position(&column.name)).collect();
        self.mapped = Some((Arc::clone(relation), indexes.clone()));
        Ok(indexes)
    }
}

fn bad_place(place: &str) -> OutboxError {
    OutboxError::setup(format!("the position \"{place}\" is not one of a table"), "declare a table of another name")
}

fn number(text: &str) -> Result<u64, OutboxError> {
    text.parse().map_err(|_| OutboxError::Other(format!("the database named a transaction that is none: {text}")))
}

/// Texts of a database without an encoding need not be UTF-8.
async fn check_encoding(session: &Session) -> Result<(), OutboxError> {
    let row = session.row("SELECT current_setting('server_encoding')", &[], "").await?;
    match value::<&str>(&row, 0)? {
        "SQL_ASCII" => Err(OutboxError::setup("the encoding of the database is SQL_ASCII", "use a database with UTF8")),
        _ => Ok(()),
    }
}

/// The values of a row of the snapshot.
fn printed(row: &SimpleQueryRow) -> Result<Vec<Field<'_>>, OutboxError> {
    let field = |index| match row.try_get(index) {
        Ok(Some(text)) => Ok(Field::Text(text)),
        Ok(None) => Ok(Field::Null),
        Err(error) => Err(OutboxError::Other(format!("cannot read a row: {error}"))),
    };
    (0..row.len()).map(field).collect()
}

/// The values of a change at these indexes; NULL for a column that it does not have.
fn fields<'v>(values: &'v [Value], indexes: &[Option<usize>]) -> Result<Vec<Field<'v>>, OutboxError> {
    let field = |index: &Option<usize>| match index.and_then(|index| values.get(index)) {
        None | Some(Value::Null) => Ok(Field::Null),
        Some(Value::Unchanged) => Ok(Field::Unchanged),
        Some(Value::Text(text)) => match std::str::from_utf8(text) {
            Ok(text) => Ok(Field::Text(text)),
            Err(_) => Err(OutboxError::Other("the database sent a text that is not UTF-8".to_owned())),
        },
    };
    indexes.iter().map(field).collect()
}

#[async_trait]
impl OutboxReader for TableReader {
    fn database(&self) -> &str {
        &self.database
    }

    async fn read(&mut self) -> Result<ReadRows, OutboxError> {
        match self.phase {
            Phase::Lost { has_moved } => self.restart(has_moved),
            Phase::Waiting { below } => self.begin_snapshot(below).await,
            Phase::Snapshot { .. } => self.read_snapshot().await,
            Phase::Changes => self.read_changes().await,
        }
    }

    async fn acknowledge(&mut self) -> Result<(), OutboxError> {
        if self.slot.is_busy() {
            return Ok(());
        }
        let statement = "SELECT to_regclass($1::text)::oid IS NOT DISTINCT FROM $2::oid";
        let row = self.slot.session.row(statement, &[&sql::table(&self.name), &self.table.oid], "").await?;
        if !value::<bool>(&row, 0)? {
            return Err(OutboxError::Other(format!("{} is gone, or another table", self.name)));
        }
        self.slot.acknowledge().await
    }

    async fn waiting(&mut self) -> Result<Option<u64>, OutboxError> {
        Ok(Some(u64::from(!matches!(self.phase, Phase::Changes))))
    }

    async fn retained_bytes(&mut self) -> Result<Option<u64>, OutboxError> {
        self.slot.retained_bytes().await
    }
}
