//! Plans a run from two lists of files, two cuts and the horizon of the run.
//!
//! An incremental run recomputes the window dates that events since the old seam fall on, and reads every event date whose
//! events share a window with them. Everything is recomputed if there is nothing to build upon, if the view has one window
//! over all time, or if events are involved whose date does not separate files. [`crate::plan::sessions`] says how far
//! sessions reach. Windows that start before the first event date that the archive still has are frozen: they are kept as
//! the version before has them.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::ops::RangeInclusive;

use lake::{ArchiveTags, DataFile, DroppedEvents, LostEvents};
use shared::control::DateRange;
use shared::date_partition::DatePartition;
use shared::horizon::{DroppedSessions, Horizon};
use shared::ids::{Offset, Partition};
use shared::ledger::Ledger;
use shared::seam::Cut;
use shared::time::{Day, MICROS_PER_DAY};
use shared::window::Window;

use crate::plan::{ArchiveFile, EventDate, Plan, sessions};

/// What decides a plan.
#[derive(Debug, Clone, Copy)]
pub struct PlanInput<'a> {
    pub window: Window,
    /// Every event before it is in the active version.
    pub seam: &'a Cut,
    pub cut: &'a Cut,
    pub archive: &'a [DataFile],
    /// What the archive has dropped.
    pub dropped: Option<&'a DroppedEvents>,
    /// What the archive has lost.
    pub lost: Option<&'a LostEvents>,
    /// The files of the view's table.
    pub present: &'a [DataFile],
    /// The files with the frozen windows. A version of another definition has none.
    pub frozen: &'a [DataFile],
    /// The erased events that the active version excludes.
    pub erased: &'a BTreeMap<String, u64>,
    /// The spans of event time, half-open, in which events may see other rows of joined tables than in the active version.
    pub looked_up: &'a [(i64, i64)],
    /// Recompute everything, whatever is new.
    pub everything: bool,
    /// Windows to recompute whether or not anything is new.
    pub ranges: &'a [DateRange],
    /// The horizon that the run has to establish.
    pub horizon: Horizon,
}

/// Why there is no plan: the archive is not what the log says, or lacks what the run would need.
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
        "the archive has dropped events of partition {partition} up to offset {to}, beyond the cut at {cut}; check that log and lake belong together"
    )]
    DroppedBeyond { partition: Partition, to: Offset, cut: Offset },
    #[error(
        "the view adds up all time, but the retention of its stream has dropped the events before {retained_from}; \
         add a window to its GROUP BY"
    )]
    NotWhole { retained_from: Day },
    #[error(
        "windows from {from} on cannot be recomputed: the stream's retention has dropped the events before \
         {retained_from}, and the windows that start before it are frozen; request days from {retained_from} on"
    )]
    Frozen { from: Day, retained_from: Day },
}

/// Plans a run.
pub fn plan(input: &PlanInput<'_>) -> Result<Plan, PlanError> {
    if let Some(dropped) = input.dropped {
        check_dropped(input, dropped)?;
    }
    let files = before_cut(input)?;
    let ledger = checked_ledger(input, &files)?;
    let erased = erased_by_date(files.iter().map(|file| (file.file.partition, &file.tags)));
    let newly_erased = newly_erased(&erased, input.erased);
    let ArchiveSplit { new_files, dropped_date_files, dates } = ArchiveSplit::new(input, files);
    let mut changed = newly_erased.clone();
    changed.extend(dates.keys().filter(|date| meets(input.looked_up, **date)));
    let scope = Scope::new(input, (&new_files, &changed), &dates);
    let change = TableChange::new(input, &scope);

    let days = new_files.iter().map(|file| file.file.partition).chain(changed.iter().copied());
    let days = days.filter_map(DatePartition::day).collect();
    let dropped_sessions = sessions::dropped_after(input, scope.everything, &days);
    let excluded = new_files.iter().filter(|file| input.horizon.excludes_events_of(input.window, file.file.partition));
    let excluded_by_retention = excluded.chain(&dropped_date_files).map(|file| file.tags.rows).sum();
    let frozen_touched = frozen_touched(input, dropped_date_files.iter().chain(&new_files));
    let read = scope.read(input, dates);
    let all = || read.iter().flat_map(|date| &date.files);
    Ok(Plan {
        rows: all().map(|f| f.tags.rows).sum(),
        bytes: all().map(|f| u64::try_from(f.file.size_bytes).unwrap_or(0)).sum(),
        everything: scope.everything,
        window_dates: scope.window_dates,
        read,
        new_files,
        dropped_date_files,
        remove: change.remove,
        keep: change.keep,
        restore: change.restore,
        frozen_touched,
        horizon: input.horizon.with_dropped_sessions(dropped_sessions),
        excluded_by_retention,
        erased: erased.into_iter().map(|(date, events)| (date.to_string(), events)).collect(),
        newly_erased,
        ledger,
    })
}

