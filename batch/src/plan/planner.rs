//! What does a run have to read, and what does it replace? From two lists of files and two cuts; nothing is opened.
//!
//! An incremental run recomputes the window dates that events since the old seam fall on, and reads every event date
//! whose events share a window with them. Everything is recomputed if there is nothing to build upon, if the view has
//! one window over all time, or if a date is involved that files cannot be kept apart by. How far sessions reach is in
//! [`crate::plan::sessions`]. Windows that start before the first event date that the archive has left are frozen: they are kept
//! as the version before has them.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::ops::RangeInclusive;

use lake::{ArchiveTags, DataFile, Dropped, is_readable};
use shared::control::DateRange;
use shared::ids::{Offset, Partition};
use shared::ledger::Ledger;
use shared::seam::Cut;
use shared::time::{Day, Micros};
use shared::window::Window;

use crate::failure::date_name;
use crate::plan::sessions::{self, DroppedSessions};

/// An archive file before the cut.
#[derive(Debug, Clone, PartialEq)]
pub struct ArchiveFile {
    pub file: DataFile,
    pub tags: ArchiveTags,
}

/// The files of one event date; `None` is the date of events whose year has not four digits.
#[derive(Debug, Clone, PartialEq)]
pub struct EventDate {
    pub date: Option<Day>,
    pub files: Vec<ArchiveFile>,
}

/// What a run does.
#[derive(Debug, Clone, PartialEq)]
pub struct Plan {
    /// Is everything recomputed?
    pub everything: bool,
    /// The window dates to recompute; of a view over all time the one `None`.
    pub window_dates: BTreeSet<Option<Day>>,
    /// The event dates to read, in order, none of them empty.
    pub read: Vec<EventDate>,
    /// The files with events since the old seam.
    pub new_files: Vec<ArchiveFile>,
    /// Those of dates that the archive has dropped: their events came too late for any row.
    pub past_files: Vec<ArchiveFile>,
    /// Files of the view's table that are replaced, and those that stay.
    pub remove: Vec<DataFile>,
    pub keep: Vec<DataFile>,
    /// Of those that stay, files with frozen windows that are not part of the table any more and become so again.
    pub restore: Vec<DataFile>,
    /// Of those that stay, the ones with frozen windows that new events fall into.
    pub frozen_touched: Vec<DataFile>,
    /// The first window date that retention leaves; `None`: all are left.
    pub retained_from: Option<Day>,
    /// Windows of earlier dates are frozen; `None`: none are.
    pub frozen_before: Option<Day>,
    /// All events before the cut.
    pub ledger: Ledger,
    /// Rows and bytes of the files to read.
    pub rows: u64,
    pub bytes: u64,
}

/// What a plan is made from.
#[derive(Debug, Clone, Copy)]
pub struct Given<'a> {
    pub window: Window,
    /// Everything before it is in the present version.
    pub seam: &'a Cut,
    pub cut: &'a Cut,
    pub archive: &'a [DataFile],
    /// The files of the view's table.
    pub present: &'a [DataFile],
    /// Recompute everything, whatever is new?
    pub everything: bool,
    /// Windows to recompute whether or not anything is new.
    pub ranges: &'a [DateRange],
    /// What the archive has dropped.
    pub dropped: Option<&'a Dropped>,
    /// The files that hold the frozen windows. Those of a version by another definition are none.
    pub frozen: &'a [DataFile],
    /// The sessions that the present version has dropped.
    pub dropped_sessions: Option<DroppedSessions>,
}

/// Why there is no plan: the archive is not what the log says.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PlanError {
    #[error("{path}: {reason}")]
    Tags { path: String, reason: String },
    #[error(
        "archive file {path} holds offsets {from} to {to} of partition {partition}, on both sides of the cut at {cut}"
    )]
    Straddles { path: String, partition: Partition, from: Offset, to: Offset, cut: Offset },
    #[error("the archive holds {archived} events before the cut, the log accepted {accepted}{hint}")]
    Ledger { archived: u64, accepted: u64, hint: &'static str },
    #[error(
        "the archive has dropped events of partition {partition} up to offset {to}, beyond the cut at {cut}: is this the right log?"
    )]
    DroppedBeyond { partition: Partition, to: Offset, cut: Offset },
    #[error(
        "the view adds up all time, but the retention of its stream has dropped the events before {retained_from}: \
         add a window to its GROUP BY"
    )]
    NotWhole { retained_from: Day },
    #[error(
        "windows from {from} on cannot be computed anew: the stream's retention has dropped the events before \
         {retained_from}, and the windows that start before it are frozen. Ask for days from {retained_from} on"
    )]
    Frozen { from: Day, retained_from: Day },
}

