//! Folds batches of events into partial aggregates: numbers the keys, finds the rows, observes column by column.
//!
//! Blocks that a reader holds are copied before they change, so a [`Part`] never moves under its reader and no lock is
//! needed. Rows of a batch are grouped by block first, so that each block is made writable once per batch.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, BooleanArray};
use hashbrown::HashTable;

use crate::partial::batch_keys::{BatchKeys, KeyNumbers};
use crate::partial::block::{BLOCK_ROWS, Block, Part};
use crate::partial::bucket::Bucket;
use crate::partial::keys::{KeyIndex, KeyLayout};
use crate::partial::sessions::{SessionIndex, meet};
use crate::partial::states::{EventPositions, NO_GROUP, Selection, States};
use crate::partial::tracking::RowTracking;
use crate::partial::wanted::{PartIndex, WantedRows};
use crate::view::{Precision, View};
use crate::window::{PaneStart, Window, WindowId};

/// A batch of events, evaluated for one view. All columns have the same number of rows.
#[derive(Debug)]
pub struct EvaluatedBatch<'a> {
    /// The pane of each row; not read for sessions.
    pub panes: &'a [PaneStart],
    /// Event time and log position of each row.
    pub places: EventPositions<'a>,
    /// The dimensions of each row.
    pub keys: &'a BatchKeys,
    /// One per aggregate: its argument.
    pub arguments: &'a [Option<ArrayRef>],
    /// One per aggregate: its FILTER.
    pub masks: &'a [Option<BooleanArray>],
    /// The rows to fold, ascending.
    pub rows: &'a [u32],
}

/// Folds events into blocks.
///
/// ```text
/// batch of events ── fold ──> blocks of (window, key, states) ── part ──> immutable Part
///                                  ^                                        │
///                                  └───────────────── absorb ───────────────┘
/// ```
///
/// ```
/// use std::sync::Arc;
///
/// use arrow::array::{ArrayRef, Int64Array};
/// use shared::partial::accumulate::{Accumulator, EvaluatedBatch};
/// use shared::partial::batch_keys::BatchKeys;
/// use shared::partial::finish::finish_measures;
/// use shared::partial::keys::KeyLayout;
/// use shared::partial::states::{EventPositions, Offsets};
/// use shared::sql::parse_definitions;
/// use shared::view::Precision;
/// use shared::window::PaneStart;
///
/// let sql = "CREATE STREAM sales (at TIMESTAMP, amount BIGINT) WITH (event_time = 'at');
///            CREATE VIEW totals AS SELECT SUM(amount) AS total FROM sales;";
/// let definitions = parse_definitions(&[("sales.sql".to_owned(), sql.to_owned())]).expect("valid");
/// let view = Arc::new(definitions.views[0].clone());
/// let mut sums = Accumulator::new(view.clone(), Arc::new(KeyLayout::new(Vec::new())?), Precision::Sketch);
/// let amounts: ArrayRef = Arc::new(Int64Array::from(vec![3, 4]));
/// sums.fold(&EvaluatedBatch {
///     panes: &[PaneStart(0), PaneStart(0)],
///     places: EventPositions { times: &[10, 20], offsets: Offsets::Run { partition: 0, first: 0 } },
///     keys: &BatchKeys::NONE,
///     arguments: &[Some(amounts)],
///     masks: &[None],
///     rows: &[0, 1],
/// });
/// let total = &finish_measures(&view, &sums.part().blocks[0].states)?[0];
/// assert_eq!(total.column.as_ref(), &Int64Array::from(vec![7]));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Accumulator {
    view: Arc<View>,
    layout: Arc<KeyLayout>,
    keys: KeyIndex,
    blocks: Vec<Arc<Block>>,
    /// The rows by (window, key); unused for sessions.
    table: HashTable<TableRow>,
    rows: usize,
    precision: Precision,
    /// The sessions of each key; empty for all other views.
    sessions: SessionIndex,
    /// Of a view with alerts or sinks.
    tracking: Option<Box<RowTracking>>,
    scratch: Scratch,
}

/// Where the states of a window and key are: the number of their row over all blocks. The table holds window and key itself,
/// so finding a row does not read the blocks.
#[derive(Debug, Clone, Copy)]
struct TableRow {
    window: WindowId,
    key: u32,
    slot: u32,
}

