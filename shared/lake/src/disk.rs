//! Writes files whose bytes and names survive a power cut: the plain, blocking half of the durable store.

use std::collections::HashSet;
use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{Error, ErrorKind, Result, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, UNIX_EPOCH};

use bytes::Bytes;
use parking_lot::Mutex;

use super::fail_points::LakePoint;

/// Names tried for a hidden file before giving up: a taken name is another writer of the same file, or left by a crash.
const STAGING_NAMES_MAX: u32 = 10_000;

/// A directory under which writes are synced.
#[derive(Debug)]
pub(super) struct Disk {
    root: PathBuf,
    /// Directories under the root whose own names are known to be on the disk, so that they are synced once.
    settled: Mutex<HashSet<PathBuf>>,
    /// Directories with names that may not be on the disk, because they could not be synced. Nothing is read or written
    /// before they have been.
    unsynced: Mutex<HashSet<PathBuf>>,
    sync_dir: fn(&Path) -> Result<()>,
}

impl Disk {
    /// Creates `root` and its missing parent directories, and syncs what it created.
    pub fn open(root: &Path) -> Result<Disk> {
        let created: Vec<&Path> = root.ancestors().take_while(|dir| !dir.exists()).collect();
        fs::create_dir_all(root)?;
        for parent in created.iter().filter_map(|dir| dir.parent()) {
            sync_dir(parent)?;
        }
        let (settled, unsynced) = (Mutex::default(), Mutex::default());
        Ok(Disk { root: root.canonicalize()?, settled, unsynced, sync_dir })
    }

    /// Returns the directory, absolute and without symbolic links.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Writes a whole file under its final name, in one step for any reader. With `create`, a taken name is
    /// [`ErrorKind::AlreadyExists`]; without, its file is replaced.
    pub fn write<'a>(&self, path: &Path, parts: impl Iterator<Item = &'a Bytes>, create: bool) -> Result<()> {
        LakePoint::Stage.check()?;
        let (mut file, staged) = stage(path)?;
        let write = |part: &Bytes| LakePoint::Write.check().and_then(|()| file.write_all(part));
        let named = parts.into_iter().try_for_each(write).and_then(|()| {
            LakePoint::Sync.check()?;
            // Synced before it gets its name: a torn file must never be visible under it.
            file.sync_all()?;
            LakePoint::Rename.check()?;
            if create { fs::hard_link(&staged, path) } else { fs::rename(&staged, path) }
        });
        if create || named.is_err() {
            // A leftover is hidden from listings and unreferenced; the other error matters more.
            let _ = fs::remove_file(&staged);
        }
        named?;
        // If this fails, the file stays: a process may have read it already, and built on it.
        self.sync_name(path)
    }

    /// Returns whether there are directories that could not be synced.
    pub fn has_pending(&self) -> bool {
        !self.unsynced.lock().is_empty()
    }

    /// Syncs the directories that could not be synced before.
    pub fn sync_pending(&self) -> Result<()> {
        let pending: Vec<PathBuf> = self.unsynced.lock().iter().cloned().collect();
        for dir in pending {
            (self.sync_dir)(&dir)?;
            self.unsynced.lock().remove(&dir);
        }
        Ok(())
    }

    fn sync_or_remember(&self, dir: &Path) -> Result<()> {
        (self.sync_dir)(dir).inspect_err(|_| _ = self.unsynced.lock().insert(dir.to_owned()))
    }

    /// Syncs the bytes of a file written elsewhere.
    pub fn sync_file(&self, path: &Path) -> Result<()> {
        File::open(path)?.sync_all()
    }

    /// Syncs the directory that holds the name `path`, and the names of all directories down to it.
    pub fn sync_name(&self, path: &Path) -> Result<()> {
        let outside = || Error::new(ErrorKind::InvalidInput, "not under the root of the store");
        self.sync_or_remember(path.parent().ok_or_else(outside)?)?;
        let mut newly_settled = Vec::new();
        for dir in path.ancestors().skip(1).take_while(|dir| *dir != self.root) {
            if self.settled.lock().contains(dir) {
                break;
            }
            self.sync_or_remember(dir.parent().ok_or_else(outside)?)?;
            newly_settled.push(dir.to_owned());
        }
        // Only now: a directory recorded here must be durable along its whole path.
        self.settled.lock().extend(newly_settled);
        Ok(())
    }
}

