//! Decides what a run reads and what it replaces. Works on lists of files and on cuts; opens no file.
//!
//! A [`Plan`] is complete when it is made: [`planner::plan`] takes everything that decides it, with the
//! [`Horizon`] of the run.

pub mod planner;
pub mod sessions;

use std::collections::{BTreeMap, BTreeSet};

use lake::{ArchiveTags, DataFile};
use shared::date_partition::DatePartition;
use shared::horizon::{DroppedSessions, Horizon, SessionReach};
use shared::ledger::Ledger;
use shared::time::Micros;
use shared::window::{Window, WindowId};

/// An archive file with events before the cut.
#[derive(Debug, Clone, PartialEq)]
pub struct ArchiveFile {
    pub file: DataFile,
    pub tags: ArchiveTags,
}

/// The files of one event date.
#[derive(Debug, Clone, PartialEq)]
pub struct EventDate {
    pub date: DatePartition,
    pub files: Vec<ArchiveFile>,
}

/// What a run reads and replaces.
#[derive(Debug, Clone, PartialEq)]
pub struct Plan {
    /// The run recomputes everything.
    pub everything: bool,
    /// The window dates to recompute.
    pub window_dates: BTreeSet<DatePartition>,
    /// The event dates to read, in order, none of them empty.
    pub read: Vec<EventDate>,
    /// The files with events since the old seam, of dates that the archive still has.
    pub new_files: Vec<ArchiveFile>,
    /// The files with events since the old seam, of dates that the archive has dropped. They are in no row.
    pub dropped_date_files: Vec<ArchiveFile>,
    /// Files of the view's table that are replaced.
    pub remove: Vec<DataFile>,
    /// Files of the view's table that stay, including those of `restore`.
    pub keep: Vec<DataFile>,
    /// Files with frozen windows that are no longer part of the table and become part of it again.
    pub restore: Vec<DataFile>,
    /// Kept files with frozen windows that new events fall into.
    pub frozen_touched: Vec<DataFile>,
    /// What retention has taken away from the new version. If everything is recomputed, the reach of dropped sessions is a
    /// lower bound: see [`Plan::horizon_after`].
    pub horizon: Horizon,
    /// New events that are in no row, because all their windows are dropped or frozen.
    pub excluded_by_retention: u64,
    /// Events of erased entities that the new version excludes, by event date.
    pub erased: BTreeMap<String, u64>,
    /// Event dates with events that were erased since the active version.
    pub newly_erased: BTreeSet<DatePartition>,
    /// All events before the cut.
    pub ledger: Ledger,
    /// Rows of the files to read.
    pub rows: u64,
    /// Bytes of the files to read.
    pub bytes: u64,
}

impl Plan {
    /// Returns the horizon of the new version, given the end of the last dropped session that was read, if any.
    pub fn horizon_after(&self, dropped_sessions_end: Option<Micros>) -> Horizon {
        match self.horizon.dropped_sessions() {
            DroppedSessions::Known(SessionReach { before, end }) if self.everything => {
                let end = dropped_sessions_end.map_or(end, |found| end.max(found));
                self.horizon.with_dropped_sessions(DroppedSessions::Known(SessionReach { before, end }))
            }
            _ => self.horizon,
        }
    }
}

/// Returns the date a window is filed under: the UTC day it starts on.
pub fn window_date(window: Window, id: WindowId) -> DatePartition {
    match window {
        Window::All => DatePartition::AllTime,
        _ => DatePartition::of_day(window.bounds(id).0.day()),
    }
}
