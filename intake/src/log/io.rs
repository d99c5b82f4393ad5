//! Makes the file calls of the log's writer, which is the one place where tests inject faults, and says which errors pass
//! when there is room again.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Seek, SeekFrom, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

/// A call that the operating system can refuse.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IoStep {
    /// Creating a file.
    Create,
    /// Writing to a file.
    Write,
    /// Making what was written durable.
    Sync,
    /// Truncating a failed group.
    Truncate,
    /// Giving a file its name.
    Rename,
    /// Making the names in a folder durable.
    SyncFolder,
}

/// Called before each step; an error replaces the result of the step.
pub type IoFaults = Arc<dyn Fn(IoStep) -> io::Result<()> + Send + Sync>;

/// The file calls of one log.
#[derive(Clone, Default)]
pub struct LogIo {
    /// Injected faults, for tests.
    pub faults: Option<IoFaults>,
}

/// A resource that ran out. The log is unchanged, and later groups may succeed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Exhausted {
    #[error("the disk of the log is full, or its quota is used up")]
    Disk,
    #[error("the log cannot open its next file: too many open files")]
    OpenFiles,
}

impl Exhausted {
    /// The resource that ran out according to `error`; `None` for any other error.
    pub(crate) fn of(error: &io::Error) -> Option<Exhausted> {
        const ENFILE: i32 = 23;
        const EMFILE: i32 = 24;
        match (error.kind(), error.raw_os_error()) {
            (io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded, _) => Some(Exhausted::Disk),
            (_, Some(ENFILE | EMFILE)) => Some(Exhausted::OpenFiles),
            _ => None,
        }
    }
}

impl LogIo {
    fn check(&self, step: IoStep) -> io::Result<()> {
        self.faults.as_ref().map_or(Ok(()), |faults| faults(step))
    }

    /// Creates an empty file, or empties one.
    pub(crate) fn create(&self, path: &Path) -> io::Result<File> {
        self.check(IoStep::Create)?;
        OpenOptions::new().read(true).write(true).create(true).truncate(true).open(path)
    }

    pub(crate) fn write(&self, file: &mut File, bytes: &[u8]) -> io::Result<()> {
        self.check(IoStep::Write)?;
        file.write_all(bytes)
    }

    pub(crate) fn write_at(&self, file: &File, bytes: &[u8], position: u64) -> io::Result<()> {
        self.check(IoStep::Write)?;
        file.write_all_at(bytes, position)
    }

    /// Makes the content durable (`fdatasync`).
    pub(crate) fn sync(&self, file: &File) -> io::Result<()> {
        self.check(IoStep::Sync)?;
        file.sync_data()
    }

    /// Cuts the file to `length` bytes, durably, and moves to its end.
    pub(crate) fn truncate(&self, file: &mut File, length: u64) -> io::Result<()> {
        self.check(IoStep::Truncate)?;
        file.set_len(length)?;
        file.seek(SeekFrom::Start(length))?;
        file.sync_all()
    }

    pub(crate) fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.check(IoStep::Rename)?;
        fs::rename(from, to)
    }

    /// Makes the names in an open folder durable.
    pub(crate) fn sync_folder(&self, folder: &File) -> io::Result<()> {
        self.check(IoStep::SyncFolder)?;
        folder.sync_all()
    }
}

/// Creates `dir` and makes it durable, with the folders up to three levels above it: an acknowledged event must not
/// disappear with the folder of its partition.
pub(crate) fn create_folder(dir: &Path) -> io::Result<()> {
    fs::create_dir_all(dir)?;
    // The stream's folder, the log's and the data folder. They may exist without being durable, so all are synced.
    for parent in dir.ancestors().skip(1).take(3) {
        let parent = if parent.as_os_str().is_empty() { Path::new(".") } else { parent };
        File::open(parent)?.sync_all()?;
    }
    Ok(())
}

/// The faults that a test injects into a real server: see [`shared::fail_points`]. `None` unless built with the feature
/// `fail-points`.
pub fn injected_faults() -> Option<IoFaults> {
    #[cfg(feature = "fail-points")]
    return Some(Arc::new(|step| crate::fail_points::IntakePoint::of_call(step).check()));
    #[cfg(not(feature = "fail-points"))]
    None
}
