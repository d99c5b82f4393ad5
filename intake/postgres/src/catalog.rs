//! Checks what a database has for an outbox, and creates what it lacks. Each error says what to do.

use std::collections::BTreeMap;

use crate::OutboxError;
use crate::reader::Start;
use crate::session::{Session, value};
use crate::slot_reader::SlotNames;
use crate::sql::{identifier, table};

/// PostgreSQL 13 has `xid8` and the state of slots, 14 has messages in `pgoutput`.
const VERSION_MIN: i32 = 130_000;
const VERSION_OF_MESSAGES: i32 = 140_000;
/// What the default of a column is that has the transaction of its row.
const TRANSACTION_ID: &str = "pg_current_xact_id()";

/// The database, as one row of settings says.
pub(crate) struct Database {
    /// Names it and its cluster.
    pub id: String,
    pub name: String,
    version: i32,
    wal_level: String,
    is_standby: bool,
}

/// A table.
pub(crate) struct Table {
    pub oid: u32,
    /// Quoted, with its schema.
    pub name: String,
    pub columns: BTreeMap<String, ColumnFacts>,
}

/// A column of a table.
pub(crate) struct ColumnFacts {
    pub data_type: String,
    pub is_required: bool,
    pub default: Option<String>,
}

impl Database {
    pub async fn read(session: &Session) -> Result<Database, OutboxError> {
        let statement = "SELECT system_identifier::text, current_database()::text, current_setting('server_version_num')::int, \
                         current_setting('wal_level'), pg_is_in_recovery() FROM pg_control_system()";
        let row = session.row(statement, &[], "grant EXECUTE on pg_control_system()").await?;
        let (cluster, name): (String, String) = (value(&row, 0)?, value(&row, 1)?);
        let database = Database {
            id: format!("{cluster}/{name}"),
            name,
            version: value(&row, 2)?,
            wal_level: value(&row, 3)?,
            is_standby: value(&row, 4)?,
        };
        match database.version >= VERSION_MIN {
            true => Ok(database),
            false => Err(OutboxError::setup("the server is older than PostgreSQL 13", "upgrade it")),
        }
    }

    /// Checks that the log can be decoded.
    pub fn check_decoding(&self, of_messages: bool) -> Result<(), OutboxError> {
        if of_messages && self.version < VERSION_OF_MESSAGES {
            let help = "upgrade it, or use mode = 'decoding' or 'polling'";
            return Err(OutboxError::setup("messages need PostgreSQL 14 or newer", help));
        }
        if self.is_standby {
            let help = "connect to the primary, or use mode = 'polling'";
            return Err(OutboxError::setup("the server is a standby, whose slots cannot be advanced", help));
        }
        if self.wal_level != "logical" {
            let problem = format!("logical decoding needs wal_level = logical, and it is {}", self.wal_level);
            return Err(OutboxError::setup(problem, "set it and restart the server, or use mode = 'polling'"));
        }
        Ok(())
    }
}

impl Table {
    /// Reads the table with its columns.
    pub async fn read(session: &Session, name: &str) -> Result<Table, OutboxError> {
        let quoted = table(name);
        let help = format!("GRANT USAGE on the schema and SELECT on {quoted} to the user");
        let statement = "SELECT c.oid, n.nspname::text, c.relname::text FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace \
                         WHERE c.oid = to_regclass($1::text)";
        let found = session.query(statement, &[&quoted], &help).await?;
        let Some(row) = found.first() else {
            let help = "create it, or correct `outbox`, as NAME or SCHEMA.NAME with capital letters as they are in the database";
            return Err(OutboxError::setup(format!("there is no table {name}"), help));
        };
        let (oid, schema, name): (u32, String, String) = (value(row, 0)?, value(row, 1)?, value(row, 2)?);
        let statement = "SELECT a.attname::text, format_type(a.atttypid, a.atttypmod), a.attnotnull, pg_get_expr(d.adbin, d.adrelid) \
                         FROM pg_attribute a LEFT JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum \
                         WHERE a.attrelid = $1 AND a.attnum > 0 AND NOT a.attisdropped";
        let mut columns = BTreeMap::new();
        for row in session.query(statement, &[&oid], &help).await? {
            let facts =
                ColumnFacts { data_type: value(&row, 1)?, is_required: value(&row, 2)?, default: value(&row, 3)? };
            columns.insert(value::<String>(&row, 0)?, facts);
        }
        Ok(Table { oid, name: format!("{}.{}", identifier(&schema), identifier(&name)), columns })
    }

    /// The column with this name, which the option `columns` calls `part`.
    pub fn column(&self, part: &str, name: &str) -> Result<&ColumnFacts, OutboxError> {
        self.columns.get(name).ok_or_else(|| {
            let help = format!("add it, or name another one: columns = '{part} = ..'");
            OutboxError::setup(format!("the table {} has no column {name}", self.name), help)
        })
    }

