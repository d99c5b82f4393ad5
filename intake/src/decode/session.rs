//! What has been read of a body so far? The columns, the rejections and the counts; one event enters at a time.

use std::borrow::Cow;

use shared::stream::Stream;

use super::columns::Columns;
use super::fast_path::UsualObjects;
use super::fields::Fields;
use super::object;
use super::reject_reason::Fault;
use super::row::{Cell, Row};
use super::{DecodeError, Decoded, Malformed, Options, Rejection};
use crate::event_id;

/// Bytes of JSON an event is taken to have, at least, when room for its columns is made.
const EVENT_BYTES_GUESS: usize = 128;
/// The same for each of its fields. So the room made never exceeds the size of the body.
const FIELD_BYTES_GUESS: usize = 16;

/// The decoding of one body.
pub(super) struct Session<'a> {
    stream: &'a Stream,
    options: Options,
    fields: Fields<'a>,
    /// Absent only in tests, which compare what is read with and without it.
    usual: Option<UsualObjects>,
    row: Row<'a>,
    columns: Columns,
    rows_max: usize,
    valid: usize,
    lines_read: u64,
    rejections: Vec<Rejection>,
    malformed: Vec<Malformed>,
    unknown_fields: u64,
}

impl<'a> Session<'a> {
    /// Begins a body of `body_bytes` bytes.
    pub(super) fn new(stream: &'a Stream, options: Options, body_bytes: usize, usual: bool) -> Session<'a> {
        let fields = Fields::new(stream);
        let columns = stream.columns.len();
        let rows_max = options.values_max / columns.max(1);
        let rows_guess = body_bytes / EVENT_BYTES_GUESS.max(columns * FIELD_BYTES_GUESS) + 1;
        Session {
            usual: usual.then(|| UsualObjects::new(&fields)),
            fields,
            row: Row::new(columns),
            columns: Columns::new(stream, rows_guess.min(rows_max)),
            stream,
            options,
            rows_max,
            valid: 0,
            lines_read: 0,
            rejections: Vec::new(),
            malformed: Vec::new(),
            unknown_fields: 0,
        }
    }

    /// Reads the event that begins at `start` of `text`, if it is of the usual form, and returns where it ends. It counts
    /// once it is settled; the next read forgets an event that was not.
    pub(super) fn read_usual(&mut self, text: &'a str, start: usize, line_ends: bool) -> Option<usize> {
        let end = self.usual.as_mut()?.read(text, start, line_ends, &self.fields, &mut self.row);
        let end = end.filter(|end| end - start <= self.options.event_bytes_max);
        if end.is_none() {
            self.row.clear();
        }
        end
    }

    /// Reads and settles the event that `text` is.
    pub(super) fn read_event(&mut self, line: u64, text: &'a str) {
        self.row.clear();
        if text.len() > self.options.event_bytes_max {
            return self.reject(line, text.as_bytes(), Fault::TooLong { max: self.options.event_bytes_max });
        }
        match object::read(text, &self.fields, &mut self.row) {
            Ok(()) => self.settle(line, || text),
            Err(fault) => self.reject(line, text.as_bytes(), fault),
        }
    }

    /// Takes the event that was read into the columns, unless it lacks its event time. `text` says what it was read from.
    #[inline]
    pub(super) fn settle(&mut self, line: u64, text: impl FnOnce() -> &'a str) {
        if matches!(self.row.cells[self.stream.event_time], Cell::Missing | Cell::Null) {
            let column = &self.stream.columns[self.stream.event_time];
            return self.reject(line, text().as_bytes(), Fault::NoEventTime { column });
        }
        self.lines_read += 1;
        self.valid += 1;
        if self.valid > self.rows_max {
            // The body will be refused; the columns must not grow on.
            return self.row.clear();
        }
        self.unknown_fields += self.row.unknown_fields;
        self.columns.append(&mut self.row);
    }

    /// Counts the event that `text` is as rejected; lists why, and keeps it, while there is room.
    #[cold]
    pub(super) fn reject(&mut self, line: u64, text: &[u8], fault: Fault<'_>) {
        self.lines_read += 1;
        if self.rejections.len() < self.options.rejections_listed_max {
            self.rejections.push(Rejection { line, reason: fault.to_string() });
        }
        if self.malformed.len() < self.options.malformed_kept_max {
            let (reason, bytes) = (fault.to_string(), text.len() as u64);
            let (text, truncated) = beginning(text, self.options.malformed_text_bytes_max);
            self.malformed.push(Malformed { line, reason, text, bytes, truncated });
        }
        self.row.clear();
    }

    /// What was read.
    pub(super) fn finish(self) -> Result<Decoded, DecodeError> {
        if self.valid > self.rows_max {
            return Err(DecodeError::TooManyEvents { max: self.rows_max });
        }
        let rows = self.columns.finish(self.stream);
        Ok(Decoded {
            id_hashes: self.stream.primary_key.map(|column| event_id::hash_ids(rows.column(column))),
            rows,
            lines_read: self.lines_read,
            rejections: self.rejections,
            malformed: self.malformed,
            unknown_fields: self.unknown_fields,
        })
    }
}

/// The first bytes of `text`, at most `bytes_max`, and whether more follow. What is not UTF-8 is replaced.
fn beginning(text: &[u8], bytes_max: usize) -> (String, bool) {
    let first = match std::str::from_utf8(text) {
        Ok(text) => Cow::Borrowed(&text[..text.floor_char_boundary(bytes_max)]),
        Err(_) => String::from_utf8_lossy(&text[..text.len().min(bytes_max)]),
    };
    // Replacement characters are longer than what they replace.
    let end = first.floor_char_boundary(bytes_max);
    (first[..end].to_owned(), text.len() > bytes_max || end < first.len())
}
