//! How are the streams doing? The figures of logs, archivers, door and quarantine in one place, and the events behind them.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use shared::clock::Clock;
use shared::control::{
    EventKind, EventPage, ListRange, PartitionStatus, QuarantinePage, StreamColumn, StreamError, StreamStatus, Streams,
    TimeSettings,
};
use shared::explain::duration;
use shared::stream::Stream;

use crate::archive::Archives;
use crate::history::HistoryWatch;
use crate::quarantine::Quarantine;
use crate::streams::{Intake, StreamLog};
use crate::submit::IntakeDoor;

/// Reads the figures of all streams.
pub struct StreamsStatus {
    pub intake: Arc<Intake>,
    pub archives: Arc<Archives>,
    pub door: Arc<IntakeDoor>,
    pub quarantine: Arc<Quarantine>,
    pub clock: Arc<dyn Clock>,
    pub history: Arc<HistoryWatch>,
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
        let now = self.clock.now();
        StreamStatus {
            name: stream.name.clone(),
            columns: columns(stream),
            partitions: log.status().into_iter().map(partition).collect(),
            historical: self.history.events(&stream.name),
            retention: stream.retention.map(|retention| retention.to_string()),
            retained_from: self.history.retained_from(&stream.name).map(|day| day.to_string()),
            rejected: arrivals.map_or(0, |a| a.rejected.load(Ordering::Relaxed)),
            unknown_fields: arrivals.map_or(0, |a| a.unknown_fields.load(Ordering::Relaxed)),
            events_per_second: arrivals.map_or(0.0, |a| a.accepted.per_second(now)),
            watermark: log.watermark(now),
            settings: time_settings(stream),
            lateness: log.lateness().summary(),
            quarantine: self.quarantine.counts(&stream.name),
        }
    }
}

impl Streams for StreamsStatus {
    fn list(&self) -> Vec<StreamStatus> {
        self.intake.streams().map(|log| self.of(log)).collect()
    }

    fn events(&self, stream: &str, kind: EventKind, range: &ListRange) -> Result<EventPage, StreamError> {
        let name = stream.parse().ok();
        let log = name.and_then(|name| self.intake.stream(&name));
        let log = log.ok_or_else(|| StreamError::UnknownStream(stream.to_owned()))?;
        let of_kind = |partition: &crate::partition::PartitionStatus| match kind {
            EventKind::Late => partition.late,
            EventKind::Ahead => partition.ahead,
        };
        log.lateness().events(kind, range, log.status().iter().map(of_kind).sum())
    }

    fn quarantine(&self, stream: &str, range: &ListRange) -> Result<QuarantinePage, StreamError> {
        self.quarantine.list(stream, range)
    }

    fn empty_quarantine(&self, stream: &str) -> Result<u64, StreamError> {
        self.quarantine.empty(stream)
    }
}

fn time_settings(stream: &Stream) -> TimeSettings {
    TimeSettings {
        watermark_delay: duration(stream.watermark_delay),
        allowed_lateness: duration(stream.allowed_lateness),
        max_ahead: duration(stream.max_ahead),
        idle_timeout: duration(stream.idle_timeout),
    }
}

fn columns(stream: &Stream) -> Vec<StreamColumn> {
    let role = |index: usize| match index {
        _ if index == stream.event_time => Some("event time".to_owned()),
        _ if Some(index) == stream.primary_key => Some("primary key".to_owned()),
        _ if index >= stream.declared => Some("removed".to_owned()),
        _ => None,
    };
    let column = |(index, column): (usize, &shared::stream::Column)| StreamColumn {
        name: column.name.clone(),
        data_type: column.data_type.to_string(),
        role: role(index),
    };
    stream.columns.iter().enumerate().map(column).collect()
}
