//! Computes which rows changed between two polls. Window and dimensions identify a row; rows are equal if their JSON is.

use std::collections::HashMap;

use xxhash_rust::xxh3::xxh3_128;

use crate::execute::QueryResult;
use crate::formats::json_rows::RowWriter;

/// The rows of a poll: key and hash of the JSON of each.
#[derive(Debug, Default)]
pub struct RowHashes(HashMap<Box<[u8]>, u128>);

/// The changes between two polls, as JSON separated by commas.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct RowChanges {
    /// Rows that are new or differ.
    pub changed: Vec<u8>,
    /// Keys (window and dimensions) of rows that disappeared.
    pub gone: Vec<u8>,
}

/// Bytes of a row in the table, beside its key.
const ROW_BYTES: usize = 48;

impl RowHashes {
    /// Returns the memory of the rows, in bytes.
    pub fn bytes(&self) -> usize {
        self.0.keys().map(|key| key.len() + ROW_BYTES).sum()
    }

    /// Returns the rows of `result`, and the changes from these rows.
    pub fn next(&self, result: &QueryResult) -> (RowHashes, RowChanges) {
        let mut writer = RowWriter::new(result);
        let mut rows = HashMap::with_capacity(result.rows());
        let mut changes = RowChanges::default();
        let (mut key, mut all) = (Vec::new(), Vec::with_capacity(writer.bytes_expected()));
        for row in 0..result.rows() {
            key.clear();
            writer.write_key(row, &mut key);
            let start = all.len();
            writer.write(row, &mut all);
            let hash = xxh3_128(&all[start..]);
            if self.0.get(key.as_slice()) != Some(&hash) {
                append(&mut changes.changed, &all[start..]);
            }
            rows.insert(key.as_slice().into(), hash);
        }
        let mut gone: Vec<&Box<[u8]>> = self.0.keys().filter(|key| !rows.contains_key(*key)).collect();
        gone.sort_unstable();
        gone.into_iter().for_each(|key| append(&mut changes.gone, key));
        (RowHashes(rows), changes)
    }
}

fn append(list: &mut Vec<u8>, entry: &[u8]) {
    if !list.is_empty() {
        list.push(b',');
    }
    list.extend_from_slice(entry);
}
