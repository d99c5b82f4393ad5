//! Combines the submissions of a group into frames: neighbours share a frame, and a cut separates two frames.

use arrow::array::RecordBatch;
use arrow::compute::concat_batches;
use arrow::datatypes::SchemaRef;
use arrow::error::ArrowError;
use shared::ids::ViewName;
use shared::seam::CutPoint;
use tokio::sync::oneshot;

use super::keys::{FrameMeta, KeyRecord};
use super::sequence::SequencedSubmission;
use crate::log::{SourcePosition, Totals};

/// A frame to be written.
#[derive(Debug)]
pub(crate) struct FrameDraft {
    batches: Vec<RecordBatch>,
    rows: usize,
    keys: Vec<KeyRecord>,
    /// The position in the topic after the frame, if one of its submissions moved it.
    source: Option<SourcePosition>,
    /// Totals after the frame.
    pub after: Totals,
}

impl FrameDraft {
    /// All rows as one batch of the log schema.
    pub fn rows(&self, schema: &SchemaRef) -> Result<RecordBatch, ArrowError> {
        match self.batches.as_slice() {
            [one] => Ok(one.clone()),
            batches => concat_batches(schema, batches),
        }
    }

    /// The meta of the frame: empty without idempotency keys and position.
    pub fn meta(&mut self) -> Vec<u8> {
        if self.keys.is_empty() && self.source.is_none() {
            return Vec::new();
        }
        let meta = FrameMeta { keys: std::mem::take(&mut self.keys), source: self.source.take() };
        serde_json::to_vec(&meta).expect("keys and numbers always have a JSON form")
    }
}

/// A cut that waits for the frames before it.
#[derive(Debug)]
pub(crate) struct PendingCut {
    pub view: ViewName,
    pub reply: oneshot::Sender<CutPoint>,
    /// Totals at the cut.
    pub at: Totals,
}

/// An element of a group, in log order.
#[derive(Debug)]
pub(crate) enum GroupPart {
    Frame(FrameDraft),
    Cut(PendingCut),
}

/// Builds the frames of one group from sequenced submissions.
#[derive(Debug)]
pub(crate) struct GroupBuilder {
    rows_max: usize,
    parts: Vec<GroupPart>,
    open: Option<FrameDraft>,
}

impl GroupBuilder {
    /// Creates an empty group whose frames combine neighbours of up to `rows_max` rows.
    pub fn new(rows_max: usize) -> Self {
        GroupBuilder { rows_max, parts: Vec::new(), open: None }
    }

    /// Adds the submission sequenced last; `after` are the totals after it.
    pub fn add(&mut self, sequenced: SequencedSubmission, after: Totals) {
        if sequenced.rows.is_none() && sequenced.key.is_none() && sequenced.source.is_none() {
            return;
        }
        let rows = sequenced.rows.as_ref().map_or(0, RecordBatch::num_rows);
        if self.open.as_ref().is_some_and(|open| open.rows > 0 && open.rows + rows > self.rows_max) {
            self.close();
        }
        let empty = || FrameDraft { batches: Vec::new(), rows: 0, keys: Vec::new(), source: None, after };
        let open = self.open.get_or_insert_with(empty);
        open.batches.extend(sequenced.rows);
        open.rows += rows;
        open.keys.extend(sequenced.key);
        open.source = sequenced.source.or(open.source.take());
        open.after = after;
    }

    /// Adds a cut after everything so far.
    pub fn cut(&mut self, cut: PendingCut) {
        self.close();
        self.parts.push(GroupPart::Cut(cut));
    }

    /// Returns the frames and cuts, in order.
    pub fn finish(mut self) -> Vec<GroupPart> {
        self.close();
        self.parts
    }

    fn close(&mut self) {
        self.parts.extend(self.open.take().map(GroupPart::Frame));
    }
}
