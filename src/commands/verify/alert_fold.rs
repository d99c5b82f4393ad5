//! Folds the events of the log one after the other, and says for every key of an alert whether its condition was ever true
//! of a live row, and whether it is true of the exact ones. It knows neither the layers nor how they evaluate alerts: it shares
//! with them only expressions, windows, and the verdict of intake on each event (its place in the log, and the watermark).
//!
//! A live row includes what the exact row had at the last cut, and since then every event that is not late. An exact row
//! includes late events, and of several events with one id and event date the first.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BooleanArray, RecordBatch, RecordBatchOptions, TimestampMicrosecondArray, UInt32Array,
    new_null_array,
};
use arrow::compute::{nullif, take};
use arrow::datatypes::{Field, Schema, TimestampMicrosecondType};
use serde_json::{Map, Value};
use shared::alert::{Alert, AlertColumn, KeyColumn};
use shared::double::canonical_column;
use shared::evaluate::events::{EvaluatedEvents, EventExpressions, Needed};
use shared::evaluate::pieces::evaluate_or_null;
use shared::handoff::LogBatch;
use shared::json_cell::json_cell;
use shared::partial::query_budget::QueryBudget;
use shared::scalar::Scalar;
use shared::stream::Stream;
use shared::time::{Micros, micros_of};
use shared::view::{View, ViewLayers};
use shared::window::{Window, WindowId};

use super::naive_sums::{Accumulated, Number, column, is_simple, number};

/// The two rows of a place: what live queries show, and what is exact.
const LIVE: usize = 0;
const EXACT: usize = 1;

/// What the events say about one key of an alert.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct KeyTruth {
    /// Whether the condition was true of a live row after some event since the last cut.
    pub was_true: bool,
    /// Whether it is true of a live row now.
    pub is_true: bool,
    /// Whether it is true of an exact row now.
    pub is_exact: bool,
    /// Whether it was at the last cut.
    pub was_exact: bool,
}

/// The fold of the alerts of one view.
#[derive(Debug)]
pub struct AlertFold {
    stream: Arc<Stream>,
    view: View,
    alerts: Vec<FoldedAlert>,
    expressions: EventExpressions,
    reads_previous: bool,
    /// Ids and event dates so far.
    seen: HashSet<String>,
    groups: HashMap<String, usize>,
    places: HashMap<(WindowId, usize), usize>,
    rows: Vec<Row>,
}

#[derive(Debug)]
struct FoldedAlert {
    alert: Alert,
    numbers: HashMap<String, usize>,
    keys: Vec<KeyRows>,
}

/// The numbers of rows of a key for which the condition is true.
#[derive(Debug, Default)]
struct KeyRows {
    true_rows: [usize; 2],
    was_true: bool,
    was_exact: bool,
}

#[derive(Debug)]
struct Row {
    window: WindowId,
    group: usize,
    sides: [Side; 2],
    /// By alert: the key, and whether the condition is true of each side.
    truths: Vec<(usize, [bool; 2])>,
}

/// By aggregate of the view.
#[derive(Debug, Clone, Default)]
struct Side {
    events: u64,
    accumulated: Vec<Accumulated>,
}

/// Rows as they were after single events.
struct Snapshots {
    rows: Vec<usize>,
    /// The event of the piece.
    events: Vec<u32>,
    /// By aggregate.
    values: Vec<Vec<Option<Number>>>,
    previous: Vec<Vec<Option<Number>>>,
    has_no_previous: Vec<bool>,
}

/// Returns why the alert cannot be folded; `None`: it can.
pub fn why_not(stream: &Stream, view: &View, alert: &Alert) -> Option<String> {
    if stream.partitions > 1 {
        return Some(format!("the order of events in {} partitions is not known", stream.partitions));
    }
    if let Some(join) = view.joins.first() {
        return Some(format!("the rows of table {} are not folded independently", join.table.name));
    }
    if view.layers == ViewLayers::Speed {
        return Some("no batch run judges a view of the speed layer alone".to_owned());
    }
    if view.window.gap().is_some() || matches!(view.window, Window::Slide { .. }) {
        return Some("sessions and trailing windows are not folded independently".to_owned());
    }
    if view.retention.is_some() || stream.retention.is_some() {
        return Some("retention drops rows".to_owned());
    }
    let mut reads = Vec::new();
    let columns = AlertColumn::all(view);
    alert.condition.for_each_column(&mut |index| reads.extend(measure_of(columns[index])));
    let measures = reads.iter().map(|measure| &view.measures[*measure].expression);
    let mut reason = None;
    for scalar in measures.chain(&view.having) {
        scalar.for_each_column(&mut |index| {
            if let Err(name) = is_simple(&view.aggregates[index]) {
                reason = Some(format!("{name} is not folded independently"));
            }
        });
    }
    reason
}

