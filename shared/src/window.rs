//! Assigns event times to windows: half-open intervals, aligned to the epoch, also before 1970.
//!
//! Windows that overlap share **panes**: an event is folded into the one pane that contains it, however many windows cover it,
//! and a window is the union of its panes. Where windows do not overlap, panes are windows. A pane is named by its
//! start, a window by an id ([`WindowId`]). Sessions
//! follow from the events themselves ([`crate::partial::sessions`]), not from the clock; those over a table from its rows, when
//! they are read ([`crate::partial::merge::Grain::Sessions`]).

use std::ops::{Range, RangeInclusive};

use serde::{Deserialize, Serialize};

use crate::calendar::Calendar;
use crate::time::{Day, MICROS_PER_DAY, Micros};

/// A division of all time into consecutive cells.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Grid {
    /// `[k * size + offset, ..)`, in microseconds; `0 <= offset < size`.
    Fixed { size: i64, offset: i64 },
    /// Days, weeks, months, quarters, years of a time zone.
    Calendar(Calendar),
}

/// How a view divides event time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Window {
    /// One window over all time.
    All,
    /// Every cell is a window.
    Tumble(Grid),
    /// Every `slide` panes a window of `size` panes begins. Both at least 1; windows begin at panes `k * slide`. Where
    /// a calendar skipped a date (Samoa, 2011), windows that would begin at one instant are one: the one that ends
    /// last. The offset of the panes (of a calendar: its shift) says where pane 0 is: it can be several panes, below
    /// the slide.
    Hop { panes: Grid, slide: i64, size: i64 },
    /// In every cell of `outer` windows from its start to the end of each of its steps.
    Cumulate { step: Step, outer: Grid },
    /// As of any instant, the `size` microseconds before it. Panes of `pane` microseconds; as-of instants are
    /// multiples.
    Slide { size: i64, pane: i64 },
    /// Events of a key with less than `gap` microseconds between each and the next.
    Session { gap: i64 },
    /// The same over the rows of a table, which can be taken back: panes of a microsecond, joined to sessions when they are read.
    /// Of such a view, the first aggregate counts the rows ([`crate::view::ROW_COUNT`]).
    TableSession { gap: i64 },
}

/// The steps of CUMULATE.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Step {
    /// Microseconds, counted from the start of each outer cell; the last step of a cell may be shorter.
    Fixed(i64),
    /// Cells of a calendar whose boundaries include those of the outer grid.
    Calendar(Calendar),
}

/// The id of a window: its start, in microseconds since 1970; of CUMULATE the start of its last pane, of sessions the time of
/// the first event. Of a coarser grain than the view's, the start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WindowId(pub i64);

/// The start of a pane, in microseconds since 1970.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PaneStart(pub i64);

impl WindowId {
    /// The window over all time ([`Window::All`]).
    pub const ALL_TIME: WindowId = WindowId(0);
    pub const MIN: WindowId = WindowId(i64::MIN);
    pub const MAX: WindowId = WindowId(i64::MAX);
    /// Every window, but for an id at the very end of time.
    pub const EVERY: Range<WindowId> = WindowId::MIN..WindowId::MAX;

    /// Returns the start of the pane that this row of a part with panes stands for ([`crate::partial::block::Part::panes`]).
    #[inline]
    pub fn pane(self) -> PaneStart {
        PaneStart(self.0)
    }
}

impl PaneStart {
    pub const MIN: PaneStart = PaneStart(i64::MIN);
    pub const MAX: PaneStart = PaneStart(i64::MAX);
    /// Every pane, but for one at the very end of time.
    pub const EVERY: Range<PaneStart> = PaneStart::MIN..PaneStart::MAX;

    /// Returns the id of the window that consists of this pane alone, and the id of the pane's rows where windows share panes.
    #[inline]
    pub fn window(self) -> WindowId {
        WindowId(self.0)
    }
}

impl Grid {
    /// Returns the number of the cell that contains `time` (microseconds).
    #[inline]
    pub fn index_of(&self, time: i64) -> i64 {
        match self {
            Grid::Fixed { size, offset } => time.saturating_sub(*offset).div_euclid(*size),
            Grid::Calendar(calendar) => calendar.index_of(time),
        }
    }

    /// Returns the start of cell `index`, in microseconds; saturates at the ends of time.
    #[inline]
    pub fn start_of_index(&self, index: i64) -> i64 {
        match self {
            Grid::Fixed { size, offset } => index.saturating_mul(*size).saturating_add(*offset),
            Grid::Calendar(calendar) => calendar.start_of_index(index),
        }
    }

