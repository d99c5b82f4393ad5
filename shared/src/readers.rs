//! Defines the two traits through which serving and reconciliation read partial aggregates of a layer.

use std::sync::Arc;

use futures::future::BoxFuture;

use crate::failed_events::FailedEvents;
use crate::handoff::HandoffError;
use crate::ids::{Offset, Partition, ViewName};
use crate::ledger::Ledger;
use crate::partial::block::Part;
use crate::partial::query_budget::{Exceeded, QueryBudget};
use crate::partial::wanted::WantedRows;
use crate::published::PublishedView;
use crate::seam::Cut;
use crate::time::Micros;
use crate::time_range::TimeRange;
use crate::version::BatchVersion;
use crate::window::PaneStart;

/// The panes of a trailing window whose events the speed layer no longer holds: the window over present events does not reach
/// them. An interval, which may also contain panes that never had an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReleasedPanes {
    pub first: PaneStart,
    pub last: PaneStart,
}

impl ReleasedPanes {
    /// Returns the smallest interval that contains both.
    pub fn with(self, other: ReleasedPanes) -> ReleasedPanes {
        ReleasedPanes { first: self.first.min(other.first), last: self.last.max(other.last) }
    }

    /// Returns whether panes that start in `from..to` (microseconds) are among them.
    pub fn meet(self, from: i64, to: i64) -> bool {
        self.first.0 < to && self.last.0 >= from
    }
}

/// One generation of one partition: partial aggregates of its events `from..to`.
#[derive(Debug, Clone)]
pub struct Generation {
    pub partition: Partition,
    pub from: Offset,
    pub to: Offset,
    pub part: Part,
    /// Events folded, including those that a WHERE excluded.
    pub folded: Ledger,
    /// Late events, which speed excluded.
    pub late: Ledger,
    /// Events that are in no row because an expression failed for them.
    pub failed: Ledger,
    pub failed_events: Arc<FailedEvents>,
    /// Every accepted event of the partition before `to`, as the log counted them.
    pub accepted: Ledger,
    /// Panes that the part no longer has, although their events are in `folded`; `None`: it has all.
    pub released: Option<ReleasedPanes>,
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

/// The reason why speed could not be read.
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

/// The events that a pin has to include.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reach {
    /// All that are acknowledged when it is asked for: it waits for those that the workers have not received.
    Acknowledged,
    /// Those that the workers have received: for a reader that hears of each later event.
    Received,
}

/// The speed layer, as its readers see it.
///
/// ```
/// use shared::published::PublishedView;
/// use shared::readers::{SpeedError, SpeedReader};
///
/// /// The events of `published` that batch does not cover yet, whatever their event time.
/// async fn live_events(speed: &dyn SpeedReader, published: &PublishedView) -> Result<u64, SpeedError> {
///     // One pin for one query: generations are immutable, and they start at the version's seam.
///     let pin = speed.pin(published, &published.seam).await?;
///     Ok(pin.generations.iter().map(|generation| generation.folded.events + generation.late.events).sum())
/// }
/// ```
pub trait SpeedReader: Send + Sync {
    /// Returns the generations of the view with this definition, from `seam` on.
    fn pin<'a>(&'a self, published: &'a PublishedView, seam: &'a Cut) -> BoxFuture<'a, Result<SpeedPin, SpeedError>>;

    /// Returns the same with the wanted rows alone, if the view is watched, and with the events that `reach` says; ledgers
    /// and positions are those of the generations.
    fn pin_rows<'a>(
        &'a self,
        published: &'a PublishedView,
        seam: &'a Cut,
        wanted: &'a Arc<WantedRows>,
        reach: Reach,
    ) -> BoxFuture<'a, Result<SpeedPin, SpeedError>> {
        // More rows than wanted make no difference to the wanted ones, and neither do later events.
        let _ = (wanted, reach);
        self.pin(published, seam)
    }

    /// Drops generations before `seam`: a published version covers them.
    fn retire(&self, published: &PublishedView, seam: &Cut);

    /// Stops folding for a definition that is no longer served, and drops its generations.
    fn forget(&self, published: &PublishedView);
}

