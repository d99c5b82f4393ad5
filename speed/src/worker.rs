//! Runs the thread of one partition: replays the log, then folds new items, and processes requests between two folds. A
//! worker that is behind reads the events that did not fit its mailbox from the log.

use std::sync::Arc;
use std::time::{Duration, Instant};

use shared::handoff::{HandoffError, LogBatch, LogReplay, LogRetention};
use shared::ids::{Offset, Partition, StreamName};
use shared::limits;
use shared::live_state::LiveState;
use shared::log_queue::QueuedItem;
use shared::readers::{SpeedError, SpeedPin};
use shared::retained_bytes::RetainedBytes;
use shared::time::Micros;
use shared::vital;
use tokio::sync::oneshot;
use tracing::{info, warn};

use crate::fold::FoldError;
use crate::fold_input::FoldInput;
use crate::generations::Generations;
use crate::mailbox::{Mailbox, PartitionPin, ViewStatus, WorkerRequest};

/// The reader name under which a worker releases the log.
pub const READER: &str = "speed";
/// Pause after the first failure to read the log; it doubles up to [`LONGEST_RETRY_PAUSE`].
const FIRST_RETRY_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_RETRY_PAUSE: Duration = Duration::from_secs(10);
/// Shortest time between two measurements of memory.
const MEASURED_EVERY: Duration = Duration::from_millis(500);
/// Rows folded together during a replay; large, since no reader waits in between.
const REPLAY_ROWS: usize = 65_536;

/// The state of one partition, and its mailbox.
pub struct SpeedWorker {
    pub partition: Partition,
    pub views: Vec<Generations>,
    pub mailbox: Arc<Mailbox>,
    /// Name of the thread.
    pub name: String,
    pub source: PartitionSource,
    /// End of the events folded so far.
    pub position: Offset,
    pub watermark: Micros,
    pub last_arrival: Option<Micros>,
    /// The memory reported last, and when.
    pub measured: Option<(u64, Instant)>,
}

/// Where a worker reads events, and where it reports which of them it still needs and how much memory their state takes.
pub struct PartitionSource {
    pub stream: StreamName,
    pub log: Arc<dyn LogReplay>,
    pub retention: Arc<dyn LogRetention>,
    pub live_state: Arc<LiveState>,
}

