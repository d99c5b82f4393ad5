//! What becomes of a group's submissions on their way to the log? Neighbours share a frame; a cut parts two frames.

use arrow::array::RecordBatch;
use arrow::compute::concat_batches;
use arrow::datatypes::SchemaRef;
use arrow::error::ArrowError;
use shared::ids::ViewName;
use shared::seam::CutPoint;
use tokio::sync::oneshot;

use super::keys::{FrameMeta, KeyRecord};
use super::sequence::Sequenced;
use crate::log::Totals;

/// A frame to be written.
#[derive(Debug)]
pub(crate) struct Draft {
    parts: Vec<RecordBatch>,
    rows: usize,
    keys: Vec<KeyRecord>,
    /// Totals behind it.
    pub after: Totals,
}

impl Draft {
    /// All rows as one batch of the log schema.
    pub fn rows(&self, schema: &SchemaRef) -> Result<RecordBatch, ArrowError> {
        match self.parts.as_slice() {
            [one] => Ok(one.clone()),
            parts => concat_batches(schema, parts),
        }
    }

    /// The frame's meta: nothing without idempotency keys.
    pub fn meta(&mut self) -> Vec<u8> {
        if self.keys.is_empty() {
            return Vec::new();
        }
        let meta = FrameMeta { keys: std::mem::take(&mut self.keys) };
        serde_json::to_vec(&meta).expect("keys and numbers always have a JSON form")
    }
}

/// A cut that waits for the frames before it.
#[derive(Debug)]
pub(crate) struct PendingCut {
    pub view: ViewName,
    pub reply: oneshot::Sender<CutPoint>,
    /// Totals where it lies.
    pub at: Totals,
}

/// What a group consists of, in order.
#[derive(Debug)]
pub(crate) enum Part {
    Frame(Draft),
    Cut(PendingCut),
}

/// Puts sequenced submissions into frames.
#[derive(Debug)]
pub(crate) struct Group {
    rows_max: usize,
    parts: Vec<Part>,
    open: Option<Draft>,
}

impl Group {
    /// An empty group whose frames take neighbours in up to `rows_max` rows.
    pub fn new(rows_max: usize) -> Self {
        Group { rows_max, parts: Vec::new(), open: None }
    }

    /// Adds what was sequenced last; `after` are the totals behind it.
    pub fn add(&mut self, sequenced: Sequenced, after: Totals) {
        if sequenced.rows.is_none() && sequenced.key.is_none() {
            return;
        }
        let rows = sequenced.rows.as_ref().map_or(0, RecordBatch::num_rows);
        if self.open.as_ref().is_some_and(|open| open.rows > 0 && open.rows + rows > self.rows_max) {
            self.close();
        }
        let open = self.open.get_or_insert_with(|| Draft { parts: Vec::new(), rows: 0, keys: Vec::new(), after });
        open.parts.extend(sequenced.rows);
        open.rows += rows;
        open.keys.extend(sequenced.key);
        open.after = after;
    }

    /// Adds a cut behind everything so far.
    pub fn cut(&mut self, cut: PendingCut) {
        self.close();
        self.parts.push(Part::Cut(cut));
    }

    /// The frames and cuts, in order.
    pub fn finish(mut self) -> Vec<Part> {
        self.close();
        self.parts
    }

    fn close(&mut self) {
        self.parts.extend(self.open.take().map(Part::Frame));
    }
}
