//! Collects a body: the columns, the rejections and the counts; one event at a time.

use shared::entity::EntityId;
use shared::explain::duration;
use shared::stream::Stream;
use shared::time::Micros;

use super::columns::Columns;
use super::fast_path::FastPath;
use super::fields::Fields;
use super::object;
use super::outcome::{Outcome, oldest};
use super::reject_reason::RejectReason;
use super::row::{Cell, Row};
use super::table_changes::ChangeReader;
use super::{DecodeError, Decoded, Options};

/// Least bytes of JSON assumed per event when memory for the columns is reserved.
const EVENT_BYTES_GUESS: usize = 128;
/// The same per field. So the reserved memory never exceeds the size of the body.
const FIELD_BYTES_GUESS: usize = 16;

/// The decoding of one body.
pub(super) struct Session<'a> {
    stream: &'a Stream,
    options: Options,
    pub(super) fields: Fields<'a>,
    /// Absent only in tests, which compare the results with and without it.
    fast_path: Option<FastPath>,
    /// Event times before this are too old.
    oldest: i64,
    /// The entity of every event, if the body is for one.
    entity: Option<Cell<'a>>,
    pub(super) row: Row<'a>,
    /// Of a table.
    pub(super) changes: Option<ChangeReader<'a>>,
    columns: Columns,
    rows_max: usize,
    valid: usize,
    /// Index of a record that deletes all rows of its table. Those behind it are not read.
    pub(super) truncate: Option<usize>,
    pub(super) outcome: Outcome,
}

/// Counts of a body of which a part was read.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Progress {
    /// Valid events.
    pub rows: usize,
    pub rejected: u64,
    /// Rejections that are listed.
    pub listed: usize,
    pub unknown_fields: u64,
}

fn cell(id: &EntityId) -> Cell<'_> {
    match id {
        EntityId::Text(text) => Cell::Text(text),
        EntityId::Integer(number) => Cell::Integer(*number),
    }
}

impl<'a> Session<'a> {
    /// Begins a body of `body_bytes` bytes.
    pub(super) fn new(stream: &'a Stream, options: Options, body_bytes: usize, fast_path: bool) -> Session<'a> {
        let fields = Fields::new(stream);
        let columns = stream.columns.len();
        let rows_max = options.values_max / columns.max(1);
        let rows_guess = body_bytes / EVENT_BYTES_GUESS.max(columns * FIELD_BYTES_GUESS) + 1;
        let changes = ChangeReader::new(stream);
        let has_envelopes = changes.as_ref().is_some_and(ChangeReader::has_envelopes);
        Session {
            fast_path: (fast_path && !has_envelopes).then(|| FastPath::new(&fields)),
            changes,
            oldest: oldest(stream, options.arrived_at).0,
            row: Row::new(columns, fields.nested),
            fields,
            columns: Columns::new(stream, rows_guess.min(rows_max)),
            entity: None,
            stream,
            options,
            rows_max,
            valid: 0,
            truncate: None,
            outcome: Outcome::new(options),
        }
    }

    /// Requires every event to be of the entity `id`, which events need not name.
    pub(super) fn of_entity(self, id: &'a EntityId) -> Session<'a> {
        Session { entity: Some(cell(id)), ..self }
    }

    /// Requires the events that follow to be of the entity `id`.
    pub(super) fn switch_entity(&mut self, id: &'a EntityId) {
        self.entity = Some(cell(id));
    }

    /// Returns the counts of the part read so far.
    pub(super) fn progress(&self) -> Progress {
        Progress {
            rows: self.valid,
            rejected: self.outcome.lines_read + self.changes.as_ref().map_or(0, |c| c.added) - self.valid as u64,
            listed: self.outcome.listed(),
            unknown_fields: self.outcome.unknown_fields,
        }
    }

    /// Reads the event that begins at `start` of `text`, if it is of the usual form, and returns where it ends. It counts
    /// once it is settled; the next read discards an event that was not.
    pub(super) fn read_usual(&mut self, text: &'a str, start: usize, line_ends: bool) -> Option<usize> {
        let end = self.fast_path.as_mut()?.read(text, start, line_ends, &self.fields, &mut self.row);
        let end = end.filter(|end| end - start <= self.options.event_bytes_max);
        if end.is_none() {
            self.row.clear();
        }
        end
    }

    /// The stream that the body is for.
    pub(super) fn stream(&self) -> &'a Stream {
        self.stream
    }

    /// An empty row for the next event, which counts once it is settled.
    pub(super) fn row(&mut self) -> &mut Row<'a> {
        self.row.clear();
        &mut self.row
    }

    /// Longest event, in bytes.
    pub(super) fn event_bytes_max(&self) -> usize {
        self.options.event_bytes_max
    }

