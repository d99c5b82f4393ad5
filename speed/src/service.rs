//! Starts and stops the workers, and reads a consistent pin from all partitions of a stream.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::thread::JoinHandle;

use futures::future::{BoxFuture, try_join_all};
use parking_lot::Mutex;
use shared::changed_rows::ChangedRows;
use shared::clock::Clock;
use shared::handoff::{LogReplay, LogRetention, LogSink};
use shared::ids::{Offset, Partition, StreamName, ViewName};
use shared::ledger::Ledger;
use shared::limits;
use shared::live_state::LiveState;
use shared::lookup::table::Lookups;
use shared::partial::wanted::WantedRows;
use shared::published::PublishedView;
use shared::readers::{Reach, SpeedError, SpeedPin, SpeedReader};
use shared::seam::Cut;
use shared::stream::Stream;
use shared::stream_watermark::{PartitionProgress, StreamWatermark};
use shared::time::{Micros, micros_of};
use shared::view::View;
use shared::vital::Vitals;
use shared::window::Window;
use tokio::sync::oneshot;

use crate::fold::FoldError;
use crate::generations::Generations;
use crate::mailbox::{Mailbox, PartitionPin, ViewStatus, WorkerRequest};
use crate::worker::{PartitionSource, SpeedWorker};

/// A view to fold for, and the seam from which it starts.
#[derive(Debug, Clone)]
pub struct FoldedView {
    pub view: Arc<View>,
    pub seam: Cut,
    /// The queues that receive the rows that change; none if the view has neither alerts nor sinks.
    pub changed: Vec<Arc<ChangedRows>>,
}

/// The speed layer: one worker per partition of every stream.
pub struct Speed {
    streams: BTreeMap<StreamName, FollowedStream>,
    threads: Mutex<Vec<JoinHandle<()>>>,
    clock: Arc<dyn Clock>,
}

/// A stream whose log is followed.
struct FollowedStream {
    log: Arc<dyn LogReplay>,
    /// The watermark that readers have seen.
    watermark: StreamWatermark,
    /// By partition.
    mailboxes: Vec<Arc<Mailbox>>,
}

