//! Reads topics, and outboxes and tables in PostgreSQL, into the logs of their streams, each record exactly once.
//!
//! Partition k of a topic is partition k of the stream. A batch of records goes through the ordinary path of events, and the
//! position after it is in the log frame that holds its events: one sync makes both durable. Let `next` be the position of the
//! last durable frame; then the log holds the events of exactly the records before `next`, at every moment and after every
//! crash. What the broker remembers is never read.
//!
//! An outbox in PostgreSQL is a topic of one partition, whose position has the place in the database beside the number of the
//! row; the rows and the changes of a table are, too. The database is acknowledged only what is durable.
//!
//! [`reader`] is the task of a stream that reads a topic, [`outbox_reader`] that of one that reads a database; [`retry`] runs
//! both; [`positions`] decides where it starts, [`fetched`] polls ahead, [`batches`] decodes records, [`batch_writer`] submits them,
//! [`flight`] waits for what was submitted, [`whole`] and [`whole_topic`] hold changes until their transaction ends
//! ([`held_records`]), [`clear`] deletes all rows of a table, [`pace`] says how long to wait, and [`status`] shows how far it is.
//! [`topic_partitions`] says how many partitions a stream has.

mod batch_writer;
mod batches;
mod clear;
mod error;
mod fetched;
mod flight;
mod held_records;
mod opener;
mod outbox_reader;
mod pace;
mod positions;
mod reader;
mod retry;
mod schemas;
mod status;
#[cfg(test)]
mod tests;
pub mod topic_partitions;
mod whole;
mod whole_topic;

use std::collections::BTreeMap;
use std::sync::{Arc, Weak};

use lake::Lake;
use shared::clock::Clock;
use shared::ids::StreamName;
use shared::stream::{DatabaseTable, EventSource, Outbox};
use shared::vital::Vitals;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::streams::Intake;
use crate::submit::EventSubmitter;

pub use error::SourceError;
pub use opener::{Connections, SourceOpener};
pub use status::SourceStatuses;

use batch_writer::BatchWriter;
use outbox_reader::OutboxStreamReader;
use pace::Stopping;
use reader::StreamReader;
use status::ReaderStatus;

/// The tasks that read topics and outboxes.
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
    pub opener: Arc<dyn SourceOpener>,
    pub clock: Arc<dyn Clock>,
}

impl SourceReaders {
    /// Starts a task for each stream that reads a topic or an outbox. The log must accept events already.
    pub fn start(context: &SourceContext, vitals: &Vitals) -> SourceReaders {
        let (stop, stopped) = watch::channel(false);
        let (grow, grown) = watch::channel(false);
        let grow = Arc::new(grow);
        let mut statuses: BTreeMap<StreamName, Arc<ReaderStatus>> = BTreeMap::new();
        let mut tasks = Vec::new();
        for log in context.intake.streams() {
            let stream = log.stream();
            let Some(submitter) = context.submitter.records(&stream.name).filter(|_| !stream.is_sent()) else {
                continue;
            };
            let status = Arc::new(ReaderStatus::new(Arc::clone(log)));
            let backlog: Weak<ReaderStatus> = Arc::downgrade(&status);
            log.watch_backlog(backlog);
            statuses.insert(stream.name.clone(), Arc::clone(&status));
            let stopping = Stopping(stopped.clone());
            let writer = BatchWriter {
                submitter: Arc::clone(&submitter),
                status: Arc::clone(&status),
                stopping: stopping.clone(),
            };
            let (log, lake) = (Arc::clone(log), context.lake.clone());
            let (opener, clock) = (Arc::clone(&context.opener), Arc::clone(&context.clock));
            let name = format!("source-{}", stream.name);
            match stream.source.clone() {
                EventSource::Http => {}
                EventSource::Kafka(topic) => {
                    let grow = Arc::clone(&grow);
                    let reader =
                        StreamReader { topic, log, submitter, lake, opener, clock, status, writer, stopping, grow };
                    tasks.push(vitals.spawn_task(name, reader.run()));
                }
                EventSource::Postgres(Outbox { name: outbox, .. })
                | EventSource::PostgresTable(DatabaseTable { name: outbox, .. }) => {
                    let reader = OutboxStreamReader {
                        name: outbox,
                        transactions: stream.transactions(),
                        log,
                        submitter,
                        lake,
                        opener,
                        clock,
                        status,
                        writer,
                        stopping,
                    };
                    tasks.push(vitals.spawn_task(name, reader.run()));
                }
            }
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