/// Returns the erased events of files with these dates and tags, by date.
pub fn erased_by_date<'a>(
    files: impl Iterator<Item = (DatePartition, &'a ArchiveTags)>,
) -> BTreeMap<DatePartition, u64> {
    let mut erased = BTreeMap::new();
    for (date, tags) in files.filter(|(_, tags)| tags.erased > 0) {
        *erased.entry(date).or_insert(0) += tags.erased;
    }
    erased
}

/// Returns the dates with more erased events than are known.
pub fn newly_erased(erased: &BTreeMap<DatePartition, u64>, known: &BTreeMap<String, u64>) -> BTreeSet<DatePartition> {
    let is_new =
        |(date, events): &(&DatePartition, &u64)| known.get(&date.to_string()).is_none_or(|known| known < *events);
    erased.iter().filter(is_new).map(|(date, _)| *date).collect()
}

/// Returns whether events of a date may have times in one of `spans`.
fn meets(spans: &[(i64, i64)], date: DatePartition) -> bool {
    match date.day() {
        None => !spans.is_empty(),
        Some(day) => {
            let (from, to) = (day.start().0, day.start().0.saturating_add(MICROS_PER_DAY));
            spans.iter().any(|(first, end)| *first < to && *end > from)
        }
    }
}

/// Checks that the run is possible without the dropped events.
fn check_dropped(input: &PlanInput<'_>, dropped: &DroppedEvents) -> Result<(), PlanError> {
    let retained_from = dropped.retained_from;
    if input.window == Window::All {
        return Err(PlanError::NotWhole { retained_from });
    }
    if let Some(from) = input.ranges.iter().map(|range| range.from).find(|from| *from < retained_from) {
        return Err(PlanError::Frozen { from, retained_from });
    }
    match dropped.beyond(input.cut) {
        Some((partition, to)) => Err(PlanError::DroppedBeyond { partition, to, cut: input.cut.offset(partition) }),
        None => Ok(()),
    }
}

/// Returns the archive's files with events before the cut.
fn before_cut(input: &PlanInput<'_>) -> Result<Vec<ArchiveFile>, PlanError> {
    let mut files = Vec::with_capacity(input.archive.len());
    for file in input.archive {
        let wrong = |reason: String| PlanError::Tags { path: file.path.clone(), reason };
        let tags = ArchiveTags::from_tags(&file.tags).map_err(|e| wrong(e.to_string()))?;
        let cut = input.cut.offset(tags.partition);
        if tags.from >= cut {
            continue;
        }
        if tags.to > cut {
            let ArchiveTags { partition, from, to, .. } = tags;
            return Err(PlanError::Straddles { path: file.path.clone(), partition, from, to, cut });
        }
        if tags.ledger.events != tags.rows + tags.erased {
            let (date, ArchiveTags { rows, erased, .. }) = (file.partition, tags);
            let events = tags.ledger.events;
            return Err(wrong(format!(
                "{events} events of {date} are noted as {rows} rows and {erased} erased events"
            )));
        }
        files.push(ArchiveFile { file: file.clone(), tags });
    }
    Ok(files)
}

/// Returns the ledger of all events before the cut, which must be what the log accepted.
fn checked_ledger(input: &PlanInput<'_>, files: &[ArchiveFile]) -> Result<Ledger, PlanError> {
    let dropped = input.dropped.map_or(Ledger::EMPTY, DroppedEvents::ledger);
    let lost = input.lost.map_or(Ledger::EMPTY, LostEvents::ledger);
    let ledger: Ledger = files.iter().map(|f| f.tags.ledger).sum::<Ledger>() + dropped + lost;
    let accepted = input.cut.accepted();
    // I2: a version accounts for exactly the events before its seam.
    if ledger == accepted {
        return Ok(ledger);
    }
    let same_count = ledger.events == accepted.events;
    let hint = if same_count { ", but not the same ones" } else { "" };
    Err(PlanError::Ledger { archived: ledger.events, accepted: accepted.events, hint })
}

/// The archive's files before the cut, by what they are to the run.
struct ArchiveSplit {
    new_files: Vec<ArchiveFile>,
    dropped_date_files: Vec<ArchiveFile>,
    /// All files of the dates that the archive still has, in order of their positions.
    dates: BTreeMap<DatePartition, Vec<ArchiveFile>>,
}

