//! Queues submissions and cuts for a partition's writer, in order, bounded in bytes.

use std::collections::VecDeque;
use std::time::Duration;

use parking_lot::{Condvar, Mutex};
use shared::ids::ViewName;
use shared::seam::CutPoint;
use tokio::sync::oneshot;

use super::submission::{Erasure, Submission, SubmitError};

/// One item of work for the writer.
#[derive(Debug)]
pub(crate) enum QueueItem {
    Submission { submission: Box<Submission>, bytes: usize },
    Cut { view: ViewName, reply: oneshot::Sender<CutPoint> },
    Erasure(Box<Erasure>),
}

/// What the writer receives from the queue.
#[derive(Debug)]
pub(crate) enum WriterWork {
    /// Everything that waited, up to the limit; at least one item.
    Group(Vec<QueueItem>),
    /// An erasure: everything before it is written.
    Erasure(Box<Erasure>),
    /// No item came within the given time.
    Idle,
    /// The queue is closed and empty.
    Closed,
}

/// The queue in front of one writer.
#[derive(Debug)]
pub(crate) struct WriterQueue {
    state: Mutex<QueueState>,
    filled: Condvar,
    bytes_max: usize,
}

#[derive(Debug, Default)]
struct QueueState {
    items: VecDeque<QueueItem>,
    /// Bytes waiting or reserved.
    bytes: usize,
    open: bool,
    /// The writer is processing the last group.
    writing: bool,
}

impl WriterQueue {
    /// Creates a queue that is still closed.
    pub fn new(bytes_max: usize) -> Self {
        WriterQueue { state: Mutex::default(), filled: Condvar::new(), bytes_max }
    }

    /// Starts accepting items.
    pub fn open(&self) {
        self.state.lock().open = true;
    }

    /// Stops accepting items. The writer still receives those that wait.
    pub fn close(&self) {
        self.state.lock().open = false;
        self.filled.notify_all();
    }

    /// Bytes waiting or reserved.
    #[cfg(test)]
    pub fn bytes(&self) -> usize {
        self.state.lock().bytes
    }

    /// Whether no item waits and none is being written.
    pub fn is_clear(&self) -> bool {
        let state = self.state.lock();
        state.items.is_empty() && state.bytes == 0 && !state.writing
    }

    /// Reserves room for a submission. The first one always fits: otherwise it never could.
    pub fn reserve(&self, bytes: usize) -> Result<(), SubmitError> {
        let mut state = self.state.lock();
        if !state.open {
            return Err(SubmitError::Stopped);
        }
        // I9: at the limit, the client gets 429.
        if state.bytes > 0 && state.bytes.saturating_add(bytes) > self.bytes_max {
            return Err(SubmitError::Busy);
        }
        state.bytes += bytes;
        Ok(())
    }

    /// Returns room reserved with [`WriterQueue::reserve`].
    pub fn unreserve(&self, bytes: usize) {
        self.state.lock().bytes -= bytes;
    }

    /// Adds an item, a submission into its reserved room. Drops it if the queue is closed.
    pub fn push(&self, item: QueueItem) -> Result<(), SubmitError> {
        let mut state = self.state.lock();
        if !state.open {
            return Err(SubmitError::Stopped);
        }
        state.items.push_back(item);
        drop(state);
        self.filled.notify_one();
        Ok(())
    }

    /// Removes what waits, up to `bytes_max` bytes of events. Waits for the first item, at most `idle_after` if given.
    pub fn take(&self, bytes_max: usize, idle_after: Option<Duration>) -> WriterWork {
        let mut state = self.state.lock();
        // A writer that asks for more has processed its last group.
        state.writing = false;
        while state.items.is_empty() {
            if !state.open {
                return WriterWork::Closed;
            }
            match idle_after {
                None => self.filled.wait(&mut state),
                Some(idle_after) => {
                    let timed_out = self.filled.wait_for(&mut state, idle_after).timed_out();
                    if timed_out && state.items.is_empty() && state.open {
                        return WriterWork::Idle;
                    }
                }
            }
        }
        let mut group = Vec::new();
        let mut group_bytes = 0;
        while let Some(item) = state.items.pop_front() {
            let item = match item {
                QueueItem::Erasure(erasure) if group.is_empty() => {
                    state.writing = true;
                    return WriterWork::Erasure(erasure);
                }
                QueueItem::Erasure(_) => {
                    state.items.push_front(item);
                    break;
                }
                item => item,
            };
            if let QueueItem::Submission { bytes, .. } = &item {
                group_bytes += bytes;
            }
            group.push(item);
            if group_bytes >= bytes_max {
                break;
            }
        }
        state.bytes -= group_bytes;
        state.writing = true;
        WriterWork::Group(group)
    }
}
