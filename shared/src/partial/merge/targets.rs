//! Finds the rows of a merged table that the rows of a block belong to.

use std::ops::Range;

use super::{MergeError, MergeSpec};
use crate::partial::block::Block;
use crate::partial::rows::{RowIndex, RowLine};
use crate::partial::states::NO_GROUP;
use crate::time::Micros;
use crate::window::WindowId;

/// The rows of the merged table that the rows of a block belong to. A pane belongs to one row per window that covers it: one
/// round for each.
#[derive(Debug, Default)]
pub(super) struct Targets {
    /// The row of every candidate, or [`NO_GROUP`] if it is excluded.
    pub rounds: Vec<Vec<u32>>,
    places: Vec<RowLine>,
}

impl Targets {
    /// Finds the rows of the candidates of a block.
    pub fn fill(
        &mut self,
        (spec, from): (&MergeSpec<'_>, WindowId),
        panes: bool,
        block: &Block,
        candidates: Range<usize>,
        translation: &[u32],
        rows: &mut RowIndex,
    ) -> Result<(), MergeError> {
        self.rounds.iter_mut().for_each(Vec::clear);
        let (windows, keys) = (&block.windows[candidates.clone()], &block.keys[candidates]);
        if panes {
            return self.fill_panes((spec, from), windows, keys, translation, rows);
        }
        if self.rounds.is_empty() {
            self.rounds.push(Vec::with_capacity(keys.len()));
        }
        // The rows of the window before: those of a file are in the order of their keys.
        let mut before: Option<(RowLine, Range<usize>)> = None;
        let mut begin = 0;
        for run in windows.chunk_by(|a, b| a == b) {
            let range = begin..begin + run.len();
            begin = range.end;
            self.place((spec, from), panes, run[0], rows)?;
            let (targets, place) = (&mut self.rounds[0], self.places.first().copied());
            let Some(place) = place else {
                targets.resize(range.end, NO_GROUP);
                continue;
            };
            match before.take() {
                // The same keys again, in the same row of the grain.
                Some((line, same)) if line == place && keys[same.clone()] == keys[range.clone()] => {
                    targets.extend_from_within(same);
                }
                _ => targets.extend(keys[range.clone()].iter().map(|key| match translation[*key as usize] {
                    NO_GROUP => NO_GROUP,
                    key => rows.row_of(place, key),
                })),
            }
            before = Some((place, range));
        }
        Ok(())
    }

    /// The same for panes, which may belong to several windows each.
    fn fill_panes(
        &mut self,
        (spec, from): (&MergeSpec<'_>, WindowId),
        windows: &[WindowId],
        keys: &[u32],
        translation: &[u32],
        rows: &mut RowIndex,
    ) -> Result<(), MergeError> {
        self.places.clear();
        let mut before = None;
        // Neighbours mostly share their window.
        for (done, (&window, &key)) in windows.iter().zip(keys).enumerate() {
            if before != Some(window) {
                before = Some(window);
                self.place((spec, from), true, window, rows)?;
            }
            let key = translation[key as usize];
            if self.rounds.len() < self.places.len() {
                self.rounds.resize_with(self.places.len(), Vec::new);
            }
            for (round, place) in self.rounds.iter_mut().zip(&self.places) {
                round.resize(done, NO_GROUP);
                round.push(if key == NO_GROUP { NO_GROUP } else { rows.row_of(*place, key) });
            }
        }
        Ok(())
    }

    /// Finds the rows of a window or pane; outside the range there are none.
    fn place(
        &mut self,
        (spec, from): (&MergeSpec<'_>, WindowId),
        panes: bool,
        window: WindowId,
        rows: &RowIndex,
    ) -> Result<(), MergeError> {
        self.places.clear();
        let inside = |id: WindowId| id >= from && id < spec.windows.end;
        if panes {
            spec.view.window.for_each_window(window.pane(), |id| {
                if inside(id) {
                    self.places.push(rows.place(spec.grain.start_of(id)));
                }
            });
        } else if inside(window) {
            if spec.grain.is_crossed(spec.view, window) {
                return Err(MergeError::Crossed(Micros(window.0)));
            }
            self.places.push(rows.place(spec.grain.start_of(window)));
        }
        Ok(())
    }
}
