//! Queues which rows of views have changed, from the threads that fold to the task that evaluates alerts, or to a sink.
//!
//! A row is queued once, however often it changes before it is taken, and adding never waits. Beyond the bound in bytes the
//! rows of a view are replaced with one mark, *all of them*: the reader then visits every live row of the view. So a slow
//! reader costs granularity, never memory, a missed row, or the speed of folding.

use std::collections::BTreeMap;
use std::sync::Arc;

use hashbrown::HashTable;
use parking_lot::Mutex;
use tokio::sync::Notify;
use xxhash_rust::xxh3::xxh3_64;

use crate::ids::ViewName;
use crate::window::WindowId;

/// Bytes of a queued row besides its key.
const ROW_BYTES: usize = 48;

/// A view under one definition, whose hash this is: while a changed definition is computed, rows of both change.
pub type ChangedView = (ViewName, Arc<str>);

/// A row: its window, pane or session start, and its encoded key.
pub type ChangedRow = (WindowId, Box<[u8]>);

/// Changed rows of one view.
#[derive(Debug, PartialEq, Eq)]
pub enum Changes {
    Rows(Vec<ChangedRow>),
    /// Every row of the generations since the seam.
    All,
}

/// The queue.
#[derive(Debug)]
pub struct ChangedRows {
    state: Mutex<State>,
    filled: Notify,
    bytes_max: usize,
}

#[derive(Debug, Default)]
struct State {
    views: BTreeMap<ChangedView, ViewChanges>,
    bytes: usize,
}

#[derive(Debug, Default)]
struct ViewChanges {
    rows: HashTable<ChangedRow>,
    bytes: usize,
    all: bool,
}

