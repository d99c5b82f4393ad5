//! Describes and reads the changes of a table: rows that are asserted, and keys whose rows are retracted.
//!
//! A change is a row of the decoded columns. If its `_retracted` is true, only its key counts: the row of this key is deleted. Which
//! row it was, only the partition's writer knows ([`crate::partition`]).

use arrow::array::Array;
use serde_json::value::RawValue;
use shared::stream::{ChangeFormat, RowTable};

use super::debezium::{ChangeFacts, TableChange, WITHOUT_BEFORE};
use super::fields::Fields;
use super::records::{RecordParts, RecordPlace, without_schema_id};
use super::reject_reason::RejectReason;
use super::row::{Cell, Row};
use super::session::Session;
use super::token::Token;
use super::{object, text_value, value};
use crate::event_id::hash_keys;

/// The reason against one record that deletes a row and writes another.
pub(super) const OTHER_PARTITION: RejectReason<'static> = RejectReason::NoChange {
    reason: "it changes the key of a row, which may be in another partition; write a deletion and a creation",
};

/// The changes of a table among the rows of a body.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TableChanges {
    /// Hash of each row's key ([`crate::event_id::hash_keys`]): it decides the partition.
    pub keys: Vec<u128>,
    /// The values that rows keep.
    pub kept: Vec<KeptValues>,
    /// Rows beyond one for each change: a change of a key deletes a row and writes another.
    pub added: u64,
}

/// A row that keeps values of the row before it, because its sender does not know them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeptValues {
    /// Index of the row.
    pub row: usize,
    /// Indexes of the columns.
    pub columns: Vec<usize>,
    /// Whether the row before it is the one that the row at the previous index deletes: the key of the row changed.
    pub is_renamed: bool,
}

impl TableChanges {
    /// Changes with the keys in these columns, each of which states all values of its row.
    pub fn of_keys(keys: &[&dyn Array]) -> TableChanges {
        TableChanges { keys: hash_keys(keys), ..TableChanges::default() }
    }
}

/// The part of a session that reads changes.
pub(super) struct ChangeReader<'a> {
    table: RowTable,
    /// The key alone, as `before` and the key of a record hold it.
    key: Fields<'a>,
    parts: RecordParts<'a>,
    /// A second row for keys.
    scratch: Row<'a>,
    kept: Vec<KeptValues>,
    /// Whether the next row follows the deletion of its former key.
    is_renamed: bool,
    pub(super) added: u64,
}

impl<'a> ChangeReader<'a> {
    /// Reads changes of `stream`, if it is a table.
    pub(super) fn new(stream: &'a shared::stream::Stream) -> Option<ChangeReader<'a>> {
        let table = stream.table?;
        let key = Fields::of_columns(stream, &table.key);
        let scratch = Row::new(stream.columns.len(), key.nested);
        let parts = RecordParts::new(stream);
        Some(ChangeReader { table, key, parts, scratch, kept: Vec::new(), is_renamed: false, added: 0 })
    }

    /// Whether every event is an envelope around the row.
    pub(super) fn has_envelopes(&self) -> bool {
        self.table.format.has_envelopes()
    }

    /// Notes which cells of the row at `index` hold the mark of values that are not known, and empties them.
    pub(super) fn keep(&mut self, index: usize, row: &mut Row<'a>) {
        if !self.has_envelopes() {
            return;
        }
        let is_renamed = std::mem::take(&mut self.is_renamed);
        let (key, Row { cells, unescaped, .. }) = (self.table.key, row);
        let is_mark = |cell: &Cell<'a>| match (self.table.format, cell) {
            (ChangeFormat::Debezium, Cell::Text(text)) => *text == ChangeFormat::UNAVAILABLE,
            // JSON escapes the zero.
            (ChangeFormat::Postgres, Cell::Unescaped { start, end }) => {
                unescaped[*start..*end] == *ChangeFormat::UNCHANGED
            }
            _ => false,
        };
        let unknown = |(column, cell): (usize, &mut Cell<'a>)| {
            (!key.contains(&column) && is_mark(cell)).then(|| {
                *cell = Cell::Null;
                column
            })
        };
        let columns: Vec<usize> = cells.iter_mut().enumerate().filter_map(unknown).collect();
        if !columns.is_empty() {
            self.kept.push(KeptValues { row: index, columns, is_renamed });
        }
    }

    /// Adds what the reader knows to the changes of the decoded rows.
    pub(super) fn complete(self, changes: &mut TableChanges) {
        (changes.kept, changes.added) = (self.kept, self.added);
    }

