//! Implements [`OutboxReader`] with queries, for databases that do not let their log be decoded.
//!
//! Ids and transactions do not become visible in their order, so `id > last` would skip rows of transactions that commit
//! later. Rows are read in the order of (transaction, id), and only those of transactions below the `xmin` of the query's
//! snapshot: all of these have ended, so no row can appear among them any more.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures::{StreamExt, pin_mut};
use tokio_postgres::types::ToSql;

use crate::OutboxError;
use crate::catalog::{Database, Table};
use crate::reader::{OutboxReader, OutboxRow, ReadEnd, ReadRows, RowEffect, Start};
use crate::session::{Session, value};
use crate::settings::ConnectionSettings;
use crate::sql::identifier;

/// Rows, and about as many bytes, that are returned together.
const ROWS_MAX: usize = 10_000;
const BYTES_MAX: usize = 4 * 1024 * 1024;
/// Rows that wait are counted up to this number.
const WAITING_MAX: u32 = 1_000_000;

/// The columns of a table that is polled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PolledTable {
    pub table: String,
    pub id: String,
    /// Has the transaction of each row.
    pub txid: String,
    pub payload: String,
    pub timestamp: Option<String>,
    pub parts: Vec<(&'static str, String)>,
}

/// Reads an outbox by polling its table.
pub struct PollingReader {
    session: Session,
    database: String,
    parts: Vec<&'static str>,
    statements: Statements,
    place: Option<RowKey>,
}

/// The place after a row: those of its transaction and its id, as texts.
#[derive(Debug, Clone, PartialEq, Eq)]
struct RowKey {
    txid: String,
    id: String,
}

struct Statements {
    first: String,
    next: String,
    count_all: String,
    count_next: String,
}

impl PollingReader {
    /// Connects and checks the table.
    ///
    /// # Errors
    /// [`OutboxError::Setup`] and [`OutboxError::NotAuthorized`] say what to change.
    pub async fn connect(
        settings: &ConnectionSettings,
        application: &str,
        polled: PolledTable,
        start: Start,
    ) -> Result<PollingReader, OutboxError> {
        let session = Session::connect(settings, application).await?;
        let database = Database::read(&session).await?;
        let table = Table::read(&session, &polled.table, "outbox").await?;
        table.check_payload(&polled.payload)?;
        table.check_order(&polled.txid, &polled.id)?;
        let timestamp = polled.timestamp.iter().map(|column| ("timestamp", column));
        for (part, column) in polled.parts.iter().map(|(part, column)| (*part, column)).chain(timestamp) {
            table.column(part, column)?;
        }
        let place = match start {
            Start::New | Start::After(None) => None,
            Start::After(Some(place)) => Some(RowKey::parse(&place).ok_or_else(|| bad_place(&place))?),
        };
        let id_type = &table.column("id", &polled.id)?.data_type;
        Ok(PollingReader {
            session,
            database: database.id,
            statements: Statements::new(&table.name, &polled, id_type),
            parts: polled.parts.into_iter().map(|(part, _)| part).collect(),
            place,
        })
    }

    fn help() -> &'static str {
        "GRANT SELECT on the table to the user of the connection"
    }
}

impl RowKey {
    fn parse(text: &str) -> Option<RowKey> {
        let (txid, id) = text.split_once(':')?;
        let is_number = txid.parse::<u64>().is_ok();
        is_number.then(|| RowKey { txid: txid.to_owned(), id: id.to_owned() })
    }
}

impl Statements {
    fn new(table: &str, polled: &PolledTable, id_type: &str) -> Statements {
        let column = |name: &str| format!("o.{}", identifier(name));
        let (txid, id) = (column(&polled.txid), column(&polled.id));
        let timestamp = match &polled.timestamp {
            Some(name) => format!("(extract(epoch FROM {}) * 1000)::bigint", column(name)),
            None => "NULL::bigint".to_owned(),
        };
        let parts: String = polled.parts.iter().map(|(_, name)| format!(", {}::text", column(name))).collect();
        let payload = column(&polled.payload);
        let select = format!("SELECT {txid}::text, {id}::text, {timestamp}, {payload}::text{parts} FROM {table} AS o");
        let has_ended = format!("{txid} < pg_snapshot_xmin(pg_current_snapshot())");
        let order = format!("ORDER BY {txid}, {id} LIMIT {ROWS_MAX}");
        let is_next = format!("({txid}, {id}) > ($1::text::xid8, $2::text::{id_type})");
        let count = format!("SELECT count(*) FROM (SELECT FROM {table} AS o");
        Statements {
            first: format!("{select} WHERE {has_ended} {order}"),
            next: format!("{select} WHERE {is_next} AND {has_ended} {order}"),
            count_all: format!("{count} LIMIT {WAITING_MAX}) AS rows"),
            count_next: format!("{count} WHERE {is_next} LIMIT {WAITING_MAX}) AS rows"),
        }
    }
}

