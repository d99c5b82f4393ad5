//! Adds the generations of the speed layer to the rows of a version, window date by window date: the state that the speed layer
//! holds becomes rows of the view's table, with the states and bounds that it has.

use std::collections::BTreeSet;
use std::sync::Arc;

use lake::DataFile;
use shared::date_partition::DatePartition;
use shared::partial::block::Part;
use shared::partial::bucket::Bucket;
use shared::partial::keys::KeyLayout;
use shared::readers::Generation;
use shared::view::{Precision, View};
use shared::window::Window;
use tokio::runtime::Handle;
use tokio::sync::mpsc;

use crate::blocking::blocking;
use crate::failure::RunFailure;
use crate::plan::{Plan, window_date};
use crate::recompute::fold::slices::Slices;
use crate::recompute::staging::Staging;
use crate::recompute::{Bounds, DatesDone, Progress, send, write_all};
use crate::versions::reader::VersionReader;
use crate::watch::Watch;

/// Limits a plan to the window dates that generations have rows of: the files of all others stay.
pub fn limit(plan: &mut Plan, view: &View, generations: &[Generation]) {
    // Sessions of different dates may join.
    if matches!(view.window, Window::Session { .. }) {
        return;
    }
    let touched = touched(view, generations);
    let horizon = plan.horizon;
    let stays = |file: &DataFile| !touched.contains(&file.partition) && !horizon.is_dropped_date(file.partition);
    let (keep, remove): (Vec<DataFile>, Vec<DataFile>) = std::mem::take(&mut plan.remove).into_iter().partition(stays);
    plan.keep.extend(keep);
    plan.remove = remove;
    plan.window_dates.retain(|date| touched.contains(date));
}

/// Returns the window dates of the rows of generations.
fn touched(view: &View, generations: &[Generation]) -> BTreeSet<DatePartition> {
    let mut dates = BTreeSet::new();
    let mut before = None;
    for pane in generations.iter().flat_map(|g| &g.part.blocks).flat_map(|block| &block.windows).copied() {
        if before.replace(pane) == Some(pane) {
            continue;
        }
        match view.window {
            Window::All => _ = dates.insert(DatePartition::AllTime),
            window => window.for_each_window(pane.pane(), |id| _ = dates.insert(window_date(window, id))),
        }
    }
    dates
}

/// Writes the rows of the plan's window dates: those of the files that it replaces, with the generations.
pub async fn merge(
    (reader, view): (&Arc<VersionReader>, &Arc<View>),
    plan: &Plan,
    generations: &[Generation],
    (bounds, watch): (Bounds, &Watch),
    staging: &Arc<Staging>,
    dates_done: DatesDone<'_>,
) -> Result<(), RunFailure> {
    let types = view.dimensions.iter().map(|dimension| dimension.expression.data_type).collect();
    let (sender, progress) = mpsc::channel(1);
    let merging = Merging {
        reader: Arc::clone(reader),
        view: Arc::clone(view),
        layout: Arc::new(KeyLayout::new(types)?),
        dates: plan.window_dates.clone(),
        replaced: plan.remove.iter().filter(|file| !plan.horizon.is_dropped_date(file.partition)).cloned().collect(),
        generations: generations.iter().map(|generation| generation.part.clone()).collect(),
        slice_bytes: bounds.budget.slice_bytes(),
        watch: watch.clone(),
    };
    let merged = blocking(move || merging.run(&sender));
    let (merged, written) = tokio::join!(merged, write_all(progress, bounds, staging, dates_done));
    written?;
    merged
}

/// The work of the merging thread.
struct Merging {
    reader: Arc<VersionReader>,
    view: Arc<View>,
    layout: Arc<KeyLayout>,
    dates: BTreeSet<DatePartition>,
    replaced: Vec<DataFile>,
    generations: Vec<Part>,
    slice_bytes: usize,
    watch: Watch,
}

impl Merging {
    /// Merges date by date. Blocking.
    fn run(self, progress: &mpsc::Sender<Progress>) -> Result<(), RunFailure> {
        let dates: BTreeSet<DatePartition> =
            self.dates.iter().copied().chain(self.replaced.iter().map(|file| file.partition)).collect();
        let of_sessions = matches!(self.view.window, Window::Session { .. });
        let all = if of_sessions { self.files(None)? } else { Vec::new() };
        let (view, layout, slice_bytes) = (&*self.view, &self.layout, self.slice_bytes);
        let slices = Slices { view, layout, precision: Precision::Sketch, slice_bytes };
        for date in dates {
            if self.watch.cancel.is_set() {
                return Err(RunFailure::Cancelled);
            }
            let of_date = if of_sessions { all.clone() } else { self.files(Some(date))? };
            let parts: Vec<&Part> = of_date.iter().map(Arc::as_ref).chain(&self.generations).collect();
            slices.finish(date, &parts, Bucket::ALL, &mut |finished| send(progress, Progress::Finished(finished)))?;
            send(progress, Progress::Done(1))?;
        }
        Ok(())
    }

    /// Reads the replaced files of a date; `None`: all of them.
    fn files(&self, date: Option<DatePartition>) -> Result<Vec<Arc<Part>>, RunFailure> {
        let mut parts = Vec::new();
        for file in self.replaced.iter().filter(|file| date.is_none_or(|date| file.partition == date)) {
            let read = Handle::current().block_on(self.reader.file(&self.view, &file.path));
            parts.push(read.map_err(RunFailure::Served)?);
        }
        Ok(parts)
    }
}
