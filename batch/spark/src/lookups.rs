//! Writes the joins of events with rows of tables. Spark reads the versions of the rows of each table as a table of its own, in which every
//! version has the event times that see it. The times of a key are apart, so an event finds one version at most.

use shared::ids::StreamName;
use shared::lookup::definition::{LookupJoin, joined_column};
use shared::types::DataType;
use shared::view::View;

use crate::quote;

/// The columns of every table of versions: the key of the row, and the first and the last microsecond of the times that see the version.
pub const KEY: &str = "__key";
pub const FIRST: &str = "__first";
pub const LAST: &str = "__last";

/// The alias of the events, where they are joined.
const EVENT: &str = "e";

/// A table of versions that a query reads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VersionTable {
    /// Its name in the query.
    pub name: String,
    /// The table whose rows have the versions.
    pub table: StreamName,
    /// The type of the keys.
    pub key: DataType,
    /// The columns that the view reads, besides the key.
    pub columns: Vec<VersionColumn>,
}

/// A column of a table of versions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VersionColumn {
    /// Its name in the query.
    pub name: String,
    /// Its name in the table.
    pub of: String,
    pub data_type: DataType,
}

impl VersionTable {
    /// Returns its columns, as Spark declares a schema.
    pub fn schema(&self) -> String {
        let own = [(KEY, self.key), (FIRST, DataType::BigInt), (LAST, DataType::BigInt)];
        let columns = own.into_iter().chain(self.columns.iter().map(|column| (column.name.as_str(), column.data_type)));
        let column = |(name, data_type)| format!("{name} {}", quote::data_type(data_type));
        columns.map(column).collect::<Vec<_>>().join(", ")
    }
}

/// Returns the tables of versions that the query of a view reads, each once.
pub fn version_tables(view: &View) -> Vec<VersionTable> {
    let mut tables: Vec<VersionTable> = Vec::new();
    let read = view.joined_columns();
    for (number, LookupJoin { table, .. }) in view.joins.iter().enumerate() {
        let at = tables.iter().position(|known| known.table == table.name).unwrap_or_else(|| {
            tables.push(VersionTable {
                name: name(view, number),
                table: table.name.clone(),
                key: table.columns[table.key].1,
                columns: Vec::new(),
            });
            tables.len() - 1
        });
        for (_, column) in read.iter().filter(|(join, column)| *join == number && *column != table.key) {
            let (of, data_type) = table.columns[*column].clone();
            let column = VersionColumn { name: column_name(*column), of, data_type };
            if !tables[at].columns.contains(&column) {
                tables[at].columns.push(column);
            }
        }
    }
    tables
}

/// Writes a column of an event, quoted.
pub fn of_event(view: &View, name: &str) -> String {
    let name = quote::name(name);
    if view.joins.is_empty() { name } else { format!("{EVENT}.{name}") }
}

/// Writes a joined column; `None`: the index means a column of the stream.
pub fn of_table(view: &View, index: usize) -> Option<String> {
    let (join, column) = joined_column(index)?;
    let is_key = view.joins[join].table.key == column;
    let column = if is_key { KEY.to_owned() } else { column_name(column) };
    Some(format!("{}.{column}", alias(join)))
}

/// Writes the events of `source`, joined with the versions that they see at `time`, in microseconds. An event that sees none has NULL: that
/// an inner join leaves it out is a part of WHERE.
pub fn joined(view: &View, source: String, time: &str, column: &dyn Fn(usize) -> String) -> String {
    if view.joins.is_empty() {
        return source;
    }
    let mut joined = format!("{source} {EVENT}");
    for (number, join) in view.joins.iter().enumerate() {
        let (alias, on) = (alias(number), column(join.on));
        joined += &format!(
            " LEFT JOIN {} {alias} ON {alias}.{KEY} = {on} AND {time} BETWEEN {alias}.{FIRST} AND {alias}.{LAST}",
            name(view, number)
        );
    }
    joined
}

/// The name of the versions that a join reads: that of the first join with the same table.
fn name(view: &View, join: usize) -> String {
    let table = &view.joins[join].table.name;
    let first = view.joins.iter().position(|other| other.table.name == *table).unwrap_or(join);
    format!("trueup_versions{first}")
}

fn alias(join: usize) -> String {
    format!("l{join}")
}

fn column_name(column: usize) -> String {
    format!("__c{column}")
}
