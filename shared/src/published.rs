//! Publishes the active batch version of a view and its seam: one pointer per view, swapped in one step.
//!
//! A reader takes the pointer once and keeps it for the whole query; so it sees the version of one run and the
//! generations from that run's cut on, never a mixture.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::RwLock;

use crate::ids::ViewName;
use crate::ledger::Ledger;
use crate::seam::Cut;
use crate::stream::Stream;
use crate::version::BatchVersion;
use crate::view::View;

/// What answers queries on a view at one moment.
#[derive(Debug, Clone)]
pub struct Published {
    /// The definition that answers; while a changed one is being computed, the old.
    pub view: Arc<View>,
    pub definition_hash: Arc<str>,
    pub stream: Arc<Stream>,
    /// `None` until the first run has been published.
    pub version: Option<Arc<BatchVersion>>,
    /// Where speed begins.
    pub seam: Cut,
    /// Events that were in the archive alone when the process started, and are in no version: neither batch nor speed
    /// has them, until the first run is published.
    pub unread: Ledger,
    /// The definition that is declared, if another one answers until the first version of it is complete.
    pub shadow: Option<Arc<View>>,
}

impl Published {
    /// The answer of `view` with nothing published yet: everything is speed's.
    pub fn nothing(view: Arc<View>, stream: Arc<Stream>) -> Published {
        let seam = Cut::start(stream.partitions);
        Published {
            definition_hash: Arc::from(view.definition_hash()),
            view,
            stream,
            version: None,
            seam,
            unread: Ledger::EMPTY,
            shadow: None,
        }
    }

    /// The answer of `view` from `version` on.
    pub fn version(view: Arc<View>, stream: Arc<Stream>, version: BatchVersion) -> Published {
        let seam = version.seam.clone();
        let definition_hash = Arc::from(view.definition_hash());
        Published {
            definition_hash,
            view,
            stream,
            version: Some(Arc::new(version)),
            seam,
            unread: Ledger::EMPTY,
            shadow: None,
        }
    }
}

/// All views of the process, each with what answers for it.
#[derive(Debug, Default)]
pub struct Views {
    views: RwLock<BTreeMap<ViewName, Arc<Published>>>,
}

impl Views {
    /// What answers for `view` now.
    pub fn get(&self, view: &str) -> Option<Arc<Published>> {
        let view: ViewName = view.parse().ok()?;
        self.views.read().get(&view).cloned()
    }

    /// Every view, by name.
    pub fn all(&self) -> Vec<Arc<Published>> {
        self.views.read().values().cloned().collect()
    }

    /// Lets `published` answer for its view from now on.
    pub fn publish(&self, published: Published) {
        self.views.write().insert(published.view.name.clone(), Arc::new(published));
    }
}
