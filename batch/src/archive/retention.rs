//! Chooses the event dates that an archive drops: those older than the stream's retention, once every view covers all their
//! events and no open window reaches into them. Works on a list of files and positions; opens nothing.

use std::collections::BTreeSet;

use lake::archive_tags::InvalidTag;
use lake::{ArchiveTags, DataFile, DroppedEvents};
use shared::date_partition::DatePartition;
use shared::ids::{Offset, Partition};
use shared::time::{Day, Micros};
use shared::window::Window;

/// The dates that an archive drops.
#[derive(Debug, Clone, PartialEq)]
pub struct DatesToDrop {
    pub files: Vec<DataFile>,
    /// Number of dates.
    pub dates: u64,
    /// Number of events.
    pub events: u64,
    /// Everything that is dropped then, including earlier dates.
    pub dropped: DroppedEvents,
}

/// Returns what to drop of `files`, if all dates before `wanted` may go and `before` is dropped already. `None`: nothing.
///
/// The first date that stays never moves back. Late events of dropped dates are dropped as soon as all views cover them:
/// those before `covered` of their partition (`None`: there is no view).
pub fn dates_to_drop(
    files: &[DataFile],
    before: Option<&DroppedEvents>,
    wanted: Day,
    covered: impl Fn(Partition) -> Option<Offset>,
) -> Result<Option<DatesToDrop>, InvalidTag> {
    let known = before.map(|dropped| dropped.retained_from);
    let dated = |file: &DataFile| Ok((file.partition, ArchiveTags::from_tags(&file.tags)?, file.clone()));
    let files: Vec<(DatePartition, ArchiveTags, DataFile)> = files.iter().map(dated).collect::<Result<_, _>>()?;
    let is_covered = |tags: &ArchiveTags| covered(tags.partition).is_none_or(|covered| tags.to <= covered);
    let uncovered = files.iter().filter(|(_, tags, _)| !is_covered(tags)).filter_map(|(date, ..)| date.day());
    // Of a dropped date, events that are not covered wait; a date that is not dropped waits for them.
    let first_uncovered = uncovered.filter(|date| known.is_none_or(|known| *date >= known)).min();
    // I12: a date is dropped only when every view covers all its events.
    let from = wanted.min(first_uncovered.unwrap_or(wanted)).max(known.unwrap_or(Day(i32::MIN)));
    let is_dropped =
        |date: &DatePartition, tags: &ArchiveTags| date.day().is_some_and(|day| day < from) && is_covered(tags);
    let to_drop: Vec<_> = files.into_iter().filter(|(date, tags, _)| is_dropped(date, tags)).collect();
    if to_drop.is_empty() {
        return Ok(None);
    }
    let mut dropped = before.cloned().unwrap_or_else(|| DroppedEvents::nothing(from));
    dropped.retained_from = from;
    to_drop.iter().for_each(|(_, tags, _)| dropped.add(tags));
    Ok(Some(DatesToDrop {
        dates: to_drop.iter().map(|(date, ..)| *date).collect::<BTreeSet<_>>().len() as u64,
        events: to_drop.iter().map(|(_, tags, _)| tags.ledger.events).sum(),
        files: to_drop.into_iter().map(|(_, _, file)| file).collect(),
        dropped,
    }))
}

/// Returns the first date on which a window starts that may still change at `now`: it ends, with `allowed_lateness_us`, later.
/// `None`: all dates are needed, since there is one window over all time. `sessions` gives for each day the end of the last
/// session that starts on it, in microseconds.
pub fn first_open(
    window: Window,
    allowed_lateness_us: i64,
    now: Micros,
    sessions: impl Iterator<Item = (Day, i64)>,
) -> Option<Day> {
    let over = now.0.saturating_sub(allowed_lateness_us);
    let start = match window {
        Window::All => return None,
        Window::Slide { size, .. } => over.saturating_sub(size),
        Window::Session { gap } => {
            let open = sessions.filter(|(_, end)| *end > over).map(|(day, _)| day.start().0);
            open.min().unwrap_or(i64::MAX).min(over.saturating_sub(gap))
        }
        window => {
            let mut first = over;
            window.for_each_window(window.pane_of(Micros(over)), |id| first = first.min(window.bounds(id).0.0));
            first
        }
    };
    Some(Micros(start).day())
}