fn measure_of(column: AlertColumn) -> Option<usize> {
    match column {
        AlertColumn::Key(_) => None,
        AlertColumn::Measure(m) | AlertColumn::Lower(m) | AlertColumn::Upper(m) | AlertColumn::Previous(m) => Some(m),
    }
}

impl AlertFold {
    /// Starts with no events. [`why_not`] is `None` for each of `alerts`.
    pub fn new(stream: Arc<Stream>, view: View, alerts: Vec<Alert>) -> AlertFold {
        let folded = |alert| FoldedAlert { alert, numbers: HashMap::new(), keys: Vec::new() };
        AlertFold {
            expressions: EventExpressions::new(&view),
            reads_previous: alerts.iter().any(|alert| alert.reads_previous(&view)),
            stream,
            view,
            alerts: alerts.into_iter().map(folded).collect(),
            seen: HashSet::new(),
            groups: HashMap::new(),
            places: HashMap::new(),
            rows: Vec::new(),
        }
    }

    /// Folds the next events of the log.
    pub fn push(&mut self, batch: &LogBatch) -> anyhow::Result<()> {
        let expressions = self.expressions.clone();
        expressions.for_each_piece::<anyhow::Error>(&batch.rows, Needed::All, &mut |events| {
            let rows = batch.rows.slice(events.rows.start, events.rows.len());
            self.fold(&rows, &events)
        })
    }

    /// Returns what the events so far say, by alert and key.
    pub fn truths(&self) -> impl Iterator<Item = (&Alert, BTreeMap<String, KeyTruth>)> {
        self.alerts.iter().map(|folded| {
            let truth = |(key, number): (&String, &usize)| {
                let rows = &folded.keys[*number];
                let truth = KeyTruth {
                    was_true: rows.was_true,
                    is_true: rows.true_rows[LIVE] > 0,
                    is_exact: rows.true_rows[EXACT] > 0,
                    was_exact: rows.was_exact,
                };
                (key.clone(), truth)
            };
            (&folded.alert, folded.numbers.iter().map(truth).collect())
        })
    }

    /// Lets live rows be the exact ones, as a batch run does.
    pub fn cut(&mut self) {
        for row in &mut self.rows {
            row.sides[LIVE] = row.sides[EXACT].clone();
            row.truths.iter_mut().for_each(|(_, holds)| holds[LIVE] = holds[EXACT]);
        }
        for rows in self.alerts.iter_mut().flat_map(|folded| &mut folded.keys) {
            rows.true_rows[LIVE] = rows.true_rows[EXACT];
            rows.was_true = false;
            rows.was_exact = rows.true_rows[EXACT] > 0;
        }
    }

    fn fold(&mut self, rows: &RecordBatch, events: &EvaluatedEvents) -> anyhow::Result<()> {
        let times = rows.column(self.stream.event_time).as_primitive::<TimestampMicrosecondType>();
        let watermarks = rows.column(self.stream.columns.len()).as_primitive::<TimestampMicrosecondType>();
        let lateness = micros_of(self.stream.allowed_lateness);
        let mut snapshots = [LIVE, EXACT].map(|_| Snapshots::new(&self.view));
        let mut selected = events.selected.iter().peekable();
        for at in 0..rows.num_rows() {
            let time = Micros(times.value(at));
            // Also an event that no row includes makes a later one with its id a duplicate.
            let is_first = self.is_first(rows, at, time);
            if selected.next_if(|row| **row as usize == at).is_none() {
                continue;
            }
            let closes = self.view.window.last_end(time).map(|end| end.0.saturating_add(lateness));
            let is_late = watermarks.is_valid(at) && closes.is_some_and(|closes| closes <= watermarks.value(at));
            let values = self.values(events, at);
            for row in self.rows_of(events, at, time) {
                for (side, is_in) in [(LIVE, !is_late), (EXACT, is_first)] {
                    if is_in {
                        self.add(row, side, &values);
                        self.take_snapshots(row, side, at, &mut snapshots[side]);
                    }
                }
            }
        }
        let [live, exact] = snapshots;
        self.judge(LIVE, &live, &events.dimensions)?;
        self.judge(EXACT, &exact, &events.dimensions)
    }

    fn is_first(&mut self, rows: &RecordBatch, at: usize, time: Micros) -> bool {
        let Some(id) = self.stream.primary_key else { return true };
        let entity = self.stream.entity.map(|entity| json_cell(rows.column(entity), at));
        let identity = Value::from_iter([json_cell(rows.column(id), at), entity.into(), time.day().to_string().into()]);
        self.seen.insert(identity.to_string())
    }

