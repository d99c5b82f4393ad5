//! Who runs the workers, and how does a reader reach them?

use std::collections::BTreeMap;
use std::sync::Arc;
use std::thread::JoinHandle;

use futures::future::{BoxFuture, try_join_all};
use parking_lot::Mutex;
use shared::clock::Clock;
use shared::handoff::{LogReplay, LogSink};
use shared::ids::{Offset, Partition, StreamName};
use shared::limits;
use shared::published::Published;
use shared::readers::{SpeedError, SpeedPin, SpeedReader};
use shared::seam::Cut;
use shared::stream::Stream;
use shared::time::{Micros, micros_of};
use shared::view::View;
use shared::window::Window;
use tokio::sync::oneshot;

use crate::fold::FoldError;
use crate::generations::Generations;
use crate::mailbox::{Mailbox, PartitionPin, Request, ViewStatus};
use crate::worker::{Worker, WorkerError};

/// A view to fold for, and where it begins.
#[derive(Debug, Clone)]
pub struct FoldedView {
    pub view: Arc<View>,
    pub seam: Cut,
}

/// The speed layer: one worker per partition of every stream.
#[derive(Debug)]
pub struct Speed {
    mailboxes: BTreeMap<(StreamName, Partition), Arc<Mailbox>>,
    threads: Mutex<Vec<JoinHandle<()>>>,
    clock: Arc<dyn Clock>,
}

/// Why the speed layer could not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("stream {stream}, partition {partition}: {problem}")]
    Worker { stream: StreamName, partition: Partition, problem: WorkerError },
    #[error(transparent)]
    Plan(#[from] FoldError),
    #[error("a worker thread could not be started: {0}")]
    Thread(#[from] std::io::Error),
}

/// A stream, its log and the views over it.
pub struct FoldedStream {
    pub stream: Arc<Stream>,
    pub log: Arc<dyn LogReplay>,
    pub views: Vec<FoldedView>,
}

impl Speed {
    /// Starts all workers and returns once each has replayed the log from the seam of its views.
    pub async fn start(streams: Vec<FoldedStream>, clock: Arc<dyn Clock>) -> Result<Speed, StartError> {
        let mut mailboxes = BTreeMap::new();
        let mut threads = Vec::new();
        let mut waiting = Vec::new();
        for FoldedStream { stream, log, views } in streams {
            for partition in (0..stream.partitions).map(Partition) {
                let mailbox = Arc::new(Mailbox::default());
                let (worker, from) = worker(&stream, partition, log.as_ref(), &views, Arc::clone(&mailbox))?;
                let (ready, replayed) = oneshot::channel();
                let log = Arc::clone(&log);
                let thread = std::thread::Builder::new()
                    .name(format!("speed-{}-{partition}", stream.name))
                    .spawn(move || worker.run(log.as_ref(), from, ready))?;
                threads.push(thread);
                mailboxes.insert((stream.name.clone(), partition), mailbox);
                waiting.push((stream.name.clone(), partition, replayed));
            }
        }
        let speed = Speed { mailboxes, threads: Mutex::new(threads), clock };
        for (stream, partition, replayed) in waiting {
            if let Ok(Err(problem)) = replayed.await {
                speed.stop();
                return Err(StartError::Worker { stream, partition, problem });
            }
        }
        Ok(speed)
    }

    /// Where the log writer of a partition hands its items over. `None`: there is no such partition.
    pub fn sink(&self, stream: &StreamName, partition: Partition) -> Option<Arc<dyn LogSink>> {
        let mailbox = self.mailboxes.get(&(stream.clone(), partition))?;
        Some(Arc::clone(mailbox) as Arc<dyn LogSink>)
    }

    /// How much is held, per stream, partition and view.
    pub async fn status(&self) -> Vec<(StreamName, Partition, Vec<ViewStatus>)> {
        let mut all = Vec::new();
        for ((stream, partition), mailbox) in &self.mailboxes {
            let (reply, answer) = oneshot::channel();
            if mailbox.ask(Request::Status { reply })
                && let Ok(views) = answer.await
            {
                all.push((stream.clone(), *partition, views));
            }
        }
        all
    }

    /// Lets every worker finish what it has and waits for it.
    pub fn stop(&self) {
        self.mailboxes.values().for_each(|mailbox| mailbox.close());
        for thread in self.threads.lock().drain(..) {
            let _ = thread.join();
        }
    }

    async fn pin_partition(
        &self,
        published: &Published,
        partition: Partition,
        from: Offset,
    ) -> Result<PartitionPin, SpeedError> {
        let key = (published.stream.name.clone(), partition);
        let mailbox = self.mailboxes.get(&key).ok_or(SpeedError::UnknownView)?;
        let (reply, answer) = oneshot::channel();
        let definition = published.definition_hash.to_string();
        if !mailbox.ask(Request::Pin { definition, from: from.0, reply }) {
            return Err(SpeedError::Stopped);
        }
        answer.await.map_err(|_| SpeedError::Stopped)?
    }
}

impl SpeedReader for Speed {
    fn pin<'a>(&'a self, published: &'a Published, seam: &'a Cut) -> BoxFuture<'a, Result<SpeedPin, SpeedError>> {
        Box::pin(async move {
            let partitions = (0..published.stream.partitions).map(Partition);
            let pins = partitions.map(|p| self.pin_partition(published, p, seam.offset(p)));
            let pins = try_join_all(pins).await?;
            let watermark = stream_watermark(&published.stream, &pins, self.clock.now());
            let farthest = pins.iter().filter_map(|p| p.pin.watermark).max();
            let latest_event =
                farthest.map(|w| Micros(w.0.saturating_add(micros_of(published.stream.watermark_delay))));
            let generations = pins.into_iter().flat_map(|p| p.pin.generations).collect();
            Ok(SpeedPin { generations, watermark, latest_event })
        })
    }

    fn retire(&self, published: &Published, seam: &Cut) {
        for partition in (0..published.stream.partitions).map(Partition) {
            if let Some(mailbox) = self.mailboxes.get(&(published.stream.name.clone(), partition)) {
                let definition = published.definition_hash.to_string();
                mailbox.ask(Request::Retire { definition, before: seam.offset(partition).0 });
            }
        }
    }
}

