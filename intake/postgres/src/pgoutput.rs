//! Decodes the output of the plugin `pgoutput`, protocol 1: transactions, changes of rows, TRUNCATE and messages. Everything else
//! is skipped.
//!
//! The format is that of "Logical Replication Message Formats" in the manual of PostgreSQL.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::{Buf, Bytes};

use crate::lsn::Lsn;

/// Microseconds from 1970 to 2000, where PostgreSQL counts from.
const EPOCH_US: i64 = 946_684_800_000_000;

/// A part of the output.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Output {
    /// The start of a transaction, with its id and the place of its commit.
    Begin {
        transaction: u32,
        commit: Lsn,
        timestamp_ms: i64,
    },
    /// The commit, with the place after it.
    Commit {
        end: Lsn,
    },
    Change(RowChange),
    /// All rows of these tables are deleted.
    Truncate {
        tables: Vec<u32>,
    },
    Message {
        is_transactional: bool,
        prefix: String,
        content: Bytes,
    },
    Other,
}

/// A change of a row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RowChange {
    /// The object id of the table.
    pub table: u32,
    pub relation: Arc<Relation>,
    /// The row before an update or a deletion; `None`: an insert, or an update that left the replica identity as it was.
    pub old: Option<OldRow>,
    /// The row after an insert or an update.
    pub new: Option<Vec<Value>>,
    pub is_update: bool,
}

/// The row before a change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct OldRow {
    /// Whether it has all values, or those of the replica identity alone.
    pub is_whole: bool,
    pub values: Vec<Value>,
}

/// A value as the server prints it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Value {
    Null,
    /// A large value that an update left as it was, and that was not logged.
    Unchanged,
    Text(Bytes),
}

/// The columns of a table as of the time of a change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Relation {
    pub columns: Vec<RelationColumn>,
}

/// A column of a table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RelationColumn {
    pub name: String,
    pub type_id: u32,
    pub modifier: i32,
}

impl Relation {
    /// The index of the column with this name.
    pub fn position(&self, name: &str) -> Option<usize> {
        self.columns.iter().position(|column| column.name == name)
    }
}

