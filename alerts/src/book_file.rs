//! Stores the entries of a book, of alerts or of a sink: a file of lines, each a checksum and an entry as JSON, appended and synced.
//!
//! `crc32c of the JSON in hexadecimal, space, JSON, line feed`. A line at the end that was not finished is removed at the next
//! start; any other damaged line refuses the start. From time to time the file is replaced with one of the present state.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde::de::DeserializeOwned;

/// The name of a file of entries, and what it means to lose it.
#[derive(Debug, Clone, Copy)]
pub struct BookKind<'a> {
    pub name: &'a str,
    /// Follows the advice to move a damaged file away.
    pub consequence: &'static str,
}

/// The book of raised alerts.
pub const OF_ALERTS: BookKind<'_> = BookKind {
    name: "alerts.log",
    consequence: "alerts that were raised before are then raised again when their rows change",
};

/// An open file of entries.
#[derive(Debug)]
pub struct BookFile {
    path: PathBuf,
    file: File,
    /// Entries in the file.
    entries: usize,
    /// Length of the entries that are known to be whole.
    length: u64,
}

/// The reason why a book cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum BookError {
    #[error("{path}: {error}")]
    Io { path: PathBuf, error: io::Error },
    #[error("{path}: line {line} is damaged: restore the file from a backup, or move it away; {consequence}")]
    Damaged { path: PathBuf, line: usize, consequence: &'static str },
}

impl BookFile {
    /// Opens the file in `folder`, creating both if needed, and passes its entries to `each`.
    pub fn open<T: DeserializeOwned>(
        folder: &Path,
        kind: BookKind<'_>,
        mut each: impl FnMut(T),
    ) -> Result<BookFile, BookError> {
        let path = folder.join(kind.name);
        let failed = |error: io::Error| BookError::Io { path: path.clone(), error };
        std::fs::create_dir_all(folder).map_err(failed)?;
        let bytes = match std::fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            Err(error) => return Err(failed(error)),
        };
        let (mut length, mut entries) = (0, 0);
        for line in bytes.split_inclusive(|byte| *byte == b'\n') {
            match parsed(line) {
                Some(entry) => each(entry),
                None if line.last() != Some(&b'\n') => {
                    tracing::warn!(path = %path.display(), "removed an unfinished entry at the end of the file");
                    break;
                }
                None => {
                    return Err(BookError::Damaged { path, line: entries + 1, consequence: kind.consequence });
                }
            }
            (length, entries) = (length + line.len() as u64, entries + 1);
        }
        let file = OpenOptions::new().create(true).append(true).open(&path).map_err(failed)?;
        file.set_len(length).map_err(failed)?;
        file.sync_all().and_then(|()| sync_folder(folder)).map_err(failed)?;
        Ok(BookFile { path, file, entries, length })
    }

    /// Appends entries and syncs the file. After an error none of them is in the file. Blocking.
    pub fn append<T: Serialize>(&mut self, entries: &[T]) -> io::Result<()> {
        let mut bytes = Vec::new();
        for entry in entries {
            write_line(entry, &mut bytes)?;
        }
        let written = self.file.write_all(&bytes).and_then(|()| self.file.sync_data());
        if let Err(error) = written {
            // A part of them may be in the file, and other entries must not follow it.
            self.file.set_len(self.length)?;
            return Err(error);
        }
        self.length += bytes.len() as u64;
        self.entries += entries.len();
        Ok(())
    }

    /// Returns the length of the file, in bytes.
    pub fn bytes(&self) -> u64 {
        self.length
    }

    /// Returns the number of entries.
    pub fn entries(&self) -> usize {
        self.entries
    }

    /// Replaces all entries. Blocking.
    pub fn replace<T: Serialize>(&mut self, entries: &[T]) -> io::Result<()> {
        let mut bytes = Vec::new();
        for entry in entries {
            write_line(entry, &mut bytes)?;
        }
        replace_file(&self.path, &bytes)?;
        self.file = OpenOptions::new().append(true).open(&self.path)?;
        (self.entries, self.length) = (entries.len(), bytes.len() as u64);
        Ok(())
    }
}

