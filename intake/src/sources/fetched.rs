//! Polls a topic in a task of its own, so that the client waits for its broker and unpacks records while earlier ones are decoded
//! and written. The polls that wait to be taken are bounded in bytes.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use kafka::{PartitionProgress, TopicError, TopicReader, TopicRecord};
use shared::limits::SOURCE_FETCHED_BYTES;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::task::JoinSet;

/// Longest wait of a poll for records.
const POLL_WAIT: Duration = Duration::from_millis(500);

/// The records of polls, in their order.
pub(super) struct Fetched {
    pub polls: Vec<Vec<TopicRecord>>,
    /// How far the client was right after the last of them.
    pub progress: Vec<PartitionProgress>,
}

impl Fetched {
    /// The partitions of the records.
    pub fn partitions(&self) -> BTreeSet<u32> {
        // Those of a partition are often neighbours.
        let runs = self.polls.iter().flat_map(|records| records.chunk_by(|a, b| a.partition == b.partition));
        runs.filter_map(|run| run.first()).map(|record| record.partition).collect()
    }
}

/// One poll, with its share of the bytes.
struct Poll {
    records: Vec<TopicRecord>,
    progress: Vec<PartitionProgress>,
    _share: OwnedSemaphorePermit,
}

/// Polls until it fails. Dropping it ends the task: records that were not taken are read again.
pub(super) struct Fetcher {
    polls: mpsc::UnboundedReceiver<Result<Poll, TopicError>>,
    /// Of a poll that was received behind records: returned after them.
    failed: Option<TopicError>,
    _task: JoinSet<()>,
}

impl Fetcher {
    pub fn start(reader: Arc<dyn TopicReader>) -> Fetcher {
        let (sender, polls) = mpsc::unbounded_channel();
        let mut task = JoinSet::new();
        task.spawn(poll(reader, sender));
        Fetcher { polls, failed: None, _task: task }
    }

    /// Returns the polls since the last call, at least one; `None` if the task is gone.
    ///
    /// # Errors
    /// What ended the task.
    pub async fn next(&mut self) -> Option<Result<Fetched, TopicError>> {
        if let Some(error) = self.failed.take() {
            return Some(Err(error));
        }
        let mut fetched = match self.polls.recv().await? {
            Ok(Poll { records, progress, .. }) => Fetched { polls: vec![records], progress },
            Err(error) => return Some(Err(error)),
        };
        while let Ok(next) = self.polls.try_recv() {
            match next {
                Ok(Poll { records, progress, .. }) => {
                    fetched.polls.push(records);
                    fetched.progress = progress;
                }
                Err(error) => self.failed = Some(error),
            }
        }
        Some(Ok(fetched))
    }
}

async fn poll(reader: Arc<dyn TopicReader>, polls: mpsc::UnboundedSender<Result<Poll, TopicError>>) {
    let room = Arc::new(Semaphore::new(SOURCE_FETCHED_BYTES));
    loop {
        let polled = match reader.poll(POLL_WAIT).await {
            Ok(records) => {
                let progress = reader.progress().await;
                let bytes: usize = records.iter().map(TopicRecord::bytes).sum();
                let share = Arc::clone(&room).acquire_many_owned(bytes.clamp(1, SOURCE_FETCHED_BYTES) as u32).await;
                let Ok(share) = share else { return };
                Ok(Poll { records, progress, _share: share })
            }
            Err(error) => Err(error),
        };
        let failed = polled.is_err();
        if polls.send(polled).is_err() || failed {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::opener::SourceOpener;
    use super::super::tests::{FakeTopic, declared};
    use super::*;

    const RECORD_BYTES: usize = 1024 * 1024;

    #[tokio::test]
    async fn records_are_polled_ahead_within_the_limit_and_come_in_order() {
        let topic = FakeTopic::empty(1);
        for _ in 0..40 {
            topic.append(0, Some(&vec![b' '; RECORD_BYTES]));
        }
        let stream = declared(1, "");
        let reader = topic.open(&stream, stream.topic().expect("a topic")).await.expect("opens");
        let reader: Arc<dyn TopicReader> = reader.into();
        reader.assign(&[(0, 0)]).await.expect("assigns");
        let mut fetcher = Fetcher::start(Arc::clone(&reader));
        for _ in 0..200 {
            tokio::task::yield_now().await;
        }
        // Two polls of seven records are within the limit; the third waits.
        assert_eq!(reader.progress().await[0].position, 21);
        let mut taken = Vec::new();
        while taken.len() < 40 {
            let fetched = fetcher.next().await.expect("a task").expect("records");
            if taken.is_empty() {
                assert_eq!(fetched.polls.len(), 2);
                assert_eq!(fetched.progress[0].position, 14);
                assert_eq!(fetched.partitions(), BTreeSet::from([0]));
            }
            taken.extend(fetched.polls.into_iter().flatten().map(|record| record.offset));
        }
        assert_eq!(taken, (0..40).collect::<Vec<i64>>());
        topic.fail_polls(1);
        let mut ended = fetcher.next().await.expect("a task");
        while ended.is_ok() {
            ended = fetcher.next().await.expect("a task");
        }
        assert!(fetcher.next().await.is_none());
    }
}
