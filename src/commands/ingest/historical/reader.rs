//! Reads files in pieces of lines or rows, one file after another, and resumes where an earlier process stopped.

use std::collections::HashSet;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context;
use arrow::array::RecordBatch;
use bytes::Bytes;
use indicatif::ProgressBar;
use intake::decode::column_cast::{ColumnCast, column_of};
use intake::history::{FileProgress, HistoryWriter, identity};
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::ArrowReaderOptions;
use shared::stream::{Column, Stream};
use tokio::sync::mpsc::Sender;

use crate::damaged_parquet::{caught, check_columns, next_rows, open};
use crate::events_file::EventsFile;
use crate::line_batch::LineBatch;

/// Maximum size of a piece of lines, in bytes.
const PIECE_BYTES: usize = 2 * 1024 * 1024;
/// Maximum number of rows of a piece.
const PIECE_ROWS: usize = 32 * 1024;
/// Minimum number of pieces in a chunk. Chunks end at the end of a piece, so this bounds by how much they exceed their size.
const PIECES_PER_CHUNK: usize = 8;

/// A file to import.
#[derive(Debug)]
pub struct Source {
    pub name: String,
    /// The transaction name under which the archive records the progress of the file.
    pub app_id: String,
    /// Number of records that were imported before this process started.
    pub progress: Option<i64>,
}

/// A part of a file. The reader sends the pieces in order.
#[derive(Debug)]
pub enum Piece {
    /// Lines of a file, with the number of the first line, from 1.
    Lines(Arc<Source>, u64, Bytes),
    /// Rows of a Parquet file, with the number of the first row, from 1.
    Rows(Arc<Source>, Arc<ColumnCast>, u64, RecordBatch),
    /// The end of a file.
    End(Arc<Source>),
    /// A file that was imported before.
    AlreadyImported,
}

/// Reads all files of an import.
pub struct FilesReader {
    pub stream: Arc<Stream>,
    pub files: Vec<PathBuf>,
    pub writer: Arc<HistoryWriter>,
    /// Whether to import files again that were imported before.
    pub again: bool,
    pub chunk_bytes: usize,
    pub bar: ProgressBar,
    pub runtime: tokio::runtime::Handle,
}

/// The receiver of the pieces has been dropped.
struct ReceiverDropped;

impl FilesReader {
    /// Reads all files. Blocks.
    pub fn read(self, pieces: &Sender<Piece>) -> anyhow::Result<()> {
        let mut seen = HashSet::new();
        for path in &self.files {
            let name = path.display().to_string();
            if let Some(ReceiverDropped) = self.read_file(path, &mut seen, pieces).with_context(|| name)? {
                return Ok(());
            }
        }
        Ok(())
    }

    fn read_file(
        &self,
        path: &Path,
        seen: &mut HashSet<String>,
        pieces: &Sender<Piece>,
    ) -> anyhow::Result<Option<ReceiverDropped>> {
        let file = EventsFile::open(path)?;
        anyhow::ensure!(file.size().is_some(), "not a regular file, so an interrupted import could not resume");
        let identity = identity(File::open(path)?)?;
        let send = |piece: Piece| pieces.blocking_send(piece).is_ok();
        let progress = match seen.insert(identity.clone()) {
            true => self.runtime.block_on(self.writer.progress_of(&identity, self.again))?,
            false => FileProgress::Done,
        };
        let FileProgress::Open { app_id, progress } = progress else {
            self.bar.inc(file.size().unwrap_or(0));
            return Ok((!send(Piece::AlreadyImported)).then_some(ReceiverDropped));
        };
        let source = Arc::new(Source { name: path.display().to_string(), app_id, progress });
        let skip = progress.and_then(|records| u64::try_from(records).ok()).unwrap_or(0);
        let is_open = match file.parquet() {
            Some(parquet) => self.read_rows(&source, parquet.try_clone()?, skip, &send)?,
            None => self.read_lines(&source, file, skip, &send)?,
        };
        Ok((!is_open || !send(Piece::End(source))).then_some(ReceiverDropped))
    }

