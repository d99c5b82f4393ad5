//! Loads the active version of a view at the start of the process: its latest, under the definition that computed it.

use std::sync::Arc;

use lake::{ArchiveTags, Lake, LakeError, Table, TablePath, TableSnapshot};
use shared::ids::{Offset, Partition};
use shared::ledger::Ledger;
use shared::lookup::definition::JoinTable;
use shared::published::PublishedView;
use shared::seam::{Cut, CutPoint};
use shared::sql::{parse_folded_view, parse_view};
use shared::stream::Stream;
use shared::version::{BatchVersion, Origin, VersionFile};
use shared::view::View;

use crate::versions::kept::version_of;

/// Historical events of which an archive may have no trace: the ledger of each position is computed, which takes seconds for
/// this many, and an archive that another program changed may note any number.
const UNSEEN_EVENTS_MAX: u64 = 1 << 32;

/// A view as the lake has it.
#[derive(Debug, Clone)]
pub struct LoadedView {
    pub stream: Arc<Stream>,
    /// The definition as declared.
    pub view: Arc<View>,
    /// The active version, under its own definition; or speed alone.
    pub active: PublishedView,
    /// The declared definition, if the active version is of another one: speed folds for both, from the same seam, until a
    /// run has computed the new one.
    pub shadow: Option<Arc<View>>,
    /// There is a version that cannot become active: its definition is no longer understood, or the archive is behind it.
    pub version_lost: bool,
}

/// Why a view's latest version could not be loaded.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    #[error(transparent)]
    Lake(#[from] LakeError),
}

/// Loads the active version of `view`, before speed starts.
pub async fn load_published(lake: &Lake, stream: &Arc<Stream>, view: &Arc<View>) -> Result<LoadedView, LoadError> {
    let history = history(lake, stream, &Cut::default()).await?.accepted;
    let nothing = |version_lost: bool| LoadedView {
        active: PublishedView { unread: history, ..PublishedView::nothing(Arc::clone(view), Arc::clone(stream)) },
        stream: Arc::clone(stream),
        view: Arc::clone(view),
        shadow: None,
        version_lost,
    };
    let Some(table) = lake.open_table(&TablePath::view(&view.name)).await? else { return Ok(nothing(false)) };
    let Some((number, info)) = table.latest_info().await? else { return Ok(nothing(false)) };
    let mut version = match BatchVersion::from_note(info) {
        Ok((version, None)) => version,
        Ok((version, Some(error))) => {
            metrics::counter!("trueup_version_notes_unreadable_total", "view" => view.name.to_string()).increment(1);
            tracing::error!(view = %view.name, version = number, %error,
                "cannot read the comparison summary of the version; the version is used without it");
            version
        }
        // Without its seam a version cannot be used, and an older one would count events twice: the log may be shorter.
        Err(error) => {
            metrics::counter!("trueup_version_notes_unreadable_total", "view" => view.name.to_string()).increment(1);
            tracing::error!(view = %view.name, version = number, %error,
                "cannot read the notes of the version; speed alone is served until a run has recomputed the view");
            return Ok(nothing(true));
        }
    };
    if let Some(Ahead { partition, covered, archived }) = ahead_of_archive(lake, stream, &version.seam).await? {
        tracing::warn!(view = %view.name, version = number, %partition, covered = covered.0, archived = archived.0,
            "the latest version has events that the archive does not have: view and archive are from different moments (a copy \
             that took the archive first?); a run recomputes the view");
        return Ok(nothing(true));
    }
    version.files = version_files(&table.snapshot_at(number).await?.files);

    let found = |old: Arc<View>, version: BatchVersion, shadow: Option<Arc<View>>| LoadedView {
        active: PublishedView { shadow: shadow.clone(), ..PublishedView::version(old, Arc::clone(stream), version) },
        shadow,
        ..nothing(false)
    };
    if is_of(&version, view) {
        return Ok(found(Arc::clone(view), version, None));
    }
    match old_definition(stream, &view.joined_tables(), &version) {
        Some(old) => {
            tracing::info!(view = %view.name, version = number, "definition changed; the old version stays active until a run has computed the new one");
            Ok(found(Arc::new(old), version, Some(Arc::clone(view))))
        }
        None => {
            tracing::warn!(view = %view.name, version = number, "the definition of the latest version is no longer understood; speed alone is served until a run has computed the new one");
            Ok(nothing(true))
        }
    }
}

/// A partition whose seam is beyond its archive.
struct Ahead {
    partition: Partition,
    /// First offset that the version does not cover.
    covered: Offset,
    /// First offset that the archive does not have.
    archived: Offset,
}

