//! Lays out partial aggregates as rows of (window, key, states) in blocks that readers share and writers copy.

use std::ops::Range;
use std::sync::Arc;

use crate::partial::keys::{KeyLayout, Keys};
use crate::partial::states::{NO_GROUP, States};
use crate::view::{Precision, View};
use crate::window::WindowId;

/// Rows of a live block at most; small enough that copying one that a reader holds is cheap.
pub const BLOCK_ROWS: usize = 4096;

/// Rows of partial aggregates. All vectors have the same length; `states` has one entry per aggregate of the view.
#[derive(Debug, Clone)]
pub struct Block {
    /// Of a part with panes the panes ([`WindowId::pane`]).
    pub windows: Vec<WindowId>,
    /// Of sessions the time of the last event; empty for all other views.
    pub lasts: Vec<i64>,
    /// Numbers into the part's [`Keys`]; [`NO_GROUP`] marks a session that has become part of another.
    pub keys: Vec<u32>,
    pub states: Vec<States>,
    /// Smallest and largest of `windows`, to skip blocks a query does not touch.
    pub window_range: (WindowId, WindowId),
    /// Whether the rows are in the order of their windows.
    pub sorted: bool,
}

impl Block {
    /// Returns a block without rows for `view`.
    pub fn empty(view: &View, precision: Precision) -> Block {
        Block {
            windows: Vec::new(),
            lasts: Vec::new(),
            keys: Vec::new(),
            states: view.aggregates.iter().map(|aggregate| States::new(aggregate, precision)).collect(),
            window_range: (WindowId::MAX, WindowId::MIN),
            sorted: false,
        }
    }

    /// Returns the number of rows.
    pub fn len(&self) -> usize {
        self.windows.len()
    }

    /// Returns whether there are no rows.
    pub fn is_empty(&self) -> bool {
        self.windows.is_empty()
    }

    /// Appends a row of empty states.
    pub fn push(&mut self, window: WindowId, key: u32) {
        self.windows.push(window);
        self.keys.push(key);
        self.states.iter_mut().for_each(|s| s.grow(1));
        self.window_range = (self.window_range.0.min(window), self.window_range.1.max(window));
    }

    /// Returns the rows that may have windows in `range`.
    pub fn candidates(&self, range: &Range<WindowId>) -> Range<usize> {
        if self.is_empty() || self.window_range.1 < range.start || self.window_range.0 >= range.end {
            return 0..0;
        }
        if !self.sorted {
            return 0..self.len();
        }
        let start = self.windows.partition_point(|window| *window < range.start);
        let end = self.windows.partition_point(|window| *window < range.end);
        start..end
    }

    /// Appends a session of empty states.
    pub fn push_session(&mut self, first: i64, last: i64, key: u32) {
        self.push(WindowId(first), key);
        self.lasts.push(last);
    }

    /// Sets the first and the last event of the session in `row`.
    pub fn set_session(&mut self, row: usize, first: i64, last: i64) {
        let id = WindowId(first);
        self.windows[row] = id;
        self.lasts[row] = last;
        self.window_range = (self.window_range.0.min(id), self.window_range.1.max(id));
    }

    /// Returns the memory held, in bytes.
    pub fn bytes(&self) -> usize {
        (self.windows.capacity() + self.lasts.capacity()) * 8
            + self.keys.capacity() * 4
            + self.states.iter().map(States::bytes).sum::<usize>()
    }
}

/// An immutable set of partial aggregates that readers share.
#[derive(Debug, Clone)]
pub struct Part {
    pub layout: Arc<KeyLayout>,
    /// Whether the rows are panes that several windows share. Otherwise they are windows.
    pub panes: bool,
    pub keys: Keys,
    pub blocks: Vec<Arc<Block>>,
}

impl Part {
    /// Returns the number of rows.
    pub fn rows(&self) -> usize {
        self.blocks.iter().map(|b| b.len()).sum()
    }

    /// Returns the times of the first and the last event of each session.
    pub fn sessions(&self) -> impl Iterator<Item = (i64, i64)> {
        let of_block = |block: &Arc<Block>| {
            let rows = block.windows.iter().map(|first| first.0).zip(block.lasts.iter().copied()).zip(&block.keys);
            rows.filter(|(_, key)| **key != NO_GROUP).map(|(session, _)| session).collect::<Vec<_>>()
        };
        self.blocks.iter().flat_map(of_block)
    }

    /// Returns the memory held, in bytes.
    pub fn bytes(&self) -> usize {
        self.keys.bytes() + self.blocks.iter().map(|b| b.bytes()).sum::<usize>()
    }
}
