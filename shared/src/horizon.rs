//! Answers which windows of a view retention has taken away. The only place that knows: plans, reconciliations, queries
//! and finality ask a [`Horizon`].
//!
//! Two first days cut the windows of a view, by the UTC day on which they start, into three ranges:
//! ```text
//!      dropped         frozen          computed from their events
//! ───────────────┬───────────────┬──────────────────────────────► day on which the window starts
//!          retained_from   frozen_before
//! ```
//! - *Dropped* windows are in no version and are never shown. The retention of the view decides (`WITH (retention = ..)`).
//! - *Frozen* windows stay as they were: the retention of the stream has dropped events that they are made of.
//! - All others are computed from their events, and shown with what speed has for them.
//!
//! A session has no fixed end, so a dropped session may reach into days that are left: [`DroppedSessions`] says how far.
//! Without a boundary nothing is dropped, or nothing is frozen.

use crate::date_partition::DatePartition;
use crate::published::PublishedView;
use crate::retention::Retention;
use crate::time::{Day, MICROS_PER_DAY, Micros};
use crate::version::BatchVersion;
use crate::window::{Window, WindowId};

/// What retention has taken away from a view.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Horizon {
    retained_from: Option<Day>,
    frozen_before: Option<Day>,
    dropped_sessions: DroppedSessions,
}

/// Which sessions a view has dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum DroppedSessions {
    /// None that could matter: the view has no sessions, or has dropped none.
    #[default]
    None,
    Known(SessionReach),
    /// Some, but the program that wrote the version did not note how far they reach: only a full recomputation finds out.
    Unknown,
}

/// How far dropped sessions reach into the days that are left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SessionReach {
    /// The first day that is left: the dropped sessions start before it.
    pub before: Day,
    /// An upper bound on the end of the last of them.
    pub end: Micros,
}

/// What decides the horizon of a run.
#[derive(Debug, Clone, Copy)]
pub struct HorizonInput<'a> {
    pub window: Window,
    /// The retention that the view declares.
    pub retention: Option<Retention>,
    /// The version that the run builds upon; `None`: there is none of this definition.
    pub previous: Option<&'a BatchVersion>,
    /// The first event date that the archive still has; `None`: it has dropped nothing.
    pub archive_from: Option<Day>,
    pub now: Micros,
}

impl Horizon {
    /// Nothing is dropped and nothing is frozen.
    pub const NONE: Horizon =
        Horizon { retained_from: None, frozen_before: None, dropped_sessions: DroppedSessions::None };

    /// Returns the horizon with these boundaries and no dropped sessions.
    pub fn new(retained_from: Option<Day>, frozen_before: Option<Day>) -> Horizon {
        Horizon { retained_from, frozen_before, ..Horizon::NONE }
    }

    /// Returns the horizon of the active version of a view.
    pub fn of(published: &PublishedView) -> Horizon {
        match published.version.as_deref() {
            Some(version) => Horizon::of_version(version, published.view.window),
            None => Horizon::NONE,
        }
    }

    /// Returns the horizon of `version`, of a view with such windows.
    pub fn of_version(version: &BatchVersion, window: Window) -> Horizon {
        let BatchVersion { retained_from, frozen_before, .. } = *version;
        let dropped_sessions = match (window, retained_from, version.dropped_sessions_end) {
            (Window::Session { .. }, Some(before), Some(end)) => DroppedSessions::Known(SessionReach { before, end }),
            (Window::Session { .. }, Some(_), None) => DroppedSessions::Unknown,
            _ => DroppedSessions::None,
        };
        Horizon { retained_from, frozen_before, dropped_sessions }
    }

    /// Returns the horizon that a run has to establish. Its dropped sessions are those of the previous version.
    pub fn for_run(input: &HorizonInput<'_>) -> Horizon {
        let HorizonInput { window, retention, previous, archive_from, now } = *input;
        let declared = retention.map(|retention| retention.first_day(now));
        let obtainable = declared.max(archive_from.map(|first| Horizon::first_whole_date(window, first)));
        let previous = previous.map(|version| Horizon::of_version(version, window));
        let retained_from = match previous.map(|previous| previous.retained_from) {
            None => obtainable,
            Some(None) => declared,
            // A longer retention: what the archive still has is computed again.
            Some(Some(dropped)) if obtainable.is_none_or(|first| first < dropped) => obtainable,
            // What both the view and the archive have dropped does not come back.
            Some(Some(dropped)) => declared.max(Some(dropped)),
        };
        let dropped_sessions = previous.unwrap_or_default().dropped_sessions;
        Horizon { retained_from, frozen_before: archive_from, dropped_sessions }
    }

