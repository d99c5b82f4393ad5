//! Queues log items for a worker, bounded in rows, and the requests of readers, which do not count as rows.

use std::collections::VecDeque;

use parking_lot::{Condvar, Mutex};
use shared::handoff::{LogItem, LogSink, Stopped};
use shared::ids::ViewName;
use shared::limits;
use shared::readers::{SpeedError, SpeedPin};
use shared::time::Micros;
use tokio::sync::oneshot;

/// A request to a worker, processed between two folds.
#[derive(Debug)]
pub enum WorkerRequest {
    /// Returns the generations of the view with this name and definition hash, from an offset on. Two views may share a
    /// definition.
    Pin { view: ViewName, definition: String, from: u64, reply: oneshot::Sender<Result<PartitionPin, SpeedError>> },
    /// Drops generations before an offset.
    Retire { view: ViewName, definition: String, before: u64 },
    /// Stops folding for the view under this definition.
    Forget { view: ViewName, definition: String },
    /// Returns figures for the metrics.
    Status { reply: oneshot::Sender<Vec<ViewStatus>> },
}

/// The part of a [`SpeedPin`] from one partition.
#[derive(Debug, Clone)]
pub struct PartitionPin {
    pub pin: SpeedPin,
    /// Arrival of the partition's last event.
    pub last_arrival: Option<Micros>,
}

/// The memory of a worker for one view.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ViewStatus {
    pub view: ViewName,
    pub definition: String,
    /// (window, key) rows.
    pub rows: usize,
    pub bytes: usize,
    pub generations: usize,
}

/// The items and requests that a worker processes together.
#[derive(Debug, Default)]
pub struct WorkerInput {
    /// In log order; at most one cut, and it is last.
    pub items: Vec<LogItem>,
    pub requests: Vec<WorkerRequest>,
}

#[derive(Debug, Default)]
struct MailboxState {
    items: VecDeque<LogItem>,
    rows: usize,
    /// Items pushed and taken so far: a request is processed once the items pushed before it were taken.
    pushed: u64,
    taken: u64,
    requests: VecDeque<(u64, WorkerRequest)>,
    closed: bool,
}

/// A worker's queue.
#[derive(Debug, Default)]
pub struct Mailbox {
    state: Mutex<MailboxState>,
    filled: Condvar,
    emptied: Condvar,
}

impl Mailbox {
    /// Sends a request to the worker. It is processed when all items pushed before are folded, so that a reader sees the
    /// events acknowledged before its request. Returns `false` if the worker has stopped.
    pub fn send(&self, request: WorkerRequest) -> bool {
        let mut state = self.state.lock();
        if state.closed {
            return false;
        }
        let before = state.pushed;
        state.requests.push_back((before, request));
        drop(state);
        self.filled.notify_one();
        true
    }

    /// Closes the mailbox: the worker stops once it has processed what waits.
    pub fn close(&self) {
        self.state.lock().closed = true;
        self.filled.notify_one();
        self.emptied.notify_all();
    }

    /// Waits for input and takes it: items up to a cut or [`limits::FOLD_ROWS_MAX`] rows, and the requests due after them.
    /// `None` if the mailbox is closed and empty.
    pub fn take(&self) -> Option<WorkerInput> {
        let mut state = self.state.lock();
        while state.items.is_empty() && state.requests.is_empty() {
            if state.closed {
                return None;
            }
            self.filled.wait(&mut state);
        }
        let mut input = WorkerInput::default();
        let mut rows = 0;
        while let Some(item) = state.items.front() {
            if rows > 0 && rows + item.rows() > limits::FOLD_ROWS_MAX {
                break;
            }
            rows += item.rows();
            let is_cut = matches!(item, LogItem::Cut(_));
            input.items.extend(state.items.pop_front());
            if is_cut {
                break;
            }
        }
        state.rows -= rows;
        state.taken += input.items.len() as u64;
        while state.requests.front().is_some_and(|(before, _)| *before <= state.taken) {
            input.requests.extend(state.requests.pop_front().map(|(_, request)| request));
        }
        drop(state);
        self.emptied.notify_all();
        Some(input)
    }
}

impl LogSink for Mailbox {
    fn push(&self, item: LogItem) -> Result<(), Stopped> {
        let mut state = self.state.lock();
        while state.rows >= limits::HANDOFF_QUEUE_ROWS_MAX && !state.closed {
            self.emptied.wait(&mut state);
        }
        if state.closed {
            return Err(Stopped);
        }
        state.rows += item.rows();
        state.pushed += 1;
        state.items.push_back(item);
        drop(state);
        self.filled.notify_one();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use shared::handoff::CutMark;
    use shared::ids::{Offset, Partition};
    use shared::ledger::Ledger;

    use super::*;

    fn cut() -> LogItem {
        let view = "v".parse().expect("a name");
        LogItem::Cut(Arc::new(CutMark { view, partition: Partition(0), offset: Offset(0), accepted: Ledger::EMPTY }))
    }

    fn status_request(mailbox: &Mailbox) -> oneshot::Receiver<Vec<ViewStatus>> {
        let (reply, answer) = oneshot::channel();
        assert!(mailbox.send(WorkerRequest::Status { reply }));
        answer
    }

    #[test]
    fn a_request_waits_for_the_items_pushed_before_it_and_for_no_others() {
        let mailbox = Mailbox::default();
        let _first = status_request(&mailbox);
        (0..2).for_each(|_| mailbox.push(cut()).expect("open"));
        let _second = status_request(&mailbox);
        mailbox.push(cut()).expect("open");
        // A cut ends a take, so each take returns one.
        let taken = |mailbox: &Mailbox| mailbox.take().map(|input| (input.items.len(), input.requests.len()));
        assert_eq!(taken(&mailbox), Some((1, 1)));
        assert_eq!(taken(&mailbox), Some((1, 1)));
        assert_eq!(taken(&mailbox), Some((1, 0)));
        mailbox.close();
        assert_eq!(taken(&mailbox), None);
        assert!(mailbox.push(cut()).is_err());
    }
}
