//! Unpacks the batches of records that a broker has sent, and skips the records of aborted transactions.

use std::collections::{BTreeSet, VecDeque};

use bytes::{Buf, Bytes};
use krafka::__private::protocol::{Compression, Record, RecordBatch, RecordBatchHeader, TimestampType};
use krafka::__private::util::crc32c;
use krafka::KrafkaError;
use krafka::error::ProtocolErrorKind;

use crate::reader::TopicRecord;

/// Why a batch cannot be unpacked.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BatchError {
    /// It is damaged, or has an unknown format.
    #[error(transparent)]
    Damaged(#[from] KrafkaError),
    #[error("the broker sent only {0} bytes of a batch of records")]
    Cut(usize),
    #[error("a batch of records has a wrong checksum")]
    Checksum,
    #[error("a batch of records has fewer than it says")]
    Record,
}

/// The checksum of a batch covers its bytes from here on.
const CHECKED_FROM: usize = 21;
/// The type of the control record that ends an aborted transaction.
const ABORT: [u8; 2] = [0, 0];

/// Batches of one partition, in the order of their offsets.
#[derive(Debug, Default)]
pub(crate) struct FetchedBatches {
    bytes: Bytes,
    /// First offset and producer of each aborted transaction that no taken batch has reached, in order.
    aborted: VecDeque<(i64, i64)>,
    /// Producers whose present transaction was aborted.
    aborting: BTreeSet<i64>,
    /// Whether a batch was taken from the response.
    started: bool,
}

/// A batch that was unpacked or skipped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct PassedBatch {
    /// The offset after the batch.
    pub end: i64,
    pub epoch: i32,
}

impl FetchedBatches {
    /// `aborted` holds the first offset and the producer of each aborted transaction.
    pub fn new(bytes: Bytes, mut aborted: Vec<(i64, i64)>) -> FetchedBatches {
        aborted.sort_unstable();
        FetchedBatches { bytes, aborted: aborted.into(), aborting: BTreeSet::new(), started: false }
    }

    /// Returns whether no batch is left.
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Returns the number of records in the next batch; 0 if there is none.
    pub fn upcoming(&self) -> usize {
        RecordBatchHeader::peek(&self.bytes).map_or(0, |header| header.records_count as usize)
    }

    /// Takes the next batch, and adds its records from the offset `from` on to `records`. Returns `None` if no whole batch is
    /// left.
    ///
    /// # Errors
    /// The batch cannot be unpacked. The next call returns the same error.
    pub fn unpack(
        &mut self,
        partition: u32,
        from: i64,
        records: &mut Vec<TopicRecord>,
    ) -> Result<Option<PassedBatch>, BatchError> {
        let header = match RecordBatchHeader::peek(&self.bytes) {
            Ok(header) if self.bytes.len() >= header.total_size() => header,
            // A broker may truncate its response anywhere except within the first batch.
            Ok(_) => return self.end_of_response(),
            Err(error) if error.protocol_error_kind() == Some(ProtocolErrorKind::TruncatedFrame) => {
                return self.end_of_response();
            }
            Err(error) => return Err(error.into()),
        };
        while let Some((_, producer)) = self.aborted.pop_front_if(|(first, _)| *first <= header.base_offset) {
            self.aborting.insert(producer);
        }
        if header.attributes.is_control_batch {
            let control = RecordBatch::decode(&mut self.bytes)?;
            if control.records.first().is_some_and(is_abort) {
                self.aborting.remove(&header.producer_id);
            }
        } else if header.attributes.is_transactional && self.aborting.contains(&header.producer_id) {
            self.bytes.advance(header.total_size());
        } else {
            let before = records.len();
            let added = self.add(partition, from, &header, records);
            if added.is_err() {
                records.truncate(before);
            }
            added?;
        }
        self.started = true;
        Ok(Some(PassedBatch { end: header.last_offset().saturating_add(1), epoch: header.partition_leader_epoch }))
    }