    /// Returns the value of every aggregate's argument; `None`: the aggregate ignores the event.
    fn values(&self, events: &EvaluatedEvents, at: usize) -> Vec<Option<Number>> {
        let value = |index: usize| {
            let passes = events.masks[index].as_ref().is_none_or(|mask| mask.is_valid(at) && mask.value(at));
            match &events.arguments[index] {
                _ if !passes => None,
                Some(argument) => number(argument, at),
                None => Some(Number::Integer(1)),
            }
        };
        (0..self.view.aggregates.len()).map(value).collect()
    }

    /// Returns the rows that include an event, made if they are new.
    fn rows_of(&mut self, events: &EvaluatedEvents, at: usize, time: Micros) -> Vec<usize> {
        let dimensions: Vec<Value> = events.dimensions.iter().map(|column| json_cell(column, at)).collect();
        let next = self.groups.len();
        let group = *self.groups.entry(Value::from(dimensions.clone()).to_string()).or_insert(next);
        let mut windows = Vec::new();
        self.view.window.for_each_window(self.view.window.pane_of(time), |window| windows.push(window));
        let row = |window: WindowId| {
            let next = self.rows.len();
            let row = *self.places.entry((window, group)).or_insert(next);
            if row == next {
                let truths = self.alerts.iter_mut().map(|folded| {
                    let key = folded.key(&self.view, window, &dimensions);
                    (key, [false; 2])
                });
                let truths = truths.collect();
                let side = Side { events: 0, accumulated: vec![Accumulated::default(); self.view.aggregates.len()] };
                self.rows.push(Row { window, group, sides: [side.clone(), side], truths });
            }
            row
        };
        windows.into_iter().map(row).collect()
    }

    fn add(&mut self, row: usize, side: usize, values: &[Option<Number>]) {
        let side = &mut self.rows[row].sides[side];
        side.events += 1;
        for ((accumulated, aggregate), value) in side.accumulated.iter_mut().zip(&self.view.aggregates).zip(values) {
            if let Some(value) = value {
                accumulated.add(aggregate.function, *value);
            }
        }
    }

    /// Takes a snapshot of the row, and of the one whose previous window it is.
    fn take_snapshots(&self, row: usize, side: usize, at: usize, into: &mut Snapshots) {
        let Row { window, group, .. } = self.rows[row];
        let place = |window: i64| self.places.get(&(WindowId(window), group)).copied();
        let (before, after) = match self.view.window {
            Window::Tumble(grid) if self.reads_previous => {
                (place(grid.start_of(window.0.saturating_sub(1))), place(grid.end_of(window.0)))
            }
            _ => (None, None),
        };
        let exists = |row: &usize| self.rows[*row].sides[side].events > 0;
        for (row, before) in [(Some(row), before), (after.filter(exists), Some(row))] {
            let Some(row) = row else { continue };
            let before = before.filter(exists).map(|before| &self.rows[before].sides[side]);
            into.rows.push(row);
            into.events.push(at as u32);
            into.has_no_previous.push(before.is_none());
            for (index, aggregate) in self.view.aggregates.iter().enumerate() {
                into.values[index].push(self.rows[row].sides[side].accumulated[index].value(aggregate));
                into.previous[index].push(before.and_then(|before| before.accumulated[index].value(aggregate)));
            }
        }
    }

    /// Evaluates every condition over the snapshots of one side, in their order.
    fn judge(&mut self, side: usize, snapshots: &Snapshots, dimensions: &[ArrayRef]) -> anyhow::Result<()> {
        if snapshots.rows.is_empty() {
            return Ok(());
        }
        let aggregates = self.aggregates(&snapshots.values)?;
        let shown = match &self.view.having {
            Some(having) => Some(evaluated(having, &aggregates)?),
            None => None,
        };
        let previous = self.aggregates(&snapshots.previous)?;
        for index in 0..self.alerts.len() {
            let condition = self.alerts[index].alert.condition.clone();
            let table = self.table(&condition, snapshots, (&aggregates, &previous), dimensions)?;
            let satisfied = evaluated(&condition, &table)?;
            for (at, row) in snapshots.rows.iter().enumerate() {
                let holds = is_true(&satisfied, at) && shown.as_ref().is_none_or(|shown| is_true(shown, at));
                self.note(index, *row, side, holds);
            }
        }
        Ok(())
    }

    fn note(&mut self, alert: usize, row: usize, side: usize, holds: bool) {
        let (key, before) = &mut self.rows[row].truths[alert];
        let rows = &mut self.alerts[alert].keys[*key];
        rows.was_true |= side == LIVE && holds;
        match (std::mem::replace(&mut before[side], holds), holds) {
            (false, true) => rows.true_rows[side] += 1,
            (true, false) => rows.true_rows[side] -= 1,
            _ => {}
        }
    }

