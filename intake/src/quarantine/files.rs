//! Stores rejected lines across restarts, as NDJSON in two files: a full newer file replaces the older one.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use shared::control::Quarantined;

const NEWER: &str = "newer.ndjson";
const OLDER: &str = "older.ndjson";
const DRAFT: &str = "draft.ndjson";

/// The two files of a stream, created with the first line.
pub(super) struct QuarantineFiles {
    dir: PathBuf,
    bytes_max: u64,
    /// The newer file and its length in bytes, once it is open.
    open: Option<(File, u64)>,
}

impl QuarantineFiles {
    /// Opens the files in `dir` and reads their lines, oldest first. Unreadable files are logged, and unreadable lines are
    /// skipped, such as the last one after a crash.
    pub fn open(dir: &Path, bytes_max: u64) -> (QuarantineFiles, Vec<Quarantined>) {
        let mut lines = Vec::new();
        for name in [OLDER, NEWER] {
            let path = dir.join(name);
            match fs::read(&path) {
                Ok(bytes) => {
                    lines.extend(bytes.split(|byte| *byte == b'\n').filter_map(|l| serde_json::from_slice(l).ok()))
                }
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => {
                    tracing::warn!(path = %path.display(), %error, "cannot read the rejected lines of earlier processes")
                }
            }
        }
        (QuarantineFiles { dir: dir.to_owned(), bytes_max, open: None }, lines)
    }

    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Appends lines without a sync: they survive the death of the process, but perhaps not of the machine.
    pub fn append(&mut self, lines: &[Arc<Quarantined>]) -> io::Result<()> {
        let mut bytes = Vec::new();
        for line in lines {
            let start = bytes.len();
            serde_json::to_writer(&mut bytes, line.as_ref())?;
            bytes.push(b'\n');
            let length = self.newer()?.1;
            if length + bytes.len() as u64 > self.bytes_max && length + start as u64 > 0 {
                let last = bytes.split_off(start);
                self.write(&bytes)?;
                self.sync()?;
                self.open = None;
                fs::rename(self.dir.join(NEWER), self.dir.join(OLDER))?;
                bytes = last;
            }
        }
        self.write(&bytes)
    }

    /// Syncs the lines of the newer file, and the folders that have it.
    pub fn sync(&self) -> io::Result<()> {
        let Some((file, _)) = &self.open else { return Ok(()) };
        file.sync_data()?;
        for folder in self.dir.ancestors().take(2) {
            File::open(folder)?.sync_all()?;
        }
        Ok(())
    }

    /// Removes both files.
    pub fn remove(&mut self) -> io::Result<()> {
        self.open = None;
        for name in [NEWER, OLDER] {
            match fs::remove_file(self.dir.join(name)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        Ok(())
    }

    /// Replaces the content of both files with `lines`, durably.
    pub fn replace(&mut self, lines: &[Arc<Quarantined>]) -> io::Result<()> {
        if !self.dir.exists() {
            return Ok(());
        }
        let mut bytes = Vec::new();
        for line in lines {
            serde_json::to_writer(&mut bytes, line.as_ref())?;
            bytes.push(b'\n');
        }
        self.open = None;
        let draft = self.dir.join(DRAFT);
        let mut file = File::create(&draft)?;
        file.write_all(&bytes)?;
        file.sync_all()?;
        fs::rename(&draft, self.dir.join(NEWER))?;
        match fs::remove_file(self.dir.join(OLDER)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        File::open(&self.dir)?.sync_all()
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        if bytes.is_empty() {
            return Ok(());
        }
        let (file, length) = self.newer()?;
        let written = file.write_all(bytes);
        match &written {
            Ok(()) => *length += bytes.len() as u64,
            // The file may end with part of a line; opening it again completes that line.
            Err(_) => self.open = None,
        }
        written
    }

    fn newer(&mut self) -> io::Result<&mut (File, u64)> {
        if self.open.is_none() {
            fs::create_dir_all(&self.dir)?;
            let mut file = OpenOptions::new().append(true).create(true).open(self.dir.join(NEWER))?;
            let mut length = file.metadata()?.len();
            if length > 0 {
                // After a line that a crash cut short, the next one needs a new line. Empty lines are skipped.
                file.write_all(b"\n")?;
                length += 1;
            }
            self.open = Some((file, length));
        }
        Ok(self.open.as_mut().expect("it was just opened"))
    }
}
