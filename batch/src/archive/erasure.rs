//! Erases the events of entities from an archive: every file that has some is written again without them, and one commit
//! exchanges all of them. The tags of the new files still account for the erased events, so ledgers balance.

use std::sync::Arc;

use arrow::array::{ArrayRef, BooleanArray};
use arrow::compute::or;
use lake::{ArchiveTags, Commit, DataFile, LakeError, LeftOut, Table, TablePath};
use serde_json::json;
use shared::entity::EntityId;
use shared::ids::{Partition, StreamName};
use shared::stream::Stream;

use crate::archive::compactor::{CompactionError, Compactor};
use crate::step::UpkeepStep;

/// Attempts to exchange the files of an archive that another process rewrites at the same time.
const ATTEMPTS_MAX: u32 = 5;

/// What an erasure took out of an archive.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ErasedFromArchive {
    pub events: u64,
    /// Files that were written again.
    pub files: u64,
}

impl Compactor {
    /// Erases the events of `entities`, each with its partition, from the archive of `stream`. Compaction waits meanwhile.
    pub async fn erase(
        &self,
        stream: &StreamName,
        entities: &[(Partition, EntityId)],
    ) -> Result<ErasedFromArchive, CompactionError> {
        let Some((stream, _alone)) = self.alone(stream).await else { return Ok(ErasedFromArchive::default()) };
        let Some(table) = self.lake().open_table(&TablePath::events(&stream.name)).await? else {
            return Ok(ErasedFromArchive::default());
        };
        let mut attempt = 0;
        loop {
            attempt += 1;
            let mut written = Vec::new();
            match exchange(stream, &table, entities, &mut written).await {
                Ok(erased) => return Ok(erased),
                Err(CompactionError::Lake(error @ LakeError::Conflict { .. })) => {
                    table.delete_files(&written).await?;
                    if attempt == ATTEMPTS_MAX {
                        return Err(error.into());
                    }
                }
                Err(error) => {
                    // The commit may have succeeded: vacuum finds out, and deletes the files if it did not.
                    table.give_up(&written);
                    return Err(error);
                }
            }
        }
    }
}

async fn exchange(
    stream: &Stream,
    table: &Table,
    entities: &[(Partition, EntityId)],
    written: &mut Vec<DataFile>,
) -> Result<ErasedFromArchive, CompactionError> {
    let (snapshot, _lease) = table.held_snapshot().await?;
    let Some(entity) = stream.entity else { return Ok(ErasedFromArchive::default()) };
    let column = stream.columns[entity].name.clone();
    let (mut erased, mut removed) = (ErasedFromArchive::default(), Vec::new());
    UpkeepStep::ErasureWrite.reach();
    for file in &snapshot.files {
        let tags = ArchiveTags::from_tags(&file.tags)?;
        let of_file = entities.iter().filter(|(partition, _)| *partition == tags.partition);
        let ids: Vec<EntityId> = of_file.map(|(_, id)| id.clone()).collect();
        if ids.is_empty() {
            continue;
        }
        let left_out = LeftOut { column: column.clone(), is_left_out: Arc::new(move |column| is_any(&ids, column)) };
        let Some(mut without) = table.rewrite_without(file, &stream.archive_schema(), &left_out).await? else {
            continue;
        };
        let rows = u64::try_from(without.rows).unwrap_or(0);
        let events = tags.rows.saturating_sub(rows);
        without.tags = ArchiveTags { rows, erased: tags.erased + events, ..tags }.to_tags();
        written.push(without);
        removed.push(file.clone());
        erased.events += events;
        erased.files += 1;
    }
    if removed.is_empty() {
        return Ok(erased);
    }
    UpkeepStep::ErasureCommit.reach();
    let info = json!({ "erased": { "events": erased.events, "files": erased.files } });
    let note = info.as_object().cloned().unwrap_or_default();
    table.commit(Commit::erase(removed, written.clone()).noting(note)).await?;
    Ok(erased)
}

/// Which values of the entity column are one of `ids`.
fn is_any(ids: &[EntityId], column: &ArrayRef) -> BooleanArray {
    let none = BooleanArray::from(vec![false; column.len()]);
    ids.iter().fold(none, |found, id| or(&found, &id.matches(column)).expect("both have a value per row"))
}
