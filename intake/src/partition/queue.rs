//! What waits for the partition's writer? Bounded in bytes, in order, with the cuts of runs between the events.

use std::collections::VecDeque;
use std::time::Duration;

use parking_lot::{Condvar, Mutex};
use shared::ids::ViewName;
use shared::seam::CutPoint;
use tokio::sync::oneshot;

use super::submission::{Submission, SubmitError};

/// One thing for the writer to do.
#[derive(Debug)]
pub(crate) enum Item {
    Submission { submission: Submission, bytes: usize },
    Cut { view: ViewName, reply: oneshot::Sender<CutPoint> },
}

/// What the writer gets.
#[derive(Debug)]
pub(crate) enum Taken {
    /// Everything that waited, up to the limit; at least one item.
    Group(Vec<Item>),
    /// Nothing came for the time it was willing to wait.
    Quiet,
    /// Nothing will come any more.
    Closed,
}

/// The queue before one writer.
#[derive(Debug)]
pub(crate) struct Queue {
    state: Mutex<State>,
    filled: Condvar,
    bytes_max: usize,
}

#[derive(Debug, Default)]
struct State {
    items: VecDeque<Item>,
    /// Bytes waiting or reserved.
    bytes: usize,
    open: bool,
    /// The writer is at work on what it took last.
    in_hand: bool,
}

impl Queue {
    /// A queue that is still closed.
    pub fn new(bytes_max: usize) -> Self {
        Queue { state: Mutex::default(), filled: Condvar::new(), bytes_max }
    }

    /// Lets items in.
    pub fn open(&self) {
        self.state.lock().open = true;
    }

    /// Lets nothing in any more. What waits is still taken.
    pub fn close(&self) {
        self.state.lock().open = false;
        self.filled.notify_all();
    }

    /// Bytes waiting or reserved.
    pub fn bytes(&self) -> usize {
        self.state.lock().bytes
    }

    /// Does nothing wait, and is nothing being written?
    pub fn is_clear(&self) -> bool {
        let state = self.state.lock();
        state.items.is_empty() && state.bytes == 0 && !state.in_hand
    }

    /// Reserves room for a submission. The first one always fits: it could never be taken otherwise.
    pub fn reserve(&self, bytes: usize) -> Result<(), SubmitError> {
        let mut state = self.state.lock();
        if !state.open {
            return Err(SubmitError::Stopped);
        }
        if state.bytes > 0 && state.bytes.saturating_add(bytes) > self.bytes_max {
            return Err(SubmitError::Busy);
        }
        state.bytes += bytes;
        Ok(())
    }

    /// Gives back room that [`Queue::reserve`] gave.
    pub fn unreserve(&self, bytes: usize) {
        self.state.lock().bytes -= bytes;
    }

    /// Adds an item, a submission into its reserved room. Gives it back if the queue is closed.
    pub fn push(&self, item: Item) -> Result<(), Item> {
        let mut state = self.state.lock();
        if !state.open {
            return Err(item);
        }
        state.items.push_back(item);
        drop(state);
        self.filled.notify_one();
        Ok(())
    }

    /// Takes what waits, up to `bytes_max` bytes of events; waits for it, at most `quiet` if that is given.
    pub fn take(&self, bytes_max: usize, quiet: Option<Duration>) -> Taken {
        let mut state = self.state.lock();
        // Who comes back has done what it took.
        state.in_hand = false;
        while state.items.is_empty() {
            if !state.open {
                return Taken::Closed;
            }
            match quiet {
                None => self.filled.wait(&mut state),
                Some(quiet) => {
                    if self.filled.wait_for(&mut state, quiet).timed_out() && state.items.is_empty() && state.open {
                        return Taken::Quiet;
                    }
                }
            }
        }
        let mut group = Vec::new();
        let mut taken = 0;
        while let Some(item) = state.items.pop_front() {
            if let Item::Submission { bytes, .. } = &item {
                taken += bytes;
            }
            group.push(item);
            if taken >= bytes_max {
                break;
            }
        }
        state.bytes -= taken;
        state.in_hand = true;
        Taken::Group(group)
    }
}