/// Plans a run.
pub fn plan(given: &Given<'_>) -> Result<Plan, PlanError> {
    let frozen_before = given.dropped.map(|dropped| dropped.retained_from);
    if let Some(dropped) = given.dropped {
        check_dropped(given, dropped)?;
    }
    let is_gone = |date: Option<Day>| date.is_some_and(|day| frozen_before.is_some_and(|from| day < from));
    let files = before_cut(given)?;
    let gone = given.dropped.map_or(Ledger::EMPTY, Dropped::ledger);
    let ledger: Ledger = files.iter().map(|f| f.tags.ledger).sum::<Ledger>() + gone;
    let accepted = given.cut.accepted();
    if ledger != accepted {
        let same_count = ledger.events == accepted.events;
        let hint = if same_count { ", but not the same ones" } else { "" };
        return Err(PlanError::Ledger { archived: ledger.events, accepted: accepted.events, hint });
    }
    let is_new = |f: &&ArchiveFile| f.tags.to > given.seam.offset(f.tags.partition);
    let (past, files): (Vec<_>, Vec<_>) = files.into_iter().partition(|file| is_gone(file.file.partition));
    let past_files: Vec<ArchiveFile> = past.into_iter().filter(|file| is_new(&file)).collect();
    let new_files: Vec<ArchiveFile> = files.iter().filter(is_new).cloned().collect();
    let mut dates: BTreeMap<Option<Day>, Vec<ArchiveFile>> = BTreeMap::new();
    for file in files {
        dates.entry(file.file.partition).or_default().push(file);
    }
    dates.values_mut().for_each(|files| files.sort_by_key(|f| (f.tags.partition, f.tags.from)));

    let new_dates: BTreeSet<Option<Day>> = new_files.iter().map(|f| f.file.partition).collect();
    let mut everything = given.everything || given.window == Window::All || new_dates.contains(&None);
    let new_days: BTreeSet<Day> = new_dates.into_iter().flatten().collect();
    let mut touched = Touched::default();
    if !everything {
        match touched_by(given, &new_days, dates.keys().copied().flatten()) {
            Some(some) => touched = some.after(frozen_before.max(given.dropped_sessions.map(|s| s.before))),
            None => everything = true,
        }
    }
    let mut window_dates: BTreeSet<Option<Day>> = match everything {
        true => dates.keys().flat_map(|date| window_dates_of(given.window, *date)).collect(),
        false => touched.windows.iter().map(|day| Some(*day).filter(|day| is_readable(*day))).collect(),
    };
    window_dates.retain(|date| !is_gone(*date));
    if !everything {
        dates.retain(|date, _| date.is_some_and(|day| touched.events.iter().any(|days| days.contains(&day.0))));
    }
    let paths = |files: &'_ [DataFile]| files.iter().map(|file| file.path.clone()).collect::<HashSet<String>>();
    let (frozen, in_table) = (paths(given.frozen), paths(given.present));
    let replaced = |file: &&DataFile| match is_gone(file.partition) {
        true => !frozen.contains(&file.path),
        false => everything || window_dates.contains(&file.partition),
    };
    let (remove, keep): (Vec<&DataFile>, Vec<&DataFile>) = given.present.iter().partition(replaced);

    let restore: Vec<DataFile> = given.frozen.iter().filter(|file| !in_table.contains(&file.path)).cloned().collect();
    let keep: Vec<DataFile> = keep.into_iter().chain(&restore).cloned().collect();
    let frozen_touched = frozen_touched(given, past_files.iter().chain(&new_files));

    let read: Vec<EventDate> = dates.into_iter().map(|(date, files)| EventDate { date, files }).collect();
    let all = || read.iter().flat_map(|date| &date.files);
    Ok(Plan {
        everything,
        rows: all().map(|f| f.tags.rows).sum(),
        bytes: all().map(|f| u64::try_from(f.file.size_bytes).unwrap_or(0)).sum(),
        window_dates,
        read,
        new_files,
        past_files,
        restore,
        frozen_touched,
        remove: remove.into_iter().cloned().collect(),
        keep,
        retained_from: None,
        frozen_before,
        ledger,
    })
}

/// Can the run be made without what was dropped?
fn check_dropped(given: &Given<'_>, dropped: &Dropped) -> Result<(), PlanError> {
    let retained_from = dropped.retained_from;
    if given.window == Window::All {
        return Err(PlanError::NotWhole { retained_from });
    }
    if let Some(from) = given.ranges.iter().map(|range| range.from).find(|from| *from < retained_from) {
        return Err(PlanError::Frozen { from, retained_from });
    }
    match dropped.beyond(given.cut) {
        Some((partition, to)) => Err(PlanError::DroppedBeyond { partition, to, cut: given.cut.offset(partition) }),
        None => Ok(()),
    }
}

