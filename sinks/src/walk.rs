//! Keeps track of the rows that a sink visits besides those that folds report: all live rows, after a start or when too many
//! rows have changed, the rows of the topic, after a start that may have folded events into other rows than before, and the rows of new
//! batch versions. It reads nothing.
//!
//! A walk goes from page to page. A page stays until it is in the topic, so a failed transaction repeats it.

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;

use shared::changed_rows::ChangedRow;
use shared::date_partition::DatePartition;
use shared::time::{Day, Micros};
use shared::version::BatchVersion;
use shared::window::Window;

/// The rows that are still to be visited.
#[derive(Debug)]
pub struct Walk {
    /// Rows of a page.
    page_rows: usize,
    pages: VecDeque<Vec<ChangedRow>>,
    /// Whether a page has changes of folds, so that no cut is complete before it is written.
    has_live_pages: bool,
    live: Option<LiveWalk>,
    sent: Option<SentWalk>,
    pub comparison: Option<Comparison>,
}

/// A walk through the rows of the live generations.
#[derive(Debug, Default)]
pub struct LiveWalk {
    /// The last row of the page before.
    pub after: Option<ChangedRow>,
    /// Whether rows before it may have changed since: then the walk starts again.
    again: bool,
}

/// A walk through the rows that the topic has.
#[derive(Debug, Default)]
pub struct SentWalk {
    /// The last row of the page before.
    pub after: Option<ChangedRow>,
}

/// A walk through the rows of a batch version that the topic may not have.
#[derive(Debug)]
pub struct Comparison {
    pub version: Arc<BatchVersion>,
    pub dates: VecDeque<DatePartition>,
    /// The last row of the page before, of the first date.
    pub after: Option<ChangedRow>,
}

impl Walk {
    /// Returns a walk without rows, in pages of `page_rows`.
    pub fn new(page_rows: usize) -> Walk {
        Walk { page_rows, pages: VecDeque::new(), has_live_pages: false, live: None, sent: None, comparison: None }
    }

    /// Visits every live row.
    pub fn visit_live(&mut self) {
        match &mut self.live {
            Some(live) => live.again |= live.after.is_some(),
            None => self.live = Some(LiveWalk::default()),
        }
    }

    /// Visits every row that the topic has.
    pub fn visit_sent(&mut self) {
        self.sent.get_or_insert_default();
    }

    /// Visits these rows, which folds have changed.
    pub fn visit_changed(&mut self, rows: impl IntoIterator<Item = ChangedRow>) {
        self.has_live_pages = true;
        self.add(rows.into_iter().collect());
    }

    /// Visits a page of live rows that ends with `last`; `None`: there are no further ones.
    pub fn live_page(&mut self, rows: Vec<ChangedRow>, last: Option<ChangedRow>) {
        let Some(live) = &mut self.live else { return };
        match last {
            Some(last) => live.after = Some(last),
            None if live.again => *live = LiveWalk::default(),
            None => self.live = None,
        }
        self.has_live_pages |= !rows.is_empty();
        self.add(rows);
    }

    /// Visits a page of rows of the topic; an empty one: there are no further ones.
    pub fn sent_page(&mut self, rows: Vec<ChangedRow>) {
        self.sent = rows.last().map(|last| SentWalk { after: Some(last.clone()) });
        self.has_live_pages |= !rows.is_empty();
        self.add(rows);
    }

    /// Visits a page of the first date of the comparison that ends with `last`; `None`: the date has no further rows.
    pub fn date_page(&mut self, rows: Vec<ChangedRow>, last: Option<ChangedRow>) {
        let Some(comparison) = &mut self.comparison else { return };
        if last.is_none() {
            comparison.dates.pop_front();
        }
        comparison.after = last;
        self.add(rows);
    }

    fn add(&mut self, rows: Vec<ChangedRow>) {
        self.pages.extend(rows.chunks(self.page_rows).map(<[ChangedRow]>::to_vec));
    }

