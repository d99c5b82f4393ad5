//! Keeps the generations of one view in one partition: at most one closed by the last cut, and the open one.
//!
//! A cut closes the open generation. If the run of the previous cut failed, its closed generation still exists; it is
//! merged into the one being closed, because no run can need that boundary any more (runs of a view do not overlap).
//!
//! Of a view with SLIDE, panes are released once no window over present events reaches them, so its state stays within a
//! small multiple of its window, however long no run succeeds. A query that reaches back to released panes is refused until
//! a version has them.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use shared::changed_rows::{ChangedRows, ChangedView};
use shared::failed_events::{FailedEvent, FailedEvents};
use shared::handoff::LogBatch;
use shared::ids::{Offset, Partition, ViewName};
use shared::ledger::Ledger;
use shared::lookup::table::Lookups;
use shared::partial::accumulate::Accumulator;
use shared::partial::block::{BLOCK_ROWS, Part};
use shared::partial::wanted::WantedRows;
use shared::readers::{Generation, ReleasedPanes, SpeedError};
use shared::stream::Stream;
use shared::view::{Precision, View};
use shared::vital;
use shared::window::PaneStart;

use crate::fold::{FoldError, FoldPlan, FoldVerdicts};
use crate::fold_input::{FoldInput, SharedKeys, join};

/// Rows below which nothing is released: so few take little memory.
const RELEASE_ROWS_MIN: usize = BLOCK_ROWS;

/// The generations of one view in one partition.
#[derive(Debug)]
pub struct Generations {
    pub definition: String,
    pub view: Arc<View>,
    plan: FoldPlan,
    closed: Option<ClosedGeneration>,
    open: OpenGeneration,
    /// The queues that receive the rows that change; `None`: the view has neither alerts nor sinks.
    changed: Option<(ChangedView, Vec<Arc<ChangedRows>>)>,
    /// Everything before it was dropped: a version covers it (I2).
    retired_to: Offset,
    /// The first pane that is still needed; `None`: all are.
    first_pane: Option<PaneStart>,
    release_rows_min: usize,
}

/// A generation that no event changes any more.
#[derive(Debug)]
struct ClosedGeneration {
    generation: Generation,
    /// Finds its rows by key, if the view is watched.
    rows: Option<Accumulator>,
}

#[derive(Debug)]
struct OpenGeneration {
    partition: Partition,
    from: Offset,
    to: Offset,
    accumulator: Accumulator,
    folded: Ledger,
    late: Ledger,
    failed: Ledger,
    failed_events: Arc<FailedEvents>,
    accepted: Ledger,
    released: Option<ReleasedPanes>,
    /// Number of rows at which panes may be released again.
    release_at: usize,
}

impl Generations {
    /// Creates empty generations; the next event has offset `from`, and `accepted` accounts for the events before it.
    pub fn new(
        view: Arc<View>,
        definition: String,
        stream: &Stream,
        partition: Partition,
        from: Offset,
        accepted: Ledger,
    ) -> Result<Generations, FoldError> {
        let plan = FoldPlan::new(Arc::clone(&view), stream)?;
        let accumulator = Accumulator::new(Arc::clone(&view), Arc::clone(&plan.layout), Precision::Sketch);
        let open = OpenGeneration::new(partition, from, accumulator, accepted);
        Ok(Generations {
            definition,
            view,
            plan,
            closed: None,
            open,
            changed: None,
            retired_to: Offset(0),
            first_pane: None,
            release_rows_min: RELEASE_ROWS_MIN,
        })
    }

    /// Joins events, if the view has joins, with the rows that `lookups` has when they are folded.
    pub fn joined(self, lookups: &Lookups) -> Result<Generations, FoldError> {
        let plan = self.plan.joined(lookups)?;
        Ok(Generations { plan, ..self })
    }

    /// Reports the rows that change to every queue of `changed`. Nothing may be folded yet.
    pub fn watched(mut self, changed: Vec<Arc<ChangedRows>>) -> Generations {
        let view = (self.view.name.clone(), Arc::from(self.definition.as_str()));
        self.changed = Some((view, changed));
        self.open.accumulator = self.accumulator();
        self
    }

    fn accumulator(&self) -> Accumulator {
        let layout = Arc::clone(&self.plan.layout);
        let accumulator = Accumulator::new(Arc::clone(&self.view), layout, Precision::Sketch);
        if self.changed.is_some() { accumulator.tracked() } else { accumulator }
    }

    /// Whether these are the generations of `view` under this definition.
    pub fn belongs_to(&self, view: &ViewName, definition: &str) -> bool {
        self.view.name == *view && self.definition == definition
    }

