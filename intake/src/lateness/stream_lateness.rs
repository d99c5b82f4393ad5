//! What is known of one stream's lateness? Looks at every batch that became durable, and answers those who ask.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Int32Array, Int64Array, RecordBatch, TimestampMicrosecondArray};
use arrow::datatypes::{DataType, Field, Fields, Schema, TimestampMicrosecondType};
use arrow::error::ArrowError;
use shared::control::{EventKind, EventPage, Lateness, ListRange, StreamError};
use shared::handoff::{LogBatch, LogItem, LogSink, Stopped};
use shared::limits;
use shared::stream::{Stream, system_columns};
use shared::time::{Micros, micros_of};
use shared::types::timestamp_type;

use super::disorder::{Disorder, Measured, Thresholds};
use super::recent_events::{Listed, Page, Place};
use super::suggestion::suggest;

const MICROS_PER_MILLISECOND: i64 = 1_000;
const QUANTILES: [(&str, f64); 5] = [("p50", 0.5), ("p90", 0.9), ("p95", 0.95), ("p99", 0.99), ("p99.9", 0.999)];

/// How much is remembered of a stream's late events.
#[derive(Debug, Clone)]
pub struct LatenessSettings {
    /// Events kept to be listed, of each kind.
    pub listed_events: usize,
    /// Bytes those of one kind may take.
    pub listed_bytes_max: usize,
    /// Events of the log's tail that are looked at again after a restart, over all partitions.
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

/// What is known of one stream.
pub struct StreamLateness {
    stream: Arc<Stream>,
    settings: LatenessSettings,
    lateness_us: i64,
    ahead_us: i64,
    thresholds: Thresholds,
    /// By partition.
    disorder: Vec<Disorder>,
    late: Listed,
    ahead: Listed,
}

impl StreamLateness {
    /// Nothing is known yet.
    pub fn new(stream: Arc<Stream>, settings: LatenessSettings) -> StreamLateness {
        let (delay_us, lateness_us) = (micros_of(stream.watermark_delay), micros_of(stream.allowed_lateness));
        let list = || Listed::new(settings.listed_events, settings.listed_bytes_max);
        StreamLateness {
            lateness_us,
            ahead_us: micros_of(stream.max_ahead),
            thresholds: Thresholds {
                delay_us: delay_us.unsigned_abs(),
                late_us: delay_us.saturating_add(lateness_us).unsigned_abs(),
            },
            disorder: (0..stream.partitions).map(|_| Disorder::default()).collect(),
            late: list(),
            ahead: list(),
            stream,
            settings,
        }
    }

    /// Events of one partition's log that are worth looking at again after a restart.
    pub fn reread_events(&self) -> u64 {
        self.settings.reread_events / u64::from(self.stream.partitions.max(1))
    }

    /// Looks at a batch of the log. For one partition: one after the other, in order. A list that cannot be kept is told to
    /// the log only: it is no reason to stop.
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
            tracing::error!(stream = %self.stream.name, %error, "late events could not be listed");
        }
    }

    /// Rows that came after allowed lateness: the rule by which the log counts them.
    fn late_rows(&self, batch: &LogBatch, times: &[i64]) -> Vec<u32> {
        let marks = watermarks(&batch.rows);
        let unset = marks.null_count();
        let (lateness_us, marks) = (self.lateness_us, marks.values());
        // The watermark is unset for the first events only: it never goes back.
        rows_where(times, |row, time| row >= unset && time.saturating_add(lateness_us) <= marks[row])
    }

    /// The distribution, and what it suggests; `None` before the first event.
    pub fn summary(&self) -> Option<Lateness> {
        let mut measured = Measured::default();
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

    /// Events of one kind, newest first; `total` is how many there ever were.
    pub fn events(&self, kind: EventKind, range: &ListRange, total: u64) -> Result<EventPage, StreamError> {
        let before = range.cursor.as_ref().map(|text| Place::parse(text).ok_or(StreamError::BadCursor(text.clone())));
        let list = match kind {
            EventKind::Late => &self.late,
            EventKind::Ahead => &self.ahead,
        };
        let failed = |error: ArrowError| StreamError::Failed(error.to_string());
        let page = list.page(before.transpose()?, range.limit).map_err(failed)?;
        let next = page.as_ref().filter(|page| page.more).and_then(|page| page.places.last()).map(|last| last.text());
        let rows = self.shown(kind, page).map_err(failed)?;
        let (kept, kept_max) = (list.len() as u64, self.settings.listed_events as u64);
        // Both are counted while events come in; the list may be a moment ahead of the total.
        Ok(EventPage { total: total.max(kept), kept, kept_max, rows, next })
    }

    /// The rows with the system's columns and what was measured of each.
    fn shown(&self, kind: EventKind, page: Option<Page>) -> Result<RecordBatch, ArrowError> {
        let Page { rows, places, .. } = page.unwrap_or_else(|| Page {
            rows: RecordBatch::new_empty(self.stream.log_schema()),
            places: Vec::new(),
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
                let by = places.iter().zip(times.values()).map(|(place, time)| time.saturating_sub(place.arrived_at.0));
                ("ahead_by_ms", "beyond_max_ahead_ms", by.collect(), self.ahead_us)
            }
        };
        let ms = |us: i64| us.div_euclid(MICROS_PER_MILLISECOND);
        let by_ms = Int64Array::from_iter_values(by_us.iter().map(|by| ms(*by)));
        let beyond_ms = Int64Array::from_iter_values(by_us.iter().map(|by| ms(by.saturating_sub(beyond_us))));
        let partitions = Int32Array::from_iter_values(places.iter().map(|place| place.partition.0 as i32));
        let offsets = Int64Array::from_iter_values(places.iter().map(|place| place.offset.0 as i64));
        let arrivals = TimestampMicrosecondArray::from_iter_values(places.iter().map(|place| place.arrived_at.0));

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

    /// `name`, or with an underscore if the stream has a column of that name: none may begin with one.
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

/// The watermark just before each event, the log's last column.
fn watermarks(rows: &RecordBatch) -> &TimestampMicrosecondArray {
    rows.column(rows.num_columns() - 1).as_primitive()
}

fn rows_where(times: &[i64], holds: impl Fn(usize, i64) -> bool) -> Vec<u32> {
    (0..times.len()).filter(|row| holds(*row, times[*row])).map(|row| row as u32).collect()
}
