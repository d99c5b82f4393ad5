//! Looks rows up as of a time, in the simplest way: by a scan of all changes of the table.

use std::collections::BTreeMap;

/// The changes of a table with one partition, in their order.
#[derive(Debug, Clone)]
pub struct Changelog<R> {
    changes: Vec<Change<R>>,
    /// The present rows: a change that changes nothing is none.
    present: BTreeMap<String, (i64, R)>,
}

#[derive(Debug, Clone)]
struct Change<R> {
    key: String,
    /// The row with its time, or the time at which it was deleted.
    row: Result<(i64, R), i64>,
}

impl<R: Clone + PartialEq> Changelog<R> {
    /// A table without rows.
    pub fn new() -> Changelog<R> {
        Changelog { changes: Vec::new(), present: BTreeMap::new() }
    }

    /// Number of changes so far.
    pub fn len(&self) -> usize {
        self.changes.len()
    }

    /// Whether there was no change.
    pub fn is_empty(&self) -> bool {
        self.changes.is_empty()
    }

    /// Writes a row whose time column is `time`.
    pub fn write(&mut self, key: &str, time: i64, row: R) {
        let written = (time, row);
        if self.present.get(key) != Some(&written) {
            self.present.insert(key.to_owned(), written.clone());
            self.changes.push(Change { key: key.to_owned(), row: Ok(written) });
        }
    }

    /// Deletes a row at `now`.
    pub fn delete(&mut self, key: &str, now: i64) {
        if self.present.remove(key).is_some() {
            self.changes.push(Change { key: key.to_owned(), row: Err(now) });
        }
    }

    /// The row that an event at `time` sees, if only the first `known` changes are known.
    pub fn as_of(&self, key: &str, time: i64, known: usize) -> Option<&R> {
        let mut versions: Vec<(i64, Option<&R>)> = Vec::new();
        let mut last: Option<usize> = None;
        for (number, change) in self.changes[..known].iter().enumerate().filter(|(_, change)| change.key == key) {
            match &change.row {
                Ok((written, row)) => {
                    let follows = last.is_some_and(|last| last + 1 == number);
                    if let Some((deleted, None)) = versions.last().copied()
                        && (follows || written <= &deleted)
                    {
                        versions.pop();
                    }
                    versions.push((*written, Some(row)));
                }
                Err(now) => {
                    let latest = versions.iter().map(|(time, _)| *time).max().unwrap_or(*now);
                    versions.push((latest.max(*now), None));
                }
            }
            last = Some(number);
        }
        let seen = versions.iter().enumerate().filter(|(_, (of, _))| *of <= time);
        seen.max_by_key(|(order, (of, _))| (*of, *order)).and_then(|(_, (_, row))| *row)
    }
}

impl<R: Clone + PartialEq> Default for Changelog<R> {
    fn default() -> Self {
        Changelog::new()
    }
}
