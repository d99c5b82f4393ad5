//! Divides polled records into batches of one partition and decodes them, partitions at the same time.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures::future::try_join_all;
use kafka::TopicRecord;
use shared::control::RecordAddress;
use shared::limits::{SOURCE_BATCH_BYTES, SOURCE_BATCH_RECORDS, TABLE_BATCH_RECORDS};
use shared::stream::Stream;
use shared::time::Micros;

use super::error::SourceError;
use crate::decode::avro::{WriterSchemas, decode_avro};
use crate::decode::protobuf::{MessageSchemas, decode_protobuf};
use crate::decode::{DecodeError, Decoded, Options, TextFormat, decode_records};
use crate::quarantine::RejectedLines;

/// Decoded records of one partition, in their order.
pub(super) struct RecordBatch {
    pub partition: u32,
    /// The offset after the last record.
    pub next: i64,
    pub decoded: Decoded,
    pub rejected: RejectedLines,
    /// Whether all rows of the table are deleted, in place of the changes in `decoded`.
    pub truncates: bool,
}

/// How values hold events, with what is needed to read them.
#[derive(Clone)]
pub(super) enum ValueFormat {
    Text(TextFormat),
    /// Avro, with the schemas of all ids that occur.
    Avro(Arc<WriterSchemas>),
    /// Protobuf, likewise.
    Protobuf(Arc<MessageSchemas>),
}

/// Decodes the records of `polls` that are not before the position `next` of their partition.
pub(super) async fn decode(
    stream: &Arc<Stream>,
    format: &ValueFormat,
    topic: &Arc<str>,
    polls: Vec<Vec<TopicRecord>>,
    next: &BTreeMap<u32, i64>,
    arrived_at: Micros,
) -> Result<Vec<RecordBatch>, SourceError> {
    // A client that found its position truncated reads some records again.
    let is_new = |record: &TopicRecord| next.get(&record.partition).is_some_and(|next| record.offset >= *next);
    let records_max = if stream.table.is_some() { TABLE_BATCH_RECORDS } else { SOURCE_BATCH_RECORDS };
    let decoded = divided(polls, is_new, records_max).into_iter().map(|records| {
        let (stream, topic, format) = (Arc::clone(stream), Arc::clone(topic), format.clone());
        async move {
            let work = move || batches(&stream, &format, &topic, &records, arrived_at);
            tokio::task::spawn_blocking(work).await.map_err(|error| SourceError::Decode(error.to_string()))?
        }
    });
    Ok(try_join_all(decoded).await?.into_iter().flatten().collect())
}

/// Batches of one partition each, in order, within the limits, of the records that `is_wanted` accepts.
fn divided(
    polls: Vec<Vec<TopicRecord>>,
    is_wanted: impl Fn(&TopicRecord) -> bool,
    records_max: usize,
) -> Vec<Vec<TopicRecord>> {
    let mut left: usize = polls.iter().map(Vec::len).sum();
    let mut full: Vec<Vec<TopicRecord>> = Vec::new();
    let mut open: BTreeMap<u32, (Vec<TopicRecord>, usize)> = BTreeMap::new();
    for records in polls {
        let follows = records.first().is_some_and(|first| open.contains_key(&first.partition));
        if !follows && is_a_batch(&records, &is_wanted, records_max) {
            left -= records.len();
            full.push(records);
            continue;
        }
        for record in records {
            left -= 1;
            if !is_wanted(&record) {
                continue;
            }
            let (batch, bytes) = open.entry(record.partition).or_default();
            if batch.len() >= records_max || (*bytes >= SOURCE_BATCH_BYTES) {
                full.push(std::mem::take(batch));
                *bytes = 0;
            }
            if batch.is_empty() {
                // Growing would move the records again and again.
                batch.reserve_exact((left + 1).min(records_max));
            }
            *bytes += record.bytes();
            batch.push(record);
        }
    }
    full.extend(open.into_values().map(|(batch, _)| batch));
    full
}

/// Returns whether records form a batch as they are, so that none needs to be moved.
fn is_a_batch(records: &[TopicRecord], is_wanted: impl Fn(&TopicRecord) -> bool, records_max: usize) -> bool {
    let Some(first) = records.first() else { return false };
    let mut bytes = 0;
    records.len() <= records_max
        && is_wanted(first)
        && records.iter().all(|record| {
            bytes += record.bytes();
            record.partition == first.partition && bytes <= SOURCE_BATCH_BYTES
        })
}

