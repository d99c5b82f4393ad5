//! Keeps idempotency keys on disk for as long as they are remembered, also once the log's segments that recorded them are
//! deleted.
//!
//! A key is recorded in the frame of its events. Segments are deleted as soon as no reader needs them, which may be seconds
//! later, while keys are remembered for minutes. So a segment is held until the keys in it are in a file beside the log:
//!
//! ```text
//! a segment may be deleted  ⟹  each of its keys that is still remembered is in a key file, durably
//! ```
//!
//! Keys are written when a segment is finished, all that came since the last file at once; a file is deleted when none of
//! its keys is remembered any more. A start reads the files first and then the frames. If the disk is full, segments are
//! deleted all the same: room for events matters more, and the keys stay in memory and are written with the next file.

use std::collections::VecDeque;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use shared::ids::Offset;
use xxhash_rust::xxh3::xxh3_128;

use super::key_claims::KeyClaims;
use super::keys::{KeyMemory, StoredKey};
use crate::fail_points::IntakePoint;
use crate::log::{Exhausted, LogDisk, LogError, SegmentStore};

/// Files of one partition, above which the next one replaces them all.
const FILES_MAX: usize = 8;
const EXTENSION: &str = "keys";

/// The key files of one partition's log.
pub(crate) struct KeyFiles {
    disk: Arc<dyn LogDisk>,
    folder: PathBuf,
    /// Oldest first.
    files: VecDeque<KeyFile>,
    /// Number in the name of the next file.
    next: u64,
    /// Offset from which on frames have keys that are in no file; `None`: all are.
    unsaved_from: Option<Offset>,
    /// First offset of the last segment at the last attempt that failed.
    failed_at: Option<Offset>,
}

#[derive(Debug)]
struct KeyFile {
    path: PathBuf,
    /// The number, in the memory, of the key after its last one.
    end: u64,
}

/// The second line of a file; the first is its checksum.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Content {
    keys: Vec<StoredKey>,
}

