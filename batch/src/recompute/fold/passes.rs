//! What if the groups of a window date do not fit in memory? They are folded bucket by bucket: each pass reads the events
//! again and keeps the groups of its bucket. A pass that grows too large goes on with half of its groups and leaves the
//! other half to a later one, so nothing has to be known of the groups beforehand.

use std::collections::BTreeSet;
use std::sync::Arc;

use polars::prelude::DataFrame;
use shared::partial::bucket::Bucket;
use shared::partial::keys::KeyLayout;
use shared::time::Day;

use crate::failure::{RunFailure, date_name};
use crate::plan::planner::ArchiveFile;
use crate::recompute::budget::Budget;
use crate::recompute::duplicates;
use crate::recompute::fold::bounded_fold::Filled;
use crate::recompute::fold::folding::Folding;
use crate::recompute::fold::slices::Emit;
use crate::recompute::reduce::group_by::{Query, Rows};
use crate::recompute::scan::Watch;

/// Files read together.
#[derive(Debug, Clone)]
pub struct Portion {
    pub files: Vec<ArchiveFile>,
    /// The last event day that has been read whole with it; `None`: there are more files of the same date.
    pub through: Option<Day>,
    pub is_last: bool,
}

/// Events left out because their id came before, with the files they are in.
pub type Duplicates = Vec<(Vec<ArchiveFile>, DataFrame)>;

/// What passes are made over.
#[derive(Debug)]
pub struct Passes<'a> {
    pub query: &'a Query,
    pub layout: &'a Arc<KeyLayout>,
    pub budget: Budget,
    /// Look for duplicates?
    pub dedup: bool,
    pub watch: &'a Watch,
    /// Sessions that begin earlier are dropped; `None`: none are.
    pub first: Option<Day>,
}

impl Passes<'_> {
    /// Hands out the rows of the `wanted` window dates, which `portions` hold all events of. Of windows of one length only
    /// the panes `panes` are folded. Returns where the last session ends that was dropped. Blocking.
    pub fn run(
        &self,
        portions: &[Portion],
        wanted: BTreeSet<Option<Day>>,
        panes: (i64, i64),
        found: &mut Duplicates,
        emit: Emit<'_>,
    ) -> Result<i64, RunFailure> {
        let removed = self.duplicates(portions)?;
        // What is read again is not counted again.
        let watch = Watch { rows: Arc::default(), ..self.watch.clone() };
        let mut waiting = vec![(Bucket::ALL, wanted)];
        let mut dropped_end = i64::MIN;
        while let Some((bucket, mut wanted)) = waiting.pop() {
            let (view, layout) = (Arc::clone(&self.query.view), Arc::clone(self.layout));
            let mut folding = Folding::new(view, layout, self.budget, Some(wanted.clone()), bucket)
                .of_panes(panes)
                .dropping_before(self.first);
            for (portion, removed) in portions.iter().zip(&removed) {
                let rows = removed.as_ref().map_or(Rows::All, Rows::Without);
                folding.add(self.query, &portion.files, rows, &watch, &mut |filling| {
                    let halves = filling.bucket.halves().filter(|_| filling.groups() > 1);
                    let [kept, left] = halves.ok_or_else(|| self.too_large(&wanted))?;
                    tracing::debug!(view = %self.query.view.name, bucket = %kept, "too many groups for the memory limit: one more pass");
                    waiting.push((left, wanted.clone()));
                    filling.narrow(kept);
                    Ok(Filled::Fits)
                })?;
                let done = match portion.through {
                    _ if portion.is_last => folding.finish_all(emit)?,
                    Some(day) => folding.finish_through(day, emit)?,
                    None => Vec::new(),
                };
                done.iter().for_each(|date| _ = wanted.remove(date));
            }
            dropped_end = dropped_end.max(folding.dropped_end());
        }
        let portions = portions.iter().zip(removed);
        found.extend(portions.filter_map(|(portion, removed)| Some((portion.files.clone(), removed?))));
        Ok(dropped_end)
    }

    fn duplicates(&self, portions: &[Portion]) -> Result<Vec<Option<DataFrame>>, RunFailure> {
        let find = |portion: &Portion| match self.dedup {
            true => duplicates::find(&self.query.source, &portion.files, self.budget.ids_bytes(), self.watch),
            false => Ok(None),
        };
        portions.iter().map(find).collect()
    }

    fn too_large(&self, wanted: &BTreeSet<Option<Day>>) -> RunFailure {
        RunFailure::MemoryLimit {
            limit: bytes_text(self.budget.limit_bytes),
            date: date_name(wanted.first().copied().flatten()),
        }
    }
}

/// A number of bytes as the settings file takes it.
fn bytes_text(bytes: u64) -> String {
    match bytes {
        _ if bytes >= 1 << 30 && bytes.is_multiple_of(1 << 30) => format!("{} GiB", bytes >> 30),
        _ if bytes >= 1 << 20 => format!("{} MiB", bytes >> 20),
        _ => format!("{bytes} bytes"),
    }
}