impl TableRow {
    const NONE: TableRow = TableRow { window: WindowId::MIN, key: NO_GROUP, slot: NO_GROUP };
}

/// An event of a view with sessions.
#[derive(Debug, Clone, Copy)]
struct SessionEvent {
    key: u32,
    time: i64,
    row: u32,
}

/// Vectors kept between batches so that folding does not allocate.
#[derive(Debug, Default)]
struct Scratch {
    /// The row in the table that each key of the batch met last.
    recent: Vec<TableRow>,
    keys: Vec<u32>,
    events: Vec<SessionEvent>,
    slots: Vec<u32>,
    starts: Vec<u32>,
    groups: Vec<u32>,
    rows: Vec<u32>,
}

impl Accumulator {
    /// Returns an empty accumulator for `view`, whose dimensions `layout` encodes.
    pub fn new(view: Arc<View>, layout: Arc<KeyLayout>, precision: Precision) -> Accumulator {
        let gap = if let Window::Session { gap } = view.window { gap } else { 0 };
        Accumulator {
            precision,
            sessions: SessionIndex::new(gap),
            view,
            layout,
            keys: KeyIndex::default(),
            blocks: Vec::new(),
            table: HashTable::new(),
            rows: 0,
            tracking: None,
            scratch: Scratch::default(),
        }
    }

    /// Keeps track of changed rows, and finds rows by key, from now on. The accumulator must be empty.
    pub fn tracked(self) -> Accumulator {
        Accumulator { tracking: Some(Box::default()), ..self }
    }

    /// Calls `each` with window (or pane) and key of every row that has changed since the last call of
    /// [`Accumulator::take_changed`]. Without tracking there are none.
    pub fn for_each_changed(&self, mut each: impl FnMut(WindowId, &[u8])) {
        let Some(tracking) = &self.tracking else { return };
        tracking.changed().iter().for_each(|slot| self.call_with_row(*slot, &mut each));
    }

    /// The same, and forgets that they have changed.
    pub fn take_changed(&mut self, each: impl FnMut(WindowId, &[u8])) {
        self.for_each_changed(each);
        if let Some(tracking) = &mut self.tracking {
            tracking.clear_changed();
        }
    }

    fn call_with_row(&self, slot: u32, each: &mut impl FnMut(WindowId, &[u8])) {
        let (block, row) = (&self.blocks[slot as usize / BLOCK_ROWS], slot as usize % BLOCK_ROWS);
        if block.keys[row] != NO_GROUP {
            each(block.windows[row], self.keys.keys().get(block.keys[row]));
        }
    }

    /// Returns whether rows are found by key: they are tracked, or each key has one.
    pub fn finds_rows(&self) -> bool {
        self.tracking.is_some() || self.view.window == Window::All
    }

    /// Returns the wanted rows as a part of their own; `None`: rows are not found by key.
    pub fn wanted(&self, wanted: &WantedRows) -> Option<Part> {
        if !self.finds_rows() {
            return None;
        }
        let mut found = Accumulator::new(Arc::clone(&self.view), Arc::clone(&self.layout), Precision::Sketch);
        for row in wanted.keys() {
            let Some(key) = self.keys.find(row.key()) else { continue };
            let slots: &mut dyn Iterator<Item = u32> = match row.single_windows() {
                // Faster than the rows of a key with many windows.
                Some(windows) => &mut windows.filter_map(|window| self.find_slot(window, key)),
                None => &mut self.tracking.iter().flat_map(|tracking| tracking.rows_of(key)),
            };
            for slot in slots {
                let (block, at) = (&self.blocks[slot as usize / BLOCK_ROWS], slot as usize % BLOCK_ROWS);
                if block.keys[at] == key && row.wants(block.windows[at], self.view.window.overlaps()) {
                    found.copy_row(row.key(), block, at);
                }
            }
        }
        Some(found.part())
    }