    /// Reads the key of a row from an object that has it, into the scratch row.
    fn read_key(&mut self, text: &'a str) -> Result<(), RejectReason<'a>> {
        self.scratch.clear();
        object::read(text, &self.key, &mut self.scratch)?;
        self.check_key()
    }

    /// Checks that the scratch row has all values of the key.
    fn check_key(&self) -> Result<(), RejectReason<'a>> {
        let is_missing = |index: &&usize| matches!(self.scratch.cells[**index], Cell::Missing | Cell::Null);
        match self.table.key.iter().find(is_missing) {
            Some(index) => Err(RejectReason::NoPrimaryKey { column: &self.key.columns[*index] }),
            None => Ok(()),
        }
    }

    /// Reads the key of a record: an object with the key's columns, alone or as `payload`; the value alone of a key of one column, or
    /// an array of those of a key of several.
    fn read_record_key(&mut self, key: Option<&'a [u8]>) -> Result<(), RejectReason<'a>> {
        let column = &self.key.columns[self.table.key.first()];
        let text = key.map(without_schema_id).ok_or(RejectReason::NoPrimaryKey { column })?;
        let text =
            std::str::from_utf8(text).map_err(|error| RejectReason::NotUtf8 { column: error.valid_up_to() + 1 })?;
        let text = text.trim();
        if text.starts_with('{') {
            return self.read_key(payload(text).unwrap_or(text));
        }
        self.scratch.clear();
        let Some(only) = self.table.key.only() else { return self.read_values(text) };
        let (cell, unescaped) = (&mut self.scratch.cells[only], &mut self.scratch.unescaped);
        if text.starts_with('"') {
            return value::read(column, Token::of(text), unescaped, cell).map_err(|error| error.reason(column, text));
        }
        let not_value = |_| RejectReason::NotValue { column, text: text.to_owned() };
        *cell = text_value::read(column, text).map_err(not_value)?;
        Ok(())
    }

    /// Reads an array of the values of a key, in the order of its columns, into the scratch row.
    fn read_values(&mut self, text: &'a str) -> Result<(), RejectReason<'a>> {
        let no_array = || RejectReason::NoKeyArray { columns: self.table.key.len() };
        let values: Vec<&'a RawValue> = serde_json::from_str(text).map_err(|_| no_array())?;
        if values.len() != self.table.key.len() {
            return Err(no_array());
        }
        for (index, value) in self.table.key.iter().zip(values) {
            let (column, raw) = (&self.key.columns[*index], value.get());
            let (cell, unescaped) = (&mut self.scratch.cells[*index], &mut self.scratch.unescaped);
            value::read(column, Token::of(raw), unescaped, cell).map_err(|error| error.reason(column, raw))?;
        }
        self.check_key()
    }
}

/// The object in the member `payload` of an object, which stands beside its schema.
fn payload(text: &str) -> Option<&str> {
    #[derive(serde::Deserialize)]
    struct Wrapped<'a> {
        #[serde(borrow, default)]
        payload: Option<&'a RawValue>,
    }
    let payload = serde_json::from_str::<Wrapped<'_>>(text).ok()?.payload?.get();
    payload.starts_with('{').then_some(payload)
}

impl<'a> Session<'a> {
    /// Reads the value of a record of a table's topic; without a value, it deletes the row that the record's key names. A record that
    /// deletes all rows ends the reading: see [`Session::truncate`].
    pub(super) fn read_table_record(&mut self, line: u64, text: Option<&'a [u8]>, place: RecordPlace<'a, '_, 'a>) {
        let bytes = text.unwrap_or_default();
        let read = match text.map(simdutf8::compat::from_utf8) {
            None => self.delete_record(line, &place),
            Some(Err(error)) => Err(RejectReason::NotUtf8 { column: error.valid_up_to() + 1 }),
            Some(Ok(text)) => self.read_change(line, text, Some(&place)),
        };
        match read {
            Err(RejectReason::Truncate) => match self.stream().partitions {
                1 => self.truncate = Some(line as usize),
                _ => self.reject(line, bytes, RejectReason::TruncateOfPartitions),
            },
            Err(reason) => self.reject(line, bytes, reason),
            Ok(()) => {}
        }
    }

