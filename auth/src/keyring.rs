//! Holds the keys in memory, and reads their file again when it has changed.
//!
//! A key that is created works at once; one that is revoked stops working within a second.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use parking_lot::{Mutex, RwLock};
use problem::{Code, Problem};
use shared::clock::{Clock, monotonic_now};

use crate::access::Access;
use crate::key_file::{KeyFile, KeyFileError, KeyId, StoredKey, parse_key};

/// Longest time until a change of the file is noticed.
const CHECK_EVERY: Duration = Duration::from_secs(1);

/// All keys of a server.
#[derive(Debug)]
pub struct KeyRing {
    file: KeyFile,
    clock: Arc<dyn Clock>,
    keys: RwLock<Arc<Keys>>,
    last_check: Mutex<LastCheck>,
}

#[derive(Debug, Default)]
struct Keys {
    by_id: HashMap<KeyId, Key>,
    /// True once there has been a key. It stays true: a file that disappears does not open the server.
    in_use: bool,
}

#[derive(Debug)]
struct Key {
    stored: StoredKey,
    access: Access,
}

#[derive(Debug)]
struct LastCheck {
    at: Instant,
    stamp: Option<FileStamp>,
}

/// Distinguishes versions of the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct FileStamp {
    modified: Option<SystemTime>,
    length: u64,
    inode: u64,
}

/// Why a key is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum KeyRefusal {
    #[error("the key is unknown; `trueup key list` shows all keys")]
    Unknown,
    #[error("the key has expired; create another one with `trueup key create`")]
    Expired,
    #[error("the key was revoked; create another one with `trueup key create`")]
    Revoked,
}

impl From<KeyRefusal> for Problem {
    fn from(refusal: KeyRefusal) -> Problem {
        Problem::new(Code::InvalidCredentials, refusal.to_string())
    }
}

impl KeyRing {
    /// Reads the keys of `file`.
    pub fn open(file: KeyFile, clock: Arc<dyn Clock>) -> Result<KeyRing, KeyFileError> {
        let stamp = FileStamp::of(&file);
        let keys = Keys::new(file.read()?, false);
        let last_check = Mutex::new(LastCheck { at: monotonic_now(), stamp });
        Ok(KeyRing { file, clock, keys: RwLock::new(Arc::new(keys)), last_check })
    }

    /// Reads the file again if there has been no key yet and it has changed.
    pub fn refresh_now(&self) {
        if !self.keys.read().in_use {
            self.refresh(Duration::ZERO);
        }
    }

    /// Returns true if there is, or has been, a key.
    pub fn is_in_use(&self) -> bool {
        self.refresh(CHECK_EVERY);
        self.keys.read().in_use
    }

    /// Returns the access of the key with this text.
    pub fn access(&self, text: &str) -> Result<Access, KeyRefusal> {
        let (id, secret) = parse_key(text).ok_or(KeyRefusal::Unknown)?;
        let keys = self.with_key(&id);
        let key = keys.by_id.get(&id).ok_or(KeyRefusal::Unknown)?;
        if !key.stored.secret_sha256.is_of(&secret) {
            return Err(KeyRefusal::Unknown);
        }
        self.valid(key)
    }

    /// Returns the access of the key with this id, for a session that was opened with the key.
    pub fn access_of(&self, id: &KeyId) -> Result<Access, KeyRefusal> {
        let keys = self.with_key(id);
        self.valid(keys.by_id.get(id).ok_or(KeyRefusal::Unknown)?)
    }

    fn valid(&self, key: &Key) -> Result<Access, KeyRefusal> {
        if key.stored.revoked_at.is_some() {
            return Err(KeyRefusal::Revoked);
        }
        match key.stored.expires_at.is_some_and(|end| end <= self.clock.now()) {
            true => Err(KeyRefusal::Expired),
            false => Ok(key.access.clone()),
        }
    }

    /// Returns the keys; those of the file at this moment, if the key is not among them yet.
    fn with_key(&self, id: &KeyId) -> Arc<Keys> {
        self.refresh(CHECK_EVERY);
        let keys = Arc::clone(&self.keys.read());
        if keys.by_id.contains_key(id) {
            return keys;
        }
        self.refresh(Duration::ZERO);
        Arc::clone(&self.keys.read())
    }

