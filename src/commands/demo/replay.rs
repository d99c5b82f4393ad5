//! Replays the embedded flights in the order and at the pace of their real reports, only faster.

use std::io;
use std::time::Duration;

use anyhow::Context;
use arrow::array::{AsArray, RecordBatch};
use arrow::compute::{cast, concat_batches};
use arrow::datatypes::{DataType, TimestampMicrosecondType};
use bytes::Bytes;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use shared::time::{MICROS_PER_SECOND, Micros};
use tokio::sync::watch;
use tokio::time::Instant;

use crate::client::Client;
use crate::line_batch::BatchFormat;
use crate::sender::{Receipt, RetryLimits, Sender};
use intake::decode::json_lines;

use super::STREAM;
use super::topics::FlightWriter;

/// 15 days of real flights, ordered by `reported_at`; see `examples/README.md`.
const FLIGHTS: &[u8] = include_bytes!("../../../examples/flights/flights.parquet");
/// The column with the time at which a flight was reported, which is the clock of the replay.
const REPORTED_AT: &str = "reported_at";
/// The column that is the key of a flight's record in a topic.
const KEY: &str = "origin";
const SEND_EVERY: Duration = Duration::from_millis(100);
/// Maximum number of rows of a request.
const ROWS_MAX: usize = 20_000;

/// The flights to replay.
#[derive(Debug)]
pub struct Flights {
    rows: RecordBatch,
    /// The report time of each row, ascending, in microseconds.
    reported_at: Vec<i64>,
}

/// Where flights are sent.
pub enum Destination {
    /// The HTTP endpoint of the server.
    Http(Client),
    /// The topic that the server reads.
    Topic(FlightWriter),
}

/// Sends batches of flights.
enum FlightSender {
    Http(Sender),
    Topic(FlightWriter),
}

/// The progress of the replay.
#[derive(Debug, Clone, Default)]
pub struct ReplayProgress {
    /// The sum of all receipts.
    pub receipt: Receipt,
    /// `reported_at` of the last flight that was sent.
    pub clock: Option<Micros>,
    pub finished: bool,
    pub error: Option<String>,
}

impl ReplayProgress {
    /// Returns the number of events that the server has acknowledged.
    pub fn sent(&self) -> u64 {
        self.receipt.accepted + self.receipt.duplicates + self.receipt.rejected
    }
}

impl Flights {
    /// Loads the first `rows_max` flights that are embedded in this program.
    pub fn embedded(rows_max: usize) -> anyhow::Result<Flights> {
        let reader = ParquetRecordBatchReaderBuilder::try_new(Bytes::from_static(FLIGHTS))?;
        let schema = reader.schema().clone();
        let batches = reader.with_limit(rows_max).build()?.collect::<Result<Vec<_>, _>>()?;
        let rows = concat_batches(&schema, &batches)?;
        let times = rows.column_by_name(REPORTED_AT).with_context(|| format!("the flights have no {REPORTED_AT}"))?;
        let times = times.as_primitive_opt::<TimestampMicrosecondType>();
        let reported_at = times.with_context(|| format!("{REPORTED_AT} is not in microseconds"))?.values().to_vec();
        Ok(Flights { rows, reported_at })
    }

    /// Returns the number of flights.
    pub fn len(&self) -> usize {
        self.reported_at.len()
    }

    /// Returns the seconds from the first to the last report.
    pub fn span_s(&self) -> f64 {
        let ends = self.reported_at.first().zip(self.reported_at.last());
        ends.map_or(0.0, |(first, last)| (last - first) as f64 / MICROS_PER_SECOND as f64)
    }

    /// Returns the number of rows that are due when `elapsed` has passed since the first report.
    fn due(&self, elapsed: Duration, speedup: f64) -> usize {
        let Some(first) = self.reported_at.first() else { return 0 };
        let passed = elapsed.as_secs_f64() * speedup * MICROS_PER_SECOND as f64;
        // The cast saturates for large floats, which makes all rows due.
        let clock = first.saturating_add(passed as i64);
        self.reported_at.partition_point(|time| *time <= clock)
    }

    fn lines(&self, from: usize, to: usize) -> io::Result<Bytes> {
        let mut lines = Vec::new();
        json_lines::append(&mut lines, &self.rows.slice(from, to - from)).map_err(io::Error::other)?;
        Ok(Bytes::from(lines))
    }

