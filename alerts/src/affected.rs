//! Derives from changed rows which rows of the view have to be evaluated again, and which rows that needs.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::ops::Range;
use std::sync::Arc;

use shared::changed_rows::ChangedRow;
use shared::partial::block::Part;
use shared::partial::states::NO_GROUP;
use shared::partial::wanted::WantedRows;
use shared::window::{Grid, Window, WindowId};

/// The rows to evaluate.
#[derive(Debug)]
pub struct AffectedRows {
    /// The rows to read for them.
    pub wanted: Arc<WantedRows>,
    /// The rows themselves; `None`: every row of the keys.
    rows: Option<HashSet<(WindowId, Box<[u8]>)>>,
}

impl AffectedRows {
    /// Returns the rows that depend on `changed` ones: the windows that cover a changed pane, the session of a changed one, the
    /// trailing window; and if conditions read the previous window, the window after a changed one.
    pub fn of_changes(window: Window, changed: Vec<ChangedRow>, reads_previous: bool) -> AffectedRows {
        let mut windows: BTreeMap<Box<[u8]>, BTreeSet<WindowId>> = BTreeMap::new();
        for (pane, key) in changed {
            let of_key = windows.entry(key).or_default();
            match window {
                window if needs_all(window) => {}
                _ => window.for_each_window(pane.pane(), |id| {
                    of_key.insert(id);
                }),
            }
            if let (Window::Tumble(grid), true) = (window, reads_previous) {
                of_key.insert(WindowId(grid.end_of(pane.0)));
            }
        }
        AffectedRows::new(window, windows, reads_previous)
    }

    /// Returns exactly these rows, by window and key.
    pub fn of_rows(window: Window, rows: impl IntoIterator<Item = ChangedRow>, reads_previous: bool) -> AffectedRows {
        let mut windows: BTreeMap<Box<[u8]>, BTreeSet<WindowId>> = BTreeMap::new();
        for (id, key) in rows {
            let of_key = windows.entry(key).or_default();
            if !needs_all(window) {
                of_key.insert(id);
            }
        }
        AffectedRows::new(window, windows, reads_previous)
    }

    /// Returns these rows of a view with sessions, and those that they may have become part of, or that have become part of
    /// them: every row of their keys whose start is known ([`crate::session_starts`]).
    pub fn of_sessions(window: Window, rows: impl IntoIterator<Item = ChangedRow>) -> AffectedRows {
        let (mut keys, mut times) = (HashSet::new(), Vec::new());
        for (id, key) in rows {
            times.push(id.0);
            keys.insert(key);
        }
        AffectedRows { wanted: Arc::new(WantedRows::sessions_near(window, keys, times)), rows: None }
    }

    fn new(window: Window, windows: BTreeMap<Box<[u8]>, BTreeSet<WindowId>>, reads_previous: bool) -> AffectedRows {
        let needs_all = needs_all(window);
        let rows = (!needs_all).then(|| {
            windows.iter().flat_map(|(key, ids)| ids.iter().map(|id| (*id, key.clone()))).collect::<HashSet<_>>()
        });
        let ranges = |ids: BTreeSet<WindowId>| -> Vec<Range<WindowId>> {
            if needs_all {
                return vec![WindowId::EVERY];
            }
            let mut needed = ids.clone();
            if let (Window::Tumble(grid), true) = (window, reads_previous) {
                needed.extend(ids.iter().map(|id| previous(grid, *id)));
            }
            needed.into_iter().map(|id| id..WindowId(id.0.saturating_add(1))).collect()
        };
        let wanted = WantedRows::new(window, windows.into_iter().map(|(key, ids)| (key, ranges(ids))));
        AffectedRows { wanted: Arc::new(wanted), rows }
    }

    /// Returns the rows to evaluate; nothing if they are every row of the keys.
    pub fn named(&self) -> impl Iterator<Item = &ChangedRow> {
        self.rows.iter().flatten()
    }