fn hash(window: WindowId, key: &[u8]) -> u64 {
    xxh3_64(key) ^ (window.0 as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

impl ChangedRows {
    /// Returns an empty queue of at most `bytes_max` bytes.
    pub fn new(bytes_max: usize) -> ChangedRows {
        ChangedRows { state: Mutex::default(), filled: Notify::new(), bytes_max }
    }

    /// Adds the rows that `each` passes to its argument.
    pub fn add(&self, view: &ChangedView, each: impl FnOnce(&mut dyn FnMut(WindowId, &[u8]))) {
        let mut state = self.state.lock();
        let State { views, bytes } = &mut *state;
        let changes = match views.get_mut(view) {
            Some(changes) => changes,
            None => views.entry(view.clone()).or_default(),
        };
        let (bytes_max, mut added) = (self.bytes_max, false);
        each(&mut |window, key| {
            added = true;
            let hashed = hash(window, key);
            if changes.all || changes.rows.find(hashed, |(w, k)| *w == window && **k == *key).is_some() {
                return;
            }
            let more = key.len() + ROW_BYTES;
            if *bytes + more > bytes_max {
                *bytes -= changes.bytes;
                *changes = ViewChanges { all: true, ..ViewChanges::default() };
                metrics_overflow(&view.0);
                return;
            }
            *bytes += more;
            changes.bytes += more;
            changes.rows.insert_unique(hashed, (window, key.into()), |(window, key)| hash(*window, key));
        });
        drop(state);
        if added {
            self.filled.notify_one();
        }
    }

    /// Marks every row of a view as changed.
    pub fn add_all(&self, view: ChangedView) {
        let mut state = self.state.lock();
        let changes = state.views.entry(view).or_default();
        let freed = changes.bytes;
        *changes = ViewChanges { all: true, ..ViewChanges::default() };
        state.bytes -= freed;
        drop(state);
        self.filled.notify_one();
    }

    /// Waits until rows have been added since the last wait. For one waiter. Cancel safe.
    pub async fn added(&self) {
        self.filled.notified().await;
    }

    /// Takes what has changed of `view`, at most `rows_max` rows. `None`: nothing.
    pub fn take(&self, view: &ChangedView, rows_max: usize) -> Option<Changes> {
        let mut state = self.state.lock();
        let changes = state.views.get_mut(view)?;
        if changes.all {
            state.views.remove(view);
            return Some(Changes::All);
        }
        let rows: Vec<ChangedRow> = match changes.rows.len() {
            0 => return None,
            len if len <= rows_max => std::mem::take(&mut changes.rows).into_iter().collect(),
            _ => {
                let mut left = 0;
                changes
                    .rows
                    .extract_if(|_| {
                        left += 1;
                        left <= rows_max
                    })
                    .collect()
            }
        };
        let freed: usize = rows.iter().map(|(_, key)| key.len() + ROW_BYTES).sum();
        changes.bytes -= freed;
        state.bytes -= freed;
        Some(Changes::Rows(rows))
    }

    /// Forgets all views but those in `kept`.
    pub fn retain(&self, kept: &[ChangedView]) {
        let mut state = self.state.lock();
        let State { views, bytes } = &mut *state;
        views.retain(|view, changes| {
            let stays = kept.contains(view);
            *bytes -= if stays { 0 } else { changes.bytes };
            stays
        });
    }

    /// Returns the bytes that wait.
    pub fn bytes(&self) -> usize {
        self.state.lock().bytes
    }
}

fn metrics_overflow(view: &ViewName) {
    tracing::debug!(%view, "more changed rows than the queue holds; every live row of the view will be visited");
}

#[cfg(test)]
mod tests {
    use super::*;

    fn view() -> ChangedView {
        ("v".parse().expect("a name"), Arc::from("d"))
    }

    fn add(queue: &ChangedRows, rows: &[(i64, &str)]) {
        queue.add(&view(), |each| rows.iter().for_each(|(window, key)| each(WindowId(*window), key.as_bytes())));
    }

    fn taken(queue: &ChangedRows, rows_max: usize) -> Option<Vec<(i64, String)>> {
        match queue.take(&view(), rows_max)? {
            Changes::All => Some(vec![(-1, "all".to_owned())]),
            Changes::Rows(rows) => {
                let text = |(window, key): ChangedRow| (window.0, String::from_utf8_lossy(&key).into_owned());
                let mut rows: Vec<_> = rows.into_iter().map(text).collect();
                rows.sort();
                Some(rows)
            }
        }
    }

    #[test]
    fn rows_are_queued_once_and_handed_out_in_pieces() {
        let queue = ChangedRows::new(10_000);
        add(&queue, &[(1, "a"), (2, "a"), (1, "a"), (1, "b")]);
        add(&queue, &[(1, "b")]);
        let all = |rows: &[(i64, &str)]| Some(rows.iter().map(|(w, k)| (*w, (*k).to_owned())).collect::<Vec<_>>());
        let mut first = taken(&queue, 2).expect("rows");
        assert_eq!(first.len(), 2);
        first.extend(taken(&queue, 2).expect("one more"));
        first.sort();
        assert_eq!(Some(first), all(&[(1, "a"), (1, "b"), (2, "a")]));
        assert_eq!((taken(&queue, 2), queue.bytes()), (None, 0));
        add(&queue, &[(1, "a")]);
        assert_eq!(taken(&queue, 2), all(&[(1, "a")]));
    }

    #[test]
    fn beyond_the_bound_a_mark_for_all_rows_stays_and_memory_is_released() {
        let queue = ChangedRows::new(5 * (ROW_BYTES + 1));
        add(&queue, &[(1, "a"), (1, "b"), (1, "c"), (1, "d"), (1, "e")]);
        assert_eq!(queue.bytes(), 5 * (ROW_BYTES + 1));
        add(&queue, &[(1, "a"), (1, "f"), (1, "g")]);
        assert_eq!(queue.bytes(), 0);
        assert_eq!(taken(&queue, 100), Some(vec![(-1, "all".to_owned())]));
        assert_eq!(taken(&queue, 100), None);
        add(&queue, &[(1, "a")]);
        queue.add_all(view());
        queue.retain(&[]);
        assert_eq!((taken(&queue, 100), queue.bytes()), (None, 0));
    }
}
