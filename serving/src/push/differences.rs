//! What changed from one look to the next? Rows are told apart by their window and dimensions, and are the same if they are
//! written the same.

use std::collections::HashMap;

use xxhash_rust::xxh3::xxh3_128;

use crate::answer::Answer;
use crate::formats::json_rows::RowWriter;

/// The rows of a look, each known by a hash of what is written.
#[derive(Debug, Default)]
pub struct Rows(HashMap<Box<[u8]>, u128>);

/// Rows as JSON, separated by commas.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Differences {
    /// Rows that are new or were written otherwise.
    pub changed: Vec<u8>,
    /// Window and dimensions of rows that are no more.
    pub gone: Vec<u8>,
}

impl Rows {
    /// The rows of `answer`, and how they differ from these.
    pub fn next(&self, answer: &Answer) -> (Rows, Differences) {
        let mut writer = RowWriter::new(answer);
        let mut rows = HashMap::with_capacity(answer.rows());
        let mut differences = Differences::default();
        let (mut key, mut all) = (Vec::new(), Vec::with_capacity(writer.bytes_expected()));
        for row in 0..answer.rows() {
            key.clear();
            writer.write_key(row, &mut key);
            let begin = all.len();
            writer.write(row, &mut all);
            let hash = xxh3_128(&all[begin..]);
            if self.0.get(key.as_slice()) != Some(&hash) {
                append(&mut differences.changed, &all[begin..]);
            }
            rows.insert(key.as_slice().into(), hash);
        }
        let mut gone: Vec<&Box<[u8]>> = self.0.keys().filter(|key| !rows.contains_key(*key)).collect();
        gone.sort_unstable();
        gone.into_iter().for_each(|key| append(&mut differences.gone, key));
        (Rows(rows), differences)
    }
}

fn append(list: &mut Vec<u8>, entry: &[u8]) {
    if !list.is_empty() {
        list.push(b',');
    }
    list.extend_from_slice(entry);
}
