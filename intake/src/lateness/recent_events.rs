//! Which events of a kind came last? The newest so many, as columns of their own, bounded in number and in bytes.

use std::collections::VecDeque;
use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, RecordBatch, UInt32Array};
use arrow::compute::{concat_batches, take_record_batch};
use arrow::error::ArrowError;
use parking_lot::Mutex;
use shared::handoff::LogBatch;
use shared::ids::{Offset, Partition};
use shared::time::Micros;

/// Where an event lies in the order of arrival.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place {
    pub arrived_at: Micros,
    pub partition: Partition,
    pub offset: Offset,
}

impl Place {
    /// Reads what [`Place::text`] wrote.
    pub fn parse(text: &str) -> Option<Place> {
        let mut numbers = text.splitn(3, '.');
        let arrived_at = Micros(numbers.next()?.parse().ok()?);
        let partition = Partition(numbers.next()?.parse().ok()?);
        let offset = Offset(numbers.next()?.parse().ok()?);
        Some(Place { arrived_at, partition, offset })
    }

    /// The place as a cursor.
    pub fn text(self) -> String {
        format!("{}.{}.{}", self.arrived_at.0, self.partition, self.offset)
    }
}

/// Events that arrived together.
#[derive(Debug, Clone)]
struct Together {
    arrived_at: Micros,
    partition: Partition,
    offsets: Arc<[u64]>,
    /// Columns of the log, sharing nothing with the batch they came from.
    rows: RecordBatch,
    /// Rows before it have been dropped.
    from: usize,
    bytes: usize,
}

impl Together {
    fn place(&self, row: usize) -> Place {
        Place { arrived_at: self.arrived_at, partition: self.partition, offset: Offset(self.offsets[row]) }
    }

    fn len(&self) -> usize {
        self.offsets.len() - self.from
    }
}

/// Some of the events, newest first.
#[derive(Debug)]
pub(super) struct Page {
    /// Columns of the log.
    pub rows: RecordBatch,
    /// Of each row.
    pub places: Vec<Place>,
    /// Are there older ones?
    pub more: bool,
}

/// The newest events of one kind.
pub(super) struct Listed {
    events_max: usize,
    bytes_max: usize,
    kept: Mutex<Kept>,
}

/// In order of arrival.
#[derive(Default)]
struct Kept {
    groups: VecDeque<Together>,
    events: usize,
    bytes: usize,
}

impl Listed {
    /// A list of at most `events_max` events in about `bytes_max` bytes; one event is always kept.
    pub fn new(events_max: usize, bytes_max: usize) -> Listed {
        Listed { events_max, bytes_max, kept: Mutex::default() }
    }

    /// Adds the given rows of `batch`, which are in order.
    pub fn add(&self, batch: &LogBatch, rows: &[u32]) -> Result<(), ArrowError> {
        let mut newest = &rows[rows.len().saturating_sub(self.events_max)..];
        if newest.is_empty() {
            return Ok(());
        }
        let mut own = copied(&batch.rows, newest)?;
        while own.get_array_memory_size() > self.bytes_max && newest.len() > 1 {
            newest = &newest[newest.len() / 2..];
            own = copied(&batch.rows, newest)?;
        }
        let offsets = newest.iter().map(|row| batch.first_offset.0 + u64::from(*row)).collect();
        let bytes = own.get_array_memory_size();
        let (arrived_at, partition) = (batch.arrived_at, batch.partition);
        self.keep(Together { arrived_at, partition, offsets, rows: own, from: 0, bytes });
        Ok(())
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.kept.lock().events
    }

    /// At most `limit` events that arrived before `before`; `None` if there are none.
    pub fn page(&self, before: Option<Place>, limit: usize) -> Result<Option<Page>, ArrowError> {
        let is_older = |place: Place| before.is_none_or(|before| place < before);
        let groups = self.kept.lock().newest(is_older, limit);
        let (mut parts, mut places, mut more) = (Vec::new(), Vec::new(), false);
        for group in &groups {
            let rows = (group.from..group.offsets.len()).rev().filter(|row| is_older(group.place(*row)));
            let mut taken = Vec::new();
            for row in rows {
                if places.len() == limit {
                    more = true;
                    break;
                }
                places.push(group.place(row));
                taken.push(row as u32);
            }
            if !taken.is_empty() {
                parts.push(take_record_batch(&group.rows, &UInt32Array::from(taken))?);
            }
            if more {
                break;
            }
        }
        let Some(first) = parts.first() else { return Ok(None) };
        Ok(Some(Page { rows: concat_batches(first.schema_ref(), &parts)?, places, more }))
    }

    fn keep(&self, group: Together) {
        let mut kept = self.kept.lock();
        kept.events += group.len();
        kept.bytes += group.bytes;
        // Nearly always the last; partitions do not wait for each other.
        let at = kept.groups.iter().rposition(|other| other.place(0) < group.place(0)).map_or(0, |before| before + 1);
        kept.groups.insert(at, group);
        while kept.groups.len() > 1 && kept.bytes > self.bytes_max {
            kept.drop_oldest();
        }
        while kept.events > self.events_max {
            let excess = kept.events - self.events_max;
            match kept.groups.front_mut() {
                Some(oldest) if oldest.len() > excess => {
                    oldest.from += excess;
                    kept.events -= excess;
                }
                _ => kept.drop_oldest(),
            }
        }
    }
}

impl Kept {
    /// The groups that hold the newest of the events that are old enough, newest first: `limit` and one more, if there are.
    fn newest(&self, is_old_enough: impl Fn(Place) -> bool, limit: usize) -> Vec<Together> {
        let mut events = 0;
        let old_enough = self.groups.iter().rev().filter(|group| is_old_enough(group.place(group.from)));
        let enough = old_enough.take_while(|group| {
            let wanted = events <= limit;
            // All of a group but perhaps the first's are old enough; the first is cut by the cursor.
            events += (group.from..group.offsets.len()).filter(|row| is_old_enough(group.place(*row))).count();
            wanted
        });
        enough.cloned().collect()
    }

    fn drop_oldest(&mut self) {
        if let Some(oldest) = self.groups.pop_front() {
            self.events -= oldest.len();
            self.bytes -= oldest.bytes;
        }
    }
}

/// The rows alone: nothing of the batch stays in memory for them.
fn copied(batch: &RecordBatch, rows: &[u32]) -> Result<RecordBatch, ArrowError> {
    let taken = take_record_batch(batch, &UInt32Array::from(rows.to_vec()))?;
    let own = |column: &ArrayRef| match column.as_string_view_opt() {
        Some(texts) => Arc::new(texts.gc()) as ArrayRef,
        None => Arc::clone(column),
    };
    RecordBatch::try_new(taken.schema(), taken.columns().iter().map(own).collect())
}