    /// Returns the start of the cell that contains `time`.
    #[inline]
    pub fn start_of(&self, time: i64) -> i64 {
        match self {
            Grid::Fixed { size, offset } => time.saturating_sub(time.saturating_sub(*offset).rem_euclid(*size)),
            Grid::Calendar(calendar) => calendar.start_of_index(calendar.index_of(time)),
        }
    }

    /// Returns the end of the cell that contains `time`, which is the start of the next.
    #[inline]
    pub fn end_of(&self, time: i64) -> i64 {
        match self {
            Grid::Fixed { size, .. } => self.start_of(time).saturating_add(*size),
            Grid::Calendar(calendar) => calendar.start_of_index(calendar.index_of(time) + 1),
        }
    }

    /// Returns the first start of a cell that is not before `bound`.
    pub fn next_start(&self, bound: i64) -> i64 {
        let start = self.start_of(bound);
        if start >= bound { start } else { self.end_of(bound) }
    }

    /// Length of every cell in microseconds; `None`: they differ.
    pub fn fixed_size(&self) -> Option<i64> {
        match self {
            Grid::Fixed { size, .. } => Some(*size),
            Grid::Calendar(_) => None,
        }
    }
}

impl Window {
    /// Returns the pane that contains `time`. Of sessions, the event's own time.
    #[inline]
    pub fn pane_of(&self, time: Micros) -> PaneStart {
        let time = time.0;
        PaneStart(match self {
            Window::All => WindowId::ALL_TIME.0,
            Window::Tumble(grid) | Window::Hop { panes: grid, .. } => grid.start_of(time),
            Window::Cumulate { step, outer } => match step {
                Step::Fixed(step) => {
                    let start = outer.start_of(time);
                    time.saturating_sub(time.saturating_sub(start).rem_euclid(*step))
                }
                Step::Calendar(calendar) => Grid::Calendar(*calendar).start_of(time),
            },
            Window::Slide { pane, .. } => time.saturating_sub(time.rem_euclid(*pane)),
            Window::Session { .. } | Window::TableSession { .. } => time,
        })
    }

    /// Returns the end of a pane; `None`: never.
    #[inline]
    pub fn pane_end(&self, pane: PaneStart) -> Option<Micros> {
        let pane = pane.0;
        Some(Micros(match self {
            Window::All => return None,
            Window::Tumble(grid) | Window::Hop { panes: grid, .. } => grid.end_of(pane),
            Window::Cumulate { step, outer } => {
                let end = match step {
                    Step::Fixed(step) => pane.saturating_add(*step),
                    Step::Calendar(calendar) => Grid::Calendar(*calendar).end_of(pane),
                };
                end.min(outer.end_of(pane))
            }
            Window::Slide { pane: size, .. } => pane.saturating_add(*size),
            Window::Session { gap } => pane.saturating_add(*gap),
            Window::TableSession { .. } => pane.saturating_add(1),
        }))
    }

    /// Returns whether windows overlap, so that panes are not windows.
    pub fn overlaps(&self) -> bool {
        matches!(self, Window::Hop { .. } | Window::Cumulate { .. })
    }

    /// Returns the gap between sessions, in microseconds; `None`: the windows are not sessions.
    pub fn gap(&self) -> Option<i64> {
        match self {
            Window::Session { gap } | Window::TableSession { gap } => Some(*gap),
            _ => None,
        }
    }

    /// Calls `each` with the id of every window that covers the pane, ascending. Of sessions and
    /// SLIDE the pane stands for itself.
    #[inline]
    pub fn for_each_window(&self, pane: PaneStart, mut each: impl FnMut(WindowId)) {
        let (pane, mut each) = (pane.0, |id: i64| each(WindowId(id)));
        match self {
            Window::Hop { panes, slide, size } => {
                let index = panes.index_of(pane);
                let last = index.div_euclid(*slide) * slide;
                // The smallest multiple of the slide that is greater than index - size.
                let mut start = (index - size).div_euclid(*slide) * slide + slide;
                if start > last {
                    return;
                }
                let mut id = panes.start_of_index(start);
                while start < last {
                    start += slide;
                    let next = panes.start_of_index(start);
                    if next != id {
                        each(id);
                    }
                    id = next;
                }
                each(id);
            }
            Window::Cumulate { outer, .. } => {
                let end = outer.end_of(pane);
                let mut id = pane;
                while id < end {
                    each(id);
                    match self.pane_end(PaneStart(id)) {
                        Some(Micros(next)) if next > id => id = next,
                        _ => break,
                    }
                }
            }
            _ => each(pane),
        }
    }

