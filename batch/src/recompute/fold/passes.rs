//! Folds groups that do not fit in memory at once, bucket by bucket: each pass reads the events again and keeps the groups of
//! its bucket. A pass that grows too large continues with half of its groups and leaves the other half to a later one, so
//! the number of groups need not be known in advance.

use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::Arc;

use polars::prelude::DataFrame;
use shared::date_partition::DatePartition;
use shared::partial::bucket::Bucket;
use shared::partial::keys::KeyLayout;
use shared::time::{Day, Micros};
use shared::window::PaneStart;

use crate::failure::RunFailure;
use crate::plan::ArchiveFile;
use crate::recompute::budget::Budget;
use crate::recompute::duplicates;
use crate::recompute::fold::bounded_fold::Capacity;
use crate::recompute::fold::folding::EventFold;
use crate::recompute::fold::slices::Emit;
use crate::recompute::reduce::group_by::ArchiveQuery;
use crate::watch::Watch;

/// Files read together.
#[derive(Debug, Clone)]
pub struct ReadChunk {
    pub files: Vec<ArchiveFile>,
    /// The last event day that is complete with this chunk; `None`: more files of the same date follow.
    pub through: Option<Day>,
    /// No chunk follows.
    pub is_last: bool,
}

/// Duplicates: events whose id came before, with the files they are in.
pub type Duplicates = Vec<(Vec<ArchiveFile>, DataFrame)>;

/// The events and limits of all passes.
#[derive(Debug)]
pub struct Passes<'a> {
    pub query: &'a ArchiveQuery,
    pub layout: &'a Arc<KeyLayout>,
    pub budget: Budget,
    /// Search for duplicates.
    pub dedup: bool,
    pub watch: &'a Watch,
    /// Sessions that start earlier are dropped; `None`: none are.
    pub retained_from: Option<Day>,
}

impl Passes<'_> {
    /// Emits the rows of the `requested` window dates, whose events are all in `chunks`. Of windows of one length only the
    /// panes `panes` are folded. Returns the end of the last session that was dropped. Blocking.
    pub fn run(
        &self,
        chunks: &[ReadChunk],
        requested: BTreeSet<DatePartition>,
        panes: Range<PaneStart>,
        found: &mut Duplicates,
        emit: Emit<'_>,
    ) -> Result<Option<Micros>, RunFailure> {
        let removed = self.duplicates(chunks)?;
        // Repeated reads are not counted again.
        let watch = Watch { rows: Arc::default(), ..self.watch.clone() };
        let mut waiting = vec![(Bucket::ALL, requested)];
        let mut dropped_sessions_end = None;
        while let Some((bucket, mut requested)) = waiting.pop() {
            let (view, layout) = (Arc::clone(&self.query.view), Arc::clone(self.layout));
            let mut fold =
                EventFold::new(view, layout, self.query.precision(), self.budget, Some(requested.clone()), bucket)
                    .of_panes(panes.clone())
                    .dropping_before(self.retained_from);
            for (chunk, removed) in chunks.iter().zip(&removed) {
                let rows = self.query.without(removed.as_ref());
                fold.add(self.query, &chunk.files, rows, &watch, &mut |states| {
                    let halves = states.bucket.halves().filter(|_| states.has_several_groups());
                    let [kept, left] = halves.ok_or_else(|| self.too_large(&requested))?;
                    tracing::debug!(view = %self.query.view.name, bucket = %kept, "too many groups for the memory limit; adding a pass");
                    waiting.push((left, requested.clone()));
                    states.narrow(kept);
                    Ok(Capacity::Fits)
                })?;
                let done = match chunk.through {
                    _ if chunk.is_last => fold.finish_all(emit)?,
                    Some(day) => fold.finish_through(day, emit)?,
                    None => Vec::new(),
                };
                done.iter().for_each(|date| _ = requested.remove(date));
            }
            dropped_sessions_end = dropped_sessions_end.max(fold.dropped_sessions_end());
        }
        let chunks = chunks.iter().zip(removed);
        found.extend(chunks.filter_map(|(chunk, removed)| Some((chunk.files.clone(), removed?))));
        Ok(dropped_sessions_end)
    }

    fn duplicates(&self, chunks: &[ReadChunk]) -> Result<Vec<Option<DataFrame>>, RunFailure> {
        let find = |chunk: &ReadChunk| match self.dedup {
            true => duplicates::find(&self.query.source, &chunk.files, self.budget.ids_bytes(), self.watch),
            false => Ok(None),
        };
        chunks.iter().map(find).collect()
    }

    fn too_large(&self, requested: &BTreeSet<DatePartition>) -> RunFailure {
        RunFailure::MemoryLimit {
            limit: bytes_text(self.budget.limit_bytes),
            date: requested.first().copied().unwrap_or(DatePartition::Undated).to_string(),
        }
    }
}

/// Returns a number of bytes as the settings file writes it.
pub fn bytes_text(bytes: u64) -> String {
    match bytes {
        _ if bytes >= 1 << 30 && bytes.is_multiple_of(1 << 30) => format!("{} GiB", bytes >> 30),
        _ if bytes >= 1 << 20 => format!("{} MiB", bytes >> 20),
        _ => format!("{bytes} bytes"),
    }
}
