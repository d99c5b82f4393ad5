//! Runs the archiver of one partition on the caller's thread, one step at a time, for simulations.

use std::sync::Arc;

use parking_lot::Mutex;
use shared::handoff::LogSink;
use shared::ids::{Offset, Partition};
use shared::stream::Stream;
use tokio::sync::watch;

use super::queue::{ArchiveQueue, QueueNext};
use super::retry::ArchiverExit;
use super::worker::{ActiveArchiver, ArchiverThread};
use super::{ArchiverContext, ArchiverSettings};

/// The archiver of one partition, without a thread.
pub struct StepwiseArchiver {
    worker: Arc<ArchiverThread>,
    /// `None` until the archive is open.
    active: Option<ActiveArchiver>,
    head: Offset,
    queue: Arc<ArchiveQueue>,
    archived: watch::Receiver<Option<Offset>>,
}

impl StepwiseArchiver {
    /// Creates the archiver of `partition`, whose log may grow only after this has returned.
    pub fn new(
        stream: &Arc<Stream>,
        partition: Partition,
        context: ArchiverContext,
        settings: ArchiverSettings,
    ) -> StepwiseArchiver {
        let queue = Arc::new(ArchiveQueue::new(settings.queue_bytes_max));
        let (sender, archived) = watch::channel(None);
        let (_, head) = context.log.range(partition);
        let status = Arc::new(Mutex::default());
        let worker =
            ArchiverThread::new(Arc::clone(stream), partition, context, settings, Arc::clone(&queue), status, sender);
        StepwiseArchiver { worker: Arc::new(worker), active: None, head, queue, archived }
    }

    /// The sink for the log writer.
    pub fn sink(&self) -> Arc<dyn LogSink> {
        Arc::clone(&self.queue) as Arc<dyn LogSink>
    }

    /// Returns a function that ends the step under way, which would otherwise be retried until the lake works.
    pub fn stopper(&self) -> impl Fn() + Send + Sync + use<> {
        let queue = Arc::clone(&self.queue);
        move || queue.close()
    }

    /// Every event before it is in the lake; `None` until the archive is open.
    pub fn archived(&self) -> Option<Offset> {
        *self.archived.borrow()
    }

    /// Opens the archive and catches up with the log, or processes the next item of the queue. Returns `false` if none
    /// waits.
    ///
    /// # Errors
    /// The archiver was stopped, or a retry would not help.
    pub fn step(&mut self) -> Result<bool, String> {
        let Some(active) = &mut self.active else {
            self.active = Some(self.worker.begin(self.head).map_err(reason)?);
            return Ok(true);
        };
        match self.queue.next(Some(shared::clock::monotonic_now())) {
            QueueNext::Item(item) => active.process(item).map_err(reason).map(|()| true),
            QueueNext::TimedOut => Ok(false),
            QueueNext::Closed => Err("stopped".to_owned()),
        }
    }

    /// Commits all pending rows, as if they had waited long enough.
    ///
    /// # Errors
    /// As for [`StepwiseArchiver::step`].
    pub fn flush(&mut self) -> Result<(), String> {
        self.active.as_mut().map_or(Ok(()), |active| active.flush().map_err(reason))
    }
}

fn reason(exit: ArchiverExit) -> String {
    match exit {
        ArchiverExit::Stopped => "stopped".to_owned(),
        ArchiverExit::Broken(reason) => reason,
    }
}
