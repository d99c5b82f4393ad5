//! Decodes pieces of files into events, by the same rules as `POST /v1/events`. Rejects invalid records, and events of dates
//! that the retention of the stream has dropped.

use std::collections::HashSet;
use std::sync::Arc;

use anyhow::Context;
use arrow::array::{AsArray, BooleanArray, RecordBatch};
use arrow::compute::filter_record_batch;
use arrow::datatypes::TimestampMicrosecondType;
use intake::decode::column_cast::ColumnCast;
use intake::decode::{Options, decode as decode_lines, json_lines};
use serde::Serialize;
use shared::limits::EVENT_LINE_BYTES_MAX;
use shared::stream::Stream;
use shared::time::{Day, Micros};

use super::reader::{Piece, Source};

/// A decoded piece.
#[derive(Debug)]
pub enum DecodedPiece {
    Events {
        source: Arc<Source>,
        rows: RecordBatch,
        rejected: Vec<RejectedRecord>,
        /// Number of records of the file up to the end of the piece.
        records: i64,
    },
    /// The end of a file.
    End(Arc<Source>),
    /// A file that was imported before.
    AlreadyImported,
}

/// A rejected line or row, as written to the rejects file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RejectedRecord {
    pub file: String,
    /// Line of the file, or row of a Parquet file, from 1.
    pub line: u64,
    pub reason: String,
    pub text: String,
}

/// Decodes a piece on a blocking thread.
pub async fn decode(stream: Arc<Stream>, retained_from: Option<Day>, piece: Piece) -> anyhow::Result<DecodedPiece> {
    match piece {
        Piece::End(source) => Ok(DecodedPiece::End(source)),
        Piece::AlreadyImported => Ok(DecodedPiece::AlreadyImported),
        piece => tokio::task::spawn_blocking(move || decode_blocking(&stream, retained_from, piece)).await?,
    }
}

fn decode_blocking(stream: &Stream, retained_from: Option<Day>, piece: Piece) -> anyhow::Result<DecodedPiece> {
    match piece {
        Piece::Lines(source, first_line, body) => decode_ndjson(stream, retained_from, source, first_line, &body),
        Piece::Rows(source, cast, first_row, rows) => {
            decode_rows(stream, retained_from, source, &cast, first_row, &rows)
        }
        Piece::End(source) => Ok(DecodedPiece::End(source)),
        Piece::AlreadyImported => Ok(DecodedPiece::AlreadyImported),
    }
}

fn decode_ndjson(
    stream: &Stream,
    retained_from: Option<Day>,
    source: Arc<Source>,
    first_line: u64,
    body: &[u8],
) -> anyhow::Result<DecodedPiece> {
    let options = Options {
        // Every rejected line with its whole text, for the rejects file.
        rejections_listed_max: 0,
        malformed_kept_max: usize::MAX,
        malformed_text_bytes_max: EVENT_LINE_BYTES_MAX,
        ..Options::default()
    };
    let decoded =
        decode_lines(stream, body, options).with_context(|| format!("{}, from line {first_line}", source.name))?;
    let unfinished = u64::from(body.last().is_some_and(|last| *last != b'\n'));
    let lines = memchr::memchr_iter(b'\n', body).count() as u64 + unfinished;
    let reject = |malformed: intake::decode::RejectedEvent| RejectedRecord {
        file: source.name.clone(),
        line: first_line + malformed.line - 1,
        reason: malformed.reason,
        text: malformed.text,
    };
    let malformed: HashSet<u64> = decoded.malformed.iter().map(|malformed| malformed.line).collect();
    let mut rejected: Vec<RejectedRecord> = decoded.malformed.into_iter().map(reject).collect();
    let mut rows = decoded.rows;
    if let Some((kept, dropped)) = split_dropped(stream, retained_from, &rows)? {
        let lines = (1u64..).zip(body.split(|byte| *byte == b'\n'));
        let is_event = |(line, text): &(u64, &[u8])| !text.trim_ascii().is_empty() && !malformed.contains(line);
        let lines: Vec<(u64, &[u8])> = lines.filter(is_event).collect();
        for (row, reason) in dropped {
            let (line, text) = lines.get(row).copied().unwrap_or((1, &[]));
            let text = String::from_utf8_lossy(text).into_owned();
            rejected.push(RejectedRecord { file: source.name.clone(), line: first_line + line - 1, reason, text });
        }
        rows = kept;
    }
    let records = i64::try_from(first_line - 1 + lines).unwrap_or(i64::MAX);
    Ok(DecodedPiece::Events { rows, rejected, records, source })
}

