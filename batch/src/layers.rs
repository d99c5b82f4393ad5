//! Names what batch needs from the other layers, as traits of `shared`, and the view that a run is for.

use std::sync::Arc;

use lake::Lake;
use shared::clock::Clock;
use shared::handoff::{Archive, Cutter, LogRetention};
use shared::ids::{Offset, Partition, StreamName, ViewName};
use shared::lookup::table::Lookups;
use shared::published::Views;
use shared::readers::SpeedReader;
use shared::stream::Stream;
use shared::view::View;
use shared::vital::Vitals;

/// Handles to the other layers and the lake.
#[derive(Clone)]
pub struct LayerHandles {
    /// Receives the failure of a task of the batch layer.
    pub vitals: Vitals,
    pub lake: Lake,
    /// All streams, including those without views.
    pub streams: Vec<Arc<Stream>>,
    /// The active versions, as loaded at the start; runs publish into it.
    pub views: Arc<Views>,
    pub cutter: Arc<dyn Cutter>,
    pub archive: Arc<dyn Archive>,
    pub speed: Arc<dyn SpeedReader>,
    pub retention: Arc<dyn LogRetention>,
    /// The versions of rows that the speed layer joins events with.
    pub lookups: Lookups,
    /// The oldest offset of each partition's log when the process started.
    pub log_starts: Vec<(StreamName, Partition, Offset)>,
    pub clock: Arc<dyn Clock>,
}

/// A view to compute, as declared, and its stream.
#[derive(Debug, Clone)]
pub struct Job {
    pub stream: Arc<Stream>,
    pub view: Arc<View>,
}

/// Returns the name under which the log is kept for the speed layer's replay of a view.
pub fn log_reader(view: &ViewName) -> String {
    format!("speed/{view}")
}
