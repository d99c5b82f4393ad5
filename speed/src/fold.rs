//! How does a batch of the log become rows for one view? Evaluate, window, judge lateness, fold.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, RecordBatch};
use arrow::datatypes::TimestampMicrosecondType;
use arrow::error::ArrowError;
use shared::evaluate::{EvaluateError, evaluate};
use shared::ids::{Offset, Partition};
use shared::ledger::Ledger;
use shared::partial::accumulate::{Accumulator, Evaluated, selected_rows};
use shared::partial::keys::KeyLayout;
use shared::scalar::Scalar;
use shared::stream::Stream;
use shared::time::micros_of;
use shared::view::View;

/// Why a batch could not be folded. The stream's batches fit its schema, so this is a bug, not bad input.
#[derive(Debug, thiserror::Error)]
pub enum FoldError {
    #[error(transparent)]
    Arrow(#[from] ArrowError),
    #[error(transparent)]
    Evaluate(#[from] EvaluateError),
}

/// The events of a fold by verdict.
#[derive(Debug, Clone, Copy, Default)]
pub struct Verdicts {
    pub folded: Ledger,
    pub late: Ledger,
}

/// What a view needs of a batch, worked out once.
#[derive(Debug)]
pub struct FoldPlan {
    pub view: Arc<View>,
    pub layout: Arc<KeyLayout>,
    event_time: usize,
    watermark: usize,
    allowed_lateness: i64,
    /// Every expression of the view, each once.
    scalars: Vec<Scalar>,
    filter: Option<usize>,
    dimensions: Vec<usize>,
    arguments: Vec<Option<usize>>,
    masks: Vec<Option<usize>>,
    windows: Vec<i64>,
}

impl FoldPlan {
    /// Plans the folding of `stream`'s batches for `view`.
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
        Ok(FoldPlan {
            layout: Arc::new(KeyLayout::new(types)?),
            event_time: stream.event_time,
            watermark: stream.columns.len(),
            allowed_lateness: micros_of(stream.allowed_lateness),
            scalars,
            filter,
            dimensions,
            arguments,
            masks,
            view,
            windows: Vec::new(),
        })
    }

    /// Folds events of one partition, the first of which has offset `first`.
    pub fn fold(
        &mut self,
        rows: &RecordBatch,
        partition: Partition,
        first: Offset,
        into: &mut Accumulator,
    ) -> Result<Verdicts, FoldError> {
        let columns = evaluate(&self.scalars.iter().collect::<Vec<_>>(), rows)?;
        let boolean = |index: &usize| BooleanArray::from(columns[*index].to_data());
        let filter = self.filter.as_ref().map(boolean);
        let mut selected = selected_rows(rows.num_rows(), filter.as_ref());
        let late = self.judge(rows, partition, first, &mut selected);
        let keys = if self.dimensions.is_empty() {
            None
        } else {
            let dimensions: Vec<ArrayRef> = self.dimensions.iter().map(|i| Arc::clone(&columns[*i])).collect();
            Some(self.layout.encode(&dimensions)?)
        };
        let arguments: Vec<_> = self.arguments.iter().map(|a| a.map(|i| Arc::clone(&columns[i]))).collect();
        let masks: Vec<_> = self.masks.iter().map(|m| m.as_ref().map(boolean)).collect();
        into.fold(&Evaluated {
            windows: &self.windows,
            keys: keys.as_ref(),
            arguments: &arguments,
            masks: &masks,
            rows: &selected,
        });
        let all = Ledger::of_range(partition, first, Offset(first.0 + rows.num_rows() as u64));
        Ok(Verdicts { folded: all - late, late })
    }

    /// Fills in the window of every row and takes the rows of too-late windows out of `selected`. An event counts as
    /// late whether or not the WHERE would have taken it: the ledger is about events, not about rows.
    fn judge(&mut self, rows: &RecordBatch, partition: Partition, first: Offset, selected: &mut Vec<u32>) -> Ledger {
        let times = rows.column(self.event_time).as_primitive::<TimestampMicrosecondType>();
        let watermarks = rows.column(self.watermark).as_primitive::<TimestampMicrosecondType>();
        let window = self.view.window;
        self.windows.clear();
        self.windows.reserve(times.len());
        let mut late = Ledger::EMPTY;
        let mut is_late_row = Vec::new();
        let mut current: Option<(i64, i64)> = None;
        for (row, &time) in times.values().iter().enumerate() {
            let (start, end) = match current {
                Some((start, end)) if time >= start && time < end => (start, end),
                _ => {
                    let start = window.start_of(time);
                    (start, window.end_of(start).unwrap_or(i64::MAX))
                }
            };
            current = Some((start, end));
            self.windows.push(start);
            let closed = end != i64::MAX
                && watermarks.is_valid(row)
                && end.saturating_add(self.allowed_lateness) <= watermarks.value(row);
            if closed {
                late += Ledger::of(partition, Offset(first.0 + row as u64));
                is_late_row.push(row as u32);
            }
        }
        if !is_late_row.is_empty() {
            selected.retain(|row| is_late_row.binary_search(row).is_err());
        }
        late
    }
}