    fn read_lines(
        &self,
        source: &Arc<Source>,
        file: EventsFile,
        skip: u64,
        send: &dyn Fn(Piece) -> bool,
    ) -> anyhow::Result<bool> {
        let piece_bytes = PIECE_BYTES.min(self.chunk_bytes / PIECES_PER_CHUNK);
        let mut is_open = true;
        file.read(piece_bytes, &self.bar, &mut |batch| {
            if let Some((first_line, body)) = after(&batch, skip) {
                is_open = send(Piece::Lines(Arc::clone(source), first_line, body));
            }
            is_open
        })?;
        Ok(is_open)
    }

    fn read_rows(
        &self,
        source: &Arc<Source>,
        file: File,
        skip: u64,
        send: &dyn Fn(Piece) -> bool,
    ) -> anyhow::Result<bool> {
        let bytes = file.metadata()?.len();
        // Without the Arrow schema in the file: no dictionaries, and no string views that keep whole pages in memory.
        let options = ArrowReaderOptions::new().with_skip_arrow_metadata(true);
        let pages = file.try_clone()?;
        let builder = open(file, options).context("not a readable Parquet file")?;
        let all = u64::try_from(builder.metadata().file_metadata().num_rows()).unwrap_or(0);
        let cast = ColumnCast::new(&self.stream, builder.schema())?;
        if !cast.missing.is_empty() {
            let columns = cast.missing.join(", ");
            self.bar.suspend(|| eprintln!("{}: no column {columns}; it will be NULL", source.name));
        }
        let root = |column: &Column| column_of(builder.schema(), column);
        let roots: Vec<usize> = self.stream.columns.iter().filter_map(root).collect();
        let names: HashSet<&str> = roots.iter().map(|root| builder.schema().field(*root).name().as_str()).collect();
        check_columns(&pages, &builder, |name| names.contains(name))?;
        let mask = ProjectionMask::roots(builder.parquet_schema(), roots);
        let rows_of_chunk = self.chunk_bytes / (16 * self.stream.columns.len().max(1));
        let piece_rows = PIECE_ROWS.min((rows_of_chunk / PIECES_PER_CHUNK).max(64));
        let reader = builder.with_projection(mask).with_batch_size(piece_rows);
        let mut reader = caught(|| reader.with_offset(usize::try_from(skip).unwrap_or(usize::MAX)).build())?;
        // The projection has moved the columns.
        let cast = Arc::new(ColumnCast::new(&self.stream, &arrow::array::RecordBatchReader::schema(&reader))?);
        let share = |rows: u64| if all == 0 { bytes } else { (bytes as f64 * (rows as f64 / all as f64)) as u64 };
        self.bar.inc(share(skip.min(all)));
        let mut done = skip;
        while let Some(rows) = next_rows(&mut reader)? {
            let (first, count) = (done + 1, rows.num_rows() as u64);
            self.bar.inc(share(done + count) - share(done));
            done += count;
            if !send(Piece::Rows(Arc::clone(source), Arc::clone(&cast), first, rows)) {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

/// Returns the lines of a batch after the first `skip` lines of the file, with the number of the first one.
fn after(batch: &LineBatch, skip: u64) -> Option<(u64, Bytes)> {
    let known = (skip + 1).saturating_sub(batch.first_line);
    if known == 0 {
        return Some((batch.first_line, batch.body.clone()));
    }
    if known >= batch.lines {
        return None;
    }
    let end = memchr::memchr_iter(b'\n', &batch.body).nth(usize::try_from(known).ok()? - 1)?;
    Some((batch.first_line + known, batch.body.slice(end + 1..)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::line_batch::BatchFormat;

    #[test]
    fn resuming_starts_with_the_line_after_the_last_imported_one() {
        let batch = LineBatch {
            number: 0,
            first_line: 11,
            lines: 3,
            format: BatchFormat::Lines,
            body: Bytes::from_static(b"a\nb\nc"),
        };
        let rest = |skip| after(&batch, skip).map(|(line, body)| (line, String::from_utf8_lossy(&body).into_owned()));
        assert_eq!(rest(0), Some((11, "a\nb\nc".to_owned())));
        assert_eq!(rest(10), Some((11, "a\nb\nc".to_owned())));
        assert_eq!(rest(11), Some((12, "b\nc".to_owned())));
        assert_eq!(rest(12), Some((13, "c".to_owned())));
        assert_eq!(rest(13), None);
        assert_eq!(rest(99), None);
    }
}
