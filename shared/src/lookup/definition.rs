//! Describes the joins of a view: which tables, by which columns, and the indexes of their columns in expressions.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::ids::StreamName;
use crate::stream::Stream;
use crate::types::DataType;

/// The first index of joined columns: above every index of a stream's column.
const JOINED_COLUMNS: usize = 1 << 32;
/// The indexes that each joined table has.
const COLUMNS_OF_TABLE: usize = 1 << 24;

/// What becomes of an event whose row the table does not have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum JoinKind {
    /// It is in no figure. The ledger counts it.
    Inner,
    /// Its joined columns are NULL.
    Left,
}

impl fmt::Display for JoinKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            JoinKind::Inner => "INNER JOIN",
            JoinKind::Left => "LEFT JOIN",
        })
    }
}

/// A table as a join sees it: its declared columns.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JoinTable {
    pub name: StreamName,
    pub columns: Vec<(String, DataType)>,
    /// Index of the column that names a row.
    pub key: usize,
}

/// A join of a view.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LookupJoin {
    pub table: JoinTable,
    /// The name before the point in expressions: the table's own, or the one behind AS.
    pub alias: String,
    pub kind: JoinKind,
    /// Index of the column whose value names the row: of the stream, or of a table joined before.
    pub on: usize,
}

impl JoinTable {
    /// Returns the table that `stream` declares; `None`: it is not a table, or its key has several columns, which no join can name.
    pub fn of(stream: &Stream) -> Option<JoinTable> {
        let table = stream.table?;
        let key = stream.own_columns().position(|(index, _)| Some(index) == table.key.only())?;
        let columns = stream.own_columns().map(|(_, column)| (column.name.clone(), column.data_type)).collect();
        Some(JoinTable { name: stream.name.clone(), columns, key })
    }
}

/// Returns the index in expressions of the column `column` of the join `join` of a view.
pub fn joined_index(join: usize, column: usize) -> usize {
    JOINED_COLUMNS + join * COLUMNS_OF_TABLE + column
}

/// Returns the join and the column that an index in expressions means; `None`: a column of the stream.
pub fn joined_column(index: usize) -> Option<(usize, usize)> {
    let joined = index.checked_sub(JOINED_COLUMNS)?;
    Some((joined / COLUMNS_OF_TABLE, joined % COLUMNS_OF_TABLE))
}
