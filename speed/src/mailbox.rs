//! Queues log items for a worker, bounded in bytes, and the requests of readers. A full mailbox keeps positions, which the
//! worker reads from the log.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::{Condvar, Mutex};
use shared::handoff::{LogItem, LogSink, Stopped};
use shared::ids::{Offset, ViewName};
use shared::limits;
use shared::log_queue::{LogQueue, QueuedItem};
use shared::partial::wanted::WantedRows;
use shared::readers::{SpeedError, SpeedPin};
use shared::time::Micros;
use tokio::sync::oneshot;

/// A request to a worker, processed between two folds.
#[derive(Debug)]
pub enum WorkerRequest {
    /// Returns the generations of the view with this name and definition hash, from an offset on. Two views may share a
    /// definition.
    Pin {
        view: ViewName,
        definition: String,
        from: u64,
        /// `None`: all rows.
        wanted: Option<Arc<WantedRows>>,
        reply: oneshot::Sender<Result<PartitionPin, SpeedError>>,
    },
    /// Drops generations before an offset.
    Retire { view: ViewName, definition: String, before: u64 },
    /// Stops folding for the view under this definition.
    Forget { view: ViewName, definition: String },
    /// Returns figures for the metrics.
    Status { reply: oneshot::Sender<Vec<ViewStatus>> },
}

impl WorkerRequest {
    /// Whether the worker holds less memory afterwards.
    pub fn shrinks_state(&self) -> bool {
        matches!(self, WorkerRequest::Retire { .. } | WorkerRequest::Forget { .. })
    }
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
    /// In log order; at most one item is not a batch, and it is last.
    pub items: Vec<QueuedItem>,
    pub requests: Vec<WorkerRequest>,
}

/// A request, and what the worker has to process before it.
#[derive(Debug)]
struct WaitingRequest {
    /// Number of items pushed before it.
    items: u64,
    /// End of the log that the reader has seen.
    reach: Offset,
    request: WorkerRequest,
}

#[derive(Debug)]
struct MailboxState {
    items: LogQueue,
    /// Items pushed and taken so far.
    pushed: u64,
    taken: u64,
    /// End of the events taken so far.
    reached: Offset,
    requests: Vec<WaitingRequest>,
    closed: bool,
}

/// A worker's queue.
#[derive(Debug)]
pub struct Mailbox {
    state: Mutex<MailboxState>,
    filled: Condvar,
}

impl Mailbox {
    /// Creates a mailbox for the events from `head` on, with batches of at most `bytes_max` bytes in memory.
    pub fn new(head: Offset, bytes_max: usize) -> Mailbox {
        let items = LogQueue::new(bytes_max);
        let state = MailboxState { items, pushed: 0, taken: 0, reached: head, requests: Vec::new(), closed: false };
        Mailbox { state: Mutex::new(state), filled: Condvar::new() }
    }

    /// Sends a request to the worker. It is processed when all items pushed before, and all events before `reach`, are
    /// folded, so that a reader sees the events acknowledged before its request. Returns `false` if the worker has stopped.
    pub fn send(&self, request: WorkerRequest, reach: Offset) -> bool {
        let mut state = self.state.lock();
        if state.closed {
            return false;
        }
        let items = state.pushed;
        state.requests.push(WaitingRequest { items, reach, request });
        drop(state);
        self.filled.notify_one();
        true
    }

    /// Closes the mailbox: the worker stops once it has processed what waits.
    pub fn close(&self) {
        self.state.lock().closed = true;
        self.filled.notify_all();
    }

    /// Closes the mailbox and drops what waits: the worker has ended.
    pub fn abandon(&self) {
        let mut state = self.state.lock();
        state.closed = true;
        // Readers that wait for a reply get none, and with that an error.
        state.requests.clear();
        state.items.clear();
    }

    /// Waits for `pause` or until the mailbox is closed; returns whether it is closed.
    pub fn closed_within(&self, pause: Duration) -> bool {
        let deadline = shared::clock::monotonic_now() + pause;
        let mut state = self.state.lock();
        while !state.closed && !self.filled.wait_until(&mut state, deadline).timed_out() {}
        state.closed
    }