    /// Returns the wanted rows of `part`, whose rows `index` finds, as a part of its own.
    pub fn wanted_of(view: &Arc<View>, part: &Part, index: &PartIndex, wanted: &WantedRows) -> Part {
        let mut found = Accumulator::new(Arc::clone(view), Arc::clone(&part.layout), Precision::Sketch);
        for row in wanted.keys() {
            for (block, at) in index.rows_of(part, row.key()) {
                let (block, at) = (&part.blocks[*block as usize], *at as usize);
                if row.wants(block.windows[at], part.panes) {
                    found.copy_row(row.key(), block, at);
                }
            }
        }
        Part { panes: part.panes, ..found.part() }
    }

    fn copy_row(&mut self, key: &[u8], block: &Block, row: usize) {
        let (id, window) = (self.keys.id_of(key), block.windows[row]);
        let slot = match block.lasts.get(row) {
            Some(last) => self.session_slot(id, window.0, *last, &mut HashMap::new()),
            None => self.slot_of(window, id),
        };
        self.merge_row(slot as usize, block, row);
    }

    fn find_slot(&self, window: WindowId, key: u32) -> Option<u32> {
        let found = self.table.find(hash_row(window, key), |row| row.window == window && row.key == key);
        found.map(|row| row.slot)
    }

    /// Folds a batch.
    pub fn fold(&mut self, batch: &EvaluatedBatch<'_>) {
        if let Window::Session { gap } = self.view.window {
            return self.fold_sessions(gap, batch);
        }
        let mut scratch = std::mem::take(&mut self.scratch);
        scratch.slots.clear();
        scratch.slots.reserve(batch.rows.len());
        let window = |row: u32| batch.panes[row as usize].window();
        match batch.keys.numbers() {
            KeyNumbers::One if batch.rows.is_empty() => {}
            KeyNumbers::One => {
                let mut recent = TableRow { key: self.keys.id_of(&[]), ..TableRow::NONE };
                scratch.slots.extend(batch.rows.iter().map(|&row| self.slot_near(&mut recent, window(row))));
            }
            KeyNumbers::Repeated { of_row, first_rows } => {
                scratch.recent.clear();
                scratch.recent.resize(first_rows.len(), TableRow::NONE);
                for &row in batch.rows {
                    let number = of_row[row as usize] as usize;
                    let recent = &mut scratch.recent[number];
                    if recent.key == NO_GROUP {
                        recent.key = self.keys.id_of_hashed(batch.keys.key(first_rows[number]));
                    }
                    scratch.slots.push(self.slot_near(recent, window(row)));
                }
            }
            KeyNumbers::Each => {
                // One table after the other: short loops wait for several accesses to memory at a time.
                let keys = &mut self.keys;
                scratch.keys.clear();
                scratch.keys.extend(batch.rows.iter().map(|&row| keys.id_of_hashed(batch.keys.key(row))));
                let of_rows = batch.rows.iter().zip(&scratch.keys);
                scratch.slots.extend(of_rows.map(|(&row, &key)| self.slot_of(window(row), key)));
            }
        }
        self.observe(batch, batch.rows, &mut scratch);
        self.scratch = scratch;
    }

    /// Finds the sessions of the batch, joins each with those it meets, and observes values when no session moves any more.
    fn fold_sessions(&mut self, gap: i64, batch: &EvaluatedBatch<'_>) {
        let mut scratch = std::mem::take(&mut self.scratch);
        scratch.slots.clear();
        self.session_events(batch, &mut scratch);
        let mut moved: HashMap<u32, u32> = HashMap::new();
        for events in scratch.events.chunk_by_mut(|a, b| a.key == b.key) {
            if !events.is_sorted_by_key(|event| event.time) {
                events.sort_unstable_by_key(|event| (event.time, event.row));
            }
            for session in events.chunk_by(|a, b| meet(gap, a.time, b.time)) {
                let (first, last) = (session[0], session[session.len() - 1]);
                let slot = self.session_slot(first.key, first.time, last.time, &mut moved);
                scratch.slots.extend(std::iter::repeat_n(slot, session.len()));
            }
        }
        if !moved.is_empty() {
            for slot in &mut scratch.slots {
                while let Some(now) = moved.get(slot) {
                    *slot = *now;
                }
            }
        }
        let rows: Vec<u32> = scratch.events.iter().map(|event| event.row).collect();
        self.observe(batch, &rows, &mut scratch);
        self.scratch = scratch;
    }