/// Why the speed layer could not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("{0}")]
    Worker(String),
    #[error(transparent)]
    Plan(#[from] FoldError),
    #[error("cannot start a worker thread: {0}")]
    Thread(#[from] std::io::Error),
}

/// A stream, its log and the views over it.
pub struct FoldedStream {
    pub stream: Arc<Stream>,
    pub log: Arc<dyn LogReplay>,
    pub retention: Arc<dyn LogRetention>,
    /// Receives the memory of its workers.
    pub live_state: Arc<LiveState>,
    pub views: Vec<FoldedView>,
    /// The tables that views are joined with. They receive their changes from elsewhere.
    pub lookups: Lookups,
}

impl Speed {
    /// Starts all workers and returns once each has replayed the log from the seam of its views.
    pub async fn start(
        streams: Vec<FoldedStream>,
        clock: Arc<dyn Clock>,
        vitals: &Vitals,
    ) -> Result<Speed, StartError> {
        let mut followed = BTreeMap::new();
        let mut threads = Vec::new();
        let mut replays = Vec::new();
        for FoldedStream { stream, log, retention, live_state, views, lookups } in streams {
            let mut mailboxes = Vec::new();
            for partition in (0..stream.partitions).map(Partition) {
                let source = PartitionSource {
                    stream: stream.name.clone(),
                    log: Arc::clone(&log),
                    retention: Arc::clone(&retention),
                    live_state: Arc::clone(&live_state),
                };
                let worker = worker(&stream, partition, source, (&views, &lookups))?;
                let (mailbox, name) = (Arc::clone(&worker.mailbox), worker.name.clone());
                let (ready, replayed) = oneshot::channel();
                let run = move || worker.run(ready).map_err(|problem| problem.to_string());
                threads.push(vitals.spawn_thread(name, run)?);
                mailboxes.push(mailbox);
                replays.push(replayed);
            }
            let watermark = StreamWatermark::default();
            followed.insert(stream.name.clone(), FollowedStream { log, watermark, mailboxes });
        }
        let speed = Speed { streams: followed, threads: Mutex::new(threads), clock };
        for replayed in replays {
            if replayed.await.is_err() {
                // The thread reports its failure when it has ended.
                speed.stop();
                let failure = vitals.failure().map(|failure| failure.to_string());
                return Err(StartError::Worker(failure.unwrap_or_else(|| "a worker stopped".to_owned())));
            }
        }
        Ok(speed)
    }

    /// The sink for the log writer of a partition; `None` if the partition does not exist.
    pub fn sink(&self, stream: &StreamName, partition: Partition) -> Option<Arc<dyn LogSink>> {
        let mailbox = self.streams.get(stream)?.mailbox(partition)?;
        Some(Arc::clone(mailbox) as Arc<dyn LogSink>)
    }

    /// The memory in use, per stream, partition and view.
    pub async fn status(&self) -> Vec<(StreamName, Partition, Vec<ViewStatus>)> {
        let mut all = Vec::new();
        for (stream, followed) in &self.streams {
            for (partition, mailbox) in (0..).map(Partition).zip(&followed.mailboxes) {
                let (reply, status) = oneshot::channel();
                if mailbox.send(WorkerRequest::Status { reply }, Offset(0))
                    && let Ok(views) = status.await
                {
                    all.push((stream.clone(), partition, views));
                }
            }
        }
        all
    }

    /// Waits until every worker has processed its mailbox, and stops them.
    pub fn stop(&self) {
        self.streams.values().flat_map(|followed| &followed.mailboxes).for_each(|mailbox| mailbox.close());
        for thread in self.threads.lock().drain(..) {
            let _ = thread.join();
        }
    }

    /// Sends a request without a reply to every worker of the view's stream.
    fn broadcast(&self, published: &PublishedView, request: impl Fn(Partition, ViewName, String) -> WorkerRequest) {
        let Some(followed) = self.streams.get(&published.stream.name) else { return };
        for (partition, mailbox) in (0..published.stream.partitions).map(Partition).zip(&followed.mailboxes) {
            let (view, definition) = (published.view.name.clone(), published.definition_hash.to_string());
            mailbox.send(request(partition, view, definition), Offset(0));
        }
    }
}

impl FollowedStream {
    fn mailbox(&self, partition: Partition) -> Option<&Arc<Mailbox>> {
        self.mailboxes.get(partition.0 as usize)
    }

    async fn pin_partition(
        &self,
        published: &PublishedView,
        partition: Partition,
        from: Offset,
        wanted: Option<&Arc<WantedRows>>,
        reach: Reach,
    ) -> Result<PartitionPin, SpeedError> {
        let mailbox = self.mailbox(partition).ok_or(SpeedError::UnknownView)?;
        let (reply, pin) = oneshot::channel();
        let (view, definition) = (published.view.name.clone(), published.definition_hash.to_string());
        let reach = match reach {
            // Events before this are acknowledged, so the reader may know of them; they may not be in the mailbox yet.
            Reach::Acknowledged => self.log.range(partition).1,
            Reach::Received => Offset(0),
        };
        let wanted = wanted.cloned();
        if !mailbox.send(WorkerRequest::Pin { view, definition, from: from.0, wanted, reply }, reach) {
            return Err(SpeedError::Stopped);
        }
        pin.await.map_err(|_| SpeedError::Stopped)?
    }
}

impl Speed {
    /// Pins all rows, or the wanted ones.
    async fn pin_all(
        &self,
        published: &PublishedView,
        seam: &Cut,
        wanted: Option<&Arc<WantedRows>>,
        reach: Reach,
    ) -> Result<SpeedPin, SpeedError> {
        let stream = &published.stream;
        let followed = self.streams.get(&stream.name).ok_or(SpeedError::UnknownView)?;
        let partitions = || (0..stream.partitions).map(Partition);
        // Read before the workers are asked: a partition with events on their way to a worker then is not idle, and all
        // other events are folded when the worker replies.
        let now = self.clock.now();
        let caught_up: Vec<bool> = partitions().map(|p| followed.log.progress(p).caught_up).collect();
        // I6: every partition is pinned from the seam of the same version.
        let pins = partitions().map(|p| followed.pin_partition(published, p, seam.offset(p), wanted, reach));
        let pins = try_join_all(pins).await?;
        let progress = pins.iter().zip(caught_up).map(|(p, caught_up)| PartitionProgress {
            watermark: p.pin.watermark,
            last_arrival: p.last_arrival,
            caught_up,
        });
        let watermark = followed.watermark.advance(progress, stream.idle_timeout, now);
        let farthest = pins.iter().filter_map(|p| p.pin.watermark).max();
        let latest_event = farthest.map(|w| Micros(w.0.saturating_add(micros_of(stream.watermark_delay))));
        let generations = pins.into_iter().flat_map(|p| p.pin.generations).collect();
        Ok(SpeedPin { generations, watermark, latest_event })
    }
}

impl SpeedReader for Speed {
    fn pin<'a>(&'a self, published: &'a PublishedView, seam: &'a Cut) -> BoxFuture<'a, Result<SpeedPin, SpeedError>> {
        Box::pin(self.pin_all(published, seam, None, Reach::Acknowledged))
    }

    fn pin_rows<'a>(
        &'a self,
        published: &'a PublishedView,
        seam: &'a Cut,
        wanted: &'a Arc<WantedRows>,
        reach: Reach,
    ) -> BoxFuture<'a, Result<SpeedPin, SpeedError>> {
        Box::pin(self.pin_all(published, seam, Some(wanted), reach))
    }

    fn retire(&self, published: &PublishedView, seam: &Cut) {
        self.broadcast(published, |partition, view, definition| WorkerRequest::Retire {
            view,
            definition,
            before: seam.offset(partition).0,
        });
    }

    fn forget(&self, published: &PublishedView) {
        self.broadcast(published, |_, view, definition| WorkerRequest::Forget { view, definition });
    }
}

