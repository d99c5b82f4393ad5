//! What is one stream's log? Its partitions together: fed all or nothing, cut at once, replayed one by one.

use std::path::Path;
use std::sync::Arc;

use shared::clock::Clock;
use shared::handoff::{HandoffError, LogBatch, LogReplay, LogSink};
use shared::ids::{Offset, Partition, ViewName};
use shared::seam::Cut;
use shared::stream::Stream;
use shared::stream_watermark::{PartitionProgress, StreamWatermark};
use shared::time::Micros;

use crate::lateness::StreamLateness;
use crate::log::{self, LogError};
use crate::partition::{OnFatal, PartitionLog, PartitionSettings, PartitionStatus, Submission, SubmitError};

/// The log of one stream.
pub struct StreamLog {
    stream: Arc<Stream>,
    partitions: Vec<PartitionLog>,
    lateness: Arc<StreamLateness>,
    watermark: StreamWatermark,
}

impl StreamLog {
    /// Opens all partitions under `dir/log/<stream>/`, as many at once as there are cores. Blocking. Refuses to leave out a
    /// partition that is on disk but no longer declared: its events would vanish from every answer.
    pub fn open(
        dir: &Path,
        stream: Arc<Stream>,
        settings: &PartitionSettings,
        clock: &Arc<dyn Clock>,
        on_fatal: &OnFatal,
    ) -> Result<Self, LogError> {
        let dir = dir.join("log").join(stream.name.as_str());
        refuse_undeclared(&dir, stream.partitions)?;
        let lateness = StreamLateness::new(Arc::clone(&stream), settings.lateness.clone());
        let open = |partition: u32| -> Result<PartitionLog, LogError> {
            let place = dir.join(partition.to_string());
            let (mut settings, clock, on_fatal) = (settings.clone(), clock.clone(), on_fatal.clone());
            if let Some(begin) = settings.begins.get(&(stream.name.clone(), Partition(partition))) {
                settings.log.begin = *begin;
            }
            let log = PartitionLog::open(&place, stream.clone(), Partition(partition), settings, clock, on_fatal)?;
            let (start, head) = log.range();
            let from = Offset(head.0.saturating_sub(lateness.reread_events())).max(start);
            log.replay(from, head, &mut |batch| lateness.observe(&batch))?;
            Ok(log)
        };
        let at_once = std::thread::available_parallelism().map_or(1, usize::from);
        let all: Vec<u32> = (0..stream.partitions).collect();
        let mut partitions = Vec::with_capacity(all.len());
        for some in all.chunks(at_once) {
            let opened: Vec<_> = std::thread::scope(|scope| {
                let threads: Vec<_> = some.iter().map(|p| scope.spawn(|| open(*p))).collect();
                threads.into_iter().map(|t| t.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))).collect()
            });
            for partition in opened {
                partitions.push(partition?);
            }
        }
        Ok(StreamLog { stream, partitions, lateness: Arc::new(lateness), watermark: StreamWatermark::default() })
    }

    /// The stream's declaration.
    pub fn stream(&self) -> &Arc<Stream> {
        &self.stream
    }

    /// One of its partitions.
    pub fn partition(&self, partition: Partition) -> Option<&PartitionLog> {
        self.partitions.get(partition.0 as usize)
    }

    /// Lets `sink` see what `partition` accepts from the start on. Before [`StreamLog::start`] only.
    pub fn attach(&self, partition: Partition, sink: Arc<dyn LogSink>) {
        match self.partition(partition) {
            Some(log) => log.attach(sink),
            None => tracing::error!(stream = %self.stream.name, %partition, "a sink for a partition that is not there"),
        }
    }

    /// Starts all partitions; from now on events are taken.
    pub fn start(&self) -> std::io::Result<()> {
        // Last of the sinks: nobody who folds or archives waits for what is only shown.
        self.partitions.iter().for_each(|partition| partition.attach(Arc::clone(&self.lateness) as Arc<dyn LogSink>));
        self.partitions.iter().try_for_each(PartitionLog::start)
    }

    /// Hands over the parts of one request, all or none of them: a refusal leaves nothing behind that a retry would double.
    pub fn try_submit(&self, parts: Vec<(Partition, Submission)>) -> Result<(), SubmitError> {
        let mut rooms = Vec::with_capacity(parts.len());
        for (partition, submission) in &parts {
            let log = self.partition(*partition).ok_or(SubmitError::NoPartition(partition.0))?;
            rooms.push((log, log.reserve(submission)?));
        }
        for ((log, room), (_, submission)) in rooms.into_iter().zip(parts) {
            log.submit(room, submission)?;
        }
        Ok(())
    }

    /// Cuts every partition for `view`. The cut lies in each where the log is when its writer comes to it.
    pub async fn cut(&self, view: &ViewName) -> Result<Cut, HandoffError> {
        let stopped = || HandoffError(format!("stream {} is stopping and cannot be cut", self.stream.name));
        let mut asked = Vec::with_capacity(self.partitions.len());
        for partition in &self.partitions {
            asked.push(partition.cut(view).ok_or_else(stopped)?);
        }
        let mut cut = Cut::default();
        for (number, point) in asked.into_iter().enumerate() {
            cut.0.insert(Partition(number as u32), point.await.map_err(|_| stopped())?);
        }
        Ok(cut)
    }

    /// Keeps all partitions' logs for `reader` until it releases.
    pub fn register_reader(&self, reader: &str) {
        self.partitions.iter().for_each(|partition| partition.register_reader(reader));
    }

    /// How late its events come, and which.
    pub fn lateness(&self) -> &StreamLateness {
        &self.lateness
    }

    /// The stream's watermark at `now`, over what is durable; never goes back.
    pub fn watermark(&self, now: Micros) -> Option<Micros> {
        let progress = self.partitions.iter().map(PartitionLog::progress);
        self.watermark.advance(progress, self.stream.idle_timeout, now)
    }

    /// The partitions' figures, in order.
    pub fn status(&self) -> Vec<PartitionStatus> {
        self.partitions.iter().map(PartitionLog::status).collect()
    }

    /// Stops taking events, writes what waits and ends the writers. Blocking.
    pub fn close(&self) {
        self.partitions.iter().for_each(PartitionLog::close);
    }
}