    /// Folds the next contiguous batches of the log. Batches that the view contains already are not folded again: a replay
    /// starts earlier for another view, or for sessions that were open at the seam. Events that cannot be folded are excluded
    /// from the view and noted; they never stop the worker, so a restart cannot meet them again.
    pub fn fold(&mut self, input: &mut FoldInput<'_>) {
        let (next, batches) = (self.open.to, input.batches);
        let folded = catch_unwind(AssertUnwindSafe(|| self.fold_from(next, input)));
        let reason = match folded {
            Ok(Ok(())) => return,
            Ok(Err(error)) => error.to_string(),
            Err(_) => "panicked".to_owned(),
        };
        self.exclude_open(batches, &reason);
    }

    fn fold_from(&mut self, next: Offset, input: &mut FoldInput<'_>) -> Result<(), FoldError> {
        vital::reach(self.view.name.as_str());
        let batches = input.batches;
        let skipped = batches.iter().take_while(|b| b.end_offset() <= next).count();
        for batch in &batches[..skipped] {
            if !self.plan.warm(&batch.rows)? {
                break;
            }
        }
        let batches = &batches[skipped..];
        let (Some(first), Some(last)) = (batches.first(), batches.last()) else { return Ok(()) };
        let mut own_keys = SharedKeys::default();
        let (rows, keys) = if skipped == 0 { input.whole()? } else { (join(batches)?, &mut own_keys) };
        let behind = (next.0.max(first.first_offset.0) - first.first_offset.0) as usize;
        let mut keys_of_rest = SharedKeys::default();
        let (rows, keys) = if behind == 0 {
            (rows, keys)
        } else {
            self.plan.warm(&rows.slice(0, behind))?;
            (rows.slice(behind, rows.num_rows() - behind), &mut keys_of_rest)
        };
        let offset = Offset(first.first_offset.0 + behind as u64);
        let verdicts = self.plan.fold(&rows, first.partition, offset, keys, &mut self.open.accumulator)?;
        self.report_changed();
        self.note(verdicts);
        self.open.to = last.end_offset();
        self.open.accepted = last.accepted;
        self.first_pane = self.plan.first_pane_held(last.watermark, last.arrived_at);
        if self.open.accumulator.rows() >= self.open.release_at.max(self.release_rows_min) {
            self.open.release(self.first_pane);
        }
        Ok(())
    }

    /// Queues the rows that the last fold has changed. Never waits.
    fn report_changed(&mut self) {
        let Some((view, changed)) = &self.changed else { return };
        let Some((last, others)) = changed.split_last() else { return };
        let accumulator = &mut self.open.accumulator;
        others.iter().for_each(|queue| queue.add(view, |each| accumulator.for_each_changed(each)));
        last.add(view, |each| accumulator.take_changed(each));
    }

    fn note(&mut self, verdicts: FoldVerdicts) {
        let FoldVerdicts { folded, late, failed, failed_events } = verdicts;
        self.open.folded += folded;
        self.open.late += late;
        self.open.failed += failed;
        if failed_events.is_empty() {
            return;
        }
        let (view, partition) = (&self.view.name, self.open.partition);
        metrics::counter!("trueup_failed_events_total", "view" => view.to_string()).increment(failed.events);
        if let Some(example) = failed_events.listed().next() {
            let (offset, reason) = (example.offset.0, &example.reason);
            tracing::warn!(%view, %partition, events = failed.events, offset, reason, "events excluded from the view: an expression failed");
        }
        Arc::make_mut(&mut self.open.failed_events).extend(&failed_events);
    }

    /// Drops what the open generation has, since a failed fold may have left it half-changed, and notes all its events as
    /// failed. The next version has those that batch can compute.
    fn exclude_open(&mut self, batches: &[Arc<LogBatch>], reason: &str) {
        let empty = self.accumulator();
        let (view, open) = (&self.view.name, &mut self.open);
        tracing::error!(%view, partition = %open.partition, reason, "fold failed; its events are excluded until the next version");
        open.accumulator = empty;
        if let Some(last) = batches.last().filter(|last| last.end_offset() > open.to) {
            (open.to, open.accepted) = (last.end_offset(), last.accepted);
        }
        (open.folded, open.late) = (Ledger::EMPTY, Ledger::EMPTY);
        (open.released, open.release_at) = (None, 0);
        let before = open.failed.events;
        open.failed = Ledger::of_range(open.partition, open.from, open.to);
        let more = open.failed.events - before;
        let reason = format!("the fold of this event or of one up to offset {} failed: {reason}", open.to);
        let first = FailedEvent { partition: open.partition, offset: open.from, event_time: None, reason };
        Arc::make_mut(&mut open.failed_events).add_unknown(first, more);
        metrics::counter!("trueup_failed_events_total", "view" => view.to_string()).increment(more);
    }