    /// Lists the events of the batch. Those of a key follow one another, unless keys rarely repeat.
    fn session_events(&mut self, batch: &EvaluatedBatch<'_>, scratch: &mut Scratch) {
        let Scratch { recent, starts, events, .. } = scratch;
        let event = |key: u32, row: u32| SessionEvent { key, time: batch.places.times[row as usize], row };
        events.clear();
        match batch.keys.numbers() {
            KeyNumbers::One => {
                let key = if batch.rows.is_empty() { NO_GROUP } else { self.keys.id_of(&[]) };
                events.extend(batch.rows.iter().map(|&row| event(key, row)));
            }
            KeyNumbers::Each => {
                let keys = &mut self.keys;
                events.extend(batch.rows.iter().map(|&row| event(keys.id_of_hashed(batch.keys.key(row)), row)));
            }
            KeyNumbers::Repeated { of_row, first_rows } => {
                // A counting sort by key.
                starts.clear();
                starts.resize(first_rows.len() + 1, 0);
                batch.rows.iter().for_each(|row| starts[of_row[*row as usize] as usize + 1] += 1);
                for i in 1..starts.len() {
                    starts[i] += starts[i - 1];
                }
                recent.clear();
                recent.resize(first_rows.len(), TableRow::NONE);
                events.resize(batch.rows.len(), SessionEvent { key: NO_GROUP, time: 0, row: 0 });
                for &row in batch.rows {
                    let number = of_row[row as usize] as usize;
                    let key = &mut recent[number].key;
                    if *key == NO_GROUP {
                        *key = self.keys.id_of_hashed(batch.keys.key(first_rows[number]));
                    }
                    events[starts[number] as usize] = event(*key, row);
                    starts[number] += 1;
                }
            }
        }
    }

    /// Returns the row of the session of the events of `key` from `first` to `last`. Sessions that these events bridge become
    /// one; `moved` then maps the row of each former session to the row it became part of.
    fn session_slot(&mut self, key: u32, first: i64, last: i64, moved: &mut HashMap<u32, u32>) -> u32 {
        let met = self.sessions.join(key, first, last, self.next_slot());
        let (block, row) = (met.slot as usize / BLOCK_ROWS, met.slot as usize % BLOCK_ROWS);
        if met.is_new {
            if self.rows.is_multiple_of(BLOCK_ROWS) {
                self.blocks.push(Arc::new(Block::empty(&self.view, self.precision)));
            }
            let last_block = self.blocks.last_mut().expect("a block was pushed when the last one was full");
            Arc::make_mut(last_block).push_session(first, last, key);
            self.note_new(met.slot, key);
            self.rows += 1;
            return met.slot;
        }
        let changed = Arc::make_mut(&mut self.blocks[block]);
        match met.starts_earlier {
            true => changed.set_session(row, met.first, met.last),
            false => changed.lasts[row] = met.last,
        }
        for other in met.absorbed {
            let theirs = &mut self.blocks[other as usize / BLOCK_ROWS];
            let at = other as usize % BLOCK_ROWS;
            let alone = |(aggregate, states): (_, &States)| {
                let mut alone = States::new(aggregate, self.precision);
                alone.grow(1);
                alone.merge(&[0], states, at);
                alone
            };
            let states: Vec<States> = self.view.aggregates.iter().zip(&theirs.states).map(alone).collect();
            Arc::make_mut(theirs).keys[at] = NO_GROUP;
            let target = Arc::make_mut(&mut self.blocks[block]);
            for (state, theirs) in target.states.iter_mut().zip(&states) {
                state.merge(&[row as u32], theirs, 0);
            }
            moved.insert(other, met.slot);
        }
        met.slot
    }

    /// Merges a part of the same view.
    pub fn absorb(&mut self, part: &Part) {
        let ids: Vec<u32> = part.keys.iter().map(|key| self.keys.id_of(key)).collect();
        part.blocks.iter().for_each(|block| self.absorb_block(block, &ids));
    }

