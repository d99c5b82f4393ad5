//! How is a layer read? The two doors through which serving and reconciliation see partial aggregates.

use std::sync::Arc;

use futures::future::BoxFuture;

use crate::handoff::HandoffError;
use crate::ids::{Offset, Partition};
use crate::ledger::Ledger;
use crate::partial::block::Part;
use crate::published::Published;
use crate::seam::Cut;
use crate::time::Micros;
use crate::version::BatchVersion;

/// One generation of one partition: what speed made of the events `from..to`.
#[derive(Debug, Clone)]
pub struct Generation {
    pub partition: Partition,
    pub from: Offset,
    pub to: Offset,
    pub part: Part,
    /// Events folded (also those a WHERE left out).
    pub folded: Ledger,
    /// Events left out because their window was too late.
    pub late: Ledger,
    /// Every accepted event of the partition before `to`, as the log counted them.
    pub accepted: Ledger,
}

/// The generations of a view from a cut on, at one moment.
#[derive(Debug, Clone)]
pub struct SpeedPin {
    /// Contiguous per partition, from the cut on.
    pub generations: Vec<Generation>,
    /// The smallest watermark of the stream's partitions; `None` while no event moved it.
    pub watermark: Option<Micros>,
    /// The largest event time that moved a watermark; `None` while there is none.
    pub latest_event: Option<Micros>,
}

/// Why speed could not be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SpeedError {
    /// The generations from the cut on have been dropped: a newer version was published. Pin again.
    #[error("the seam has moved on")]
    SeamMoved,
    #[error("the speed layer does not know the view")]
    UnknownView,
    #[error("the speed layer has stopped")]
    Stopped,
}

/// The speed layer, as a reader sees it.
pub trait SpeedReader: Send + Sync {
    /// The generations of the view with this definition, from `seam` on.
    fn pin<'a>(&'a self, published: &'a Published, seam: &'a Cut) -> BoxFuture<'a, Result<SpeedPin, SpeedError>>;

    /// Drops what lies before `seam`: a version up to there has been published.
    fn retire(&self, published: &Published, seam: &Cut);

    /// Stops folding for a definition that no longer answers, and drops what there is of it.
    fn forget(&self, published: &Published);
}

/// The batch layer, as a reader sees it.
pub trait BatchReader: Send + Sync {
    /// The rows of `version` with windows starting in `from..to` (microseconds), as immutable columns; loaded by date
    /// when first needed and kept within a memory budget. Rows outside the range may be among them.
    fn parts<'a>(
        &'a self,
        published: &'a Published,
        version: &'a BatchVersion,
        from: i64,
        to: i64,
    ) -> BoxFuture<'a, Result<Vec<Arc<Part>>, HandoffError>>;
}
