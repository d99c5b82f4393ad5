//! Records which entities of a partition are erased, in a file beside its segments: one line per erasure, with a checksum.
//!
//! ```text
//! an entity is erased  ⟺  its tombstone is durable
//! ```
//!
//! The partition's writer adds tombstones in the order of its log, so an event is either before the tombstone of its entity,
//! and erased, or refused. A tombstone names its entity until the erasure is complete; from then on it has only the hash.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use arrow::array::{ArrayRef, AsArray, BooleanArray};
use arrow::datatypes::DataType;
use parking_lot::{Mutex, RwLock};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use shared::entity::EntityId;
use shared::ids::Offset;
use shared::time::Micros;

use super::blank::blank_rows;
use super::disk::LogDisk;
use super::error::LogError;
use super::io::truncate;
use crate::event_id::hash_ids;
use crate::fail_points::IntakePoint;

/// The name of the file in the folder of the partition.
const FILE: &str = "erased";
/// Bytes of a line before its JSON: a checksum in hexadecimal and a space.
const PREFIX_BYTES: usize = 9;

/// The hash of an entity: see [`crate::event_id::hash_entity`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EntityHash(pub u128);

impl Serialize for EntityHash {
    /// 32 hexadecimal digits.
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl std::fmt::Display for EntityHash {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl<'de> Deserialize<'de> for EntityHash {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let digits = String::deserialize(deserializer)?;
        u128::from_str_radix(&digits, 16).map(EntityHash).map_err(serde::de::Error::custom)
    }
}

/// The record of an erasure.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tombstone {
    pub entity: EntityHash,
    /// `None` once the erasure is complete.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<EntityId>,
    pub erased_at: Micros,
    /// The caller that asked for it.
    pub by: String,
    /// What the client calls the request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reference: Option<String>,
    /// Events that the entity had.
    pub events: u64,
    /// All of them are before this offset.
    pub head: Offset,
    /// When nothing of it was left; `None`: not yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub completed_at: Option<Micros>,
}

/// The erased entities of a partition.
pub struct Tombstones {
    disk: Arc<dyn LogDisk>,
    folder: PathBuf,
    /// Durable bytes of the file.
    file: Mutex<u64>,
    known: RwLock<BTreeMap<EntityHash, Tombstone>>,
    /// Entities whose rows may still be in figures.
    shown: RwLock<BTreeSet<EntityHash>>,
    /// Their number: most partitions have none, and are asked for every event.
    count: AtomicUsize,
}

impl Tombstones {
    /// Reads the file in `folder`, if there is one, and removes a line that was not finished.
    pub fn open(disk: &Arc<dyn LogDisk>, folder: &Path) -> Result<Tombstones, LogError> {
        let (path, mut known, mut length) = (folder.join(FILE), BTreeMap::new(), 0);
        let found = match disk.length(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => 0,
            Err(error) => return Err(LogError::io(&path)(error)),
        };
        if found > 0 {
            let file = disk.open_writable(&path).map_err(LogError::io(&path))?;
            let mut bytes = vec![0; usize::try_from(found).unwrap_or(usize::MAX)];
            file.read_at(&mut bytes, 0).map_err(LogError::io(&path))?;
            for line in bytes.split_inclusive(|byte| *byte == b'\n') {
                let Some(tombstone) = parsed(line) else {
                    // Only the last line may be unfinished: it was not acknowledged.
                    if length + line.len() as u64 == found {
                        truncate(file.as_ref(), length).map_err(LogError::io(&path))?;
                        break;
                    }
                    return Err(LogError::corrupt(&path, length, "the record of an erasure is damaged"));
                };
                length += line.len() as u64;
                known.insert(tombstone.entity, tombstone);
            }
        }
        let (disk, folder, count) = (Arc::clone(disk), folder.to_owned(), AtomicUsize::new(known.len()));
        // The erasure continues where it was and finds out.
        let pending = known.values().filter(|tombstone: &&Tombstone| tombstone.completed_at.is_none());
        let shown = RwLock::new(pending.map(|tombstone| tombstone.entity).collect());
        Ok(Tombstones { disk, folder, file: Mutex::new(length), known: RwLock::new(known), shown, count })
    }

    /// Returns whether no entity is erased.
    pub fn is_empty(&self) -> bool {
        self.count.load(Ordering::Acquire) == 0
    }

    /// Returns whether the entity is erased.
    pub fn contains(&self, entity: u128) -> bool {
        !self.is_empty() && self.known.read().contains_key(&EntityHash(entity))
    }

    /// Returns the tombstone of an entity.
    pub fn get(&self, entity: u128) -> Option<Tombstone> {
        if self.is_empty() {
            return None;
        }
        self.known.read().get(&EntityHash(entity)).cloned()
    }

    /// Returns all tombstones.
    pub fn all(&self) -> Vec<Tombstone> {
        self.known.read().values().cloned().collect()
    }

    /// Returns which rows are of erased entities, by their entities and sequences; `None`: none is.
    pub fn rows(&self, entities: &ArrayRef, sequences: &ArrayRef) -> Option<BooleanArray> {
        if self.is_empty() {
            return None;
        }
        let hashes = match entities.data_type() {
            DataType::Utf8 => {
                let texts = entities.as_string::<i32>();
                hash_ids(&arrow::array::StringViewArray::from(texts))
            }
            _ => hash_ids(entities),
        };
        let blank = blank_rows(sequences);
        let known = self.known.read();
        let is_blank = |row: usize| blank.as_ref().is_some_and(|blank| blank.value(row));
        let is_erased = |(row, hash): (usize, &u128)| Some(is_blank(row) || known.contains_key(&EntityHash(*hash)));
        let erased: BooleanArray = hashes.iter().enumerate().map(is_erased).collect();
        (erased.true_count() > 0).then_some(erased)
    }