/// Why output cannot be decoded.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("cannot decode the output of pgoutput: {0}")]
pub(crate) struct Undecodable(&'static str);

/// Decodes the output of one decoding of the log. A table is described before its first row.
#[derive(Default)]
pub(crate) struct Decoder(HashMap<u32, Arc<Relation>>);

impl Decoder {
    pub fn decode(&mut self, mut bytes: Bytes) -> Result<Output, Undecodable> {
        let bytes = &mut bytes;
        Ok(match u8_of(bytes)? {
            b'B' => {
                let (commit, at, transaction) = (Lsn(u64_of(bytes)?), i64_of(bytes)?, u32_of(bytes)?);
                let timestamp_ms = at.saturating_add(EPOCH_US).div_euclid(1_000);
                Output::Begin { transaction, commit, timestamp_ms }
            }
            b'C' => {
                let (_flags, _commit) = (u8_of(bytes)?, u64_of(bytes)?);
                Output::Commit { end: Lsn(u64_of(bytes)?) }
            }
            b'R' => {
                let (table, relation) = relation(bytes)?;
                self.0.insert(table, Arc::new(relation));
                Output::Other
            }
            kind @ (b'I' | b'U' | b'D') => Output::Change(self.change(kind, bytes)?),
            b'T' => {
                let (count, _options) = (u32_of(bytes)?, u8_of(bytes)?);
                Output::Truncate { tables: (0..count).map(|_| u32_of(bytes)).collect::<Result<_, _>>()? }
            }
            b'M' => {
                let (flags, _lsn) = (u8_of(bytes)?, u64_of(bytes)?);
                let prefix = text_of(bytes)?;
                let length = u32_of(bytes)? as usize;
                Output::Message { is_transactional: flags & 1 == 1, prefix, content: part_of(bytes, length)? }
            }
            _ => Output::Other,
        })
    }

    fn change(&self, kind: u8, bytes: &mut Bytes) -> Result<RowChange, Undecodable> {
        let table = u32_of(bytes)?;
        let relation = Arc::clone(self.0.get(&table).ok_or(Undecodable("a row of an unknown table"))?);
        let mut part = u8_of(bytes)?;
        let mut old = None;
        if kind != b'I' && matches!(part, b'K' | b'O') {
            old = Some(OldRow { is_whole: part == b'O', values: values(bytes)? });
            if kind == b'D' {
                return Ok(RowChange { table, relation, old, new: None, is_update: false });
            }
            part = u8_of(bytes)?;
        }
        match part {
            b'N' if kind != b'D' => {
                let is_update = kind == b'U';
                Ok(RowChange { table, relation, old, new: Some(values(bytes)?), is_update })
            }
            _ => Err(Undecodable("a change without its row")),
        }
    }
}

/// The object id of a table, and its columns.
fn relation(bytes: &mut Bytes) -> Result<(u32, Relation), Undecodable> {
    let id = u32_of(bytes)?;
    let (_schema, _name) = (text_of(bytes)?, text_of(bytes)?);
    let _identity = u8_of(bytes)?;
    let count = u16_of(bytes)?;
    let mut columns = Vec::with_capacity(count.into());
    for _ in 0..count {
        let _flags = u8_of(bytes)?;
        let (name, type_id, modifier) = (text_of(bytes)?, u32_of(bytes)?, u32_of(bytes)?);
        columns.push(RelationColumn { name, type_id, modifier: modifier.cast_signed() });
    }
    Ok((id, Relation { columns }))
}

fn values(bytes: &mut Bytes) -> Result<Vec<Value>, Undecodable> {
    let count = u16_of(bytes)?;
    let value = |_| match u8_of(bytes)? {
        b'n' => Ok(Value::Null),
        b'u' => Ok(Value::Unchanged),
        b't' => {
            let length = u32_of(bytes)? as usize;
            part_of(bytes, length).map(Value::Text)
        }
        _ => Err(Undecodable("a value that is not text")),
    };
    (0..count).map(value).collect()
}

fn short<T>(value: Result<T, bytes::TryGetError>) -> Result<T, Undecodable> {
    value.map_err(|_| Undecodable("it is cut off"))
}

fn u8_of(bytes: &mut Bytes) -> Result<u8, Undecodable> {
    short(bytes.try_get_u8())
}

fn u16_of(bytes: &mut Bytes) -> Result<u16, Undecodable> {
    short(bytes.try_get_u16())
}

fn u32_of(bytes: &mut Bytes) -> Result<u32, Undecodable> {
    short(bytes.try_get_u32())
}

fn u64_of(bytes: &mut Bytes) -> Result<u64, Undecodable> {
    short(bytes.try_get_u64())
}

fn i64_of(bytes: &mut Bytes) -> Result<i64, Undecodable> {
    short(bytes.try_get_i64())
}

fn part_of(bytes: &mut Bytes, length: usize) -> Result<Bytes, Undecodable> {
    if bytes.len() < length { Err(Undecodable("it is cut off")) } else { Ok(bytes.split_to(length)) }
}

/// A text that ends with a zero byte.
fn text_of(bytes: &mut Bytes) -> Result<String, Undecodable> {
    let end = bytes.iter().position(|byte| *byte == 0).ok_or(Undecodable("a name without its end"))?;
    let text = bytes.split_to(end);
    bytes.advance(1);
    String::from_utf8(text.into()).map_err(|_| Undecodable("a name that is not UTF-8"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(parts: &[&[u8]]) -> Bytes {
        Bytes::from(parts.concat())
    }

    fn described(id: u32) -> Bytes {
        let column = |name: &'static [u8]| [&[0], name, &[0, 0, 0, 0, 25, 255, 255, 255, 255]].concat();
        message(&[
            b"R",
            &id.to_be_bytes(),
            b"public\0outbox\0d",
            &2_u16.to_be_bytes(),
            &column(b"id"),
            &column(b"payload"),
        ])
    }

    fn columns() -> Arc<Relation> {
        let column = |name: &str| RelationColumn { name: name.to_owned(), type_id: 25, modifier: -1 };
        Arc::new(Relation { columns: vec![column("id"), column("payload")] })
    }

    /// A row of two values as it is written, and as it is read.
    fn row(values: [Value; 2]) -> (Vec<u8>, Vec<Value>) {
        let written = |value: &Value| match value {
            Value::Null => b"n".to_vec(),
            Value::Unchanged => b"u".to_vec(),
            Value::Text(text) => [b"t", &(text.len() as u32).to_be_bytes()[..], text].concat(),
        };
        let parts: Vec<u8> = values.iter().flat_map(written).collect();
        ([&2_u16.to_be_bytes()[..], &parts].concat(), values.to_vec())
    }

    fn text(text: &'static str) -> Value {
        Value::Text(Bytes::from_static(text.as_bytes()))
    }

    #[test]
    fn transactions_and_messages_are_decoded() {
        let mut decoder = Decoder::default();
        let begin = message(&[b"B", &77_u64.to_be_bytes(), &1_999_i64.to_be_bytes(), &5_u32.to_be_bytes()]);
        assert_eq!(
            decoder.decode(begin),
            Ok(Output::Begin { transaction: 5, commit: Lsn(77), timestamp_ms: 946_684_800_001 }),
            "milliseconds are rounded down"
        );
        let text = message(&[b"M", &[1], &3_u64.to_be_bytes(), b"trueup\0", &2_u32.to_be_bytes(), b"{}"]);
        assert_eq!(
            decoder.decode(text),
            Ok(Output::Message {
                is_transactional: true,
                prefix: "trueup".to_owned(),
                content: Bytes::from_static(b"{}")
            })
        );
        let commit = message(&[b"C", &[0], &77_u64.to_be_bytes(), &99_u64.to_be_bytes(), &0_i64.to_be_bytes()]);
        assert_eq!(decoder.decode(commit), Ok(Output::Commit { end: Lsn(99) }));
        for skipped in [b"Y", b"O"] {
            assert_eq!(decoder.decode(Bytes::from_static(skipped)), Ok(Output::Other));
        }
    }

    #[test]
    fn changes_of_rows_are_decoded_with_the_columns_of_their_time() {
        let mut decoder = Decoder::default();
        assert_eq!(decoder.decode(described(9)), Ok(Output::Other));
        let id = 9_u32.to_be_bytes();
        let (new, new_values) = row([text("1"), Value::Unchanged]);
        let (key, key_values) = row([text("2"), Value::Null]);
        let change = |is_update: bool, old: Option<(bool, &Vec<Value>)>, new: Option<&Vec<Value>>| {
            let old = old.map(|(is_whole, values)| OldRow { is_whole, values: values.clone() });
            Ok(Output::Change(RowChange { table: 9, relation: columns(), old, new: new.cloned(), is_update }))
        };
        for (written, read) in [
            (message(&[b"I", &id, b"N", &new]), change(false, None, Some(&new_values))),
            (message(&[b"U", &id, b"N", &new]), change(true, None, Some(&new_values))),
            (
                message(&[b"U", &id, b"K", &key, b"N", &new]),
                change(true, Some((false, &key_values)), Some(&new_values)),
            ),
            (message(&[b"U", &id, b"O", &key, b"N", &new]), change(true, Some((true, &key_values)), Some(&new_values))),
            (message(&[b"D", &id, b"K", &key]), change(false, Some((false, &key_values)), None)),
            (message(&[b"D", &id, b"O", &key]), change(false, Some((true, &key_values)), None)),
        ] {
            assert_eq!(decoder.decode(written), read);
        }
        assert!(decoder.decode(message(&[b"D", &id, b"N", &new])).is_err(), "a deletion has the row before it");
        let truncate = message(&[b"T", &2_u32.to_be_bytes(), &[1], &id, &3_u32.to_be_bytes()]);
        assert_eq!(decoder.decode(truncate), Ok(Output::Truncate { tables: vec![9, 3] }));
        let unknown = message(&[b"I", &id, b"N", &new]);
        assert!(Decoder::default().decode(unknown).is_err(), "another decoding of the log does not know the table");
    }

    #[test]
    fn output_that_is_cut_off_anywhere_is_an_error() {
        let row =
            message(&[b"I", &9_u32.to_be_bytes(), b"N", &1_u16.to_be_bytes(), b"t", &3_u32.to_be_bytes(), b"{ }"]);
        let both = message(&[b"U", &9_u32.to_be_bytes(), b"K", &[0, 1], b"u", b"N", &[0, 1], b"n"]);
        let truncate = message(&[b"T", &1_u32.to_be_bytes(), &[0], &9_u32.to_be_bytes()]);
        for whole in [described(9), row, both, truncate] {
            for length in 0..whole.len() {
                let mut decoder = Decoder::default();
                assert_eq!(decoder.decode(described(9)), Ok(Output::Other));
                assert!(decoder.decode(whole.slice(..length)).is_err(), "{length} bytes of {whole:?}");
            }
        }
    }
}
