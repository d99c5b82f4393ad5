//! Collects the rows that were served until now for the windows that a run recomputes.

use std::collections::HashSet;
use std::sync::Arc;

use lake::DataFile;
use shared::failed_events::FailedEvents;
use shared::horizon::Horizon;
use shared::partial::block::Part;
use shared::published::PublishedView;
use shared::readers::Generation;
use shared::time::Micros;
use shared::view::View;
use shared::window::Window;

use crate::plan::Plan;

/// Rows that were served for the recomputed windows.
#[derive(Debug)]
pub struct ServedRows {
    /// The definition that computed them.
    pub view: Arc<View>,
    /// Files of the active version that are being replaced, and those of `frozen`.
    pub files: Vec<DataFile>,
    /// Kept files with frozen windows that new events fall into.
    pub frozen: Vec<DataFile>,
    /// What speed made of the events from the seam up to the cut.
    pub generations: Vec<Part>,
    /// What retention had taken away from what was served.
    pub horizon: Horizon,
    /// Windows that start earlier are not compared: the new version drops them, or speed has released them.
    pub shown_from: Option<Micros>,
    /// Events that were in no row, because an expression or a fold failed for them.
    pub failed: FailedEvents,
}

impl ServedRows {
    /// Returns the rows that `active`, whose files are `active_files`, and `generations` served for the windows of the plan.
    pub fn new(
        active: &PublishedView,
        active_files: &[DataFile],
        plan: &Plan,
        generations: &[Generation],
    ) -> ServedRows {
        let horizon = Horizon::of(active);
        // Rows that retention takes away are not compared, nor frozen ones unless new events fall into them.
        let first = plan.horizon.first_computed();
        let is_compared =
            |file: &&DataFile| file.partition.day().is_none_or(|day| first.is_none_or(|first| day >= first));
        // The plan removes the files of the newest version, from which nothing was served if its commit was not confirmed.
        let kept: HashSet<&str> = plan.keep.iter().map(|file| file.path.as_str()).collect();
        let replaced = active_files.iter().filter(|file| !kept.contains(file.path.as_str()));
        // Speed's rows of windows that were frozen already were not served.
        let was_live = |file: &&DataFile| match active.view.window {
            Window::Session { .. } => true,
            _ => !horizon.is_frozen_date(file.partition),
        };
        let frozen: Vec<DataFile> = plan.frozen_touched.iter().filter(was_live).cloned().collect();
        let files = replaced.filter(is_compared).chain(&frozen).cloned().collect();
        // Speed no longer holds the rows of released panes, so nothing was served for them.
        let released = generations.iter().filter_map(|generation| generation.released).map(|panes| panes.last).max();
        let held_from = released.map(|last| Micros(last.0.saturating_add(1)));
        let shown_from = plan.horizon.first_shown().max(held_from);
        let mut failed = active.version.as_ref().map_or_else(FailedEvents::default, |version| version.failed.clone());
        generations.iter().for_each(|generation| failed.extend(&generation.failed_events));
        let generations = generations.iter().map(|generation| generation.part.clone()).collect();
        ServedRows { view: Arc::clone(&active.view), files, frozen, generations, horizon, shown_from, failed }
    }
}