impl ArchiveSplit {
    fn new(input: &PlanInput<'_>, files: Vec<ArchiveFile>) -> ArchiveSplit {
        let is_new = |f: &ArchiveFile| f.tags.to > input.seam.offset(f.tags.partition);
        let (dropped, files): (Vec<_>, Vec<_>) =
            files.into_iter().partition(|file| input.horizon.is_frozen_date(file.file.partition));
        let dropped_date_files = dropped.into_iter().filter(is_new).collect();
        let new_files = files.iter().filter(|file| is_new(file)).cloned().collect();
        let mut dates: BTreeMap<DatePartition, Vec<ArchiveFile>> = BTreeMap::new();
        for file in files {
            dates.entry(file.file.partition).or_default().push(file);
        }
        dates.values_mut().for_each(|files| files.sort_by_key(|f| (f.tags.partition, f.tags.from)));
        ArchiveSplit { new_files, dropped_date_files, dates }
    }
}

/// Which windows a run recomputes, and from which days.
struct Scope {
    everything: bool,
    window_dates: BTreeSet<DatePartition>,
    /// The days of the events that the windows are made of, in order and apart; not used if everything is recomputed.
    events: Vec<RangeInclusive<i32>>,
}

/// Returns the days of all `ranges`, in order, none of them in two ranges.
fn united(mut ranges: Vec<RangeInclusive<i32>>) -> Vec<RangeInclusive<i32>> {
    ranges.sort_unstable_by_key(|range| *range.start());
    let mut united: Vec<RangeInclusive<i32>> = Vec::new();
    for range in ranges {
        match united.last_mut() {
            Some(last) if range.start() <= last.end() => *last = *last.start()..=*last.end().max(range.end()),
            _ => united.push(range),
        }
    }
    united
}

impl Scope {
    fn new(
        input: &PlanInput<'_>,
        (new_files, changed): (&[ArchiveFile], &BTreeSet<DatePartition>),
        dates: &BTreeMap<DatePartition, Vec<ArchiveFile>>,
    ) -> Scope {
        let is_open = |date: &&DatePartition| !input.horizon.is_frozen_date(**date);
        let touched = new_files.iter().map(|f| f.file.partition).chain(changed.iter().filter(is_open).copied());
        let new_dates: BTreeSet<DatePartition> = touched.collect();
        let unknown_reach = input.horizon.dropped_sessions() == DroppedSessions::Unknown;
        // Which sessions of the past changed rows end or begin is not known once some are dropped.
        let unknown_sessions = matches!(input.window, Window::Session { .. })
            && !input.looked_up.is_empty()
            && input.horizon != Horizon::NONE;
        let everything = input.everything
            || unknown_reach
            || unknown_sessions
            || input.window == Window::All
            || new_dates.contains(&DatePartition::Undated);
        let new_days: BTreeSet<Day> = new_dates.into_iter().filter_map(DatePartition::day).collect();
        let affected = match everything {
            true => None,
            false => affected_days(input, &new_days, dates.keys().filter_map(|date| date.day())),
        };
        let first_computed = input.horizon.first_computed();
        let is_computed =
            |date: &DatePartition| date.day().is_none_or(|day| first_computed.is_none_or(|first| day >= first));
        let Some(affected) = affected else {
            let all = dates.keys().flat_map(|date| window_dates_of(input.window, *date));
            // I12: frozen windows are never recomputed from what is left of their events.
            let window_dates = all.filter(is_computed).collect();
            return Scope { everything: true, window_dates, events: Vec::new() };
        };
        let dropped_before = match input.horizon.dropped_sessions() {
            DroppedSessions::Known(reach) => Some(reach.before),
            DroppedSessions::None | DroppedSessions::Unknown => None,
        };
        let affected = affected.starting_from(input.horizon.frozen_before().max(dropped_before));
        let named = affected.windows.iter().map(|day| DatePartition::of_day(*day));
        let window_dates = named.filter(is_computed).collect();
        Scope { everything: false, window_dates, events: united(affected.events) }
    }

    /// Returns the event dates to read, of those in the archive.
    fn read(&self, input: &PlanInput<'_>, dates: BTreeMap<DatePartition, Vec<ArchiveFile>>) -> Vec<EventDate> {
        // There may be as many ranges as dates.
        let is_of_window = |day: Day| {
            let after = self.events.partition_point(|days| *days.start() <= day.0);
            after > 0 && self.events[after - 1].contains(&day.0)
        };
        let has_events = |date: &DatePartition| self.everything || date.day().is_some_and(is_of_window);
        let is_read = |date: &DatePartition| has_events(date) && !input.horizon.excludes_events_of(input.window, *date);
        let read = dates.into_iter().filter(|(date, _)| is_read(date));
        read.map(|(date, files)| EventDate { date, files }).collect()
    }
}

/// Which files of the view's table a run replaces and keeps.
struct TableChange {
    remove: Vec<DataFile>,
    keep: Vec<DataFile>,
    restore: Vec<DataFile>,
}