    /// Returns start and end of the window with this id; no end: never (all time), or not known from the id (sessions).
    #[inline]
    pub fn bounds(&self, id: WindowId) -> (Micros, Option<Micros>) {
        let id = id.0;
        let (start, end) = match self {
            Window::All | Window::Session { .. } | Window::TableSession { .. } => (id, None),
            Window::Tumble(grid) => (id, Some(grid.end_of(id))),
            Window::Hop { panes, slide, size } => {
                // Where a calendar skipped a day, several panes begin with the window: the last of a slide counts.
                let index = panes.index_of(id).div_euclid(*slide) * slide;
                (id, Some(panes.start_of_index(index.saturating_add(*size))))
            }
            Window::Cumulate { outer, .. } => (outer.start_of(id), self.pane_end(PaneStart(id)).map(|end| end.0)),
            Window::Slide { pane, .. } => (id, Some(id.saturating_add(*pane))),
        };
        (Micros(start), end.map(Micros))
    }

    /// Returns the end of the last window that covers `time`: past it and allowed lateness, the speed layer excludes an event.
    /// `None`: never. Of a session, the end of the event alone.
    #[inline]
    pub fn last_end(&self, time: Micros) -> Option<Micros> {
        let time = time.0;
        Some(Micros(match self {
            Window::All => return None,
            Window::Tumble(grid) => grid.end_of(time),
            Window::Hop { panes, slide, size } => {
                let index = panes.index_of(time);
                let start = index.div_euclid(*slide) * slide;
                if index - start >= *size {
                    // In a hole between two windows: never late, and never shown.
                    return None;
                }
                panes.start_of_index(start.saturating_add(*size))
            }
            Window::Cumulate { outer, .. } => outer.end_of(time),
            Window::Slide { size, .. } => self.pane_of(Micros(time)).0.saturating_add(*size),
            Window::Session { gap } | Window::TableSession { gap } => time.saturating_add(*gap),
        }))
    }

    /// Returns whether an event at `time` is late for the speed layer, given the watermark just before it; `allowed_lateness` is in microseconds. An
    /// event of a session view is late if the session it would join is ([`crate::partial::sessions`]); this is the event alone.
    #[inline]
    pub fn is_late(&self, time: Micros, watermark: Micros, allowed_lateness: i64) -> bool {
        // I3: the verdict depends on the record alone: event time and recorded watermark.
        self.last_end(time).is_some_and(|end| end.0.saturating_add(allowed_lateness) <= watermark.0)
    }

    /// Returns the grid on which windows start; `None` if they may start anywhere.
    pub fn starts(&self) -> Option<Grid> {
        match self {
            Window::Tumble(grid) | Window::Cumulate { outer: grid, .. } => Some(*grid),
            Window::Hop { panes, slide, .. } => Some(match panes {
                Grid::Fixed { size, offset } => Grid::Fixed { size: size.saturating_mul(*slide), offset: *offset },
                Grid::Calendar(calendar) => {
                    let count = i64::from(calendar.count).saturating_mul(*slide);
                    Grid::Calendar(Calendar { count: i32::try_from(count).unwrap_or(i32::MAX), ..*calendar })
                }
            }),
            Window::All | Window::Slide { .. } | Window::Session { .. } | Window::TableSession { .. } => None,
        }
    }

    /// Returns the ids of the windows that start in `from..to`.
    pub fn ids_starting_in(&self, from: Micros, to: Micros) -> Range<WindowId> {
        let id = |bound: Micros| WindowId(self.starts().map_or(bound.0, |grid| next_or_end(&grid, bound.0)));
        id(from)..id(to)
    }

    /// Returns the panes that windows with these ids cover.
    pub fn panes_of(&self, ids: &Range<WindowId>) -> Range<PaneStart> {
        let (from, to) = (ids.start.0, ids.end.0);
        match self {
            Window::Hop { .. } if to != i64::MAX && from < to => {
                let last = self.starts().map_or(to, |grid| grid.start_of(to.saturating_sub(1)));
                let end = self.bounds(WindowId(last)).1.map_or(to, |end| end.0.max(to));
                PaneStart(from)..PaneStart(end)
            }
            Window::Cumulate { outer, .. } if from != i64::MIN => PaneStart(outer.start_of(from))..PaneStart(to),
            _ => PaneStart(from)..PaneStart(to),
        }
    }