    fn delete_record(&mut self, line: u64, place: &RecordPlace<'a, '_, 'a>) -> Result<(), RejectReason<'a>> {
        let reader = self.changes.as_mut().expect("only tables have changes");
        reader.read_record_key(place.record.key.as_deref())?;
        self.row.clear();
        self.settle_deletion(line, Some(place));
        Ok(())
    }

    /// Reads and settles one change. The caller lists the reason against it.
    pub(super) fn read_change(
        &mut self,
        line: u64,
        text: &'a str,
        place: Option<&RecordPlace<'a, '_, 'a>>,
    ) -> Result<(), RejectReason<'a>> {
        let text = text.trim_matches(|c| matches!(c, ' ' | '\t' | '\r' | '\n'));
        self.check_length(text.as_bytes())?;
        let has_envelopes = self.changes.as_ref().is_some_and(ChangeReader::has_envelopes);
        if !has_envelopes {
            return self.read_row(line, text, None, place);
        }
        let TableChange { before, after, facts } = TableChange::read(text)?;
        let Some(after) = after else {
            let reader = self.changes.as_mut().expect("only tables have changes");
            match (before, place.and_then(|place| place.record.key.as_deref())) {
                (Some(before), _) => reader.read_key(before)?,
                (None, Some(key)) => reader.read_record_key(Some(key))?,
                (None, None) => return Err(WITHOUT_BEFORE),
            }
            self.row.clear();
            self.settle_deletion(line, place);
            return Ok(());
        };
        if let Some(before) = before.filter(|_| facts.operation == "u") {
            self.changes.as_mut().expect("only tables have changes").read_key(before)?;
            return self.read_row(line, after, Some((facts, true)), place);
        }
        self.read_row(line, after, Some((facts, false)), place)
    }

    /// Reads and settles the row after a change. If the scratch row has the key before it, and it is another one, the row of
    /// that key is deleted first.
    fn read_row(
        &mut self,
        line: u64,
        text: &'a str,
        change: Option<(ChangeFacts, bool)>,
        place: Option<&RecordPlace<'a, '_, 'a>>,
    ) -> Result<(), RejectReason<'a>> {
        self.row.clear();
        object::read(text, &self.fields, &mut self.row)?;
        let reader = self.changes.as_mut().expect("only tables have changes");
        if let Some((facts, _)) = &change {
            reader.parts.add_change(facts, &mut self.row);
        }
        if let Some(place) = place {
            place.parts.add(place.record, &mut self.row)?;
        }
        self.check_row()?;
        if change.is_some_and(|(_, has_before)| has_before) && self.has_other_key() {
            if place.is_some() && self.stream().partitions > 1 {
                return Err(OTHER_PARTITION);
            }
            // Both or none: the row that follows was checked.
            let empty = Row::new(self.stream().columns.len(), self.fields.nested);
            let after = std::mem::replace(&mut self.row, empty);
            self.settle_deletion(line, place);
            let reader = self.changes.as_mut().expect("only tables have changes");
            (reader.added, reader.is_renamed) = (reader.added + 1, true);
            self.outcome.lines_read -= 1;
            self.row = after;
        }
        self.settle(line, || text.as_bytes());
        Ok(())
    }

    /// Whether the scratch row has another key than the row.
    fn has_other_key(&self) -> bool {
        let Some(reader) = &self.changes else { return false };
        let text = |row: &Row<'a>, index: usize| match row.cells[index] {
            Cell::Text(text) => Some(text.to_owned()),
            Cell::Unescaped { start, end } => Some(row.unescaped[start..end].to_owned()),
            _ => None,
        };
        let differs = |index: &usize| match (text(&reader.scratch, *index), text(&self.row, *index)) {
            (None, None) => reader.scratch.cells[*index] != self.row.cells[*index],
            (before, after) => before != after,
        };
        reader.table.key.iter().any(differs)
    }

    /// Settles the deletion of the row whose key the scratch row has.
    fn settle_deletion(&mut self, line: u64, place: Option<&RecordPlace<'a, '_, 'a>>) {
        let reader = self.changes.as_mut().expect("only tables have changes");
        for key in reader.table.key.iter().copied() {
            self.row.cells[key] = match reader.scratch.cells[key] {
                Cell::Unescaped { start, end } => {
                    let from = self.row.unescaped.len();
                    self.row.unescaped.push_str(&reader.scratch.unescaped[start..end]);
                    Cell::Unescaped { start: from, end: self.row.unescaped.len() }
                }
                cell => cell,
            };
        }
        let retracted = self.stream().retracted().expect("a table has this column");
        self.row.cells[retracted] = Cell::Boolean(true);
        if let (Some(place), Some(index)) = (place, self.stream().source_offset()) {
            self.row.cells[index] = Cell::Integer(place.record.offset);
        }
        self.settle(line, || b"");
    }
}
