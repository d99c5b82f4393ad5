//! Runs the thread of one partition: replays the log, then folds new items, and processes requests between two folds.

use std::sync::Arc;

use shared::handoff::{LogBatch, LogItem, LogReplay};
use shared::ids::{Offset, Partition};
use shared::readers::{SpeedError, SpeedPin};
use shared::time::Micros;
use tokio::sync::oneshot;
use tracing::{error, info};

use crate::fold::FoldError;
use crate::generations::Generations;
use crate::mailbox::{Mailbox, PartitionPin, ViewStatus, WorkerRequest};

/// Rows folded together during a replay; large, since no reader waits in between.
const REPLAY_ROWS: usize = 65_536;

/// The state of one partition, and its mailbox.
#[derive(Debug)]
pub struct SpeedWorker {
    pub partition: Partition,
    pub views: Vec<Generations>,
    pub mailbox: Arc<Mailbox>,
    pub watermark: Micros,
    pub last_arrival: Option<Micros>,
}

/// Why a worker stopped.
#[derive(Debug, thiserror::Error)]
pub enum WorkerError {
    #[error("cannot replay the log: {0}")]
    Replay(#[from] shared::handoff::HandoffError),
    #[error("cannot fold events: {0}")]
    Fold(#[from] FoldError),
}

impl SpeedWorker {
    /// Runs until the mailbox is closed. `ready` receives the result of the replay.
    pub fn run(mut self, log: &dyn LogReplay, from: Offset, ready: oneshot::Sender<Result<(), WorkerError>>) {
        match self.replay(log, from) {
            Ok(()) => {
                let _ = ready.send(Ok(()));
            }
            Err(problem) => {
                let _ = ready.send(Err(problem));
                self.mailbox.close();
                return;
            }
        }
        while let Some(input) = self.mailbox.take() {
            if let Err(problem) = self.process(input.items) {
                error!(partition = %self.partition, %problem, "speed worker stopped: cannot fold events");
                self.mailbox.close();
                return;
            }
            input.requests.into_iter().for_each(|request| self.reply(request));
        }
    }

    fn replay(&mut self, log: &dyn LogReplay, from: Offset) -> Result<(), WorkerError> {
        let (start, head) = log.range(self.partition);
        let from = from.max(start);
        if from >= head {
            return Ok(());
        }
        let mut batches: Vec<Arc<LogBatch>> = Vec::new();
        let mut rows = 0;
        let mut problem = None;
        log.replay(self.partition, from, head, &mut |batch| {
            rows += batch.rows.num_rows();
            batches.push(Arc::new(batch));
            if rows >= REPLAY_ROWS && problem.is_none() {
                problem = self.fold(&batches).err();
                batches.clear();
                rows = 0;
            }
        })?;
        if let Some(problem) = problem {
            return Err(problem.into());
        }
        self.fold(&batches)?;
        info!(partition = %self.partition, events = head.0 - from.0, "replayed the log");
        Ok(())
    }

    fn process(&mut self, items: Vec<LogItem>) -> Result<(), FoldError> {
        let mut batches = Vec::with_capacity(items.len());
        for item in items {
            match item {
                LogItem::Batch(batch) => batches.push(batch),
                LogItem::Cut(mark) => {
                    self.fold(&batches)?;
                    batches.clear();
                    self.views.iter_mut().filter(|v| v.view.name == mark.view).for_each(Generations::cut);
                }
            }
        }
        self.fold(&batches)
    }

    fn fold(&mut self, batches: &[Arc<LogBatch>]) -> Result<(), FoldError> {
        let Some(last) = batches.last() else { return Ok(()) };
        self.watermark = last.watermark;
        self.last_arrival = Some(last.arrived_at);
        self.views.iter_mut().for_each(|view| view.fold(batches));
        Ok(())
    }

    fn reply(&mut self, request: WorkerRequest) {
        match request {
            WorkerRequest::Pin { view, definition, from, reply } => {
                let generations = match self.views.iter().find(|v| v.belongs_to(&view, &definition)) {
                    Some(found) => found.pin(Offset(from)),
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
