//! Keeps the generations of one view in one partition: at most one closed by the last cut, and the open one.
//!
//! A cut closes the open generation. If the run of the previous cut failed, its closed generation still exists; it is
//! merged into the one being closed, because no run can need that boundary any more (runs of a view do not overlap).

use std::sync::Arc;

use arrow::compute::concat_batches;
use shared::handoff::LogBatch;
use shared::ids::{Offset, Partition, ViewName};
use shared::ledger::Ledger;
use shared::partial::accumulate::Accumulator;
use shared::readers::{Generation, SpeedError};
use shared::stream::Stream;
use shared::view::{Precision, View};

use crate::fold::{FoldError, FoldPlan};

/// The generations of one view in one partition.
#[derive(Debug)]
pub struct Generations {
    pub definition: String,
    pub view: Arc<View>,
    plan: FoldPlan,
    closed: Option<Generation>,
    open: OpenGeneration,
    /// Everything before it was dropped: a version covers it (I2).
    retired_to: Offset,
}

#[derive(Debug)]
struct OpenGeneration {
    partition: Partition,
    from: Offset,
    to: Offset,
    accumulator: Accumulator,
    folded: Ledger,
    late: Ledger,
    accepted: Ledger,
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
        let open = OpenGeneration {
            partition,
            from,
            to: from,
            accumulator,
            folded: Ledger::EMPTY,
            late: Ledger::EMPTY,
            accepted,
        };
        Ok(Generations { definition, view, plan, closed: None, open, retired_to: Offset(0) })
    }

    /// Whether these are the generations of `view` under this definition.
    pub fn belongs_to(&self, view: &ViewName, definition: &str) -> bool {
        self.view.name == *view && self.definition == definition
    }

    /// Folds the next contiguous batches of the log. Batches that the view contains already are not folded again: a replay
    /// starts earlier for another view, or for sessions that were open at the seam.
    pub fn fold(&mut self, batches: &[Arc<LogBatch>]) -> Result<(), FoldError> {
        let next = self.open.to;
        let skipped = batches.iter().take_while(|b| b.end_offset() <= next).count();
        for batch in &batches[..skipped] {
            if !self.plan.warm(&batch.rows)? {
                break;
            }
        }
        let batches = &batches[skipped..];
        let (Some(first), Some(last)) = (batches.first(), batches.last()) else { return Ok(()) };
        let rows = match batches {
            [one] => one.rows.clone(),
            many => concat_batches(&many[0].rows.schema(), many.iter().map(|b| &b.rows))?,
        };
        let behind = (next.0.max(first.first_offset.0) - first.first_offset.0) as usize;
        if behind > 0 {
            self.plan.warm(&rows.slice(0, behind))?;
        }
        let rows = if behind == 0 { rows } else { rows.slice(behind, rows.num_rows() - behind) };
        let offset = Offset(first.first_offset.0 + behind as u64);
        let verdicts = self.plan.fold(&rows, first.partition, offset, &mut self.open.accumulator)?;
        self.open.folded += verdicts.folded;
        self.open.late += verdicts.late;
        self.open.to = last.end_offset();
        self.open.accepted = last.accepted;
        Ok(())
    }

    /// Closes the open generation at the present position of the log and opens the next.
    pub fn cut(&mut self) {
        let layout = Arc::clone(&self.plan.layout);
        let next = OpenGeneration {
            partition: self.open.partition,
            from: self.open.to,
            to: self.open.to,
            accumulator: Accumulator::new(Arc::clone(&self.view), layout, Precision::Sketch),
            folded: Ledger::EMPTY,
            late: Ledger::EMPTY,
            accepted: self.open.accepted,
        };
        let mut closing = std::mem::replace(&mut self.open, next);
        if let Some(previous) = self.closed.take() {
            closing.accumulator.absorb(&previous.part);
            closing.from = previous.from;
            closing.folded += previous.folded;
            closing.late += previous.late;
        }
        self.closed = Some(closing.generation());
    }

    /// Returns the generations with events from `from` on (I6).
    pub fn pin(&self, from: Offset) -> Result<Vec<Generation>, SpeedError> {
        // I2: a reader whose seam is older than the retired generations must pin again.
        if from < self.retired_to {
            return Err(SpeedError::SeamMoved);
        }
        let open = self.open.generation();
        let closed = self.closed.iter().filter(|g| g.to > from);
        Ok(closed.cloned().chain(std::iter::once(open)).collect())
    }

    /// Drops the closed generation if it ends at or before `before`.
    pub fn retire(&mut self, before: Offset) {
        self.closed = self.closed.take().filter(|g| g.to > before);
        self.retired_to = self.retired_to.max(before);
    }

    /// Number of (window, key) rows held.
    pub fn rows(&self) -> usize {
        self.open.accumulator.rows() + self.closed.as_ref().map_or(0, |g| g.part.rows())
    }

    /// Memory held, in bytes.
    pub fn bytes(&self) -> usize {
        self.open.accumulator.bytes() + self.closed.as_ref().map_or(0, |g| g.part.bytes())
    }

    /// Number of generations held.
    pub fn count(&self) -> usize {
        1 + usize::from(self.closed.is_some())
    }
}

impl OpenGeneration {
    fn generation(&self) -> Generation {
        Generation {
            partition: self.partition,
            from: self.from,
            to: self.to,
            part: self.accumulator.part(),
            folded: self.folded,
            late: self.late,
            accepted: self.accepted,
        }
    }
}