/// The files with frozen windows that the events of `files` fall into.
fn frozen_touched<'a>(given: &Given<'_>, files: impl Iterator<Item = &'a ArchiveFile>) -> Vec<DataFile> {
    if given.frozen.is_empty() {
        return Vec::new();
    }
    let days: BTreeSet<Day> = files.filter_map(|file| file.file.partition).collect();
    let windows: Option<BTreeSet<Day>> = match given.window {
        Window::Session { gap } => sessions::touched(gap, &days, given.frozen, None).map(|touched| touched.windows),
        window => days.into_iter().map(|day| window.window_days_of(day)).collect::<Option<Vec<_>>>().map(|days| {
            let days = days.into_iter().flatten();
            days.map(Day).collect()
        }),
    };
    let is_touched = |file: &&DataFile| windows.as_ref().zip(file.partition).is_none_or(|(w, day)| w.contains(&day));
    given.frozen.iter().filter(is_touched).cloned().collect()
}

fn before_cut(given: &Given<'_>) -> Result<Vec<ArchiveFile>, PlanError> {
    let mut files = Vec::with_capacity(given.archive.len());
    for file in given.archive {
        let wrong = |reason: String| PlanError::Tags { path: file.path.clone(), reason };
        let tags = ArchiveTags::from_tags(&file.tags).map_err(|e| wrong(e.to_string()))?;
        let cut = given.cut.offset(tags.partition);
        if tags.from >= cut {
            continue;
        }
        if tags.to > cut {
            let ArchiveTags { partition, from, to, .. } = tags;
            return Err(PlanError::Straddles { path: file.path.clone(), partition, from, to, cut });
        }
        if tags.ledger.events != tags.rows {
            let date = date_name(file.partition);
            return Err(wrong(format!("{} events of {date} are noted as {} rows", tags.ledger.events, tags.rows)));
        }
        files.push(ArchiveFile { file: file.clone(), tags });
    }
    Ok(files)
}

/// The date a window is filed under: the UTC day it starts on. `None` for a view over all time, and for days that
/// readers of the lake do not take.
pub fn window_date(window: Window, id: i64) -> Option<Day> {
    match window {
        Window::All => None,
        _ => Some(Micros(window.bounds(id).0).day()).filter(|day| is_readable(*day)),
    }
}

/// The days whose windows change, and the days of the events they are made of.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Touched {
    pub windows: BTreeSet<Day>,
    /// Of each of the windows' days, in order.
    pub events: Vec<RangeInclusive<i32>>,
}

impl Touched {
    /// Without the windows that start before `first`, and the events that only they are made of.
    fn after(mut self, first: Option<Day>) -> Touched {
        let Some(first) = first else { return self };
        let days = self.windows.iter().zip(&self.events);
        self.events = days.filter(|(day, _)| **day >= first).map(|(_, events)| events.clone()).collect();
        self.windows.retain(|day| *day >= first);
        self
    }
}

/// What new events on `days` and the wanted ranges touch; `None`: it cannot be told. `archived` are the days with events.
fn touched_by(given: &Given<'_>, days: &BTreeSet<Day>, archived: impl Iterator<Item = Day>) -> Option<Touched> {
    let is_wanted = |day: &Day| given.ranges.iter().any(|range| range.contains(*day));
    let present = given.present.iter().filter_map(|file| file.partition);
    if let Window::Session { gap } = given.window {
        let wanted = archived.chain(present).filter(is_wanted);
        return sessions::touched(
            gap,
            &days.iter().copied().chain(wanted).collect(),
            given.present,
            given.dropped_sessions,
        );
    }
    let mut touched: BTreeMap<Day, RangeInclusive<i32>> = BTreeMap::new();
    if !given.ranges.is_empty() {
        let filed = archived.flat_map(|day| window_dates_of(given.window, Some(day))).flatten();
        for day in filed.chain(present).filter(is_wanted) {
            touched.insert(day, given.window.event_days_of(day)?);
        }
    }
    for day in days {
        for window_day in given.window.window_days_of(*day)?.map(Day) {
            let events = given.window.event_days_of(window_day)?;
            if !events.is_empty() {
                touched.insert(window_day, events);
            }
        }
    }
    let (windows, events) = touched.into_iter().unzip();
    Some(Touched { windows, events })
}

/// The window dates that events of a date fall on; for telling how much there is to do.
fn window_dates_of(window: Window, date: Option<Day>) -> Vec<Option<Day>> {
    let Some(day) = date else { return vec![None] };
    match window.window_days_of(day) {
        Some(days) => {
            let has_windows = |day: &Day| window.event_days_of(*day).is_some_and(|events| !events.is_empty());
            days.map(Day).filter(has_windows).map(|day| Some(day).filter(|day| is_readable(*day))).collect()
        }
        None => vec![Some(day).filter(|_| window != Window::All)],
    }
}

#[cfg(test)]
mod tests;