impl LogReplay for StreamLog {
    fn range(&self, partition: Partition) -> (Offset, Offset) {
        self.partition(partition).map_or((Offset(0), Offset(0)), PartitionLog::range)
    }

    fn progress(&self, partition: Partition) -> PartitionProgress {
        let unknown = PartitionProgress { watermark: None, last_arrival: None, caught_up: true };
        self.partition(partition).map_or(unknown, PartitionLog::progress)
    }

    fn replay(
        &self,
        partition: Partition,
        from: Offset,
        to: Offset,
        each: &mut dyn FnMut(LogBatch),
    ) -> Result<(), HandoffError> {
        let no_partition = || HandoffError(format!("stream {} has no partition {partition}", self.stream.name));
        let log = self.partition(partition).ok_or_else(no_partition)?;
        log.replay(from, to, each).map_err(|e| HandoffError(e.to_string()))
    }
}

fn refuse_undeclared(dir: &Path, partitions: u32) -> Result<(), LogError> {
    if !dir.exists() {
        return Ok(());
    }
    for entry in std::fs::read_dir(dir).map_err(LogError::io(dir))? {
        let path = entry.map_err(LogError::io(dir))?.path();
        let number = path.file_name().and_then(|name| name.to_str()).and_then(|name| name.parse::<u32>().ok());
        if number.is_some_and(|number| number >= partitions) && log::look(dir)?.partitions > partitions {
            let reason = format!("holds events, but the stream declares {partitions} partitions only");
            return Err(LogError::Misplaced { path, reason });
        }
    }
    Ok(())
}
