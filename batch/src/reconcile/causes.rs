//! Why was a served value not the exact one? Rows that late events, historical ones or duplicates fell into, looked up only when needed.

use std::cell::OnceCell;

use polars::prelude::DataFrame;
use shared::compare::Cause;
use shared::ids::Partition;
use shared::partial::bucket::Bucket;
use shared::window::Window;

use crate::failure::RunFailure;
use crate::plan::planner::ArchiveFile;
use crate::recompute::reduce::group_by::{Query, Rows};
use crate::recompute::scan::Watch;
use crate::reconcile::excluded_events::{LeftOut, RowId};

/// What could explain the differences of a run.
#[derive(Debug)]
pub struct Explain {
    pub query: Query,
    /// Files with events since the old seam.
    pub new_files: Vec<ArchiveFile>,
    /// Files with events since then of dates that the archive has dropped.
    pub past_files: Vec<ArchiveFile>,
    /// Every file that the run read.
    pub read_files: Vec<ArchiveFile>,
    /// Windows that start before it are frozen (microseconds).
    pub frozen_until: i64,
    /// Windows that start earlier are dropped.
    pub shown_from: i64,
    /// Positions left out as duplicates, with the files they are in.
    pub duplicates: Vec<(Vec<ArchiveFile>, DataFrame)>,
    pub watch: Watch,
    /// The groups that causes are looked up for.
    bucket: Bucket,
    late: OnceCell<LeftOut>,
    historical: OnceCell<LeftOut>,
    repeated: OnceCell<LeftOut>,
    past: OnceCell<LeftOut>,
    frozen: OnceCell<LeftOut>,
    dropped: OnceCell<LeftOut>,
}

/// The files that causes are looked up in; see [`Explain`].
#[derive(Debug, Default)]
pub struct Files {
    pub new: Vec<ArchiveFile>,
    pub past: Vec<ArchiveFile>,
    pub read: Vec<ArchiveFile>,
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
        files: Files,
        (shown_from, frozen_until): (i64, i64),
        duplicates: Vec<(Vec<ArchiveFile>, DataFrame)>,
        watch: Watch,
    ) -> Explain {
        Explain {
            query,
            new_files: files.new,
            past_files: files.past,
            read_files: files.read,
            shown_from,
            frozen_until,
            duplicates,
            watch,
            bucket: Bucket::ALL,
            late: OnceCell::new(),
            historical: OnceCell::new(),
            repeated: OnceCell::new(),
            past: OnceCell::new(),
            frozen: OnceCell::new(),
            dropped: OnceCell::new(),
        }
    }

    /// From here on only groups in `bucket` are asked about; what was known of others is let go.
    pub fn within(self, bucket: Bucket) -> Explain {
        Explain {
            bucket,
            late: OnceCell::new(),
            historical: OnceCell::new(),
            repeated: OnceCell::new(),
            past: OnceCell::new(),
            frozen: OnceCell::new(),
            dropped: OnceCell::new(),
            ..self
        }
    }

    /// Events that may have to be held to look up causes, at most.
    pub fn rows(&self) -> u64 {
        let files = match self.query.view.window {
            Window::Session { .. } => &self.read_files,
            _ => &self.new_files,
        };
        files.iter().chain(&self.past_files).map(|file| file.tags.rows).sum()
    }

    /// Did an event that was left out, because its windows are frozen or its session is, fall into `row`? Blocking.
    fn is_retained(&self, row: RowId<'_>) -> Result<bool, RunFailure> {
        let window = self.query.view.window;
        let is_frozen = window != Window::All && window.bounds(row.window).0 < self.frozen_until;
        // Into rows that are computed only sessions can bring events of dates that are gone.
        if !is_frozen && (self.past_files.is_empty() || !matches!(window, Window::Session { .. })) {
            return Ok(false);
        }
        let cell = if is_frozen { &self.frozen } else { &self.past };
        if cell.get().is_none() {
            let mut left_out = LeftOut::new(window, self.bucket);
            left_out.add_all(&self.query, &self.past_files, Rows::All, &self.watch)?;
            if is_frozen {
                left_out.add_all(&self.query, &self.new_files, Rows::All, &self.watch)?;
            }
            cell.get_or_init(|| left_out);
        }
        Ok(cell.get().is_some_and(|rows| rows.contains(row)))
    }

    /// Is `row` made of events that belong to a session that is dropped? Blocking.
    fn is_of_dropped_session(&self, row: RowId<'_>) -> Result<bool, RunFailure> {
        let Window::Session { gap } = self.query.view.window else { return Ok(false) };
        if self.shown_from == i64::MIN {
            return Ok(false);
        }
        if self.dropped.get().is_none() {
            let mut dropped = LeftOut::new(self.query.view.window, self.bucket);
            dropped.add_all(&self.query, &self.read_files, Rows::All, &self.watch)?;
            dropped.keep_sessions_before(gap, self.shown_from);
            self.dropped.get_or_init(|| dropped);
        }
        Ok(self.dropped.get().is_some_and(|rows| rows.contains(row)))
    }

    /// Why a value of this row differs by more than rounding. Blocking.
    pub fn cause(&self, row: RowId<'_>, served: Served) -> Result<Cause, RunFailure> {
        if served == Served::Inside {
            return Ok(Cause::Sketch);
        }
        if self.is_retained(row)? || self.is_of_dropped_session(row)? {
            return Ok(Cause::Retention);
        }
        if self.late.get().is_none() {
            let late = LeftOut::late(&self.query, &self.new_files, &self.read_files, self.bucket, &self.watch)?;
            self.late.get_or_init(|| late);
        }
        let holds = |cell: &OnceCell<LeftOut>| cell.get().is_some_and(|rows| rows.contains(row));
        if holds(&self.late) {
            return Ok(Cause::Late);
        }
        if self.historical.get().is_none() {
            let is_history = |file: &&ArchiveFile| file.tags.partition == Partition::HISTORY;
            let files: Vec<ArchiveFile> = self.new_files.iter().filter(is_history).cloned().collect();
            let mut historical = LeftOut::new(self.query.view.window, self.bucket);
            historical.add_all(&self.query, &files, Rows::All, &self.watch)?;
            self.historical.get_or_init(|| historical);
        }
        if holds(&self.historical) {
            return Ok(Cause::Historical);
        }
        if self.repeated.get().is_none() {
            let mut repeated = LeftOut::new(self.query.view.window, self.bucket);
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
