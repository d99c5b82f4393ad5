//! Observes the lateness of one stream: measures every durable batch, and summarises and lists on request.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BooleanArray, Int32Array, Int64Array, RecordBatch, TimestampMicrosecondArray,
};
use arrow::datatypes::{DataType, Field, Fields, Schema, TimestampMicrosecondType};
use arrow::error::ArrowError;
use shared::control::{EventKind, EventPage, Lateness, ListRange, StreamError};
use shared::handoff::{LogBatch, LogItem, LogSink, Stopped};
use shared::limits;
use shared::stream::{Stream, system_columns};
use shared::time::{Micros, micros_of};
use shared::types::timestamp_type;

use super::disorder::{DisorderSummary, PartitionDisorder, Thresholds};
use super::recent_events::{ArrivalPosition, RecentEvents, RecentPage};
use super::suggestion::suggest;

const MICROS_PER_MILLISECOND: i64 = 1_000;
const QUANTILES: [(&str, f64); 5] = [("p50", 0.5), ("p90", 0.9), ("p95", 0.95), ("p99", 0.99), ("p99.9", 0.999)];

/// The bounds of what is remembered of late events.
#[derive(Debug, Clone)]
pub struct LatenessSettings {
    /// Events kept for listing, of each kind.
    pub listed_events: usize,
    /// Bytes of the kept events of one kind.
    pub listed_bytes_max: usize,
    /// Events at the end of the log that are read again after a restart, over all partitions.
    pub reread_events: u64,
}

impl Default for LatenessSettings {
    fn default() -> Self {
        LatenessSettings {
            listed_events: limits::LISTED_EVENTS_KEPT,
            listed_bytes_max: limits::LISTED_EVENTS_BYTES_MAX,
            reread_events: limits::LATENESS_REREAD_EVENTS,
        }
    }
}

/// The lateness of one stream.
pub struct StreamLateness {
    stream: Arc<Stream>,
    settings: LatenessSettings,
    lateness_us: i64,
    ahead_us: i64,
    thresholds: Thresholds,
    /// By partition.
    disorder: Vec<PartitionDisorder>,
    late: RecentEvents,
    ahead: RecentEvents,
}

impl StreamLateness {
    /// Creates the state before the first event.
    pub fn new(stream: Arc<Stream>, settings: LatenessSettings) -> StreamLateness {
        let (delay_us, lateness_us) = (micros_of(stream.watermark_delay), micros_of(stream.allowed_lateness));
        let list = || RecentEvents::new(settings.listed_events, settings.listed_bytes_max);
        StreamLateness {
            lateness_us,
            ahead_us: micros_of(stream.max_ahead),
            thresholds: Thresholds {
                delay_us: delay_us.unsigned_abs(),
                late_us: delay_us.saturating_add(lateness_us).unsigned_abs(),
            },
            disorder: (0..stream.partitions).map(|_| PartitionDisorder::default()).collect(),
            late: list(),
            ahead: list(),
            stream,
            settings,
        }
    }

    /// Events at the end of one partition's log to read again after a restart.
    pub fn reread_events(&self) -> u64 {
        self.settings.reread_events / u64::from(self.stream.partitions.max(1))
    }

    /// Observes a batch of the log; the batches of one partition come in order, one at a time. A failure to list events is
    /// only logged.
    pub fn observe(&self, batch: &LogBatch) {
        let Some(disorder) = self.disorder.get(batch.partition.0 as usize) else { return };
        let times = batch.rows.column(self.stream.event_time).as_primitive::<TimestampMicrosecondType>().values();
        let latest_plausible = Micros(batch.arrived_at.0.saturating_add(self.ahead_us));
        disorder.measure(times, latest_plausible, self.thresholds);
        let listed = self
            .late
            .add(batch, &self.late_rows(batch, times))
            .and_then(|()| self.ahead.add(batch, &rows_where(times, |_, time| time > latest_plausible.0)));
        if let Err(error) = listed {
            tracing::error!(stream = %self.stream.name, %error, "cannot list late events");
        }
    }

    /// Rows that came after allowed lateness, by the rule with which the log counts them (I3).
    fn late_rows(&self, batch: &LogBatch, times: &[i64]) -> Vec<u32> {
        let marks = watermarks(&batch.rows);
        let unset = marks.null_count();
        let (lateness_us, marks) = (self.lateness_us, marks.values());
        // Only the first events have no watermark: it never goes back.
        rows_where(times, |row, time| row >= unset && time.saturating_add(lateness_us) <= marks[row])
    }

    /// Forgets listed events for which `is_erased` holds of their rows, with the columns of the log.
    pub fn forget(&self, is_erased: impl Fn(&RecordBatch) -> Option<BooleanArray>) -> Result<(), ArrowError> {
        self.late.forget(&is_erased)?;
        self.ahead.forget(&is_erased)
    }

    /// The distribution and the suggested settings; `None` before the first event.
    pub fn summary(&self) -> Option<Lateness> {
        let mut measured = DisorderSummary::default();
        self.disorder.iter().for_each(|partition| measured.add(partition));
        let events = measured.behind_us.total();
        if events == 0 {
            return None;
        }
        let share = |part: u64| part as f64 / events as f64;
        let ms = |us: f64| us / MICROS_PER_MILLISECOND as f64;
        let quantiles = QUANTILES.iter().map(|(name, q)| ((*name).to_owned(), ms(measured.quantile_us(*q))));
        Some(Lateness {
            measured: events,
            quantiles_ms: quantiles.collect::<BTreeMap<_, _>>(),
            max_ms: ms(measured.max_us as f64),
            behind_watermark_share: share(measured.behind_watermark),
            late_share: share(measured.late),
            suggested: suggest(&measured),
        })
    }

