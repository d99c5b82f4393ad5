//! Writes rows of a view as records: JSON keys and values, perhaps in envelopes ([`mod@crate::debezium`]), and headers with kind,
//! layer, version and bounds. For Avro it returns the columns of keys and values ([`crate::avro`]).

use std::collections::BTreeMap;
use std::sync::Arc;

use alerts::fetch::FetchedRows;
use alerts::finished::{FinishError, FinishedRows};
use arrow::array::{Array, ArrayRef, RecordBatch, TimestampMicrosecondArray, UInt64Array, new_empty_array};
use arrow::compute::take;
use arrow::error::ArrowError;
use bytes::Bytes;
use kafka::OutgoingRecord;
use serde_json::Value;
use shared::alert::KeyColumn;
use shared::changed_rows::ChangedRow;
use shared::json_cell::json_cell;
use shared::partial::keys::KeyLayout;
use shared::sink::{Emit, Sink, SinkFormat};
use shared::time::Micros;
use shared::view::{OutputColumn, View};

use crate::avro::nullable_rows;
use crate::debezium::{Operation, RowChange, envelope};
use crate::sent::ValueHash;

/// The header that says why a record was written.
pub(crate) const KIND: &str = "_kind";
/// The header with the layer of the figures.
pub(crate) const LAYER: &str = "_layer";
/// The header with the active batch version.
pub(crate) const VERSION: &str = "_version";
/// The header with the bounds of estimated measures.
pub(crate) const BOUNDS: &str = "_bounds";

/// Why a record was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RecordKind {
    /// The row is new, or its value has changed.
    Upsert,
    /// The window of the row is closed, and the topic does not have the row yet.
    Final,
    /// The value of a row that the topic has was changed afterwards, by a late event or a batch run.
    Correction,
    /// The view does not have the row any more.
    Delete,
}

impl RecordKind {
    /// Returns the kind of a record with the value of a row that the topic has as `sent`.
    pub fn of_row(emit: Emit, sent: Option<ValueHash>) -> RecordKind {
        match (emit, sent) {
            (Emit::Changes, _) => RecordKind::Upsert,
            (Emit::Final, None | Some(ValueHash::STALE)) => RecordKind::Final,
            (Emit::Final, Some(_)) => RecordKind::Correction,
        }
    }

    fn name(self) -> &'static [u8] {
        match self {
            RecordKind::Upsert => b"upsert",
            RecordKind::Final => b"final",
            RecordKind::Correction => b"correction",
            RecordKind::Delete => b"delete",
        }
    }
}

/// Writes the records of one sink under one definition of its view.
#[derive(Debug)]
pub struct RecordWriter<'a> {
    sink: &'a Sink,
    view: &'a View,
    layout: KeyLayout,
    /// The active batch version.
    version: Option<i64>,
    /// The time of the epoch.
    now: Micros,
}

/// The values and bounds of fetched rows.
pub struct RowValues<'a> {
    view: &'a View,
    rows: &'a FetchedRows,
    finished: FinishedRows,
}