    /// Reads the file again if it has changed, unless that was checked less than `every` ago.
    fn refresh(&self, every: Duration) {
        // One thread checks; the others use what they have.
        let Some(mut last) = self.last_check.try_lock() else { return };
        let now = monotonic_now();
        if now.duration_since(last.at) < every {
            return;
        }
        last.at = now;
        let stamp = FileStamp::of(&self.file);
        if stamp == last.stamp {
            return;
        }
        match self.file.read() {
            Ok(stored) => {
                tracing::info!(keys = stored.len(), "keys have changed");
                let in_use = self.keys.read().in_use;
                *self.keys.write() = Arc::new(Keys::new(stored, in_use));
                last.stamp = stamp;
            }
            Err(error) => tracing::warn!(%error, "cannot read the keys again; the previous ones stay valid"),
        }
    }
}

impl Keys {
    fn new(stored: Vec<StoredKey>, was_in_use: bool) -> Keys {
        let in_use = was_in_use || !stored.is_empty();
        let key = |stored: StoredKey| (stored.id.clone(), Key { access: Access::of_key(&stored), stored });
        Keys { by_id: stored.into_iter().map(key).collect(), in_use }
    }
}

impl FileStamp {
    fn of(file: &KeyFile) -> Option<FileStamp> {
        let found = std::fs::metadata(file.path()).ok()?;
        #[cfg(unix)]
        let inode = std::os::unix::fs::MetadataExt::ino(&found);
        #[cfg(not(unix))]
        let inode = 0;
        Some(FileStamp { modified: found.modified().ok(), length: found.len(), inode })
    }
}

#[cfg(test)]
mod tests {
    use shared::clock::ManualClock;
    use shared::time::Micros;

    use super::*;
    use crate::key_file::NewKey;

    #[test]
    fn keys_expire_are_revoked_and_appear_without_a_restart() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = KeyFile::in_folder(folder.path());
        let clock = ManualClock::at(Micros(10));
        let ring = KeyRing::open(file.clone(), Arc::new(clock.clone())).expect("no keys");
        assert!(!ring.is_in_use());
        let new = NewKey { expires_at: Some(Micros(20)), ..NewKey::default() };
        let (id, text) = file.create(new, clock.now()).expect("created");
        assert!(ring.access(&text).is_ok(), "a new key is found at once");
        assert!(ring.is_in_use());
        let wrong = format!("{}0", &text[..text.len() - 1]);
        let wrong = if wrong == text { format!("{}1", &text[..text.len() - 1]) } else { wrong };
        assert_eq!(ring.access(&wrong).err(), Some(KeyRefusal::Unknown));
        clock.set(Micros(20));
        assert_eq!(ring.access(&text).err(), Some(KeyRefusal::Expired));

        let (second, text) = file.create(NewKey::default(), clock.now()).expect("created");
        assert!(ring.access(&text).is_ok());
        file.revoke(second.as_str(), clock.now()).expect("revoked");
        ring.refresh(Duration::ZERO);
        assert_eq!(ring.access(&text).err(), Some(KeyRefusal::Revoked));
        assert_eq!(ring.access_of(&id).err(), Some(KeyRefusal::Expired));
        std::fs::remove_file(file.path()).expect("removed");
        ring.refresh(Duration::ZERO);
        assert_eq!(ring.access(&text).err(), Some(KeyRefusal::Unknown));
        assert!(ring.is_in_use(), "a file that disappears does not open the server");
    }

    #[test]
    fn an_unreadable_file_keeps_the_previous_keys() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = KeyFile::in_folder(folder.path());
        let (_, text) = file.create(NewKey::default(), Micros(1)).expect("created");
        let ring = KeyRing::open(file.clone(), Arc::new(ManualClock::at(Micros(1)))).expect("keys");
        std::fs::write(file.path(), "{").expect("written");
        ring.refresh(Duration::ZERO);
        assert!(ring.access(&text).is_ok());
        assert!(KeyRing::open(file, Arc::new(ManualClock::at(Micros(1)))).is_err(), "a start is refused");
    }
}