    /// Lists events of one kind, newest first; `total` counts all there ever were.
    pub fn events(&self, kind: EventKind, range: &ListRange, total: u64) -> Result<EventPage, StreamError> {
        let before =
            range.cursor.as_ref().map(|text| ArrivalPosition::parse(text).ok_or(StreamError::BadCursor(text.clone())));
        let list = match kind {
            EventKind::Late => &self.late,
            EventKind::Ahead => &self.ahead,
        };
        let failed = |error: ArrowError| StreamError::Failed(error.to_string());
        let page = list.page(before.transpose()?, range.limit).map_err(failed)?;
        let next =
            page.as_ref().filter(|page| page.more).and_then(|page| page.positions.last()).map(|last| last.text());
        let rows = self.page_rows(kind, page).map_err(failed)?;
        let (kept, kept_max) = (list.len() as u64, self.settings.listed_events as u64);
        // Both are counted while events arrive; the list may be a moment ahead of the total.
        Ok(EventPage { total: total.max(kept), kept, kept_max, rows, next })
    }

    /// The rows with the system columns and the lateness of each.
    fn page_rows(&self, kind: EventKind, page: Option<RecentPage>) -> Result<RecordBatch, ArrowError> {
        let RecentPage { rows, positions, .. } = page.unwrap_or_else(|| RecentPage {
            rows: RecordBatch::new_empty(self.stream.log_schema()),
            positions: Vec::new(),
            more: false,
        });
        let declared = self.stream.columns.len();
        let times = rows.column(self.stream.event_time).as_primitive::<TimestampMicrosecondType>();
        let marks = watermarks(&rows);
        let (by_name, beyond_name, by_us, beyond_us): (_, _, Vec<i64>, _) = match kind {
            EventKind::Late => {
                let by = marks.values().iter().zip(times.values()).map(|(mark, time)| mark.saturating_sub(*time));
                ("late_by_ms", "beyond_allowed_lateness_ms", by.collect(), self.lateness_us)
            }
            EventKind::Ahead => {
                let by = positions
                    .iter()
                    .zip(times.values())
                    .map(|(position, time)| time.saturating_sub(position.arrived_at.0));
                ("ahead_by_ms", "beyond_max_ahead_ms", by.collect(), self.ahead_us)
            }
        };
        let ms = |us: i64| us.div_euclid(MICROS_PER_MILLISECOND);
        let by_ms = Int64Array::from_iter_values(by_us.iter().map(|by| ms(*by)));
        let beyond_ms = Int64Array::from_iter_values(by_us.iter().map(|by| ms(by.saturating_sub(beyond_us))));
        let partitions = Int32Array::from_iter_values(positions.iter().map(|position| position.partition.0 as i32));
        let offsets = Int64Array::from_iter_values(positions.iter().map(|position| position.offset.0 as i64));
        let arrivals =
            TimestampMicrosecondArray::from_iter_values(positions.iter().map(|position| position.arrived_at.0));

        let mut fields: Vec<Field> = self.stream.schema().fields().iter().map(|field| field.as_ref().clone()).collect();
        fields.extend([
            Field::new(system_columns::PARTITION, DataType::Int32, false),
            Field::new(system_columns::OFFSET, DataType::Int64, false),
            Field::new(system_columns::ARRIVED_AT, timestamp_type(), false),
            Field::new(system_columns::WATERMARK, timestamp_type(), true),
            Field::new(self.free_name(by_name), DataType::Int64, false),
            Field::new(self.free_name(beyond_name), DataType::Int64, false),
        ]);
        let mut columns: Vec<ArrayRef> = rows.columns()[..declared].to_vec();
        columns.extend([
            Arc::new(partitions) as ArrayRef,
            Arc::new(offsets),
            Arc::new(arrivals.with_timezone("UTC")),
            Arc::clone(rows.column(declared)),
            Arc::new(by_ms),
            Arc::new(beyond_ms),
        ]);
        RecordBatch::try_new(Arc::new(Schema::new(Fields::from(fields))), columns)
    }

    /// `name`, with a leading underscore if the stream has a column of that name: no declared name starts with one.
    fn free_name(&self, name: &str) -> String {
        if self.stream.column(name).is_some() { format!("_{name}") } else { name.to_owned() }
    }
}

impl LogSink for StreamLateness {
    fn push(&self, item: LogItem) -> Result<(), Stopped> {
        if let LogItem::Batch(batch) = item {
            self.observe(&batch);
        }
        Ok(())
    }
}

/// The watermark just before each event: the last column of the log.
fn watermarks(rows: &RecordBatch) -> &TimestampMicrosecondArray {
    rows.column(rows.num_columns() - 1).as_primitive()
}

fn rows_where(times: &[i64], holds: impl Fn(usize, i64) -> bool) -> Vec<u32> {
    (0..times.len()).filter(|row| holds(*row, times[*row])).map(|row| row as u32).collect()
}