/// Returns a partition whose seam is beyond its archive. A run waits for the archive before it reads, so this happens only
/// if tables of different moments were put together.
async fn ahead_of_archive(lake: &Lake, stream: &Stream, seam: &Cut) -> Result<Option<Ahead>, LakeError> {
    let archive = lake.open_table(&TablePath::events(&stream.name)).await?;
    for (partition, point) in &seam.0 {
        let archived = match &archive {
            Some(table) => table.txn_version(&ArchiveTags::app_id(&stream.name, *partition)).await?.unwrap_or(0),
            None => 0,
        };
        let archived = Offset(u64::try_from(archived).unwrap_or(0));
        if point.offset > archived {
            return Ok(Some(Ahead { partition: *partition, covered: point.offset, archived }));
        }
    }
    Ok(None)
}

/// Returns how far the historical events of a stream go, given that those before `seam` are known.
pub async fn history(lake: &Lake, stream: &Stream, seam: &Cut) -> Result<CutPoint, LakeError> {
    let known = seam.history();
    let Some(table) = lake.open_table(&TablePath::events(&stream.name)).await? else { return Ok(known) };
    let txn = table.txn_version(&ArchiveTags::app_id(&stream.name, Partition::HISTORY)).await?;
    let offset = Offset(txn.and_then(|offset| u64::try_from(offset).ok()).unwrap_or(0)).max(known.offset);
    let unseen = offset.0.saturating_sub(known.offset.0.max(historical_events(table.snapshot().await?.as_ref())));
    if unseen > UNSEEN_EVENTS_MAX {
        let reason =
            format!("it notes {offset} historical events, and {unseen} of them are in no file: restore the table");
        return Err(LakeError::Schema { table: table.name(), reason });
    }
    // Computed, not summed from the files, so that a missing file is noticed. Of a new view nothing is known: all views
    // of a process compute it once.
    let accepted = move || match known.offset {
        Offset(0) => Ledger::before(Partition::HISTORY, offset),
        from => known.accepted + Ledger::of_range(Partition::HISTORY, from, offset),
    };
    Ok(CutPoint { offset, accepted: tokio::task::spawn_blocking(accepted).await? })
}

/// Returns the number of historical events that the files of an archive hold, or held.
fn historical_events(archive: &TableSnapshot) -> u64 {
    let tags = archive.files.iter().filter_map(|file| ArchiveTags::from_tags(&file.tags).ok());
    let present = tags.filter(|tags| tags.partition == Partition::HISTORY).map(|tags| tags.ledger.events);
    let dropped = archive.dropped.iter().flat_map(|dropped| dropped.partitions.get(&Partition::HISTORY));
    let lost = archive.lost.iter().flat_map(|lost| lost.partitions.get(&Partition::HISTORY));
    let gone = dropped.map(|part| part.ledger.events).chain(lost.map(|part| part.ledger.events));
    present.chain(gone).fold(0, u64::saturating_add)
}

/// Returns the definition that computed `version`, if today's dialect, stream and joined `tables` still give it the same meaning.
pub fn old_definition(stream: &Stream, tables: &[JoinTable], version: &BatchVersion) -> Option<View> {
    // Earlier programs put unquoted names into lower case.
    [parse_view, parse_folded_view]
        .into_iter()
        .filter_map(|parse| parse(stream, tables, &version.sql).ok())
        .find(|old| old.name == version.view && is_of(version, old))
}

/// Returns whether `version` was computed by the definition of `view`.
fn is_of(version: &BatchVersion, view: &View) -> bool {
    version.definition_hash == view.definition_hash() || version.definition_hash == view.positional_hash()
}

/// Returns the files of a view's table, as a version lists them.
pub fn version_files(files: &[lake::DataFile]) -> Vec<VersionFile> {
    let file = |f: &lake::DataFile| VersionFile {
        path: f.path.clone(),
        date: f.partition,
        rows: u64::try_from(f.rows).unwrap_or(0),
        size_bytes: u64::try_from(f.size_bytes).unwrap_or(0),
        origin: Origin::of_tags(&f.tags),
    };
    files.iter().map(file).collect()
}

/// Returns the versions that the log of a view's table still has, newest first, at most `limit`, without their files.
pub async fn versions(table: &Table, limit: usize) -> Result<Vec<BatchVersion>, LakeError> {
    let history = table.history(-1, limit).await?;
    Ok(history.notes.into_iter().filter_map(version_of).collect())
}
