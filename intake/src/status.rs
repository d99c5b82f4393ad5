//! How are the streams doing? The logs', the archivers' and the door's figures in one place.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use shared::clock::Clock;
use shared::control::{PartitionStatus, StreamColumn, StreamStatus, Streams};
use shared::stream::Stream;

use crate::archive::Archives;
use crate::door::IntakeDoor;
use crate::streams::{Intake, StreamLog};

/// Reads the figures of all streams.
pub struct StreamsStatus {
    pub intake: Arc<Intake>,
    pub archives: Arc<Archives>,
    pub door: Arc<IntakeDoor>,
    pub clock: Arc<dyn Clock>,
}

impl StreamsStatus {
    fn of(&self, log: &StreamLog) -> StreamStatus {
        let stream = log.stream();
        let archived = self.archives.stream(&stream.name).map(|archiver| archiver.status()).unwrap_or_default();
        let partition = |figures: crate::partition::PartitionStatus| {
            let archive = archived.get(&figures.partition).cloned().unwrap_or_default();
            PartitionStatus {
                partition: figures.partition,
                log_start: figures.log_start,
                head: figures.head,
                archived: archive.archived,
                watermark: figures.watermark,
                accepted: figures.accepted,
                duplicates: figures.duplicates,
                late: figures.late,
                ahead: figures.ahead,
                log_bytes: figures.log_bytes,
                last_arrival: figures.last_arrived_at,
                archive_error: archive.last_error,
            }
        };
        let arrivals = self.door.arrivals(&stream.name);
        StreamStatus {
            name: stream.name.clone(),
            columns: columns(stream),
            partitions: log.status().into_iter().map(partition).collect(),
            rejected: arrivals.map_or(0, |a| a.rejected.load(Ordering::Relaxed)),
            unknown_fields: arrivals.map_or(0, |a| a.unknown_fields.load(Ordering::Relaxed)),
            events_per_second: arrivals.map_or(0.0, |a| a.accepted.per_second(self.clock.now())),
        }
    }
}

impl Streams for StreamsStatus {
    fn list(&self) -> Vec<StreamStatus> {
        self.intake.streams().map(|log| self.of(log)).collect()
    }
}

fn columns(stream: &Stream) -> Vec<StreamColumn> {
    let role = |index: usize| match index {
        _ if index == stream.event_time => Some("event time".to_owned()),
        _ if Some(index) == stream.primary_key => Some("primary key".to_owned()),
        _ => None,
    };
    let column = |(index, column): (usize, &shared::stream::Column)| StreamColumn {
        name: column.name.clone(),
        data_type: column.data_type.to_string(),
        role: role(index),
    };
    stream.columns.iter().enumerate().map(column).collect()
}