impl TableChange {
    fn new(input: &PlanInput<'_>, scope: &Scope) -> TableChange {
        let paths = |files: &'_ [DataFile]| files.iter().map(|file| file.path.clone()).collect::<HashSet<String>>();
        let (frozen, present) = (paths(input.frozen), paths(input.present));
        let horizon = input.horizon;
        let is_replaced = |file: &DataFile| match file.partition {
            date if horizon.is_dropped_date(date) => true,
            // I12: frozen windows stay as in the active version.
            date if horizon.is_frozen_date(date) => !frozen.contains(&file.path),
            date => scope.everything || scope.window_dates.contains(&date),
        };
        let (remove, keep): (Vec<DataFile>, Vec<DataFile>) = input.present.iter().cloned().partition(is_replaced);
        let is_lost = |file: &&DataFile| !present.contains(&file.path) && !horizon.is_dropped_date(file.partition);
        let restore: Vec<DataFile> = input.frozen.iter().filter(is_lost).cloned().collect();
        let keep = keep.into_iter().chain(restore.iter().cloned()).collect();
        TableChange { remove, keep, restore }
    }
}

/// Returns the kept files with frozen windows that the events of `files` fall into.
fn frozen_touched<'a>(input: &PlanInput<'_>, files: impl Iterator<Item = &'a ArchiveFile>) -> Vec<DataFile> {
    if input.frozen.is_empty() {
        return Vec::new();
    }
    let days: BTreeSet<Day> = files.filter_map(|file| file.file.partition.day()).collect();
    let windows: Option<BTreeSet<Day>> = match input.window {
        Window::Session { gap } => {
            sessions::affected(gap, &days, input.frozen, DroppedSessions::None).map(|a| a.windows)
        }
        window => days.into_iter().map(|day| window.window_days_of(day)).collect::<Option<Vec<_>>>().map(|days| {
            let days = days.into_iter().flatten();
            days.map(Day).collect()
        }),
    };
    let is_touched =
        |file: &&DataFile| windows.as_ref().zip(file.partition.day()).is_none_or(|(w, day)| w.contains(&day));
    let kept = input.frozen.iter().filter(|file| !input.horizon.is_dropped_date(file.partition));
    kept.filter(is_touched).cloned().collect()
}

/// The days whose windows change, and the days of the events they are made of.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct AffectedDays {
    pub windows: BTreeSet<Day>,
    /// Of each of the windows' days, in order.
    pub events: Vec<RangeInclusive<i32>>,
}

impl AffectedDays {
    /// Returns those whose windows start on `first` or later, and only their events.
    fn starting_from(self, first: Option<Day>) -> AffectedDays {
        let Some(first) = first else { return self };
        let days = self.windows.iter().zip(&self.events);
        let events = days.filter(|(day, _)| **day >= first).map(|(_, events)| events.clone()).collect();
        let windows = self.windows.into_iter().filter(|day| *day >= first).collect();
        AffectedDays { windows, events }
    }
}

/// Returns what new events on `days` and the requested ranges affect; `None`: only a full recomputation is certain.
/// `archived` are the days with events.
fn affected_days(
    input: &PlanInput<'_>,
    days: &BTreeSet<Day>,
    archived: impl Iterator<Item = Day>,
) -> Option<AffectedDays> {
    let is_requested = |day: &Day| input.ranges.iter().any(|range| range.contains(*day));
    let present = input.present.iter().filter_map(|file| file.partition.day());
    if let Window::Session { gap } = input.window {
        let requested = archived.chain(present).filter(is_requested);
        let days = days.iter().copied().chain(requested).collect();
        return sessions::affected(gap, &days, input.present, input.horizon.dropped_sessions());
    }
    let mut affected: BTreeMap<Day, RangeInclusive<i32>> = BTreeMap::new();
    if !input.ranges.is_empty() {
        let dates = archived.flat_map(|day| window_dates_of(input.window, DatePartition::Day(day)));
        let filed = dates.filter_map(DatePartition::day);
        for day in filed.chain(present).filter(is_requested) {
            affected.insert(day, input.window.event_days_of(day)?);
        }
    }
    for day in days {
        for window_day in input.window.window_days_of(*day)?.map(Day) {
            let events = input.window.event_days_of(window_day)?;
            if !events.is_empty() {
                affected.insert(window_day, events);
            }
        }
    }
    let (windows, events) = affected.into_iter().unzip();
    Some(AffectedDays { windows, events })
}

/// Returns the window dates that events of a date fall on.
fn window_dates_of(window: Window, date: DatePartition) -> Vec<DatePartition> {
    if window == Window::All {
        return vec![DatePartition::AllTime];
    }
    let Some(days) = date.day().and_then(|day| window.window_days_of(day)) else { return vec![date] };
    let has_windows = |day: &Day| window.event_days_of(*day).is_some_and(|events| !events.is_empty());
    days.map(Day).filter(has_windows).map(DatePartition::of_day).collect()
}

#[cfg(test)]
mod tests;