    /// Returns the walk through live rows, if one is in progress.
    pub fn live(&self) -> Option<&LiveWalk> {
        self.live.as_ref()
    }

    /// Returns the walk through the rows of the topic, if one is in progress.
    pub fn sent(&self) -> Option<&SentWalk> {
        self.sent.as_ref()
    }

    /// Returns the rows to visit next; `None`: another page has to be read first.
    pub fn page(&self) -> Option<&Vec<ChangedRow>> {
        self.pages.front()
    }

    /// Notes that the topic has the rows of the page.
    pub fn written(&mut self) {
        self.pages.pop_front();
        self.has_live_pages &= !self.pages.is_empty();
    }

    /// Returns whether any row is still to be visited.
    pub fn is_pending(&self) -> bool {
        !self.pages.is_empty() || self.live.is_some() || self.sent.is_some() || self.comparison.is_some()
    }

    /// Returns whether changes before the present cut may be among the rows still to be visited.
    pub fn holds_cut(&self) -> bool {
        self.live.is_some() || self.sent.is_some() || self.has_live_pages
    }
}

/// Returns the dates of files that only one of two versions has; without an earlier one, of all files.
pub fn changed_dates(version: &BatchVersion, before: Option<&BatchVersion>) -> Vec<DatePartition> {
    let paths =
        |version: &BatchVersion| version.files.iter().map(|file| file.path.clone()).collect::<HashSet<String>>();
    let (now, earlier) = (paths(version), before.map(paths).unwrap_or_default());
    let files = version.files.iter().chain(before.iter().flat_map(|before| &before.files));
    let changed = files.filter(|file| now.contains(&file.path) != earlier.contains(&file.path));
    changed.map(|file| file.date).collect()
}

/// Returns the dates of files that may have windows which end after `watermark`.
pub fn open_dates(version: &BatchVersion, window: Window, watermark: Option<Micros>) -> Vec<DatePartition> {
    let longest = version.longest_session_us;
    let is_open = |date: &DatePartition| match (date.day(), watermark) {
        (Some(day), Some(watermark)) => match window {
            Window::Session { .. } if longest > 0 => {
                Day(day.0.saturating_add(1)).start().0.saturating_add(longest) > watermark.0
            }
            _ => window.event_days_of(day).is_none_or(|days| *days.end() >= watermark.day().0),
        },
        _ => true,
    };
    version.files.iter().map(|file| file.date).filter(is_open).collect()
}

#[cfg(test)]
mod tests {
    use shared::version::{Origin, VersionFile};
    use shared::window::{Grid, WindowId};

    use super::*;

    const HOUR: i64 = 3_600_000_000;

    fn row(id: i64) -> ChangedRow {
        (WindowId(id), [1].into())
    }

    /// Writes all pages that are read, and returns their rows.
    fn written(walk: &mut Walk) -> Vec<i64> {
        let mut rows = Vec::new();
        while let Some(page) = walk.page() {
            rows.extend(page.iter().map(|row| row.0.0));
            walk.written();
        }
        rows
    }

    #[test]
    fn a_walk_through_live_rows_starts_again_if_rows_before_its_page_may_have_changed() {
        let mut walk = Walk::new(2);
        walk.visit_live();
        // Nothing was read yet.
        walk.visit_live();
        walk.live_page(vec![row(1), row(2), row(3)], Some(row(3)));
        assert_eq!(walk.live().and_then(|live| live.after.clone()), Some(row(3)));
        assert_eq!(written(&mut walk), [1, 2, 3]);
        assert!(walk.holds_cut(), "rows after the page are still to be visited");
        walk.live_page(Vec::new(), None);
        assert!(!walk.is_pending());
        walk.visit_live();
        walk.live_page(vec![row(1)], Some(row(1)));
        walk.visit_live();
        walk.live_page(Vec::new(), None);
        assert_eq!(walk.live().map(|live| live.after.clone()), Some(None), "from the beginning");
        walk.live_page(Vec::new(), None);
        assert!(walk.holds_cut(), "the page is not written yet");
        assert_eq!(written(&mut walk), [1]);
        assert!(!walk.holds_cut() && !walk.is_pending());
    }

