//! Which events does a piece hold, and which of its lines or rows are none? By the same rules as at the HTTP door.

use std::sync::Arc;

use anyhow::Context;
use arrow::array::RecordBatch;
use intake::decode::{Options, decode};
use serde::Serialize;
use shared::limits::EVENT_LINE_BYTES_MAX;
use shared::stream::Stream;

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
pub async fn decoded(stream: Arc<Stream>, piece: Piece) -> anyhow::Result<Decoded> {
    match piece {
        Piece::End(source) => Ok(Decoded::End(source)),
        Piece::AlreadyIn => Ok(Decoded::AlreadyIn),
        piece => tokio::task::spawn_blocking(move || events(&stream, piece)).await?,
    }
}

fn events(stream: &Stream, piece: Piece) -> anyhow::Result<Decoded> {
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
            let reject = |malformed: intake::decode::Malformed| Rejected {
                file: source.name.clone(),
                line: first_line + malformed.line - 1,
                reason: malformed.reason,
                text: malformed.text,
            };
            let rejected = decoded.malformed.into_iter().map(reject).collect();
            let records = i64::try_from(first_line - 1 + lines).unwrap_or(i64::MAX);
            Ok(Decoded::Events { rows: decoded.rows, rejected, records, source })
        }
        Piece::Rows(source, fit, first_row, rows) => {
            let fitted = fit.apply(&rows).with_context(|| format!("{}, from row {first_row}", source.name))?;
            let mut rejected = Vec::with_capacity(fitted.rejected.len());
            for (row, reason) in fitted.rejected {
                let mut text = Vec::new();
                append_lines(&mut text, &rows.slice(row, 1))?;
                let text = String::from_utf8_lossy(&text).trim_end().to_owned();
                rejected.push(Rejected { file: source.name.clone(), line: first_row + row as u64, reason, text });
            }
            let records = i64::try_from(first_row - 1 + rows.num_rows() as u64).unwrap_or(i64::MAX);
            Ok(Decoded::Events { rows: fitted.rows, rejected, records, source })
        }
        Piece::End(source) => Ok(Decoded::End(source)),
        Piece::AlreadyIn => Ok(Decoded::AlreadyIn),
    }
}
