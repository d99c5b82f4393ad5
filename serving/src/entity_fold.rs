//! Folds the events of one entity into its row of a view, with the states that keep every value: the row is exact.
//!
//! ```text
//! row = view over the events, each id once per event date
//! ```
//! An event whose id an earlier one of the entity has on the same event date does not count, as in a batch run. The layers
//! agree: an entity has one partition, so ids and order are those of its sequences.

use std::collections::HashSet;
use std::sync::Arc;

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::datatypes::{Int64Type, TimestampMicrosecondType};
use arrow::error::ArrowError;
use arrow::row::{RowConverter, SortField};
use serde_json::to_string;
use shared::evaluate::EvaluateError;
use shared::evaluate::events::{EvaluatedEvents, EventExpressions, Needed};
use shared::partial::accumulate::{Accumulator, EvaluatedBatch};
use shared::partial::batch_keys::BatchKeys;
use shared::partial::finish::finish_measures;
use shared::partial::keys::KeyLayout;
use shared::partial::states::{EventPositions, Offsets};
use shared::stream::{Stream, system_columns};
use shared::time::MICROS_PER_DAY;
use shared::view::{Precision, View};
use shared::window::{PaneStart, WindowId};

use crate::formats::cells::Cells;

/// Why events could not be folded. They match the schema of their stream, so this is a bug.
#[derive(Debug, thiserror::Error)]
pub enum FoldError {
    #[error(transparent)]
    Arrow(#[from] ArrowError),
    #[error(transparent)]
    Evaluate(#[from] EvaluateError),
}

/// The ids of the events so far.
struct SeenIds {
    /// Index of the event id.
    key: usize,
    converter: RowConverter,
    /// Event dates, in days, and encoded ids.
    ids: HashSet<(i64, Vec<u8>)>,
}

/// The fold of one entity into one view without a window.
pub struct EntityFold {
    view: Arc<View>,
    expressions: EventExpressions,
    layout: Arc<KeyLayout>,
    accumulator: Accumulator,
    event_time: usize,
    /// `None` without a primary key.
    seen: Option<SeenIds>,
    /// Events for which an expression failed.
    failed: u64,
}

impl EntityFold {
    /// Creates an empty fold for `view` over `stream`.
    pub fn new(view: Arc<View>, stream: &Stream) -> Result<EntityFold, FoldError> {
        let types = view.dimensions.iter().map(|dimension| dimension.expression.data_type).collect();
        let layout = Arc::new(KeyLayout::new(types)?);
        let seen = match stream.primary_key {
            Some(key) => {
                let field = SortField::new(stream.columns[key].data_type.arrow());
                Some(SeenIds { key, converter: RowConverter::new(vec![field])?, ids: HashSet::new() })
            }
            None => None,
        };
        Ok(EntityFold {
            expressions: EventExpressions::new(&view),
            accumulator: Accumulator::new(Arc::clone(&view), Arc::clone(&layout), Precision::Exact),
            layout,
            view,
            event_time: stream.event_time,
            seen,
            failed: 0,
        })
    }

    /// Adds events with the columns of the archive, in the order of their sequences.
    pub fn add(&mut self, rows: &RecordBatch) -> Result<(), FoldError> {
        let is_new = self.is_new(rows)?;
        let offsets =
            rows.column_by_name(system_columns::OFFSET).map(|column| column.as_primitive::<Int64Type>().clone());
        let offsets = offsets.ok_or_else(|| ArrowError::SchemaError("events lack their offsets".to_owned()))?;
        let times = rows.column(self.event_time).as_primitive::<TimestampMicrosecondType>().clone();
        let (layout, accumulator, failed) = (&self.layout, &mut self.accumulator, &mut self.failed);
        self.expressions.for_each_piece::<FoldError>(rows, Needed::All, &mut |events| {
            let EvaluatedEvents { rows: range, mut selected, failed: of_piece, dimensions, arguments, masks } = events;
            *failed += of_piece.iter().filter(|row| is_new[row.row]).count() as u64;
            selected.retain(|row| is_new[range.start + *row as usize]);
            let keys = BatchKeys::new(layout, &dimensions)?;
            // The window over all time has one pane.
            let panes = vec![PaneStart(WindowId::ALL_TIME.0); range.len()];
            let partitions = vec![0; range.len()];
            accumulator.fold(&EvaluatedBatch {
                panes: &panes,
                places: EventPositions {
                    times: &times.values()[range.clone()],
                    offsets: Offsets::Listed { partitions: &partitions, offsets: &offsets.values()[range] },
                },
                keys: &keys,
                arguments: &arguments,
                masks: &masks,
                rows: &selected,
            });
            Ok(())
        })
    }

    /// Whether no expression failed for an event.
    pub fn is_complete(&self) -> bool {
        self.failed == 0
    }

    /// The row as JSON: the entity and the measures; `null` if no event passes the view's WHERE.
    pub fn row(self) -> Result<Vec<u8>, FoldError> {
        let part = self.accumulator.part();
        let Some(block) = part.blocks.first().filter(|block| !block.is_empty()) else { return Ok(b"null".to_vec()) };
        let keys = part.layout.decode(part.keys.iter())?;
        let measures = finish_measures(&self.view, &block.states)?;
        let mut out = Vec::new();
        let of_keys =
            self.view.dimensions.iter().zip(&keys).map(|(d, column)| (&d.name, column, d.expression.data_type));
        let of_measures = self.view.measures.iter().zip(&measures);
        let of_measures = of_measures.map(|(m, finished)| (&m.name, &finished.column, m.expression.data_type));
        for (number, (name, column, data_type)) in of_keys.chain(of_measures).enumerate() {
            out.push(if number == 0 { b'{' } else { b',' });
            out.extend_from_slice(to_string(name).expect("a text has a JSON form").as_bytes());
            out.push(b':');
            Cells::typed(column, data_type).write_json(0, &mut out);
        }
        out.push(b'}');
        Ok(out)
    }

    /// For each event whether no earlier one has its id on its event date.
    fn is_new(&mut self, rows: &RecordBatch) -> Result<Vec<bool>, ArrowError> {
        let times = rows.column(self.event_time).as_primitive::<TimestampMicrosecondType>();
        let Some(SeenIds { key, converter, ids: seen }) = &mut self.seen else {
            return Ok(vec![true; rows.num_rows()]);
        };
        let ids = converter.convert_columns(&[Arc::clone(rows.column(*key))])?;
        let is_null = |row: usize| rows.column(*key).is_null(row);
        let mut is_new = |(row, time): (usize, &i64)| {
            is_null(row) || seen.insert((time.div_euclid(MICROS_PER_DAY), ids.row(row).as_ref().to_vec()))
        };
        Ok(times.values().iter().enumerate().map(&mut is_new).collect())
    }
}