    /// Returns the first date whose windows are all whole in an archive that begins with `archive_from` and may have had
    /// events before. A session that starts within a gap of the dropped events may have started among them.
    pub fn first_whole_date(window: Window, archive_from: Day) -> Day {
        match window {
            Window::Session { gap } => {
                let days = gap.saturating_sub(1).div_euclid(MICROS_PER_DAY) + 1;
                Day(archive_from.0.saturating_add(i32::try_from(days).unwrap_or(i32::MAX)))
            }
            _ => archive_from,
        }
    }

    /// Returns the same boundaries with other dropped sessions.
    pub fn with_dropped_sessions(self, dropped_sessions: DroppedSessions) -> Horizon {
        Horizon { dropped_sessions, ..self }
    }

    /// Returns the first window date that is left; `None`: all are.
    pub fn retained_from(self) -> Option<Day> {
        self.retained_from
    }

    /// Returns the first window date that is not frozen; `None`: none is frozen.
    pub fn frozen_before(self) -> Option<Day> {
        self.frozen_before
    }

    /// Returns which sessions are dropped.
    pub fn dropped_sessions(self) -> DroppedSessions {
        self.dropped_sessions
    }

    /// Returns how far dropped sessions reach, as versions note it.
    pub fn dropped_sessions_end(self) -> Option<Micros> {
        match self.dropped_sessions {
            DroppedSessions::Known(reach) => Some(reach.end),
            DroppedSessions::None | DroppedSessions::Unknown => None,
        }
    }

    /// Returns the start of the first window that is shown; `None`: all are.
    pub fn first_shown(self) -> Option<Micros> {
        self.retained_from.map(Day::start)
    }

    /// Returns the start of the first window that the speed layer contributes to; `None`: it contributes to all.
    pub fn speed_starts(self) -> Option<Micros> {
        self.frozen_before.map(Day::start)
    }

    /// Returns the id of the first window that the speed layer contributes to; `None`: it contributes to all.
    pub fn first_speed_id(self, window: Window) -> Option<WindowId> {
        self.speed_starts().map(|start| window.ids_starting_in(start, Micros(i64::MAX)).start)
    }

    /// Returns the first date whose windows are computed from their events; `None`: those of all dates are.
    pub fn first_computed(self) -> Option<Day> {
        self.retained_from.max(self.frozen_before)
    }

    /// Returns whether a window that starts at `start` is frozen (or dropped, if it starts even earlier).
    pub fn is_frozen(self, start: Micros) -> bool {
        self.speed_starts().is_some_and(|first| start < first)
    }

    /// Returns whether the windows of a date are frozen (or dropped). Windows without a date never are.
    pub fn is_frozen_date(self, date: DatePartition) -> bool {
        date.day().zip(self.frozen_before).is_some_and(|(day, first)| day < first)
    }

    /// Returns whether the windows of a date are dropped. Windows without a date never are.
    pub fn is_dropped_date(self, date: DatePartition) -> bool {
        date.day().zip(self.retained_from).is_some_and(|(day, first)| day < first)
    }

    /// Returns whether no window of the date's events is computed. Sessions may start long before any of their events, and
    /// end long after, so their events may always matter.
    pub fn excludes_events_of(self, window: Window, date: DatePartition) -> bool {
        let (Some(first), Some(day)) = (self.first_computed(), date.day()) else { return false };
        match window {
            Window::Session { .. } => false,
            window => window.window_days_of(day).is_some_and(|days| *days.end() < first.0),
        }
    }

    /// Returns whether dates that `previous` had dropped are back, so that everything has to be recomputed.
    pub fn restores(self, previous: Horizon) -> bool {
        self.retained_from < previous.retained_from
    }

    /// Returns whether `version`, of a view with such windows, has dates to drop or to freeze, or too few: then a run has
    /// something to do without a new event.
    pub fn differs_from(self, version: &BatchVersion, window: Window) -> bool {
        let previous = Horizon::of_version(version, window);
        let has_dropped = version.files.iter().any(|file| self.is_dropped_date(file.date));
        self.restores(previous) || has_dropped || self.frozen_before > previous.frozen_before
    }
}

impl SessionReach {
    /// Returns the first day whose events decide which later events belong to a dropped session, in a view whose sessions
    /// are `gap` microseconds apart.
    pub fn needed_from(self, gap: i64) -> Day {
        Micros(self.before.start().0.saturating_sub(gap)).day()
    }

