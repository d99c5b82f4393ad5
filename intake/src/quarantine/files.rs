//! How do malformed lines survive a restart? As NDJSON in two files: when the newer is full it replaces the older.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use shared::control::Quarantined;

const NEWER: &str = "newer.ndjson";
const OLDER: &str = "older.ndjson";

/// The two files of a stream. They come into being with the first line.
pub(super) struct Files {
    dir: PathBuf,
    bytes_max: u64,
    /// The newer file and its length, once it is open.
    open: Option<(File, u64)>,
}

impl Files {
    /// The files in `dir` and the lines in them, oldest first. What cannot be read is told to the log and left out, such as
    /// the last line after a crash.
    pub fn open(dir: &Path, bytes_max: u64) -> (Files, Vec<Quarantined>) {
        let mut lines = Vec::new();
        for name in [OLDER, NEWER] {
            let path = dir.join(name);
            match fs::read(&path) {
                Ok(bytes) => {
                    lines.extend(bytes.split(|byte| *byte == b'\n').filter_map(|l| serde_json::from_slice(l).ok()))
                }
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => tracing::warn!(path = %path.display(), %error, "malformed lines could not be read again"),
            }
        }
        (Files { dir: dir.to_owned(), bytes_max, open: None }, lines)
    }

    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Appends lines. They are not synced: a process that dies loses none that was appended, a machine that does may.
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
                self.open = None;
                fs::rename(self.dir.join(NEWER), self.dir.join(OLDER))?;
                bytes = last;
            }
        }
        self.write(&bytes)
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

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        if bytes.is_empty() {
            return Ok(());
        }
        let (file, length) = self.newer()?;
        let written = file.write_all(bytes);
        match &written {
            Ok(()) => *length += bytes.len() as u64,
            // Part of a line may be there; opening it again ends that.
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
                // Behind a line that a crash cut short, the next one must begin anew. An empty line is none.
                file.write_all(b"\n")?;
                length += 1;
            }
            self.open = Some((file, length));
        }
        Ok(self.open.as_mut().expect("it was just opened"))
    }
}
