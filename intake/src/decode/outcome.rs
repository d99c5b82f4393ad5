//! Counts the events of a body, and lists the rejected ones while there is room. Does not hold the valid ones.

use std::borrow::Cow;
use std::fmt::Display;

use arrow::array::{Array, PrimitiveArray, RecordBatch};
use arrow::datatypes::TimestampMicrosecondType;
use shared::stream::Stream;
use shared::time::{MICROS_PER_SECOND, Micros};

use super::{Decoded, Options, RejectedEvent, Rejection, TableChanges};
use crate::event_id;

/// The counts of a body and its rejected events.
pub(super) struct Outcome {
    options: Options,
    pub(super) lines_read: u64,
    /// Fields of the valid events that the stream does not declare.
    pub(super) unknown_fields: u64,
    rejections: Vec<Rejection>,
    malformed: Vec<RejectedEvent>,
}

impl Outcome {
    pub(super) fn new(options: Options) -> Outcome {
        Outcome { options, lines_read: 0, unknown_fields: 0, rejections: Vec::new(), malformed: Vec::new() }
    }

    /// Returns the number of rejections listed.
    pub(super) fn listed(&self) -> usize {
        self.rejections.len()
    }

    /// Lists the event of `line` as rejected and keeps its text, while there is room.
    pub(super) fn reject(&mut self, line: u64, reason: impl Display, text: impl FnOnce() -> Vec<u8>) {
        if self.rejections.len() < self.options.rejections_listed_max {
            self.rejections.push(Rejection { line, reason: reason.to_string() });
        }
        if self.malformed.len() < self.options.malformed_kept_max {
            let text = text();
            let bytes = text.len() as u64;
            let (text, truncated) = beginning(&text, self.options.malformed_text_bytes_max);
            self.malformed.push(RejectedEvent { line, reason: reason.to_string(), text, bytes, truncated });
        }
    }

    /// The decoded body with its valid events.
    pub(super) fn decoded(self, stream: &Stream, rows: RecordBatch) -> Decoded {
        let entity_hashes = event_id::entity_hashes(stream, |index| rows.column(index).as_ref());
        let hashes = |column: usize| event_id::event_hashes(stream, rows.column(column), entity_hashes.as_deref());
        Decoded {
            id_hashes: stream.primary_key.map(hashes),
            entity_hashes,
            changes: stream.table.map(|table| {
                let keys: Vec<&dyn Array> = table.key.iter().map(|index| rows.column(*index).as_ref()).collect();
                TableChanges::of_keys(&keys)
            }),
            rows,
            lines_read: self.lines_read,
            rejections: self.rejections,
            malformed: self.malformed,
            unknown_fields: self.unknown_fields,
        }
    }
}

/// The oldest event time that is accepted at `arrived_at`.
pub(super) fn oldest(stream: &Stream, arrived_at: Option<Micros>) -> Micros {
    stream.max_age.zip(arrived_at).map_or(Micros(i64::MIN), |(max_age, arrived_at)| arrived_at.minus(max_age))
}

/// Counts the events whose time lies before 1980: probably seconds that were read as milliseconds.
pub(crate) fn before_1980(times: &PrimitiveArray<TimestampMicrosecondType>) -> u64 {
    const JANUARY_1980: i64 = 315_532_800 * MICROS_PER_SECOND;
    times.values().iter().filter(|time| **time < JANUARY_1980).count() as u64
}

/// The first bytes of `text`, at most `bytes_max`, and whether more follow. Invalid UTF-8 is replaced.
fn beginning(text: &[u8], bytes_max: usize) -> (String, bool) {
    let first = match std::str::from_utf8(text) {
        Ok(text) => Cow::Borrowed(&text[..text.floor_char_boundary(bytes_max)]),
        Err(_) => String::from_utf8_lossy(&text[..text.len().min(bytes_max)]),
    };
    // Replacement characters are longer than what they replace.
    let end = first.floor_char_boundary(bytes_max);
    (first[..end].to_owned(), text.len() > bytes_max || end < first.len())
}