    pub(super) fn check_length(&self, text: &[u8]) -> Result<(), RejectReason<'a>> {
        let max = self.event_bytes_max();
        if text.len() > max { Err(RejectReason::TooLong { max }) } else { Ok(()) }
    }

    /// Reads and settles the event `text`.
    pub(super) fn read_event(&mut self, line: u64, text: &'a str) {
        self.row.clear();
        if self.changes.as_ref().is_some_and(ChangeReader::has_envelopes) {
            if let Err(reason) = self.read_change(line, text, None) {
                self.reject(line, text.as_bytes(), reason);
            }
            return;
        }
        if let Err(reason) = self.check_length(text.as_bytes()) {
            return self.reject(line, text.as_bytes(), reason);
        }
        match object::read(text, &self.fields, &mut self.row) {
            Ok(()) => self.settle(line, || text.as_bytes()),
            Err(fault) => self.reject(line, text.as_bytes(), fault),
        }
    }

    /// Reads and settles the event `text` of a record. `complete` adds to the row what the record holds beside the event.
    pub(super) fn read_record(
        &mut self,
        line: u64,
        text: &'a str,
        complete: impl FnOnce(&mut Row<'a>) -> Result<(), RejectReason<'a>>,
    ) {
        let trimmed = text.trim_matches(|c| matches!(c, ' ' | '\t' | '\r' | '\n'));
        let read = match self.read_usual(trimmed, 0, true) {
            Some(end) if end == trimmed.len() => Ok(()),
            _ => {
                self.row.clear();
                self.check_length(trimmed.as_bytes()).and_then(|()| object::read(trimmed, &self.fields, &mut self.row))
            }
        };
        match read.and_then(|()| complete(&mut self.row)) {
            Ok(()) => self.settle(line, || text.as_bytes()),
            Err(reason) => self.reject(line, text.as_bytes(), reason),
        }
    }

    /// Appends the event that was read to the columns, unless it lacks its event time or its primary key, or is too old. `text`
    /// is the event as it stands in the body.
    #[inline]
    pub(super) fn settle(&mut self, line: u64, text: impl FnOnce() -> &'a [u8]) {
        if let Err(reason) = self.check_row() {
            return self.reject(line, text(), reason);
        }
        if let Some(changes) = &mut self.changes {
            changes.keep(self.valid, &mut self.row);
        }
        self.outcome.lines_read += 1;
        self.valid += 1;
        if self.valid > self.rows_max {
            // The body will be refused; the columns must not grow further.
            return self.row.clear();
        }
        self.outcome.unknown_fields += self.row.unknown_fields;
        self.columns.append(&mut self.row);
    }

    /// Checks the event time, the keys and the age of the event that was read.
    #[inline]
    pub(super) fn check_row(&mut self) -> Result<(), RejectReason<'a>> {
        if let Some(retracted) = self.stream.retracted() {
            self.check_change(retracted)?;
        }
        let column = &self.stream.columns[self.stream.event_time];
        match self.row.cells[self.stream.event_time] {
            Cell::Integer(time) if time >= self.oldest => {}
            Cell::Integer(time) => {
                let max_age = duration(self.stream.max_age.unwrap_or_default());
                return Err(RejectReason::TooOld { column, time: Micros(time), max_age });
            }
            _ => return Err(RejectReason::NoEventTime { column }),
        }
        if let Some(key) = self.stream.primary_key
            && matches!(self.row.cells[key], Cell::Missing | Cell::Null)
        {
            return Err(RejectReason::NoPrimaryKey { column: &self.stream.columns[key] });
        }
        match self.stream.entity {
            Some(entity) => self.check_entity(entity),
            None => Ok(()),
        }
    }

    /// Checks the key of a change. A deletion needs no event time: it retracts the row with the time that it has.
    fn check_change(&mut self, retracted: usize) -> Result<(), RejectReason<'a>> {
        let deletes = self.row.cells[retracted] == Cell::Boolean(true);
        self.row.cells[retracted] = Cell::Boolean(deletes);
        if deletes {
            self.row.cells[self.stream.event_time] = Cell::Integer(0);
        }
        let Some(table) = self.stream.table else { return Ok(()) };
        for index in table.key.iter() {
            let column = &self.stream.columns[*index];
            match self.row.cells[*index] {
                Cell::Missing | Cell::Null => return Err(RejectReason::NoPrimaryKey { column }),
                // No path could name the row.
                Cell::Text("") if table.key.only().is_some() => return Err(RejectReason::EmptyKey { column }),
                _ => {}
            }
        }
        Ok(())
    }

    /// Checks the entity of the event that was read, and adds the one that the body is for.
    fn check_entity(&mut self, entity: usize) -> Result<(), RejectReason<'a>> {
        let column = &self.stream.columns[entity];
        let (unescaped, cell) = (&self.row.unescaped, &mut self.row.cells[entity]);
        let text = |cell: &Cell<'a>| match cell {
            Cell::Text(text) => Some((*text).to_owned()),
            Cell::Unescaped { start, end } => Some(unescaped[*start..*end].to_owned()),
            _ => None,
        };
        match (*cell, self.entity) {
            (Cell::Missing, Some(entity)) => *cell = entity,
            (Cell::Missing | Cell::Null | Cell::Text(""), _) => return Err(RejectReason::NoEntity { column }),
            (Cell::Unescaped { start, end }, _) if start == end => return Err(RejectReason::NoEntity { column }),
            (found, Some(entity)) if found != entity && (text(&found).is_none() || text(&found) != text(&entity)) => {
                return Err(RejectReason::OtherEntity { column });
            }
            _ => {}
        }
        Ok(())
    }

    /// Counts the event `text` as rejected; lists the reason and keeps the text, while there is room.
    #[cold]
    pub(super) fn reject(&mut self, line: u64, text: &[u8], fault: RejectReason<'_>) {
        self.outcome.lines_read += 1;
        self.outcome.reject(line, fault, || text.to_vec());
        self.row.clear();
    }

    /// The decoded body.
    pub(super) fn finish(self) -> Result<Decoded, DecodeError> {
        if self.valid > self.rows_max {
            return Err(DecodeError::TooManyEvents { max: self.rows_max });
        }
        let rows = self.columns.finish(self.stream);
        let mut decoded = self.outcome.decoded(self.stream, rows);
        if let (Some(reader), Some(changes)) = (self.changes, &mut decoded.changes) {
            reader.complete(changes);
        }
        Ok(decoded)
    }
}
