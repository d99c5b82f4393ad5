//! Holds the logs of all streams, by name, and lets the other layers cut and release them.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use futures::FutureExt;
use futures::future::BoxFuture;
use shared::clock::Clock;
use shared::handoff::{Cutter, HandoffError, LogRetention};
use shared::ids::{Offset, Partition, StreamName, ViewName};
use shared::seam::Cut;
use shared::stream::Stream;
use shared::vital::Vitals;

use super::stream_log::StreamLog;
use crate::log::LogError;
use crate::partition::{PartitionLog, PartitionSettings};

/// The logs of all streams.
pub struct Intake {
    streams: BTreeMap<StreamName, Arc<StreamLog>>,
}

impl Intake {
    /// Opens the logs of `streams` under `dir`. A writer that fails is reported to `vitals`. Blocking.
    pub fn open(
        dir: &Path,
        streams: &[Arc<Stream>],
        settings: &PartitionSettings,
        clock: &Arc<dyn Clock>,
        vitals: &Vitals,
    ) -> Result<Self, LogError> {
        let open = |stream: &Arc<Stream>| {
            let log = StreamLog::open(dir, stream.clone(), settings, clock, vitals)?;
            Ok((stream.name.clone(), Arc::new(log)))
        };
        Ok(Intake { streams: streams.iter().map(open).collect::<Result<_, LogError>>()? })
    }

    /// The log of a stream.
    pub fn stream(&self, name: &StreamName) -> Option<&Arc<StreamLog>> {
        self.streams.get(name)
    }

    /// All logs, in the order of their names.
    pub fn streams(&self) -> impl Iterator<Item = &Arc<StreamLog>> {
        self.streams.values()
    }

    /// Starts all writers. Attach sinks and readers before.
    pub fn start(&self) -> std::io::Result<()> {
        self.streams.values().try_for_each(|log| log.start())
    }

    /// Stops accepting events, writes those that wait and ends the writers. Blocking.
    pub fn close(&self) {
        self.streams.values().for_each(|log| log.close());
    }
}

impl Cutter for Intake {
    fn cut(&self, stream: &StreamName, view: &ViewName) -> BoxFuture<'_, Result<Cut, HandoffError>> {
        let (log, view) = (self.streams.get(stream).cloned(), view.clone());
        let unknown = HandoffError(format!("unknown stream {stream}"));
        async move {
            match log {
                Some(log) => log.cut(&view).await,
                None => Err(unknown),
            }
        }
        .boxed()
    }
}

impl LogRetention for Intake {
    fn release(&self, stream: &StreamName, partition: Partition, reader: &str, offset: Offset) {
        match self.streams.get(stream).and_then(|log| log.partition(partition)) {
            Some(log) => PartitionLog::release(log, reader, offset),
            None => tracing::error!(%stream, %partition, reader, "cannot release the log of an unknown partition"),
        }
    }
}