/// Why a worker stopped.
#[derive(Debug, thiserror::Error)]
pub enum WorkerError {
    #[error("cannot read the log: {0}")]
    Replay(#[from] HandoffError),
    #[error("cannot fold events: {0}")]
    Fold(#[from] FoldError),
}

/// Closes the mailbox however the worker ends, so that neither a log writer nor a reader waits for a dead worker.
struct CloseOnEnd(Arc<Mailbox>);

impl Drop for CloseOnEnd {
    fn drop(&mut self) {
        self.0.abandon();
    }
}

impl SpeedWorker {
    /// Runs until the mailbox is closed. `ready` is notified when the log has been replayed.
    ///
    /// # Errors
    /// The log cannot be read or its events not folded: the live figures can no longer be right.
    pub fn run(mut self, ready: oneshot::Sender<()>) -> Result<(), WorkerError> {
        let _close = CloseOnEnd(Arc::clone(&self.mailbox));
        self.replay()?;
        let _ = ready.send(());
        while let Some(input) = self.mailbox.take() {
            self.process(input.items)?;
            self.release();
            let shrinks = input.requests.iter().any(WorkerRequest::shrinks_state);
            input.requests.into_iter().for_each(|request| self.reply(request));
            self.measure(shrinks);
        }
        Ok(())
    }

    /// Reads the events that the log holds at the start.
    fn replay(&mut self) -> Result<(), WorkerError> {
        let (start, head) = self.source.log.range(self.partition);
        let from = self.position.max(start);
        self.position = from;
        self.read_log(head)?;
        self.release();
        if head > from {
            info!(partition = %self.partition, events = head.0 - from.0, "replayed the log");
        }
        Ok(())
    }

    /// Folds the events before `to` that did not fit the mailbox. Errors of the log are retried some times: they may be
    /// passing ones, such as too many open files.
    fn catch_up(&mut self, to: Offset) -> Result<(), WorkerError> {
        let mut pause = FIRST_RETRY_PAUSE;
        for attempt in 1.. {
            match self.read_log(to) {
                Err(WorkerError::Replay(error)) if attempt < limits::LOG_READ_ATTEMPTS_MAX => {
                    warn!(partition = %self.partition, %error, "cannot read the log; will retry");
                    if self.mailbox.closed_within(pause) {
                        return Err(error.into());
                    }
                    pause = (pause * 2).min(LONGEST_RETRY_PAUSE);
                }
                result => return result,
            }
        }
        Ok(())
    }

    /// Folds the events of the log from the present position to `to`.
    fn read_log(&mut self, to: Offset) -> Result<(), WorkerError> {
        if self.position >= to {
            return Ok(());
        }
        let mut batches: Vec<Arc<LogBatch>> = Vec::new();
        let (mut rows, mut retained) = (0, RetainedBytes::default());
        let mut problem = None;
        let log = Arc::clone(&self.source.log);
        log.replay(self.partition, self.position, to, &mut |batch| {
            rows += batch.rows.num_rows();
            retained.add(&batch.rows);
            batches.push(Arc::new(batch));
            if (rows >= REPLAY_ROWS || retained.bytes() >= limits::HANDOFF_QUEUE_BYTES_MAX) && problem.is_none() {
                problem = self.fold(&batches).err();
                batches.clear();
                (rows, retained) = (0, RetainedBytes::default());
            }
        })?;
        if let Some(problem) = problem {
            return Err(problem.into());
        }
        self.fold(&batches)?;
        if self.position < to {
            let end = self.position;
            return Err(HandoffError(format!("the log ended at {end}, before {to}")).into());
        }
        Ok(())
    }

    fn process(&mut self, items: Vec<QueuedItem>) -> Result<(), WorkerError> {
        let mut batches: Vec<Arc<LogBatch>> = Vec::with_capacity(items.len());
        for item in items {
            let reached = batches.last().map_or(self.position, |batch| batch.end_offset());
            if item.start() > reached {
                self.fold(&batches)?;
                batches.clear();
                self.catch_up(item.start())?;
            }
            match item {
                QueuedItem::Batch(batch) => batches.push(batch),
                QueuedItem::Cut(mark) => {
                    self.fold(&batches)?;
                    batches.clear();
                    self.views.iter_mut().filter(|v| v.view.name == mark.view).for_each(Generations::cut);
                }
                QueuedItem::Unqueued(_) => {}
            }
        }
        self.fold(&batches)?;
        Ok(())
    }

    /// Reports the memory of all views if that was not done for a while, or in any case: measuring visits every row.
    fn measure(&mut self, in_any_case: bool) {
        let now = shared::clock::monotonic_now();
        let (before, is_due) = match self.measured {
            Some((bytes, at)) => (bytes, now.duration_since(at) >= MEASURED_EVERY),
            None => (0, true),
        };
        if is_due || in_any_case {
            let bytes = self.views.iter().map(|view| view.bytes() as u64).sum();
            self.source.live_state.change(before, bytes);
            // After the measurement, so that a slow one is not repeated at once.
            self.measured = Some((bytes, shared::clock::monotonic_now()));
        }
    }

    /// Releases the events folded so far: a restart reads those from the seam of each view, which views keep themselves.
    fn release(&self) {
        self.source.retention.release(&self.source.stream, self.partition, READER, self.position);
    }

    fn fold(&mut self, batches: &[Arc<LogBatch>]) -> Result<(), FoldError> {
        let Some(last) = batches.last() else { return Ok(()) };
        vital::reach(&self.name);
        self.watermark = last.watermark;
        self.last_arrival = Some(last.arrived_at);
        self.position = last.end_offset();
        let mut input = FoldInput::new(batches);
        self.views.iter_mut().for_each(|view| view.fold(&mut input));
        Ok(())
    }

    fn reply(&mut self, request: WorkerRequest) {
        match request {
            WorkerRequest::Pin { view, definition, from, wanted, reply } => {
                let generations = match self.views.iter().find(|v| v.belongs_to(&view, &definition)) {
                    Some(found) => found.pin(Offset(from), wanted.as_deref()),
                    // Another definition became active after the reader read the seam.
                    None if self.views.iter().any(|v| v.view.name == view) => Err(SpeedError::SeamMoved),
                    None => Err(SpeedError::UnknownView),
                };
                let watermark = (self.watermark != Micros::MIN).then_some(self.watermark);
                let pin = generations.map(|generations| PartitionPin {
                    // The service derives the latest event from the watermark delay.
                    pin: SpeedPin { generations, watermark, latest_event: None },
                    last_arrival: self.last_arrival,
                });
                let _ = reply.send(pin);
            }
            WorkerRequest::Retire { view, definition, before } => {
                let of_view = self.views.iter_mut().filter(|v| v.belongs_to(&view, &definition));
                of_view.for_each(|v| v.retire(Offset(before)));
            }
            WorkerRequest::Forget { view, definition } => self.views.retain(|v| !v.belongs_to(&view, &definition)),
            WorkerRequest::Status { reply } => {
                let status = |v: &Generations| ViewStatus {
                    view: v.view.name.clone(),
                    definition: v.definition.clone(),
                    rows: v.rows(),
                    bytes: v.bytes(),
                    generations: v.count(),
                };
                let _ = reply.send(self.views.iter().map(status).collect());
            }
        }
    }
}
