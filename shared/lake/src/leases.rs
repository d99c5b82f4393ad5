//! Holds leases on files that must not be deleted, whatever the log says: files of versions being read, and files
//! written but not committed yet.
//!
//! Leases belong to this process. Other processes over the same lake are protected by the minimum age of vacuum.
//!
//! Vacuum raises a floor before it deletes. A version below the floor can no longer be leased, so no reader starts on
//! files being deleted. A reader of a vacuumed table leases the version of its snapshot first; if the lease is refused,
//! it takes a new snapshot.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use parking_lot::Mutex;

use super::TablePath;

/// All leases of the process. Clones share them.
#[derive(Debug, Clone, Default)]
pub struct Leases {
    tables: Arc<Mutex<HashMap<TablePath, TableLeases>>>,
}

#[derive(Debug, Default)]
struct TableLeases {
    /// Number of holders of each version.
    versions: BTreeMap<i64, usize>,
    /// Paths of files being written or written, and neither committed nor given up.
    staged: HashSet<String>,
    /// Files that only versions below the floor need may have been deleted.
    floor: i64,
}

/// Files that must stay although no version from the floor on needs them.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct KeptFiles {
    /// Versions below the floor with readers, ascending.
    pub versions: Vec<i64>,
    /// Paths, relative to the table.
    pub staged: HashSet<String>,
}

/// Keeps the files of one version of a table from being deleted, until it is dropped.
#[derive(Debug)]
pub struct VersionLease {
    leases: Leases,
    table: TablePath,
    version: i64,
}

impl shared::readers::FileLease for VersionLease {}

impl Leases {
    /// Leases the files of `version` of `table`. `None`: they may have been deleted.
    pub fn version(&self, table: &TablePath, version: i64) -> Option<VersionLease> {
        let mut tables = self.tables.lock();
        let of_table = tables.entry(table.clone()).or_default();
        // Files of a version that was leased without interruption still exist.
        if version < of_table.floor && !of_table.versions.contains_key(&version) {
            return None;
        }
        *of_table.versions.entry(version).or_default() += 1;
        Some(VersionLease { leases: self.clone(), table: table.clone(), version })
    }

    /// Starts a vacuum that deletes the files that no version from `floor` on needs, and returns what else must stay.
    /// From now on, versions below the floor are not leased any more.
    ///
    /// The order matters: list the store first, then call this, then load the log, and keep the files of
    /// **every** version from the floor on, not only of the newest. A listed file is then still staged, or its
    /// commit is in the log.
    pub fn begin_vacuum(&self, table: &TablePath, floor: i64) -> KeptFiles {
        let mut tables = self.tables.lock();
        let of_table = tables.entry(table.clone()).or_default();
        of_table.floor = of_table.floor.max(floor);
        let versions = of_table.versions.range(..of_table.floor).map(|(version, _)| *version).collect();
        KeptFiles { versions, staged: of_table.staged.clone() }
    }

    /// Returns the oldest leased version of `table`, if any.
    pub fn oldest_version(&self, table: &TablePath) -> Option<i64> {
        self.tables.lock().get(table)?.versions.first_key_value().map(|(version, _)| *version)
    }

    /// Records that the file at `path` is about to be written, before the store has it.
    pub(super) fn stage(&self, table: &TablePath, path: &str) {
        self.tables.lock().entry(table.clone()).or_default().staged.insert(path.to_owned());
    }

    /// Records that files are committed, deleted or given up.
    pub(super) fn settle<'a>(&self, table: &TablePath, paths: impl Iterator<Item = &'a str>) {
        let mut tables = self.tables.lock();
        if let Some(of_table) = tables.get_mut(table) {
            paths.for_each(|path| {
                of_table.staged.remove(path);
            });
        }
    }
}

impl VersionLease {
    /// Returns the leased version.
    pub fn version(&self) -> i64 {
        self.version
    }
}

impl Drop for VersionLease {
    fn drop(&mut self) {
        let mut tables = self.leases.tables.lock();
        let Some(of_table) = tables.get_mut(&self.table) else { return };
        if let Some(holders) = of_table.versions.get_mut(&self.version) {
            *holders -= 1;
            if *holders == 0 {
                of_table.versions.remove(&self.version);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(name: &str) -> TablePath {
        TablePath::view(&name.parse().expect("a name"))
    }

    #[test]
    fn a_version_below_the_floor_is_leased_only_while_held() {
        let (leases, view) = (Leases::default(), table("v"));
        let first = leases.version(&view, 3).expect("nothing was vacuumed");
        assert_eq!(first.version(), 3);
        assert_eq!(leases.begin_vacuum(&view, 5).versions, [3]);
        assert!(leases.version(&view, 4).is_none(), "its files may be gone");
        let second = leases.version(&view, 3).expect("it was held all the time");
        drop(first);
        assert_eq!(leases.begin_vacuum(&view, 2).versions, [3], "a floor is never lowered");
        drop(second);
        assert!(leases.version(&view, 3).is_none());
        let at_the_floor = leases.version(&view, 5);
        assert!(at_the_floor.is_some());
        assert_eq!(leases.begin_vacuum(&view, 5), KeptFiles::default());
        assert_eq!(leases.oldest_version(&view), Some(5));
        assert!(leases.version(&table("w"), 1).is_some(), "another table is another matter");
    }

    #[test]
    fn staged_files_are_held_until_they_are_settled() {
        let (leases, view) = (Leases::default(), table("v"));
        leases.stage(&view, "a");
        leases.stage(&view, "b");
        leases.settle(&view, ["a"].into_iter());
        leases.settle(&table("w"), ["b"].into_iter());
        assert_eq!(leases.begin_vacuum(&view, 0).staged, HashSet::from(["b".to_owned()]));
    }
}
