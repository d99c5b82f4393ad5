//! Implements [`OutboxReader`] for rows that are inserted into a table, and for messages, with logical decoding.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;

use crate::catalog::{Database, IfMissing, Published, Table, ensure_publication, ensure_slot};
use crate::lsn::RowPlace;
use crate::pgoutput::{Output, RowChange, Value};
use crate::reader::{OutboxReader, OutboxRow, ReadEnd, ReadRows, RowEffect, Start};
use crate::session::Session;
use crate::settings::ConnectionSettings;
use crate::slot::{Slot, SlotNames};
use crate::{OutboxError, polling_reader};

/// The name of the part that is the place of the commit.
const LSN: &str = "lsn";
const GAP: &str = ", then create it again; rows written in between are not read";

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
    slot: Slot,
    database: String,
    content: SlotContent,
    /// The table of the rows.
    table: Option<u32>,
    /// Whether rows have the part `lsn`.
    has_lsn: bool,
    /// After the last row that was returned.
    place: RowPlace,
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
                let table = Table::read(&session, table, "outbox").await?;
                table.check_payload(payload)?;
                for (part, column) in parts {
                    table.column(part, column)?;
                }
                Some(table)
            }
        };
        // Decoding fails for rows that are older than their publication.
        let published = table.as_ref().map_or(Published::Messages, Published::Inserts);
        ensure_publication(&session, &names.publication, published).await?;
        let if_missing = if start == Start::New { IfMissing::Create } else { IfMissing::Refuse };
        ensure_slot(&session, &database, &names.slot, if_missing).await?;
        let place = match &start {
            Start::New | Start::After(None) => RowPlace::default(),
            Start::After(Some(place)) => place.parse().map_err(|()| polling_reader::bad_place(place))?,
        };
        let slot = Slot::new(session, names, table.is_none(), GAP);
        let (table, transaction) = (table.map(|table| table.oid), Transaction::default());
        Ok(SlotReader { slot, database: database.id, content, table, has_lsn, place, transaction })
    }

    /// The event in the output; `None`: the output has none, or one that was returned before.
    fn event(&mut self, output: Output) -> Option<OutboxRow> {
        let (parts, payload) = match (output, &self.content) {
            (Output::Begin { commit, timestamp_ms, .. }, _) => {
                self.transaction = Transaction { place: RowPlace { commit, rows: 0 }, timestamp_ms };
                return None;
            }
            (
                Output::Change(RowChange { table, relation, new: Some(values), is_update: false, .. }),
                SlotContent::Rows { payload, parts, .. },
            ) if Some(table) == self.table => {
                // A row from before a column was added does not have it.
                let of = |name: &String| match values.get(relation.position(name)?)? {
                    Value::Text(text) => Some(text.clone()),
                    Value::Null | Value::Unchanged => None,
                };
                (parts.iter().map(|(part, column)| (*part, of(column))).collect(), of(payload))
            }
            (Output::Message { is_transactional: true, prefix, content }, SlotContent::Messages { prefix: wanted })
                if prefix == *wanted =>
            {
                (Vec::new(), Some(content))
            }
            _ => return None,
        };
        self.transaction.place.rows += 1;
        let Transaction { place, timestamp_ms } = self.transaction;
        if place <= self.place {
            return None;
        }
        self.place = place;
        let (text, effect) = (Arc::from(place.to_string()), RowEffect::Record);
        let mut row = OutboxRow { place: text, timestamp_ms, parts, payload, effect };
        if self.has_lsn {
            row.parts.push((LSN, Some(Bytes::from(place.commit.to_string()))));
        }
        Some(row)
    }
}

#[async_trait]
impl OutboxReader for SlotReader {
    fn database(&self) -> &str {
        &self.database
    }

    async fn read(&mut self) -> Result<ReadRows, OutboxError> {
        let (mut rows, mut bytes) = (Vec::new(), 0);
        if !self.slot.begin().await? {
            return Ok(ReadRows { rows, end: ReadEnd::Nothing });
        }
        while let Some(output) = self.slot.next().await? {
            let Some(row) = self.event(output) else { continue };
            bytes += row.bytes();
            rows.push(row);
            if polling_reader::is_full(rows.len(), bytes) {
                return Ok(ReadRows { rows, end: ReadEnd::More });
            }
        }
        Ok(ReadRows { rows, end: self.slot.end() })
    }

    async fn acknowledge(&mut self) -> Result<(), OutboxError> {
        self.slot.acknowledge().await
    }

    async fn waiting(&mut self) -> Result<Option<u64>, OutboxError> {
        Ok(None)
    }

    async fn retained_bytes(&mut self) -> Result<Option<u64>, OutboxError> {
        self.slot.retained_bytes().await
    }
}
