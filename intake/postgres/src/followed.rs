//! Checks that a table of a database can be followed: its columns are those that are taken, and its changes name their rows.

use std::collections::BTreeMap;

use tokio_postgres::types::Type;

use crate::OutboxError;
use crate::catalog::Table;
use crate::columns::{TakenColumn, declaration};
use crate::pgoutput::Relation;
use crate::session::{Session, value};
use crate::sql::identifier;

/// The types under the domains of a table's columns, by the object ids of both.
pub(crate) struct ColumnTypes(BTreeMap<u32, u32>);

impl ColumnTypes {
    fn base(&self, type_id: u32) -> Option<Type> {
        Type::from_oid(self.0.get(&type_id).copied().unwrap_or(type_id))
    }

    /// Whether the columns of a change are there and fit.
    pub fn fit(&self, relation: &Relation, taken: &[TakenColumn]) -> bool {
        taken.iter().all(|column| {
            relation.position(&column.name).is_some_and(|index| {
                let found = &relation.columns[index];
                let is_base = !self.0.contains_key(&found.type_id);
                // The digits of a domain are those of its base, which were checked.
                column.takes.fits(self.base(found.type_id).as_ref(), if is_base { found.modifier } else { -1 })
            })
        })
    }
}

impl Table {
    /// Checks the columns that are taken.
    pub fn check_taken(&self, taken: &[TakenColumn]) -> Result<ColumnTypes, OutboxError> {
        let mut types = BTreeMap::new();
        for TakenColumn { name, declared, takes } in taken {
            let table = &self.name;
            let Some(found) = self.columns.get(name) else {
                let help = format!(
                    "add it to the table, or say which column it is: {} {declared} FROM '/..'; columns of a table with rows \
                     cannot be removed from its declaration",
                    identifier(name)
                );
                return Err(OutboxError::setup(format!("the table {table} has no column {name}"), help));
            };
            if found.is_generated {
                let problem = format!("the column {name} of {table} is generated, and changes do not have its values");
                return Err(OutboxError::setup(problem, "compute it in the view"));
            }
            let of = Type::from_oid(found.base_id);
            if !takes.fits(of.as_ref(), found.modifier) {
                let problem =
                    format!("the column {name} of {table} is {}, which {declared} does not take", found.data_type);
                let help = format!("declare it as {}, or change its type", declaration(of.as_ref(), found.modifier));
                return Err(OutboxError::setup(problem, help));
            }
            if found.base_id != found.type_id {
                types.insert(found.type_id, found.base_id);
            }
        }
        Ok(ColumnTypes(types))
    }

    /// Checks that the key names one row, and that updates and deletions have it.
    pub async fn check_key(&self, session: &Session, key: &[&str]) -> Result<Rows, OutboxError> {
        // An index over some of the columns names rows, too.
        let statement = "SELECT c.relkind::text, EXISTS (SELECT FROM pg_index i WHERE i.indrelid = c.oid AND i.indisunique \
                         AND i.indimmediate AND i.indisvalid AND i.indpred IS NULL \
                         AND (i.indkey::int2[])[0:i.indnkeyatts - 1] <@ k.columns), \
                         c.relreplident = 'f' OR EXISTS (SELECT FROM pg_index i WHERE i.indrelid = c.oid \
                         AND CASE c.relreplident WHEN 'd' THEN i.indisprimary WHEN 'i' THEN i.indisreplident ELSE false END \
                         AND k.columns <@ (i.indkey::int2[])[0:i.indnkeyatts - 1]) \
                         FROM pg_class c, LATERAL (SELECT array_agg(a.attnum) AS columns FROM pg_attribute a \
                         WHERE a.attrelid = c.oid AND a.attname::text = ANY ($2::text[])) k WHERE c.oid = $1";
        let row = session.row(statement, &[&self.oid, &key], "").await?;
        let (kind, is_unique, is_named): (String, bool, bool) = (value(&row, 0)?, value(&row, 1)?, value(&row, 2)?);
        let (table, quoted) = (&self.name, key.iter().map(|name| identifier(name)).collect::<Vec<_>>().join(", "));
        let is_required = key.iter().all(|name| self.columns.get(*name).is_some_and(|found| found.is_required));
        let key = key.join(", ");
        let rows = match kind.as_str() {
            "r" => Rows::Own,
            "p" => Rows::OfPartitions,
            _ => {
                let problem = format!("{table} is not a table: views and foreign tables have no changes of rows");
                return Err(OutboxError::setup(problem, "name the table that has the rows"));
            }
        };
        if !is_unique || !is_required {
            let problem =
                format!("{key} does not name the rows of {table}: it has no unique index of its own, or may be null");
            let help = format!(
                "ALTER TABLE {table} ADD PRIMARY KEY ({quoted}), or declare other columns as PRIMARY KEY; DEFERRABLE keys are not \
                 supported"
            );
            return Err(OutboxError::setup(problem, help));
        }
        match is_named {
            true => Ok(rows),
            false => {
                let problem = format!("updates and deletions of {table} do not say which {key} they are of");
                let help = format!("ALTER TABLE {table} REPLICA IDENTITY FULL, or make {key} its primary key");
                Err(OutboxError::setup(problem, help))
            }
        }
    }
}

/// Where the rows of a table are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Rows {
    /// In the table: those of tables that inherit from it are not its own.
    Own,
    OfPartitions,
}

/// The query of all rows of a table.
pub(crate) fn all_rows(table: &Table, rows: Rows, taken: &[TakenColumn]) -> String {
    let columns: Vec<String> = taken.iter().map(|column| identifier(&column.name)).collect();
    let only = if rows == Rows::Own { "ONLY " } else { "" };
    format!("SELECT {} FROM {only}{}", columns.join(", "), table.name)
}