    /// Returns the days on which windows of events of `day` start; some of them may have none. `None`: all days, or days that
    /// only the sessions determine.
    pub fn window_days_of(&self, day: Day) -> Option<RangeInclusive<i32>> {
        let (first, last) = (day.start(), Micros(day.start().0 + MICROS_PER_DAY - 1));
        let start_day = |id| self.bounds(id).0.day().0;
        match self {
            Window::All | Window::Session { .. } => None,
            _ => {
                let mut earliest = None;
                self.for_each_window(self.pane_of(first), |id| earliest = earliest.or(Some(start_day(id))));
                let mut latest = day.0;
                self.for_each_window(self.pane_of(last), |id| latest = start_day(id));
                Some(earliest.unwrap_or(day.0).min(latest)..=latest)
            }
        }
    }

    /// Returns the days of the events of windows that start on `day`; empty if none starts on it. `None` as above.
    pub fn event_days_of(&self, day: Day) -> Option<RangeInclusive<i32>> {
        let (midnight, next) = (day.start().0, day.start().0 + MICROS_PER_DAY);
        let grid = match self {
            Window::All | Window::Session { .. } => return None,
            Window::Slide { .. } | Window::TableSession { .. } => return Some(day.0..=day.0),
            _ => self.starts()?,
        };
        let (first, last) = (grid.next_start(midnight), grid.start_of(next - 1));
        if first >= next {
            return Some(RangeInclusive::new(1, 0));
        }
        let end = match self {
            Window::Cumulate { outer, .. } => outer.end_of(last),
            _ => self.bounds(WindowId(last)).1?.0,
        };
        Some(Micros(first).day().0..=Micros(end.saturating_sub(1)).day().0)
    }
}