#[async_trait]
impl OutboxReader for PollingReader {
    fn database(&self) -> &str {
        &self.database
    }

    async fn read(&mut self) -> Result<ReadRows, OutboxError> {
        let help = PollingReader::help();
        let found = match &self.place {
            None => self.session.stream(&self.statements.first, &[], help).await?,
            Some(RowKey { txid, id }) => self.session.stream(&self.statements.next, &[txid, id], help).await?,
        };
        pin_mut!(found);
        let (mut rows, mut bytes) = (Vec::new(), 0);
        while let Some(row) = found.next().await {
            let row = row.map_err(|error| OutboxError::of(&error, help))?;
            let key = RowKey { txid: value(&row, 0)?, id: value(&row, 1)? };
            let text = |column| {
                value::<Option<&str>>(&row, column).map(|text| text.map(|t| Bytes::copy_from_slice(t.as_bytes())))
            };
            let mut event = OutboxRow {
                place: Arc::from(format!("{}:{}", key.txid, key.id)),
                timestamp_ms: value::<Option<i64>>(&row, 2)?.unwrap_or(0),
                parts: Vec::with_capacity(self.parts.len()),
                payload: text(3)?,
                effect: RowEffect::Record,
            };
            for (column, part) in (4..).zip(&self.parts) {
                event.parts.push((*part, text(column)?));
            }
            bytes += event.bytes();
            rows.push(event);
            self.place = Some(key);
            if is_full(rows.len(), bytes) {
                return Ok(ReadRows { rows, end: ReadEnd::More });
            }
        }
        Ok(ReadRows { rows, end: ReadEnd::Nothing })
    }

    async fn acknowledge(&mut self) -> Result<(), OutboxError> {
        Ok(())
    }

    async fn waiting(&mut self) -> Result<Option<u64>, OutboxError> {
        let (statement, values): (_, Vec<&(dyn ToSql + Sync)>) = match &self.place {
            None => (&self.statements.count_all, Vec::new()),
            Some(RowKey { txid, id }) => (&self.statements.count_next, vec![txid, id]),
        };
        let row = self.session.row(statement, &values, PollingReader::help()).await?;
        Ok(Some(value::<i64>(&row, 0)?.max(0) as u64))
    }

    async fn retained_bytes(&mut self) -> Result<Option<u64>, OutboxError> {
        Ok(None)
    }
}

/// Whether so many rows and bytes are enough to be returned.
pub(crate) fn is_full(rows: usize, bytes: usize) -> bool {
    rows >= ROWS_MAX || bytes >= BYTES_MAX
}

/// The error for a place that another mode or program has written.
pub(crate) fn bad_place(place: &str) -> OutboxError {
    OutboxError::setup(format!("the position \"{place}\" is not one of this mode"), "declare a stream of another name")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_read_in_the_order_of_transactions_that_have_ended() {
        let polled = PolledTable {
            table: "outbox".to_owned(),
            id: "id".to_owned(),
            txid: "txid".to_owned(),
            payload: "payload".to_owned(),
            timestamp: None,
            parts: vec![("type", "kind".to_owned())],
        };
        let next = Statements::new("\"public\".\"outbox\"", &polled, "uuid").next;
        // Bare names in ORDER BY would be those of the output, which are texts.
        assert_eq!(
            next,
            "SELECT o.\"txid\"::text, o.\"id\"::text, NULL::bigint, o.\"payload\"::text, o.\"kind\"::text \
             FROM \"public\".\"outbox\" AS o WHERE (o.\"txid\", o.\"id\") > ($1::text::xid8, $2::text::uuid) \
             AND o.\"txid\" < pg_snapshot_xmin(pg_current_snapshot()) ORDER BY o.\"txid\", o.\"id\" LIMIT 10000"
        );
    }

    #[test]
    fn places_are_a_transaction_and_an_id() {
        let key = RowKey { txid: "18446744073709551615".to_owned(), id: "a:b".to_owned() };
        assert_eq!(RowKey::parse("18446744073709551615:a:b"), Some(key));
        assert_eq!(RowKey::parse("0/16B3748:3"), None, "a place of logical decoding");
    }
}
