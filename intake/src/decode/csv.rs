//! Reads the records of a CSV body (RFC 4180) with a header: comma, optional quotes, any line end. An empty field is NULL.
//!
//! One bad record never spoils its neighbours. Columns are found by name, as those of other tables are.

use shared::stream::{Column, UnknownFields};

use super::DecodeError;
use super::column_cast::place_of;
use super::reject_reason::RejectReason;
use super::row::{Cell, Row};
use super::session::Session;
use super::text_value;

/// Reads every record of a body.
pub(super) fn read<'a>(session: &mut Session<'a>, body: &'a [u8]) -> Result<(), DecodeError> {
    let mut reader = csv::ReaderBuilder::new().flexible(true).from_reader(body);
    let headers = reader.byte_headers().map_err(|error| DecodeError::Table { reason: error.to_string() })?.clone();
    if headers.is_empty() {
        return Ok(());
    }
    let header = Header::new(session, &headers)?;
    let mut record = csv::ByteRecord::new();
    loop {
        let start = reader.position().byte() as usize;
        match reader.read_byte_record(&mut record) {
            Ok(true) => {}
            Ok(false) => return Ok(()),
            Err(error) => return Err(DecodeError::Table { reason: error.to_string() }),
        }
        // Empty lines before the record belong to it.
        let text = body[start..reader.position().byte() as usize].trim_ascii_end();
        let (empty, text) = text.split_at(text.len() - text.trim_ascii_start().len());
        let line = record.position().map_or(0, csv::Position::line) + memchr::memchr_iter(b'\n', empty).count() as u64;
        match session.check_length(text).and_then(|()| header.read(&record, text, session.row())) {
            Ok(()) => session.settle(line, || text),
            Err(reason) => session.reject(line, text, reason),
        }
    }
}

/// The columns of the stream by their places in a record.
struct Header<'a> {
    /// For each field its column and the column's index; `None` if the stream does not declare it.
    columns: Vec<Option<(usize, &'a Column)>>,
    unknown_fields: u64,
}

impl<'a> Header<'a> {
    /// Matches the names of the header with the columns of the stream.
    fn new(session: &Session<'a>, headers: &csv::ByteRecord) -> Result<Header<'a>, DecodeError> {
        let stream = session.stream();
        let mut names = Vec::with_capacity(headers.len());
        for name in headers {
            let name = std::str::from_utf8(name);
            names.push(name.map_err(|_| DecodeError::Table { reason: "the header is not UTF-8".to_owned() })?.trim());
        }
        let mut columns = vec![None; names.len()];
        let mut wrong = Vec::new();
        for (index, column) in stream.declared().iter().enumerate() {
            match place_of(column, &names) {
                Some(place) => columns[place] = Some((index, column)),
                None if index == stream.event_time => wrong.push(format!("{}: the event time is missing", column.name)),
                None if Some(index) == stream.primary_key => {
                    wrong.push(format!("{}: the primary key is missing", column.name));
                }
                None => {}
            }
        }
        let unknown: Vec<&str> =
            names.iter().zip(&columns).filter(|(_, column)| column.is_none()).map(|(name, _)| *name).collect();
        for (place, name) in names.iter().enumerate() {
            if names[..place].contains(name) {
                wrong.push(format!("{name}: the field appears twice"));
            }
        }
        if stream.unknown_fields == UnknownFields::Reject {
            wrong.extend(unknown.iter().map(|name| format!("{name}: the stream does not declare it")));
        }
        match wrong.as_slice() {
            [] => Ok(Header { unknown_fields: unknown.len() as u64, columns }),
            wrong => Err(DecodeError::columns(wrong)),
        }
    }

    /// Reads a record into an empty row. `text` is the record as it stands in the body.
    fn read(&self, record: &csv::ByteRecord, text: &[u8], row: &mut Row<'_>) -> Result<(), RejectReason<'a>> {
        if record.len() != self.columns.len() {
            return Err(RejectReason::FieldCount { expected: self.columns.len(), found: record.len() });
        }
        for (field, column) in record.iter().zip(&self.columns) {
            let Some((index, column)) = column else { continue };
            let Ok(value) = std::str::from_utf8(field) else {
                let valid = std::str::from_utf8(text).err().map_or(0, |error| error.valid_up_to());
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
