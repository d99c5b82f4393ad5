//! How are partial aggregates laid out? Rows of (window, key, states) in blocks that readers share and writers copy.

use std::sync::Arc;

use crate::partial::keys::{KeyLayout, Keys};
use crate::partial::states::States;
use crate::view::{Precision, View};

/// Rows of a live block at most; small enough that copying one that a reader holds is cheap.
pub const BLOCK_ROWS: usize = 4096;

/// Rows of partial aggregates. All vectors have the same length; `states` has one entry per aggregate of the view.
#[derive(Debug, Clone)]
pub struct Block {
    /// Window starts, in microseconds.
    pub windows: Vec<i64>,
    /// Numbers into the part's [`Keys`].
    pub keys: Vec<u32>,
    pub states: Vec<States>,
    /// Smallest and largest window start, to skip blocks a query does not touch.
    pub window_range: (i64, i64),
    /// Are the rows in the order of their windows?
    pub sorted: bool,
}

impl Block {
    /// No rows, for `view`.
    pub fn empty(view: &View) -> Block {
        Block {
            windows: Vec::new(),
            keys: Vec::new(),
            states: view.aggregates.iter().map(|a| States::new(a, Precision::Sketch)).collect(),
            window_range: (i64::MAX, i64::MIN),
            sorted: false,
        }
    }

    /// Number of rows.
    pub fn len(&self) -> usize {
        self.windows.len()
    }

    /// Are there no rows?
    pub fn is_empty(&self) -> bool {
        self.windows.is_empty()
    }

    /// Appends a row of empty states.
    pub fn push(&mut self, window: i64, key: u32) {
        self.windows.push(window);
        self.keys.push(key);
        self.states.iter_mut().for_each(|s| s.grow(1));
        self.window_range = (self.window_range.0.min(window), self.window_range.1.max(window));
    }

    /// The rows that may have windows in `from..to` (microseconds).
    pub fn candidates(&self, from: i64, to: i64) -> std::ops::Range<usize> {
        if self.is_empty() || self.window_range.1 < from || self.window_range.0 >= to {
            return 0..0;
        }
        if !self.sorted {
            return 0..self.len();
        }
        let start = self.windows.partition_point(|&w| w < from);
        let end = self.windows.partition_point(|&w| w < to);
        start..end
    }

    /// Memory held, in bytes.
    pub fn bytes(&self) -> usize {
        self.windows.capacity() * 8 + self.keys.capacity() * 4 + self.states.iter().map(States::bytes).sum::<usize>()
    }
}

/// An immutable set of partial aggregates, as a reader holds it.
#[derive(Debug, Clone)]
pub struct Part {
    pub layout: Arc<KeyLayout>,
    pub keys: Keys,
    pub blocks: Vec<Arc<Block>>,
}

impl Part {
    /// Number of rows.
    pub fn rows(&self) -> usize {
        self.blocks.iter().map(|b| b.len()).sum()
    }

    /// Memory held, in bytes.
    pub fn bytes(&self) -> usize {
        self.keys.bytes() + self.blocks.iter().map(|b| b.bytes()).sum::<usize>()
    }
}