    /// `ids`: the numbers here of the block's keys, [`NO_GROUP`] for those to skip.
    fn absorb_block(&mut self, block: &Block, ids: &[u32]) {
        for (row, (&window, &key)) in block.windows.iter().zip(&block.keys).enumerate() {
            let key = if key == NO_GROUP { NO_GROUP } else { ids[key as usize] };
            if key == NO_GROUP {
                continue;
            }
            let slot = match block.lasts.get(row) {
                // Rows that move are those of this accumulator; earlier merges moved with them.
                Some(last) => self.session_slot(key, window.0, *last, &mut HashMap::new()) as usize,
                None => self.slot_of(window, key) as usize,
            };
            self.merge_row(slot, block, row);
        }
    }

    /// Merges the states of a row of another block into the row `slot`.
    fn merge_row(&mut self, slot: usize, block: &Block, row: usize) {
        let target = Arc::make_mut(&mut self.blocks[slot / BLOCK_ROWS]);
        for (state, theirs) in target.states.iter_mut().zip(&block.states) {
            state.merge(&[(slot % BLOCK_ROWS) as u32], theirs, row);
        }
    }

    /// Drops the rows of windows before `bound`, if they are at least half of all rows: then the work is bounded by that of
    /// folding those that stay. Returns the first and the last of their windows. Not for sessions.
    pub fn release_before(&mut self, bound: WindowId) -> Option<(WindowId, WindowId)> {
        let mut dropped = 0;
        let mut span: Option<(WindowId, WindowId)> = None;
        for block in self.blocks.iter().filter(|block| block.window_range.0 < bound) {
            for window in block.windows.iter().filter(|window| **window < bound) {
                dropped += 1;
                let (first, last) = span.unwrap_or((*window, *window));
                span = Some((first.min(*window), last.max(*window)));
            }
        }
        if dropped == 0 || dropped * 2 < self.rows {
            return None;
        }
        let mut kept = self.emptied();
        let keys = std::mem::take(&mut self.keys).into_keys();
        (self.table, self.rows) = (HashTable::new(), 0);
        // Keys are numbered again as they are met: those without a row are dropped.
        let mut ids = vec![None; keys.len()];
        for block in std::mem::take(&mut self.blocks) {
            for (row, (&window, &key)) in block.windows.iter().zip(&block.keys).enumerate() {
                if window >= bound && key != NO_GROUP {
                    let id = *ids[key as usize].get_or_insert_with(|| kept.keys.id_of(keys.get(key)));
                    let slot = kept.slot_of(window, id) as usize;
                    kept.merge_row(slot, &block, row);
                }
            }
        }
        *self = kept;
        span
    }

    /// Drops all groups but those in `bucket`. Blocks are dropped one by one, so this needs little more memory.
    pub fn retain(&mut self, bucket: Bucket) {
        let mut kept = self.emptied();
        let keys = std::mem::take(&mut self.keys).into_keys();
        (self.table, self.rows) = (HashTable::new(), 0);
        self.sessions = SessionIndex::new(if let Window::Session { gap } = self.view.window { gap } else { 0 });
        let ids: Vec<u32> =
            keys.iter().map(|key| if bucket.holds(key) { kept.keys.id_of(key) } else { NO_GROUP }).collect();
        drop(keys);
        for block in std::mem::take(&mut self.blocks) {
            kept.absorb_block(&block, &ids);
        }
        *self = kept;
    }

    /// Returns the accumulated aggregates as an immutable part. Cheap: blocks are shared until they change.
    pub fn part(&self) -> Part {
        Part {
            layout: Arc::clone(&self.layout),
            panes: self.view.window.overlaps(),
            keys: self.keys.keys().clone(),
            blocks: self.blocks.clone(),
        }
    }

    /// Number of keys.
    pub fn keys(&self) -> usize {
        self.keys.keys().len()
    }

    /// Number of (window, key) rows.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Memory held, in bytes.
    pub fn bytes(&self) -> usize {
        self.keys.bytes()
            + self.blocks.iter().map(|b| b.bytes()).sum::<usize>()
            + self.table.capacity() * (size_of::<TableRow>() + 1)
            + self.sessions.bytes()
            + self.tracking.as_ref().map_or(0, |tracking| tracking.bytes())
    }

    fn note_new(&mut self, slot: u32, key: u32) {
        if let Some(tracking) = &mut self.tracking {
            tracking.note_new(slot, key);
        }
    }