    #[test]
    fn a_walk_through_the_rows_of_the_topic_holds_the_cut_until_all_are_written() {
        let mut walk = Walk::new(2);
        walk.visit_sent();
        walk.sent_page(vec![row(1), row(2)]);
        walk.visit_sent();
        assert_eq!(walk.sent().and_then(|sent| sent.after.clone()), Some(row(2)), "it continues");
        assert_eq!(written(&mut walk), [1, 2]);
        assert!(walk.is_pending() && walk.holds_cut());
        walk.sent_page(Vec::new());
        assert!(walk.sent().is_none() && !walk.is_pending() && !walk.holds_cut());
    }

    #[test]
    fn rows_of_a_version_hold_no_cut_and_changed_rows_do() {
        let mut walk = Walk::new(1);
        let days = [1, 2].map(|day| DatePartition::Day(Day(day)));
        walk.comparison = Some(Comparison { version: version(&[]), dates: days.into(), after: None });
        walk.date_page(vec![row(1)], Some(row(1)));
        assert!(walk.is_pending() && !walk.holds_cut());
        walk.visit_changed([row(2), row(3)]);
        assert!(walk.holds_cut());
        assert_eq!(written(&mut walk), [1, 2, 3]);
        assert!(!walk.holds_cut());
        walk.date_page(Vec::new(), None);
        let comparison = walk.comparison.as_ref().expect("another date");
        assert_eq!((comparison.dates.len(), &comparison.after), (1, &None));
    }

    fn version(days: &[i32]) -> Arc<BatchVersion> {
        let text = r#"{"view":"v","sql":"","definition_hash":"","version":1,"run":"","published_at":"1970-01-01T00:00:00Z","seam":{},
            "ledger":{"events":0,"positions":"00000000000000000000000000000000"},"full":true,"rows":0}"#;
        let version: BatchVersion = serde_json::from_str(text).expect("a version");
        let file = |day: &i32| VersionFile {
            path: format!("file-{day}"),
            date: DatePartition::Day(Day(*day)),
            rows: 1,
            size_bytes: 1,
            origin: Origin::Batch,
        };
        Arc::new(BatchVersion { files: days.iter().map(file).collect(), ..version })
    }

    #[test]
    fn dates_with_windows_that_end_after_the_watermark_are_open() {
        let hours = Window::Tumble(Grid::Fixed { size: HOUR, offset: 0 });
        let days = Window::Hop { panes: Grid::Fixed { size: 24 * HOUR, offset: 0 }, slide: 1, size: 3 };
        let open = |window, watermark: Option<i64>| -> Vec<i32> {
            let dates = open_dates(&version(&[0, 1, 2, 3]), window, watermark.map(Micros));
            dates.into_iter().filter_map(DatePartition::day).map(|day| day.0).collect()
        };
        assert_eq!(open(hours, None), [0, 1, 2, 3]);
        assert_eq!(open(hours, Some(2 * 24 * HOUR + 1)), [2, 3]);
        assert_eq!(open(hours, Some(2 * 24 * HOUR)), [2, 3]);
        assert_eq!(open(days, Some(3 * 24 * HOUR + 1)), [1, 2, 3]);
        let mut sessions = BatchVersion::clone(&version(&[0, 1, 2, 3]));
        sessions.longest_session_us = 30 * HOUR;
        let open = open_dates(&sessions, Window::Session { gap: HOUR }, Some(Micros(3 * 24 * HOUR)));
        // A session that starts just before the end of day 1 ends just before hour 78.
        assert_eq!(open.into_iter().filter_map(DatePartition::day).map(|day| day.0).collect::<Vec<_>>(), [1, 2, 3]);
        let changed = changed_dates(&version(&[1, 2]), Some(&version(&[2, 3])));
        assert_eq!(changed.into_iter().filter_map(DatePartition::day).map(|day| day.0).collect::<Vec<_>>(), [1, 3]);
    }
}
