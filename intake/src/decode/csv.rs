//! Reads the records of a CSV body (RFC 4180) with a header: comma, optional quotes, any line end. An empty field is NULL.
//!
//! One bad record never spoils its neighbours. Columns are found by name, as those of other tables are. A record is read into
//! buffers of a fixed size: neither a long field nor many of them make it grow.

use std::collections::HashSet;

use csv_core::{ReadRecordResult, Reader};
use shared::limits::TABLE_COLUMNS_MAX;
use shared::stream::{Column, UnknownFields};

use super::DecodeError;
use super::column_cast::place_of;
use super::reject_reason::RejectReason;
use super::row::{Cell, Row};
use super::session::Session;
use super::text_value;

/// Reads every record of a body.
pub(super) fn read<'a>(session: &mut Session<'a>, body: &'a [u8]) -> Result<(), DecodeError> {
    let mut records = Records::new(body, session.event_bytes_max());
    let Some(names) = records.next() else { return Ok(()) };
    if names.is_too_long || names.fields > TABLE_COLUMNS_MAX {
        return Err(DecodeError::too_many_columns());
    }
    let header = Header::new(session, &records, names.fields)?;
    // One more than are valid.
    records.ends.truncate(header.columns.len() + 1);
    while let Some(record) = records.next() {
        let Record { line, text, .. } = record;
        let read = match record.is_too_long {
            true => Err(RejectReason::TooLong { max: session.event_bytes_max() }),
            false => header.read(&record, &records, session.row()),
        };
        match read {
            Ok(()) => session.settle(line, || text),
            Err(reason) => session.reject(line, text, reason),
        }
    }
    Ok(())
}

/// The records of a body, one at a time.
struct Records<'a> {
    body: &'a [u8],
    /// Where the next record begins.
    at: usize,
    reader: Reader,
    record_bytes_max: usize,
    /// The fields of the present record next to each other, without quotes.
    fields: Vec<u8>,
    /// Where each of them ends.
    ends: Vec<usize>,
}

/// One record, as far as it fits the buffers.
#[derive(Debug, Clone, Copy)]
struct Record<'a> {
    /// Line of the body in which it begins, from 1.
    line: u64,
    /// The record as it stands in the body.
    text: &'a [u8],
    /// Number of its fields.
    fields: usize,
    /// Whether it is longer than an event may be.
    is_too_long: bool,
}

impl<'a> Records<'a> {
    fn new(body: &'a [u8], record_bytes_max: usize) -> Records<'a> {
        let buffer = record_bytes_max.min(body.len()) + 1;
        let columns = TABLE_COLUMNS_MAX.min(body.len()) + 1;
        Records {
            body,
            at: 0,
            reader: Reader::new(),
            record_bytes_max,
            fields: vec![0; buffer],
            ends: vec![0; columns],
        }
    }

    /// Reads the next record into the buffers.
    fn next(&mut self) -> Option<Record<'a>> {
        let (start, line_before) = (self.at, self.reader.line());
        let (mut bytes, mut ends, mut fields, mut is_cut) = (0, 0, 0, false);
        loop {
            let (result, read, written, ended) =
                self.reader.read_record(&self.body[self.at..], &mut self.fields[bytes..], &mut self.ends[ends..]);
            self.at += read;
            (bytes, ends, fields) = (bytes + written, ends + ended, fields + ended);
            match result {
                ReadRecordResult::InputEmpty => {}
                // The record will be rejected, so the part that fills the buffer is not needed.
                ReadRecordResult::OutputFull => (bytes, is_cut) = (0, true),
                ReadRecordResult::OutputEndsFull => ends = 0,
                ReadRecordResult::Record => break,
                ReadRecordResult::End => return None,
            }
        }
        // Empty lines before the record belong to it.
        let text = self.body[start..self.at].trim_ascii_end();
        let (empty, text) = text.split_at(text.len() - text.trim_ascii_start().len());
        let line = line_before + memchr::memchr_iter(b'\n', empty).count() as u64;
        Some(Record { line, text, fields, is_too_long: is_cut || text.len() > self.record_bytes_max })
    }

    /// The first `count` fields of the present record.
    fn fields(&self, count: usize) -> impl Iterator<Item = &[u8]> {
        let starts = std::iter::once(0).chain(self.ends.iter().copied());
        starts.zip(&self.ends).take(count).map(|(start, end)| &self.fields[start..*end])
    }
}

/// The columns of the stream by their places in a record.
struct Header<'a> {
    /// For each field its column and the column's index; `None` if the stream does not declare it.
    columns: Vec<Option<(usize, &'a Column)>>,
    unknown_fields: u64,
}

impl<'a> Header<'a> {
    /// Matches the `count` names of the header, which is the present record, with the columns of the stream.
    fn new(session: &Session<'a>, records: &Records<'_>, count: usize) -> Result<Header<'a>, DecodeError> {
        let stream = session.stream();
        let names: Result<Vec<&str>, _> = records.fields(count).map(std::str::from_utf8).collect();
        let names = names.map_err(|_| DecodeError::Table { reason: "the header is not UTF-8".to_owned() })?;
        let names: Vec<&str> = names.into_iter().map(str::trim).collect();
        let mut columns = vec![None; names.len()];
        let mut wrong = Vec::new();
        for (index, column) in stream.read_columns() {
            match place_of(column, &names) {
                Some(place) => columns[place] = Some((index, column)),
                None if index == stream.event_time => wrong.push(format!("{}: the event time is missing", column.name)),
                None if Some(index) == stream.primary_key => {
                    wrong.push(format!("{}: the primary key is missing", column.name));
                }
                None if Some(index) == stream.entity => wrong.push(format!("{}: the entity is missing", column.name)),
                None => {}
            }
        }
        let mut seen = HashSet::with_capacity(names.len());
        let twice = names.iter().filter(|name| !seen.insert(**name));
        wrong.extend(twice.map(|name| format!("{name}: the field appears twice")));
        let unknown = || names.iter().zip(&columns).filter(|(_, column)| column.is_none()).map(|(name, _)| name);
        if stream.unknown_fields == UnknownFields::Reject {
            wrong.extend(unknown().map(|name| format!("{name}: the stream does not declare it")));
        }
        match wrong.as_slice() {
            [] => Ok(Header { unknown_fields: unknown().count() as u64, columns }),
            wrong => Err(DecodeError::columns(wrong)),
        }
    }

    /// Reads the present record into an empty row.
    fn read(&self, record: &Record<'_>, records: &Records<'_>, row: &mut Row<'_>) -> Result<(), RejectReason<'a>> {
        if record.fields != self.columns.len() {
            return Err(RejectReason::FieldCount { expected: self.columns.len(), found: record.fields });
        }
        for (field, column) in records.fields(record.fields).zip(&self.columns) {
            let Some((index, column)) = column else { continue };
            let Ok(value) = std::str::from_utf8(field) else {
                let valid = std::str::from_utf8(record.text).err().map_or(0, |error| error.valid_up_to());
                return Err(RejectReason::NotUtf8 { column: valid + 1 });
            };
            row.cells[*index] = match value {
                "" => Cell::Null,
                value => match text_value::read(column, value) {
                    Ok(cell) => cell.detached(&mut row.unescaped),
                    Err(_) => return Err(RejectReason::NotValue { column, text: value.to_owned() }),
                },
            };
        }
        row.unknown_fields = self.unknown_fields;
        Ok(())
    }
}
