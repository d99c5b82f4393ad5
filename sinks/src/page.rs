//! Collects the next rows of a walk: the smallest ones after the last row of the page before, within bounds. Rows may be offered
//! in any order and several times, so a walk needs no list of all rows, and survives changes between its pages.

use std::collections::BTreeSet;

use shared::changed_rows::ChangedRow;
use shared::partial::block::Part;
use shared::partial::states::NO_GROUP;
use shared::window::WindowId;

/// The next rows of a walk.
#[derive(Debug)]
pub struct Page<'a> {
    after: Option<&'a ChangedRow>,
    rows: BTreeSet<ChangedRow>,
    bytes: usize,
    /// The smallest row that had no room: it and those after it are on later pages.
    end: Option<ChangedRow>,
    rows_max: usize,
    bytes_max: usize,
}

impl<'a> Page<'a> {
    /// Returns an empty page for rows after `after`. It has room for one row at least, however long its key is.
    pub fn new(after: Option<&'a ChangedRow>, rows_max: usize, bytes_max: usize) -> Page<'a> {
        Page { after, rows: BTreeSet::new(), bytes: 0, end: None, rows_max, bytes_max }
    }

    /// Puts a row onto the page if it belongs there.
    pub fn offer(&mut self, window: WindowId, key: &[u8]) {
        let place = (window, key);
        let is_before = |row: &ChangedRow| place < (row.0, &*row.1);
        let is_done = self.after.is_some_and(|after| place <= (after.0, &*after.1));
        if is_done || self.end.as_ref().is_some_and(|end| !is_before(end)) {
            return;
        }
        if self.rows.len() >= self.rows_max && self.rows.last().is_some_and(|last| !is_before(last)) {
            return;
        }
        if self.rows.insert((window, key.into())) {
            self.bytes += key.len();
        }
        while self.rows.len() > 1 && (self.rows.len() > self.rows_max || self.bytes > self.bytes_max) {
            let Some(last) = self.rows.pop_last() else { break };
            self.bytes -= last.1.len();
            self.end = Some(last);
        }
    }

    /// Offers the rows of a part whose windows satisfy `is_wanted`.
    pub fn offer_part(&mut self, part: &Part, is_wanted: impl Fn(WindowId) -> bool) {
        let after = self.after;
        let is_passed = |last: WindowId| after.is_some_and(|after| last < after.0);
        for block in part.blocks.iter().filter(|block| !is_passed(block.window_range.1)) {
            for (window, key) in block.windows.iter().zip(&block.keys).filter(|(_, key)| **key != NO_GROUP) {
                if is_wanted(*window) {
                    self.offer(*window, part.keys.get(*key));
                }
            }
        }
    }

    /// Returns the rows in order.
    pub fn into_rows(self) -> Vec<ChangedRow> {
        self.rows.into_iter().collect()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn pages_have_every_row_once_in_order(
            offered in prop::collection::vec((0..6i64, prop::collection::vec(0..3u8, 0..6)), 0..60),
            rows_max in 1..9usize,
            bytes_max in 0..20usize,
        ) {
            let expected: BTreeSet<ChangedRow> =
                offered.iter().map(|(window, key)| (WindowId(*window), key.as_slice().into())).collect();
            let (mut walked, mut after): (Vec<ChangedRow>, Option<ChangedRow>) = (Vec::new(), None);
            loop {
                let mut page = Page::new(after.as_ref(), rows_max, bytes_max);
                offered.iter().for_each(|(window, key)| page.offer(WindowId(*window), key));
                let rows = page.into_rows();
                prop_assert!(rows.len() <= rows_max);
                let bytes: usize = rows.iter().map(|row| row.1.len()).sum();
                prop_assert!(rows.len() <= 1 || bytes <= bytes_max);
                let Some(last) = rows.last() else { break };
                after = Some(last.clone());
                walked.extend(rows);
            }
            prop_assert_eq!(walked, expected.into_iter().collect::<Vec<_>>());
        }
    }
}
