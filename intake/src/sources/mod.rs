//! Reads the topics of streams into their logs, each record exactly once.
//!
//! Partition k of a topic is partition k of the stream. A batch of records goes through the ordinary path of events, and the
//! position after it is in the log frame that holds its events: one sync makes both durable. Let `next` be the position of the
//! last durable frame; then the log holds the events of exactly the records before `next`, at every moment and after every
//! crash. What the broker remembers is never read.
//!
//! [`reader`] is the task of a stream; [`positions`] decides where it starts, [`batches`] decodes records, [`flight`] waits
//! for what was submitted, and [`status`] shows how far it is. [`topic_partitions`] says how many partitions a stream has.

mod batches;
mod error;
mod flight;
mod opener;
mod positions;
mod reader;
mod schemas;
mod status;
#[cfg(test)]
mod tests;
pub mod topic_partitions;

use std::collections::BTreeMap;
use std::sync::{Arc, Weak};

use lake::Lake;
use shared::clock::Clock;
use shared::ids::StreamName;
use shared::vital::Vitals;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::streams::Intake;
use crate::submit::EventSubmitter;

pub use error::SourceError;
pub use opener::{Connections, TopicOpener};
pub use status::SourceStatuses;

use reader::StreamReader;
use status::ReaderStatus;

/// The tasks that read topics.
pub struct SourceReaders {
    tasks: Vec<JoinHandle<()>>,
    stop: watch::Sender<bool>,
    grown: watch::Receiver<bool>,
    statuses: SourceStatuses,
}

/// What all readers share.
#[derive(Clone)]
pub struct SourceContext {
    pub intake: Arc<Intake>,
    pub submitter: Arc<EventSubmitter>,
    pub lake: Lake,
    pub opener: Arc<dyn TopicOpener>,
    pub clock: Arc<dyn Clock>,
}

impl SourceReaders {
    /// Starts a task for each stream that reads a topic. The log must accept events already.
    pub fn start(context: &SourceContext, vitals: &Vitals) -> SourceReaders {
        let (stop, stopped) = watch::channel(false);
        let (grow, grown) = watch::channel(false);
        let grow = Arc::new(grow);
        let mut statuses: BTreeMap<StreamName, Arc<ReaderStatus>> = BTreeMap::new();
        let mut tasks = Vec::new();
        for log in context.intake.streams() {
            let stream = log.stream();
            let (Some(topic), Some(submitter)) = (stream.topic(), context.submitter.records(&stream.name)) else {
                continue;
            };
            let status = Arc::new(ReaderStatus::new(topic.clone(), Arc::clone(log)));
            let backlog: Weak<ReaderStatus> = Arc::downgrade(&status);
            log.watch_backlog(backlog);
            statuses.insert(stream.name.clone(), Arc::clone(&status));
            let reader = StreamReader {
                topic: topic.clone(),
                log: Arc::clone(log),
                submitter,
                lake: context.lake.clone(),
                opener: Arc::clone(&context.opener),
                clock: Arc::clone(&context.clock),
                status,
                stopped: stopped.clone(),
                grow: Arc::clone(&grow),
            };
            tasks.push(vitals.spawn_task(format!("source-{}", stream.name), reader.run()));
        }
        SourceReaders { tasks, stop, grown, statuses: SourceStatuses::new(statuses) }
    }

    /// The states of the readers.
    pub fn statuses(&self) -> SourceStatuses {
        self.statuses.clone()
    }

    /// Becomes `true` when a topic has more partitions than its stream: only a new start of the process gives it more.
    pub fn grown(&self) -> watch::Receiver<bool> {
        self.grown.clone()
    }

    /// Stops all readers after what they have submitted is durable.
    pub async fn stop(self) {
        let _ = self.stop.send(true);
        for task in self.tasks {
            // A panic was reported when it happened.
            let _ = task.await;
        }
    }
}
