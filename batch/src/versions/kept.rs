//! Lists the versions of a view that are kept: the newest `versions_kept`, from the notes in the log of its table.
//!
//! Notes stay in memory once they have been read; only those of newer versions are read again.

use std::collections::HashMap;
use std::sync::Arc;

use lake::{Lake, LakeError, Table, TablePath};
use serde_json::{Map, Value};
use shared::ids::ViewName;
use shared::version::BatchVersion;
use tokio::sync::Mutex;

/// The kept versions of all views.
pub struct VersionIndex {
    lake: Lake,
    views: HashMap<ViewName, ViewVersions>,
}

struct ViewVersions {
    count: usize,
    known: Mutex<Option<Arc<KeptVersions>>>,
}

/// The kept versions of a view, without their files.
#[derive(Debug, Clone, PartialEq)]
pub struct KeptVersions {
    /// Newest first.
    pub versions: Vec<Arc<BatchVersion>>,
    /// The view never had other versions. False if the log lost its beginning: then it may have had some.
    pub are_all: bool,
    /// The table's newest version, whichever program wrote it.
    pub newest: i64,
}

impl KeptVersions {
    /// Returns the number of the oldest version that is kept.
    pub fn from(&self) -> Option<i64> {
        self.versions.last().map(|version| version.version)
    }

    /// Returns the version with this number, if it is kept.
    pub fn get(&self, number: i64) -> Option<&Arc<BatchVersion>> {
        self.versions.iter().find(|version| version.version == number)
    }
}

impl VersionIndex {
    /// Returns the index of `views`, each with its `versions_kept`.
    pub fn new(lake: &Lake, views: impl Iterator<Item = (ViewName, u32)>) -> VersionIndex {
        let of_view = |count| ViewVersions {
            count: usize::try_from(count).unwrap_or(usize::MAX).max(1),
            known: Mutex::default(),
        };
        VersionIndex { lake: lake.clone(), views: views.map(|(view, count)| (view, of_view(count))).collect() }
    }

    /// Returns the view's table, if it has one.
    pub async fn table(&self, view: &ViewName) -> Result<Option<Table>, LakeError> {
        self.lake.open_table(&TablePath::view(view)).await
    }

    /// Returns how many versions of the view are kept.
    pub fn count(&self, view: &ViewName) -> usize {
        self.views.get(view).map_or(1, |of_view| of_view.count)
    }

    /// Returns the kept versions of `view` as its table is now.
    pub async fn of(&self, view: &ViewName) -> Result<Arc<KeptVersions>, LakeError> {
        let nothing = || Arc::new(KeptVersions { versions: Vec::new(), are_all: true, newest: -1 });
        let (Some(of_view), Some(table)) = (self.views.get(view), self.table(view).await?) else {
            return Ok(nothing());
        };
        let mut known = of_view.known.lock().await;
        let before = known.clone().unwrap_or_else(nothing);
        if table.newest_version().await? == before.newest {
            return Ok(before);
        }
        let history = table.history(before.newest, of_view.count).await?;
        let mut versions: Vec<_> = history.notes.into_iter().filter_map(version_of).map(Arc::new).collect();
        let mut are_all = history.whole && before.are_all;
        if history.whole {
            versions.extend(before.versions.iter().cloned());
        }
        are_all &= versions.len() <= of_view.count;
        versions.truncate(of_view.count);
        // Versions with events that were erased since are not kept: they are not read, and vacuum deletes their files.
        let all = versions.len();
        if let Some(newest) = versions.first().cloned() {
            versions.retain(|version: &Arc<BatchVersion>| version.excludes_all_erased(&newest));
        }
        are_all &= versions.len() == all;
        let now = Arc::new(KeptVersions { versions, are_all, newest: history.newest });
        *known = Some(Arc::clone(&now));
        Ok(now)
    }
}

/// Returns the version that a note describes; `None`: it describes something else.
pub fn version_of((number, note): (i64, Map<String, Value>)) -> Option<BatchVersion> {
    let (version, _) = BatchVersion::from_note(note).ok()?;
    (version.version == number).then_some(version)
}
