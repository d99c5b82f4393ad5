//! When is there enough for a commit? Pieces gather until they take as many bytes as a chunk may; a chunk says how far each
//! file has come with it.

use intake::history::{Chunk, DONE, Step};

use super::decoding::{Decoded, Rejected};

/// Most files that end in one commit.
const STEPS_MAX: usize = 1_000;

/// What is committed together.
#[derive(Debug, Default)]
pub struct Gathered {
    pub chunk: Chunk,
    pub rejected: Vec<Rejected>,
}

/// Pieces on their way into a chunk.
#[derive(Debug)]
pub struct Gathering {
    chunk_bytes: usize,
    gathered: Gathered,
    bytes: usize,
    /// The file under way: its name, where the chunk before left it, and how far it is now.
    open: Option<Step>,
    /// Over all chunks.
    pub rows: u64,
    pub files: u64,
    pub already_in: u64,
}

impl Gathering {
    /// Nothing gathered yet.
    pub fn new(chunk_bytes: usize) -> Gathering {
        let (gathered, open) = (Gathered::default(), None);
        Gathering { chunk_bytes, gathered, bytes: 0, open, rows: 0, files: 0, already_in: 0 }
    }

    /// Takes in the next piece; says how many rows there were in all.
    pub fn add(&mut self, piece: Decoded) -> u64 {
        match piece {
            Decoded::Events { source, rows, rejected, records } => {
                let begin = || Step { app_id: source.app_id.clone(), from: source.progress, to: records };
                self.open.get_or_insert_with(begin).to = records;
                self.rows += rows.num_rows() as u64;
                self.bytes += rows.get_array_memory_size();
                if rows.num_rows() > 0 {
                    self.gathered.chunk.rows.push(rows);
                }
                self.bytes += rejected.iter().map(|reject| reject.text.len() + reject.reason.len()).sum::<usize>();
                self.gathered.rejected.extend(rejected);
            }
            Decoded::End(source) => {
                let open = self.open.take();
                let from = open.map_or(source.progress, |step| step.from);
                self.gathered.chunk.steps.push(Step { app_id: source.app_id.clone(), from, to: DONE });
                self.files += 1;
            }
            Decoded::AlreadyIn => self.already_in += 1,
        }
        self.rows
    }

    /// The chunk, if it is full.
    pub fn full(&mut self) -> Option<Gathered> {
        let is_full = self.bytes >= self.chunk_bytes || self.gathered.chunk.steps.len() >= STEPS_MAX;
        if is_full { self.rest() } else { None }
    }

    /// The chunk, if there is anything in it.
    pub fn rest(&mut self) -> Option<Gathered> {
        let mut gathered = std::mem::take(&mut self.gathered);
        self.bytes = 0;
        if let Some(open) = self.open.as_mut().filter(|open| open.from != Some(open.to)) {
            gathered.chunk.steps.push(open.clone());
            open.from = Some(open.to);
        }
        (!gathered.chunk.steps.is_empty()).then_some(gathered)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{ArrayRef, Int64Array, RecordBatch};

    use super::super::reading::Source;
    use super::*;

    #[test]
    fn each_chunk_goes_on_where_the_one_before_left_the_file() {
        let source =
            |name: &str, progress| Arc::new(Source { name: name.to_owned(), app_id: name.to_owned(), progress });
        let column: ArrayRef = Arc::new(Int64Array::from(vec![1; 100]));
        let rows = RecordBatch::try_from_iter([("n", column)]).expect("a column");
        let (a, b) = (source("a", Some(50)), source("b", None));
        let events = |source: &Arc<Source>, records| Decoded::Events {
            source: Arc::clone(source),
            rows: rows.clone(),
            rejected: Vec::new(),
            records,
        };
        let step = |app_id: &str, from, to| Step { app_id: app_id.to_owned(), from, to };
        let mut gathering = Gathering::new(1_000);
        let mut chunks = Vec::new();
        let pieces = [events(&a, 150), events(&a, 250), Decoded::End(Arc::clone(&a)), Decoded::AlreadyIn];
        let more = [events(&b, 100), Decoded::End(Arc::clone(&b)), Decoded::End(source("empty", None))];
        for piece in pieces.into_iter().chain(more) {
            gathering.add(piece);
            chunks.extend(gathering.full());
        }
        chunks.extend(gathering.rest());
        let steps: Vec<Vec<Step>> = chunks.into_iter().map(|gathered| gathered.chunk.steps).collect();
        let mut expected = vec![vec![step("a", Some(50), 250)]];
        expected.push(vec![step("a", Some(250), DONE), step("b", None, DONE), step("empty", None, DONE)]);
        // 100 numbers take a little more than 800 bytes: two pieces make a chunk.
        assert_eq!(steps, expected);
        assert_eq!((gathering.rows, gathering.files, gathering.already_in), (300, 3, 1));
    }
}