    /// Sends every flight when it is due. Returns at the end, when `stop` becomes true, or after an error that retries
    /// cannot fix.
    pub async fn replay(
        self,
        destination: Destination,
        speedup: f64,
        progress: watch::Sender<ReplayProgress>,
        stop: watch::Receiver<bool>,
    ) {
        let sender = match destination {
            Destination::Http(client) => {
                let stream = STREAM.parse().expect("the name of a stream");
                FlightSender::Http(Sender::new(client, &stream, RetryLimits::default()))
            }
            Destination::Topic(writer) => FlightSender::Topic(writer),
        };
        let sent = self.send_all(&sender, speedup, &progress, &stop).await;
        if let FlightSender::Topic(writer) = sender {
            writer.close().await;
        }
        if let Err(error) = sent {
            progress.send_modify(|progress| progress.error = Some(format!("{error:#}")));
        }
    }

    async fn send_all(
        &self,
        sender: &FlightSender,
        speedup: f64,
        progress: &watch::Sender<ReplayProgress>,
        stop: &watch::Receiver<bool>,
    ) -> anyhow::Result<()> {
        let mut ticks = tokio::time::interval(SEND_EVERY);
        let begin = Instant::now();
        let (mut sent, mut number) = (0, 0);
        while sent < self.len() {
            ticks.tick().await;
            let due = self.due(begin.elapsed(), speedup);
            while sent < due {
                if *stop.borrow() {
                    return Ok(());
                }
                let to = due.min(sent + ROWS_MAX);
                let receipt = self.send(sender, number, (sent, to)).await?;
                progress.send_modify(|progress| progress.add(receipt, Micros(self.reported_at[to - 1])));
                (sent, number) = (to, number + 1);
            }
        }
        progress.send_modify(|progress| progress.finished = true);
        Ok(())
    }

    /// Sends the flights of some rows as batch `number`.
    async fn send(&self, sender: &FlightSender, number: u64, (from, to): (usize, usize)) -> anyhow::Result<Receipt> {
        let lines = self.lines(from, to)?;
        match sender {
            FlightSender::Http(sender) => Ok(sender.send(number, BatchFormat::Lines, lines, |_| {}).await?),
            FlightSender::Topic(writer) => {
                let origins =
                    self.rows.column_by_name(KEY).with_context(|| format!("the flights have no column {KEY}"))?;
                let origins = cast(&origins.slice(from, to - from), &DataType::Utf8)?;
                let keys = origins.as_string::<i32>().iter().map(Option::unwrap_or_default);
                Ok(Receipt { accepted: writer.write(&lines, keys).await?, ..Receipt::default() })
            }
        }
    }
}

impl ReplayProgress {
    fn add(&mut self, receipt: Receipt, clock: Micros) {
        self.receipt.accepted += receipt.accepted;
        self.receipt.duplicates += receipt.duplicates;
        self.receipt.late += receipt.late;
        self.receipt.rejected += receipt.rejected;
        self.clock = Some(clock);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_embedded_flights_are_in_order() {
        let flights = Flights::embedded(usize::MAX).expect("readable");
        assert_eq!(flights.len(), 245_522);
        assert!(flights.reported_at.is_sorted());
        assert_eq!(Flights::embedded(10).expect("readable").len(), 10);
        let lines = flights.lines(0, 2).expect("lines");
        let first = std::str::from_utf8(&lines).expect("text").lines().next();
        assert_eq!(
            first,
            Some(
                r#"{"flight_id":"F0000008","scheduled_at":"2001-01-01T00:03:00Z","reported_at":"2000-12-31T23:43:00Z","origin":"LAX","destination":"ATL","delay_min":-20,"distance_mi":1946}"#
            )
        );
    }

    #[test]
    fn flights_are_due_at_the_given_speed() {
        let flights = Flights::embedded(1000).expect("readable");
        // The first three reports: 23:43, 23:48 and 00:02.
        assert_eq!(flights.due(Duration::ZERO, 60.0), 1);
        assert_eq!(flights.due(Duration::from_millis(4_999), 60.0), 1);
        assert_eq!(flights.due(Duration::from_secs(5), 60.0), 2);
        assert_eq!(flights.due(Duration::from_secs(19), 60.0), 3);
        assert_eq!(flights.due(Duration::from_secs(1), f64::MAX), 1000);
        let none = Flights::embedded(0).expect("readable");
        assert_eq!((none.due(Duration::from_secs(1), 1.0), none.span_s()), (0, 0.0));
    }
}