    /// Returns an empty accumulator that is like this one.
    fn emptied(&self) -> Accumulator {
        let empty = Accumulator::new(Arc::clone(&self.view), Arc::clone(&self.layout), self.precision);
        if self.tracking.is_some() { empty.tracked() } else { empty }
    }

    /// Returns the number of the next new row.
    fn next_slot(&self) -> u32 {
        u32::try_from(self.rows).ok().filter(|slot| *slot != NO_GROUP).expect("fewer than 2^32 - 1 live rows")
    }

    /// Returns the row of `window` and the key of `recent`, which becomes the row found.
    #[inline]
    fn slot_near(&mut self, recent: &mut TableRow, window: WindowId) -> u32 {
        if recent.slot == NO_GROUP || recent.window != window {
            *recent = TableRow { window, slot: self.slot_of(window, recent.key), ..*recent };
        }
        recent.slot
    }

    #[inline]
    fn slot_of(&mut self, window: WindowId, key: u32) -> u32 {
        let hash = hash_row(window, key);
        match self.table.find(hash, |row| row.window == window && row.key == key) {
            Some(row) => row.slot,
            None => self.new_slot(hash, window, key),
        }
    }

    fn new_slot(&mut self, hash: u64, window: WindowId, key: u32) -> u32 {
        let slot = self.next_slot();
        self.table.insert_unique(hash, TableRow { window, key, slot }, |row| hash_row(row.window, row.key));
        if self.rows.is_multiple_of(BLOCK_ROWS) {
            self.blocks.push(Arc::new(Block::empty(&self.view, self.precision)));
        }
        let last = self.blocks.last_mut().expect("a block was pushed when the last one was full");
        Arc::make_mut(last).push(window, key);
        self.note_new(slot, key);
        self.rows += 1;
        slot
    }

    /// `of`: the row of each slot. Sorts the rows by block (counting sort), then lets every touched block observe its rows, column by column.
    fn observe(&mut self, batch: &EvaluatedBatch<'_>, of: &[u32], scratch: &mut Scratch) {
        let Scratch { slots, starts, groups, rows, .. } = scratch;
        if let Some(tracking) = &mut self.tracking {
            tracking.note_changed(slots);
        }
        starts.clear();
        starts.resize(self.blocks.len() + 1, 0);
        slots.iter().for_each(|slot| starts[*slot as usize / BLOCK_ROWS + 1] += 1);
        for i in 1..starts.len() {
            starts[i] += starts[i - 1];
        }
        groups.resize(slots.len(), 0);
        rows.resize(slots.len(), 0);
        let mut next = starts.clone();
        for (slot, row) in slots.iter().zip(of) {
            let at = &mut next[*slot as usize / BLOCK_ROWS];
            groups[*at as usize] = slot % BLOCK_ROWS as u32;
            rows[*at as usize] = *row;
            *at += 1;
        }
        for (block, range) in self.blocks.iter_mut().zip(starts.windows(2)) {
            let (from, to) = (range[0] as usize, range[1] as usize);
            if from == to {
                continue;
            }
            let block = Arc::make_mut(block);
            for ((states, argument), mask) in block.states.iter_mut().zip(batch.arguments).zip(batch.masks) {
                let selection = Selection { groups: &groups[from..to], rows: &rows[from..to], mask: mask.as_ref() };
                states.observe(selection, argument.as_ref(), &batch.places);
            }
        }
    }
}

#[inline]
fn hash_row(window: WindowId, key: u32) -> u64 {
    let mixed =
        (window.0 as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ u64::from(key).wrapping_mul(0xd6e8_feb8_6659_fd93);
    let folded = u128::from(mixed) * 0xa076_1d64_78bd_642f;
    (folded as u64) ^ ((folded >> 64) as u64)
}

/// The rows at which `filter` is true (NULL counts as false), or all of them.
pub fn selected_rows(rows: usize, filter: Option<&BooleanArray>) -> Vec<u32> {
    match filter {
        None => (0..rows as u32).collect(),
        Some(filter) => {
            let are_true = match filter.nulls() {
                None => filter.values().clone(),
                Some(nulls) => filter.values() & nulls.inner(),
            };
            match are_true.count_set_bits() == rows {
                true => (0..rows as u32).collect(),
                false => are_true.set_indices_u32().collect(),
            }
        }
    }
}
