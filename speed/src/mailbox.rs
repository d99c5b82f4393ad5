//! How do log items reach a worker? Through a queue bounded in rows; questions of readers pass by it.

use std::collections::VecDeque;

use parking_lot::{Condvar, Mutex};
use shared::handoff::{LogItem, LogSink, Stopped};
use shared::limits;
use shared::readers::{SpeedError, SpeedPin};
use tokio::sync::oneshot;

/// What a reader wants of a worker. Answered between two folds.
#[derive(Debug)]
pub enum Request {
    /// The generations of the view with this definition hash, from an offset on.
    Pin { definition: String, from: u64, reply: oneshot::Sender<Result<PartitionPin, SpeedError>> },
    /// Drop what lies before an offset.
    Retire { definition: String, before: u64 },
    /// Numbers for a status page.
    Status { reply: oneshot::Sender<Vec<ViewStatus>> },
}

/// One partition's share of a [`SpeedPin`].
#[derive(Debug, Clone)]
pub struct PartitionPin {
    pub pin: SpeedPin,
    /// Arrival of the partition's last event, in microseconds.
    pub last_arrival: Option<i64>,
}

/// How much a worker holds for one view.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ViewStatus {
    pub view: shared::ids::ViewName,
    pub definition: String,
    pub rows: usize,
    pub bytes: usize,
    pub generations: usize,
}

/// What a worker takes out at once.
#[derive(Debug, Default)]
pub struct Work {
    /// In log order; at most one cut, and it is last.
    pub items: Vec<LogItem>,
    pub requests: Vec<Request>,
}

#[derive(Debug, Default)]
struct Waiting {
    items: VecDeque<LogItem>,
    rows: usize,
    requests: VecDeque<Request>,
    closed: bool,
}

/// A worker's queue.
#[derive(Debug, Default)]
pub struct Mailbox {
    waiting: Mutex<Waiting>,
    filled: Condvar,
    emptied: Condvar,
}

impl Mailbox {
    /// Asks the worker something. `false`: it has stopped.
    pub fn ask(&self, request: Request) -> bool {
        let mut waiting = self.waiting.lock();
        if waiting.closed {
            return false;
        }
        waiting.requests.push_back(request);
        drop(waiting);
        self.filled.notify_one();
        true
    }

    /// Lets the worker stop once it has done what waits.
    pub fn close(&self) {
        self.waiting.lock().closed = true;
        self.filled.notify_one();
        self.emptied.notify_all();
    }

    /// Waits for work and takes it: all requests, and items up to a cut or [`limits::FOLD_ROWS_MAX`] rows.
    /// `None`: closed and empty.
    pub fn take(&self) -> Option<Work> {
        let mut waiting = self.waiting.lock();
        while waiting.items.is_empty() && waiting.requests.is_empty() {
            if waiting.closed {
                return None;
            }
            self.filled.wait(&mut waiting);
        }
        let mut work = Work::default();
        let mut rows = 0;
        while let Some(item) = waiting.items.front() {
            if rows > 0 && rows + item.rows() > limits::FOLD_ROWS_MAX {
                break;
            }
            rows += item.rows();
            let is_cut = matches!(item, LogItem::Cut(_));
            work.items.extend(waiting.items.pop_front());
            if is_cut {
                break;
            }
        }
        waiting.rows -= rows;
        work.requests.extend(waiting.requests.drain(..));
        drop(waiting);
        self.emptied.notify_all();
        Some(work)
    }
}

impl LogSink for Mailbox {
    fn push(&self, item: LogItem) -> Result<(), Stopped> {
        let mut waiting = self.waiting.lock();
        while waiting.rows >= limits::HANDOFF_QUEUE_ROWS_MAX && !waiting.closed {
            self.emptied.wait(&mut waiting);
        }
        if waiting.closed {
            return Err(Stopped);
        }
        waiting.rows += item.rows();
        waiting.items.push_back(item);
        drop(waiting);
        self.filled.notify_one();
        Ok(())
    }
}
