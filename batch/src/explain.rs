//! Why was a served value not the exact one? Rows that late events, historical ones or duplicates fell into, looked up only when needed.

use std::cell::OnceCell;

use polars::prelude::DataFrame;
use shared::compare::Cause;
use shared::ids::Partition;

use crate::failure::RunFailure;
use crate::left_out::{LeftOut, RowId};
use crate::plan::ArchiveFile;
use crate::query::{Query, Rows};
use crate::scan::Watch;

/// What could explain the differences of a run.
#[derive(Debug)]
pub struct Explain {
    pub query: Query,
    /// Files with events since the old seam.
    pub new_files: Vec<ArchiveFile>,
    /// Every file that the run read.
    pub read_files: Vec<ArchiveFile>,
    /// Positions left out as duplicates, with the files they are in.
    pub duplicates: Vec<(Vec<ArchiveFile>, DataFrame)>,
    pub watch: Watch,
    late: OnceCell<LeftOut>,
    historical: OnceCell<LeftOut>,
    repeated: OnceCell<LeftOut>,
}

/// How a served value stands to the exact one, where it is not equal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Served {
    /// It was said to be exact.
    Exact,
    /// It was an estimate, and the exact value lies within its interval.
    Inside,
    /// It was an estimate, and the exact value lies outside.
    Outside,
}

impl Explain {
    /// Nothing has been looked up yet.
    pub fn new(
        query: Query,
        (new_files, read_files): (Vec<ArchiveFile>, Vec<ArchiveFile>),
        duplicates: Vec<(Vec<ArchiveFile>, DataFrame)>,
        watch: Watch,
    ) -> Explain {
        let (late, historical, repeated) = (OnceCell::new(), OnceCell::new(), OnceCell::new());
        Explain { query, new_files, read_files, duplicates, watch, late, historical, repeated }
    }

    /// Why a value of this row differs by more than rounding. Blocking.
    pub fn cause(&self, row: RowId<'_>, served: Served) -> Result<Cause, RunFailure> {
        if served == Served::Inside {
            return Ok(Cause::Sketch);
        }
        if self.late.get().is_none() {
            let late = LeftOut::late(&self.query, &self.new_files, &self.read_files, &self.watch)?;
            self.late.get_or_init(|| late);
        }
        let holds = |cell: &OnceCell<LeftOut>| cell.get().is_some_and(|rows| rows.contains(row));
        if holds(&self.late) {
            return Ok(Cause::Late);
        }
        if self.historical.get().is_none() {
            let is_history = |file: &&ArchiveFile| file.tags.partition == Partition::HISTORY;
            let files: Vec<ArchiveFile> = self.new_files.iter().filter(is_history).cloned().collect();
            let mut historical = LeftOut::new(self.query.view.window);
            historical.add_all(&self.query, &files, Rows::All, &self.watch)?;
            self.historical.get_or_init(|| historical);
        }
        if holds(&self.historical) {
            return Ok(Cause::Historical);
        }
        if self.repeated.get().is_none() {
            let mut repeated = LeftOut::new(self.query.view.window);
            for (files, positions) in &self.duplicates {
                repeated.add_all(&self.query, files, Rows::Only(positions), &self.watch)?;
            }
            self.repeated.get_or_init(|| repeated);
        }
        Ok(match served {
            _ if holds(&self.repeated) => Cause::Duplicate,
            // An interval holds what is true most of the time, not always.
            Served::Outside => Cause::Sketch,
            _ => Cause::Unexplained,
        })
    }
}
