//! Collects the figures of all streams from logs, archivers, endpoint and quarantine, and lists the events behind them.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use shared::clock::Clock;
use shared::control::{
    EventKind, EventPage, ListRange, PartitionStatus, QuarantinePage, StreamColumn, StreamError, StreamStatus, Streams,
    TimeSettings,
};
use shared::explain::duration;
use shared::sql::print_name;
use shared::stream::Stream;

use crate::archive::Archives;
use crate::history::HistoryWatch;
use crate::log::Totals;
use crate::quarantine::Quarantine;
use crate::sources::SourceStatuses;
use crate::streams::{Intake, StreamLog};
use crate::submit::{ArrivalCounters, EventSubmitter};

/// Reads the figures of all streams.
pub struct StreamsStatus {
    pub intake: Arc<Intake>,
    pub archives: Arc<Archives>,
    pub submitter: Arc<EventSubmitter>,
    pub quarantine: Arc<Quarantine>,
    pub clock: Arc<dyn Clock>,
    pub history: Arc<HistoryWatch>,
    pub sources: SourceStatuses,
}

impl StreamsStatus {
    fn of(&self, log: &StreamLog) -> StreamStatus {
        let stream = log.stream();
        let archived = self.archives.stream(&stream.name).map(|archiver| archiver.status()).unwrap_or_default();
        let arrivals = self.submitter.arrivals(&stream.name);
        let partitions = log.status(&archived);
        let now = self.clock.now();
        StreamStatus {
            name: stream.name.clone(),
            columns: columns(stream),
            suspicious_times: suspicious_times(stream, arrivals, &partitions),
            partitions,
            historical: self.history.events(&stream.name),
            retention: stream.retention.map(|retention| retention.to_string()),
            retained_from: self.history.retained_from(&stream.name).map(|day| day.to_string()),
            rejected: arrivals.map_or(0, |a| a.rejected.load(Ordering::Relaxed)),
            unknown_fields: arrivals.map_or(0, |a| a.unknown_fields.load(Ordering::Relaxed)),
            events_per_second: arrivals.map_or(0.0, |a| a.accepted.per_second(now)),
            watermark: log.watermark(now),
            settings: time_settings(stream),
            // No change of a table is late, whatever the time of its row.
            lateness: log.lateness().summary().filter(|_| stream.table.is_none()),
            quarantine: self.quarantine.counts(&stream.name),
            source: self.sources.status(&stream.name),
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
        let of_kind = |totals: Totals| match kind {
            EventKind::Late => totals.late,
            EventKind::Ahead => totals.ahead,
        };
        log.lateness().events(kind, range, log.totals().map(of_kind).sum())
    }

    fn quarantine(&self, stream: &str, range: &ListRange) -> Result<QuarantinePage, StreamError> {
        self.quarantine.list(stream, range)
    }

    fn empty_quarantine(&self, stream: &str) -> Result<u64, StreamError> {
        self.quarantine.empty(stream)
    }
}

/// A hint if most events lie before 1980, or further ahead than `max_ahead`: then their times are probably of another unit.
fn suspicious_times(
    stream: &Stream,
    arrivals: Option<&ArrivalCounters>,
    partitions: &[PartitionStatus],
) -> Option<String> {
    let column = &stream.columns[stream.event_time];
    let name = print_name(&column.name);
    let count = |count: fn(&ArrivalCounters) -> &AtomicU64| arrivals.map_or(0, |a| count(a).load(Ordering::Relaxed));
    let (valid, before_1980) = (count(|a| &a.valid), count(|a| &a.before_1980));
    if before_1980 * 2 > valid {
        let advice = match column.format {
            None => format!("if they are seconds since 1970, declare `{name} TIMESTAMP FORMAT 'unix_s'`"),
            Some(_) => format!("check the FORMAT of `{name}`"),
        };
        return Some(format!("most events of this stream lie before 1980; {advice}"));
    }
    let sum = |of: fn(&PartitionStatus) -> u64| partitions.iter().map(of).sum::<u64>();
    (sum(|p| p.ahead) * 2 > sum(|p| p.accepted)).then(|| {
        let max_ahead = duration(stream.max_ahead);
        format!(
            "most events of this stream lie more than {max_ahead} ahead of their arrival; check the FORMAT of `{name}`, such \
             as 'unix_s', 'unix_us' or 'unix_ns', and the sender's clock"
        )
    })
}

fn time_settings(stream: &Stream) -> TimeSettings {
    TimeSettings {
        watermark_delay: duration(stream.watermark_delay),
        allowed_lateness: if stream.table.is_some() {
            "unlimited".to_owned()
        } else {
            duration(stream.allowed_lateness)
        },
        max_ahead: duration(stream.max_ahead),
        max_age: stream.max_age.map(duration),
        idle_timeout: duration(stream.idle_timeout),
    }
}

fn columns(stream: &Stream) -> Vec<StreamColumn> {
    let role = |index: usize| match index {
        _ if index == stream.event_time => Some("event time".to_owned()),
        _ if Some(index) == stream.primary_key => Some("primary key".to_owned()),
        _ if Some(index) == stream.entity => Some("entity".to_owned()),
        _ if Some(index) == stream.sequence() => Some("sequence".to_owned()),
        _ if Some(index) == stream.source_offset() => Some("source offset".to_owned()),
        _ if Some(index) == stream.retracted() => Some("retraction".to_owned()),
        _ if stream.table.is_some_and(|table| table.key.contains(&index)) => Some("key of rows".to_owned()),
        _ if index >= stream.declared => Some("removed".to_owned()),
        _ => None,
    };
    let column = |(index, column): (usize, &shared::stream::Column)| StreamColumn {
        name: column.name.clone(),
        data_type: column.data_type.to_string(),
        role: role(index),
        field: column.field.as_ref().map(ToString::to_string),
        format: column.format.as_ref().map(ToString::to_string).or(column.is_base64.then(|| "base64".to_owned())),
        metadata: column.metadata.as_ref().map(|part| part.to_string()),
    };
    stream.columns.iter().enumerate().map(column).collect()
}
