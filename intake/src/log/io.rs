//! Says which errors of a disk pass when there is room again, and injects errors into the calls of the log for tests.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::disk::{FolderLock, LocalDisk, LogDisk, LogFile, OpenFile};

/// A call that the operating system can refuse.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IoStep {
    /// Creating a file.
    Create,
    /// Writing to a file.
    Write,
    /// Making what was written durable.
    Sync,
    /// Truncating a failed group or a torn tail, and making that durable.
    Truncate,
    /// Giving a file its name.
    Rename,
    /// Making the names in a folder durable.
    SyncFolder,
}

/// Called before each step; an error replaces the result of the step.
pub type IoFaults = Arc<dyn Fn(IoStep) -> io::Result<()> + Send + Sync>;

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

/// Cuts the file to `length` bytes, durably.
pub(crate) fn truncate(file: &dyn LogFile, length: u64) -> io::Result<()> {
    file.set_length(length)?;
    file.sync_all()
}

/// Creates `dir` and makes it durable, with the folders up to three levels above it: an acknowledged event must not
/// disappear with the folder of its partition.
pub(crate) fn create_folder(disk: &dyn LogDisk, dir: &Path) -> io::Result<()> {
    disk.create_folder(dir)?;
    // The stream's folder, the log's and the data folder. They may exist without being durable, so all are synced.
    for parent in dir.ancestors().skip(1).take(3) {
        let parent = if parent.as_os_str().is_empty() { Path::new(".") } else { parent };
        disk.open_folder(parent)?.sync_all()?;
    }
    Ok(())
}

/// The local file system, with the faults that a test injects into a real server: see
/// [`shared::fail_points`](mod@shared::fail_points).
pub fn local_disk() -> Arc<dyn LogDisk> {
    let disk = Arc::new(LocalDisk);
    #[cfg(feature = "fail-points")]
    return with_faults(disk, Arc::new(|step| crate::fail_points::IntakePoint::of_call(step).check()));
    #[cfg(not(feature = "fail-points"))]
    disk
}

/// Returns `disk` with `faults` before its steps.
pub fn with_faults(disk: Arc<dyn LogDisk>, faults: IoFaults) -> Arc<dyn LogDisk> {
    Arc::new(FaultyDisk { disk, faults })
}

/// A disk with injected faults.
struct FaultyDisk {
    disk: Arc<dyn LogDisk>,
    faults: IoFaults,
}

/// A file or folder of a disk with injected faults.
struct FaultyFile {
    file: OpenFile,
    faults: IoFaults,
    is_folder: bool,
}

impl FaultyDisk {
    fn faulty(&self, file: OpenFile, is_folder: bool) -> OpenFile {
        Arc::new(FaultyFile { file, faults: Arc::clone(&self.faults), is_folder })
    }
}

impl LogDisk for FaultyDisk {
    fn create_folder(&self, path: &Path) -> io::Result<()> {
        self.disk.create_folder(path)
    }

    fn open_folder(&self, path: &Path) -> io::Result<OpenFile> {
        Ok(self.faulty(self.disk.open_folder(path)?, true))
    }

    fn list(&self, folder: &Path) -> io::Result<Vec<PathBuf>> {
        self.disk.list(folder)
    }

    fn length(&self, path: &Path) -> io::Result<u64> {
        self.disk.length(path)
    }

    fn create(&self, path: &Path) -> io::Result<OpenFile> {
        (self.faults)(IoStep::Create)?;
        Ok(self.faulty(self.disk.create(path)?, false))
    }

    fn open(&self, path: &Path) -> io::Result<OpenFile> {
        Ok(self.faulty(self.disk.open(path)?, false))
    }

    fn open_writable(&self, path: &Path) -> io::Result<OpenFile> {
        Ok(self.faulty(self.disk.open_writable(path)?, false))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        (self.faults)(IoStep::Rename)?;
        self.disk.rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.disk.remove(path)
    }

    fn lock(&self, path: &Path) -> io::Result<Option<FolderLock>> {
        self.disk.lock(path)
    }
}

impl LogFile for FaultyFile {
    fn read_at(&self, bytes: &mut [u8], position: u64) -> io::Result<()> {
        self.file.read_at(bytes, position)
    }

    fn write_at(&self, bytes: &[u8], position: u64) -> io::Result<()> {
        (self.faults)(IoStep::Write)?;
        self.file.write_at(bytes, position)
    }

    fn set_length(&self, length: u64) -> io::Result<()> {
        (self.faults)(IoStep::Truncate)?;
        self.file.set_length(length)
    }

    fn sync_data(&self) -> io::Result<()> {
        (self.faults)(IoStep::Sync)?;
        self.file.sync_data()
    }

    fn sync_all(&self) -> io::Result<()> {
        (self.faults)(if self.is_folder { IoStep::SyncFolder } else { IoStep::Truncate })?;
        self.file.sync_all()
    }
}