fn decode_rows(
    stream: &Stream,
    retained_from: Option<Day>,
    source: Arc<Source>,
    cast: &ColumnCast,
    first_row: u64,
    rows: &RecordBatch,
) -> anyhow::Result<DecodedPiece> {
    let cast = cast.apply(rows, usize::MAX).with_context(|| format!("{}, from row {first_row}", source.name))?;
    let refused: HashSet<usize> = cast.rejected.iter().map(|(row, _)| *row).collect();
    let (mut cast_rows, mut refusals) = (cast.rows, cast.rejected);
    if let Some((kept, dropped)) = split_dropped(stream, retained_from, &cast_rows)? {
        let row_numbers: Vec<usize> = (0..rows.num_rows()).filter(|row| !refused.contains(row)).collect();
        refusals.extend(dropped.into_iter().map(|(row, reason)| (row_numbers[row], reason)));
        cast_rows = kept;
    }
    let mut rejected = Vec::with_capacity(refusals.len());
    for (row, reason) in refusals {
        let mut text = Vec::new();
        json_lines::append(&mut text, &rows.slice(row, 1))?;
        let text = String::from_utf8_lossy(&text).trim_end().to_owned();
        rejected.push(RejectedRecord { file: source.name.clone(), line: first_row + row as u64, reason, text });
    }
    let records = i64::try_from(first_row - 1 + rows.num_rows() as u64).unwrap_or(i64::MAX);
    Ok(DecodedPiece::Events { rows: cast_rows, rejected, records, source })
}

/// The rows to keep, and the numbers of the others with the reasons why they are rejected.
type SplitRows = (RecordBatch, Vec<(usize, String)>);

/// Removes the rows of dates before `retained_from`. Returns `None` if there are none.
fn split_dropped(stream: &Stream, retained_from: Option<Day>, rows: &RecordBatch) -> anyhow::Result<Option<SplitRows>> {
    let Some(first) = retained_from else { return Ok(None) };
    let times = rows.column(stream.event_time).as_primitive::<TimestampMicrosecondType>().values();
    let is_kept = |time: &i64| *time >= first.start().0;
    if times.iter().all(is_kept) {
        return Ok(None);
    }
    let reason = |time: i64| {
        let date = Micros(time).day();
        format!("{date} is before {first}: the retention of {} has dropped events of that date", stream.name)
    };
    let dropped = times.iter().enumerate().filter(|(_, time)| !is_kept(time));
    let dropped = dropped.map(|(row, time)| (row, reason(*time))).collect();
    let kept: BooleanArray = times.iter().map(|time| Some(is_kept(time))).collect();
    Ok(Some((filter_record_batch(rows, &kept)?, dropped)))
}

#[cfg(test)]
mod tests {
    use shared::sql::parse_definitions;

    use super::*;

    fn stream() -> Stream {
        let sql = "CREATE STREAM s (at TIMESTAMP, n BIGINT) WITH (event_time = 'at', retention = '1 year');";
        parse_definitions(&[("s".to_owned(), sql.to_owned())]).expect("right").streams.remove(0)
    }

    #[test]
    fn events_of_dropped_dates_are_rejected_with_their_lines() {
        let (stream, body) =
            (stream(), b"\n{\"at\":\"2024-01-01\"}\nnonsense\n{\"at\":\"2023-12-31\"}\n\n{\"at\":\"2025-01-01\"}\n");
        let split = |retained_from: Option<&str>| {
            let options = Options::default();
            let rows = decode_lines(&stream, body, options).expect("decodes").rows;
            split_dropped(&stream, retained_from.and_then(Day::parse), &rows).expect("filters")
        };
        assert!(split(None).is_none());
        assert!(split(Some("2023-12-31")).is_none());
        let (kept, dropped) = split(Some("2024-01-01")).expect("one is dropped");
        assert_eq!((kept.num_rows(), dropped.len(), dropped[0].0), (2, 1, 1));
        assert_eq!(dropped[0].1, "2023-12-31 is before 2024-01-01: the retention of s has dropped events of that date");
    }
}