    /// Closes the open generation at the present position of the log and opens the next.
    pub fn cut(&mut self) {
        let next = OpenGeneration::new(self.open.partition, self.open.to, self.accumulator(), self.open.accepted);
        let mut closing = std::mem::replace(&mut self.open, next);
        if let Some(ClosedGeneration { generation: previous, .. }) = self.closed.take() {
            closing.accumulator.absorb(&previous.part);
            closing.from = previous.from;
            closing.folded += previous.folded;
            closing.late += previous.late;
            closing.failed += previous.failed;
            if !previous.failed_events.is_empty() {
                Arc::make_mut(&mut closing.failed_events).extend(&previous.failed_events);
            }
            closing.note_released(previous.released);
            if closing.accumulator.rows() >= self.release_rows_min {
                closing.release(self.first_pane);
            }
        }
        let generation = closing.generation();
        let rows = closing.accumulator.finds_rows().then_some(closing.accumulator);
        self.closed = Some(ClosedGeneration { generation, rows });
    }

    /// Returns the generations with events from `from` on (I6). Of a watched view with the `wanted` rows alone, if any are named.
    pub fn pin(&self, from: Offset, wanted: Option<&WantedRows>) -> Result<Vec<Generation>, SpeedError> {
        // I2: a reader whose seam is older than the retired generations must pin again.
        if from < self.retired_to {
            return Err(SpeedError::SeamMoved);
        }
        let found = |rows: Option<&Accumulator>| wanted.zip(rows).and_then(|(wanted, rows)| rows.wanted(wanted));
        let open = self.open.generation_with(found(Some(&self.open.accumulator)));
        let closed = self.closed.iter().filter(|closed| closed.generation.to > from).map(|closed| {
            let generation = closed.generation.clone();
            match found(closed.rows.as_ref()) {
                Some(part) => Generation { part, ..generation },
                None => generation,
            }
        });
        Ok(closed.chain(std::iter::once(open)).collect())
    }

    /// Drops the closed generation if it ends at or before `before`, and with it what was released of it.
    pub fn retire(&mut self, before: Offset) {
        self.closed = self.closed.take().filter(|closed| closed.generation.to > before);
        self.retired_to = self.retired_to.max(before);
    }

    /// Number of (window, key) rows held.
    pub fn rows(&self) -> usize {
        self.open.accumulator.rows() + self.closed.as_ref().map_or(0, |closed| closed.generation.part.rows())
    }

    /// Memory held, in bytes.
    pub fn bytes(&self) -> usize {
        let of_closed = |closed: &ClosedGeneration| match &closed.rows {
            // It shares its blocks with the part.
            Some(rows) => rows.bytes(),
            None => closed.generation.part.bytes(),
        };
        self.open.accumulator.bytes() + self.closed.as_ref().map_or(0, of_closed)
    }

    /// Number of generations held.
    pub fn count(&self) -> usize {
        1 + usize::from(self.closed.is_some())
    }
}

impl OpenGeneration {
    /// Returns an empty generation of the events from `from` on.
    fn new(partition: Partition, from: Offset, accumulator: Accumulator, accepted: Ledger) -> OpenGeneration {
        OpenGeneration {
            partition,
            from,
            to: from,
            accumulator,
            folded: Ledger::EMPTY,
            late: Ledger::EMPTY,
            failed: Ledger::EMPTY,
            failed_events: Arc::default(),
            accepted,
            released: None,
            release_at: 0,
        }
    }

    /// Releases the panes before `first`, if they are many.
    fn release(&mut self, first: Option<PaneStart>) {
        let Some(first) = first else { return };
        let span = self.accumulator.release_before(first.window());
        self.note_released(span.map(|(first, last)| ReleasedPanes { first: first.pane(), last: last.pane() }));
        // Looking at every row again pays once there are a quarter more of them.
        self.release_at = self.accumulator.rows() / 4 * 5;
    }

    fn note_released(&mut self, more: Option<ReleasedPanes>) {
        self.released = match (self.released, more) {
            (Some(some), Some(more)) => Some(some.with(more)),
            (some, more) => some.or(more),
        };
    }

    fn generation(&self) -> Generation {
        self.generation_with(None)
    }

    /// Returns the generation with `part` in place of all rows.
    fn generation_with(&self, part: Option<Part>) -> Generation {
        Generation {
            partition: self.partition,
            from: self.from,
            to: self.to,
            part: part.unwrap_or_else(|| self.accumulator.part()),
            folded: self.folded,
            late: self.late,
            failed: self.failed,
            failed_events: Arc::clone(&self.failed_events),
            accepted: self.accepted,
            released: self.released,
        }
    }
}

#[cfg(test)]
mod release_tests;

