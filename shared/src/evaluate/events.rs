//! Evaluates a view over events of its stream, by one rule for both layers: an event fails for a view if an expression of the
//! view, evaluated over this event alone, exceeds the bounds of texts. A failed event is in no row of the view.

use std::ops::Range;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, BooleanArray, RecordBatch};

use super::EvaluateError;
use super::growth::may_outgrow;
use super::meter::TextBounds;
use super::pieces::{EvaluationLimits, FailedRow, Piece, evaluate_pieces};
use crate::event_sink::EventSink;
use crate::partial::accumulate::selected_rows;
use crate::partial::query_budget::QueryBudget;
use crate::scalar::Scalar;
use crate::view::View;

/// The expressions of a view or a sink over its stream, each once.
#[derive(Debug, Clone)]
pub struct EventExpressions {
    scalars: Vec<Scalar>,
    filter: Option<usize>,
    dimensions: Vec<usize>,
    arguments: Vec<Option<usize>>,
    masks: Vec<Option<usize>>,
    texts: TextBounds,
}

/// Which expressions are needed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Needed {
    All,
    /// WHERE and the dimensions.
    Groups,
}

/// Some neighbouring events of a batch, evaluated. All columns have one value per event.
#[derive(Debug)]
pub struct EvaluatedEvents {
    /// Rows of the batch.
    pub rows: Range<usize>,
    /// The events that pass WHERE and did not fail, counted from the first of `rows`, ascending.
    pub selected: Vec<u32>,
    /// Ascending.
    pub failed: Vec<FailedRow>,
    pub dimensions: Vec<ArrayRef>,
    /// The argument of each aggregate; empty if only groups were needed.
    pub arguments: Vec<Option<ArrayRef>>,
    /// The FILTER of each aggregate; empty if only groups were needed.
    pub masks: Vec<Option<BooleanArray>>,
}

/// The index of an expression, added if it is new.
fn number(scalars: &mut Vec<Scalar>, scalar: &Scalar) -> usize {
    scalars.iter().position(|known| known == scalar).unwrap_or_else(|| {
        scalars.push(scalar.clone());
        scalars.len() - 1
    })
}

fn bounds(scalars: &[Scalar]) -> TextBounds {
    if may_outgrow(scalars) { TextBounds::DEFAULT } else { TextBounds::OF_PIECES }
}

impl EventExpressions {
    /// Returns the expressions of `view`, over the columns of its stream.
    pub fn new(view: &View) -> EventExpressions {
        let mut scalars = Vec::new();
        let filter = view.filter.as_ref().map(|filter| number(&mut scalars, filter));
        let dimensions = view.dimensions.iter().map(|d| number(&mut scalars, &d.expression)).collect();
        let arguments = view.aggregates.iter().map(|a| a.argument.as_ref().map(|a| number(&mut scalars, a))).collect();
        let masks = view.aggregates.iter().map(|a| a.filter.as_ref().map(|f| number(&mut scalars, f))).collect();
        EventExpressions { texts: bounds(&scalars), scalars, filter, dimensions, arguments, masks }
    }

    /// Returns the condition and the columns of a sink, over the columns of its stream: the columns are dimensions.
    pub fn of_sink(sink: &EventSink) -> EventExpressions {
        let mut scalars = Vec::new();
        let filter = sink.filter.as_ref().map(|filter| number(&mut scalars, filter));
        let dimensions = sink.columns.iter().map(|column| number(&mut scalars, &column.expression)).collect();
        let (arguments, masks) = (Vec::new(), Vec::new());
        EventExpressions { texts: bounds(&scalars), scalars, filter, dimensions, arguments, masks }
    }

    /// Returns whether an event may fail by the length of its texts.
    pub fn may_outgrow(&self) -> bool {
        !self.texts.may_not_fail()
    }

    /// Lets `each` change the index of every column that the expressions read.
    pub fn renumber(&mut self, each: &mut dyn FnMut(&mut usize)) {
        self.scalars.iter_mut().for_each(|scalar| scalar.renumber(each));
    }

    /// Hands the events of `rows` to `each` in order, piece by piece.
    pub fn for_each_piece<E: From<EvaluateError>>(
        &self,
        rows: &RecordBatch,
        needed: Needed,
        each: &mut dyn FnMut(EvaluatedEvents) -> Result<(), E>,
    ) -> Result<(), E> {
        // An event that fails by an argument is in no group either.
        let only_groups = needed == Needed::Groups && !self.may_outgrow();
        let evaluated: Vec<usize> = match only_groups {
            true => self.filter.iter().chain(&self.dimensions).copied().collect(),
            false => (0..self.scalars.len()).collect(),
        };
        let scalars: Vec<&Scalar> = evaluated.iter().map(|index| &self.scalars[*index]).collect();
        let query = QueryBudget::unlimited();
        let limits = EvaluationLimits { texts: self.texts, query: &query };
        evaluate_pieces(&scalars, rows, limits, &mut |piece| {
            let mut columns: Vec<Option<ArrayRef>> = vec![None; self.scalars.len()];
            let Piece { rows, columns: computed, failed } = piece;
            for (index, column) in evaluated.iter().zip(computed) {
                columns[*index] = Some(column);
            }
            each(self.events(rows, failed, &columns, needed))
        })
    }

    fn events(
        &self,
        rows: Range<usize>,
        failed: Vec<FailedRow>,
        columns: &[Option<ArrayRef>],
        needed: Needed,
    ) -> EvaluatedEvents {
        let column = |index: usize| Arc::clone(columns[index].as_ref().expect("evaluated above"));
        let boolean = |index: usize| BooleanArray::from(column(index).to_data());
        let mut selected = selected_rows(rows.len(), self.filter.map(boolean).as_ref());
        if !failed.is_empty() {
            let has_failed = |row: &u32| failed.binary_search_by_key(&(rows.start + *row as usize), |f| f.row).is_ok();
            selected.retain(|row| !has_failed(row));
        }
        let values = needed == Needed::All;
        let (arguments, masks): (&[_], &[_]) = if values { (&self.arguments, &self.masks) } else { (&[], &[]) };
        EvaluatedEvents {
            selected,
            failed,
            dimensions: self.dimensions.iter().map(|index| column(*index)).collect(),
            arguments: arguments.iter().map(|index| index.map(column)).collect(),
            masks: masks.iter().map(|index| index.map(boolean)).collect(),
            rows,
        }
    }
}