/// The smallest watermark of the partitions that are not idle; if all are, of all that have one.
fn stream_watermark(stream: &Stream, pins: &[PartitionPin], now: Micros) -> Option<Micros> {
    let idle_before = now.0.saturating_sub(micros_of(stream.idle_timeout));
    let active = |pin: &&PartitionPin| pin.last_arrival.is_some_and(|at| at >= idle_before);
    let smallest = |pins: &mut dyn Iterator<Item = &PartitionPin>| pins.filter_map(|p| p.pin.watermark).min();
    smallest(&mut pins.iter().filter(active)).or_else(|| smallest(&mut pins.iter()))
}

fn worker(
    stream: &Stream,
    partition: Partition,
    log: &dyn LogReplay,
    views: &[FoldedView],
    mailbox: Arc<Mailbox>,
) -> Result<(Worker, Offset), StartError> {
    let (log_start, head) = log.range(partition);
    let mut generations = Vec::new();
    let mut from = head;
    for FoldedView { view, seam } in views {
        let begin = seam.offset(partition).max(log_start);
        let warm_up = if matches!(view.window, Window::Session { .. }) { limits::SESSION_WARM_UP_EVENTS } else { 0 };
        from = from.min(Offset(begin.0.saturating_sub(warm_up)).max(log_start));
        let accepted = seam.0.get(&partition).map(|point| point.accepted).unwrap_or_default();
        let definition = view.definition_hash();
        generations.push(Generations::new(Arc::clone(view), definition, stream, partition, begin, accepted)?);
    }
    let worker = Worker { partition, views: generations, mailbox, watermark: Micros::MIN, last_arrival: None };
    Ok((worker, from))
}