    /// Returns the first day to read to find which events of `day` belong to a dropped session. A session that reaches
    /// `day` has an event within a gap of the first day that is left.
    pub fn first_day(self, gap: i64, day: Day) -> Day {
        if self.end > day.start() { self.needed_from(gap).min(day) } else { day }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::window::Grid;

    const HOUR: i64 = 3_600_000_000;
    const HOURLY: Window = Window::Tumble(Grid::Fixed { size: HOUR, offset: 0 });
    const SESSIONS: Window = Window::Session { gap: HOUR };

    fn version(retained_from: Option<i32>, frozen_before: Option<i32>) -> BatchVersion {
        let text = r#"{"view":"v","sql":"","definition_hash":"","version":1,"run":"","published_at":"1970-01-01T00:00:00Z","seam":{},
            "ledger":{"events":0,"positions":"00000000000000000000000000000000"},"full":true,"rows":0}"#;
        let version: BatchVersion = serde_json::from_str(text).expect("a version");
        BatchVersion { retained_from: retained_from.map(Day), frozen_before: frozen_before.map(Day), ..version }
    }

    fn for_run(retention: Option<Retention>, previous: Option<&BatchVersion>, archive_from: Option<i32>) -> Horizon {
        let now = Micros(Day(100).start().0 + 1);
        let archive_from = archive_from.map(Day);
        Horizon::for_run(&HorizonInput { window: HOURLY, retention, previous, archive_from, now })
    }

    #[test]
    fn a_longer_retention_restores_dates_and_a_later_day_does_not() {
        let week = Some(Retention { months: 0, days: 7 });
        let of = |retention, dropped, archive_from: Option<i32>| {
            let previous = version(dropped, None);
            let horizon = for_run(retention, Some(&previous), archive_from);
            let restores = horizon.restores(Horizon::of_version(&previous, HOURLY));
            (horizon.retained_from().map(|day| day.0), restores)
        };
        assert_eq!(of(week, None, None), (Some(93), false));
        assert_eq!(of(week, Some(92), None), (Some(93), false));
        assert_eq!(of(week, Some(95), None), (Some(93), true));
        assert_eq!(of(None, Some(95), None), (None, true));
        assert_eq!(of(None, None, None), (None, false));
        // Only dates that the archive still has can be restored.
        assert_eq!(of(week, Some(95), Some(94)), (Some(94), true));
        assert_eq!(of(week, Some(95), Some(95)), (Some(95), false));
        assert_eq!(of(None, Some(95), Some(97)), (Some(95), false), "what was frozen since stays");
        assert_eq!(of(None, None, Some(97)), (None, false), "a view that had everything keeps it");
    }

    #[test]
    fn a_view_without_a_version_starts_with_the_first_whole_window() {
        assert_eq!(for_run(None, None, Some(40)).retained_from(), Some(Day(40)));
        let first = |gap| Horizon::first_whole_date(Window::Session { gap }, Day(40)).0;
        assert_eq!(first(HOUR), 41, "a session of day 40 may have started on day 39");
        assert_eq!(first(24 * HOUR), 41);
        assert_eq!(first(24 * HOUR + 2), 42);
    }

    #[test]
    fn newly_dropped_dates_require_a_run() {
        let differs = |archive_from, version| for_run(None, None, archive_from).differs_from(&version, HOURLY);
        assert!(differs(Some(40), version(Some(40), None)));
        assert!(!differs(Some(40), version(Some(40), Some(40))));
        assert!(!differs(None, version(None, None)));
    }

    #[test]
    fn events_are_excluded_if_all_their_windows_are_dropped() {
        let horizon = Horizon::new(Some(Day(10)), None);
        assert!(horizon.excludes_events_of(HOURLY, DatePartition::Day(Day(9))));
        assert!(!horizon.excludes_events_of(HOURLY, DatePartition::Day(Day(10))));
        let undated = DatePartition::Undated;
        assert!(!horizon.excludes_events_of(HOURLY, undated), "events without a date are never dropped");
        let date = DatePartition::Day(Day(9));
        assert!(!horizon.excludes_events_of(SESSIONS, date), "a session may reach over");
        assert!(!Horizon::NONE.excludes_events_of(HOURLY, DatePartition::Day(Day(9))));
    }

    #[test]
    fn a_version_without_a_note_of_dropped_sessions_is_recognized() {
        let of = |end: Option<i64>, window| {
            let version = BatchVersion { dropped_sessions_end: end.map(Micros), ..version(Some(3), None) };
            Horizon::of_version(&version, window).dropped_sessions()
        };
        assert_eq!(of(None, SESSIONS), DroppedSessions::Unknown);
        assert_eq!(of(Some(7), SESSIONS), DroppedSessions::Known(SessionReach { before: Day(3), end: Micros(7) }));
        assert_eq!(of(Some(7), HOURLY), DroppedSessions::None);
    }
}
