//! Where are reconciliations kept? One JSON file per version beside the view's table, the latest in memory.

use std::collections::HashMap;
use std::sync::Arc;

use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};
use parking_lot::Mutex;
use shared::compare::Comparison;
use shared::handoff::HandoffError;
use shared::ids::ViewName;
use shared::lake::{Lake, TablePath};

/// The reconciliations of all views.
pub struct Comparisons {
    store: Arc<dyn ObjectStore>,
    latest: Mutex<HashMap<ViewName, Arc<Comparison>>>,
}

impl Comparisons {
    /// Those kept in `lake`.
    pub fn new(lake: &Lake) -> Comparisons {
        Comparisons { store: lake.store(), latest: Mutex::default() }
    }

    /// Keeps a comparison. That it cannot be written is reported, but no reason for a published version to fail.
    pub async fn keep(&self, comparison: Comparison) {
        let path = path(&comparison.view, comparison.version);
        let bytes = serde_json::to_vec(&comparison).expect("a comparison is plain data with text keys");
        if let Err(error) = self.store.put(&path, bytes.into()).await {
            tracing::warn!(%path, %error, "a reconciliation could not be written");
        }
        self.latest.lock().insert(comparison.view.clone(), Arc::new(comparison));
    }

    /// The comparison of a version, if there was one.
    pub async fn get(&self, view: &ViewName, version: i64) -> Result<Option<Comparison>, HandoffError> {
        if let Some(latest) = self.latest.lock().get(view).filter(|c| c.version == version) {
            return Ok(Some(latest.as_ref().clone()));
        }
        let path = path(view, version);
        let wrong = |reason: String| HandoffError(format!("{path}: {reason}"));
        let bytes = match self.store.get(&path).await {
            Ok(found) => found.bytes().await.map_err(|e| wrong(e.to_string()))?,
            Err(object_store::Error::NotFound { .. }) => return Ok(None),
            Err(error) => return Err(wrong(error.to_string())),
        };
        serde_json::from_slice(&bytes).map(Some).map_err(|e| wrong(e.to_string()))
    }

    /// The latest comparison of this process.
    pub fn latest(&self, view: &ViewName) -> Option<Comparison> {
        self.latest.lock().get(view).map(|c| c.as_ref().clone())
    }
}

/// Names that begin with `_` are no data to readers of Delta tables.
fn path(view: &ViewName, version: i64) -> Path {
    Path::from(format!("{}/_compare/{version}.json", TablePath::view(view)))
}
