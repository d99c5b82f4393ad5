//! Keeps the newest events of a kind as copies of their columns, bounded in number and in bytes.

use std::collections::VecDeque;
use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, BooleanArray, RecordBatch, UInt32Array};
use arrow::compute::{concat_batches, take_record_batch};
use arrow::error::ArrowError;
use parking_lot::Mutex;
use shared::handoff::LogBatch;
use shared::ids::{Offset, Partition};
use shared::time::Micros;

/// Position of an event in the order of arrival.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct ArrivalPosition {
    pub arrived_at: Micros,
    pub partition: Partition,
    pub offset: Offset,
}

impl ArrivalPosition {
    /// Parses the text of [`ArrivalPosition::text`].
    pub fn parse(text: &str) -> Option<ArrivalPosition> {
        let mut numbers = text.splitn(3, '.');
        let arrived_at = Micros(numbers.next()?.parse().ok()?);
        let partition = Partition(numbers.next()?.parse().ok()?);
        let offset = Offset(numbers.next()?.parse().ok()?);
        Some(ArrivalPosition { arrived_at, partition, offset })
    }

    /// The position as a cursor.
    pub fn text(self) -> String {
        format!("{}.{}.{}", self.arrived_at.0, self.partition, self.offset)
    }
}

/// Events of one batch of the log.
#[derive(Debug, Clone)]
struct EventGroup {
    arrived_at: Micros,
    partition: Partition,
    offsets: Arc<[u64]>,
    /// Columns of the log, without shared memory with the original batch.
    rows: RecordBatch,
    /// Rows before it were dropped.
    from: usize,
    bytes: usize,
}

impl EventGroup {
    fn position(&self, row: usize) -> ArrivalPosition {
        ArrivalPosition { arrived_at: self.arrived_at, partition: self.partition, offset: Offset(self.offsets[row]) }
    }

    fn len(&self) -> usize {
        self.offsets.len() - self.from
    }
}

/// A page of events, newest first.
#[derive(Debug)]
pub(super) struct RecentPage {
    /// Columns of the log.
    pub rows: RecordBatch,
    /// The position of each row.
    pub positions: Vec<ArrivalPosition>,
    /// Whether there are older events.
    pub more: bool,
}

/// The newest events of one kind.
pub(super) struct RecentEvents {
    events_max: usize,
    bytes_max: usize,
    kept: Mutex<EventGroups>,
}

/// In order of arrival.
#[derive(Default)]
struct EventGroups {
    groups: VecDeque<EventGroup>,
    events: usize,
    bytes: usize,
}

impl RecentEvents {
    /// Creates a list of at most `events_max` events in about `bytes_max` bytes; one event is always kept.
    pub fn new(events_max: usize, bytes_max: usize) -> RecentEvents {
        RecentEvents { events_max, bytes_max, kept: Mutex::default() }
    }

    /// Adds the given rows of `batch`, in ascending order.
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
        self.keep(EventGroup { arrived_at, partition, offsets, rows: own, from: 0, bytes });
        Ok(())
    }

    /// Forgets the events for which `is_erased` holds of their rows, with the columns of the log.
    pub fn forget(&self, is_erased: impl Fn(&RecordBatch) -> Option<BooleanArray>) -> Result<(), ArrowError> {
        let mut kept = self.kept.lock();
        for group in std::mem::take(&mut kept.groups) {
            let Some(erased) = is_erased(&group.rows) else {
                kept.groups.push_back(group);
                continue;
            };
            let rows: Vec<u32> =
                (group.from..group.offsets.len()).filter(|row| !erased.value(*row)).map(|row| row as u32).collect();
            if !rows.is_empty() {
                let offsets = rows.iter().map(|row| group.offsets[*row as usize]).collect();
                let own = copied(&group.rows, &rows)?;
                let bytes = own.get_array_memory_size();
                kept.groups.push_back(EventGroup { offsets, rows: own, from: 0, bytes, ..group });
            }
        }
        kept.events = kept.groups.iter().map(EventGroup::len).sum();
        kept.bytes = kept.groups.iter().map(|group| group.bytes).sum();
        Ok(())
    }

    /// Number of events.
    pub fn len(&self) -> usize {
        self.kept.lock().events
    }

    /// Returns at most `limit` events that arrived before `before`; `None` without such events.
    pub fn page(&self, before: Option<ArrivalPosition>, limit: usize) -> Result<Option<RecentPage>, ArrowError> {
        let is_older = |position: ArrivalPosition| before.is_none_or(|before| position < before);
        let groups = self.kept.lock().newest(is_older, limit);
        let (mut parts, mut positions, mut more) = (Vec::new(), Vec::new(), false);
        for group in &groups {
            let rows = (group.from..group.offsets.len()).rev().filter(|row| is_older(group.position(*row)));
            let mut selected = Vec::new();
            for row in rows {
                if positions.len() == limit {
                    more = true;
                    break;
                }
                positions.push(group.position(row));
                selected.push(row as u32);
            }
            if !selected.is_empty() {
                parts.push(take_record_batch(&group.rows, &UInt32Array::from(selected))?);
            }
            if more {
                break;
            }
        }
        let Some(first) = parts.first() else { return Ok(None) };
        Ok(Some(RecentPage { rows: concat_batches(first.schema_ref(), &parts)?, positions, more }))
    }

    fn keep(&self, group: EventGroup) {
        let mut kept = self.kept.lock();
        kept.events += group.len();
        kept.bytes += group.bytes;
        // Nearly always at the end; partitions do not wait for each other.
        let at =
            kept.groups.iter().rposition(|other| other.position(0) < group.position(0)).map_or(0, |before| before + 1);
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

impl EventGroups {
    /// The groups of the newest events that are old enough, newest first: up to `limit` events and one more.
    fn newest(&self, is_old_enough: impl Fn(ArrivalPosition) -> bool, limit: usize) -> Vec<EventGroup> {
        let mut events = 0;
        let old_enough = self.groups.iter().rev().filter(|group| is_old_enough(group.position(group.from)));
        let needed = old_enough.take_while(|group| {
            let wanted = events <= limit;
            // All events of a group are old enough, except perhaps in the first: the cursor divides it.
            events += (group.from..group.offsets.len()).filter(|row| is_old_enough(group.position(*row))).count();
            wanted
        });
        needed.cloned().collect()
    }

    fn drop_oldest(&mut self) {
        if let Some(oldest) = self.groups.pop_front() {
            self.events -= oldest.len();
            self.bytes -= oldest.bytes;
        }
    }
}

/// Copies the rows, so that they keep no memory of the batch.
fn copied(batch: &RecordBatch, rows: &[u32]) -> Result<RecordBatch, ArrowError> {
    let taken = take_record_batch(batch, &UInt32Array::from(rows.to_vec()))?;
    let own = |column: &ArrayRef| match column.as_string_view_opt() {
        Some(texts) => Arc::new(texts.gc()) as ArrayRef,
        None => Arc::clone(column),
    };
    RecordBatch::try_new(taken.schema(), taken.columns().iter().map(own).collect())
}