    fn aggregates(&self, values: &[Vec<Option<Number>>]) -> anyhow::Result<RecordBatch> {
        let of = |(aggregate, values): (&shared::view::Aggregate, &Vec<Option<Number>>)| {
            column(aggregate.data_type(), values)
        };
        let columns = self.view.aggregates.iter().zip(values).map(of).collect::<Result<Vec<_>, _>>()?;
        batch(columns, values.first().map_or(0, Vec::len))
    }

    /// Returns the columns that the condition reads; the others are NULL.
    fn table(
        &self,
        condition: &Scalar,
        snapshots: &Snapshots,
        (aggregates, previous): (&RecordBatch, &RecordBatch),
        dimensions: &[ArrayRef],
    ) -> anyhow::Result<RecordBatch> {
        let all = AlertColumn::all(&self.view);
        let mut reads = vec![false; all.len()];
        condition.for_each_column(&mut |index| reads[index] = true);
        let bounds = |row: &usize| self.view.window.bounds(self.rows[*row].window);
        let events = UInt32Array::from(snapshots.events.clone());
        let mut columns: Vec<ArrayRef> = Vec::new();
        for (column, reads) in all.iter().zip(reads) {
            columns.push(match *column {
                _ if !reads => new_null_array(&column.data_type(&self.view).arrow(), snapshots.rows.len()),
                AlertColumn::Key(KeyColumn::WindowStart) => {
                    times(snapshots.rows.iter().map(|row| Some(bounds(row).0.0)))
                }
                AlertColumn::Key(KeyColumn::WindowEnd) => {
                    times(snapshots.rows.iter().map(|row| bounds(row).1.map(|end| end.0)))
                }
                AlertColumn::Key(KeyColumn::Dimension(index)) => take(&dimensions[index], &events, None)?,
                // Folded values are exact: each is its own bounds.
                AlertColumn::Measure(m) | AlertColumn::Lower(m) | AlertColumn::Upper(m) => {
                    canonical_column(evaluated(&self.view.measures[m].expression, aggregates)?)
                }
                AlertColumn::Previous(measure) => {
                    let values = evaluated(&self.view.measures[measure].expression, previous)?;
                    nullif(&canonical_column(values), &BooleanArray::from(snapshots.has_no_previous.clone()))?
                }
            });
        }
        batch(columns, snapshots.rows.len())
    }
}

impl FoldedAlert {
    /// Returns the number of the key of a row.
    fn key(&mut self, view: &View, window: WindowId, dimensions: &[Value]) -> usize {
        let (start, end) = view.window.bounds(window);
        let value = |column: KeyColumn| match column {
            KeyColumn::WindowStart => start.to_string().into(),
            KeyColumn::WindowEnd => end.map_or(Value::Null, |end| end.to_string().into()),
            KeyColumn::Dimension(index) => dimensions[index].clone(),
        };
        let columns = self.alert.once_per.iter();
        let key: Map<String, Value> = columns.map(|column| (column.name(view).to_owned(), value(*column))).collect();
        let next = self.keys.len();
        let number = *self.numbers.entry(Value::from(key).to_string()).or_insert(next);
        if number == next {
            self.keys.push(KeyRows::default());
        }
        number
    }
}

impl Snapshots {
    fn new(view: &View) -> Snapshots {
        let columns = || vec![Vec::new(); view.aggregates.len()];
        Snapshots {
            rows: Vec::new(),
            events: Vec::new(),
            values: columns(),
            previous: columns(),
            has_no_previous: Vec::new(),
        }
    }
}

fn evaluated(scalar: &Scalar, rows: &RecordBatch) -> anyhow::Result<ArrayRef> {
    Ok(evaluate_or_null(&[scalar], rows, &QueryBudget::unlimited(), 0)?.remove(0).column)
}

fn batch(columns: Vec<ArrayRef>, rows: usize) -> anyhow::Result<RecordBatch> {
    let field = |(at, column): (usize, &ArrayRef)| Field::new(format!("c{at}"), column.data_type().clone(), true);
    let schema = Schema::new(columns.iter().enumerate().map(field).collect::<Vec<_>>());
    let options = RecordBatchOptions::new().with_row_count(Some(rows));
    Ok(RecordBatch::try_new_with_options(Arc::new(schema), columns, &options)?)
}

fn is_true(column: &ArrayRef, row: usize) -> bool {
    column.is_valid(row) && column.as_boolean().value(row)
}

fn times(values: impl Iterator<Item = Option<i64>>) -> ArrayRef {
    let values: TimestampMicrosecondArray = values.collect();
    Arc::new(values.with_timezone("UTC"))
}