    /// Checks the column that has the events.
    pub fn check_payload(&self, name: &str) -> Result<(), OutboxError> {
        let found = self.column("payload", name)?.data_type.as_str();
        match matches!(found, "json" | "jsonb" | "text") || found.starts_with("character varying") {
            true => Ok(()),
            false => {
                let problem = format!("the column {name} of {} is {found}", self.name);
                Err(OutboxError::setup(problem, "events are JSON in a column of type jsonb, json or text"))
            }
        }
    }

    /// Checks the columns by whose values rows are polled.
    pub fn check_order(&self, txid: &str, id: &str) -> Result<(), OutboxError> {
        let (quoted, table) = (identifier(txid), &self.name);
        let help = format!("ALTER TABLE {table} ADD COLUMN {quoted} xid8 NOT NULL DEFAULT {TRANSACTION_ID}");
        let Some(found) = self.columns.get(txid) else {
            let problem =
                format!("polling needs a column with the transaction of each row, and {table} has no column {txid}");
            return Err(OutboxError::setup(problem, help));
        };
        if found.data_type != "xid8" || !found.is_required || found.default.as_deref() != Some(TRANSACTION_ID) {
            let problem = format!("the column {txid} of {table} is not xid8 NOT NULL DEFAULT {TRANSACTION_ID}");
            return Err(OutboxError::setup(problem, format!("drop it, then {help}")));
        }
        match self.column("id", id)?.is_required {
            true => Ok(()),
            false => {
                let (id, problem) = (identifier(id), format!("the column {id} of {table} may be null"));
                Err(OutboxError::setup(problem, format!("ALTER TABLE {table} ALTER COLUMN {id} SET NOT NULL")))
            }
        }
    }
}

/// Creates the publication if the database does not have it, and checks that it has the table.
pub(crate) async fn ensure_publication(
    session: &Session,
    publication: &str,
    table: Option<&Table>,
) -> Result<(), OutboxError> {
    let quoted = identifier(publication);
    let create = match table {
        Some(table) => format!(
            "CREATE PUBLICATION {quoted} FOR TABLE {} WITH (publish = 'insert', publish_via_partition_root = true)",
            table.name
        ),
        None => format!("CREATE PUBLICATION {quoted}"),
    };
    let known = "SELECT p.pubinsert, EXISTS (SELECT FROM pg_publication_tables t JOIN pg_class c ON c.relname = t.tablename \
                 JOIN pg_namespace n ON n.oid = c.relnamespace AND n.nspname = t.schemaname \
                 WHERE t.pubname = p.pubname AND c.oid = $2) FROM pg_publication p WHERE p.pubname = $1::text::name";
    let oid = table.map_or(0, |table| table.oid);
    let found = session.query(known, &[&publication, &oid], "").await?;
    let Some(row) = found.first() else {
        let help = format!("let the owner of the table run: {create}");
        session.query(&create, &[], &help).await?;
        tracing::info!(publication, "created the publication of an outbox");
        return Ok(());
    };
    let (inserts, has_table): (bool, bool) = (value(row, 0)?, value(row, 1)?);
    match table {
        Some(table) if !has_table || !inserts => {
            let problem =
                format!("the publication {publication} does not publish what is inserted into {}", table.name);
            Err(OutboxError::setup(problem, format!("drop it, then {create}")))
        }
        _ => Ok(()),
    }
}

/// Checks the slot. Creates it if nothing was ever read through it.
pub(crate) async fn ensure_slot(
    session: &Session,
    database: &Database,
    names: &SlotNames,
    start: &Start,
) -> Result<(), OutboxError> {
    let slot = names.slot.as_str();
    let create = format!("SELECT pg_create_logical_replication_slot('{slot}', 'pgoutput')");
    let statement =
        "SELECT plugin::text, database::text, wal_status FROM pg_replication_slots WHERE slot_name = $1::text::name";
    let found = session.query(statement, &[&slot], "").await?;
    let Some(row) = found.first() else {
        if *start != Start::New {
            let problem =
                format!("the replication slot {slot} is gone: rows that were written since cannot be decoded");
            let help = format!("{create}; reading continues with what is committed after that");
            return Err(OutboxError::setup(problem, help));
        }
        let help = format!("ALTER ROLE .. REPLICATION, or let another user run: {create}");
        let statement = "SELECT pg_create_logical_replication_slot($1::text::name, 'pgoutput')::text";
        session.query(statement, &[&slot], &help).await?;
        tracing::info!(slot, "created the replication slot of an outbox");
        return Ok(());
    };
    let (plugin, of): (Option<String>, Option<String>) = (value(row, 0)?, value(row, 1)?);
    if plugin.as_deref() != Some("pgoutput") || of.as_ref() != Some(&database.name) {
        let problem = format!("the replication slot {slot} is not one of pgoutput in the database {}", database.name);
        return Err(OutboxError::setup(problem, "name another one: slot = '..'"));
    }
    if value::<Option<String>>(row, 2)?.as_deref() == Some("lost") {
        let problem =
            format!("the server has removed the log that the slot {slot} needed: it is above max_slot_wal_keep_size");
        let help = format!("SELECT pg_drop_replication_slot('{slot}'); {create}; rows written in between are not read");
        return Err(OutboxError::setup(problem, help));
    }
    Ok(())
}