#[cfg(test)]
mod tests {
    use shared::ledger::Ledger;
    use shared::window::Grid;

    use super::*;

    const HOUR: i64 = 3_600_000_000;

    fn file(day: i32, from: u64, to: u64) -> DataFile {
        let tags = ArchiveTags {
            partition: Partition(0),
            from: Offset(from),
            to: Offset(to),
            rows: to - from,
            erased: 0,
            ledger: Ledger::of_range(Partition(0), Offset(from), Offset(to)),
            latest_watermark: Micros::MIN,
        };
        DataFile {
            path: format!("{day}/{from}"),
            partition: DatePartition::Day(Day(day)),
            size_bytes: 1,
            rows: (to - from) as i64,
            tags: tags.to_tags(),
            stats_json: None,
        }
    }

    fn what(
        files: &[DataFile],
        before: Option<&DroppedEvents>,
        wanted: i32,
        covered: Option<u64>,
    ) -> Option<(i32, u64, u64)> {
        let dropping = dates_to_drop(files, before, Day(wanted), |_| covered.map(Offset)).expect("tags")?;
        Some((dropping.dropped.retained_from.0, dropping.dates, dropping.events))
    }

    #[test]
    fn dates_are_dropped_when_they_are_too_old_and_every_view_covers_them() {
        let files = [file(10, 0, 5), file(11, 5, 9), file(12, 9, 12), file(11, 12, 13)];
        assert_eq!(what(&files, None, 12, Some(13)), Some((12, 2, 10)));
        assert_eq!(what(&files, None, 12, None), Some((12, 2, 10)), "no view needs anything");
        assert_eq!(what(&files, None, 12, Some(12)), Some((11, 1, 5)), "a late event of date 11 is in no version");
        assert_eq!(what(&files, None, 12, Some(0)), None);
        assert_eq!(what(&files, None, 10, Some(13)), None);
    }

    #[test]
    fn late_events_of_dropped_dates_are_dropped_later_and_the_first_date_never_moves_back() {
        let mut before = DroppedEvents::nothing(Day(12));
        before.add(&ArchiveTags::from_tags(&file(10, 0, 5).tags).expect("tags"));
        let files = [file(3, 20, 22), file(11, 5, 9), file(12, 9, 12)];
        assert_eq!(
            what(&files, Some(&before), 8, Some(22)),
            Some((12, 2, 6)),
            "a longer retention brings nothing back"
        );
        assert_eq!(
            what(&files, Some(&before), 13, Some(20)),
            Some((13, 2, 7)),
            "uncovered events of dropped dates wait"
        );
        let all = dates_to_drop(&files, Some(&before), Day(12), |_| None).expect("tags").expect("some").dropped;
        let expected = Ledger::of_range(Partition(0), Offset(0), Offset(9))
            + Ledger::of_range(Partition(0), Offset(20), Offset(22));
        assert_eq!((all.ledger(), all.partitions[&Partition(0)].to), (expected, Offset(22)));
    }

    #[test]
    fn open_windows_keep_their_events() {
        let now = Micros(Day(100).start().0 + 10 * HOUR);
        let open = |window, lateness| first_open(window, lateness, now, std::iter::empty()).map(|day| day.0);
        let tumble = |hours: i64| Window::Tumble(Grid::Fixed { size: hours * HOUR, offset: 0 });
        assert_eq!(open(tumble(1), 0), Some(100));
        assert_eq!(open(tumble(1), 11 * HOUR), Some(99));
        assert_eq!(open(tumble(24 * 50), 0), Some(100));
        assert_eq!(open(tumble(24 * 60), 0), Some(60));
        let hop = Window::Hop { panes: Grid::Fixed { size: 24 * HOUR, offset: 0 }, slide: 1, size: 7 };
        assert_eq!(open(hop, 0), Some(94));
        assert_eq!(open(Window::Slide { size: 48 * HOUR, pane: HOUR }, 0), Some(98));
        assert_eq!(open(Window::All, 0), None);
        let session = Window::Session { gap: HOUR };
        assert_eq!(open(session, 0), Some(100));
        let sessions = [(Day(90), now.0 + 1), (Day(80), now.0)].into_iter();
        assert_eq!(first_open(session, 0, now, sessions), Some(Day(90)), "it may go on");
    }
}
