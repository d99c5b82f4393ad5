//! Collects a body: the columns, the rejections and the counts; one event at a time.

use std::borrow::Cow;

use arrow::array::{AsArray, PrimitiveArray};
use arrow::datatypes::TimestampMicrosecondType;
use shared::explain::duration;
use shared::stream::Stream;
use shared::time::{MICROS_PER_SECOND, Micros};

use super::columns::Columns;
use super::fast_path::FastPath;
use super::fields::Fields;
use super::object;
use super::reject_reason::RejectReason;
use super::row::{Cell, Row};
use super::{DecodeError, Decoded, Options, RejectedEvent, Rejection};
use crate::event_id;

/// Least bytes of JSON assumed per event when memory for the columns is reserved.
const EVENT_BYTES_GUESS: usize = 128;
/// The same per field. So the reserved memory never exceeds the size of the body.
const FIELD_BYTES_GUESS: usize = 16;

/// The decoding of one body.
pub(super) struct Session<'a> {
    stream: &'a Stream,
    options: Options,
    fields: Fields<'a>,
    /// Absent only in tests, which compare the results with and without it.
    fast_path: Option<FastPath>,
    /// Event times before this are too old.
    oldest: i64,
    row: Row<'a>,
    columns: Columns,
    rows_max: usize,
    valid: usize,
    lines_read: u64,
    rejections: Vec<Rejection>,
    malformed: Vec<RejectedEvent>,
    unknown_fields: u64,
}

impl<'a> Session<'a> {
    /// Begins a body of `body_bytes` bytes.
    pub(super) fn new(stream: &'a Stream, options: Options, body_bytes: usize, fast_path: bool) -> Session<'a> {
        let fields = Fields::new(stream);
        let columns = stream.columns.len();
        let rows_max = options.values_max / columns.max(1);
        let rows_guess = body_bytes / EVENT_BYTES_GUESS.max(columns * FIELD_BYTES_GUESS) + 1;
        Session {
            fast_path: fast_path.then(|| FastPath::new(&fields)),
            oldest: oldest(stream, options.arrived_at),
            row: Row::new(columns, fields.nested),
            fields,
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

    /// Refuses an event that is longer than the options allow.
    pub(super) fn check_length(&self, text: &[u8]) -> Result<(), RejectReason<'a>> {
        let max = self.options.event_bytes_max;
        if text.len() > max { Err(RejectReason::TooLong { max }) } else { Ok(()) }
    }

    /// Reads and settles the event `text`.
    pub(super) fn read_event(&mut self, line: u64, text: &'a str) {
        self.row.clear();
        if let Err(reason) = self.check_length(text.as_bytes()) {
            return self.reject(line, text.as_bytes(), reason);
        }
        match object::read(text, &self.fields, &mut self.row) {
            Ok(()) => self.settle(line, || text.as_bytes()),
            Err(fault) => self.reject(line, text.as_bytes(), fault),
        }
    }

    /// Appends the event that was read to the columns, unless it lacks its event time or its primary key, or is too old. `text`
    /// is the event as it stands in the body.
    #[inline]
    pub(super) fn settle(&mut self, line: u64, text: impl FnOnce() -> &'a [u8]) {
        let column = &self.stream.columns[self.stream.event_time];
        match self.row.cells[self.stream.event_time] {
            Cell::Integer(time) if time >= self.oldest => {}
            Cell::Integer(time) => {
                let max_age = duration(self.stream.max_age.unwrap_or_default());
                let reason = RejectReason::TooOld { column, time: Micros(time), max_age };
                return self.reject(line, text(), reason);
            }
            _ => return self.reject(line, text(), RejectReason::NoEventTime { column }),
        }
        if let Some(key) = self.stream.primary_key
            && matches!(self.row.cells[key], Cell::Missing | Cell::Null)
        {
            let column = &self.stream.columns[key];
            return self.reject(line, text(), RejectReason::NoPrimaryKey { column });
        }
        self.lines_read += 1;
        self.valid += 1;
        if self.valid > self.rows_max {
            // The body will be refused; the columns must not grow further.
            return self.row.clear();
        }
        self.unknown_fields += self.row.unknown_fields;
        self.columns.append(&mut self.row);
    }

    /// Counts the event `text` as rejected; lists the reason and keeps the text, while there is room.
    #[cold]
    pub(super) fn reject(&mut self, line: u64, text: &[u8], fault: RejectReason<'_>) {
        self.lines_read += 1;
        if self.rejections.len() < self.options.rejections_listed_max {
            self.rejections.push(Rejection { line, reason: fault.to_string() });
        }
        if self.malformed.len() < self.options.malformed_kept_max {
            let (reason, bytes) = (fault.to_string(), text.len() as u64);
            let (text, truncated) = beginning(text, self.options.malformed_text_bytes_max);
            self.malformed.push(RejectedEvent { line, reason, text, bytes, truncated });
        }
        self.row.clear();
    }

    /// The decoded body.
    pub(super) fn finish(self) -> Result<Decoded, DecodeError> {
        if self.valid > self.rows_max {
            return Err(DecodeError::TooManyEvents { max: self.rows_max });
        }
        let rows = self.columns.finish(self.stream);
        Ok(Decoded {
            id_hashes: self.stream.primary_key.map(|column| event_id::hash_ids(rows.column(column))),
            before_1980: before_1980(rows.column(self.stream.event_time).as_primitive()),
            rows,
            lines_read: self.lines_read,
            rejections: self.rejections,
            malformed: self.malformed,
            unknown_fields: self.unknown_fields,
        })
    }
}

/// The oldest event time that is accepted at `arrived_at`.
pub(super) fn oldest(stream: &Stream, arrived_at: Option<Micros>) -> i64 {
    stream.max_age.zip(arrived_at).map_or(i64::MIN, |(max_age, arrived_at)| arrived_at.minus(max_age).0)
}

/// Counts the times before 1980.
pub(super) fn before_1980(times: &PrimitiveArray<TimestampMicrosecondType>) -> u64 {
    const JANUARY_1980: i64 = 315_532_800 * MICROS_PER_SECOND;
    times.values().iter().filter(|time| **time < JANUARY_1980).count() as u64
}

/// The first bytes of `text`, at most `bytes_max`, and whether more follow. Invalid UTF-8 is replaced.
pub(super) fn beginning(text: &[u8], bytes_max: usize) -> (String, bool) {
    let first = match std::str::from_utf8(text) {
        Ok(text) => Cow::Borrowed(&text[..text.floor_char_boundary(bytes_max)]),
        Err(_) => String::from_utf8_lossy(&text[..text.len().min(bytes_max)]),
    };
    // Replacement characters are longer than what they replace.
    let end = first.floor_char_boundary(bytes_max);
    (first[..end].to_owned(), text.len() > bytes_max || end < first.len())
}