impl KeyFiles {
    /// Reads the files beside the log in `folder` into `memory`. One that was not finished is ignored, and overwritten later.
    pub fn open(
        disk: &Arc<dyn LogDisk>,
        folder: &Path,
        memory: &mut KeyMemory,
        claims: &Arc<KeyClaims>,
    ) -> Result<KeyFiles, LogError> {
        let (disk, folder) = (Arc::clone(disk), folder.to_owned());
        let mut found = Vec::new();
        let paths = match disk.list(&folder) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            paths => paths.map_err(LogError::io(&folder))?,
        };
        for path in paths {
            if path.extension().is_some_and(|extension| extension == EXTENSION) {
                let number = path.file_stem().and_then(|stem| stem.to_str()?.parse::<u64>().ok());
                let reason = || "the file name is not the number of a key file".to_owned();
                found.push((number.ok_or_else(|| LogError::Misplaced { path: path.clone(), reason: reason() })?, path));
            }
        }
        found.sort_unstable();
        let next = found.last().map_or(0, |(number, _)| number + 1);
        let mut files = VecDeque::new();
        for (_, path) in found {
            let bytes = read(disk.as_ref(), &path).map_err(LogError::io(&path))?;
            let content = parsed(&bytes).ok_or_else(|| LogError::corrupt(&path, 0, "the key file is damaged"))?;
            // One that replaces others has some of their keys again.
            for StoredKey { record, arrived_at } in content.keys {
                memory.restore(vec![record], arrived_at, claims);
            }
            files.push_back(KeyFile { path, end: memory.mark_saved() });
        }
        Ok(KeyFiles { disk, folder, files, next, unsaved_from: None, failed_at: None })
    }

    /// Holds the segments that may have unsaved keys: those from `offset` on, where a group with keys is about to be written.
    pub fn hold(&mut self, store: &SegmentStore, offset: Offset) {
        if self.unsaved_from.is_none() {
            self.unsaved_from = Some(offset);
            store.hold(Some(offset));
        }
    }

    /// Saves the keys of `memory` if the segment of an unsaved one is finished, and releases what need not be held.
    pub fn settle(&mut self, memory: &mut KeyMemory, store: &SegmentStore) {
        let Some(from) = self.unsaved_from else { return };
        if !memory.has_unsaved() {
            return self.release(store);
        }
        let last = store.last_first();
        if last <= from || self.failed_at == Some(last) {
            return;
        }
        match self.save(memory) {
            Ok(()) => self.release(store),
            Err(error) => {
                self.failed_at = Some(last);
                let folder = self.folder.display();
                if Exhausted::of(&error).is_some() {
                    tracing::warn!(%folder, %error, "cannot save idempotency keys; a restart before the next attempt may forget some");
                    self.release(store);
                } else {
                    tracing::warn!(%folder, %error, "cannot save idempotency keys; their log segments are kept until the next attempt");
                }
            }
        }
    }

    /// Writes all keys of `memory` to one file in place of the others, which have keys that `memory` has forgotten.
    pub fn replace(&mut self, memory: &mut KeyMemory) -> io::Result<()> {
        if self.files.is_empty() {
            return Ok(());
        }
        let keys = memory.remembered();
        self.write(memory, keys, u64::MAX)?;
        match self.files.len() {
            1 => Ok(()),
            _ => Err(io::Error::other("a file of forgotten idempotency keys could not be deleted")),
        }
    }

    fn release(&mut self, store: &SegmentStore) {
        self.unsaved_from = None;
        store.hold(None);
    }

    fn save(&mut self, memory: &mut KeyMemory) -> io::Result<()> {
        let replaces = self.files.len() >= FILES_MAX;
        let keys = if replaces { memory.remembered() } else { memory.unsaved() };
        let oldest = if replaces { u64::MAX } else { memory.oldest() };
        self.write(memory, keys, oldest)
    }

    /// Writes `keys` to the next file, and deletes those whose keys are all before `oldest`.
    fn write(&mut self, memory: &mut KeyMemory, keys: Vec<StoredKey>, oldest: u64) -> io::Result<()> {
        let path = self.folder.join(format!("{:020}.{EXTENSION}", self.next));
        self.next += 1;
        write(self.disk.as_ref(), &self.folder, &path, &Content { keys })?;
        let end = memory.mark_saved();
        while let Some(file) = self.files.front().filter(|file| file.end <= oldest) {
            let removed = IntakePoint::KeysDelete.check().and_then(|()| self.disk.remove(&file.path));
            if let Err(error) = removed {
                tracing::warn!(path = %file.path.display(), %error, "cannot delete a key file; will retry");
                break;
            }
            self.files.pop_front();
        }
        self.files.push_back(KeyFile { path, end });
        self.failed_at = None;
        Ok(())
    }
}

fn read(disk: &dyn LogDisk, path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; usize::try_from(disk.length(path)?).map_err(io::Error::other)?];
    disk.open(path)?.read_at(&mut bytes, 0)?;
    Ok(bytes)
}

fn write(disk: &dyn LogDisk, folder: &Path, path: &Path, content: &Content) -> io::Result<()> {
    let draft = path.with_extension("draft");
    let text = serde_json::to_vec(content)?;
    let mut bytes = format!("{:032x}\n", xxh3_128(&text)).into_bytes();
    bytes.extend_from_slice(&text);
    IntakePoint::KeysWrite.check()?;
    let file = disk.create(&draft)?;
    file.write_at(&bytes, 0)?;
    IntakePoint::KeysSync.check()?;
    file.sync_all()?;
    IntakePoint::KeysRename.check()?;
    disk.rename(&draft, path)?;
    IntakePoint::KeysSyncFolder.check()?;
    disk.open_folder(folder)?.sync_all()
}

fn parsed(bytes: &[u8]) -> Option<Content> {
    let at = bytes.iter().position(|byte| *byte == b'\n')?;
    let checksum = u128::from_str_radix(std::str::from_utf8(&bytes[..at]).ok()?, 16).ok()?;
    let text = &bytes[at + 1..];
    (xxh3_128(text) == checksum).then(|| serde_json::from_slice(text).ok()).flatten()
}
