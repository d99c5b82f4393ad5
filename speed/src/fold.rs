//! Folds a batch of the log into the rows of one view: evaluates its expressions, assigns panes, excludes late and failed
//! events, and accumulates.

use std::sync::Arc;

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::datatypes::{Int64Type, TimestampMicrosecondType};
use arrow::error::ArrowError;
use shared::evaluate::EvaluateError;
use shared::evaluate::events::{EvaluatedEvents, EventExpressions, Needed};
use shared::evaluate::pieces::FailedRow;
use shared::failed_events::{FailedEvent, FailedEvents};
use shared::ids::{Offset, Partition};
use shared::ledger::Ledger;
use shared::lookup::join::{EventJoin, LookupError, SharedLookups};
use shared::lookup::table::Lookups;
use shared::partial::accumulate::{Accumulator, EvaluatedBatch};
use shared::partial::batch_keys::BatchKeys;
use shared::partial::keys::KeyLayout;
use shared::partial::sessions::LiveSessions;
use shared::partial::states::{EventPositions, Offsets};
use shared::scalar::Scalar;
use shared::stream::Stream;
use shared::time::{Micros, micros_of};
use shared::view::View;
use shared::window::{PaneStart, Window};

use crate::fold_input::SharedKeys;

/// Why a batch could not be folded. Batches always match the schema of their stream, so this is a bug, not bad input.
#[derive(Debug, thiserror::Error)]
pub enum FoldError {
    #[error(transparent)]
    Arrow(#[from] ArrowError),
    #[error(transparent)]
    Evaluate(#[from] EvaluateError),
    #[error(transparent)]
    Lookup(#[from] LookupError),
}

/// The events of a fold, by verdict.
#[derive(Debug, Clone, Default)]
pub struct FoldVerdicts {
    pub folded: Ledger,
    /// Events excluded because they came after allowed lateness.
    pub late: Ledger,
    /// Events excluded because an expression failed for them, whether late or not.
    pub failed: Ledger,
    pub failed_events: FailedEvents,
}

/// What a view needs of a batch, computed once.
#[derive(Debug)]
pub struct FoldPlan {
    pub view: Arc<View>,
    pub layout: Arc<KeyLayout>,
    event_time: usize,
    /// Index of the sequence, which is 0 for erased events; `None` without an entity.
    sequence: Option<usize>,
    watermark: usize,
    allowed_lateness: i64,
    /// The sessions that are still open; `None` if the windows of the view follow from the clock.
    live: Option<LiveSessions>,
    /// `None`: the view is not joined with tables.
    join: Option<EventJoin>,
    expressions: Arc<EventExpressions>,
    dimensions: Arc<[Scalar]>,
    panes: Vec<PaneStart>,
}

impl FoldPlan {
    /// Plans how to fold the batches of `stream` for `view`.
    pub fn new(view: Arc<View>, stream: &Stream) -> Result<FoldPlan, FoldError> {
        let types = view.dimensions.iter().map(|d| d.expression.data_type).collect();
        let allowed_lateness = micros_of(stream.allowed_lateness);
        let live = match view.window {
            Window::Session { gap } => Some(LiveSessions::new(gap, allowed_lateness)),
            _ => None,
        };
        Ok(FoldPlan {
            layout: Arc::new(KeyLayout::new(types)?),
            event_time: stream.event_time,
            sequence: stream.sequence(),
            watermark: stream.columns.len(),
            allowed_lateness,
            live,
            join: None,
            expressions: Arc::new(EventExpressions::new(&view)),
            dimensions: view.dimensions.iter().map(|dimension| dimension.expression.clone()).collect(),
            view,
            panes: Vec::new(),
        })
    }

    /// Joins events, if the view has joins, with the rows that `lookups` has when they are folded.
    pub fn joined(mut self, lookups: &Lookups) -> Result<FoldPlan, FoldError> {
        let width = self.watermark + 1;
        self.join = EventJoin::new(&self.view, lookups, width, &|index| index)?;
        if let Some(join) = &self.join {
            let mut expressions = EventExpressions::new(&self.view);
            expressions.renumber(&mut |index| *index = join.place(*index).unwrap_or(*index));
            self.expressions = Arc::new(expressions);
        }
        Ok(self)
    }

    /// The events with their joined columns; `None`: there are none.
    fn joined_rows(&self, rows: &RecordBatch, known: &mut SharedLookups) -> Result<Option<RecordBatch>, ArrowError> {
        let times = rows.column(self.event_time).as_primitive::<TimestampMicrosecondType>().values();
        self.join.as_ref().map(|join| join.extend(rows, times, known)).transpose()
    }

    /// Folds events of one partition; the first one has offset `first`. `keys` and what was looked up: of the same rows, shared with other views.
    pub fn fold(
        &mut self,
        rows: &RecordBatch,
        partition: Partition,
        first: Offset,
        keys: &mut SharedKeys,
        into: &mut Accumulator,
    ) -> Result<FoldVerdicts, FoldError> {
        let mut verdicts = FoldVerdicts::default();
        let joined = self.joined_rows(rows, &mut keys.lookups)?;
        let rows = joined.as_ref().unwrap_or(rows);
        let erased = self.erased(rows);
        let expressions = Arc::clone(&self.expressions);
        expressions.for_each_piece::<FoldError>(rows, Needed::All, &mut |mut events| {
            without_erased(&mut events, erased);
            self.note_failed(rows, &events.failed, (partition, first), &mut verdicts);
            verdicts.late += self.fold_piece(rows, events, (partition, first), keys, into)?;
            Ok(())
        })?;
        let all = Ledger::of_range(partition, first, Offset(first.0 + rows.num_rows() as u64));
        verdicts.folded = all - verdicts.late - verdicts.failed;
        Ok(verdicts)
    }

    /// The sequences of the rows, if one of them is erased.
    fn erased<'a>(&self, rows: &'a RecordBatch) -> Option<&'a [i64]> {
        let sequences = rows.column(self.sequence?).as_primitive::<Int64Type>().values();
        sequences.contains(&0).then_some(sequences)
    }

    /// Folds the events of one piece and returns those that are late.
    fn fold_piece(
        &mut self,
        rows: &RecordBatch,
        events: EvaluatedEvents,
        (partition, first): (Partition, Offset),
        keys: &mut SharedKeys,
        into: &mut Accumulator,
    ) -> Result<Ledger, FoldError> {
        let EvaluatedEvents { rows: range, mut selected, failed, dimensions, arguments, masks } = events;
        let (piece, first) = (&rows.slice(range.start, range.len()), first.0 + range.start as u64);
        // The values of a failed event mean nothing to other views.
        let keys = match failed.is_empty() {
            true => {
                // The same expressions over other joins have other values.
                let expressions = self.join.is_none().then_some(&self.dimensions);
                keys.of(expressions, &range, &self.layout, &dimensions)?
            }
            false => Arc::new(BatchKeys::new(&self.layout, &dimensions)?),
        };
        let late = self.judge(piece, &keys, &mut selected);
        into.fold(&EvaluatedBatch {
            panes: &self.panes,
            places: EventPositions {
                times: piece.column(self.event_time).as_primitive::<TimestampMicrosecondType>().values(),
                offsets: Offsets::Run { partition: i64::from(partition.0), first: first as i64 },
            },
            keys: &keys,
            arguments: &arguments,
            masks: &masks,
            rows: &selected,
        });
        let has_failed = |row: u32| failed.binary_search_by_key(&(range.start + row as usize), |f| f.row).is_ok();
        let late = late.into_iter().filter(|row| !has_failed(*row));
        Ok(late.map(|row| Ledger::of(partition, Offset(first + u64::from(row)))).sum())
    }

    /// Notes the events that failed.
    fn note_failed(
        &self,
        rows: &RecordBatch,
        failed: &[FailedRow],
        (partition, first): (Partition, Offset),
        verdicts: &mut FoldVerdicts,
    ) {
        let times = rows.column(self.event_time).as_primitive::<TimestampMicrosecondType>().values();
        for FailedRow { row, reason } in failed {
            let offset = Offset(first.0 + *row as u64);
            verdicts.failed += Ledger::of(partition, offset);
            let (event_time, reason) = (Some(Micros(times[*row])), reason.to_string());
            verdicts.failed_events.add(FailedEvent { partition, offset, event_time, reason });
        }
    }

    /// Returns the start of the first pane that a trailing window over present events still reaches, once the partition has
    /// the watermark `watermark` and its last event arrived at `arrived_at`; `None`: the windows of the view are not trailing.
    /// Further events of earlier panes are late. The time of arrival counts because `as_of=now` may be before the watermark.
    pub fn first_pane_held(&self, watermark: Micros, arrived_at: Micros) -> Option<PaneStart> {
        let Window::Slide { size, .. } = self.view.window else { return None };
        let before = watermark.0.min(arrived_at.0).saturating_sub(size).saturating_sub(self.allowed_lateness);
        Some(PaneStart(before))
    }

    /// Observes events before the seam: a version contains them, but open sessions include them too. Returns whether the
    /// view needs such events.
    pub fn warm(&mut self, rows: &RecordBatch) -> Result<bool, FoldError> {
        if self.live.is_none() {
            return Ok(false);
        }
        let expressions = Arc::clone(&self.expressions);
        let joined = self.joined_rows(rows, &mut SharedLookups::default())?;
        let rows = joined.as_ref().unwrap_or(rows);
        let erased = self.erased(rows);
        expressions.for_each_piece::<FoldError>(rows, Needed::Groups, &mut |mut events| {
            without_erased(&mut events, erased);
            let EvaluatedEvents { rows: range, mut selected, dimensions, .. } = events;
            let keys = BatchKeys::new(&self.layout, &dimensions)?;
            self.judge(&rows.slice(range.start, range.len()), &keys, &mut selected);
            Ok(())
        })?;
        Ok(true)
    }

    /// Assigns a pane to every row, removes the late rows from `selected` and returns them. The verdict depends only on
    /// the event time and the recorded watermark (I3). If the windows follow from the clock, an event counts as late
    /// whether or not it passes the WHERE: the ledger counts events, not rows. Sessions consist of the rows that pass.
    fn judge(&mut self, rows: &RecordBatch, keys: &BatchKeys, selected: &mut Vec<u32>) -> Vec<u32> {
        let times = rows.column(self.event_time).as_primitive::<TimestampMicrosecondType>().values();
        let watermarks = rows.column(self.watermark).as_primitive::<TimestampMicrosecondType>();
        let watermark = |row: usize| watermarks.is_valid(row).then(|| watermarks.value(row));
        let mut late = Vec::new();
        if let Some(live) = &mut self.live {
            for &row in selected.iter() {
                if live.judge(keys.key(row), times[row as usize], watermark(row as usize)) {
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

/// Removes erased events, those with sequence 0, from the ones that count: the ledger has them, no row does.
fn without_erased(events: &mut EvaluatedEvents, sequences: Option<&[i64]>) {
    let Some(sequences) = sequences else { return };
    let first = events.rows.start;
    events.selected.retain(|row| sequences[first + *row as usize] != 0);
    events.failed.retain(|failed| sequences[failed.row] != 0);
}