/// Writes a file durably: after a crash it has these bytes or those before. Blocking.
///
/// # Errors
/// The draft beside it cannot be written, or not be renamed.
pub fn replace_file(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let draft = path.with_extension("draft");
    let mut file = File::create(&draft)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    std::fs::rename(&draft, path)?;
    path.parent().map_or(Ok(()), sync_folder)
}

/// Reads the entries of the file in `folder`, if there is one, without changing it.
pub fn read<T: DeserializeOwned>(folder: &Path, kind: BookKind<'_>) -> Result<Vec<T>, BookError> {
    let path = folder.join(kind.name);
    let bytes = match std::fs::read(&path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
        Err(error) => return Err(BookError::Io { path, error }),
    };
    let lines = bytes.split_inclusive(|byte| *byte == b'\n').enumerate();
    let whole = lines.filter(|(_, line)| line.last() == Some(&b'\n'));
    whole
        .map(|(at, line)| {
            let damaged = || BookError::Damaged { path: path.clone(), line: at + 1, consequence: kind.consequence };
            parsed(line).ok_or_else(damaged)
        })
        .collect()
}

fn write_line<T: Serialize>(entry: &T, into: &mut Vec<u8>) -> io::Result<()> {
    let json = serde_json::to_vec(entry)?;
    into.extend_from_slice(format!("{:08x} ", crc32c::crc32c(&json)).as_bytes());
    into.extend_from_slice(&json);
    into.push(b'\n');
    Ok(())
}

fn parsed<T: DeserializeOwned>(line: &[u8]) -> Option<T> {
    let (checksum, json) = line.strip_suffix(b"\n")?.split_at_checked(9)?;
    let checksum = u32::from_str_radix(std::str::from_utf8(checksum.strip_suffix(b" ")?).ok()?, 16).ok()?;
    (crc32c::crc32c(json) == checksum).then(|| serde_json::from_slice(json).ok()).flatten()
}

pub(crate) fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entries(folder: &Path) -> Result<Vec<u64>, BookError> {
        let mut found = Vec::new();
        BookFile::open(folder, OF_ALERTS, |entry| found.push(entry)).map(|_| found)
    }

    #[test]
    fn entries_survive_and_an_unfinished_one_is_removed() {
        let folder = tempfile::tempdir().expect("a folder");
        let mut file = BookFile::open(folder.path(), OF_ALERTS, |_: u64| {}).expect("opens");
        file.append(&[1_u64, 2]).expect("appends");
        file.append(&[3_u64]).expect("appends");
        drop(file);
        let path = folder.path().join("alerts.log");
        let mut raw = OpenOptions::new().append(true).open(&path).expect("the file");
        raw.write_all(b"0000").expect("writes");
        assert_eq!(entries(folder.path()).expect("opens"), [1, 2, 3]);
        let mut file = BookFile::open(folder.path(), OF_ALERTS, |_: u64| {}).expect("opens");
        file.append(&[4_u64]).expect("appends");
        file.replace(&[9_u64]).expect("replaces");
        file.append(&[10_u64]).expect("appends");
        assert_eq!(file.entries(), 2);
        drop(file);
        assert_eq!(entries(folder.path()).expect("opens"), [9, 10]);
        assert_eq!(read::<u64>(folder.path(), OF_ALERTS).expect("reads"), [9, 10]);
    }

    #[test]
    fn a_damaged_entry_refuses_the_start() {
        let folder = tempfile::tempdir().expect("a folder");
        let mut file = BookFile::open(folder.path(), OF_ALERTS, |_: u64| {}).expect("opens");
        file.append(&[1_u64, 2, 3]).expect("appends");
        drop(file);
        let path = folder.path().join("alerts.log");
        let mut bytes = std::fs::read(&path).expect("the file");
        bytes[20] ^= 1;
        std::fs::write(&path, bytes).expect("writes");
        let error = entries(folder.path()).expect_err("damaged").to_string();
        assert!(error.contains("line 2 is damaged"), "{error}");
    }
}