    /// Adds the records of a committed batch.
    fn add(
        &mut self,
        partition: u32,
        from: i64,
        header: &RecordBatchHeader,
        records: &mut Vec<TopicRecord>,
    ) -> Result<(), BatchError> {
        let mut add = |record: PlainRecord| {
            let offset = header.base_offset.saturating_add(i64::from(record.offset_delta));
            if offset >= from {
                let PlainRecord { timestamp_delta, key, value, headers, .. } = record;
                let timestamp_ms = match header.attributes.timestamp_type {
                    TimestampType::LogAppendTime => header.max_timestamp,
                    _ => header.base_timestamp.saturating_add(timestamp_delta),
                };
                records.push(TopicRecord { partition, offset, timestamp_ms, key, value, headers });
            }
        };
        if header.attributes.compression != Compression::None {
            RecordBatch::decode(&mut self.bytes)?.records.into_iter().map(PlainRecord::from).for_each(add);
            return Ok(());
        }
        let batch = self.bytes.slice(..header.total_size());
        if crc32c(&batch[CHECKED_FROM..]) != header.crc {
            return Err(BatchError::Checksum);
        }
        let mut rest = PlainRecords { bytes: batch.slice(RecordBatchHeader::SIZE..), at: 0 };
        for _ in 0..header.records_count {
            add(rest.record().ok_or(BatchError::Record)?);
        }
        self.bytes.advance(batch.len());
        Ok(())
    }

    fn end_of_response(&mut self) -> Result<Option<PassedBatch>, BatchError> {
        if !self.started && !self.bytes.is_empty() {
            return Err(BatchError::Cut(self.bytes.len()));
        }
        self.bytes = Bytes::new();
        Ok(None)
    }
}

fn is_abort(control: &Record) -> bool {
    control.key.as_ref().is_some_and(|key| key.get(2..4) == Some(&ABORT))
}

/// A record with the deltas that its batch stores.
#[derive(Debug)]
struct PlainRecord {
    timestamp_delta: i64,
    offset_delta: i32,
    key: Option<Bytes>,
    value: Option<Bytes>,
    headers: Vec<(String, Option<Bytes>)>,
}

impl From<Record> for PlainRecord {
    fn from(record: Record) -> PlainRecord {
        let Record { timestamp_delta, offset_delta, key, value, headers, .. } = record;
        let headers = headers.into_iter().map(|header| (header_name(&header.key), header.value)).collect();
        PlainRecord { timestamp_delta, offset_delta, key, value, headers }
    }
}

