//! What is behind the HTTP door? Decoded events are dealt to partitions, written, and their answers added up.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use arrow::array::{RecordBatch, UInt32Array};
use arrow::compute::take_record_batch;
use arrow::error::ArrowError;
use futures::FutureExt;
use futures::future::BoxFuture;
use shared::clock::Clock;
use shared::ids::{Partition, StreamName};
use shared::stream::Stream;
use tokio::sync::oneshot;
use xxhash_rust::xxh3::xxh3_64;

use crate::decode::Decoded;
use crate::http::{Accepted, Door, SubmitError};
use crate::partition::{self, PartAnswer, Submission, WriteError};
use crate::quarantine::{MalformedLines, Quarantine};
use crate::rate::Rate;
use crate::streams::Intake;

/// What came through the door since the process started, per stream.
#[derive(Debug, Default)]
pub struct Arrivals {
    pub rejected: std::sync::atomic::AtomicU64,
    pub unknown_fields: std::sync::atomic::AtomicU64,
    pub accepted: Rate,
    /// Valid events, and those among them whose time lies before 1980.
    pub valid: std::sync::atomic::AtomicU64,
    pub before_1980: std::sync::atomic::AtomicU64,
}

/// The door to the logs of all streams.
pub struct IntakeDoor {
    intake: Arc<Intake>,
    arrivals: BTreeMap<StreamName, Arrivals>,
    quarantine: Arc<Quarantine>,
    clock: Arc<dyn Clock>,
    /// Deals requests without ids and keys to partitions in turn.
    turn: AtomicU32,
}

impl IntakeDoor {
    /// A door to `intake`, and for what is malformed to `quarantine`.
    pub fn new(intake: Arc<Intake>, quarantine: Arc<Quarantine>, clock: Arc<dyn Clock>) -> IntakeDoor {
        let arrivals = intake.streams().map(|log| (log.stream().name.clone(), Arrivals::default())).collect();
        IntakeDoor { intake, arrivals, quarantine, clock, turn: AtomicU32::new(0) }
    }

    /// What came in for `stream`.
    pub fn arrivals(&self, stream: &StreamName) -> Option<&Arrivals> {
        self.arrivals.get(stream)
    }

    async fn write(
        &self,
        stream: StreamName,
        parts: Vec<(Partition, Submission)>,
        answers: Vec<(Partition, oneshot::Receiver<Result<PartAnswer, WriteError>>)>,
    ) -> Result<Accepted, SubmitError> {
        let log = self.intake.stream(&stream).ok_or_else(|| SubmitError::Failed(format!("no stream {stream}")))?;
        log.try_submit(parts).map_err(refused)?;
        let mut total = Accepted::default();
        for (partition, answer) in answers {
            let part = answer.await.map_err(|_| SubmitError::Stopping)?.map_err(|problem| match problem {
                WriteError::DiskFull => SubmitError::DiskFull,
                WriteError::Stopped => SubmitError::Stopping,
            })?;
            total.accepted += part.accepted;
            total.duplicates += part.duplicates;
            total.late += part.late;
            total.ahead += part.ahead;
            if let (Some(first), Some(end)) = (part.first_offset, part.end_offset) {
                total.offsets.insert(partition, (first, end));
            }
        }
        if let Some(arrivals) = self.arrivals.get(&stream) {
            arrivals.accepted.count(self.clock.now(), total.accepted);
        }
        Ok(total)
    }

    /// Events with an id go where their id says, so that a duplicate meets its original. Others go where the request's
    /// key says, so that a repetition meets its first answer; without a key, in turn.
    fn deal(&self, stream: &Stream, decoded: Decoded, key: Option<&str>) -> Result<Vec<Dealt>, ArrowError> {
        let partitions = stream.partitions;
        match decoded.id_hashes {
            Some(ids) if partitions > 1 => {
                let mut rows: Vec<Vec<u32>> = vec![Vec::new(); partitions as usize];
                for (row, id) in ids.iter().enumerate() {
                    rows[(*id % u128::from(partitions)) as usize].push(row as u32);
                }
                let part = |(partition, rows): (usize, Vec<u32>)| {
                    let ids = rows.iter().map(|row| ids[*row as usize]).collect();
                    let rows = take_record_batch(&decoded.rows, &UInt32Array::from(rows))?;
                    Ok(Dealt { partition: Partition(partition as u32), rows, ids: Some(ids) })
                };
                rows.into_iter().enumerate().filter(|(_, rows)| !rows.is_empty()).map(part).collect()
            }
            ids => {
                let partition = match key {
                    _ if partitions == 1 => 0,
                    Some(key) => (xxh3_64(key.as_bytes()) % u64::from(partitions)) as u32,
                    None => self.turn.fetch_add(1, Ordering::Relaxed) % partitions,
                };
                Ok(vec![Dealt { partition: Partition(partition), rows: decoded.rows, ids }])
            }
        }
    }
}

struct Dealt {
    partition: Partition,
    rows: RecordBatch,
    ids: Option<Vec<u128>>,
}

impl Door for IntakeDoor {
    fn stream(&self, name: &str) -> Option<Arc<Stream>> {
        self.intake.stream(&name.parse().ok()?).map(|log| Arc::clone(log.stream()))
    }

    fn stream_names(&self) -> Vec<StreamName> {
        self.arrivals.keys().cloned().collect()
    }

    fn note(&self, stream: &Stream, malformed: MalformedLines, unknown_fields: u64) {
        if let Some(arrivals) = self.arrivals.get(&stream.name) {
            arrivals.rejected.fetch_add(malformed.count, Ordering::Relaxed);
            arrivals.unknown_fields.fetch_add(unknown_fields, Ordering::Relaxed);
        }
        self.quarantine.keep(&stream.name, malformed, self.clock.now());
    }

    fn submit(
        &self,
        stream: &Stream,
        decoded: Decoded,
        idempotency_key: Option<String>,
    ) -> BoxFuture<'_, Result<Accepted, SubmitError>> {
        let name = stream.name.clone();
        if let Some(arrivals) = self.arrivals.get(&name) {
            arrivals.valid.fetch_add(decoded.rows.num_rows() as u64, Ordering::Relaxed);
            arrivals.before_1980.fetch_add(decoded.before_1980, Ordering::Relaxed);
        }
        let dealt = match self.deal(stream, decoded, idempotency_key.as_deref()) {
            Ok(dealt) => dealt,
            Err(problem) => return async move { Err(SubmitError::Failed(problem.to_string())) }.boxed(),
        };
        let mut parts = Vec::with_capacity(dealt.len());
        let mut answers = Vec::with_capacity(dealt.len());
        for Dealt { partition, rows, ids } in dealt {
            let (reply, answer) = oneshot::channel();
            let submission = Submission { rows, id_hashes: ids, idempotency_key: idempotency_key.clone(), reply };
            parts.push((partition, submission));
            answers.push((partition, answer));
        }
        self.write(name, parts, answers).boxed()
    }
}

fn refused(problem: partition::SubmitError) -> SubmitError {
    match problem {
        partition::SubmitError::Busy => SubmitError::Busy,
        partition::SubmitError::Stopped => SubmitError::Stopping,
        other => SubmitError::Failed(other.to_string()),
    }
}
