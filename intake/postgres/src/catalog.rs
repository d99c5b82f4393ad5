//! Checks what a database has for an outbox or a table, and creates what it lacks. Each error says what to do.

use std::collections::BTreeMap;

use crate::OutboxError;
use crate::session::{Session, value};
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
    pub type_id: u32,
    /// The type under all domains.
    pub base_id: u32,
    /// Of the base: the precision of a number.
    pub modifier: i32,
    pub is_generated: bool,
}

/// What a publication has to publish.
#[derive(Clone, Copy)]
pub(crate) enum Published<'a> {
    Messages,
    /// Rows that are inserted into a table.
    Inserts(&'a Table),
    /// All changes of these columns of a table.
    Changes(&'a Table, &'a [&'a str]),
}

/// What to do without a slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum IfMissing {
    Create,
    /// Rows that were written since it was there would not be read.
    Refuse,
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
    /// Reads the table with its columns. `option` names it in the declaration.
    pub async fn read(session: &Session, name: &str, option: &str) -> Result<Table, OutboxError> {
        let quoted = table(name);
        let help = format!("GRANT USAGE on the schema and SELECT on {quoted} to the user");
        let statement = "SELECT c.oid, n.nspname::text, c.relname::text FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace \
                         WHERE c.oid = to_regclass($1::text)";
        let found = session.query(statement, &[&quoted], &help).await?;
        let Some(row) = found.first() else {
            let help = format!(
                "create it, or correct `{option}`, as NAME or SCHEMA.NAME with capital letters as they are in the database"
            );
            return Err(OutboxError::setup(format!("there is no table {name}"), help));
        };
        let (oid, schema, name): (u32, String, String) = (value(row, 0)?, value(row, 1)?, value(row, 2)?);
        let statement = "SELECT a.attname::text, format_type(a.atttypid, a.atttypmod), a.attnotnull, pg_get_expr(d.adbin, d.adrelid), \
                         a.atttypid, b.id, CASE WHEN b.id = a.atttypid THEN a.atttypmod ELSE b.modifier END, a.attgenerated <> '' \
                         FROM pg_attribute a LEFT JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum \
                         CROSS JOIN LATERAL (WITH RECURSIVE step(id, kind, base, modifier) AS ( \
                         SELECT t.oid, t.typtype, t.typbasetype, -1 FROM pg_type t WHERE t.oid = a.atttypid UNION ALL \
                         SELECT t.oid, t.typtype, t.typbasetype, d.typtypmod FROM step s JOIN pg_type d ON d.oid = s.id \
                         JOIN pg_type t ON t.oid = s.base WHERE s.kind = 'd') \
                         SELECT id, modifier FROM step WHERE kind <> 'd') AS b \
                         WHERE a.attrelid = $1 AND a.attnum > 0 AND NOT a.attisdropped";
        let mut columns = BTreeMap::new();
        for row in session.query(statement, &[&oid], &help).await? {
            let facts = ColumnFacts {
                data_type: value(&row, 1)?,
                is_required: value(&row, 2)?,
                default: value(&row, 3)?,
                type_id: value(&row, 4)?,
                base_id: value(&row, 5)?,
                modifier: value(&row, 6)?,
                is_generated: value(&row, 7)?,
            };
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

impl Published<'_> {
    fn table(&self) -> Option<&Table> {
        match self {
            Published::Messages => None,
            Published::Inserts(table) | Published::Changes(table, _) => Some(table),
        }
    }

    /// The names of the columns that it must have; none: any.
    fn columns(&self) -> &[&str] {
        if let Published::Changes(_, columns) = self { columns } else { &[] }
    }

    /// The statement that creates the publication.
    fn create(&self, quoted: &str) -> String {
        match self {
            Published::Messages => format!("CREATE PUBLICATION {quoted}"),
            Published::Inserts(table) => format!(
                "CREATE PUBLICATION {quoted} FOR TABLE {} WITH (publish = 'insert', publish_via_partition_root = true)",
                table.name
            ),
            Published::Changes(table, _) => {
                format!("CREATE PUBLICATION {quoted} FOR TABLE {} WITH (publish_via_partition_root = true)", table.name)
            }
        }
    }
}

/// Creates the publication if the database does not have it, and checks that it has what is to be published.
pub(crate) async fn ensure_publication(
    session: &Session,
    publication: &str,
    published: Published<'_>,
) -> Result<(), OutboxError> {
    let create = published.create(&identifier(publication));
    // Filters of rows and lists of columns came with PostgreSQL 15.
    let known = "SELECT p.pubinsert, p.pubinsert AND p.pubupdate AND p.pubdelete AND p.pubtruncate, t.facts IS NOT NULL, \
                 t.facts ->> 'rowfilter' IS NOT NULL, ARRAY(SELECT c FROM unnest($3::text[]) c \
                 WHERE jsonb_typeof(t.facts -> 'attnames') = 'array' AND NOT t.facts -> 'attnames' ? c) \
                 FROM pg_publication p LEFT JOIN LATERAL (SELECT to_jsonb(t) AS facts FROM pg_publication_tables t \
                 JOIN pg_class c ON c.relname = t.tablename JOIN pg_namespace n ON n.oid = c.relnamespace AND n.nspname = t.schemaname \
                 WHERE t.pubname = p.pubname AND c.oid = $2 LIMIT 1) t ON true WHERE p.pubname = $1::text::name";
    let oid = published.table().map_or(0, |table| table.oid);
    let found = session.query(known, &[&publication, &oid, &published.columns()], "").await?;
    let Some(row) = found.first() else {
        let help = format!("let the owner of the table run: {create}");
        session.query(&create, &[], &help).await?;
        tracing::info!(publication, "created a publication");
        return Ok(());
    };
    let (inserts, all, has_table): (bool, bool, bool) = (value(row, 0)?, value(row, 1)?, value(row, 2)?);
    let (is_filtered, lacking): (bool, Vec<String>) = (value(row, 3)?, value(row, 4)?);
    let problem = match published {
        Published::Inserts(table) if !has_table || !inserts => {
            format!("the publication {publication} does not publish what is inserted into {}", table.name)
        }
        Published::Changes(table, _) if !has_table || !all => {
            format!("the publication {publication} does not publish all changes of {}", table.name)
        }
        Published::Changes(table, _) if is_filtered => {
            format!(
                "the publication {publication} filters the rows of {}, and changes of others would be missed",
                table.name
            )
        }
        Published::Changes(table, _) if !lacking.is_empty() => {
            format!("the publication {publication} leaves out columns of {}: {}", table.name, lacking.join(", "))
        }
        _ => return Ok(()),
    };
    Err(OutboxError::setup(problem, format!("drop it, then {create}")))
}

/// Whether there is a slot of this name.
pub(crate) async fn has_slot(session: &Session, slot: &str) -> Result<bool, OutboxError> {
    let statement = "SELECT FROM pg_replication_slots WHERE slot_name = $1::text::name";
    Ok(!session.query(statement, &[&slot], "").await?.is_empty())
}

/// Checks the slot, and creates it if it is missing and may be.
pub(crate) async fn ensure_slot(
    session: &Session,
    database: &Database,
    slot: &str,
    if_missing: IfMissing,
) -> Result<(), OutboxError> {
    let create = format!("SELECT pg_create_logical_replication_slot('{slot}', 'pgoutput')");
    let statement = "SELECT plugin::text, database::text, wal_status, confirmed_flush_lsn IS NULL \
                     FROM pg_replication_slots WHERE slot_name = $1::text::name";
    let found = session.query(statement, &[&slot], "").await?;
    let Some(row) = found.first() else {
        if if_missing == IfMissing::Refuse {
            let problem =
                format!("the replication slot {slot} is gone: rows that were written since cannot be decoded");
            let help = format!("{create}; reading continues with what is committed after that");
            return Err(OutboxError::setup(problem, help));
        }
        let help = format!("ALTER ROLE .. REPLICATION, or let another user run: {create}");
        let statement = "SELECT pg_create_logical_replication_slot($1::text::name, 'pgoutput')::text";
        session.query(statement, &[&slot], &help).await?;
        tracing::info!(slot, "created a replication slot");
        return Ok(());
    };
    let (plugin, of): (Option<String>, Option<String>) = (value(row, 0)?, value(row, 1)?);
    if plugin.as_deref() != Some("pgoutput") || of.as_ref() != Some(&database.name) {
        let problem = format!("the replication slot {slot} is not one of pgoutput in the database {}", database.name);
        return Err(OutboxError::setup(problem, "name another one: slot = '..'"));
    }
    // A server keeps creating the slot of a client that was killed: what commits until it is there would be in no snapshot of now, and
    // is not decoded.
    if value::<bool>(row, 3)? {
        return Err(OutboxError::Other(format!(
            "the replication slot {slot} is still being created: it waits for transactions that are open"
        )));
    }
    if value::<Option<String>>(row, 2)?.as_deref() == Some("lost") {
        let problem =
            format!("the server has removed the log that the slot {slot} needed: it is above max_slot_wal_keep_size");
        let drop = format!("SELECT pg_drop_replication_slot('{slot}')");
        let help = match if_missing {
            IfMissing::Refuse => format!("{drop}; {create}; rows written in between are not read"),
            IfMissing::Create => format!("{drop}; it is created again"),
        };
        return Err(OutboxError::setup(problem, help));
    }
    Ok(())
}