/// The reason why rows of a version could not be loaded.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BatchReadError {
    /// The query is over: its rows need more memory than it may use, its time is up, or its client has disconnected.
    #[error(transparent)]
    Exceeded(#[from] Exceeded),
    /// The files cannot be read.
    #[error(transparent)]
    Unavailable(#[from] HandoffError),
    /// A file of the version no longer exists.
    #[error(transparent)]
    Gone(#[from] FileGone),
}

/// A file of a view that the view's table lists and the store does not have.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "the file {path} of view {view} is gone: another program deleted it. Restore it from a backup, or compute its rows again with \
     a full run: trueup batch run {view} --full"
)]
pub struct FileGone {
    pub view: ViewName,
    pub path: String,
}

/// The batch layer, as its readers see it.
pub trait BatchReader: Send + Sync {
    /// Returns a lower bound on the memory, in bytes, that [`BatchReader::parts`] of the same range would add: nothing for
    /// rows that are in memory already. Reads no file.
    fn bytes_to_load(&self, published: &PublishedView, version: &BatchVersion, range: TimeRange) -> u64;

    /// Returns the rows of `version` with windows starting in `range`, as immutable columns. Rows outside the range may be
    /// among them. They are loaded by date when first needed, a few files at a time, and kept within a memory budget.
    ///
    /// Loaded rows count against `budget`: nothing is read if [`BatchReader::bytes_to_load`] exceeds it, and loading stops
    /// where the rows do.
    fn parts<'a>(
        &'a self,
        published: &'a PublishedView,
        version: &'a BatchVersion,
        range: TimeRange,
        budget: &'a QueryBudget,
    ) -> BoxFuture<'a, Result<Vec<Arc<Part>>, BatchReadError>>;
}

/// A requested state of the past.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Moment {
    /// A batch version, by its number.
    Version(i64),
    /// The version that was active at this time.
    Time(Micros),
}

/// Keeps files from being deleted until it is dropped. The owner of the files implements it.
pub trait FileLease: std::fmt::Debug + Send + Sync {}

/// An earlier batch version, served under the definition that computed it.
#[derive(Debug)]
pub struct PastVersion {
    pub published: Arc<PublishedView>,
    pub version: Arc<BatchVersion>,
    /// Keeps the version's files from being deleted until it is dropped.
    pub lease: Box<dyn FileLease>,
}

/// The reason why a state of the past cannot be served.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PastError {
    /// It is kept, but a file of it no longer exists.
    #[error(
        "version {version} of {view} is not available any more: its file {path} is gone, and past versions are not computed again"
    )]
    FileGone { view: ViewName, version: i64, path: String },
    /// There was one, but it is not kept any more.
    #[error(
        "{what} is no longer kept; the oldest kept version is {oldest}, published at {published_at}. \
         Future versions are kept longer with versions_kept in the view's WITH (...)"
    )]
    Gone { what: String, oldest: i64, published_at: Micros },
    #[error("there is no version {version} of {view}; the newest is {newest}")]
    Unknown { view: ViewName, version: i64, newest: i64 },
    #[error("{view} had no version then; the first, {first}, was published at {published_at}")]
    Before { view: ViewName, first: i64, published_at: Micros },
    #[error("{0} has no version yet: a run publishes the first")]
    Nothing(ViewName),
    #[error(
        "version {version} of {view} was computed by a definition that is no longer valid, since its stream \
         or the dialect has changed; GET /v1/views/{view}/versions lists the definition of each version"
    )]
    NotUnderstood { view: ViewName, version: i64 },
    #[error("{0}")]
    Unreadable(String),
}

/// The kept versions of views.
pub trait PastReader: Send + Sync {
    /// Returns the version of `view` that `moment` names.
    fn at<'a>(&'a self, view: &'a ViewName, moment: Moment) -> BoxFuture<'a, Result<PastVersion, PastError>>;
}
