//! Gathers events of one entity, in any order, and keeps the first ones by sequence: memory is bounded by the limit.

use std::sync::Arc;

use arrow::array::{AsArray, RecordBatch, UInt32Array};
use arrow::compute::{concat_batches, take_record_batch};
use arrow::datatypes::{Int64Type, SchemaRef};
use arrow::error::ArrowError;
use shared::entity_reader::EntityEvents;
use shared::stream::Stream;

/// Events beyond the limit that are held before they are dropped.
const SLACK_ROWS: usize = 4_096;

/// The first events found so far.
pub(super) struct Collected {
    schema: SchemaRef,
    sequence: usize,
    limit: usize,
    batches: Vec<RecordBatch>,
    rows: usize,
    has_more: bool,
}

impl Collected {
    /// Keeps at most `limit` events of `stream`, which has an entity.
    pub fn new(stream: &Stream, limit: usize) -> Collected {
        let sequence = stream.sequence().unwrap_or_default();
        let schema = stream.archive_schema();
        Collected { schema, sequence, limit, batches: Vec::new(), rows: 0, has_more: false }
    }

    /// The smallest sequence so far.
    pub fn first_sequence(&self) -> Option<u64> {
        let firsts = self
            .batches
            .iter()
            .filter_map(|batch| arrow::compute::min(batch.column(self.sequence).as_primitive::<Int64Type>()));
        firsts.min().and_then(|first| u64::try_from(first).ok())
    }

    /// Adds events with the columns of the archive.
    pub fn add(&mut self, rows: RecordBatch) -> Result<(), ArrowError> {
        if rows.num_rows() == 0 {
            return Ok(());
        }
        self.rows += rows.num_rows();
        self.batches.push(rows);
        if self.rows > self.limit + SLACK_ROWS { self.cut() } else { Ok(()) }
    }

    /// Adds all events of another collection of the same entity.
    pub fn absorb(&mut self, other: Collected) -> Result<(), ArrowError> {
        self.has_more |= other.has_more;
        other.batches.into_iter().try_for_each(|batch| self.add(batch))
    }

    /// The first events, in order.
    pub fn finish(mut self) -> Result<EntityEvents, ArrowError> {
        self.cut()?;
        let rows = self.batches.pop().unwrap_or_else(|| RecordBatch::new_empty(Arc::clone(&self.schema)));
        Ok(EntityEvents { rows, has_more: self.has_more })
    }

    /// Sorts the events, and drops those beyond the limit.
    fn cut(&mut self) -> Result<(), ArrowError> {
        if self.batches.is_empty() {
            return Ok(());
        }
        let all = concat_batches(&self.schema, &self.batches)?;
        let sequences = all.column(self.sequence).as_primitive::<Int64Type>();
        let mut order: Vec<u32> = (0..sequences.len() as u32).collect();
        order.sort_unstable_by_key(|row| sequences.value(*row as usize));
        self.has_more |= order.len() > self.limit;
        order.truncate(self.limit);
        let kept = take_record_batch(&all, &UInt32Array::from(order))?;
        self.rows = kept.num_rows();
        self.batches = vec![kept];
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::{Int64Array, new_null_array};

    use super::*;

    #[test]
    fn the_first_events_are_kept_in_order_however_they_arrive() {
        let sql = "CREATE STREAM s (id STRING, at TIMESTAMP) WITH (event_time = 'at', entity = 'id');";
        let stream = crate::testing::stream(sql);
        let schema = Arc::new(arrow::datatypes::Schema::new(
            stream.archive_schema().fields().iter().map(|f| f.as_ref().clone().with_nullable(true)).collect::<Vec<_>>(),
        ));
        let batch = |sequences: Vec<i64>| {
            let column = |(i, field): (usize, &Arc<arrow::datatypes::Field>)| match i {
                2 => Arc::new(Int64Array::from(sequences.clone())) as arrow::array::ArrayRef,
                _ => new_null_array(field.data_type(), sequences.len()),
            };
            let columns = schema.fields().iter().enumerate().map(column).collect();
            RecordBatch::try_new(Arc::clone(&schema), columns).expect("columns")
        };
        let mut collected = Collected { schema: Arc::clone(&schema), ..Collected::new(&stream, 5) };
        // Both ends of the same sequences, and more than are held at once.
        for chunk in 0..10i64 {
            collected.add(batch((chunk * 1_000 + 1..=chunk * 1_000 + 1_000).rev().collect())).expect("adds");
        }
        assert!(collected.rows <= 5 + SLACK_ROWS + 1_000);
        assert_eq!(collected.first_sequence(), Some(1));
        let events = collected.finish().expect("events");
        let sequences = events.rows.column(2).as_primitive::<Int64Type>().values().to_vec();
        assert_eq!((sequences, events.has_more), (vec![1, 2, 3, 4, 5], true));
        let mut few = Collected { schema: Arc::clone(&schema), ..Collected::new(&stream, 5) };
        few.add(batch(vec![2, 1])).expect("adds");
        let events = few.finish().expect("events");
        assert_eq!((events.rows.num_rows(), events.has_more), (2, false));
    }
}
