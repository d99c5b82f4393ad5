//! Decides where reading of each partition starts: at the durable position, else where the archive ends, else where the
//! declaration says. The decision becomes durable before the first record is read, so that it is made once.

use std::sync::Arc;

use kafka::{TopicDescription, TopicReader};
use lake::{ArchiveTags, Lake, TablePath};
use shared::ids::{Partition, StreamName};
use shared::stream::TopicStart;

use super::error::SourceError;
use super::reader::StreamReader;
use crate::fail_points::SourcePoint;
use crate::log::SourcePosition;
use crate::partition::SourceStep;
use crate::submit::RecordSubmitter;

/// Milliseconds in microseconds.
const MICROS_PER_MILLI: i64 = 1_000;

impl StreamReader {
    /// The positions of the partitions that the stream and the topic have, all of them durable.
    pub(super) async fn positions(
        &self,
        reader: &dyn TopicReader,
        description: &TopicDescription,
    ) -> Result<Vec<SourcePosition>, SourceError> {
        let partitions = description.partitions.min(self.log.stream().partitions);
        let known: Vec<Option<SourcePosition>> = (0..partitions).map(|partition| self.durable(partition)).collect();
        self.check_topic(known.iter().flatten(), description)?;
        let started_with = known.iter().flatten().next().map_or(description.partitions, |known| known.started_with);
        let mut positions = Vec::with_capacity(known.len());
        for (partition, known) in (0..).zip(known) {
            let position = match known {
                Some(known) => self.within_topic(reader, partition, known).await?,
                None => {
                    let next = match archived(&self.lake, &self.log.stream().name, partition).await? {
                        Some(next) => next,
                        None if partition < started_with => self.declared_start(reader, partition).await?,
                        None => reader.watermarks(partition).await?.low,
                    };
                    let topic_id = description.id.as_deref().map(Arc::from);
                    let to = SourcePosition {
                        topic: Arc::from(&*self.topic.topic),
                        topic_id,
                        next,
                        place: None,
                        started_with,
                    };
                    let written = move_to(&self.submitter, partition, None, to).await?;
                    self.within_topic(reader, partition, written).await?
                }
            };
            positions.push(position);
        }
        Ok(positions)
    }

    /// The durable position of a partition.
    pub(super) fn durable(&self, partition: u32) -> Option<SourcePosition> {
        self.log.partition(Partition(partition)).and_then(|log| log.source())
    }

    /// Refuses a topic that is not the one of the positions: its offsets mean other records.
    pub(super) fn check_topic<'a>(
        &self,
        mut positions: impl Iterator<Item = &'a SourcePosition>,
        description: &TopicDescription,
    ) -> Result<(), SourceError> {
        let is_other = |position: &SourcePosition| match (&position.topic_id, &description.id) {
            (Some(known), Some(found)) => **known != **found,
            _ => false,
        };
        if positions.any(is_other) { Err(SourceError::Recreated(self.topic.topic.clone())) } else { Ok(()) }
    }

    /// The position, moved to the oldest record if the brokers have deleted those before it.
    async fn within_topic(
        &self,
        reader: &dyn TopicReader,
        partition: u32,
        position: SourcePosition,
    ) -> Result<SourcePosition, SourceError> {
        let watermarks = reader.watermarks(partition).await?;
        if position.next > watermarks.high {
            let (position, end) = (position.next, watermarks.high);
            return Err(SourceError::BehindPosition { partition, position, end });
        }
        if position.next >= watermarks.low {
            return Ok(position);
        }
        let missed = watermarks.low - position.next;
        let stream = &self.log.stream().name;
        tracing::error!(%stream, partition, missed, "the brokers deleted records before they were read; continuing behind them");
        let from = position.next;
        let moved =
            move_to(&self.submitter, partition, Some(from), SourcePosition { next: watermarks.low, ..position })
                .await?;
        self.status.count_missed(missed as u64);
        Ok(moved)
    }

    /// The offset at which the declaration starts.
    async fn declared_start(&self, reader: &dyn TopicReader, partition: u32) -> Result<i64, SourceError> {
        let watermarks = reader.watermarks(partition).await?;
        Ok(match &self.topic.start {
            TopicStart::Earliest => watermarks.low,
            TopicStart::Latest => watermarks.high,
            TopicStart::Timestamp(time) => {
                let found = reader
                    .offset_at(partition, time.0.saturating_add(MICROS_PER_MILLI - 1).div_euclid(MICROS_PER_MILLI))
                    .await?;
                found.unwrap_or(watermarks.high)
            }
            TopicStart::Offsets(offsets) => {
                offsets.get(&partition).map_or(watermarks.low, |offset| (*offset).max(watermarks.low))
            }
        })
    }
}

/// Where the archive ends, if the log of the partition is new but the archive is not: its log was lost.
pub(super) async fn archived(lake: &Lake, stream: &StreamName, partition: u32) -> Result<Option<i64>, SourceError> {
    let failed = |error: lake::LakeError| SourceError::Lake(error.to_string());
    let Some(table) = lake.open_table(&TablePath::events(stream)).await.map_err(failed)? else {
        return Ok(None);
    };
    table.txn_version(&ArchiveTags::source_app_id(stream, Partition(partition))).await.map_err(failed)
}

/// Makes a position durable without events.
pub(super) async fn move_to(
    submitter: &RecordSubmitter,
    partition: u32,
    from: Option<i64>,
    to: SourcePosition,
) -> Result<SourcePosition, SourceError> {
    SourcePoint::Start.reach();
    let empty = submitter.empty();
    let step = SourceStep { from, to: to.clone() };
    let receipt = submitter.try_submit_records(Partition(partition), &empty, step)?;
    match receipt.await {
        Ok(Ok(_)) => Ok(to),
        Ok(Err(error)) => Err(error.into()),
        Err(_) => Err(crate::partition::SubmitError::Stopped.into()),
    }
}
