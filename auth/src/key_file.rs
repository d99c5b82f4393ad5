//! Stores keys in a file of the data folder, as hashes.
//!
//! The file is written to a temporary one first, which then takes its place, so a reader sees one state or the other. Writers
//! lock each other out.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use shared::time::Micros;

use crate::rate::Rate;
use crate::scope::Scopes;
use crate::secret::{Secret, SecretHash, random_hex};

/// How keys start, so that scanners of source code find those that were committed by mistake.
const PREFIX: &str = "trueup_";
/// Random bytes of the id of a key.
const ID_BYTES: usize = 6;

/// The public part of a key: it names the key in lists, logs and commands.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct KeyId(String);

/// A key as it is stored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StoredKey {
    pub id: KeyId,
    /// What the key is for, in the words of its owner.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub label: Option<String>,
    pub secret_sha256: SecretHash,
    pub scopes: Scopes,
    /// A condition over dimensions that every row has to meet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub row_filter: Option<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub rates: Vec<Rate>,
    pub created_at: Micros,
    /// `None`: never.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<Micros>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revoked_at: Option<Micros>,
}

/// What a key is created for.
#[derive(Debug, Clone, Default)]
pub struct NewKey {
    pub label: Option<String>,
    pub scopes: Scopes,
    pub row_filter: Option<String>,
    pub rates: Vec<Rate>,
    pub expires_at: Option<Micros>,
}

/// The file of the keys.
#[derive(Debug, Clone)]
pub struct KeyFile(PathBuf);

/// Why the keys could not be read or changed.
#[derive(Debug, thiserror::Error)]
pub enum KeyFileError {
    #[error("cannot use {path}: {cause}", path = .path.display())]
    Io { path: PathBuf, cause: io::Error },
    #[error("cannot read {path}: {cause}; restore it, or remove it and create new keys", path = .path.display())]
    Invalid { path: PathBuf, cause: serde_json::Error },
    #[error("there is no key {0}; `trueup key list` shows all keys")]
    Unknown(String),
}

#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Content {
    keys: Vec<StoredKey>,
}

impl KeyId {
    /// Returns the id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Display for KeyId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

/// Splits the text of a key into id and secret; `None` if it is not one.
pub fn parse_key(text: &str) -> Option<(KeyId, Secret)> {
    let (id, secret) = text.strip_prefix(PREFIX)?.split_once('_')?;
    let is_hex = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    (is_hex(id) && is_hex(secret)).then(|| (KeyId(id.to_owned()), Secret::of(secret)))
}

impl KeyFile {
    /// Names the file of the keys in the data folder `local`.
    pub fn in_folder(local: &Path) -> KeyFile {
        KeyFile(local.join("keys.json"))
    }

    /// Returns the path.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Reads all keys; none if the file does not exist.
    pub fn read(&self) -> Result<Vec<StoredKey>, KeyFileError> {
        match std::fs::read(&self.0) {
            Ok(text) => serde_json::from_slice::<Content>(&text)
                .map(|content| content.keys)
                .map_err(|cause| KeyFileError::Invalid { path: self.0.clone(), cause }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
            Err(error) => Err(self.failed(error)),
        }
    }

    /// Adds a key, and returns its text, which is not stored.
    pub fn create(&self, new: NewKey, now: Micros) -> Result<(KeyId, String), KeyFileError> {
        let (id, secret) = (KeyId(random_hex(ID_BYTES)), Secret::random());
        let text = format!("{PREFIX}{id}_{}", secret.reveal());
        let NewKey { label, scopes, row_filter, rates, expires_at } = new;
        let key = StoredKey {
            id: id.clone(),
            label,
            secret_sha256: secret.hash(),
            scopes,
            row_filter,
            rates,
            created_at: now,
            expires_at,
            revoked_at: None,
        };
        self.change(|keys| {
            keys.push(key);
            Ok(())
        })?;
        Ok((id, text))
    }

    /// Revokes a key. It stays in the list.
    pub fn revoke(&self, id: &str, now: Micros) -> Result<(), KeyFileError> {
        self.change(|keys| {
            let key = keys.iter_mut().find(|key| key.id.as_str() == id);
            let key = key.ok_or_else(|| KeyFileError::Unknown(id.to_owned()))?;
            key.revoked_at.get_or_insert(now);
            Ok(())
        })
    }

    fn change(&self, edit: impl FnOnce(&mut Vec<StoredKey>) -> Result<(), KeyFileError>) -> Result<(), KeyFileError> {
        let lock = File::create(self.0.with_extension("lock")).map_err(|error| self.failed(error))?;
        lock.lock().map_err(|error| self.failed(error))?;
        let mut keys = self.read()?;
        edit(&mut keys)?;
        self.write(&Content { keys }).map_err(|error| self.failed(error))
    }

    fn write(&self, content: &Content) -> io::Result<()> {
        let draft = self.0.with_extension("draft");
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        let mut file = options.open(&draft)?;
        file.write_all(&serde_json::to_vec_pretty(content)?)?;
        file.sync_all()?;
        std::fs::rename(&draft, &self.0)?;
        // The rename itself has to last, too: a revoked key must not return after a power cut.
        File::open(self.0.parent().unwrap_or(Path::new(".")))?.sync_all()
    }

    fn failed(&self, cause: io::Error) -> KeyFileError {
        KeyFileError::Io { path: self.0.clone(), cause }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_stored_as_a_hash_and_revoked_for_good() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = KeyFile::in_folder(folder.path());
        assert_eq!(file.read().expect("no keys"), []);
        let new = NewKey { scopes: Scopes(vec!["read:*".parse().expect("a scope")]), ..NewKey::default() };
        let (id, text) = file.create(new.clone(), Micros(1)).expect("created");
        let (other, _) = file.create(new, Micros(2)).expect("created");
        let (parsed, secret) = parse_key(&text).expect("a key");
        let keys = file.read().expect("keys");
        assert_eq!((parsed, keys.len()), (id.clone(), 2));
        assert!(keys[0].secret_sha256.is_of(&secret) && !keys[1].secret_sha256.is_of(&secret));
        let stored = std::fs::read_to_string(file.path()).expect("readable");
        assert!(!stored.contains(secret.reveal()), "{stored}");

        file.revoke(id.as_str(), Micros(3)).expect("revoked");
        file.revoke(id.as_str(), Micros(4)).expect("revoked before");
        let revoked: Vec<_> = file.read().expect("keys").into_iter().map(|key| (key.id, key.revoked_at)).collect();
        assert_eq!(revoked, [(id, Some(Micros(3))), (other, None)]);
        assert!(matches!(file.revoke("0", Micros(5)), Err(KeyFileError::Unknown(_))));
    }

    #[cfg(unix)]
    #[test]
    fn only_the_owner_can_read_the_file() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().expect("a folder");
        let file = KeyFile::in_folder(folder.path());
        file.create(NewKey::default(), Micros(1)).expect("created");
        assert_eq!(std::fs::metadata(file.path()).expect("a file").permissions().mode() & 0o777, 0o600);
    }

    #[test]
    fn other_texts_are_not_keys() {
        for text in ["", "trueup_", "trueup_ab", "trueup_ab_", "trueup__ab", "trueup_ab_xy", "ab_cd", "Trueup_ab_cd"] {
            assert!(parse_key(text).is_none(), "{text}");
        }
    }
}
