//! Holds what a view serves now: its batch version and the seam from which speed adds, swapped in one step.
//!
//! A query takes the pointer once and keeps it, so it sees the version of one run and the generations from that run's cut on,
//! never a mixture (I6).

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::RwLock;
use tokio::sync::watch;

use crate::ids::ViewName;
use crate::ledger::Ledger;
use crate::seam::Cut;
use crate::stream::Stream;
use crate::version::BatchVersion;
use crate::view::View;

/// Everything that a query on a view reads: a definition, a batch version and a seam.
#[derive(Debug, Clone)]
pub struct PublishedView {
    /// The definition that is served: the previous one while a changed one is being computed.
    pub view: Arc<View>,
    pub definition_hash: Arc<str>,
    pub stream: Arc<Stream>,
    /// `None` until the first run has been published.
    pub version: Option<Arc<BatchVersion>>,
    /// The log positions at which speed starts.
    pub seam: Cut,
    /// Events that only the archive had when the process started: neither batch nor speed covers them until the first run is
    /// published.
    pub unread: Ledger,
    /// The declared definition, if a previous one is served until the first version of the declared one is complete.
    pub shadow: Option<Arc<View>>,
}

impl PublishedView {
    /// Returns `view` without a batch version: speed covers everything.
    pub fn nothing(view: Arc<View>, stream: Arc<Stream>) -> PublishedView {
        let seam = Cut::start(stream.partitions);
        PublishedView {
            definition_hash: Arc::from(view.definition_hash()),
            view,
            stream,
            version: None,
            seam,
            unread: Ledger::EMPTY,
            shadow: None,
        }
    }

    /// Returns the definition as declared, which may not be served yet.
    pub fn declared(&self) -> &Arc<View> {
        self.shadow.as_ref().unwrap_or(&self.view)
    }

    /// Returns `view` served from `version` and speed.
    pub fn version(view: Arc<View>, stream: Arc<Stream>, version: BatchVersion) -> PublishedView {
        let seam = version.seam.clone();
        let definition_hash = Arc::from(view.definition_hash());
        PublishedView {
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

/// All views of the process, each with what it serves now.
#[derive(Debug, Default)]
pub struct Views {
    views: RwLock<BTreeMap<ViewName, Arc<PublishedView>>>,
    published: watch::Sender<()>,
}

impl Views {
    /// Returns what `view` serves now.
    pub fn get(&self, view: &str) -> Option<Arc<PublishedView>> {
        let view: ViewName = view.parse().ok()?;
        self.views.read().get(&view).cloned()
    }

    /// Returns every view, by name.
    pub fn all(&self) -> Vec<Arc<PublishedView>> {
        self.views.read().values().cloned().collect()
    }

    /// Replaces what a view serves, in one step.
    pub fn publish(&self, published: PublishedView) {
        // I6
        self.views.write().insert(published.view.name.clone(), Arc::new(published));
        self.published.send_replace(());
    }

    /// Returns a receiver that is notified after every [`Views::publish`].
    pub fn publications(&self) -> watch::Receiver<()> {
        self.published.subscribe()
    }
}