#[cfg(test)]
mod tests {
    use arrow::array::{ArrayRef, RecordBatch, StringViewArray, TimestampMicrosecondArray};
    use arrow::datatypes::{Field, Schema};
    use shared::sql::parse_definitions;
    use shared::time::Micros;

    use super::*;

    const SQL: &str = "
        CREATE STREAM s (at TIMESTAMP, a STRING, b STRING) WITH (event_time = 'at', allowed_lateness = '1 hour');
        CREATE VIEW v AS SELECT window_start, REPLACE(a, 'A', b) AS k, COUNT(*) AS n FROM s
            GROUP BY TUMBLE(at, INTERVAL '1' DAY), REPLACE(a, 'A', b);";

    fn generations() -> Generations {
        let parsed = parse_definitions(&[("s.sql".to_owned(), SQL.to_owned())]);
        let parsed = parsed.unwrap_or_else(|errors| panic!("{}", errors[0]));
        let view = Arc::new(parsed.views[0].clone());
        let (stream, partition) = (&parsed.streams[0], Partition(0));
        Generations::new(view, "d".to_owned(), stream, partition, Offset(0), Ledger::EMPTY).expect("generations")
    }

    /// A batch of events from offset `first` on. Without the watermark it cannot be folded.
    fn batch(first: u64, texts: &[&str], has_watermark: bool) -> Arc<LogBatch> {
        let times = || Arc::new(TimestampMicrosecondArray::from(vec![7; texts.len()]).with_timezone("UTC")) as ArrayRef;
        let long = "B".repeat(2_000);
        let a: ArrayRef = Arc::new(StringViewArray::from_iter_values(texts));
        let b: ArrayRef = Arc::new(StringViewArray::from_iter_values(texts.iter().map(|_| &long)));
        let mut columns = vec![("at", times()), ("a", a), ("b", b)];
        columns.extend(has_watermark.then(|| ("_watermark", times())));
        let field = |(name, column): &(&str, ArrayRef)| Field::new(*name, column.data_type().clone(), true);
        let schema = Schema::new(columns.iter().map(field).collect::<Vec<_>>());
        let columns = columns.into_iter().map(|(_, column)| column).collect();
        Arc::new(LogBatch {
            partition: Partition(0),
            first_offset: Offset(first),
            arrived_at: Micros(0),
            rows: RecordBatch::try_new(Arc::new(schema), columns).expect("columns of one length"),
            accepted: Ledger::of_range(Partition(0), Offset(0), Offset(first + texts.len() as u64)),
            watermark: Micros(0),
        })
    }

    fn fold(generations: &mut Generations, batches: &[Arc<LogBatch>]) {
        generations.fold(&mut FoldInput::new(batches));
    }

    fn open(generations: &Generations) -> Generation {
        generations.pin(Offset(0), None).expect("a pin").pop().expect("the open generation")
    }

    #[test]
    fn a_failed_event_is_excluded_and_accounted_for() {
        let poison = "A".repeat(1_000);
        let mut generations = generations();
        fold(&mut generations, &[batch(0, &["x", &poison, "y"], true), batch(3, &["x"], true)]);
        let seen = open(&generations);
        assert_eq!((seen.to, seen.part.rows()), (Offset(4), 2));
        assert_eq!(seen.failed, Ledger::of(Partition(0), Offset(1)));
        assert_eq!(seen.folded + seen.failed, seen.accepted);
        let listed: Vec<_> = seen.failed_events.listed().map(|event| (event.offset, event.event_time)).collect();
        assert_eq!(listed, [(Offset(1), Some(Micros(7)))]);
        generations.cut();
        fold(&mut generations, &[batch(4, &["z"], true)]);
        generations.cut();
        let closed = generations.pin(Offset(0), None).expect("a pin").remove(0);
        assert_eq!((closed.failed.events, closed.failed_events.events()), (1, 1), "kept over cuts");
    }

    #[test]
    fn a_batch_that_cannot_be_folded_excludes_its_generation_and_no_more() {
        let mut generations = generations();
        fold(&mut generations, &[batch(0, &["x", "y"], true)]);
        fold(&mut generations, &[batch(2, &["x"], false)]);
        let seen = open(&generations);
        assert_eq!((seen.to, seen.part.rows(), seen.folded), (Offset(3), 0, Ledger::EMPTY));
        assert_eq!((seen.failed, seen.failed_events.events()), (seen.accepted, 3));
        fold(&mut generations, &[batch(3, &["x"], true)]);
        let seen = open(&generations);
        assert_eq!((seen.part.rows(), seen.folded + seen.failed), (1, seen.accepted), "later events are folded");
        generations.cut();
        fold(&mut generations, &[batch(4, &["x"], true)]);
        let seen = open(&generations);
        assert_eq!((seen.failed, seen.part.rows()), (Ledger::EMPTY, 1), "the next generation is whole");
    }
}
