//! Decodes the output of the plugin `pgoutput`, protocol 1, as far as an outbox needs it: transactions, inserted rows and
//! messages. Everything else is skipped.
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
    Begin {
        commit: Lsn,
        timestamp_ms: i64,
    },
    /// The commit, with the place after it.
    Commit {
        end: Lsn,
    },
    /// A row, with the object id of its table and the names of its columns, as of the time of the row.
    Insert {
        table: u32,
        columns: Arc<[String]>,
        values: Vec<Option<Bytes>>,
    },
    Message {
        is_transactional: bool,
        prefix: String,
        content: Bytes,
    },
    Other,
}

/// Why output cannot be decoded.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("cannot decode the output of pgoutput: {0}")]
pub(crate) struct Undecodable(&'static str);

/// Decodes the output of one decoding of the log. A table is described before its first row.
#[derive(Default)]
pub(crate) struct Decoder(HashMap<u32, Arc<[String]>>);

impl Decoder {
    pub fn decode(&mut self, mut bytes: Bytes) -> Result<Output, Undecodable> {
        let bytes = &mut bytes;
        Ok(match u8_of(bytes)? {
            b'B' => {
                let (commit, at) = (Lsn(u64_of(bytes)?), i64_of(bytes)?);
                Output::Begin { commit, timestamp_ms: at.saturating_add(EPOCH_US).div_euclid(1_000) }
            }
            b'C' => {
                let (_flags, _commit) = (u8_of(bytes)?, u64_of(bytes)?);
                Output::Commit { end: Lsn(u64_of(bytes)?) }
            }
            b'R' => {
                let (table, columns) = table(bytes)?;
                self.0.insert(table, columns.into());
                Output::Other
            }
            b'I' => {
                let table = u32_of(bytes)?;
                let columns = self.0.get(&table).ok_or(Undecodable("a row of an unknown table"))?;
                if u8_of(bytes)? != b'N' {
                    return Err(Undecodable("an insert without its row"));
                }
                Output::Insert { table, columns: Arc::clone(columns), values: values(bytes)? }
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
}

/// The object id of a table, and the names of its columns.
fn table(bytes: &mut Bytes) -> Result<(u32, Vec<String>), Undecodable> {
    let id = u32_of(bytes)?;
    let (_schema, _name) = (text_of(bytes)?, text_of(bytes)?);
    let _identity = u8_of(bytes)?;
    let count = u16_of(bytes)?;
    let mut columns = Vec::with_capacity(count.into());
    for _ in 0..count {
        let _flags = u8_of(bytes)?;
        columns.push(text_of(bytes)?);
        let (_type, _modifier) = (u32_of(bytes)?, u32_of(bytes)?);
    }
    Ok((id, columns))
}

fn values(bytes: &mut Bytes) -> Result<Vec<Option<Bytes>>, Undecodable> {
    let count = u16_of(bytes)?;
    let value = |_| match u8_of(bytes)? {
        b'n' | b'u' => Ok(None),
        b't' => {
            let length = u32_of(bytes)? as usize;
            part_of(bytes, length).map(Some)
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

    #[test]
    fn transactions_rows_and_messages_are_decoded() {
        let mut decoder = Decoder::default();
        let begin = message(&[b"B", &77_u64.to_be_bytes(), &1_999_i64.to_be_bytes(), &5_u32.to_be_bytes()]);
        assert_eq!(
            decoder.decode(begin),
            Ok(Output::Begin { commit: Lsn(77), timestamp_ms: 946_684_800_001 }),
            "milliseconds are rounded down"
        );
        assert_eq!(decoder.decode(described(9)), Ok(Output::Other));
        let row = message(&[
            b"I",
            &9_u32.to_be_bytes(),
            b"N",
            &2_u16.to_be_bytes(),
            b"n",
            b"t",
            &3_u32.to_be_bytes(),
            b"{ }",
        ]);
        let columns = ["id".to_owned(), "payload".to_owned()].into();
        let values = vec![None, Some(Bytes::from_static(b"{ }"))];
        assert_eq!(decoder.decode(row.clone()), Ok(Output::Insert { table: 9, columns, values }));
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
        for skipped in [b"U", b"D", b"T", b"Y", b"O"] {
            assert_eq!(decoder.decode(Bytes::from_static(skipped)), Ok(Output::Other));
        }
        assert!(Decoder::default().decode(row).is_err(), "another decoding of the log does not know the table");
    }

    #[test]
    fn output_that_is_cut_off_anywhere_is_an_error() {
        let row =
            message(&[b"I", &9_u32.to_be_bytes(), b"N", &1_u16.to_be_bytes(), b"t", &3_u32.to_be_bytes(), b"{ }"]);
        for whole in [described(9), row] {
            for length in 0..whole.len() {
                let mut decoder = Decoder::default();
                assert_eq!(decoder.decode(described(9)), Ok(Output::Other));
                assert!(decoder.decode(whole.slice(..length)).is_err(), "{length} bytes of {whole:?}");
            }
        }
    }
}
