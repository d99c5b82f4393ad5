//! Folds a batch of the log into the rows of one view: evaluates its expressions, assigns panes, excludes late events and
//! accumulates.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, RecordBatch};
use arrow::datatypes::TimestampMicrosecondType;
use arrow::error::ArrowError;
use arrow::row::Rows;
use shared::evaluate::{EvaluateError, evaluate};
use shared::ids::{Offset, Partition};
use shared::ledger::Ledger;
use shared::partial::accumulate::{Accumulator, EvaluatedBatch, selected_rows};
use shared::partial::keys::KeyLayout;
use shared::partial::sessions::LiveSessions;
use shared::partial::states::{EventPositions, Offsets};
use shared::scalar::Scalar;
use shared::stream::Stream;
use shared::time::{Micros, micros_of};
use shared::view::View;
use shared::window::{PaneStart, Window};

/// Why a batch could not be folded. Batches always match the schema of their stream, so this is a bug, not bad input.
#[derive(Debug, thiserror::Error)]
pub enum FoldError {
    #[error(transparent)]
    Arrow(#[from] ArrowError),
    #[error(transparent)]
    Evaluate(#[from] EvaluateError),
}

/// The events of a fold, by verdict.
#[derive(Debug, Clone, Copy, Default)]
pub struct FoldVerdicts {
    pub folded: Ledger,
    /// Events excluded because they came after allowed lateness.
    pub late: Ledger,
}

/// What a view needs of a batch, computed once.
#[derive(Debug)]
pub struct FoldPlan {
    pub view: Arc<View>,
    pub layout: Arc<KeyLayout>,
    event_time: usize,
    watermark: usize,
    allowed_lateness: i64,
    /// The sessions that are still open; `None` if the windows of the view follow from the clock.
    live: Option<LiveSessions>,
    /// Every expression of the view, each once.
    scalars: Vec<Scalar>,
    filter: Option<usize>,
    dimensions: Vec<usize>,
    arguments: Vec<Option<usize>>,
    masks: Vec<Option<usize>>,
    panes: Vec<PaneStart>,
}

impl FoldPlan {
    /// Plans how to fold the batches of `stream` for `view`.
    pub fn new(view: Arc<View>, stream: &Stream) -> Result<FoldPlan, FoldError> {
        let mut scalars: Vec<Scalar> = Vec::new();
        let mut number = |scalar: &Scalar| {
            scalars.iter().position(|s| s == scalar).unwrap_or_else(|| {
                scalars.push(scalar.clone());
                scalars.len() - 1
            })
        };
        let filter = view.filter.as_ref().map(&mut number);
        let dimensions = view.dimensions.iter().map(|d| number(&d.expression)).collect();
        let arguments = view.aggregates.iter().map(|a| a.argument.as_ref().map(&mut number)).collect();
        let masks = view.aggregates.iter().map(|a| a.filter.as_ref().map(&mut number)).collect();
        let types = view.dimensions.iter().map(|d| d.expression.data_type).collect();
        let allowed_lateness = micros_of(stream.allowed_lateness);
        let live = match view.window {
            Window::Session { gap } => Some(LiveSessions::new(gap, allowed_lateness)),
            _ => None,
        };
        Ok(FoldPlan {
            layout: Arc::new(KeyLayout::new(types)?),
            event_time: stream.event_time,
            watermark: stream.columns.len(),
            allowed_lateness,
            live,
            scalars,
            filter,
            dimensions,
            arguments,
            masks,
            view,
            panes: Vec::new(),
        })
    }

    /// Folds events of one partition; the first one has offset `first`.
    pub fn fold(
        &mut self,
        rows: &RecordBatch,
        partition: Partition,
        first: Offset,
        into: &mut Accumulator,
    ) -> Result<FoldVerdicts, FoldError> {
        let columns = evaluate(&self.scalars.iter().collect::<Vec<_>>(), rows)?;
        let boolean = |index: &usize| BooleanArray::from(columns[*index].to_data());
        let filter = self.filter.as_ref().map(boolean);
        let mut selected = selected_rows(rows.num_rows(), filter.as_ref());
        let keys = if self.dimensions.is_empty() {
            None
        } else {
            let dimensions: Vec<ArrayRef> = self.dimensions.iter().map(|i| Arc::clone(&columns[*i])).collect();
            Some(self.layout.encode(&dimensions)?)
        };
        let late = self.judge(rows, keys.as_ref(), &mut selected);
        let late = late.into_iter().map(|row| Ledger::of(partition, Offset(first.0 + u64::from(row)))).sum();
        let arguments: Vec<_> = self.arguments.iter().map(|a| a.map(|i| Arc::clone(&columns[i]))).collect();
        let masks: Vec<_> = self.masks.iter().map(|m| m.as_ref().map(boolean)).collect();
        into.fold(&EvaluatedBatch {
            panes: &self.panes,
            places: EventPositions {
                times: rows.column(self.event_time).as_primitive::<TimestampMicrosecondType>().values(),
                offsets: Offsets::Run { partition: i64::from(partition.0), first: first.0 as i64 },
            },
            keys: keys.as_ref(),
            arguments: &arguments,
            masks: &masks,
            rows: &selected,
        });
        let all = Ledger::of_range(partition, first, Offset(first.0 + rows.num_rows() as u64));
        Ok(FoldVerdicts { folded: all - late, late })
    }

    /// Observes events before the seam: a version contains them, but open sessions include them too. Returns whether the
    /// view needs such events.
    pub fn warm(&mut self, rows: &RecordBatch) -> Result<bool, FoldError> {
        if self.live.is_none() {
            return Ok(false);
        }
        let wanted: Vec<usize> = self.filter.iter().chain(&self.dimensions).copied().collect();
        let columns = evaluate(&wanted.iter().map(|i| &self.scalars[*i]).collect::<Vec<_>>(), rows)?;
        let filter = self.filter.map(|_| BooleanArray::from(columns[0].to_data()));
        let mut selected = selected_rows(rows.num_rows(), filter.as_ref());
        let dimensions = &columns[usize::from(filter.is_some())..];
        let keys = if dimensions.is_empty() { None } else { Some(self.layout.encode(dimensions)?) };
        self.judge(rows, keys.as_ref(), &mut selected);
        Ok(true)
    }

    /// Assigns a pane to every row, removes the late rows from `selected` and returns them. The verdict depends only on
    /// the event time and the recorded watermark (I3). If the windows follow from the clock, an event counts as late
    /// whether or not it passes the WHERE: the ledger counts events, not rows. Sessions consist of the rows that pass.
    fn judge(&mut self, rows: &RecordBatch, keys: Option<&Rows>, selected: &mut Vec<u32>) -> Vec<u32> {
        let times = rows.column(self.event_time).as_primitive::<TimestampMicrosecondType>().values();
        let watermarks = rows.column(self.watermark).as_primitive::<TimestampMicrosecondType>();
        let watermark = |row: usize| watermarks.is_valid(row).then(|| watermarks.value(row));
        let mut late = Vec::new();
        if let Some(live) = &mut self.live {
            for &row in selected.iter() {
                let key = keys.map(|keys| keys.row(row as usize));
                let key = key.as_ref().map_or(&[][..], |key| key.as_ref());
                if live.judge(key, times[row as usize], watermark(row as usize)) {
                    late.push(row);
                }
            }
        } else {
            let window = self.view.window;
            self.panes.clear();
            self.panes.reserve(times.len());
            // Neighbours mostly share their pane: its start, its end, and the watermark from which its events are late.
            let mut current = (PaneStart::MAX, i64::MIN, None);
            for (row, &time) in times.iter().enumerate() {
                if time < current.0.0 || time >= current.1 {
                    let pane = window.pane_of(Micros(time));
                    let closes = window.last_end(Micros(pane.0)).map(|end| end.0.saturating_add(self.allowed_lateness));
                    current = (pane, window.pane_end(pane).map_or(i64::MAX, |end| end.0), closes);
                }
                self.panes.push(current.0);
                // I3: only the event time and the watermark recorded with the event decide.
                if current.2.is_some_and(|closes| watermark(row).is_some_and(|watermark| closes <= watermark)) {
                    late.push(row as u32);
                }
            }
        }
        if !late.is_empty() {
            selected.retain(|row| late.binary_search(row).is_err());
        }
        late
    }
}