    /// Returns whether the row has to be evaluated.
    pub fn has(&self, window: WindowId, key: &[u8]) -> bool {
        // The set owns its keys; a lookup of a borrowed one would need a key of its own.
        self.rows.as_ref().is_none_or(|rows| rows.contains(&(window, Box::from(key))))
    }
}

/// Returns whether a row needs every row of its key: sessions are joined from all their pieces, and the trailing window moves.
fn needs_all(window: Window) -> bool {
    window.gap().is_some() || matches!(window, Window::Slide { .. })
}

/// Returns the id of the window before one of TUMBLE.
pub fn previous(grid: Grid, id: WindowId) -> WindowId {
    WindowId(grid.start_of(id.0.saturating_sub(1)))
}

/// Returns the rows of a part, at most `rows_max` at a time.
pub fn rows_of(part: &Part, rows_max: usize) -> impl Iterator<Item = Vec<ChangedRow>> + '_ {
    let of_block = |block: &'_ Arc<shared::partial::block::Block>| {
        let rows = block.windows.iter().zip(&block.keys).filter(|(_, key)| **key != NO_GROUP);
        rows.map(|(window, key)| (*window, Box::from(part.keys.get(*key)))).collect::<Vec<ChangedRow>>()
    };
    part.blocks.iter().flat_map(move |block| {
        let mut rows = of_block(block);
        let mut chunks = Vec::with_capacity(rows.len() / rows_max + 1);
        while rows.len() > rows_max {
            let rest = rows.split_off(rows_max);
            chunks.push(std::mem::replace(&mut rows, rest));
        }
        chunks.push(rows);
        chunks
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(text: &str) -> Box<[u8]> {
        text.as_bytes().into()
    }

    fn affected(window: Window, changed: &[(i64, &str)], reads_previous: bool) -> Vec<(i64, String)> {
        let changed = changed.iter().map(|(pane, text)| (WindowId(*pane), key(text))).collect();
        let rows = AffectedRows::of_changes(window, changed, reads_previous);
        let mut found: Vec<(i64, String)> =
            rows.rows.iter().flatten().map(|(id, key)| (id.0, String::from_utf8_lossy(key).into_owned())).collect();
        found.sort();
        found
    }

    #[test]
    fn every_window_that_covers_a_changed_pane_is_affected_and_no_other() {
        let grid = Grid::Fixed { size: 10, offset: 0 };
        let found = |rows: &[(i64, &str)]| rows.iter().map(|(id, key)| (*id, (*key).to_owned())).collect::<Vec<_>>();
        assert_eq!(affected(Window::All, &[(0, "a"), (0, "b")], false), found(&[(0, "a"), (0, "b")]));
        assert_eq!(affected(Window::Tumble(grid), &[(10, "a")], false), found(&[(10, "a")]));
        assert_eq!(affected(Window::Tumble(grid), &[(10, "a")], true), found(&[(10, "a"), (20, "a")]));
        let hop = Window::Hop { panes: grid, slide: 1, size: 3 };
        assert_eq!(affected(hop, &[(30, "a")], false), found(&[(10, "a"), (20, "a"), (30, "a")]));
        let sessions = AffectedRows::of_changes(Window::Session { gap: 5 }, vec![(WindowId(3), key("a"))], false);
        assert!(sessions.has(WindowId(17), b"a") && sessions.wanted.hull() == WindowId::EVERY);
        let of_table = AffectedRows::of_rows(Window::TableSession { gap: 5 }, [(WindowId(3), key("a"))], false);
        assert!(of_table.has(WindowId(17), b"a") && of_table.wanted.hull() == WindowId::EVERY);
    }

    #[test]
    fn the_previous_window_is_read_and_not_evaluated() {
        let grid = Grid::Fixed { size: 10, offset: 0 };
        let rows = AffectedRows::of_rows(Window::Tumble(grid), [(WindowId(20), key("a"))], true);
        assert_eq!(rows.wanted.hull(), WindowId(10)..WindowId(21));
        assert!(rows.has(WindowId(20), b"a") && !rows.has(WindowId(10), b"a"));
    }
}
