//! Names an entity of a stream: the value of its entity column, as a path and a column hold it.

use std::fmt;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, Int32Array, Int64Array, StringViewArray};
use arrow::datatypes::{DataType as ArrowType, Int32Type, Int64Type};
use serde::{Deserialize, Serialize};

use crate::stream::{Column, Stream};
use crate::types::DataType;

/// The id of an entity.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(untagged)]
pub enum EntityId {
    /// Of a STRING column; never empty.
    Text(String),
    /// Of an INT or BIGINT column.
    Integer(i64),
}

/// A text that cannot be the id of an entity.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidEntityId {
    #[error("the id of an entity cannot be empty")]
    Empty,
    #[error("\"{text}\" is not {data_type}, the type of `{column}`")]
    Type { text: String, column: String, data_type: DataType },
    #[error("the stream {0} has no entity: declare it with entity = 'column'")]
    NoEntity(String),
}

impl EntityId {
    /// Reads the id of an entity of `stream`. Integers have one spelling only, so that each entity has one path.
    pub fn parse(stream: &Stream, text: &str) -> Result<EntityId, InvalidEntityId> {
        let Some(entity) = stream.entity else { return Err(InvalidEntityId::NoEntity(stream.name.to_string())) };
        EntityId::of_column(&stream.columns[entity], text)
    }

    /// Reads a value of a column of a type that the id of an entity, and the key of a table, can have.
    pub fn of_column(column: &Column, text: &str) -> Result<EntityId, InvalidEntityId> {
        let is_canonical = |number: &i64| number.to_string() == text;
        let number = match column.data_type {
            DataType::Int => text.parse::<i32>().map(i64::from).ok().filter(is_canonical),
            DataType::BigInt => text.parse::<i64>().ok().filter(is_canonical),
            _ if text.is_empty() => return Err(InvalidEntityId::Empty),
            _ => return Ok(EntityId::Text(text.to_owned())),
        };
        number.map(EntityId::Integer).ok_or_else(|| InvalidEntityId::Type {
            text: text.to_owned(),
            column: column.name.clone(),
            data_type: column.data_type,
        })
    }

    /// Returns for each value of the entity column whether it is this entity.
    ///
    /// # Panics
    /// If the column is not one that a stream may have as its entity.
    pub fn matches(&self, column: &ArrayRef) -> BooleanArray {
        match (self, column.data_type()) {
            (EntityId::Text(id), ArrowType::Utf8View) => {
                column.as_string_view().iter().map(|value| Some(value == Some(id))).collect()
            }
            (EntityId::Text(id), ArrowType::Utf8) => {
                column.as_string::<i32>().iter().map(|value| Some(value == Some(id))).collect()
            }
            (EntityId::Integer(id), ArrowType::Int32) => {
                column.as_primitive::<Int32Type>().iter().map(|value| Some(value.map(i64::from) == Some(*id))).collect()
            }
            (EntityId::Integer(id), ArrowType::Int64) => {
                column.as_primitive::<Int64Type>().iter().map(|value| Some(value == Some(*id))).collect()
            }
            (id, other) => panic!("the entity {id} cannot be in a column of type {other}"),
        }
    }

    /// A column of `data_type`, one that an entity may have, with this id alone.
    pub fn column(&self, data_type: DataType) -> ArrayRef {
        match self {
            EntityId::Text(text) => Arc::new(StringViewArray::from(vec![text.as_str()])),
            // The id was read by the type of its column.
            EntityId::Integer(number) if data_type == DataType::Int => Arc::new(Int32Array::from(vec![*number as i32])),
            EntityId::Integer(number) => Arc::new(Int64Array::from(vec![*number])),
        }
    }

    /// Returns the value at a row of a column that a stream may have as its entity; it is not null.
    ///
    /// # Panics
    /// If the column has another type.
    pub fn at(column: &ArrayRef, row: usize) -> EntityId {
        match column.data_type() {
            ArrowType::Utf8View => EntityId::Text(column.as_string_view().value(row).to_owned()),
            ArrowType::Int32 => EntityId::Integer(column.as_primitive::<Int32Type>().value(row).into()),
            ArrowType::Int64 => EntityId::Integer(column.as_primitive::<Int64Type>().value(row)),
            other => panic!("an entity cannot be in a column of type {other}"),
        }
    }

    /// The id as a literal of SQL.
    pub fn sql(&self) -> String {
        match self {
            EntityId::Text(text) => format!("'{}'", text.replace('\'', "''")),
            EntityId::Integer(number) => number.to_string(),
        }
    }
}

/// As a path spells it, before it is encoded.
impl fmt::Display for EntityId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            EntityId::Text(text) => f.write_str(text),
            EntityId::Integer(number) => write!(f, "{number}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sql::parse_definitions;

    fn stream(entity: &str) -> Stream {
        let text =
            format!("CREATE STREAM s (t STRING, i INT, b BIGINT, at TIMESTAMP) WITH (event_time = 'at'{entity})");
        parse_definitions(&[("s.sql".to_owned(), text)]).unwrap_or_else(|e| panic!("{}", e[0])).streams.remove(0)
    }

    #[test]
    fn an_id_is_read_by_the_type_of_its_column_in_one_spelling() {
        let (text, int, big) = (stream(", entity = 't'"), stream(", entity = 'i'"), stream(", entity = 'b'"));
        assert_eq!(EntityId::parse(&text, "07"), Ok(EntityId::Text("07".to_owned())));
        assert_eq!(EntityId::parse(&text, ""), Err(InvalidEntityId::Empty));
        assert_eq!(EntityId::parse(&int, "-7"), Ok(EntityId::Integer(-7)));
        assert_eq!(EntityId::parse(&big, "3000000000"), Ok(EntityId::Integer(3_000_000_000)));
        for (stream, wrong) in [(&int, "07"), (&int, "3000000000"), (&big, "+1"), (&big, "a"), (&big, "")] {
            assert!(matches!(EntityId::parse(stream, wrong), Err(InvalidEntityId::Type { .. })), "{wrong}");
        }
        assert!(matches!(EntityId::parse(&stream(""), "a"), Err(InvalidEntityId::NoEntity(_))));
    }

    #[test]
    fn an_id_matches_its_values_only_and_never_null() {
        let texts: ArrayRef = Arc::new(StringViewArray::from(vec![Some("a"), None, Some("b")]));
        let is_a = EntityId::Text("a".to_owned()).matches(&texts);
        assert_eq!(is_a.iter().collect::<Vec<_>>(), [Some(true), Some(false), Some(false)]);
        let numbers: ArrayRef = Arc::new(Int32Array::from(vec![Some(7), None]));
        assert_eq!(EntityId::Integer(7).matches(&numbers).iter().collect::<Vec<_>>(), [Some(true), Some(false)]);
        assert_eq!(EntityId::Text("it's".to_owned()).sql(), "'it''s'");
    }
}
