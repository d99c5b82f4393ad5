//! Finds files that the log names and the store does not have, and takes them out of the table.
//!
//! A file is lost if another program deleted it, or if two clocks were far enough apart that a vacuum took it for an old one.
//! Its rows cannot be brought back from the table; the events are noted as lost, so that the ledger still accounts for all
//! that were accepted.

use std::collections::BTreeMap;

use futures::{StreamExt, TryStreamExt};
use object_store::ObjectStoreExt;
use object_store::path::Path;
use serde::{Deserialize, Serialize};

use super::{ArchiveTags, Commit, DataFile, LakeError, Table};
use shared::ids::{Offset, Partition};
use shared::ledger::Ledger;

/// Files looked up at the same time.
const LOOKUPS_AT_ONCE: usize = 16;

/// Accepted events whose archive files are lost, by partition.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct LostEvents {
    pub partitions: BTreeMap<Partition, LostPart>,
}

/// The lost events of one partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct LostPart {
    /// All lost events are before it.
    pub to: Offset,
    pub ledger: Ledger,
}

impl LostEvents {
    /// Returns these events and those of one more file.
    pub fn with(mut self, tags: &ArchiveTags) -> LostEvents {
        let part = self.partitions.entry(tags.partition).or_default();
        *part = LostPart { to: part.to.max(tags.to), ledger: part.ledger + tags.ledger };
        self
    }

    /// Returns the ledger of all lost events.
    pub fn ledger(&self) -> Ledger {
        self.partitions.values().map(|part| part.ledger).sum()
    }
}

impl Table {
    /// Returns those of `files` that the store does not have.
    pub async fn missing(&self, files: &[DataFile]) -> Result<Vec<DataFile>, LakeError> {
        let store = self.store();
        let look_up = |file: DataFile| {
            let store = store.clone();
            async move {
                match store.head(&Path::from(file.path.as_str())).await {
                    Ok(_) => Ok(None),
                    Err(object_store::Error::NotFound { .. }) => Ok(Some(file)),
                    Err(error) => Err(LakeError::from(error)),
                }
            }
        };
        let looked_up = futures::stream::iter(files.to_vec()).map(look_up).buffered(LOOKUPS_AT_ONCE);
        looked_up.try_filter_map(|missing| async move { Ok(missing) }).try_collect().await
    }

    /// Takes `files`, archive files that the store does not have, out of the table, and notes their events as lost. Fails
    /// with [`LakeError::Conflict`] if the table has changed since `version`.
    pub async fn give_up_lost(&self, version: i64, files: Vec<DataFile>) -> Result<i64, LakeError> {
        let snapshot = self.snapshot().await?;
        let mut lost = snapshot.lost.clone().unwrap_or_default();
        for file in &files {
            let tags = ArchiveTags::from_tags(&file.tags)
                .map_err(|error| LakeError::Schema { table: self.name(), reason: format!("{}: {error}", file.path) })?;
            lost = lost.with(&tags);
        }
        self.commit(Commit::give_up_lost(version, files, lost)).await
    }
}
