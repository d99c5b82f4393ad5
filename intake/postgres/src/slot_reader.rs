//! Implements [`OutboxReader`] with logical decoding, through the functions for replication slots.
//!
//! A peek decodes the log from where the slot is, and returns whole transactions in the order of their commits. Once all rows
//! of a peek are durable, the slot is advanced behind them, and the next peek starts there. Where a slot is behind the
//! place of reading, after a crash, rows up to that place are skipped.

use std::pin::Pin;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt;
use tokio_postgres::RowStream;
use tokio_postgres::error::SqlState;

use crate::catalog::{Database, Table, ensure_publication, ensure_slot};
use crate::lsn::{Lsn, RowPlace};
use crate::pgoutput::{Decoder, Output};
use crate::reader::{OutboxReader, OutboxRow, ReadEnd, ReadRows, Start};
use crate::session::{Session, value};
use crate::settings::ConnectionSettings;
use crate::sql::identifier;
use crate::{OutboxError, polling_reader};

/// Changes after which a peek ends, with the transaction that it is in.
const PEEK_CHANGES: i32 = 50_000;
/// The name of the part that is the place of the commit.
const LSN: &str = "lsn";

/// The names of a slot and its publication.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SlotNames {
    pub slot: String,
    pub publication: String,
}

/// The changes that are events.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SlotContent {
    /// A row that is inserted into a table, with the columns of its payload and its parts.
    Rows { table: String, payload: String, parts: Vec<(&'static str, String)> },
    /// A transactional message with this prefix.
    Messages { prefix: String },
}

/// Reads an outbox through a slot.
pub struct SlotReader {
    session: Session,
    database: String,
    names: SlotNames,
    content: SlotContent,
    /// The table of the rows.
    table: Option<u32>,
    /// Whether rows have the part `lsn`.
    has_lsn: bool,
    /// After the last row that was returned.
    place: RowPlace,
    peek: Option<Peek>,
    /// The end of the log at the last peek that reached it.
    reached: Option<Lsn>,
    /// Where the slot may be advanced to, once all rows so far are durable.
    next_confirmed: Lsn,
    confirmed: Lsn,
}

/// A peek whose rows are not all read.
struct Peek {
    output: Pin<Box<RowStream>>,
    decoder: Decoder,
    /// The end of the log before it started, which it decodes at least.
    log_end: Lsn,
    changes: i32,
    transaction: Transaction,
}

/// The transaction that is being decoded.
#[derive(Clone, Copy, Default)]
struct Transaction {
    place: RowPlace,
    timestamp_ms: i64,
}

impl SlotReader {
    /// Connects, checks what the database has, and creates what it lacks. `has_lsn`: rows have the part `lsn`.
    ///
    /// # Errors
    /// [`OutboxError::Setup`] and [`OutboxError::NotAuthorized`] say what to change.
    pub async fn connect(
        settings: &ConnectionSettings,
        application: &str,
        (names, content, has_lsn): (SlotNames, SlotContent, bool),
        start: Start,
    ) -> Result<SlotReader, OutboxError> {
        let session = Session::connect(settings, application).await?;
        let database = Database::read(&session).await?;
        database.check_decoding(matches!(content, SlotContent::Messages { .. }))?;
        let table = match &content {
            SlotContent::Messages { .. } => None,
            SlotContent::Rows { table, payload, parts } => {
                let table = Table::read(&session, table).await?;
                table.check_payload(payload)?;
                for (part, column) in parts {
                    table.column(part, column)?;
                }
                Some(table)
            }
        };
        // Decoding fails for rows that are older than their publication.
        ensure_publication(&session, &names.publication, table.as_ref()).await?;
        ensure_slot(&session, &database, &names, &start).await?;
        let place = match &start {
            Start::New | Start::After(None) => RowPlace::default(),
            Start::After(Some(place)) => place.parse().map_err(|()| polling_reader::bad_place(place))?,
        };
        Ok(SlotReader {
            session,
            database: database.id,
            names,
            content,
            table: table.map(|table| table.oid),
            has_lsn,
            place,
            peek: None,
            reached: None,
            next_confirmed: Lsn::default(),
            confirmed: Lsn::default(),
        })
    }

    async fn peek(&self, log_end: Lsn) -> Result<Peek, OutboxError> {
        let messages = if self.table.is_none() { ", 'messages', 'true'" } else { "" };
        let statement = format!(
            "SELECT data FROM pg_logical_slot_peek_binary_changes($1::text::name, NULL, $2, 'proto_version', '1', \
             'publication_names', $3::text{messages})"
        );
        let (slot, publication) = (self.names.slot.as_str(), identifier(&self.names.publication));
        let help = "ALTER ROLE .. REPLICATION, for the user of the connection";
        let output = self.session.stream(&statement, &[&slot, &PEEK_CHANGES, &publication], help).await?;
        Ok(Peek {
            output: Box::pin(output),
            decoder: Decoder::default(),
            log_end,
            changes: 0,
            transaction: Transaction::default(),
        })
    }

    /// Moves reading behind the end of a peek.
    fn end_of(&mut self, peek: &Peek) -> ReadEnd {
        if peek.changes >= PEEK_CHANGES {
            return ReadEnd::Acknowledge;
        }
        self.reached = Some(peek.log_end);
        self.next_confirmed = self.next_confirmed.max(peek.log_end);
        ReadEnd::Nothing
    }

    /// The next event in the output; `None`: the output has none, or one that was returned before.
    fn event(&mut self, peek: &mut Peek, output: Bytes) -> Result<Option<OutboxRow>, OutboxError> {
        peek.changes += 1;
        let (parts, payload) = match (peek.decoder.decode(output)?, &self.content) {
            (Output::Begin { commit, timestamp_ms }, _) => {
                peek.transaction = Transaction { place: RowPlace { commit, rows: 0 }, timestamp_ms };
                return Ok(None);
            }
            (Output::Commit { end }, _) => {
                self.next_confirmed = self.next_confirmed.max(end);
                return Ok(None);
            }
            (Output::Insert { table, columns, values }, SlotContent::Rows { payload, parts, .. })
                if Some(table) == self.table =>
            {
                // A row from before a column was added does not have it.
                let of = |name: &String| values.get(columns.iter().position(|column| column == name)?).cloned()?;
                (parts.iter().map(|(part, column)| (*part, of(column))).collect(), of(payload))
            }
            (Output::Message { is_transactional: true, prefix, content }, SlotContent::Messages { prefix: wanted })
                if prefix == *wanted =>
            {
                (Vec::new(), Some(content))
            }
            _ => return Ok(None),
        };
        peek.transaction.place.rows += 1;
        let Transaction { place, timestamp_ms } = peek.transaction;
        if place <= self.place {
            return Ok(None);
        }
        self.place = place;
        let mut row = OutboxRow { place: Arc::from(place.to_string()), timestamp_ms, parts, payload };
        if self.has_lsn {
            row.parts.push((LSN, Some(Bytes::from(place.commit.to_string()))));
        }
        Ok(Some(row))
    }

    /// An error of a peek.
    fn failed(&self, error: &tokio_postgres::Error) -> OutboxError {
        let SlotNames { slot, publication } = &self.names;
        match error.code() {
            Some(code) if *code == SqlState::UNDEFINED_OBJECT => OutboxError::setup(
                format!("the log has rows that are older than the publication {publication}"),
                format!(
                    "SELECT pg_drop_replication_slot('{slot}'), then create it again; rows written in between are not read"
                ),
            ),
            _ => OutboxError::of(error, "ALTER ROLE .. REPLICATION, for the user of the connection"),
        }
    }
}

#[async_trait]
impl OutboxReader for SlotReader {
    fn database(&self) -> &str {
        &self.database
    }

    async fn read(&mut self) -> Result<ReadRows, OutboxError> {
        let mut peek = match self.peek.take() {
            Some(peek) => peek,
            None => {
                let row = self.session.row("SELECT pg_current_wal_flush_lsn()::text", &[], "").await?;
                let log_end = lsn(value(&row, 0)?)?;
                if self.reached == Some(log_end) {
                    return Ok(ReadRows { rows: Vec::new(), end: ReadEnd::Nothing });
                }
                self.peek(log_end).await?
            }
        };
        let (mut rows, mut bytes) = (Vec::new(), 0);
        while let Some(output) = peek.output.next().await {
            let output = output.map_err(|error| self.failed(&error))?;
            let output = Bytes::copy_from_slice(value::<&[u8]>(&output, 0)?);
            let Some(row) = self.event(&mut peek, output)? else { continue };
            bytes += row.bytes();
            rows.push(row);
            if polling_reader::is_full(rows.len(), bytes) {
                self.peek = Some(peek);
                return Ok(ReadRows { rows, end: ReadEnd::More });
            }
        }
        let end = self.end_of(&peek);
        Ok(ReadRows { rows, end })
    }

    async fn acknowledge(&mut self) -> Result<(), OutboxError> {
        if self.peek.is_some() || self.next_confirmed <= self.confirmed {
            return Ok(());
        }
        let (slot, target) = (self.names.slot.as_str(), self.next_confirmed.to_string());
        // A slot that was created behind the end of the log cannot go back to it.
        let statement = "SELECT pg_replication_slot_advance(slot_name, greatest($2::text::pg_lsn, confirmed_flush_lsn))::text \
                         FROM pg_replication_slots WHERE slot_name = $1::text::name";
        let help = "ALTER ROLE .. REPLICATION, for the user of the connection";
        self.session.query(statement, &[&slot, &target], help).await?;
        self.confirmed = self.next_confirmed;
        Ok(())
    }

    async fn waiting(&mut self) -> Result<Option<u64>, OutboxError> {
        Ok(None)
    }

    async fn retained_bytes(&mut self) -> Result<Option<u64>, OutboxError> {
        if self.peek.is_some() {
            return Ok(None);
        }
        let statement = "SELECT (pg_current_wal_lsn() - restart_lsn)::bigint FROM pg_replication_slots WHERE slot_name = $1::text::name";
        let slot = self.names.slot.as_str();
        let found = self.session.query(statement, &[&slot], "").await?;
        let bytes = found.first().map(|row| value::<Option<i64>>(row, 0)).transpose()?;
        Ok(bytes.flatten().map(|bytes| bytes.max(0) as u64))
    }
}

fn lsn(text: &str) -> Result<Lsn, OutboxError> {
    text.parse().map_err(|()| OutboxError::Other(format!("the database named a place in its log that is none: {text}")))
}