/// Removes hidden files under `folder` that a write left behind when its process died: those written before `cutoff_ms`
/// (milliseconds since 1970) for which `is_leftover` returns true, given the intended path relative to `folder`. Returns
/// their number.
pub(super) fn remove_unfinished(folder: &Path, cutoff_ms: i64, is_leftover: &dyn Fn(&str) -> bool) -> u64 {
    let cutoff = UNIX_EPOCH + Duration::from_millis(u64::try_from(cutoff_ms).unwrap_or(0));
    let mut removed = 0;
    let mut folders = vec![folder.to_owned()];
    while let Some(of) = folders.pop() {
        let Ok(entries) = fs::read_dir(&of) else { continue };
        for entry in entries.flatten() {
            let path = entry.path();
            let Ok(metadata) = entry.metadata() else { continue };
            if metadata.is_dir() {
                folders.push(path);
                continue;
            }
            let name = path.strip_prefix(folder).ok().and_then(Path::to_str).and_then(|name| name.rsplit_once('#'));
            let Some((meant, number)) = name else { continue };
            let is_old = metadata.modified().is_ok_and(|at| at <= cutoff);
            let is_hidden = !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit());
            if is_hidden && is_old && is_leftover(meant) && fs::remove_file(&path).is_ok() {
                removed += 1;
            }
        }
    }
    removed
}

fn sync_dir(dir: &Path) -> Result<()> {
    LakePoint::SyncFolder.check()?;
    File::open(dir)?.sync_all()
}

/// Creates a hidden file beside `path`: listings of the local store skip names that end in `#` and digits.
fn stage(path: &Path) -> Result<(File, PathBuf)> {
    let mut number = 0;
    let mut folder_made = false;
    while number < STAGING_NAMES_MAX {
        let mut name = OsString::from(path);
        name.push(format!("#{number}"));
        let staged = PathBuf::from(name);
        match OpenOptions::new().write(true).create_new(true).open(&staged) {
            Ok(file) => return Ok((file, staged)),
            Err(e) if e.kind() == ErrorKind::AlreadyExists => number += 1,
            Err(e) if e.kind() == ErrorKind::NotFound && !folder_made => {
                fs::create_dir_all(path.parent().ok_or(e)?)?;
                folder_made = true;
            }
            Err(e) => return Err(e),
        }
    }
    Err(Error::other("too many unfinished writes of one file"))
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    thread_local! {
        static BROKEN: Cell<bool> = const { Cell::new(false) };
    }

    fn faulty_sync(dir: &Path) -> Result<()> {
        if BROKEN.get() { Err(Error::other("no sync")) } else { sync_dir(dir) }
    }

    #[test]
    fn a_name_that_could_not_be_synced_stays_and_holds_up_everything_until_it_is() {
        let folder = tempfile::tempdir().expect("a folder");
        let disk = Disk { sync_dir: faulty_sync, ..Disk::open(folder.path()).expect("opens") };
        let write = |name: &str, text: &'static str| {
            let bytes = Bytes::from_static(text.as_bytes());
            disk.write(&disk.root().join(name), std::iter::once(&bytes), true)
        };
        write("log/1", "one").expect("written");
        BROKEN.set(true);
        write("log/2", "two").expect_err("its name is not on the disk");
        let present = fs::read_to_string(disk.root().join("log/2")).expect("another process may have built on it");
        assert_eq!(present, "two");
        disk.sync_pending().expect_err("nothing may be read meanwhile");
        BROKEN.set(false);
        disk.sync_pending().expect("synced");
        assert!(disk.unsynced.lock().is_empty());
        let taken = write("log/2", "other").expect_err("the name exists");
        assert_eq!(taken.kind(), ErrorKind::AlreadyExists);
    }
}
