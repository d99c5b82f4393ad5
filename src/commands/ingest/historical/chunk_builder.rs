//! Collects decoded pieces into chunks of a given size. A chunk is one commit; it records the progress of each file.

use intake::history::{Chunk as HistoryChunk, DONE, ProgressChange};

use super::decode::{DecodedPiece, RejectedRecord};

/// Maximum number of files that end in one commit.
const STEPS_MAX: usize = 1_000;

/// The events and progress of one commit, and the records that were rejected on the way.
#[derive(Debug, Default)]
pub struct Chunk {
    pub history: HistoryChunk,
    pub rejected: Vec<RejectedRecord>,
}

/// Collects pieces into chunks.
#[derive(Debug)]
pub struct ChunkBuilder {
    chunk_bytes: usize,
    chunk: Chunk,
    /// Size of the current chunk.
    bytes: usize,
    /// Progress of the current file since the previous chunk.
    open: Option<ProgressChange>,
    /// Rows of all chunks.
    pub rows: u64,
    /// Files read to their end.
    pub files: u64,
    /// Files skipped because they were imported before.
    pub already_imported: u64,
}

impl ChunkBuilder {
    /// Starts an empty chunk.
    pub fn new(chunk_bytes: usize) -> ChunkBuilder {
        let (chunk, open) = (Chunk::default(), None);
        ChunkBuilder { chunk_bytes, chunk, bytes: 0, open, rows: 0, files: 0, already_imported: 0 }
    }

    /// Adds the next piece. Returns the number of rows so far.
    pub fn add(&mut self, piece: DecodedPiece) -> u64 {
        match piece {
            DecodedPiece::Events { source, rows, rejected, records } => {
                let begin = || ProgressChange { app_id: source.app_id.clone(), from: source.progress, to: records };
                self.open.get_or_insert_with(begin).to = records;
                self.rows += rows.num_rows() as u64;
                self.bytes += rows.get_array_memory_size();
                if rows.num_rows() > 0 {
                    self.chunk.history.rows.push(rows);
                }
                self.bytes += rejected.iter().map(|reject| reject.text.len() + reject.reason.len()).sum::<usize>();
                self.chunk.rejected.extend(rejected);
            }
            DecodedPiece::End(source) => {
                let open = self.open.take();
                let from = open.map_or(source.progress, |step| step.from);
                self.chunk.history.changes.push(ProgressChange { app_id: source.app_id.clone(), from, to: DONE });
                self.files += 1;
            }
            DecodedPiece::AlreadyImported => self.already_imported += 1,
        }
        self.rows
    }

    /// Returns the current chunk if it is full, and starts a new one.
    pub fn take_full(&mut self) -> Option<Chunk> {
        let is_full = self.bytes >= self.chunk_bytes || self.chunk.history.changes.len() >= STEPS_MAX;
        if is_full { self.take_rest() } else { None }
    }

    /// Returns the current chunk if it is not empty, and starts a new one.
    pub fn take_rest(&mut self) -> Option<Chunk> {
        let mut chunk = std::mem::take(&mut self.chunk);
        self.bytes = 0;
        if let Some(open) = self.open.as_mut().filter(|open| open.from != Some(open.to)) {
            chunk.history.changes.push(open.clone());
            open.from = Some(open.to);
        }
        (!chunk.history.changes.is_empty()).then_some(chunk)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{ArrayRef, Int64Array, RecordBatch};

    use super::super::reader::Source;
    use super::*;

    #[test]
    fn each_chunk_continues_where_the_previous_one_ended() {
        let source =
            |name: &str, progress| Arc::new(Source { name: name.to_owned(), app_id: name.to_owned(), progress });
        let column: ArrayRef = Arc::new(Int64Array::from(vec![1; 100]));
        let rows = RecordBatch::try_from_iter([("n", column)]).expect("a column");
        let (a, b) = (source("a", Some(50)), source("b", None));
        let events = |source: &Arc<Source>, records| DecodedPiece::Events {
            source: Arc::clone(source),
            rows: rows.clone(),
            rejected: Vec::new(),
            records,
        };
        let step = |app_id: &str, from, to| ProgressChange { app_id: app_id.to_owned(), from, to };
        let mut builder = ChunkBuilder::new(1_000);
        let mut chunks = Vec::new();
        let pieces =
            [events(&a, 150), events(&a, 250), DecodedPiece::End(Arc::clone(&a)), DecodedPiece::AlreadyImported];
        let more = [events(&b, 100), DecodedPiece::End(Arc::clone(&b)), DecodedPiece::End(source("empty", None))];
        for piece in pieces.into_iter().chain(more) {
            builder.add(piece);
            chunks.extend(builder.take_full());
        }
        chunks.extend(builder.take_rest());
        let changes: Vec<Vec<ProgressChange>> = chunks.into_iter().map(|chunk: Chunk| chunk.history.changes).collect();
        let mut expected = vec![vec![step("a", Some(50), 250)]];
        expected.push(vec![step("a", Some(250), DONE), step("b", None, DONE), step("empty", None, DONE)]);
        // 100 numbers take a little more than 800 bytes: two pieces make a chunk.
        assert_eq!(changes, expected);
        assert_eq!((builder.rows, builder.files, builder.already_imported), (300, 3, 1));
    }
}