/// Returns the next start at or after `bound`; the ends of time stay unchanged.
fn next_or_end(grid: &Grid, bound: i64) -> i64 {
    if bound == i64::MIN || bound == i64::MAX { bound } else { grid.next_start(bound) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::calendar::CalendarUnit;
    use crate::time::MICROS_PER_SECOND;

    const HOUR: i64 = 3600 * MICROS_PER_SECOND;

    fn tumble(size: i64, offset: i64) -> Window {
        Window::Tumble(Grid::Fixed { size, offset })
    }

    fn hop(pane: i64, slide: i64, size: i64) -> Window {
        Window::Hop { panes: Grid::Fixed { size: pane, offset: 0 }, slide, size }
    }

    fn ids(window: Window, time: i64) -> Vec<i64> {
        let mut all = Vec::new();
        window.for_each_window(window.pane_of(Micros(time)), |id| all.push(id.0));
        all
    }

    #[test]
    fn windows_are_half_open_also_before_1970() {
        let w = tumble(HOUR, 0);
        assert_eq!(w.pane_of(Micros(0)), PaneStart(0));
        assert_eq!(w.pane_of(Micros(HOUR - 1)), PaneStart(0));
        assert_eq!(w.pane_of(Micros(HOUR)), PaneStart(HOUR));
        assert_eq!(w.pane_of(Micros(-1)), PaneStart(-HOUR));
        assert_eq!(w.pane_of(Micros(-HOUR)), PaneStart(-HOUR));
        let shifted = tumble(HOUR, HOUR / 4);
        assert_eq!(shifted.pane_of(Micros(0)), PaneStart(HOUR / 4 - HOUR));
        assert_eq!(shifted.pane_of(Micros(HOUR / 4)), PaneStart(HOUR / 4));
        assert_eq!(w.bounds(WindowId(-HOUR)), (Micros(-HOUR), Some(Micros(0))));
    }

    #[test]
    fn a_window_closes_when_the_watermark_passes_its_end_and_the_lateness() {
        let w = tumble(HOUR, 0);
        assert!(!w.is_late(Micros(10), Micros(HOUR + 4), 5));
        assert!(w.is_late(Micros(10), Micros(HOUR + 5), 5));
        assert!(!Window::All.is_late(Micros(10), Micros(i64::MAX), 0));
        // The last window that covers the event counts.
        assert!(!hop(HOUR, 1, 3).is_late(Micros(10), Micros(3 * HOUR + 4), 5));
        assert!(hop(HOUR, 1, 3).is_late(Micros(10), Micros(3 * HOUR + 5), 5));
        let slide = Window::Slide { size: 100, pane: 1 };
        assert!(!slide.is_late(Micros(10), Micros(109), 0));
        assert!(slide.is_late(Micros(10), Micros(110), 0));
    }

    #[test]
    fn an_event_is_in_as_many_hops_as_overlap() {
        assert_eq!(ids(hop(10, 1, 3), 25), [0, 10, 20]);
        assert_eq!(ids(hop(10, 2, 3), 25), [0, 20]);
        assert_eq!(ids(hop(10, 2, 3), 35), [20]);
        assert_eq!(ids(hop(10, 3, 3), 35), [30]);
        // Windows with holes between them: some events belong to none.
        assert_eq!(ids(hop(10, 3, 2), 25), Vec::<i64>::new());
        assert_eq!(ids(hop(10, 1, 2), -5), [-20, -10]);
        assert_eq!(hop(10, 2, 3).bounds(WindowId(20)), (Micros(20), Some(Micros(50))));
    }

    #[test]
    fn cumulated_windows_share_their_start() {
        let w = Window::Cumulate { step: Step::Fixed(10), outer: Grid::Fixed { size: 30, offset: 0 } };
        assert_eq!(ids(w, 35), [30, 40, 50]);
        assert_eq!(w.bounds(WindowId(40)), (Micros(30), Some(Micros(50))));
        assert_eq!(w.last_end(Micros(35)), Some(Micros(60)));
        let zone = "Europe/Berlin".parse().expect("a zone");
        let outer = Grid::Calendar(Calendar { unit: CalendarUnit::Day, count: 1, shift: 0, offset: 0, zone });
        let hours = Window::Cumulate { step: Step::Fixed(HOUR), outer };
        let short_day = Micros::parse("2024-03-30T23:30:00Z").expect("a time").0;
        assert_eq!(ids(hours, short_day).len(), 23);
    }

    #[test]
    fn wide_and_shifted_windows_span_several_dates() {
        let daily = tumble(24 * HOUR, 0);
        assert_eq!((daily.event_days_of(Day(3)), daily.window_days_of(Day(3))), (Some(3..=3), Some(3..=3)));
        let shifted = tumble(24 * HOUR, 6 * HOUR);
        assert_eq!((shifted.event_days_of(Day(3)), shifted.window_days_of(Day(3))), (Some(3..=4), Some(2..=3)));
        let odd = tumble(7 * HOUR, 0);
        assert_eq!((odd.event_days_of(Day(0)), odd.window_days_of(Day(1))), (Some(0..=1), Some(0..=1)));
        assert_eq!((Window::All.event_days_of(Day(3)), Window::All.window_days_of(Day(3))), (None, None));
        let three_days = hop(24 * HOUR, 1, 3);
        assert_eq!((three_days.event_days_of(Day(5)), three_days.window_days_of(Day(5))), (Some(5..=7), Some(3..=5)));
        let weekly = tumble(7 * 24 * HOUR, 4 * 24 * HOUR);
        assert_eq!(weekly.window_days_of(Day(6)), Some(4..=4));
        assert!(weekly.event_days_of(Day(5)).is_some_and(|days| days.is_empty()));
    }

    #[test]
    fn ranges_of_starts_become_ranges_of_panes() {
        let w = hop(10, 2, 3);
        assert_eq!(w.ids_starting_in(Micros(15), Micros(41)), WindowId(20)..WindowId(60));
        assert_eq!(w.panes_of(&(WindowId(20)..WindowId(60))), PaneStart(20)..PaneStart(70));
        assert_eq!(w.ids_starting_in(Micros::MIN, Micros(i64::MAX)), WindowId::EVERY);
    }

    #[test]
    fn the_ends_of_time_do_not_overflow() {
        for window in [tumble(HOUR, 0), hop(HOUR, 1, 6), Window::Slide { size: HOUR, pane: 1 }] {
            for time in [i64::MIN, i64::MIN + 1, i64::MAX - 1, i64::MAX] {
                let pane = window.pane_of(Micros(time));
                assert!(pane.0 <= time);
                window.for_each_window(pane, |id| assert!(window.bounds(id).1.is_none_or(|end| end.0 >= id.0)));
                window.last_end(Micros(time));
            }
        }
    }
}
