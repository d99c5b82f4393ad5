//! Decodes the log through a slot, by the functions for replication slots.
//!
//! A peek decodes the log from where the slot is, and returns whole transactions in the order of their commits. Once all rows
//! of a peek are durable, the slot is advanced behind them, and the next peek starts there. Where a slot is behind the
//! place of reading, after a crash, its readers skip rows up to that place.

use std::pin::Pin;

use bytes::Bytes;
use futures::StreamExt;
use tokio_postgres::RowStream;
use tokio_postgres::error::SqlState;

use crate::OutboxError;
use crate::lsn::Lsn;
use crate::pgoutput::{Decoder, Output};
use crate::reader::ReadEnd;
use crate::session::{Session, value};
use crate::sql::identifier;

/// Changes after which a peek ends, with the transaction that it is in.
const PEEK_CHANGES: i32 = 50_000;
const HELP: &str = "ALTER ROLE .. REPLICATION, for the user of the connection";

/// The names of a slot and its publication.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SlotNames {
    pub slot: String,
    pub publication: String,
}

/// A slot that is read over a connection.
pub(crate) struct Slot {
    pub session: Session,
    names: SlotNames,
    /// Whether messages are decoded.
    has_messages: bool,
    /// What becomes of rows that were written while there was no slot.
    gap: &'static str,
    peek: Option<Peek>,
    /// The end of the log at the last peek that reached it.
    reached: Option<Lsn>,
    /// Where the slot may be advanced to, once all rows so far are durable.
    next_confirmed: Lsn,
    confirmed: Lsn,
}

/// A peek whose output is not all read.
struct Peek {
    output: Pin<Box<RowStream>>,
    decoder: Decoder,
    /// The end of the log before it started, which it decodes at least.
    log_end: Lsn,
    changes: i32,
}

impl Slot {
    /// A slot that exists. `gap`: what becomes of rows that are written while it does not.
    pub fn new(session: Session, names: SlotNames, has_messages: bool, gap: &'static str) -> Slot {
        let (reached, next_confirmed, confirmed) = (None, Lsn::default(), Lsn::default());
        Slot { session, names, has_messages, gap, peek: None, reached, next_confirmed, confirmed }
    }

    /// Starts to decode what is new, unless a peek is under way. Returns `false` if nothing is.
    pub async fn begin(&mut self) -> Result<bool, OutboxError> {
        if self.peek.is_some() {
            return Ok(true);
        }
        let log_end = self.session.lsn("pg_current_wal_flush_lsn()").await?;
        if self.reached == Some(log_end) {
            return Ok(false);
        }
        let messages = if self.has_messages { ", 'messages', 'true'" } else { "" };
        let statement = format!(
            "SELECT data FROM pg_logical_slot_peek_binary_changes($1::text::name, NULL, $2, 'proto_version', '1', \
             'publication_names', $3::text{messages})"
        );
        let (slot, publication) = (self.names.slot.as_str(), identifier(&self.names.publication));
        let output = self.session.stream(&statement, &[&slot, &PEEK_CHANGES, &publication], HELP).await?;
        self.peek = Some(Peek { output: Box::pin(output), decoder: Decoder::default(), log_end, changes: 0 });
        Ok(true)
    }

    /// The next part of the output; `None`: the peek has ended.
    pub async fn next(&mut self) -> Result<Option<Output>, OutboxError> {
        let Some(peek) = &mut self.peek else { return Ok(None) };
        match peek.output.next().await {
            None => Ok(None),
            Some(Err(error)) => Err(self.failed(&error)),
            Some(Ok(row)) => {
                peek.changes += 1;
                let output = peek.decoder.decode(Bytes::copy_from_slice(value::<&[u8]>(&row, 0)?))?;
                if let Output::Commit { end } = output {
                    self.next_confirmed = self.next_confirmed.max(end);
                }
                Ok(Some(output))
            }
        }
    }

    /// Moves reading behind the peek that has ended.
    pub fn end(&mut self) -> ReadEnd {
        match self.peek.take() {
            Some(peek) if peek.changes < PEEK_CHANGES => {
                self.reached = Some(peek.log_end);
                self.next_confirmed = self.next_confirmed.max(peek.log_end);
                ReadEnd::Nothing
            }
            Some(_) => ReadEnd::Acknowledge,
            None => ReadEnd::Nothing,
        }
    }

    /// Says that the slot does not exist.
    pub fn gone(&self) -> String {
        format!("{} is gone", self.names.slot)
    }

    /// Whether a peek is under way, so that the connection has no room for other statements.
    pub fn is_busy(&self) -> bool {
        self.peek.is_some()
    }

    /// Lets the database forget what was decoded. It is durable.
    pub async fn acknowledge(&mut self) -> Result<(), OutboxError> {
        if self.peek.is_some() || self.next_confirmed <= self.confirmed {
            return Ok(());
        }
        let (slot, target) = (self.names.slot.as_str(), self.next_confirmed.to_string());
        // A slot that was created behind the end of the log cannot go back to it.
        let statement = "SELECT pg_replication_slot_advance(slot_name, greatest($2::text::pg_lsn, confirmed_flush_lsn))::text \
                         FROM pg_replication_slots WHERE slot_name = $1::text::name";
        self.session.query(statement, &[&slot, &target], HELP).await?;
        self.confirmed = self.next_confirmed;
        Ok(())
    }

    /// Bytes of the log that the database keeps for the slot; `None`: the connection is busy.
    pub async fn retained_bytes(&self) -> Result<Option<u64>, OutboxError> {
        if self.peek.is_some() {
            return Ok(None);
        }
        let statement = "SELECT (pg_current_wal_lsn() - restart_lsn)::bigint FROM pg_replication_slots WHERE slot_name = $1::text::name";
        let slot = self.names.slot.as_str();
        let found = self.session.query(statement, &[&slot], "").await?;
        let bytes = found.first().map(|row| value::<Option<i64>>(row, 0)).transpose()?;
        Ok(bytes.flatten().map(|bytes| bytes.max(0) as u64))
    }

    /// An error of a peek.
    fn failed(&self, error: &tokio_postgres::Error) -> OutboxError {
        let SlotNames { slot, publication } = &self.names;
        match error.code() {
            Some(code) if *code == SqlState::UNDEFINED_OBJECT => OutboxError::setup(
                format!("the log has rows that are older than the publication {publication}"),
                format!("SELECT pg_drop_replication_slot('{slot}'){}", self.gap),
            ),
            _ => OutboxError::of(error, HELP),
        }
    }
}
