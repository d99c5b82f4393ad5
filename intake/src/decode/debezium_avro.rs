//! Finds the rows in Debezium change events that are Avro: the row after the change or, for a deletion, the row before it.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch, RecordBatchOptions, StructArray, UInt32Array};
use arrow::compute::{cast, interleave, take};
use arrow::datatypes::{DataType, Int64Type, Schema};
use arrow::error::ArrowError;

use super::debezium::{ChangeFacts, Operation, WITHOUT_OPERATION};

/// The rows of some change events.
pub(super) struct ChangedRows {
    /// One row for each event in `events`.
    pub rows: RecordBatch,
    pub facts: Vec<ChangeFacts>,
    /// Indexes of the events that name a row.
    pub events: Vec<usize>,
    /// Indexes of the other events, with the reasons.
    pub rejected: Vec<(usize, String)>,
}

/// The columns of change events.
pub(super) struct Envelopes {
    operations: Option<ArrayRef>,
    before: Option<StructArray>,
    after: Option<StructArray>,
    source_ms: Option<ArrayRef>,
}

impl ChangedRows {
    /// Finds the rows of `envelopes`, one change event in each.
    ///
    /// # Errors
    /// Defects only: an event without a row is rejected.
    pub fn of(envelopes: &RecordBatch) -> Result<ChangedRows, ArrowError> {
        let columns = Envelopes::of(envelopes);
        let (mut facts, mut events, mut rejected, mut places) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        for event in 0..envelopes.num_rows() {
            match columns.row(event) {
                Ok((of_event, side)) => {
                    facts.push(of_event);
                    events.push(event);
                    places.push((side, event));
                }
                Err(reason) => rejected.push((event, reason)),
            }
        }
        // Without a side, every event is rejected.
        let sides: Vec<&dyn Array> = columns.sides().into_iter().map(|side| side as &dyn Array).collect();
        let rows = match places.is_empty() {
            true => RecordBatch::new_empty(Arc::new(Schema::empty())),
            false => {
                let rows = interleave(&sides, &places)?;
                of_struct(rows.as_struct())?
            }
        };
        Ok(ChangedRows { rows, facts, events, rejected })
    }
}

/// The rows at some places of a side of change events; there are none without a side.
pub(super) fn rows_at(side: Option<&StructArray>, places: &[usize]) -> Result<RecordBatch, ArrowError> {
    let Some(side) = side else { return Ok(RecordBatch::new_empty(Arc::new(Schema::empty()))) };
    let places = UInt32Array::from_iter_values(places.iter().map(|place| *place as u32));
    let rows = take(side, &places, None)?;
    of_struct(rows.as_struct())
}

/// The fields of structs that are not null, as columns.
fn of_struct(rows: &StructArray) -> Result<RecordBatch, ArrowError> {
    let options = RecordBatchOptions::new().with_row_count(Some(rows.len()));
    let schema = Arc::new(Schema::new(rows.fields().clone()));
    RecordBatch::try_new_with_options(schema, rows.columns().to_vec(), &options)
}

impl Envelopes {
    pub fn of(envelopes: &RecordBatch) -> Envelopes {
        let side = |name: &str| envelopes.column_by_name(name).and_then(|column| column.as_struct_opt()).cloned();
        let after = side("after");
        let before = match (side("before"), &after) {
            // The types differ if the writer has no type for both; rows before a change that do not fit are missing then.
            (Some(before), Some(after)) if before.data_type() != after.data_type() => {
                cast(&before, after.data_type()).ok().map(|before| before.as_struct().clone())
            }
            (before, _) => before,
        };
        let source = side("source");
        let source_ms = source.and_then(|source| {
            let times = source.column_by_name("ts_ms").filter(|times| *times.data_type() == DataType::Int64)?;
            let nulls = arrow::buffer::NullBuffer::union(times.nulls(), source.nulls());
            let times = times.as_primitive::<Int64Type>();
            Some(Arc::new(arrow::array::Int64Array::new(times.values().clone(), nulls)) as ArrayRef)
        });
        let operations = envelopes.column_by_name("op").and_then(|op| cast(op, &DataType::Utf8View).ok());
        Envelopes { operations, before, after, source_ms }
    }

    /// Returns the sides that the events have; those of one batch have one type.
    fn sides(&self) -> Vec<&StructArray> {
        self.after.iter().chain(&self.before).collect()
    }

    /// The rows before the changes, with the fields of those after them.
    pub fn before(&self) -> Option<&StructArray> {
        self.before.as_ref()
    }

    /// The rows after the changes.
    pub fn after(&self) -> Option<&StructArray> {
        self.after.as_ref()
    }

    pub fn has_after(&self, event: usize) -> bool {
        self.after.as_ref().is_some_and(|after| after.is_valid(event))
    }

    /// Whether an event deletes all rows.
    pub fn is_truncate(&self, event: usize) -> bool {
        self.operation(event).is_ok_and(|operation| matches!(operation, Operation::Truncate))
    }

    fn operation(&self, event: usize) -> Result<Operation, String> {
        let operations = self.operations.as_ref().filter(|operations| operations.is_valid(event));
        let text = operations.map(|operations| operations.as_string_view().value(event));
        let text = text.ok_or_else(|| WITHOUT_OPERATION.to_string())?;
        Operation::named(text).ok_or_else(|| format!("unknown `op` {text:?}"))
    }

    /// Returns the facts of an event, or why it does not change one row.
    pub fn facts(&self, event: usize) -> Result<ChangeFacts, String> {
        let operation = self.operation(event)?;
        let times = self.source_ms.as_ref().filter(|times| times.is_valid(event));
        let source_ms = times.map(|times| times.as_primitive::<Int64Type>().value(event));
        operation.facts(source_ms).map_err(|reason| reason.to_string())
    }

    /// Returns the facts of an event, and the index of the side that is its row.
    fn row(&self, event: usize) -> Result<(ChangeFacts, usize), String> {
        let facts = self.facts(event)?;
        let (side, index) = match facts.is_deletion() {
            true => (&self.before, usize::from(self.after.is_some())),
            false => (&self.after, 0),
        };
        match side.as_ref().is_some_and(|side| side.is_valid(event)) {
            true => Ok((facts, index)),
            false => Err(facts.without_row().to_string()),
        }
    }
}
