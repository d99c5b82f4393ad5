//! Which events does a piece hold, and which of its lines or rows are none? By the same rules as at the HTTP door; and none
//! are taken in for dates that the stream's retention has dropped.

use std::collections::HashSet;
use std::sync::Arc;

use anyhow::Context;
use arrow::array::{AsArray, BooleanArray, RecordBatch};
use arrow::compute::filter_record_batch;
use arrow::datatypes::TimestampMicrosecondType;
use intake::decode::{Options, decode};
use serde::Serialize;
use shared::limits::EVENT_LINE_BYTES_MAX;
use shared::stream::Stream;
use shared::time::{Day, Micros};

use super::reading::{Piece, Source};
use crate::parquet_rows::append_lines;

/// A piece, decoded.
#[derive(Debug)]
pub enum Decoded {
    Events {
        source: Arc<Source>,
        rows: RecordBatch,
        rejected: Vec<Rejected>,
        /// Lines or rows of the file up to the end of the piece.
        records: i64,
    },
    End(Arc<Source>),
    AlreadyIn,
}

/// A line or row that is no event, as the rejects file has it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Rejected {
    pub file: String,
    /// Line of the file, or row of a Parquet file, from 1.
    pub line: u64,
    pub reason: String,
    pub text: String,
}

/// Decodes a piece on a thread of its own.
pub async fn decoded(stream: Arc<Stream>, retained_from: Option<Day>, piece: Piece) -> anyhow::Result<Decoded> {
    match piece {
        Piece::End(source) => Ok(Decoded::End(source)),
        Piece::AlreadyIn => Ok(Decoded::AlreadyIn),
        piece => tokio::task::spawn_blocking(move || events(&stream, retained_from, piece)).await?,
    }
}

fn events(stream: &Stream, retained_from: Option<Day>, piece: Piece) -> anyhow::Result<Decoded> {
    match piece {
        Piece::Lines(source, first_line, body) => {
            let options = Options {
                // All of them, and whole: that is what the rejects file is for.
                rejections_listed_max: 0,
                malformed_kept_max: usize::MAX,
                malformed_text_bytes_max: EVENT_LINE_BYTES_MAX,
                ..Options::default()
            };
            let decoded =
                decode(stream, &body, options).with_context(|| format!("{}, from line {first_line}", source.name))?;
            let unfinished = u64::from(body.last().is_some_and(|last| *last != b'\n'));
            let lines = memchr::memchr_iter(b'\n', &body).count() as u64 + unfinished;
            let reject = |malformed: intake::decode::RejectedEvent| Rejected {
                file: source.name.clone(),
                line: first_line + malformed.line - 1,
                reason: malformed.reason,
                text: malformed.text,
            };
            let malformed: HashSet<u64> = decoded.malformed.iter().map(|malformed| malformed.line).collect();
            let mut rejected: Vec<Rejected> = decoded.malformed.into_iter().map(reject).collect();
            let mut rows = decoded.rows;
            if let Some((kept, gone)) = without_gone(stream, retained_from, &rows)? {
                let lines = (1u64..).zip(body.split(|byte| *byte == b'\n'));
                let is_event = |(line, text): &(u64, &[u8])| !text.trim_ascii().is_empty() && !malformed.contains(line);
                let lines: Vec<(u64, &[u8])> = lines.filter(is_event).collect();
                for (row, reason) in gone {
                    let (line, text) = lines.get(row).copied().unwrap_or((1, &[]));
                    let text = String::from_utf8_lossy(text).into_owned();
                    rejected.push(Rejected { file: source.name.clone(), line: first_line + line - 1, reason, text });
                }
                rows = kept;
            }
            let records = i64::try_from(first_line - 1 + lines).unwrap_or(i64::MAX);
            Ok(Decoded::Events { rows, rejected, records, source })
        }
        Piece::Rows(source, fit, first_row, rows) => {
            let fitted = fit.apply(&rows).with_context(|| format!("{}, from row {first_row}", source.name))?;
            let refused: HashSet<usize> = fitted.rejected.iter().map(|(row, _)| *row).collect();
            let (mut fitted_rows, mut refusals) = (fitted.rows, fitted.rejected);
            if let Some((kept, gone)) = without_gone(stream, retained_from, &fitted_rows)? {
                let places: Vec<usize> = (0..rows.num_rows()).filter(|row| !refused.contains(row)).collect();
                refusals.extend(gone.into_iter().map(|(row, reason)| (places[row], reason)));
                fitted_rows = kept;
            }
            let mut rejected = Vec::with_capacity(refusals.len());
            for (row, reason) in refusals {
                let mut text = Vec::new();
                append_lines(&mut text, &rows.slice(row, 1))?;
                let text = String::from_utf8_lossy(&text).trim_end().to_owned();
                rejected.push(Rejected { file: source.name.clone(), line: first_row + row as u64, reason, text });
            }
            let records = i64::try_from(first_row - 1 + rows.num_rows() as u64).unwrap_or(i64::MAX);
            Ok(Decoded::Events { rows: fitted_rows, rejected, records, source })
        }
        Piece::End(source) => Ok(Decoded::End(source)),
        Piece::AlreadyIn => Ok(Decoded::AlreadyIn),
    }
}

/// The rows without those of dates before `retained_from`, and these by number, each with the reason. `None`: there are
/// none of them.
type WithoutGone = (RecordBatch, Vec<(usize, String)>);

fn without_gone(
    stream: &Stream,
    retained_from: Option<Day>,
    rows: &RecordBatch,
) -> anyhow::Result<Option<WithoutGone>> {
    let Some(first) = retained_from else { return Ok(None) };
    let times = rows.column(stream.event_time).as_primitive::<TimestampMicrosecondType>().values();
    let is_kept = |time: &i64| *time >= first.start().0;
    if times.iter().all(is_kept) {
        return Ok(None);
    }
    let reason = |time: i64| {
        let date = Micros(time).day();
        format!("{date} is before {first}: the events of then have been dropped by the retention of {}", stream.name)
    };
    let gone = times.iter().enumerate().filter(|(_, time)| !is_kept(time));
    let gone = gone.map(|(row, time)| (row, reason(*time))).collect();
    let kept: BooleanArray = times.iter().map(|time| Some(is_kept(time))).collect();
    Ok(Some((filter_record_batch(rows, &kept)?, gone)))
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
    fn lines_of_dates_that_are_gone_are_refused_with_their_place_and_the_others_stay() {
        let (stream, body) =
            (stream(), b"\n{\"at\":\"2024-01-01\"}\nnonsense\n{\"at\":\"2023-12-31\"}\n\n{\"at\":\"2025-01-01\"}\n");
        let decoded = |retained_from: Option<&str>| {
            let options = Options::default();
            let rows = decode(&stream, body, options).expect("decodes").rows;
            without_gone(&stream, retained_from.and_then(Day::parse), &rows).expect("filters")
        };
        assert!(decoded(None).is_none());
        assert!(decoded(Some("2023-12-31")).is_none());
        let (kept, gone) = decoded(Some("2024-01-01")).expect("one is gone");
        assert_eq!((kept.num_rows(), gone.len(), gone[0].0), (2, 1, 1));
        assert_eq!(
            gone[0].1,
            "2023-12-31 is before 2024-01-01: the events of then have been dropped by the retention of s"
        );
    }
}
