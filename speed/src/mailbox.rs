//! How do log items reach a worker? Through a queue bounded in rows; questions of readers pass by it.

use std::collections::VecDeque;

use parking_lot::{Condvar, Mutex};
use shared::handoff::{LogItem, LogSink, Stopped};
use shared::ids::ViewName;
use shared::limits;
use shared::readers::{SpeedError, SpeedPin};
use shared::time::Micros;
use tokio::sync::oneshot;

/// What a reader wants of a worker. Answered between two folds.
#[derive(Debug)]
pub enum Request {
    /// The generations of the view of this name and definition hash, from an offset on. Two views may be defined alike.
    Pin { view: ViewName, definition: String, from: u64, reply: oneshot::Sender<Result<PartitionPin, SpeedError>> },
    /// Drop what lies before an offset.
    Retire { view: ViewName, definition: String, before: u64 },
    /// Fold no more for the view as this definition has it.
    Forget { view: ViewName, definition: String },
    /// Numbers for a status page.
    Status { reply: oneshot::Sender<Vec<ViewStatus>> },
}

/// One partition's share of a [`SpeedPin`].
#[derive(Debug, Clone)]
pub struct PartitionPin {
    pub pin: SpeedPin,
    /// Arrival of the partition's last event.
    pub last_arrival: Option<Micros>,
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
    /// Items that ever came in and went out: a request is answered once what came before it went out.
    pushed: u64,
    taken: u64,
    requests: VecDeque<(u64, Request)>,
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
    /// Asks the worker something; answered when everything pushed before has been folded, so that a reader sees what was
    /// acknowledged before it asked. `false`: the worker has stopped.
    pub fn ask(&self, request: Request) -> bool {
        let mut waiting = self.waiting.lock();
        if waiting.closed {
            return false;
        }
        let before = waiting.pushed;
        waiting.requests.push_back((before, request));
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

    /// Waits for work and takes it: items up to a cut or [`limits::FOLD_ROWS_MAX`] rows, and the requests whose turn has
    /// come with them.
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
        waiting.taken += work.items.len() as u64;
        while waiting.requests.front().is_some_and(|(before, _)| *before <= waiting.taken) {
            work.requests.extend(waiting.requests.pop_front().map(|(_, request)| request));
        }
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
        waiting.pushed += 1;
        waiting.items.push_back(item);
        drop(waiting);
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

    fn question(mailbox: &Mailbox) -> oneshot::Receiver<Vec<ViewStatus>> {
        let (reply, answer) = oneshot::channel();
        assert!(mailbox.ask(Request::Status { reply }));
        answer
    }

    #[test]
    fn a_question_waits_for_what_was_pushed_before_it_and_for_nothing_after() {
        let mailbox = Mailbox::default();
        let _first = question(&mailbox);
        (0..2).for_each(|_| mailbox.push(cut()).expect("open"));
        let _second = question(&mailbox);
        mailbox.push(cut()).expect("open");
        // A cut ends what is taken at once, so each take brings one.
        let taken = |mailbox: &Mailbox| mailbox.take().map(|work| (work.items.len(), work.requests.len()));
        assert_eq!(taken(&mailbox), Some((1, 1)));
        assert_eq!(taken(&mailbox), Some((1, 1)));
        assert_eq!(taken(&mailbox), Some((1, 0)));
        mailbox.close();
        assert_eq!(taken(&mailbox), None);
        assert!(mailbox.push(cut()).is_err());
    }
}
