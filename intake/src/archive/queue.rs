//! Queues log items for an archiver, in order and bounded in rows; a full queue blocks the log writer.

use std::collections::VecDeque;
use std::time::Instant;

use parking_lot::{Condvar, Mutex};
use shared::handoff::{LogItem, LogSink, Stopped};
use tokio::sync::watch;

/// The queue between a partition's log writer and its archiver.
pub(super) struct ArchiveQueue {
    rows_max: usize,
    state: Mutex<ArchiveQueueState>,
    changed: Condvar,
    closing: watch::Sender<bool>,
}

#[derive(Default)]
struct ArchiveQueueState {
    items: VecDeque<LogItem>,
    rows: usize,
    closed: bool,
}

/// The result of waiting for the next item.
pub(super) enum QueueNext {
    Item(LogItem),
    /// The deadline passed first.
    TimedOut,
    /// The archiver has to stop; queued items are in the log.
    Closed,
}

impl ArchiveQueue {
    pub fn new(rows_max: usize) -> ArchiveQueue {
        let (closing, _) = watch::channel(false);
        ArchiveQueue { rows_max, state: Mutex::default(), changed: Condvar::new(), closing }
    }

    /// Rows waiting.
    pub fn rows(&self) -> usize {
        self.state.lock().rows
    }

    /// Waits for the next item until `deadline`.
    pub fn next(&self, deadline: Option<Instant>) -> QueueNext {
        let mut state = self.state.lock();
        loop {
            if state.closed {
                return QueueNext::Closed;
            }
            if let Some(item) = state.items.pop_front() {
                state.rows -= item.rows();
                self.changed.notify_all();
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
        let rows = item.rows();
        let mut state = self.state.lock();
        // An item larger than the bound is queued alone.
        while !state.closed && state.rows > 0 && state.rows + rows > self.rows_max {
            self.changed.wait(&mut state);
        }
        if state.closed {
            return Err(Stopped);
        }
        state.rows += rows;
        state.items.push_back(item);
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

    fn item(first: u64, rows: usize) -> LogItem {
        LogItem::Batch(Arc::new(batch(first, &vec![0; rows])))
    }

    fn first(next: QueueNext) -> Offset {
        match next {
            QueueNext::Item(LogItem::Batch(batch)) => batch.first_offset,
            _ => panic!("expected a batch"),
        }
    }

    #[test]
    fn a_full_queue_accepts_the_next_item_when_there_is_room() {
        let queue = Arc::new(ArchiveQueue::new(10));
        queue.push(item(0, 25)).unwrap();
        let pusher = {
            let queue = queue.clone();
            std::thread::spawn(move || (0..50).try_for_each(|i| queue.push(item(25 + 4 * i, 4))))
        };
        assert_eq!(first(queue.next(None)), Offset(0));
        for i in 0..50 {
            assert_eq!(first(queue.next(None)), Offset(25 + 4 * i));
            assert!(queue.rows() <= 10);
        }
        pusher.join().unwrap().unwrap();
        assert!(matches!(queue.next(Some(Instant::now())), QueueNext::TimedOut));
    }

    #[test]
    fn closing_releases_a_blocked_writer() {
        let queue = Arc::new(ArchiveQueue::new(1));
        queue.push(item(0, 1)).unwrap();
        let pusher = {
            let queue = queue.clone();
            std::thread::spawn(move || queue.push(item(1, 1)))
        };
        queue.close();
        assert_eq!(pusher.join().unwrap(), Err(Stopped));
        assert!(matches!(queue.next(None), QueueNext::Closed));
    }
}
