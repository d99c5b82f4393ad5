//! Names rows of a view by key and window, and finds them in parts, without merging the rest.

use std::ops::Range;

use hashbrown::HashTable;
use smallvec::SmallVec;
use xxhash_rust::xxh3::xxh3_64;

use crate::partial::block::Part;
use crate::partial::states::NO_GROUP;
use crate::window::{Window, WindowId};

/// The rows to find.
#[derive(Debug, Clone, Default)]
pub struct WantedRows {
    keys: Vec<WantedKey>,
    /// Of sessions: times near which they are wanted, in microseconds; `None`: wherever live ones may meet them.
    near: Option<Vec<i64>>,
}

/// The windows to find of one key.
#[derive(Debug, Clone)]
pub struct WantedKey {
    key: Box<[u8]>,
    /// Ids of windows; in a part with panes, rows of the panes that they cover.
    windows: SmallVec<[Range<WindowId>; 1]>,
    panes: SmallVec<[Range<WindowId>; 1]>,
    /// Whether every range is one window, and rows are windows.
    is_single: bool,
}

impl WantedRows {
    /// Returns the rows of `keys`, each encoded key once, with the windows wanted of it.
    pub fn new(window: Window, keys: impl IntoIterator<Item = (Box<[u8]>, Vec<Range<WindowId>>)>) -> WantedRows {
        let wanted = |(key, windows): (Box<[u8]>, Vec<Range<WindowId>>)| {
            let windows: SmallVec<[Range<WindowId>; 1]> = windows.into_iter().collect();
            let panes = windows.iter().map(|ids| {
                let panes = window.panes_of(ids);
                panes.start.window()..panes.end.window()
            });
            let has_windows = matches!(window, Window::All | Window::Tumble(_));
            let is_one = |ids: &Range<WindowId>| ids.start.0.checked_add(1) == Some(ids.end.0);
            WantedKey { key, panes: panes.collect(), is_single: has_windows && windows.iter().all(is_one), windows }
        };
        WantedRows { keys: keys.into_iter().map(wanted).collect(), near: None }
    }

    /// Wants of `keys` the sessions near `times`, in microseconds, and near live ones.
    pub fn sessions_near(window: Window, keys: impl IntoIterator<Item = Box<[u8]>>, times: Vec<i64>) -> WantedRows {
        // Any live session of a key can be a piece of a wanted one.
        let keys = keys.into_iter().map(|key| (key, vec![WindowId::EVERY]));
        WantedRows { near: Some(times), ..WantedRows::new(window, keys) }
    }

    /// Returns the times near which sessions are wanted; `None`: wherever live ones may meet them.
    pub fn near(&self) -> Option<&[i64]> {
        self.near.as_deref()
    }

    /// Returns the keys, each with its windows.
    pub fn keys(&self) -> impl Iterator<Item = &WantedKey> {
        self.keys.iter()
    }

    /// Returns the number of keys.
    pub fn len(&self) -> usize {
        self.keys.len()
    }

    /// Returns whether nothing is wanted.
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// Returns the smallest range that has every wanted window.
    pub fn hull(&self) -> Range<WindowId> {
        let ranges = || self.keys.iter().flat_map(|key| &key.windows);
        let start = ranges().map(|ids| ids.start).min().unwrap_or(WindowId::ALL_TIME);
        start..ranges().map(|ids| ids.end).max().unwrap_or(start)
    }
}

impl WantedKey {
    /// Returns the encoded key.
    pub fn key(&self) -> &[u8] {
        &self.key
    }

    /// Returns the wanted ranges of window ids.
    pub fn windows(&self) -> &[Range<WindowId>] {
        &self.windows
    }

    /// Returns the windows if each is named alone and has one row.
    pub fn single_windows(&self) -> Option<impl Iterator<Item = WindowId> + '_> {
        self.is_single.then(|| self.windows.iter().map(|ids| ids.start))
    }

    /// Returns whether the row with this window, or pane, of the key is wanted.
    pub fn wants(&self, window: WindowId, is_pane: bool) -> bool {
        let ranges = if is_pane { &self.panes } else { &self.windows };
        ranges.iter().any(|ids| ids.contains(&window))
    }
}

/// Finds the rows of each key of an immutable part.
#[derive(Debug)]
pub struct PartIndex {
    /// Numbers of keys.
    table: HashTable<u32>,
    /// By key: where its rows start in `rows`.
    starts: Vec<u32>,
    /// Block and row.
    rows: Vec<(u32, u32)>,
}

impl PartIndex {
    /// Indexes a part.
    pub fn new(part: &Part) -> PartIndex {
        let mut starts = vec![0_u32; part.keys.len() + 1];
        let of_part = || part.blocks.iter().flat_map(|block| &block.keys).filter(|key| **key != NO_GROUP);
        of_part().for_each(|key| starts[*key as usize + 1] += 1);
        for at in 1..starts.len() {
            starts[at] += starts[at - 1];
        }
        let mut next = starts.clone();
        let mut rows = vec![(0, 0); starts.last().map_or(0, |count| *count as usize)];
        for (number, block) in (0..).zip(&part.blocks) {
            for (row, key) in (0..).zip(&block.keys).filter(|(_, key)| **key != NO_GROUP) {
                let at = &mut next[*key as usize];
                rows[*at as usize] = (number, row);
                *at += 1;
            }
        }
        let mut table = HashTable::with_capacity(part.keys.len());
        let hash = |id: &u32| xxh3_64(part.keys.get(*id));
        (0..part.keys.len() as u32).for_each(|id| {
            table.insert_unique(hash(&id), id, hash);
        });
        PartIndex { table, starts, rows }
    }

    /// Returns block and row of each row of `key` in the part that this is the index of.
    pub fn rows_of(&self, part: &Part, key: &[u8]) -> &[(u32, u32)] {
        match self.table.find(xxh3_64(key), |id| part.keys.get(*id) == key) {
            Some(id) => &self.rows[self.starts[*id as usize] as usize..self.starts[*id as usize + 1] as usize],
            None => &[],
        }
    }

    /// Returns the memory held, in bytes.
    pub fn bytes(&self) -> usize {
        self.table.capacity() * 5 + self.starts.capacity() * 4 + self.rows.capacity() * 8
    }
}
