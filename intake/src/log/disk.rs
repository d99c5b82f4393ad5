//! Defines the file calls of a log as traits, and makes them on the local file system. It decides nothing about their
//! errors: [`super::io`] says which of them pass.
//!
//! All files of a log are read and written through [`LogDisk`], so a test can put a disk in its place that fails, tears or
//! forgets. Every call is a system call anyway: the indirection costs nothing beside it.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// An open file of a log, or an open folder, which can only be synced. The last reference closes it.
pub type OpenFile = Arc<dyn LogFile>;

/// A file system on which logs are.
pub trait LogDisk: Send + Sync {
    /// Creates a folder and its missing parents. A folder that exists stays.
    fn create_folder(&self, path: &Path) -> io::Result<()>;

    /// Opens a folder, to make the names in it durable.
    fn open_folder(&self, path: &Path) -> io::Result<OpenFile>;

    /// The paths of everything in a folder, in any order.
    fn list(&self, folder: &Path) -> io::Result<Vec<PathBuf>>;

    /// The length of a file, in bytes.
    fn length(&self, path: &Path) -> io::Result<u64>;

    /// Creates an empty file, or empties one, for reading and writing.
    fn create(&self, path: &Path) -> io::Result<OpenFile>;

    /// Opens a file for reading.
    fn open(&self, path: &Path) -> io::Result<OpenFile>;

    /// Opens a file for reading and writing.
    fn open_writable(&self, path: &Path) -> io::Result<OpenFile>;

    /// Gives a file another name, in place of a file that has it.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Deletes a file.
    fn remove(&self, path: &Path) -> io::Result<()>;

    /// Locks the file `path`, created if needed, until the result is dropped; `None` if another process has it locked.
    fn lock(&self, path: &Path) -> io::Result<Option<FolderLock>>;
}

/// The file calls on an open file.
pub trait LogFile: Send + Sync {
    /// Fills `bytes` from `position` on.
    fn read_at(&self, bytes: &mut [u8], position: u64) -> io::Result<()>;

    /// Writes all of `bytes` at `position`. After an error a part of them may have been written.
    fn write_at(&self, bytes: &[u8], position: u64) -> io::Result<()>;

    /// Cuts the file to `length` bytes; durable after [`LogFile::sync_all`].
    fn set_length(&self, length: u64) -> io::Result<()>;

    /// Makes the content durable (`fdatasync`).
    fn sync_data(&self) -> io::Result<()>;

    /// Makes content and length durable, or the names in a folder (`fsync`).
    fn sync_all(&self) -> io::Result<()>;
}

/// Keeps other processes out of a folder until it is dropped.
pub struct FolderLock {
    _held: Box<dyn Send + Sync>,
}

impl FolderLock {
    /// A lock that lasts as long as `held`.
    pub fn new(held: impl Send + Sync + 'static) -> FolderLock {
        FolderLock { _held: Box::new(held) }
    }
}

/// The local file system.
#[derive(Debug, Clone, Copy, Default)]
pub struct LocalDisk;

impl LogDisk for LocalDisk {
    fn create_folder(&self, path: &Path) -> io::Result<()> {
        fs::create_dir_all(path)
    }

    fn open_folder(&self, path: &Path) -> io::Result<OpenFile> {
        self.open(path)
    }

    fn list(&self, folder: &Path) -> io::Result<Vec<PathBuf>> {
        fs::read_dir(folder)?.map(|entry| Ok(entry?.path())).collect()
    }

    fn length(&self, path: &Path) -> io::Result<u64> {
        Ok(fs::metadata(path)?.len())
    }

    fn create(&self, path: &Path) -> io::Result<OpenFile> {
        opened(OpenOptions::new().read(true).write(true).create(true).truncate(true).open(path))
    }

    fn open(&self, path: &Path) -> io::Result<OpenFile> {
        opened(File::open(path))
    }

    fn open_writable(&self, path: &Path) -> io::Result<OpenFile> {
        opened(OpenOptions::new().read(true).write(true).open(path))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn lock(&self, path: &Path) -> io::Result<Option<FolderLock>> {
        let file = OpenOptions::new().write(true).create(true).truncate(false).open(path)?;
        match file.try_lock() {
            Ok(()) => Ok(Some(FolderLock::new(file))),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(error)) => Err(error),
        }
    }
}

fn opened(file: io::Result<File>) -> io::Result<OpenFile> {
    Ok(Arc::new(LocalFile(file?)))
}

struct LocalFile(File);

impl LogFile for LocalFile {
    fn read_at(&self, bytes: &mut [u8], position: u64) -> io::Result<()> {
        self.0.read_exact_at(bytes, position)
    }

    fn write_at(&self, bytes: &[u8], position: u64) -> io::Result<()> {
        self.0.write_all_at(bytes, position)
    }

    fn set_length(&self, length: u64) -> io::Result<()> {
        self.0.set_len(length)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.0.sync_data()
    }

    fn sync_all(&self) -> io::Result<()> {
        self.0.sync_all()
    }
}