fn worker(
    stream: &Stream,
    partition: Partition,
    source: PartitionSource,
    (views, lookups): (&[FoldedView], &Lookups),
) -> Result<SpeedWorker, StartError> {
    let (log_start, head) = source.log.range(partition);
    let mut generations = Vec::new();
    let mut from = head;
    for FoldedView { view, seam, changed } in views {
        let begin = seam.offset(partition).max(log_start);
        let warm_up = if matches!(view.window, Window::Session { .. }) { limits::SESSION_WARM_UP_EVENTS } else { 0 };
        from = from.min(Offset(begin.0.saturating_sub(warm_up)).max(log_start));
        let accepted = seam.0.get(&partition).map(|point| point.accepted).unwrap_or_default();
        // Events that the log no longer has were accepted all the same, even if no event came after them.
        let accepted = accepted + Ledger::of_range(partition, seam.offset(partition), begin);
        let definition = view.definition_hash();
        let new =
            Generations::new(Arc::clone(view), definition, stream, partition, begin, accepted)?.joined(lookups)?;
        generations.push(if changed.is_empty() { new } else { new.watched(changed.clone()) });
    }
    // Without events to replay, only the log knows the progress of the partition.
    let PartitionProgress { watermark, last_arrival, .. } = source.log.progress(partition);
    let watermark = watermark.unwrap_or(Micros::MIN);
    let name = format!("speed-{}-{partition}", stream.name);
    let mailbox = Arc::new(Mailbox::new(head, limits::HANDOFF_QUEUE_BYTES_MAX));
    let views = generations;
    Ok(SpeedWorker { partition, views, mailbox, name, source, position: from, watermark, last_arrival, measured: None })
}

#[cfg(test)]
mod tests {
    use futures::executor::block_on;
    use shared::clock::ManualClock;
    use shared::handoff::{HandoffError, LogBatch};
    use shared::live_state::LiveStates;

    use super::*;

    /// A log without events to replay that knows the progress of its partitions.
    struct EmptyLog(Vec<PartitionProgress>);

    impl LogReplay for EmptyLog {
        fn range(&self, _: Partition) -> (Offset, Offset) {
            (Offset(0), Offset(0))
        }

        fn progress(&self, partition: Partition) -> PartitionProgress {
            self.0[partition.0 as usize]
        }

        fn replay(&self, _: Partition, _: Offset, _: Offset, _: &mut dyn FnMut(LogBatch)) -> Result<(), HandoffError> {
            Err(HandoffError("no events to replay".to_owned()))
        }
    }

    impl LogRetention for EmptyLog {
        fn release(&self, _: &StreamName, _: Partition, _: &str, _: Offset) {}
    }

    const SQL: &str = "
        CREATE STREAM events (at TIMESTAMP) WITH (event_time = 'at', idle_timeout = '10 seconds', partitions = 2);
        CREATE VIEW counts AS SELECT COUNT(*) AS n FROM events;";

    /// The watermark at second 100 of a stream whose partition 0 has been silent since second `silent_since`.
    fn watermark(silent_since: i64, caught_up: bool) -> Option<Micros> {
        let second = |seconds: i64| Micros(seconds * 1_000_000);
        let parsed = shared::sql::parse_definitions(&[("test.sql".to_owned(), SQL.to_owned())]);
        let parsed = parsed.unwrap_or_else(|mistakes| panic!("{}", mistakes[0]));
        let (stream, view) = (Arc::new(parsed.streams[0].clone()), Arc::new(parsed.views[0].clone()));
        let partition = |watermark, last_arrival, caught_up| PartitionProgress {
            watermark: Some(second(watermark)),
            last_arrival: Some(second(last_arrival)),
            caught_up,
        };
        let log = Arc::new(EmptyLog(vec![partition(50, silent_since, caught_up), partition(70, 100, true)]));
        let published = PublishedView::nothing(Arc::clone(&view), Arc::clone(&stream));
        let seam = published.seam.clone();
        let folded = FoldedStream {
            stream,
            log: Arc::clone(&log) as _,
            retention: log,
            live_state: LiveStates::new(u64::MAX).stream(),
            views: vec![FoldedView { view, seam: seam.clone(), changed: Vec::new() }],
            lookups: Lookups::default(),
        };
        let clock = Arc::new(ManualClock::at(second(100)));
        let speed = block_on(Speed::start(vec![folded], clock, &Vitals::default())).expect("starts");
        let pin = block_on(speed.pin(&published, &seam)).expect("a pin");
        speed.stop();
        pin.watermark
    }

    #[test]
    fn a_silent_partition_is_idle_only_if_no_event_of_it_is_queued() {
        assert_eq!(watermark(95, true), Some(Micros(50_000_000)), "not silent long enough");
        assert_eq!(watermark(80, true), Some(Micros(70_000_000)));
        assert_eq!(watermark(80, false), Some(Micros(50_000_000)));
    }
}
