//! Hands the items of the log to an archiver, in order. A full queue keeps positions, which the archiver reads from the log.

use std::time::Instant;

use parking_lot::{Condvar, Mutex};
use shared::handoff::{LogItem, LogSink, Stopped};
use shared::log_queue::{LogQueue, QueuedItem};
use tokio::sync::watch;

/// The queue between a partition's log writer and its archiver.
pub(super) struct ArchiveQueue {
    state: Mutex<ArchiveQueueState>,
    changed: Condvar,
    closing: watch::Sender<bool>,
}

struct ArchiveQueueState {
    items: LogQueue,
    closed: bool,
}

/// The result of waiting for the next item.
pub(super) enum QueueNext {
    Item(QueuedItem),
    /// The deadline passed first.
    TimedOut,
    /// The archiver has to stop; queued items are in the log.
    Closed,
}

impl ArchiveQueue {
    /// Creates a queue that holds batches of at most `bytes_max` bytes, or a single larger one.
    pub fn new(bytes_max: usize) -> ArchiveQueue {
        let (closing, _) = watch::channel(false);
        let state = Mutex::new(ArchiveQueueState { items: LogQueue::new(bytes_max), closed: false });
        ArchiveQueue { state, changed: Condvar::new(), closing }
    }

    /// Rows waiting in memory.
    pub fn rows(&self) -> usize {
        self.state.lock().items.rows()
    }

    /// Waits for the next item until `deadline`.
    pub fn next(&self, deadline: Option<Instant>) -> QueueNext {
        let mut state = self.state.lock();
        loop {
            if state.closed {
                return QueueNext::Closed;
            }
            if let Some(item) = state.items.pop() {
                return QueueNext::Item(item);
            }
            match deadline {
                Some(deadline) if shared::clock::monotonic_now() >= deadline => return QueueNext::TimedOut,
                Some(deadline) => drop(self.changed.wait_until(&mut state, deadline)),
                None => self.changed.wait(&mut state),
            }
        }
    }

    /// Sleeps until `deadline` or until the queue is closed; returns whether it is closed.
    pub fn closed_before(&self, deadline: Instant) -> bool {
        let mut state = self.state.lock();
        while !state.closed && shared::clock::monotonic_now() < deadline {
            self.changed.wait_until(&mut state, deadline);
        }
        state.closed
    }

    /// Closes the queue for both sides.
    pub fn close(&self) {
        self.state.lock().closed = true;
        self.changed.notify_all();
        self.closing.send_replace(true);
    }

    /// Returns once the queue is closed.
    pub async fn closed(&self) {
        // The sender lives as long as the queue.
        let _ = self.closing.subscribe().wait_for(|closed| *closed).await;
    }
}

impl LogSink for ArchiveQueue {
    fn push(&self, item: LogItem) -> Result<(), Stopped> {
        let mut state = self.state.lock();
        if state.closed {
            return Err(Stopped);
        }
        state.items.push(item);
        drop(state);
        self.changed.notify_all();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use shared::ids::Offset;

    use super::super::tests::batch;
    use super::*;

    #[test]
    fn a_full_queue_accepts_every_item_without_waiting_and_hands_out_every_offset() {
        let queue = ArchiveQueue::new(1);
        for first in 0..50 {
            queue.push(LogItem::Batch(Arc::new(batch(4 * first, &[0; 4])))).unwrap();
        }
        assert_eq!(queue.rows(), 4, "only the first batch is in memory");
        let mut reached = Offset(0);
        while let QueueNext::Item(item) = queue.next(Some(Instant::now())) {
            assert!(item.start() >= reached);
            reached = item.end();
        }
        assert_eq!(reached, Offset(200));
        queue.close();
        assert!(matches!(queue.next(None), QueueNext::Closed));
        assert_eq!(queue.push(LogItem::Batch(Arc::new(batch(200, &[0])))), Err(Stopped));
    }
}