    /// Returns the tombstones of entities whose rows may still be in figures.
    pub fn shown(&self) -> Vec<Tombstone> {
        let (known, shown) = (self.known.read(), self.shown.read());
        shown.iter().filter_map(|entity| known.get(entity).cloned()).collect()
    }

    /// Notes that no figure has rows of these entities any more.
    pub fn mark_gone(&self, entities: &[EntityHash]) {
        let mut shown = self.shown.write();
        entities.iter().for_each(|entity| _ = shown.remove(entity));
    }

    /// Adds a tombstone, durably. After an error there is none.
    pub fn add(&self, tombstone: Tombstone) -> io::Result<()> {
        let mut length = self.file.lock();
        let path = self.folder.join(FILE);
        let mut line = Vec::new();
        put(&tombstone, &mut line)?;
        IntakePoint::TombstoneWrite.check()?;
        let file = match *length {
            0 => self.disk.create(&path)?,
            _ => self.disk.open_writable(&path)?,
        };
        let written = file.write_at(&line, *length).and_then(|()| {
            IntakePoint::TombstoneSync.check()?;
            file.sync_all()?;
            self.disk.open_folder(&self.folder)?.sync_all()
        });
        if let Err(error) = written {
            // The part of it that is written must not be followed by others, and must not count after a restart.
            truncate(file.as_ref(), *length).map_err(io::Error::other)?;
            return Err(error);
        }
        *length += line.len() as u64;
        self.remember(tombstone);
        Ok(())
    }

    /// Notes that nothing is left of the entities: their tombstones forget the ids.
    pub fn complete(&self, entities: &[EntityHash], at: Micros) -> io::Result<()> {
        let mut length = self.file.lock();
        let mut known = self.known.read().clone();
        for entity in entities {
            if let Some(tombstone) = known.get_mut(entity) {
                (tombstone.id, tombstone.completed_at) = (None, Some(at));
            }
        }
        let mut bytes = Vec::new();
        for tombstone in known.values() {
            put(tombstone, &mut bytes)?;
        }
        let (path, draft) = (self.folder.join(FILE), self.folder.join("erased.new"));
        let file = self.disk.create(&draft)?;
        file.write_at(&bytes, 0)?;
        file.sync_all()?;
        IntakePoint::TombstoneComplete.check()?;
        self.disk.rename(&draft, &path)?;
        self.disk.open_folder(&self.folder)?.sync_all()?;
        *length = bytes.len() as u64;
        *self.known.write() = known;
        Ok(())
    }

    fn remember(&self, tombstone: Tombstone) {
        let mut known = self.known.write();
        self.shown.write().insert(tombstone.entity);
        known.insert(tombstone.entity, tombstone);
        self.count.store(known.len(), Ordering::Release);
    }
}

fn put(tombstone: &Tombstone, into: &mut Vec<u8>) -> io::Result<()> {
    let json = serde_json::to_vec(tombstone)?;
    into.extend_from_slice(format!("{:08x} ", crc32c::crc32c(&json)).as_bytes());
    into.extend_from_slice(&json);
    into.push(b'\n');
    Ok(())
}

fn parsed(line: &[u8]) -> Option<Tombstone> {
    let (checksum, json) = line.strip_suffix(b"\n")?.split_at_checked(PREFIX_BYTES)?;
    let checksum = u32::from_str_radix(std::str::from_utf8(checksum.strip_suffix(b" ")?).ok()?, 16).ok()?;
    (crc32c::crc32c(json) == checksum).then(|| serde_json::from_slice(json).ok()).flatten()
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::super::disk::LocalDisk;
    use super::*;

    fn tombstone(id: &str) -> Tombstone {
        let id = EntityId::Text(id.to_owned());
        Tombstone {
            entity: EntityHash(crate::event_id::hash_entity(&id)),
            id: Some(id),
            erased_at: Micros(7),
            by: "ann".to_owned(),
            reference: None,
            events: 3,
            head: Offset(9),
            completed_at: None,
        }
    }

    fn open(folder: &Path) -> Result<Tombstones, LogError> {
        let disk: Arc<dyn LogDisk> = Arc::new(LocalDisk);
        Tombstones::open(&disk, folder)
    }

    #[test]
    fn tombstones_survive_a_torn_write_and_forget_the_id_when_complete() {
        let folder = tempfile::tempdir().expect("a folder");
        let tombstones = open(folder.path()).expect("opens");
        assert!(tombstones.is_empty());
        for id in ["ann@example.org", "b"] {
            tombstones.add(tombstone(id)).expect("adds");
        }
        let path = folder.path().join(FILE);
        std::fs::OpenOptions::new()
            .append(true)
            .open(&path)
            .and_then(|mut file| file.write_all(b"0000"))
            .expect("writes");
        let again = open(folder.path()).expect("opens");
        assert_eq!(again.all(), tombstones.all());
        let ann = tombstone("ann@example.org");
        again.complete(&[ann.entity], Micros(8)).expect("completes");
        let text = std::fs::read_to_string(&path).expect("the file");
        assert!(!text.contains("ann@example.org") && text.contains("\"b\""), "{text}");
        let last = open(folder.path()).expect("opens");
        assert!(last.contains(ann.entity.0) && !last.contains(5));
        assert_eq!(last.get(ann.entity.0).map(|known| (known.id, known.completed_at)), Some((None, Some(Micros(8)))));
        let mut bytes = std::fs::read(&path).expect("the file");
        bytes[20] ^= 1;
        std::fs::write(&path, bytes).expect("writes");
        assert!(open(folder.path()).is_err(), "a damaged record refuses the start");
    }
}