impl<'a> RecordWriter<'a> {
    /// Returns a writer of records under `version`, at `now`.
    ///
    /// # Errors
    /// The types of the dimensions cannot be keys, which does not happen for a view that folds.
    pub fn new(
        sink: &'a Sink,
        view: &'a View,
        version: Option<i64>,
        now: Micros,
    ) -> Result<RecordWriter<'a>, ArrowError> {
        let types = view.dimensions.iter().map(|dimension| dimension.expression.data_type).collect();
        Ok(RecordWriter { sink, view, layout: KeyLayout::new(types)?, version, now })
    }

    /// Returns the keys of the records of `rows`.
    ///
    /// # Errors
    /// An encoded key is not one of the view.
    pub fn keys(&self, rows: &[ChangedRow]) -> Result<Vec<Bytes>, ArrowError> {
        let dimensions = match self.view.dimensions.is_empty() {
            true => Vec::new(),
            false => self.layout.decode(rows.iter().map(|(_, key)| &**key))?,
        };
        let key = |(at, (window, _)): (usize, &ChangedRow)| {
            let (start, end) = self.view.window.bounds(*window);
            let mut json = JsonObject::default();
            for column in &self.sink.key {
                let value = match column {
                    KeyColumn::WindowStart => Value::from(start.to_string()),
                    KeyColumn::WindowEnd => end.map_or(Value::Null, |end| end.to_string().into()),
                    KeyColumn::Dimension(index) => json_cell(&dimensions[*index], at),
                };
                json.add(column.name(self.view), &value);
            }
            json.finish()
        };
        Ok(rows.iter().enumerate().map(key).collect())
    }

    /// Returns the columns of the keys of `rows`.
    ///
    /// # Errors
    /// An encoded key is not one of the view.
    pub fn key_columns(&self, rows: &[ChangedRow]) -> Result<RecordBatch, ArrowError> {
        let dimensions = match self.view.dimensions.is_empty() || rows.is_empty() {
            true => Vec::new(),
            false => self.layout.decode(rows.iter().map(|(_, key)| &**key))?,
        };
        let bounds: Vec<(Micros, Option<Micros>)> =
            rows.iter().map(|(window, _)| self.view.window.bounds(*window)).collect();
        let column = |column: &KeyColumn| match column {
            KeyColumn::WindowStart => times(bounds.iter().map(|(start, _)| Some(start.0))),
            KeyColumn::WindowEnd => times(bounds.iter().map(|(_, end)| end.map(|end| end.0))),
            KeyColumn::Dimension(index) => match dimensions.get(*index) {
                Some(column) => Arc::clone(column),
                None => new_empty_array(&self.view.dimensions[*index].expression.data_type.arrow()),
            },
        };
        let columns = self.sink.key.iter().map(|key| (key.name(self.view).to_owned(), column(key))).collect();
        nullable_rows(columns, rows.len())
    }

    /// Returns the records that say that a row is deleted: a tombstone, behind an envelope if the sink writes these.
    pub fn deleted(&self, key: Bytes) -> impl Iterator<Item = OutgoingRecord> {
        let change = RowChange { operation: Operation::Deleted, key: &key, value: None, layer: None };
        let envelope = self.has_envelopes().then(|| envelope(self.sink, &change, self.version, self.now));
        let envelope = envelope.map(|value| self.record(RecordKind::Delete, key.clone(), Some(value), Vec::new()));
        envelope.into_iter().chain([self.record(RecordKind::Delete, key, None, Vec::new())])
    }

    fn has_envelopes(&self) -> bool {
        self.sink.target.format() == SinkFormat::DebeziumJson
    }

    /// Returns the record of a row with this value, of which the topic has `sent`.
    pub fn upserted(
        &self,
        sent: Option<ValueHash>,
        key: Bytes,
        value: Bytes,
        values: &RowValues<'_>,
        row: usize,
    ) -> OutgoingRecord {
        let kind = RecordKind::of_row(self.sink.emit, sent);
        let layer = values.rows.merged.layers[row].name();
        let value = match self.has_envelopes() {
            false => value,
            true => {
                let operation = Operation::of_row(sent);
                let change = RowChange { operation, key: &key, value: Some(&value), layer: Some(layer) };
                envelope(self.sink, &change, self.version, self.now)
            }
        };
        let mut headers = vec![(LAYER, Bytes::from_static(layer.as_bytes()))];
        headers.extend(values.bounds(row).map(|bounds| (BOUNDS, bounds)));
        self.record(kind, key, Some(value), headers)
    }

    fn record(
        &self,
        kind: RecordKind,
        key: Bytes,
        value: Option<Bytes>,
        more: Vec<(&'static str, Bytes)>,
    ) -> OutgoingRecord {
        let mut headers = vec![(KIND, Bytes::from_static(kind.name()))];
        headers.extend(self.version.map(|version| (VERSION, Bytes::from(version.to_string()))));
        headers.extend(more);
        OutgoingRecord { topic: self.sink.target.to_string(), key: Some(key), value, headers }
    }
}

