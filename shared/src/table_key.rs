//! Names a row of a table: the values of its key's columns, as a path and the key of a record hold them.

use std::fmt;

use arrow::array::ArrayRef;

use crate::entity::{EntityId, InvalidEntityId};
use crate::stream::{KeyColumns, Stream};
use crate::types::DataType;

/// The key of a row: a value for each of [`KeyColumns`]. As text, a key of one column is its value, and one of several columns a JSON
/// array, such as `["DE",7]`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct TableKey(Vec<EntityId>);

/// A text that cannot be the key of a row.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidTableKey {
    #[error(transparent)]
    Value(#[from] InvalidEntityId),
    #[error("the key of {table} is a JSON array of the values of {columns}, such as {example}, not {text}")]
    NoArray { table: String, columns: String, example: String, text: String },
}

impl TableKey {
    /// Reads the key of a row of `table`, whose key has these columns.
    pub fn parse(table: &Stream, key: KeyColumns, text: &str) -> Result<TableKey, InvalidTableKey> {
        if let Some(column) = key.only() {
            return Ok(TableKey(vec![EntityId::of_column(&table.columns[column], text)?]));
        }
        let columns = || key.iter().map(|index| &table.columns[*index]);
        let values = serde_json::from_str::<Vec<EntityId>>(text).ok().filter(|values| {
            let fits = |(value, data_type)| match (value, data_type) {
                (&EntityId::Integer(number), DataType::Int) => i32::try_from(number).is_ok(),
                (EntityId::Integer(_), DataType::BigInt) | (EntityId::Text(_), DataType::String) => true,
                _ => false,
            };
            values.len() == key.len() && values.iter().zip(columns().map(|column| column.data_type)).all(fits)
        });
        values.map(TableKey).ok_or_else(|| {
            let example = columns().enumerate().map(|(number, column)| match column.data_type {
                DataType::String => EntityId::Text("abc".to_owned()),
                _ => EntityId::Integer(number as i64 + 1),
            });
            InvalidTableKey::NoArray {
                table: table.name.to_string(),
                columns: columns().map(|column| column.name.as_str()).collect::<Vec<_>>().join(", "),
                example: TableKey(example.collect()).to_string(),
                text: text.to_owned(),
            }
        })
    }

    /// Returns the key at a row of the columns of a key, which are never null.
    pub fn at(columns: &[ArrayRef], row: usize) -> TableKey {
        TableKey(columns.iter().map(|column| EntityId::at(column, row)).collect())
    }

    /// Returns the values, one for each column of the key.
    pub fn values(&self) -> &[EntityId] {
        &self.0
    }

    /// Returns the key of a record that deletes the row: a JSON value.
    pub fn json(&self) -> Vec<u8> {
        let json = match self.0.as_slice() {
            [only] => serde_json::to_vec(only),
            all => serde_json::to_vec(all),
        };
        json.expect("texts and numbers have a JSON form")
    }
}

impl fmt::Display for TableKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.as_slice() {
            [only] => only.fmt(f),
            all => f.write_str(&serde_json::to_string(all).map_err(|_| fmt::Error)?),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{Int32Array, StringViewArray};

    use super::*;
    use crate::sql::parse_definitions;

    fn parsed(key: &str, text: &str) -> Result<TableKey, InvalidTableKey> {
        let sql =
            format!("CREATE TABLE t (a STRING, b INT, at TIMESTAMP, PRIMARY KEY ({key})) WITH (event_time = 'at')");
        let table =
            parse_definitions(&[("t.sql".to_owned(), sql)]).unwrap_or_else(|e| panic!("{}", e[0])).streams.remove(0);
        TableKey::parse(&table, table.table.expect("a table").key, text)
    }

    #[test]
    fn a_key_has_one_text_and_is_read_from_it() {
        let values = [EntityId::Text("a, \"b\" ü".to_owned()), EntityId::Integer(-7)];
        for (key, text, expected) in [
            ("a", "a, \"b\" ü", &values[..1]),
            ("b", "-7", &values[1..]),
            ("a, b", "[\"a, \\\"b\\\" ü\",-7]", &values[..]),
        ] {
            let found = parsed(key, text).unwrap_or_else(|error| panic!("{error}"));
            assert_eq!((found.values(), found.to_string().as_str()), (expected, text));
            assert_eq!(parsed(key, &found.to_string()), Ok(found));
        }
        // An empty text can be named in an array.
        assert_eq!(parsed("a, b", "[\"\",1]").map(|key| key.to_string()), Ok("[\"\",1]".to_owned()));
        let columns: [ArrayRef; 2] =
            [Arc::new(StringViewArray::from(vec!["x", "y"])), Arc::new(Int32Array::from(vec![1, 2]))];
        assert_eq!(
            (TableKey::at(&columns, 1).to_string(), TableKey::at(&columns[1..], 0).json()),
            ("[\"y\",2]".to_owned(), b"1".to_vec())
        );
    }

    #[test]
    fn a_text_that_is_not_a_key_is_refused_with_an_example() {
        for wrong in
            ["a", "[\"a\"]", "[\"a\",1,2]", "[1,\"a\"]", "[\"a\",3000000000]", "[\"a\",null]", "[\"a\",1.5]", ""]
        {
            let error = parsed("a, b", wrong).expect_err(wrong).to_string();
            assert_eq!(
                error,
                format!("the key of t is a JSON array of the values of a, b, such as [\"abc\",2], not {wrong}")
            );
        }
        assert_eq!(
            parsed("a", "").map_err(|error| error.to_string()),
            Err("the id of an entity cannot be empty".to_owned())
        );
    }
}