/// Decodes records of one partition; in halves, if their events would take too much memory together.
fn batches(
    stream: &Arc<Stream>,
    format: &ValueFormat,
    topic: &str,
    records: &[TopicRecord],
    arrived_at: Micros,
) -> Result<Vec<RecordBatch>, SourceError> {
    match decode_together(stream, format, records, arrived_at) {
        Ok(decoded) => Ok(vec![batch(topic, records, decoded)]),
        Err(DecodeError::EventsTooLarge { .. }) if records.len() > 1 => {
            let (first, second) = records.split_at(records.len() / 2);
            let mut all = batches(stream, format, topic, first, arrived_at)?;
            all.extend(batches(stream, format, topic, second, arrived_at)?);
            Ok(all)
        }
        // The rows that it deletes are those that all records before it leave.
        Err(DecodeError::Truncate { record }) => {
            let (before, rest) = records.split_at(record);
            let mut all =
                if before.is_empty() { Vec::new() } else { batches(stream, format, topic, before, arrived_at)? };
            let truncate = batch(topic, &rest[..1], Decoded::empty(stream));
            all.push(RecordBatch { truncates: true, ..truncate });
            if rest.len() > 1 {
                all.extend(batches(stream, format, topic, &rest[1..], arrived_at)?);
            }
            Ok(all)
        }
        Err(error) => Err(SourceError::Decode(error.to_string())),
    }
}

fn decode_together(
    stream: &Arc<Stream>,
    format: &ValueFormat,
    records: &[TopicRecord],
    arrived_at: Micros,
) -> Result<Decoded, DecodeError> {
    let options = Options { arrived_at: Some(arrived_at), values_max: usize::MAX, ..Options::default() };
    match format {
        ValueFormat::Text(format) => decode_records(stream, *format, records, options),
        ValueFormat::Avro(schemas) => decode_avro(stream, schemas, records, options),
        ValueFormat::Protobuf(schemas) => decode_protobuf(stream, schemas, records, options),
    }
}

/// Decodes records of one partition as one batch, however many they are: they become visible together.
pub(super) async fn decode_whole(
    stream: &Arc<Stream>,
    format: &ValueFormat,
    topic: &Arc<str>,
    records: Vec<TopicRecord>,
    arrived_at: Micros,
) -> Result<RecordBatch, SourceError> {
    let (stream, topic, format) = (Arc::clone(stream), Arc::clone(topic), format.clone());
    let work = move || match decode_together(&stream, &format, &records, arrived_at) {
        Ok(decoded) => Ok(batch(&topic, &records, decoded)),
        Err(DecodeError::EventsTooLarge { .. }) => Err(SourceError::TransactionTooLarge),
        Err(error) => Err(SourceError::Decode(error.to_string())),
    };
    tokio::task::spawn_blocking(work).await.map_err(|error| SourceError::Decode(error.to_string()))?
}

fn batch(topic: &str, records: &[TopicRecord], mut decoded: Decoded) -> RecordBatch {
    let count = decoded.rejected();
    let mut lines = std::mem::take(&mut decoded.malformed);
    // Avro is decoded schema by schema.
    lines.sort_by_key(|line| line.line);
    let address = |line: u64| {
        let record = &records[line as usize];
        RecordAddress { topic: topic.to_owned(), partition: record.partition, offset: record.offset }
    };
    let addresses = lines.iter().map(|line| address(line.line)).collect();
    let rejected = RejectedLines { lines, count, idempotency_key: None, records: addresses };
    let (partition, next) = records.last().map_or((0, 0), |last| (last.partition, last.offset + 1));
    RecordBatch { partition, next, decoded, rejected, truncates: false }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn batches_hold_records_of_one_partition_in_order() {
        let record = |partition: u32, offset: i64, bytes: usize| TopicRecord {
            partition,
            offset,
            timestamp_ms: 0,
            key: None,
            value: Some(vec![b' '; bytes].into()),
            headers: Vec::new(),
        };
        let records =
            [record(0, 1, 1), record(1, 5, SOURCE_BATCH_BYTES), record(0, 4, 1), record(1, 6, 1), record(1, 9, 1)];
        let batches = divided(vec![records.into()], |_| true, SOURCE_BATCH_RECORDS);
        let offsets = |batch: &Vec<TopicRecord>| batch.iter().map(|r| (r.partition, r.offset)).collect::<Vec<_>>();
        let divided: Vec<_> = batches.iter().map(offsets).collect();
        assert_eq!(divided, [vec![(1, 5)], vec![(0, 1), (0, 4)], vec![(1, 6), (1, 9)]]);
        // Of a table.
        let polls = vec![(0..600).map(|offset| record(0, offset, 1)).collect()];
        let small = super::divided(polls, |_| true, TABLE_BATCH_RECORDS);
        assert_eq!(small.iter().map(Vec::len).collect::<Vec<_>>(), [250, 250, 100]);
    }
}