impl<'a> RowValues<'a> {
    /// Finishes the measures of `rows`.
    ///
    /// # Errors
    /// A measure cannot be computed.
    pub fn new(view: &'a View, rows: &'a FetchedRows) -> Result<RowValues<'a>, FinishError> {
        Ok(RowValues { view, rows, finished: FinishedRows::new(view, rows)? })
    }

    /// Returns whether a query shows the row.
    pub fn is_shown(&self, row: usize) -> bool {
        self.finished.is_shown(row)
    }

    /// Returns the value of the record of a row: the columns of the view, in their order.
    pub fn value(&self, row: usize) -> Bytes {
        let time = |time: Option<i64>| time.map_or(Value::Null, |time| Micros(time).to_string().into());
        let mut json = JsonObject::default();
        for column in &self.view.output {
            let (start, end) = self.finished.bounds[row];
            match *column {
                OutputColumn::WindowStart => json.add("window_start", &time(start)),
                OutputColumn::WindowEnd => json.add("window_end", &time(end)),
                OutputColumn::Dimension(index) => {
                    json.add(&self.view.dimensions[index].name, &json_cell(&self.finished.dimensions[index], row));
                }
                OutputColumn::Measure(index) => {
                    json.add(&self.view.measures[index].name, &json_cell(&self.finished.measures[index].column, row));
                }
            }
        }
        json.finish()
    }

    /// Returns the columns of the values of `rows`, in the order of the view.
    ///
    /// # Errors
    /// There is no such row.
    pub fn columns(&self, rows: &[usize]) -> Result<RecordBatch, ArrowError> {
        let taken = UInt64Array::from_iter_values(rows.iter().map(|row| *row as u64));
        let bounds = || rows.iter().map(|row| self.finished.bounds[*row]);
        let mut columns = Vec::with_capacity(self.view.output.len());
        for column in &self.view.output {
            columns.push(match *column {
                OutputColumn::WindowStart => ("window_start".to_owned(), times(bounds().map(|(start, _)| start))),
                OutputColumn::WindowEnd => ("window_end".to_owned(), times(bounds().map(|(_, end)| end))),
                OutputColumn::Dimension(index) => {
                    let values = take(&self.finished.dimensions[index], &taken, None)?;
                    (self.view.dimensions[index].name.clone(), values)
                }
                OutputColumn::Measure(index) => {
                    let values = take(&self.finished.measures[index].column, &taken, None)?;
                    (self.view.measures[index].name.clone(), values)
                }
            });
        }
        nullable_rows(columns, rows.len())
    }

    /// Returns the 95 % intervals of the estimated measures of a row, as a JSON object; `None`: all are exact.
    fn bounds(&self, row: usize) -> Option<Bytes> {
        let mut bounds = BTreeMap::new();
        for (measure, finished) in self.view.measures.iter().zip(&self.finished.measures) {
            let Some(found) = finished.bounds.as_ref().filter(|bounds| bounds.low.is_valid(row)) else { continue };
            let ends = [&found.low, &found.high].map(|end: &ArrayRef| json_cell(end, row));
            bounds.insert(measure.name.as_str(), ends);
        }
        (!bounds.is_empty()).then(|| serde_json::to_vec(&bounds).expect("plain data has a JSON form").into())
    }
}

fn times(values: impl Iterator<Item = Option<i64>>) -> ArrayRef {
    Arc::new(values.collect::<TimestampMicrosecondArray>().with_timezone("UTC"))
}

/// A JSON object whose members stay in the order in which they are added.
#[derive(Debug, Default)]
pub(crate) struct JsonObject(Vec<u8>);

impl JsonObject {
    fn begin(&mut self, name: &str) {
        self.0.push(if self.0.is_empty() { b'{' } else { b',' });
        serde_json::to_writer(&mut self.0, name).expect("a text has a JSON form");
        self.0.push(b':');
    }

    pub(crate) fn add(&mut self, name: &str, value: &Value) {
        self.begin(name);
        serde_json::to_writer(&mut self.0, value).expect("a value has a JSON form");
    }

    /// Adds a member whose value is JSON already; `None`: null.
    pub(crate) fn add_json(&mut self, name: &str, value: Option<&Bytes>) {
        self.begin(name);
        self.0.extend_from_slice(value.map_or(&b"null"[..], |value| value));
    }

    pub(crate) fn finish(mut self) -> Bytes {
        if self.0.is_empty() {
            self.0.push(b'{');
        }
        self.0.push(b'}');
        self.0.into()
    }
}
