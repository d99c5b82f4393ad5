//! Why was a served value not the exact one? Groups that late events or duplicates fell into, looked up only when needed.

use std::cell::OnceCell;
use std::collections::{HashMap, HashSet};

use arrow::array::RecordBatch;
use polars::prelude::DataFrame;
use shared::compare::Cause;
use shared::partial::keys::KeyLayout;

use crate::failure::RunFailure;
use crate::plan::ArchiveFile;
use crate::query::{Query, Rows, windows_of};
use crate::scan::Watch;

/// What could explain the differences of a run.
#[derive(Debug)]
pub struct Explain {
    pub query: Query,
    /// Files with events since the old seam.
    pub new_files: Vec<ArchiveFile>,
    /// Positions left out as duplicates, with the files they are in.
    pub duplicates: Vec<(Vec<ArchiveFile>, DataFrame)>,
    /// Does the old definition answer, so that any difference is that of the definitions?
    pub definition_changed: bool,
    pub watch: Watch,
    late: OnceCell<Groups>,
    repeated: OnceCell<Groups>,
}

/// Encoded groups by window.
type Groups = HashMap<i64, HashSet<Box<[u8]>>>;

impl Explain {
    /// Nothing has been looked up yet.
    pub fn new(
        query: Query,
        new_files: Vec<ArchiveFile>,
        duplicates: Vec<(Vec<ArchiveFile>, DataFrame)>,
        definition_changed: bool,
        watch: Watch,
    ) -> Explain {
        let (late, repeated) = (OnceCell::new(), OnceCell::new());
        Explain { query, new_files, duplicates, definition_changed, watch, late, repeated }
    }

    /// Why a value of this window and group differs by more than rounding. Blocking.
    pub fn cause(&self, window: i64, key: &[u8]) -> Result<Cause, RunFailure> {
        if self.definition_changed {
            return Ok(Cause::Definition);
        }
        if self.late.get().is_none() {
            let groups = self.query.groups(&self.new_files, Rows::Late, &self.watch)?;
            let mut late = Groups::new();
            self.collect(&groups, &mut late)?;
            self.late.get_or_init(|| late);
        }
        let holds = |cell: &OnceCell<Groups>| {
            cell.get().and_then(|groups| groups.get(&window)).is_some_and(|keys| keys.contains(key))
        };
        if holds(&self.late) {
            return Ok(Cause::Late);
        }
        if self.repeated.get().is_none() {
            let mut repeated = Groups::new();
            for (files, positions) in &self.duplicates {
                let groups = self.query.groups(files, Rows::Only(positions), &self.watch)?;
                self.collect(&groups, &mut repeated)?;
            }
            self.repeated.get_or_init(|| repeated);
        }
        Ok(if holds(&self.repeated) { Cause::Duplicate } else { Cause::Unexplained })
    }

    fn collect(&self, batch: &RecordBatch, into: &mut Groups) -> Result<(), RunFailure> {
        let windows = windows_of(batch);
        let dimensions = &self.query.view.dimensions;
        if dimensions.is_empty() {
            windows.into_iter().for_each(|window| _ = into.entry(window).or_default().insert(Box::default()));
            return Ok(());
        }
        let layout = KeyLayout::new(dimensions.iter().map(|d| d.expression.data_type).collect())?;
        let keys = layout.encode(&batch.columns()[batch.num_columns() - dimensions.len()..])?;
        for (window, key) in windows.into_iter().zip(keys.iter()) {
            into.entry(window).or_default().insert(Box::from(key.as_ref()));
        }
        Ok(())
    }
}
