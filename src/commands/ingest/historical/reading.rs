//! What is in the files, one after another? Pieces of lines or rows, from where an earlier process ended.

use std::collections::HashSet;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context;
use arrow::array::RecordBatch;
use bytes::Bytes;
use indicatif::ProgressBar;
use intake::decode::parquet_cast::{ParquetCast, column_of};
use intake::history::{HistoryWriter, Standing, identity};
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{ArrowReaderOptions, ParquetRecordBatchReaderBuilder};
use shared::stream::{Column, Stream};
use tokio::sync::mpsc::Sender;

use crate::events_file::{EventsFile, LineBatch};

/// Most bytes of lines of a piece, and most rows.
const PIECE_BYTES: usize = 2 * 1024 * 1024;
const PIECE_ROWS: usize = 32 * 1024;
/// Pieces of a chunk, at least: chunks end with a piece.
const PIECES_PER_CHUNK: usize = 8;

/// A file that is being taken in.
#[derive(Debug)]
pub struct Source {
    pub name: String,
    /// The name of its progress, and where it was when this process came.
    pub app_id: String,
    pub progress: Option<i64>,
}

/// What the reader gives on, in order.
#[derive(Debug)]
pub enum Piece {
    /// Lines of a file; the number of the first, from 1.
    Lines(Arc<Source>, u64, Bytes),
    /// Rows of a Parquet file; the number of the first, from 1.
    Rows(Arc<Source>, Arc<ParquetCast>, u64, RecordBatch),
    End(Arc<Source>),
    /// A file that has been taken in to its end already.
    AlreadyIn,
}

/// The reader of all files.
pub struct Reading {
    pub stream: Arc<Stream>,
    pub files: Vec<PathBuf>,
    pub writer: Arc<HistoryWriter>,
    pub again: bool,
    pub chunk_bytes: usize,
    pub bar: ProgressBar,
    pub runtime: tokio::runtime::Handle,
}

/// Nobody wants more.
struct Enough;

impl Reading {
    /// Reads all files. Blocking.
    pub fn read(self, pieces: &Sender<Piece>) -> anyhow::Result<()> {
        let mut seen = HashSet::new();
        for path in &self.files {
            let name = path.display().to_string();
            if let Some(Enough) = self.file(path, &mut seen, pieces).with_context(|| name)? {
                return Ok(());
            }
        }
        Ok(())
    }

    fn file(&self, path: &Path, seen: &mut HashSet<String>, pieces: &Sender<Piece>) -> anyhow::Result<Option<Enough>> {
        let file = EventsFile::open(path)?;
        anyhow::ensure!(file.size().is_some(), "it is no plain file, so it could not be gone on with after a kill");
        let identity = identity(File::open(path)?)?;
        let give = |piece: Piece| pieces.blocking_send(piece).is_ok();
        let standing = match seen.insert(identity.clone()) {
            true => self.runtime.block_on(self.writer.standing(&identity, self.again))?,
            false => Standing::Done,
        };
        let Standing::Open { app_id, progress } = standing else {
            self.bar.inc(file.size().unwrap_or(0));
            return Ok((!give(Piece::AlreadyIn)).then_some(Enough));
        };
        let source = Arc::new(Source { name: path.display().to_string(), app_id, progress });
        let skip = progress.and_then(|records| u64::try_from(records).ok()).unwrap_or(0);
        let go_on = match file.parquet() {
            Some(parquet) => self.rows(&source, parquet.try_clone()?, skip, &give)?,
            None => self.lines(&source, file, skip, &give)?,
        };
        Ok((!go_on || !give(Piece::End(source))).then_some(Enough))
    }

    fn lines(
        &self,
        source: &Arc<Source>,
        file: EventsFile,
        skip: u64,
        give: &dyn Fn(Piece) -> bool,
    ) -> anyhow::Result<bool> {
        let piece_bytes = PIECE_BYTES.min(self.chunk_bytes / PIECES_PER_CHUNK);
        let mut go_on = true;
        file.read(piece_bytes, &self.bar, &mut |batch| {
            if let Some((first_line, body)) = after(&batch, skip) {
                go_on = give(Piece::Lines(Arc::clone(source), first_line, body));
            }
            go_on
        })?;
        Ok(go_on)
    }

    fn rows(&self, source: &Arc<Source>, file: File, skip: u64, give: &dyn Fn(Piece) -> bool) -> anyhow::Result<bool> {
        let bytes = file.metadata()?.len();
        // Types as Parquet alone tells them: no dictionaries, no views that hold on to whole pages.
        let options = ArrowReaderOptions::new().with_skip_arrow_metadata(true);
        let builder = ParquetRecordBatchReaderBuilder::try_new_with_options(file, options);
        let builder = builder.context("not a readable Parquet file")?;
        let all = u64::try_from(builder.metadata().file_metadata().num_rows()).unwrap_or(0);
        let fit = ParquetCast::new(&self.stream, builder.schema())?;
        if !fit.missing.is_empty() {
            let columns = fit.missing.join(", ");
            self.bar.suspend(|| eprintln!("{}: without {columns}, which will be NULL", source.name));
        }
        let root = |column: &Column| column_of(builder.schema(), &column.name);
        let roots: Vec<usize> = self.stream.columns.iter().filter_map(root).collect();
        let mask = ProjectionMask::roots(builder.parquet_schema(), roots);
        let rows_of_chunk = self.chunk_bytes / (16 * self.stream.columns.len().max(1));
        let piece_rows = PIECE_ROWS.min((rows_of_chunk / PIECES_PER_CHUNK).max(64));
        let reader = builder.with_projection(mask).with_batch_size(piece_rows);
        let reader = reader.with_offset(usize::try_from(skip).unwrap_or(usize::MAX)).build()?;
        // The columns that are left have other places.
        let fit = Arc::new(ParquetCast::new(&self.stream, &arrow::array::RecordBatchReader::schema(&reader))?);
        let share = |rows: u64| if all == 0 { bytes } else { (bytes as f64 * (rows as f64 / all as f64)) as u64 };
        self.bar.inc(share(skip.min(all)));
        let mut done = skip;
        for rows in reader {
            let rows = rows?;
            let (first, count) = (done + 1, rows.num_rows() as u64);
            self.bar.inc(share(done + count) - share(done));
            done += count;
            if !give(Piece::Rows(Arc::clone(source), Arc::clone(&fit), first, rows)) {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

/// The lines of a batch after the first `skip` lines of the file, with the number of the first.
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

    #[test]
    fn going_on_begins_with_the_line_after_the_last_one_taken_in() {
        let batch = LineBatch { number: 0, first_line: 11, lines: 3, body: Bytes::from_static(b"a\nb\nc") };
        let rest = |skip| after(&batch, skip).map(|(line, body)| (line, String::from_utf8_lossy(&body).into_owned()));
        assert_eq!(rest(0), Some((11, "a\nb\nc".to_owned())));
        assert_eq!(rest(10), Some((11, "a\nb\nc".to_owned())));
        assert_eq!(rest(11), Some((12, "b\nc".to_owned())));
        assert_eq!(rest(12), Some((13, "c".to_owned())));
        assert_eq!(rest(13), None);
        assert_eq!(rest(99), None);
    }
}