    /// Waits for input and takes it: items up to a cut or [`limits::FOLD_ROWS_MAX`] rows, and the requests due after them.
    /// `None` if the mailbox is closed and empty.
    pub fn take(&self) -> Option<WorkerInput> {
        let mut state = self.state.lock();
        while state.items.is_empty() && !state.requests.iter().any(|request| state.is_due(request)) {
            if state.closed {
                // No event comes any more for which a request could wait.
                state.requests.clear();
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
            let Some(item) = state.items.pop() else { break };
            rows += item.rows();
            state.taken += 1;
            state.reached = item.end();
            let is_batch = matches!(item, QueuedItem::Batch(_));
            input.items.push(item);
            if !is_batch {
                break;
            }
        }
        let waiting = std::mem::take(&mut state.requests);
        let (due, waiting): (Vec<_>, Vec<_>) = waiting.into_iter().partition(|request| state.is_due(request));
        state.requests = waiting;
        input.requests = due.into_iter().map(|due| due.request).collect();
        Some(input)
    }
}

impl MailboxState {
    fn is_due(&self, request: &WaitingRequest) -> bool {
        request.items <= self.taken && request.reach <= self.reached
    }
}

impl LogSink for Mailbox {
    fn push(&self, item: LogItem) -> Result<(), Stopped> {
        let mut state = self.state.lock();
        if state.closed {
            return Err(Stopped);
        }
        let before = state.items.len();
        state.items.push(item);
        state.pushed += (state.items.len() - before) as u64;
        drop(state);
        self.filled.notify_one();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use shared::handoff::CutMark;
    use shared::ids::Partition;
    use shared::ledger::Ledger;

    use super::*;

    fn cut(offset: u64) -> LogItem {
        let (view, partition) = ("v".parse().expect("a name"), Partition(0));
        LogItem::Cut(Arc::new(CutMark { view, partition, offset: Offset(offset), accepted: Ledger::EMPTY }))
    }

    fn request(mailbox: &Mailbox, reach: u64) -> oneshot::Receiver<Vec<ViewStatus>> {
        let (reply, answer) = oneshot::channel();
        assert!(mailbox.send(WorkerRequest::Status { reply }, Offset(reach)));
        answer
    }

    fn taken(mailbox: &Mailbox) -> Option<(usize, usize)> {
        mailbox.take().map(|input| (input.items.len(), input.requests.len()))
    }

    #[test]
    fn a_request_waits_for_the_items_pushed_before_it_and_for_no_others() {
        let mailbox = Mailbox::new(Offset(0), 1_000);
        let _first = request(&mailbox, 0);
        (0..2).for_each(|_| mailbox.push(cut(0)).expect("open"));
        let _second = request(&mailbox, 0);
        mailbox.push(cut(0)).expect("open");
        // A cut ends a take, so each take returns one.
        assert_eq!(taken(&mailbox), Some((1, 1)));
        assert_eq!(taken(&mailbox), Some((1, 1)));
        assert_eq!(taken(&mailbox), Some((1, 0)));
        mailbox.close();
        assert_eq!(taken(&mailbox), None);
        assert!(mailbox.push(cut(0)).is_err());
    }

    #[test]
    fn a_request_waits_for_acknowledged_events_that_are_not_pushed_yet() {
        let mailbox = Mailbox::new(Offset(5), 1_000);
        let early = request(&mailbox, 7);
        let at_once = request(&mailbox, 5);
        assert_eq!(taken(&mailbox), Some((0, 1)));
        drop(at_once);
        mailbox.push(cut(6)).expect("open");
        assert_eq!(taken(&mailbox), Some((1, 0)));
        mailbox.push(cut(7)).expect("open");
        assert_eq!(taken(&mailbox), Some((1, 1)));
        drop(early);
        // A worker that stops leaves no request waiting.
        let mut never = request(&mailbox, 8);
        mailbox.close();
        assert_eq!(taken(&mailbox), None);
        assert_eq!(never.try_recv(), Err(oneshot::error::TryRecvError::Closed));
    }
}
