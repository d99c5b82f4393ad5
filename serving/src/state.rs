//! Holds what every endpoint and page reads from: the published views, the layers behind them, and the query limits.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use auth::{Access, Action};
use problem::{Code, Problem};
use shared::clock::Clock;
use shared::control::{Alerts, Erasures, Runs, Sinks, StreamStatus, Streams};
use shared::entity_reader::EntityReader;
use shared::partial::index_cache::PartIndexes;
use shared::published::{PublishedView, Views};
use shared::readers::{BatchReader, PastReader, SpeedReader};
use shared::table_reader::TableReader;
use shared::vital::Vitals;

use crate::admission::Admission;
use crate::pin::LayerReaders;
use shared::sql::suggest::in_parentheses as did_you_mean;

/// Handles to everything that endpoints and pages read from. Cheap to clone.
#[derive(Clone)]
pub struct ServingState {
    pub views: Arc<Views>,
    pub speed: Arc<dyn SpeedReader>,
    pub batch: Arc<dyn BatchReader>,
    pub past: Arc<dyn PastReader>,
    pub runs: Arc<dyn Runs>,
    pub streams: Arc<dyn Streams>,
    pub entities: Arc<dyn EntityReader>,
    pub tables: Arc<dyn TableReader>,
    pub alerts: Arc<dyn Alerts>,
    pub sinks: Arc<dyn Sinks>,
    pub erasures: Arc<dyn Erasures>,
    /// Indexes of batch rows by entity.
    pub indexes: Arc<PartIndexes>,
    pub admission: Arc<Admission>,
    pub clock: Arc<dyn Clock>,
    /// True once recovery is done, and false again when the server begins to stop.
    pub ready: Arc<AtomicBool>,
    /// The threads and tasks without which the server has to stop.
    pub vitals: Vitals,
    /// Renders all metrics in the text format of Prometheus.
    pub metrics: Arc<dyn Fn() -> String + Send + Sync>,
}

impl ServingState {
    pub(crate) fn readers(&self) -> LayerReaders {
        LayerReaders {
            views: Arc::clone(&self.views),
            speed: Arc::clone(&self.speed),
            batch: Arc::clone(&self.batch),
            past: Arc::clone(&self.past),
        }
    }

    /// Returns the published state of the view, or the problem `unknown_view`.
    pub(crate) fn view(&self, name: &str) -> Result<Arc<PublishedView>, Problem> {
        self.views.get(name).ok_or_else(|| self.unknown_view(name))
    }

    /// Returns the views that a principal may see.
    pub(crate) fn visible_views(&self, access: &Access) -> Vec<Arc<PublishedView>> {
        let mut views = self.views.all();
        views.retain(|published| access.may_see_view(published.view.name.as_str()));
        views
    }

    /// Returns the streams that a principal may see: those it sends to, and those of its views.
    pub(crate) fn visible_streams(&self, access: &Access) -> Vec<StreamStatus> {
        let views = self.visible_views(access);
        let mut streams = self.streams.list();
        streams.retain(|stream| {
            access.may(Action::Ingest, stream.name.as_str()) || views.iter().any(|view| view.stream.name == stream.name)
        });
        streams
    }

    /// The problem of a view that does not exist, with the nearest name that does.
    pub(crate) fn unknown_view(&self, name: &str) -> Problem {
        let views = self.views.all();
        let hint = did_you_mean(name, views.iter().map(|p| p.view.name.as_str()));
        Problem::new(Code::UnknownView, format!("there is no view called \"{name}\"{hint}"))
    }
}