fn header_name(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Reads the records of an uncompressed batch. krafka can read them too, but moves each record three times and takes five
/// references to the buffer.
#[derive(Debug)]
struct PlainRecords {
    bytes: Bytes,
    at: usize,
}

impl PlainRecords {
    /// Reads the next record; `None` if the bytes are not a record.
    fn record(&mut self) -> Option<PlainRecord> {
        let length = usize::try_from(self.number()?).ok()?;
        let end = self.at.checked_add(length).filter(|end| *end <= self.bytes.len())?;
        // Skips the attributes; none are defined yet.
        self.at += 1;
        let timestamp_delta = self.number()?;
        let offset_delta = i32::try_from(self.number()?).ok()?;
        let (key, value) = (self.part()?, self.part()?);
        let count = usize::try_from(self.number()?).ok()?;
        let mut headers = Vec::new();
        for _ in 0..count {
            let name = header_name(&self.part()??);
            headers.push((name, self.part()?));
        }
        (self.at <= end).then_some(())?;
        self.at = end;
        Some(PlainRecord { timestamp_delta, offset_delta, key, value, headers })
    }

    /// Reads a length and as many bytes; a negative length means NULL.
    fn part(&mut self) -> Option<Option<Bytes>> {
        let Ok(length) = usize::try_from(self.number()?) else { return Some(None) };
        let end = self.at.checked_add(length).filter(|end| *end <= self.bytes.len())?;
        let part = self.bytes.slice(self.at..end);
        self.at = end;
        Some(Some(part))
    }

    /// Reads a zigzag varint: up to ten bytes of seven bits each, the lowest first; the lowest bit is the sign.
    fn number(&mut self) -> Option<i64> {
        let mut bits = 0_u64;
        for shift in (0..64).step_by(7) {
            let byte = *self.bytes.get(self.at)?;
            self.at += 1;
            bits |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Some((bits >> 1).cast_signed() ^ -(bits & 1).cast_signed());
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// One step of a producer.
    #[derive(Debug, Clone)]
    enum Write {
        /// A batch in the present transaction of the producer, or outside of one; `kept` says which records compaction kept.
        Batch { producer: Option<u8>, kept: Vec<bool>, is_compressed: bool },
        /// The end of the producer's transaction.
        End { producer: u8, is_aborted: bool },
    }

    /// A partition of a topic.
    #[derive(Debug, Default)]
    struct Topic {
        /// Each batch with its last offset.
        batches: Vec<(i64, Bytes)>,
        /// First and last offset and producer of each aborted transaction.
        aborted: Vec<(i64, i64, i64)>,
        /// The offsets of committed records.
        committed: Vec<i64>,
        end: i64,
    }

    fn writes() -> impl Strategy<Value = Vec<Write>> {
        let batch = (prop::option::of(0..3u8), prop::collection::vec(prop::bool::weighted(0.8), 1..5), any::<bool>());
        let batch = batch.prop_map(|(producer, kept, is_compressed)| Write::Batch { producer, kept, is_compressed });
        let end = (0..3u8, any::<bool>()).prop_map(|(producer, is_aborted)| Write::End { producer, is_aborted });
        // A broker returns nothing after the start of an open transaction.
        let last = (0..3u8).map(|producer| Write::End { producer, is_aborted: producer == 1 }).collect::<Vec<_>>();
        prop::collection::vec(prop_oneof![3 => batch, 1 => end], 0..20)
            .prop_map(move |writes| writes.into_iter().chain(last.clone()).collect())
    }

    impl Topic {
        fn of(writes: &[Write]) -> Topic {
            let mut topic = Topic::default();
            // The first offset of the present transaction of each producer, and its records.
            let mut open: Vec<Option<(i64, Vec<i64>)>> = vec![None; 3];
            for write in writes {
                match write {
                    Write::Batch { producer, kept, is_compressed } => {
                        let offsets = (topic.end..).zip(kept).filter_map(|(offset, kept)| kept.then_some(offset));
                        let offsets: Vec<i64> = offsets.collect();
                        topic.append(*producer, &offsets, kept.len() as i64, *is_compressed, None);
                        let begin = topic.end - kept.len() as i64;
                        match producer {
                            None => topic.committed.extend(&offsets),
                            Some(producer) => {
                                let open = open[usize::from(*producer)].get_or_insert((begin, Vec::new()));
                                open.1.extend(&offsets);
                            }
                        }
                    }
                    Write::End { producer, is_aborted } => {
                        let Some((first, offsets)) = open[usize::from(*producer)].take() else { continue };
                        let marker = topic.end;
                        topic.append(Some(*producer), &[marker], 1, false, Some(*is_aborted));
                        if *is_aborted {
                            topic.aborted.push((first, marker, i64::from(*producer)));
                        } else {
                            topic.committed.extend(offsets);
                        }
                    }
                }
            }
            topic.committed.sort_unstable();
            topic
        }

        fn append(
            &mut self,
            producer: Option<u8>,
            offsets: &[i64],
            span: i64,
            is_compressed: bool,
            ends: Option<bool>,
        ) {
            let mut batch = RecordBatch::new();
            batch.base_offset = self.end;
            batch.last_offset_delta = span as i32 - 1;
            batch.base_timestamp = 1_000;
            batch.partition_leader_epoch = 7;
            batch.producer_id = producer.map_or(-1, i64::from);
            batch.attributes.is_transactional = producer.is_some();
            batch.attributes.is_control_batch = ends.is_some();
            if is_compressed {
                batch.attributes.compression = Compression::Lz4;
            }
            let key = ends.map(|is_aborted| Bytes::from_static(if is_aborted { &[0, 0, 0, 0] } else { &[0, 0, 0, 1] }));
            for offset in offsets {
                let record = Record::new(key.clone(), Some(offset.to_string().into())).with_header("h", "v");
                let delta = offset - self.end;
                batch.records.push(record.with_offset_delta(delta as i32).with_timestamp_delta(delta));
            }
            self.batches.push((self.end + span - 1, batch.encode().expect("encodes")));
            self.end += span;
        }

        /// Returns the response of a broker to a fetch from an offset: the first batch, and as much of the next ones as `bytes_max`
        /// permits.
        fn fetch(&self, from: i64, bytes_max: usize) -> FetchedBatches {
            let mut bytes = Vec::new();
            let mut last = from;
            for (end, batch) in self.batches.iter().filter(|(end, _)| *end >= from) {
                let room = if bytes.is_empty() { batch.len() } else { bytes_max.saturating_sub(bytes.len()) };
                bytes.extend_from_slice(&batch[..room.min(batch.len())]);
                last = *end;
            }
            let overlaps = |(first, marker, _): &&(i64, i64, i64)| *first <= last && *marker >= from;
            let aborted = self.aborted.iter().filter(overlaps).map(|(first, _, producer)| (*first, *producer));
            FetchedBatches::new(bytes.into(), aborted.collect())
        }
    }

    proptest! {
        #[test]
        fn committed_records_come_once_however_responses_are_cut(
            writes in writes(),
            from in 0..10i64,
            bytes_max in prop::collection::vec(0..600usize, 1..8),
        ) {
            let topic = Topic::of(&writes);
            let (mut next, mut records) = (from.min(topic.end), Vec::new());
            for bytes_max in bytes_max.iter().cycle() {
                if next >= topic.end {
                    break;
                }
                let (before, mut batches) = (next, topic.fetch(next, *bytes_max));
                while let Some(passed) = batches.unpack(3, next, &mut records).expect("undamaged") {
                    prop_assert_eq!(passed.epoch, 7);
                    next = next.max(passed.end);
                }
                prop_assert!(batches.is_empty() && next > before, "no progress from {}", before);
            }
            let expected: Vec<i64> = topic.committed.iter().copied().filter(|offset| *offset >= from).collect();
            let offsets: Vec<i64> = records.iter().map(|record| record.offset).collect();
            prop_assert_eq!(offsets, expected);
            for TopicRecord { partition, offset, key, value, headers, .. } in records {
                prop_assert_eq!((partition, key, value), (3, None, Some(Bytes::from(offset.to_string()))));
                prop_assert_eq!(headers, vec![("h".to_owned(), Some(Bytes::from("v")))]);
            }
        }

        #[test]
        fn a_damaged_batch_is_an_error_each_time_and_what_precedes_it_is_not(flipped in 22..70usize) {
            let batch = |kept| Write::Batch { producer: None, kept, is_compressed: false };
            let topic = Topic::of(&[batch(vec![true; 3]), batch(vec![true; 3])]);
            let mut bytes: Vec<u8> = topic.batches.iter().flat_map(|(_, batch)| batch.to_vec()).collect();
            bytes[topic.batches[0].1.len() + flipped] ^= 1;
            let (mut batches, mut records) = (FetchedBatches::new(bytes.into(), Vec::new()), Vec::new());
            prop_assert_eq!(batches.unpack(0, 0, &mut records).expect("undamaged").map(|passed| passed.end), Some(3));
            for _ in 0..2 {
                prop_assert!(matches!(batches.unpack(0, 3, &mut records), Err(BatchError::Damaged(_) | BatchError::Checksum)));
            }
            prop_assert_eq!(records.len(), 3);
        }
    }

    #[test]
    fn times_are_those_of_the_producer_or_of_the_broker() {
        let times = |timestamp_type| {
            let mut batch = RecordBatch::new();
            (batch.base_timestamp, batch.max_timestamp, batch.last_offset_delta) = (100, 170, 1);
            batch.attributes.timestamp_type = timestamp_type;
            let record =
                |delta| Record::new(None, None).with_offset_delta(delta).with_timestamp_delta(i64::from(delta));
            batch.records = vec![record(0), record(1)];
            let mut records = Vec::new();
            let bytes = batch.encode().expect("encodes");
            FetchedBatches::new(bytes, Vec::new()).unpack(0, 0, &mut records).expect("undamaged");
            records.iter().map(|record| record.timestamp_ms).collect::<Vec<_>>()
        };
        assert_eq!(times(TimestampType::CreateTime), [100, 101]);
        assert_eq!(times(TimestampType::LogAppendTime), [170, 170]);
    }

    #[test]
    fn a_first_batch_that_is_cut_is_an_error() {
        let topic = Topic::of(&[Write::Batch { producer: None, kept: vec![true; 3], is_compressed: false }]);
        let bytes = topic.batches[0].1.slice(..80);
        let cut = FetchedBatches::new(bytes, Vec::new()).unpack(0, 0, &mut Vec::new());
        assert!(matches!(cut, Err(BatchError::Cut(80))), "{cut:?}");
    }
}
